"""Rates, destinations, pauses, windows and failover in a whole spooler."""

from collections import Counter
from pathlib import Path

from tenacity import wait_fixed

from postroom import Limits, MemoryTransport, RetryPolicy, Spooler, State
from postroom.actors.protocol import Ordered, Probe
from postroom.delivery import Delivery
from postroom.errors import TransportDown
from postroom.lanes import destination_of
from postroom.outcomes import Deferred, Delivered, Reply
from postroom.selections import Selection
from postroom.stores.base import Order
from postroom.throttles import DestinationLimits, Rate, Throttle
from postroom.transports.base import Outcomes
from tests.support.spooling import SENDER, Gatekeeper, actors_rest, ledger_is_exact, message, settled, until

DOWN = Deferred(Reply("connection refused", "4.4.1"), destination_down=True)
PATIENT = RetryPolicy(wait=wait_fixed(3600))


def send(spooler: Spooler, to: str = "memory:x", *, window: str | None = None) -> str:
    return spooler.submit(message(), sender=SENDER, to=to, window=window).id


def places(transport: MemoryTransport) -> Counter[str]:
    """Return the attempts made, by destination."""
    return Counter(destination_of(delivery.targets[0].address) for delivery in transport.deliveries)


def gate_of(spooler: Spooler, transport: str = "memory", destination: str = "") -> str | None:
    engine = spooler.snapshot_source()
    assert engine is not None
    queue = engine.context.queues[transport]
    gate = queue.gates.gate_of(destination, engine.context.clock.time())
    return None if gate is None else gate[0]


def order(spooler: Spooler, *selections: Selection) -> None:
    engine = spooler.snapshot_source()
    assert engine is not None
    orders = [Order(n, "pause", chosen.to_json()) for n, chosen in enumerate(selections, 1)]
    for handle in engine.context.handles.transports.values():
        handle.tell(Ordered(orders))
    actors_rest(spooler)


def test_a_rate_lets_the_burst_through_and_holds_back_the_rest(tmp_path: Path) -> None:
    transport = MemoryTransport(throttle=Throttle(rate=Rate(1, 3600, 5)))
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        for _ in range(8):
            send(spooler)
        assert transport.wait_for(5, 20)
        until(lambda: spooler.tally().pending == 3, "the burst")
        actors_rest(spooler)
        assert gate_of(spooler) == "rate"
        assert transport.count == 5
        # Another incarnation of the actor does not get the burst again.
        actor = "core/transports/memory"
        assert spooler.crash_actor(actor)
        until(lambda: {row.name: row.incarnation for row in spooler.actors()}[actor] == 2, "the next actor")
        until(lambda: gate_of(spooler) == "rate", "its gate")
        actors_rest(spooler)
        assert transport.count == 5
    # What was held back is still there, and was not charged.
    after = MemoryTransport()
    with Spooler(tmp_path / "spool.db", [after]) as spooler:
        settled(spooler)
        assert {delivery.targets[0].attempts for delivery in after.deliveries} == {0}
        assert after.count == 3


def test_a_dead_destination_is_parked_and_stays_so_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"

    def answer(delivery: Delivery) -> Outcomes:
        return DOWN if delivery.targets[0].address.value.endswith("@dead.example") else Delivered()

    def transport() -> MemoryTransport:
        return MemoryTransport(
            address_types={"smtp"}, answer=answer, retry=PATIENT, limits=Limits(concurrency=2, window=50),
            throttle=Throttle(destination=DestinationLimits(concurrency=1, initial=1, probe=wait_fixed(3600))),
        )  # fmt: skip

    first = transport()
    with Spooler(path, [first]) as spooler:
        for n in range(120):
            send(spooler, f"{n}@dead.example")
            send(spooler, f"{n}@live.example")
        until(lambda: spooler.tally().pending == 120, "the living")
        actors_rest(spooler)
        assert places(first) == {"live.example": 120, "dead.example": 1}
        assert gate_of(spooler, destination="dead.example") == "destination_parked"
        ledger_is_exact(spooler)
    second = transport()
    with Spooler(path, [second]) as spooler:
        late = spooler.submit(message(), sender=SENDER, to="late@live.example")
        assert late.wait(20).succeeded
        actors_rest(spooler)
        assert places(second) == {"live.example": 1}
        # An operator need not wait: one canary goes, and is charged; the others still wait.
        engine = spooler.snapshot_source()
        assert engine is not None
        engine.context.handles.transports["memory"].tell(Probe())
        until(lambda: places(second)["dead.example"] == 1, "the canary")
        actors_rest(spooler)
        assert places(second)["dead.example"] == 1
        ledger_is_exact(spooler)


