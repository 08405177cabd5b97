"""The digest of incoming messages: what people and programs send, what nobody should, and any octets at all."""

from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.inbound.digesting import LOOK, digest_of
from postroom.inbound.fields import MAX_HEAD, Fields, Part, decoded, parts, text_of
from postroom.inbound.values import Digest
from tests.support.found_mail import found_mail


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def multipart(*bodies: str, kind: str = "mixed", more: str = "", header: str = "") -> bytes:
    text = f"From: ann@example.org\n{header}Content-Type: multipart/{kind}; boundary=b1{more}\n\npreamble\n"
    return crlf(text + "".join(f"--b1\n{body}\n" for body in bodies) + "--b1--\nepilogue\n")


def report(kind: str, fields: str, machine: str = "", **more: str) -> bytes:
    return multipart(
        "\nHuman text. Action: delivered\n",
        f"Content-Type: message/{machine or kind}\n{more.get('encoding', '')}\n{fields}\n",
        "Content-Type: message/rfc822\n\nSubject: Action\nAction: failed\n",
        kind="report",
        more=f"; report-type={more.get('named', kind)}",
    )


def test_an_ordinary_message() -> None:
    digest = digest_of(
        crlf(
            "Received: from a by b\nReceived: from c by d\n"
            "From: =?utf-8?q?Ann_=C3=96?= <ann@example.org>\nTo: Bob\n\t<bob@example.net>\n"
            "Subject: =?iso-8859-1?q?Gr=FC=DFe?=\n =?utf-8?b?8J+YgA==?=\nMessage-ID: <m1@example.org>\n"
            "In-Reply-To: <m0@example.net>\nDate: Thu, 01 Jan 2026 01:00:00 +0100\n"
            "Disposition-Notification-To: Ann <ann@example.org>, ann@example.org\n\nSubject: not this\n"
        )
    )
    assert digest.subject == "Grüße😀"
    assert digest.author == "Ann Ö <ann@example.org>"
    assert digest.to == "Bob <bob@example.net>"
    assert digest.message_id == "<m1@example.org>"
    assert digest.in_reply_to == "<m0@example.net>"
    assert digest.date == 1767225600.0
    assert digest.message_class == "IPM.Note"
    assert digest.auto_submitted == "no"
    assert digest.hops == 2
    assert digest.mdn_to == ("ann@example.org",)
    assert (digest.bulk, digest.attachments) == (False, 0)


def test_the_last_reference_stands_in_for_in_reply_to() -> None:
    content = crlf("References: <1@x>\n <2@x> <3@x>\nMessage-ID: no-brackets@x\n\n")
    assert digest_of(content).in_reply_to == "<3@x>"
    assert digest_of(content).message_id == "<no-brackets@x>"


@pytest.mark.parametrize(
    "date",
    [
        "yesterday",
        "Thu, 01 Jan 1066 00:00:00 +0000",
        "Thu, 01 Jan 99999 00:00:00 +0000",
        "1 Jan 2026 25:99:99 +9999999999",
        "",
    ],
)
def test_senseless_dates(date: str) -> None:
    assert digest_of(crlf(f"Date: {date}\n\n")).date is None


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_any_line_ends(end: str) -> None:
    text = "From: a@x\nSubject: two\n words\nMessage-ID: <1@x>\n\nbody\n".replace("\n", end)
    digest = digest_of(text.encode())
    assert (digest.subject, digest.message_id) == ("two words", "<1@x>")


def test_control_characters_do_not_get_through() -> None:
    raw = b"Subject: a\x1b[31mb\x07 =?utf-8?b?4oCuZ25w?= =?utf-7?q?+2AA-?= \xff\r\n\r\n"
    subject = digest_of(raw).subject
    assert subject.isprintable()
    subject.encode()
    family = "👨\u200d👩"
    assert digest_of(f"Subject: {family}\r\n\r\n".encode()).subject == family


@pytest.mark.parametrize(
    "charset", ["unicode_escape", "undefined", "zlib", "a\0b", "idna", "no-such", "utf-16"]
)
def test_strange_charsets(charset: str) -> None:
    assert digest_of(f"Subject: =?{charset}?q?=5Cz=ff?=\r\n\r\n".encode()).subject.isprintable()


