"""What other systems report, in the forms in which they write it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.inbound.values import RemoteReport, ReportedRecipient
from postroom.reports.composing import compose_report
from postroom.reports.facts import Action
from postroom.reports.reading import read_reports
from postroom.tokens import Tokens
from tests.support.reporting import facts, failures, recipient

TOKENS = Tokens(bytes(range(32)), "bounces+{token}@example.org")
VERP = TOKENS.address_for(4711, 3)
HEAD = b"Message-ID: <m1@example.org>\r\nFrom: App <app@example.org>\r\nSubject: Invoice\r\n"


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def multipart(
    kind: str,
    said: str | bytes,
    *,
    whole: str = "multipart/report; report-type=delivery-status",
    returned: bytes | None = b"Content-Type: text/rfc822-headers\r\n\r\n" + HEAD,
    head: str = "",
    encoding: str = "",
) -> bytes:
    """Return a report of three parts; ``kind`` is the type of the second."""
    said = crlf(said) if isinstance(said, str) else said
    coded = f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else ""
    back = b"" if returned is None else b"--b=1\r\n" + returned + b"\r\n"
    return (
        crlf(f"From: MAILER-DAEMON@mx.example.net\nTo: app@example.org\n{head}MIME-Version: 1.0\n")
        + f'Content-Type: {whole}; boundary="b=1"\r\n\r\n'.encode()
        + b"--b=1\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n"
        + f"--b=1\r\nContent-Type: {kind}\r\n{coded}\r\n".encode()
        + said
        + b"\r\n"
        + back
        + b"--b=1--\r\n"
    )


def only(content: bytes, **more: object) -> RemoteReport:
    (report,) = read_reports(content, **more)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # by name
    return report


POSTFIX = multipart(
    "message/delivery-status",
    """\
Reporting-MTA: dns; mx.example.net
X-Postfix-Queue-ID: 4Bq2
X-Postfix-Sender: rfc822; app@example.org
Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000 (UTC)

Final-Recipient: rfc822; ann@example.net
Original-Recipient: rfc822;ann.other@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mail.example.net
Diagnostic-Code: smtp; 550 5.1.1 <ann@example.net>: Recipient address rejected:
    User unknown in local recipient table
""",
    returned=b"Content-Description: Undelivered Message\r\nContent-Type: message/rfc822\r\n\r\n"
    + HEAD
    + b"\r\nHi\r\n",
    head="Return-Path: <>\nAuto-Submitted: auto-replied\nDate: Tue, 14 Nov 2023 22:14:00 +0000\n",
)
EXIM = multipart(
    "message/delivery-status",
    """\
Reporting-MTA: dns; exim.example.net

Action: failed
Final-Recipient: rfc822;bob@example.com
Status: 5.0.0
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; 550 No such user here
""",
    head="X-Failed-Recipients: bob@example.com\n",
)
EXCHANGE = multipart(
    "message/delivery-status",
    """\
Reporting-MTA: dns;EX01.corp.example.net
Received-From-MTA: dns;mail.example.org
Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000

Final-Recipient: rfc822;carl@corp.example.net
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found
X-Display-Name: carl@corp.example.net
""",
    returned=b"Content-Type: message/rfc822\r\n\r\nReceived: from x\r\n" + HEAD + b"\r\nHi\r\n",
)
QMAIL = crlf("""\
Return-Path: <>
From: MAILER-DAEMON@qmail.example.net
To: bounces@example.org
Subject: failure notice

Hi. This is the qmail-send program at qmail.example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up.

<dora@example.net>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.

Return-Path: <app@example.org>
Message-ID: <m1@example.org>
Subject: Invoice

