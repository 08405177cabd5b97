"""When to try again, on the record.

A policy is tenacity's own ``wait`` and ``stop`` objects, composable with ``+``, ``|`` and ``&``. They are
evaluated on the persisted attempt count and first-attempt time, not on a running loop, so that a schedule of
days survives restarts.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenacity import RetryCallState, Retrying, stop_after_delay, wait_exponential
from tenacity.stop import stop_base
from tenacity.wait import wait_base

__all__ = ["DAY", "HOUR", "MAX_RETRY_AFTER", "MINUTE", "RetryPolicy", "wait_jittered"]

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MAX_RETRY_AFTER = DAY
"""Seconds that the other side can make us wait at most: it must not park a recipient for ever."""

_RETRYING = Retrying()


class wait_jittered(wait_base):  # noqa: N801 - named like tenacity's own
    """Another wait, varied at random by up to ``fraction`` of itself either way, so that retries spread out.

    Args:
        wait: the wait to vary.
        fraction: 0 to 1.
        uniform: where randomness comes from, like :func:`random.uniform`.
    """

    def __init__(
        self,
        wait: wait_base,
        fraction: float = 0.2,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.wait = wait
        self.fraction = fraction
        self.uniform = uniform

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the varied wait in seconds, never negative."""
        base = self.wait(retry_state)
        return max(0.0, base + base * self.uniform(-self.fraction, self.fraction))


def _default_wait() -> wait_base:
    return wait_jittered(wait_exponential(multiplier=MINUTE, min=MINUTE, max=4 * HOUR))


def _default_stop() -> stop_base:
    return stop_after_delay(5 * DAY)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a deferred recipient is tried again.

    The default waits 1, 2, 4 … minutes up to 4 hours, each varied by a fifth, and gives up 5 days after the
    first attempt (RFC 5321 section 4.5.4.1 asks for at least 4 to 5 days).

    Attributes:
        wait: a tenacity wait: seconds until the next attempt.
        stop: a tenacity stop: whether to give up.
    """

    wait: wait_base = field(default_factory=_default_wait)
    stop: stop_base = field(default_factory=_default_stop)

    def next_attempt(
        self, *, attempts: int, first_attempt: float, now: float, retry_after: float | None = None
    ) -> float | None:
        """Return when to try again, or None to give up. Pure but for the randomness of ``wait``.

        Args:
            attempts: attempts made so far, at least 1.
            first_attempt: wall-clock seconds of the first of them.
            now: wall-clock seconds.
            retry_after: seconds that the other side asked us to wait at least; counts up to
                ``MAX_RETRY_AFTER``.
        """
        state = _state(attempts, first_attempt, now)
        delay = max(self.wait(state), min(retry_after or 0.0, MAX_RETRY_AFTER))
        state.upcoming_sleep = delay
        return None if self.stop(state) else now + delay


def _state(attempts: int, first_attempt: float, now: float) -> RetryCallState:
    """Return a tenacity state as after ``attempts`` attempts of a loop begun at ``first_attempt``."""
    nothing: Any = None
    state = RetryCallState(retry_object=_RETRYING, fn=nothing, args=(), kwargs={})
    state.attempt_number = attempts
    state.start_time = first_attempt
    state.set_result(None)
    state.outcome_timestamp = max(first_attempt, now)
    state.idle_for = state.outcome_timestamp - first_attempt
    return state
