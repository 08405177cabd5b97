"""What to do next, as pure functions: who is stopped, who is started, and when.

Nothing here starts, stops or waits: the supervisor's thread describes its children as :class:`ChildView`
values, asks, and does as it is told.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base

from postroom.supervision.events import ChildState
from postroom.supervision.intensity import Intensity
from postroom.supervision.specs import Restart, Strategy

__all__ = [
    "LONGEST_DELAY",
    "ChildView",
    "Record",
    "Schedule",
    "Start",
    "Stop",
    "Verdict",
    "after_end",
    "all_tried",
    "capped_delay",
    "next_steps",
    "restart_delay",
    "schedule_restart",
    "stop_allowance",
    "wait_restart",
]

LONGEST_DELAY = 3600.0
"""Seconds between two tries at most, whatever the back-off says: a child is never given up."""

_CAP_COUNT = 64
"""The count at which a back-off is taken to have reached its cap; 2 to the 64th is beyond any."""

_ALIVE = frozenset({ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING})
_TO_START = frozenset({ChildState.WAITING, ChildState.DOWN})
_RETRYING = Retrying()


class wait_restart(wait_base):  # noqa: N801 - named like tenacity's own
    """Exponential back-off between restarts, with jitter.

    Args:
        initial: seconds before the first restart.
        maximum: seconds at most, jitter included.
        jitter: up to this fraction of the wait is added at random, so that children that fell together part.
        uniform: where randomness comes from, like :func:`random.uniform`.
    """

    def __init__(
        self,
        initial: float = 0.05,
        maximum: float = 30.0,
        jitter: float = 0.25,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.initial = initial
        self.maximum = maximum
        self.jitter = jitter
        self.uniform = uniform

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        # Doubling more often than the cap count would overflow a float some day, and changes nothing before.
        base = self.initial * 2.0 ** (min(retry_state.attempt_number, _CAP_COUNT) - 1)
        return min(self.maximum, base + base * self.uniform(0.0, self.jitter))


@dataclass(frozen=True, slots=True)
class ChildView:
    """What decisions need to know of a child.

    Attributes:
        name: its name among its siblings.
        state: where it stands.
        restart: which of its ends are followed by a restart.
        tried: whether its first start is over, however it went.
        start_at: monotonic seconds before which it is not started.
        marked: whether it is to be stopped.
    """

    name: str
    state: ChildState
    restart: Restart = Restart.PERMANENT
    tried: bool = False
    start_at: float = 0.0
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from the end of a child.

    Attributes:
        stop: living siblings to stop, in this order.
        again: who is to be started again, in this order; with the child that ended, or empty.
    """

    stop: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def after_end(children: Sequence[ChildView], strategy: Strategy, ended: str, *, failed: bool) -> Verdict:
    """Return who is stopped and who started again after ``ended`` ended unasked.

    Args:
        children: all children in start order.
        strategy: who shares the fate of the child that ended.
        ended: its name.
        failed: whether it ended by an exception.
    """
    position = next(index for index, child in enumerate(children) if child.name == ended)
    kind = children[position].restart
    if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and not failed):
        return Verdict()
    match strategy:
        case Strategy.ONE_FOR_ONE:
            group = [children[position]]
        case Strategy.REST_FOR_ONE:
            group = list(children[position:])
        case Strategy.ONE_FOR_ALL:
            group = list(children)
    stop = tuple(child.name for child in reversed(group) if child.name != ended and child.state in _ALIVE)
    again = tuple(child.name for child in group if child.restart is not Restart.TEMPORARY)
    return Verdict(stop, again)


@dataclass(frozen=True, slots=True)
class Start:
    """Start this child now."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask this child to stop now."""

    name: str


