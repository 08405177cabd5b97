"""What every transport must do, as tests to inherit.

Write a harness for the transport, and a test class that gives it::

    class TestSms(TransportConformance):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
            with SmsGateway() as gateway:
                yield SmsHarness(gateway)

The suite uses nothing of pytest but the fixture named ``harness``, and skips what a harness says it cannot
show. Where deliveries can be led through a proxy, it cuts the connection at one step after the other
(:mod:`postroom.testing.faults`): what did not arrive must not be called delivered, and what is in doubt must be tried
again.
"""

# ruff: noqa: D102, S101 - they are tests: the names say what they show

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import (
    Accepted,
    Deferred,
    Delivered,
    Outcome,
    Relayed,
)
from postroom.routing import Router
from postroom.testing.faults import FaultyPeer, Trouble
from postroom.testing.samples import SAMPLES, Sample
from postroom.testing.transport_harness import (
    SENDER,
    Arrival,
    TransportHarness,
    make_delivery,
    outcome_list,
)
from postroom.transports.base import Outcomes, Session, Transport

__all__ = [
    "SAMPLES",
    "SENDER",
    "Arrival",
    "Sample",
    "TransportConformance",
    "TransportHarness",
    "assert_arrived",
    "make_delivery",
    "outcome_list",
]

PATIENCE = 30.0
"""Seconds after which something that must end is taken to hang."""

MOST_CUTS = 24
"""Places in each direction at which a connection is cut at most."""

_FINE = (Delivered, Relayed, Accepted)


def assert_arrived(harness: TransportHarness, deliveries: Sequence[Delivery]) -> None:
    """Fail unless exactly these deliveries have arrived, each once at each target."""
    wanted = sorted(
        (str(target.address), harness.expected(delivery, target) if harness.shows_content else b"")
        for delivery in deliveries
        for target in delivery.targets
    )
    until = time.monotonic() + PATIENCE
    while len(found := harness.arrived()) < len(wanted) and time.monotonic() < until:
        time.sleep(0.01)
    found = sorted((recipient, content if harness.shows_content else b"") for recipient, content in found)
    assert [recipient for recipient, _ in found] == [recipient for recipient, _ in wanted]
    for (recipient, got), (_, want) in zip(found, wanted, strict=True):
        # Not `got == want` alone: pytest would take minutes to print the difference of 5 MiB.
        same = got == want
        assert same, f"{recipient}: {len(got)} octets {got[:300]!r} instead of {len(want)} {want[:300]!r}"


