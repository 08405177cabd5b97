"""The byte stream under an SMTP dialogue: lines in, octets out, time-outs and losses as one exception."""

import socket
from typing import Protocol

__all__ = ["Lost", "SocketWire", "Wire", "read_reply"]

MAX_LINE = 8192
"""Octets of a reply line; RFC 5321 section 4.5.3.1.5 allows 512, servers exceed it."""

MAX_LINES = 200
"""Lines of one reply."""

BLOCK = 256 * 1024
"""Octets written under one time-out: a slow line is not a dead one (RFC 5321 section 4.5.3.2.5)."""

_CHUNK = 16 * 1024


class Lost(Exception):
    """Nothing more comes over this connection.

    Attributes:
        why: for the record.
        timed_out: the other side was silent for too long, as opposed to gone.
    """

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.timed_out = timed_out


class Wire(Protocol):
    """What a dialogue needs of a connection."""

    patience: float
    """Seconds that the next ``write`` or ``readline`` may wait for the other side."""

    def write(self, octets: bytes) -> None:
        """Write everything, or raise ``Lost``."""
        ...

    def readline(self) -> bytes:
        """Return the next line without its end, or raise ``Lost``."""
        ...

    @property
    def ahead(self) -> bool:
        """Whether more was read than was asked for."""
        ...


class SocketWire:
    """A connected socket, plain or TLS, that nobody else reads. Not thread-safe.

    Args:
        sock: a blocking socket; its time-out is set as needed.
        patience: seconds to wait at first.
    """

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self.sock = sock
        self.patience = patience
        self._applied: float | None = None
        self._buffer = b""
        self._start = 0

    @property
    def ahead(self) -> bool:
        """Whether more was read than was asked for."""
        return self._start < len(self._buffer)

    def write(self, octets: bytes) -> None:
        """Write everything, or raise ``Lost``."""
        try:
            if self.patience != self._applied:
                self._apply()
            if len(octets) <= BLOCK:
                self.sock.sendall(octets)
                return
            view = memoryview(octets)
            for start in range(0, len(octets), BLOCK):
                self.sock.sendall(view[start : start + BLOCK])
        except (OSError, ValueError) as error:  # ValueError: a TLS socket that was closed meanwhile
            raise self._lost(error) from error

    def readline(self) -> bytes:
        """Return the next line without its end, or raise ``Lost``."""
        end = self._buffer.find(b"\n", self._start)
        while end < 0:
            rest = self._buffer[self._start :]
            if len(rest) > MAX_LINE:
                raise Lost("an answer without a line end")
            self._buffer = rest + self._receive()
            self._start = 0
            end = self._buffer.find(b"\n", len(rest))
        line = self._buffer[self._start : end]
        self._start = end + 1
        return line

    def _receive(self) -> bytes:
        try:
            if self.patience != self._applied:
                self._apply()
            octets = self.sock.recv(_CHUNK)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error
        if not octets:
            raise Lost("connection closed by the server")
        return octets

    def _apply(self) -> None:
        self.sock.settimeout(self.patience)
        self._applied = self.patience

    def _lost(self, error: Exception) -> Lost:
        if isinstance(error, TimeoutError):
            return Lost(f"no answer within {self.patience:g} s", timed_out=True)
        return Lost(f"connection lost ({error})")


def read_reply(wire: Wire) -> tuple[int, list[bytes]]:
    """Return the next reply: its code, and the text of each of its lines (RFC 5321 section 4.2).

    Raises:
        Lost: the connection is gone, or what came is no SMTP reply.
    """
    line = wire.readline()
    digits = line[:3]
    lines = [line]
    while line[3:4] == b"-":
        line = wire.readline()
        lines.append(line)
        if line[:3] != digits or len(lines) > MAX_LINES:
            raise Lost(f"not an SMTP reply: {line[:80]!r}")
    if not (digits.isdigit() and len(digits) == 3 and b"200" <= digits < b"600"):
        raise Lost(f"not an SMTP reply: {line[:80]!r}")
    return int(digits), lines
