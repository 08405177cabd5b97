"""Events as JSON: whatever happened is read again as it was, and others get a form that stays."""

import dataclasses
import inspect
import json
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom import events
from postroom.addresses import Address
from postroom.events import (
    ActorRestarted,
    Event,
    InboundChanged,
    MessageEvent,
    NewMessage,
    RecipientDeferred,
    RecipientEvent,
    RecipientFailed,
    RecipientReported,
    TransportChanged,
)
from postroom.notifying.codec import CLASSES, UnknownEvent, decode, encode, public_name, to_public
from postroom.outcomes import Reply

ALL = [each for _, each in inspect.getmembers(events, inspect.isclass) if issubclass(each, Event)]

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TIME = st.floats(0, 4e9)
REPLIES = st.builds(Reply, TEXT, TEXT, st.none() | st.integers(100, 999), TEXT, TEXT)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(0, 2**53),
    float: TIME,
    bool: st.booleans(),
    float | None: st.none() | TIME,
    Address | None: st.none() | st.builds(Address, st.sampled_from(["smtp", "https", "x-odd"]), TEXT),
    Reply | None: st.none() | REPLIES,
}


def anything(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of a class; a field of a type that is not listed above fails here."""
    hints = get_type_hints(kind)
    fields = [VALUES[hints[field.name]] for field in dataclasses.fields(kind)]
    return st.tuples(*fields).map(lambda values: kind(*values))


def test_no_class_of_events_is_forgotten() -> None:
    assert set(CLASSES.values()) == set(ALL)
    assert len(ALL) >= 19


@given(st.one_of([anything(kind) for kind in ALL]))
def test_what_is_written_is_read(event: Event) -> None:
    kind, data = encode(event)
    assert kind == type(event).__name__
    assert decode(kind, event.at, data) == event


@given(st.one_of([anything(kind) for kind in ALL]))
def test_the_public_form_is_json_with_the_fields_of_the_event(event: Event) -> None:
    public = to_public(event)
    assert json.loads(json.dumps(public, allow_nan=False)) == public
    assert list(public) == ["type", *(field.name for field in dataclasses.fields(event))]
    assert public["type"] == public_name(type(event))


def test_public_names() -> None:
    assert {public_name(kind) for kind in (NewMessage, InboundChanged, MessageEvent, ActorRestarted)} == {
        "new_message",
        "inbound_changed",
        "message_event",
        "actor_restarted",
    }


def test_the_forms_of_a_failure() -> None:
    reply = Reply("no such user", "5.1.1", 550, "mx.example.org")
    event = RecipientFailed(
        1_769_860_800.25, "0C8G3W1T0R004", 0, Address("smtp", "ann@x.org"), "smtp", 1, reply
    )
    kind, data = encode(event)
    assert kind == "RecipientFailed"
    assert data == (
        '{"message_id":"0C8G3W1T0R004","index":0,"address":"smtp:ann@x.org","transport":"smtp","attempts":1,'
        '"reply":{"text":"no such user","status":"5.1.1","code":550,"remote":"mx.example.org"}}'
    )
    assert to_public(event) == {
        "type": "recipient_failed",
        "at": "2026-01-31T12:00:00.250Z",
        "message_id": "0C8G3W1T0R004",
        "index": 0,
        "address": "smtp:ann@x.org",
        "transport": "smtp",
        "attempts": 1,
        "reply": {
            "text": "no such user",
            "status": "5.1.1",
            "code": 550,
            "remote": "mx.example.org",
            "tls": "",
        },
    }


def test_other_times_are_written_for_people_too() -> None:
    deferred = RecipientDeferred(0.0, "m", 0, None, "t", 1, None, 60.0)
    assert to_public(deferred)["due"] == "1970-01-01T00:01:00.000Z"
    assert to_public(TransportChanged(0.0, "t", "up", "", None))["until"] is None
    assert to_public(TransportChanged(0.0, "t", "down", "", float("inf")))["until"] is None
    assert to_public(TransportChanged(0.0, "t", "down", "", 1e300))["until"] is None


def test_a_newer_version_may_have_written_more() -> None:
    kind, data = encode(InboundChanged(5.0, "m", "Inbox", "read"))
    more = json.dumps(json.loads(data) | {"mood": {"is": "good"}})
    assert decode(kind, 5.0, more) == InboundChanged(5.0, "m", "Inbox", "read")
    answered = '{"message_id":"m","index":1,"reply":{"text":"no","mood":1}}'
    assert decode("RecipientFailed", 5.0, answered) == RecipientFailed(5.0, "m", 1, None, "", 0, Reply("no"))


@pytest.mark.parametrize("kind", ALL)
def test_an_older_version_may_have_written_less(kind: type[Event]) -> None:
    event = decode(kind.__name__, 5.0, "{}")
    assert type(event) is kind
    assert event.at == 5.0
    if isinstance(event, RecipientEvent):
        assert (event.message_id, event.index, event.address, event.reply) == ("", 0, None, None)


def test_an_unknown_kind_is_kept_as_it_is() -> None:
    event = decode("RecipientEnlightened", 7.0, '{"by":"whom"}')
    assert event == UnknownEvent(7.0, "RecipientEnlightened", '{"by":"whom"}')
    assert encode(event) == ("RecipientEnlightened", '{"by":"whom"}')
    assert to_public(event)["type"] == "unknown_event"


@pytest.mark.parametrize("data", ["", "[]", "null", '"x"', "{"])
def test_what_is_no_event_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode("NewMessage", 0.0, data)


def test_what_nobody_could_decode_does_not_hinder() -> None:
    event = RecipientReported(0.0, "m", 0, None, "t", 1, Reply("gr\udcfc\xdfe"), "complaint", "\ud83d")
    kind, data = encode(event)
    data.encode()
    assert decode(kind, 0.0, data) == RecipientReported(
        0.0, "m", 0, None, "t", 1, Reply("gr?\xdfe"), "complaint", "?"
    )
    json.dumps(to_public(event), ensure_ascii=False).encode()
