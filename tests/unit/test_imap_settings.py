"""What can be said wrongly of an IMAP or POP3 receiver, and what is never shown of it."""

import importlib
import ssl
from typing import Any

import pytest

from postroom.errors import ConfigurationError
from postroom.receivers.imap import ImapReceiver
from postroom.receivers.mailbox_access import client_context, reveal
from postroom.receivers.mailbox_traces import envelope_of
from postroom.receivers.pop3 import Pop3Receiver

GOOD: dict[str, Any] = {"host": "mail.example.org", "user": "desk", "password": "hidden"}
BOTH: list[tuple[dict[str, Any], str]] = [
    ({"host": ""}, "host"),
    ({"port": 0}, "port"),
    ({"port": 65536}, "port"),
    ({"tls": "opportunistic"}, "tls"),
    ({"tls": "none"}, "tls"),
    ({"user": ""}, "user"),
    ({"after": "burn"}, "after"),
    ({"max_message_size": 0}, "max_message_size"),
    ({"batch_messages": 0}, "batch_messages"),
    ({"batch_octets": -1}, "batch_octets"),
    ({"timeout": 0}, "timeout"),
    ({"connect_timeout": 0}, "connect_timeout"),
]


def settings(**changed: Any) -> dict[str, Any]:
    return GOOD | changed


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        *BOTH,
        ({"password": None}, "password"),
        ({"access_token": "hidden too"}, "password"),
        ({"folders": ()}, "folders"),
        ({"folders": "INBOX"}, "folders"),
        ({"folders": ("INBOX", "")}, "folders"),
        ({"folders": ("INBOX", "INBOX")}, "folders"),
        ({"after": "move:"}, "after"),
        ({"after": "move:INBOX"}, "after"),
        ({"backlog": "some"}, "backlog"),
    ],
)
def test_imap_settings_that_cannot_be(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ImapReceiver(**settings(**changed))
    assert caught.value.field == field
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "field"),
    [*BOTH, ({"keep_days": 3}, "keep_days"), ({"after": "keep", "keep_days": 0}, "keep_days")],
)
def test_pop3_settings_that_cannot_be(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Pop3Receiver(**settings(**changed))
    assert caught.value.field == field
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("kind", [ImapReceiver, Pop3Receiver])
def test_no_tls_is_for_this_machine_or_who_insists(kind: type[ImapReceiver] | type[Pop3Receiver]) -> None:
    changes: list[dict[str, Any]] = [
        {"host": "127.0.0.1"},
        {"host": "::1"},
        {"host": "localhost"},
        {"insecure": True},
    ]
    for changed in changes:
        kind(**settings(**changed, tls="none"))


def test_what_is_shown_has_no_secret() -> None:
    for receiver in (
        ImapReceiver(**GOOD),
        ImapReceiver(**settings(password=None, access_token="hidden")),
        Pop3Receiver(**GOOD),
    ):
        assert "hidden" not in repr(receiver)
        assert "mail.example.org" in repr(receiver)


def test_without_imapclient_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"postroom\[imap\]"):
        ImapReceiver(**GOOD).prepare()


def test_secrets_are_asked_for_each_time_and_looked_at() -> None:
    answers = iter(["one", "two"])
    assert [reveal(lambda: next(answers), "password") for _ in range(2)] == ["one", "two"]
    for wrong in ("", "a\n", "a\r\nb", "a\0"):
        with pytest.raises(ConfigurationError) as caught:
            reveal(wrong, "password")
        assert caught.value.field == "password"


def test_the_context_verifies_unless_another_is_given() -> None:
    context = client_context("implicit", None)
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    given = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert client_context("starttls", given) is given
    assert client_context("none", given) is None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Return-Path: <ann@example.org>\r\n", ("ann@example.org", ())),
        (b"Return-path: ann@example.org\r\n", ("ann@example.org", ())),
        (b"Return-Path: <>\r\n", ("", ())),
        (b"Return-Path: <nonsense>\r\n", (None, ())),
        (b"Return-Path:\r\n", (None, ())),
        (b"Subject: none\r\n", (None, ())),
        (b"Delivered-To: a@x.example\r\nDelivered-To: b@x.example\r\n", (None, ("a@x.example",))),
        (
            b"Delivered-To: a@x.example\r\nX-Original-To: Alias@x.example\r\nEnvelope-To: a@x.example\r\n",
            (None, ("Alias@x.example", "a@x.example")),
        ),
        ("Delivered-To: josé@x.example\r\n".encode(), (None, ("josé@x.example",))),
        (b"Return-Path:\r\n <ann@example.org>\r\n", ("ann@example.org", ())),
        (b"\r\nReturn-Path: <ann@example.org>\r\n", (None, ())),
    ],
)
def test_the_envelope_that_a_delivery_wrote_down(
    head: bytes, expected: tuple[str | None, tuple[str, ...]]
) -> None:
    assert envelope_of(head + b"\r\nDelivered-To: body@x.example\r\n") == expected


def test_a_message_without_a_body_or_anything() -> None:
    assert envelope_of(b"Return-Path: <ann@example.org>\r\n")[0] == "ann@example.org"
    assert envelope_of(b"") == (None, ())
