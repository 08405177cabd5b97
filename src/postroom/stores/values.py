"""What goes into a store, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from postroom.addresses import Address
from postroom.delivery import Target
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State

__all__ = [
    "Accepted",
    "Claimed",
    "Controlled",
    "NewMessage",
    "NewRecipient",
    "Place",
    "Planned",
    "Replan",
    "Replanned",
    "Settlement",
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
        options: what was said of it beyond that, or None.
        state: where it begins: None for queued, or held when the message is; a standing order may want it held, failed
            or cancelled at once.
        reply: why it does not begin queued, or None.
        ended: with a final ``state``, the outcome label it is counted under.
    """

    address: Address
    transport: str
    options: RecipientOptions | None = None
    state: State | None = None
    reply: Reply | None = None
    ended: str = ""


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
        tenant: whose share of the transports it uses; "" counts as one of its own.
        ordering_key: two messages with the same one never overtake each other; None without.
        options: what was said of it beyond the ordinary, or None.
        followed: its end is somebody's business (a success report, a sent-hook, an ordering key), so that the store
            looks at its settlements more closely.
        followups: what is to be done about it later: (kind, wall-clock seconds, or None for when it is complete).
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
    tenant: str = ""
    ordering_key: str | None = None
    options: MessageOptions | None = None
    followed: bool = False
    followups: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a :class:`NewMessage`.

    Attributes:
        key: the number under which the message is in the spool: an earlier one for a repeated idempotency key.
        duplicate: the key was used before with the same payload; nothing was stored.
        conflict: the key was used before with another payload; nothing was stored.
        complete: standing orders ended every recipient at once.
    """

    key: int
    duplicate: bool = False
    conflict: bool = False
    complete: bool = False


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
        next_address: where it turns to from now on, None for the same address. The store puts it, and what is left of
            the alternatives, on the record (``next_options``).
        next_options: its options from now on, where they change.
        content: the octets that a preprocessor made for it, None for no change.
        followed: see :class:`NewMessage`.
        reported: reporting its end is somebody else's business.
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
    next_address: Address | None = None
    next_options: RecipientOptions | None = None
    content: bytes | None = None
    followed: bool = False
    reported: bool = False


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
    tenant: str = ""
    report: str = "failure"
    options: MessageOptions | None = None
    followed: bool = False


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
        requested: recipients that another live process has waiting in memory and was asked to change.
        deleted: the message is forgotten.
    """

    changed: tuple[int, ...]
    in_transit: tuple[int, ...]
    final: tuple[int, ...]
    transports: frozenset[str]
    completed: bool = False
    settlements: tuple[Settlement, ...] = ()
    requested: tuple[int, ...] = ()
    deleted: bool = False


class Planned(NamedTuple):
    """What re-planning says of one recipient.

    Attributes:
        transport: where it goes from now on; None when no transport reaches it, so that it fails.
        reason: for the record.
    """

    transport: str | None
    reason: str


Replan = Callable[[Address, str, frozenset[str]], Planned | None]
"""Told the address, the present transport and those that declined it; returns None to leave it where it is."""


class Replanned(NamedTuple):
    """What a step of re-planning did.

    Attributes:
        settlements: the changes.
        completed: messages that have no pending recipient left.
        last: the last place looked at, None at the end.
    """

    settlements: list[Settlement]
    completed: list[int]
    last: "Place | None"


Place = tuple[int, float, int, int]
"""How far a walk over a transport's recipients has come."""
