from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from postroom.addresses import Address
from postroom.errors import InvalidAddress, InvalidMessage
from postroom.messages import Attachment, Message, PreparedMessage, prepare


def prepared(message: Message, sender: str | None = None) -> PreparedMessage:
    return prepare(
        message, now=1.7e9, message_id_domain="x.example", unique="u1", max_size=10**6, sender=sender
    )


def composed(message: Message, sender: str | None = None) -> Any:
    return message_from_bytes(prepared(message, sender).content, policy=policy.default)


def test_text() -> None:
    message = composed(
        Message(subject="Grüße", text="Hällo\n", sender="Ann <ann@example.org>", to="bob@example.org")
    )
    assert message["From"] == "Ann <ann@example.org>"
    assert message["To"] == "bob@example.org"
    assert message["Subject"] == "Grüße"
    assert message.get_content_type() == "text/plain"
    assert message.get_content() == "Hällo\r\n"


def test_the_submissions_sender_is_the_author_unless_one_is_named() -> None:
    assert composed(Message(), "app@example.org")["From"] == "app@example.org"
    assert composed(Message(sender="ann@example.org"), "app@example.org")["From"] == "ann@example.org"
    for sender in (None, ""):
        with pytest.raises(InvalidMessage, match="From: is missing"):
            prepared(Message(), sender)


def test_mailboxes() -> None:
    given = Message(
        sender=Address("smtp", "ann@example.org"),
        to=["bob@example.org", 'Dr. "Bob" <bob2@bücher.example>', Address("smtp", "x@example.org")],
        cc="Jörg, (Team) <joerg@example.org>".replace(",", ""),
        reply_to=['"Other, Ann" <ann@example.org>'],
    )  # fmt: skip
    with pytest.raises(InvalidAddress) as caught:
        prepared(given)
    assert caught.value.field == "cc[0]"
    good = Message(
        sender=given.sender, to=given.to, cc="Jörg T. <joerg@example.org>", reply_to=given.reply_to
    )
    message = composed(good)
    assert [str(address) for address in message["To"].addresses] == [
        "bob@example.org",
        '"Dr. Bob" <bob2@xn--bcher-kva.example>',
        "x@example.org",
    ]
    assert message["Cc"].addresses[0].display_name == "Jörg T."
    assert message["Reply-To"].addresses[0].display_name == "Other, Ann"
    assert prepared(good).header_recipients() == (
        "bob@example.org",
        "bob2@xn--bcher-kva.example",
        "x@example.org",
        "joerg@example.org",
    )


def test_an_international_mailbox_needs_smtputf8() -> None:
    given = prepared(Message(sender="jörg@bücher.example", text="x"))
    assert given.smtputf8
    assert given.header_sender == "jörg@xn--bcher-kva.example"


def test_html_and_text_are_alternatives_and_html_alone_is_html() -> None:
    both = composed(Message(text="x", html="<p>x", sender="a@example.org"))
    assert both.get_content_type() == "multipart/alternative"
    assert both.get_body(("plain",)).get_content() == "x\r\n"
    assert both.get_body(("html",)).get_content() == "<p>x\r\n"
    assert composed(Message(html="<p>x", sender="a@example.org")).get_content_type() == "text/html"
    assert composed(Message(sender="a@example.org")).get_content() == "\r\n"


def test_attachments_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "report.pdf"
    file.write_bytes(b"%PDF\r\n\0")
    inner = b"From: x@example.org\r\nSubject: inner\r\n\r\nbody\r\n"
    message = composed(
        Message(
            text="see",
            sender="a@example.org",
            attachments=[
                file,
                str(file),
                ("ü.txt", "Grüße".encode()),
                ("x.tar.gz", b"gz"),
                ("y", b"z", "Application/X-Y"),
                Attachment("inner.eml", inner, "message/rfc822"),
            ],
        )
    )
    parts = list(message.iter_attachments())
    assert [(part.get_filename(), part.get_content_type()) for part in parts] == [
        ("report.pdf", "application/pdf"),
        ("report.pdf", "application/pdf"),
        ("ü.txt", "text/plain"),
        ("x.tar.gz", "application/octet-stream"),
        ("y", "application/x-y"),
        ("inner.eml", "message/rfc822"),
    ]
    assert parts[0].get_content() == b"%PDF\r\n\0"
    assert parts[2].get_payload(decode=True) == "Grüße".encode()
    assert parts[5].get_content()["Subject"] == "inner"


@pytest.mark.parametrize("text", [None, "see the picture"])
def test_inline_images_are_related_to_the_html(text: str | None) -> None:
    message = composed(
        Message(
            text=text,
            html='<img src="cid:logo">',
            sender="a@example.org",
            attachments=[Attachment("logo.png", b"\x89PNG", cid="logo"), ("b.bin", b"b")],
        )
    )
    html = message.get_body(("related",))
    image = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert image["Content-ID"] == "<logo>"
    assert image.get_content_disposition() == "inline"
    assert image.get_content() == b"\x89PNG"
    assert html.get_content_type() == "multipart/related"
    assert [part.get_filename() for part in message.iter_attachments()] == ["b.bin"]
    assert (message.get_body(("plain",)) is None) == (text is None)


def test_further_headers() -> None:
    message = composed(Message(sender="a@example.org", headers={"X-Tag": "ü", "List-Id": "<x.example>"}))
    assert message["X-Tag"] == "ü"
    assert message["List-Id"] == "<x.example>"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"subject": "a\r\nBcc: b@example.org"}, "Subject"),
        ({"subject": "a\nb"}, "Subject"),
        ({"subject": "a\ud800"}, "Subject"),
        ({"subject": None}, "Subject"),
        ({"sender": "Ann\r\nBcc: x <a@example.org>"}, "sender"),
        ({"to": ["b@example.org", '"x\ny" <b@example.org>']}, "to[1]"),
        ({"to": "sms:+15550100"}, "to[0]"),
        ({"headers": {"X-A": "a\r\nBcc: b@example.org"}}, "X-A"),
        ({"headers": {"X-A: x\r\nBcc": "b@example.org"}}, "message"),
        ({"headers": {"Date": "ü", "date": "ü"}}, "date"),
        ({"headers": {"bcc": "b@example.org"}}, "bcc"),
        ({"headers": {"Content-Type": "text/html"}}, "Content-Type"),
        ({"text": "\ud800"}, "text"),
        ({"html": b"x"}, "html"),
        ({"attachments": [("a\r\nBcc: x", b"")]}, "attachments[0].filename"),
        ({"attachments": [("../a", b"")]}, "attachments[0].filename"),
        ({"attachments": [("", b"")]}, "attachments[0].filename"),
        ({"attachments": [("a", b"", "text/plain\r\nBcc: x")]}, "attachments[0].content_type"),
        ({"attachments": [("a", b"", "text")]}, "attachments[0].content_type"),
        ({"attachments": [("a", b"", "multipart/mixed")]}, "attachments[0].content_type"),
        ({"attachments": [("a", "text")]}, "attachments[0]"),
        ({"attachments": ["/nowhere/at/all"]}, "attachments[0]"),
        ({"attachments": [Attachment("a.png", b"", cid="x")]}, "attachments[0].cid"),
        ({"html": "x", "attachments": [Attachment("a.png", b"", cid="a>\r\nb")]}, "attachments[0].cid"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_field(given: dict[str, Any], field: str) -> None:
    complete: dict[str, Any] = {"sender": "a@example.org", **given}
    with pytest.raises((InvalidMessage, InvalidAddress)) as caught:
        prepared(Message(**complete))
    assert caught.value.field == field
    assert caught.value.remedy
