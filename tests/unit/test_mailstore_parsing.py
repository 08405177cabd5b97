"""Whatever comes in can be opened."""

from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.inbound.mailstore_opened import OpenedMessage
from postroom.inbound.mailstore_parsing import (
    MAX_PARTS,
    indexable_text,
    leaves,
    parse_message,
    plain_text,
    readable,
)
from postroom.inbound.mailstore_values import inbound_message
from postroom.inbound.values import Digest, InboundRecord

RECORD = InboundRecord(
    key=1, folder="Inbox", received=1.0, receiver="test", digest=Digest(), sender=None, recipients=(), remote="", size=1
)  # fmt: skip


def opened(content: bytes) -> OpenedMessage:
    return OpenedMessage(inbound_message(RECORD), content)


def look_everywhere(content: bytes) -> None:
    message = opened(content)
    parsed = message.parse()
    for part in parsed.walk():
        for name, value in part.items():
            assert isinstance(str(value), str), name
        if not part.is_multipart():
            part.get_payload(decode=True)
            assert isinstance(part, EmailMessage)
            part.get_content()
    assert isinstance(message.text(), str)
    assert isinstance(message.html(), str)
    assert isinstance(indexable_text(content, 10_000), str)
    for attachment in message.attachments():
        assert "/" not in attachment.name


NESTED = b"".join(
    b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (number, number)
    for number in range(1000)
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"no header at all",
        b"From: \r\n\r\n",
        b'To: <>, <@>, ann@, @b, "unclosed, =?utf-8?q?=FF?=\r\n\r\n',
        b"Date: =?\r\nSubject: =?utf-8?b?!!!?=\r\n\r\nx",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nnever closed",
        b"Content-Type: text/plain; charset=rot13\r\n\r\nuryyb",
        b"Content-Type: text/plain; charset=undefined\r\n\r\nhello",
        b'Content-Type: text/plain; charset="utf-8\0"\r\n\r\nh\xc3\xa9',
        b"Content-Type: text/plain; charset*=x'y'%FF\r\n\r\nhello",
        b"Content-Transfer-Encoding: base64\r\n\r\n====a",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 6",
        b"Content-Transfer-Encoding: \xff\xfe\r\n\r\nx",
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx",
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==",
        b"Content-Type: message/delivery-status\r\n\r\nnot: one\r\n\r\n\r\n: :",
        b'Content-Disposition: attachment; filename*0*=\xff; filename*1="../../etc/passwd"\r\n\r\nx',
        b"Content-Disposition: attachment; filename*=utf-8''%E2%80%AE\r\n\r\nx",
        b"Message-ID: <@[>\r\nReferences: <<<\r\nMIME-Version: 1.0.0.0()\r\n\r\n",
        b"From: a@b\rTo: c@d\n\rSubject: mixed\r\n\nx",
        b"X: " + b"(" * 5000 + b"\r\n\r\nx",
        b"To: " + b"(" * 5000 + b"\r\n\r\nx",
        NESTED,
        b"Content-Type: message/rfc822\r\n\r\n" * 3000,
    ],
)  # fmt: skip
def test_nothing_raises(content: bytes) -> None:
    look_everywhere(content)


_HEADS = st.sampled_from([
    b"From: ", b"To: ", b"Date: ", b"Subject: ", b"Content-Type: ", b"Content-Disposition: ", b"MIME-Version: ",
    b"Content-Transfer-Encoding: ", b"Message-ID: ", b"Resent-To: ", b"Sender: ",
])  # fmt: skip
_TOKENS = st.sampled_from([
    b"=?utf-8?q?", b"?=", b"<", b">", b"@", b'"', b";", b"=", b"*0*=", b"boundary=x", b"charset=", b"multipart/mixed",
    b"message/rfc822", b"text/plain", b"attachment", b"filename", b"\r\n ", b"\xff", b"(", b")", b"[", b"\\", b"a",
    b"base64", b":", b",", b"1", b" ",
])  # fmt: skip
_LINES = st.tuples(_HEADS, st.lists(_TOKENS, max_size=12)).map(
    lambda pair: pair[0] + b"".join(pair[1]) + b"\r\n"
)


@given(
    st.lists(_LINES, max_size=6),
    st.lists(_TOKENS | st.just(b"\r\n--x\r\n") | st.binary(max_size=8), max_size=20),
)
def test_nothing_raises_whatever_comes(head: list[bytes], body: list[bytes]) -> None:
    look_everywhere(b"".join(head) + b"\r\n" + b"".join(body))


