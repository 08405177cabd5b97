"""Subscribers told by messages, letter by letter: a real spool, and a store that answers when the test says."""

import json
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from postroom.actors.announcer import (
    ANSWER_SECONDS,
    FIRST_PAUSE,
    IDLE_STEP,
    STEP,
    AnnouncerActor,
    AnnouncerParts,
)
from postroom.actors.context import Audience, Context, Handles
from postroom.actors.protocol import Perform
from postroom.addresses import Address, parse_address
from postroom.completions import Completions
from postroom.delivery import Delivery, Target
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError, SpoolUnavailable, UnknownAddressType, UsageError
from postroom.events import (
    Event,
    InboundChanged,
    MessageCompleted,
    MessageEvent,
    MessageQueued,
    NewMessage,
    RecipientDelivered,
    RecipientFailed,
)
from postroom.ids import format_id
from postroom.notifying.codec import UnknownEvent
from postroom.notifying.journal import EventLog, Recorded
from postroom.notifying.journalled import KINDS
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.options import MessageOptions
from postroom.routing import Router
from postroom.settings import Settings
from postroom.stores.base import NewMessage as Outgoing
from postroom.stores.inbox_reader import SqliteInboxReader
from postroom.supervision import Handle
from postroom.transports.webhook_body import JsonBody
from tests.support.journalling import changed, new_message
from tests.support.letters import Letters
from tests.support.report_spool import Spool

URL = "https://hooks.example.org/x"


def subscriber_with(**options: Any) -> WebhookSubscriber:
    given: dict[str, Any] = {"to": URL, "name": "crm", **options}
    return WebhookSubscriber(**given)


class Desk:
    """An announcer that is driven by hand."""

    def __init__(self, spool: Spool, reader: SqliteInboxReader, **options: Any) -> None:
        self.spool = spool
        self.reader = reader
        handles = Handles()
        self.own = Handle()
        self.to_store = Letters(handles.store)
        self.to_self = Letters(self.own)
        self.log = EventLog(reader, kept=frozenset(KINDS), interval=1.0)
        context = Context(
            clock=spool.clock, settings=Settings(), store=spool.store, reader=reader, router=Router([]),
            transports={}, queues={}, handles=handles, instruments=spool.instruments, completions=Completions(),
            audience=Audience(),
        )  # fmt: skip
        self.fault: UsageError | None = None
        subscriber = subscriber_with(**options)
        self.subscriber = subscriber
        parts = AnnouncerParts(
            events=self.log,
            prepare=self._prepare,
            host="mail.example.org",
            addresses=frozenset({subscriber.address}),
        )
        self.actor = AnnouncerActor(context, subscriber, parts, self.own, "announcer")
        self.actor.on_start()

    def _prepare(self, submission: Submission) -> Outgoing:
        if self.fault is not None:
            raise self.fault
        return self.spool.prepare(submission)

    def write(self, *events: Event) -> None:
        self.spool.store.begin()
        self.spool.store.events.write(events)
        self.spool.store.commit()
        self.log.bell.ring()

    def answer(self, letter: Perform) -> bool:
        """Answer as the store: the step and its messages in one transaction."""
        store = self.spool.store
        store.begin()
        value = letter.step(store)
        if value and letter.messages:
            store.accept(letter.messages, ())
        store.commit()
        letter.ticket.resolve(value)
        self.hear()
        return bool(value)

    def hear(self) -> None:
        while not self.to_self.empty:
            self.actor.on_letters([self.to_self.next()])

    def wakes_in(self) -> float:
        at = self.actor.next_wake()
        assert at is not None
        return at - self.spool.clock.monotonic()

    def run(self) -> list[dict[str, Any]]:
        """Let everybody do what there is to do; returns what was announced."""
        told: list[dict[str, Any]] = []
        self.hear()
        while self.wakes_in() <= 0:
            self.actor.on_wake()
            while not self.to_store.empty:
                letter = self.to_store.next()
                if self.answer(letter):
                    told += [said(message) for message in letter.messages]
            self.hear()
        return told


