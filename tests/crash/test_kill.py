"""kill -9 of the host process in mid-traffic: every acknowledged message arrives, counted where it arrives."""

import random
import time
from collections import Counter
from pathlib import Path

from tenacity import wait_fixed

from postroom import Spooler, SpoolView, State
from postroom.transports.maildir import MaildirTransport
from postroom.transports.smtp import SmtpTransport
from tests.support.host import Host
from tests.support.smtp_server import Script, SmtpServer
from tests.support.spooling import ledger_is_exact, settled, until

WINDOW = 50


def arrivals(server: SmtpServer) -> Counter[str]:
    """Return how often each message arrived."""
    return Counter(message.id for message in server.messages())


def names_in_doubt(spool: Spooler | SpoolView) -> set[str]:
    """Return which messages say that they may have been sent twice."""
    return {
        entry.recipient.address.value.partition("@")[0]
        for entry in spool.queue(states={State.RELAYED}, limit=None)
        if entry.recipient.in_doubt
    }


def deliver(port: int) -> SmtpTransport:
    return SmtpTransport("127.0.0.1", port, security="none", probe=wait_fixed(0.1))


def test_killed_in_mid_traffic_again_and_again(tmp_path: Path) -> None:
    dice = random.Random(5)  # noqa: S311 - to be repeatable
    spool = tmp_path / "spool.db"
    acknowledged: list[str] = []
    with SmtpServer(tmp_path / "received.jsonl") as server:
        options = ("--port", str(server.port), "--threads", "8", "--window", str(WINDOW))
        kills = 4
        for life in range(kills):
            with Host(spool, *options, "--prefix", f"life{life}") as host:
                host.wait_for_lines(20 + dice.randrange(400))
                time.sleep(dice.uniform(0, 0.05))
                acknowledged += host.kill()
        # Nobody submits in the last life: it only delivers what the others left.
        with Spooler(spool, [deliver(server.port)]) as spooler:
            settled(spooler)
            doubtful = names_in_doubt(spooler)
        arrived = arrivals(server)
        assert len(acknowledged) > 80
        assert set(acknowledged) <= set(arrived), "an acknowledged message was lost"
        # Sent again is only what was in a window, sent or about to be, when its process was killed; it says so.
        again = {name for name, n in arrived.items() if n > 1}
        assert again <= doubtful
        assert len(doubtful) <= kills * WINDOW
        assert max(arrived.values()) <= 1 + kills
        # What was not acknowledged may have arrived as well, if its submitter was killed while it waited.
        assert len(arrived) - len(acknowledged) <= kills * 8


def test_a_second_process_adopts_what_a_killed_one_left(tmp_path: Path) -> None:
    spool = tmp_path / "spool.db"
    with SmtpServer(tmp_path / "received.jsonl", script=Script(delays={"CONTENT": 0.02})) as server:
        options = ("--port", str(server.port), "--window", str(WINDOW))
        with (
            Host(spool, *options, "--threads", "4", "--prefix", "a") as victim,
            Host(spool, *options, "--threads", "1", "--prefix", "b", "--count", "20") as heir,
        ):
            victim.wait_for_lines(100)
            acknowledged = victim.kill()
            with SpoolView(spool) as view:
                until(lambda: view.tally().pending == 0, "an empty queue")
                doubtful = names_in_doubt(view)
            acknowledged += heir.stop()
        arrived = arrivals(server)
        assert set(acknowledged) <= set(arrived)
        assert {name for name, n in arrived.items() if n > 1} <= doubtful
        assert 0 < len(doubtful) <= WINDOW


def test_in_doubt_hold_keeps_what_was_being_sent(tmp_path: Path) -> None:
    spool = tmp_path / "spool.db"
    # The server takes the content, records it, and never says so: from outside, the worst moment to die.
    with SmtpServer(tmp_path / "received.jsonl", script=Script(silent="CONTENT")) as server:
        options = ("--port", str(server.port), "--hold", "--threads", "4", "--count", "10")
        with Host(spool, *options, "--concurrency", "2") as host:
            host.wait_for_lines(41)
            until(lambda: server.count() == 2, "two messages under way")
            acknowledged = host.kill()
        doubtful = set(arrivals(server))
        server.script(Script())
        transport = deliver(server.port)
        transport.in_doubt = "hold"
        with Spooler(spool, [transport]) as spooler:

            def all_but_the_held_are_sent() -> bool:
                tally = spooler.tally()
                return tally.pending == tally.states.get(("smtp", State.HELD), 0)

            until(all_but_the_held_are_sent, "the others sent")
            held = list(spooler.queue(states={State.HELD}))
            assert 2 <= len(held) <= 2 * 2, "besides those in hand, each courier is offered one in advance"
            for entry in held:
                assert entry.recipient.in_doubt
                (explanation,) = spooler.explain(entry.id)
                assert explanation.gate == "held"
                assert "in doubt" in explanation.rule
            names = {str(entry.recipient.address.value).partition("@")[0] for entry in held}
            arrived = arrivals(server)
            assert doubtful <= names
            assert {name: n for name, n in arrived.items() if n > 1} == {}
            assert set(arrived) == set(acknowledged) - names | doubtful
            # An operator decides; after that they go, marked as possible duplicates.
            for entry in held:
                assert spooler.release(entry.id) == (0,)
            settled(spooler)
            assert set(arrivals(server)) == set(acknowledged)


def test_what_a_transport_knows_to_be_delivered_is_not_sent_again(tmp_path: Path) -> None:
    """A Maildir can be asked: after kill -9 each message is there once, however the attempt ended."""
    spool = tmp_path / "spool.db"
    acknowledged: list[str] = []
    for life in range(3):
        with Host(spool, "--threads", "8", "--to", "maildir:ann", "--prefix", f"life{life}") as host:
            host.wait_for_lines(150)
            acknowledged += host.kill()
    root = tmp_path / "mailboxes"
    with Spooler(spool, [MaildirTransport(root)]) as spooler:
        settled(spooler)
        outcomes = spooler.tally().outcomes
    names = Counter(
        line.removeprefix("X-Postroom-Id: ").strip()
        for file in (root / "ann" / "new").iterdir()
        for line in file.read_text().splitlines()
        if line.startswith("X-Postroom-Id: ")
    )
    assert set(acknowledged) <= set(names)
    assert set(names.values()) == {1}
    assert outcomes["maildir", "delivered"] == len(names)


def test_a_receipt_waits_for_another_process_too(tmp_path: Path) -> None:
    spool = tmp_path / "spool.db"
    with SmtpServer(tmp_path / "received.jsonl") as server:
        here = Spooler(spool, [SmtpTransport("127.0.0.1", server.port, security="none")], deliver=False)
        with here, Host(spool, "--port", str(server.port)):
            receipt = here.submit(
                b"From: app@example.org\r\nX-Postroom-Id: m\r\n\r\nhello\r\n", to="ann@example.org"
            )
            status = receipt.wait(20)
            assert status.succeeded
            assert status.recipients[0].state is State.RELAYED
            ledger_is_exact(here)
    assert arrivals(server) == {"m": 1}
