"""What a store promises about incoming messages and about the journal of events."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from postroom.addresses import Address
from postroom.events import Event
from postroom.inbound.values import (
    Filing,
    FolderRow,
    InboundRecord,
    LedgerKey,
    Marks,
    NewInbound,
    Received,
    RemoteReport,
)
from postroom.stores.values import Settlement

__all__ = ["Inbox", "InboxReader", "Journal", "JournalReader", "JournalRow", "Reported"]


@dataclass(frozen=True, slots=True)
class Reported:
    """What remote reports changed.

    Attributes:
        settlements: changes of recipients, in the store already, with their addresses.
        completed: messages that have no pending recipient left since.
    """

    settlements: tuple[tuple[Settlement, Address], ...] = ()
    completed: tuple[int, ...] = ()


class Inbox(Protocol):
    """The writing side, within a transaction of the store; used by its thread alone (a step of ``Perform``).

    Attributes:
        news: the events that this transaction will mean once it is committed, in order.
        reported: what remote reports changed in this transaction.
        due: the earliest time at which something arriving is due, noted in this transaction, or None.
    """

    news: list[Event]
    reported: list[Reported]
    due: float | None

    def receive(self, receiver: str, inbound: Sequence[NewInbound], now: float) -> list[Received]:
        """Store messages that the ledger does not know, and match their reports."""
        ...

    def apply_reports(self, reports: Sequence[RemoteReport], now: float) -> list[bool]:
        """Change the recipients that reports speak of; returns for each report whether it means one of ours."""
        ...

    def has_early_reports(self) -> bool:
        """Return whether reports wait that came before the outcome of the very attempt they are about."""
        ...

    def apply_early_reports(self, now: float, limit: int) -> int:
        """Look again at up to ``limit`` of them whose recipients nobody is sending to any more; returns how many."""
        ...

    def claim(self, now: float, limit: int, lease: float) -> list[tuple[InboundRecord, NewInbound]]:
        """Take up to ``limit`` arriving messages that are due; they are due again after ``lease`` seconds.

        Each claim counts as an attempt until :meth:`file` or :meth:`postpone`. The content is in the arrival.
        """
        ...

    def file(self, key: int, attempts: int, filing: Filing, now: float) -> bool:
        """End the postprocessing of a message; False, and nothing is done, if somebody else claimed it since."""
        ...

    def postpone(self, key: int, attempts: int, due: float, error: str, now: float) -> bool:
        """Put an arriving message off; False as in :meth:`file`."""
        ...

    def mark(self, keys: Collection[int], marks: Marks, now: float) -> list[int]:
        """Change marks of filed messages; returns those that changed."""
        ...

    def move(self, keys: Collection[int], folder: str, now: float) -> list[int]:
        """Move filed messages to a folder, made when missing; returns those that moved."""
        ...

    def delete(self, keys: Collection[int], now: float) -> list[int]:
        """Remove filed messages for good; returns those that were there."""
        ...

    def make_folder(self, name: str, now: float) -> bool:
        """Make a folder; returns whether it is new."""
        ...

    def drop_folder(self, name: str) -> bool:
        """Remove an empty folder; returns whether it was there.

        Raises:
            UsageError: there are messages in it.
        """
        ...

    def set_progress(self, receiver: str, source: str, value: str) -> None:
        """Remember a fact about a source."""
        ...

    def note_keys(self, receiver: str, keys: Sequence[LedgerKey]) -> None:
        """Enter keys in the ledger that belong to no message of ours."""
        ...

    def forget_keys(self, receiver: str, source: str, uids: Collection[str]) -> None:
        """Take keys out of the ledger."""
        ...

    def lease(self, name: str, now: float, seconds: float) -> bool:
        """Take or prolong a lease; False if another live instance has it."""
        ...

    def end_lease(self, name: str) -> None:
        """Give a lease of this instance up."""
        ...

    def purge(self, now: float, limit: int, trash_before: float | None) -> int:
        """Forget expired ledger keys and old messages in "Trash"; returns how much was removed."""
        ...


class InboxReader(Protocol):
    """The reading side. Thread-safe; never waits for the writer."""

    def folders(self) -> Sequence[FolderRow]:
        """Return the folders by name."""
        ...

    def inbound(self, key: int) -> InboundRecord | None:
        """Return a message, None when there is none (any more)."""
        ...

    def inbound_content(self, key: int) -> bytes | None:
        """Return a message's octets."""
        ...

    def list_inbound(
        self,
        *,
        folder: str | None = None,
        unseen: bool = False,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Sequence[InboundRecord]:
        """Return filed messages of one folder or all, by number, behind ``after`` in the order asked for."""
        ...

    def next_arriving(self) -> float | None:
        """Return when the next arriving message is due, None when there is none."""
        ...

    def ledger(self, receiver: str, source: str) -> frozenset[str]:
        """Return the uids that the ledger has of a source."""
        ...

    def progress(self, receiver: str) -> Mapping[str, str]:
        """Return what is remembered of a receiver's sources."""
        ...


class JournalRow(NamedTuple):
    """An event in the journal.

    Attributes:
        cursor: its number; later ones are greater, in the order in which they were committed.
        at: wall-clock seconds.
        kind: the event's class name.
        data: the rest, as JSON.
    """

    cursor: int
    at: float
    kind: str
    data: str


class Journal(Protocol):
    """The writing side of the journal, within a transaction of the store."""

    def write(self, events: Sequence[Event]) -> None:
        """Append events."""
        ...

    def advance(self, name: str, position: int, before: int | None, now: float) -> bool:
        """Set a named cursor; False, and nothing is done, unless it stood at ``before`` (None: it did not exist)."""
        ...

    def drop_cursor(self, name: str) -> bool:
        """Forget a named cursor; returns whether it was there."""
        ...

    def purge(self, before: float, limit: int) -> int:
        """Forget events that happened before ``before``; returns how many."""
        ...


class JournalReader(Protocol):
    """The reading side of the journal. Thread-safe."""

    def events(self, after: int, limit: int, kinds: Collection[str] = ()) -> Sequence[JournalRow]:
        """Return up to ``limit`` events behind ``after``, of some kinds or all."""
        ...

    def bounds(self) -> tuple[int, int]:
        """Return (the number of the last event that was forgotten, the last number given), 0 for none."""
        ...

    def cursors(self) -> Mapping[str, int]:
        """Return the named cursors."""
        ...
