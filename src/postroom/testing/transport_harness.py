"""What the suite of transports needs to know of a messaging system, and the deliveries that it makes."""

# ruff: noqa: S101 - what it asserts is shown to whoever runs the suite

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
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
from postroom.testing.samples import SAMPLES
from postroom.transports.base import Outcomes, Transport

__all__ = ["SENDER", "Arrival", "TransportHarness", "make_delivery", "outcome_list"]

SENDER = "app@example.org"

Arrival = tuple[str, bytes]
"""The recipient's address as text, and what arrived there."""

_ANY = (Delivered, Relayed, Accepted, Deferred, Failed, NotMine, Processed)

_new_key = IdGenerator(7, time.time).next


class TransportHarness(ABC):
    """One transport's messaging system, running, and a way to see what arrived in it.

    Attributes:
        secrets: texts that no ``repr`` may show; the transports that ``make`` returns must hold them.
        shows_content: ``arrived`` can tell the content, not only the recipients.
        can_fail: ``stop_peer`` works.
        can_hang: ``hang_peer`` works.
        peer: where the messaging system listens, if deliveries can be led through a proxy (then ``make_at`` works);
            None if not.
        cut_by: "lines" cuts after each line, "octets" (for what is encrypted) at evenly spaced places.
    """

    secrets: Sequence[str] = ()
    shows_content: bool = True
    can_fail: bool = False
    can_hang: bool = False
    cut_by: Literal["lines", "octets"] = "lines"

    @property
    def peer(self) -> tuple[str, int] | None:
        """See the class's docstring."""
        return None

    @abstractmethod
    def make(self) -> Transport:
        """Return a fresh transport to the running system, with timeouts of some seconds."""

    def make_at(self, host: str, port: int) -> Transport:
        """Return a fresh transport that finds the messaging system at this address instead.

        Where addresses name the peer, those that ``address`` and ``arrived`` return from now on name this one.
        """
        raise NotImplementedError

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
