"""Envelopes: who sends, who receives, when and how; judged before anything is stored.

A :class:`Submission` is what the caller says; :func:`prepare_envelope` makes the :class:`Envelope` of it.
"""

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from hashlib import blake2b
from typing import Any, Final

from postroom.addresses import Address, parse_address
from postroom.errors import InvalidAddress, NoRecipients, TooManyRecipients, UsageError
from postroom.messages import AnyMessage, PreparedMessage

__all__ = ["MAX_KEY", "Envelope", "Priority", "Report", "Submission", "When", "prepare_envelope"]

MAX_KEY: Final = 255
"""Characters of an idempotency key."""

_YEAR_10000: Final = 253_402_300_800.0
_PRIORITIES = (-1, 0, 1)

When = float | datetime | timedelta
"""Seconds since the Unix epoch, an aware datetime, or a time from now."""


class Report(StrEnum):
    """What the sender wants to be told (RFC 3461 section 4.1, NOTIFY). NEVER is the empty set."""

    FAILURE = "failure"
    DELAY = "delay"
    SUCCESS = "success"


class Priority(IntEnum):
    """The priorities of MAPI and RFC 2156."""

    URGENT = 1
    NORMAL = 0
    NON_URGENT = -1


_FAILURE = frozenset({Report.FAILURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One message to submit, with its envelope. Nothing is checked before it is submitted.

    Attributes:
        message: an ``EmailMessage``, its octets, or a :class:`postroom.messages.Message`.
        sender: envelope sender, "" for the null reverse-path; None to take Sender or From of the message.
        to: recipients of any address type; None to take To, Cc and Bcc of the message.
        send_at: not before then; None for at once. A time in the past is at once.
        expires_at: not after then; None for as long as the retry policy tries.
        priority: 1 urgent, 0 normal, -1 non-urgent.
        idempotency_key: a second submission with the same key gets the first one's receipt.
        report: what the sender wants to be told; recorded only, reports are not made yet.
        hold: store it, but send it only when it is released.
    """

    message: AnyMessage
    sender: str | Address | None = None
    to: Iterable[str | Address] | str | Address | None = None
    send_at: When | None = None
    expires_at: When | None = None
    priority: int = Priority.NORMAL
    idempotency_key: str | None = None
    report: AbstractSet[Report] = _FAILURE
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Envelope:
    """A checked envelope.

    Attributes:
        sender: an ``smtp`` address without its type, its domain in A-labels; "" for the null reverse-path.
        recipients: canonical and each once, in the order given, at least one.
        send_at: wall-clock seconds, or None for at once.
        expires_at: wall-clock seconds, or None.
        priority: 1, 0 or -1.
        idempotency_key: or None.
        report: what the sender is told.
        hold: store it, but do not send it.
        digest: 32 octets that tell whether an idempotency key is used again for the same; b"" without a key.
    """

    sender: str
    recipients: tuple[Address, ...]
    send_at: float | None
    expires_at: float | None
    priority: int
    idempotency_key: str | None
    report: frozenset[Report]
    hold: bool
    digest: bytes


def prepare_envelope(
    submission: Submission, prepared: PreparedMessage, *, now: float, max_recipients: int
) -> Envelope:
    """Return the envelope of a submission. Pure, except that an iterator given as ``to`` is consumed.

    Args:
        submission: what the caller gave.
        prepared: its message, for the addresses that the caller left to the header.
        now: wall-clock seconds since the Unix epoch.
        max_recipients: how many different recipients are allowed.

    Raises:
        NoRecipients: nobody is named.
        TooManyRecipients: more than ``max_recipients`` are.
        InvalidAddress: names the field, as in ``to[3]``.
        InvalidMessage: an address field of the message that is needed cannot be parsed.
        UsageError: another field is of the wrong type, out of range or contradictory.
    """
    recipients = _recipients(submission.to, prepared, max_recipients)
    sender = _sender(submission.sender, prepared)
    send_at = expires_at = None
    if submission.send_at is not None:
        send_at = _time("send_at", submission.send_at, now)
    if submission.expires_at is not None:
        expires_at = _expiry(submission.expires_at, send_at, now)
    priority, hold, key = submission.priority, submission.hold, submission.idempotency_key
    if isinstance(priority, bool) or priority not in _PRIORITIES:
        raise UsageError(
            "priority", f"{priority!r} is no priority", "give 1 (urgent), 0 (normal) or -1 (non-urgent)"
        )
    if hold is not True and hold is not False:
        raise UsageError("hold", f"{hold!r} is not a bool", "give True or False")
    report = _FAILURE if submission.report is _FAILURE else _reports(submission.report)
    envelope = Envelope(sender, recipients, send_at, expires_at, int(priority), key, report, hold, b"")
    if key is None:
        return envelope
    _check_key(key)
    digest = _digest(submission, envelope, prepared)
    return Envelope(sender, recipients, send_at, expires_at, int(priority), key, report, hold, digest)


def _recipients(given: Any, prepared: PreparedMessage, limit: int) -> tuple[Address, ...]:
    name = "to"
    if given is None:
        given = prepared.header_recipients()
        name = "To, Cc, Bcc"
    elif isinstance(given, (str, Address)):
        return (parse_address(given, field="to"),)
    elif isinstance(given, (bytes, bytearray, memoryview)):
        raise UsageError("to", "octets are not a list of addresses", "give str, or decode them")
    try:
        numbered = enumerate(given)
    except TypeError:
        raise UsageError(
            "to", f"{type(given).__name__} is not a list of addresses", "give a list of str"
        ) from None
    # A dictionary keeps the first of equal addresses and the order.
    found: dict[Address, None] = {}
    for index, text in numbered:
        found[parse_address(text, field=f"{name}[{index}]")] = None
        if len(found) > limit:
            raise TooManyRecipients(
                name, f"names more than {limit} recipients", "submit the message several times"
            )
    if not found:
        raise NoRecipients(
            name, "names nobody", "give at least one recipient in to=, or To, Cc or Bcc in the message"
        )
    return tuple(found)


def _sender(given: Any, prepared: PreparedMessage) -> str:
    name = "sender"
    if given is None:
        given = prepared.header_sender
        name = "From"
    if isinstance(given, str) and given in {"", "<>"}:
        return ""
    address = parse_address(given, field=name)
    if address.type != "smtp":
        raise InvalidAddress(
            name,
            f"{str(address)[:100]!r} cannot send",
            'give a mailbox, or "" to get no reports (RFC 5321 4.5.5)',
        )
    return address.value


def _time(name: str, given: Any, now: float) -> float:
    if isinstance(given, timedelta):
        return now + given.total_seconds()
    if isinstance(given, datetime):
        if given.tzinfo is None or given.utcoffset() is None:
            raise UsageError(
                name, "is a datetime without time zone", "give an aware one, as in datetime.now(UTC)"
            )
        return given.timestamp()
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise UsageError(
            name,
            f"{given!r} is not a time",
            "give seconds since the Unix epoch, an aware datetime or a timedelta",
        )
    if not math.isfinite(given) or given >= _YEAR_10000:
        raise UsageError(
            name, f"{given!r} is no date before the year 10000", "give seconds, not milliseconds"
        )
    return float(given)


def _expiry(given: Any, send_at: float | None, now: float) -> float:
    expires_at = _time("expires_at", given, now)
    if expires_at <= now:
        raise UsageError(
            "expires_at", f"is {now - expires_at:.3f} s in the past", "give a later time, or None"
        )
    if send_at is not None and send_at >= expires_at:
        raise UsageError("expires_at", "is not after send_at", "let it expire later than it is first sent")
    return expires_at


def _reports(given: Any) -> frozenset[Report]:
    try:
        if not isinstance(given, (str, bytes)):
            return frozenset(map(Report, given))
    except (TypeError, ValueError):
        pass
    raise UsageError(
        "report", f"{given!r} is not a set of Report", "give, for example, {Report.FAILURE, Report.DELAY}"
    )


def _check_key(key: Any) -> None:
    if not isinstance(key, str):
        raise UsageError("idempotency_key", f"{type(key).__name__} is no key", "give a str")
    if not 1 <= len(key) <= MAX_KEY:
        raise UsageError("idempotency_key", f"has {len(key)} characters", f"give 1 to {MAX_KEY}")
    if not key.isprintable():
        raise UsageError(
            "idempotency_key", "holds a character that cannot be printed", "use printable characters"
        )


def _digest(submission: Submission, envelope: Envelope, prepared: PreparedMessage) -> bytes:
    """Return a hash of what the caller gave; a timedelta counts as such, not as the moment it means now."""
    times = tuple(
        given.total_seconds() if isinstance(given, timedelta) else ("at", at)
        for given, at in (
            (submission.send_at, envelope.send_at),
            (submission.expires_at, envelope.expires_at),
        )
    )
    said = (
        envelope.sender,
        tuple(map(str, envelope.recipients)),
        times,
        envelope.priority,
        sorted(report.value for report in envelope.report),
        envelope.hold,
    )
    return blake2b(prepared.fingerprint() + repr(said).encode(), digest_size=32).digest()
