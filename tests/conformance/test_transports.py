"""The conformance suite on the transports that come with Postroom."""

import json
import logging
import mailbox
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.testing.transports import SENDER, Arrival, TransportConformance, TransportHarness
from postroom.transports.base import Transport
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.memory import MemoryTransport
from postroom.transports.smtp import LmtpTransport, SmtpTransport
from postroom.transports.webhook import Timeouts, WebhookTransport
from tests.support.http_receiver import HttpReceiver, Received
from tests.support.signals import suspend
from tests.support.smtp_server import Script, SmtpServer

SECRET = "whsec_" + "c2VjcmV0" * 4
PASSWORD = "only-for-the-relay"
TOKEN = "Bearer only-for-the-receiver"


class MemoryHarness(TransportHarness):
    def __init__(self) -> None:
        self.transport = MemoryTransport()

    def make(self) -> Transport:
        return self.transport

    def address(self, number: int) -> Address:
        return parse_address(f"memory:box{number}")

    def arrived(self) -> list[Arrival]:
        return [
            (str(target.address), delivery.content)
            for delivery in self.transport.deliveries
            for target in delivery.targets
        ]


class TestMemoryTransport(TransportConformance):
    @pytest.fixture
    def harness(self) -> TransportHarness:
        return MemoryHarness()


class LogHarness(TransportHarness):
    shows_content = False

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        caplog.set_level(logging.INFO, "postroom.transports.log")

    def make(self) -> Transport:
        return LogTransport()

    def address(self, number: int) -> Address:
        return parse_address(f"log:line{number}")

    def arrived(self) -> list[Arrival]:
        recipients = (getattr(record, "postroom_recipients", []) for record in self._caplog.records)
        return [(recipient, b"") for listed in recipients for recipient in listed]


class TestLogTransport(TransportConformance):
    @pytest.fixture
    def harness(self, caplog: pytest.LogCaptureFixture) -> TransportHarness:
        return LogHarness(caplog)


