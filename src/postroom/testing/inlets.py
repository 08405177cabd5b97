"""A spool for trying receivers: it takes what they hand over, has a ledger, and fails where it is told to.

:class:`TrialSpool` is what survives: the messages, the ledger, what was remembered of sources. A :class:`TrialInlet` is
what one session of a receiver is given; with a :class:`Fault` it fails at one of its calls, before or after the commit,
and may be dead from then on, as the inlet of a process that was killed.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from postroom.envelopes import Submission
from postroom.errors import NotRunning, SpoolFull, SpoolUnavailable
from postroom.inbound.values import Arrival, LedgerKey, Received

__all__ = ["Fault", "FaultKind", "TrialInlet", "TrialSpool"]

FaultKind = Literal["refused", "in doubt", "killed before", "killed after", "slow"]

SLOW_SECONDS = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at one call of an inlet.

    Attributes:
        call: which, from 1; ``take``, ``prepare``, ``known``, ``forget`` and ``progress`` count.
        kind: "refused": nothing is done, ``SpoolFull``. "in doubt": it is done, and ``SpoolUnavailable`` is raised all
            the same. "killed before" and "killed after" are like these, and the inlet is dead from then on: every call
            raises ``NotRunning``. "slow": it takes a while.
    """

    call: int
    kind: FaultKind


class TrialSpool:
    """What a spool keeps of a receiver. Thread-safe; make one for each trial.

    Attributes:
        before_commit: called with the arrivals of each ``take`` that are new, in the taking thread, before they are
            stored; what it raises is raised by ``take``, and nothing is stored.
    """

    def __init__(self, before_commit: Callable[[Sequence[Arrival]], None] | None = None) -> None:
        self.before_commit = before_commit
        self._changed = threading.Condition()
        self._arrivals: list[Arrival] = []
        self._submissions: list[Submission] = []
        self._ledger: dict[tuple[str, str], tuple[int, float | None]] = {}
        self._progress: dict[str, str] = {}

    def inlet(self, fault: Fault | None = None) -> "TrialInlet":
        """Return an inlet for one session."""
        return TrialInlet(self, fault)

    @property
    def arrivals(self) -> list[Arrival]:
        """The incoming messages that were stored, in their order: a copy."""
        with self._changed:
            return list(self._arrivals)

    @property
    def submissions(self) -> list[Submission]:
        """The outgoing messages that were accepted, in their order: a copy."""
        with self._changed:
            return list(self._submissions)

    @property
    def ledger(self) -> dict[tuple[str, str], float | None]:
        """The ledger: when each (source, uid) may be forgotten, None for never; a copy."""
        with self._changed:
            return {place: expires for place, (_, expires) in self._ledger.items()}

    @property
    def sources(self) -> dict[str, str]:
        """What is remembered of the sources: a copy."""
        with self._changed:
            return dict(self._progress)

    def wait_for(self, count: int, timeout: float) -> bool:
        """Wait until ``count`` messages (incoming and outgoing) are stored, at most ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self._arrivals) + len(self._submissions) >= count, timeout
            )

    def take(
        self, arrivals: Sequence[Arrival], progress: Mapping[str, str], submissions: Sequence[Submission]
    ) -> list[Received]:
        """Store what the ledger does not know, all or nothing."""
        with self._changed:
            fresh = [arrival for arrival in arrivals if self._find(arrival.keys) is None]
        if self.before_commit is not None and fresh:
            self.before_commit(fresh)
        with self._changed:
            received = [self._store(arrival) for arrival in arrivals]
            self._submissions += submissions
            self._progress.update(progress)
            self._changed.notify_all()
        return received

    def _store(self, arrival: Arrival) -> Received:
        known = self._find(arrival.keys)
        if known is None:
            self._arrivals.append(arrival)
        number = len(self._arrivals) if known is None else known
        for key in arrival.keys:
            self._ledger.setdefault((key.source, key.uid), (number, key.expires))
        return Received(number, duplicate=known is not None)

    def _find(self, keys: Sequence[LedgerKey]) -> int | None:
        numbers = (self._ledger.get((key.source, key.uid)) for key in keys)
        return next((number[0] for number in numbers if number is not None), None)

    def known(self, source: str) -> frozenset[str]:
        """Return the uids of a source."""
        with self._changed:
            return frozenset(uid for place, uid in self._ledger if place == source)

    def forget(self, source: str, uids: Collection[str]) -> None:
        """Forget uids of a source."""
        with self._changed:
            for uid in uids:
                self._ledger.pop((source, uid), None)

    def progress(self, source: str) -> str | None:
        """Return what is remembered of a source."""
        with self._changed:
            return self._progress.get(source)


class TrialInlet:
    """See :class:`postroom.receivers.base.Inlet`, which this is. Thread-safe.

    Attributes:
        stopping: as in the protocol.
        calls: the names of the calls so far.
        reports: (status, reason) as they were reported.
        struck: the fault has happened.
        dead: every call raises from now on; set it to try what an abandoned session does.
    """

    def __init__(self, spool: TrialSpool, fault: Fault | None = None) -> None:
        self.stopping = threading.Event()
        self.calls: list[str] = []
        self.reports: list[tuple[str, str]] = []
        self.struck = False
        self.dead = False
        self._spool = spool
        self._fault = fault
        self._lock = threading.Lock()

    def _call(self, name: str, work: Callable[[], T]) -> T:
        with self._lock:
            if self.dead:
                raise NotRunning("the spooler was stopped")
            self.calls.append(name)
            fault = self._fault if self._fault and len(self.calls) == self._fault.call else None
            if fault is not None:
                self.struck = True
                self.dead = fault.kind.startswith("killed")
        if fault is None:
            return work()
        if fault.kind == "slow":
            time.sleep(SLOW_SECONDS)
            return work()
        if fault.kind == "refused":
            raise SpoolFull("the disk is full, says the trial")
        if fault.kind == "killed before":
            raise NotRunning("killed before anything was stored, says the trial")
        work()
        if fault.kind == "in doubt":
            raise SpoolUnavailable("the store did not answer, says the trial")
        raise NotRunning("killed after everything was stored, says the trial")

    def take(
        self,
        arrivals: Sequence[Arrival],
        *,
        progress: Mapping[str, str] | None = None,
        submissions: Sequence[Submission] = (),
        timeout: float | None = None,
    ) -> list[Received]:
        """Store messages, all or none."""
        del timeout
        return self._call("take", lambda: self._spool.take(arrivals, progress or {}, submissions))

    def prepare(self, submission: Submission) -> None:
        """Find nothing wrong with a submission."""
        self._call("prepare", lambda: submission)

    def known(self, source: str) -> frozenset[str]:
        """Return the uids of a source."""
        return self._call("known", lambda: self._spool.known(source))

    def forget(self, source: str, uids: Collection[str]) -> None:
        """Forget uids of a source."""
        self._call("forget", lambda: self._spool.forget(source, uids))

    def progress(self, source: str) -> str | None:
        """Return what is remembered of a source."""
        return self._call("progress", lambda: self._spool.progress(source))

    def report(self, status: str, reason: str = "") -> None:
        """Note it; never fails, not even when dead."""
        self.reports.append((status, reason))
