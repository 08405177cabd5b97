import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_exponential, wait_fixed, wait_none

from postroom.breaker import Breaker, Status, consecutive_wait, default_probe_wait
from postroom.retries import MAX_RETRY_AFTER


def test_all_is_well_at_first() -> None:
    breaker = Breaker(8)
    assert (breaker.status, breaker.permits, breaker.reason, breaker.until) == (Status.UP, 8, "", None)
    assert not breaker.answered(1.0)
    assert not breaker.wake(1.0)
    assert not breaker.probe_now(1.0)


def test_an_outage_parks_the_transport_until_it_is_probed() -> None:
    breaker = Breaker(8, wait_fixed(30))
    assert breaker.down(100.0, "refused")
    assert (breaker.status, breaker.permits, breaker.reason) == (Status.PARKED, 0, "refused")
    assert (breaker.since, breaker.until) == (100.0, 130.0)
    # The other attempts that were under way fail too; that is the same outage.
    assert not breaker.down(101.0, "reset")
    assert (breaker.reason, breaker.until) == ("refused", 130.0)
    # And one that was answered before is no sign of life now.
    assert not breaker.answered(102.0)
    assert not breaker.wake(129.9)
    assert breaker.wake(130.0)
    assert (breaker.status, breaker.permits, breaker.until, breaker.reason) == (
        Status.PROBING,
        1,
        None,
        "refused",
    )
    assert not breaker.wake(131.0)


def test_an_operator_need_not_wait() -> None:
    breaker = Breaker(8, wait_fixed(30))
    breaker.down(100.0, "refused")
    assert breaker.probe_now(101.0)
    assert breaker.status is Status.PROBING


def test_success_releases_the_queue_in_a_ramp() -> None:
    breaker = Breaker(8, wait_none())
    breaker.down(0.0, "refused")
    breaker.wake(0.0)
    permits: list[int] = []
    changes = 0
    while breaker.status is not Status.UP:
        changes += breaker.answered(1.0)
        permits.append(breaker.permits)
    assert permits == [2, 2, 4, 4, 4, 4, 8]
    assert changes == 2
    assert breaker.reason == ""


def test_one_courier_needs_no_ramp() -> None:
    breaker = Breaker(1, wait_none())
    breaker.down(0.0, "refused")
    breaker.wake(0.0)
    assert breaker.answered(1.0)
    assert breaker.status is Status.UP


def test_probes_that_fail_come_less_and_less_often_and_success_resets_that() -> None:
    breaker = Breaker(2, wait_exponential(multiplier=1, min=1, max=60))
    delays: list[float] = []
    for _ in range(8):
        assert breaker.down(0.0, "refused")
        assert breaker.until is not None
        delays.append(breaker.until)
        breaker.probe_now(0.0)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    while breaker.status is not Status.UP:
        breaker.answered(0.0)
    breaker.down(0.0, "refused")
    assert breaker.until == 1


def test_an_outage_in_the_ramp_parks_again() -> None:
    breaker = Breaker(8, wait_fixed(5))
    breaker.down(0.0, "refused")
    breaker.wake(5.0)
    breaker.answered(6.0)
    assert breaker.down(7.0, "refused again")
    assert (breaker.status, breaker.permits, breaker.until) == (Status.PARKED, 0, 12.0)
    breaker.wake(12.0)
    breaker.answered(13.0)
    assert breaker.permits == 2


def test_the_other_side_can_ask_for_more_time_but_not_for_ever() -> None:
    breaker = Breaker(8, wait_fixed(5))
    breaker.down(0.0, "421", retry_after=300)
    assert breaker.until == 300
    breaker.probe_now(0.0)
    breaker.down(0.0, "503", retry_after=1e12)
    assert breaker.until == MAX_RETRY_AFTER


def test_it_knows_for_how_long_the_outage_lasts() -> None:
    breaker = Breaker(8, wait_fixed(5))
    breaker.down(100.0, "refused")
    for now in (105.0, 110.0):
        breaker.wake(now)
        breaker.down(now, "refused")
        assert (breaker.down_since, breaker.since) == (100.0, now)
    breaker.wake(115.0)
    breaker.answered(116.0)
    assert breaker.down_since is None
    breaker.down(117.0, "refused")
    assert breaker.down_since == 117.0


def test_a_standing_on_record_is_taken_up() -> None:
    breaker = Breaker(8, wait_exponential(multiplier=1, min=1, max=60))
    breaker.restore(Status.PARKED, "refused", 50.0, 90.0, 3)
    assert (breaker.status, breaker.reason, breaker.since, breaker.until) == (
        Status.PARKED,
        "refused",
        50.0,
        90.0,
    )
    assert breaker.down_since == 50.0
    assert breaker.wake(90.0)
    breaker.down(90.0, "refused")
    assert breaker.until == 98.0


@pytest.mark.parametrize(
    ("status", "until"), [(Status.PROBING, None), (Status.RAMPING, None), (Status.PARKED, None)]
)
def test_what_was_being_probed_is_probed_again(status: Status, until: float | None) -> None:
    breaker = Breaker(8)
    breaker.restore(status, "refused", 50.0, until, 3)
    assert (breaker.status, breaker.permits, breaker.until) == (Status.PROBING, 1, None)


def test_what_was_up_is_up() -> None:
    breaker = Breaker(8)
    breaker.restore(Status.UP, "", 50.0, None, 3)
    assert (breaker.status, breaker.down_since, breaker.failures) == (Status.UP, None, 0)


@pytest.mark.parametrize("failures", [1, 3, 10, 100])
def test_the_default_wait_is_bounded(failures: int) -> None:
    base = min(120.0, 2.0 ** (failures - 1))
    assert 0.8 * base <= consecutive_wait(default_probe_wait(), failures) <= 1.2 * base


@given(st.integers(1, 40), st.lists(st.sampled_from(["down", "answered", "wake", "probe"]), max_size=60))
def test_permits_never_exceed_the_concurrency(concurrency: int, steps: list[str]) -> None:
    breaker = Breaker(concurrency, wait_fixed(3))
    now = 0.0
    for step in steps:
        now += 1
        before = breaker.status
        match step:
            case "down":
                changed = breaker.down(now, "refused")
            case "answered":
                changed = breaker.answered(now)
            case "wake":
                changed = breaker.wake(now)
            case _:
                changed = breaker.probe_now(now)
        assert changed == (breaker.status is not before)
        assert 0 <= breaker.permits <= concurrency
        assert (breaker.permits == 0) == (breaker.status is Status.PARKED) == (breaker.until is not None)
        assert (breaker.reason == "") == (breaker.status is Status.UP)
