"""The endpoints in servers of both kinds, with a real spool behind them."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
import uvicorn

from postroom import MemoryTransport, Spooler
from postroom.errors import ConfigurationError, SpoolFull
from postroom.inbound.values import RemoteReport
from postroom.outcomes import Accepted
from postroom.receivers.http import InboundEndpoint, ReportEndpoint
from postroom.receivers.providers import (
    PostedMessages,
    PostmarkReports,
    Provider,
    StandardReports,
    TwilioReports,
    Unavailable,
)
from postroom.recipients import State
from postroom.tokens import Tokens
from postroom.transports.smtp import SmtpTransport
from tests.support.smtp_server import SmtpServer
from tests.support.spooling import PATIENCE, SENDER, message, until
from tests.support.webhooks import STANDARD_KEY, TWILIO_TOKEN, TWILIO_URL, basic, clock, standard, twilio

Kind = Literal["wsgi", "asgi"]
Endpoint = ReportEndpoint | InboundEndpoint
BEARER = {"authorization": "Bearer 0123456789abcdef", "content-type": "message/rfc822"}
MAIL = b"From: ann@example.net\r\nTo: desk@example.org\r\nSubject: caf\xe9\r\n\r\nHello\n\r\nagain\r\n.\r\n"


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
        pass


@contextlib.contextmanager
def serving(kind: Kind, endpoint: Endpoint) -> Generator[httpx.Client]:
    """Serve an endpoint below /hooks where the server can, and yield a client of it."""
    with wsgi(endpoint) if kind == "wsgi" else asgi(endpoint) as url, httpx.Client(base_url=url) as client:
        yield client


@contextlib.contextmanager
def wsgi(endpoint: Endpoint) -> Generator[str]:
    app = cast("Any", endpoint.wsgi)
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def asgi(endpoint: Endpoint) -> Generator[str]:
    config = uvicorn.Config(
        cast("Any", endpoint.asgi), log_level="critical", ws="none", lifespan="on", root_path="/hooks"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started, "a server that started")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Taker:
    """Takes reports, or refuses to."""

    def __init__(self) -> None:
        self.taken: list[RemoteReport] = []
        self.error: Exception | None = None

    def take_reports(self, reports: Sequence[RemoteReport], *, timeout: float | None = None) -> list[bool]:
        assert timeout == 5.0
        if self.error is not None:
            raise self.error
        self.taken += reports
        return [False] * len(reports)


def standard_endpoint(taker: Taker) -> ReportEndpoint:
    return ReportEndpoint(
        taker,
        providers={
            "/own": StandardReports(STANDARD_KEY, time=clock),
            "/postmark": PostmarkReports("postroom", "a password of 16+"),
        },
        max_body=2000, timeout=5.0, retry_after=7.2,
    )  # fmt: skip


SAID = {"message_id": "m1@example.org", "recipient": "ann@example.net", "action": "failed"}


def chunks(octets: bytes, count: int = 1) -> Callable[[], Iterator[bytes]]:
    def made() -> Iterator[bytes]:
        yield from [octets] * count

    return made


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_every_answer(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    taker = Taker()
    headers, body = standard(SAID)
    with (
        serving(kind, standard_endpoint(taker)) as client,
        caplog.at_level(logging.CRITICAL, "postroom.receivers"),
    ):
        taken = client.post("/own", headers=headers, content=body)
        assert (taken.status_code, taken.text) == (200, "OK\n")
        assert client.post("/own/", headers=headers, content=body).status_code == 200
        assert [report.message_id for report in taker.taken] == ["<m1@example.org>"] * 2
        # What has nothing to say is no letter to the spool.
        opened = client.post(
            "/postmark", headers=basic("postroom", "a password of 16+"), content=b'{"RecordType": "Open"}'
        )
        assert opened.status_code == 200

        for method in ("GET", "HEAD", "PUT", "OPTIONS"):
            answer = client.request(method, "/own", headers=headers)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert client.post("/other", headers=headers, content=body).status_code == 404
        assert client.post("/", headers=headers, content=body).status_code == 404

        refused = client.post("/own", headers=headers, content=body + b" ")
        assert (refused.status_code, refused.text) == (401, "Unauthorized\n")
        assert refused.headers["www-authenticate"] == "Signature"
        refused = client.post("/postmark", headers=basic("postroom", "wrong"), content=b"{}")
        assert refused.headers["www-authenticate"].startswith("Basic ")

        bad_headers, bad_body = standard({"action": "failed"})
        malformed = client.post("/own", headers=bad_headers, content=bad_body)
        assert (malformed.status_code, malformed.text) == (400, "Bad Request\n")
        html = client.post("/own", headers=headers | {"content-type": "text/html"}, content=body)
        assert html.status_code == 415
        assert client.post("/own", headers=headers, content=b"x" * 2001).status_code == 413

        for error in (SpoolFull("no room"), ConnectionResetError("secret detail")):
            taker.error = error
            failed = client.post("/own", headers=headers, content=body)
            assert failed.text in {"Service Unavailable\n", "Internal Server Error\n"}
            assert (failed.status_code, failed.headers.get("retry-after")) == (
                (503, "7") if isinstance(error, SpoolFull) else (500, None)
            )
        assert len(taker.taken) == 2


def test_a_body_of_unknown_length() -> None:
    """httpx sends it in chunks; wsgiref knows none."""
    taker = Taker()
    headers, body = standard(SAID)
    with serving("asgi", standard_endpoint(taker)) as client:
        assert client.post("/own", headers=headers, content=chunks(body)()).status_code == 200
        assert client.post("/own", headers=headers, content=chunks(b"x" * 1500, 2)()).status_code == 413
    with serving("wsgi", standard_endpoint(taker)) as client:
        assert client.post("/own", headers=headers, content=chunks(b"")()).status_code == 411
    assert len(taker.taken) == 1


def call_wsgi(endpoint: Endpoint, octets: bytes, **environ: Any) -> int:
    class Input:
        def __init__(self) -> None:
            self.left = octets

        def read(self, size: int) -> bytes:
            if octets == b"broken":
                raise ConnectionResetError
            chunk, self.left = self.left[: min(size, 7)], self.left[min(size, 7) :]
            return chunk

    statuses: list[str] = []

    def start_response(status: str, fields: list[tuple[str, str]]) -> None:
        assert dict(fields)["Cache-Control"] == "no-store"
        statuses.append(status)

    list(
        endpoint.wsgi(
            {"REQUEST_METHOD": "POST", "PATH_INFO": "/own", "wsgi.input": Input()} | environ, start_response
        )
    )
    return int(statuses[0][:3])


def test_wsgi_servers_that_end_the_body_and_clients_that_break_off() -> None:
    taker = Taker()
    endpoint = standard_endpoint(taker)
    headers, body = standard(SAID)
    given = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    given["CONTENT_TYPE"] = given.pop("HTTP_CONTENT_TYPE")
    ended = given | {"wsgi.input_terminated": True}
    assert call_wsgi(endpoint, body, **ended) == 200
    assert call_wsgi(endpoint, b"x" * 2001, **ended) == 413
    assert call_wsgi(endpoint, body, CONTENT_LENGTH=str(len(body)), **given) == 200
    assert call_wsgi(endpoint, body[:-1], CONTENT_LENGTH=str(len(body)), **given) == 400
    assert call_wsgi(endpoint, b"broken", CONTENT_LENGTH=str(len(body)), **given) == 400
    assert len(taker.taken) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"providers": {}},
        {"providers": {"ses": StandardReports(STANDARD_KEY)}},
        {"providers": {"/": StandardReports(STANDARD_KEY)}},
        {"max_body": 0},
        {"timeout": -1.0},
    ],
)
def test_what_cannot_work_is_refused_at_once(more: dict[str, Any]) -> None:
    given: dict[str, Any] = {"providers": {"/own": StandardReports(STANDARD_KEY)}}
    with pytest.raises(ConfigurationError):
        ReportEndpoint(Taker(), **(given | more))


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_what_cannot_be_judged_now_comes_again(kind: Kind) -> None:
    class Unsure(Provider[RemoteReport]):
        content_types = frozenset[str]()

        def read(self, headers: Any, body: bytes) -> Sequence[RemoteReport]:
            del headers, body
            raise Unavailable("no certificate")

    with serving(kind, ReportEndpoint(Taker(), providers={"/x": Unsure()})) as client:
        answer = client.post("/x", content=b"?")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


# With a spool behind it


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_status_callback_settles_a_text_message(kind: Kind, tmp_path: Path) -> None:
    phone = MemoryTransport(
        name="sms", address_types={"sms"}, answer=lambda d: Accepted(f"SM{d.targets[0].address.value}")
    )
    spooler = Spooler(tmp_path / "spool.db", transports=[phone])
    endpoint = ReportEndpoint(spooler, providers={"/twilio": TwilioReports(TWILIO_TOKEN, TWILIO_URL)})
    with serving(kind, endpoint) as client:
        with spooler:
            receipt = spooler.submit(message(1), sender=SENDER, to=["sms:+15550100", "sms:+15550101"])

            def states() -> list[State]:
                return [recipient.state for recipient in spooler.status(receipt.id).recipients]

            until(lambda: states() == [State.ACCEPTED] * 2)
            for number, status in (
                ("+15550100", "delivered"),
                ("+15550101", "undelivered"),
                ("+15559999", "failed"),
            ):
                headers, body = twilio({"MessageSid": f"SM{number}", "MessageStatus": status, "To": number})
                for _ in range(2):
                    assert client.post("/twilio", headers=headers, content=body).status_code == 200
            # The answer came after the commit, so there is nothing to wait for.
            assert states() == [State.DELIVERED, State.FAILED]
        assert client.post("/twilio", headers=headers, content=body).status_code == 503


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_posted_message_is_in_the_spool_octet_for_octet_and_once(kind: Kind, tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", transports=[MemoryTransport()])
    endpoint = InboundEndpoint(
        spooler, providers={"/mail": PostedMessages(bearer="0123456789abcdef")}, name="posted"
    )
    with serving(kind, endpoint) as client:
        with spooler:
            for _ in range(2):
                assert client.post("/mail", headers=BEARER, content=MAIL).status_code == 200
            (record,) = spooler.mail.list()
            assert (record.receiver, record.folder) == ("posted", "Inbox")
            assert spooler.mail.content(record.id) == MAIL
        assert client.post("/mail", headers=BEARER, content=MAIL).status_code == 503


def test_a_bounce_finds_its_recipient_by_the_return_path_alone(tmp_path: Path) -> None:
    tokens = Tokens(bytes(range(32)), "bounces+{token}@example.org")
    with SmtpServer(tmp_path / "r.jsonl") as server:
        smtp = SmtpTransport("127.0.0.1", server.port, security="none", bounces=tokens)
        spooler = Spooler(tmp_path / "spool.db", transports=[smtp])
        inbound = InboundEndpoint(spooler, providers={"/mail": PostedMessages(bearer="0123456789abcdef")})
        with spooler, serving("wsgi", inbound) as client:
            receipt = spooler.submit(message(1), sender=SENDER, to=["ann@example.net", "bob@example.net"])
            assert receipt.wait(timeout=PATIENCE).succeeded
            paths = {sent.recipients[0]: sent.sender for sent in server.messages()}
            bounce = (
                f"Return-Path: <>\r\nDelivered-To: {paths['bob@example.net']}\r\nSubject: failure notice\r\n\r\n"
                "Hi. This is the qmail-send program.\r\n\r\n<forwarded@example.com>:\r\nNo such box (#5.1.1)\r\n\r\n"
            ).encode()
            assert client.post("/mail", headers=BEARER, content=bounce).status_code == 200
            states = [recipient.state for recipient in spooler.status(receipt.id).recipients]
            assert states == [State.RELAYED, State.FAILED]
            (record,) = spooler.mail.list("Reports")
            assert record.matched
