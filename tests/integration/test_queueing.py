"""What waits, in which order it goes and by which transport, and how it is forgotten."""

import time
from pathlib import Path

import pytest
from tenacity import wait_fixed

from postroom import Limits, MemoryTransport, RetryPolicy, Settings, Spooler, State, Submission
from postroom.clock import SystemClock
from postroom.delivery import Delivery
from postroom.errors import UnknownMessage
from postroom.outcomes import Deferred, Delivered, NotMine, Reply
from postroom.retries import DAY
from postroom.stores.driver import connect
from postroom.transports.base import Outcomes
from tests.support.spooling import SENDER, Gatekeeper, actors_rest, deliveries_by_id, message, settled, until

MANY = 100_000
ONE = Limits(concurrency=1)


def send(spooler: Spooler, name: object = "", *, to: str = "memory:x") -> str:
    return spooler.submit(message(name), sender=SENDER, to=to).id


class SkewedClock(SystemClock):
    """The system's clock, set forward by ``skew`` seconds."""

    skew = 0.0

    def time(self) -> float:
        return super().time() + self.skew


# Times and order


def test_send_at(tmp_path: Path) -> None:
    sent: list[float] = []

    def answer(delivery: Delivery) -> Outcomes:
        del delivery
        sent.append(time.time())
        return Delivered()

    with Spooler(tmp_path / "spool.db", [MemoryTransport(answer=answer)]) as spooler:
        at = time.time() + 0.5
        receipt = spooler.submit(message(), sender=SENDER, to="memory:x", send_at=at)
        (explanation,) = spooler.explain(receipt.id)
        assert explanation.gate == "send_at"
        assert explanation.until == at
        assert receipt.wait(10).succeeded
        assert sent[0] >= at


def test_expires_at(tmp_path: Path) -> None:
    later = Deferred(Reply("busy", "4.3.2"))
    transport = MemoryTransport(answer=lambda _: later, retry=RetryPolicy(wait=wait_fixed(60)))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to="memory:x", expires_at=time.time() + 0.4)
        status = receipt.wait(10)
        assert status.recipients[0].state is State.EXPIRED
        assert status.recipients[0].attempts == 1
        assert transport.count == 1
        settled(spooler)


def test_one_courier_keeps_the_order_of_submission(tmp_path: Path) -> None:
    """Also across a window that is far too small, so that most of it waits in the spool."""
    gate = Gatekeeper()
    transport = MemoryTransport(keep=MANY, answer=gate, limits=Limits(concurrency=1, window=7))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        ids = [send(spooler, n) for n in range(100)]
        gate.open()
        # There is room for these now and then, but others are before them.
        ids += [send(spooler, n) for n in range(200)]
        settled(spooler)
        assert [delivery.message_id for delivery in transport.deliveries] == ids


@pytest.mark.parametrize("window", [3, 2000])
def test_priority_before_due_time_before_submission(tmp_path: Path, window: int) -> None:
    gate = Gatekeeper()
    transport = MemoryTransport(keep=MANY, answer=gate, limits=Limits(concurrency=1, window=window))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        first = send(spooler)
        gate.wait_for()
        by_priority: dict[int, list[str]] = {1: [], 0: [], -1: []}
        for n in range(30):
            priority = (-1, 0, 1)[n % 3]
            receipt = spooler.submit(message(n), sender=SENDER, to="memory:x", priority=priority)
            by_priority[priority].append(receipt.id)
        actors_rest(spooler)
        gate.open()
        settled(spooler)
        order = [delivery.message_id for delivery in transport.deliveries]
        assert order[0] == first
        places = {p: [order.index(each) for each in by_priority[p]] for p in by_priority}
        assert all(ranks == sorted(ranks) for ranks in places.values()), (
            "the oldest of each priority comes first"
        )
        # What is in a window when something more urgent comes may go before it, as far as it is on its way; and the
        # less urgent get a small share all the same.
        for rank, place in enumerate(places[1]):
            assert place <= 1 + rank + window + (rank + 1) * 5 / 16 + 2
        assert sum(places[1]) < sum(places[0]) < sum(places[-1])


# Windows


def test_a_load_far_larger_than_the_window(tmp_path: Path) -> None:
    most: list[int] = []

    def answer(delivery: Delivery) -> Outcomes:
        del delivery
        most.append(queue.held)
        return Delivered()

    transport = MemoryTransport(keep=MANY, answer=answer, limits=Limits(window=10))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        running = spooler.snapshot_source()
        assert running is not None
        queue = running.context.queues["memory"]
        receipts = spooler.submit_many(
            Submission(message=message(n), sender=SENDER, to="memory:x") for n in range(5000)
        )
        settled(spooler, 60)
        assert deliveries_by_id(transport) == {receipt.id: 1 for receipt in receipts}
        assert 0 < max(most) <= 10
        assert queue.held == 0


