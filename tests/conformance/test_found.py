"""What the state machines have found, each in its shortest form."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.actors.protocol import Accept, Act
from postroom.addresses import Address
from postroom.clock import ManualClock
from postroom.envelopes import Recipient, Submission
from postroom.options import RecipientOptions
from postroom.recipients import State
from postroom.stores.base import Action, NewMessage, Planned
from postroom.stores.sqlite import SqliteStore
from postroom.tickets import Ticket
from tests.conformance.life_process import Process, idle_couriers
from tests.conformance.life_world import CONTENT, make
from tests.conformance.stores import accept, claim, message, settle, settlement, transaction


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "spool.db", ManualClock(), synchronous="off")
    store.open()
    yield store
    store.close(leave=True)


def ordered(store: SqliteStore) -> NewMessage:
    return message(store, ManualClock(), ordering_key="k", followed=True)


@pytest.mark.parametrize("kind", ["cancel", "delete"])
def test_who_comes_after_a_recalled_message_still_waits_for_the_one_before(
    store: SqliteStore, kind: str
) -> None:
    clock = ManualClock()
    first, recalled = ordered(store), ordered(store)
    accept(store, first, recalled)
    action = Action("cancel") if kind == "cancel" else Action("delete", "pending")
    with transaction(store):
        assert store.control(action, recalled.key, (), None, clock.time()).completed
    third = ordered(store)
    accept(store, third)
    assert [one.key for one in claim(store, clock.time())] == [first.key]
    settle(store, settlement(first.key, 0, State.RELAYED, clock.time(), followed=True))
    assert [one.key for one in claim(store, clock.time())] == [third.key]


def test_who_comes_after_a_message_that_ended_at_once_waits_for_the_one_before(store: SqliteStore) -> None:
    clock = ManualClock()
    first, ended, third = ordered(store), ordered(store), ordered(store)
    recipient = ended.recipients[0]._replace(
        state=State.CANCELLED, reply=settlement(0, 0, State.QUEUED, 0.0).reply, ended="cancelled"
    )
    accept(store, first)
    accept(store, ended._replace(recipients=(recipient,)), third)
    assert [one.key for one in claim(store, clock.time())] == [first.key]


def test_an_ordering_key_is_forgotten_with_its_last_message(store: SqliteStore) -> None:
    clock = ManualClock()
    only = ordered(store)
    accept(store, only)
    with transaction(store):
        assert store.control(Action("delete", "pending"), only.key, (), None, clock.time()).deleted
    assert store.connection.execute("SELECT count(*) FROM ordering").fetchone() == (0,)


def test_what_a_transport_said_of_a_former_address_is_void(store: SqliteStore) -> None:
    clock = ManualClock()
    one = message(store, clock)
    accept(store, one, own=True)
    now = clock.time()
    settle(store, settlement(one.key, 0, State.QUEUED, now, due=now, outcome="not_mine", next_transport="b"))
    asked: list[frozenset[str]] = []

    def plan(_address: Address, _transport: str, declined: frozenset[str]) -> Planned | None:
        asked.append(declined)
        return None

    with transaction(store):
        store.replan("b", plan, None, 10, now, aside=True)
    claim(store, now, "b")
    turned = settlement(
        one.key, 0, State.QUEUED, now, transport="b", due=now, outcome="failed", next_options=RecipientOptions(),
        next_address=Address("smtp", "other@x"),
    )  # fmt: skip
    settle(store, turned)
    with transaction(store):
        store.replan("b", plan, None, 10, now, aside=True)
    assert asked == [frozenset({"a"}), frozenset()]


def submit(process: Process, to: Recipient | str, delay: float = 0.0) -> int:
    at = process.clock.time() + delay
    prepared = process.submitter.prepare(
        Submission(message=CONTENT, sender="app@example.org", to=[to], send_at=at)
    )
    process.context.handles.store.tell(Accept([prepared], Ticket()))
    process.deliver_all()
    return prepared.key


def pass_time(*processes: Process) -> None:
    """Long enough for some rounds of housekeeping."""
    for _ in range(5):
        processes[0].clock.advance(16.0)
        for process in processes:
            process.deliver_all()


def test_whose_only_transport_was_removed_turns_to_an_alternative(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "spool.db"
    with idle_couriers():
        process = Process(path, clock, [make("first"), make("text")])
        key = submit(process, Recipient("a@x.example", alternatives=["sms:+15550101"]), delay=500.0)
        process.stop()
        process = Process(path, clock, [make("text")])
        pass_time(process)
        found = process.context.reader.message(key)
        assert found is not None
        (recipient,) = found.recipients
        assert (recipient.state, recipient.transport) == (State.QUEUED, "text")
        assert str(recipient.address) == "sms:+15550101"
        process.stop()


def test_what_was_wanted_of_a_process_that_died_is_done_by_its_heir(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "spool.db"
    with idle_couriers():
        heir, owner = (Process(path, clock, [make("first")]) for _ in range(2))
        pass_time(heir, owner)
        key = submit(owner, "a@x.example")
        ticket = Ticket()
        heir.context.handles.store.tell(Act(Action("cancel"), [(key, None)], ticket))
        heir.deliver_all()
        assert ticket.value[0].requested == (0,)
        owner.kill()
        pass_time(heir)
        found = heir.context.reader.message(key)
        assert found is not None
        assert found.recipients[0].state is State.CANCELLED
        assert heir.offered() == []
        heir.stop()
