"""The follower actor letter by letter: a real spool, real clerks, and a store that answers when the test says."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pykka import ActorRef

from postroom.actors.context import Audience, Context, Handles
from postroom.actors.follower import (
    ANSWER_SECONDS,
    LEASE_SECONDS,
    LONGEST_SLEEP,
    MAX_FAULTS,
    SENT_CLERKS,
    WATCH_SECONDS,
    FollowerActor,
    FollowerParts,
)
from postroom.actors.protocol import FollowedUp, FollowupsDue
from postroom.completions import Completions
from postroom.errors import SpoolUnavailable
from postroom.hooks import FunctionSentHook
from postroom.recipients import State
from postroom.reports.policy import ReportPolicy
from postroom.routing import Router
from postroom.settings import Settings
from postroom.stores.base import NewMessage
from tests.support.letters import Letters
from tests.support.report_spool import Spool


class Desk:
    """A follower that is driven by hand: nothing happens but what the test calls, and clerks."""

    def __init__(
        self, spool: Spool, prepare: Callable[..., NewMessage], hook: Callable[[str], object]
    ) -> None:
        self.spool = spool
        handles = Handles()
        self.to_store = Letters(handles.store)
        self.to_follower = Letters(handles.follower)
        context = Context(
            clock=spool.clock, settings=Settings(), store=spool.store, reader=spool.reader, router=Router([]),
            transports={}, queues={}, handles=handles, instruments=spool.instruments, completions=Completions(),
            audience=Audience(),
        )  # fmt: skip
        parts = FollowerParts(
            policy=ReportPolicy(),
            prepare=prepare,
            host="mail.example.org",
            sent_hooks=[FunctionSentHook(name="hook", function=lambda status, _: hook(status.id))],
        )
        self.context = context
        self.actor = FollowerActor(context, parts, "follower")
        self.actor.on_start()

    def look(self) -> None:
        self.actor.on_wake()

    def hear(self) -> None:
        """Let the follower read the next letter that somebody wrote to it."""
        self.actor.on_letters([self.to_follower.next()])

    def answer(self, letter: FollowedUp, value: object = None, error: BaseException | None = None) -> None:
        """Answer as the store: by doing it, unless told what to say."""
        if value is None and error is None:
            spool = self.spool
            spool.store.begin()
            value = spool.store.followed_up(letter.followup, letter.reported, letter.again)
            if value and letter.messages:
                spool.store.accept(letter.messages, ())
            spool.store.commit()
        letter.ticket.resolve(value, error)
        self.hear()

    def wakes_in(self) -> float:
        at = self.actor.next_wake()
        assert at is not None
        return at - self.spool.clock.monotonic()

    def failed(self) -> int:
        key = self.spool.submit("ann@example.net")
        self.spool.settle(key, 0, State.FAILED)
        return key

    def sent(self) -> int:
        key = self.spool.submit("ann@example.net", followed=True, followups=(("sent", None),))
        self.spool.settle(key, 0, State.DELIVERED, followed=True)
        return key


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db")
    yield made
    made.close()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def desk(spool: Spool, told: list[str]) -> Iterator[Desk]:
    made = Desk(spool, spool.prepare, told.append)
    yield made
    made.actor.on_stop()


def test_a_report_is_made_and_counted_once_it_is_durable(desk: Desk) -> None:
    key = desk.failed()
    desk.look()
    desk.hear()
    letter = desk.to_store.next()
    assert (letter.followup.key, letter.reported, letter.again) == (key, {0}, None)
    assert len(letter.messages) == 1
    assert desk.spool.count("failure", "queued") == 0
    desk.answer(letter)
    assert desk.spool.count("failure", "queued") == 1
    assert desk.spool.due() == []
    desk.look()
    assert desk.to_store.empty


def test_what_is_under_way_is_not_begun_again(desk: Desk) -> None:
    desk.failed()
    desk.look()
    desk.actor.on_letters([FollowupsDue(0.0)])
    desk.look()
    desk.hear()
    desk.to_store.next()
    assert desk.to_store.empty
    assert desk.to_follower.empty


def test_it_sleeps_until_something_is_due_and_looks_now_and_then(desk: Desk) -> None:
    desk.look()
    assert desk.wakes_in() == LONGEST_SLEEP
    desk.actor.on_letters([FollowupsDue(desk.spool.clock.time() + 7)])
    assert desk.wakes_in() == pytest.approx(7)
    desk.actor.on_letters([FollowupsDue(desk.spool.clock.time() + 9)])
    assert desk.wakes_in() == pytest.approx(7)
    key = desk.spool.submit("ann@example.net", "bob@example.net")
    desk.spool.settle(key, 0, State.FAILED)
    desk.spool.clock.advance(8)
    desk.look()
    assert desk.wakes_in() == pytest.approx(2)


def test_what_somebody_else_did_or_changed_is_read_again(desk: Desk) -> None:
    key = desk.spool.submit("ann@example.net", "bob@example.net")
    desk.spool.settle(key, 0, State.FAILED)
    desk.spool.clock.advance(11)
    desk.look()
    desk.hear()
    letter = desk.to_store.next()
    desk.spool.settle(key, 1, State.FAILED)
    desk.answer(letter)
    assert desk.spool.count("failure", "queued") == 0
    assert desk.wakes_in() <= 0
    desk.look()
    desk.hear()
    assert desk.to_store.next().reported == {0, 1}


def test_hooks_are_called_by_whoever_gets_the_lease(desk: Desk, told: list[str]) -> None:
    desk.sent()
    now = desk.spool.clock.time()
    desk.look()
    lease = desk.to_store.next()
    assert (lease.reported, lease.again, lease.messages) == (frozenset(), now + LEASE_SECONDS, ())
    desk.answer(lease)
    desk.hear()
    last = desk.to_store.next()
    assert last.followup == lease.followup._replace(due=now + LEASE_SECONDS)
    assert last.again is None
    assert len(told) == 1
    desk.answer(last)
    assert desk.spool.reader.next_followup() is None


def test_hooks_are_not_called_by_whoever_does_not(desk: Desk, told: list[str]) -> None:
    desk.sent()
    desk.look()
    desk.answer(desk.to_store.next(), value=False)
    assert told == []
    assert desk.wakes_in() <= 0


def test_a_store_that_does_not_answer_is_asked_again(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.failed()
    desk.look()
    desk.hear()
    first = desk.to_store.next()
    desk.spool.clock.advance(ANSWER_SECONDS)
    assert desk.wakes_in() <= 0
    desk.look()
    assert "did not answer" in caplog.text
    desk.hear()
    second = desk.to_store.next()
    assert second.followup == first.followup
    desk.answer(second)
    desk.answer(first)
    assert desk.spool.count("failure", "queued") == 1


def test_a_store_that_was_restarted_is_told_again(desk: Desk) -> None:
    desk.failed()
    desk.look()
    desk.hear()
    first = desk.to_store.next()
    desk.context.handles.store.attach(cast("ActorRef[Any]", desk.to_store))
    desk.spool.clock.advance(WATCH_SECONDS)
    assert desk.wakes_in() <= 0
    desk.look()
    desk.hear()
    assert desk.to_store.next().followup == first.followup


def test_a_store_that_is_away_is_told_later(desk: Desk) -> None:
    desk.failed()
    desk.context.handles.store.detach(cast("ActorRef[Any]", desk.to_store))
    desk.look()
    desk.hear()
    assert 0 < desk.wakes_in() <= 1
    desk.context.handles.store.attach(cast("ActorRef[Any]", desk.to_store))
    desk.spool.clock.advance(1)
    desk.look()
    desk.hear()
    assert desk.to_store.next().reported == {0}


def test_a_store_that_fails_is_told_again_after_a_pause(desk: Desk) -> None:
    desk.failed()
    desk.look()
    desk.hear()
    desk.answer(desk.to_store.next(), error=SpoolUnavailable("disk full"))
    assert 0 < desk.wakes_in() <= 1


def test_our_own_errors_are_tried_again_with_pauses_and_then_given_up(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> NewMessage:
        raise SystemExit("of all things")

    desk = Desk(spool, broken, str)
    desk.failed()
    pauses: list[float | None] = []
    for _ in range(MAX_FAULTS):
        desk.look()
        desk.hear()
        letter = desk.to_store.next()
        pauses.append(None if letter.again is None else letter.again - spool.clock.time())
        desk.answer(letter)
        spool.clock.advance(3600)
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, None]
    assert "given up" in caplog.text
    assert spool.instruments.registry.get_sample_value("postroom_followup_errors_total") == MAX_FAULTS
    desk.look()
    assert desk.to_store.empty
    desk.actor.on_stop()


def test_no_more_is_held_than_clerks_can_do(spool: Spool) -> None:
    gate = threading.Event()
    desk = Desk(spool, spool.prepare, lambda _: gate.wait())
    total = 100
    for _ in range(total):
        desk.sent()
    desk.look()
    held = SENT_CLERKS * 9
    leases = [desk.to_store.next() for _ in range(held)]
    assert desk.to_store.empty
    for lease in leases:
        desk.answer(lease)
    gate.set()
    done = 0
    while done < total:
        letter = desk.to_store.next() if not desk.to_store.empty else None
        if letter is None:
            if desk.wakes_in() <= 0:
                desk.look()
            else:
                desk.hear()
            continue
        done += letter.again is None
        desk.answer(letter)
    assert spool.reader.next_followup() is None
    desk.actor.on_stop()


def test_a_letter_for_a_former_incarnation_is_ignored(desk: Desk, spool: Spool) -> None:
    desk.failed()
    desk.look()
    late = desk.to_follower.next()
    successor = Desk(spool, spool.prepare, str)
    successor.actor.on_letters([late])
    assert successor.to_store.empty
    successor.actor.on_stop()
