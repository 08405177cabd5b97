"""What a store promises, and the values that go in and out of it.

A store is used by one thread (the store actor's). Everything between ``begin()`` and ``commit()`` becomes durable
together or not at all. Reads by others go through a :class:`Reader`.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Protocol

from postroom.ids import IdGenerator
from postroom.recipients import State
from postroom.selections import Selection
from postroom.stores.inbox_base import Inbox, InboxReader, Journal, JournalReader
from postroom.stores.records import (
    Action,
    Attempt,
    Control,
    DestinationStanding,
    Followup,
    InstanceRow,
    MessageRecord,
    Operation,
    Order,
    RecipientRecord,
    Request,
    Standing,
    Tally,
)
from postroom.stores.values import (
    Accepted,
    Claimed,
    Controlled,
    NewMessage,
    NewRecipient,
    Place,
    Planned,
    Replan,
    Replanned,
    Settlement,
    storable,
)

__all__ = [
    "Accepted",
    "Action",
    "Attempt",
    "Claimed",
    "Control",
    "Controlled",
    "DestinationStanding",
    "Followed",
    "Followup",
    "InstanceRow",
    "MessageRecord",
    "NewMessage",
    "NewRecipient",
    "Operation",
    "Order",
    "Place",
    "Planned",
    "Reader",
    "RecipientRecord",
    "Replan",
    "Replanned",
    "Request",
    "Settlement",
    "Standing",
    "Store",
    "Tally",
    "storable",
]


class Followed(Protocol):
    """What the last transaction means for followups and for messages that wait for others.

    Attributes:
        due: the earliest followup that was noted, or None.
        freed: by transport the earliest due time of recipients that need not wait for another message any more.
    """

    due: float | None
    freed: dict[str, float]


class Store(Protocol):
    """The writing side; used by one thread."""

    node: int
    ids: IdGenerator

    @property
    def following(self) -> Followed:
        """What the last transaction means for others."""
        ...

    @property
    def inbox(self) -> Inbox:
        """Incoming messages."""
        ...

    @property
    def events(self) -> Journal:
        """The journal of events."""
        ...

    def open(self) -> None:
        """Open or create the spool, migrate it, and register this process as an instance."""
        ...

    def close(self, *, leave: bool) -> None:
        """Close; with ``leave`` the instance is removed, else what it owns is adopted later as in doubt."""
        ...

    def disconnect(self) -> None:
        """Close the connection but stay an instance; ``open`` connects again."""
        ...

    def check_place(self) -> None:
        """Check that what is written can be found again under the spool's name.

        Raises:
            SpoolUnavailable: somebody removed or replaced the spool while it was in use.
        """
        ...

    def checkpoint(self) -> None:
        """Do cheap housekeeping of the storage engine."""
        ...

    def connections(self) -> Sequence[object]:
        """Return what must not be finalised in a forked child."""
        ...

    def forget(self) -> None:
        """Let go, in a forked child, of what would keep the parent from being known as dead."""
        ...

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def commit(self) -> None:
        """Make everything since ``begin`` durable."""
        ...

    def rollback(self) -> None:
        """Undo everything since ``begin``."""
        ...

    def exchange(
        self,
        messages: Sequence[NewMessage],
        owned: Container[tuple[int, int]],
        settlements: Sequence[Settlement],
    ) -> tuple[list[Accepted], list[Settlement], list[int]]:
        """Do ``begin``, ``settle``, ``accept`` and ``commit`` as quickly as can be: this is what a busy store does."""
        ...

    def accept(self, messages: Sequence[NewMessage], owned: Container[tuple[int, int]]) -> list[Accepted]:
        """Insert messages; recipients in ``owned`` (key, index) are born owned by this instance."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[int]]:
        """Apply changes.

        Returns:
            those that applied (owned by us and in the expected state), and the keys of the messages that have no
            pending recipient left.
        """
        ...

    def claim(
        self, transport: str, now: float, limit: int, *, fair: bool = False, blocked: Collection[str] = ()
    ) -> tuple[list[Claimed], list[Settlement], list[int]]:
        """Take up to ``limit`` due recipients, by priority, then due time, then submission order.

        When more is due than that: a lower priority gets its small share all the same, and with ``fair`` so does every
        tenant. Recipients at the ``blocked`` destinations are left where they are.

        Returns:
            them, the recipients that turned out expired (already settled), and the messages which that completed.
        """
        ...

    def journal(self, recipients: Iterable[tuple[int, int]], transport: str) -> None:
        """Record owned recipients as ``sending`` before their attempt."""
        ...

    def reclaim(self, transport: str, keep: Collection[tuple[int, int]]) -> int:
        """Give back all recipients of ``transport`` owned by this instance but those in ``keep``."""
        ...

    def sweep(self, now: float, limit: int, *, held: bool) -> tuple[list[Settlement], list[int]]:
        """Expire up to ``limit`` recipients, by an index, whose ``expires`` has passed and whom nobody has in hand.

        Of every non-final state, except ``held`` unless asked. Returns the settlements and the completed messages.
        """
        ...

    def next_expiry(self) -> float | None:
        """When the next recipient expires that nobody has in hand; None without one."""
        ...

    def replan(  # noqa: PLR0913 - one caller
        self, transport: str, plan: Replan, after: Place | None, limit: int, now: float, *, aside: bool
    ) -> Replanned:
        """Ask ``plan`` about up to ``limit`` unowned queued recipients of ``transport`` behind ``after``, and do it.

        With ``aside`` also about those that are held, or wait for another message.
        """
        ...

    def followed_up(self, followup: Followup, reported: Collection[int], again: float | None) -> bool:
        """Note that a followup is done: False, and nothing is changed, when it was not there any more.

        Args:
            followup: what was done; with its ``due`` as it was read, so that of two processes one wins.
            reported: the recipients whose end was reported.
            again: when to look again, None for never: then the content goes too if the message is complete.
        """
        ...

    def set_destination(self, standing: DestinationStanding) -> None:
        """Record where a destination stands; one that is "up" is forgotten."""
        ...

    def fact(self, name: str) -> str | None:
        """Return a small fact about the spool, as it was last recorded."""
        ...

    def set_fact(self, name: str, value: str) -> None:
        """Record a small fact about the spool."""
        ...

    def adopt(self, hold: Collection[str], now: float) -> Mapping[str, int]:
        """Free the recipients of dead instances and forget those; returns how many by transport.

        Recipients of the transports in ``hold`` that were being sent are held, others are marked in doubt.
        """
        ...

    def control(
        self, action: Action, key: int, revoked: Collection[int], indices: Collection[int] | None, now: float
    ) -> Controlled:
        """Act on a message's recipients; those in ``revoked`` are owned by us but safe to change."""
        ...

    def take_requests(self, limit: int) -> Sequence[Request]:
        """Remove and return what operators in other processes want of this instance."""
        ...

    def set_order(self, order: Order) -> Order:
        """Record a standing order (``id`` 0 for a new one); returns it with its number."""
        ...

    def drop_orders(self, ids: Collection[int]) -> int:
        """Forget standing orders; returns how many there were."""
        ...

    def log_operation(
        self, action: Action, selection: str, changed: int, now: float, operation: int | None
    ) -> int:
        """Record what an operator does to many recipients, or how far it has come; returns the entry's number."""
        ...

    def next_due(self, transport: str) -> float | None:
        """When the next unowned queued recipient of ``transport`` is due; None without one."""
        ...

    def purge(self, before: float | None, content_before: float, limit: int) -> int:
        """Look at up to ``limit`` messages: forget those completed before ``before`` (None: keep all).

        The octets of those completed before ``content_before`` are dropped. Returns how many were looked at, 0 at
        the end of a round.
        """
        ...

    def index(self, limit: int, now: float) -> int:
        """Take up to ``limit`` messages into the search index; returns how many it took, 0 when it has all."""
        ...

    def set_standing(self, standing: "Standing") -> None:
        """Record where a transport of this instance stands, for other processes to see."""
        ...

    def changed_elsewhere(self) -> bool:
        """Whether another process committed since the last call."""
        ...

    def heartbeat(self, now: float) -> None:
        """Record that this instance lives."""
        ...


