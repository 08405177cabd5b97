"""Moments as callers may give them."""

import math
from datetime import datetime

from postroom.errors import UsageError

__all__ = ["Time", "seconds"]

Time = float | datetime
"""Seconds since the Unix epoch, or an aware datetime."""


def seconds(name: str, given: Time) -> float:
    """Return a time as wall-clock seconds.

    Raises:
        UsageError: it is none; names the argument.
    """
    if isinstance(given, datetime):
        if given.tzinfo is None or given.utcoffset() is None:
            raise UsageError(
                name, "is a datetime without time zone", "give an aware one, as in datetime.now(UTC)"
            )
        return given.timestamp()
    if isinstance(given, bool) or not math.isfinite(given) or not 0 <= given < 253_402_300_800.0:
        raise UsageError(
            name, f"{given!r} is no date before the year 10000", "give seconds since the Unix epoch"
        )
    return float(given)
