import dataclasses
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.envelopes import Envelope, Priority, Report, Submission, prepare_envelope
from postroom.errors import InvalidAddress, InvalidMessage, NoRecipients, TooManyRecipients, UsageError
from postroom.messages import Message, PreparedMessage, prepare

NOW = 1_700_000_000.0
MESSAGE = (
    b"From: Ann <ann@example.org>\r\nTo: B <bob@example.org>\r\n"
    b"Cc: c@example.org, bob@EXAMPLE.org\r\n\r\nHi\r\n"
)


def prepared(message: bytes | Message = MESSAGE, unique: str = "u1") -> PreparedMessage:
    return prepare(message, now=NOW, message_id_domain="x.example", unique=unique, max_size=10**6)


def envelope(limit: int = 100, message: bytes = MESSAGE, **given: Any) -> Envelope:
    return prepare_envelope(
        Submission(message=message, **given), prepared(message), now=NOW, max_recipients=limit
    )


def test_the_ordinary_envelope() -> None:
    assert envelope(sender="app@Example.org", to=["ann@example.org"]) == Envelope(
        sender="app@example.org",
        recipients=(Address("smtp", "ann@example.org"),),
        send_at=None,
        expires_at=None,
        priority=0,
        idempotency_key=None,
        report=frozenset({Report.FAILURE}),
        hold=False,
        digest=b"",
    )


def test_the_header_stands_in_for_what_is_not_given() -> None:
    made = envelope()
    assert made.sender == "ann@example.org"
    assert [str(address) for address in made.recipients] == ["smtp:bob@example.org", "smtp:c@example.org"]


@pytest.mark.parametrize(
    "to",
    [
        "ann@example.org",
        Address("smtp", "ann@example.org"),
        ["ann@example.org", "Ann <ann@EXAMPLE.org>", Address("smtp", "ann@example.org")],
        ("smtp:ann@example.org",),
        {"ann@example.org"},
    ],
)
def test_recipients_come_in_many_ways_and_each_once(to: Any) -> None:
    assert envelope(to=to).recipients == (Address("smtp", "ann@example.org"),)


def test_a_generator_is_read_no_further_than_the_limit() -> None:
    def endless() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"u{number}@example.org"

    with pytest.raises(TooManyRecipients) as caught:
        envelope(limit=3, to=endless())
    assert caught.value.field == "to"
    made = envelope(limit=3, to=(text for text in ["a@x", "b@x", "a@X", "c@x"]))
    assert [address.value for address in made.recipients] == ["a@x", "b@x", "c@x"]


@given(st.lists(st.sampled_from(["a@x", "B@x", "a@X", "sms:+15550100", "sms:+1 555 0100", "https://x"])))
def test_the_first_of_equal_recipients_wins(to: list[str]) -> None:
    if not to:
        with pytest.raises(NoRecipients):
            envelope(to=to)
        return
    recipients = envelope(to=to).recipients
    assert len(set(recipients)) == len(recipients)
    assert set(recipients) == {envelope(to=text).recipients[0] for text in to}
    assert recipients[0] == envelope(to=to[0]).recipients[0]


@pytest.mark.parametrize("to", [[], (), iter([])])
def test_nobody_is_an_error(to: Any) -> None:
    with pytest.raises(NoRecipients):
        envelope(to=to)
    with pytest.raises(NoRecipients):
        envelope(message=b"From: ann@example.org\r\n\r\n")


@pytest.mark.parametrize(
    ("to", "field"),
    [
        (["a@x", "b@x", "c@x", "d"], "to[3]"),
        (["a@x", None], "to[1]"),
        ([b"a@x"], "to[0]"),
        ("ann@example.org, bob@example.org", "to"),
        ("a@x\r\nb@x", "to"),
    ],
)
def test_a_malformed_recipient_is_named(to: Any, field: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        envelope(to=to)
    assert caught.value.field == field


@pytest.mark.parametrize("to", [b"ann@example.org", bytearray(b"x"), 5, object()])
def test_what_is_no_list_of_addresses(to: Any) -> None:
    with pytest.raises(UsageError, match="not a list of addresses"):
        envelope(to=to)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("", ""),
        ("<>", ""),
        ("App <app@bücher.example>", "app@xn--bcher-kva.example"),
        (Address("smtp", "app@example.org"), "app@example.org"),
        ("jörg@example.org", "jörg@example.org"),
    ],
)
def test_sender(sender: Any, expected: str) -> None:
    assert envelope(sender=sender).sender == expected


@pytest.mark.parametrize(
    "sender", ["sms:+15550100", "https://x", "nobody", "a@x\r\nRCPT TO:<b@x>", 5, ["a@x"]]
)
def test_a_sender_is_a_mailbox(sender: Any) -> None:
    with pytest.raises(InvalidAddress) as caught:
        envelope(sender=sender)
    assert caught.value.field == "sender"