@given(st.binary(max_size=400))
def test_nothing_raises_for_any_octets(content: bytes) -> None:
    look_everywhere(content)


def test_nothing_raises_for_the_mail_of_pythons_own_tests() -> None:
    folder = pytest.importorskip("test.test_email")
    files = sorted((Path(folder.__file__).parent / "data").glob("msg_*.txt"))
    assert len(files) > 20
    for file in files:
        look_everywhere(file.read_bytes())


def test_fields_are_typed_as_usual() -> None:
    parsed = parse_message(b"From: Ann <ann@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nx")
    assert isinstance(parsed, EmailMessage)
    assert parsed["from"].addresses[0].addr_spec == "ann@example.org"
    assert parsed["subject"] == "Grüße"


def test_a_message_within_limits() -> None:
    def of(count: int) -> bytes:
        parts = b"".join(b"--x\r\n\r\n%d\r\n" % number for number in range(count))
        return b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + parts + b"--x--\r\n"

    assert len(list(leaves(parse_message(of(900))))) == 900
    assert len(list(leaves(parse_message(of(MAX_PARTS))))) == 1


def test_text_html_and_attachments() -> None:
    message = EmailMessage()
    message["Subject"] = "both"
    message.set_content("Grüße\n", charset="iso-8859-1")
    message.add_alternative('<p>Hello <img src="cid:logo"></p>', subtype="html")
    _, page = message.iter_parts()
    assert isinstance(page, EmailMessage)
    page.add_related(b"\x89PNG", "image", "png", cid="<logo>")
    message.add_attachment(b"a,b\n", maintype="text", subtype="csv", filename="../numbers.csv")
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner.set_content("inner text")
    message.add_attachment(inner)
    got = opened(message.as_bytes())
    assert got.text() == "Grüße\n"
    assert got.html().startswith("<p>Hello")
    logo, table, forwarded = got.attachments()
    assert (logo.content_type, logo.content, logo.content_id) == ("image/png", b"\x89PNG", "logo")
    assert (table.name, table.content, table.inline) == ("numbers.csv", b"a,b\n", False)
    assert forwarded.content_type == "message/rfc822"
    assert b"Subject: inner" in forwarded.content


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        ("text/plain", b"Gr\xc3\xbc\xc3\x9fe", "Grüße"),
        ("text/plain", b"Gr\xfc\xdfe", "Grüße"),
        ("text/plain; charset=utf-16", "Grüße".encode("utf-16"), "Grüße"),
        ("text/plain; charset=unheard-of", b"Gr\xc3\xbc\xc3\x9fe", "Grüße"),
        (
            "text/html",
            b"<style>p {}</style><p>one</p>\n<p>two &amp; three<br>four",
            "one\n\ntwo & three\nfour",
        ),
        ("text/html", b"<![if x]><p>one", "one"),
    ],
)
def test_text_of_what_is_badly_labelled(head: str, body: bytes, text: str) -> None:
    content = f"Content-Type: {head}\r\n\r\n".encode() + body
    assert plain_text(parse_message(content)).strip() == text
    assert indexable_text(content, 1000).strip() == text


@pytest.mark.parametrize(
    ("name", "safe"),
    [("..\\..\\evil.exe", "evil.exe"), (".bashrc", "bashrc"), ("a\u202egpj.exe", "a_gpj.exe"), ("...", "")],
)
def test_file_names_are_harmless(name: str, safe: str) -> None:
    message = EmailMessage()
    message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename=name)
    (attachment,) = opened(message.as_bytes()).attachments()
    assert attachment.name == safe


def test_what_people_read_of_html() -> None:
    assert readable("a<b>b</b> <script>x<y</script>c<!-- <p> d -->e&lt;f<p>g") == "ab ce<f\ng"
    assert readable("before<script>never closed <p>after") == "before"
    assert readable("before<STYLE>p {}</Style>after") == "beforeafter"
    assert readable("3 < 4 and no end") == "3"


def test_the_index_reads_the_text_and_not_what_is_attached() -> None:
    message = EmailMessage()
    message.set_content("the plain text")
    message.add_alternative("<p>the html text</p>", subtype="html")
    message.add_attachment("attached words", filename="notes.txt")
    content = message.as_bytes()
    assert indexable_text(content, len(content)).strip() == "the plain text"
    assert "words" not in indexable_text(content, len(content))
    encoded = EmailMessage()
    encoded.set_content("Grüße " * 100, cte="base64")
    assert indexable_text(encoded.as_bytes(), 400).startswith("Grüße Grüße")
