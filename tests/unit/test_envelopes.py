import dataclasses
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.envelopes import Envelope, Priority, Recipient, Report, Submission, prepare_envelope
from postroom.errors import InvalidAddress, InvalidMessage, NoRecipients, TooManyRecipients, UsageError
from postroom.expansion import Expander
from postroom.messages import Message, PreparedMessage, prepare
from postroom.options import MessageOptions, RecipientOptions
from postroom.windows import parse_window

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
        tenant="app@example.org",
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
        ("tenant", ""),
        ("tenant", "t" * 256),
        ("tenant", "a\0b"),
        ("tenant", 5),
        ("ordering_key", ""),
        ("ordering_key", "\0transport:smtp"),
        ("ordering_key", b"k"),
        ("window", "whenever"),
        ("window", "Mo-Fr Nowhere/Land"),
        ("window", 5),
        ("ret", "hdrs"),
        ("ret", "Full"),
        ("ret", []),
        ("ret", 5),
        ("envid", ""),
        ("envid", "ü"),
        ("envid", "a\tb"),
        ("envid", "a\n"),
        ("envid", "x" * 101),
        ("envid", "=" * 34),
        ("envid", "a b" * 21),
        ("envid", b"x"),
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


OLD_DIGEST = "3e4662a2a5b4aaebea34af65c08024784d75f689f8bca9d67bbc815031d3f815"
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
        {"tenant": "a@x"},
        {"ordering_key": "o"},
        {"window": "Mo-Fr"},
        {"ret": "full"},
        {"envid": "e"},
        {"to": [Recipient("b@x", alternatives=["sms:+15550100"]), "c@x"]},
        {"to": [Recipient("b@x", report=()), "c@x"]},  # type: ignore[arg-type]
        {"to": [Recipient("b@x", orcpt="rfc822;z@x"), "c@x"]},
    ],
)
def test_another_payload_or_envelope_has_another_digest(change: dict[str, Any]) -> None:
    assert envelope(**KEYED | change).digest != envelope(**KEYED).digest


