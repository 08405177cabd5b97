"""``[transport.retry]`` and the waits of ``[transport.probe]``: schedules of a configuration file."""

from collections.abc import Mapping
from typing import Any, Final

from tenacity import stop_after_attempt, stop_after_delay, stop_any, stop_never, wait_exponential
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from postroom.config_values import (
    Reader,
    Section,
    destination,
    duration,
    durations,
    endless,
    integer,
    number,
    table,
)
from postroom.retries import DAY, HOUR, MINUTE, RetryPolicies, RetryPolicy, wait_jittered, wait_steps

__all__ = ["DESTINATION_RETRY", "RETRY", "WAIT", "read_retry", "read_wait"]

WAIT: Final[Mapping[str, Reader]] = {"initial": duration, "max": duration, "jitter": number}
DESTINATION_RETRY: Final[Mapping[str, Reader]] = {
    **WAIT,
    "give_up": endless,
    "attempts": integer,
    "greylist": durations,
}
RETRY: Final[Mapping[str, Reader]] = {**DESTINATION_RETRY, "destinations": table}


def read_retry(section: Section) -> RetryPolicy | RetryPolicies:
    """Return the schedule of a ``retry`` table; what a destination's table leaves out is as in the table around it."""
    given = section.read(RETRY)
    names: Mapping[str, Any] = given.pop("destinations", {})
    default = _policy(section, given)
    if not names:
        return default
    policies: dict[str, RetryPolicy] = {}
    for name, values in names.items():
        key = f'destinations."{name}"'
        glob = section.convert(key, destination, name)
        if glob in policies:
            raise section.error(key, "is there twice", "case does not count: join the two")
        inner = section.inner(key, section.convert(key, table, values))
        policies[glob] = _policy(inner, {**given, **inner.read(DESTINATION_RETRY)})
    return section.make(lambda: RetryPolicies(default, policies))


def read_wait(section: Section, given: Mapping[str, Any], *, initial: float, longest: float) -> wait_base:
    """Return a wait that doubles from ``initial`` to ``max``.

    Args:
        section: the table, for errors.
        given: what it says, read.
        initial: seconds to begin with where it does not say so.
        longest: seconds to end with where it does not say so.
    """
    initial = given.get("initial", initial)
    longest = given.get("max", max(longest, initial))
    if not 0 < initial <= longest:
        raise section.error(
            "initial", f"is not between 0 and max ({longest:g} s)", "give initial less than max"
        )
    jitter = given.get("jitter", 0.2)
    if not 0 <= jitter <= 1:
        raise section.error("jitter", "is not a fraction", "give 0 to 1, as in 0.2 for a fifth either way")
    return wait_jittered(wait_exponential(multiplier=initial, min=initial, max=longest), jitter)


def _policy(section: Section, given: Mapping[str, Any]) -> RetryPolicy:
    """Return the exponential schedule of the file; what is left out is as in :class:`RetryPolicy`'s default."""
    wait = read_wait(section, given, initial=MINUTE, longest=4 * HOUR)
    give_up = given.get("give_up", 5 * DAY)
    stop: stop_base = stop_never if give_up is None else stop_after_delay(give_up)
    if "attempts" in given:
        if given["attempts"] < 1:
            raise section.error("attempts", "is less than 1", "give how many attempts there may be")
        stop = stop_any(stop, stop_after_attempt(given["attempts"]))
    if "greylist" in given:
        return RetryPolicy(wait, stop, wait_steps(given["greylist"]))
    return RetryPolicy(wait, stop)
