import email.utils
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from postroom.addresses import Address, parse_address
from postroom.clock import ManualClock
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError
from postroom.outcomes import Deferred, Delivered, Failed
from postroom.replies import ReplyRow, Verdict
from postroom.retries import MAX_RETRY_AFTER
from postroom.routing import Router
from postroom.transports.webhook import (
    Timeouts,
    WebhookTransport,
    outcome_of,
    read_retry_after,
)
from postroom.transports.webhook_exchange import HttpReply

NOW = 1_700_000_000.0
KEYS = {"one.example.org": b"1" * 24, "two.example.org": b"2" * 24}


def test_plain_http_is_not_even_routed_unless_allowed() -> None:
    address = parse_address("http://hooks.example.org/x")
    assert Router([WebhookTransport().route]).plan(address) == ()
    assert Router([WebhookTransport(allow_http=True).route]).plan(address) == ("webhook",)


def test_plain_http_that_a_pattern_brings_is_refused() -> None:
    transport = WebhookTransport(patterns=["http://*"])
    session = transport.open()
    outcomes = session.send(Delivery(1, "", (Target(0, parse_address("http://hooks.example.org/")),), b""))
    session.close()
    assert isinstance(outcomes, list)
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].reply.status == "5.7.1"
    assert "allow_http" in outcomes[0].reply.text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"address_types": {"http"}}, "address_types"),
        ({"address_types": {"https", "smtp"}, "allow_http": True}, "address_types"),
        ({"body": "xml"}, "body"),
        ({"secret": "password"}, "secret"),
        ({"replies": [ReplyRow(Verdict.FAILED)]}, "replies[0]"),
        ({"allow_networks": ["x"]}, "allow_networks[0]"),
        ({"headers": {"Bad Name": "x"}}, "headers['Bad Name']"),
        ({"headers": {"X-A": "x\r\nX-B: y"}}, "headers['X-A']"),
        ({"headers": {"X-A": " x"}}, "headers['X-A']"),
        ({"headers": {"X-A": "x\n"}}, "headers['X-A']"),
        ({"headers": {"X-A": "ü"}}, "headers['X-A']"),
        ({"headers": {"HOST": "x"}}, "headers['HOST']"),
        ({"headers": {"webhook-id": "x"}}, "headers['webhook-id']"),
        ({"headers": {"Content-Length": "0"}}, "headers['Content-Length']"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WebhookTransport(**options)
    assert caught.value.field == field


def test_timeouts_are_positive() -> None:
    with pytest.raises(ConfigurationError, match=r"timeouts\.read"):
        Timeouts(read=0)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "postroom.transports.webhook_client", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'postroom\[webhook\]'"):
        WebhookTransport()


def test_importing_the_transport_does_not_import_httpx() -> None:
    script = "import sys, postroom.transports.webhook; assert not {'httpx', 'httpcore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_id_is_stable_and_the_timestamp_is_the_attempts() -> None:
    clock = ManualClock(NOW)
    transport = WebhookTransport(clock=clock, headers={"Authorization": "Bearer x"})
    delivery = Delivery(5, "", (Target(3, parse_address("https://one.example.org/")),), b"")
    first = transport.request_headers(delivery, delivery.targets[0], b"{}")
    clock.advance(100)
    second = transport.request_headers(delivery, delivery.targets[0], b"{}")
    assert first["webhook-id"] == second["webhook-id"] == first["Idempotency-Key"] == "msg_0000000000005_3"
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1700000000", "1700000100")
    assert first["Authorization"] == "Bearer x"
    assert "webhook-signature" not in first


def test_each_receiver_can_have_its_own_secret() -> None:
    def choose(address: Address) -> bytes | None:
        return KEYS.get(address.domain)

    transport = WebhookTransport(secret=choose)
    for number, host in enumerate(KEYS):
        target = Target(number, parse_address(f"https://{host}/"))
        headers = transport.request_headers(Delivery(5, "", (target,), b""), target, b"{}")
        Webhook(KEYS[host]).verify(b"{}", headers)
    stranger = Target(0, parse_address("https://three.example.org/"))
    headers = transport.request_headers(Delivery(5, "", (stranger,), b""), stranger, b"{}")
    assert "webhook-signature" not in headers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0665", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 5000, MAX_RETRY_AFTER),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30.0),
        (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, NOW) == seconds


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]
)
def test_retry_after_in_the_three_forms_of_a_date(
    form: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # RFC 9110 section 5.6.7; the last names no zone and is in UTC all the same.
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert read_retry_after(time.strftime(form, time.gmtime(NOW + 90)), NOW) == 90.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text())
def test_no_retry_after_is_too_broken(value: str) -> None:
    seconds = read_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (HttpReply(200, "ok", "h"), Delivered),
        (HttpReply(204, "", "h"), Delivered),
        (HttpReply(301, "", "h", location="https://other.example.org/"), Failed),
        (HttpReply(308, "", "h", location="https://other.example.org/"), Failed),
        (HttpReply(400, "", "h"), Failed),
        (HttpReply(410, "", "h"), Failed),
        (HttpReply(413, "", "h"), Failed),
        (HttpReply(408, "", "h"), Deferred),
        (HttpReply(425, "", "h"), Deferred),
        (HttpReply(429, "", "h", retry_after="7"), Deferred),
        (HttpReply(500, "", "h"), Deferred),
        (HttpReply(503, "", "h", retry_after="7"), Deferred),
    ],
)
def test_what_an_answer_means(reply: HttpReply, kind: type) -> None:
    outcome = outcome_of(reply, NOW)
    assert isinstance(outcome, kind)
    assert (outcome.reply.code, outcome.reply.remote) == (reply.code, "h")
    if reply.location is not None:
        assert reply.location in outcome.reply.text
    if isinstance(outcome, Deferred):
        assert outcome.retry_after == (None if reply.retry_after is None else float(reply.retry_after))
        assert outcome.destination_down == (reply.code in {429, 503})


def test_a_repr_shows_neither_secret_nor_headers() -> None:
    headers: Mapping[str, str] = {"Authorization": "Bearer hidden"}
    shown = repr(WebhookTransport(secret=b"0123456789abcdefghijklmn", headers=headers))
    assert "hidden" not in shown
    assert "abcdef" not in shown
