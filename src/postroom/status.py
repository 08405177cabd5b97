"""What became of a message, and what it waits for: public values made from the record."""

from dataclasses import dataclass

from postroom.addresses import Address
from postroom.ids import format_id
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Attempt, MessageRecord, RecipientRecord

__all__ = [
    "Explanation",
    "MessageStatus",
    "QueueEntry",
    "RecipientStatus",
    "TransportStatus",
    "message_status",
    "queue_entry",
    "recipient_status",
    "whole_history",
]

_NOTHING = RecipientOptions()
_HAPPY = frozenset({State.DELIVERED, State.RELAYED, State.ACCEPTED})
"""States that attempts lead to without leaving a row of history."""


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """Where one recipient stands. Times are wall-clock seconds.

    Attributes:
        index: its number within the message, from 0.
        address: where it goes.
        state: see :class:`postroom.recipients.State`.
        transport: who has it.
        attempts: attempts so far.
        due: when it is tried next, for queued ones.
        changed: when it last changed, or None.
        reply: what was said last, or None.
        in_doubt: an attempt may have arrived without our learning of it, so there may be a duplicate.
        history: everything that happened to it, oldest first: each attempt, each action of an operator (its outcome is
            "operator"), and, where it ended well, the end.
        original: the address that it had at first, None when it still has it.
        alternatives: where it turns to, in this order, when the address fails.
        via: the distribution lists that it came from, outermost first.
        expires: when it stops being tried, None when only the retry policy says so; for those not settled.
        waits_for: the id of the message that must be done first because of its ordering key, or None.
        reported: the sender was told of its end.
        duration: seconds that the last attempt took, or None.
    """

    index: int
    address: Address
    state: State
    transport: str
    attempts: int
    due: float | None
    changed: float | None
    reply: Reply | None
    in_doubt: bool = False
    history: tuple[Attempt, ...] = ()
    original: Address | None = None
    alternatives: tuple[Address, ...] = ()
    via: tuple[str, ...] = ()
    expires: float | None = None
    waits_for: str | None = None
    reported: bool = False
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """Where a message stands. Times are wall-clock seconds, sizes octets.

    Attributes beyond the obvious:
        tenant: whose share of the transports it uses.
        ordering_key: messages with the same one never overtake each other; None without.
        content_kept: whether its octets are still there.
    """

    id: str
    sender: str
    subject: str
    message_id: str
    created: float
    size: int
    priority: int
    expires: float | None
    recipients: tuple[RecipientStatus, ...]
    tenant: str = ""
    ordering_key: str | None = None
    content_kept: bool = False

    @property
    def complete(self) -> bool:
        """Whether every recipient is settled."""
        return all(recipient.state.is_final for recipient in self.recipients)

    @property
    def succeeded(self) -> bool:
        """Whether every recipient was delivered or relayed."""
        return all(recipient.state in {State.DELIVERED, State.RELAYED} for recipient in self.recipients)


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One recipient in a list of the queue."""

    id: str
    sender: str
    subject: str
    created: float
    size: int
    recipient: RecipientStatus


@dataclass(frozen=True, slots=True)
class TransportStatus:
    """Where a transport stands in this process. Times are wall-clock seconds.

    Attributes:
        name: of the transport.
        status: up, parked, probing, ramping, restarting, starting; paused by an operator; stopped when no process
            delivers.
        reason: why it is not up, "" when it is.
        since: when it came to this.
        until: when it is tried again, or None.
        in_memory: recipients in this process's window.
        sending: attempts under way.
        couriers: courier threads.
        queued: queued recipients in the whole spool.
        last_progress: when the messaging system last answered, or None.
    """

    name: str
    status: str
    reason: str
    since: float
    until: float | None
    in_memory: int
    sending: int
    couriers: int
    queued: int
    last_progress: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which gate a recipient waits at.

    Attributes:
        index: the recipient's number.
        address: where it goes.
        gate: its name; :mod:`postroom.explaining` has the table.
        until: wall-clock seconds when the gate opens by itself, or None.
        rule: why, in words for people.
        expires: wall-clock seconds when it is given up if it still waits then, or None.
    """

    index: int
    address: Address
    gate: str
    until: float | None
    rule: str
    expires: float | None = None


def recipient_status(record: RecipientRecord) -> RecipientStatus:
    """Return the public view of a record."""
    options = record.options or _NOTHING
    return RecipientStatus(
        record.index, record.address, record.state, record.transport, record.attempts,
        record.due if record.state is State.QUEUED else None, record.changed, record.reply, record.in_doubt,
        whole_history(record), options.original, options.alternatives, options.via,
        None if record.state.is_final else record.expires, None if record.after is None else format_id(record.after),
        record.reported, record.duration,
    )  # fmt: skip


def whole_history(record: RecipientRecord) -> tuple[Attempt, ...]:
    """Return the history of a recipient with its happy end, which stands on the recipient itself."""
    if record.state not in _HAPPY or record.changed is None:
        return record.history
    end = Attempt(
        record.changed, record.transport, record.state.label, record.reply or Reply(), record.duration, record.detail
    )  # fmt: skip
    return (*record.history, end)


def message_status(record: MessageRecord) -> MessageStatus:
    """Return the public view of a record."""
    return MessageStatus(
        format_id(record.key), record.sender, record.subject, record.message_id, record.created, record.size,
        record.priority, record.expires, tuple(recipient_status(recipient) for recipient in record.recipients),
        record.tenant, record.ordering_key, record.content_kept,
    )  # fmt: skip


def queue_entry(message: MessageRecord, recipient: RecipientRecord) -> QueueEntry:
    """Return the public view of one recipient in a list."""
    return QueueEntry(
        format_id(message.key), message.sender, message.subject, message.created, message.size,
        recipient_status(recipient),
    )  # fmt: skip
