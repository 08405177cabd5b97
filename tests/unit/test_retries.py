import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import (
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_exponential,
    wait_fixed,
    wait_none,
)

from postroom.retries import DAY, HOUR, MAX_RETRY_AFTER, MINUTE, RetryPolicy, wait_jittered

START = 1_700_000_000.0
TIMES = st.floats(0, 30 * DAY)


def test_the_default_schedule_doubles_from_a_minute_to_four_hours() -> None:
    def highest(_low: float, high: float) -> float:
        return high

    wait = wait_jittered(wait_exponential(multiplier=MINUTE, min=MINUTE, max=4 * HOUR), 0.0, highest)
    policy = RetryPolicy(wait=wait)
    delays = [
        policy.next_attempt(attempts=attempts, first_attempt=START, now=START) for attempts in range(1, 12)
    ]
    assert [delay and (delay - START) / MINUTE for delay in delays] == [
        1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240,
    ]  # fmt: skip


@given(st.integers(1, 100_000), TIMES)
def test_the_default_waits_within_its_bounds_and_gives_up_after_five_days(
    attempts: int, elapsed: float
) -> None:
    due = RetryPolicy().next_attempt(attempts=attempts, first_attempt=START, now=START + elapsed)
    # Wall-clock times of this epoch have a resolution of a fraction of a microsecond.
    if abs(elapsed - 5 * DAY) > 1e-3:
        assert (due is None) == (elapsed > 5 * DAY)
    if due is not None:
        assert 0.8 * MINUTE - 1e-3 <= due - (START + elapsed) <= 1.2 * 4 * HOUR + 1e-3


@given(st.integers(1, 50), TIMES)
def test_a_restart_changes_nothing(attempts: int, elapsed: float) -> None:
    policies = [
        RetryPolicy(wait=wait_exponential(multiplier=3), stop=stop_after_delay(DAY) | stop_after_attempt(20))
        for _ in range(2)
    ]
    answers = {
        policy.next_attempt(attempts=attempts, first_attempt=START, now=START + elapsed)
        for policy in policies
    }
    assert len(answers) == 1


def test_tenacitys_objects_compose() -> None:
    policy = RetryPolicy(
        wait=wait_chain(wait_fixed(1), wait_fixed(5)) + wait_fixed(10),
        stop=stop_after_attempt(3) & stop_after_delay(100),
    )
    assert policy.next_attempt(attempts=1, first_attempt=START, now=START) == START + 11
    assert policy.next_attempt(attempts=2, first_attempt=START, now=START) == START + 15
    assert policy.next_attempt(attempts=3, first_attempt=START, now=START + 99) == START + 99 + 15
    assert policy.next_attempt(attempts=3, first_attempt=START, now=START + 100) is None


def test_stop_before_delay_sees_the_wait_to_come() -> None:
    policy = RetryPolicy(wait=wait_fixed(60), stop=stop_before_delay(100))
    assert policy.next_attempt(attempts=1, first_attempt=START, now=START + 30) == START + 90
    assert policy.next_attempt(attempts=2, first_attempt=START, now=START + 50) is None


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (None, 60),
        (0.0, 60),
        (-5.0, 60),
        (59.0, 60),
        (3600.0, 3600),
        (math.inf, MAX_RETRY_AFTER),
        (1e12, MAX_RETRY_AFTER),
        (math.nan, 60),
    ],
)
def test_the_other_side_can_ask_for_a_longer_wait_but_not_for_ever(
    asked: float | None, waited: float
) -> None:
    policy = RetryPolicy(wait=wait_fixed(60))
    assert (
        policy.next_attempt(attempts=1, first_attempt=START, now=START, retry_after=asked) == START + waited
    )


def test_a_clock_set_back_gives_a_wait_from_now() -> None:
    policy = RetryPolicy(wait=wait_fixed(60))
    assert policy.next_attempt(attempts=4, first_attempt=START, now=START - DAY) == START - DAY + 60


@given(st.floats(0, 1e6), st.floats(0, 1), st.floats(-1, 1))
def test_jitter_stays_within_its_fraction(base: float, fraction: float, draw: float) -> None:
    wait = wait_jittered(wait_fixed(base), fraction, lambda low, high: low if draw < 0 else high)
    policy = RetryPolicy(wait=wait, stop=stop_never)
    due = policy.next_attempt(attempts=1, first_attempt=0.0, now=0.0)
    expected = base * (1 - fraction) if draw < 0 else base * (1 + fraction)
    assert due == pytest.approx(expected)


def test_a_wait_of_nothing_is_at_once() -> None:
    assert RetryPolicy(wait=wait_none()).next_attempt(attempts=1, first_attempt=START, now=START) == START
