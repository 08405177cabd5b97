"""Rows of docs/mapi.md that are not shown by the tests of a single part."""

from email import message_from_bytes
from pathlib import Path

from postroom import MemoryTransport, Spooler, State
from postroom.delivery import Delivery
from postroom.outcomes import NotMine
from postroom.transports.base import Outcomes
from tests.support.spooling import SENDER, message, settled, until


def test_when_everybody_declines_the_sender_is_told(tmp_path: Path) -> None:
    def decline(_delivery: Delivery) -> Outcomes:
        return NotMine()

    first, second = (MemoryTransport(name=name, answer=decline) for name in ("first", "second"))
    mail = MemoryTransport(name="mail", address_types={"smtp"})
    with Spooler(tmp_path / "spool.db", [first, second, mail]) as spooler:
        receipt = spooler.submit(message("m"), sender=SENDER, to="memory:ann")
        (recipient,) = receipt.wait(30).recipients
        assert recipient.state is State.FAILED
        until(lambda: mail.count > 0, "the report")
        settled(spooler)
    (report,) = mail.deliveries
    assert (report.sender, [str(target.address) for target in report.targets]) == ("", [f"smtp:{SENDER}"])
    status = message_from_bytes(report.content).get_payload(1)
    assert "Action: failed" in str(status)
    assert "Status: 5.1.2" in str(status)
