"""Whether a messaging system, or one destination of it, may be tried, and by how many at once.

A circuit breaker in the sense of Nygard, *Release It!* (2nd ed., section 5.2), with the mail queue's needs added: an
outage parks the transport and costs nobody an attempt, one canary probes it, and a success releases the queue in a ramp
rather than all at once on a system that has just come back.
"""

from enum import StrEnum

from tenacity import RetryCallState, Retrying, wait_exponential
from tenacity.wait import wait_base

from postroom.retries import MAX_RETRY_AFTER, wait_jittered

__all__ = ["Breaker", "Status", "consecutive_wait", "default_probe_wait"]

_RETRYING = Retrying()


class Status(StrEnum):
    """Where a transport stands."""

    UP = "up"
    PARKED = "parked"
    PROBING = "probing"
    RAMPING = "ramping"


def default_probe_wait() -> wait_base:
    """1, 2, 4 … seconds up to 2 minutes between probes, each varied by a fifth."""
    return wait_jittered(wait_exponential(multiplier=1.0, min=1.0, max=120.0))


def consecutive_wait(wait: wait_base, count: int) -> float:
    """Return what a tenacity ``wait`` says after ``count`` failures in a row, in seconds."""
    state = RetryCallState(_RETRYING, None, (), {})
    state.attempt_number = max(1, count)
    state.set_result(None)
    return wait(state)


class Breaker:
    """The standing of one transport or destination. Pure but for the randomness of ``wait``; used by one thread.

    Args:
        concurrency: attempts at once when all is well.
        wait: a tenacity wait, evaluated on the number of probes that failed in a row.

    Attributes:
        status: where it stands.
        reason: why it is not up, "" when it is.
        since: wall-clock seconds of the last change of status.
        until: wall-clock seconds of the next probe while parked, else None.
        failures: outages and failed probes since it was up last.
        down_since: wall-clock seconds at which the outage began, None while there is none.
    """

    def __init__(self, concurrency: int, wait: wait_base | None = None) -> None:
        self._concurrency = concurrency
        self._wait = wait or default_probe_wait()
        self.failures = 0
        self._successes = 0
        self._ramp = concurrency
        self.status = Status.UP
        self.reason = ""
        self.since = 0.0
        self.until: float | None = None
        self.down_since: float | None = None

    def restore(self, status: Status, reason: str, since: float, until: float | None, failures: int) -> None:
        """Take up a standing that was put on record; one that was probing or ramping is probed (again)."""
        if status is Status.UP:
            return
        self.failures = failures
        self.status = Status.PARKED if status is Status.PARKED and until is not None else Status.PROBING
        self.reason, self.since = reason, since
        self.until = until if self.status is Status.PARKED else None
        self.down_since = since

    @property
    def permits(self) -> int:
        """How many attempts may run at once."""
        if self.status is Status.UP:
            return self._concurrency
        if self.status is Status.PARKED:
            return 0
        return 1 if self.status is Status.PROBING else self._ramp

    def down(self, now: float, reason: str, retry_after: float | None = None) -> bool:
        """Note an outage; return whether the status changed. While parked, more of the same outage changes nothing."""
        if self.status is Status.PARKED:
            return False
        self.failures += 1
        delay = max(consecutive_wait(self._wait, self.failures), min(retry_after or 0.0, MAX_RETRY_AFTER))
        self._change(Status.PARKED, now, reason)
        self.until = now + delay
        if self.down_since is None:
            self.down_since = now
        return True

    def answered(self, now: float) -> bool:
        """Note that the system answered (whatever it said of a recipient); return whether the status changed."""
        if self.status is Status.UP or self.status is Status.PARKED:
            return False
        if self.status is Status.PROBING:
            self._ramp, self._successes = 1, 0
            self.down_since = None
            self._change(Status.RAMPING, now, self.reason)
            self._grow(now)
            return True
        return self._grow(now)

    def _grow(self, now: float) -> bool:
        """Double the ramp after as many answers as it is wide."""
        self._successes += 1
        if self._successes >= self._ramp:
            self._ramp, self._successes = self._ramp * 2, 0
        if self._ramp < self._concurrency:
            return False
        self.failures = 0
        self._change(Status.UP, now, "")
        return True

    def wake(self, now: float) -> bool:
        """Begin to probe when it is time; return whether the status changed."""
        if self.status is not Status.PARKED or self.until is None or now < self.until:
            return False
        self._change(Status.PROBING, now, self.reason)
        return True

    def probe_now(self, now: float) -> bool:
        """Begin to probe whatever the time; return whether the status changed."""
        if self.status is not Status.PARKED:
            return False
        self.until = now
        return self.wake(now)

    def _change(self, status: Status, now: float, reason: str) -> None:
        self.status = status
        self.reason = reason
        self.since = now
        self.until = None