@pytest.mark.parametrize(
    ("actions", "message_class"),
    [
        (("failed",), "REPORT.IPM.Note.NDR"),
        (("delivered", "Failed"), "REPORT.IPM.Note.NDR"),
        (("delivered", "delayed"), "REPORT.IPM.Note.DELAYED"),
        (("delivered", "relayed"), "REPORT.IPM.Note.DR"),
        (("expanded",), "REPORT.IPM.Note.DR"),
        ((), "REPORT.IPM.Note.NDR"),
    ],
)
def test_delivery_reports(actions: tuple[str, ...], message_class: str) -> None:
    fields = "Reporting-MTA: dns; x\n\n" + "\n\n".join(
        f"Final-Recipient: rfc822;a\nAction: {a}" for a in actions
    )
    assert digest_of(report("delivery-status", fields)).message_class == message_class


def test_reports_of_other_sorts() -> None:
    read = "Disposition: manual-action/MDN-sent-manually; displayed"
    assert digest_of(report("disposition-notification", read)).message_class == "REPORT.IPM.Note.IPNRN"
    deleted = "Disposition: automatic-action/MDN-sent-automatically; deleted"
    assert digest_of(report("disposition-notification", deleted)).message_class == "REPORT.IPM.Note.IPNNRN"
    assert digest_of(report("feedback-report", "Feedback-Type: abuse")).message_class == "REPORT.IPM.Note.FBL"
    unnamed = report("delivery-status", "Action: delayed", named="")
    assert digest_of(unnamed).message_class == "REPORT.IPM.Note.DELAYED"
    utf8 = report("delivery-status", "Action: delivered", machine="global-delivery-status")
    assert digest_of(utf8).message_class == "REPORT.IPM.Note.DR"
    encoded = report(
        "delivery-status", "QWN0aW9uOiBkZWxheWVk", encoding="Content-Transfer-Encoding: base64\n"
    )
    assert digest_of(encoded).message_class == "REPORT.IPM.Note.DELAYED"
    assert digest_of(multipart("\nx", kind="report")).message_class == "IPM.Note"


def test_automatic_replies_and_bulk() -> None:
    answer = digest_of(crlf("Auto-Submitted: Auto-Replied (vacation)\n\n"))
    assert (answer.message_class, answer.auto_submitted) == ("IPM.Note.OOF", "auto-replied")
    notice = digest_of(crlf("Auto-Submitted: auto-generated; x=y\n\n"))
    assert (notice.message_class, notice.auto_submitted) == ("IPM.Note", "auto-generated")
    for line in (
        "List-Id: <l.example.org>",
        "Precedence: bulk",
        "precedence: LIST",
        "List-Unsubscribe: <mailto:x@y>",
    ):
        assert digest_of(crlf(f"{line}\n\n")).bulk
    assert not digest_of(crlf("Precedence: first-class\n\n")).bulk


@pytest.mark.parametrize(
    ("method", "body", "message_class"),
    [
        ("; method=REQUEST", "", "IPM.Schedule.Meeting.Request"),
        ('; charset=utf-8; method="cancel"', "", "IPM.Schedule.Meeting.Canceled"),
        ("; method=REPLY", "ATTENDEE;PARTSTAT=ACCEPTED:mailto:a", "IPM.Schedule.Meeting.Resp.Pos"),
        ("; method=REPLY", "ATTENDEE;PARTSTAT=DECLINED:mailto:a", "IPM.Schedule.Meeting.Resp.Neg"),
        ("; method=REPLY", "ATTENDEE;PARTSTAT=TENTATIVE:mailto:a", "IPM.Schedule.Meeting.Resp.Tent"),
        ("; method=REPLY", "", "IPM.Schedule.Meeting.Resp"),
        ("", "", "IPM.Schedule.Meeting"),
    ],
)
def test_invitations(method: str, body: str, message_class: str) -> None:
    whole = crlf(f"From: a@x\nContent-Type: text/calendar{method}\n\nBEGIN:VCALENDAR\n{body}\n")
    assert digest_of(whole).message_class == message_class
    part = multipart(
        "Content-Type: multipart/alternative; boundary=b2\n\n--b2\n\ntext\n"
        f"--b2\nContent-Type: text/calendar{method}\n\n{body}\n--b2--"
    )
    assert digest_of(part).message_class == message_class


