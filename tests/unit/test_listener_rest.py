"""Trace fields, replies, passwords, contents and settings of a listener."""

import asyncio
import ssl
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import (
    ConfigurationError,
    InvalidAddress,
    InvalidMessage,
    MessageTooLarge,
    NotRunning,
    SpoolFull,
    SpoolUnavailable,
    TooManyRecipients,
    UnknownAddressType,
)
from postroom.receivers.listener import SmtpListener
from postroom.receivers.listener_auth import Credentials, decode, plain, tenant_of
from postroom.receivers.listener_commands import Refused
from postroom.receivers.listener_data import Content
from postroom.receivers.listener_intake import unstuffed
from postroom.receivers.listener_replies import refusal, with_status
from postroom.receivers.listener_trace import (
    Origin,
    fingerprint,
    has_message_id,
    hops,
    received_field,
    return_path,
    with_keyword,
)
from postroom.transports.smtp_envelope import stuffed

TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


@pytest.mark.parametrize(
    ("origin", "keyword"),
    [
        (Origin(extended=False), "SMTP"),
        (Origin(), "ESMTP"),
        (Origin(tls=TLS), "ESMTPS"),
        (Origin(authenticated=True), "ESMTPA"),
        (Origin(tls=TLS, authenticated=True), "ESMTPSA"),
        (Origin(protocol="lmtp"), "LMTP"),
        (Origin(protocol="lmtp", tls=TLS, authenticated=True), "LMTPSA"),
        (Origin(smtputf8=True, tls=TLS), "UTF8SMTPS"),
        (Origin(protocol="lmtp", smtputf8=True), "UTF8LMTP"),
    ],
)
def test_with_keywords(origin: Origin, keyword: str) -> None:
    assert with_keyword(origin) == keyword


def test_a_received_field() -> None:
    origin = Origin(helo="client.example", ip="192.0.2.1", tls=TLS, authenticated=True)
    field = received_field(
        origin, hostname="mx.example.org", unique="abc", recipients=["ann@example.org"], now=1_700_000_000.7
    )
    assert field == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.org (Postroom) with ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tid abc\r\n\tfor <ann@example.org>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_recipients_do_not_learn_of_each_other() -> None:
    two = received_field(Origin(), hostname="mx", unique="abc", recipients=["a@x", "b@x"], now=0)
    assert b"for" not in two
    same = received_field(Origin(), hostname="mx", unique="abc", recipients=["a@x", "a@x"], now=0)
    assert b"for <a@x>" in same


@given(st.text(max_size=40), st.text(max_size=20))
def test_what_a_client_calls_itself_never_starts_a_field(helo: str, ip: str) -> None:
    field = received_field(Origin(helo=helo, ip=ip), hostname="mx", unique="u", recipients=(), now=0)
    assert field.startswith(b"Received: from ")
    assert field.count(b"\n") == 3
    assert field.count(b"\r\n\t") == 2
    assert b"(" not in field.partition(b"by mx")[0] or b" ([" in field


def test_ipv6_peers() -> None:
    field = received_field(
        Origin(helo="x", ip="2001:db8::1"), hostname="mx", unique="u", recipients=(), now=0
    )
    assert b"from x ([IPv6:2001:db8::1])" in field


def test_return_paths() -> None:
    assert return_path("") == b"Return-Path: <>\r\n"
    assert return_path("ann@example.org") == b"Return-Path: <ann@example.org>\r\n"


def test_hops_are_counted_in_the_header_only() -> None:
    head = b"Received: by a\r\nreceived : by b\r\n\tx Received: no\r\nX-Received: no\r\n"
    assert hops(head + b"\r\nReceived: no\r\n") == 2
    assert hops(head) == 2
    assert hops(b"\r\nReceived: no\r\n") == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"Message-ID: <1@x>\r\n\r\n", True),
        (b"A: b\r\nmessage-id:\r\n <1@x>\r\n\r\n", True),
        (b"Message-ID:\r\n\r\nbody\r\n", False),
        (b"Subject: x\r\n\r\nMessage-ID: <1@x>\r\n", False),
        (b"\r\nMessage-ID: <1@x>\r\n", False),
    ],
)
def test_message_ids(content: bytes, *, named: bool) -> None:
    assert has_message_id(content) is named


