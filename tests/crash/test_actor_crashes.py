"""Actors and couriers crash in mid-traffic: nothing is lost, nothing is settled twice, nobody hangs."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from tenacity import stop_never, wait_fixed

from postroom import Limits, MemoryTransport, RetryPolicy, Spooler, State, Submission
from postroom.actors.checkpointer import CheckpointActor
from postroom.delivery import Delivery
from postroom.errors import PostroomError
from postroom.outcomes import Delivered
from postroom.stores.driver import connect
from postroom.transports.base import Outcomes
from tests.support.spooling import (
    SENDER,
    Gatekeeper,
    Monkey,
    deliveries_by_id,
    in_threads,
    ledger_is_exact,
    message,
    settled,
    until,
)

SOON = RetryPolicy(wait=wait_fixed(0.05), stop=stop_never)
MANY = 1_000_000


def test_32_threads_submit_while_transport_actors_crash(tmp_path: Path) -> None:
    first = MemoryTransport(name="first", address_types={"memory"}, keep=MANY, limits=Limits(window=200))
    second = MemoryTransport(name="second", address_types={"other"}, keep=MANY, limits=Limits(window=50))
    ids: list[str] = []
    with Spooler(tmp_path / "spool.db", [first, second]) as spooler:

        def work(number: int) -> None:
            for n in range(40):
                receipt = spooler.submit(
                    message(f"{number}-{n}"), sender=SENDER, to=[f"memory:{number}", f"other:{number}"]
                )
                ids.append(receipt.id)

        with Monkey(spooler, ["core/transports/first", "core/transports/second"], seed=1) as monkey:
            in_threads(32, work)
        settled(spooler)
        assert monkey.crashes > 0
        states = spooler.tally().states
        assert states["first", State.DELIVERED] == states["second", State.DELIVERED] == 1280
        # An actor's crash leaves its couriers alone: each recipient is sent exactly once.
        for transport in (first, second):
            assert deliveries_by_id(transport) == dict.fromkeys(ids, 1)


def test_couriers_crash_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.settling.CRASH_DELAY", 0.05)
    dice = random.Random(2)  # noqa: S311 - to be repeatable
    crashes: Counter[int] = Counter()
    arrived: Counter[int] = Counter()
    lock = threading.Lock()

    def answer(delivery: Delivery) -> Outcomes:
        with lock:
            # A third crash would make it poison; those have a test of their own.
            if crashes[delivery.key] < 2 and dice.random() < 0.01:
                crashes[delivery.key] += 1
                raise RuntimeError("the session broke in an unforeseen way")
            arrived[delivery.key] += 1
        return Delivered()

    transport = MemoryTransport(keep=0, answer=answer)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:

        def work(number: int) -> None:
            for n in range(30):
                spooler.submit(message(f"{number}-{n}"), sender=SENDER, to="memory:x")

        in_threads(32, work)
        settled(spooler, timeout=60)
        assert sum(crashes.values()) > 5
        assert len(arrived) == 960
        assert set(arrived.values()) == {1}
        assert spooler.tally().outcomes["memory", "crashed"] == sum(crashes.values())
        assert spooler.tally().states["memory", State.DELIVERED] == 960


def test_too_many_courier_crashes_restart_the_transports_actor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What replacing couriers cannot mend is escalated, and what was submitted is delivered once it is mended."""
    monkeypatch.setattr("postroom.settling.CRASH_DELAY", 0.05)
    monkeypatch.setattr("postroom.settling.POISON_CRASHES", 1000)
    broken = threading.Event()
    broken.set()

    def answer(delivery: Delivery) -> Outcomes:
        if broken.is_set():
            raise RuntimeError(f"cannot send {delivery.message_id}")
        return Delivered()

    transport = MemoryTransport(keep=MANY, answer=answer, limits=Limits(concurrency=16))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        receipts = spooler.submit_many(
            Submission(message=message(n), sender=SENDER, to="memory:x") for n in range(60)
        )

        def escalated() -> bool:
            rows = {row.name: row for row in spooler.actors()}
            return "CourierFailuresError" in (rows["core/transports/memory"].last_error or "")

        until(escalated, "the end of the actor's patience")
        broken.clear()
        settled(spooler)
        assert all(spooler.status(receipt.id).succeeded for receipt in receipts)


