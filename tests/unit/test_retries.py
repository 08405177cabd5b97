import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import (
    RetryCallState,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_exponential,
    wait_fixed,
    wait_none,
)
from tenacity.wait import wait_base

from postroom.addresses import Address, parse_address
from postroom.errors import ConfigurationError
from postroom.retries import (
    DAY,
    HINT_MARGIN,
    HINTED_ATTEMPTS,
    HOUR,
    MAX_RETRY_AFTER,
    MAX_WAIT,
    MINUTE,
    RetryPolicies,
    RetryPolicy,
    wait_jittered,
)

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


class wait_by(wait_base):  # noqa: N801 - named like tenacity's own
    """Waits what a table says, the last for ever."""

    def __init__(self, waits: Sequence[float]) -> None:
        self.waits = waits

    def __call__(self, retry_state: RetryCallState) -> float:
        return self.waits[min(retry_state.attempt_number, len(self.waits)) - 1]


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5),
    st.integers(1, 10),
    TIMES,
    st.none() | st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
)
def test_whatever_a_policy_and_the_other_side_say_the_next_attempt_is_neither_past_nor_never(
    waits: list[float], attempts: int, elapsed: float, asked: float | None, greylisted: bool
) -> None:
    policy = RetryPolicy(wait=wait_by(waits), stop=stop_never, greylist=wait_by(waits))
    now = START + elapsed
    due = policy.next_attempt(
        attempts=attempts, first_attempt=START, now=now, retry_after=asked, greylisted=greylisted
    )
    assert due is not None
    assert now <= due <= now + MAX_WAIT + 1e-3


def halfway(low: float, high: float) -> float:
    return (low + high) / 2


@given(st.floats(1, HOUR), st.floats(1, 100), st.floats(0, 1), st.integers(2, 60))
def test_the_mean_wait_never_shrinks_and_never_passes_its_cap(
    initial: float, times: float, fraction: float, count: int
) -> None:
    cap = initial * times
    wait = wait_jittered(wait_exponential(multiplier=initial, min=initial, max=cap), fraction, halfway)
    policy = RetryPolicy(wait=wait, stop=stop_never)
    dues = [
        policy.next_attempt(attempts=number, first_attempt=0.0, now=0.0) or 0.0
        for number in range(1, count + 1)
    ]
    assert dues == sorted(dues)
    assert initial <= dues[0]
    assert dues[-1] <= cap


def greylist(attempts: int, retry_after: float | None = None) -> float:
    due = RetryPolicy().next_attempt(
        attempts=attempts, first_attempt=0.0, now=0.0, retry_after=retry_after, greylisted=True
    )
    assert due is not None
    return due


@given(st.integers(1, 1000))
def test_the_greylist_schedule_keeps_its_bounds(attempts: int) -> None:
    minutes = (5, 15, 15, 15, 30, 60, 120, 240)[min(attempts, 8) - 1]
    # Not a second less: a server that insists on five minutes starts again when it sees us before.
    assert minutes * MINUTE <= greylist(attempts) <= 1.2 * minutes * MINUTE


def test_greylisting_takes_the_place_of_the_first_short_waits() -> None:
    policy = RetryPolicy(wait=wait_fixed(60), greylist=wait_chain(wait_fixed(300), wait_fixed(900)))
    for attempts, waited in ((1, 300), (2, 900), (9, 900)):
        due = policy.next_attempt(attempts=attempts, first_attempt=START, now=START, greylisted=True)
        assert due == START + waited
        assert policy.next_attempt(attempts=attempts, first_attempt=START, now=START) == START + 60


def test_greylisting_gives_up_like_everything_else() -> None:
    policy = RetryPolicy(stop=stop_after_attempt(2))
    assert policy.next_attempt(attempts=2, first_attempt=START, now=START, greylisted=True) is None


def test_a_greylisting_server_that_names_a_time_is_believed_for_some_attempts() -> None:
    for attempts in range(1, HINTED_ATTEMPTS + 1):
        assert greylist(attempts, 60.0) == 60.0 + HINT_MARGIN
    assert greylist(HINTED_ATTEMPTS + 1, 60.0) >= 15 * MINUTE
    assert greylist(HINTED_ATTEMPTS + 1, 10 * HOUR) == 10 * HOUR
    assert greylist(1, math.inf) == MAX_RETRY_AFTER + HINT_MARGIN


SLOW, QUICK, USUAL, LOCAL = (RetryPolicy(wait=wait_fixed(seconds)) for seconds in (300, 3, 60, 1))
POLICIES = RetryPolicies(
    USUAL,
    {
        "*.example.com": SLOW,
        "Mail.Example.com": QUICK,
        "*.com": LOCAL,
        "bücher.example": QUICK,
        "127.0.0.1": LOCAL,
        "[IPv6:2001:db8::1]": LOCAL,
        "": SLOW,
    },
)


@pytest.mark.parametrize(
    ("address", "policy"),
    [
        ("ann@mail.example.com", QUICK),
        ("ann@other.example.com", SLOW),
        ("ann@OTHER.example.COM", SLOW),
        ("ann@example.com", LOCAL),
        ("ann@example.org", USUAL),
        ("ann@bücher.example", QUICK),
        ("ann@[IPv6:2001:db8::1]", LOCAL),
        ("https://hooks.example.com:8443/x", SLOW),
        ("https://127.0.0.1/x", LOCAL),
        ("sms:+15550100", SLOW),
    ],
)
def test_the_policy_of_a_destination(address: str, policy: RetryPolicy) -> None:
    assert POLICIES.for_address(parse_address(address)) is policy


@given(st.text(), st.sampled_from(["smtp", "https", "sms"]))
def test_every_address_has_a_policy(value: str, kind: str) -> None:
    assert POLICIES.for_address(Address(kind, value)) in {SLOW, QUICK, USUAL, LOCAL}
    assert USUAL.for_address(Address(kind, value)) is USUAL
    assert USUAL.for_destination(value) is USUAL


@pytest.mark.parametrize(
    "pattern", ["*@example.com", "https://x", "x.org:25", "a b", "*.bücher.example", "ü..x"]
)
def test_what_is_no_destination_is_named(pattern: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicies(destinations={pattern: SLOW})
    assert caught.value.field == f"retry.destinations[{pattern!r}]"