def test_a_calendar_that_is_attached_is_a_file() -> None:
    content = multipart(
        "\ntext", "Content-Type: text/calendar; name=x.ics\nContent-Disposition: attachment\n\nx"
    )
    digest = digest_of(content)
    assert (digest.message_class, digest.attachments) == ("IPM.Note", 1)


def test_attachments_are_counted_as_the_standard_library_makes_them() -> None:
    message = EmailMessage()
    message.set_content("text")
    message.add_alternative("<p>html</p>", subtype="html")
    for number in range(3):
        message.add_attachment(b"--b\n" * 100, "application", "pdf", filename=f"{number} größe.pdf")
    inner = EmailMessage()
    inner.set_content("x")
    inner.add_attachment(b"y", "application", "zip", filename="y.zip")
    message.add_attachment(inner)
    # A message within the message is one; what is within that is not counted.
    assert digest_of(message.as_bytes()).attachments == 4
    single = crlf("Content-Type: application/pdf; name=x.pdf\n\nx")
    assert digest_of(single).attachments == 1


def test_parts_have_exact_places() -> None:
    content = multipart(
        "Content-Type: text/plain\n\none\n",
        "X: y",
        'Content-Type: multipart/related; boundary="b1 x"\n\n--b1 x\n\ntwo\n--b1 x--\nnoise',
        "\n--b1x\n--b\nthree",
    )
    found = parts(content, Fields(content))
    assert [(p.depth, content[p.body : p.end]) for p in found] == [
        (1, b"one\r\n"), (1, b""), (1, b""), (2, b"two"), (1, b"--b1x\r\n--b\r\nthree"),
    ]  # fmt: skip
    assert [p.multipart for p in found] == [False, False, True, False, False]


def test_an_inner_part_ends_where_the_outer_boundary_comes() -> None:
    content = multipart("Content-Type: multipart/mixed; boundary=b2\n\n--b2\n\nnot closed", "\nlast")
    assert [content[p.body : p.end] for p in parts(content, Fields(content))] == [b"", b"not closed", b"last"]


def test_a_part_that_is_not_closed_goes_to_the_end() -> None:
    content = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nthe rest\n"
    (part,) = parts(content, Fields(content))
    assert content[part.body : part.end] == b"the rest\n"
    assert not parts(content, Fields(content), 0)


def test_parameters_within_quotes_are_none() -> None:
    fields = Fields(
        b'Content-Type: multipart/mixed; name="a; boundary=\\"no"; Boundary = "y e s"; x=1\r\n\r\n'
    )
    assert fields.parameter("content-type", "boundary") == "y e s"
    assert fields.parameter("content-type", "name") == 'a; boundary="no'
    assert fields.parameter("content-type", "x") == "1"


def test_file_names_of_all_sorts() -> None:
    content = crlf(
        "Content-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Disposition: attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.pdf\n\n1\n"
        '--b\nContent-Type: application/x; name="=?utf-8?q?a=C3=B6.exe?="\n'
        "Content-Disposition: inline; filename=b.txt\n\n2\n"
        "--b\nContent-Disposition: attachment; filename*0=on; filename*1=e.js\n\n3\n"
        "--b\nContent-Disposition: attachment; filename*=no-such''x%FF\n\n4\n"
        "--b\nContent-Type: text/plain\n\n5\n--b--\n"
    )  # fmt: skip
    names = [part.filenames(content) for part in parts(content, Fields(content))]
    assert names[:3] == [("größe.pdf",), ("b.txt", "aö.exe"), ("one.js",)]
    assert len(names[3]) == 1
    assert names[4] == ()


@given(st.binary(max_size=2000))
@example(b"")
@example(b"\n")
@example(b":\n")
@example(b"Content-Type: multipart/report; boundary=\n\n--\n")
@example(b"Content-Type: multipart/x; boundary=b\n--b\n--b\n--b--")
def test_any_octets_at_all(content: bytes) -> None:
    check(content)


