"""When to try again, on the record.

A policy is tenacity's own ``wait`` and ``stop`` objects, composable with ``+``, ``|`` and ``&``. They are
evaluated on the persisted attempt count and first-attempt time, not on a running loop, so that a schedule of
days survives restarts. :class:`RetryPolicies` chooses a policy by destination.
"""

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from tenacity import RetryCallState, Retrying, stop_after_delay, wait_chain, wait_exponential, wait_fixed
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from postroom.addresses import Address
from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError
from postroom.lanes import destination_of

__all__ = [
    "DAY",
    "HOUR",
    "MAX_RETRY_AFTER",
    "MAX_WAIT",
    "MINUTE",
    "RetryPolicies",
    "RetryPolicy",
    "wait_jittered",
    "wait_steps",
]

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MAX_RETRY_AFTER = DAY
"""Seconds that the other side can make us wait at most: it must not park a recipient for ever."""

MAX_WAIT = 30 * DAY
"""Seconds that a policy's own wait counts at most; what is no number counts as this."""

HINTED_ATTEMPTS = 3
"""Attempts up to which a greylisting server may ask for less than the schedule: it must not make us hammer it."""

HINT_MARGIN = 5.0
"""Seconds added to what a greylisting server asks for, as its clock need not agree with ours."""

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


def _upwards(_low: float, high: float) -> float:
    return random.uniform(0.0, high)  # noqa: S311 - spreads load, guards nothing


def _default_wait() -> wait_base:
    return wait_jittered(wait_exponential(multiplier=MINUTE, min=MINUTE, max=4 * HOUR))


def _default_stop() -> stop_base:
    return stop_after_delay(5 * DAY)


def wait_steps(seconds: Iterable[float]) -> wait_base:
    """Return a wait of these seconds one after the other, the last one from then on, each up to a fifth longer."""
    # Never less than the round figure: five minutes is what most greylisting servers insist on.
    return wait_jittered(wait_chain(*map(wait_fixed, seconds)), 0.2, _upwards)


def _default_greylist() -> wait_base:
    return wait_steps(minutes * MINUTE for minutes in (5, 15, 15, 15, 30, 60, 120, 240))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a deferred recipient is tried again.

    The default waits 1, 2, 4 … minutes up to 4 hours, each varied by a fifth, and gives up 5 days after the
    first attempt (RFC 5321 section 4.5.4.1 asks for at least 4 to 5 days).

    Attributes:
        wait: a tenacity wait: seconds until the next attempt.
        stop: a tenacity stop: whether to give up.
        greylist: the wait in place of ``wait`` where the other side greylists (RFC 6647): 5 minutes, 15, 15, 15,
            30, then 1, 2 and at most 4 hours, each up to a fifth longer.
    """

    wait: wait_base = field(default_factory=_default_wait)
    stop: stop_base = field(default_factory=_default_stop)
    greylist: wait_base = field(default_factory=_default_greylist)

    def next_attempt(
        self,
        *,
        attempts: int,
        first_attempt: float,
        now: float,
        retry_after: float | None = None,
        greylisted: bool = False,
    ) -> float | None:
        """Return when to try again, or None to give up. Pure but for the randomness of the waits.

        Args:
            attempts: attempts made so far, at least 1.
            first_attempt: wall-clock seconds of the first of them.
            now: wall-clock seconds.
            retry_after: seconds that the other side asked us to wait at least; counts up to
                ``MAX_RETRY_AFTER``.
            greylisted: the other side wants to see the same attempt again later. Then ``greylist`` counts, and a
                ``retry_after`` shorter than that is believed for the first ``HINTED_ATTEMPTS`` attempts.
        """
        state = _state(attempts, first_attempt, now)
        asked = min(retry_after or 0.0, MAX_RETRY_AFTER)
        if greylisted and asked > 0 and attempts <= HINTED_ATTEMPTS:
            delay = asked + HINT_MARGIN
        else:
            delay = max(_bounded((self.greylist if greylisted else self.wait)(state)), asked)
        state.upcoming_sleep = delay
        return None if self.stop(state) else now + delay

    def for_destination(self, destination: str) -> "RetryPolicy":
        """Return the policy itself: it is for all destinations. See :class:`RetryPolicies`."""
        del destination
        return self

    def for_address(self, address: Address) -> "RetryPolicy":
        """Return the policy itself: it is for all addresses."""
        del address
        return self


@dataclass(frozen=True, slots=True)
class RetryPolicies:
    """A policy by destination: ``RetryPolicies(destinations={"*.example.com": RetryPolicy(…)})``. Immutable.

    Attributes:
        default: for destinations that nothing else matches.
        destinations: policies by the domain or host that an address is at. A name matches itself; a glob
            (``*``, ``?``, ``[seq]``) matches as in a transport's patterns. A name comes before any glob, and globs
            are tried in their order. Domains may be written in Unicode. "" is for addresses without a destination.

    Raises:
        ConfigurationError: a pattern is no domain.
    """

    default: RetryPolicy = field(default_factory=RetryPolicy)
    destinations: Mapping[str, RetryPolicy] = field(default_factory=dict[str, RetryPolicy])
    _names: Mapping[str, RetryPolicy] = field(init=False, repr=False, compare=False)
    _globs: tuple[tuple[re.Pattern[str], RetryPolicy], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names: dict[str, RetryPolicy] = {}
        globs: list[tuple[re.Pattern[str], RetryPolicy]] = []
        for pattern, policy in self.destinations.items():
            name = _checked(pattern)
            if name is None:
                globs.append((re.compile(translate(pattern), re.IGNORECASE), policy))
            else:
                names[name] = policy
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_globs", tuple(globs))

    def for_destination(self, destination: str) -> RetryPolicy:
        """Return the policy for a domain or host, as :func:`postroom.lanes.destination_of` names it."""
        policy = self._names.get(destination.lower())
        if policy is not None:
            return policy
        return next((policy for glob, policy in self._globs if glob.match(destination)), self.default)

    def for_address(self, address: Address) -> RetryPolicy:
        """Return the policy for an address."""
        return self.for_destination(destination_of(address))


def _checked(pattern: str) -> str | None:
    """Return the name that a key of ``destinations`` is, in lower case and A-labels, or None if it is a glob."""
    field_name = f"retry.destinations[{pattern!r}]"
    literal = pattern.startswith("[")
    if "@" in pattern or "/" in pattern or any(map(str.isspace, pattern)) or (":" in pattern and not literal):
        remedy = "give what follows the @ of a mailbox, or the host of a URL without its port"
        raise ConfigurationError(field_name, "is neither a domain nor a host", remedy)
    glob = not literal and any(char in pattern for char in "*?[")
    if pattern.isascii():
        return None if glob else pattern.lower()
    if glob:
        raise ConfigurationError(field_name, "is a glob beyond ASCII", "write its domain in A-labels (xn--…)")
    try:
        return canonical_domain(pattern)
    except Malformed as malformed:
        raise ConfigurationError(field_name, malformed.problem, malformed.remedy) from None


def _bounded(delay: float) -> float:
    """Return ``delay`` within 0 and ``MAX_WAIT``; a policy of one's own may compute anything."""
    return MAX_WAIT if math.isnan(delay) else min(max(delay, 0.0), MAX_WAIT)


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
