"""A journal in memory, for tests of those who read it."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from postroom.events import Event, InboundChanged, NewMessage
from postroom.notifying.bell import Bell
from postroom.notifying.codec import encode
from postroom.notifying.journal import EventLog, Kinds
from postroom.stores.inbox_base import JournalRow

DEFAULT = frozenset({"NewMessage", "InboundChanged", "RecipientFailed"})


def new_message(number: int, folder: str = "Inbox") -> NewMessage:
    return NewMessage(
        float(number), f"m{number}", folder, f"Nr {number}", "ann@x.org", "imap", "IPM.Note", 9, seen=False
    )


def changed(number: int, change: str = "read") -> InboundChanged:
    return InboundChanged(float(number), f"m{number}", "Inbox", change)


class FakeJournal:
    """Reader and writer of a journal, as the store's. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: list[JournalRow] = []
        self.gone = 0
        self.given = 0
        self.named: dict[str, int] = {}
        self.reads = 0
        self.bell = Bell()
        self.running = True
        self.on_read: Callable[[], object] = lambda: None

    # As the store

    def write(self, *events: Event, ring: bool = True) -> int:
        with self.lock:
            for event in events:
                self.given += 1
                self.rows.append(JournalRow(self.given, event.at, *encode(event)))
        if ring:
            self.bell.ring()
        return self.given

    def purge(self, through: int) -> None:
        with self.lock:
            self.gone = through
            self.rows = [row for row in self.rows if row.cursor > through]

    # As a reader

    def events(self, after: int, limit: int, kinds: Collection[str] = ()) -> Sequence[JournalRow]:
        self.on_read()
        with self.lock:
            self.reads += 1
            return [row for row in self.rows if row.cursor > after and (not kinds or row.kind in kinds)][
                :limit
            ]

    def bounds(self) -> tuple[int, int]:
        if not self.running:
            raise RuntimeError("closed")
        with self.lock:
            return self.gone, self.given

    def cursors(self) -> Mapping[str, int]:
        with self.lock:
            return dict(self.named)

    # As a writer of cursors

    def advance(self, name: str, position: int, before: int | None) -> bool:
        with self.lock:
            if self.named.get(name) != before:
                return False
            self.named[name] = position
            return True

    def drop(self, name: str) -> bool:
        with self.lock:
            return self.named.pop(name, None) is not None

    def log(self, kept: frozenset[str] = DEFAULT, interval: float = 0.05) -> EventLog:
        return EventLog(self, kept=kept, bell=self.bell, interval=interval, running=lambda: self.running)


class FakeSubscription:
    """Remembers that it was cancelled."""

    def __init__(self, source: "FakeSource", callback: Callable[[Event], object], kinds: Kinds) -> None:
        self._source = source
        self.callback = callback
        self.kinds = tuple(kinds)

    def cancel(self) -> None:
        if self in self._source.subscriptions:
            self._source.subscriptions.remove(self)


class FakeSource:
    """As much of a spooler as notifications need: a journal, and live events where the test says so."""

    def __init__(self, kept: frozenset[str] = DEFAULT) -> None:
        self.journal = FakeJournal()
        self.subscriptions: list[FakeSubscription] = []
        self.event_log = self.journal.log(kept)

    @property
    def running(self) -> bool:
        return self.journal.running

    def subscribe(
        self, callback: Callable[[Event], object], *, events: Kinds = (), name: str | None = None
    ) -> FakeSubscription:
        del name
        subscription = FakeSubscription(self, callback, events)
        self.subscriptions.append(subscription)
        return subscription

    def happen(self, *events: Event) -> None:
        for event in events:
            for subscription in tuple(self.subscriptions):
                if not subscription.kinds or isinstance(event, subscription.kinds):
                    subscription.callback(event)

    def stop(self) -> None:
        self.journal.running = False
        self.journal.bell.ring()
