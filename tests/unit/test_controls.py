"""What each action does to a recipient in each state, and to the rows of a message."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.clock import SystemClock
from postroom.lanes import lane_of
from postroom.options import RecipientOptions
from postroom.recipients import State
from postroom.stores.base import Action, Control, NewMessage, NewRecipient, Order
from postroom.stores.changing import APPLICABLE, WITH_PENDING, Row, change, next_state
from postroom.stores.controls import control_message
from postroom.stores.forgetting import forget_messages
from postroom.stores.orders import drop_orders, log_operation, read_operations, read_orders, set_order
from postroom.stores.requests import insert_requests, take_requests
from postroom.stores.sqlite import SqliteStore

NOW = 5000.0
ANN = Address("smtp", "ann@example.com")
OTHER = 99


def plan(address: Address) -> tuple[str, ...]:
    return {"smtp": ("preprocess", "smtp"), "sms": ("sms",)}.get(address.type, ())


def row(state: State = State.QUEUED, **more: Any) -> Row:
    values: dict[str, Any] = {
        "number": 0, "transport": "smtp", "state": state, "owner": None, "attempts": 3, "first_attempt": 10.0,
        "crashes": 2, "in_doubt": True, "due": 9000.0, "address": ANN, "options": None, "message_due": 100.0,
        "siblings": 1, "tenant": "shop", "followed": False,
    }  # fmt: skip
    return Row(**(values | more))


ARGUMENTS = {"reroute": "backup", "redirect": "bob@example.com"}


@pytest.mark.parametrize("kind", get_args(Control))
@pytest.mark.parametrize("state", State)
def test_an_action_changes_exactly_the_states_it_applies_to(kind: Control, state: State) -> None:
    done = change(Action(kind, ARGUMENTS.get(kind, "")), row(state), 7, NOW, plan)
    applies = kind not in {"delete", "probe"} and state in APPLICABLE[kind]
    assert (done is not None) == applies == (next_state(kind, state) is not None)
    if done is not None:
        assert (done.was, done.at, done.key, done.only) == (state, NOW, 7, True)
        assert (done.outcome != "") == done.state.is_final
        assert done.in_doubt
        if done.state is State.QUEUED:
            assert done.due is not None


def test_ends() -> None:
    failed = change(Action("fail", reason="spam"), row(), 7, NOW, plan)
    assert failed is not None
    assert (failed.state, failed.outcome, str(failed.reply)) == (
        State.FAILED, "failed", "5.7.1 refused by an operator: spam"
    )  # fmt: skip
    said = change(Action("fail", "mailbox closed", reason="spam"), row(), 7, NOW, plan)
    assert said is not None
    assert str(said.reply) == "5.7.1 mailbox closed"
    expired = change(Action("expire"), row(), 7, NOW, plan)
    assert expired is not None
    assert (expired.state, expired.outcome, str(expired.reply)) == (
        State.EXPIRED, "expired", "4.4.7 expired by an operator"
    )  # fmt: skip


def test_release_and_retry_set_the_due_time() -> None:
    released = change(Action("release"), row(State.HELD), 7, NOW, plan)
    later = change(Action("release"), row(State.HELD, message_due=NOW + 60), 7, NOW, plan)
    retried = change(Action("retry"), row(), 7, NOW, plan)
    assert released is not None
    assert later is not None
    assert retried is not None
    assert (released.due, released.crashes, later.due) == (NOW, 0, NOW + 60)
    assert (retried.due, retried.crashes, retried.attempts) == (NOW, 2, 3)


@pytest.mark.parametrize("action", [Action("reroute", "backup"), Action("redirect", "bob@example.com")])
def test_a_new_way_begins_with_a_clean_slate(action: Action) -> None:
    done = change(action, row(), 7, NOW, plan)
    assert done is not None
    assert (done.attempts, done.first_attempt, done.crashes, done.due) == (0, None, 0, NOW)
    later = change(action, row(message_due=NOW + 60), 7, NOW, plan)
    assert later is not None
    assert later.due == NOW + 60
    held = change(action, row(State.HELD, due=None), 7, NOW, plan)
    assert held is not None
    assert (held.state, held.due) == (State.HELD, None)


def test_going_where_it_is_changes_nothing() -> None:
    assert change(Action("reroute", "smtp"), row(), 7, NOW, plan) is None
    assert change(Action("redirect", "ann@example.com"), row(), 7, NOW, plan) is None


@pytest.mark.parametrize(
    ("transport", "to", "following"),
    [
        ("smtp", "bob@example.com", None),  # it was preprocessed, and stays where it is
        ("backup", "bob@example.com", "smtp"),
        ("preprocess", "bob@example.com", None),  # not preprocessed yet
        ("smtp", "sms:+15550100", "sms"),
        ("sms", "bob@example.com", "preprocess"),
        ("fax", "bob@example.com", "preprocess"),
    ],
)
def test_where_a_redirected_recipient_goes(transport: str, to: str, following: str | None) -> None:
    address = Address(transport, "+15550199") if transport in {"sms", "fax"} else ANN
    done = change(Action("redirect", to), row(transport=transport, address=address), 7, NOW, plan)
    assert done is not None
    assert done.next_transport == following
    assert done.next_options == RecipientOptions(original=address)


def test_who_does_not_know_the_routes_may_only_stay_with_the_type() -> None:
    assert change(Action("redirect", "fax:+15550100"), row(), 7, NOW, plan) is None
    done = change(Action("redirect", "bob@example.com"), row(), 7, NOW, lambda _: ())
    assert done is not None
    assert (done.next_transport, done.next_address) == (None, Address("smtp", "bob@example.com"))


@given(st.sampled_from([*get_args(Control)]), st.sampled_from(list(State)), st.booleans())
def test_done_twice_is_done_once_but_for_the_time(kind: Control, state: State, again_later: bool) -> None:
    action = Action(kind, ARGUMENTS.get(kind, ""))
    first = change(action, row(state), 7, NOW, plan)
    if first is None:
        return
    after = row(
        first.state, transport=first.next_transport or "smtp", address=first.next_address or ANN,
        options=first.next_options, due=first.due, crashes=first.crashes, attempts=first.attempts,
    )  # fmt: skip
    second = change(action, after, 7, NOW + again_later, plan)
    if second is not None:
        assert (second.state, second.next_transport, second.next_address) == (first.state, None, None)


# In the spool


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "spool.db", SystemClock(), synchronous="off")
    opened.open()
    opened.begin()
    yield opened
    opened.rollback()
    opened.close(leave=True)


def accept(store: SqliteStore, *names: str, owned: tuple[int, ...] = ()) -> int:
    key = store.ids.next()
    recipients = tuple(NewRecipient(Address("smtp", f"{name}@example.com"), "smtp") for name in names)
    message = NewMessage(
        key, "app@example.org", b"x", recipients, 1.0, 1.0, tenant="shop", idempotency_key=str(key)
    )
    store.accept([message], {(key, index) for index in owned})
    return key


def column(store: SqliteStore, key: int, name: str) -> list[Any]:
    rows = store.connection.execute(f"SELECT {name} FROM recipient WHERE message_id = ? ORDER BY idx", (key,))  # noqa: S608 - our own names
    return [value for (value,) in rows]


def do(store: SqliteStore, action: Action, key: int, indices: Any = None, revoked: Any = ()) -> Any:
    return control_message(store.connection, store.node, action, key, revoked, indices, NOW, plan)


def test_who_did_it_and_why_is_in_the_history(store: SqliteStore) -> None:
    key = accept(store, "ann", "bob")
    do(store, Action("hold", operator="joe", reason="looks odd"), key, {0})
    do(store, Action("redirect", "eve@example.com"), key, {0})
    rows = store.connection.execute(
        "SELECT idx, at, outcome, text, detail, address FROM attempt ORDER BY id"
    ).fetchall()
    assert [tuple(each) for each in rows] == [
        (0, NOW, "operator", "held", "by joe: looks odd", None),
        (0, NOW, "operator", "redirected to smtp:eve@example.com", None, "smtp:ann@example.com"),
    ]
    assert column(store, key, "reply_text") == ["held by an operator: looks odd", None]


def test_redirecting_changes_the_row_and_its_lane(store: SqliteStore) -> None:
    key = accept(store, "ann")
    do(store, Action("redirect", "ann@example.net"), key)
    assert column(store, key, "address") == ["ann@example.net"]
    assert column(store, key, "lane") == [lane_of("shop", "example.net")]
    assert RecipientOptions.from_json(column(store, key, "options")[0]) == RecipientOptions(original=ANN)


def test_nobody_gets_two_copies(store: SqliteStore) -> None:
    key = accept(store, "ann", "bob", "eve", "joe")
    store.connection.execute("UPDATE recipient SET state = 10 WHERE message_id = ? AND idx = 3", (key,))
    done = do(store, Action("redirect", "eve@example.com"), key)
    assert [(s.index, s.state) for s in done.settlements] == [(0, State.CANCELLED), (1, State.CANCELLED)]
    again = accept(store, "ann", "bob")
    done = do(store, Action("redirect", "eve@example.com"), again)
    assert [(s.index, s.state) for s in done.settlements] == [(0, State.QUEUED), (1, State.CANCELLED)]
    assert done.settlements[1].outcome == "cancelled"


def test_one_of_several_targets_of_a_delivery_that_was_revoked(store: SqliteStore) -> None:
    """A job is taken out of memory as a whole: whom nobody meant goes back to the spool, unchanged and unowned."""
    key = accept(store, "ann", "bob", owned=(0, 1))
    done = do(store, Action("cancel"), key, {0}, revoked=[0, 1])
    assert [s.index for s in done.settlements] == [0]
    assert done.freed == {"smtp"}
    assert column(store, key, "state") == [State.CANCELLED, State.QUEUED]
    assert column(store, key, "owner") == [None, None]


def test_what_is_in_hand_is_left_alone(store: SqliteStore) -> None:
    key = accept(store, "ann", "bob", owned=(0,))
    done = do(store, Action("hold"), key)
    assert (done.in_transit, [s.index for s in done.settlements]) == ((0,), [1])
    assert do(store, Action("hold"), key, {5}) == type(done)()


def test_another_process_is_asked(store: SqliteStore) -> None:
    key = accept(store, "ann", "bob", "eve")
    store.connection.execute("UPDATE recipient SET owner = ? WHERE idx < 2", (OTHER,))
    store.connection.execute("UPDATE recipient SET state = 1 WHERE idx = 1")
    store.connection.execute("INSERT INTO instance VALUES (?, 1, 'h', 1, 1)", (OTHER,))
    action = Action("cancel", "", "joe", "why")
    done = do(store, action, key)
    assert (done.requested, done.in_transit, [s.index for s in done.settlements]) == ((0,), (1,), [2])
    assert take_requests(store.connection, store.node, 10) == []
    (request,) = take_requests(store.connection, OTHER, 10)
    assert (request.action, request.key, request.indices) == (action, key, (0,))
    assert take_requests(store.connection, OTHER, 10) == []


def test_requests_to_somebody_gone_are_anybodys_and_in_order(store: SqliteStore) -> None:
    for kind in ("hold", "release", "cancel"):
        insert_requests(store.connection, Action(kind), 5, [(OTHER, [1])], NOW)
    taken = take_requests(store.connection, store.node, 2)
    assert [request.action.kind for request in taken] == ["hold", "release"]
    assert [request.action.kind for request in take_requests(store.connection, store.node, 2)] == ["cancel"]


def test_a_probe_asks_the_others(store: SqliteStore) -> None:
    store.connection.execute("INSERT INTO instance VALUES (?, 1, 'h', 1, 1)", (OTHER,))
    done = do(store, Action("probe", "smtp"), 0)
    assert done.settlements == ()
    (request,) = take_requests(store.connection, OTHER, 10)
    assert (request.action, request.indices) == (Action("probe", "smtp"), None)
    assert take_requests(store.connection, store.node, 10) == []


def test_delete(store: SqliteStore) -> None:
    key, kept = accept(store, "ann", "bob"), accept(store, "eve")
    refused = do(store, Action("delete"), key)
    assert (refused.deleted, refused.in_transit, refused.settlements) == (False, (0, 1), ())
    done = do(store, Action("delete", WITH_PENDING), key)
    assert done.deleted
    assert {s.state for s in done.settlements} == {State.CANCELLED}
    assert do(store, Action("delete"), key).deleted
    forget_messages(store.connection, [key])
    for table, name in (
        ("message", "id"),
        ("recipient", "message_id"),
        ("content", "message_id"),
        ("attempt", "message_id"),
    ):
        left = {value for (value,) in store.connection.execute(f"SELECT {name} FROM {table}")}  # noqa: S608 - ours
        assert left <= {kept}
    assert store.connection.execute("SELECT count(*) FROM idempotency").fetchone() == (1,)
    assert not do(store, Action("delete"), key).deleted


def test_delete_waits_for_what_is_in_hand(store: SqliteStore) -> None:
    key = accept(store, "ann", "bob", owned=(0,))
    done = do(store, Action("delete", WITH_PENDING), key)
    assert (done.deleted, done.in_transit) == (False, (0,))


# Orders and the log


def test_orders_are_kept_in_the_order_given(store: SqliteStore) -> None:
    first = set_order(store.connection, Order(0, "hold", "{}", "", "joe", "why", 1.0, 9.0))
    second = set_order(store.connection, Order(0, "pause", "{}", created=2.0))
    assert (first.id, second.id) == (1, 2)
    assert read_orders(store.connection) == [first, second]
    later = set_order(store.connection, Order(first.id, "hold", "{}", created=1.0, expires=20.0))
    assert read_orders(store.connection) == [later, second]
    assert drop_orders(store.connection, {second.id, 77}, expired=20.0) == 1
    assert drop_orders(store.connection, (), expired=20.5) == 0
    assert read_orders(store.connection) == []


def test_the_log_of_operations(store: SqliteStore) -> None:
    action = Action("hold", "", "joe", "why")
    number = log_operation(store.connection, action, "{}", 0, 1.0, None)
    (entry,) = read_operations(store.connection, 5)
    assert (entry.action, entry.changed, entry.at, entry.finished) == (action, 0, 1.0, None)
    assert log_operation(store.connection, action, "{}", 12, 2.0, number) == number
    log_operation(store.connection, Action("cancel"), "{}", 0, 3.0, None)
    latest, first = read_operations(store.connection, 5)
    assert latest.action.kind == "cancel"
    assert (first.id, first.changed, first.finished) == (number, 12, 2.0)
