"""The fields of an envelope, one check each: what the caller gave, made canonical or refused with a reason."""

import math
from datetime import datetime, timedelta
from typing import Any, Final

from postroom.addresses import parse_address
from postroom.envelope_recipients import xtext_length
from postroom.errors import InvalidAddress, UsageError
from postroom.windows import DeliveryWindow, parse_window

__all__ = [
    "MAX_ENVID",
    "MAX_KEY",
    "When",
    "check_envid",
    "check_expiry",
    "check_key",
    "check_ret",
    "check_sender",
    "check_time",
    "check_window",
]

MAX_KEY: Final = 255
"""Characters of an idempotency key, an ordering key or a tenant's name."""

MAX_ENVID: Final = 100
"""Characters of an ENVID parameter, as xtext (RFC 3461 section 4.4)."""

_YEAR_10000: Final = 253_402_300_800.0

When = float | datetime | timedelta
"""Seconds since the Unix epoch, an aware datetime, or a time from now."""

_RET = {"full": "full", "headers": "hdrs"}


def check_sender(given: Any, header_sender: str | None) -> str:
    """Return the envelope sender; ``header_sender`` is the message's, where the caller gave none.

    Raises:
        InvalidAddress: it is no mailbox.
    """
    name = "sender"
    if header_sender is not None:
        given = header_sender
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


def check_time(name: str, given: Any, now: float) -> float:
    """Return a :data:`When` as wall-clock seconds.

    Raises:
        UsageError: it is no time.
    """
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


def check_expiry(given: Any, send_at: float | None, now: float) -> float:
    """Return ``expires_at`` as wall-clock seconds.

    Raises:
        UsageError: it is no time, in the past or not after ``send_at``.
    """
    expires_at = check_time("expires_at", given, now)
    if expires_at <= now:
        raise UsageError(
            "expires_at", f"is {now - expires_at:.3f} s in the past", "give a later time, or None"
        )
    if send_at is not None and send_at >= expires_at:
        raise UsageError("expires_at", "is not after send_at", "let it expire later than it is first sent")
    return expires_at


def check_key(name: str, key: Any) -> str:
    """Return an idempotency key, an ordering key or a tenant's name.

    Raises:
        UsageError: it is none of 1 to ``MAX_KEY`` printable characters.
    """
    if not isinstance(key, str):
        raise UsageError(name, f"{type(key).__name__} is not a str", "give a str, or None")
    if not 1 <= len(key) <= MAX_KEY:
        raise UsageError(name, f"has {len(key)} characters", f"give 1 to {MAX_KEY}")
    if not key.isprintable():
        raise UsageError(name, "holds a character that cannot be printed", "use printable characters")
    return key


def check_ret(given: Any) -> str:
    """Return RET as RFC 3461 section 4.3 writes it: "full" or "hdrs", "" for None.

    Raises:
        UsageError: it is neither.
    """
    if given is None:
        return ""
    if isinstance(given, str) and given in _RET:
        return _RET[given]
    raise UsageError(
        "ret", f"{given!r} is not what can be returned", 'give "full", "headers" or None (RFC 3461 4.3)'
    )


def check_envid(given: Any) -> str:
    """Return an ENVID, "" for None.

    Raises:
        UsageError: RFC 3461 section 4.4 does not allow it.
    """
    if given is None:
        return ""
    if not isinstance(given, str) or not given:
        raise UsageError("envid", f"{given!r} is no name of an envelope", "give a str of ASCII, or None")
    if not given.isascii() or not given.isprintable():
        raise UsageError(
            "envid", f"{given[:100]!r} is not printable ASCII", "use letters, digits and signs (RFC 3461 4.4)"
        )
    length = xtext_length(given)
    if length > MAX_ENVID:
        raise UsageError(
            "envid",
            f"has {length} characters as xtext",
            f"give at most {MAX_ENVID}; blanks, + and = count three (RFC 3461 4.4)",
        )
    return given


def check_window(given: Any) -> DeliveryWindow | None:
    """Return a delivery window, None for None.

    Raises:
        UsageError: it is something else, or cannot be parsed.
    """
    if given is None or isinstance(given, DeliveryWindow):
        return given
    if isinstance(given, str):
        return parse_window(given)
    raise UsageError(
        "window",
        f"{type(given).__name__} is no delivery window",
        "give a DeliveryWindow, or its text, as in 'mon-fri 09:00-17:00 Europe/Berlin'",
    )
