"""Reports as others read them: bounce parsers, the standard library, people, and whoever tries to break them."""

from base64 import decodebytes
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from quopri import decodestring
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.envelopes import Report
from postroom.messages import prepare
from postroom.outcomes import Reply
from postroom.reports.composing import compose_report
from postroom.reports.facts import Action, FormerAddress, ReportedRecipient, ReportFacts
from postroom.reports.wording import TemplateWording, Text
from tests.support.reporting import CREATED, ORIGINAL, facts, failures, recipient, status_blocks, taken_apart

HEADER = [
    "Date", "From", "To", "Subject", "Message-ID", "In-Reply-To", "References", "Auto-Submitted",
    "X-Failed-Recipients", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
]  # fmt: skip
FIELDS = {
    "original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code", "last-attempt-date",
    "final-log-id", "will-retry-until", "x-postroom-original-address", "x-postroom-former-address", "x-postroom-list",
}  # fmt: skip


def parsed(report: bytes) -> EmailMessage:
    return message_from_bytes(report, policy=default)


def text_of(report: bytes) -> str:
    part = next(iter(parsed(report).iter_parts()))
    return cast("str", cast("EmailMessage", part).get_content()).replace("\r\n", "\n")


# What others understand


def test_a_bounce_parser_understands_a_failure_of_several_recipients() -> None:
    report = compose_report(
        facts(
            recipient("ann@example.net"),
            recipient("bob@example.com", index=1, expired=True, reply=Reply("full", "4.2.2", 452, "mx")),
            recipient("carl@example.org", Action.RELAYED, index=2),
            recipient("dora@example.org", Action.DELAYED, index=3),
        )
    )
    assert failures(report) == (
        {b"dora@example.org"},
        {b"ann@example.net", b"bob@example.com"},
    )


def test_a_bounce_parser_understands_a_delay_as_temporary() -> None:
    report = compose_report(
        facts(
            recipient("ann@example.net", Action.DELAYED),
            recipient("bob@example.net", Action.DELAYED, index=1, reply=None, attempts=0),
        )
    )
    assert failures(report) == ({b"ann@example.net", b"bob@example.net"}, set())


@pytest.mark.parametrize("action", [Action.DELIVERED, Action.RELAYED, Action.EXPANDED])
def test_a_bounce_parser_sees_no_failure_in_a_success(action: Action) -> None:
    report = compose_report(
        facts(recipient("ann@example.net", action), recipient("bob@example.net", action, index=1))
    )
    assert failures(report) == (set(), set())


def test_a_bounce_parser_understands_internationalised_domains() -> None:
    report = compose_report(facts(recipient("ann@bücher.example")))
    assert failures(report)[1] == {b"ann@xn--bcher-kva.example"}


@pytest.mark.parametrize("sender", ["app@example.org", "ünal@example.org"])
def test_an_internationalised_recipient_does_not_hide_the_others_from_a_bounce_parser(sender: str) -> None:
    """flufl.bounce 6 reports ASCII addresses only, and does not know the UTF-8 form of the delivery status."""
    report = compose_report(
        facts(recipient("josé@example.net"), recipient("ann@example.net", index=1), sender=sender)
    )
    assert failures(report)[1] == {b"ann@example.net"}


def test_a_bounce_parser_finds_the_mailbox_of_a_recipient_that_failed_over() -> None:
    report = compose_report(
        facts(
            recipient("sms:+15550100", original=Address("smtp", "bob@example.net"), reply=Reply("no credit"))
        )
    )
    assert failures(report)[1] == {b"bob@example.net"}


def test_the_standard_library_reads_the_report() -> None:
    report = parsed(compose_report(facts(recipient("ann@example.net"))))
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["To"] == "app@example.org"
    assert report["From"].addresses[0].display_name == "Mail Delivery System"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["In-Reply-To"] == report["References"] == "<m1@example.org>"
    text, status, original = report.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() == "message/rfc822"
    assert cast("EmailMessage", original.get_content())["Subject"] == "Invoice 4711"
    assert not [defect for part in report.walk() for defect in part.defects]


# The delivery status


