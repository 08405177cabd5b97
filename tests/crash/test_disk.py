"""A disk that is full, read-only or gone: refused clearly, nothing acknowledged is lost, and it goes on by itself."""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom import MemoryTransport, Settings, Spooler, State
from postroom.actors.store import MAX_FAILURES
from postroom.errors import PostroomError, SpoolFull, SpoolUnavailable
from postroom.stores.driver import sqlite3
from postroom.stores.sqlite import SqliteStore
from tests.support.spooling import SENDER, Gatekeeper, deliveries_by_id, message, settled, until

MANY = 100_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB of its own; takes root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """Leave no room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 4096:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    return ballast


def test_a_full_disk(small_disk: Path) -> None:
    gate = Gatekeeper()
    transport = MemoryTransport(keep=MANY, answer=gate)
    ids: list[str] = []
    with Spooler(small_disk / "spool.db", [transport], settings=Settings(submit_timeout=10)) as spooler:
        ids += [spooler.submit(message(n), sender=SENDER, to="memory:x").id for n in range(20)]
        ballast = fill(small_disk)
        error: SpoolFull | None = None
        while error is None:
            try:
                ids.append(spooler.submit(message(lines=500), sender=SENDER, to="memory:x").id)
            except SpoolFull as full:
                error = full
        assert "the disk that holds the spool is full" in str(error)
        assert "nothing was stored" in str(error)
        # What can be read still can, and outcomes that cannot be written yet are kept.
        gate.open()
        assert spooler.status(ids[0]).recipients
        ballast.unlink()
        until(lambda: _accepted(spooler, ids), "room again")
        settled(spooler)
        assert deliveries_by_id(transport) == dict.fromkeys(ids, 1)
        assert spooler.tally().states["memory", State.DELIVERED] == len(ids)


def _accepted(spooler: Spooler, ids: list[str]) -> bool:
    try:
        ids.append(spooler.submit(message(), sender=SENDER, to="memory:x").id)
    except SpoolFull:
        return False
    return True


def test_a_disk_that_stays_full_is_waited_for(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried: a fresh connection would find the disk as full, and restarts cost sessions."""
    monkeypatch.setattr("postroom.actors.store.RETRY_SECONDS", 0.05)
    transport = MemoryTransport(keep=MANY)
    with Spooler(small_disk / "spool.db", [transport], settings=Settings(submit_timeout=10)) as spooler:
        ids = [spooler.submit(message(n), sender=SENDER, to="memory:x").id for n in range(5)]
        settled(spooler)
        ballast = fill(small_disk)
        full = 0
        for _ in range(200):
            try:
                ids.append(spooler.submit(message(lines=500), sender=SENDER, to="memory:x").id)
            except SpoolFull:
                full += 1
        assert full >= 2 * MAX_FAILURES
        assert all(row.restarts == 0 for row in spooler.actors())
        ballast.unlink()
        until(lambda: _accepted(spooler, ids), "room again")
        settled(spooler)
        assert set(deliveries_by_id(transport)) == set(ids)


def test_a_disk_that_fails_gets_a_fresh_connection_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = MemoryTransport(keep=MANY)
    with Spooler(tmp_path / "spool.db", [transport], settings=Settings(submit_timeout=10)) as spooler:
        engine = spooler.snapshot_source()
        assert engine is not None
        failing = [True]

        def broken(whole: Callable[..., Any]) -> Callable[..., Any]:
            def write(*parts: Any) -> Any:
                if failing[0]:
                    raise sqlite3.OperationalError("disk I/O error")
                return whole(*parts)

            return write

        # A message may come alone, or in one transaction with what a transport has just asked for.
        for name in ("exchange", "accept"):
            monkeypatch.setattr(SqliteStore, name, broken(getattr(SqliteStore, name)))
        refused = 0
        deadline = time.monotonic() + 60
        while not any(row.name == "core/store" and row.restarts for row in spooler.actors()):
            assert time.monotonic() < deadline
            with pytest.raises(SpoolUnavailable):
                spooler.submit(message(), sender=SENDER, to="memory:x", timeout=1)
            refused += 1
        assert refused >= MAX_FAILURES - 1
        failing[0] = False
        ids: list[str] = []
        ids.append(spooler.submit(message(), sender=SENDER, to="memory:x").id)
        settled(spooler)
        assert deliveries_by_id(transport) == dict.fromkeys(ids, 1)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """As a full disk, for those who are not root."""
    body = f"""
import resource, signal
from postroom import *
from postroom.errors import *
MAIL = b"From: app@example.org\\r\\n\\r\\n" + b"x" * 60 + b"\\r\\n" * 800
transport = MemoryTransport(keep=100_000)
acknowledged = []
with Spooler({str(tmp_path / "spool.db")!r}, [transport]) as spooler:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
    try:
        for _ in range(5000):
            acknowledged.append(spooler.submit(MAIL, to="memory:x", hold=True).id)
    except (SpoolFull, SpoolUnavailable) as error:
        print(type(error).__name__, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    acknowledged.append(spooler.submit(MAIL, to="memory:x", hold=True).id)
    assert [entry.id for entry in spooler.queue(limit=None)] == acknowledged
    assert spooler.tally().imbalance == 0 and spooler.audit() == {{}}
    print(len(acknowledged) > 10)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", body], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout in {"SpoolFull\nTrue\n", "SpoolUnavailable\nTrue\n"}


def test_a_directory_that_nobody_can_write_to(small_disk: Path) -> None:
    spooler = Spooler(small_disk / "spool.db", [MemoryTransport()])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(SpoolUnavailable, match="cannot open the spool"):
        spooler.start()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    with spooler:
        assert spooler.submit(message(), sender=SENDER, to="memory:x").wait(10).succeeded


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_spool_that_was_taken_away(tmp_path: Path, what: str) -> None:
    """Nothing is acknowledged that nobody could find again; put back, it goes on."""
    folder = tmp_path / "spool"
    path = folder / "spool.db"
    elsewhere = tmp_path / "elsewhere"
    transport = MemoryTransport(keep=MANY)
    settings = Settings(submit_timeout=2.0, sync_interval=0.05)
    with Spooler(path, [transport], settings=settings) as spooler:
        held = spooler.submit(message(), sender=SENDER, to="memory:x", hold=True)
        if what == "directory":
            folder.rename(elsewhere)
        else:
            elsewhere.mkdir()
            for each in folder.iterdir():
                each.rename(elsewhere / each.name)
        errors: list[PostroomError] = []

        def refused() -> bool:
            try:
                spooler.submit(message(), sender=SENDER, to="memory:x", timeout=0.5)
            except SpoolUnavailable as error:
                errors.append(error)
            return bool(errors)

        until(refused, "a refusal")
        assert "was removed or replaced" in str(errors[0])
        assert not path.exists(), "no new spool is made in its place"
        if what == "file":
            for each in elsewhere.iterdir():
                each.replace(folder / each.name)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            elsewhere.rename(folder)
        until(lambda: spooler.status(held.id).recipients[0].state is State.HELD, "the old spool")
        until(lambda: _works(spooler), "a store that works again")
        assert spooler.release(held.id) == (0,)
        settled(spooler)
        assert held.wait(5).succeeded


def _works(spooler: Spooler) -> bool:
    try:
        return spooler.submit(message(), sender=SENDER, to="memory:x", timeout=0.5).wait(10).succeeded
    except SpoolUnavailable:
        return False
