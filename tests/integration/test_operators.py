"""How operators act on what waits, and what becomes of a message that makes trouble."""

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from postroom import Limits, MemoryTransport, RetryPolicy, Selection, Spooler, State, operating
from postroom.active_queue import ActiveQueue, Job
from postroom.delivery import Delivery
from postroom.errors import InTransit, NotQueued, UnknownMessage
from postroom.outcomes import Deferred, Delivered, Reply
from postroom.stores.driver import sqlite3
from postroom.transports.base import Outcomes
from tests.support.spooling import PATIENCE, SENDER, Gatekeeper, deliveries_by_id, message, settled, until

MANY = 100_000
ONE = Limits(concurrency=1)


def send(spooler: Spooler, name: object = "", *, hold: bool = False) -> str:
    return spooler.submit(message(name), sender=SENDER, to="memory:x", hold=hold).id


# Operators


def test_what_is_on_its_way_into_memory_can_be_recalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    admit, ask = ActiveQueue.admit, operating.ask

    def admit_late(queue: ActiveQueue, jobs: Sequence[Job]) -> list[Job]:
        assert told.wait(PATIENCE)
        return admit(queue, jobs)

    def ask_and_tell(context: Any, letter: Any, what: str, **more: Any) -> object:
        answer = ask(context, letter, what, **more)
        if what == "cancel":
            told.set()
        return answer

    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        spooler.order("pause", Selection(transport="memory"))
        monkeypatch.setattr(ActiveQueue, "admit", admit_late)
        monkeypatch.setattr(operating, "ask", ask_and_tell)
        assert spooler.cancel(send(spooler)) == (0,)
        monkeypatch.undo()
        settled(spooler)


def test_hold_release_cancel_retry(tmp_path: Path) -> None:
    busy = Deferred(Reply("busy", "4.3.2", 450))
    answers = {"busy": True}
    transport = MemoryTransport(
        answer=lambda _: busy if answers["busy"] else Delivered(), retry=RetryPolicy(wait=wait_fixed(1000))
    )
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        deferred = send(spooler)
        until(lambda: spooler.status(deferred).recipients[0].attempts == 1, "a deferral")
        (explanation,) = spooler.explain(deferred)
        assert explanation.gate == "retry"
        assert "450" in explanation.rule
        assert spooler.hold(deferred) == (0,)
        assert spooler.explain(deferred)[0].gate == "held"
        assert spooler.hold(deferred) == ()
        assert spooler.release(deferred) == (0,)
        until(lambda: spooler.status(deferred).recipients[0].attempts == 2, "another try")
        answers["busy"] = False
        assert spooler.retry(deferred) == (0,)
        assert spooler.wait(deferred, 10).succeeded
        for action in (spooler.hold, spooler.release, spooler.cancel, spooler.retry):
            with pytest.raises(NotQueued):
                action(deferred)
            with pytest.raises(UnknownMessage):
                action("0000000000000")
        held = send(spooler, hold=True)
        assert spooler.status(held).recipients[0].state is State.HELD
        assert spooler.cancel(held) == (0,)
        assert spooler.wait(held, 10).recipients[0].state is State.CANCELLED
        settled(spooler)


def test_what_waits_in_memory_can_be_recalled_and_what_is_being_sent_cannot(tmp_path: Path) -> None:
    gate = Gatekeeper()
    transport = MemoryTransport(answer=gate, limits=ONE)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        sending, offered, waiting = (send(spooler, n) for n in range(3))
        gate.wait_for()
        for action in (spooler.cancel, spooler.hold, spooler.retry):
            with pytest.raises(InTransit):
                action(sending)
        assert spooler.explain(sending)[0].gate == "sending"
        until(lambda: spooler.explain(waiting)[0].gate == "courier", "its place in memory")
        assert spooler.cancel(offered) == (0,)
        assert spooler.hold(waiting) == (0,)
        gate.open()
        assert spooler.wait(sending, 10).succeeded
        assert spooler.wait(offered, 10).recipients[0].state is State.CANCELLED
        assert transport.count == 1
        spooler.release(waiting)
        settled(spooler)
        assert deliveries_by_id(transport) == {sending: 1, waiting: 1}


def test_some_recipients_of_a_message(tmp_path: Path) -> None:
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to=["memory:a", "memory:b", "memory:c"], hold=True)
        assert spooler.release(receipt.id, [1]) == (1,)
        assert spooler.cancel(receipt.id, [0]) == (0,)
        until(lambda: spooler.status(receipt.id).recipients[1].state is State.DELIVERED, "the delivery")
        states = [recipient.state for recipient in spooler.status(receipt.id).recipients]
        assert states == [State.CANCELLED, State.DELIVERED, State.HELD]
        assert spooler.cancel(receipt.id) == (2,)
        settled(spooler)


