"""The whole spooler in front of an SMTP server, in another process, that misbehaves in every way."""

import time
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, stop_never, wait_fixed

from postroom import Limits, RetryPolicy, Spooler, State
from postroom.events import TransportChanged
from postroom.status import MessageStatus
from postroom.transports.smtp import SmtpTimeouts, SmtpTransport
from tests.support.smtp_server import Script, SmtpServer
from tests.support.spooling import SENDER, Listener, message, settled, until

SHORT = SmtpTimeouts(
    connect=2,
    greeting=0.4,
    command=0.4,
    mail=0.4,
    rcpt=0.4,
    data=0.4,
    block=0.4,
    done=0.4,
    stall=0.3,
    noop=0.4,
)


def transport(
    server: SmtpServer, *, attempts: int = 3, timeouts: SmtpTimeouts | None = None
) -> SmtpTransport:
    return SmtpTransport(
        "127.0.0.1",
        server.port,
        security="none",
        retry=RetryPolicy(
            wait=wait_fixed(0.05), stop=stop_after_attempt(attempts) if attempts else stop_never
        ),
        limits=Limits(concurrency=2, recipients_per_delivery=100),
        probe=wait_fixed(0.05),
        timeouts=timeouts or SmtpTimeouts(),
    )


def send(spooler: Spooler, name: object = "m", to: str | list[str] = "ann@example.org") -> MessageStatus:
    return spooler.submit(message(name), sender=SENDER, to=to).wait(20)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "CONTENT"])
@pytest.mark.parametrize(
    ("reply", "state", "outcomes"),
    [
        ("550 5.7.1 never", State.FAILED, ["failed"]),
        ("451 4.3.0 later", State.EXPIRED, ["deferred", "deferred", "expired"]),
    ],
)
def test_a_refusal_of_each_command(
    tmp_path: Path, verb: str, reply: str, state: State, outcomes: list[str]
) -> None:
    with SmtpServer(tmp_path / "received.jsonl", script=Script(replies={verb: reply})) as server:
        with Spooler(tmp_path / "spool.db", [transport(server)]) as spooler:
            (recipient,) = send(spooler).recipients
            assert (recipient.state, recipient.attempts) == (state, len(outcomes))
            assert recipient.reply is not None
            assert (recipient.reply.code, recipient.reply.status) == (int(reply[:3]), reply[4:9])
            assert reply[10:] in recipient.reply.text
            assert [attempt.outcome for attempt in recipient.history] == outcomes
            settled(spooler)
        assert server.messages() == []


def test_each_recipient_has_its_own_answer(tmp_path: Path) -> None:
    answers = {"no@example.org": "550 5.1.1 unknown", "later@example.org": "450 4.2.0 mailbox busy"}
    with SmtpServer(tmp_path / "received.jsonl", script=Script(recipients=answers)) as server:
        relay = transport(server, attempts=0)
        # The server changes its mind from the next connection on.
        relay.limits = Limits(recipients_per_delivery=100, session_deliveries=1)
        with Spooler(tmp_path / "spool.db", [relay]) as spooler:
            to = ["yes@example.org", "no@example.org", "later@example.org", "too@example.org"]
            receipt = spooler.submit(message("m"), sender=SENDER, to=to)
            until(lambda: spooler.status(receipt.id).recipients[2].attempts >= 2, "a second attempt")
            server.script(Script())
            status = receipt.wait(20)
            states = [recipient.state for recipient in status.recipients]
            assert states == [State.RELAYED, State.FAILED, State.RELAYED, State.RELAYED]
            assert status.recipients[0].attempts == 1
            assert status.recipients[2].attempts >= 3
            settled(spooler)
        received = [sent.recipients for sent in server.messages()]
        assert received == [("yes@example.org", "too@example.org"), ("later@example.org",)]


@pytest.mark.parametrize(
    ("verb", "when"),
    [
        *product(
            ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"], ["drop_before", "drop_after", "silent"]
        ),
        ("MIDDATA", "drop_before"),
    ],
)
def test_a_connection_that_breaks_in_each_phase(tmp_path: Path, verb: str, when: str) -> None:
    with SmtpServer(tmp_path / "received.jsonl") as server:
        server.script(Script(**{when: verb, "sessions": 2}))  # type: ignore[arg-type] # by name
        with Spooler(tmp_path / "spool.db", [transport(server, attempts=0, timeouts=SHORT)]) as spooler:
            receipts = [spooler.submit(message(n), sender=SENDER, to=f"{n}@example.org") for n in range(6)]
            for receipt in receipts:
                assert receipt.wait(20).succeeded
            settled(spooler)
        arrived = Counter(sent.id for sent in server.messages())
        assert set(arrived) == {str(n) for n in range(6)}
        # Only where the answer to the content was lost, the message may have been taken.
        twice = sum(n - 1 for n in arrived.values())
        assert twice <= (2 if verb == "CONTENT" and when != "drop_after" else 0)


