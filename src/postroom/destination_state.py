"""What is remembered of one destination: a domain or host that recipients of a transport are at."""

from tenacity import wait_exponential
from tenacity.wait import wait_base

from postroom.breaker import Breaker
from postroom.retries import wait_jittered
from postroom.stores.base import DestinationStanding
from postroom.throttles import Concurrency, DestinationLimits, Gcra

__all__ = ["Destination", "default_destination_wait"]

PACE_MEMORY = 0.1
"""Weight of the latest attempt in the mean pace."""


def default_destination_wait() -> wait_base:
    """10, 20, 40 … seconds up to 10 minutes, each varied by a fifth: each probe costs a recipient an attempt."""
    return wait_jittered(wait_exponential(multiplier=10.0, min=10.0, max=600.0))


class Destination:
    """One destination.

    Attributes:
        name: of the domain or host.
        breaker: whether it may be tried.
        concurrency: how many attempts at once it bears, None without limit.
        rate: when the next attempt may be made, None without limit.
        in_flight: attempts offered to couriers and not ended.
        used: wall-clock seconds of the last attempt.
        pace: seconds from the end of one attempt to that of the next while there is enough to do; None before that was
            seen.
        booked: wall-clock seconds until which jobs that were given back are due one by one.
    """

    __slots__ = ("_ended", "booked", "breaker", "concurrency", "in_flight", "name", "pace", "rate", "used")

    def __init__(self, name: str, limits: DestinationLimits | None, most: int, now: float) -> None:
        self.name = name
        self.concurrency = (
            None if limits is None else Concurrency(limits.concurrency, limits.initial, limits.cohorts)
        )
        self.rate = None if limits is None or limits.rate is None else Gcra(limits.rate)
        width = most if limits is None else min(most, limits.concurrency)
        self.breaker = Breaker(width, (limits and limits.probe) or default_destination_wait())
        self.in_flight = 0
        self.used = now
        self.pace: float | None = None if self.rate is None else self.rate.rate.interval
        self.booked = 0.0
        self._ended = now

    def ended(self, now: float) -> None:
        """Learn from the end of an attempt how quickly they follow each other."""
        gap = max(0.0, now - max(self._ended, self.used))
        self._ended = now
        if self.rate is None:
            self.pace = gap if self.pace is None else self.pace + PACE_MEMORY * (gap - self.pace)

    @property
    def free(self) -> int:
        """How many more attempts may run at once now."""
        permits = self.breaker.permits
        if self.concurrency is not None:
            permits = min(permits, self.concurrency.window)
        return permits - self.in_flight

    def standing(self, transport: str) -> DestinationStanding:
        """Return what goes on record."""
        breaker = self.breaker
        return DestinationStanding(
            transport, self.name, breaker.status, breaker.reason, breaker.since, breaker.until, breaker.failures,
            0.0 if self.concurrency is None else float(self.concurrency.window),
        )  # fmt: skip
