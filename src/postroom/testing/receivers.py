"""What every receiver must do, as tests to inherit.

Write a harness for the receiver, and a test class that gives it::

    class TestPop3(ReceiverConformance):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> Iterator[ReceiverHarness]:
            with Dovecot(tmp_path) as server:
                yield Pop3Harness(server)

The suite gives the receiver an inlet of its own (:mod:`postroom.testing.inlets`), which has a ledger and fails at one
call after the other, and cuts the connection at one line after the other (:mod:`postroom.testing.faults`). What it
shows: octet for octet, exactly once in the end, and the remote copy is left alone until the commit. It uses nothing of
pytest but the fixture named ``harness``, parameters and skipping: what a harness says it cannot show is skipped.

Two sorts of receivers: most *pull* (``put`` lays a message down in the messaging system, ``poll`` gets it); some are
*pushed* (a listener: ``put`` is the client, which returns once it was told that its message is safe).
"""

# ruff: noqa: D102, S101 - they are tests: the names say what they show

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import pytest

from postroom.errors import NotRunning, SpoolFull
from postroom.inbound.values import Arrival
from postroom.receivers.base import Receiver
from postroom.testing.faults import FaultyPeer, Trouble
from postroom.testing.inlets import Fault, FaultKind, TrialSpool
from postroom.testing.receiver_harness import ReceiverHarness, Remote, make_content
from postroom.testing.receiver_trials import (
    PATIENCE,
    Aside,
    assert_done,
    assert_ledger_is_bounded,
    assert_stored_once,
    attempt,
    drain,
    hand_over,
    in_time,
    opened,
    raised,
    recover,
    stored,
    untouched,
)

__all__ = ["ReceiverConformance", "ReceiverHarness", "Remote", "make_content"]

MOST_CALLS = 60
"""Calls of the inlet at which something goes wrong, one after the other, at most."""


def _skip_unless(possible: object, reason: str) -> None:
    if not possible:
        pytest.skip(reason)


