"""How fast and how wide a transport may send: rates, concurrency that adapts, and the values that configure them.

Rates are the generic cell rate algorithm, in its form of virtual scheduling (ITU-T I.371 Annex A; ATM Forum, *Traffic
Management Specification* 4.1): one number per rate, no timer, no bucket to fill. Concurrency adapts as in Postfix
(SCHEDULER_README, *Concurrency scheduling*): feedback per delivery, a change only when whole steps of it have come
together (hysteresis), and a destination is dead after as many failures in a row as are made at once.

All of it holds for one process; processes that share a spool do not know of each other's rates.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tenacity.wait import wait_base

from postroom.errors import ConfigurationError
from postroom.windows import DeliveryWindow

__all__ = ["Concurrency", "DestinationLimits", "Gcra", "Rate", "Throttle", "parse_rate", "resumed"]

_PERIODS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(
    r"\s*(?P<count>[0-9]+)\s*(?:/|per)\s*"
    r"(?P<unit>seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)"
    r"(?:\s*,?\s*burst\s*(?P<burst>[0-9]+))?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many attempts in so much time, and how many may come at once.

    Attributes:
        count: attempts.
        per: seconds.
        burst: attempts back to back after a rest; 1 spaces all of them evenly.
    """

    count: float
    per: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        for name in ("count", "per", "burst"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(
                    f"rate.{name}", f"{getattr(self, name)!r} is not positive", "give a number above 0"
                )

    @property
    def interval(self) -> float:
        """Seconds from one attempt to the next (I.371: T)."""
        return self.per / self.count

    @property
    def tolerance(self) -> float:
        """Seconds that an attempt may be ahead of its time (I.371: τ)."""
        return self.interval * (self.burst - 1)

    def __str__(self) -> str:
        unit = next((name for name, seconds in _PERIODS.items() if seconds == self.per), f"{self.per:g}s")
        return f"{self.count:g}/{unit}" + (f" burst {self.burst}" if self.burst != 1 else "")


@lru_cache(maxsize=256)
def parse_rate(text: str) -> Rate:
    """Return the rate that a text like "100/min" or "5/s burst 20" describes.

    Raises:
        ConfigurationError: it cannot be understood.
    """
    match = _RATE.fullmatch(text)
    if match is None or not int(match["count"]) or match["burst"] == "0":
        raise ConfigurationError(
            "rate", f"{text!r} is not understood", "write it like '100/min' or '5/s burst 20'"
        )
    unit = match["unit"].lower()
    per = _PERIODS["min" if unit.startswith("m") else unit[0]]
    return Rate(int(match["count"]), per, int(match["burst"] or 1))


class Gcra:
    """Whether the next attempt conforms to a rate: never more than ``burst + t / interval`` in any ``t`` seconds.

    Plain logic; used by one thread, readable by others.

    Args:
        rate: the rate to keep.
    """

    __slots__ = ("_arrival", "_interval", "_tolerance", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._interval = rate.interval
        self._tolerance = rate.tolerance
        self._arrival = 0.0

    def earliest(self) -> float:
        """Return when the next attempt may be made, in wall-clock seconds; in the past for at once."""
        return self._arrival - self._tolerance

    def permits(self, now: float) -> bool:
        """Return whether an attempt may be made at ``now``."""
        if self._arrival > now + self._tolerance + self._interval:
            # More ahead than conforming attempts can bring about: the wall clock was set back.
            self._arrival = now + self._tolerance
        return now >= self._arrival - self._tolerance

    def take(self, now: float) -> None:
        """Count an attempt that is made at ``now``."""
        self._arrival = max(self._arrival, now) + self._interval

    def give_back(self) -> None:
        """Count out an attempt that was not made after all."""
        self._arrival -= self._interval


def resumed(former: Gcra | None, rate: Rate | None) -> Gcra | None:
    """Return what keeps ``rate`` from now on: the former one where it kept the same, None without a rate."""
    if former is not None and former.rate == rate:
        return former
    return None if rate is None else Gcra(rate)


class Concurrency:
    """How many attempts at once a destination bears, found out by trying. Plain logic; used by one thread.

    It grows by one with each success until it meets a failure or its maximum (slow start: it doubles with each round),
    from then on by one with each round of successes. Each failure shrinks it by one. Growth that was under way is
    forgotten when it shrinks and the other way round, so that it does not swing.

    Args:
        maximum: never more.
        initial: to begin with.
        cohorts: rounds of failures without a success between them after which the destination counts as dead;
            0 for never.

    Attributes:
        window: attempts at once, from 1 to ``maximum``.
    """

    __slots__ = (
        "_cohorts",
        "_failed",
        "_failures",
        "_initial",
        "_maximum",
        "_slow_start",
        "_successes",
        "window",
    )

    def __init__(self, maximum: int, initial: int = 5, cohorts: float = 1.0) -> None:
        self._maximum = maximum
        self._initial = min(initial, maximum)
        self._cohorts = cohorts
        self.window = self._initial
        self.reset()

    def reset(self) -> None:
        """Begin again, as after an outage."""
        self.window = self._initial
        self._slow_start = True
        self._successes = 0.0
        self._failures = 0.0
        self._failed = 0.0

    def restore(self, window: float) -> None:
        """Take up what was learnt before."""
        if window >= 1:
            self.window = min(self._maximum, int(window))

    def success(self, in_flight: int) -> None:
        """Note an answer.

        Args:
            in_flight: attempts under way there, this one included; what is not used to the full does not grow.
        """
        self._failed = 0.0
        if self.window >= self._maximum or in_flight < self.window:
            return
        self._successes += 1.0 if self._slow_start else 1.0 / self.window
        # The sum of n times 1/n may fall short of 1 by a rounding error.
        if self._successes >= 1.0 - 1e-9:
            self._successes = 0.0
            self._failures = 0.0
            self.window += 1

    def failure(self) -> bool:
        """Note that the destination did not answer as it should; return whether it counts as dead now."""
        self._failed += 1.0 / self.window
        self._slow_start = False
        self._successes = 0.0
        self._failures += 1.0
        if self._failures >= 1.0 and self.window > 1:
            self._failures = 0.0
            self.window -= 1
        return 0 < self._cohorts <= self._failed + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationLimits:
    """What each destination (the domain or host of an address) is asked to bear.

    Attributes:
        concurrency: attempts there at once at most, hence connections.
        initial: attempts at once to begin with; it grows and shrinks with what the destination makes of it. As many as
            ``concurrency`` for a number that is tried from the start.
        rate: attempts in time, None without limit.
        cohorts: rounds of failures (of the connection, not of recipients) in a row after which the destination is left
            alone for a while; 0 for never.
        probe: a tenacity wait: how long it is left alone, evaluated on the number of probes that failed in a row; None
            for 10, 20, 40 … seconds up to 10 minutes, each varied by a fifth.
    """

    concurrency: int = 20
    initial: int = 5
    rate: Rate | None = None
    cohorts: float = 1.0
    probe: wait_base | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "initial"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"throttle.destination.{name}",
                    f"{getattr(self, name)!r} is less than 1",
                    "give at least 1",
                )
        if self.cohorts < 0:
            raise ConfigurationError(
                "throttle.destination.cohorts",
                f"{self.cohorts!r} is negative",
                "give 0 for never, or 1 and more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """How a transport is slowed down; nothing of it costs anything where it is not set.

    Attributes:
        rate: attempts in time over all destinations, None without limit.
        destination: for every destination that none of ``overrides`` names; None without limits.
        overrides: for the destinations that a glob names, as in ``{"*.example.com": DestinationLimits(rate=…)}``; the
            first that matches counts. Lower case.
        hours: when the transport is used at all, None for always.
    """

    rate: Rate | None = None
    destination: DestinationLimits | None = None
    overrides: Mapping[str, DestinationLimits] = field(default_factory=dict[str, DestinationLimits])
    hours: DeliveryWindow | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "overrides", dict(self.overrides))

    @property
    def by_destination(self) -> bool:
        """Whether any destination has limits."""
        return self.destination is not None or bool(self.overrides)
