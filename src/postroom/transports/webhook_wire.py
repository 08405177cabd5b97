"""The sockets under the webhook transport's HTTP client.

They are our own because three promises cannot be kept from outside a client: a name is resolved once and the
checked address itself is connected to (so that a name that resolves differently a moment later gains
nothing), one deadline covers the whole exchange, and another thread can cut a hung exchange off.
"""

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

import httpcore

from postroom.errors import TransportDown
from postroom.outcomes import Reply
from postroom.replies import Phase, exception_reply
from postroom.transports.webhook_exchange import NoAnswerError
from postroom.transports.webhook_guard import AddressGuard

__all__ = ["Resolve", "Wire", "system_resolve"]

Resolve = Callable[[str, int], list[tuple[Any, ...]]]
"""Host and port to what :func:`socket.getaddrinfo` returns."""


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""This machine has no more sockets or memory: that concerns every host."""


def system_resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return what :func:`socket.getaddrinfo` says for TCP. It blocks for as long as the system's resolver."""
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Wire(httpcore.NetworkBackend):
    """Makes the sockets, knows the deadline, and can cut everything off.

    Used by one thread at a time, except ``abort``.
    """

    def __init__(self, guard: AddressGuard, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._aborted = False
        self._deadline = 0.0
        self._connected = False
        self.received = False
        self.tls = ""

    def begin(self, seconds: float) -> None:
        """Start an exchange that may take so long."""
        self._deadline = time.monotonic() + seconds

    def next_request(self) -> None:
        """Forget what ``connected``, ``received`` and ``tls`` say of the request before."""
        self._connected = False
        self.received = False
        self.tls = ""

    def hurry(self, seconds: float) -> None:
        """Bring the deadline forward."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def was_stale(self) -> bool:
        """Return whether the request went out on a kept connection and nothing at all came back."""
        return not (self._connected or self.received or self._aborted)

    def remaining(self, timeout: float | None) -> float:
        """Return how long the next step may take; not above 0 when the deadline has passed."""
        left = self._deadline - time.monotonic()
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve, check, connect. The pool is made without the last two options.

        Raises:
            NoAnswerError: the name does not resolve, its addresses are refused, or none answers.
            TransportDown: this machine has no socket left.
        """
        del local_address, socket_options
        self._connected = True
        addresses = self._permitted(host, port)
        until = time.monotonic() + self.remaining(timeout)
        problem: OSError = TimeoutError("no time left to connect")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            # A fair share of the time left for each, so that one black hole does not take it all.
            share = (until - time.monotonic()) / (len(addresses) - position)
            if share <= 0:
                break
            sock = _socket(family, kind, protocol)
            try:
                self._adopt(sock)
                sock.settimeout(share)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                problem = error
                self.release(sock)
            else:
                return _Stream(sock, self)
        raise _unreachable(problem) from problem

    def _permitted(self, host: str, port: int) -> list[tuple[Any, ...]]:
        try:
            answers = self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label too long for the resolver
            raise _unreachable(error) from error
        permitted: list[tuple[Any, ...]] = []
        refusal = "it has no address"
        for answer in answers:
            address = str(answer[4][0])
            why = self._guard.refusal(address)
            if why is None:
                permitted.append(answer)
            else:
                refusal = f"{address} is {why}"
        if not permitted:
            remedy = "allow_networks= or allow_private=True would permit it"
            raise NoAnswerError(Reply(f"not connected: {refusal}; {remedy}", "5.7.1"))
        return permitted

    def _adopt(self, sock: socket.socket) -> None:
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("aborted")
            self._sockets.add(sock)

    def release(self, sock: socket.socket) -> None:
        """Close a socket and forget it."""
        with self._lock:
            self._sockets.discard(sock)
        sock.close()

    def secure(self, sock: socket.socket, tls: ssl.SSLContext, name: str | None) -> ssl.SSLSocket:
        """Return ``sock`` wrapped, the handshake still to be made; the old object is detached by this."""
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("aborted")
            wrapped = tls.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
            self._sockets.discard(sock)
            self._sockets.add(wrapped)
            return wrapped

    def abort(self) -> None:
        """Shut every socket down and let no other be made; from any thread."""
        with self._lock:
            self._aborted = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    # The plain socket's method: the TLS one takes its state away under the thread that reads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self._sock = sock
        self._wire = wire
        self._tls = ""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            self._limit(timeout)
            data = self._sock.recv(max_bytes)
        self._wire.received = self._wire.received or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._wire.tls = self._tls
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            view = memoryview(buffer)
            while view:
                self._limit(timeout)
                view = view[self._sock.send(view) :]

    def close(self) -> None:
        self._wire.release(self._sock)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            wrapped = self._wire.secure(self._sock, ssl_context, server_hostname)
            self._sock = wrapped
            self._limit(timeout)
            wrapped.do_handshake()
        except (OSError, ValueError) as error:  # ValueError: a host name that no certificate can carry
            self.close()
            raise _unreachable(error) from error
        self._tls = " ".join(filter(None, (wrapped.version(), (wrapped.cipher() or ("",))[0])))
        return self

    def get_extra_info(self, info: str) -> Any:
        # Asked by the pool before it reuses a connection: readable while idle means closed by the other side.
        return _is_readable(self._sock) if info == "is_readable" else None

    def _limit(self, timeout: float | None) -> None:
        left = self._wire.remaining(timeout)
        if left <= 0:
            raise TimeoutError("the time for the whole exchange is over")
        self._sock.settimeout(left)


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise TransportDown(f"no socket: {error.strerror}") from error
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> NoAnswerError:
    return NoAnswerError(exception_reply(error), error, Phase.CONNECT)


def _is_readable(sock: socket.socket) -> bool:
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _translated(timeout: type[Exception], failure: type[Exception]) -> Generator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error
