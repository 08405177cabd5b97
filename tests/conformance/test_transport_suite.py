"""The transports' suite notices what it is there to notice: each transport here is broken in one way."""

import socket
import socketserver
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Reply
from postroom.testing import transports as suite
from postroom.testing.transports import SAMPLES, Arrival, TransportConformance, TransportHarness
from postroom.transports.base import Outcomes, Session, Transport
from postroom.transports.memory import MemoryTransport

Answer = Callable[[Delivery], Outcomes]


class BrokenHarness(TransportHarness):
    secrets = ("hidden",)
    can_fail = True
    can_hang = True

    def __init__(
        self, answer: Answer | None = None, *, damage: Callable[[bytes], bytes] = bytes, lose: bool = False
    ) -> None:
        self.transport = MemoryTransport(answer=answer)
        self.damage = damage
        self.lose = lose

    def make(self) -> Transport:
        return self.transport

    def address(self, number: int) -> Address:
        return parse_address(f"memory:box{number}")

    def arrived(self) -> list[Arrival]:
        all_of_it = [
            (str(target.address), self.damage(delivery.content))
            for delivery in self.transport.deliveries
            for target in delivery.targets
        ]
        return all_of_it[:-1] if self.lose else all_of_it

    def stop_peer(self) -> None:
        """It answers on."""

    def hang_peer(self) -> None:
        """It answers on."""


def raising(_: Delivery) -> Outcomes:
    raise OSError("not caught")


def changing(delivery: Delivery) -> Outcomes:
    object.__setattr__(delivery, "content", b"")
    return Delivered()


def fails(check: Callable[[TransportConformance, TransportHarness], None], harness: TransportHarness) -> None:
    with pytest.raises(AssertionError):
        check(TransportConformance(), harness)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PATIENCE", 0.2)


@pytest.mark.parametrize("answers", [[], [Delivered()] * 2, ["ok"] * 3], ids=["none", "few", "strange"])
def test_wrong_outcomes(answers: Sequence[Delivered]) -> None:
    check = TransportConformance.test_several_targets_get_one_outcome_each_in_order
    fails(check, BrokenHarness(lambda _: answers))


def test_a_refusal() -> None:
    fails(TransportConformance.test_a_message_arrives, BrokenHarness(lambda _: Failed(Reply("no", "5.0.0"))))


def test_a_lost_message() -> None:
    fails(TransportConformance.test_a_message_arrives, BrokenHarness(lose=True))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "dots": lambda content: content.replace(b"\r\n..", b"\r\n."),
    "line ends": lambda content: content.replace(b"\r\n", b"\n"),
    "From_ lines": lambda content: content.replace(b"\nFrom", b"\n>From"),
    "seven bits": lambda content: content.decode("ascii", "replace").encode(),
    "the end": lambda content: content.rstrip() + b"\r\n",
    "size": lambda content: content[: 1024 * 1024],
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_content(what: str) -> None:
    fails(TransportConformance.test_content_arrives_octet_for_octet, BrokenHarness(damage=DAMAGES[what]))


def test_a_changed_delivery() -> None:
    fails(TransportConformance.test_a_delivery_is_not_changed, BrokenHarness(changing))


def test_an_exception_of_the_network_that_is_not_caught() -> None:
    check = TransportConformance().test_a_peer_that_is_gone_is_a_temporary_failure
    with pytest.raises(OSError, match="not caught"):
        check(BrokenHarness(raising))


def test_success_although_the_peer_is_gone() -> None:
    fails(TransportConformance.test_a_peer_that_is_gone_is_a_temporary_failure, BrokenHarness())
    fails(
        TransportConformance.test_a_peer_that_died_between_deliveries_is_a_temporary_failure, BrokenHarness()
    )


def test_a_permanent_failure_because_the_peer_is_gone() -> None:
    broken = BrokenHarness(lambda _: Failed(Reply("gone", "5.4.1")))
    fails(TransportConformance.test_a_peer_that_is_gone_is_a_temporary_failure, broken)


def test_an_abort_that_does_nothing() -> None:
    released = threading.Event()
    first = iter([True])

    def hang(_: Delivery) -> Outcomes:
        if not next(first, False):
            released.wait(20)
        return Delivered()

    fails(TransportConformance.test_abort_unblocks_a_hung_send, BrokenHarness(hang))
    released.set()


@dataclass(kw_only=True, eq=False)
class Talkative(MemoryTransport):
    password: str = field(default="hidden")


def test_a_shown_secret() -> None:
    broken = BrokenHarness()
    broken.transport = Talkative()
    fails(TransportConformance.test_no_repr_shows_a_secret, broken)


class Inventive(Session):
    def __init__(self, *, claims: bool) -> None:
        self.claims = claims

    def send(self, delivery: Delivery) -> Outcomes:
        del delivery
        return Delivered()

    def close(self) -> None:
        """Nothing is held."""

    def was_delivered(self, delivery: Delivery, target: Target) -> bool | None:
        del delivery, target
        return self.claims


