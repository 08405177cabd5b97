"""Starting, stopping, forking and ending: each defined, and nothing left behind."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from postroom import Limits, MemoryTransport, Spooler, State, Submission
from postroom.actors.notifier import Subscription
from postroom.errors import (
    AlreadyRunning,
    ConfigurationError,
    NotRunning,
    PostroomError,
    SpoolUnavailable,
)
from postroom.stores.driver import connect
from tests.support.spooling import (
    SENDER,
    Gatekeeper,
    Listener,
    deliveries_by_id,
    in_threads,
    ledger_is_exact,
    message,
    settled,
    until,
)

MANY = 100_000


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    actors = pykka.ActorRegistry.get_all()
    yield
    assert pykka.ActorRegistry.get_all() == actors


def send(spooler: Spooler, name: object = "") -> str:
    return spooler.submit(message(name), sender=SENDER, to="memory:x").id


def test_started_twice(tmp_path: Path) -> None:
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        with pytest.raises(AlreadyRunning):
            spooler.start()
        assert spooler.wait(send(spooler), 10).succeeded


def test_used_before_start_and_after_stop(tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport()])
    for _ in range(2):
        with pytest.raises(NotRunning):
            send(spooler)
        with pytest.raises(NotRunning):
            spooler.submit_nowait(Submission(message=message(), sender=SENDER, to="memory:x"))
        for ask in (spooler.tally, spooler.transports, spooler.actors, spooler.audit):
            with pytest.raises(NotRunning):
                ask()
        for act in (spooler.cancel, spooler.status, spooler.explain, spooler.wait):
            with pytest.raises(NotRunning):
                act("0000000000000")
        assert not spooler.running
        with spooler:
            assert spooler.running


def test_stopped_twice_and_without_start(tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db")
    assert spooler.stop()
    spooler.start()
    assert spooler.stop()
    assert spooler.stop()


def test_started_again_after_a_stop_under_load(tmp_path: Path) -> None:
    """An orderly stop leaves nothing in doubt: what waits goes back to the spool, and each is sent once."""
    transport = MemoryTransport(keep=MANY, limits=Limits(window=500))
    spooler = Spooler(tmp_path / "spool.db", [transport])
    ids: list[str] = []
    for _ in range(4):
        spooler.start()
        ids += [
            receipt.id
            for receipt in spooler.submit_many(
                Submission(message=message(n), sender=SENDER, to="memory:x") for n in range(1500)
            )
        ]
        assert spooler.stop()
    with spooler:
        settled(spooler)
        assert deliveries_by_id(transport) == dict.fromkeys(ids, 1)
        assert not any(entry.recipient.in_doubt for entry in spooler.queue(states=set(State), limit=None))


def test_no_thread_is_left_and_none_can_keep_a_host_from_ending(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Spooler(tmp_path / "spool.db", [MemoryTransport()], metrics_port=0) as spooler:
        spooler.subscribe(lambda _: None)
        assert spooler.wait(send(spooler), 10).succeeded
        new = set(threading.enumerate()) - before
        assert new
        assert all(thread.daemon for thread in new)
    until(lambda: set(threading.enumerate()) <= before, "the end of all threads", 5)


def test_the_hosts_own_actors_are_left_alone(tmp_path: Path) -> None:
    class Host(pykka.ThreadingActor):
        def on_receive(self, message: object) -> object:
            return message

    theirs = Host.start()
    try:
        with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
            send(spooler)
            spooler.crash_actor("core/store")
        assert theirs.ask("still there", timeout=5) == "still there"
    finally:
        theirs.stop()


def test_an_exception_in_the_with_body_still_stops(tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport()])

    def body() -> None:
        with spooler:
            raise KeyError("the host's own")

    with pytest.raises(KeyError, match="own"):
        body()
    assert not spooler.running


def test_stop_returns_in_time_although_a_courier_hangs(tmp_path: Path) -> None:
    gate = Gatekeeper()
    transport = MemoryTransport(answer=gate, limits=Limits(concurrency=2))
    spooler = Spooler(tmp_path / "spool.db", [transport])
    spooler.start()
    hanging = [send(spooler, n) for n in range(2)]
    waiting = send(spooler, "waits")
    gate.wait_for(2)
    began = time.monotonic()
    assert not spooler.stop(timeout=1)
    assert time.monotonic() - began < 5
    gate.open()
    # Whoever comes next takes them over as possibly sent; what had only waited is not in doubt.
    free = MemoryTransport()
    with Spooler(tmp_path / "spool.db", [free]) as spooler:
        settled(spooler)
        doubts = {each: spooler.status(each).recipients[0].in_doubt for each in [*hanging, waiting]}
    assert doubts == {hanging[0]: True, hanging[1]: True, waiting: False}
    assert {delivery.message_id: delivery.targets[0].in_doubt for delivery in free.deliveries} == doubts


def test_submitters_are_told_when_it_is_stopped_over_them(tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport(keep=MANY)])
    spooler.start()
    acknowledged: list[str] = []
    refused: list[PostroomError] = []

    def work(number: int) -> None:
        for n in range(10_000):
            try:
                acknowledged.append(send(spooler, f"{number}-{n}"))
            except PostroomError as error:
                refused.append(error)
                return

    def stop(_: int) -> None:
        until(lambda: len(acknowledged) > 100, "some traffic")
        assert spooler.stop()

    in_threads(9, lambda number: stop(number) if number == 8 else work(number))
    assert len(refused) == 8
    assert {type(error) for error in refused} == {NotRunning}
    with spooler:
        settled(spooler)
        assert all(spooler.status(each).succeeded for each in acknowledged)


def test_a_waiter_is_told_when_it_is_stopped(tmp_path: Path) -> None:
    gate = Gatekeeper()
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport(answer=gate)])
    spooler.start()
    held = spooler.submit(message(), sender=SENDER, to="memory:x", hold=True)
    told: list[BaseException] = []

    def wait(_: int) -> None:
        try:
            held.wait(30)
        except NotRunning as error:
            told.append(error)

    def stop(_: int) -> None:
        time.sleep(0.05)  # only to let the others begin to wait; any order is right
        spooler.stop()

    in_threads(5, lambda number: stop(number) if number == 4 else wait(number))
    assert len(told) == 4


def test_stopped_by_a_subscriber(tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport()])
    stopped: list[bool] = []
    spooler.subscribe(lambda _: stopped.append(spooler.stop(5)), name="stopper")
    spooler.start()
    send(spooler)
    until(lambda: bool(stopped), "the stop")
    assert stopped[0]
    assert not spooler.running


def test_a_subscription_made_before_the_start_counts(tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport()])
    listener = Listener()
    subscription = spooler.subscribe(listener)
    assert isinstance(subscription, Subscription)
    with spooler:
        send(spooler)
        spooler.wait(send(spooler), 10)
    assert listener.events


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to look like one" * 20])
def test_a_file_that_is_no_spool(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    spooler = Spooler(path, [MemoryTransport()])
    with pytest.raises(SpoolUnavailable, match=r"cannot open the spool .*spool\.db"):
        spooler.start()
    assert not spooler.running
    assert path.read_bytes() == content
    path.unlink()
    with spooler:
        assert spooler.wait(send(spooler), 10).succeeded


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnavailable, match="cannot open the spool"):
        Spooler(tmp_path / "file" / "spool.db").start()


def test_a_start_that_takes_too_long(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with Spooler(path):
        pass
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    spooler = Spooler(path)
    with pytest.raises(SpoolUnavailable, match="did not start within"):
        spooler.start(timeout=0.3)
    other.execute("ROLLBACK")
    other.close()
    # The hung store lets go by itself, and the next start is none the worse for it.
    with spooler:
        assert spooler.tally().pending == 0
    until(lambda: pykka.ActorRegistry.get_all() == [], "the end of the first start's actors")


def test_a_transport_that_cannot_start_does_not_hinder_the_others(tmp_path: Path) -> None:
    class Late(MemoryTransport):
        ready = False

        def prepare(self) -> None:
            if not self.ready:
                raise FileNotFoundError("its certificate")

    late = Late(name="late", address_types={"late"})
    with Spooler(tmp_path / "spool.db", [late, MemoryTransport()]) as spooler:
        waiting = spooler.submit(message(), sender=SENDER, to="late:x")
        assert spooler.wait(send(spooler), 10).succeeded
        (explanation,) = spooler.explain(waiting.id)
        assert explanation.gate == "transport"
        assert "certificate" in explanation.rule
        late.ready = True
        assert waiting.wait(20).succeeded
        settled(spooler)


def test_a_metrics_port_that_is_taken(tmp_path: Path) -> None:
    with Spooler(tmp_path / "a.db", metrics_port=0) as first:
        assert first.metrics_address is not None
        second = Spooler(tmp_path / "b.db", metrics_port=first.metrics_address[1])
        with pytest.raises(ConfigurationError, match="metrics_port"):
            second.start()
        assert not second.running


def test_two_spoolers_in_one_process_share_a_spool(tmp_path: Path) -> None:
    transports = [MemoryTransport(keep=MANY), MemoryTransport(keep=MANY)]
    path = tmp_path / "spool.db"
    with Spooler(path, [transports[0]]) as one, Spooler(path, [transports[1]]) as two:
        ids: list[str] = []

        def work(number: int) -> None:
            spooler = (one, two)[number % 2]
            ids.extend(send(spooler, f"{number}-{n}") for n in range(50))

        in_threads(8, work)
        settled(one)
        ledger_is_exact(two)
        assert deliveries_by_id(transports[0]) + deliveries_by_id(transports[1]) == dict.fromkeys(ids, 1)
