"""DSN parameters (RFC 3461) to a server in another process that takes them: aiosmtpd, and the scripted one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Delivered, Failed, Outcome, Relayed
from postroom.transports.smtp import LmtpTransport, SmtpTransport
from tests.support.smtp_server import FEATURES, Script, SmtpServer

CONTENT = b"Subject: x\r\n\r\nbody\r\n"
ANN, BOB, EVE = (Address("smtp", f"{name}@example.org") for name in ("ann", "bob", "eve+news"))


@pytest.fixture
def aiosmtpd(tmp_path: Path) -> Iterator[SmtpServer]:
    with SmtpServer(tmp_path / "r.jsonl", options=("--engine", "aiosmtpd", "--dsn")) as running:
        yield running


def send(
    server: SmtpServer, delivery: Delivery, *, dsn: bool = True, outcome: type[Relayed | Delivered] = Relayed
) -> list[Outcome]:
    relay = SmtpTransport("127.0.0.1", server.port, security="none", dsn=dsn, outcome=outcome)
    session = relay.open()
    try:
        result = session.send(delivery)
    finally:
        session.close()
    return list(result) if isinstance(result, Sequence) else [result]


def test_what_the_sender_wants_to_be_told_is_passed_on(aiosmtpd: SmtpServer) -> None:
    targets = (
        Target(0, ANN),
        Target(1, BOB, options=RecipientOptions(report="")),
        Target(2, EVE, options=RecipientOptions(report="success,delay")),
    )
    options = MessageOptions(ret="hdrs", envid="order 4711+a")
    delivery = Delivery(1, "app@example.org", targets, CONTENT, options=options)
    assert send(aiosmtpd, delivery) == [
        Relayed(outcome.reply, reports=number == 2)
        for number, outcome in enumerate(send(aiosmtpd, delivery))
        if not isinstance(outcome, Failed)
    ]
    for message in aiosmtpd.messages():
        assert message.recipients == tuple(target.address.value for target in targets)
        assert message.dsn == [
            {"RET": "HDRS", "ENVID": "order+204711+2Ba"},
            {"NOTIFY": "FAILURE", "ORCPT": "rfc822;ann@example.org"},
            {"NOTIFY": "NEVER", "ORCPT": "rfc822;bob@example.org"},
            {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;eve+2Bnews@example.org"},
        ]


def test_an_ordinary_message_says_only_that_failures_count(aiosmtpd: SmtpServer) -> None:
    (outcome,) = send(aiosmtpd, Delivery(1, "app@example.org", (Target(0, ANN),), CONTENT))
    assert isinstance(outcome, Relayed)
    assert not outcome.reports
    (message,) = aiosmtpd.messages()
    assert message.dsn == [{}, {"NOTIFY": "FAILURE", "ORCPT": "rfc822;ann@example.org"}]


def test_internationalised_recipients(aiosmtpd: SmtpServer) -> None:
    jose = Address("smtp", "josé=x@example.org")
    targets = (
        Target(0, jose),
        Target(1, BOB, options=RecipientOptions(original=jose)),
        Target(2, ANN, options=RecipientOptions(orcpt="rfc822;b\u00fcro@example.org")),
    )
    assert len(send(aiosmtpd, Delivery(1, "app@example.org", targets, CONTENT, smtputf8=True))) == 3
    (message,) = aiosmtpd.messages()
    assert [parameters.get("ORCPT") for parameters in message.dsn] == [
        None,
        r"utf-8;josé\x{3D}x@example.org",
        r"utf-8;jos\x{E9}\x{3D}x@example.org",
        r"utf-8;b\x{FC}ro@example.org",
    ]


def test_without_the_extension_nothing_is_said(tmp_path: Path) -> None:
    script = Script(transcript=True)
    options = MessageOptions(ret="full", envid="e1")
    delivery = Delivery(1, "app@example.org", (Target(0, ANN),), CONTENT, report="success", options=options)
    with SmtpServer(tmp_path / "r.jsonl", script=script) as server:
        (outcome,) = send(server, delivery)
        assert isinstance(outcome, Relayed)
        assert not outcome.reports
        server.script(Script(features=[*FEATURES, "DSN"], transcript=True))
        (declined,) = send(server, delivery, dsn=False)
        (taken,) = send(server, delivery)
        assert isinstance(declined, Relayed)
        assert isinstance(taken, Relayed)
        assert (declined.reports, taken.reports) == (False, True)
        lines = [line for line in server.commands() if line[:4] in {"MAIL", "RCPT"}]
    assert lines == [
        "MAIL FROM:<app@example.org> SIZE=20",
        "RCPT TO:<ann@example.org>",
        "MAIL FROM:<app@example.org> SIZE=20",
        "RCPT TO:<ann@example.org>",
        "MAIL FROM:<app@example.org> SIZE=20 RET=FULL ENVID=e1",
        "RCPT TO:<ann@example.org> NOTIFY=SUCCESS ORCPT=rfc822;ann@example.org",
    ]


def test_who_is_refused_or_delivered_to_for_good_is_not_reported_on_by_the_server(tmp_path: Path) -> None:
    script = Script(features=[*FEATURES, "DSN"], recipients={BOB.value: "550 5.1.1 who?"})
    delivery = Delivery(1, "a@example.org", (Target(0, ANN), Target(1, BOB)), CONTENT, report="success")
    with SmtpServer(tmp_path / "r.jsonl", script=script) as server:
        relayed, refused = send(server, delivery)
        last, _ = send(server, delivery, outcome=Delivered)
    assert isinstance(relayed, Relayed)
    assert relayed.reports
    assert isinstance(refused, Failed)
    assert isinstance(last, Delivered)


def test_lmtp(tmp_path: Path) -> None:
    script = Script(features=[*FEATURES, "DSN"], transcript=True)
    with SmtpServer(tmp_path / "r.jsonl", script=script, lmtp=True) as server:
        session = LmtpTransport("127.0.0.1", server.port).open()
        outcome = session.send(Delivery(1, "a@example.org", (Target(0, ANN),), CONTENT, report="success"))
        session.close()
        assert isinstance(outcome, Delivered)
        assert any("NOTIFY=SUCCESS" in line for line in server.commands())
