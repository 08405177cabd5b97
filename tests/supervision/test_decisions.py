"""The judgement of a supervisor, without threads."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_exponential, wait_exponential_jitter, wait_fixed, wait_incrementing, wait_none

from postroom.supervision import ChildState, Intensity, Restart, Strategy, wait_restart
from postroom.supervision.decisions import (
    LONGEST_DELAY,
    ChildView,
    Record,
    Start,
    Stop,
    Verdict,
    after_end,
    all_tried,
    capped_delay,
    next_steps,
    restart_delay,
    schedule_restart,
    stop_allowance,
)

ALIVE = {ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING}
NAMES = ["a", "b", "c", "d"]


def running(*names: str) -> list[ChildView]:
    return [ChildView(name, ChildState.RUNNING, tried=True) for name in names]


views = st.lists(
    st.builds(
        ChildView,
        name=st.just(""),
        state=st.sampled_from(ChildState),
        restart=st.sampled_from(Restart),
        tried=st.booleans(),
        start_at=st.floats(0, 10),
        marked=st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(lambda children: [replace(child, name=f"c{index}") for index, child in enumerate(children)])


@pytest.mark.parametrize(
    ("strategy", "stop", "again"),
    [
        (Strategy.ONE_FOR_ONE, (), ("b",)),
        (Strategy.REST_FOR_ONE, ("d", "c"), ("b", "c", "d")),
        (Strategy.ONE_FOR_ALL, ("d", "c", "a"), ("a", "b", "c", "d")),
    ],
)
def test_who_shares_the_fate(strategy: Strategy, stop: tuple[str, ...], again: tuple[str, ...]) -> None:
    assert after_end(running(*NAMES), strategy, "b", failed=True) == Verdict(stop, again)


@pytest.mark.parametrize(
    ("restart", "failed", "restarted"),
    [
        (Restart.PERMANENT, True, True),
        (Restart.PERMANENT, False, True),
        (Restart.TRANSIENT, True, True),
        (Restart.TRANSIENT, False, False),
        (Restart.TEMPORARY, True, False),
        (Restart.TEMPORARY, False, False),
    ],
)
def test_which_ends_are_followed_by_a_restart(restart: Restart, *, failed: bool, restarted: bool) -> None:
    children = [ChildView("a", ChildState.RUNNING, restart)]
    assert bool(after_end(children, Strategy.ONE_FOR_ALL, "a", failed=failed).again) is restarted


def test_a_temporary_sibling_is_stopped_with_the_group_and_stays_stopped() -> None:
    children = running("a", "b", "c")
    children[1] = replace(children[1], restart=Restart.TEMPORARY)
    assert after_end(children, Strategy.ONE_FOR_ALL, "a", failed=True) == Verdict(("c", "b"), ("a", "c"))


@given(views, st.sampled_from(Strategy), st.data())
def test_verdicts_stop_the_living_backwards_and_start_forwards(
    children: list[ChildView], strategy: Strategy, data: st.DataObject
) -> None:
    ended = data.draw(st.sampled_from(children)).name
    verdict = after_end(children, strategy, ended, failed=True)
    order = {child.name: index for index, child in enumerate(children)}
    states = {child.name: child.state for child in children}
    assert list(verdict.stop) == sorted(verdict.stop, key=order.__getitem__, reverse=True)
    assert list(verdict.again) == sorted(verdict.again, key=order.__getitem__)
    assert ended not in verdict.stop
    assert all(states[name] in ALIVE for name in verdict.stop)


@given(views, st.sampled_from(Strategy), st.floats(0, 10))
def test_steps_are_always_allowed(children: list[ChildView], strategy: Strategy, now: float) -> None:
    by_name = {child.name: child for child in children}
    steps = next_steps(children, strategy, now)
    for step in steps:
        child = by_name[step.name]
        if isinstance(step, Stop):
            assert child.marked
            assert child.state in ALIVE
        else:
            assert child.state in {ChildState.WAITING, ChildState.DOWN}
            assert child.start_at <= now
    if any(isinstance(step, Start) for step in steps):
        assert not any(child.marked and child.state in ALIVE for child in children)
        assert ChildState.STOPPING not in {child.state for child in children}
    assert len({step.name for step in steps}) == len(steps)


def play(children: list[ChildView], strategy: Strategy) -> list[Start | Stop]:
    """Do what ``next_steps`` says, every step succeeding at once, until nothing is left to do."""
    done: list[Start | Stop] = []
    while steps := next_steps(children, strategy, now=100.0):
        done += steps
        names = {step.name: step for step in steps}
        for index, child in enumerate(children):
            match names.get(child.name):
                case Start():
                    children[index] = replace(child, state=ChildState.RUNNING, tried=True)
                case Stop():
                    children[index] = replace(child, state=ChildState.WAITING, marked=False)
                case None:
                    pass
        assert len(done) < 100
    return done


@pytest.mark.parametrize("strategy", Strategy)
def test_the_first_start_goes_in_order(strategy: Strategy) -> None:
    children = [ChildView(name, ChildState.WAITING) for name in NAMES]
    assert play(children, strategy) == [Start(name) for name in NAMES]
    assert all_tried(children, strategy)


def test_a_group_is_stopped_backwards_before_it_is_started_forwards() -> None:
    children = running(*NAMES)
    children[1] = replace(children[1], state=ChildState.WAITING)
    children[2:] = [replace(child, marked=True) for child in children[2:]]
    assert play(children, Strategy.REST_FOR_ONE) == [Stop("d"), Stop("c"), Start("b"), Start("c"), Start("d")]


@given(views, st.sampled_from(Strategy))
def test_all_that_is_due_comes_up_in_the_end(children: list[ChildView], strategy: Strategy) -> None:
    stuck = {ChildState.STOPPING, ChildState.STARTING}
    children = [
        replace(child, state=ChildState.WAITING if child.state in stuck else child.state)
        for child in children
    ]
    children = [replace(child, marked=child.marked and child.state in ALIVE) for child in children]
    # Children that ended or run have been tried, as in a real supervisor.
    children = [
        replace(child, tried=child.tried or child.state is not ChildState.WAITING) for child in children
    ]
    play(children, strategy)
    assert not {ChildState.WAITING, ChildState.DOWN} & {child.state for child in children}


def test_independent_children_are_not_held_up_by_one_in_back_off() -> None:
    failed = ChildView("a", ChildState.WAITING, tried=True, start_at=50.0)
    fresh = ChildView("b", ChildState.WAITING)
    assert next_steps([failed, fresh], Strategy.ONE_FOR_ONE, now=1.0) == (Start("b"),)
    assert next_steps([failed, fresh], Strategy.REST_FOR_ONE, now=1.0) == ()
    assert not all_tried([failed, fresh], Strategy.ONE_FOR_ONE)
    assert all_tried([failed, fresh], Strategy.REST_FOR_ONE)


def test_a_first_start_waits_for_the_one_before_to_be_over() -> None:
    children = [ChildView("a", ChildState.STARTING), ChildView("b", ChildState.WAITING)]
    assert next_steps(children, Strategy.ONE_FOR_ONE, now=1.0) == ()
    children[0] = replace(children[0], tried=True)  # it is starting again, which is nobody else's business
    assert next_steps(children, Strategy.ONE_FOR_ONE, now=1.0) == (Start("b"),)


@given(st.lists(st.floats(0, 1000)), st.integers(0, 10), st.floats(0.1, 100))
def test_the_window_counts_as_a_full_count_would(times: list[float], restarts: int, period: float) -> None:
    intensity = Intensity(restarts, period)
    times.sort()
    kept: tuple[float, ...] = ()
    for index, now in enumerate(times):
        kept = intensity.within((*kept, now), now)
        counted = sum(now - time <= period for time in times[: index + 1])
        assert intensity.exceeded(kept, now) is (counted > restarts)
        assert len(kept) <= restarts + 1


@pytest.mark.parametrize(("restarts", "period"), [(-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_an_intensity_that_makes_no_sense_is_refused(restarts: int, period: float) -> None:
    with pytest.raises(ValueError, match="give"):
        Intensity(restarts, period)


def test_the_default_back_off_doubles_up_to_its_cap() -> None:
    backoff = wait_restart(uniform=lambda low, _high: low)
    delays = [restart_delay(backoff, count) for count in range(1, 13)]
    assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
    assert delays[-1] == capped_delay(backoff) == 30.0


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_the_default_back_off_stays_within_its_bounds(count: int, luck: float) -> None:
    backoff = wait_restart(uniform=lambda low, high: low + luck * (high - low))
    delay = restart_delay(backoff, count)
    assert min(30.0, 0.05 * 2.0 ** min(count - 1, 60)) <= delay <= 30.0


@pytest.mark.parametrize(
    "backoff",
    [
        wait_exponential(),
        wait_exponential_jitter(max=30),
        wait_incrementing(),
        wait_incrementing(5, -10),
        wait_none(),
    ],
)
@given(count=st.integers(1, 10_000))
def test_any_back_off_of_tenacity_will_do(backoff: wait_fixed, count: int) -> None:
    assert 0.0 <= restart_delay(backoff, count) <= LONGEST_DELAY


def test_back_off_counts_up_and_is_forgotten_after_a_quiet_time() -> None:
    backoff = wait_incrementing(1, 1)
    record = Record()
    delays: list[float] = []
    for now, uptime in [(0.0, 0.0), (5.0, 4.0), (10.0, 4.0), (30.0, 20.0), (31.0, 0.5)]:
        schedule = schedule_restart(
            record, now=now, uptime=uptime, intensity=Intensity(9, 60), quiet_after=10, backoff=backoff
        )
        record = schedule.record
        delays.append(schedule.delay)
    assert delays == [1, 2, 3, 1, 2]
    assert (record.first_at, record.consecutive) == (30.0, 2)


def test_over_the_intensity_a_child_is_down_until_it_was_quiet() -> None:
    backoff = wait_restart(initial=1, maximum=40, jitter=0)
    record, told = Record(), list[tuple[bool, bool, float]]()
    for now, uptime in [(0, 0), (1, 0), (2, 0), (42, 0), (82, 1), (200, 78)]:
        schedule = schedule_restart(
            record, now=now, uptime=uptime, intensity=Intensity(2, 10), quiet_after=60, backoff=backoff
        )
        record = schedule.record
        told.append((record.down, schedule.fell, schedule.delay))
    assert told == [
        (False, False, 1),
        (False, False, 2),
        (True, True, 40),
        (True, False, 40),
        (True, False, 40),
        (False, False, 1),
    ]


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 5)), min_size=1, max_size=6), st.floats(0, 60))
def test_stops_one_after_the_other_stay_within_the_time_together(
    children: list[tuple[float, float]], total: float
) -> None:
    remaining = total
    for index, (own, needed) in enumerate(children):
        others = sum(timeout for timeout, _ in children[index + 1 :])
        allowance = stop_allowance(remaining, own, others)
        assert 0 <= allowance <= own
        assert total == 0 or remaining < 1e-9 or allowance > 0
        remaining -= min(allowance, needed)
    assert remaining >= -1e-9


def test_with_enough_time_each_stop_has_its_own_timeout() -> None:
    assert stop_allowance(20, 5, 10) == 5
    assert stop_allowance(3, 5, 10) == 1
    assert stop_allowance(-1, 5, 10) == 0
