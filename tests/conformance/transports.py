"""What every transport must do, as tests to inherit.

Write a harness for the transport, and a test class that gives it::

    class TestSms(TransportConformance):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> Iterator[TransportHarness]:
            with SmsGateway() as gateway:
                yield SmsHarness(gateway)

The suite uses nothing of pytest but the fixture named ``harness``, and skips what a harness says it cannot
show.
"""

import copy
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.ids import IdGenerator
from postroom.outcomes import (
    MAX_REPLY_TEXT,
    Accepted,
    Deferred,
    Delivered,
    Failed,
    NotMine,
    Outcome,
    Processed,
    Relayed,
)
from postroom.retries import MAX_RETRY_AFTER
from postroom.routing import Router
from postroom.transports.base import Outcomes, Session, Transport

__all__ = ["SAMPLES", "Arrival", "TransportConformance", "TransportHarness", "make_delivery"]

SENDER = "app@example.org"
PATIENCE = 30.0
"""Seconds after which something that must end is taken to hang."""

MEBIBYTE = 1024 * 1024

Arrival = tuple[str, bytes]
"""The recipient's address as text, and what arrived there."""

_FINE = (Delivered, Relayed, Accepted)
_ANY = (*_FINE, Deferred, Failed, NotMine, Processed)

_new_key = IdGenerator(7, time.time).next


class TransportHarness(ABC):
    """One transport's messaging system, running, and a way to see what arrived in it.

    Attributes:
        secrets: texts that no ``repr`` may show; the transports that ``make`` returns must hold them.
        shows_content: ``arrived`` can tell the content, not only the recipients.
        can_fail: ``stop_peer`` works.
        can_hang: ``hang_peer`` works.
    """

    secrets: Sequence[str] = ()
    shows_content: bool = True
    can_fail: bool = False
    can_hang: bool = False

    @abstractmethod
    def make(self) -> Transport:
        """Return a fresh transport to the running system, with timeouts of some seconds."""

    @abstractmethod
    def address(self, number: int) -> Address:
        """Return the address of the ``number``-th good recipient, canonical; different for each number."""

    @abstractmethod
    def arrived(self) -> list[Arrival]:
        """Return everything that arrived so far, one entry for each recipient of each message."""

    def expected(self, delivery: Delivery, target: Target) -> bytes:
        """Return what should arrive: the content, unless the transport documents a translation."""
        del target
        return delivery.content

    def stop_peer(self) -> None:
        """End the messaging system abruptly."""
        raise NotImplementedError

    def hang_peer(self) -> None:
        """Make the messaging system take what it is sent and never answer."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Sample:
    """A content that transports tend to damage."""

    name: str
    content: bytes
    eight_bit: bool = False


def _message(body: bytes, content_type: str = "text/plain; charset=utf-8", encoding: str = "8bit") -> bytes:
    lines = (
        "From: app@example.org",
        "To: undisclosed-recipients:;",
        "Subject: conformance",
        "Message-ID: <conformance@example.org>",
        "MIME-Version: 1.0",
        f"Content-Type: {content_type}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii") + body


SAMPLES: tuple[Sample, ...] = (
    Sample("short", _message(b"Hello.\r\n", encoding="7bit")),
    Sample("empty body", _message(b"", encoding="7bit")),
    Sample("one blank line", _message(b"\r\n", encoding="7bit")),
    Sample("blank lines at the end", _message(b"x\r\n\r\n\r\n\r\n", encoding="7bit")),
    Sample("dots", _message(b".\r\n..\r\n.x\r\n\r\n.\r\n...\r\n", encoding="7bit")),
    Sample("dot at the end", _message(b"last\r\n.\r\n", encoding="7bit")),
    Sample("From_ lines", _message(b"From here on\r\n>From there\r\n", encoding="7bit")),
    Sample("non-Latin", _message("Ελληνικά, עברית, 日本語, 🐘\r\n".encode()), eight_bit=True),
    Sample("latin-1", _message(b"Gr\xfc\xdfe\r\n", "text/plain; charset=iso-8859-1"), eight_bit=True),
    Sample("long line", _message(b"x" * 990 + b"\r\n", encoding="7bit")),
    Sample(
        "5 MiB", _message((b"0123456789abcde." * 62 + b"\r\n") * (5 * MEBIBYTE // 994 + 1), encoding="7bit")
    ),
)


def make_delivery(
    addresses: Sequence[Address], content: bytes = SAMPLES[0].content, *, eight_bit: bool = False
) -> Delivery:
    """Return a delivery with a key of its own."""
    targets = tuple(Target(index, address) for index, address in enumerate(addresses))
    return Delivery(_new_key(), SENDER, targets, content, created=time.time(), eight_bit=eight_bit)


def outcome_list(outcomes: Outcomes, delivery: Delivery) -> list[Outcome]:
    """Return one outcome for each target, or fail: the right number of the right types."""
    if isinstance(outcomes, _ANY):
        _assert_fit_for_the_record(outcomes)
        return [outcomes] * len(delivery.targets)
    listed = list(outcomes)
    assert len(listed) == len(delivery.targets), f"{len(listed)} outcomes for {len(delivery.targets)} targets"
    for outcome in listed:
        assert isinstance(outcome, _ANY), f"{outcome!r} is not an outcome"
        _assert_fit_for_the_record(outcome)
    return listed


def _assert_fit_for_the_record(outcome: Outcome) -> None:
    reply = outcome.reply
    assert len(reply.text) <= MAX_REPLY_TEXT, outcome
    for text in (reply.text, reply.status, reply.remote, reply.tls):
        assert text.isprintable(), outcome
    if reply.status and not isinstance(outcome, NotMine):
        wanted = "4" if isinstance(outcome, Deferred) else "5" if isinstance(outcome, Failed) else "2"
        assert reply.status.startswith(f"{wanted}."), outcome
    if isinstance(outcome, Deferred):
        assert outcome.retry_after is None or 0 <= outcome.retry_after <= MAX_RETRY_AFTER, outcome


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
