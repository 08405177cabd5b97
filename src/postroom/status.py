"""What became of a message, and what it waits for: public values made from the record."""

from collections.abc import Mapping
from dataclasses import dataclass

from postroom.addresses import Address
from postroom.ids import format_id
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Attempt, InstanceRow, MessageRecord, RecipientRecord, Standing

__all__ = [
    "Explanation",
    "MessageStatus",
    "QueueEntry",
    "RecipientStatus",
    "TransportStatus",
    "explain_recipient",
]


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
        history: attempts that did not settle it happily, oldest first.
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


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """Where a message stands. Times are wall-clock seconds, sizes octets."""

    id: str
    sender: str
    subject: str
    message_id: str
    created: float
    size: int
    priority: int
    expires: float | None
    recipients: tuple[RecipientStatus, ...]

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
        status: up, parked, probing, ramping, restarting, starting; stopped when no process delivers.
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
        gate: settled, held, remote_report, send_at, retry, no_transport, transport, window, courier, sending,
            other_process.
        until: wall-clock seconds when the gate opens by itself, or None.
        rule: why, in words for people.
    """

    index: int
    address: Address
    gate: str
    until: float | None
    rule: str


def recipient_status(record: RecipientRecord) -> RecipientStatus:
    """Return the public view of a record."""
    return RecipientStatus(
        record.index, record.address, record.state, record.transport, record.attempts,
        record.due if record.state is State.QUEUED else None, record.changed, record.reply, record.in_doubt,
        record.history,
    )  # fmt: skip


def message_status(record: MessageRecord) -> MessageStatus:
    """Return the public view of a record."""
    return MessageStatus(
        format_id(record.key), record.sender, record.subject, record.message_id, record.created, record.size,
        record.priority, record.expires, tuple(recipient_status(recipient) for recipient in record.recipients),
    )  # fmt: skip


def queue_entry(message: MessageRecord, recipient: RecipientRecord) -> QueueEntry:
    """Return the public view of one recipient in a list."""
    return QueueEntry(
        format_id(message.key), message.sender, message.subject, message.created, message.size,
        recipient_status(recipient),
    )  # fmt: skip


def explain_recipient(  # noqa: C901, PLR0911, PLR0913 - one return per gate, in the order in which they are passed
    record: RecipientRecord,
    *,
    now: float,
    node: int | None,
    standings: Mapping[str, Standing],
    instances: Mapping[int, InstanceRow],
    phase: str | None,
) -> Explanation:
    """Return the first gate at which a recipient waits. Pure.

    Args:
        record: the recipient.
        now: wall-clock seconds.
        node: this process's instance number, None when it runs no spooler.
        standings: where the configured transports stand, by name.
        instances: the processes that share the spool, by number.
        phase: what this process does with it: "waiting", "sending" or None.
    """

    def at(gate: str, until: float | None, rule: str) -> Explanation:
        return Explanation(record.index, record.address, gate, until, rule)

    said = f": {record.reply}" if record.reply is not None and str(record.reply) else ""
    if record.state.is_final:
        return at("settled", None, f"{record.state.label}{said}")
    if record.state is State.HELD:
        return at("held", None, f"waits until it is released{said or ': submitted with hold'}")
    if record.state is State.ACCEPTED:
        return at("remote_report", None, f"the other side took it as {record.remote_id!r} and will report")
    if phase == "sending":
        return at("sending", None, f"{record.transport} is sending it now")
    if record.owner is not None and record.owner != node:
        other = instances.get(record.owner)
        who = f"process {other.pid} on {other.host}" if other is not None else f"instance {record.owner}"
        return at("other_process", None, f"{who} has it")
    standing = standings.get(record.transport)
    if standing is None:
        return at("no_transport", None, f"no process runs a transport named {record.transport!r} now")
    if record.due is not None and record.due > now:
        if record.attempts == 0 and record.crashes == 0:
            return at("send_at", record.due, "submitted with send_at")
        return at(
            "retry",
            record.due,
            f"the retry policy of {record.transport} after {record.attempts} attempt(s){said}",
        )
    if standing.status not in {"up", "ramping"}:
        return at("transport", standing.until, f"{record.transport} is {standing.status}: {standing.reason}")
    if phase == "waiting":
        return at("courier", None, f"waits in memory for a free courier of {record.transport}")
    return at("window", None, f"due, waits for room in the window of {record.transport}")
