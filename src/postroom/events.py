"""What happened, for those who subscribed: immutable values.

| event | when |
|---|---|
| ``MessageQueued`` | a message is durable |
| ``RecipientDelivered`` | it is in the recipient's mailbox or application |
| ``RecipientRelayed`` | the next system took responsibility |
| ``RecipientAccepted`` | the other side took it and will report later |
| ``RecipientDeferred`` | a temporary refusal; it will be tried again at ``due`` |
| ``RecipientFailed`` | refused for good |
| ``RecipientExpired`` | temporary trouble lasted too long, or ``expires_at`` passed |
| ``RecipientHeld`` | it waits for an operator (held, poison, in doubt) |
| ``RecipientCancelled`` | recalled |
| ``MessageCompleted`` | the last recipient of a message is settled |
| ``RecipientReported`` | another system reported about a recipient: late, read, deleted unread, complained of |
| ``NewMessage`` | an incoming message is in a folder |
| ``InboundChanged`` | an incoming message was read, moved, marked or deleted |
| ``ReceiverChanged`` | a receiver is up, connects or is down |
| ``TransportChanged`` | a transport went up, was parked, probes or ramps |
| ``ActorRestarted`` | the supervisor started an actor again |
"""

from dataclasses import dataclass

from postroom.addresses import Address
from postroom.outcomes import Reply

__all__ = [
    "ActorRestarted",
    "Event",
    "InboundChanged",
    "MessageCompleted",
    "MessageEvent",
    "MessageQueued",
    "NewMessage",
    "ReceiverChanged",
    "RecipientAccepted",
    "RecipientCancelled",
    "RecipientDeferred",
    "RecipientDelivered",
    "RecipientEvent",
    "RecipientExpired",
    "RecipientFailed",
    "RecipientHeld",
    "RecipientRelayed",
    "RecipientReported",
    "TransportChanged",
]


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events.

    Attributes:
        at: wall-clock seconds.
    """

    at: float


@dataclass(frozen=True, slots=True)
class MessageEvent(Event):
    """Something about a message as a whole.

    Attributes:
        message_id: the id in the spool, as in ``receipt.id``.
    """

    message_id: str


@dataclass(frozen=True, slots=True)
class MessageQueued(MessageEvent):
    """A message is durable."""

    sender: str
    recipients: int
    size: int


@dataclass(frozen=True, slots=True)
class MessageCompleted(MessageEvent):
    """Every recipient of the message is settled; ``spooler.status(message_id)`` tells how."""


@dataclass(frozen=True, slots=True)
class RecipientEvent(MessageEvent):
    """Something about one recipient.

    Attributes:
        index: its number within the message, from 0.
        address: where it goes; None when the recipient was not in memory (after an operator's action).
        transport: who had it.
        attempts: attempts so far.
        reply: what was said.
    """

    index: int
    address: Address | None
    transport: str
    attempts: int
    reply: Reply | None


@dataclass(frozen=True, slots=True)
class RecipientDelivered(RecipientEvent):
    """It is in the recipient's mailbox or application."""


@dataclass(frozen=True, slots=True)
class RecipientRelayed(RecipientEvent):
    """The next system took responsibility."""


@dataclass(frozen=True, slots=True)
class RecipientAccepted(RecipientEvent):
    """The other side took it and will report later."""

    remote_id: str


@dataclass(frozen=True, slots=True)
class RecipientDeferred(RecipientEvent):
    """A temporary refusal; tried again at ``due`` (wall-clock seconds)."""

    due: float


@dataclass(frozen=True, slots=True)
class RecipientFailed(RecipientEvent):
    """Refused for good."""


@dataclass(frozen=True, slots=True)
class RecipientExpired(RecipientEvent):
    """Temporary trouble lasted too long, or ``expires_at`` passed."""


@dataclass(frozen=True, slots=True)
class RecipientHeld(RecipientEvent):
    """It waits for an operator; the reply says why."""


@dataclass(frozen=True, slots=True)
class RecipientCancelled(RecipientEvent):
    """It was recalled."""


@dataclass(frozen=True, slots=True)
class RecipientReported(RecipientEvent):
    """Another system reported about it, and its state is what it was.

    Attributes:
        action: "delayed", "expanded", "displayed", "deleted" or "complaint" (RFC 3464, RFC 8098, RFC 5965).
        reporter: who says so.
    """

    action: str
    reporter: str


@dataclass(frozen=True, slots=True)
class NewMessage(MessageEvent):
    """An incoming message is in a folder: time to refresh the list.

    Attributes:
        folder: where it is.
        subject: decoded.
        author: its From field, decoded.
        receiver: who took it.
        message_class: MAPI's, as in "IPM.Note".
        size: octets.
        seen: it was read elsewhere already.
    """

    folder: str
    subject: str
    author: str
    receiver: str
    message_class: str
    size: int
    seen: bool


@dataclass(frozen=True, slots=True)
class InboundChanged(MessageEvent):
    """An incoming message was changed.

    Attributes:
        folder: where it is now; where it was, if it was deleted.
        change: "read", "unread", "moved", "marked" or "deleted".
    """

    folder: str
    change: str


@dataclass(frozen=True, slots=True)
class ReceiverChanged(Event):
    """A receiver is up, connects or is down.

    Attributes:
        receiver: its name.
        status: "up", "connecting", "down", "standby" (another process runs it).
        reason: why it is not up, "" when it is.
    """

    receiver: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class TransportChanged(Event):
    """A transport went up, was parked, probes or ramps.

    Attributes:
        transport: its name.
        status: up, parked, probing, ramping, restarting.
        reason: why it is not up, "" when it is.
        until: wall-clock seconds of the next try, or None.
    """

    transport: str
    status: str
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class ActorRestarted(Event):
    """The supervisor started an actor again.

    Attributes:
        actor: its path in the tree, for example ``transports/smtp``.
        incarnation: how often it has been started by now.
        reason: what it had failed with.
    """

    actor: str
    incarnation: int
    reason: str
