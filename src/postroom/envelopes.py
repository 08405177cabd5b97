"""Envelopes: who sends, who receives, when and how; judged before anything is stored.

A :class:`Submission` is what the caller says; :func:`prepare_envelope` makes the :class:`Envelope` of it.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from hashlib import blake2b
from typing import Literal, NamedTuple

from postroom.addressees import NO_OPTIONS, addressees
from postroom.addresses import Address
from postroom.envelope_fields import (
    MAX_KEY,
    When,
    check_envid,
    check_expiry,
    check_key,
    check_ret,
    check_sender,
    check_time,
    check_window,
)
from postroom.envelope_recipients import FAILURE_ONLY, Recipient, Report, check_reports
from postroom.errors import UsageError
from postroom.expansion import Expander
from postroom.messages import AnyMessage, PreparedMessage
from postroom.options import MessageOptions, RecipientOptions
from postroom.windows import DeliveryWindow

__all__ = [
    "MAX_KEY",
    "Envelope",
    "Priority",
    "Recipient",
    "Report",
    "Submission",
    "When",
    "prepare_envelope",
]

_PRIORITIES = (-1, 0, 1)


class Priority(IntEnum):
    """The priorities of MAPI and RFC 2156."""

    URGENT = 1
    NORMAL = 0
    NON_URGENT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One message to submit, with its envelope. Nothing is checked before it is submitted.

    Attributes:
        message: an ``EmailMessage``, its octets, or a :class:`postroom.messages.Message`.
        sender: envelope sender, "" for the null reverse-path; None to take Sender or From of the message.
        to: recipients of any address type, distribution lists among them; None to take To, Cc and Bcc of the message.
        send_at: not before then; None for at once. A time in the past is at once.
        expires_at: not after then; None for as long as the retry policy tries.
        priority: 1 urgent, 0 normal, -1 non-urgent.
        idempotency_key: a second submission with the same key gets the first one's receipt.
        report: what the sender wants to be told.
        hold: store it, but send it only when it is released.
        tenant: whose share of the transports it uses; None for the sender's, so that senders share fairly.
        ordering_key: two messages with the same one never overtake each other; None without.
        window: weekdays and hours at which it may be sent (:mod:`postroom.windows`); None for any time.
        ret: what a failure report returns: "full" or "headers"; None for the usual (RFC 3461 section 4.3).
        envid: the sender's own name for it, which reports repeat (RFC 3461 section 4.4); None without.
    """

    message: AnyMessage
    sender: str | Address | None = None
    to: Iterable[str | Address | Recipient] | str | Address | Recipient | None = None
    send_at: When | None = None
    expires_at: When | None = None
    priority: int = Priority.NORMAL
    idempotency_key: str | None = None
    report: AbstractSet[Report] = FAILURE_ONLY
    hold: bool = False
    tenant: str | None = None
    ordering_key: str | None = None
    window: DeliveryWindow | str | None = None
    ret: Literal["full", "headers"] | None = None
    envid: str | None = None


class Envelope(NamedTuple):
    """A checked envelope. A tuple, because one is made for every message.

    Attributes:
        sender: an ``smtp`` address without its type, its domain in A-labels; "" for the null reverse-path.
        recipients: canonical and each once, in the order given, at least one; lists are expanded.
        send_at: wall-clock seconds, or None for at once.
        expires_at: wall-clock seconds, or None.
        priority: 1, 0 or -1.
        idempotency_key: or None.
        report: what the sender is told.
        hold: store it, but do not send it.
        digest: 32 octets that tell whether an idempotency key is used again for the same; b"" without a key.
        said: what is said of recipients beyond their address, of those of which there is anything to say.
        tenant: whose share of the transports it uses: the sender's unless another was named.
        ordering_key: or None.
        window: when it may be sent, or None for any time.
        options: RET, ENVID and the window as they are stored, or None.
    """

    sender: str
    recipients: tuple[Address, ...]
    send_at: float | None
    expires_at: float | None
    priority: int
    idempotency_key: str | None
    report: frozenset[Report]
    hold: bool
    digest: bytes = b""
    said: Mapping[Address, RecipientOptions] = NO_OPTIONS
    tenant: str = ""
    ordering_key: str | None = None
    window: DeliveryWindow | None = None
    options: MessageOptions | None = None