class Reader(InboxReader, JournalReader, Protocol):
    """The reading side. Thread-safe; never waits for the writer."""

    def close(self) -> None:
        """Close; reads under way finish first, later ones raise."""
        ...

    def connections(self) -> Sequence[object]:
        """Return what must not be finalised in a forked child."""
        ...

    def message(self, key: int) -> MessageRecord | None:
        """Return a message with its recipients and their history."""
        ...

    def content(self, key: int, variant: int | None = None) -> bytes | None:
        """Return a message's octets, or those a preprocessor made for some recipients; None when they are gone."""
        ...

    def pending(self, key: int) -> int | None:
        """Return how many recipients of a message are not final, None for an unknown message."""
        ...

    def tally(self) -> Tally:
        """Return the ledger's counts."""
        ...

    def recount(self) -> Mapping[tuple[str, State], int]:
        """Count the pending recipients row by row, to check the tally (cost grows with the spool)."""
        ...

    def instances(self) -> Sequence[InstanceRow]:
        """Return the processes that share the spool."""
        ...

    def standings(self) -> Sequence[Standing]:
        """Return where the transports stand, per instance."""
        ...

    def list_recipients(
        self, *, states: Collection[State], transport: str | None, after: tuple[int, int] | None, limit: int
    ) -> Sequence[tuple[MessageRecord, RecipientRecord]]:
        """Return recipients in these states in the order of (key, index), beginning behind ``after``."""
        ...

    def selected(
        self,
        selection: Selection,
        *,
        now: float,
        after: tuple[int, int] | None,
        limit: int,
        idle: bool = False,
    ) -> Sequence[tuple[int, int]]:
        """Return the (key, index) of up to ``limit`` selected recipients behind ``after``, in order.

        With ``idle`` only those that wait in the spool for a later time, in nobody's hand.
        """
        ...

    def count_selected(self, selection: Selection, *, now: float, due: bool = False) -> tuple[int, int]:
        """Return how many recipients are selected, and of how many messages; with ``due`` only those that are due."""
        ...

    def operations(self, limit: int) -> Sequence[Operation]:
        """Return up to ``limit`` entries of the log of operations, the latest first."""
        ...

    def orders(self) -> Sequence[Order]:
        """Return the standing orders, expired ones included."""
        ...

    def followups(self, now: float, limit: int) -> Sequence[Followup]:
        """Return up to ``limit`` followups that are due, the longest-waiting first."""
        ...

    def next_followup(self) -> float | None:
        """Return when the next followup is due, or None."""
        ...

    def destinations(self, transport: str | None = None) -> Sequence[DestinationStanding]:
        """Return where the destinations stand that are not simply up."""
        ...

    def oldest_due(self, transport: str, now: float) -> float | None:
        """Return the due time of the longest-waiting queued recipient of ``transport`` that is due."""
        ...
