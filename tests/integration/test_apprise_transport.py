"""The Apprise transport: Apprise itself, posting its JSON to a server in a process of its own."""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from postroom import Spooler
from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale
from postroom.outcomes import Deferred, Failed, NotMine, Outcome, Relayed
from postroom.transports.apprise import AppriseTransport
from tests.support.http_receiver import HttpReceiver

CONTENT = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nhello\r\n"
TOKEN = "sesame-sesame"
PATIENCE = 20.0


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path / "received.jsonl") as running:
        yield running


def url_of(receiver: HttpReceiver, path: str = "") -> str:
    return f"json://127.0.0.1:{receiver.port}/{TOKEN}{path}"


def deliver(transport: AppriseTransport, *addresses: str, content: bytes = CONTENT) -> list[Outcome]:
    session = transport.open()
    try:
        targets = tuple(Target(index, parse_address(each)) for index, each in enumerate(addresses))
        outcomes = session.send(Delivery(1 << 40, "app@example.org", targets, content))
    finally:
        session.close()
    assert isinstance(outcomes, Sequence)
    return list(outcomes)


def received(receiver: HttpReceiver) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in receiver.received()]


def test_a_name_and_a_url_reach_the_service(receiver: HttpReceiver) -> None:
    transport = AppriseTransport(services={"ops": lambda: url_of(receiver)})
    outcomes = deliver(transport, "apprise:ops", f"apprise:{url_of(receiver)}")
    assert [type(each) for each in outcomes] == [Relayed, Relayed]
    first, second = received(receiver)
    assert (first["title"], first["message"]) == ("Grüße", "hello")
    assert first == second


def test_attachments_go_along(receiver: HttpReceiver) -> None:
    content = (
        b"Subject: x\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\ntext\r\n--m\r\n"
        b"Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\n%PDF\r\n--m--\r\n"
    )
    (outcome,) = deliver(AppriseTransport(), f"apprise:{url_of(receiver)}", content=content)
    assert isinstance(outcome, Relayed)
    (attached,) = received(receiver)[0]["attachments"]
    assert (attached["filename"], attached["mimetype"]) == ("a.pdf", "application/pdf")
    assert base64.b64decode(attached["base64"]) == b"%PDF"


def test_html_becomes_what_the_service_takes(receiver: HttpReceiver) -> None:
    content = b"Subject: x\r\nContent-Type: text/html\r\n\r\n<p>one <b>two</b></p>"
    text, html = url_of(receiver) + "?format=text", url_of(receiver) + "?format=html"
    deliver(AppriseTransport(), f"apprise:{text}", f"apprise:{html}", content=content)
    plain, rich = received(receiver)
    assert plain["message"].split() == ["one", "two"]
    assert "<b>two</b>" in rich["message"]


@pytest.mark.parametrize(
    ("status", "kind", "enhanced"),
    [(400, Failed, "5.5.0"), (401, Deferred, "4.7.0"), (404, Deferred, "4.1.0"), (500, Deferred, "4.3.0")],
)
def test_the_status_code_in_its_log_decides(
    receiver: HttpReceiver, status: int, kind: type[Outcome], enhanced: str
) -> None:
    receiver.answer(status=status)
    (outcome,) = deliver(AppriseTransport(services={"ops": url_of(receiver)}), "apprise:ops")
    assert type(outcome) is kind
    assert (outcome.reply.status, outcome.reply.code) == (enhanced, status)
    assert outcome.reply.text.startswith("Failed to send JSON")


def test_no_connection_is_temporary_and_shows_no_secret(receiver: HttpReceiver) -> None:
    receiver.kill()
    (outcome,) = deliver(AppriseTransport(services={"ops": url_of(receiver)}), "apprise:ops")
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.4.0"
    assert "Connection error" in outcome.reply.text
    assert TOKEN not in str(outcome)


def test_addresses_that_nobody_can_use() -> None:
    transport = AppriseTransport(services={"broken": "slack://"})
    unknown, schema, malformed, broken = deliver(
        transport, "apprise:nobody", "apprise:zork://x/y", "apprise:slack://", "apprise:broken"
    )
    assert isinstance(unknown, NotMine)
    for each in (schema, malformed):
        assert isinstance(each, Failed)
        assert each.reply.status == "5.1.3"
    assert isinstance(broken, Deferred)
    assert broken.reply.status == "4.3.5"
    (refused,) = deliver(AppriseTransport(urls=False), "apprise:json://127.0.0.1")
    assert isinstance(refused, NotMine)


def test_nothing_to_say(receiver: HttpReceiver) -> None:
    (outcome,) = deliver(
        AppriseTransport(), f"apprise:{url_of(receiver)}", content=b"From: a@b.example\r\n\r\n"
    )
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.6.0"
    assert receiver.received() == []


def test_no_answer_in_time_is_in_doubt(receiver: HttpReceiver) -> None:
    receiver.answer(how="never")
    transport = AppriseTransport(services={"ops": url_of(receiver)}, timeout=0.3)
    (outcome,) = deliver(transport, "apprise:ops")
    assert isinstance(outcome, Deferred)
    assert outcome.in_doubt
    assert outcome.reply.text == "no answer in 0.3 seconds"


def test_after_an_abort_nobody_is_notified(receiver: HttpReceiver) -> None:
    session = AppriseTransport(services={"ops": url_of(receiver)}).open()
    session.abort()
    with pytest.raises(SessionStale):
        session.send(Delivery(1, "", (Target(0, parse_address("apprise:ops")),), CONTENT))
    session.close()


def test_the_words_of_calls_side_by_side_are_kept_apart(receiver: HttpReceiver) -> None:
    codes = [400, 404, 410, 500] * 4
    transport = AppriseTransport(
        services={f"s{code}": f"json://127.0.0.1:{receiver.port}/?-status={code}" for code in codes}
    )
    handlers = list(logging.getLogger("apprise").handlers)

    def courier(code: int) -> Outcome:
        return deliver(transport, f"apprise:s{code}")[0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(courier, codes))
    assert [each.reply.code for each in found] == codes
    assert logging.getLogger("apprise").handlers == handlers


def test_through_the_spool_and_no_secret_in_it(receiver: HttpReceiver, tmp_path: Path) -> None:
    transport = AppriseTransport(services={"ops": url_of(receiver)})
    path = tmp_path / "spool.db"
    with Spooler(path, transports=[transport]) as spooler:
        receipt = spooler.submit(
            b"From: a@example.org\nSubject: disk full\n\n/var is full\n", to="apprise:ops"
        )
        assert receipt.wait(PATIENCE).succeeded
    assert [each["title"] for each in received(receiver)] == ["disk full"]
    assert not any(
        TOKEN.encode() in each.read_bytes() for each in tmp_path.glob("spool.db*") if each.is_file()
    )
