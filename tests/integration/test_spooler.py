"""Submitting: every way in, what is promised for it, and what is refused."""

import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroom import MemoryTransport, PendingReceipt, Receipt, Settings, Spooler, Submission
from postroom.errors import (
    IdempotencyConflict,
    InvalidAddress,
    PostroomError,
    SpoolFull,
    UnknownAddressType,
)
from postroom.stores.driver import connect
from tests.support.spooling import SENDER, deliveries_by_id, in_threads, message, settled, until

MANY = 100_000


def submission(name: object = "", to: str = "memory:x", key: str | None = None) -> Submission:
    return Submission(message=message(name), sender=SENDER, to=to, idempotency_key=key)


@contextmanager
def write_lock(path: Path) -> Generator[None]:
    """Keep the store from committing."""
    connection = connect(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


# Idempotency keys


def test_the_same_key_again(tmp_path: Path) -> None:
    transport = MemoryTransport()
    path = tmp_path / "spool.db"
    with Spooler(path, [transport]) as spooler:
        first = spooler.submit(message("a"), sender=SENDER, to="memory:x", idempotency_key="k")
        again = spooler.submit(message("a"), sender=SENDER, to="memory:x", idempotency_key="k")
        assert not first.duplicate
        assert again.duplicate
        assert again.id == first.id
        assert again.wait(10).succeeded
        for other in (message("b"), message("a", lines=2)):
            with pytest.raises(IdempotencyConflict, match=first.id):
                spooler.submit(other, sender=SENDER, to="memory:x", idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            spooler.submit(message("a"), sender=SENDER, to="memory:y", idempotency_key="k")
    with Spooler(path, [transport]) as spooler:
        assert spooler.submit(message("a"), sender=SENDER, to="memory:x", idempotency_key="k").id == first.id
        settled(spooler)
    assert transport.count == 1


def test_one_key_in_32_threads(tmp_path: Path) -> None:
    transport = MemoryTransport()
    receipts: list[Receipt] = []
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        in_threads(
            32,
            lambda _: receipts.append(
                spooler.submit(message("a"), sender=SENDER, to="memory:x", idempotency_key="k")
            ),
        )
        settled(spooler)
    assert len(receipts) == 32
    assert len({receipt.id for receipt in receipts}) == 1
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert transport.count == 1


# Many at once


def test_submit_many_is_all_or_nothing(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        with pytest.raises(UnknownAddressType, match=r"^submissions\[2\]\.to\[0\]"):
            spooler.submit_many([submission(), submission(), submission(to="fax:1"), submission()])
        with pytest.raises(InvalidAddress):
            spooler.submit_many([submission(), submission(to="ann@@example.org")])
        assert spooler.tally().accepted == {}
        receipts = spooler.submit_many(submission(n) for n in range(1000))
        settled(spooler)
        assert [receipt.id for receipt in receipts] == sorted(receipt.id for receipt in receipts)
        assert deliveries_by_id(transport) == {receipt.id: 1 for receipt in receipts}
        assert spooler.submit_many([]) == []


def test_a_conflict_among_many_stores_none_of_them(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        spooler.submit_many([submission("a", key="k")])
        with pytest.raises(IdempotencyConflict):
            spooler.submit_many([submission("b"), submission("c", key="k"), submission("d")])
        settled(spooler)
        assert spooler.tally().accepted == {"memory": 1}
        assert transport.count == 1


def test_a_duplicate_among_many(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        (first,) = spooler.submit_many([submission("a", key="k")])
        receipts = spooler.submit_many([submission("b"), submission("a", key="k"), submission("c", key="l")])
        assert [receipt.duplicate for receipt in receipts] == [False, True, False]
        assert receipts[1].id == first.id
        settled(spooler)
        assert transport.count == 3


# Without waiting


def test_submit_nowait(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        pending = [spooler.submit_nowait(submission(n)) for n in range(500)]
        receipts = [each.result(10) for each in pending]
        assert all(each.done for each in pending)
        assert pending[0].result().id == receipts[0].id
        settled(spooler)
        assert deliveries_by_id(transport) == {receipt.id: 1 for receipt in receipts}
        spooler.submit_nowait(submission("a", key="k")).result(10)
        with pytest.raises(IdempotencyConflict):
            spooler.submit_nowait(submission("b", key="k")).result(10)
        with pytest.raises(UnknownAddressType):
            spooler.submit_nowait(submission(to="fax:1"))


def test_submit_async(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)

    async def host(spooler: Spooler) -> list[Receipt]:
        blobs = [spooler.submit_async(message(n), sender=SENDER, to="memory:x") for n in range(400)]
        large = [spooler.submit_async(message(n, lines=2000), sender=SENDER, to="memory:x") for n in range(5)]
        return list(await asyncio.gather(*blobs, *large))

    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        receipts = asyncio.run(host(spooler))
        settled(spooler)
        assert deliveries_by_id(transport) == {receipt.id: 1 for receipt in receipts}
        assert len(receipts) == 405
        with pytest.raises(UnknownAddressType):
            asyncio.run(spooler.submit_async(message(), sender=SENDER, to="fax:1"))


def test_an_event_loop_that_ends_before_the_answer(tmp_path: Path) -> None:
    """The store answers into a closed loop, and nobody else is harmed by it."""
    transport = MemoryTransport(keep=MANY)
    path = tmp_path / "spool.db"

    async def impatient(spooler: Spooler) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(spooler.submit_async(message(), sender=SENDER, to="memory:x"), 0.05)

    with Spooler(path, [transport]) as spooler:
        with write_lock(path):
            asyncio.run(impatient(spooler))
        assert spooler.submit(message(), sender=SENDER, to="memory:x").wait(10).succeeded
        settled(spooler)
        assert all(row.restarts == 0 for row in spooler.actors())
        assert transport.count == 2


def test_submit_async_while_the_store_crashes(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)

    async def host(spooler: Spooler) -> list[Receipt]:
        tasks = [
            asyncio.ensure_future(spooler.submit_async(message(n), sender=SENDER, to="memory:x"))
            for n in range(100)
        ]
        await asyncio.sleep(0)
        spooler.crash_actor("core/store")
        tasks += [
            asyncio.ensure_future(spooler.submit_async(message(n), sender=SENDER, to="memory:x"))
            for n in range(100)
        ]
        return list(await asyncio.wait_for(asyncio.gather(*tasks), 20))

    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        receipts = asyncio.run(host(spooler))
        settled(spooler)
        assert len(receipts) == 200
        assert deliveries_by_id(transport) == {receipt.id: 1 for receipt in receipts}


# Back-pressure


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        (1, Settings(max_waiting_messages=3)),
        (1000, Settings(max_waiting_messages=3)),
        (1000, Settings(max_waiting_octets=3 * len(message(0, lines=1000)) + 1000)),
    ],
    ids=["messages", "large messages", "octets"],
)
def test_back_pressure(tmp_path: Path, lines: int, settings: Settings) -> None:
    transport = MemoryTransport(keep=MANY)
    path = tmp_path / "spool.db"
    with Spooler(path, [transport], settings=settings) as spooler:
        running = spooler.snapshot_source()
        assert running is not None
        large = Submission(message=message(0, lines=lines), sender=SENDER, to="memory:x")
        with write_lock(path):
            pending: list[PendingReceipt] = []
            error: SpoolFull | None = None
            while error is None and len(pending) < 10:
                try:
                    pending.append(spooler.submit_nowait(large, timeout=0.3))
                except SpoolFull as full:
                    error = full
            assert "wait to be made durable" in str(error)
            # What the store has taken in hand may count or not.
            assert 3 <= len(pending) <= 6
            with pytest.raises(SpoolFull):
                spooler.submit(large.message, sender=SENDER, to="memory:x", timeout=0.05)
            waiting = threading.Thread(
                target=spooler.submit, args=(large.message,), kwargs={"sender": SENDER, "to": "memory:x"}
            )
            waiting.start()
        waiting.join(20)
        assert not waiting.is_alive()
        settled(spooler)
        assert transport.count == len(pending) + 1
        until(lambda: running.submitter.gate.inside == 0, "an empty gate")


def test_the_store_does_not_answer_in_time(tmp_path: Path) -> None:
    """Whether it was accepted is then unknown; with a key, submitting again settles the question."""
    transport = MemoryTransport(keep=MANY)
    path = tmp_path / "spool.db"
    with Spooler(path, [transport]) as spooler:
        with write_lock(path):
            began = time.monotonic()
            with pytest.raises(PostroomError, match="idempotency_key"):
                spooler.submit(message("a"), sender=SENDER, to="memory:x", idempotency_key="k", timeout=0.2)
            assert time.monotonic() - began < 5
        receipt = spooler.submit(message("a"), sender=SENDER, to="memory:x", idempotency_key="k")
        assert receipt.wait(10).succeeded
        settled(spooler)
        assert transport.count == 1
