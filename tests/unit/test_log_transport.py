import logging

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.outcomes import Delivered
from postroom.transports.log import LogTransport

TARGETS = (Target(0, Address("smtp", "ann@example.org")), Target(1, Address("smtp", "bob\r\nforged")))
DELIVERY = Delivery(5, "app@example.org", TARGETS, b"secret body")


def test_one_line_and_structured_extras(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "postroom.transports.log")
    session = LogTransport(address_types={"smtp"}).open()
    assert session.send(DELIVERY) == Delivered()
    (record,) = caplog.records
    assert record.getMessage() == (
        "0000000000005 from <app@example.org> to smtp:ann@example.org, smtp:bob forged, 11 octets"
    )
    assert record.__dict__["postroom_message_id"] == "0000000000005"
    assert record.__dict__["postroom_sender"] == "app@example.org"
    assert record.__dict__["postroom_recipients"] == ["smtp:ann@example.org", "smtp:bob\r\nforged"]
    assert record.__dict__["postroom_size"] == 11


def test_logger_and_level_are_chosen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "app.mail")
    LogTransport(logger="app.mail").open().send(DELIVERY)
    assert caplog.records == []
    LogTransport(logger="app.mail", level=logging.WARNING).open().send(DELIVERY)
    assert [record.name for record in caplog.records] == ["app.mail"]
