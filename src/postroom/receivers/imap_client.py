"""A connection to an IMAP server as a receiver needs it, by way of IMAPClient."""

import imaplib
import importlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from postroom.errors import ConfigurationError, WorldError
from postroom.receivers.imap_progress import Described
from postroom.receivers.mailbox_access import Secret, Tls, reveal

__all__ = ["ImapAccess", "ImapConnection", "Refused", "Selected", "import_imapclient"]

IDLE_SECONDS: Final = 28 * 60.0
"""RFC 2177: IDLE is to be given anew at least every 29 minutes."""

NOOP_SECONDS: Final = 10 * 60.0
"""A pause longer than this is interrupted by NOOP, as servers may log out whoever is silent for half an hour."""

GOODBYE_SECONDS: Final = 2.0
"""How long LOGOUT may take."""

T = TypeVar("T")


class Refused(WorldError):
    """The server answered NO or BAD; the connection goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImapAccess:
    """Where and as whom to log in.

    Attributes:
        host: the server.
        port: its port.
        tls: the protection.
        context: for TLS.
        user: the mailbox's name.
        password: for PLAIN or LOGIN, or None.
        token: for XOAUTH2 or OAUTHBEARER (RFC 7628), or None.
        timeout: seconds that the server may be silent within a command.
        connect_timeout: seconds that a connection may take.
    """

    host: str
    port: int
    tls: Tls
    context: ssl.SSLContext | None
    user: str
    password: Secret | None
    token: Secret | None
    timeout: float
    connect_timeout: float

    def __repr__(self) -> str:
        return f"ImapAccess({self.remote!r}, {self.user!r})"

    @property
    def remote(self) -> str:
        """The server as it is named on the record."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Selected:
    """What SELECT said of a folder.

    Attributes:
        uidvalidity: its numbering.
        uidnext: the UID that the next message will have, None when the server does not say.
    """

    uidvalidity: int
    uidnext: int | None


