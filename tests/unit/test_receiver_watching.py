"""When a receiver is opened, interrupted and given up: the rules, in virtual time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_fixed

from postroom.receivers.watching import (
    ANSWER_SECONDS,
    ASK_AGAIN_SECONDS,
    GRACE_SECONDS,
    LEASE_SECONDS,
    PROLONG_SECONDS,
    QUIET_SECONDS,
    Step,
    Watching,
)

WAIT = wait_fixed(7.0)
FREE = Watching(exclusive=False)
LEASED = Watching(exclusive=True).asking(0.0).leased(0.5, granted=True)


def test_what_is_not_exclusive_is_opened_at_once_and_left_alone() -> None:
    assert FREE.step(0.0, None) is Step.OPEN
    working = FREE.opening(0.0)
    assert working.step(5.0, 300.0) is None
    assert working.due(5.0, 300.0) == 300.0


def test_what_is_exclusive_is_leased_first() -> None:
    watching = Watching(exclusive=True)
    assert watching.step(0.0, None) is Step.ASK
    asking = watching.asking(0.0)
    assert asking.step(ANSWER_SECONDS - 0.1, None) is None
    assert asking.due(0.0, None) == ANSWER_SECONDS
    assert asking.step(ANSWER_SECONDS, None) is Step.ASK, "an answer that never comes is asked for again"
    assert asking.leased(0.5, granted=True).step(0.5, None) is Step.OPEN


def test_a_lease_counts_from_the_question_and_is_prolonged_in_time() -> None:
    assert LEASED.leased_until == LEASE_SECONDS
    working = LEASED.opening(1.0)
    assert working.due(1.0, 1000.0) == PROLONG_SECONDS
    assert working.step(PROLONG_SECONDS, 1000.0) is Step.ASK
    prolonged = working.asking(PROLONG_SECONDS).leased(PROLONG_SECONDS + 3.0, granted=True)
    assert prolonged.leased_until == PROLONG_SECONDS + LEASE_SECONDS
    assert prolonged.step(LEASE_SECONDS + 1.0, 1000.0) is Step.ASK
    assert prolonged.may_run(LEASE_SECONDS + 1.0)


@pytest.mark.parametrize(("granted", "pause"), [(False, PROLONG_SECONDS), (None, 0.5 + ASK_AGAIN_SECONDS)])
def test_a_lease_that_is_not_given_is_asked_for_again(granted: bool | None, pause: float) -> None:
    waiting = Watching(exclusive=True).asking(0.0).leased(0.5, granted=granted)
    assert waiting.step(0.5, None) is None
    assert waiting.due(0.5, None) == pause
    assert waiting.step(pause, None) is Step.ASK


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    assert LEASED.leased(2.0, granted=False) == LEASED


def test_a_lost_lease_ends_the_session() -> None:
    lost = LEASED.opening(1.0).asking(PROLONG_SECONDS).leased(PROLONG_SECONDS, granted=False)
    assert lost.step(PROLONG_SECONDS, 1000.0) is Step.INTERRUPT
    ending = lost.interrupted(PROLONG_SECONDS)
    assert ending.step(PROLONG_SECONDS + GRACE_SECONDS - 0.1, 1000.0) is None
    assert ending.step(PROLONG_SECONDS + GRACE_SECONDS, 1000.0) is Step.ABANDON
    assert ending.stopped().failures == 0
    assert ending.stopped().step(PROLONG_SECONDS + GRACE_SECONDS, None) is None


def test_a_lease_that_cannot_be_prolonged_ends_the_session_when_it_runs_out() -> None:
    working = LEASED.opening(1.0).asking(49.0)
    assert working.step(LEASE_SECONDS - 0.1, 1000.0) is Step.ASK
    unanswered = working.asking(55.0)
    assert unanswered.due(55.0, 1000.0) == LEASE_SECONDS
    assert unanswered.step(LEASE_SECONDS, 1000.0) is Step.INTERRUPT


def test_no_sign_of_life_is_a_hang() -> None:
    working = FREE.opening(0.0)
    assert working.step(299.9, 300.0) is None
    assert working.step(300.0, 300.0) is Step.INTERRUPT
    ending = working.interrupted(300.0)
    assert ending.due(300.0, 300.0) == 300.0 + GRACE_SECONDS
    assert ending.step(300.0 + GRACE_SECONDS, 300.0) is Step.ABANDON


def test_failures_in_a_row_make_longer_pauses() -> None:
    watching, pauses, now = FREE, list[float](), 0.0
    for _ in range(9):
        watching = watching.opening(now).failed(now, None)
        pauses.append(watching.open_at - now)
        assert watching.step(now, None) is None
        now = watching.due(now, None)
        assert watching.step(now, None) is Step.OPEN
    for pause, middle in zip(pauses, [1, 2, 4, 8, 16, 32, 64, 120, 120], strict=True):
        assert 0.8 * middle <= pause <= 1.2 * middle
    assert watching.failures == 9


def test_the_receivers_own_pauses_are_heeded_and_those_of_the_other_side() -> None:
    assert FREE.opening(0.0).failed(10.0, WAIT).open_at == 17.0
    assert FREE.opening(0.0).failed(10.0, WAIT, 90.0).open_at == 100.0
    assert FREE.opening(0.0).failed(10.0, WAIT, 3.0).open_at == 17.0


def test_a_session_that_did_well_for_a_while_ends_the_row() -> None:
    failed = FREE.opening(0.0).failed(0.0, WAIT).opening(7.0).failed(7.0, WAIT)
    assert failed.failures == 2
    working = failed.opening(20.0)
    assert working.got_through().failed(21.0, WAIT).failures == 3, "it lived for a second"
    assert working.got_through().failed(20.0 + QUIET_SECONDS, WAIT).failures == 1
    assert working.got_through().took_something().failed(21.0, WAIT).failures == 1
    assert working.failed(20.0 + QUIET_SECONDS, WAIT).failures == 3, "it never got through a poll"


def test_an_operator_need_not_wait() -> None:
    failed = FREE.opening(0.0).failed(0.0, WAIT)
    assert failed.hurried().step(0.0, None) is Step.OPEN
    refused = Watching(exclusive=True).asking(0.0).leased(0.5, granted=False)
    assert refused.hurried().step(1.0, None) is Step.ASK
    assert LEASED.opening(1.0).hurried().step(1.0, 300.0) is None


@pytest.mark.parametrize(
    ("watching", "heeded"),
    [
        (FREE.opening(0.0), {"up", "down", "connecting"}),
        (FREE.opening(0.0).failed(0.0, WAIT).opening(7.0), {"down"}),
        (FREE.opening(0.0).failed(0.0, WAIT).opening(7.0).got_through(), {"up", "down", "connecting"}),
        (FREE.opening(0.0).interrupted(1.0), set[str]()),
    ],
)
def test_what_a_session_says_of_itself(watching: Watching, heeded: set[str]) -> None:
    assert {each for each in ("up", "down", "connecting") if watching.heeds(each)} == heeded


class World:
    """An actor and its porter, as far as the rules are concerned."""

    def __init__(self, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.watching = Watching(exclusive=exclusive)
        self.now = 0.0
        self.deadline: float | None = None

    @property
    def due(self) -> float:
        return self.watching.due(self.now, self.deadline)

    def act(self) -> None:
        """Do what is due; that comes to an end."""
        for _ in range(4):
            step = self.watching.step(self.now, self.deadline)
            if step is None:
                return
            if step is Step.ASK:
                self.watching = self.watching.asking(self.now)
            elif step is Step.OPEN:
                assert self.deadline is None, "it runs twice"
                assert not self.exclusive or (self.watching.leased_until or 0.0) > self.now
                self.deadline, self.watching = self.now + 300.0, self.watching.opening(self.now)
            else:
                assert self.deadline is not None
                if step is Step.INTERRUPT:
                    self.watching = self.watching.interrupted(self.now)
                else:
                    self.gone()
        raise AssertionError("it spins")

    def gone(self) -> None:
        self.deadline = None
        if self.watching.may_run(self.now):
            self.watching = self.watching.failed(self.now, None)
        else:
            self.watching = self.watching.stopped()

    def happen(self, event: str) -> None:
        if event in {"grant", "refuse", "mute"}:
            granted = {"grant": True, "refuse": False, "mute": None}[event]
            self.watching = self.watching.leased(self.now, granted=granted)
        elif event == "hurry":
            self.watching = self.watching.hurried()
        elif self.deadline is not None:
            self.happen_to_porter(event)

    def happen_to_porter(self, event: str) -> None:
        if event == "poll":
            self.watching = self.watching.got_through()
        elif event == "take":
            self.watching = self.watching.took_something()
        elif event == "sign":
            self.deadline = self.now + 300.0
        elif event == "die":
            self.gone()


@given(
    exclusive=st.booleans(),
    happenings=st.lists(
        st.tuples(
            st.sampled_from(["wait", "grant", "refuse", "mute", "poll", "take", "die", "hurry", "sign"]),
            st.floats(0.0, 100.0),
        ),
        max_size=60,
    ),
)
def test_whatever_happens_nothing_runs_twice_or_without_a_lease_and_nothing_spins(
    exclusive: bool, happenings: list[tuple[str, float]]
) -> None:
    world = World(exclusive=exclusive)
    for event, seconds in happenings:
        world.act()
        assert world.now < world.due < math.inf, "it spins, or sleeps for ever"
        if event == "wait":
            world.now = min(world.now + seconds, world.due)
        world.happen(event)
