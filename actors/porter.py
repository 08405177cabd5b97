"""The porter: the thread that holds a receiver's session and blocks on the network. It decides nothing.

Its inlet is a gate before the spool's own: it shows signs of life, counts, and lets nothing through once the porter was
given up or the lease has run out, so that what hangs and comes back can do no harm.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from postroom.clock import Clock
from postroom.envelopes import Submission
from postroom.errors import NotRunning
from postroom.inbound.values import Arrival, Received
from postroom.receivers.base import Inlet, Receiver, ReceiverSession

__all__ = ["MakeInlet", "Porter", "PorterGone", "PorterPolled", "PorterSaid", "PorterTook"]

log = logging.getLogger("postroom.receiver")

MakeInlet = Callable[[str, threading.Event, Callable[[str, str], None]], Inlet]
"""Makes an inlet of the spool: the receiver's name, the flag that is set when it is to end, who hears its reports."""


@dataclass(frozen=True, slots=True)
class PorterPolled:
    """The session got through its first poll."""

    porter: "Porter"


@dataclass(frozen=True, slots=True)
class PorterTook:
    """Messages were taken.

    Attributes:
        porter: by whom.
        messages: how many that were new.
        at: wall-clock seconds.
    """

    porter: "Porter"
    messages: int
    at: float


@dataclass(frozen=True, slots=True)
class PorterSaid:
    """The session says how it goes."""

    porter: "Porter"
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class PorterGone:
    """The porter's thread ends; ``error`` says why it is not by request."""

    porter: "Porter"
    error: BaseException | None


class Porter(threading.Thread):
    """One thread with one session.

    Args:
        receiver: whose session it opens.
        make_inlet: makes the inlet behind the gate.
        tell: tells the receiver's actor.
        clock: for times.
        name: of the thread.
    """

    def __init__(
        self,
        receiver: Receiver,
        make_inlet: MakeInlet,
        tell: Callable[[object], bool],
        clock: Clock,
        name: str,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._receiver = receiver
        self._tell = tell
        self._clock = clock
        self._session: ReceiverSession | None = None
        self._stopping = threading.Event()
        self._waiting = False
        self._gate = _Gate(
            make_inlet(receiver.name, self._stopping, self._say), self.sign_of_life, self._took, clock
        )
        self.deadline = clock.monotonic() + receiver.poll_timeout

    # The actor's side

    @property
    def gate(self) -> "_Gate":
        """The inlet that the session uses."""
        return self._gate

    def lease(self, until: float) -> None:
        """Let messages through until then (monotonic seconds)."""
        self._gate.until = until

    def stop(self) -> None:
        """Have it end soon; may be called again."""
        self._stopping.set()
        self.interrupt()

    def abandon(self) -> None:
        """Give it up: nothing gets through any more."""
        self._gate.dead = True
        self.stop()

    def nudge(self) -> None:
        """Have it poll now, if it waits."""
        if self._waiting:
            self.interrupt()

    def interrupt(self) -> None:
        """Interrupt its session, if it has one."""
        session = self._session
        if session is not None:
            try:
                session.interrupt()
            except Exception:
                log.exception("%s: its session could not be interrupted", self.name)

    # The thread

    def run(self) -> None:
        """Open a session and work with it until told to stop, or until it fails."""
        error: BaseException | None = None
        try:
            self._work()
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the actor is to know
            error = raised
        self._tell(PorterGone(self, error))

    def _work(self) -> None:
        self.sign_of_life()
        session = self._session = self._receiver.open(self._gate)
        try:
            first = True
            # Looked at after the session can be seen by whoever sets it, so that one of the two notices the other.
            while not self._stopping.is_set():
                self.deadline = self._clock.monotonic() + self._receiver.poll_timeout
                session.poll()
                if first:
                    first = False
                    self._tell(PorterPolled(self))
                self._wait(session)
        finally:
            try:
                session.close()
            except Exception:
                log.exception("%s: its session could not be closed", self.name)

    def _wait(self, session: ReceiverSession) -> None:
        interval = self._receiver.interval
        self.deadline = self._clock.monotonic() + interval + self._receiver.poll_timeout
        self._waiting = True
        try:
            if not self._stopping.is_set():
                session.wait(interval)
        finally:
            self._waiting = False

    def sign_of_life(self) -> None:
        """Put off the time at which it is taken to hang."""
        self.deadline = max(self.deadline, self._clock.monotonic() + self._receiver.poll_timeout)

    def _took(self, messages: int) -> None:
        self._tell(PorterTook(self, messages, self._clock.time()))

    def _say(self, status: str, reason: str) -> None:
        self._tell(PorterSaid(self, status, reason))


class _Gate:
    """The inlet that a porter's session is given: see :class:`postroom.receivers.base.Inlet`. Thread-safe.

    Attributes:
        dead: nothing gets through any more.
        until: monotonic seconds from which on nothing gets through, None for never.
    """

    def __init__(
        self,
        inlet: Inlet,
        sign_of_life: Callable[[], None],
        took: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self._inlet = inlet
        self._sign_of_life = sign_of_life
        self._took = took
        self._clock = clock
        self.dead = False
        self.until: float | None = None

    @property
    def stopping(self) -> threading.Event:
        """Set when the receiver is to end."""
        return self._inlet.stopping

    def _pass(self) -> None:
        if self.dead:
            raise NotRunning("this session was given up; another has taken its place")
        if self.until is not None and self._clock.monotonic() >= self.until:
            raise NotRunning("another process may run this receiver now")
        self._sign_of_life()

    def take(
        self,
        arrivals: Sequence[Arrival],
        *,
        progress: Mapping[str, str] | None = None,
        submissions: Sequence[Submission] = (),
        timeout: float | None = None,
    ) -> list[Received]:
        """Make messages durable; see the protocol."""
        self._pass()
        received = self._inlet.take(arrivals, progress=progress, submissions=submissions, timeout=timeout)
        fresh = sum(not each.duplicate for each in received)
        if fresh:
            self._took(fresh)
        # Even if we were given up meanwhile: what is stored may be removed, acknowledged, or answered for.
        self._sign_of_life()
        return received

    def prepare(self, submission: Submission) -> None:
        """Check a submission; see the protocol."""
        self._pass()
        self._inlet.prepare(submission)

    def known(self, source: str) -> frozenset[str]:
        """Return the uids that the ledger has; see the protocol."""
        self._pass()
        return self._inlet.known(source)

    def forget(self, source: str, uids: Collection[str]) -> None:
        """Forget uids; see the protocol."""
        self._pass()
        self._inlet.forget(source, uids)

    def progress(self, source: str) -> str | None:
        """Return what is remembered of a source; see the protocol."""
        self._pass()
        return self._inlet.progress(source)

    def report(self, status: str, reason: str = "") -> None:
        """Say how it goes; see the protocol."""
        if not self.dead:
            self._inlet.report(status, reason)
