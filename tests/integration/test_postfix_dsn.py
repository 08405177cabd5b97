"""A real Postfix as relay takes our DSN parameters and reports by them (RFC 3461, 3464, 6533)."""

import email
import email.policy
import time
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Relayed
from postroom.transports.smtp import SmtpTransport
from tests.support.postfix import Postfix
from tests.support.smtp_server import Script, SmtpServer

SECONDS = 30.0


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[SmtpServer]:
    script = Script(keep_content=True, recipients={"no@example.org": "550 5.1.1 who?"})
    with SmtpServer(tmp_path / "behind.jsonl", script=script) as running:
        yield running


@pytest.fixture
def relay(behind: SmtpServer) -> Iterator[int]:
    with Postfix(relayhost=f"[127.0.0.1]:{behind.port}") as running:
        yield running.port


def reports(behind: SmtpServer, count: int) -> list[EmailMessage]:
    """Return the messages from the null sender, once there are so many."""
    deadline = time.monotonic() + SECONDS
    while True:
        received = [message for message in behind.messages() if not message.sender]
        if len(received) >= count:
            break
        assert time.monotonic() < deadline, f"{len(received)} of {count} reports"
        time.sleep(0.05)
    assert {message.recipients for message in received} == {("app@example.org",)}
    return [email.message_from_bytes(message.content, policy=email.policy.SMTPUTF8) for message in received]


def test_postfix_reports_as_we_asked(relay: int, behind: SmtpServer) -> None:
    jose = Address("smtp", "josé=x@example.org")
    targets = (
        Target(0, Address("smtp", "ann@example.org")),
        Target(1, Address("smtp", "eve+news@example.org"), options=RecipientOptions(report="success")),
        Target(
            2,
            Address("smtp", "bob@example.org"),
            options=RecipientOptions(report="success", original=jose),
        ),
        Target(3, Address("smtp", "no@example.org"), options=RecipientOptions(report="")),
    )
    options = MessageOptions(ret="hdrs", envid="order 4711+a")
    content = b"Subject: x\r\nMessage-ID: <one@example.org>\r\n\r\na secret body\r\n"
    session = SmtpTransport("127.0.0.1", relay, security="none").open()
    outcomes = session.send(Delivery(1, "app@example.org", targets, content, options=options))
    session.close()
    assert isinstance(outcomes, Sequence)
    assert [outcome.reports for outcome in outcomes if isinstance(outcome, Relayed)] == [
        False,
        True,
        True,
        False,
    ]
    (report,) = reports(behind, 1)
    text = report.as_bytes().decode()
    assert report.get_content_type() == "multipart/report"
    assert "Original-Envelope-Id: order 4711+a" in text
    assert "Original-Recipient: rfc822;eve+news@example.org" in text
    # It undid the ASCII form of RFC 6533 that we sent, as no address of the transaction needed SMTPUTF8.
    assert "Original-Recipient: utf-8;josé=x@example.org" in text
    assert text.count("Action: relayed") == 2
    assert "ann@example.org" not in text
    assert "no@example.org" not in text, "NOTIFY=NEVER"
    assert "a secret body" not in text, "RET=HDRS"