def test_an_action_is_repeated_when_the_disk_was_full_over_it(tmp_path: Path) -> None:
    """What was taken out of memory for it must not be stranded by the transaction that failed."""
    gate = Gatekeeper()
    path = tmp_path / "spool.db"
    with Spooler(path, [MemoryTransport(answer=gate, limits=ONE)]) as spooler:
        sending, waiting = send(spooler, 0), send(spooler, 1)
        gate.wait_for()
        until(lambda: spooler.explain(waiting)[0].gate == "courier", "its place in memory")
        running = spooler.snapshot_source()
        assert running is not None
        store: object = running.context.store
        control = getattr(store, "control")  # noqa: B009 - the protocol's method, to be put back
        failing = sqlite_failing_once(control)
        setattr(store, "control", failing)  # noqa: B010 - likewise
        assert spooler.cancel(waiting) == (0,)
        gate.open()
        settled(spooler)
        assert spooler.status(sending).succeeded


def sqlite_failing_once(control: object) -> object:
    calls: list[int] = []

    def fail_once(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        assert callable(control)
        return control(*arguments)

    return fail_once


# Trouble with one message


def test_poison_is_held_after_three_crashes_and_others_go_on(tmp_path: Path) -> None:
    harmless = threading.Event()

    def answer(delivery: Delivery) -> Outcomes:
        if b"poison" in delivery.content and not harmless.is_set():
            raise LookupError("what this content does to our parser")
        return Delivered()

    with Spooler(tmp_path / "spool.db", [MemoryTransport(keep=MANY, answer=answer)]) as spooler:
        poison = send(spooler, "poison")

        def crashed(times: int) -> bool:
            history = spooler.status(poison).recipients[0].history
            return sum(attempt.outcome == "crashed" for attempt in history) == times

        for crashes in range(1, 4):
            until(partial(crashed, crashes), "a crash")
            assert spooler.wait(send(spooler, "harmless"), 10).succeeded
            if crashes < 3:
                assert spooler.retry(poison) == (0,)
        (recipient,) = spooler.status(poison).recipients
        assert recipient.state is State.HELD
        assert recipient.reply is not None
        assert "poison" in recipient.reply.text
        assert "LookupError" in recipient.reply.text
        assert all(
            "what this content does" in (attempt.detail or "")
            for attempt in recipient.history
            if attempt.outcome == "crashed"
        )
        assert "Traceback" in (recipient.history[-1].detail or "")
        assert "poison" in spooler.explain(poison)[0].rule
        harmless.set()
        assert spooler.release(poison) == (0,)
        assert spooler.wait(poison, 10).succeeded
        settled(spooler)


def test_where_attempts_are_journalled_a_crash_is_doubt(tmp_path: Path) -> None:
    """A transport that asks for ``in_doubt="hold"`` never sends again by itself what may have been sent."""

    def answer(_: Delivery) -> Outcomes:
        if transport.count == 1:
            raise ConnectionError("after the last octet, before the answer")
        return Delivered()

    transport = MemoryTransport(answer=answer, in_doubt="hold")
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        doubtful = send(spooler)
        until(lambda: spooler.explain(doubtful)[0].gate == "held", "the hold")
        assert "in doubt" in spooler.explain(doubtful)[0].rule
        assert spooler.status(doubtful).recipients[0].in_doubt
        assert spooler.wait(send(spooler), 10).succeeded
        spooler.release(doubtful)
        settled(spooler)
        assert spooler.tally().states["memory", State.DELIVERED] == 2


def test_a_hung_courier_is_abandoned_and_its_late_report_is_void(tmp_path: Path) -> None:
    release = threading.Event()
    attempts: list[int] = []

    def answer(delivery: Delivery) -> Outcomes:
        attempts.append(delivery.targets[0].attempts)
        if len(attempts) == 1:
            release.wait(30)
        return Delivered(Reply(f"report {delivery.targets[0].attempts}"))

    limits = Limits(concurrency=1, attempt_timeout=0.2, hang_grace=0.1)
    transport = MemoryTransport(answer=answer, limits=limits, retry=RetryPolicy(wait=wait_fixed(0.05)))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        try:
            hung, other = send(spooler, "hung"), send(spooler, "other")
            assert spooler.wait(other, 10).succeeded, "the only courier was replaced"
            status = spooler.wait(hung, 10)
            assert status.succeeded
        finally:
            release.set()
        (recipient,) = status.recipients
        assert recipient.in_doubt
        assert recipient.attempts == 2
        assert [attempt.outcome for attempt in recipient.history] == ["deferred", "delivered"]
        assert "abandoned" in recipient.history[0].reply.text
        until(
            lambda: not any("courier-memory-1" in thread.name for thread in threading.enumerate()), "its end"
        )
        settled(spooler)
        assert spooler.status(hung).recipients == status.recipients
        assert spooler.tally().outcomes["memory", "delivered"] == 2


def test_what_a_transport_says_is_made_fit_for_the_record(tmp_path: Path) -> None:
    """A remote's words, however broken, must not take the store down."""
    broken = Deferred(Reply("\ud800 \x00 broken\r\nwords", "4.\ud800", 450, "\udcff.example.org"))
    policy = RetryPolicy(wait=wait_fixed(0.01), stop=stop_after_attempt(2))
    with Spooler(tmp_path / "spool.db", [MemoryTransport(answer=lambda _: broken, retry=policy)]) as spooler:
        (recipient,) = spooler.wait(send(spooler), 10).recipients
        assert recipient.state is State.EXPIRED
        assert recipient.reply is not None
        assert "broken words" in recipient.reply.text
        assert all(row.restarts == 0 for row in spooler.actors())
