from collections.abc import Sequence
from typing import Any

import pytest

from postroom.active_queue import ActiveQueue, Job, Phase
from postroom.actors.batches import Effects, TornLetterError, sort_letters
from postroom.actors.protocol import Accept, Act, Claim, Housekeep, Journal, Reclaim, Settle, Stand
from postroom.addresses import Address
from postroom.delivery import Target
from postroom.outcomes import Delivered
from postroom.recipients import State
from postroom.stores.base import (
    Accepted,
    Action,
    Claimed,
    Controlled,
    NewMessage,
    NewRecipient,
    Settlement,
    Standing,
)
from postroom.tickets import Ticket
from postroom.transports.base import Limits
from postroom.transports.memory import MemoryTransport

NOW = 1000.0


def message(key: int, *transports: str, **fields: Any) -> NewMessage:
    recipients = tuple(
        NewRecipient(Address("smtp", f"{index}@x"), name) for index, name in enumerate(transports or ("a",))
    )
    defaults: dict[str, Any] = {"sender": "app@x", "content": b"12345", "created": NOW, "due": NOW}
    return NewMessage(key=key, recipients=recipients, **(defaults | fields))


def job(key: int = 1, phase: Phase = Phase.SETTLING, state: State = State.DELIVERED, **fields: Any) -> Job:
    made = Job(
        key=key, transport="a", epoch=0, sender="", targets=(Target(0, Address("smtp", "0@x")),), content=None, size=5,
        created=NOW, due=NOW, recipient_count=1,
    )  # fmt: skip
    made.phase = phase
    made.settlements = [Settlement(key, 0, "a", State.QUEUED, state, NOW, 1, **fields)]
    return made


@pytest.fixture
def queues() -> dict[str, ActiveQueue]:
    return {name: ActiveQueue(window=4, window_bytes=1000) for name in "ab"}


TRANSPORTS = {
    name: MemoryTransport(name=name, limits=Limits(recipients_per_delivery=2)) for name in "ab"
}  # fmt: skip


def reserve(
    effects: Effects, messages: Sequence[NewMessage], queues: dict[str, ActiveQueue]
) -> set[tuple[int, int]]:
    return set(effects.reserve(messages, queues, NOW))


def accept(
    effects: Effects, messages: Sequence[NewMessage], results: Sequence[Accepted] | None = None
) -> None:
    batch = sort_letters([Accept([one], Ticket()) for one in messages])
    effects.accepted(messages, results or [Accepted(one.key) for one in messages], batch)


# Sorting


def test_letters_are_sorted_by_kind() -> None:
    settled = job()
    letters = [
        Accept([message(1), message(2)], Ticket()), Settle("a", [settled]), Claim("a"), Claim("b"), Claim("a"),
        Reclaim("a"), Journal("a", []), Act(Action("hold"), [(1, None)], Ticket()), Stand(Standing("a", "up")),
    ]  # fmt: skip
    batch = sort_letters([*letters, Housekeep(), "something else"])
    assert batch.letters == letters
    assert [one.key for one in batch.messages()] == [1, 2]
    assert batch.jobs == [settled]
    assert list(batch.claims) == ["a", "b"]
    assert (len(batch.reclaims), len(batch.journals), len(batch.acts), len(batch.stands)) == (1, 1, 1, 1)
    assert batch.size == 2 + 1 + 2
    assert not batch.empty
    assert batch.jobs_by_transport() == {"a": [settled]}


def test_nothing_to_do_is_empty() -> None:
    assert sort_letters([]).empty
    assert sort_letters([Housekeep()]).empty


def test_jobs_settled_before_or_twice_are_left_out() -> None:
    fresh, gone = job(1), job(2, Phase.GONE)
    batch = sort_letters([Settle("a", [fresh, gone]), Settle("a", [fresh])])
    assert batch.jobs == [fresh]


# Accepting


