"""The conformance suite on the transports to programs, files, Apprise and NATS."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.mailfiles import mbox_entry
from postroom.testing.transports import Arrival, TransportConformance, TransportHarness
from postroom.transports.apprise import AppriseTransport
from postroom.transports.base import Transport
from postroom.transports.maildir import maildir_content
from postroom.transports.mbox import MboxTransport, delivery_mark
from postroom.transports.nats import NatsTransport
from postroom.transports.pipe import PipeTransport, SendmailTransport
from tests.support.http_receiver import HttpReceiver
from tests.support.nats_server import NatsServer
from tests.support.signals import suspend

PASSWORD = "only-for-the-server"
TOKEN = "only-for-the-service"

# What the pipe transports talk to: it keeps what it gets under the names of its recipients, unless its mood is
# "down" (EX_TEMPFAIL) or "hung" (it takes the message and never ends).
STORE = """
folder=$1 mood=$(cat "$2")
shift 2
content=$(mktemp "$folder/XXXXXX")
cat >"$content"
case $mood in
down) echo no mail now; exit 75;;
hung) sleep 1000;;
esac
for each; do
  { echo "$each"; cat "$content"; } >"$content.$each.part"
  mv "$content.$each.part" "$content.$each.mail"
done
"""


class PipeHarness(TransportHarness):
    can_fail = True
    can_hang = True
    secrets: Sequence[str] = (PASSWORD,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mood = folder / "mood"
        self.mood.write_text("fine", encoding="ascii")
        self.program = folder / "store.sh"
        self.program.write_text(STORE, encoding="ascii")

    def command(self) -> list[str]:
        return ["/bin/sh", str(self.program), str(self.folder), str(self.mood)]

    def make(self) -> Transport:
        return PipeTransport(
            [*self.command(), "{recipient}"], env={"TOKEN": PASSWORD}, timeout=30, line_ends="crlf"
        )

    def address(self, number: int) -> Address:
        return parse_address(f"pipe:box{number}")

    def arrived(self) -> list[Arrival]:
        found = (file.read_bytes().partition(b"\n") for file in self.folder.glob("*.mail"))
        return [(f"{self.address(0).type}:{recipient.decode()}", content) for recipient, _, content in found]

    def stop_peer(self) -> None:
        self.mood.write_text("down", encoding="ascii")

    def hang_peer(self) -> None:
        self.mood.write_text("hung", encoding="ascii")


class TestPipeTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> TransportHarness:
        return PipeHarness(tmp_path)


class SendmailHarness(PipeHarness):
    """A sendmail command that stores: the options it is called with go before the recipients."""

    secrets = ()

    def make(self) -> Transport:
        sendmail = self.folder / "sendmail"
        quoted = " ".join(f"'{each}'" for each in self.command())
        sendmail.write_text(f'#!/bin/sh\nwhile [ "$1" != "--" ]; do shift; done\nshift\nexec {quoted} "$@"\n')
        sendmail.chmod(0o755)
        return SendmailTransport(sendmail, timeout=30, line_ends="crlf")

    def address(self, number: int) -> Address:
        return parse_address(f"user{number}@example.org")


class TestSendmailTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> TransportHarness:
        return SendmailHarness(tmp_path)


class MboxHarness(TransportHarness):
    """What arrives is an entry of an mbox; no line "From " of a message stands there unquoted.

    It hangs while another program, this one's parent, holds the first recipient's file.
    """

    can_hang = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self) -> Transport:
        return MboxTransport(self.root, lock_timeout=60)

    def hang_peer(self) -> None:
        (self.root / "users" / "user0.lock").write_text(f"{os.getppid()}\n", encoding="ascii")

    def address(self, number: int) -> Address:
        return parse_address(f"mbox:users/user{number}")

    def arrived(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        for file in sorted((self.root / "users").glob("*")):
            first, *more = file.read_bytes().split(b"\n\nFrom ")
            entries = [first, *(b"From " + each for each in more)]
            whole = [*(entry + b"\n\n" for entry in entries[:-1]), entries[-1]]
            arrivals += [(f"mbox:users/{file.name}", entry) for entry in whole]
        return arrivals

    def expected(self, delivery: Delivery, target: Target) -> bytes:
        content = delivery_mark(delivery, target) + maildir_content(delivery, target)
        return mbox_entry(delivery.sender, delivery.created, content)


class TestMboxTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> TransportHarness:
        return MboxHarness(tmp_path / "mail")


class AppriseHarness(TransportHarness):
    """What arrives is the text in Apprise's JSON, which has no blank lines at its end, or the subject if it is all."""

    secrets = (TOKEN,)
    can_fail = True
    can_hang = True

    def __init__(self, receiver: HttpReceiver) -> None:
        self.receiver = receiver

    @property
    def peer(self) -> tuple[str, int]:
        return "127.0.0.1", self.receiver.port

    def make(self) -> Transport:
        return self.make_at(*self.peer)

    def make_at(self, host: str, port: int) -> Transport:
        url = f"json://user:{TOKEN}@{host}:{port}"
        return AppriseTransport(services={f"team{number}": f"{url}/hook/{number}" for number in range(60)})

    def address(self, number: int) -> Address:
        return parse_address(f"apprise:team{number}")

    def arrived(self) -> list[Arrival]:
        return [
            (f"apprise:team{each.path.rpartition('/')[2]}", json.loads(each.body)["message"].encode())
            for each in self.receiver.received()
            if len(each.body) == int(each.headers.get("content-length", "-1"))  # it was not cut off
        ]

    def expected(self, delivery: Delivery, target: Target) -> bytes:
        del target
        head, _, body = delivery.content.partition(b"\r\n\r\n")
        charset = "iso-8859-1" if b"iso-8859-1" in head else "utf-8"
        return body.decode(charset).replace("\r\n", "\n").rstrip().encode() or b"conformance"

    def stop_peer(self) -> None:
        self.receiver.kill()

    def hang_peer(self) -> None:
        suspend(self.receiver.pid)


class TestAppriseTransport(TransportConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
        with HttpReceiver(tmp_path / "received.jsonl") as receiver:
            yield AppriseHarness(receiver)


class NatsHarness(TransportHarness):
    secrets = (PASSWORD,)
    can_fail = True
    can_hang = True

    def __init__(self, server: NatsServer) -> None:
        self.server = server

    @property
    def peer(self) -> tuple[str, int]:
        return "127.0.0.1", self.server.port

    def make(self) -> Transport:
        return self.make_at(*self.peer)

    def make_at(self, host: str, port: int) -> Transport:
        return NatsTransport(f"nats://{host}:{port}", username="app", password=PASSWORD, ack_timeout=2)

    def address(self, number: int) -> Address:
        return parse_address(f"nats:letters.box{number}")

    def arrived(self) -> list[Arrival]:
        return [(f"nats:{each.subject}", each.payload) for each in self.server.messages()]

    def stop_peer(self) -> None:
        self.server.kill()

    def hang_peer(self) -> None:
        suspend(self.server.pid)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    users = f'authorization {{ user: "app", password: "{PASSWORD}" }}'
    with NatsServer(tmp_path, users, user="app", password=PASSWORD) as server:
        server.make_stream()
        yield server


class TestNatsTransport(TransportConformance):
    @pytest.fixture
    def harness(self, nats_server: NatsServer) -> TransportHarness:
        return NatsHarness(nats_server)


def test_the_suite_left_no_program_running() -> None:
    """Every program was waited for: there is no child that has ended and no child that runs."""
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
