import time

import pytest

from postroom.clock import ManualClock, SystemClock


def test_the_system_clock_is_the_machines() -> None:
    clock = SystemClock()
    before = time.time(), time.monotonic()
    seen = clock.time(), clock.monotonic()
    after = time.time(), time.monotonic()
    assert before[1] <= seen[1] <= after[1]
    assert seen[0] == pytest.approx(before[0], abs=3600)


def test_a_manual_clock_stands_still_until_it_is_told_to_move() -> None:
    clock = ManualClock(1000.0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
    assert clock.time() == 1000.0
    clock.advance(2.5)
    clock.advance(0)
    assert (clock.time(), clock.monotonic()) == (1002.5, 2.5)


def test_a_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        ManualClock().advance(-1)