Hello
""")


@pytest.mark.parametrize(
    ("content", "address", "status", "reporter", "text"),
    [
        (POSTFIX, "ann@example.net", "5.1.1", "mx.example.net",
         "550 5.1.1 <ann@example.net>: Recipient address rejected: User unknown in local recipient table"),
        (EXIM, "bob@example.com", "5.0.0", "exim.example.net", "550 No such user here"),
        (EXCHANGE, "carl@corp.example.net", "5.1.10", "EX01.corp.example.net",
         "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"),
    ],
)  # fmt: skip
def test_the_shapes_of_well_known_servers(
    content: bytes, address: str, status: str, reporter: str, text: str
) -> None:
    report = only(content)
    (said,) = report.recipients
    assert (said.action, said.address, said.status, said.text) == ("failed", address, status, text)
    assert (report.kind, report.reporter, report.message_id) == ("dsn", reporter, "<m1@example.org>")
    assert report.key is None
    assert report.told
    # flufl.bounce prefers the original recipient where there is one.
    assert failures(content)[1] == {(said.original or said.address).encode()}


def test_what_happened_when_and_to_whom_originally() -> None:
    report = only(POSTFIX)
    assert report.recipients[0].original == "ann.other@example.net"
    assert report.at == 1_700_000_040.0
    dated = POSTFIX.replace(
        b"Action: failed", b"Last-Attempt-Date: Tue, 14 Nov 2023 22:13:30 +0000\r\nAction: failed"
    )
    assert only(dated).at == 1_700_000_010.0


def test_line_ends_do_not_matter() -> None:
    assert read_reports(POSTFIX.replace(b"\r\n", b"\n")) == read_reports(POSTFIX)


@pytest.mark.parametrize("action", list(Action))
def test_our_own_reports_come_back(action: Action) -> None:
    written = compose_report(
        facts(
            recipient("ann@example.net", action), recipient("bob+x@example.com", action, index=1), envid="e 1"
        )
    )
    report = only(written)
    assert [(said.action, said.address) for said in report.recipients] == [
        (action.value, "ann@example.net"),
        (action.value, "bob+x@example.com"),
    ]
    assert (report.envid, report.message_id, report.reporter) == (
        "e 1",
        "<m1@example.org>",
        "mail.example.org",
    )
    temporary, permanent = failures(written)
    assert permanent == ({b"ann@example.net", b"bob+x@example.com"} if action is Action.FAILED else set())
    assert bool(temporary) == (action is Action.DELAYED)


@pytest.mark.parametrize("sender", ["app@example.org", "ünal@example.org"])
def test_international_addresses_and_other_types_come_back(sender: str) -> None:
    written = compose_report(
        facts(recipient("josé@bücher.example"), recipient("sms:+15550100", index=1), sender=sender)
    )
    assert [said.address for said in only(written).recipients] == [
        "josé@xn--bcher-kva.example",
        "sms:+15550100",
    ]


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_transfer_encodings_are_taken_away(encoding: str) -> None:
    said = (
        "Reporting-MTA: dns; mx\r\n\r\nFinal-Recipient: rfc822;a@b.c\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    )
    octets = base64.encodebytes(said.encode()) if encoding == "base64" else said.encode()
    back = (
        b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(HEAD)
    )
    report = only(multipart("message/delivery-status", octets, encoding=encoding, returned=back))
    assert report.recipients == (
        ReportedRecipient(action="failed", address="a@b.c", status="5.1.1", text="5.1.1"),
    )
    assert report.message_id == "<m1@example.org>"


@pytest.mark.parametrize(
    "whole", ["multipart/mixed", "multipart/report", "multipart/report; report-type=disposition-notification"]
)
def test_a_wrong_label_does_not_hide_a_report(whole: str) -> None:
    said = "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822;a@b.c\nAction: failed\nStatus: 5.1.1\n"
    assert only(multipart("message/delivery-status", said, whole=whole)).recipients[0].address == "a@b.c"


@pytest.mark.parametrize(
    "kind", ["message/rfc822", "message/global", "message/global-headers", "text/rfc822-headers"]
)
def test_the_returned_message_may_have_any_of_its_types(kind: str) -> None:
    said = "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822;a@b.c\nAction: failed\nStatus: 5.1.1\n"
    back = f"Content-Type: {kind}\r\n\r\n".encode() + HEAD
    assert only(multipart("message/delivery-status", said, returned=back)).message_id == "<m1@example.org>"
    assert only(multipart("message/delivery-status", said, returned=None)).message_id == ""


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("rfc822;ann@example.net", "ann@example.net"),
        ("RFC822; <ann@example.net>", "ann@example.net"),
        ("rfc822; ann@example.net (Ann)", "ann@example.net"),
        ("ann@example.net", "ann@example.net"),
        ("rfc822; ann+2Btag@example.net", "ann+tag@example.net"),
        ("rfc822; ann+20@example.net", "ann+20@example.net"),
        ("utf-8; jos\\x{E9}@example.net", "josé@example.net"),
        ("utf-8; josé@example.net", "josé@example.net"),
        ("utf-8; \\x{D800}\\x{110000}@example.net", "\ufffd\ufffd@example.net"),
        ("x-https; //hooks.example.org/x", "https://hooks.example.org/x"),
        ("x400; /c=de/", ""),
        ("rfc822; a@b.c, d@e.f", ""),
    ],
)
def test_addresses_and_their_types(value: str, address: str) -> None:
    said = f"Reporting-MTA: dns; mx\n\nFinal-Recipient: {value}\nAction: delayed\nStatus: 4.4.1\n"
    assert only(multipart("message/delivery-status", said)).recipients[0].address == address


def test_recipients_of_different_fates_and_lines_that_are_no_fields() -> None:
    said = """\