def test_the_fields_of_a_failure() -> None:
    message, failed = status_blocks(
        compose_report(
            facts(
                recipient("ann@example.net", index=4, orcpt="rfc822;staff@example.net", via=("all", "staff")),
                envid="QQ314159",
            )
        )
    )
    assert message.items() == [
        ("Original-Envelope-Id", "QQ314159"),
        ("Reporting-MTA", "dns; mail.example.org"),
        ("Arrival-Date", "Tue, 14 Nov 2023 22:13:20 -0000"),
        ("X-Postroom-Message", "01HFABCDEFGHJ"),
    ]
    assert failed.items() == [
        ("Original-Recipient", "rfc822;staff@example.net"),
        ("Final-Recipient", "rfc822;ann@example.net"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.example.net"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 user unknown"),
        ("Last-Attempt-Date", "Tue, 14 Nov 2023 22:14:20 -0000"),
        ("Final-Log-ID", "01HFABCDEFGHJ/4"),
        ("X-Postroom-List", "all > staff"),
    ]


def test_a_delay_says_until_when_it_is_tried() -> None:
    _, delayed = status_blocks(
        compose_report(facts(recipient("ann@example.net", Action.DELAYED, retry_until=CREATED + 86_400)))
    )
    assert delayed["Action"] == "delayed"
    assert delayed["Status"] == "4.7.1"
    assert delayed["Will-Retry-Until"] == "Wed, 15 Nov 2023 22:13:20 -0000"


@pytest.mark.parametrize(
    ("address", "final", "diagnostic", "reply", "protocol"),
    [
        ("sms:+15550100", "x-sms;+15550100", "x-postroom; no credit", Reply("no credit"), ""),
        (
            "https://hooks.example.org/x?a=1",
            "x-https;https://hooks.example.org/x?a=1",
            "x-http; 410 gone",
            Reply("gone", "", 410, "hooks.example.org"),
            "http",
        ),
    ],
)
def test_recipients_of_other_types_have_address_types_of_their_own(
    address: str, final: str, diagnostic: str, reply: Reply, protocol: str
) -> None:
    _, failed = status_blocks(compose_report(facts(recipient(address, reply=reply, protocol=protocol))))
    assert failed["Final-Recipient"] == final
    assert failed["Diagnostic-Code"] == diagnostic
    assert failed["Status"] == "5.0.0"


def test_what_a_recipient_was_before_is_told() -> None:
    bob = Address("smtp", "bob@example.net")
    report = compose_report(
        facts(
            recipient(
                "sms:+15550100", original=bob, former=(FormerAddress(bob, Reply("gone", "5.1.1", 550)),)
            )
        )
    )
    _, failed = status_blocks(report)
    assert failed["X-Postroom-Original-Address"] == "rfc822;bob@example.net"
    assert failed["X-Postroom-Former-Address"] == "rfc822;bob@example.net; smtp; 550 5.1.1 gone"
    assert "tried before as <bob@example.net>: 550 5.1.1 gone" in text_of(report)


@pytest.mark.parametrize(
    ("action", "expired", "said", "status"),
    [
        (Action.FAILED, False, "5.7.1", "5.7.1"),
        (Action.FAILED, False, "4.2.2", "5.2.2"),
        (Action.FAILED, False, "2.0.0", "5.0.0"),
        (Action.FAILED, False, "nonsense", "5.0.0"),
        (Action.FAILED, True, "4.2.2", "4.2.2"),
        (Action.FAILED, True, "", "4.4.7"),
        (Action.DELAYED, False, "5.2.2", "4.2.2"),
        (Action.DELAYED, False, "", "4.0.0"),
        (Action.DELIVERED, False, "2.1.5", "2.1.5"),
        (Action.RELAYED, False, "4.1.5", "2.0.0"),
    ],
)
def test_the_status_fits_the_action(action: Action, expired: bool, said: str, status: str) -> None:
    _, group = status_blocks(
        compose_report(facts(recipient("ann@example.net", action, expired=expired, reply=Reply("x", said))))
    )
    assert group["Status"] == status


def test_internationalised_addresses_in_ascii_for_a_sender_in_ascii() -> None:
    report = compose_report(facts(recipient("josé=x@bücher.example", reply=Reply("größer", "5.2.3", 552))))
    _, failed = status_blocks(report)
    assert failed["Final-Recipient"] == r"utf-8;jos\x{E9}\x{3D}x@xn--bcher-kva.example"
    assert report.isascii()
    assert "<josé=x@xn--bcher-kva.example>" in text_of(report)


