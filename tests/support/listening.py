"""A spool for trying a listener: a ledger, real checks of submissions, and doors that can be kept shut."""

import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

import trustme

from postroom.envelopes import Envelope, Submission, prepare_envelope
from postroom.errors import IdempotencyConflict
from postroom.inbound.values import Arrival, Received
from postroom.messages import PreparedMessage, prepare
from postroom.receivers.base import ReceiverSession
from postroom.receivers.listener import SmtpListener

__all__ = [
    "ANN",
    "AWAY",
    "BOB",
    "CAROL",
    "MAIL",
    "ODD",
    "PATIENCE",
    "ListeningSpool",
    "Wire",
    "assert_set",
    "client",
    "hub_of",
    "is_ours",
    "listener",
    "listening",
    "own_part",
    "served",
    "trusting",
    "until",
]

PATIENCE = 10.0
"""Seconds after which a test gives up; nothing is expected to take them."""


ANN, BOB, CAROL = "ann@client.example", "bob@example.org", "carol@example.org"
AWAY = "dora@elsewhere.example"
MAIL = (
    b"From: ann@client.example\r\nTo: bob@example.org\r\nSubject: hello\r\nMessage-ID: <1@client.example>\r\n"
    b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n\r\nbody\r\n"
)
ODD = (
    b"From: x\r\nmessage-id: <odd@x>\r\nX-Latin: caf\xe9\r\n\r\n.\r\n..\r\n...three\r\n" + b"long " * 3000
    + b"\r\n\0\xff\x80 trailing \t\r\n\r\n.dot\r\n"
)  # fmt: skip


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} never came to hold"
        time.sleep(0.002)


class ListeningSpool:
    """An inlet with a dictionary for a ledger. Thread-safe.

    Attributes:
        stopping: as in the protocol.
        arrivals: what was stored.
        submissions: what was accepted, as it was prepared.
        reports: (status, reason).
        before: called by each `take` before anything is stored; may block or raise.
        after: called when everything is stored; may block or raise.
        entered: calls of `take` so far.
        sources: what is remembered of them.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.arrivals: list[Arrival] = []
        self.submissions: list[tuple[Submission, PreparedMessage, Envelope]] = []
        self.reports: list[tuple[str, str]] = []
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.entered = 0
        self.sources: dict[str, str] = {}
        self.max_size = 1 << 20
        self.max_recipients = 10
        self._lock = threading.Lock()
        self._ledger: dict[tuple[str, str], int] = {}
        self._keys: dict[str, bytes] = {}

    def take(
        self,
        arrivals: Sequence[Arrival],
        *,
        progress: Mapping[str, str] | None = None,
        submissions: Sequence[Submission] = (),
        timeout: float | None = None,
    ) -> list[Received]:
        del timeout
        with self._lock:
            self.entered += 1
        prepared = [(submission, *self._checked(submission)) for submission in submissions]
        self.before()
        with self._lock:
            for submission, _, envelope in prepared:
                if self._keys.get(submission.idempotency_key or "", envelope.digest) != envelope.digest:
                    raise IdempotencyConflict("idempotency_key", "was used before", "use a new one")
            self.sources.update(progress or {})
            received = [self._store(arrival) for arrival in arrivals]
            for each in prepared:
                key = each[0].idempotency_key
                if key is None or key not in self._keys:
                    self.submissions.append(each)
                if key is not None:
                    self._keys[key] = each[2].digest
        self.after()
        return received

    def _store(self, arrival: Arrival) -> Received:
        for key in arrival.keys:
            if (key.source, key.uid) in self._ledger:
                return Received(self._ledger[key.source, key.uid], duplicate=True)
        self.arrivals.append(arrival)
        for key in arrival.keys:
            self._ledger[key.source, key.uid] = len(self.arrivals)
        return Received(len(self.arrivals))

    def _checked(self, submission: Submission) -> tuple[PreparedMessage, Envelope]:
        now = time.time()
        prepared = prepare(
            submission.message, now=now, message_id_domain="spool.example", unique="u", max_size=self.max_size
        )
        return prepared, prepare_envelope(submission, prepared, now=now, max_recipients=self.max_recipients)

    def prepare(self, submission: Submission) -> None:
        self._checked(submission)

    def known(self, source: str) -> frozenset[str]:
        return frozenset(uid for place, uid in self._ledger if place == source)

    def forget(self, source: str, uids: Collection[str]) -> None:
        for uid in uids:
            self._ledger.pop((source, uid), None)

    def progress(self, source: str) -> str | None:
        return self.sources.get(source)

    def report(self, status: str, reason: str = "") -> None:
        self.reports.append((status, reason))


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def served() -> ssl.SSLContext:
    """Return a server's context for 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued = authority().issue_cert("127.0.0.1")
    issued.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - it also takes pyOpenSSL's
    return context


@cache
def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts it."""
    context = ssl.create_default_context()
    authority().configure_trust(context)  # pyright: ignore[reportUnknownMemberType] - it also takes pyOpenSSL's
    return context


def listener(**settings: Any) -> SmtpListener:
    usual: dict[str, Any] = {"local": ["example.org"], "hostname": "mx.example.org", "drain_timeout": 2.0}
    return SmtpListener(**(usual | settings))


def own_part(content: bytes) -> bytes:
    """Return what the listener put before a content."""
    return content[: content.find(b"+0000\r\n") + 7]


def hub_of(session: Any) -> Any:
    return session._hub


def is_ours(address: str) -> bool:
    return address.endswith("@example.org")


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


@contextmanager
def listening(listener: SmtpListener, spool: ListeningSpool) -> Generator[ReceiverSession]:
    """Run a listener; it must be alive at the end."""
    session = listener.open(spool)
    try:
        yield session
        session.poll()
    finally:
        session.close()


class Wire:
    """A client that sends exactly what it is told to."""

    def __init__(self, address: tuple[str, int], *, greet: bool = True) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self._file = self.socket.makefile("rb")
        if greet:
            assert self.reply().startswith("220 ")
            self.said("EHLO client.example", "250")

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> str:
        """Return the last line of a reply, "" at the end of the connection."""
        while True:
            try:
                line = self._file.readline().decode()
            except ConnectionError:
                return ""
            if line[3:4] != "-":
                return line.rstrip("\r\n")

    def said(self, command: str, expected: str) -> str:
        self.send(command.encode() + b"\r\n")
        reply = self.reply()
        assert reply.startswith(expected), f"{command!r} was answered {reply!r}, not {expected}"
        return reply

    def envelope(self, sender: str = "ann@client.example", *recipients: str) -> None:
        self.said(f"MAIL FROM:<{sender}>", "250")
        for recipient in recipients or ("bob@example.org",):
            self.said(f"RCPT TO:<{recipient}>", "250")
        self.said("DATA", "354")

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def client(listener: SmtpListener) -> smtplib.SMTP:
    """Return smtplib's client, connected."""
    return smtplib.SMTP(*listener.address, timeout=PATIENCE)