class TransportConformance:
    """The suite. A subclass overrides the fixture ``harness``."""

    @pytest.fixture
    def harness(self) -> TransportHarness:
        raise NotImplementedError("override the fixture `harness`")

    def test_the_router_finds_it_by_its_address_types(self, harness: TransportHarness) -> None:
        transport = harness.make()
        assert Router([transport.route]).plan(harness.address(0)) == (transport.name,)

    def test_it_has_a_name_and_lower_case_address_types(self, harness: TransportHarness) -> None:
        transport = harness.make()
        assert transport.name
        assert not isinstance(transport.address_types, str)
        assert all(each and each == each.lower() for each in transport.address_types)

    def test_a_message_arrives(self, harness: TransportHarness) -> None:
        delivery = make_delivery([harness.address(0)])
        with _opened(harness) as session:
            for outcome in outcome_list(session.send(delivery), delivery):
                assert isinstance(outcome, _FINE), outcome
        assert_arrived(harness, [delivery])

    def test_several_targets_get_one_outcome_each_in_order(self, harness: TransportHarness) -> None:
        delivery = make_delivery([harness.address(number) for number in range(3)])
        with _opened(harness) as session:
            outcomes = outcome_list(session.send(delivery), delivery)
        assert all(isinstance(outcome, _FINE) for outcome in outcomes), outcomes
        assert_arrived(harness, [delivery])

    def test_content_arrives_octet_for_octet(self, harness: TransportHarness) -> None:
        deliveries = [
            make_delivery([harness.address(number)], sample.content, eight_bit=sample.eight_bit)
            for number, sample in enumerate(SAMPLES)
        ]
        with _opened(harness) as session:
            for sample, delivery in zip(SAMPLES, deliveries, strict=True):
                for outcome in outcome_list(session.send(delivery), delivery):
                    assert isinstance(outcome, _FINE), (sample.name, outcome)
        assert_arrived(harness, deliveries)

    def test_the_null_sender_is_possible(self, harness: TransportHarness) -> None:
        ordinary = make_delivery([harness.address(0)])
        delivery = Delivery(ordinary.key, "", ordinary.targets, ordinary.content, ordinary.created)
        with _opened(harness) as session:
            for outcome in outcome_list(session.send(delivery), delivery):
                assert isinstance(outcome, _FINE), outcome
        assert_arrived(harness, [delivery])

    def test_a_session_serves_many_deliveries(self, harness: TransportHarness) -> None:
        deliveries = [make_delivery([harness.address(number % 5)]) for number in range(50)]
        with _opened(harness) as session:
            for delivery in deliveries:
                for outcome in outcome_list(session.send(delivery), delivery):
                    assert isinstance(outcome, _FINE), outcome
                assert session.noop() is True
        assert_arrived(harness, deliveries)

    def test_sessions_work_side_by_side(self, harness: TransportHarness) -> None:
        transport = harness.make()
        together = threading.Barrier(4)
        work = [[make_delivery([harness.address(worker)]) for _ in range(10)] for worker in range(4)]

        def courier(deliveries: list[Delivery]) -> list[Outcome]:
            session = transport.open()
            try:
                together.wait(PATIENCE)
                return [each for one in deliveries for each in outcome_list(session.send(one), one)]
            finally:
                session.close()

        with ThreadPoolExecutor(4) as pool:
            for outcomes in pool.map(courier, work):
                assert len(outcomes) == 10
                assert all(isinstance(outcome, _FINE) for outcome in outcomes), outcomes
        assert_arrived(harness, [delivery for deliveries in work for delivery in deliveries])

    def test_closing_twice_is_harmless(self, harness: TransportHarness) -> None:
        session = harness.make().open()
        session.close()
        session.close()

    def test_closing_after_use_and_abort_is_harmless(self, harness: TransportHarness) -> None:
        session = harness.make().open()
        session.send(make_delivery([harness.address(0)]))
        session.abort()
        session.abort()
        session.close()

    def test_a_delivery_is_not_changed(self, harness: TransportHarness) -> None:
        delivery = make_delivery([harness.address(0), harness.address(1)], SAMPLES[4].content)
        before = copy.deepcopy(delivery)
        with _opened(harness) as session:
            session.send(delivery)
        assert delivery == before

    def test_was_delivered_does_not_deny_what_arrived(self, harness: TransportHarness) -> None:
        delivery = make_delivery([harness.address(0)])
        with _opened(harness) as session:
            session.send(delivery)
        with _opened(harness) as session:
            assert session.was_delivered(delivery, delivery.targets[0]) in {True, None}

    def test_was_delivered_does_not_claim_what_was_never_sent(self, harness: TransportHarness) -> None:
        delivery = make_delivery([harness.address(0)])
        with _opened(harness) as session:
            assert session.was_delivered(delivery, delivery.targets[0]) in {False, None}

    def test_no_repr_shows_a_secret(self, harness: TransportHarness) -> None:
        transport = harness.make()
        session = transport.open()
        try:
            for secret in harness.secrets:
                for shown in (repr(transport), str(transport), repr(session), str(session)):
                    assert secret not in shown
        finally:
            session.close()

    def test_a_peer_that_died_between_deliveries_is_a_temporary_failure(
        self, harness: TransportHarness
    ) -> None:
        if not harness.can_fail:
            pytest.skip("its messaging system cannot be stopped")
        transport = harness.make()
        session = transport.open()
        try:
            session.send(make_delivery([harness.address(0)]))
            harness.stop_peer()
            _assert_temporary(session.send, make_delivery([harness.address(0)]))
            if session.usable:
                _assert_temporary(session.send, make_delivery([harness.address(0)]))
        finally:
            session.close()

    def test_a_peer_that_is_gone_is_a_temporary_failure(self, harness: TransportHarness) -> None:
        if not harness.can_fail:
            pytest.skip("its messaging system cannot be stopped")
        transport = harness.make()
        harness.stop_peer()

        def attempt(delivery: Delivery) -> Outcomes:
            session = transport.open()
            try:
                return session.send(delivery)
            finally:
                session.close()

        _assert_temporary(attempt, make_delivery([harness.address(0)]))

    def test_abort_unblocks_a_hung_send(self, harness: TransportHarness) -> None:
        if not harness.can_hang:
            pytest.skip("its messaging system cannot be made to hang")
        session = harness.make().open()
        try:
            session.send(make_delivery([harness.address(0)]))
            harness.hang_peer()
            ended = threading.Event()
            problems: list[BaseException] = []

            def courier() -> None:
                try:
                    _assert_temporary(session.send, make_delivery([harness.address(0)]))
                except BaseException as error:  # noqa: BLE001 - shown by the main thread
                    problems.append(error)
                finally:
                    ended.set()

            thread = threading.Thread(target=courier, daemon=True)
            thread.start()
            assert not ended.wait(0.3), "it did not hang"
            session.abort()
            thread.join(PATIENCE)
            assert not thread.is_alive(), "abort() did not unblock send()"
            assert problems == []
        finally:
            session.close()

    def test_a_connection_that_is_cut_at_every_step(self, harness: TransportHarness) -> None:
        with _proxied(harness) as proxy:
            transport = harness.make_at(*proxy.address)
            once, twice = {harness.address(0)}, set[Address]()
            assert _attempt(transport, make_delivery([harness.address(0)])), (
                "it cannot deliver through a proxy"
            )
            for number, trouble in enumerate(proxy.steps(MOST_CUTS, harness.cut_by), start=1):
                address = harness.address(number)
                delivery = make_delivery([address])
                proxy.arm(trouble)
                sent = _attempt(transport, delivery)
                proxy.arm(None)
                if sent or _was_delivered(transport, delivery):
                    once.add(address)
                else:
                    # Some of these have arrived: the answer was lost. Nobody can know which, so all are sent again.
                    twice.add(address)
                    assert _attempt(transport, delivery), "it does not get over a connection that was cut"
            found = _arrivals(harness, once | twice)
            wrong = {each: found[str(each)] for each in once if found[str(each)] != 1}
            assert wrong == {}, "called delivered, and not there once"
            wrong = {each: found[str(each)] for each in twice if found[str(each)] not in {1, 2}}
            assert wrong == {}, "sent again, and not there once or twice"
            assert any(found[str(each)] == 1 for each in twice), "what was cut early must not have arrived"

    def test_a_connection_that_is_slow_at_every_step(self, harness: TransportHarness) -> None:
        with _proxied(harness) as proxy:
            transport = harness.make_at(*proxy.address)
            deliveries = [make_delivery([harness.address(0)])]
            assert _attempt(transport, deliveries[0])
            for trouble in proxy.steps(3, harness.cut_by):
                deliveries.append(make_delivery([harness.address(0)]))
                proxy.arm(replace(trouble, kind="delay", seconds=0.05))
                assert _attempt(transport, deliveries[-1]), trouble
        assert_arrived(harness, deliveries)

    def test_abort_unblocks_a_send_whose_answers_are_swallowed(self, harness: TransportHarness) -> None:
        with _proxied(harness) as proxy:
            transport = harness.make_at(*proxy.address)
            session = transport.open()
            try:
                session.send(make_delivery([harness.address(0)]))
                # Before it is closed: what is said then is nothing that send() could wait for.
                passed = proxy.passed("to client")
            finally:
                session.close()
            last = passed.lines - 1 if harness.cut_by == "lines" else passed.octets // 2
            for place in sorted({0, max(0, last)}):
                self._hang(harness, transport, proxy, Trouble("to client", place, harness.cut_by, "swallow"))

    def _hang(
        self, harness: TransportHarness, transport: Transport, proxy: FaultyPeer, trouble: Trouble
    ) -> None:
        sessions: list[Session] = []
        problems: list[BaseException] = []

        def courier() -> None:
            try:
                _assert_temporary(send, make_delivery([harness.address(0)]))
            except BaseException as error:  # noqa: BLE001 - shown by the main thread
                problems.append(error)

        def send(delivery: Delivery) -> Outcomes:
            sessions.append(transport.open())
            return sessions[0].send(delivery)

        proxy.arm(trouble)
        thread = threading.Thread(target=courier, daemon=True)
        thread.start()
        try:
            assert proxy.struck.wait(PATIENCE)
            until = time.monotonic() + PATIENCE
            while thread.is_alive() and time.monotonic() < until:
                for session in sessions:
                    session.abort()
                thread.join(0.05)
                if not sessions:
                    proxy.cut()  # it hangs in open(), which nobody can abort but the network
            assert not thread.is_alive(), "abort() did not unblock send()"
        finally:
            proxy.cut()
            thread.join(PATIENCE)
            for session in sessions:
                session.close()
        assert problems == []