def prepare_envelope(
    submission: Submission,
    prepared: PreparedMessage,
    *,
    now: float,
    max_recipients: int,
    expander: Expander | None = None,
) -> Envelope:
    """Return the envelope of a submission.

    Pure, except that an iterator given as ``to`` is consumed and that an expander asks its sources.

    Args:
        submission: what the caller gave.
        prepared: its message, for the addresses that the caller left to the header.
        now: wall-clock seconds since the Unix epoch.
        max_recipients: how many different recipients are allowed, when lists are expanded.
        expander: knows the distribution lists; None when there are none.

    Raises:
        NoRecipients: nobody is named, or only empty lists.
        TooManyRecipients: more than ``max_recipients`` are.
        InvalidAddress: names the field, as in ``to[3]``.
        InvalidMessage: an address field of the message that is needed cannot be parsed.
        UsageError: another field is of the wrong type, out of range or contradictory.
    """
    s = submission
    named = addressees(s.to, prepared, max_recipients, expander)
    sender = check_sender(s.sender, prepared.header_sender if s.sender is None else None)
    send_at = None if s.send_at is None else check_time("send_at", s.send_at, now)
    expires_at = None if s.expires_at is None else check_expiry(s.expires_at, send_at, now)
    priority, hold, key = s.priority, s.hold, s.idempotency_key
    if isinstance(priority, bool) or priority not in _PRIORITIES:
        raise UsageError(
            "priority", f"{priority!r} is no priority", "give 1 (urgent), 0 (normal) or -1 (non-urgent)"
        )
    if hold is not True and hold is not False:
        raise UsageError("hold", f"{hold!r} is not a bool", "give True or False")
    report = FAILURE_ONLY if s.report is FAILURE_ONLY else check_reports(s.report)
    window = None if s.window is None else check_window(s.window)
    envelope = Envelope(
        sender, named.addresses, send_at, expires_at, int(priority), key, report, hold, b"", named.said,
        sender if s.tenant is None else check_key("tenant", s.tenant),
        None if s.ordering_key is None else check_key("ordering_key", s.ordering_key),
        window, None if s.ret is None and s.envid is None and window is None else _options(s, window),
    )  # fmt: skip
    if key is None:
        return envelope
    check_key("idempotency_key", key)
    return envelope._replace(digest=_digest(s, envelope, named.given, prepared))


def _options(s: Submission, window: DeliveryWindow | None) -> MessageOptions:
    return MessageOptions(
        ret=check_ret(s.ret), envid=check_envid(s.envid), window="" if window is None else str(window)
    )


def _digest(
    submission: Submission, envelope: Envelope, given: tuple[str, ...] | None, prepared: PreparedMessage
) -> bytes:
    """Return a hash of what the caller gave; a timedelta counts as such, not as the moment it means now.

    A list counts by its name, since who is on it may change between two tries. What is left at its default does not
    count, so that keys given to an earlier version of Postroom still match.
    """
    times = tuple(
        given.total_seconds() if isinstance(given, timedelta) else ("at", at)
        for given, at in (
            (submission.send_at, envelope.send_at),
            (submission.expires_at, envelope.expires_at),
        )
    )
    said: tuple[object, ...] = (
        envelope.sender,
        tuple(map(str, envelope.recipients)) if given is None else given,
        times,
        envelope.priority,
        sorted(report.value for report in envelope.report),
        envelope.hold,
    )
    further = (
        submission.tenant,
        envelope.ordering_key,
        None if envelope.options is None else envelope.options.to_json(),
        [(str(address), options.to_json()) for address, options in envelope.said.items() if not options.via],
    )
    if further != (None, None, None, []):
        said = (*said, further)
    return blake2b(prepared.fingerprint() + repr(said).encode(), digest_size=32).digest()