def test_a_fingerprint_knows_envelope_and_content() -> None:
    same = fingerprint(b"content", "a@x", "b@x")
    assert same == fingerprint(b"content", "a@x", "b@x")
    others = {
        fingerprint(b"content", "a@x", "c@x"),
        fingerprint(b"other", "a@x", "b@x"),
        fingerprint(b"content"),
    }
    assert len(others | {same}) == 4


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (SpoolFull("x"), "452 4.3.1 "),
        (SpoolUnavailable("x"), "451 4.3.0 "),
        (NotRunning("x"), "451 4.3.0 "),
        (RuntimeError("x"), "451 4.3.0 "),
        (MessageTooLarge("message", "p", "r"), "552 5.3.4 message: p; r"),
        (TooManyRecipients("to", "p", "r"), "554 5.5.3 to: p; r"),
        (UnknownAddressType("to[0]", "p", "r"), "550 5.1.2 to[0]: p; r"),
        (InvalidAddress("sender", "p", "r"), "553 5.1.7 "),
        (InvalidAddress("to[0]", "p", "r"), "553 5.1.3 "),
        (InvalidMessage("From", "is\r\n250 missing ü", "r" * 900), "554 5.6.0 From: is  250 missing ?; rrr"),
    ],
)
def test_replies_to_errors(error: Exception, reply: str) -> None:
    said = refusal(error)
    assert said.startswith(reply)
    assert len(said) < 500
    assert said.isascii()
    assert said.isprintable()


@pytest.mark.parametrize(
    ("reply", "whole"),
    [
        ("250 OK", "250 2.0.0 OK"),
        ("503 Error: send EHLO first", "503 5.5.1 Error: send EHLO first"),
        ("500 Command line too long", "500 5.5.2 Command line too long"),
        ("421 4.7.0 x", "421 4.7.0 x"),
        ("250 2.1.0", "250 2.1.0"),
        ("220 mx ESMTP", "220 mx ESMTP"),
        ("354 go on", "354 go on"),
        ("250-mx", "250-mx"),
        ("221", "221 2.0.0"),
    ],
)
def test_enhanced_status_codes(reply: str, whole: str) -> None:
    assert with_status(reply) == whole


def test_plain_responses() -> None:
    assert plain(b"\0ann\0secret") == Credentials("ann", "secret")
    assert plain(b"ann\0ann\0secret") == Credentials("ann", "secret")
    for malformed in (b"", b"ann\0secret", b"bob\0ann\0secret", b"\0\0secret", b"\0ann\0\xff", b"\0a\0b\0c"):
        assert plain(malformed) is None


def test_base64() -> None:
    assert decode("YW5u") == b"ann"
    assert decode(b"YW5u\r\n") == b"ann"
    assert decode("=") == b""
    assert decode("not base64") is None
    assert decode("\udcff") is None


def test_who_a_client_is() -> None:
    users = {"ann": "secret", "empty": ""}
    assert tenant_of(users, Credentials("ann", "secret")) == "ann"
    assert tenant_of(users, Credentials("ann", "Secret")) is None
    assert tenant_of(users, Credentials("bob", "")) is None
    assert tenant_of(users, Credentials("empty", "")) is None

    def ask(user: str, password: str) -> bool | str | None:
        assert user == "ann"
        answers: dict[str, bool | str] = {"x": True, "y": "tenant y", "z": "a\nb", "w": False}
        return answers.get(password)

    assert tenant_of(ask, Credentials("ann", "x")) == "ann"
    assert tenant_of(ask, Credentials("ann", "y")) == "tenant y"
    assert tenant_of(ask, Credentials("ann", "z")) is None
    assert tenant_of(ask, Credentials("ann", "w")) is None
    assert tenant_of(ask, Credentials("ann", "else")) is None


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("ann", "secret"))


