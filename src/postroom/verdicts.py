"""What an attempt says about the destination, beyond what it says of the recipient. Pure functions."""

from collections.abc import Iterable
from enum import Enum

from postroom.outcomes import Deferred, Outcome

__all__ = ["Verdict", "verdict_of"]

SIGNALS = frozenset({421, 429, 503})
"""SMTP's and HTTP's codes for "too much" and "not now": a signal about the destination rather than the recipient."""


class Verdict(Enum):
    """What an attempt says about the destination."""

    ANSWERED = "answered"
    TROUBLED = "troubled"
    DOWN = "down"
    UNKNOWN = "unknown"


def verdict_of(outcomes: Iterable[Outcome]) -> tuple[Verdict, str, float | None]:
    """Return what outcomes say about their destination, why, and for how long it wants to be left alone."""
    troubled: Deferred | None = None
    for outcome in outcomes:
        if not isinstance(outcome, Deferred):
            return Verdict.ANSWERED, "", None
        if outcome.destination_down:
            return Verdict.DOWN, str(outcome.reply), outcome.retry_after
        if outcome.reply.code in SIGNALS or outcome.reply.status.startswith(("4.4.", "4.3.2")):
            troubled = outcome
    if troubled is None:
        return Verdict.ANSWERED, "", None
    return Verdict.TROUBLED, str(troubled.reply), troubled.retry_after
