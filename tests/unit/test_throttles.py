import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import ConfigurationError
from postroom.throttles import Concurrency, DestinationLimits, Gcra, Rate, Throttle, parse_rate

rates = st.builds(
    Rate, st.integers(1, 1000), st.sampled_from([1.0, 60.0, 3600.0, 86400.0]), st.integers(1, 50)
)


@pytest.mark.parametrize(
    ("text", "rate", "canonical"),
    [
        ("100/min", Rate(100, 60), "100/min"),
        ("5/s burst 20", Rate(5, 1, 20), "5/s burst 20"),
        ("5 per second, burst 2", Rate(5, 1, 2), "5/s burst 2"),
        ("1000/hour", Rate(1000, 3600), "1000/h"),
        ("50000 / Day", Rate(50000, 86400), "50000/d"),
        ("3/m", Rate(3, 60), "3/min"),
    ],
)
def test_rates_as_text(text: str, rate: Rate, canonical: str) -> None:
    assert parse_rate(text) == rate
    assert str(rate) == canonical
    assert parse_rate(canonical) == rate


def test_a_rate_with_a_period_of_its_own() -> None:
    assert str(Rate(3, 7.5)) == "3/7.5s"


@pytest.mark.parametrize("text", ["", "fast", "5", "0/s", "5/s burst 0", "5/fortnight", "-1/s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigurationError, match="rate: "):
        parse_rate(text)


@pytest.mark.parametrize("values", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1), (1, float("inf"), 1)])
def test_a_rate_is_positive(values: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigurationError, match="not positive"):
        Rate(*values)


def made(rate: Rate, waits: list[float], start: float = 1_700_000_000.0) -> list[float]:
    """Return when attempts are made by one who tries at these intervals, or at once where the rate allows it."""
    gcra, now, times = Gcra(rate), start, list[float]()
    for wait in waits:
        now = max(now + wait, gcra.earliest()) if wait < 0.01 else now + wait
        if gcra.permits(now):
            gcra.take(now)
            times.append(now)
    return times


@given(rates, st.lists(st.floats(0, 100), max_size=200))
def test_never_more_than_the_burst_and_the_rate_in_any_interval(rate: Rate, waits: list[float]) -> None:
    times = made(rate, waits)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            allowed = rate.burst + (times[last] - start) / rate.interval
            assert last - first + 1 <= allowed + 1e-4


@given(rates)
def test_who_tries_at_once_gets_the_whole_rate(rate: Rate) -> None:
    times = made(rate, [0.0] * (rate.burst + 10))
    assert len(times) == rate.burst + 10
    assert times[rate.burst - 1] == pytest.approx(times[0], rel=0, abs=1e-5)
    assert times[-1] - times[0] == pytest.approx(10 * rate.interval, rel=1e-3, abs=1e-5)


def test_what_was_not_made_is_given_back() -> None:
    gcra = Gcra(Rate(1, 10))
    gcra.take(100.0)
    assert (gcra.permits(100.0), gcra.earliest()) == (False, 110.0)
    gcra.give_back()
    assert gcra.permits(100.0)


def test_a_clock_that_is_set_back_does_not_stop_everything() -> None:
    gcra = Gcra(Rate(1, 10, 3))
    gcra.take(1e9)
    assert gcra.permits(5.0)
    gcra.take(5.0)
    assert not gcra.permits(5.0)
    assert gcra.permits(15.0)


def test_slow_start_doubles_with_each_round() -> None:
    concurrency = Concurrency(16, 2)
    seen: list[int] = []
    for _ in range(4):
        for _ in range(concurrency.window):
            concurrency.success(in_flight=100)
        seen.append(concurrency.window)
    assert seen == [4, 8, 16, 16]


def test_after_a_failure_it_grows_by_one_with_each_round() -> None:
    concurrency = Concurrency(16, 4, 0)
    concurrency.failure()
    assert concurrency.window == 3
    for _ in range(3):
        assert concurrency.window == 3
        concurrency.success(in_flight=3)
    assert concurrency.window == 4
    for _ in range(4):
        assert concurrency.window == 4
        concurrency.success(in_flight=4)
    assert concurrency.window == 5


def test_it_does_not_swing_with_answers_that_vary() -> None:
    concurrency = Concurrency(20, 10, 0)
    for _ in range(100):
        concurrency.success(in_flight=100)
        concurrency.failure()
    # Growth under way is forgotten: what fails every other time is not driven up again.
    assert concurrency.window == 1


def test_what_is_not_used_does_not_grow() -> None:
    concurrency = Concurrency(16, 4)
    for _ in range(100):
        concurrency.success(in_flight=3)
    assert concurrency.window == 4


@pytest.mark.parametrize(
    ("initial", "cohorts", "failures"), [(1, 1.0, 1), (4, 1.0, 3), (4, 2.0, 4), (2, 3.0, 4)]
)
def test_a_round_of_failures_is_death(initial: int, cohorts: float, failures: int) -> None:
    concurrency = Concurrency(16, initial, cohorts)
    deaths = [concurrency.failure() for _ in range(failures)]
    assert deaths == [False] * (failures - 1) + [True]


def test_a_success_between_shows_that_it_lives() -> None:
    concurrency = Concurrency(16, 2, 2.0)
    for _ in range(50):
        assert not concurrency.failure()
        concurrency.success(in_flight=1)


def test_what_was_learnt_is_taken_up_again() -> None:
    concurrency = Concurrency(16, 4)
    concurrency.restore(9.0)
    assert concurrency.window == 9
    concurrency.restore(99)
    assert concurrency.window == 16
    concurrency.restore(0.0)
    assert concurrency.window == 16
    concurrency.reset()
    assert concurrency.window == 4


@given(
    st.integers(1, 50), st.integers(1, 50), st.floats(0, 3),
    st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=300),
)  # fmt: skip
def test_the_window_keeps_its_bounds(
    maximum: int, initial: int, cohorts: float, steps: list[int | None]
) -> None:
    concurrency = Concurrency(maximum, initial, cohorts)
    for step in steps:
        before = concurrency.window
        if step is None:
            dead = concurrency.failure()
            assert concurrency.window in {before, before - 1}
            assert not (dead and cohorts == 0)
        else:
            concurrency.success(step)
            assert concurrency.window in {before, before + 1}
        assert 1 <= concurrency.window <= maximum


def test_limits_must_make_sense() -> None:
    with pytest.raises(ConfigurationError, match=r"throttle\.destination\.concurrency"):
        DestinationLimits(concurrency=0)
    with pytest.raises(ConfigurationError, match=r"throttle\.destination\.cohorts"):
        DestinationLimits(cohorts=-1)


def test_a_throttle_says_whether_destinations_matter() -> None:
    limits = DestinationLimits()
    assert not Throttle(rate=Rate(1)).by_destination
    assert Throttle(destination=limits).by_destination
    given_overrides = {"*.example.com": limits}
    throttle = Throttle(overrides=given_overrides)
    given_overrides.clear()
    assert throttle.by_destination