def test_a_slow_server(tmp_path: Path) -> None:
    delays = dict.fromkeys(["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"], 0.1)
    with SmtpServer(tmp_path / "received.jsonl", script=Script(delays=delays)) as server:
        with Spooler(tmp_path / "spool.db", [transport(server, timeouts=SHORT)]) as spooler:
            status = send(spooler)
            assert status.succeeded
            assert status.recipients[0].attempts == 1
            settled(spooler)
        assert len(server.messages()) == 1


def test_a_server_that_closes_with_421_costs_nobody_an_attempt(tmp_path: Path) -> None:
    closing = Script(replies={"MAIL": "421 4.3.2 closing"})
    with (
        SmtpServer(tmp_path / "received.jsonl", script=closing) as server,
        Spooler(tmp_path / "spool.db", [transport(server, attempts=1)]) as spooler,
    ):
        receipt = spooler.submit(message("m"), sender=SENDER, to="ann@example.org")
        until(lambda: spooler.transports()[0].status in {"parked", "probing"}, "an outage")
        assert "421" in spooler.transports()[0].reason
        server.script(Script())
        (recipient,) = receipt.wait(20).recipients
        assert (recipient.state, recipient.attempts, len(recipient.history)) == (State.RELAYED, 1, 1)
        settled(spooler)


def test_an_outage_parks_the_transport_and_costs_nobody_an_attempt(tmp_path: Path) -> None:
    listener = Listener()
    server = SmtpServer(tmp_path / "received.jsonl")
    server.start()
    server.stop()
    down = transport(server, attempts=1)
    down.limits = Limits(concurrency=4)
    down.probe = wait_fixed(0.3)
    with Spooler(tmp_path / "spool.db", [down]) as spooler:
        spooler.subscribe(listener, events={TransportChanged})
        receipts = [spooler.submit(message(n), sender=SENDER, to=f"{n}@example.org") for n in range(100)]
        parked = listener.wait(TransportChanged, lambda event: event.status == "parked")
        assert parked.transport == "smtp"
        assert parked.reason
        assert parked.until is not None
        until(lambda: spooler.transports()[0].status == "parked", "a parked transport")
        (explanation,) = spooler.explain(receipts[50].id)
        if explanation.gate == "transport":
            assert explanation.until is not None
            assert explanation.until > time.time() - 1
            assert "parked" in explanation.rule
        # Several probes fail; nobody is charged.
        listener.wait(TransportChanged, lambda event: event.status == "probing")
        for receipt in receipts:
            (recipient,) = spooler.status(receipt.id).recipients
            assert (recipient.state, recipient.attempts, recipient.history) == (State.QUEUED, 0, ())
        server.restart()
        try:
            for receipt in receipts:
                (recipient,) = receipt.wait(20).recipients
                assert (recipient.state, recipient.attempts) == (State.RELAYED, 1)
            settled(spooler)
            assert Counter(sent.id for sent in server.messages()) == {str(n): 1 for n in range(100)}
        finally:
            server.stop()
        changes = [event.status for event in listener.events if isinstance(event, TransportChanged)]
        assert changes[0] == "parked"
        assert changes[-3:] == ["probing", "ramping", "up"]


def test_a_server_killed_and_restarted_in_mid_traffic(tmp_path: Path) -> None:
    with SmtpServer(tmp_path / "received.jsonl") as server:
        relay = transport(server, attempts=0)
        with Spooler(tmp_path / "spool.db", [relay]) as spooler:
            names: list[str] = []
            for life in range(3):
                for n in range(60):
                    names.append(f"{life}-{n}")
                    spooler.submit(message(names[-1]), sender=SENDER, to="ann@example.org")
                server.kill()
                server.restart()
            settled(spooler)
            assert spooler.tally().states["smtp", State.RELAYED] == len(names)
        arrived = Counter(sent.id for sent in server.messages())
        assert set(arrived) == set(names)
        # Two couriers, three kills: no more can have been taken without our learning of it.
        assert sum(n - 1 for n in arrived.values()) <= 2 * 3