class ReceiverConformance:
    """The suite. A subclass overrides the fixture ``harness``."""

    @pytest.fixture
    def harness(self) -> ReceiverHarness:
        raise NotImplementedError("override the fixture `harness`")

    # What it is

    def test_it_has_a_name_and_positive_times(self, harness: ReceiverHarness) -> None:
        receiver = harness.make()
        assert receiver.name
        assert receiver.interval > 0
        assert receiver.poll_timeout > 0
        receiver.prepare()

    def test_no_repr_shows_a_secret(self, harness: ReceiverHarness) -> None:
        receiver = harness.make()
        with opened(harness, receiver, TrialSpool().inlet()) as session:
            for secret in harness.secrets:
                for shown in (repr(receiver), str(receiver), repr(session), str(session)):
                    assert secret not in shown

    # Taking

    def test_messages_arrive_octet_for_octet(self, harness: ReceiverHarness) -> None:
        spool = TrialSpool()
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, harness.samples)
        assert_stored_once(harness, spool, harness.samples)

    def test_nothing_there_is_nothing_taken(self, harness: ReceiverHarness) -> None:
        spool = TrialSpool()
        with opened(harness, harness.make(), spool.inlet()) as session:
            assert in_time(session.poll) == 0
        assert spool.arrivals == []

    def test_a_poll_says_how_many_it_took(self, harness: ReceiverHarness) -> None:
        _skip_unless(not harness.pushes, "it is pushed")
        spool = TrialSpool()
        with opened(harness, harness.make(), spool.inlet()) as session:
            for _ in range(3):
                harness.put(make_content())
            assert drain(session) == 3

    def test_nothing_is_taken_twice(self, harness: ReceiverHarness) -> None:
        spool, contents = TrialSpool(), [make_content() for _ in range(3)]
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, contents)
            assert drain(session) == 0
        for _ in range(2):
            with opened(harness, harness.make(), spool.inlet()) as session:
                assert drain(session) == 0
        assert_stored_once(harness, spool, contents)

    def test_equal_messages_are_all_taken(self, harness: ReceiverHarness) -> None:
        spool, content = TrialSpool(), make_content()
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, [content, content])
        assert stored(harness, spool) == Counter({content: 2})

    def test_messages_that_come_later_are_taken(self, harness: ReceiverHarness) -> None:
        spool, contents = TrialSpool(), [make_content() for _ in range(4)]
        with opened(harness, harness.make(), spool.inlet()) as session:
            for content in contents:
                hand_over(harness, session, [content])
        assert_stored_once(harness, spool, contents)

    def test_the_remote_copy_is_left_alone_until_the_commit(self, harness: ReceiverHarness) -> None:
        messages = [make_content() for _ in range(3)]
        early: list[str] = []

        def look(arrivals: Sequence[Arrival]) -> None:
            there = untouched(harness)
            contents = [harness.original(arrival.content) for arrival in arrivals]
            early.extend(f"{each!r} was touched before it was stored" for each in contents if not there[each])

        def told_early(content: bytes) -> None:
            if not stored(harness, spool)[content]:
                early.append(f"the client was told that {content!r} is safe before it was")

        spool = TrialSpool(None if harness.pushes else look)
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, messages, told_early)
        assert early == []
        assert_stored_once(harness, spool, messages)
        assert_done(harness, messages)

    def test_what_could_not_be_stored_is_left_alone(self, harness: ReceiverHarness) -> None:
        def refuse(arrivals: Sequence[Arrival]) -> None:
            raise SpoolFull(f"no room for {len(arrivals)}")

        spool, contents = TrialSpool(refuse), [make_content() for _ in range(2)]
        with opened(harness, harness.make(), spool.inlet()) as session:
            if harness.pushes:
                for content in contents:
                    raised(partial(harness.put, content))
            else:
                for content in contents:
                    harness.put(content)
                with suppress(Exception):
                    drain(session)
                assert all(untouched(harness)[content] for content in contents)
        spool.before_commit = None
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, contents if harness.pushes else ())
        assert_stored_once(harness, spool, contents)

    # Trouble

    @pytest.mark.parametrize("kind", get_args(FaultKind))
    def test_trouble_at_every_call_of_the_inlet(self, harness: ReceiverHarness, kind: FaultKind) -> None:
        spool = TrialSpool()
        for number in range(1, MOST_CALLS + 1):
            contents = [make_content() for _ in range(3)]
            inlet = spool.inlet(Fault(number, kind))
            left = attempt(harness, harness.make, spool, inlet, contents)
            doubtful = kind in {"in doubt", "killed after"}
            recover(harness, spool, contents, left, doubtful=harness.pushes and doubtful)
            if not inlet.struck:
                return
        pytest.fail(f"it calls the inlet more than {MOST_CALLS} times for three messages")

    def test_a_connection_that_is_cut_at_every_step(self, harness: ReceiverHarness) -> None:
        self._disturb(harness, "cut", most=24)

    def test_a_connection_that_is_slow(self, harness: ReceiverHarness) -> None:
        self._disturb(harness, "delay", most=4)

    def _disturb(self, harness: ReceiverHarness, kind: Literal["cut", "delay"], most: int) -> None:
        if harness.pushes:
            self._disturb_clients(harness, kind, most)
            return
        peer = harness.peer
        if peer is None:
            pytest.skip("its connection cannot be led through a proxy")
        with FaultyPeer(*peer) as proxy:
            spool = TrialSpool()

            def make() -> Receiver:
                return harness.make_at(*proxy.address)

            def once() -> None:
                contents = [make_content() for _ in range(2)]
                left = attempt(harness, make, spool, spool.inlet(), contents)
                recover(harness, spool, contents, left)

            proxy.arm(None)
            once()
            for trouble in proxy.steps(most, harness.cut_by):
                proxy.arm(replace(trouble, kind=kind))
                once()

    def _disturb_clients(self, harness: ReceiverHarness, kind: Literal["cut", "delay"], most: int) -> None:
        spool = TrialSpool()
        with opened(harness, harness.make(), spool.inlet()):
            peer = harness.peer
            if peer is None:
                pytest.skip("its connection cannot be led through a proxy")
            with FaultyPeer(*peer) as proxy:
                harness.put(make_content(), via=proxy.address)
                for trouble in proxy.steps(most, harness.cut_by):
                    content = make_content()
                    proxy.arm(replace(trouble, kind=kind))
                    told = True
                    try:
                        harness.put(content, via=proxy.address)
                    except Exception:  # noqa: BLE001 - whatever a client makes of it
                        told = False
                    assert stored(harness, spool)[content] or not told, "told that it is safe, and it is not"
                    if not told:
                        harness.put(content)
                    # Once more, if the client could not know that it was safe already.
                    assert stored(harness, spool)[content] in ({1} if told else {1, 2}), trouble

    def test_a_peer_that_is_gone(self, harness: ReceiverHarness) -> None:
        _skip_unless(harness.can_fail, "its messaging system cannot be stopped")
        spool, contents = TrialSpool(), [make_content() for _ in range(2)]
        for content in contents:
            harness.put(content)
        inlet = spool.inlet()
        harness.stop_peer()

        def look() -> None:
            with opened(harness, harness.make(), inlet) as session:
                session.poll()

        error = raised(look)
        for secret in harness.secrets:
            assert secret not in f"{error!r}{inlet.reports}"
        harness.start_peer()
        recover(harness, spool, contents, ())

    def test_a_peer_that_dies_while_a_session_is_open(self, harness: ReceiverHarness) -> None:
        _skip_unless(harness.can_fail, "its messaging system cannot be stopped")
        spool, contents = TrialSpool(), [make_content() for _ in range(2)]
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, contents[:1])
            harness.stop_peer()
            raised(session.poll)
        harness.start_peer()
        harness.put(contents[1])
        recover(harness, spool, contents, ())

    def test_a_peer_that_dies_during_the_commit(self, harness: ReceiverHarness) -> None:
        _skip_unless(harness.can_fail, "its messaging system cannot be stopped")
        contents = [make_content() for _ in range(3)]
        for content in contents:
            harness.put(content)
        first = iter([True])

        def die(arrivals: Sequence[Arrival]) -> None:
            del arrivals
            if next(first, False):
                harness.stop_peer()

        spool = TrialSpool(die)
        with suppress(Exception), opened(harness, harness.make(), spool.inlet()) as session:
            drain(session)
        assert next(first, None) is None, "it took nothing"
        harness.start_peer()
        recover(harness, spool, contents, ())

    # Waiting and ending

    def test_a_new_message_ends_a_wait(self, harness: ReceiverHarness) -> None:
        _skip_unless(harness.wakes, "it only looks from time to time")
        spool, contents = TrialSpool(), [make_content() for _ in range(2)]
        with opened(harness, harness.make(), spool.inlet(), loop=False) as session:
            assert drain(session) == 0
            waiting = Aside(lambda: session.wait(4 * PATIENCE))
            harness.put(contents[0])
            waiting.result()
            assert drain(session) == 1
            # Also when it comes between a poll and the next wait.
            harness.put(contents[1])
            in_time(lambda: session.wait(4 * PATIENCE))
            assert drain(session) == 1
        assert_stored_once(harness, spool, contents)

    def test_a_wait_ends_by_itself(self, harness: ReceiverHarness) -> None:
        with opened(harness, harness.make(), TrialSpool().inlet(), loop=False) as session:
            in_time(session.poll)
            in_time(lambda: session.wait(0.05))

    def test_an_interrupt_ends_a_wait(self, harness: ReceiverHarness) -> None:
        with opened(harness, harness.make(), TrialSpool().inlet(), loop=False) as session:
            in_time(session.poll)
            waiting = Aside(lambda: session.wait(4 * PATIENCE))
            waiting.interrupt(session)

    def test_a_wait_that_begins_after_the_interrupt_ends_too(self, harness: ReceiverHarness) -> None:
        inlet = TrialSpool().inlet()
        with opened(harness, harness.make(), inlet, loop=False) as session:
            in_time(session.poll)
            inlet.stopping.set()
            session.interrupt()
            with suppress(Exception):
                in_time(lambda: session.wait(4 * PATIENCE))

    def test_an_interrupt_unblocks_a_hung_poll(self, harness: ReceiverHarness) -> None:
        _skip_unless(harness.can_hang, "its messaging system cannot be made to hang")
        spool, content = TrialSpool(), make_content()
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, [content])
            harness.hang_peer()
            polling = Aside(session.poll)
            assert not polling.ended(0.3), "it did not hang"
            polling.interrupt(session)

    def test_an_interrupt_unblocks_a_poll_at_every_step(self, harness: ReceiverHarness) -> None:
        peer = harness.peer
        if peer is None or harness.pushes:
            pytest.skip("its connection cannot be led through a proxy")
        spool, unit = TrialSpool(), harness.cut_by
        with FaultyPeer(*peer) as proxy:

            def once(trouble: Trouble | None) -> tuple[int, int]:
                """Return how much had come from the peer when the session was open, and when the poll had ended."""
                proxy.arm(trouble)
                content, before = make_content(), proxy.passed("to client")
                harness.put(content)
                with (
                    suppress(Exception),
                    opened(harness, harness.make_at(*proxy.address), spool.inlet()) as session,
                ):
                    before = proxy.passed("to client")
                    polling, until = Aside(session.poll), time.monotonic() + PATIENCE
                    while not polling.ended(0.01):
                        if proxy.struck.is_set():
                            polling.interrupt(session)
                        elif time.monotonic() >= until:
                            pytest.fail("it hangs, and nothing was swallowed")
                after = proxy.passed("to client")
                recover(harness, spool, [content])
                return getattr(before, unit), getattr(after, unit)

            begin, end = once(None)
            for place in sorted({begin + 1, (begin + end) // 2, end - 1}):
                once(Trouble("to client", place, unit, "swallow"))

    def test_closing_twice_and_interrupting_what_is_closed_is_harmless(
        self, harness: ReceiverHarness
    ) -> None:
        spool = TrialSpool()
        session = in_time(lambda: harness.make().open(spool.inlet()))
        session.interrupt()
        session.close()
        session.interrupt()
        session.close()

    def test_a_session_that_is_given_up_while_it_takes_does_no_harm(self, harness: ReceiverHarness) -> None:
        def give_up(arrivals: Sequence[Arrival]) -> None:
            inlet.dead = True
            raise NotRunning(f"given up over {len(arrivals)}")

        spool, contents = TrialSpool(give_up), [make_content() for _ in range(2)]
        inlet = spool.inlet()
        with opened(harness, harness.make(), inlet) as session:
            if harness.pushes:
                for content in contents:
                    raised(partial(harness.put, content))
            else:
                for content in contents:
                    harness.put(content)
                with suppress(Exception):
                    drain(session)
                assert all(untouched(harness)[content] for content in contents)
        assert stored(harness, spool) == Counter()
        spool.before_commit = None
        recover(harness, spool, contents, contents if harness.pushes else ())

    # Bookkeeping

    def test_the_ledger_does_not_grow_for_ever(self, harness: ReceiverHarness) -> None:
        spool = TrialSpool()
        for _ in range(3):
            with opened(harness, harness.make(), spool.inlet()) as session:
                for _ in range(3):
                    hand_over(harness, session, [make_content() for _ in range(2)])
                drain(session)
        assert_ledger_is_bounded(harness, spool)

    def test_what_others_remove_is_forgotten(self, harness: ReceiverHarness) -> None:
        _skip_unless(harness.can_clear, "nobody else can remove its copies")
        spool = TrialSpool()
        with opened(harness, harness.make(), spool.inlet()) as session:
            hand_over(harness, session, [make_content() for _ in range(3)])
            harness.clear()
            drain(session)
            drain(session)
        with opened(harness, harness.make(), spool.inlet()) as session:
            drain(session)
        assert_ledger_is_bounded(harness, spool)
