import pytest

from postroom.actors.notifier import events_of
from postroom.actors.protocol import Happened
from postroom.addresses import Address
from postroom.events import (
    ActorRestarted,
    Event,
    MessageCompleted,
    MessageQueued,
    RecipientAccepted,
    RecipientCancelled,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
    RecipientHeld,
    RecipientRelayed,
)
from postroom.ids import format_id
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import NewMessage, NewRecipient, Settlement

ADDRESS = Address("smtp", "ann@example.org")
REPLY = Reply("said", "2.0.0", 250)


def of(state: State, outcome: str = "", **fields: object) -> list[Event]:
    settlement = Settlement(5, 2, "a", State.QUEUED, state, 7.0, 3, outcome=outcome, reply=REPLY, **fields)  # type: ignore[arg-type]
    return list(events_of(Happened(9.0, settled=[(settlement, ADDRESS)])))


COMMON = (7.0, format_id(5), 2, ADDRESS, "a", 3, REPLY)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.DELIVERED, RecipientDelivered(*COMMON)),
        (State.RELAYED, RecipientRelayed(*COMMON)),
        (State.FAILED, RecipientFailed(*COMMON)),
        (State.EXPIRED, RecipientExpired(*COMMON)),
        (State.HELD, RecipientHeld(*COMMON)),
        (State.CANCELLED, RecipientCancelled(*COMMON)),
    ],
)
def test_each_state_has_its_event(state: State, event: Event) -> None:
    assert of(state, state.label) == [event]


def test_what_will_be_reported_later_carries_the_others_id() -> None:
    assert of(State.ACCEPTED, "accepted", remote_id="r-1") == [RecipientAccepted(*COMMON, "r-1")]


@pytest.mark.parametrize("outcome", ["deferred", "crashed"])
def test_a_refusal_carries_the_time_of_the_next_attempt(outcome: str) -> None:
    assert of(State.QUEUED, outcome, due=60.0) == [RecipientDeferred(*COMMON, 60.0)]


@pytest.mark.parametrize("outcome", ["not_mine", ""])
def test_moving_on_is_no_event(outcome: str) -> None:
    assert of(State.QUEUED, outcome, due=60.0) == []


def test_a_letter_is_told_in_the_order_of_life() -> None:
    queued = NewMessage(
        key=1,
        sender="app@x",
        content=b"12345",
        recipients=(NewRecipient(ADDRESS, "a"),) * 2,
        created=1.0,
        due=1.0,
    )
    delivered = Settlement(1, 0, "a", State.QUEUED, State.DELIVERED, 2.0, 1)
    ready = ActorRestarted(3.0, "core/store", 2, "OSError: no")
    happened = Happened(4.0, [queued], [(delivered, None)], [1], [ready])
    assert list(events_of(happened)) == [
        MessageQueued(4.0, format_id(1), "app@x", 2, 5),
        RecipientDelivered(2.0, format_id(1), 0, None, "a", 1, None),
        MessageCompleted(4.0, format_id(1)),
        ready,
    ]


def test_nothing_is_nothing() -> None:
    assert list(events_of(Happened())) == []
