"""A connection to a POP3 server (RFC 1939), by way of poplib, which retrieves octets instead of lines."""

import poplib
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from postroom.errors import WorldError
from postroom.receivers.mailbox_access import Secret, Tls, reveal

__all__ = ["Listed", "Pop3Access", "Pop3Connection", "read_message"]

PIECE: Final = 64 * 1024
"""Octets of a line that are read at once; a line may have many such pieces."""

MAX_REPLY: Final = 2048
"""Octets of a status line; RFC 2449 section 4 allows 512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pop3Access:
    """Where and as whom to log in; fields as in :class:`~postroom.receivers.imap_client.ImapAccess`."""

    host: str
    port: int
    tls: Tls
    context: ssl.SSLContext | None
    user: str
    password: Secret
    timeout: float
    connect_timeout: float

    def __repr__(self) -> str:
        return f"Pop3Access({self.remote!r}, {self.user!r})"

    @property
    def remote(self) -> str:
        """The server as it is named on the record."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A message of the maildrop.

    Attributes:
        number: in this connection.
        uid: in all of them.
        size: octets, as the server has it.
    """

    number: int
    uid: str
    size: int


class _Client(poplib.POP3):
    """poplib's client on a socket that is made elsewhere, and closed if the greeting fails."""

    def __init__(self, access: Pop3Access, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        try:
            super().__init__(access.host, access.port)
        except BaseException:
            with suppress(OSError, AttributeError):
                self.close()
            raise

    def _create_socket(self, timeout: float) -> socket.socket:
        del timeout
        return self._dial()


class Pop3Connection:
    """A connection; :meth:`open` it first. Used by one thread at a time, except ``interrupt``."""

    def __init__(self, access: Pop3Access) -> None:
        self._access = access
        self._interrupted = threading.Event()
        self._sock: socket.socket | None = None
        self._opened: _Client | None = None

    @property
    def _client(self) -> _Client:
        if self._opened is None:
            raise WorldError(f"{self._access.remote}: the connection is closed")
        return self._opened

    def open(self) -> None:
        """Connect, protect the connection and log in; the maildrop is locked until :meth:`quit` or :meth:`close`.

        Raises:
            WorldError: the server cannot be reached or refuses us.
            ConfigurationError: the secret cannot be used.
        """
        access = self._access
        with self._speaking("connecting"):
            self._opened = client = _Client(access, self._dial)
        try:
            if access.tls == "starttls":
                with self._speaking("STLS"):
                    client.stls(access.context)
                    self._keep(client.sock)
            password = reveal(access.password, "password")
            with self._speaking("logging in"):
                client.user(access.user)
                client.pass_(password)
        except BaseException:
            self.close()
            raise

    def _dial(self) -> socket.socket:
        access = self._access
        sock = socket.create_connection((access.host, access.port), access.connect_timeout)
        try:
            sock.settimeout(access.timeout)
            if access.tls == "implicit" and access.context is not None:
                # The handshake comes later, so that an interrupt finds the socket on which it hangs.
                wrapped = access.context.wrap_socket(
                    sock, server_hostname=access.host, do_handshake_on_connect=False
                )
                sock = wrapped
                self._keep(wrapped)
                wrapped.do_handshake()
            self._keep(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _keep(self, sock: socket.socket) -> None:
        self._sock = sock
        if self._interrupted.is_set():
            raise ConnectionAbortedError("interrupted")

    def listing(self) -> list[Listed]:
        """Return what is in the maildrop, by number.

        Raises:
            WorldError: the connection broke, or the server has no UIDL, which is needed.
        """
        try:
            with self._speaking("UIDL"):
                uids = _pairs(self._client.uidl()[1])
        except WorldError as error:
            if not isinstance(error.__cause__, poplib.error_proto):
                raise
            raise WorldError(
                f"{error}; without UIDL (RFC 1939 section 7) nobody can tell what was taken before"
            ) from error
        with self._speaking("LIST"):
            sizes = _pairs(self._client.list()[1])
        return [Listed(number, uid, int(sizes.get(number, "0"))) for number, uid in sorted(uids.items())]

    def retrieve(self, number: int, limit: int) -> bytes | None:
        """Return a message's octets; None if there are more than ``limit``, which are read and dropped."""
        client = self._client
        with self._speaking("RETR"):
            client.sock.sendall(b"RETR %d\r\n" % number)
            reply = client.file.readline(MAX_REPLY)
            if not reply.startswith(b"+OK"):
                raise poplib.error_proto(reply.rstrip() or b"the connection was closed")
            return read_message(client.file.readline, limit)

    def delete(self, number: int) -> None:
        """Mark a message for deletion, which happens at :meth:`quit`."""
        with self._speaking("DELE"):
            self._client.dele(number)

    def quit(self) -> None:
        """Make the deletions happen (RFC 1939 section 6), and close.

        Raises:
            WorldError: the server does not confirm them.
        """
        with self._speaking("QUIT"):
            self._client.quit()
        self._opened = None

    def interrupt(self) -> None:
        """End whatever hangs, by ending the connection. From any thread; never raises."""
        self._interrupted.set()
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                # An SSLSocket's own shutdown would first drop its TLS state under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close without a word, so that nothing is deleted. Never raises."""
        client, self._opened = self._opened, None
        if client is not None:
            with suppress(OSError):
                client.close()

    @contextmanager
    def _speaking(self, what: str) -> Generator[None]:
        """Say what was being done when the server refuses or the connection breaks."""
        try:
            yield
        except poplib.error_proto as error:
            said = error.args[0] if error.args else ""
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            raise WorldError(f"{self._access.remote}: {what}: {text}") from error
        except OSError as error:
            raise WorldError(f"{self._access.remote}: {what}: {error or type(error).__name__}") from error


def read_message(readline: Callable[[int], bytes], limit: int) -> bytes | None:
    """Read a multi-line answer (RFC 1939 section 3) up to its last line, and undo the doubling of dots.

    Lines may have any length, and end in CRLF: a line feed of its own belongs to the message.

    Args:
        readline: returns up to so many octets, up to a line feed; b"" at the end.
        limit: None is returned for what is longer; it is read to its end all the same.

    Raises:
        poplib.error_proto: it breaks off.
    """
    pieces: list[bytes] = []
    size = 0
    begins, tail = True, b""
    while True:
        piece = readline(PIECE)
        if not piece:
            raise poplib.error_proto("the connection was closed in the midst of a message")
        if begins and piece == b".\r\n":
            return b"".join(pieces) if size <= limit else None
        kept = piece[1:] if begins and piece.startswith(b".") else piece
        # A line's CR may be the last octet of one piece, and its LF the next piece.
        begins = (tail + piece)[-2:] == b"\r\n"
        tail = piece[-1:]
        size += len(kept)
        if size <= limit:
            pieces.append(kept)
        else:
            pieces.clear()


def _pairs(lines: list[bytes]) -> dict[int, str]:
    """Return what UIDL or LIST says of each number."""
    pairs: dict[int, str] = {}
    for line in lines:
        number, _, rest = line.strip().partition(b" ")
        if number.isdigit() and rest.strip():
            pairs[int(number)] = rest.split()[0].decode("ascii", "backslashreplace")
    return pairs