HEADS = st.sampled_from(
    [
        b"Subject",
        b"Date",
        b"Content-Type",
        b"References",
        b"Auto-Submitted",
        b"Disposition-Notification-To",
        b"From",
    ]
)
VALUES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"multipart/report; report-type=delivery-status; boundary=b", b"multipart/mixed; boundary=b",
            b"text/calendar; method=REPLY", b"=?utf-8?b?////?=", b"=?utf-16?q?=?=", b"((((((<a@b>", b"<a@b> <c@d>",
            b"Mon, 1 Jan 2026 00:00:00 -0000", b'"a\\" <a@b>', b"a@b (c (d)), e: f@g;",
        ]
    ),
)  # fmt: skip
BODIES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"\n--b\n", b"\r\n--b\r\n", b"\n--b--\n", b"\n\n", b"Action: failed\n",
                b"Content-Type: message/delivery-status\n\n",
            ]
        ),
    ),
    max_size=12,
)  # fmt: skip


@given(st.lists(st.tuples(HEADS, VALUES), max_size=8), BODIES)
def test_what_looks_like_a_message(fields: list[tuple[bytes, bytes]], body: list[bytes]) -> None:
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    check(head + b"\r\n" + b"".join(body))


def check(content: bytes) -> None:
    check_texts(digest_of(content))
    fields = Fields(content)
    assert 0 <= fields.body <= len(content)
    last = 0
    for part in parts(content, fields):
        assert last <= part.fields.start <= part.body <= part.end <= len(content)
        last = part.end
        part.filenames(content)
        text_of(content, part, 100)


def check_texts(digest: Digest) -> None:
    for text in (digest.subject, digest.author, digest.to, digest.message_id, digest.in_reply_to):
        assert len(text) <= 998
        assert all(char.isprintable() or char in "\u200c\u200d" for char in text)
        text.encode()


MIXED = b"Content-Type: multipart/mixed; boundary=b\n\n"


# What is not bounded takes minutes for one of them.
@pytest.mark.timeout(60)
def test_the_work_is_bounded() -> None:
    size = 30 * 1024 * 1024
    hostile = [
        b"Subject: " + b"=?utf-8?q?" * (size // 10),
        b"a" * size,
        b"X: y\n" * (size // 5),
        b"To: " + b"(" * size,
        b"Disposition-Notification-To: " + b"<a@b>," * (size // 6),
        MIXED + b"\n--b" * (size // 4),
        MIXED + (b"\n--b\n" + MIXED) * (size // 50),
        b"Content-Type: multipart/mixed" + b'; boundary="\\' * (size // 12),
        MIXED + b"--b\nX: " + b"\n " * (size // 2),
        b"References: " + b"<" * size,
    ]  # fmt: skip
    for content in hostile:
        check_texts(digest_of(content))


def test_what_lies_beyond_the_bounds_is_not_looked_at() -> None:
    filler = b"X-Filler: " + b"x" * 70 + b"\r\n"
    far = filler * (MAX_HEAD // len(filler) + 1) + b"Subject: too far\r\n\r\n"
    assert digest_of(far).subject == ""
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
    late = head + b"x" * LOOK + b"\r\n--b\r\nContent-Disposition: attachment\r\n\r\n\r\n--b--\r\n"
    assert digest_of(late).attachments == 0


def test_cpythons_own_test_mails() -> None:
    subjects: set[str] = set()
    classes: set[str] = set()
    for mail in found_mail().values():
        for content in (mail, mail.replace(b"\n", b"\r\n")):
            check(content)
            digest = digest_of(content)
            subjects.add(digest.subject)
            classes.add(digest.message_class)
    assert len(subjects) > 10
    assert "REPORT.IPM.Note.NDR" in classes


def test_a_field_of_its_own() -> None:
    assert decoded(b" a\r\n b\t c ") == "a b c"
    assert Part(Fields(b"Content-Type: text/plain; NAME*0=x\n\n"), 1).attached
    assert not Part(Fields(b"Content-Type: text/plain; nickname=x\n\n"), 1).attached
