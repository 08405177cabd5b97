"""A signed return path for each recipient, on the wire."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import TransportDown
from postroom.options import MessageOptions
from postroom.outcomes import Deferred, Failed, Outcome, Relayed
from postroom.tokens import Tokens
from postroom.transports.base import Outcomes
from postroom.transports.smtp import SmtpTransport
from tests.support.smtp_server import FEATURES, Script, SmtpServer

TOKENS = Tokens(bytes(range(32)), "bounces+{token}@example.org")
ANN, BOB = Address("smtp", "ann@example.org"), Address("smtp", "bob@example.net")
CONTENT = b"Subject: verp\r\n\r\nHi\r\n"
DELIVERY = Delivery(77, "app@example.org", (Target(0, ANN), Target(5, BOB)), CONTENT)


def outcomes_of(said: Outcomes) -> tuple[Outcome, ...]:
    return tuple(said) if isinstance(said, Sequence) else (said,)


def send(server: SmtpServer, delivery: Delivery, bounces: Tokens | None = TOKENS) -> tuple[Outcome, ...]:
    transport = SmtpTransport("127.0.0.1", server.port, security="none", bounces=bounces)
    session = transport.open()
    try:
        return outcomes_of(session.send(delivery))
    finally:
        session.close()


def mail_lines(server: SmtpServer) -> list[str]:
    return [line for line in server.commands() if line.startswith("MAIL")]


def test_each_recipient_has_a_return_path_and_the_message_is_not_changed(tmp_path: Path) -> None:
    script = Script(transcript=True, keep_content=True, recipients={ANN.value: "550 5.1.1 who?"})
    with SmtpServer(tmp_path / "r.jsonl", script=script) as server:
        refused, relayed = send(server, DELIVERY)
        lines = mail_lines(server)
        (message,) = server.messages()
    assert isinstance(refused, Failed)
    assert isinstance(relayed, Relayed)
    senders = [line.partition("<")[2].partition(">")[0] for line in lines]
    assert [TOKENS.read(sender) for sender in senders] == [(77, 0), (77, 5)]
    assert not any("ENVID" in line for line in lines)
    assert message.sender == senders[1]
    assert message.recipients == (BOB.value,)


def test_a_server_that_offers_dsn_gets_a_signed_envid_unless_the_sender_gave_one(tmp_path: Path) -> None:
    script = Script(features=[*FEATURES, "DSN"], transcript=True)
    own = Delivery(
        77, "app@example.org", (Target(0, ANN),), CONTENT, options=MessageOptions(envid="mine", ret="hdrs")
    )
    with SmtpServer(tmp_path / "r.jsonl", script=script) as server:
        send(server, DELIVERY)
        send(server, own)
        signed, again, given = mail_lines(server)
    for line in (signed, again):
        assert TOKENS.read_envid(line.partition("ENVID=")[2]) == 77
    assert given.endswith("RET=HDRS ENVID=mine")


@pytest.mark.parametrize("bounces", [TOKENS, None])
def test_the_null_reverse_path_stays_and_without_bounces_nothing_changes(
    tmp_path: Path, bounces: Tokens | None
) -> None:
    sender = "" if bounces is not None else "app@example.org"
    null = Delivery(77, sender, DELIVERY.targets, CONTENT)
    script = Script(features=[*FEATURES, "DSN"], transcript=True)
    with SmtpServer(tmp_path / "r.jsonl", script=script) as server:
        assert [type(outcome) for outcome in send(server, null, bounces)] == [Relayed, Relayed]
        assert mail_lines(server) == [f"MAIL FROM:<{sender}> SIZE={len(CONTENT)}"]


def test_couriers_get_one_recipient_at_a_time() -> None:
    assert SmtpTransport("127.0.0.1", bounces=TOKENS).limits.recipients_per_delivery == 1
    assert SmtpTransport("127.0.0.1").limits.recipients_per_delivery == 100


def test_a_server_that_closes_in_between_is_connected_to_again(tmp_path: Path) -> None:
    with SmtpServer(tmp_path / "r.jsonl", script=Script(session_messages=1)) as server:
        assert [type(outcome) for outcome in send(server, DELIVERY)] == [Relayed, Relayed]
        assert [message.recipients for message in server.messages()] == [(ANN.value,), (BOB.value,)]


def test_an_outage_in_between_puts_the_others_off_and_loses_no_outcome(tmp_path: Path) -> None:
    script = Script(recipients={BOB.value: "421 4.3.2 closing"})
    with SmtpServer(tmp_path / "r.jsonl", script=script) as server:
        relayed, deferred = send(server, DELIVERY)
        assert isinstance(relayed, Relayed)
        assert isinstance(deferred, Deferred)
        server.script(Script(replies={"MAIL": "421 4.3.2 closing"}))
        with pytest.raises(TransportDown):
            send(server, DELIVERY)