def test_work_that_comes_due_while_the_window_is_half_full(tmp_path: Path) -> None:
    """It is claimed as soon as there is room, without anything else having to happen."""
    gate = Gatekeeper()
    transport = MemoryTransport(answer=gate, limits=Limits(window=4, concurrency=4))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        for n in range(3):
            send(spooler, n)
        gate.wait_for(3)
        late = spooler.submit(message(), sender=SENDER, to="memory:x", send_at=time.time() + 0.1)
        until(lambda: spooler.explain(late.id)[0].gate == "window", "its due time")
        gate.open()
        assert late.wait(5).succeeded


def test_a_message_with_more_recipients_than_the_window_holds(tmp_path: Path) -> None:
    transport = MemoryTransport(keep=MANY, limits=Limits(window=10, recipients_per_delivery=4))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to=[f"memory:{n}" for n in range(300)])
        assert receipt.wait(20).succeeded
        settled(spooler)
        sent = [target.index for delivery in transport.deliveries for target in delivery.targets]
        assert sorted(sent) == list(range(300))


def test_content_beyond_the_window_is_read_from_the_spool(tmp_path: Path) -> None:
    gate = Gatekeeper()
    transport = MemoryTransport(keep=MANY, answer=gate, limits=Limits(concurrency=1, window_bytes=100_000))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        for n in range(20):
            spooler.submit(message(n, lines=1000), sender=SENDER, to="memory:x")
        gate.open()
        settled(spooler)
        assert {len(delivery.content) > 64_000 for delivery in transport.deliveries} == {True}
        assert len(transport.deliveries) == 20


# From transport to transport


def test_not_mine_moves_along_the_transport_order(tmp_path: Path) -> None:
    asked: list[str] = []

    def declining(name: str) -> MemoryTransport:
        def answer(delivery: Delivery) -> Outcomes:
            asked.append(name)
            return tuple(
                Delivered() if target.address.value == name else NotMine() for target in delivery.targets
            )

        return MemoryTransport(name=name, answer=answer)

    with Spooler(tmp_path / "spool.db", [declining(name) for name in ("a", "b", "c")]) as spooler:
        assert spooler.wait(send(spooler, to="memory:c"), 10).recipients[0].transport == "c"
        assert asked == ["a", "b", "c"]
        (lost,) = spooler.wait(send(spooler, to="memory:nobody"), 10).recipients
        assert lost.state is State.FAILED
        assert lost.reply is not None
        assert lost.reply.status == "5.1.2"
        assert lost.attempts == 0
        assert [attempt.outcome for attempt in lost.history] == ["not_mine", "not_mine", "failed"]
        settled(spooler)


# Retention


def test_old_messages_are_forgotten_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.actors.housekeeping.STEP", 50)
    clock = SkewedClock()
    path = tmp_path / "spool.db"
    settings = Settings(keep_sent=3600, keep_content=60, sync_interval=0.05)
    with Spooler(path, [MemoryTransport()], settings=settings, clock=clock) as spooler:
        pending = spooler.submit(message("pending"), sender=SENDER, to="memory:x", hold=True)
        receipts = spooler.submit_many(
            Submission(message=message(n), sender=SENDER, to="memory:x", idempotency_key=f"k{n}")
            for n in range(400)
        )
        until(lambda: spooler.tally().pending == 1, "the deliveries")
        assert spooler.content(receipts[0].id) is not None
        clock.skew += 120
        until(lambda: spooler.content(receipts[-1].id) is None, "the end of the contents")
        assert spooler.status(receipts[0].id).succeeded
        clock.skew += DAY

        def forgotten() -> bool:
            # A round may be under way that began before the clock was set; the next comes a minute later.
            clock.skew += 10
            return _count(path, "message") == 1

        until(forgotten, "the end of the records")
        for table in ("recipient", "content"):
            assert _count(path, table) == 1
        assert _count(path, "idempotency") == _count(path, "attempt") == 0
        with pytest.raises(UnknownMessage):
            spooler.status(receipts[0].id)
        # The ledger counts for ever, and what is pending stays.
        assert spooler.tally().states["memory", State.DELIVERED] == 400
        assert spooler.content(pending.id) is not None
        spooler.release(pending.id)
        settled(spooler)


def test_content_goes_at_once_by_default(tmp_path: Path) -> None:
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to="memory:x")
        assert receipt.wait(10).succeeded
        assert spooler.content(receipt.id) is None
        assert spooler.status(receipt.id).subject == "test"


def _count(path: Path, table: str) -> int:
    connection = connect(path, read_only=True)
    try:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own names
    finally:
        connection.close()
    assert isinstance(count, int)
    return count