def test_when_it_comes_back_all_that_waited_is_delivered(tmp_path: Path) -> None:
    gate = Gatekeeper()
    down = [True]

    def answer(delivery: Delivery) -> Outcomes:
        if down[0]:
            return DOWN
        return gate(delivery)

    limits = DestinationLimits(concurrency=4, probe=wait_fixed(0.05))
    transport = MemoryTransport(
        address_types={"smtp"}, answer=answer, keep=1000, retry=RetryPolicy(wait=wait_fixed(0.1)),
        limits=Limits(concurrency=4, window=40), throttle=Throttle(destination=limits),
    )  # fmt: skip
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        for n in range(200):
            send(spooler, f"{n}@example.org")
        assert transport.wait_for(3, 20)
        down[0] = False
        gate.open()
        settled(spooler)
        assert gate_of(spooler, destination="example.org") is None


def test_pauses(tmp_path: Path) -> None:
    transport = MemoryTransport(address_types={"smtp"})
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        order(spooler, Selection(destination="*.example"))
        held = spooler.submit(message(), sender=SENDER, to="ann@one.example")
        free = spooler.submit(message(), sender=SENDER, to="ann@example.org")
        assert free.wait(20).succeeded
        actors_rest(spooler)
        assert gate_of(spooler, destination="one.example") == "destination_paused"
        order(spooler, Selection(transport="memory"))
        more = spooler.submit(message(), sender=SENDER, to="bob@example.org")
        actors_rest(spooler)
        assert gate_of(spooler, destination="example.org") == "paused"
        assert transport.count == 1
        order(spooler)
        assert held.wait(20).succeeded
        assert more.wait(20).succeeded


def test_a_message_waits_for_its_window(tmp_path: Path) -> None:
    """In whatever way it comes to the transport: here it is due, and its window is not open."""
    transport = MemoryTransport()
    with Spooler(tmp_path / "spool.db", [transport]) as spooler:
        engine = spooler.snapshot_source()
        assert engine is not None
        now = engine.context.clock.time()
        # Open for a minute of the day that is twelve hours away.
        minute = int(now + 12 * 3600) // 60 % 1440
        begin, end = (
            f"{minute // 60:02}:{minute % 60:02}",
            f"{(minute + 1) % 1440 // 60:02}:{(minute + 1) % 60:02}",
        )
        held, free = send(spooler, window=f"{begin}-{end}"), send(spooler)
        until(lambda: spooler.status(free).recipients[0].state is State.DELIVERED, "the other")
        actors_rest(spooler)
        (recipient,) = spooler.status(held).recipients
        assert (recipient.state, recipient.attempts) == (State.QUEUED, 0)
        assert recipient.due is not None
        assert now + 11 * 3600 < recipient.due < now + 13 * 3600


def test_an_outage_that_lasts_moves_all_on_to_the_next_transport(tmp_path: Path) -> None:
    def refuse(delivery: Delivery) -> Outcomes:
        del delivery
        raise TransportDown("connection refused")

    primary = MemoryTransport(
        name="primary", answer=refuse, failover_after=0.2, limits=Limits(window=20), probe=wait_fixed(0.1)
    )
    backup = MemoryTransport(name="backup", keep=1000)
    with Spooler(tmp_path / "spool.db", [primary, backup]) as spooler:
        ids = [send(spooler) for _ in range(100)]
        settled(spooler)
        assert {delivery.message_id for delivery in backup.deliveries} == set(ids)
        (recipient,) = spooler.status(ids[0]).recipients
        assert (recipient.transport, recipient.attempts) == ("backup", 1)