def said(message: Outgoing) -> dict[str, Any]:
    """Return the body that a webhook gets of a message."""
    target = Target(0, message.recipients[0].address)
    delivery = Delivery(message.key, message.sender, (target,), message.content, options=message.options)
    body: dict[str, Any] = json.loads(JsonBody(delivery).encode(target))
    return body


def not_the_second(event: Event) -> bool:
    assert isinstance(event, MessageEvent)
    return event.message_id != "m2"


def nothing(_: Event) -> bool:
    return False


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db")
    yield made
    made.close()


@pytest.fixture
def reader(spool: Spool, tmp_path: Path) -> Iterator[SqliteInboxReader]:
    assert spool.store
    made = SqliteInboxReader(tmp_path / "spool.db")
    yield made
    made.close()


@pytest.fixture
def desk(spool: Spool, reader: SqliteInboxReader) -> Iterator[Desk]:
    made = Desk(spool, reader)
    yield made
    made.actor.on_stop()


# What is sent


def test_an_announcement_is_the_event_as_a_webhook_gets_it(spool: Spool) -> None:
    subscriber = WebhookSubscriber(to=URL, name="crm", lifetime=60, priority=1)
    (message,) = subscriber.messages([Recorded(17, changed(5))], spool.prepare, "mail.example.org")
    assert said(message) == {
        "type": "inbound_changed", "at": "1970-01-01T00:00:05.000Z", "message_id": "m5", "folder": "Inbox",
        "change": "read", "cursor": 17, "subscriber": "crm",
    }  # fmt: skip
    assert message.options == MessageOptions(announces="crm")
    assert (message.sender, message.report, message.recipients[0].address) == ("", "", parse_address(URL))
    parsed = message_from_bytes(message.content, policy=policy.default)
    assert parsed["From"] == "Postroom <postroom@mail.example.org>"
    assert (parsed["Subject"], parsed["Auto-Submitted"]) == ("inbound_changed", "auto-generated")
    assert parsed.get_content_type() == "application/json"


def test_ordinary_messages_with_json_stay_as_they_are() -> None:
    target = Target(0, parse_address(URL))
    content = b'Content-Type: application/json\r\n\r\n{"mine": true}\r\n'
    ordinary = json.loads(
        JsonBody(Delivery(1, "", (target,), content, options=MessageOptions())).encode(target)
    )
    assert ordinary["type"] == "message"
    assert ordinary["attachments"][0]["content_type"] == "application/json"


def test_several_events_may_go_together(spool: Spool) -> None:
    subscriber = WebhookSubscriber(to=URL, name="crm", batch=2)
    events = [Recorded(number, new_message(number)) for number in (1, 2, 3)]
    first, second = subscriber.messages(events, spool.prepare, "h.example")
    assert [event["cursor"] for event in said(first)["events"]] == [1, 2]
    alone = said(second)
    assert (alone["type"], alone["subscriber"], [event["cursor"] for event in alone["events"]]) == (
        "events",
        "crm",
        [3],
    )


