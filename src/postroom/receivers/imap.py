"""IMAP4 (RFC 3501, RFC 9051) receiver."""

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from postroom.errors import ConfigurationError
from postroom.receivers.base import Inlet, Receiver
from postroom.receivers.imap_client import ImapAccess, ImapConnection, import_imapclient
from postroom.receivers.imap_session import ImapSession, Taking
from postroom.receivers.imap_suspects import Suspects
from postroom.receivers.mailbox_access import Secret, Tls, check_place, client_context

__all__ = ["ImapReceiver"]

MOVE = "move:"


@dataclass(kw_only=True)
class ImapReceiver(Receiver):
    """Takes messages from folders of an IMAP mailbox, as soon as the server says that there are some (IDLE).

    ``ImapReceiver("imap.example.org", user="desk", password=read_password, after="move:Done")``

    Needs the extra ``imap``. What was taken is known by its UID in the ledger, and by its octets should the server give
    its folder new UIDs (UIDVALIDITY). The ledger keeps an entry for each copy that is there; of copies that are removed
    or moved it keeps nothing.

    Attributes:
        host: the server's name or address. TLS certificates are verified against it.
        port: 993 (implicit TLS) or 143.
        user: the mailbox's name for the server.
        password: for PLAIN or LOGIN; a callable is asked at each login. Never shown.
        access_token: instead of a password, for XOAUTH2 or OAUTHBEARER (RFC 7628); a callable can refresh it.
        folders: they are looked through in turn, every ``interval`` seconds. The server tells of the first one's new
            messages at once, if it has IDLE; those of the others wait for the next turn.
        tls: "implicit" (RFC 8314), "starttls" (required, not opportunistic), or "none", for this machine only.
        ssl_context: None for ``ssl.create_default_context()``, which verifies certificate and name.
        insecure: allow ``tls="none"`` over a network.
        after: what happens to the remote copy when ours is committed. "seen": it is flagged so; "delete": it is
            removed, which needs UIDPLUS (RFC 4315) to be done at once while others use the folder; "keep": it is left
            as it is, and the folder opened for reading only; "move:Archive": it is moved to that folder, which is made
            when missing, and without MOVE (RFC 6851) copied and removed.
        backlog: "all", or "none" to leave alone what lies in a folder when it is looked at for the first time.
        idle: use IDLE where the server has it.
        max_message_size: octets. Larger messages stay there and are not fetched; a warning is logged once.
        batch_messages: messages that are fetched and stored together at most.
        batch_octets: octets of them at most, unless a single one has more.
        timeout: seconds that the server may be silent within a command.
        connect_timeout: seconds that a connection may take.
        monotonic: the clock by which a message at which the server breaks off is left alone for a while, in seconds.
    """

    host: str = field(kw_only=False)
    port: int = field(default=993, kw_only=False)
    name: str = "imap"
    user: str
    password: Secret | None = field(default=None, repr=False)
    access_token: Secret | None = field(default=None, repr=False)
    folders: Sequence[str] = ("INBOX",)
    tls: Tls = "implicit"
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    insecure: bool = False
    after: str = "seen"
    backlog: Literal["all", "none"] = "all"
    idle: bool = True
    max_message_size: int = 64 * 1024 * 1024
    batch_messages: int = 100
    batch_octets: int = 16 * 1024 * 1024
    timeout: float = 60.0
    connect_timeout: float = 30.0
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    _suspects: Suspects = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._suspects = Suspects(self.monotonic)
        check_place(self.host, self.port, self.tls, insecure=self.insecure)
        if not self.user:
            raise ConfigurationError("user", "it is empty", "give the mailbox's name")
        if (self.password is None) == (self.access_token is None):
            raise ConfigurationError(
                "password", "one of password and access_token is needed", "give exactly one of them"
            )
        self._check_folders()
        for name in ("max_message_size", "batch_messages", "batch_octets", "timeout", "connect_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not positive", "give a number above 0"
                )

    def _check_folders(self) -> None:
        if isinstance(self.folders, str) or not self.folders or not all(self.folders):
            raise ConfigurationError("folders", f"{self.folders!r} names none", 'give a list, as ["INBOX"]')
        if len(set(self.folders)) != len(self.folders):
            raise ConfigurationError("folders", "one stands there twice", "name each once")
        if self.after not in {"seen", "delete", "keep"} and not self._target:
            raise ConfigurationError(
                "after", f"{self.after!r} is unknown", 'use "seen", "delete", "keep" or "move:" and a folder'
            )
        if self._target in self.folders:
            raise ConfigurationError(
                "after", f"{self._target!r} is one of the folders", "what is moved there would be taken again"
            )
        if self.backlog not in {"all", "none"}:
            raise ConfigurationError("backlog", f"{self.backlog!r} is unknown", 'use "all" or "none"')

    @property
    def _target(self) -> str:
        return self.after.removeprefix(MOVE) if self.after.startswith(MOVE) else ""

    def prepare(self) -> None:
        """Check that IMAPClient is there.

        Raises:
            ConfigurationError: it is not.
        """
        import_imapclient()

    def open(self, inlet: Inlet) -> ImapSession:
        """Connect, protect the connection and log in.

        Raises:
            WorldError: the server cannot be reached or refuses us.
            ConfigurationError: IMAPClient is missing, or the secret is empty.
        """
        access = ImapAccess(
            host=self.host, port=self.port, tls=self.tls, context=client_context(self.tls, self.ssl_context),
            user=self.user, password=self.password, token=self.access_token, timeout=self.timeout,
            connect_timeout=self.connect_timeout,
        )  # fmt: skip
        taking = Taking(
            folders=tuple(self.folders), after="move" if self._target else self.after, target=self._target,
            backlog=self.backlog == "all", max_message_size=self.max_message_size,
            batch_messages=self.batch_messages, batch_octets=self.batch_octets, idle=self.idle,
        )  # fmt: skip
        return ImapSession(ImapConnection(access), inlet, taking, self._suspects)