def test_what_can_go_at_once_is_born_owned_while_there_is_room(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    messages = [message(1, "a", "a", "b"), message(2, "a", "a"), message(3, "a"), message(4, "b")]
    assert reserve(effects, messages, queues) == {(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (4, 0)}
    assert (queues["a"].held, queues["b"].held) == (4, 2)
    assert (queues["a"].backlog, queues["b"].backlog) == (True, False)
    accept(effects, messages)
    # What stays in the spool is due, and somebody must be told.
    assert effects.due == {"a": NOW}


def test_what_is_held_or_not_due_or_nobodys_stays_in_the_spool(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    messages = [message(1, hold=True), message(2, due=NOW + 5), message(3, "gone"), message(4, due=NOW + 3)]
    assert reserve(effects, messages, queues) == set()
    accept(effects, messages)
    assert effects.due == {"a": NOW + 3, "gone": NOW}
    assert queues["a"].held == 0
    assert not queues["a"].backlog
    assert effects.fresh == messages


def test_jobs_are_cut_to_what_a_delivery_may_hold(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    queues["a"].void_waiting()
    one = message(1, "a", "a", "a", "b", priority=1, expires=NOW + 9)
    reserve(effects, [one], queues)
    accept(effects, [one])
    work = effects.make_jobs(TRANSPORTS, queues)
    assert {name: [[t.index for t in made.targets] for made in jobs] for name, jobs in work.items()} == {
        "a": [[0, 1], [2]], "b": [[3]],
    }  # fmt: skip
    first = work["a"][0]
    assert (first.key, first.content, first.recipient_count, first.priority) == (1, one.content, 4, 1)
    assert (first.expires, first.epoch, work["b"][0].epoch) == (NOW + 9, 1, 0)
    assert [len(queues[name].admit(jobs)) for name, jobs in work.items()] == [2, 1]


def test_every_submitter_gets_its_own_results(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    letters = [Accept([message(1), message(2)], Ticket()), Accept([message(3)], Ticket())]
    batch = sort_letters(letters)
    messages = batch.messages()
    reserve(effects, messages, queues)
    effects.accepted(messages, [Accepted(1), Accepted(7, duplicate=True), Accepted(3)], batch)
    assert effects.tickets == [
        (letters[0].ticket, [Accepted(1), Accepted(7, duplicate=True)]), (letters[1].ticket, [Accepted(3)]),
    ]  # fmt: skip
    assert [one.key for one in effects.fresh] == [1, 3]
    assert sorted(made.key for made in effects.make_jobs(TRANSPORTS, queues)["a"]) == [1, 3]


def test_what_was_not_stored_takes_no_room(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    messages = [message(1, "a", "b"), message(2), message(3, "b")]
    reserve(effects, messages, queues)
    accept(effects, messages, [Accepted(9, duplicate=True), Accepted(2), Accepted(9, conflict=True)])
    assert (queues["a"].held, queues["b"].held) == (1, 0)
    # The transaction fails after all: what was released already is not released again.
    effects.release_reserved()
    assert (queues["a"].held, queues["b"].held) == (0, 0)
    effects.release_reserved()
    assert queues["a"].held == 0
    assert effects.make_jobs(TRANSPORTS, queues) == {}


def test_messages_submitted_together_are_stored_together_or_not_at_all(
    queues: dict[str, ActiveQueue],
) -> None:
    effects = Effects()
    batch = sort_letters([Accept([message(1), message(2)], Ticket())])
    reserve(effects, batch.messages(), queues)
    with pytest.raises(TornLetterError):
        effects.accepted(batch.messages(), [Accepted(1), Accepted(9, conflict=True)], batch)
    effects.release_reserved()
    assert queues["a"].held == 0


# Settling, claiming, controlling


def test_outcomes_that_came_too_late_are_counted() -> None:
    effects = Effects()
    one, two = job(1), job(2)
    effects.settled([one, two], list(one.settlements), [1])
    assert effects.late == 1
    assert effects.completed == [1]
    assert effects.changed == [(one.settlements[0], Address("smtp", "0@x"))]


def test_deferred_recipients_are_due_where_they_go() -> None:
    effects = Effects()
    later = job(1, state=State.QUEUED, due=NOW + 60)
    sooner = job(2, state=State.QUEUED, due=NOW + 30)
    moved = job(3, state=State.QUEUED, due=NOW, next_transport="b")
    effects.settled([later, sooner, moved], [one.settlements[0] for one in (later, sooner, moved)], [])
    assert effects.due == {"a": NOW + 30, "b": NOW}


def test_what_is_claimed_takes_room_until_it_is_settled(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    claim = Claimed(
        key=1, sender="", created=NOW, due=NOW, priority=0, expires=None, size=5, smtputf8=False, eight_bit=False,
        recipient_count=9, targets=tuple(Target(n, Address("smtp", f"{n}@x")) for n in range(3)), crashes=2,
    )  # fmt: skip
    gone = Settlement(2, 0, "a", State.QUEUED, State.EXPIRED, NOW, 0)
    effects.claimed(TRANSPORTS["a"], queues["a"], [claim], [gone], [2])
    assert queues["a"].held == 3
    jobs = effects.claimed_jobs["a"]
    assert [[t.index for t in made.targets] for made in jobs] == [[0, 1], [2]]
    assert (jobs[0].crashes, jobs[0].content, jobs[0].recipient_count) == (2, None, 9)
    assert effects.changed == [(gone, None)]
    assert effects.completed == [2]
    queues["a"].admit(jobs)
    for made in jobs:
        queues["a"].begin(made, "courier", NOW)
        queues["a"].end(made, "courier", [Delivered()] * len(made.targets), NOW)
        queues["a"].settling(made, [])
    queues["a"].settled(jobs)
    assert queues["a"].held == 0


def test_a_failed_transaction_gives_back_what_it_claimed(queues: dict[str, ActiveQueue]) -> None:
    effects = Effects()
    claim = Claimed(1, "", NOW, NOW, 0, None, 5, False, False, 1, (Target(0, Address("smtp", "0@x")),))
    effects.claimed(TRANSPORTS["a"], queues["a"], [claim], [], [])
    effects.release_reserved()
    assert queues["a"].held == 0


def test_an_operators_action_completes_and_moves_work() -> None:
    effects = Effects()
    result = Controlled((0,), (), (), frozenset({"a"}), completed=True)
    effects.acted(1, result)
    assert effects.completed == [1]
    assert effects.moved == {"a"}