class MaildirHarness(TransportHarness):
    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self) -> Transport:
        return MaildirTransport(self._root)

    def address(self, number: int) -> Address:
        return parse_address(f"maildir:users/user{number}")

    def arrived(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        for directory in sorted((self._root / "users").glob("*")):
            box = mailbox.Maildir(directory, create=False)
            arrivals += [(f"maildir:users/{directory.name}", box.get_bytes(key)) for key in box.keys()]  # noqa: SIM118 - no dict
        return arrivals

    def expected(self, delivery: Delivery, target: Target) -> bytes:
        head = f"Return-Path: <{delivery.sender}>\nDelivered-To: {target.address}\n"
        return head.encode() + delivery.content.replace(b"\r\n", b"\n")


class TestMaildirTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> TransportHarness:
        return MaildirHarness(tmp_path / "mail")


class RawWebhookHarness(TransportHarness):
    secrets = (SECRET, SECRET.removeprefix("whsec_"), TOKEN)
    can_fail = True
    can_hang = True

    def __init__(self, receiver: HttpReceiver) -> None:
        self.receiver = receiver
        self.port = receiver.port

    @property
    def peer(self) -> tuple[str, int]:
        return ("127.0.0.1", self.receiver.port)

    def make_at(self, host: str, port: int) -> Transport:
        assert host == "127.0.0.1"
        self.port = port
        return self.make()

    def make(self) -> Transport:
        return WebhookTransport(
            body="raw",
            secret=SECRET,
            headers={"Authorization": TOKEN},
            allow_http=True,
            allow_private=True,
            timeouts=Timeouts(connect=5, write=20, read=20, total=30),
        )

    def address(self, number: int) -> Address:
        return parse_address(self._url(f"/hook/{number}"))

    def _url(self, path: str) -> str:
        return self.receiver.url(path).replace(f":{self.receiver.port}/", f":{self.port}/")

    def arrived(self) -> list[Arrival]:
        return [(self._url(each.path), each.body) for each in self._complete()]

    def _complete(self) -> list[Received]:
        """Leave out what was cut off: no server hands on half a request."""
        return [
            each
            for each in self.receiver.received()
            if len(each.body) == int(each.headers.get("content-length", "-1"))
        ]

    def stop_peer(self) -> None:
        self.receiver.kill()

    def hang_peer(self) -> None:
        suspend(self.receiver.pid)


class JsonWebhookHarness(RawWebhookHarness):
    """What arrives is the text of a JSON document; all of the suite's samples are plain text."""

    def make(self) -> Transport:
        return WebhookTransport(
            secret=SECRET,
            headers={"Authorization": TOKEN},
            allow_http=True,
            allow_networks=["127.0.0.0/8"],
            timeouts=Timeouts(connect=5, write=20, read=20, total=30),
        )

    def arrived(self) -> list[Arrival]:
        documents = [json.loads(each.body) for each in self._complete()]
        assert all(each["sender"] in {SENDER, ""} for each in documents)
        return [(each["recipient"], each["text"].encode()) for each in documents]

    def expected(self, delivery: Delivery, target: Target) -> bytes:
        del target
        head, _, body = delivery.content.partition(b"\r\n\r\n")
        charset = re.search(rb"charset=([\w-]+)", head)
        assert charset is not None
        return body.decode(charset[1].decode()).replace("\r\n", "\n").encode()


class SmtpHarness(TransportHarness):
    can_fail = True
    can_hang = True
    username: str | None = None
    password: str | None = None

    def __init__(self, server: SmtpServer) -> None:
        self.server = server

    @property
    def peer(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server.port)

    def make(self) -> Transport:
        return self.make_at(*self.peer)

    def make_at(self, host: str, port: int) -> Transport:
        return SmtpTransport(
            host,
            port,
            security="none",
            username=self.username,
            password=self.password,
        )

    def address(self, number: int) -> Address:
        return parse_address(f"user{number}@example.org")

    def arrived(self) -> list[Arrival]:
        return [
            (f"smtp:{recipient}", message.content)
            for message in self.server.messages()
            for recipient in message.recipients
        ]

    def stop_peer(self) -> None:
        self.server.kill()

    def hang_peer(self) -> None:
        suspend(self.server.pid)


class AuthenticatedSmtpHarness(SmtpHarness):
    """The same against aiosmtpd, which knows AUTH."""

    username = "app"
    password = PASSWORD
    secrets = (PASSWORD,)


class LmtpHarness(SmtpHarness):
    def make_at(self, host: str, port: int) -> Transport:
        return LmtpTransport(host, port, address_types={"smtp"})


class TestSmtpTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
        with SmtpServer(tmp_path / "received.jsonl", script=Script(keep_content=True)) as server:
            yield SmtpHarness(server)
            server.kill()  # a suspended process heeds no SIGTERM


class TestAuthenticatedSmtpTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
        options = ("--engine", "aiosmtpd", "--auth", f"app:{PASSWORD}")
        with SmtpServer(tmp_path / "received.jsonl", options=options) as server:
            yield AuthenticatedSmtpHarness(server)
            server.kill()  # a suspended process heeds no SIGTERM


class TestLmtpTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
        script = Script(keep_content=True)
        with SmtpServer(tmp_path / "received.jsonl", script=script, lmtp=True) as server:
            yield LmtpHarness(server)
            server.kill()  # a suspended process heeds no SIGTERM


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HttpReceiver]:
    with HttpReceiver(tmp_path / "received.jsonl") as running:
        yield running


class TestRawWebhook(TransportConformance):
    @pytest.fixture
    def harness(self, receiver: HttpReceiver) -> TransportHarness:
        return RawWebhookHarness(receiver)


class TestJsonWebhook(TransportConformance):
    @pytest.fixture
    def harness(self, receiver: HttpReceiver) -> TransportHarness:
        return JsonWebhookHarness(receiver)