def test_the_envelope_is_what_was_asked_for() -> None:
    seen: list[Submission] = []

    def prepare(submission: Submission) -> Outgoing:
        seen.append(submission)
        return Outgoing(1, "", b"", (), 0.0, 0.0)

    ordered = WebhookSubscriber(
        to="ann@x.org", name="a", ordered=True, sender="me@x.org", author="Me <me@x.org>"
    )
    ordered.messages([Recorded(1, changed(1))], prepare, "h.example")
    WebhookSubscriber(to=Address("https", "//x.org/"), name="b").messages(
        [Recorded(1, changed(1))], prepare, "h.example"
    )
    one, two = seen
    assert (one.ordering_key, one.tenant, one.sender, one.report) == (
        "webhook:a",
        "webhook:a",
        "me@x.org",
        frozenset(),
    )
    assert (two.ordering_key, two.tenant, two.expires_at) == (None, "webhook:b", None)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"to": "nowhere"}, "to"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"kinds": [int]}, "kinds"),
        ({"batch": 0}, "batch"),
        ({"batch": 1001}, "batch"),
        ({"start": "middle"}, "start"),
        ({"lifetime": 0}, "lifetime"),
    ],
)
def test_options_are_checked(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^WebhookSubscriber\.{field}: "):
        subscriber_with(**options)


def test_what_the_journal_does_not_keep_cannot_be_announced() -> None:
    subscriber = WebhookSubscriber(to=URL, name="crm", kinds={NewMessage})
    subscriber.check(frozenset({"NewMessage"}))
    with pytest.raises(ConfigurationError, match=r"'crm'.*NewMessage is not kept"):
        subscriber.check(frozenset({"InboundChanged"}))


# The actor


def test_events_are_announced_from_the_first_start_on(desk: Desk) -> None:
    desk.write(new_message(1))
    assert desk.run() == []
    desk.write(new_message(2), changed(2))
    assert [(each["type"], each["cursor"]) for each in desk.run()] == [
        ("new_message", 2),
        ("inbound_changed", 3),
    ]
    assert desk.run() == []
    assert desk.reader.cursors() == {"webhook:crm": 3}
    assert desk.wakes_in() == pytest.approx(1.0)


def test_what_happened_while_nobody_announced_is_announced_later(
    spool: Spool, reader: SqliteInboxReader
) -> None:
    first = Desk(spool, reader)
    first.run()
    first.actor.on_stop()
    first.write(*[new_message(number) for number in range(STEP + 5)])
    second = Desk(spool, reader)
    assert len(second.run()) == STEP + 5


def test_a_new_name_may_begin_with_the_oldest(spool: Spool, reader: SqliteInboxReader) -> None:
    desk = Desk(spool, reader, start="oldest", kinds={NewMessage}, filter=not_the_second)
    desk.write(new_message(1), changed(1), new_message(2), new_message(3))
    assert [each["message_id"] for each in desk.run()] == ["m1", "m3"]


def test_of_two_processes_one_announces(spool: Spool, reader: SqliteInboxReader) -> None:
    one, other = Desk(spool, reader), Desk(spool, reader)
    one.run()
    other.run()
    one.write(new_message(1), new_message(2))
    one.spool.clock.advance(1)
    one.actor.on_wake()
    other.actor.on_wake()
    mine, others = one.to_store.next(), other.to_store.next()
    assert len(mine.messages) == len(others.messages) == 2
    assert other.answer(others)
    assert not one.answer(mine)
    assert one.run() == []
    assert spool.reader.tally().pending == 2


def test_a_store_that_does_not_answer_or_fails_is_asked_again(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.run()
    desk.write(new_message(1))
    desk.hear()
    desk.actor.on_wake()
    lost = desk.to_store.next()
    desk.write(new_message(2))
    desk.hear()
    desk.actor.on_wake()
    assert desk.to_store.empty
    desk.spool.clock.advance(ANSWER_SECONDS)
    desk.actor.on_wake()
    assert "did not answer" in caplog.text
    again = desk.to_store.next()
    assert len(again.messages) == 2
    again.ticket.resolve(error=SpoolUnavailable("disk full"))
    desk.hear()
    assert desk.wakes_in() == pytest.approx(1.0)
    desk.spool.clock.advance(1)
    assert [each["message_id"] for each in desk.run()] == ["m1", "m2"]
    # What the lost letter does now is nothing: its page is done.
    assert not desk.answer(lost)


def test_an_answer_of_which_the_letter_was_lost_is_found(desk: Desk) -> None:
    desk.write(new_message(1))
    desk.to_self.detach()
    desk.actor.on_wake()
    desk.answer(desk.to_store.next())
    assert desk.to_self.empty
    desk.to_self.attach()
    desk.write(new_message(2))
    desk.spool.clock.advance(1)
    assert [each["message_id"] for each in desk.run()] == ["m2"]


def test_a_store_that_was_restarted_is_told_again(desk: Desk) -> None:
    desk.run()
    desk.write(new_message(1))
    desk.hear()
    desk.actor.on_wake()
    desk.to_store.next()
    desk.to_store.attach()
    desk.spool.clock.advance(1)
    assert [each["message_id"] for each in desk.run()] == ["m1"]


def test_a_store_that_is_away_is_told_later(desk: Desk) -> None:
    desk.run()
    desk.write(new_message(1))
    desk.to_store.detach()
    assert desk.run() == []
    desk.to_store.attach()
    desk.spool.clock.advance(1)
    assert [each["message_id"] for each in desk.run()] == ["m1"]


def test_nothing_is_lost_while_an_announcement_cannot_be_sent(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.run()
    desk.fault = UnknownAddressType("to", "no transport handles https", "configure one")
    desk.write(new_message(1))
    pauses: list[float] = []
    for _ in range(8):
        assert desk.run() == []
        pauses.append(desk.wakes_in())
        desk.spool.clock.advance(pauses[-1])
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == 300
    assert "no transport handles https" in caplog.text
    desk.fault = None
    assert len(desk.run()) == 1


def test_events_about_announcements_are_never_announced(spool: Spool, reader: SqliteInboxReader) -> None:
    desk = Desk(spool, reader)
    desk.run()
    ordinary = format_id(spool.submit("ann@example.net"))
    desk.write(new_message(1))
    desk.hear()
    desk.actor.on_wake()
    letter = desk.to_store.next()
    announcement = format_id(letter.messages[0].key)
    desk.answer(letter)
    for message_id in (announcement, ordinary):
        desk.write(
            MessageQueued(1.0, message_id, "", 1, 1),
            RecipientFailed(1.0, message_id, 0, None, "webhook", 1, None),
            RecipientDelivered(1.0, message_id, 0, desk.subscriber.address, "webhook", 1, None),
            MessageCompleted(1.0, message_id),
        )
    told = desk.run()
    assert [each["message_id"] for each in told] == [ordinary] * 4
    assert {each["type"] for each in told} == {
        "message_queued", "recipient_failed", "recipient_delivered", "message_completed",
    }  # fmt: skip


def test_without_a_record_only_what_cannot_be_an_announcement_is_told(desk: Desk) -> None:
    desk.run()
    gone = format_id(12345)
    ann = parse_address("ann@example.net")
    desk.write(
        RecipientFailed(1.0, gone, 0, ann, "smtp", 1, None),
        RecipientFailed(2.0, gone, 0, desk.subscriber.address, "webhook", 1, None),
        RecipientFailed(3.0, gone, 0, None, "smtp", 1, None),
        MessageCompleted(4.0, gone),
        NewMessage(5.0, gone, "Inbox", "", "", "r", "IPM.Note", 1, seen=False),
        InboundChanged(6.0, gone, "Inbox", "read"),
        UnknownEvent(7.0, "FutureEvent", "{}"),
    )
    assert [each["at"][18] for each in desk.run()] == ["1", "5", "6"]


def test_a_filter_that_raises_has_the_event_announced(
    spool: Spool, reader: SqliteInboxReader, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Event) -> bool:
        raise ZeroDivisionError

    desk = Desk(spool, reader, filter=broken)
    desk.run()
    desk.write(new_message(1))
    assert len(desk.run()) == 1
    assert "the filter of crm raised" in caplog.text


def test_the_cursor_moves_now_and_then_although_nothing_is_announced(
    spool: Spool, reader: SqliteInboxReader
) -> None:
    desk = Desk(spool, reader, filter=nothing)
    desk.run()
    desk.write(*[changed(0)] * (IDLE_STEP - 1))
    assert desk.run() == []
    assert desk.reader.cursors() == {"webhook:crm": 0}
    desk.write(changed(0))
    assert desk.run() == []
    assert desk.reader.cursors() == {"webhook:crm": IDLE_STEP}


def test_who_was_away_for_too_long_goes_on_with_what_is_left(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.write(new_message(1))
    desk.run()
    desk.write(*[new_message(number) for number in range(2, 6)])
    store = desk.spool.store
    store.begin()
    assert store.events.purge(4.5, 100) == 4
    store.commit()
    assert [each["message_id"] for each in desk.run()] == ["m5"]
    assert "not kept any more" in caplog.text


def test_a_bell_that_rings_often_is_heard_once(desk: Desk) -> None:
    desk.run()
    for _ in range(100):
        desk.log.bell.ring()
    desk.to_self.next()
    assert desk.to_self.empty
    desk.actor.on_stop()
