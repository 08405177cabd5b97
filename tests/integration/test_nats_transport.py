"""The NATS transport against a real nats-server."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tenacity import wait_fixed

from postroom import Limits, Spooler
from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Relayed
from postroom.transports.base import Session
from postroom.transports.nats import NatsTransport
from tests.support.nats_server import NatsServer
from tests.support.signals import suspend

CONTENT = b"From: a@example.org\r\nSubject: hi\r\n\r\nhello\r\n"
PATIENCE = 20.0
USERS = """
authorization { users: [
  { user: "app", password: "right", permissions: { publish: { deny: ["letters.secret.>"] } } },
  { user: "test", password: "test" }
] }
"""


def delivery_to(*addresses: str, key: int = 1 << 40, content: bytes = CONTENT) -> Delivery:
    targets = tuple(Target(index, parse_address(address)) for index, address in enumerate(addresses))
    return Delivery(key, "app@example.org", targets, content)


def send(session: Session, delivery: Delivery) -> list[Outcome]:
    outcomes = session.send(delivery)
    assert isinstance(outcomes, Sequence)
    return list(outcomes)


def deliver(transport: NatsTransport, delivery: Delivery) -> list[Outcome]:
    session = transport.open()
    try:
        return send(session, delivery)
    finally:
        session.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsServer(folder, USERS, user="test", password="test") as running:
        running.make_stream()
        yield running


def transport_to(server: NatsServer, **options: object) -> NatsTransport:
    return NatsTransport(server.url, username="app", password=lambda: "right", **options)  # type: ignore[arg-type]  # options of all types


def test_the_stream_drops_a_second_copy(server: NatsServer) -> None:
    delivery = delivery_to("nats:letters.a", "nats:letters.a")
    (first, second) = deliver(transport_to(server), delivery)
    assert isinstance(first, Delivered)
    assert isinstance(second, Delivered)
    assert sorted([first.reply.text, second.reply.text]) == [
        "stream LETTERS, sequence 1",
        "stream LETTERS, sequence 2",
    ]
    in_doubt = tuple(replace(each, in_doubt=True, attempts=1) for each in delivery.targets)
    again = deliver(transport_to(server), replace(delivery, targets=in_doubt))
    assert all(isinstance(each, Delivered) for each in again)
    assert all(each.reply.text.startswith("stored before: ") for each in again)
    assert len(server.messages()) == 2


def test_headers_go_along(server: NatsServer) -> None:
    deliver(transport_to(server, body="text"), delivery_to("nats:letters.a"))
    (stored,) = server.messages()
    assert stored.payload == b"hello\n"
    assert stored.headers["Subject"] == "hi"
    assert stored.headers["Postroom-Sender"] == "app@example.org"


def test_each_target_gets_its_own_outcome(server: NatsServer) -> None:
    addresses = (
        "nats:letters.a",
        "nats:nobody.b",
        "nats:letters.secret.c",
        "nats:letters.*",
        "nats:letters.d",
    )
    fine, unrouted, secret, malformed, last = deliver(transport_to(server), delivery_to(*addresses))
    assert isinstance(fine, Delivered)
    assert isinstance(unrouted, Deferred)
    assert unrouted.reply.status == "4.4.4"
    assert isinstance(secret, Failed)
    assert secret.reply.status == "5.7.1"
    assert isinstance(malformed, Failed)
    assert malformed.reply.status == "5.1.3"
    assert isinstance(last, Delivered)
    assert [each.subject for each in server.messages()] == ["letters.a", "letters.d"]


def test_what_no_stream_takes_can_be_somebody_elses(server: NatsServer) -> None:
    (outcome,) = deliver(transport_to(server, no_stream="not_mine"), delivery_to("nats:nobody.b"))
    assert isinstance(outcome, NotMine)


def test_a_message_that_is_too_large(server: NatsServer) -> None:
    server.make_stream("SMALL", ("small.>",), max_msg_size=1000)
    session = transport_to(server).open()
    big = delivery_to("nats:letters.a", content=CONTENT + b"x" * 9_000_000)
    (outcome,) = send(session, big)
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.3.4"
    (outcome,) = send(session, delivery_to("nats:small.a", content=CONTENT + b"x" * 2000))
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.3.4"
    # The connection is none the worse for it.
    assert session.noop()
    assert isinstance(send(session, delivery_to("nats:small.a"))[0], Delivered)
    session.close()


def test_a_full_stream_is_temporary(server: NatsServer) -> None:
    server.make_stream("FULL", ("full.>",), max_msgs=1, discard="new")
    session = transport_to(server).open()
    assert isinstance(send(session, delivery_to("nats:full.a"))[0], Delivered)
    (outcome,) = send(session, delivery_to("nats:full.a", key=2 << 40))
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.3.1"
    assert not outcome.in_doubt
    session.close()


def test_core_nats_is_relayed_by_nobodys_word(server: NatsServer) -> None:
    transport = transport_to(server, jetstream=False)
    listened, unheard, secret = deliver(
        transport, delivery_to("nats:letters.a", "nats:nobody.b", "nats:letters.secret.c")
    )
    assert isinstance(listened, Relayed)
    assert isinstance(unheard, Relayed)
    assert unheard.reply.text == "published; nobody acknowledges"
    assert isinstance(secret, Failed)
    assert len(server.messages()) == 1


@pytest.mark.parametrize(("user", "password"), [("app", "wrong"), ("", ""), ("", "no-such-token")])
def test_a_refused_login_is_an_outage(server: NatsServer, user: str, password: str) -> None:
    with pytest.raises(TransportDown) as caught:
        NatsTransport(server.url, username=user, password=password).open()
    # The server hangs up at once: what it said before may be lost with the connection.
    assert caught.value.reason
    assert not password or password not in caught.value.reason


def test_a_token_is_a_password_without_a_name(tmp_path: Path) -> None:
    token = 'authorization { token: "abc" }'
    with NatsServer(tmp_path, token, token="abc") as server:
        server.make_stream()
        assert isinstance(
            deliver(NatsTransport(server.url, password="abc"), delivery_to("nats:letters.a"))[0], Delivered
        )


def test_a_server_that_does_not_answer_is_an_outage(server: NatsServer) -> None:
    suspend(server.pid)
    with pytest.raises(TransportDown, match="no answer in time"):
        transport_to(server, connect_timeout=0.2).open()
    server.kill()
    with pytest.raises(TransportDown, match=r"Connect call failed|refused"):
        transport_to(server).open()


def test_another_server_of_the_cluster_will_do(server: NatsServer) -> None:
    transport = NatsTransport(["nats://127.0.0.1:1", server.url], username="app", password="right")
    assert isinstance(deliver(transport, delivery_to("nats:letters.a"))[0], Delivered)


def test_no_acknowledgement_in_time_is_in_doubt(server: NatsServer) -> None:
    session = transport_to(server, ack_timeout=0.2).open()
    suspend(server.pid)
    (outcome,) = send(session, delivery_to("nats:letters.a"))
    assert isinstance(outcome, Deferred)
    assert outcome.in_doubt
    assert outcome.reply.status == "4.4.2"
    session.close()


def test_a_connection_that_was_lost_meanwhile_shows(server: NatsServer) -> None:
    session = transport_to(server).open()
    assert session.noop()
    server.kill()
    assert not session.noop()
    with pytest.raises(SessionStale):
        session.send(delivery_to("nats:letters.a"))
    session.close()
    session.close()


def test_no_loop_stays_behind(server: NatsServer) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        deliver(transport_to(server), delivery_to("nats:letters.a"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_the_spool_waits_for_the_server(server: NatsServer, tmp_path: Path) -> None:
    # A stop of the server costs nobody an attempt, and nothing arrives twice.
    limits = Limits(concurrency=2, recipients_per_delivery=10)
    transport = transport_to(server, limits=limits, probe=wait_fixed(0.2))
    server.kill()
    with Spooler(tmp_path / "spool.db", transports=[transport]) as spooler:
        receipt = spooler.submit(CONTENT, to=[f"nats:letters.{number}" for number in range(20)])
        until = time.monotonic() + PATIENCE
        while not any(row.status == "parked" for row in spooler.transports()):
            assert time.monotonic() < until, "the outage does not show"
            time.sleep(0.01)
        server.start()
        assert receipt.wait(PATIENCE).succeeded
    assert len(server.messages()) == 20
