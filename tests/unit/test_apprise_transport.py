"""What is handed to Apprise, what its word means, and what of it may be shown, without calling it."""

import base64
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Failed, Outcome, Relayed
from postroom.replies import ReplyRow, Verdict, http_table
from postroom.transports.apprise import AppriseTransport, notice_of, outcome_of
from postroom.transports.apprise_notice import Attached, Notice, Said, read_code, without_secrets
from postroom.transports.webhook_body import JsonBody

TABLE = http_table()


def notice(content: str, **options: Any) -> Notice:
    target = Target(0, parse_address("apprise:ops"))
    delivery = Delivery(1, "", (target,), content.replace("\n", "\r\n").encode())
    return notice_of(JsonBody(delivery), target, options.get("prefer", "text"))


BOTH = """Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain

plain
--a
Content-Type: text/html

<p>rich</p>
--a--
--m
Content-Type: application/pdf
Content-Disposition: attachment; filename=a.pdf
Content-Transfer-Encoding: base64

JVBERg==
--m
Content-Type: image/png
Content-Disposition: attachment

x
--m--
"""


def test_the_parts_of_a_message() -> None:
    found = notice(BOTH)
    assert (found.title, found.body, found.is_html) == ("Grüße", "plain", False)
    assert found.attachments[0] == Attached("a.pdf", "application/pdf", b"%PDF")
    assert found.attachments[1].name == "attachment.png"
    rich = notice(BOTH, prefer="html")
    assert (rich.body, rich.is_html) == ("<p>rich</p>", True)


def test_what_there_is_is_taken() -> None:
    assert notice("Subject: x\n\ntext", prefer="html") == Notice("x", "text")
    assert notice("Subject: x\nContent-Type: text/html\n\n<b>y</b>") == Notice("x", "<b>y</b>", is_html=True)


def test_a_subject_alone_is_the_body() -> None:
    assert notice("Subject: all there is\n\n\n") == Notice("", "all there is")
    assert notice("From: a@example.org\n\n \n").is_empty
    assert not Notice("", "", attachments=(Attached("a", "b/c", b""),)).is_empty


def test_an_attachment_is_read() -> None:
    document = {"filename": None, "content_type": "text/csv", "content": base64.b64encode(b"1,2")}
    assert Attached.read(document) == Attached("attachment.csv", "text/csv", b"1,2")


WORDS: list[tuple[Said, type[Outcome], str]] = [
    (Said("yes"), Relayed, "2.0.0 notified"),
    (Said("no"), Deferred, "4.4.0 Apprise could not notify"),
    (Said("no", "A Connection error occurred"), Deferred, "4.4.0 A Connection error"),
    (Said("no", "Failed to send: error=400."), Failed, "400 5.5.0 Failed"),
    (Said("no", "Failed to send: error=401."), Deferred, "401 4.7.0 Failed"),
    (Said("no", "Failed to send: error=404."), Deferred, "404 4.1.0 Failed"),
    (Said("no", "Failed to send: error=410."), Failed, "410 5.1.6 Failed"),
    (Said("no", "Failed to send: error=503."), Deferred, "503 4.3.2 Failed"),
    (Said("unusable"), Failed, "5.1.3 not a URL"),
    (Said("silence", "given up"), Deferred, "4.4.2 given up"),
]


@pytest.mark.parametrize(("said", "kind", "text"), WORDS)
def test_what_its_word_means(said: Said, kind: type[Outcome], text: str) -> None:
    found = outcome_of(said, TABLE)
    assert type(found) is kind
    assert str(found.reply).startswith(text)
    assert getattr(found, "in_doubt", False) == (said.how == "silence")


def test_too_many_requests_park_nobody_else() -> None:
    found = outcome_of(Said("no", "error=429"), TABLE)
    assert isinstance(found, Deferred)
    assert not found.destination_down


def test_rows_of_ones_own_come_first() -> None:
    rows = [ReplyRow(Verdict.FAILED, codes="404"), ReplyRow(Verdict.TRANSPORT_DOWN, codes="401")]
    transport = AppriseTransport(replies=rows)
    assert isinstance(outcome_of(Said("no", "error=404"), transport.table), Failed)
    assert transport.reply_table()[0] is rows[0]
    with pytest.raises(TransportDown):
        outcome_of(Said("no", "error=401"), transport.table)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("error=404.", 404),
        ("Bad Request, error=400", 400),
        ("(error code: 503)", 503),
        ("error 500", 500),
        ("error=404 error=404", 404),
        ("error=404 error=500", None),
        ("error=200", None),
        ("error=4040", None),
        ("room 404", None),
        ("", None),
    ],
)
def test_the_status_code_in_a_log(text: str, code: int | None) -> None:
    assert read_code(text) == code


def test_the_parts_of_a_url_are_not_shown() -> None:
    url = "slack://botname@T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?token=s%65cret%2Fvalue&x=1"
    text = f"Sent to {url} as botname with TIiajkdnlazkcOXrIdevi7FQ, secret/value and error=404."
    shown = without_secrets(text, url)
    assert shown == "Sent to slack://… as … with …, … and error=404."
    assert without_secrets("login u:pw", "json://u:pw@host") == "login u:…"


@given(st.text("abcXYZ019-_", min_size=6, max_size=30), st.text(max_size=50), st.text(max_size=50))
def test_no_token_is_shown_wherever_it_stands(token: str, before: str, behind: str) -> None:
    assert token not in without_secrets(f"{before}{token}{behind}", f"slack://{token}/x")


def test_addresses_and_their_urls() -> None:
    transport = AppriseTransport(services={"ops": "json://a", "late": lambda: "json://b"})
    assert transport.url(parse_address("apprise:ops")) == "json://a"
    assert transport.url(parse_address("apprise:late")) == "json://b"
    assert transport.url(parse_address("apprise:json://c")) == "json://c"
    assert transport.url(parse_address("apprise:nobody")) is None
    named_only = AppriseTransport(services={"ops": "json://a"}, urls=False)
    assert named_only.url(parse_address("apprise:json://c")) is None


WRONG: list[dict[str, Any]] = [
    {"body": "markdown"},
    {"timeout": 0},
    {"services": {"": "json://a"}},
    {"services": {"json://a": "json://a"}},
    {"services": {"a\n": "json://a"}},
]


@pytest.mark.parametrize("options", WRONG)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AppriseTransport(**options)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    AppriseTransport()
    monkeypatch.delitem(sys.modules, "postroom.transports.apprise_call")
    monkeypatch.delattr("postroom.transports.apprise_call")
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigurationError, match=r"postroom\[apprise\]"):
        AppriseTransport()
