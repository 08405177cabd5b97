"""kill -9 of the receiving process, wherever it is in its talk with a real peer: each message arrives once."""

import smtplib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom import Spooler
from postroom.testing.faults import Direction, FaultyPeer, Trouble
from postroom.testing.inlets import TrialSpool
from postroom.testing.receiver_harness import make_content
from tests.support.dovecot import PASSWORD, Dovecot
from tests.support.receiving_host import ReceivingHost, make_receiver
from tests.support.spooling import until

PATIENCE = 30.0
ROUNDS = 6


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as server:
        yield server


@pytest.mark.parametrize("kind", ["imap", "pop3"])
def test_killed_at_every_stage_of_receiving(tmp_path: Path, dovecot: Dovecot, kind: str) -> None:
    spool, user = tmp_path / "spool.db", f"{kind}-desk"
    contents = [make_content() for _ in range(3)]
    port = dovecot.imap if kind == "imap" else dovecot.pop3
    with (
        FaultyPeer("127.0.0.1", port) as proxy,
        ReceivingHost(spool, kind, proxy.address[1], user, PASSWORD) as host,
    ):
        # What the talk is like, from the first octet on.
        for content in contents:
            dovecot.put(user, content)
        session = make_receiver(kind, proxy.address[1], user, PASSWORD).open(TrialSpool().inlet())
        session.poll()
        session.close()
        whole = proxy.passed("to peer").octets
        contents.clear()
        for number in range(1, ROUNDS + 1):
            fresh = [make_content() for _ in range(3)]
            contents += fresh
            for content in fresh:
                dovecot.put(user, content)
            # The connection falls silent in the midst of a command, and there the process dies.
            proxy.arm(Trouble("to peer", whole * number // (ROUNDS + 1), "octets", "swallow"))
            host.start()
            assert proxy.struck.wait(PATIENCE), "it did not come so far"
            host.kill()
        proxy.arm(None)
        receiver = make_receiver(kind, proxy.address[1], user, PASSWORD)
        with Spooler(spool, [], receivers=[receiver]) as spooler:
            until(lambda: not dovecot.list(user), "an empty mailbox")
            found = Counter(spooler.mail.content(each.id) for each in spooler.mail.list(None, limit=None))
    assert found == Counter(contents), "each once"


def sent(port: int, content: bytes) -> bool:
    """Send a message as programs do that keep it until they see the 250; return whether it was seen."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("ann@example.net", ["desk@example.org"], content)
    except (OSError, smtplib.SMTPException):
        return False
    return True


@pytest.mark.parametrize("direction", ["to peer", "to client"])
def test_a_listener_that_is_killed_keeps_what_is_sent_again_once(
    tmp_path: Path, direction: Direction
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    path, contents = tmp_path / "spool.db", [make_content() for _ in range(ROUNDS)]
    with FaultyPeer("127.0.0.1", port) as proxy, ReceivingHost(path, "smtp", port, "", "") as host:
        at = proxy.address[1]
        host.start()
        first = make_content()
        until(lambda: sent(at, first), "the listener")
        proxy.arm(None)
        assert sent(at, first)
        whole = proxy.passed(direction).octets
        for number, content in enumerate(contents, 1):
            # The last octets are what decides: they are among the places.
            proxy.arm(Trouble(direction, whole * number // ROUNDS - (number == ROUNDS), "octets", "swallow"))
            client = threading.Thread(target=sent, args=(at, content))
            client.start()
            assert proxy.struck.wait(PATIENCE), "it did not come so far"
            host.kill()
            client.join(PATIENCE)
            proxy.arm(None)
            host.start()
            until(lambda content=content: sent(at, content), "250")  # type: ignore[misc]
        host.kill()
    with Spooler(path) as spooler:
        found = [spooler.mail.content(each.id) for each in spooler.mail.list(None, limit=None)]
    assert len(found) == ROUNDS + 1
    for content in (first, *contents):
        assert sum(each.endswith(content) for each in found) == 1
