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
| ``TransportChanged`` | a transport went up, was parked, probes or ramps |
| ``ActorRestarted`` | the supervisor started an actor again |
"""

from dataclasses import dataclass

from postroom.addresses import Address
from postroom.outcomes import Reply

__all__ = [
    "ActorRestarted",
    "Event",
    "MessageCompleted",
    "MessageEvent",
    "MessageQueued",
    "RecipientAccepted",
    "RecipientCancelled",
    "RecipientDeferred",
    "RecipientDelivered",
    "RecipientEvent",
    "RecipientExpired",
    "RecipientFailed",
    "RecipientHeld",
    "RecipientRelayed",
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
