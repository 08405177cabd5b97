"""Sending on and answering: without loops, without harm, octet by octet."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from postroom.envelopes import Submission, prepare_envelope
from postroom.errors import InvalidMessage, UsageError
from postroom.inbound.automatic import automatic_reply, may_answer, reason_not_to_answer
from postroom.inbound.digesting import digest_of
from postroom.inbound.forwarding import attach, forward
from postroom.inbound.hooks import Incoming
from postroom.messages import PreparedMessage, prepare
from tests.support.found_mail import found_mail

DAY = 86_400.0
CONTENT = (
    b"Message-ID: <1@example.org>\r\nReferences: <a@x>\r\n <b@x>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    b"From: Ann <ann@example.org>\r\nTo: desk@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello\r\n"
)


def incoming(content: bytes = CONTENT, **more: Any) -> Incoming:
    given: dict[str, Any] = {
        "sender": "ann@example.org",
        "recipients": ("desk@example.com",),
        "receiver": "imap",
    }
    return Incoming(key=7, content=content, digest=digest_of(content), **(given | more))


def prepared(submission: Submission) -> PreparedMessage:
    done = prepare(
        submission.message, now=0.0, message_id_domain="x.example", unique="u", max_size=10**7,
        sender=submission.sender,
    )  # fmt: skip
    prepare_envelope(submission, done, now=0.0, max_recipients=10)
    return done


def parsed(submission: Submission) -> EmailMessage:
    return message_from_bytes(prepared(submission).content, policy=SMTP)


def test_a_message_is_sent_on_as_it_is() -> None:
    (submission,) = forward(incoming(), "bob@example.net")
    assert prepared(submission).content == b"X-Loop: desk@example.com\r\n" + CONTENT
    assert (submission.sender, submission.to) == ("ann@example.org", ["bob@example.net"])


@pytest.mark.parametrize(
    ("sender", "line", "expected"),
    [
        ("", b"", ""),
        ("x@y", b"List-Id: <l>\r\n", "x@y"),
        (None, b"", None),
        (None, b"List-Id: <l>\r\n", ""),
        (None, b"Auto-Submitted: auto-replied\r\n", ""),
    ],
)
def test_the_envelope_sender_stays(sender: str | None, line: bytes, expected: str | None) -> None:
    (submission,) = forward(incoming(line + CONTENT, sender=sender), "bob@example.net")
    assert submission.sender == expected
    prepared(submission)
    (other,) = forward(incoming(line + CONTENT, sender=sender), "bob@example.net", sender="me@x")
    assert other.sender == "me@x"


def test_it_is_sent_on_once() -> None:
    (once,) = forward(incoming(), "bob@example.net")
    again = incoming(prepared(once).content)
    assert forward(again, "bob@example.net") == ()
    assert attach(again, "bob@example.net", author="me@x") == ()
    assert forward(again, "bob@example.net", at="DESK@Example.com") == ()
    assert len(forward(again, "bob@example.net", at="sales@example.com")) == 1
    unknown = forward(incoming(recipients=()), ["bob@example.net"])
    assert prepared(unknown[0]).content.startswith(b"X-Loop: imap\r\n")


def test_bare_line_feeds() -> None:
    (submission,) = forward(incoming(CONTENT.replace(b"\r\n", b"\n")), "bob@example.net")
    assert prepared(submission).content == b"X-Loop: desk@example.com\r\n" + CONTENT


def test_a_place_cannot_break_the_header() -> None:
    (submission,) = forward(incoming(), "bob@example.net", at="a b\r\nBcc: c ü")
    assert parsed(submission)["X-Loop"] == "a_b__bcc:_c_?"


MALFORMED = b"Subject: no author\r\nSubject: twice\n\rbare \0 and " + b"long " * 300 + b"\xff"


def test_what_cannot_be_sent_as_it_is_goes_as_an_attachment() -> None:
    bad = incoming(MALFORMED)
    (refused,) = forward(bad, "bob@example.net")
    with pytest.raises(InvalidMessage):
        prepared(refused)
    (submission,) = forward(bad, "bob@example.net", author="Desk <desk@example.com>")
    message = parsed(submission)
    assert message["From"] == "Desk <desk@example.com>"
    assert message["Subject"] == "Fwd: no author"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Loop"] == "desk@example.com"
    (attachment,) = message.iter_attachments()
    assert attachment.get_content() == MALFORMED
    assert attachment.get_filename() == "message.eml"


def test_an_attachment_of_an_automatic_message_bounces_to_nobody() -> None:
    (submission,) = attach(
        incoming(sender=""), ["bob@example.net", "sms:+15550100"], author="me@x", subject="S", text="T"
    )
    assert submission.sender == ""
    assert submission.to == ["bob@example.net", "sms:+15550100"]
    message = parsed(submission)
    assert (message["Subject"], message["To"]) == ("S", "bob@example.net")


def test_cpythons_own_test_mails_are_sent_on_octet_by_octet() -> None:
    mails = found_mail().values()
    whole = 0
    for content in mails:
        (submission,) = forward(incoming(content, sender=""), "bob@example.net", author="desk@example.com")
        message = prepared(submission)
        if isinstance(submission.message, bytes):
            whole += 1
            head, _, body = message.content.replace(b"\r\n", b"\n").partition(b"\n\n")
            given = content.replace(b"\r\n", b"\n")
            assert given.rstrip(b"\n").endswith(body.rstrip(b"\n"))
            assert given.partition(b"\n\n")[0] in head
        else:
            (attachment,) = parsed(submission).iter_attachments()
            assert attachment.get_content() == content
    assert 0 < whole < len(mails)


# RFC 3834


@pytest.mark.parametrize(
    ("sender", "reason"),
    [
        (None, "not known"),
        ("", "is null"),
        ("MAILER-DAEMON", "no mailbox"),
        ("Mailer-Daemon@x", "machine"),
        ("owner-list@x", "machine"),
        ("list-request@x", "machine"),
        ("list-bounces+ann=x@x", "machine"),
        ("bounce+1@x", "machine"),
        ("no-reply@x", "machine"),
        ("donotreply-2@x", "machine"),
        ("DESK@example.com", "would answer"),
        ("ann@example.org", None),
        ("requests@example.org", None),
    ],
)
def test_who_is_answered(sender: str | None, reason: str | None) -> None:
    said = reason_not_to_answer(digest_of(CONTENT), sender, own=["desk@example.com"])
    assert said is None if reason is None else said is not None and reason in said


@pytest.mark.parametrize(
    "line",
    [
        "Auto-Submitted: auto-replied", "Auto-Submitted: auto-generated", "List-Id: <x>", "Precedence: bulk",
        "X-Auto-Response-Suppress: DR, OOF", "X-Auto-Response-Suppress: All", "X-Loop: desk@example.com",
        "Content-Type: multipart/report; report-type=disposition-notification; boundary=b",
    ],
)  # fmt: skip
def test_what_is_not_answered(line: str) -> None:
    said = may_answer(incoming(f"{line}\r\n".encode() + CONTENT), own=["desk@example.com"])
    assert said is not None


def test_only_who_was_addressed_answers() -> None:
    assert may_answer(incoming()) is None
    assert may_answer(incoming(), own=["Desk@Example.COM"]) is None
    assert may_answer(incoming(), own=["esk@example.com"]) is not None
    assert may_answer(incoming(), own=["desk@example.co"]) is not None
    assert may_answer(incoming(b"Cc: sales@example.com\r\n" + CONTENT), own=["sales@example.com"]) is None
    assert may_answer(incoming(tags=("spam",))) is not None


def reply(message: Incoming, **more: Any) -> Submission:
    (submission,) = automatic_reply(message, author="Desk <desk@example.com>", text="Later.", **more)
    return submission


def test_an_automatic_reply() -> None:
    submission = reply(incoming(received=10 * DAY))
    assert (submission.sender, submission.to, submission.report) == ("", ["ann@example.org"], frozenset())
    message = parsed(submission)
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<1@example.org>"
    assert message["References"].split() == ["<a@x>", "<b@x>", "<1@example.org>"]
    assert message["Subject"] == "Auto: Grüße"
    assert message["To"] == "ann@example.org"
    assert message.get_content() == "Later.\r\n"
    assert digest_of(prepared(submission).content).message_class == "IPM.Note.OOF"


def test_it_is_not_answered_in_turn() -> None:
    answer = prepared(reply(incoming())).content
    assert automatic_reply(incoming(answer, sender=""), author="x@y", text="") == ()
    assert automatic_reply(incoming(answer), author="ann@example.org", text="") == ()


def test_a_sender_gets_one_in_a_while() -> None:
    keys = [reply(incoming(received=at * DAY)).idempotency_key for at in (7.0, 7.5, 13.9, 14.0)]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    other = reply(incoming(received=7 * DAY, sender="bob@example.org")).idempotency_key
    assert other != keys[0]
    assert reply(incoming(received=7 * DAY, sender="ANN@example.org")).idempotency_key == keys[0]
    with pytest.raises(UsageError, match="days"):
        reply(incoming(), days=0)


def test_what_the_other_side_wrote_cannot_break_it() -> None:
    ids = b" ".join(b"<%d.%b@x>" % (n, b"y" * 200) for n in range(100))
    content = (
        b"Message-ID: <m@x>\r\nReferences: " + ids + b"\r\nTo: desk@example.com\r\n"
        b"Subject: =?utf-8?q?a=0D=0ABcc=3A_x=40y?=" + b" long" * 100 + b"\r\n\r\n"
    )
    message = parsed(reply(incoming(content), html="<p>Later.</p>"))
    assert message["Bcc"] is None
    assert len(message["Subject"]) <= 200
    references = message["References"].split()
    assert references[0].startswith("<0.")
    assert references[-1] == "<m@x>"
    assert len(references) == 22
    nothing = parsed(reply(incoming(b"To: desk@example.com\r\n\r\n")))
    assert (nothing["In-Reply-To"], nothing["Subject"]) == (None, "Auto:")
