"""Sent items of a spooler that runs."""

import io
import subprocess
import threading
from pathlib import Path

from postroom import MemoryTransport, Settings, Spooler, SpoolView
from postroom.actors.protocol import Housekeep
from postroom.recipients import State
from tests.support.spooling import SENDER, ledger_is_exact, message, settled, until


def started(path: Path) -> Spooler:
    return Spooler(
        path / "spool.db", [MemoryTransport(address_types=["smtp"])],
        settings=Settings(keep_content=3600.0, sync_interval=0.05), reports=None,
    )  # fmt: skip


def test_what_was_sent_is_listed_found_and_exported(tmp_path: Path) -> None:
    with started(tmp_path) as spooler:
        receipts = [spooler.submit(message(n), sender=SENDER, to=[f"user{n}@example.org"]) for n in range(20)]
        settled(spooler)
        assert [item.id for item in spooler.sent(newest_first=False)] == [one.id for one in receipts]
        found = spooler.search("user7")
        assert found.complete
        assert [item.id for item in found] == [receipts[7].id]
        assert found.items[0].states == {State.DELIVERED: 1}
        file = io.BytesIO()
        assert spooler.export([receipts[7].id], to=file, format="eml").messages == 1
        assert file.getvalue() == spooler.content(receipts[7].id)
        (history,) = (recipient.history for recipient in spooler.status(receipts[7].id).recipients)
        assert [attempt.outcome for attempt in history] == ["delivered"]
        assert history[0].duration is not None


def test_housekeeping_fills_the_index(tmp_path: Path) -> None:
    with started(tmp_path) as spooler, SpoolView(tmp_path / "spool.db") as view:
        for n in range(3):
            spooler.submit(message(n), sender=SENDER, to=[f"user{n}@example.org"])
        settled(spooler)
        engine = spooler.snapshot_source()
        assert engine is not None

        def indexed() -> bool:
            engine.context.handles.store.tell(Housekeep())
            return view.archive.search("user").complete

        until(indexed, "a complete index")
        assert len(view.archive.search("user")) == 3


def test_somebody_is_erased_while_others_are_served(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with started(tmp_path) as spooler:
        for n in range(30):
            spooler.submit(message(n), sender=SENDER, to=["ann@example.org", f"user{n}@example.org"])
        settled(spooler)
        held = spooler.submit(message("held"), sender=SENDER, to=["ann@example.org"], hold=True)
        spooler.search("ann")
        stop = threading.Event()
        submitted: list[str] = []

        def traffic() -> None:
            while not stop.is_set():
                submitted.append(spooler.submit(message("other"), sender=SENDER, to=["bob@example.org"]).id)

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            done = spooler.erase("ann@example.org", apply=True, cancel=True, operator="eve")
        finally:
            stop.set()
            thread.join()
        assert done.complete
        assert done.rewritten, done.trouble
        assert done.recipients == 31
        assert submitted
        settled(spooler)
        ledger_is_exact(spooler)
        (recipient,) = spooler.status(held.id).recipients
        assert (recipient.state, recipient.address.value) == (State.CANCELLED, done.tombstone)
        assert [attempt.outcome for attempt in recipient.history] == ["operator"]
        files = [each for each in (path, path.with_name("spool.db-wal")) if each.exists()]
        octets = subprocess.run(["cat", *files], capture_output=True, check=True).stdout
        assert b"ann@example.org" not in octets.lower()
        assert not spooler.search("ann").items