Reporting-MTA: dns; mx


garbage without a colon
Final-Recipient: rfc822; a@example.net
Action: Failed (bounced)
Status: 5.2.2 (mailbox full)

Final-Recipient: rfc822; b@example.net
Action: unheard-of

Final-Recipient: rfc822; c@example.net
Status: 4.4.7

Action: failed
Status: 5.0.0

Final-Recipient: rfc822; d@example.net
Status: 2.0.0
"""
    assert only(multipart("message/delivery-status", said)).recipients == (
        ReportedRecipient(
            action="failed", address="a@example.net", status="5.2.2", text="5.2.2 (mailbox full)"
        ),
        ReportedRecipient(action="delayed", address="c@example.net", status="4.4.7", text="4.4.7"),
    )


def test_no_more_than_a_thousand_recipients_are_read() -> None:
    said = "Reporting-MTA: dns; mx\n" + "".join(
        f"\nFinal-Recipient: rfc822; u{n}@example.net\nAction: failed\nStatus: 5.1.1\n" for n in range(1200)
    )
    assert len(only(multipart("message/delivery-status", said)).recipients) == 1000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"From: ann@example.net\r\nSubject: 5.1.1\r\n\r\n550 5.1.1 user unknown\r\n",
        multipart("message/delivery-status", ""),
        multipart("message/delivery-status", "Reporting-MTA: dns; mx\n\nAction: failed\nStatus: 5.1.1\n"),
        multipart("message/delivery-status", "Final-Recipient: rfc822; a@b.c\nAction: exploded\n"),
        multipart("message/disposition-notification", "Final-Recipient: rfc822; a@b.c\n"),
        multipart("message/disposition-notification", "Disposition: automatic-action/x; processed\n"),
        multipart("message/feedback-report", "Feedback-Type: not-spam\n"),
        multipart("message/feedback-report", "Version: 1\n"),
        multipart("message/feedback-report", ""),
        multipart("message/disposition-notification", ""),
        multipart("text/plain", "Final-Recipient: rfc822; a@b.c\nAction: failed\n"),
        QMAIL,
    ],
)
def test_what_is_broken_or_no_report_is_ordinary_mail(content: bytes) -> None:
    assert read_reports(content) == ()
    assert read_reports(content, recipients=["app@example.org"], tokens=TOKENS, sender="") == ()


def test_a_report_within_a_forwarded_message_is_not_ours_to_read() -> None:
    forwarded = multipart(
        "message/rfc822", POSTFIX.replace(b"b=1", b"inner"), whole="multipart/mixed", returned=None
    )
    assert read_reports(forwarded) == ()


# Disposition notifications and feedback


def mdn(disposition: str) -> bytes:
    return multipart(
        "message/disposition-notification",
        "Reporting-UA: desk.example.net; Reader 1.0\nOriginal-Recipient: rfc822;ann.other@example.net\n"
        "Final-Recipient: rfc822;ann@example.net\nOriginal-Message-ID: <m2@example.org>\n"
        f"Disposition: {disposition}\n",
        whole="multipart/report; report-type=disposition-notification",
    )


@pytest.mark.parametrize(
    ("disposition", "action"),
    [
        ("manual-action/MDN-sent-manually; displayed", "displayed"),
        ("automatic-action/MDN-sent-automatically;Deleted/error", "deleted"),
    ],
)
def test_a_disposition_notification(disposition: str, action: str) -> None:
    report = only(mdn(disposition))
    (said,) = report.recipients
    assert (said.action, said.address, said.original) == (action, "ann@example.net", "ann.other@example.net")
    assert (report.kind, report.message_id) == ("mdn", "<m2@example.org>")
    assert report.reporter == "desk.example.net; Reader 1.0"


def feedback(more: str = "", returned: bytes = b"Content-Type: message/rfc822\r\n\r\n" + HEAD) -> bytes:
    return multipart(
        "message/feedback-report",
        "Feedback-Type: abuse\nUser-Agent: Loop/1.0\nVersion: 1\nReporting-MTA: dns; isp.example.net\n"
        f"Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000\n{more}",
        whole="multipart/report; report-type=feedback-report",
        returned=returned,
    )


def test_a_complaint() -> None:
    report = only(feedback("Original-Rcpt-To: <ann@example.net>\nOriginal-Rcpt-To: bob@example.net\n"))
    assert [(said.action, said.address, said.text) for said in report.recipients] == [
        ("complaint", "ann@example.net", "abuse"),
        ("complaint", "bob@example.net", "abuse"),
    ]
    assert (report.kind, report.message_id, report.reporter) == (
        "feedback",
        "<m1@example.org>",
        "isp.example.net",
    )
    assert report.at == 1_700_000_000.0


def test_a_complaint_whose_recipient_is_kept_secret_is_known_by_the_return_path() -> None:
    report = only(feedback(f"Original-Mail-From: <{VERP}>\n"), tokens=TOKENS)
    assert (report.key, report.recipients[0].index, report.recipients[0].address) == (4711, 3, "")
    assert report.told
    back = f"Content-Type: message/rfc822\r\n\r\nReturn-Path: <{VERP}>\r\n".encode() + HEAD
    assert only(feedback(returned=back), tokens=TOKENS).key == 4711
    assert only(feedback("Original-Mail-From: <app@example.org>\n"), tokens=TOKENS).key is None


# Whose signature it is


def test_the_address_that_a_report_came_to_tells_whom_it_is_about() -> None:
    report = only(POSTFIX, recipients=["postmaster@example.org", VERP.upper()], tokens=TOKENS)
    assert report.key == 4711
    assert [said.index for said in report.recipients] == [3]
    assert not report.told


@pytest.mark.parametrize("field", ["Delivered-To", "X-Original-To", "Envelope-To"])
def test_the_header_tells_it_where_the_envelope_is_not_known(field: str) -> None:
    content = f"{field}: {VERP}\r\n".encode() + POSTFIX
    assert only(content, tokens=TOKENS).key == 4711
    assert only(content, recipients=["app@example.org"], tokens=TOKENS).key is None
    to = POSTFIX.replace(b"To: app@example.org", f"To: Bounces <{VERP}>".encode())
    assert only(to, tokens=TOKENS).key == 4711
    assert only(to).key is None


def test_a_forged_signature_is_not_believed() -> None:
    forged = Tokens(b"another secret of 32 octets ....", "bounces+{token}@example.org")
    report = only(POSTFIX, recipients=[forged.address_for(4711, 3)], tokens=TOKENS)
    assert report.key is None
    assert report.recipients[0].index is None
    assert report.told
    assert read_reports(QMAIL, recipients=[forged.address_for(4711, 3)], tokens=TOKENS) == ()


def test_a_signed_envelope_id_tells_the_message() -> None:
    def with_envid(envid: str) -> bytes:
        return POSTFIX.replace(b"Reporting-MTA", f"Original-Envelope-Id: {envid}\r\nReporting-MTA".encode())

    report = only(with_envid(TOKENS.envid_for(4711)), tokens=TOKENS)
    assert (report.key, report.recipients[0].index, report.told) == (4711, None, True)
    assert only(with_envid(TOKENS.envid_for(4711))).key is None
    assert only(with_envid("4711"), tokens=TOKENS).key is None


def test_the_failure_among_several_fates_of_one_recipient_comes_first() -> None:
    said = (
        "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; a@b.c\nAction: delivered\nStatus: 2.0.0\n"
        "\nFinal-Recipient: rfc822; d@e.f\nAction: failed\nStatus: 5.1.1\n"
    )
    report = only(multipart("message/delivery-status", said), recipients=[VERP], tokens=TOKENS)
    assert [(s.action, s.address, s.index) for s in report.recipients] == [
        ("failed", "d@e.f", 3),
        ("delivered", "a@b.c", 3),
    ]


# Bounces in words


def test_a_bounce_of_qmail_to_an_address_of_ours() -> None:
    report = only(QMAIL, recipients=[VERP], tokens=TOKENS)
    assert report.recipients == (
        ReportedRecipient(
            action="failed", address="dora@example.net", status="5.1.1", index=3,
            text="Sorry, no mailbox here by that name. (#5.1.1)",
        ),
    )  # fmt: skip
    assert (report.key, report.message_id, report.told) == (4711, "<m1@example.org>", False)
    assert failures(QMAIL)[1] == {b"dora@example.net"}


EXIM_WORDS = crlf("""\
Return-path: <>
From: Mail Delivery System <Mailer-Daemon@exim.example.net>
X-Failed-Recipients: bob@example.com
Auto-Submitted: auto-replied
Subject: Mail delivery failed: returning message to sender

