"""Subscribers and waiters: told what happens, isolated from it and from each other."""

import threading
import time
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, wait_fixed

from postroom import MemoryTransport, RetryPolicy, Spooler, State
from postroom.errors import UnknownMessage
from postroom.events import (
    ActorRestarted,
    Event,
    MessageCompleted,
    MessageQueued,
    RecipientCancelled,
    RecipientDeferred,
    RecipientDelivered,
    RecipientEvent,
    RecipientExpired,
    RecipientFailed,
    RecipientHeld,
    RecipientRelayed,
    TransportChanged,
)
from postroom.outcomes import Deferred, Failed, Relayed, Reply
from tests.support.spooling import SENDER, Gatekeeper, Listener, in_threads, message, settled, until

MANY = 100_000


def send(spooler: Spooler, to: str = "memory:x") -> str:
    return spooler.submit(message(), sender=SENDER, to=to).id


def test_the_life_of_a_message_in_events(tmp_path: Path) -> None:
    listener = Listener()
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        spooler.subscribe(listener)
        receipt = spooler.submit(message(), sender=SENDER, to=["memory:a", "memory:b"])
        listener.wait(MessageCompleted)
        mine = [event for event in listener.events if getattr(event, "message_id", "") == receipt.id]
        assert [type(event) for event in mine] == [
            MessageQueued,
            RecipientDelivered,
            RecipientDelivered,
            MessageCompleted,
        ]
        queued, first, second, _ = mine
        assert isinstance(queued, MessageQueued)
        assert (queued.sender, queued.recipients) == (SENDER, 2)
        assert isinstance(first, RecipientEvent)
        assert isinstance(second, RecipientEvent)
        assert {str(first.address), str(second.address)} == {"memory:a", "memory:b"}
        assert first.attempts == 1
        assert first.reply is not None


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Relayed(), RecipientRelayed),
        (Failed(Reply("no such user", "5.1.1", 550)), RecipientFailed),
        (Deferred(Reply("busy", "4.3.2", 451)), RecipientExpired),
    ],
)
def test_how_it_ends(
    tmp_path: Path, outcome: Relayed | Failed | Deferred, kind: type[RecipientEvent]
) -> None:
    listener = Listener()
    policy = RetryPolicy(wait=wait_fixed(0.05), stop=stop_after_attempt(2))
    transport = MemoryTransport(answer=lambda _: outcome, retry=policy)
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        spooler.subscribe(listener)
        message_id = send(spooler)
        event = listener.wait(kind)
        assert event.message_id == message_id
        assert event.reply == outcome.reply
        listener.wait(MessageCompleted)
        deferrals = [event for event in listener.events if isinstance(event, RecipientDeferred)]
        assert len(deferrals) == isinstance(outcome, Deferred)
        assert all(event.due > event.at for event in deferrals)


def test_what_operators_do_is_told_too(tmp_path: Path) -> None:
    listener = Listener()
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        spooler.subscribe(listener, events={RecipientHeld, RecipientCancelled, MessageCompleted})
        later = spooler.submit(message(), sender=SENDER, to="memory:x", send_at=time.time() + 1000)
        spooler.hold(later.id)
        held = listener.wait(RecipientHeld)
        assert held.message_id == later.id
        assert held.reply is not None
        assert "operator" in held.reply.text
        spooler.cancel(later.id)
        listener.wait(MessageCompleted, lambda event: event.message_id == later.id)
        assert [type(event) for event in listener.events] == [
            RecipientHeld,
            RecipientCancelled,
            MessageCompleted,
        ]


def test_filters(tmp_path: Path) -> None:
    only, whole = Listener(), Listener()
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        spooler.subscribe(only, events={MessageCompleted})
        spooler.subscribe(whole, events={RecipientEvent})
        send(spooler)
        only.wait(MessageCompleted)
        whole.wait(RecipientDelivered)
    assert {type(event) for event in only.events} == {MessageCompleted}
    assert {type(event) for event in whole.events} == {RecipientDelivered}