def test_internationalised_addresses_in_utf8_for_a_sender_in_utf8() -> None:
    original = ORIGINAL.replace(b"Invoice", "Fähre".encode())
    report = compose_report(
        facts(
            recipient("josé@example.net", reply=Reply("größer", "5.2.3", 552)),
            sender="ünal@example.org",
            original=original,
        )
    )
    (_, status, returned) = taken_apart(report).parts
    assert b"message/global-delivery-status" in status[0]
    assert "Final-Recipient: utf-8;josé@example.net\r\n".encode() in status[1]
    assert "smtp; 552 5.2.3 größer\r\n".encode() in status[1]
    assert b"message/global\r\n" in returned[0]
    assert returned[1] == original
    assert "To: <ünal@example.org>\r\n".encode() in report
    prepared = prepare(report, now=0, message_id_domain="x.example", unique="x", max_size=10**6)
    assert prepared.content == report
    assert prepared.smtputf8


# The message that comes back


@pytest.mark.parametrize(
    ("action", "more", "kind", "whole"),
    [
        (Action.FAILED, {}, b"message/rfc822", True),
        (Action.FAILED, {"ret": "full"}, b"message/rfc822", True),
        (Action.FAILED, {"ret": "hdrs"}, b"text/rfc822-headers", False),
        (Action.FAILED, {"max_original": len(ORIGINAL) - 1}, b"text/rfc822-headers", False),
        (Action.DELAYED, {"ret": "full"}, b"text/rfc822-headers", False),
        (Action.DELIVERED, {"ret": "full"}, b"text/rfc822-headers", False),
    ],
)
def test_what_is_returned(action: Action, more: dict[str, object], kind: bytes, whole: bool) -> None:
    report = compose_report(facts(recipient("ann@example.net", action), **more))
    head, content = taken_apart(report).parts[2]
    assert kind in head
    assert content == (ORIGINAL if whole else ORIGINAL.partition(b"\r\n\r\n")[0] + b"\r\n")
    what = "message itself" if whole else "header of the message"
    assert f"The {what} is attached." in text_of(report)


def test_without_the_octets_nothing_is_returned() -> None:
    report = compose_report(facts(recipient("ann@example.net"), original=None))
    assert len(taken_apart(report).parts) == 2
    assert "attached" not in text_of(report)


NASTY_ORIGINALS = [
    b"X: " + b"x" * 2000 + b"\r\n\r\n",
    b"From: a@example.org\n\nbare line ends\n",
    b"From: a@example.org\r\n\r\n--=_report_01HFABCDEFGHJ.report.0011223344aa\r\n\r\n--=_report_1_01HF",
    b"From: a@example.org\r\nX: \xc3\xa4\r\n\r\nlast line\xff without end = ",
]


@st.composite
def hostile_originals(draw: st.DrawFn) -> bytes:
    head = draw(
        st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace"))
    )
    body = draw(
        st.binary(max_size=300) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
    )
    whole = b"From: a@example.org\r\nX: " + head + b"\r\n\r\n" + body
    return draw(st.sampled_from([whole, body, *NASTY_ORIGINALS]))


