"""What a store promises, and the values that go in and out of it.

A store is used by one thread (the store actor's). Everything between ``begin()`` and ``commit()`` becomes durable
together or not at all. Reads by others go through a :class:`Reader`.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from postroom.addresses import Address
from postroom.delivery import Target
from postroom.ids import IdGenerator
from postroom.outcomes import Reply
from postroom.recipients import State

__all__ = [
    "Accepted",
    "Attempt",
    "Claimed",
    "Control",
    "Controlled",
    "InstanceRow",
    "MessageRecord",
    "NewMessage",
    "NewRecipient",
    "Reader",
    "RecipientRecord",
    "Settlement",
    "Standing",
    "Store",
    "Tally",
    "storable",
]


def storable(text: str) -> str:
    """Return ``text`` without what a database of UTF-8 texts cannot carry: half surrogate pairs and NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


class NewRecipient(NamedTuple):
    """A recipient about to be accepted.

    Attributes:
        address: where it goes.
        transport: the first transport of its plan.
    """

    address: Address
    transport: str


class NewMessage(NamedTuple):
    """A message about to be accepted. Times are wall-clock seconds.

    Attributes:
        key: its number (:mod:`postroom.ids`).
        sender: envelope sender, "" for the null reverse-path.
        content: the octets to send.
        recipients: at least one.
        created: when it was submitted.
        due: when it may first be sent.
        expires: when it stops being tried, or None.
        priority: 1, 0 or -1.
        hold: whether its recipients start in the state ``held``.
        subject: decoded, for people.
        message_id: the Message-ID header.
        smtputf8: see :class:`postroom.delivery.Delivery`.
        eight_bit: likewise.
        report: bits of :class:`postroom.envelopes.Report` values, as stored.
        idempotency_key: the caller's key, or None.
        digest: of what the caller gave, for comparing; b"" without a key.
    """

    key: int
    sender: str
    content: bytes
    recipients: tuple[NewRecipient, ...]
    created: float
    due: float
    expires: float | None = None
    priority: int = 0
    hold: bool = False
    subject: str = ""
    message_id: str = ""
    smtputf8: bool = False
    eight_bit: bool = False
    report: str = ""
    idempotency_key: str | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a :class:`NewMessage`.

    Attributes:
        key: the number under which the message is in the spool: an earlier one for a repeated idempotency key.
        duplicate: the key was used before with the same payload; nothing was stored.
        conflict: the key was used before with another payload; nothing was stored.
    """

    key: int
    duplicate: bool = False
    conflict: bool = False


class Settlement(NamedTuple):
    """A change of one recipient that this instance owns; it gives up ownership.

    Attributes:
        key: the message.
        index: the recipient within it.
        transport: the transport that had it.
        was: the state it was in.
        state: the state it goes to.
        at: wall-clock seconds of the change.
        attempts: attempts made, this one included when it counts.
        first_attempt: wall-clock seconds of the first attempt, or None.
        due: when it is due again (pending states).
        reply: what was said, or None when there was no attempt.
        outcome: label for counting: delivered, relayed, accepted, deferred, failed, not_mine, expired, crashed,
            cancelled, held; "" when nothing is to be counted.
        next_transport: the transport to try next, None for the same one.
        remote_id: the other side's id for it (``accepted``).
        crashes: couriers that crashed while sending it.
        in_doubt: the attempt may have succeeded.
        detail: a traceback or the like, for people.
        duration: seconds the attempt took.
        only: whether it is the message's only recipient, so that no other row needs to be asked.
    """

    key: int
    index: int  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride] # hides tuple.index
    transport: str
    was: State
    state: State
    at: float
    attempts: int
    first_attempt: float | None = None
    due: float | None = None
    reply: Reply | None = None
    outcome: str = ""
    next_transport: str | None = None
    remote_id: str | None = None
    crashes: int = 0
    in_doubt: bool = False
    detail: str | None = None
    duration: float | None = None
    only: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message and those of its recipients that this instance has just taken for one transport."""

    key: int
    sender: str
    created: float
    due: float
    priority: int
    expires: float | None
    size: int
    smtputf8: bool
    eight_bit: bool
    recipient_count: int
    targets: tuple[Target, ...]
    crashes: int = 0


