"""The whole way with a real relay: to Postfix, which bounces or delivers, and its report back into the spool."""

import pwd
import shutil
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroom import Report, SmtpTransport, Spooler
from postroom.events import Event, RecipientEvent
from postroom.receivers.base import Receiver
from postroom.receivers.listener import SmtpListener
from postroom.receivers.maildir import MaildirReceiver
from postroom.tokens import Tokens
from tests.support.postfix import Postfix, free_port
from tests.support.smtp_server import Script, SmtpServer

SECONDS = 30.0
SECRET = bytes(range(32))
MESSAGE = b"From: app@client.example\r\nTo: x@y.example\r\nSubject: order 4711\r\n\r\nthe body\r\n"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpServer]:
    script = Script(recipients={"who@behind.example": "550 5.1.1 no such user"})
    with SmtpServer(tmp_path_factory.mktemp("behind") / "received", script=script) as running:
        yield running


@pytest.fixture(scope="module")
def listening() -> int:
    return free_port()


@pytest.fixture(scope="module")
def relay(behind: SmtpServer, listening: int) -> Iterator[Postfix]:
    routes = (
        f"{{behind.example = smtp:[127.0.0.1]:{behind.port}}}, "
        f"{{listener.example = smtp:[127.0.0.1]:{listening}}}"
    )
    nobody = pwd.getpwnam("nobody")
    with Postfix(
        transport_maps=f"inline:{{ {routes} }}",
        recipient_delimiter="+",
        virtual_mailbox_domains="box.example",
        virtual_mailbox_base="{folder}/mail",
        virtual_mailbox_maps="inline:{ {ann@box.example = ann/}, {bounces@box.example = bounces/} }",
        virtual_uid_maps=f"static:{nobody.pw_uid}",
        virtual_gid_maps=f"static:{nobody.pw_gid}",
    ) as running:
        yield running


class Heard:
    """Events, as they come. Thread-safe."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, address: str, *states: str) -> None:
        """Wait until a recipient was in these states, one after the other."""
        names = [f"Recipient{state.title()}" for state in states]

        def seen() -> list[str]:
            return [
                type(event).__name__
                for event in self.events
                if isinstance(event, RecipientEvent) and str(event.address) == f"smtp:{address}"
            ]

        with self._changed:
            if not self._changed.wait_for(lambda: len(seen()) >= len(names), SECONDS):
                said = [f"{type(event).__name__} {getattr(event, 'address', '')}" for event in self.events]
                pytest.fail(f"{address} never was {states}: {said}")
            assert seen() == names


@contextmanager
def spooling(path: Path, relay: Postfix, receiver: Receiver, domain: str) -> Generator[tuple[Spooler, Heard]]:
    tokens = Tokens(SECRET, f"bounces+{{token}}@{domain}")
    transport = SmtpTransport("127.0.0.1", relay.port, security="none", bounces=tokens)
    with Spooler(path / "spool.db", [transport], reports=None, receivers=[receiver]) as spooler:
        heard = Heard()
        subscription = spooler.subscribe(heard, events={RecipientEvent})
        yield spooler, heard
        subscription.cancel()


@pytest.fixture(params=["listener", "maildir"])
def started(
    request: pytest.FixtureRequest, tmp_path: Path, relay: Postfix, listening: int
) -> Iterator[tuple[Spooler, Heard]]:
    """Return a spooler to which reports come by SMTP, or that fetches them from where Postfix delivers them."""
    if request.param == "listener":
        receiver: Receiver = SmtpListener(
            "127.0.0.1", listening, local=["listener.example"], relay="never", hostname="listener.example"
        )
        domain = "listener.example"
    else:
        box = relay.folder / "mail/bounces"
        for name in ("tmp", "new", "cur"):
            (box / name).mkdir(parents=True, exist_ok=True)
        for each in (box, *box.iterdir()):
            shutil.chown(each, "nobody")
        receiver = MaildirReceiver(box)
        domain = "box.example"
    with spooling(tmp_path, relay, receiver, domain) as spooler:
        yield spooler


def test_what_comes_back_decides(started: tuple[Spooler, Heard], behind: SmtpServer) -> None:
    spooler, heard = started
    before = behind.count()
    to = ["who@behind.example", "ann@box.example", "fine@behind.example"]
    receipt = spooler.submit(
        MESSAGE, sender="app@client.example", to=to, report={Report.FAILURE, Report.SUCCESS}
    )
    heard.of("who@behind.example", "relayed", "failed")
    heard.of("ann@box.example", "relayed", "delivered")
    heard.of("fine@behind.example", "relayed")
    found = {each.address.value: each for each in spooler.status(receipt.id).recipients}
    assert [found[each].state.label for each in to] == ["failed", "delivered", "relayed"]
    refused = found["who@behind.example"].reply
    assert refused is not None
    assert refused.status == "5.1.1"
    assert "no such user" in refused.text
    assert behind.count() == before + 1