def test_a_header_without_usable_sender_is_named() -> None:
    with pytest.raises(InvalidMessage, match="From"):
        envelope(message=b"From: nobody:;\r\n\r\n", to="a@x")
    with pytest.raises(InvalidAddress) as caught:
        envelope(message=b"From: a@-x-\r\n\r\n", to="a@x")
    assert caught.value.field == "From"
    with pytest.raises(InvalidAddress) as caught:
        envelope(message=b"From: a@x\r\nTo: b@x, c@-x-\r\n\r\n")
    assert caught.value.field == "To, Cc, Bcc[1]"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NOW + 5, NOW + 5),
        (int(NOW) + 5, NOW + 5),
        (timedelta(hours=1), NOW + 3600),
        (datetime.fromtimestamp(NOW + 5, UTC), NOW + 5),
        (datetime.fromtimestamp(NOW + 5, timezone(timedelta(hours=9))), NOW + 5),
    ],
)
def test_times(given: Any, expected: float) -> None:
    assert envelope(send_at=given).send_at == expected
    assert envelope(expires_at=given).expires_at == expected


def test_sending_in_the_past_is_at_once_but_expiring_then_is_an_error() -> None:
    assert envelope(send_at=NOW - 5).send_at == NOW - 5
    for expires_at in (NOW - 5, NOW, timedelta(0)):
        with pytest.raises(UsageError, match="in the past") as caught:
            envelope(expires_at=expires_at)
        assert caught.value.field == "expires_at"


@pytest.mark.parametrize("field", ["send_at", "expires_at"])
@pytest.mark.parametrize(
    "value",
    [
        datetime(2030, 1, 1),  # noqa: DTZ001 - it is the mistake
        date(2030, 1, 1),
        "tomorrow",
        True,
        float("nan"),
        float("inf"),
        NOW * 1000,
    ],
)
def test_what_is_no_time_is_refused(field: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        envelope(**{field: value})
    assert caught.value.field == field


def test_it_must_be_sent_before_it_expires() -> None:
    with pytest.raises(UsageError, match="not after send_at"):
        envelope(send_at=NOW + 10, expires_at=NOW + 10)
    made = envelope(send_at=NOW + 10, expires_at=NOW + 11)
    assert (made.send_at, made.expires_at) == (NOW + 10, NOW + 11)


@pytest.mark.parametrize("priority", Priority)
def test_priorities(priority: Priority) -> None:
    for number in (priority, priority.value):
        made = envelope(priority=number).priority
        assert made == priority
        assert type(made) is int


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 2),
        ("priority", -2),
        ("priority", True),
        ("priority", "1"),
        ("priority", None),
        ("hold", 1),
        ("hold", "yes"),
        ("hold", None),
        ("report", "failure"),
        ("report", {"whenever"}),
        ("report", None),
        ("report", 5),
        ("idempotency_key", ""),
        ("idempotency_key", "k" * 256),
        ("idempotency_key", "a\nb"),
        ("idempotency_key", "a\0"),
        ("idempotency_key", "a\ud800"),
        ("idempotency_key", b"k"),
        ("idempotency_key", 5),
    ],
)
def test_other_fields_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        envelope(**{field: value})
    assert caught.value.field == field
    assert caught.value.remedy


def test_reports_are_a_set_of_any_kind() -> None:
    assert envelope(report=[Report.DELAY, "success"]).report == {Report.DELAY, Report.SUCCESS}
    assert envelope(report=()).report == frozenset()


KEYED: dict[str, Any] = {"idempotency_key": "k", "sender": "a@x", "to": ["b@x", "c@x"]}


def test_the_same_call_has_the_same_digest() -> None:
    assert len(envelope(**KEYED).digest) == 32
    submission = Submission(message=MESSAGE, **KEYED, send_at=timedelta(hours=1))
    one = prepare_envelope(submission, prepared(unique="u1"), now=NOW, max_recipients=9)
    other = prepare_envelope(submission, prepared(unique="u2"), now=NOW + 60, max_recipients=9)
    assert one.digest == other.digest
    assert one.send_at != other.send_at
    changed: dict[str, Any] = {"to": (text for text in ["B <b@X>", "c@x", "b@x"])}
    again = envelope(**KEYED | changed)
    assert again.digest == envelope(**KEYED).digest


def test_the_same_composed_message_has_the_same_digest() -> None:
    message = Message(text="x", html="<p>x", sender="a@x", attachments=[("a", b"b")])
    submission = Submission(message=message, **KEYED)
    digests = {
        prepare_envelope(submission, prepared(message, unique), now=NOW, max_recipients=9).digest
        for unique in ("u1", "u2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "z@x"},
        {"to": ["b@x"]},
        {"to": ["c@x", "b@x"]},
        {"send_at": NOW + 1},
        {"send_at": timedelta(seconds=1)},
        {"expires_at": NOW + 1},
        {"priority": 1},
        {"report": ()},
        {"hold": True},
        {"message": MESSAGE + b"more\r\n"},
    ],
)
def test_another_payload_or_envelope_has_another_digest(change: dict[str, Any]) -> None:
    assert envelope(**KEYED | change).digest != envelope(**KEYED).digest


def test_submissions_are_frozen_values() -> None:
    submission = Submission(message=b"", to="a@x")
    assert submission == Submission(message=b"", to="a@x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        submission.hold = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
