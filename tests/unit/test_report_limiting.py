"""How many reports one sender gets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.reports.limiting import SenderLimiter

NOW = 1_700_000_000.0
HOUR = 3600.0


def test_without_a_limit_every_report_goes() -> None:
    limiter = SenderLimiter(None, HOUR)
    assert all(limiter.admit("a", number, NOW) == NOW for number in range(1000))


def test_beyond_its_share_a_sender_gets_appointments_and_then_nothing() -> None:
    limiter = SenderLimiter(10, HOUR)
    answers = [limiter.admit("a", number, NOW) for number in range(25)]
    assert answers[:10] == [NOW] * 10
    assert answers[10:20] == [NOW + 360.0 * number for number in range(1, 11)]
    assert answers[20:] == [None] * 5
    assert limiter.admit("b", 0, NOW) == NOW


def test_who_comes_at_the_appointment_is_served() -> None:
    limiter = SenderLimiter(1, HOUR)
    limiter.admit("a", 1, NOW)
    assert limiter.admit("a", 2, NOW) == NOW + HOUR
    assert limiter.admit("a", 2, NOW + 5) == NOW + HOUR
    assert limiter.admit("a", 2, NOW + HOUR) == NOW + HOUR


def test_a_clock_that_is_set_back_does_not_silence_a_sender() -> None:
    limiter = SenderLimiter(2, HOUR)
    limiter.admit("a", 1, NOW)
    earlier = NOW - 10 * 86_400
    answers = [limiter.admit("a", number, earlier + number * HOUR) for number in range(2, 6)]
    assert any(answer is not None for answer in answers[2:])


@given(
    st.integers(1, 20),
    st.lists(st.floats(0, 600), min_size=1, max_size=80),
)
def test_no_hour_sees_more_than_twice_the_share(per_hour: int, pauses: list[float]) -> None:
    """A burst, and what the hour itself allows."""
    limiter = SenderLimiter(per_hour, HOUR)
    now = NOW
    served: list[float] = []
    waiting: dict[int, float] = {}
    for number, pause in enumerate(pauses):
        now += pause
        for other, at in sorted(waiting.items(), key=lambda item: item[1]):
            if at <= now:
                assert limiter.admit("a", other, at) == at
                served.append(at)
                del waiting[other]
        answer = limiter.admit("a", number, now)
        if answer == now:
            served.append(now)
        elif answer is not None:
            assert now < answer <= now + HOUR
            waiting[number] = answer
    served.sort()
    for first in served:
        assert sum(first <= at < first + HOUR for at in served) <= 2 * per_hour
    assert all(a <= b for a, b in pairwise(served))


def test_senders_and_appointments_of_the_past_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.reports.limiting.FORGET_AT", 10)
    limiter = SenderLimiter(1, HOUR)
    for number in range(50):
        limiter.admit(f"sender {number}", number, NOW + 2 * HOUR * number)
        limiter.admit(f"sender {number}", (number, "later"), NOW + 2 * HOUR * number)
    assert len(limiter) <= 22
