"""What the suite of receivers needs to know of a messaging system."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from postroom.receivers.base import Receiver
from postroom.testing.samples import SAMPLES

__all__ = ["ReceiverHarness", "Remote", "make_content"]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Remote:
    """A copy in the messaging system.

    Attributes:
        content: its octets, as ``ReceiverHarness.put`` was given them.
        done: it is flagged, moved or marked as a receiver does with what it has taken.
    """

    content: bytes
    done: bool = False


class ReceiverHarness(ABC):
    """One receiver's messaging system, running, and a way to see what is in it.

    Attributes:
        secrets: texts that no ``repr``, error or report may show; the receivers that ``make`` returns must hold them.
        samples: contents that must come through as they are.
        pushes: the other side hands over by itself: see :meth:`put`.
        keeps: the receiver leaves taken copies as they are (and knows them by the ledger).
        wakes: ``wait`` ends when there is something new.
        can_fail: ``stop_peer`` and ``start_peer`` work.
        can_hang: ``hang_peer`` works.
        can_clear: ``clear`` works.
        ledger_slack: entries that the ledger may keep for ever of copies that are gone.
        peer: where the messaging system listens, if connections to it can be led through a proxy (then ``make_at``
            works too); of a receiver that is pushed: where it listens itself, once it is open. None for neither.
        cut_by: "lines" cuts after each line, "octets" (for what is encrypted) at evenly spaced places.
    """

    secrets: Sequence[str] = ()
    samples: Sequence[bytes] = tuple(sample.content for sample in SAMPLES)
    pushes: bool = False
    keeps: bool = False
    wakes: bool = False
    can_fail: bool = False
    can_hang: bool = False
    can_clear: bool = False
    ledger_slack: int = 0
    cut_by: Literal["lines", "octets"] = "lines"

    @property
    def peer(self) -> tuple[str, int] | None:
        """See the class's docstring."""
        return None

    @abstractmethod
    def make(self) -> Receiver:
        """Return a fresh receiver of the running system, with time-outs of some seconds.

        Receivers of one harness stand for one that was restarted: they have the same name and place.
        """

    def make_at(self, host: str, port: int) -> Receiver:
        """Return a fresh receiver that finds the messaging system at this address instead."""
        raise NotImplementedError

    @abstractmethod
    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        """Lay a message down in the messaging system.

        Where the receiver is pushed, hand it over instead, to ``via`` if that is given, and return when the other side
        was told that it is safe.

        Raises:
            Exception: (pushed) it was refused or the connection broke; a client would try again.
        """

    def remote(self) -> Sequence[Remote]:
        """Return the copies that are in the messaging system (pulled); called while sessions are open."""
        raise NotImplementedError

    def original(self, arrived: bytes) -> bytes:
        """Return what ``put`` was given, from what the receiver handed over: without what it is documented to add."""
        return arrived

    def stop_peer(self) -> None:
        """End the messaging system abruptly; what is in it stays."""
        raise NotImplementedError

    def start_peer(self) -> None:
        """Start it again."""
        raise NotImplementedError

    def hang_peer(self) -> None:
        """Make the messaging system take what it is sent and never answer again."""
        raise NotImplementedError

    def clear(self) -> None:
        """Remove all copies, as another client of the messaging system might."""
        raise NotImplementedError


def make_content(text: str = "") -> bytes:
    """Return a message like no other, with a Message-ID."""
    number = next(_numbers)
    return (
        f"From: ann@example.org\r\nTo: desk@example.org\r\nSubject: trial {number}\r\n"
        f"Message-ID: <trial.{number}@example.org>\r\n\r\n{text or 'Hello.'}\r\n"
    ).encode()
