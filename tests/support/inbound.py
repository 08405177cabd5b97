"""Incoming messages for tests of the store."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from postroom.clock import ManualClock
from postroom.inbound.values import Arrival, Digest, LedgerKey, NewInbound, Received, RemoteReport
from postroom.routing import Router
from postroom.stores.inbox_reader import SqliteInboxReader
from postroom.stores.sqlite import SqliteStore

CONTENT = b"From: ann@example.org\r\nSubject: hello\r\n\r\nHello.\r\n"


class OpenStore:
    """A store without actors, and its reader."""

    def __init__(self, path: Path, *, linger: float | None = None, router: Router | None = None) -> None:
        self.clock = ManualClock()
        self.store = SqliteStore(
            path, self.clock, synchronous="off", linger=linger, plan=(router or Router([])).plan
        )
        self.reader = SqliteInboxReader(path)

    def __enter__(self) -> Self:
        self.store.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.close()
        self.store.close(leave=True)

    def receive(self, *messages: NewInbound, receiver: str = "imap") -> list[Received]:
        """Receive in a transaction of its own; what it means is left in ``store.inbox``."""
        self.store.begin()
        received = self.store.inbox.receive(receiver, messages, self.clock.time())
        self.store.commit()
        return received

    def new(
        self,
        uid: str | None = "1",
        *,
        content: bytes = CONTENT,
        folders: Sequence[str] = ("Inbox",),
        reports: Sequence[RemoteReport] = (),
        source: str = "INBOX;1",
        report_folder: str | None = None,
    ) -> NewInbound:
        """Return a new incoming message."""
        keys = () if uid is None else (LedgerKey(source, uid),)
        return NewInbound(
            key=self.store.ids.next(),
            arrival=Arrival(
                content=content, keys=keys, sender="ann@example.org", recipients=("box@example.org",)
            ),
            receiver="imap",
            received=self.clock.time(),
            digest=Digest(subject="hello", author="ann@example.org", message_id="<1@example.org>"),
            folders=tuple(folders),
            reports=tuple(reports),
            report_folder=report_folder,
        )