@pytest.mark.parametrize(
    "wire",
    [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n.\nb\r\n", b"a\n.\r\nb\r\n", b"a\r\r\n", b"\n", b"a\r.\r\nb\r\n"],
)
def test_bare_line_ends_are_refused(wire: bytes) -> None:
    with pytest.raises(Refused) as refused:
        unstuffed(wire)
    assert refused.value.reply.startswith("554 5.5.2 ")


@given(
    st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b".\r\n", b"\r\n.", b"\xff", b"\0"]), max_size=20)
)
def test_contents_come_through_as_they_were_in_pieces_of_any_size(parts: list[bytes]) -> None:
    content = b"".join(parts).removesuffix(b"\r\n") + b"\r\n"
    wire = stuffed(content)
    for limit in (8, 64, 65536):
        assert asyncio.run(_read(wire + b"QUIT\r\n", limit)) == (content, b"QUIT\r\n")


async def _read(wire: bytes, limit: int) -> tuple[bytes, bytes]:
    reader = asyncio.StreamReader(limit=limit)
    content = Content(1 << 20, lambda _: True)
    task = asyncio.ensure_future(content.read(reader, lambda: None))
    for at in range(0, len(wire), 3):
        reader.feed_data(wire[at : at + 3])
        await asyncio.sleep(0)
    reader.feed_eof()
    await task
    return unstuffed(content.take()), await reader.read()


def test_an_empty_content() -> None:
    assert asyncio.run(_read(b".\r\nQUIT\r\n", 100)) == (b"", b"QUIT\r\n")


def test_what_is_too_large_is_read_to_its_end_and_not_kept() -> None:
    async def read() -> Content:
        reader = asyncio.StreamReader(limit=1024)
        content = Content(1000, lambda _: True)
        task = asyncio.ensure_future(content.read(reader, lambda: None))
        for _ in range(100):
            reader.feed_data(b"x" * 998 + b"\r\n")
            await asyncio.sleep(0)
        reader.feed_data(b".\r\nNOOP\r\n")
        await task
        assert await reader.readline() == b"NOOP\r\n"
        return content

    content = asyncio.run(read())
    assert content.too_large
    assert content.reserved < 10_000
    assert content.take() == b""


def test_empty_lines_without_end_are_counted_too() -> None:
    async def read() -> Content:
        reader = asyncio.StreamReader(limit=1024)
        reader.feed_data(b"\r\n" * 200_000 + b".\r\n")
        content = Content(100_000, lambda _: True)
        await content.read(reader, lambda: None)
        return content

    content = asyncio.run(read())
    assert content.too_large
    assert content.size == 400_000


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"protocol": "uucp"}, "protocol"),
        ({"tls": "starttls"}, "ssl_context"),
        ({"tls": "maybe"}, "tls"),
        ({"ssl_context": ssl.create_default_context()}, "ssl_context"),
        ({"port": 70000}, "port"),
        ({"max_recipients": 0}, "max_recipients"),
        ({"timeout": -1}, "timeout"),
        ({"max_buffered": 10}, "max_buffered"),
        ({"reuse_port": True}, "reuse_port"),
        ({"local": ()}, "local"),
        ({"hostname": "not a name"}, "hostname"),
        ({"relay": "always"}, "relay"),
        ({"networks": ["x"]}, "networks"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    all_settings: dict[str, Any] = {"local": ["example.org"]} | settings
    with pytest.raises(ConfigurationError) as refused:
        SmtpListener(**all_settings)
    assert refused.value.field.startswith(field)


def test_a_listener_that_is_not_open_has_no_address() -> None:
    with pytest.raises(NotRunning):
        _ = SmtpListener(local=["example.org"]).address


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpd", None)
    with pytest.raises(ConfigurationError, match=r"pip install postroom\[listener\]"):
        SmtpListener(local=["example.org"]).prepare()


def test_passwords_are_not_in_a_listeners_repr() -> None:
    assert "secret" not in repr(SmtpListener(auth={"ann": "secret"}))
