"""Subjects, headers and answers of the NATS transport, without a network."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Relayed
from postroom.transports.nats import NatsTransport
from postroom.transports.nats_wire import (
    Answer,
    NoStream,
    Problem,
    Trouble,
    deduplication_id,
    outcome_of,
    publication_of,
    subject_problem,
)

CONTENT = (
    "From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    "Subject: another\r\nX-Other: not copied\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHällo.\r\n"
).encode()


def delivery_to(*addresses: str, content: bytes = CONTENT) -> Delivery:
    targets = tuple(Target(index, parse_address(address)) for index, address in enumerate(addresses))
    return Delivery(1 << 40, "app@example.org", targets, content)


@pytest.mark.parametrize("subject", ["orders", "orders.new", "a.b.c-d_e", "Grüße.neu", "a$.b", "x._INBOX"])
def test_usable_subjects(subject: str) -> None:
    assert subject_problem(subject) == ""


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        ("", "empty token"),
        ("a..b", "empty token"),
        (".a", "empty token"),
        ("a.", "empty token"),
        ("a b", "blank"),
        ("a.*", "wildcard"),
        ("a.>", "wildcard"),
        ("a\r\nPUB b 0", "blank"),
        ("$JS.API.STREAM.DELETE.LETTERS", "belongs to the server"),
        ("$SYS.x", "belongs to the server"),
        ("_INBOX.x", "belongs to the server"),
        ("a" * 1025, "1024"),
    ],
)
def test_unusable_subjects(subject: str, problem: str) -> None:
    assert problem in subject_problem(subject)


@given(st.text())
def test_no_usable_subject_can_break_the_protocol(subject: str) -> None:
    if not subject_problem(subject):
        assert len(subject.split()) == 1
        assert "\0" not in subject


def test_what_is_published() -> None:
    delivery = delivery_to("nats:letters.a", "nats:letters.b")
    publication = publication_of(delivery, delivery.targets[1], "raw")
    assert publication.subject == "letters.b"
    assert publication.payload == CONTENT
    assert publication.headers == {
        "From": "Ann <ann@example.org>",
        "To": "bob@example.org",
        "Subject": "Grüße",
        "Content-Type": "message/rfc822",
        "Nats-Msg-Id": deduplication_id(delivery, delivery.targets[1]),
        "Postroom-Message-Id": delivery.message_id,
        "Postroom-Recipient": "1",
        "Postroom-Sender": "app@example.org",
    }


def test_the_other_payloads() -> None:
    delivery = delivery_to("nats:letters.a")
    text = publication_of(delivery, delivery.targets[0], "text")
    assert (text.payload.decode(), text.headers["Content-Type"]) == ("Hällo.\n", "text/plain; charset=utf-8")
    document = publication_of(delivery, delivery.targets[0], "json")
    assert json.loads(document.payload)["recipient"] == "nats:letters.a"
    assert document.headers["Content-Type"] == "application/json"
    html = delivery_to("nats:a", content=b"Content-Type: text/html\r\n\r\n<p>x</p>")
    assert publication_of(html, html.targets[0], "text").payload == b"<p>x</p>"


@given(st.binary(max_size=200))
def test_whatever_the_message_its_headers_can_be_sent(content: bytes) -> None:
    delivery = delivery_to("nats:letters.a", content=b"Subject: " + content + b"\r\n\r\n")
    for value in publication_of(delivery, delivery.targets[0], "raw").headers.values():
        assert value.isprintable()
        value.encode()


def test_the_id_is_the_same_for_every_attempt_and_no_other() -> None:
    delivery = delivery_to("nats:letters.a", "nats:letters.a")
    first, second = delivery.targets
    later = Target(0, Address("nats", "letters.a"), attempts=4, in_doubt=True)
    assert deduplication_id(delivery, first) == deduplication_id(delivery, later)
    assert deduplication_id(delivery, first) != deduplication_id(delivery, second)
    other = delivery_to("nats:letters.a", content=b"another spool's")
    assert deduplication_id(delivery, first) != deduplication_id(other, other.targets[0])


ANSWERS: list[tuple[Answer | Problem, type[Outcome], str]] = [
    (Answer("S", 7), Delivered, "stream S, sequence 7"),
    (Answer("S", 7, duplicate=True), Delivered, "stored before: stream S, sequence 7"),
    (Answer(), Relayed, "nobody acknowledges"),
    (Problem("refused", "no"), Failed, "5.7.1 no"),
    (Problem("too_large", "no"), Failed, "5.3.4 no"),
    (Problem("subject", "no"), Failed, "5.1.3 no"),
    (Problem("jetstream", "too big", 400, 10054), Failed, "5.3.4 too big (JetStream 10054)"),
    (Problem("jetstream", "full", 503, 10077), Deferred, "4.3.1 full (JetStream 10077)"),
    (Problem("jetstream", "odd", 500, None), Deferred, "4.3.0 odd"),
    (Problem("silence", "no answer"), Deferred, "4.4.2 no answer"),
]


@pytest.mark.parametrize(("answer", "kind", "text"), ANSWERS)
def test_what_an_answer_means(answer: Answer | Problem, kind: type[Outcome], text: str) -> None:
    found = outcome_of(answer, "defer")
    assert type(found) is kind
    assert text in str(found.reply)


@given(st.integers(10_000, 10_200))
def test_most_errors_of_jetstream_are_temporary(number: int) -> None:
    found = outcome_of(Problem("jetstream", "x", 400, number), "defer")
    assert isinstance(found, Deferred) != (number in {10054, 10060, 10109})


def test_only_silence_is_in_doubt() -> None:
    troubles: list[Trouble] = ["no_stream", "jetstream", "refused", "too_large", "subject", "silence"]
    doubts = [getattr(outcome_of(Problem(each, "x"), "defer"), "in_doubt", False) for each in troubles]
    assert doubts == [False, False, False, False, False, True]


@pytest.mark.parametrize(
    ("no_stream", "kind", "status"),
    [("defer", Deferred, "4.4.4"), ("fail", Failed, "5.1.2"), ("not_mine", NotMine, "5.1.2")],
)
def test_what_it_means_that_there_is_no_stream(no_stream: NoStream, kind: type[Outcome], status: str) -> None:
    found = outcome_of(Problem("no_stream", "none"), no_stream)
    assert type(found) is kind
    assert found.reply.status == status


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"servers": "nats://app:secret@127.0.0.1"}, "credentials"),
    ({"servers": "http://127.0.0.1"}, "is no server"),
    ({"servers": []}, "empty"),
    ({"body": "xml"}, "body"),
    ({"no_stream": "ignore"}, "no_stream"),
    ({"ack_timeout": 0}, "ack_timeout"),
]


@pytest.mark.parametrize(("options", "problem"), WRONG)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        NatsTransport(**options)
    assert "secret" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "postroom.transports.nats_client", raising=False)
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    monkeypatch.setattr("postroom.transports.nats_client", None, raising=False)
    monkeypatch.delattr("postroom.transports.nats_client")
    with pytest.raises(ConfigurationError, match=r"postroom\[nats\]"):
        NatsTransport()
