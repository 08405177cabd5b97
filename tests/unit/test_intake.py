"""The intake actor letter by letter: a real spool, real clerks, and a store that answers when the test says."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest
from pykka import ActorRef
from tenacity import wait_fixed

from postroom.actors.context import Audience, Context, Handles
from postroom.actors.intake import (
    ANSWER_SECONDS,
    LEASE_SECONDS,
    LONGEST_SLEEP,
    MAX_TRIES,
    RENEW_SECONDS,
    WAITING_PER_CLERK,
    WATCH_SECONDS,
    IntakeActor,
    IntakeParts,
)
from postroom.actors.intake_values import INTERRUPTED
from postroom.actors.protocol import Arriving, Perform
from postroom.completions import Completions
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError
from postroom.inbound.hooks import Incoming, Postprocessed, Postprocessor, postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule
from postroom.inbound.sorting import sort_arrival
from postroom.inbound.values import Arrival, InboundRecord
from postroom.routing import Router
from postroom.settings import Settings
from postroom.tickets import StoreDied
from tests.support.letters import Letters
from tests.support.report_spool import Spool
from tests.support.spooling import PATIENCE

POLICY = ReceivePolicy(attempts=3, wait=wait_fixed(60), clerks=2)
CAPACITY = 2 * (WAITING_PER_CLERK + 1)


class Desk:
    """An intake that is driven by hand: nothing happens but what the test calls, and clerks."""

    def __init__(
        self, spool: Spool, hooks: Sequence[Postprocessor] = (), parts: IntakeParts | None = None, **more: Any
    ) -> None:
        self.spool = spool
        handles = Handles()
        self.to_store = Letters(handles.store)
        self.to_intake = Letters(handles.intake)
        self.context = Context(
            clock=spool.clock, settings=Settings(), store=spool.store, reader=spool.reader, router=Router([]),
            transports={}, queues={}, handles=handles, instruments=spool.instruments, completions=Completions(),
            audience=Audience(),
        )  # fmt: skip
        self.parts = parts or IntakeParts(
            postprocessors=hooks, policy=POLICY, prepare=lambda submission, _: spool.prepare(submission),
            max_size=10**6, **more,
        )  # fmt: skip
        self.actor = IntakeActor(self.context, self.parts, "intake")
        self.actor.on_start()

    def look(self) -> None:
        self.actor.on_wake()

    def hear(self) -> None:
        """Let the intake read the next letter that somebody wrote to it."""
        self.actor.on_letters([self.to_intake.next()])

    def perform(self, letter: Perform) -> object:
        """Do what a letter to the store asks, in a transaction."""
        store = self.spool.store
        store.begin()
        value = letter.step(store)
        if value and letter.messages:
            store.accept(letter.messages, ())
        store.commit()
        return value

    def answer(self, letter: Perform | None = None, error: BaseException | None = None) -> Perform:
        """Answer as the store, by doing it unless there is an error; the intake hears it."""
        letter = letter or self.to_store.next()
        assert isinstance(letter, Perform)
        letter.ticket.resolve(None if error else self.perform(letter), error)
        self.hear()
        return letter

    def work(self) -> Perform:
        """Claim, let a clerk work, and return what the store is told then."""
        self.look()
        self.answer()
        self.hear()
        letter = self.to_store.next()
        assert isinstance(letter, Perform)
        return letter

    def restart_store(self) -> None:
        self.context.handles.store.attach(cast("ActorRef[Any]", self.to_store))

    def wakes_in(self) -> float:
        at = self.actor.next_wake()
        assert at is not None
        return at - self.spool.clock.monotonic()

    def arrive(self, content: bytes = b"From: ann@example.org\r\nSubject: hello\r\n\r\nHello\r\n") -> int:
        spool = self.spool
        now = spool.clock.time()
        new = sort_arrival(
            Arrival(content=content, sender="ann@example.org", recipients=("desk@example.com",)),
            key=spool.store.ids.next(), receiver="imap", now=now, policy=POLICY, postprocessed=True,
        )  # fmt: skip
        spool.store.begin()
        spool.store.inbox.receive("imap", [new], now)
        spool.store.commit()
        return new.key

    def record(self, key: int) -> InboundRecord:
        record = self.spool.reader.inbound(key)
        assert record is not None
        return record


def hook(answer: Callable[[Incoming], Any] = lambda _: None, **more: Any) -> Postprocessor:
    def function(_: EmailMessage, incoming: Incoming) -> Postprocessed | None:
        said = answer(incoming)
        return said if isinstance(said, Postprocessed) else None

    return postprocessor(name="hook", **more)(function)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db")
    yield made
    made.close()


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        desk.actor.on_stop()


@pytest.fixture
def open_desk(spool: Spool, desks: list[Desk]) -> Callable[..., Desk]:
    def opened(*hooks: Postprocessor, **more: Any) -> Desk:
        desks.append(Desk(spool, hooks, **more))
        return desks[-1]

    return opened


OpenDesk = Callable[..., Desk]


def test_a_message_is_filed_as_the_postprocessors_left_it(open_desk: OpenDesk) -> None:
    desk = open_desk(
        hook(lambda _: Postprocessed(content=b"Subject: new\r\n\r\n", tags=("x",))),
        rules=[ReceiveRule("There", subject="new")],
    )
    key = desk.arrive()
    assert desk.record(key).folder == ""
    letter = desk.work()
    assert desk.record(key).folder == ""
    desk.answer(letter)
    record = desk.record(key)
    assert (record.folder, record.tags, record.digest.subject, record.due) == ("There", ("x",), "new", None)
    assert desk.spool.reader.inbound_content(key) == b"Subject: new\r\n\r\n"
    assert desk.parts.claimed == {}
    desk.spool.clock.advance(LONGEST_SLEEP)
    desk.look()
    assert desk.to_store.empty


def test_it_sleeps_until_something_is_due(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    desk.look()
    assert desk.wakes_in() == LONGEST_SLEEP
    desk.actor.on_letters([Arriving(desk.spool.clock.time() + 7)])
    assert desk.wakes_in() == pytest.approx(7)
    desk.actor.on_letters([Arriving(0.0)])
    assert desk.wakes_in() <= 0


def test_what_arrives_during_a_claim_is_claimed_next(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    desk.arrive()
    desk.look()
    claim = desk.to_store.next()
    value = desk.perform(claim)
    late = desk.arrive()
    desk.actor.on_letters([Arriving(desk.spool.clock.time())])
    desk.look()
    assert desk.to_store.empty
    claim.ticket.resolve(value)
    while desk.record(late).attempts == 0:
        desk.hear()
        if desk.wakes_in() <= 0:
            desk.look()
        while not desk.to_store.empty:
            letter = desk.to_store.next()
            letter.ticket.resolve(desk.perform(letter))
    assert desk.record(late).attempts == 1


def test_an_empty_claim_makes_no_busy_loop(open_desk: OpenDesk, spool: Spool) -> None:
    desk = open_desk(hook())
    desk.arrive()
    desk.look()
    claim = desk.to_store.next()
    spool.store.begin()
    spool.store.inbox.claim(spool.clock.time(), 10, 100.0)
    spool.store.commit()
    desk.answer(claim)
    assert desk.wakes_in() > 0


def test_what_is_sent_because_of_it_goes_in_the_same_transaction(open_desk: OpenDesk, spool: Spool) -> None:
    forward = Submission(message=b"From: a@example.org\r\n\r\n", sender="", to=["bob@example.net"])
    desk = open_desk(hook(lambda _: Postprocessed(forward=[forward])))
    key = desk.arrive()
    letter = desk.work()
    (message,) = letter.messages
    assert message.idempotency_key == f"post:hook:{key}:0"
    assert spool.reader.message(message.key) is None
    desk.answer(letter)
    assert spool.reader.message(message.key) is not None
    assert desk.record(key).folder == "Inbox"


def test_what_fails_is_put_off_and_then_quarantined(open_desk: OpenDesk, spool: Spool) -> None:
    def boom(_: Incoming) -> None:
        raise RuntimeError("boom")

    desk = open_desk(hook(boom))
    key = desk.arrive(b"exactly\nthis \xff")
    for attempt in (1, 2):
        desk.answer(desk.work())
        record = desk.record(key)
        assert (record.attempts, record.due) == (attempt, spool.clock.time() + 60)
        assert record.error == "postprocessor hook: RuntimeError: boom"
        spool.clock.advance(60)
    desk.answer(desk.work())
    record = desk.record(key)
    assert (record.folder, record.error) == (
        "Quarantine",
        "postprocessor hook: RuntimeError: boom (after 3 attempts)",
    )
    assert spool.reader.inbound_content(key) == b"exactly\nthis \xff"


def test_a_dropped_message_is_gone(open_desk: OpenDesk, spool: Spool) -> None:
    desk = open_desk(hook(lambda _: Postprocessed(drop=True)))
    key = desk.arrive()
    desk.answer(desk.work())
    assert spool.reader.inbound(key) is None
    assert spool.reader.next_arriving() is None


def test_clerks_that_fail_cost_an_attempt(open_desk: OpenDesk) -> None:
    def leave(_: Incoming) -> None:
        raise SystemExit("of all things")

    desk = open_desk(hook(leave))
    key = desk.arrive()
    desk.answer(desk.work())
    assert desk.record(key).error == "SystemExit: of all things"
    assert desk.record(key).attempts == 1


def test_no_more_is_held_than_clerks_can_do(open_desk: OpenDesk, spool: Spool) -> None:
    gate = threading.Event()
    desk = open_desk(hook(lambda _: gate.wait(PATIENCE)))
    keys = [desk.arrive() for _ in range(3 * CAPACITY)]
    desk.look()
    desk.answer()
    desk.look()
    assert desk.to_store.empty
    assert [desk.record(key).attempts for key in keys] == [1] * CAPACITY + [0] * (2 * CAPACITY)
    gate.set()
    while spool.reader.next_arriving() is not None:
        if not desk.to_store.empty:
            letter = desk.to_store.next()
            letter.ticket.resolve(desk.perform(letter))
        elif desk.wakes_in() <= 0:
            desk.look()
        else:
            desk.hear()
    assert all(desk.record(key).attempts == 1 for key in keys)
    assert all(desk.record(key).folder == "Inbox" for key in keys)


def test_it_takes_nothing_while_too_many_calls_hang(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    desk.arrive()
    for number in range(desk.parts.hung.total):
        desk.parts.hung.add(f"hook {number}")
    desk.look()
    assert desk.to_store.empty
    assert 0 < desk.wakes_in() <= 1
    for number in range(desk.parts.hung.total):
        desk.parts.hung.remove(f"hook {number}")
    desk.spool.clock.advance(1)
    desk.look()
    assert not desk.to_store.empty


# The store dies, is away, fails, or is slow


def test_a_filing_without_answer_is_told_again(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    first = desk.work()
    desk.spool.clock.advance(ANSWER_SECONDS)
    desk.look()
    second = desk.to_store.next()
    desk.answer(second)
    assert desk.record(key).folder == "Inbox"
    # The first one was waiting all the time; it changes nothing any more.
    desk.answer(first)
    assert desk.record(key).attempts == 1


@pytest.mark.parametrize("committed", [False, True])
def test_a_store_that_died_over_a_filing_is_told_again(
    open_desk: OpenDesk, spool: Spool, committed: bool
) -> None:
    forward = Submission(message=b"From: a@example.org\r\n\r\n", sender="", to=["bob@example.net"])
    desk = open_desk(hook(lambda _: Postprocessed(forward=[forward])))
    key = desk.arrive()
    letter = desk.work()
    if committed:
        desk.perform(letter)
    desk.restart_store()
    spool.clock.advance(WATCH_SECONDS)
    desk.look()
    desk.answer()
    assert desk.record(key).folder == "Inbox"
    assert spool.reader.message(letter.messages[0].key) is not None
    assert desk.parts.claimed == {}


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_a_claim_whose_answer_is_lost_is_given_back(
    open_desk: OpenDesk, spool: Spool, committed: bool, told: bool
) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    desk.look()
    letter = desk.to_store.next()
    if committed:
        desk.perform(letter)
    if told:
        letter.ticket.resolve(error=StoreDied())
        desk.hear()
        spool.clock.advance(1)
    else:
        desk.restart_store()
        spool.clock.advance(WATCH_SECONDS)
    desk.look()
    desk.answer()
    record = desk.record(key)
    # What came back is claimed again at once: nobody waits for the lease.
    assert record.attempts == 1 + committed
    desk.hear()
    desk.answer()
    assert desk.record(key).folder == "Inbox"
    assert desk.parts.claimed == {}


def test_a_claim_that_comes_late_is_given_back(open_desk: OpenDesk, spool: Spool) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    desk.look()
    late = desk.to_store.next()
    spool.clock.advance(ANSWER_SECONDS)
    desk.look()
    second = desk.to_store.next()
    desk.answer(late)
    desk.answer(second)
    while desk.record(key).folder == "":
        if not desk.to_store.empty:
            letter = desk.to_store.next()
            letter.ticket.resolve(desk.perform(letter))
        elif desk.wakes_in() <= 0:
            desk.look()
        else:
            desk.hear()
    assert desk.record(key).attempts == 2


def test_a_store_that_is_away_is_told_later(open_desk: OpenDesk, spool: Spool) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    handle = desk.context.handles.store
    handle.detach(cast("ActorRef[Any]", desk.to_store))
    desk.look()
    assert 0 < desk.wakes_in() <= 1
    desk.restart_store()
    spool.clock.advance(1)
    desk.look()
    desk.answer()
    handle.detach(cast("ActorRef[Any]", desk.to_store))
    desk.hear()
    assert desk.to_store.empty
    desk.restart_store()
    spool.clock.advance(WATCH_SECONDS)
    desk.look()
    desk.answer()
    assert desk.record(key).folder == "Inbox"


def test_what_was_worked_out_is_kept_while_the_disk_is_full(open_desk: OpenDesk, spool: Spool) -> None:
    called: list[int] = []
    desk = open_desk(hook(lambda incoming: called.append(incoming.key)))
    key = desk.arrive()
    letter = desk.work()
    for _ in range(MAX_TRIES - 1):
        desk.answer(letter, sqlite3.OperationalError("disk is full"))
        spool.clock.advance(WATCH_SECONDS)
        desk.look()
        letter = desk.to_store.next()
    desk.answer(letter)
    assert desk.record(key).folder == "Inbox"
    assert called == [key]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), sqlite3.OperationalError("for ever")], ids=str)
def test_what_cannot_be_filed_is_put_off_in_the_end(
    open_desk: OpenDesk, spool: Spool, error: Exception
) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    letter = desk.work()
    while True:
        desk.answer(letter, error)
        if desk.wakes_in() <= 0:
            break
        spool.clock.advance(WATCH_SECONDS)
        desk.look()
        letter = desk.to_store.next()
    desk.look()
    desk.answer()
    record = desk.record(key)
    assert (record.attempts, record.error) == (1, INTERRUPTED)
    assert record.due is not None
    assert record.due >= spool.clock.time() + 60
    assert desk.parts.claimed == {}


def test_one_that_cannot_be_filed_costs_its_companions_nothing(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    keys = [desk.arrive() for _ in range(3)]
    desk.look()
    desk.answer()
    desk.actor.on_letters([desk.to_intake.next() for _ in keys])
    together = desk.to_store.next()
    assert desk.to_store.empty
    desk.answer(together, RuntimeError("one of them"))
    alone = [desk.to_store.next() for _ in keys]
    desk.answer(alone[0], RuntimeError("this one"))
    for letter in alone[1:]:
        desk.answer(letter)
    assert [desk.record(key).folder for key in keys].count("Inbox") == 2


# This actor dies, or another process is there


def test_a_successor_takes_back_what_was_in_hand(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    keys = [desk.arrive() for _ in range(3)]
    desk.look()
    desk.perform(desk.to_store.next())
    successor = open_desk(parts=desk.parts)
    successor.look()
    successor.answer()
    assert [successor.record(key).attempts for key in keys] == [2, 2, 2]
    for _ in keys:
        successor.hear()
    while not successor.to_store.empty:
        successor.answer()
    assert [successor.record(key).folder for key in keys] == ["Inbox"] * 3
    assert successor.parts.claimed == {}


def test_a_letter_for_a_former_incarnation_is_ignored(open_desk: OpenDesk) -> None:
    desk = open_desk(hook())
    desk.arrive()
    letter = desk.work()
    letter.ticket.resolve(desk.perform(letter))
    answered = desk.to_intake.next()
    successor = open_desk(hook())
    successor.actor.on_letters([answered])
    assert successor.to_store.empty


def test_what_another_process_claimed_since_is_left_to_it(open_desk: OpenDesk, spool: Spool) -> None:
    desk = open_desk(hook(lambda _: Postprocessed(folder="Ours")))
    key = desk.arrive()
    letter = desk.work()
    spool.clock.advance(LEASE_SECONDS)
    spool.store.begin()
    ((record, _),) = spool.store.inbox.claim(spool.clock.time(), 1, LEASE_SECONDS)
    spool.store.commit()
    assert record.attempts == 2
    desk.answer(letter)
    assert desk.record(key).folder == ""
    assert desk.parts.claimed == {}


def test_what_we_claimed_again_ourselves_is_filed_under_the_new_number(
    open_desk: OpenDesk, spool: Spool
) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    letter = desk.work()
    spool.clock.advance(LEASE_SECONDS)
    desk.look()
    retold, claim = desk.to_store.next(), desk.to_store.next()
    desk.answer(claim)
    desk.answer(letter)
    desk.answer(retold)
    desk.answer()
    record = desk.record(key)
    assert (record.folder, record.attempts) == ("Inbox", 2)


def test_what_is_in_hand_stays_leased(open_desk: OpenDesk, spool: Spool) -> None:
    gate = threading.Event()
    desk = open_desk(hook(lambda _: gate.wait(PATIENCE)))
    key = desk.arrive()
    desk.look()
    desk.answer()
    for _ in range(10):
        spool.clock.advance(RENEW_SECONDS)
        desk.look()
        renewal = desk.to_store.next()
        desk.perform(renewal)
        assert desk.record(key).due == spool.clock.time() + LEASE_SECONDS
        assert desk.to_store.empty
    gate.set()
    desk.hear()
    desk.answer()
    assert (desk.record(key).folder, desk.record(key).attempts) == ("Inbox", 1)
    spool.clock.advance(RENEW_SECONDS)
    desk.look()
    assert desk.to_store.empty


def test_a_renewal_does_not_undo_what_was_decided(open_desk: OpenDesk, spool: Spool) -> None:
    def boom(_: Incoming) -> None:
        raise RuntimeError("boom")

    desk = open_desk(hook(boom))
    key = desk.arrive()
    letter = desk.work()
    spool.clock.advance(RENEW_SECONDS)
    desk.look()
    assert desk.to_store.empty
    desk.answer(letter)
    assert desk.record(key).error == "postprocessor hook: RuntimeError: boom"


def test_what_is_in_hand_is_given_back_at_the_end(open_desk: OpenDesk, spool: Spool) -> None:
    gate = threading.Event()
    desk = open_desk(hook(lambda _: gate.wait(PATIENCE)))
    key = desk.arrive()
    desk.look()
    desk.answer()
    desk.actor.on_stop()
    gate.set()
    desk.perform(desk.to_store.next())
    record = desk.record(key)
    assert (record.folder, record.due, record.attempts) == ("", spool.clock.time(), 1)


def test_postprocessors_check_what_they_can_at_the_start(spool: Spool) -> None:
    class Unready(Postprocessor):
        def prepare(self) -> None:
            raise ConfigurationError("key", "is missing", "give one")

        def process(self, incoming: Incoming) -> Postprocessed:
            raise AssertionError(incoming)

    with pytest.raises(ConfigurationError, match="key"):
        Desk(spool, [Unready(name="unready")])


def test_a_claim_that_waits_when_it_stops_is_given_back_too(open_desk: OpenDesk, spool: Spool) -> None:
    desk = open_desk(hook())
    key = desk.arrive()
    desk.look()
    desk.actor.on_stop()
    desk.perform(desk.to_store.next())
    desk.perform(desk.to_store.next())
    assert (desk.record(key).due, desk.record(key).attempts) == (spool.clock.time(), 1)
