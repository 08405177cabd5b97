"""The receivers' suite notices what it is there to notice: each receiver here is broken in one way."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from postroom.inbound.values import Arrival, LedgerKey
from postroom.receivers.base import Inlet, Receiver, ReceiverSession
from postroom.receivers.memory import MemoryReceiver
from postroom.testing import receiver_trials, receivers
from postroom.testing.receivers import ReceiverConformance, ReceiverHarness, Remote

Check = Callable[[ReceiverConformance, ReceiverHarness], None]


@dataclass(kw_only=True, eq=False)
class Pigeonholes(Receiver):
    """A receiver as it should be, on a dictionary; each flaw breaks one thing."""

    name: str = "holes"
    flaw: str = ""
    password: str = field(default="hidden", repr=False)

    def __post_init__(self) -> None:
        self.copies: dict[str, bytes] = {}
        self.running = True
        self.woken = threading.Event()

    def open(self, inlet: Inlet) -> ReceiverSession:
        if not self.running and self.flaw != "does not notice":
            raise OSError("refused" + (self.password if self.flaw == "tells" else ""))
        return HoleSession(self, inlet)

    def __str__(self) -> str:
        return f"holes {self.password}" if self.flaw == "shows" else "holes"


class HoleSession(ReceiverSession):
    def __init__(self, receiver: Pigeonholes, inlet: Inlet) -> None:
        self.receiver = receiver
        self.inlet = inlet
        self.closed = False

    def check(self) -> None:
        if not self.receiver.running and self.receiver.flaw != "does not notice":
            raise OSError("the connection is lost")

    def poll(self) -> int:
        receiver, flaw = self.receiver, self.receiver.flaw
        self.check()
        known = self.inlet.known("holes")
        taken = 0
        for uid, content in list(receiver.copies.items()):
            if uid not in known or flaw == "keyless":
                arrival = Arrival(
                    content=content.rstrip() if flaw == "damages" else content,
                    keys=() if flaw == "keyless" else (LedgerKey("holes", uid),),
                )
                if flaw == "hasty":
                    del receiver.copies[uid]
                if flaw == "careless":
                    with suppress(Exception):
                        self.inlet.take([arrival])
                else:
                    taken += sum(not each.duplicate for each in self.inlet.take([arrival]))
            if flaw not in {"hasty", "lazy"}:
                self.check()
                del receiver.copies[uid]
        if flaw != "remembers":
            self.inlet.forget("holes", known - set(receiver.copies))
        return 0 if flaw == "modest" else taken

    def wait(self, timeout: float) -> None:
        stopping = self.inlet.stopping.is_set() and self.receiver.flaw != "restless"
        if not stopping:
            self.receiver.woken.wait(timeout)
        self.receiver.woken.clear()

    def interrupt(self) -> None:
        if self.receiver.flaw != "deaf":
            self.receiver.woken.set()

    def close(self) -> None:
        if self.closed and self.receiver.flaw == "closes once":
            raise ValueError("closed already")
        self.closed = True


class HoleHarness(ReceiverHarness):
    secrets = ("hidden",)
    wakes = True
    can_fail = True
    can_clear = True

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw
        self.receiver = Pigeonholes(flaw=flaw)
        self._numbers = count(1)

    def make(self) -> Receiver:
        return self.receiver

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        del via
        self.receiver.copies[str(next(self._numbers))] = content
        if self.flaw != "sleeps":
            self.receiver.woken.set()

    def remote(self) -> Sequence[Remote]:
        return [Remote(content) for content in self.receiver.copies.values()]

    def stop_peer(self) -> None:
        self.receiver.running = False

    def start_peer(self) -> None:
        self.receiver.running = True

    def clear(self) -> None:
        self.receiver.copies.clear()


class TestAReceiverAsItShouldBe(ReceiverConformance):
    @pytest.fixture
    def harness(self) -> ReceiverHarness:
        return HoleHarness()


def fails(check: Callable[..., None], harness: ReceiverHarness, **more: Any) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        check(ReceiverConformance(), harness, **more)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_trials, "PATIENCE", 0.3)
    monkeypatch.setattr(receiver_trials, "NUDGE_SECONDS", 0.05)
    monkeypatch.setattr(receivers, "PATIENCE", 0.3)


Suite = ReceiverConformance

FLAWS: list[tuple[str, Check]] = [
    ("shows", Suite.test_no_repr_shows_a_secret),
    ("tells", Suite.test_a_peer_that_is_gone),
    ("damages", Suite.test_messages_arrive_octet_for_octet),
    ("modest", Suite.test_a_poll_says_how_many_it_took),
    ("hasty", Suite.test_the_remote_copy_is_left_alone_until_the_commit),
    ("hasty", Suite.test_what_could_not_be_stored_is_left_alone),
    ("hasty", Suite.test_a_session_that_is_given_up_while_it_takes_does_no_harm),
    ("careless", Suite.test_what_could_not_be_stored_is_left_alone),
    ("careless", Suite.test_a_session_that_is_given_up_while_it_takes_does_no_harm),
    ("lazy", Suite.test_the_remote_copy_is_left_alone_until_the_commit),
    ("remembers", Suite.test_the_ledger_does_not_grow_for_ever),
    ("remembers", Suite.test_what_others_remove_is_forgotten),
    ("does not notice", Suite.test_a_peer_that_is_gone),
    ("does not notice", Suite.test_a_peer_that_dies_while_a_session_is_open),
    ("keyless", Suite.test_a_peer_that_dies_during_the_commit),
    ("sleeps", Suite.test_a_new_message_ends_a_wait),
    ("deaf", Suite.test_an_interrupt_ends_a_wait),
    ("closes once", Suite.test_closing_twice_and_interrupting_what_is_closed_is_harmless),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("flaw", "check"), FLAWS, ids=[f"{flaw}-{check.__name__}" for flaw, check in FLAWS])
def test_a_flaw(flaw: str, check: Check) -> None:
    fails(check, HoleHarness(flaw))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("flaw", "kind"),
    [
        ("hasty", "refused"),
        ("hasty", "killed before"),
        ("careless", "refused"),
        ("keyless", "in doubt"),
        ("keyless", "killed after"),
    ],
)
def test_a_flaw_that_shows_in_trouble_only(flaw: str, kind: str) -> None:
    fails(Suite.test_trouble_at_every_call_of_the_inlet, HoleHarness(flaw), kind=kind)


@pytest.mark.usefixtures("impatient")
def test_a_wait_that_does_not_heed_the_end() -> None:
    harness = HoleHarness("restless")
    harness.receiver.woken = _Deaf()
    fails(Suite.test_a_wait_that_begins_after_the_interrupt_ends_too, harness)


class _Deaf(threading.Event):
    """Forgets at once that it was set."""

    def set(self) -> None:
        super().set()
        self.clear()


# Receivers that are pushed


class Liar(MemoryReceiver):
    """Says that a message is safe whatever became of it."""

    def put(self, content: bytes, **more: Any) -> Any:
        with suppress(Exception):
            return super().put(content, **more)


class PushedHarness(ReceiverHarness):
    pushes = True

    def __init__(self, receiver: MemoryReceiver) -> None:
        self.receiver = receiver

    def make(self) -> Receiver:
        return self.receiver

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        del via
        self.receiver.put(content, timeout=1.0)


@pytest.mark.parametrize("kind", ["refused", "killed before"])
def test_a_listener_that_promises_too_much(kind: str) -> None:
    fails(Suite.test_trouble_at_every_call_of_the_inlet, PushedHarness(Liar()), kind=kind)
    fails(Suite.test_what_could_not_be_stored_is_left_alone, PushedHarness(Liar()))


# Receivers on the network


class Counter(socketserver.ThreadingTCPServer):
    """Hands messages over by lines: LIST, GET n, DELETE n."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CounterHandler)
        self.copies: dict[str, bytes] = {}


