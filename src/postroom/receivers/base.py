"""What a receiver is: an ordinary class without threads, the mirror image of a transport.

A :class:`Receiver` says where messages come from and opens a session. Postroom's receiver actor runs the session in a
thread of its own (the *porter*)::

    session = receiver.open(inlet)
    while not stopping:
        session.poll()             # hand over all that is there
        session.wait(receiver.interval)

and closes it, opens another with back-off after an exception, and replaces a porter that hangs. A receiver that listens
(an SMTP listener) starts its server in ``open``; its ``poll`` only looks whether the server lives.

The rule that makes it safe: **the remote copy is deleted, flagged or acknowledged only after** ``inlet.take`` **has
returned**. Whatever happens in between, the copy is seen again and the ledger knows it.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenacity.wait import wait_base

from postroom.envelopes import Submission
from postroom.inbound.values import Arrival, Received

__all__ = ["Inlet", "Receiver", "ReceiverSession"]


class Inlet(Protocol):
    """The way into the spool, for one receiver. Thread-safe."""

    @property
    def stopping(self) -> threading.Event:
        """Set when the receiver is to end; waiting on it is the way to pause."""
        ...

    def take(
        self,
        arrivals: Sequence[Arrival],
        *,
        progress: Mapping[str, str] | None = None,
        submissions: Sequence[Submission] = (),
        timeout: float | None = None,
    ) -> list[Received]:
        """Make messages durable, all or none, in one transaction; returns when they are.

        Args:
            arrivals: incoming messages; those that the ledger knows are not stored again.
            progress: facts to remember by source, in the same transaction (see :meth:`progress`).
            submissions: outgoing messages that are accepted in the same transaction (a listener's relayed mail).
            timeout: seconds; by default ``settings.submit_timeout``.

        Raises:
            UsageError: a submission is wrong; names the field. Nothing was stored.
            SpoolFull: no room, or the disk is full; nothing was stored.
            SpoolUnavailable: the store did not answer in time; whether they were stored is not known: the ledger tells.
            NotRunning: the spooler was stopped.
        """
        ...

    def prepare(self, submission: Submission) -> None:
        """Check a submission as :meth:`take` would, and store nothing.

        Raises:
            UsageError: it would be refused.
        """
        ...

    def known(self, source: str) -> frozenset[str]:
        """Return the uids of ``source`` that the ledger has."""
        ...

    def forget(self, source: str, uids: Collection[str]) -> None:
        """Forget uids whose remote copies are gone for good."""
        ...

    def progress(self, source: str) -> str | None:
        """Return what was last remembered of ``source``, None for nothing."""
        ...

    def report(self, status: str, reason: str = "") -> None:
        """Say how it goes, for ``receivers()`` and the events: "up", "connecting", "down"."""
        ...


class ReceiverSession(ABC):
    """An open conversation with a messaging system; used by one thread, except ``interrupt``."""

    @abstractmethod
    def poll(self) -> int:
        """Hand over all that is there and tidy up there; return how many messages were taken.

        Raises:
            Exception: the session is broken; it is closed, and another is opened after a pause.
        """

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Return when there may be something new, after ``timeout`` seconds at the latest, or soon after ``interrupt``.

        Raises:
            Exception: as in ``poll``.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make ``wait`` and, if it hangs, ``poll`` return or raise soon. From any thread. Never raises."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Never raises."""


@dataclass(kw_only=True)
class Receiver(ABC):
    """A place where messages come from. Immutable once the spooler has started.

    Attributes:
        name: unique within a spooler; the ``receiver`` label of the metrics and of the record.
        interval: seconds between polls where the other side does not say that there is something new.
        poll_timeout: seconds without progress (a call of the inlet or the end of ``poll``) after which the session is
            given up and replaced.
        retry: a tenacity wait: pauses after failures in a row; None for 1, 2, 4 … seconds up to 2 minutes, varied.
        exclusive: of the processes that share a spool, one at a time runs it.
    """

    name: str
    interval: float = 60.0
    poll_timeout: float = 300.0
    retry: wait_base | None = None
    exclusive: bool = True

    @abstractmethod
    def open(self, inlet: Inlet) -> ReceiverSession:
        """Open a session; blocking is fine.

        Raises:
            Exception: the messaging system cannot be reached or refuses us; tried again later.
        """

    def prepare(self) -> None:  # noqa: B027 - many have nothing to check
        """Check what can be checked without the network; called whenever the receiver's actor starts."""
