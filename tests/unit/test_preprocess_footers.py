"""Footers: added to what people read, and never to what would break by it."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from postroom.errors import ConfigurationError
from postroom.hooks import UNCHANGED
from postroom.messages import prepare
from postroom.preprocessing.footers import Footer
from tests.support.hooks import CONTENT, work


def octets(message: EmailMessage) -> bytes:
    return prepare(message, now=0.0, message_id_domain="x.org", unique="U", max_size=1 << 20).content


def headed(message: EmailMessage) -> EmailMessage:
    message["From"] = "Ann <ann@example.org>"
    message["Subject"] = "Fish & chips"
    return message


def footed(footer: Footer, content: bytes, **given: Any) -> EmailMessage:
    """Return what a reader gets, written and parsed again."""
    verdict = footer.process(work(content=content, **given))
    assert isinstance(verdict.content, EmailMessage)
    return message_from_bytes(octets(verdict.content), policy=SMTP)


def body_of(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


BOTH = Footer(text="-- \n$sender about $subject", html="<p>$subject costs $$1</p>")


class TestPlaces:
    def test_plain_text(self) -> None:
        assert (
            body_of(footed(BOTH, CONTENT), "plain") == "Good morning.\n\n-- \nann@example.org about Hello\n"
        )

    def test_alternative_with_related_and_attachments(self) -> None:
        message = headed(EmailMessage())
        message.set_content("plain\n")
        message.add_alternative("<html><body><p>Hi</p></BODY ></html>\n", subtype="html")
        html = message.get_body(("html",))
        assert isinstance(html, EmailMessage)
        html.add_related(b"GIF89a", "image", "gif", cid="<logo@x>")
        message.add_attachment("attached\n", filename="note.txt")
        content = octets(message)
        result = footed(BOTH, content)
        assert body_of(result, "plain") == "plain\n\n-- \nann@example.org about Fish & chips\n"
        assert body_of(result, "html") == (
            "<html><body><p>Hi</p><p>Fish &amp; chips costs $1</p>\n</BODY ></html>\n"
        )
        before, after = (message_from_bytes(data, policy=SMTP) for data in (content, octets(result)))
        assert [part.get_content_type() for part in before.walk()] == [
            part.get_content_type() for part in after.walk()
        ]
        (note,) = after.iter_attachments()
        assert note.get_content().strip() == "attached"

    def test_html_without_body_gets_it_at_the_end(self) -> None:
        message = headed(EmailMessage())
        message.set_content("<b>Hi</b>\n", subtype="html")
        assert body_of(footed(BOTH, octets(message)), "html").endswith("<p>Fish &amp; chips costs $1</p>\n")

    def test_other_content_fields_and_parameters_stay(self) -> None:
        content = CONTENT.replace(
            b'text/plain; charset="utf-8"', b'text/plain; charset="iso-8859-1"; format=flowed'
        ).replace(b"MIME-Version", b"Content-Language: en\r\nContent-ID: <body@x>\r\nMIME-Version")
        result = footed(BOTH, content)
        assert result["Content-Language"] == "en"
        assert result["Content-ID"] == "<body@x>"
        assert result["Content-Type"].params["format"] == "flowed"
        assert result.get_content_charset() == "iso-8859-1"

    def test_a_charset_that_cannot_express_the_footer_gives_way(self) -> None:
        content = CONTENT.replace(b"utf-8", b"us-ascii")
        result = footed(Footer(text="© Ann"), content)
        assert body_of(result, "plain").endswith("© Ann\n")
        assert octets(result).isascii()

    def test_headers_stay(self) -> None:
        result = footed(BOTH, CONTENT)
        before = message_from_bytes(CONTENT, policy=SMTP)
        for name in ("From", "To", "Subject", "Message-ID", "Date"):
            assert result[name] == before[name]

    def test_only_the_kind_that_has_a_footer(self) -> None:
        assert Footer(html="<p>x</p>").process(work()) is UNCHANGED


class TestLeftAlone:
    @pytest.mark.parametrize(
        "kind", ["multipart/signed; protocol=x", "multipart/encrypted; protocol=x", "multipart/report"]
    )
    def test_sealed_structures(self, kind: str) -> None:
        inner = b"--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b--\r\n"
        content = (
            b'From: a@b.org\r\nMIME-Version: 1.0\r\nContent-Type: %b; boundary="b"\r\n\r\n' % kind.encode()
        )
        assert BOTH.process(work(content=content + inner)) is UNCHANGED

    def test_sealed_within_mixed(self) -> None:
        content = (
            b'From: a@b.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="m"\r\n\r\n'
            b'--m\r\nContent-Type: multipart/signed; boundary="s"\r\n\r\n'
            b"--s\r\nContent-Type: text/plain\r\n\r\nHello\r\n--s--\r\n--m--\r\n"
        )
        assert BOTH.process(work(content=content)) is UNCHANGED

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"text/plain", b"application/pkcs7-mime"),
            (b"text/plain", b"image/png"),
            (b"utf-8", b"no-such-charset"),
            (b"Good morning.", b"-----BEGIN PGP MESSAGE-----"),
            (b"MIME-Version", b"Content-Disposition: attachment\r\nMIME-Version"),
        ],
    )
    def test_what_is_no_text_of_ours_to_change(self, old: bytes, new: bytes) -> None:
        assert BOTH.process(work(content=CONTENT.replace(old, new))) is UNCHANGED

    def test_octets_that_its_charset_does_not_know(self) -> None:
        content = CONTENT.replace(b"7bit", b"8bit") + b"\xff\xfe\r\n"
        assert BOTH.process(work(content=content, eight_bit=True)) is UNCHANGED

    def test_a_forwarded_message_is_not_changed_inside(self) -> None:
        message = headed(EmailMessage())
        message.set_content("outer\n")
        message.add_attachment(message_from_bytes(CONTENT, policy=SMTP))
        result = footed(BOTH, octets(message))
        (forwarded,) = result.iter_attachments()
        assert "about" not in str(forwarded)
        assert "about" in body_of(result, "plain")


class TestPersonal:
    def test_each_recipient_gets_his_own(self) -> None:
        verdict = Footer(text="To stop: https://x.org/?who=$recipient").process(work("a@x.org", "b@x.org"))
        bodies = [
            (targets, message.get_content())
            for targets, message in verdict.contents
            if isinstance(message, EmailMessage)
        ]
        assert [[target.address.value for target in targets] for targets, _ in bodies] == [
            ["a@x.org"],
            ["b@x.org"],
        ]
        assert "who=a@x.org" in bodies[0][1]
        assert "who=b@x.org" in bodies[1][1]


@pytest.mark.parametrize(("text", "html"), [("", ""), ("costs $ 5", ""), ("", "$nobody"), ("${unclosed", "")])
def test_bad_templates_are_refused(text: str, html: str) -> None:
    with pytest.raises(ConfigurationError):
        Footer(text=text, html=html)
