"""The postprocessors that come with Postroom."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.envelopes import Submission
from postroom.errors import ConfigurationError
from postroom.inbound.digesting import digest_of
from postroom.inbound.hooks import UNCHANGED, Incoming, Postprocessed
from postroom.inbound.postprocessors import Route, SpamTag, StripAttachments


def incoming(content: bytes, **more: Any) -> Incoming:
    return Incoming(key=7, content=content, digest=digest_of(content), **more)


# SpamTag


@pytest.mark.parametrize(
    ("header", "spam"),
    [
        (b"X-Spam-Flag: YES", True),
        (b"x-spam-flag: yes", True),
        (b"X-Spam-Flag: NO", False),
        (b"X-Spam-Flag: yes indeed", False),
        (b"X-Spam-Flag: NO\r\nX-Spam-Flag: YES", False),
        (b"X-Other: YES", False),
        (b"X-Spam-Score: 5.0", True),
        (b"X-Spam-Score: 4.9 / 5.0", False),
        (b"X-Spam-Score: No, score=-1.0 required=5.0", False),
        (b"X-Spam-Score: Yes, score=15.1 required=5.0", True),
        (b"X-Spam-Score: much", False),
        (b"\r\nX-Spam-Flag: YES", False),
    ],
)
def test_spam_is_what_the_server_says(header: bytes, spam: bool) -> None:
    verdict = SpamTag(score="X-Spam-Score").process(incoming(header + b"\r\n\r\nbody\r\n"))
    assert (verdict.tags, verdict.folder) == ((("spam",), "Junk") if spam else ((), None))


def test_spam_may_be_left_to_the_rules() -> None:
    verdict = SpamTag(folder=None, tag="junk").process(incoming(b"X-Spam-Flag: YES\r\n\r\n"))
    assert (verdict.tags, verdict.folder, verdict.reason) == (("junk",), None, "X-Spam-Flag: YES")


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("header", {"header": ""}), ("header", {"header": "a b: c"}), ("score", {"score": "a b"}), ("tag", {"tag": ""}),
        ("folder", {"folder": ""}),
    ],
)  # fmt: skip
def test_bad_spam_tags_are_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SpamTag(**given)
    assert caught.value.field == field


# StripAttachments


def with_attachments() -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = "ann@example.org"
    message["Subject"] = "Grüße"
    message.set_content("Text.\n")
    message.add_alternative("<p>Text.</p>", subtype="html")
    message.add_attachment(b"MZ" * 100, "application", "octet-stream", filename="größe.EXE")
    message.add_attachment(b"%PDF" * 10, "application", "pdf", filename="a.pdf")
    return message.as_bytes()


def stripped(content: bytes, **more: Any) -> tuple[EmailMessage, Postprocessed]:
    verdict = StripAttachments(**more).process(incoming(content))
    assert isinstance(verdict.content, bytes)
    return message_from_bytes(verdict.content, policy=SMTP), verdict


@pytest.mark.parametrize(
    "given",
    [
        {"extensions": ["exe"]},
        {"extensions": [".Exe"]},
        {"types": ["application/octet-*"]},
        {"max_size": 200},
    ],
    ids=str,
)
def test_an_attachment_gives_way_to_a_note(given: dict[str, Any]) -> None:
    content = with_attachments()
    message, verdict = stripped(content, **given)
    assert verdict.tags == ("stripped",)
    body, html, note, pdf = (part for part in message.walk() if not part.is_multipart())
    assert isinstance(body, EmailMessage)
    assert isinstance(note, EmailMessage)
    assert (body.get_content(), html.get_content_type()) == ("Text.\r\n", "text/html")
    assert "The attachment größe.EXE (application/octet-stream" in note.get_content()
    assert note.get_filename() is None
    assert pdf.get_filename() == "a.pdf"
    # All the rest is as it was, octet by octet.
    begin = content.index(b"Content-Type: application/octet-stream")
    end = content.index(b"\r\n--", begin)
    assert isinstance(verdict.content, bytes)
    assert verdict.content.startswith(content[:begin])
    assert verdict.content.endswith(content[end:])


def test_what_is_wanted_stays() -> None:
    content = with_attachments()
    assert (
        StripAttachments(extensions=["js"], types=["video/*"], max_size=10**6).process(incoming(content))
        is UNCHANGED
    )
    assert StripAttachments(max_size=0).process(incoming(b"From: a@x\r\n\r\ntext")) is UNCHANGED


@pytest.mark.parametrize("kind", ["signed", "encrypted", "report"])
def test_sealed_mail_stays_whole(kind: str) -> None:
    content = with_attachments().replace(b"multipart/mixed", f"multipart/{kind}".encode())
    assert StripAttachments(extensions=["exe"]).process(incoming(content)) == Postprocessed(
        tags=("not-stripped",)
    )
    inner = (
        b"Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\n" + content + b"\r\n--outer--\r\n"
    )
    assert StripAttachments(extensions=["exe"]).process(incoming(inner)).content is None


def test_inline_pgp_stays_whole() -> None:
    content = with_attachments().replace(b"Text.", b"-----BEGIN PGP SIGNED MESSAGE-----\r\nText.", 1)
    assert StripAttachments(extensions=["exe"]).process(incoming(content)).content is None


def test_several_go_and_line_feeds_stay() -> None:
    content = with_attachments().replace(b"\r\n", b"\n")
    message, verdict = stripped(content, extensions=["exe", "pdf"])
    assert [part.get_content_type() for part in message.walk() if not part.is_multipart()] == [
        "text/plain", "text/html", "text/plain", "text/plain",
    ]  # fmt: skip
    assert isinstance(verdict.content, bytes)
    assert b"\r" not in verdict.content
    again = StripAttachments(extensions=["exe", "pdf"]).process(incoming(verdict.content))
    assert again is UNCHANGED


def test_dots_at_the_end_of_a_name_hide_nothing() -> None:
    part = b'--b\nContent-Disposition: attachment; filename="a.exe. ."\n\nx\n--b--\n'
    content = b"Content-Type: multipart/mixed; boundary=b\n\n" + part
    assert StripAttachments(extensions=["exe"]).process(incoming(content)).tags == ("stripped",)


@given(st.text(max_size=200), st.sampled_from(["\r\n", "\n"]))
def test_a_note_holds_any_name(name: str, end: str) -> None:
    text = f"Content-Type: multipart/mixed; boundary=b{end}{end}--b{end}Content-Type: x/y{end}{end}x{end}--b--{end}"
    note = "--b\n--b--\n" + name.replace("{", "").replace("}", "") + " "
    message, verdict = stripped(text.encode(), types=["x/*"], note=note)
    (part,) = message.iter_parts()
    assert isinstance(part, EmailMessage)
    found = part.get_content().replace("\r\n", "\n").split("\n")
    expected = note.encode("utf-8", "replace").decode().encode().splitlines()
    assert found[: len(expected)] == [line.decode() for line in expected]
    assert isinstance(verdict.content, bytes)
    assert max(map(len, verdict.content.split(b"\n"))) <= 78


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("types", {}), ("types", {"types": "video/*"}), ("extensions", {"extensions": "exe"}),
        ("max_size", {"max_size": -1}), ("note", {"max_size": 1, "note": "{what}"}),
        ("note", {"max_size": 1, "note": "{"}), ("left", {"max_size": 1, "left": "a b"}),
    ],
)  # fmt: skip
def test_bad_strippers_are_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StripAttachments(**given)
    assert caught.value.field == field


# Route


CONTENT = b"From: ann@example.org\r\nTo: sales@example.com\r\nSubject: x\r\n\r\nHello\r\n"


def routed(verdict: Postprocessed) -> Submission:
    (submission,) = verdict.forward
    return submission


def test_messages_are_routed_by_recipient() -> None:
    route = Route(
        to={
            "sales@*": ["bob@example.net", "sms:+15550100"],
            "*@example.com": ["log@example.com", "bob@example.net"],
        }
    )
    verdict = route.process(incoming(CONTENT, recipients=("Sales@example.com", "log@example.com"), sender=""))
    submission = routed(verdict)
    assert submission.to == ["bob@example.net", "sms:+15550100"]
    assert submission.message == b"X-Loop: sales@example.com\r\n" + CONTENT
    assert (submission.sender, verdict.drop) == ("", False)


def test_where_the_envelope_is_not_known_the_header_tells() -> None:
    verdict = Route(to={"sales@*": ["bob@example.net"]}, keep=False).process(incoming(CONTENT))
    assert routed(verdict).to == ["bob@example.net"]
    assert (verdict.drop, verdict.reason) == (True, "sent on to bob@example.net")


def test_what_went_through_before_is_kept() -> None:
    route = Route(to={"sales@*": ["bob@example.net"]}, keep=False)
    verdict = route.process(incoming(b"X-Loop: sales@example.com\r\n" + CONTENT))
    assert (verdict.drop, verdict.tags, tuple(verdict.forward)) == (False, ("loop",), ())


def test_others_are_left_alone() -> None:
    route = Route(to={"sales@*": ["sales@example.com"], "x@*": ["y@example.net"]})
    assert route.process(incoming(CONTENT)) is UNCHANGED
    assert route.process(incoming(b"\r\n")) is UNCHANGED


@pytest.mark.parametrize("to", [{"": ["a@x"]}, {"a@*": []}, {"a@*": "b@x"}], ids=str)
def test_bad_routes_are_named(to: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^to\["):
        Route(to=to)
