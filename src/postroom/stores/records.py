"""What a spool tells of what is in it: messages, recipients, history, orders, counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from postroom.addresses import Address
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State

__all__ = [
    "Action",
    "Attempt",
    "Control",
    "DestinationStanding",
    "Followup",
    "InstanceRow",
    "MessageRecord",
    "Operation",
    "Order",
    "RecipientRecord",
    "Request",
    "Standing",
    "Tally",
]


Control = Literal[
    "hold", "release", "cancel", "retry", "fail", "expire", "reroute", "redirect", "delete", "probe"
]
"""What an operator can do with the recipients of a message.

``fail`` bounces (with a report), ``cancel`` recalls (without), ``reroute`` gives it to another transport, ``redirect``
changes the address, ``delete`` forgets a settled message. ``probe`` concerns no message: what is parked is tried at
once.
"""


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done, and for the record who wants it and why.

    Attributes:
        kind: see :data:`Control`.
        argument: of ``reroute`` the transport, of ``redirect`` the address, of ``fail`` the text of the bounce;
            else "".
        operator: who, "" for the program itself.
        reason: why, in words.
    """

    kind: Control
    argument: str = ""
    operator: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's standing order, which also catches what arrives later. Times are wall-clock seconds.

    Attributes:
        id: its number.
        action: "hold", "fail", "cancel", "reroute", "redirect" for what arrives; "pause" keeps a transport or a
            destination from being tried (a pause that names neither is the offline state).
        selection: what it concerns, as JSON (:mod:`postroom.selections`).
        argument: as of :class:`Action`.
        operator: who gave it.
        reason: why.
        created: when.
        expires: until when, None for until it is dropped.
    """

    id: int
    action: str
    selection: str
    argument: str = ""
    operator: str = ""
    reason: str = ""
    created: float = 0.0
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """An entry in the log of operations. Times are wall-clock seconds.

    Attributes:
        id: its number.
        at: when it began.
        action: what was done, by whom and why.
        selection: to what, as JSON (:mod:`postroom.selections`).
        changed: recipients changed.
        finished: when it came to its end, None while it is under way or when it was interrupted.
    """

    id: int
    at: float
    action: Action
    selection: str
    changed: int
    finished: float | None


@dataclass(frozen=True, slots=True)
class Request:
    """What an operator in another process wants done with recipients that this instance has in hand."""

    id: int
    action: Action
    key: int
    indices: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Tally:
    """The ledger's counts, read in one transaction.

    Attributes:
        states: recipients by (transport, state); final states count for ever, also after their rows are gone.
        accepted: recipients ever accepted, by address type.
        outcomes: outcomes ever recorded, by (transport, outcome label).
        received: incoming messages ever stored, by receiver.
        remote_reports: incoming messages that reported about others, by (receiver, "matched" or "unmatched").
    """

    states: Mapping[tuple[str, State], int]
    accepted: Mapping[str, int]
    outcomes: Mapping[tuple[str, str], int]
    received: Mapping[str, int] = field(default_factory=dict[str, int])
    remote_reports: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

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
    """One recorded attempt, or an operator's action, that did not settle the recipient happily.

    Attributes:
        at: wall-clock seconds.
        transport: who made it.
        outcome: its label; "operator" for an action.
        reply: what was said; of an action, what was done.
        duration: seconds, or None.
        detail: a traceback; of an action, who did it and why.
        address: where it went, when that was not the recipient's present address.
    """

    at: float
    transport: str
    outcome: str
    reply: Reply
    duration: float | None = None
    detail: str | None = None
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class RecipientRecord:
    """A recipient as the spool has it. Times are wall-clock seconds.

    Attributes beyond the obvious:
        after: the number of the message that must be done first (ordering key), or None.
        variant: the number of the content that a preprocessor made for it, or None.
        reported: its end was reported to the sender.
        duration: seconds that the last attempt took, or None.
    """

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
    options: RecipientOptions | None = None
    duration: float | None = None
    after: int | None = None
    variant: int | None = None
    reported: bool = False
    expires: float | None = None


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
    tenant: str = ""
    ordering_key: str | None = None
    options: MessageOptions | None = None
    due: float = 0.0


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


class Followup(NamedTuple):
    """Something that is to be done about a message, and is not forgotten until it is done.

    Attributes:
        kind: "report" (recipients ended of whom the sender may want to know), "delay" (the time for a delay warning
            has come) or "sent" (the message is complete: sent-hooks and clean-up of preprocessors).
        key: the message.
        due: wall-clock seconds.
    """

    kind: str
    key: int
    due: float


@dataclass(frozen=True, slots=True)
class DestinationStanding:
    """Where one destination (domain or host) of a transport stands. Times are wall-clock seconds.

    Attributes:
        transport: its name.
        destination: see :func:`postroom.addresses.destination_of`.
        status: parked, probing, ramping; what is up is forgotten.
        reason: why.
        since: when it came to this.
        until: when it is probed, or None.
        failures: canaries that failed in a row.
        limit: attempts at once that it was allowed last.
    """

    transport: str
    destination: str
    status: str
    reason: str = ""
    since: float = 0.0
    until: float | None = None
    failures: int = 0
    limit: float = 0.0