@dataclass(kw_only=True, eq=False)
class InventiveTransport(MemoryTransport):
    claims: bool

    def open(self) -> Session:
        return Inventive(claims=self.claims)


def test_a_wrong_memory() -> None:
    broken = BrokenHarness()
    broken.transport = InventiveTransport(claims=True)
    fails(TransportConformance.test_was_delivered_does_not_claim_what_was_never_sent, broken)
    broken.transport = InventiveTransport(claims=False)
    fails(TransportConformance.test_was_delivered_does_not_deny_what_arrived, broken)


def test_the_samples_hold_what_they_promise() -> None:
    contents = {sample.name: sample.content for sample in SAMPLES}
    assert len(contents["5 MiB"]) > 5 * 1024 * 1024
    assert all((max(sample.content) > 127) == sample.eight_bit for sample in SAMPLES)
    assert all(b"\n" not in sample.content.replace(b"\r\n", b"") for sample in SAMPLES)
    assert all(len(line) <= 998 for content in contents.values() for line in content.split(b"\r\n"))


# Transports on the network


class Sink(socketserver.ThreadingTCPServer):
    """Takes "recipient length", the octets, and says "ok"."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SinkHandler)
        self.arrivals: list[Arrival] = []


class SinkHandler(socketserver.StreamRequestHandler):
    server: Sink  # pyright: ignore[reportIncompatibleVariableOverride] - as the class's documentation shows

    def handle(self) -> None:
        with suppress(OSError):
            while words := self.rfile.readline().split():
                content = self.rfile.read(int(words[1]))
                if len(content) < int(words[1]):
                    return
                self.server.arrivals.append((words[0].decode(), content))
                self.wfile.write(b"ok\n")


@dataclass(kw_only=True)
class SinkTransport(Transport):
    name: str = "sink"
    address_types: Collection[str] = ("sink",)
    peer: tuple[str, int]
    flaw: str

    def open(self) -> Session:
        try:
            return SinkSession(socket.create_connection(self.peer, timeout=10.0), self.flaw)
        except OSError as error:
            raise TransportDown(str(error)) from error


class SinkSession(Session):
    def __init__(self, connection: socket.socket, flaw: str) -> None:
        self._socket = connection
        self._file = connection.makefile("rb")
        self._flaw = flaw

    def send(self, delivery: Delivery) -> Outcomes:
        return [self._send(target, delivery.content) for target in delivery.targets]

    def _send(self, target: Target, content: bytes) -> Delivered | Deferred | Failed:
        try:
            self._socket.sendall(f"{target.address} {len(content)}\n".encode() + content)
            answered = self._flaw == "believes" or self._file.readline() == b"ok\n"
        except OSError:
            answered = False
        if answered:
            return Delivered()
        return Failed(Reply("cut", "5.4.2")) if self._flaw == "gives up" else Deferred(Reply("cut", "4.4.2"))

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def abort(self) -> None:
        if self._flaw != "deaf":
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def was_delivered(self, delivery: Delivery, target: Target) -> bool | None:
        del delivery, target
        return True if self._flaw == "claims" else None


class SinkHarness(TransportHarness):
    def __init__(self, sink: Sink, flaw: str = "") -> None:
        self.sink = sink
        self.flaw = flaw

    @property
    def peer(self) -> tuple[str, int]:
        host, port = self.sink.server_address[:2]
        return str(host), port

    def make(self) -> Transport:
        return self.make_at(*self.peer)

    def make_at(self, host: str, port: int) -> Transport:
        return SinkTransport(peer=(host, port), flaw=self.flaw)

    def address(self, number: int) -> Address:
        return Address("sink", f"box{number}")

    def arrived(self) -> list[Arrival]:
        return list(self.sink.arrivals)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_transport_on_the_network_as_it_should_be(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PATIENCE", 20.0)
    suite_of_all, harness = TransportConformance(), SinkHarness(sink)
    suite_of_all.test_a_connection_that_is_cut_at_every_step(harness)
    suite_of_all.test_abort_unblocks_a_send_whose_answers_are_swallowed(harness)


def test_a_slow_connection_is_no_trouble(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PATIENCE", 20.0)
    TransportConformance().test_a_connection_that_is_slow_at_every_step(SinkHarness(sink))


@pytest.mark.parametrize("flaw", ["believes", "gives up", "claims"])
def test_a_flaw_that_shows_when_the_connection_is_cut(sink: Sink, flaw: str) -> None:
    fails(TransportConformance.test_a_connection_that_is_cut_at_every_step, SinkHarness(sink, flaw))


def test_an_abort_that_does_not_reach_the_network(sink: Sink) -> None:
    check = TransportConformance.test_abort_unblocks_a_send_whose_answers_are_swallowed
    fails(check, SinkHarness(sink, "deaf"))