class CounterHandler(socketserver.StreamRequestHandler):
    server: Counter  # pyright: ignore[reportIncompatibleVariableOverride] - as the class's documentation shows

    def handle(self) -> None:
        with suppress(OSError):
            for line in self.rfile:
                self.answer(line.decode().split())

    def answer(self, words: list[str]) -> None:
        copies = self.server.copies
        if words[0] == "LIST":
            self.wfile.write(f"{' '.join(copies)}\n".encode())
        elif words[0] == "GET":
            content = copies.get(words[1], b"")
            self.wfile.write(f"{len(content)}\n".encode() + content)
        else:
            copies.pop(words[1], None)
            self.wfile.write(b"gone\n")


@dataclass(kw_only=True, eq=False)
class CounterReceiver(Receiver):
    name: str = "counter"
    address: tuple[str, int]
    flaw: str = ""

    def open(self, inlet: Inlet) -> ReceiverSession:
        return CounterSession(self, inlet)


class CounterSession(ReceiverSession):
    def __init__(self, receiver: CounterReceiver, inlet: Inlet) -> None:
        self.flaw = receiver.flaw
        self.inlet = inlet
        self.socket = socket.create_connection(receiver.address, timeout=10.0)
        self.file = self.socket.makefile("rb")
        self.woken = threading.Event()

    def ask(self, words: str) -> str:
        self.socket.sendall(f"{words}\n".encode())
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection is lost")
        return line.decode()

    def poll(self) -> int:
        known, taken = self.inlet.known("counter"), 0
        there = self.ask("LIST").split()
        for uid in there:
            if uid not in known:
                size = int(self.ask(f"GET {uid}"))
                content = self.file.read(size)
                if len(content) < size and self.flaw != "believes":
                    raise ConnectionError("the connection is lost")
                key = LedgerKey("counter", uid)
                self.inlet.take([Arrival(content=content, keys=() if self.flaw == "keyless" else (key,))])
                taken += 1
            self.ask(f"DELETE {uid}")
        self.inlet.forget("counter", known - set(there))
        return taken

    def wait(self, timeout: float) -> None:
        if not self.inlet.stopping.is_set():
            self.woken.wait(timeout)

    def interrupt(self) -> None:
        self.woken.set()
        if self.flaw != "deaf":
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class CounterHarness(ReceiverHarness):
    def __init__(self, server: Counter, flaw: str = "") -> None:
        self.server = server
        self.flaw = flaw
        self._numbers = count(1)

    @property
    def peer(self) -> tuple[str, int]:
        host, port = self.server.server_address[:2]
        return str(host), port

    def make(self) -> Receiver:
        return self.make_at(*self.peer)

    def make_at(self, host: str, port: int) -> Receiver:
        return CounterReceiver(address=(host, port), flaw=self.flaw)

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        del via
        self.server.copies[f"u{next(self._numbers)}"] = content

    def remote(self) -> Sequence[Remote]:
        return [Remote(content) for content in list(self.server.copies.values())]


@pytest.fixture
def counter() -> Iterator[Counter]:
    with Counter() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestANetworkReceiverAsItShouldBe(ReceiverConformance):
    @pytest.fixture
    def harness(self, counter: Counter) -> ReceiverHarness:
        return CounterHarness(counter)


@pytest.mark.parametrize("flaw", ["believes", "keyless"])
def test_a_flaw_that_shows_when_the_connection_is_cut(counter: Counter, flaw: str) -> None:
    fails(Suite.test_a_connection_that_is_cut_at_every_step, CounterHarness(counter, flaw))


@pytest.mark.usefixtures("impatient")
def test_a_network_receiver_that_is_deaf(counter: Counter) -> None:
    fails(Suite.test_an_interrupt_unblocks_a_poll_at_every_step, CounterHarness(counter, "deaf"))