@given(hostile_originals(), st.sampled_from(["app@example.org", "ünal@example.org"]), st.booleans())
def test_whatever_the_message_is_it_comes_back_octet_for_octet(
    original: bytes,
    sender: str,
    whole: bool,
) -> None:
    report = compose_report(
        facts(recipient("ann@example.net"), original=original, sender=sender), whole=whole
    )
    assert prepare(report, now=0, message_id_domain="x.example", unique="x", max_size=10**6).content == report
    parts = taken_apart(report).parts
    if not original:
        assert len(parts) == 2
        return
    head, content = parts[2]
    encoding = head.rpartition(b" ")[2]
    if encoding == b"base64":
        content = decodebytes(content)
    elif encoding == b"quoted-printable":
        content = decodestring(content.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    assert original.startswith(content)
    assert content == original or not whole


def test_of_an_endless_header_whole_lines_are_returned() -> None:
    original = (
        b"From: a@example.org\r\n" + b"X: " + b"x" * 70 + b"\r\n" + b"Y: yyy\r\n" * 10_000 + b"\r\nbody\r\n"
    )
    head, content = taken_apart(compose_report(facts(recipient("ann@example.net"), original=original))).parts[
        2
    ]
    assert b"text/rfc822-headers" in head
    assert len(content) <= 32_768
    assert original.startswith(content)
    assert content.endswith(b"\r\n")


@pytest.mark.parametrize(
    ("orcpt", "sender", "field"),
    [
        ("utf-8;josé@example.net", "app@example.org", r"utf-8;jos\x{E9}@example.net"),
        (r"utf-8;jos\x{E9}@example.net", "app@example.org", r"utf-8;jos\x{E9}@example.net"),
        ("x400;/C=DE", "app@example.org", "x400;/C=DE"),
        ("nonsense", "app@example.org", None),
    ],
)
def test_the_original_recipient_is_as_the_sender_named_it(orcpt: str, sender: str, field: str | None) -> None:
    _, failed = status_blocks(compose_report(facts(recipient("ann@example.net", orcpt=orcpt), sender=sender)))
    assert failed["Original-Recipient"] == field


def test_a_server_on_a_socket_is_named_by_its_path() -> None:
    _, failed = status_blocks(
        compose_report(facts(recipient("ann@example.net", reply=Reply("no", remote="/run/lmtp"))))
    )
    assert failed["Remote-MTA"] == "x-unix; /run/lmtp"


# What nobody can break

TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=st.sampled_from('ab \r\n\t\0=?;:<>@"\\é\ud800\u2028'), max_size=40),
    st.sampled_from(
        ["", "x\r\nBcc: victim@example.org", "=?utf-8?q?x?=", "x" * 1200, "ä" * 1200, "é " * 300]
    ),
)
REPLIES = st.builds(
    Reply, TEXTS, st.one_of(TEXTS, st.just("5.1.1")), st.one_of(st.none(), st.integers(0, 999)), TEXTS
)
ADDRESSES = st.one_of(
    st.builds(Address, st.sampled_from(["smtp", "sms", "https", "teams"]), TEXTS),
    st.just(Address("smtp", "ann@example.net")),
    st.just(Address("https", "//hooks.example.org/" + "x" * 2000)),
)
RECIPIENTS = st.builds(
    ReportedRecipient,
    index=st.integers(0, 9999),
    address=ADDRESSES,
    action=st.sampled_from(Action),
    reply=st.one_of(st.none(), REPLIES),
    protocol=st.sampled_from(["smtp", "http", ""]),
    expired=st.booleans(),
    attempts=st.integers(0, 99),
    last_attempt=st.one_of(st.none(), st.floats(0, 4e9)),
    retry_until=st.one_of(st.none(), st.floats(0, 4e9)),
    orcpt=TEXTS,
    original=st.one_of(st.none(), ADDRESSES),
    via=st.lists(TEXTS, max_size=3).map(tuple),
    former=st.lists(st.builds(FormerAddress, ADDRESSES, REPLIES), max_size=2).map(tuple),
)


@st.composite
def hostile_facts(draw: st.DrawFn) -> ReportFacts:
    authors = st.sampled_from(["Püstmaster <p@example.org>", '"a \\" b" <p@example.org>', "p@example.org"])
    return facts(
        *draw(st.lists(RECIPIENTS, min_size=1, max_size=4)),
        sender=draw(TEXTS),
        to="app@example.org",
        subject=draw(TEXTS),
        message_id=draw(st.one_of(TEXTS, st.just("<m1@example.org>"))),
        envid=draw(TEXTS),
        author=draw(authors),
    )


FACTS = hostile_facts()


@given(FACTS)
@example(
    facts(recipient("ann@example.net", reply=Reply("x\r\n\r\n--=_report_01HFABCDEFGHJ.report.0011223344aa")))
)
def test_no_field_and_no_part_can_be_smuggled_in(given_facts: ReportFacts) -> None:
    report = compose_report(given_facts)
    taken = taken_apart(report)
    assert [name for name in HEADER if name in taken.names] == taken.names
    assert len(taken.names) >= 9
    assert len(taken.parts) == 3
    assert report.isascii()
    assert max(map(len, report.split(b"\r\n"))) <= 998
    blocks = status_blocks(report)
    assert len(blocks) == 1 + len(given_facts.recipients)
    for block, one in zip(blocks[1:], given_facts.recipients, strict=True):
        assert {name.lower() for name in block.keys()} <= FIELDS  # noqa: SIM118 - it is no mapping
        assert block["Action"] == one.action
        assert len(block.get_all("Final-Recipient", [])) == 1
        assert len(block.get_all("X-Postroom-Former-Address", [])) == len(one.former)


