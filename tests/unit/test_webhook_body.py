import base64
import json
from email import policy
from email.message import EmailMessage
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.transports.webhook_body import JsonBody

URL = "https://hooks.example.org/x"


def delivery_of(content: bytes) -> Delivery:
    targets = (Target(0, parse_address(URL)), Target(1, parse_address(URL + "2")))
    return Delivery(99, "app@example.org", targets, content, created=1_700_000_000.25)


def document(content: bytes | EmailMessage, target: int = 0) -> dict[str, Any]:
    if isinstance(content, EmailMessage):
        content = content.as_bytes(policy=policy.SMTP)
    delivery = delivery_of(content)
    decoded: dict[str, Any] = json.loads(JsonBody(delivery).encode(delivery.targets[target]))
    return decoded


def whole_message() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Müller <app@example.org>"
    message["Subject"] = "Grüße aus 東京"
    message["Received"] = "one"
    message["Received"] = "two"
    message.set_content("Hallo\n.\nWelt ü\n")
    message.add_alternative("<p>Hallo</p>\n", subtype="html")
    message.add_attachment(b"\x00\xff" * 50, maintype="application", subtype="pdf", filename="Übersicht.pdf")
    return message


def test_the_documented_shape() -> None:
    shape = document(whole_message())
    assert list(shape) == [
        *("id", "type", "created", "sender", "recipient", "subject", "headers", "text", "html", "attachments")
    ]
    assert shape["id"] == "0000000000033"
    assert shape["type"] == "message"
    assert shape["created"] == "2023-11-14T22:13:20.250Z"
    assert (shape["sender"], shape["recipient"]) == ("app@example.org", URL)
    assert shape["subject"] == "Grüße aus 東京"
    assert ["From", "Müller <app@example.org>"] in shape["headers"]
    assert [value for name, value in shape["headers"] if name == "Received"] == ["one", "two"]
    assert (shape["text"], shape["html"]) == ("Hallo\n.\nWelt ü\n", "<p>Hallo</p>\n")
    (attachment,) = shape["attachments"]
    content = base64.b64decode(attachment.pop("content"))
    assert content == b"\x00\xff" * 50
    assert attachment == {
        "filename": "Übersicht.pdf",
        "content_type": "application/pdf",
        "content_id": None,
        "inline": False,
        "size": 100,
    }


def test_only_the_recipient_differs_between_targets() -> None:
    message = whole_message()
    first, second = document(message, 0), document(message, 1)
    assert second.pop("recipient") == URL + "2"
    first.pop("recipient")
    assert first == second


def test_html_alone_and_nothing_at_all() -> None:
    message = EmailMessage()
    message.set_content("<p>x</p>", subtype="html")
    assert (document(message)["text"], document(message)["html"]) == (None, "<p>x</p>\n")
    empty = document(b"")
    assert (empty["subject"], empty["headers"], empty["text"]) == (None, [], "")


def test_text_files_are_attachments_and_inline_images_keep_their_id() -> None:
    message = EmailMessage()
    message.set_content("body")
    message.add_attachment("a,b\n", subtype="csv", filename="data.csv")
    message.add_attachment("notes\n", filename="notes.txt")
    message.add_attachment(b"png", maintype="image", subtype="png", cid="<logo@x>", disposition="inline")
    shape = document(message)
    assert shape["text"] == "body\n"
    assert [each["filename"] for each in shape["attachments"]] == ["data.csv", "notes.txt", None]
    logo = shape["attachments"][2]
    assert (logo["content_id"], logo["inline"]) == ("logo@x", True)


def test_an_attached_message_stays_whole() -> None:
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner.set_content("From here\n.\n")
    message = EmailMessage()
    message.set_content("see below")
    message.add_attachment(inner)
    (attachment,) = document(message)["attachments"]
    assert attachment["content_type"] == "message/rfc822"
    assert base64.b64decode(attachment["content"]) == inner.as_bytes(policy=policy.SMTP)


def test_other_charsets_are_decoded_and_unknown_ones_shown_as_well_as_can_be() -> None:
    assert document(b"Content-Type: text/plain; charset=koi8-r\r\n\r\n\xf0\xf2\r\n")["text"] == "ПР\n"
    assert document(b"Content-Type: text/plain; charset=x-none\r\n\r\nabc\xff\r\n")["text"] == "abc�\n"


HEADERS = [
    *(b"Content-Type: multipart/mixed; boundary=x", b"Content-Type: text/plain; charset=\xff\xfe"),
    *(b"Content-Type: text/plain; charset*=utf-8''%ff", b"Content-Disposition: attachment; filename*=bad'x"),
    *(
        b"Content-Disposition: \xe9",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: uuencode",
    ),
    *(b"Content-Type: message/rfc822", b"Content-Type: message/delivery-status", b"Content-Type:"),
    *(
        b"Content-ID: <\xff>",
        b"Subject: =?utf-8?b?!!?=",
        b"From: <<>>,;:@",
        b"Message-ID: <[",
        b"MIME-Version: (",
    ),
    *(b"To: a@b, :;", b"Content-Type: text/plain; charset=idna", b"Content-Type: text/plain; charset=hex"),
    *(b"Date: ", b"Subject: \xff\r\n\tb", b"Content-Type: text/plain; charset=utf-16"),
]


@given(
    st.lists(st.tuples(st.lists(st.sampled_from(HEADERS), max_size=4), st.binary(max_size=40)), max_size=4),
)
def test_no_message_is_too_broken(parts: list[tuple[list[bytes], bytes]]) -> None:
    content = b"".join(b"\r\n".join([*head, b"", body, b"--x", b""]) for head, body in parts)
    assert document(content)["recipient"] == URL


@given(st.binary(max_size=200))
def test_no_octets_are_too_broken(content: bytes) -> None:
    assert document(content)["type"] == "message"