Control = Literal["hold", "release", "cancel", "retry"]
"""What an operator can do with the pending recipients of a message."""


@dataclass(frozen=True, slots=True)
class Controlled:
    """What a control did.

    Attributes:
        changed: recipients changed.
        in_transit: recipients left alone because somebody is sending them.
        final: recipients left alone because they are settled.
        transports: transports of the changed recipients.
        completed: the message has no pending recipient left.
        settlements: the changes made, for those who want to be told.
    """

    changed: tuple[int, ...]
    in_transit: tuple[int, ...]
    final: tuple[int, ...]
    transports: frozenset[str]
    completed: bool = False
    settlements: tuple[Settlement, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """The ledger's counts, read in one transaction.

    Attributes:
        states: recipients by (transport, state); final states count for ever, also after their rows are gone.
        accepted: recipients ever accepted, by address type.
        outcomes: outcomes ever recorded, by (transport, outcome label).
    """

    states: Mapping[tuple[str, State], int]
    accepted: Mapping[str, int]
    outcomes: Mapping[tuple[str, str], int]

    @property
    def imbalance(self) -> int:
        """``accepted - (final + pending)``: 0, or there is a bug."""
        return sum(self.accepted.values()) - sum(self.states.values())

    @property
    def pending(self) -> int:
        """Recipients that are not settled."""
        return sum(count for (_, state), count in self.states.items() if not state.is_final)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recorded attempt that did not settle the recipient happily."""

    at: float
    transport: str
    outcome: str
    reply: Reply
    duration: float | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class RecipientRecord:
    """A recipient as the spool has it. Times are wall-clock seconds."""

    index: int
    address: Address
    transport: str
    state: State
    due: float | None
    owner: int | None
    attempts: int
    first_attempt: float | None
    changed: float | None
    crashes: int
    in_doubt: bool
    reply: Reply | None
    remote_id: str | None
    detail: str | None = None
    history: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A message as the spool has it, without its content. Times are wall-clock seconds."""

    key: int
    sender: str
    subject: str
    message_id: str
    created: float
    expires: float | None
    priority: int
    size: int
    report: str
    idempotency_key: str | None
    content_kept: bool
    recipients: tuple[RecipientRecord, ...]


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """A process that shares the spool."""

    node: int
    pid: int
    host: str
    started: float
    heartbeat: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a transport stands in one instance. Times are wall-clock seconds.

    Attributes:
        status: up, parked, probing, ramping, restarting; starting or stopped where nothing is recorded.
        reason: why, "" when up.
        since: when it came to this.
        until: when it is tried again, or None.
    """

    transport: str
    status: str
    reason: str = ""
    since: float = 0.0
    until: float | None = None
    node: int = 0


class Store(Protocol):
    """The writing side; used by one thread."""

    node: int
    ids: IdGenerator

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
        self, transport: str, now: float, limit: int
    ) -> tuple[list[Claimed], list[Settlement], list[int]]:
        """Take up to ``limit`` due recipients, by priority, then due time, then submission order.

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

    def adopt(self, hold: Collection[str], now: float) -> Mapping[str, int]:
        """Free the recipients of dead instances and forget those; returns how many by transport.

        Recipients of the transports in ``hold`` that were being sent are held, others are marked in doubt.
        """
        ...

    def control(
        self, action: Control, key: int, revoked: Collection[int], indices: Collection[int] | None, now: float
    ) -> Controlled:
        """Act on a message's pending recipients; those in ``revoked`` are owned by us but safe to change."""
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

    def set_standing(self, standing: "Standing") -> None:
        """Record where a transport of this instance stands, for other processes to see."""
        ...

    def changed_elsewhere(self) -> bool:
        """Whether another process committed since the last call."""
        ...

    def heartbeat(self, now: float) -> None:
        """Record that this instance lives."""
        ...


class Reader(Protocol):
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

    def content(self, key: int) -> bytes | None:
        """Return a message's octets, or None when they are gone."""
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

    def oldest_due(self, transport: str, now: float) -> float | None:
        """Return the due time of the longest-waiting queued recipient of ``transport`` that is due."""
        ...