def next_steps(children: Sequence[ChildView], strategy: Strategy, now: float) -> tuple[Start | Stop, ...]:
    """Return what can be done at once. Empty when something has to be waited for.

    1. Who is marked is stopped, the last started first, one after the other; nobody is started meanwhile.
    2. Where children depend on each other, one is started when all before it run.
    3. Where they do not, first starts still go in order, each waiting for the one before to be over;
       restarts wait for nobody.

    Args:
        children: all children in start order.
        strategy: the supervisor's.
        now: monotonic seconds.
    """
    if any(child.state is ChildState.STOPPING for child in children):
        return ()
    marked = [child for child in children if child.marked and child.state in _ALIVE]
    if marked:
        return (Stop(marked[-1].name),)
    if strategy is not Strategy.ONE_FOR_ONE:
        first = next((c for c in children if c.state in _TO_START or c.state is ChildState.STARTING), None)
        return (Start(first.name),) if first is not None and _due(first, now) else ()
    steps = [Start(child.name) for child in children if child.tried and _due(child, now)]
    untried = next((child for child in children if not child.tried), None)
    if untried is not None and _due(untried, now):
        steps.append(Start(untried.name))
    return tuple(steps)


def _due(child: ChildView, now: float) -> bool:
    return child.state in _TO_START and child.start_at <= now and not child.marked


def all_tried(children: Sequence[ChildView], strategy: Strategy) -> bool:
    """Return whether the first start is over: only who failed, and who waits for such a one, is left."""
    if strategy is Strategy.ONE_FOR_ONE:
        return all(child.tried for child in children)
    for child in children:
        if child.state in _TO_START or child.state is ChildState.STARTING:
            return child.tried
    return True


@dataclass(frozen=True, slots=True)
class Record:
    """A child's failures so far.

    Attributes:
        consecutive: restarts since it last ran for a quiet time.
        first_at: monotonic seconds of the first of these.
        times: monotonic seconds of the restarts inside the intensity's period.
        down: whether the intensity was exceeded since it last ran for a quiet time.
    """

    consecutive: int = 0
    first_at: float = 0.0
    times: tuple[float, ...] = ()
    down: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a child is started again.

    Attributes:
        record: the record with this restart.
        delay: seconds from now.
        fell: whether the child is down with this end, and was not before.
    """

    record: Record
    delay: float
    fell: bool


def schedule_restart(  # noqa: PLR0913 - a pure function of six things, by keyword
    record: Record, *, now: float, uptime: float, intensity: Intensity, quiet_after: float, backoff: wait_base
) -> Schedule:
    """Return when to restart a child that ended just now. Pure but for the randomness of ``backoff``.

    Args:
        record: its failures before this one.
        now: monotonic seconds.
        uptime: seconds it had been up; 0 when it never was.
        intensity: how often it may be restarted.
        quiet_after: uptime after which earlier failures are forgotten.
        backoff: a tenacity wait, asked for the number of consecutive restarts.
    """
    # A child that never came up had no quiet time, not even one of zero seconds.
    quiet = uptime > 0 and uptime >= quiet_after
    before = Record(times=record.times) if quiet else record
    times = intensity.within((*before.times, now), now)
    down = before.down or intensity.exceeded(times, now)
    after = Record(before.consecutive + 1, before.first_at if before.consecutive else now, times, down)
    delay = capped_delay(backoff) if down else restart_delay(backoff, after.consecutive, now - after.first_at)
    return Schedule(after, delay, down and not before.down)


def restart_delay(backoff: wait_base, consecutive: int, elapsed: float = 0.0) -> float:
    """Return the seconds before the ``consecutive``-th restart in a row, 0 to ``LONGEST_DELAY``."""
    nothing: Any = None
    state = RetryCallState(retry_object=_RETRYING, fn=nothing, args=(), kwargs={})
    state.attempt_number = consecutive
    state.set_result(None)
    state.outcome_timestamp = state.start_time + elapsed
    state.idle_for = elapsed
    return min(max(0.0, backoff(state)), LONGEST_DELAY)


def capped_delay(backoff: wait_base) -> float:
    """Return the seconds between tries of a child that is down: the most that its back-off comes to."""
    return restart_delay(backoff, _CAP_COUNT)


def stop_allowance(remaining: float, own: float, others: float) -> float:
    """Return how long one child's stop may take when all have ``remaining`` seconds together.

    Each has its own timeout when the time suffices for all; otherwise its share of the time, so that one that
    hangs does not use up the time of those that are stopped after it.

    Args:
        remaining: seconds left for this child and those after it.
        own: this child's stop timeout.
        others: the sum of the stop timeouts of those after it.
    """
    return min(own, max(0.0, remaining) * own / (own + others))