@given(FACTS)
def test_every_report_can_be_submitted_as_it_is(given_facts: ReportFacts) -> None:
    report = compose_report(given_facts)
    prepared = prepare(report, now=0, message_id_domain="x.example", unique="x", max_size=10**7)
    assert prepared.content == report


def test_an_author_that_is_no_mailbox_cannot_break_out_of_its_field() -> None:
    report = compose_report(
        facts(recipient("ann@example.net"), author="x\r\nBcc: victim@example.org\r\n\r\n")
    )
    assert taken_apart(report).names == HEADER
    assert b"From: x Bcc: victim@example.org\r\n" in report


def test_a_subject_is_repeated_in_any_language() -> None:
    report = compose_report(facts(recipient("ann@example.net"), subject="Die Fähre nach Åland " * 6))
    assert report.isascii()
    assert str(parsed(report)["Subject"]).startswith("Undelivered: Die Fähre nach Åland Die")
    assert max(map(len, report.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 78


# The words


def test_what_a_stranger_reads() -> None:
    report = compose_report(
        facts(recipient("ann@example.net"), recipient("bob@example.net", Action.DELIVERED, index=1), total=3)
    )
    assert text_of(report) == (
        "This is the mail system at mail.example.org.\n"
        "\n"
        "Your message did not reach one of its 3 recipients.\n"
        "It will not be tried again for:\n"
        "\n"
        "<ann@example.net>\n"
        "    mx.example.net said: 550 5.1.1 user unknown\n"
        "\n"
        "Arrived:\n"
        "\n"
        "<bob@example.net>\n"
        "    delivered\n"
        "\n"
        "Subject:   Invoice 4711\n"
        "Sent:      Tue, 14 Nov 2023 22:13:20 -0000\n"
        "From:      app@example.org\n"
        "Reference: 01HFABCDEFGHJ\n"
        "\n"
        "The message itself is attached.\n"
        "\n"
        "Details for programs follow (RFC 3464).\n"
    )


def test_a_delay_tells_people_to_do_nothing() -> None:
    text = text_of(
        compose_report(facts(recipient("ann@example.net", Action.DELAYED, retry_until=CREATED + 86_400)))
    )
    assert "THIS IS A WARNING ONLY" in text
    assert "will be tried until Wed, 15 Nov 2023 22:13:20 -0000" in text


def test_only_some_of_many_recipients_are_named_to_people() -> None:
    many = [recipient(f"r{number}@example.net", index=number) for number in range(150)]
    report = compose_report(facts(*many))
    assert text_of(report).count("@example.net>") == 100
    assert "... and 50 more" in text_of(report)
    assert len(status_blocks(report)) == 151


def test_the_words_can_be_replaced() -> None:
    wording = TemplateWording("Nicht zugestellt: $subject", "Größe: $failed_count\n\n$failed\n$returned")
    report = compose_report(facts(recipient("ann@example.net")), wording)
    assert parsed(report)["Subject"] == "Nicht zugestellt: Invoice 4711"
    assert text_of(report).startswith("Größe: its recipient\n\n<ann@example.net>\n")


@pytest.mark.parametrize("empty", [True, False])
def test_words_that_fail_cost_nobody_the_report(
    empty: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_facts: ReportFacts, _what: str) -> Text:
        return Text("\r\n", "") if empty else Text("x", cast("str", None))

    report = compose_report(facts(recipient("ann@example.net")), broken)
    assert parsed(report)["Subject"] == "Undelivered: Invoice 4711"
    assert "English is used" in caplog.text


def test_the_kind_of_a_mixed_report_is_its_worst() -> None:
    delayed, good = recipient("a@example.net", Action.DELAYED), recipient("b@example.net", Action.RELAYED)
    assert facts(good).kind is Report.SUCCESS
    assert facts(good, delayed).kind is Report.DELAY
    assert facts(good, delayed, recipient("c@example.net")).kind is Report.FAILURE