def test_restarts_and_transports_are_told(tmp_path: Path) -> None:
    listener = Listener()
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        spooler.subscribe(listener, events={ActorRestarted, TransportChanged})
        spooler.crash_actor("core/transports/memory", "for the test")
        restarted = listener.wait(ActorRestarted)
        assert restarted.actor == "core/transports/memory"
        assert restarted.incarnation == 2
        assert "for the test" in restarted.reason
        listener.wait(TransportChanged, lambda event: event.status == "restarting")
        listener.wait(TransportChanged, lambda event: event.status == "up")


def test_a_subscriber_that_blocks_and_one_that_raises_harm_nobody(tmp_path: Path) -> None:
    release = threading.Event()
    good = Listener()

    def block(_: Event) -> None:
        release.wait()

    def fail(_: Event) -> None:
        raise ZeroDivisionError("a subscriber's own fault")

    transport = MemoryTransport(keep=MANY)
    spooler = Spooler(tmp_path / "spool.db", [transport])
    try:
        spooler.start()
        spooler.subscribe(block, name="blocker")
        spooler.subscribe(fail, events={MessageCompleted}, name="raiser")
        spooler.subscribe(good, events={MessageCompleted}, name="good")
        # Each message is three events, so that the blocker's queue overflows.
        in_threads(8, lambda _: [send(spooler) for _ in range(450)])
        settled(spooler)
        until(lambda: len(good.events) == 3600, "all events at the good subscriber")
        rows = {row.name: row for row in spooler.subscribers()}
        until(
            lambda: spooler.metrics.get_sample_value(ERRORS, {"subscriber": "raiser"}) == 3600, "all errors"
        )
        assert rows["blocker"].busy_since is not None
        assert rows["blocker"].dropped > 0
        assert rows["good"].errors == rows["good"].dropped == 0
        assert spooler.metrics.get_sample_value(DROPPED, {"subscriber": "blocker"}) == rows["blocker"].dropped
        assert next(row for row in spooler.subscribers() if row.name == "raiser").errors == 3600
        began = time.monotonic()
        assert not spooler.stop(timeout=5), "the blocker was left behind"
        assert time.monotonic() - began < 10
    finally:
        release.set()
        spooler.stop()


ERRORS = "postroom_subscriber_errors_total"
DROPPED = "postroom_subscriber_dropped_total"


def test_a_subscription_is_cancelled_from_within(tmp_path: Path) -> None:
    heard: list[Event] = []
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:

        def once(event: Event) -> None:
            heard.append(event)
            subscription.cancel()

        subscription = spooler.subscribe(once)
        spooler.wait(send(spooler), 10)
        until(lambda: spooler.subscribers() == (), "the end of the subscription")
        spooler.wait(send(spooler), 10)
        assert len(heard) == 1


# Waiting for a message


def test_wait_with_and_without_patience(tmp_path: Path) -> None:
    gate = Gatekeeper()
    with Spooler(tmp_path / "spool.db", [MemoryTransport(answer=gate)]) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to="memory:x")
        gate.wait_for()
        for patience in (0, 0.05):
            status = receipt.wait(patience)
            assert not status.complete
            assert status.recipients[0].state is State.QUEUED
        gate.open()
        assert receipt.wait().succeeded
        assert receipt.wait(0).succeeded
        with pytest.raises(UnknownMessage):
            spooler.wait("0000000000000", 1)


def test_wait_in_many_threads(tmp_path: Path) -> None:
    gate = Gatekeeper()
    with Spooler(tmp_path / "spool.db", [MemoryTransport(answer=gate)]) as spooler:
        receipts = [spooler.submit(message(n), sender=SENDER, to=["memory:x", "memory:y"]) for n in range(10)]
        succeeded: list[bool] = []

        def work(number: int) -> None:
            if number == 0:
                gate.wait_for(4)
                gate.open()
            else:
                succeeded.extend(receipt.wait(20).succeeded for receipt in receipts)

        in_threads(33, work)
        assert succeeded == [True] * 320