def test_store_crashes_under_16_submitters(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY)
    acknowledged: list[str] = []
    told: list[PostroomError] = []
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:

        def work(number: int) -> None:
            for n in range(40):
                try:
                    receipt = spooler.submit(
                        message(f"{number}-{n}"),
                        sender=SENDER,
                        to="memory:x",
                        idempotency_key=f"{number}-{n}",
                    )
                except PostroomError as error:
                    told.append(error)
                else:
                    assert not receipt.duplicate
                    acknowledged.append(receipt.id)

        with Monkey(spooler, ["core/store"], seed=3) as monkey:
            in_threads(16, work)
        assert monkey.crashes > 0
        settled(spooler)
        # The same messages' numbers go to the store's successor, so that a crash costs the submitter only time.
        assert told == []
        assert len(acknowledged) == 640
        assert deliveries_by_id(transport) == dict.fromkeys(acknowledged, 1)


@pytest.mark.parametrize(
    "actor", ["core/router", "core/timer", "notifier", "checkpointer", "core", "core/transports"]
)
def test_any_actor_may_crash(tmp_path: Path, actor: str) -> None:
    transport = MemoryTransport(keep=MANY, limits=Limits(window=40))
    ids: list[str] = []
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:

        def work(number: int) -> None:
            ids.extend(
                spooler.submit(message(f"{number}-{n}"), sender=SENDER, to="memory:x").id for n in range(40)
            )

        with Monkey(spooler, [actor], seed=4) as monkey:
            in_threads(8, work)
        assert monkey.crashes > 0
        settled(spooler)
        assert deliveries_by_id(transport) == dict.fromkeys(ids, 1)


def test_letters_behind_a_crash_of_the_store_are_answered(tmp_path: Path) -> None:
    """What waits in the mailbox behind the crash is told at once to ask again, whatever it waits for."""
    gate = Gatekeeper()
    with Spooler(tmp_path / "spool.db", [MemoryTransport(answer=gate)]) as spooler:
        held = spooler.submit(message(), sender=SENDER, to="memory:x", hold=True)
        until(lambda: all(row.state.value == "running" for row in spooler.actors()), "running actors")
        with StuckStore(spooler):
            spooler.crash_actor("core/store")
            pending = [
                spooler.submit_nowait(Submission(message=message(n), sender=SENDER, to="memory:x"))
                for n in range(20)
            ]
            cancelled: list[object] = []

            def cancel(_: int) -> None:
                try:
                    cancelled.append(spooler.cancel(held.id))
                except PostroomError as error:
                    cancelled.append(error)

            canceller = threading.Thread(target=in_threads, args=(1, cancel))
            canceller.start()
            running = spooler.snapshot_source()
            assert running is not None
            store = running.context.handles.store
            until(lambda: store.depth() >= 22, "all letters in the mailbox")
        until(lambda: all(each.done for each in pending), "an answer to each")
        assert all(each.interrupted for each in pending)
        assert len({each.result(10).id for each in pending}) == 20
        canceller.join(10)
        assert len(cancelled) == 1
        assert running.submitter.gate.inside == 0
        gate.open()
        until(lambda: spooler.tally().pending <= 1, "the rest delivered")
        ledger_is_exact(spooler)


def test_the_log_is_copied_although_the_checkpointer_crashed_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.actors.store.CHECKPOINT_OCTETS", 50_000)
    copy = CheckpointActor.on_letters
    calls: list[int] = []

    def fail_once(actor: CheckpointActor, letters: list[object]) -> None:
        calls.append(len(letters))
        if len(calls) == 1:
            raise OSError("no space left on device")
        copy(actor, letters)

    monkeypatch.setattr(CheckpointActor, "on_letters", fail_once)
    path = tmp_path / "spool.db"
    log = tmp_path / "spool.db-wal"
    with Spooler(path, [MemoryTransport()]) as spooler:

        def traffic() -> None:
            for _ in range(10):
                spooler.submit_many(
                    Submission(message=message(lines=30), sender=SENDER, to="memory:x") for _ in range(20)
                )

        def copied_again() -> bool:
            traffic()
            return len(calls) > 1

        until(copied_again, "another copy")

        def steady() -> bool:
            size = log.stat().st_size
            traffic()
            return log.stat().st_size == size

        until(steady, "a log that does not grow any more")
        settled(spooler)


class StuckStore:
    """Keeps the store from committing, with a write lock of another connection."""

    def __init__(self, spooler: Spooler) -> None:
        self._connection = connect(spooler.path)
        running = spooler.snapshot_source()
        assert running is not None
        self._running = running
        self._spooler = spooler

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        # Something for the store to be stuck over.
        self._stuck = self._spooler.submit_nowait(
            Submission(message=message("stuck"), sender=SENDER, to="memory:x")
        )
        store = self._running.context.handles.store
        until(lambda: store.depth() == 0, "a store that waits for the lock")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()
        self._stuck.result(10)