@contextmanager
def _proxied(harness: TransportHarness) -> Generator[FaultyPeer]:
    peer = harness.peer
    if peer is None:
        pytest.skip("its connection cannot be led through a proxy")
    with FaultyPeer(*peer) as proxy:
        yield proxy


def _arrivals(harness: TransportHarness, wanted: Collection[Address]) -> Counter[str]:
    """Return how much arrived at each address, when something has at all that are wanted."""
    until = time.monotonic() + PATIENCE
    while True:
        found = Counter(recipient for recipient, _ in harness.arrived())
        if all(found[str(address)] for address in wanted) or time.monotonic() >= until:
            return found
        time.sleep(0.01)


def _attempt(transport: Transport, delivery: Delivery) -> bool:
    """Try to deliver over a fresh session; return whether it says so, fail if it says anything but "later"."""
    try:
        session = transport.open()
    except (TransportDown, SessionStale):
        return False
    try:
        outcomes = outcome_list(session.send(delivery), delivery)
    except (TransportDown, SessionStale):
        return False
    finally:
        session.close()
    for outcome in outcomes:
        assert isinstance(outcome, (*_FINE, Deferred)), f"a connection that is cut is no reason for {outcome}"
    return all(isinstance(outcome, _FINE) for outcome in outcomes)


def _was_delivered(transport: Transport, delivery: Delivery) -> bool:
    """Ask, as a courier does about what is in doubt."""
    session = transport.open()
    try:
        return all(session.was_delivered(delivery, target) for target in delivery.targets)
    finally:
        session.close()


class _opened:  # noqa: N801 - reads as a statement: with _opened(…)
    """A session of a fresh transport, closed at the end."""

    def __init__(self, harness: TransportHarness) -> None:
        self._session = harness.make().open()

    def __enter__(self) -> Session:
        return self._session

    def __exit__(self, *_: object) -> None:
        self._session.close()


def _assert_temporary(send: Callable[[Delivery], Outcomes], delivery: Delivery) -> None:
    try:
        outcomes = outcome_list(send(delivery), delivery)
    except (TransportDown, SessionStale):
        return
    for outcome in outcomes:
        assert isinstance(outcome, Deferred), outcome
        assert outcome.reply.status.startswith("4."), outcome
        assert outcome.reply.text, outcome