def test_submissions_are_frozen_values() -> None:
    submission = Submission(message=b"", to="a@x")
    assert submission == Submission(message=b"", to="a@x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        submission.hold = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# What may be said beyond the ordinary


def test_the_sender_is_the_tenant_unless_another_is_named() -> None:
    assert envelope(sender="a@x").tenant == "a@x"
    assert envelope(sender="").tenant == ""
    assert envelope(tenant="Künde 1").tenant == "Künde 1"


def test_what_is_said_of_the_message_is_kept_as_options() -> None:
    assert envelope().options is None
    said = envelope(ret="headers", envid="x" * 100, window="mo-fr 9:00-17:00", ordering_key="o" * 255)
    assert said.options == MessageOptions(ret="hdrs", envid="x" * 100, window="Mo-Fr 09:00-17:00 UTC")
    assert said.ordering_key == "o" * 255
    assert said.window == parse_window("Mo-Fr 09:00-17:00")
    window = parse_window("Sa Europe/Berlin")
    assert envelope(window=window).window is window
    assert envelope(ret="full").options == MessageOptions(ret="full")


@pytest.mark.parametrize("envid", ["=" * 33, "a b" * 20, "+" * 33 + "x", "QQ314159", "~!"])
def test_envids_count_as_xtext(envid: str) -> None:
    options = envelope(envid=envid).options
    assert options is not None
    assert options.envid == envid


SMS = Address("sms", "+15550100")
B = Address("smtp", "b@x")


def test_recipients_of_which_there_is_more_to_say() -> None:
    made = envelope(
        to=[
            "a@x",
            Recipient("B <b@X>", ["c@x", "b@x", "sms:+1 555 0100", "c@X"], {Report.SUCCESS}, "rfc822;B@x"),
            Recipient("c@x"),
            Recipient("d@x", report=frozenset()),
        ]
    )
    assert [address.value for address in made.recipients] == ["a@x", "b@x", "c@x", "d@x"]
    assert made.said == {
        B: RecipientOptions(alternatives=(Address("smtp", "c@x"), SMS), orcpt="rfc822;B@x", report="success"),
        Address("smtp", "d@x"): RecipientOptions(report=""),
    }
    assert dict(envelope(to=["a@x"]).said) == {}


def test_one_recipient_needs_no_list() -> None:
    made = envelope(to=Recipient("b@x", alternatives="sms:+15550100"))
    assert made.recipients == (B,)
    assert made.said[B].alternatives == (SMS,)
    assert envelope(to=Recipient(B, alternatives=SMS)).said == made.said


def test_what_is_said_first_of_a_recipient_counts() -> None:
    said, more = Recipient("b@x", orcpt="rfc822;1@x"), Recipient("b@x", orcpt="rfc822;2@x")
    assert envelope(to=[said, more, "b@x"]).said[B].orcpt == "rfc822;1@x"
    assert dict(envelope(to=["b@x", said]).said) == {}


@pytest.mark.parametrize(
    ("recipient", "field"),
    [
        (Recipient("b@"), "to[1]"),
        (Recipient(5), "to[1]"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (Recipient("b@x", alternatives=["c@x", "c@"]), "to[1].alternatives[1]"),
        (Recipient("b@x", alternatives=["list:staff"]), "to[1].alternatives[0]"),
        (Recipient("b@x", alternatives=5), "to[1].alternatives"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (Recipient("b@x", alternatives=[f"{n}@x" for n in range(17)]), "to[1].alternatives"),
        (Recipient("b@x", report="success"), "to[1].report"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (Recipient("b@x", orcpt="b@x"), "to[1].orcpt"),
        (Recipient("b@x", orcpt="rfc822;"), "to[1].orcpt"),
        (Recipient("b@x", orcpt=";b@x"), "to[1].orcpt"),
        (Recipient("b@x", orcpt="rfc 822;b@x"), "to[1].orcpt"),
        (Recipient("b@x", orcpt="rfc822;ü@x"), "to[1].orcpt"),
        (Recipient("b@x", orcpt="rfc822;b\r\nDATA"), "to[1].orcpt"),
        (Recipient("b@x", orcpt="utf-8;\ud800"), "to[1].orcpt"),
        (Recipient("b@x", orcpt="rfc822;" + "b" * 494), "to[1].orcpt"),
        (Recipient("b@x", orcpt=None), "to[1].orcpt"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ],
)
def test_malformed_recipients_are_named(recipient: Recipient, field: str) -> None:
    with pytest.raises(UsageError) as caught:
        envelope(to=["a@x", recipient])
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("orcpt", ["rfc822;" + "b" * 493, "utf-8;ü@x", "x400;/c=de/", "rfc822;b+c=d@x"])
def test_original_recipients(orcpt: str) -> None:
    assert envelope(to=Recipient("b@x", orcpt=orcpt)).said[B].orcpt == orcpt


def test_digests_of_what_could_be_said_before_are_as_before() -> None:
    """Keys that an earlier version stored still match: these octets are on disks."""
    digest = envelope(**KEYED, send_at=timedelta(hours=1)).digest.hex()
    assert digest == OLD_DIGEST


# Distribution lists


def listed(to: Any, members: list[str], **given: Any) -> Envelope:
    expander = Expander({"staff": members, "empty": []}, names={"Bob": "b@x"})
    submission = Submission(message=MESSAGE, to=to, **given)
    return prepare_envelope(submission, prepared(), now=NOW, max_recipients=3, expander=expander)


@pytest.mark.parametrize(
    "to", ["staff", ["list:staff"], ["b@x", "staff"], Recipient("staff"), ["Bob", "staff"]]
)
def test_lists_are_expanded_wherever_recipients_are_named(to: Any) -> None:
    made = listed(to, ["b@x", "c@x"])
    assert [address.value for address in made.recipients] == ["b@x", "c@x"]
    assert made.said[Address("smtp", "c@x")] == RecipientOptions(via=("list:staff",))


def test_the_header_may_name_lists_with_addresses() -> None:
    expander = Expander({"bob@example.org": ["x@x"]})
    made = prepare_envelope(
        Submission(message=MESSAGE), prepared(), now=NOW, max_recipients=3, expander=expander
    )
    assert [address.value for address in made.recipients] == ["x@x", "c@example.org"]


def test_nobody_on_the_lists_is_an_error() -> None:
    with pytest.raises(NoRecipients, match="names nobody: list:empty is empty"):
        listed(["empty"], [])
    with pytest.raises(NoRecipients, match="names nobody: list:staff, list:empty are empty"):
        listed(["staff", "empty"], [])
    with pytest.raises(NoRecipients, match="give at least one"):
        listed([], [])


def test_too_many_on_the_lists_are_an_error() -> None:
    with pytest.raises(TooManyRecipients):
        listed("staff", [f"{n}@x" for n in range(4)])


def test_a_key_means_the_list_and_not_who_is_on_it_at_the_moment() -> None:
    key: dict[str, Any] = {"idempotency_key": "k"}
    digest = listed(["b@x", "staff"], ["b@x"], **key).digest
    assert listed(["b@x", "staff"], ["c@x", "d@x"], **key).digest == digest
    assert listed(["b@x"], [], **key).digest != digest
    plain = envelope(to=["b@x"], **key).digest
    assert listed(["b@x"], [], **key).digest == plain