class ImapConnection:
    """An open, authenticated connection. Used by one thread at a time, except ``interrupt``.

    Args:
        access: where and as whom.

    Raises:
        WorldError: the server cannot be reached, or refuses us.
        ConfigurationError: IMAPClient is missing, or the secret cannot be used.
    """

    def __init__(self, access: ImapAccess) -> None:
        self._access = access
        self._interrupted = threading.Event()
        self._broken = False
        imapclient = import_imapclient()
        with self._speaking("connecting"):
            self._client: Any = imapclient.IMAPClient(
                access.host,
                access.port,
                ssl=access.tls == "implicit",
                ssl_context=access.context,
                timeout=imapclient.SocketTimeout(access.connect_timeout, access.timeout),
            )
        try:
            self._client.normalise_times = False
            # IMAPClient sends a command and its line end apart; Nagle's algorithm would hold the second up for 40 ms.
            self._client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if access.tls == "starttls":
                with self._speaking("STARTTLS"):
                    self._client.starttls(access.context)
            self._log_in()
            self._capabilities = self._ask("CAPABILITY", self._client.capabilities)
        except BaseException:
            self._broken = True
            self.close()
            raise

    def _log_in(self) -> None:
        access, client = self._access, self._client
        offered = self._ask("CAPABILITY", client.capabilities)
        with self._speaking("logging in"):
            if access.token is not None:
                token = reveal(access.token, "access_token")
                if b"AUTH=OAUTHBEARER" in offered and b"AUTH=XOAUTH2" not in offered:
                    client.oauthbearer_login(access.user, token)
                else:
                    client.oauth2_login(access.user, token)
                return
            password = reveal(access.password or "", "password")
            if b"AUTH=PLAIN" in offered:
                client.plain_login(access.user, password)
            elif b"LOGINDISABLED" in offered:
                raise Refused(f"{access.remote}: allows no login here (RFC 9051 section 6.2.3); use TLS")
            elif not (access.user + password).isascii():
                # LOGIN could not say it, and the error of trying would show the secret.
                raise Refused(f"{access.remote}: takes only ASCII in LOGIN, and has no AUTH=PLAIN")
            else:
                client.login(access.user, password)

    @property
    def remote(self) -> str:
        """The server as it is named on the record."""
        return self._access.remote

    @property
    def can_idle(self) -> bool:
        """Whether the server has IDLE (RFC 2177)."""
        return b"IDLE" in self._capabilities

    # Folders

    def select(self, folder: str, *, readonly: bool) -> Selected:
        """Open a folder, or look at it anew.

        Raises:
            WorldError: there is none, or it cannot be written to, or has no lasting numbers.
        """
        facts: dict[bytes, Any] = self._ask(
            f"SELECT {folder}", lambda: self._client.select_folder(folder, readonly=readonly)
        )
        if b"UIDVALIDITY" not in facts:
            raise WorldError(
                f"{self.remote}: {folder} has no UIDVALIDITY, so its messages cannot be told apart"
            )
        return Selected(facts[b"UIDVALIDITY"], facts.get(b"UIDNEXT"))

    def make_folder(self, folder: str) -> None:
        """Make a folder unless it is there."""
        if not self._ask(f"LIST {folder}", lambda: self._client.folder_exists(folder)):
            self._ask(f"CREATE {folder}", lambda: self._client.create_folder(folder))

    # Messages of the selected folder

    def uids(self, criteria: str = "ALL") -> list[int]:
        """Return the UIDs of what fits, ascending."""
        return sorted(self._ask("UID SEARCH", lambda: self._client.search(criteria)))

    def uids_after(self, uid: int) -> list[int]:
        """Return the UIDs above one, ascending."""
        # n:* names the last message even where that is below n (RFC 9051 section 9, seq-range).
        return [found for found in self.uids(f"UID {uid + 1}:*") if found > uid]

    def describe(self, uids: Sequence[int]) -> dict[int, Described]:
        """Return what the server says of messages; those that are gone are left out.

        Raises:
            Refused: the server cannot read one of them.
        """
        found = self._fetch(uids, ["RFC822.SIZE", "INTERNALDATE", "FLAGS"])
        return {
            uid: Described(
                uid,
                int(facts.get(b"RFC822.SIZE", 0)),
                date.timestamp() if (date := facts.get(b"INTERNALDATE")) is not None else None,
                b"\\seen" in {bytes(flag).lower() for flag in facts.get(b"FLAGS", ())},
            )
            for uid, facts in found.items()
        }

    def contents(self, uids: Sequence[int]) -> dict[int, bytes]:
        """Return the octets of messages, without flagging them; those that the server does not give are left out.

        Raises:
            Refused: the server cannot give one of them.
        """
        found = self._fetch(uids, ["BODY.PEEK[]"])
        bodies = {uid: facts.get(b"BODY[]") for uid, facts in found.items()}
        return {uid: body for uid, body in bodies.items() if isinstance(body, bytes)}

    def _fetch(self, uids: Sequence[int], items: Sequence[str]) -> dict[int, dict[bytes, Any]]:
        return self._ask("UID FETCH", lambda: self._client.fetch(uids, items))

    def flag_seen(self, uids: Sequence[int]) -> None:
        """Flag messages as seen; those that are gone are passed over."""
        self._ask("UID STORE", lambda: self._client.add_flags(uids, [rb"\Seen"], silent=True))

    def remove(self, uids: Sequence[int]) -> bool:
        """Remove messages; returns whether they are gone.

        Without UIDPLUS (RFC 4315) only EXPUNGE is left, which removes whatever anybody flagged as deleted. It is given
        when nothing else is flagged; otherwise ours stay flagged, and the next poll tries again.
        """
        flagged = _set_of(uids)
        self._ask("UID STORE", lambda: self._client.add_flags(uids, [rb"\Deleted"], silent=True))
        if b"UIDPLUS" in self._capabilities:
            self._ask("UID EXPUNGE", lambda: self._client.uid_expunge(uids))
            return True
        if set(self.uids("DELETED")) - set(uids):
            return not self.uids(f"UID {flagged}")
        self._ask("EXPUNGE", self._client.expunge)
        return True

    def move(self, uids: Sequence[int], folder: str) -> bool:
        """Move messages to a folder; returns whether they are gone from this one.

        Without MOVE (RFC 6851) they are copied and removed; a break between the two leaves a second copy there.
        """
        if b"MOVE" in self._capabilities:
            self._ask(f"UID MOVE {folder}", lambda: self._client.move(uids, folder))
            return True
        # What carries the flag was copied before.
        if still := self.uids(f"UID {_set_of(uids)} UNDELETED"):
            self._ask(f"UID COPY {folder}", lambda: self._client.copy(still, folder))
        return self.remove(uids)

    # Waiting

    def idle(self, timeout: float) -> None:
        """Return when the server says something of the selected folder, after ``timeout`` seconds, or interrupted."""
        self._ask("IDLE", self._client.idle)
        with self._speaking("IDLE"):
            self._hear(min(timeout, IDLE_SECONDS))
        if not self._interrupted.is_set():
            self._ask("DONE", self._client.idle_done)

    def _hear(self, timeout: float) -> None:
        """Wait until there is something to read, without reading it."""
        # IMAPClient's own idle_check looks only at the socket, and would sleep over what came with the answer to IDLE
        # and is in the buffer by now.
        buffered: Callable[[int], bytes] = self._client._imap.file.peek  # noqa: SLF001 - see above
        sock = self._client.socket()
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        sock.settimeout(0)
        try:
            ready = False
            while not self._interrupted.is_set():
                # A TLS record may hold nothing for us.
                with suppress(BlockingIOError, ssl.SSLWantReadError):
                    if buffered(1) or ready:
                        return
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                ready = bool(poll.poll(left * 1000))
        finally:
            sock.settimeout(self._access.timeout)

    def pause(self, timeout: float) -> None:
        """Return after ``timeout`` seconds, or interrupted; keeps the connection alive meanwhile."""
        while timeout > NOOP_SECONDS:
            if self._interrupted.wait(NOOP_SECONDS):
                return
            self._ask("NOOP", self._client.noop)
            timeout -= NOOP_SECONDS
        self._interrupted.wait(timeout)

    def interrupt(self) -> None:
        """End whatever hangs, by ending the connection. From any thread; never raises."""
        self._interrupted.set()
        with suppress(OSError, AttributeError):
            # An SSLSocket's own shutdown would first drop its TLS state under the reading thread.
            socket.socket.shutdown(self._client.socket(), socket.SHUT_RDWR)

    def close(self) -> None:
        """Log out if the server listens, and close. Never raises."""
        if not self._broken and not self._interrupted.is_set():
            self._broken = True
            with suppress(imaplib.IMAP4.error, OSError, ValueError):
                self._client.socket().settimeout(GOODBYE_SECONDS)
                self._client.logout()
                return
        with suppress(OSError, ValueError, AttributeError):
            self._client.shutdown()

    # Errors

    def _ask(self, what: str, command: Callable[[], T]) -> T:
        with self._speaking(what):
            return command()

    @contextmanager
    def _speaking(self, what: str) -> Generator[None]:
        """Say what was being done when the server refuses or the connection breaks."""
        try:
            yield
        except imaplib.IMAP4.abort as error:
            self._broken = True
            raise WorldError(f"{self.remote}: {what}: {error}") from error
        except imaplib.IMAP4.error as error:
            raise Refused(f"{self.remote}: {what}: {error}") from error
        except OSError as error:
            self._broken = True
            raise WorldError(f"{self.remote}: {what}: {error or type(error).__name__}") from error


def import_imapclient() -> Any:
    """Return the module imapclient.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("imapclient")
    except ImportError as error:
        raise ConfigurationError(
            "imap", f"needs the package IMAPClient ({error})", "install postroom[imap]"
        ) from error


def _set_of(uids: Sequence[int]) -> str:
    return ",".join(str(uid) for uid in uids)
