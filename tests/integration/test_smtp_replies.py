"""What replies of a server in another process come to: greylisting, rows of one's own, the record."""

import smtplib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Failed, Outcome
from postroom.replies import ReplyRow, Verdict
from postroom.transports.smtp import SmtpTransport
from tests.support.smtp_server import FEATURES, Script, SmtpServer

UNPIPELINED = [feature for feature in FEATURES if feature != "PIPELINING"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SmtpServer]:
    with SmtpServer(tmp_path / "received.jsonl") as running:
        yield running


def transport(server: SmtpServer) -> SmtpTransport:
    return SmtpTransport("127.0.0.1", server.port, security="none")


def delivery(*recipients: str, attempts: int = 0) -> Delivery:
    targets = tuple(Target(index, Address("smtp", value), attempts) for index, value in enumerate(recipients))
    return Delivery(1, "app@example.org", targets, b"Subject: x\r\n\r\nbody\r\n")


def kinds(outcomes: Sequence[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


def test_a_connection_that_breaks_goes_on_record_with_its_host(server: SmtpServer) -> None:
    server.script(Script(features=UNPIPELINED, drop_before="RCPT"))
    session = transport(server).open()
    outcome = session.send(delivery("a@example.org"))
    session.close()
    assert isinstance(outcome, Deferred)
    assert outcome.reply.remote == f"127.0.0.1:{server.port}"
    assert outcome.reply.tls == ""


@pytest.mark.parametrize("features", [FEATURES, UNPIPELINED], ids=["pipelined", "stepwise"])
def test_greylisting_is_told_from_other_refusals(server: SmtpServer, features: list[str]) -> None:
    server.script(
        Script(
            features=features,
            recipients={
                "new@example.org": "450 4.2.0 Greylisted, please try again in 7 minutes",
                "policy@example.org": "451 4.7.1 not now",
                "full@example.org": "452 4.2.2 full",
            },
        )
    )
    session = transport(server).open()
    new, policy, full = outcomes_of(
        session.send(delivery("new@example.org", "policy@example.org", "full@example.org"))
    )
    (later,) = outcomes_of(session.send(delivery("policy@example.org", attempts=1)))
    session.close()
    assert isinstance(new, Deferred)
    assert (new.greylisted, new.retry_after) == (True, 420.0)
    assert isinstance(policy, Deferred)
    assert (policy.greylisted, policy.retry_after) == (True, None)
    assert isinstance(full, Deferred)
    assert not full.greylisted
    assert isinstance(later, Deferred)
    assert not later.greylisted


def outcomes_of(result: Outcome | Sequence[Outcome]) -> list[Outcome]:
    return list(result) if isinstance(result, Sequence) else [result]


@pytest.mark.parametrize("features", [FEATURES, UNPIPELINED], ids=["pipelined", "stepwise"])
def test_rows_of_ones_own_decide_first(server: SmtpServer, features: list[str]) -> None:
    own = SmtpTransport(
        "127.0.0.1",
        server.port,
        security="none",
        replies=[
            ReplyRow(Verdict.FAILED, codes="450", text="no such tenant"),
            ReplyRow(Verdict.DESTINATION_DOWN, given="4.4.1", retry_after=120),
            ReplyRow(Verdict.TRANSPORT_DOWN, text="quota of the day", retry_after=3600),
            ReplyRow(Verdict.DESTINATION_DOWN, codes="421", text="example.net"),
        ],
    )
    assert [row.means for row in own.reply_table()[:4]] == [row.means for row in own.replies]
    server.script(
        Script(
            features=features,
            recipients={
                "t@example.org": "450 no such tenant",
                "d@example.org": "451 4.4.1 no MX answers",
                "q@example.org": "452 quota of the day is used up",
                "c@example.net": "421 4.3.2 no connection to example.net",
            },
        )
    )
    session = own.open()
    tenant, down, _ = outcomes_of(session.send(delivery("t@example.org", "d@example.org", "a@example.org")))
    assert isinstance(tenant, Failed)
    assert isinstance(down, Deferred)
    assert (down.destination_down, down.retry_after) == (True, 120)
    with pytest.raises(TransportDown) as caught:
        session.send(delivery("q@example.org"))
    assert caught.value.retry_after == 3600
    assert not session.usable
    session.close()
    session = own.open()
    # What was refused for good must not be tried again because of what befell the next recipient.
    mixed = outcomes_of(session.send(delivery("t@example.org", "q@example.org", "a@example.org")))
    assert kinds(mixed) == ["Failed", "Deferred", "Deferred"]
    assert not session.usable
    session.close()
    session = own.open()
    (closed,) = outcomes_of(session.send(delivery("c@example.net")))
    assert isinstance(closed, Deferred)
    assert closed.destination_down
    assert not session.usable
    session.close()
    assert server.messages()[0].recipients == ("a@example.org",)
    assert len(server.messages()) == 1


def test_a_login_that_fails_may_be_given_a_longer_pause(tmp_path: Path) -> None:
    with SmtpServer(tmp_path / "r.jsonl", options=("--engine", "aiosmtpd", "--auth", "app:right")) as server:
        wrong = SmtpTransport(
            "127.0.0.1",
            server.port,
            security="none",
            username="app",
            password="wrong",
            replies=[
                ReplyRow(Verdict.TRANSPORT_DOWN, exception=smtplib.SMTPAuthenticationError, retry_after=900)
            ],
        )
        with pytest.raises(TransportDown, match="authentication refused") as caught:
            wrong.open()
        assert caught.value.retry_after == 900


def test_a_row_that_can_never_match_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"replies\[0\]"):
        SmtpTransport("mail.example.org", replies=[ReplyRow(Verdict.FAILED, codes="2..")])
