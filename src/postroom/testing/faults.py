"""A TCP proxy that cuts, delays and swallows, to put between a transport or receiver and its messaging system.

::

    with FaultyPeer("127.0.0.1", server.port) as proxy:
        deliver(SmtpTransport(*proxy.address))                  # undisturbed: the proxy learns what passes
        for trouble in proxy.steps():
            proxy.arm(trouble)                                  # the next time, the connection is cut there
            deliver(SmtpTransport(*proxy.address))
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

__all__ = ["Direction", "FaultyPeer", "Passed", "Trouble"]

Direction = Literal["to peer", "to client"]

DIRECTIONS: tuple[Direction, Direction] = ("to peer", "to client")
_CHUNK = 65_536
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens once, and where.

    Attributes:
        direction: what passes that way is counted, over all connections since :meth:`FaultyPeer.arm`.
        after: so many lines or octets pass that way before it happens; with 0 the first octet does not.
        unit: "lines" (each ends with a line feed) or "octets".
        kind: "cut" ends the connection for both sides, "swallow" leaves it open and lets nothing pass any more either
            way, "delay" holds it up once.
        seconds: of the delay.
    """

    direction: Direction
    after: int
    unit: Literal["lines", "octets"] = "lines"
    kind: Literal["cut", "swallow", "delay"] = "cut"
    seconds: float = 0.1


@dataclass(slots=True)
class Passed:
    """What has passed in one direction."""

    lines: int = 0
    octets: int = 0


class FaultyPeer:
    """See the module's docstring. A context manager; thread-safe; its threads are daemons.

    Args:
        host: of the real peer.
        port: of the real peer.

    Attributes:
        address: host and port on which the proxy listens.
        struck: set when the trouble has happened.
        connections: connections that were made since :meth:`arm`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._peer = (host, port)
        self._lock = threading.Lock()
        self._trial = _Trial(None)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.struck = threading.Event()
        self.connections = 0
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def arm(self, trouble: Trouble | None) -> None:
        """Count from 0 again, and let this happen once; None for nothing. Connections that are open are cut."""
        with self._lock:
            # Connections of before go on counting, but in their own trial.
            self._trial = _Trial(trouble)
            self.connections = 0
            self.struck.clear()
        self.cut()

    def passed(self, direction: Direction) -> Passed:
        """Return what has passed in a direction since :meth:`arm`: a copy."""
        with self._lock:
            passed = self._trial.passed[direction]
            return Passed(passed.lines, passed.octets)

    def steps(self, most: int = 40, unit: Literal["lines", "octets"] = "lines") -> list[Trouble]:
        """Return cuts at every step of what has passed since :meth:`arm`.

        Args:
            most: cuts in each direction at most; they are spread evenly.
            unit: "lines" cuts after each line, and before and after the last octet; "octets" only at evenly spaced
                octets.
        """
        steps: list[Trouble] = []
        for direction in DIRECTIONS:
            passed = self.passed(direction)
            if unit == "lines":
                steps += [Trouble(direction, place) for place in _spread(passed.lines, most)]
                steps += [Trouble(direction, passed.octets - short, "octets") for short in (1, 0)]
            else:
                steps += [Trouble(direction, place, "octets") for place in _spread(passed.octets, most)]
        return steps

    def cut(self) -> None:
        """End all connections that are open now."""
        with self._lock:
            ending, self._open = self._open, set()
        for each in ending:
            _shut(each)

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        _shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(_CLOSE_SECONDS)

    # Threads

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="faulty-peer", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                peer = socket.create_connection(self._peer, timeout=_CLOSE_SECONDS)
                peer.settimeout(None)
                for each in (client, peer):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.connections += 1
                self._open |= {client, peer}
                pair = _Pair(client, peer, self._trial)
            self._spawn(self._pump, pair, "to peer")
            self._spawn(self._pump, pair, "to client")
            if self._closed.is_set():
                self.cut()

    def _pump(self, pair: "_Pair", direction: Direction) -> None:
        source, sink = (pair.client, pair.peer) if direction == "to peer" else (pair.peer, pair.client)
        try:
            while data := source.recv(_CHUNK):
                for piece, trouble in self._judge(pair.trial, direction, data):
                    if not pair.muted.is_set():
                        sink.sendall(piece)
                    if trouble is not None and not self._strike(pair, trouble):
                        return
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(source)
            _shut(sink)
        finally:
            if pair.leave():
                with self._lock:
                    self._open -= {pair.client, pair.peer}
                pair.client.close()
                pair.peer.close()

    def _judge(
        self, trial: "_Trial", direction: Direction, data: bytes
    ) -> Iterator[tuple[bytes, Trouble | None]]:
        """Yield pieces of the data, and what happens after each."""
        with self._lock:
            place, trouble = trial.strike(direction, data)
        yield data[:place], trouble
        if place < len(data):
            # Only what is merely delayed goes on; the caller asks for no more after a cut.
            with self._lock:
                trial.count(direction, data[place:])
            yield data[place:], None

    def _strike(self, pair: "_Pair", trouble: Trouble) -> bool:
        """Let it happen; return whether the connection goes on."""
        if trouble.kind == "swallow":
            pair.muted.set()
        # Before anybody can notice it in another way.
        self.struck.set()
        if trouble.kind == "cut":
            _shut(pair.client)
            _shut(pair.peer)
        if trouble.kind == "delay":
            self._closed.wait(trouble.seconds)
        return trouble.kind != "cut"


@dataclass(slots=True)
class _Trial:
    """What is to happen, and what has passed since it was armed. Used under the proxy's lock."""

    trouble: Trouble | None
    passed: dict[Direction, Passed] = field(
        default_factory=lambda: {direction: Passed() for direction in DIRECTIONS}
    )

    def strike(self, direction: Direction, data: bytes) -> tuple[int, Trouble | None]:
        """Count data as far as it passes; return how much that is, and what happens then."""
        trouble, place = self.trouble, None
        if trouble is not None and trouble.direction == direction:
            place = _place(trouble, self.passed[direction], data)
        if place is None:
            self.count(direction, data)
            return len(data), None
        self.count(direction, data[:place])
        self.trouble = None
        return place, trouble

    def count(self, direction: Direction, data: bytes) -> None:
        """Count what passes."""
        passed = self.passed[direction]
        passed.lines += data.count(b"\n")
        passed.octets += len(data)


class _Pair:
    """The two sides of a connection, which the last of its two threads closes."""

    def __init__(self, client: socket.socket, peer: socket.socket, trial: _Trial) -> None:
        self.client = client
        self.peer = peer
        self.trial = trial
        self.muted = threading.Event()
        self._lock = threading.Lock()
        self._threads = 2

    def leave(self) -> bool:
        """Return whether the thread that calls is the last."""
        with self._lock:
            self._threads -= 1
            return self._threads == 0


def _place(trouble: Trouble, passed: Passed, data: bytes) -> int | None:
    """Return after how many octets of the data it happens, None for not in them (pure)."""
    if trouble.unit == "octets":
        missing = trouble.after - passed.octets
        return missing if missing <= len(data) else None
    missing = trouble.after - passed.lines
    place = 0
    for _ in range(missing):
        place = data.find(b"\n", place) + 1
        if place == 0:
            return None
    return place


def _spread(last: int, most: int) -> list[int]:
    """Return at most ``most`` numbers from 0 to ``last``, both included, evenly spaced (pure)."""
    if last < most:
        return list(range(last + 1))
    return sorted({round(number * last / (most - 1)) for number in range(most)})


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
