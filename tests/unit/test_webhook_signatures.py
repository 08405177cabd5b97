import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from postroom.errors import ConfigurationError
from postroom.transports.signatures import read_secrets, signature_headers

KEY = bytes(range(32))
TEXT = "whsec_" + base64.b64encode(KEY).decode()


def now() -> float:
    return datetime.now(tz=UTC).timestamp()


@given(body=st.text(), key=st.binary(min_size=24, max_size=64))
def test_the_reference_library_accepts_what_is_signed(body: str, key: bytes) -> None:
    headers = signature_headers(read_secrets(key), "msg_1_0", now(), body.encode("utf-8", "replace"))
    Webhook(key).verify(body.encode("utf-8", "replace"), headers, json_parse=False)


def test_text_and_octets_are_the_same_secret() -> None:
    assert read_secrets(TEXT) == read_secrets(KEY) == (KEY,)
    assert read_secrets(TEXT.rstrip("=")) == (KEY,)


def test_a_known_signature() -> None:
    headers = signature_headers((KEY,), "msg_1_0", 1_700_000_000.9, b'{"a":1}')
    signed = Webhook(KEY).sign("msg_1_0", datetime.fromtimestamp(1_700_000_000, UTC), '{"a":1}')
    assert headers == {
        "webhook-id": "msg_1_0",
        "webhook-timestamp": "1700000000",
        "webhook-signature": signed,
    }


def test_every_secret_of_a_rotation_signs() -> None:
    other = b"o" * 24
    headers = signature_headers(read_secrets([TEXT, other]), "msg_1_0", now(), b"{}")
    for secret in (TEXT, other):
        Webhook(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"p" * 24).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(TEXT).verify(b"{ }", headers)


def test_without_a_secret_there_is_no_signature() -> None:
    assert read_secrets(None) == ()
    assert set(signature_headers((), "msg_1_0", 5, b"")) == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize(
    ("secret", "field"),
    [
        ("plain-password-of-some-length", "secret"),
        ("whsec_***********************", "secret"),
        ("whsec_c2hvcnQ=", "secret"),
        (b"short", "secret"),
        (b"x" * 65, "secret"),
        ([], "secret"),
        ([KEY, b"short"], "secret[1]"),
    ],
)
def test_a_bad_secret_is_refused_without_showing_it(secret: str | bytes | list[bytes], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_secrets(secret)
    assert caught.value.field == field
    for shown in ("password", "***", "c2hv", "short", "xxx"):
        assert shown not in str(caught.value)