This message was created automatically by mail delivery software.

  bob@example.com
    SMTP error from remote mail server after RCPT TO:<bob@example.com>:
    host mx.example.com [192.0.2.1]: 550-5.1.1 The account does not exist

------ This is a copy of the message, including all the headers. ------

Message-ID: <m1@example.org>
Subject: Status 5.9.9
""")


def test_a_bounce_in_words_with_a_permanent_status() -> None:
    report = only(EXIM_WORDS, recipients=[VERP], tokens=TOKENS)
    (said,) = report.recipients
    assert (said.action, said.address, said.status, said.index) == ("failed", "bob@example.com", "5.1.1", 3)
    assert said.text == "host mx.example.com [192.0.2.1]: 550-5.1.1 The account does not exist"
    assert report.message_id == "<m1@example.org>"


@pytest.mark.parametrize("content", [QMAIL, EXIM_WORDS])
def test_words_count_only_with_the_null_reverse_path(content: bytes) -> None:
    assert read_reports(content, recipients=[VERP], tokens=TOKENS, sender="ann@example.net") == ()
    somebody = content.replace(b"<>", b"<ann@example.net>")
    assert read_reports(somebody, recipients=[VERP], tokens=TOKENS) == ()
    assert only(somebody, recipients=[VERP], tokens=TOKENS, sender="").key == 4711


@pytest.mark.parametrize(
    "text",
    [
        "I am on holiday. Version 5.1.1 will be out in July.",
        "451 4.4.1 connection timed out; will be retried",
        "250 2.1.5 fine",
        "Telephone: 550 1234",
        "----- original message\nStatus: 5.1.1",
    ],
)
def test_words_that_do_not_say_for_good_that_it_failed(text: str) -> None:
    content = b"Return-Path: <>\r\nSubject: hello\r\n\r\n" + crlf(text)
    assert read_reports(content, recipients=[VERP], tokens=TOKENS) == ()


@pytest.mark.parametrize(
    "text",
    ["550 5.7.1 blocked", "Status: 5.2.2", "said: 552 #5.2.2 full", "#5.4.4", "554 <a@b.c>: 5.7.1 refused"],
)
def test_the_places_of_a_status(text: str) -> None:
    content = b"Return-Path: <>\r\nSubject: hello\r\n\r\n" + crlf(text)
    assert only(content, recipients=[VERP], tokens=TOKENS).recipients[0].status.startswith("5.")


# Anything at all

PIECES = st.sampled_from(
    [
        b"--b=1\r\n", b"--b=1--\r\n", b"\r\n", b"\n", b"\r", b" ", b":", b";",
        b"Content-Type: message/delivery-status\r\n",
        b'Content-Type: multipart/report; boundary="b=1"\r\n', b"Content-Type: message/feedback-report\r\n\r\n",
        b"Content-Type: message/disposition-notification\r\n\r\n", b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Type: message/rfc822\r\n\r\n", b"Final-Recipient: rfc822; a@b.c\r\n", b"Action: failed\r\n",
        b"Status: 5.1.1\r\n", b"Disposition: a/b; displayed\r\n", b"Feedback-Type: abuse\r\n", b"Return-Path: <>\r\n",
        b"Original-Rcpt-To: =?utf-8?q?=ff?= <", b"Message-ID: <a@b>\r\n", b"Date: Tue, 99999999999 Foo\r\n",
        b"Hi. This is the\n\n<a@b>:\nno (#5.1.1)\n\n", b"Reporting-MTA: dns; x\r\n",
        b"Original-Envelope-Id: \xff\x00\r\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=20), max_size=40).map(b"".join), st.booleans())
def test_nothing_raises_and_what_is_read_makes_sense(content: bytes, framed: bool) -> None:
    if framed:
        content = multipart("message/delivery-status", content, returned=content)
    for sender in (None, "", "x@y.z"):
        for report in read_reports(content, recipients=[VERP], tokens=TOKENS, sender=sender):
            assert report.recipients
            assert report.key == 4711
            for said in report.recipients:
                assert (said.address + said.text + said.original).isprintable()


@given(st.integers(0, len(POSTFIX)), st.integers(0, 255))
def test_a_damaged_report_does_not_raise(position: int, octet: int) -> None:
    read_reports(POSTFIX[:position] + bytes([octet]) + POSTFIX[position + 1 :])
    read_reports(POSTFIX[:position])


@pytest.mark.parametrize(
    "hostile",
    [
        b"-" * 200_000, b"500 " * 50_000, b"550 " + b":" * 200_000, b"550 " + b"- " * 100_000, b"\n" * 200_000,
        b"<" * 200_000, b"status " * 30_000, b"a" * 200_000, b"--b=1\n" * 30_000, b"+2B" * 60_000, b"x:\n" * 60_000,
        b"Hi. This is the" + b"\n\n<" * 60_000,
    ],
)  # fmt: skip
def test_nothing_takes_long(hostile: bytes) -> None:
    """Quadratic work on these takes minutes, which is more than a test may."""
    plain = b"Return-Path: <>\r\n\r\n" + hostile
    framed = multipart(
        "message/delivery-status", hostile, returned=b"Content-Type: message/rfc822\r\n\r\n" + hostile
    )
    field = multipart("message/delivery-status", b"Action: failed\r\nFinal-Recipient: " + hostile)
    for content in (plain, framed):
        assert read_reports(content, recipients=[VERP], tokens=TOKENS) == ()
    assert only(field).recipients[0].action == "failed"
