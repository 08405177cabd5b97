"""POP3 (RFC 1939) receiver."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from postroom.errors import ConfigurationError
from postroom.inbound.values import Arrival, LedgerKey
from postroom.receivers.base import Inlet, Receiver, ReceiverSession
from postroom.receivers.mailbox_access import Secret, Tls, check_place, client_context, reveal
from postroom.receivers.mailbox_traces import envelope_of
from postroom.receivers.pop3_client import Listed, Pop3Access, Pop3Connection

__all__ = ["Pop3Receiver", "Pop3Session"]

log = logging.getLogger("postroom.receivers")

SOURCE = "pop3"
KEPT = "pop3;kept"
"""Where the ledger has the time of taking, as "seconds uid", for ``keep_days``."""

DAY = 86_400.0


@dataclass(kw_only=True)
class Pop3Receiver(Receiver):
    """Takes messages from a POP3 maildrop, over a fresh connection at each poll.

    ``Pop3Receiver("pop.example.org", user="desk", password=read_password)``

    The server must have UIDL: by its unique ids the ledger knows what was taken. A message is deleted after it was
    committed here, and what the server forgot to delete (QUIT makes it happen) is deleted at the next poll.

    Attributes:
        host: the server's name or address. TLS certificates are verified against it.
        port: 995 (implicit TLS) or 110.
        user: the maildrop's name for the server.
        password: a callable is asked at each login. Never shown.
        tls: "implicit" (RFC 8314), "starttls" (STLS, required, not opportunistic), or "none", for this machine only.
        ssl_context: None for ``ssl.create_default_context()``, which verifies certificate and name.
        insecure: allow ``tls="none"`` over a network.
        after: what happens to the remote copy when ours is committed: "delete", or "keep": it stays, and the ledger
            knows it for as long as it is there.
        keep_days: with "keep": days after taking at which the copy is deleted all the same; None for never.
        max_message_size: octets. Larger messages stay there and are not retrieved; a warning is logged once for each
            session.
        batch_messages: messages that are stored together at most.
        batch_octets: octets of them at most, unless a single one has more.
        timeout: seconds that the server may be silent within a command.
        connect_timeout: seconds that a connection may take.
        wall: the clock by which the days are measured, in seconds since the Unix epoch.
    """

    host: str = field(kw_only=False)
    port: int = field(default=995, kw_only=False)
    name: str = "pop3"
    user: str
    password: Secret = field(repr=False)
    tls: Tls = "implicit"
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    insecure: bool = False
    after: Literal["delete", "keep"] = "delete"
    keep_days: float | None = None
    max_message_size: int = 64 * 1024 * 1024
    batch_messages: int = 100
    batch_octets: int = 16 * 1024 * 1024
    timeout: float = 60.0
    connect_timeout: float = 30.0
    wall: Callable[[], float] = field(default=time.time, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_place(self.host, self.port, self.tls, insecure=self.insecure)
        reveal(self.user, "user")
        if self.after not in {"delete", "keep"}:
            raise ConfigurationError("after", f"{self.after!r} is unknown", 'use "delete" or "keep"')
        if self.keep_days is not None and self.after != "keep":
            raise ConfigurationError("keep_days", "nothing is kept", 'set after="keep"')
        for name in (
            "keep_days", "max_message_size", "batch_messages", "batch_octets", "timeout", "connect_timeout",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(name, f"{value!r} is not positive", "give a number above 0")

    def open(self, inlet: Inlet) -> "Pop3Session":
        """Connect, protect the connection and log in.

        Raises:
            WorldError: the server cannot be reached or refuses us.
            ConfigurationError: the secret is empty.
        """
        return Pop3Session(self, inlet)


class Pop3Session(ReceiverSession):
    """Polls over one connection after the other; a first one is made at once, to see whether we are let in."""

    def __init__(self, receiver: Pop3Receiver, inlet: Inlet) -> None:
        self._receiver = receiver
        self._inlet = inlet
        self._interrupted = threading.Event()
        self._warned: set[str] = set()
        self._access = Pop3Access(
            host=receiver.host, port=receiver.port, tls=receiver.tls,
            context=client_context(receiver.tls, receiver.ssl_context), user=receiver.user,
            password=receiver.password, timeout=receiver.timeout, connect_timeout=receiver.connect_timeout,
        )  # fmt: skip
        # A maildrop is as it was at the login: this connection shows only that there is one.
        connection = self._connect()
        try:
            connection.quit()
        finally:
            connection.close()

    def poll(self) -> int:
        """Take what is new, delete what is to be deleted, and end the connection, which makes that happen.

        Raises:
            WorldError: the server cannot be reached, refuses us, or broke off.
            Exception: whatever the inlet raises.
        """
        connection = self._connect()
        try:
            listed = connection.listing()
            known = self._inlet.known(SOURCE)
            self._forget(known.difference(each.uid for each in listed))
            # A server may number equal messages alike (RFC 1939 allows it); the second has its turn when the first is
            # gone.
            firsts = {each.uid: each for each in reversed(listed)}
            leaving = self._overdue(firsts, known)
            for uid in leaving:
                connection.delete(firsts[uid].number)
            taken = self._take(
                connection, [each for uid, each in firsts.items() if uid not in known], leaving
            )
            connection.quit()
        finally:
            connection.close()
        self._forget(leaving)
        return taken

    def _connect(self) -> Pop3Connection:
        self._connection = Pop3Connection(self._access)
        if self._interrupted.is_set():
            self._connection.interrupt()
        self._connection.open()
        return self._connection

    def _overdue(self, firsts: Collection[str], known: Collection[str]) -> set[str]:
        """Return which of the copies that were taken before are to be deleted now."""
        receiver = self._receiver
        there = set(known).intersection(firsts)
        if receiver.after == "delete":
            return there
        if receiver.keep_days is None or not there:
            return set()
        since = receiver.wall() - receiver.keep_days * DAY
        times = {uid: float(at) for at, uid in map(_split, self._inlet.known(KEPT))}
        return {uid for uid in there if uid in times and times[uid] <= since}

    def _take(self, connection: Pop3Connection, new: Sequence[Listed], leaving: set[str]) -> int:
        taken = 0
        for batch in self._batches(connection, sorted(new, key=lambda each: each.number)):
            said = self._inlet.take([arrival for _, arrival in batch])
            taken += sum(not each.duplicate for each in said)
            if self._receiver.after == "delete":
                for each, _ in batch:
                    connection.delete(each.number)
                    leaving.add(each.uid)
        return taken

    def _batches(
        self, connection: Pop3Connection, new: Sequence[Listed]
    ) -> Iterator[list[tuple[Listed, Arrival]]]:
        receiver = self._receiver
        batch: list[tuple[Listed, Arrival]] = []
        octets = 0
        for each in new:
            if batch and (
                octets + each.size > receiver.batch_octets or len(batch) >= receiver.batch_messages
            ):
                yield batch
                batch, octets = [], 0
            content = None
            if each.size <= receiver.max_message_size:
                content = connection.retrieve(each.number, receiver.max_message_size)
            if content is None:
                self._pass_over(each)
                continue
            batch.append((each, self._arrival(each, content)))
            octets += len(content)
        if batch:
            yield batch

    def _arrival(self, each: Listed, content: bytes) -> Arrival:
        keys = [LedgerKey(SOURCE, each.uid)]
        if self._receiver.keep_days is not None:
            keys.append(LedgerKey(KEPT, f"{self._receiver.wall():.0f} {each.uid}"))
        sender, recipients = envelope_of(content)
        return Arrival(
            content=content,
            keys=tuple(keys),
            sender=sender,
            recipients=recipients,
            remote=self._access.remote,
        )

    def _pass_over(self, each: Listed) -> None:
        if each.uid not in self._warned:
            self._warned.add(each.uid)
            log.warning(
                "%s: %s has %d octets or more, and max_message_size is %d; it stays there and is not taken",
                self._access.remote, each.uid, each.size, self._receiver.max_message_size,
            )  # fmt: skip

    def _forget(self, uids: Collection[str]) -> None:
        if not uids:
            return
        # The times first: without its uid, nothing would ever remove them.
        if self._receiver.keep_days is not None:
            times = [entry for entry in self._inlet.known(KEPT) if _split(entry)[1] in uids]
            self._inlet.forget(KEPT, times)
        self._inlet.forget(SOURCE, uids)

    def wait(self, timeout: float) -> None:
        """Wait for the time, or for an interrupt; POP3 has no way to tell of new messages."""
        self._interrupted.wait(timeout)

    def interrupt(self) -> None:
        """End the wait, and the connection, so that whatever hangs ends."""
        self._interrupted.set()
        self._connection.interrupt()

    def close(self) -> None:
        """Close the connection, if one is open."""
        self._connection.close()


def _split(entry: str) -> tuple[str, str]:
    at, _, uid = entry.partition(" ")
    return at, uid
