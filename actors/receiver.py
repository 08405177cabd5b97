"""The receiver actor: sees to it that one porter works with a receiver's session, and says how it goes.

The rules are values (:mod:`postroom.receivers.watching`), the work is the porter's (:mod:`postroom.actors.porter`)::

    store ◄──lease── receiver actor ──start, interrupt, abandon──► porter: open, poll, wait ──take──► store
                          ▲                                          │
                          └──── polled, took, says, is gone ─────────┘

A porter that hangs is interrupted, and if it does not heed that, given up: its inlet lets nothing through any more, and
another takes its place. The actor itself never waits, except for its porter when it ends.
"""

import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from postroom.actors.context import Context
from postroom.actors.porter import MakeInlet, Porter, PorterGone, PorterPolled, PorterSaid, PorterTook
from postroom.actors.protocol import Happened, Perform, Probe
from postroom.errors import PostroomError, TransportDown
from postroom.events import ReceiverChanged
from postroom.receivers.base import Receiver
from postroom.receivers.status import ReceiverStatus
from postroom.receivers.watching import LEASE_SECONDS, Step, Watching
from postroom.stores.base import Store
from postroom.supervision import MailboxActor
from postroom.tickets import Ticket

__all__ = ["ReceiverActor"]

log = logging.getLogger("postroom.receiver")

LOOK_SECONDS: Final = 30.0
"""How long the actor sleeps at most while a porter works, whose deadline moves."""

STOP_SECONDS: Final = 5.0
"""How long a porter has to end when the actor does."""

NUDGE_SECONDS: Final = 0.2
"""How often it is interrupted meanwhile: what it does may begin after the first interrupt."""

MAX_REASON: Final = 500

_ELSEWHERE: Final = "another process runs it"


@dataclass(frozen=True, slots=True)
class _Leased:
    """The store has answered about the lease."""

    asked_at: float
    ticket: Ticket


class ReceiverActor(MailboxActor):
    """See the module's docstring.

    Args:
        context: what the actors share.
        receiver: what it runs.
        make_inlet: makes the way into the spool (:meth:`postroom.actors.receiving.Inlets.inlet`).
        name: of the thread.
    """

    def __init__(self, context: Context, receiver: Receiver, make_inlet: MakeInlet, name: str) -> None:
        super().__init__()
        self.name = name
        self.monotonic = context.clock.monotonic
        self._context = context
        self._receiver = receiver
        self._make_inlet = make_inlet
        self._watching = Watching(exclusive=receiver.exclusive)
        self._porter: Porter | None = None
        self._porters = 0
        self._error: BaseException | None = None
        self._hangs = False

    def on_start(self) -> None:
        """Check what can be checked; whatever that raises is the supervisor's, who starts this actor again later."""
        try:
            self._receiver.prepare()
        except Exception as error:
            self._show("down", _reason(error))
            raise
        self._show("connecting")
        self._go_on()

    def on_stop(self) -> None:
        """Let the porter end and give the lease up."""
        self._dismiss()
        self._show("down", "it was stopped")

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the porter end: a new actor will have one of its own."""
        del exception_type, traceback
        self._dismiss()
        self._show("down", "" if exception_value is None else _reason(exception_value))

    def on_letters(self, letters: list[object]) -> None:
        """Hear the porter, the store and the operators."""
        for letter in letters:
            if isinstance(letter, _Leased):
                self._leased(letter)
            elif isinstance(letter, Probe):
                self._watching = self._watching.hurried()
                if self._porter is not None:
                    self._porter.nudge()
            elif isinstance(letter, PorterTook):
                # Also by one that was given up: what it has stored counts.
                self._took(letter)
            elif isinstance(letter, PorterPolled | PorterSaid | PorterGone) and letter.porter is self._porter:
                self._hear(letter)
        self._go_on()

    def next_wake(self) -> float | None:
        """Return when something is due by itself."""
        now = self.monotonic()
        due = self._watching.due(now, self._deadline())
        if self._porter is not None:
            due = min(due, now + min(LOOK_SECONDS, self._receiver.poll_timeout / 4))
        return None if due == float("inf") else due

    def on_wake(self) -> None:
        """Do what is due."""
        self._go_on()

    # Doing

    def _deadline(self) -> float | None:
        return None if self._porter is None else self._porter.deadline

    def _go_on(self) -> None:
        while (step := self._watching.step(self.monotonic(), self._deadline())) is not None:
            if step is Step.ASK:
                self._ask()
            elif step is Step.OPEN:
                self._open()
            elif step is Step.INTERRUPT:
                self._interrupt()
            else:
                self._abandon()

    def _ask(self) -> None:
        now = self.monotonic()
        self._watching = self._watching.asking(now)
        lease, clock, tell = self._lease, self._context.clock, self.tell_self

        def step(store: Store) -> bool:
            return store.inbox.lease(lease, clock.time(), LEASE_SECONDS)

        def answered(ticket: Ticket) -> None:
            tell(_Leased(now, ticket))

        if not self._context.handles.store.tell(Perform(step, Ticket(answered))):
            self._watching = self._watching.leased(now, granted=None)

    @property
    def _lease(self) -> str:
        return f"receiver/{self._receiver.name}"

    def _leased(self, letter: _Leased) -> None:
        if letter.asked_at != self._watching.asked_at:
            return  # an answer that came too late; it was asked for again
        ticket, now = letter.ticket, self.monotonic()
        granted = None if ticket.error is not None else bool(ticket.value)
        if ticket.error is not None:
            log.warning("%s: the store could not lease it: %s", self.name, ticket.error)
        self._watching = self._watching.leased(now, granted=granted)
        until = self._watching.leased_until
        if self._porter is not None:
            self._porter.lease(now if until is None else until)
        if granted is False:
            self._show("standby", _ELSEWHERE)
        elif granted and self._shown == "standby":
            self._show("connecting")

    def _open(self) -> None:
        now = self.monotonic()
        self._porters += 1
        self._watching = self._watching.opening(now)
        self._hangs = False
        porter = self._porter = Porter(
            self._receiver,
            self._make_inlet,
            self.tell_self,
            self._context.clock,
            f"postroom-porter-{self._receiver.name}-{self._porters}",
        )
        if self._watching.leased_until is not None:
            porter.lease(self._watching.leased_until)
        porter.start()

    def _interrupt(self) -> None:
        now = self.monotonic()
        porter = self._porter
        if porter is None:
            return
        self._hangs = self._watching.may_run(now)
        if self._hangs:
            log.error("%s hangs and is interrupted", porter.name)
        self._watching = self._watching.interrupted(now)
        porter.stop()

    def _abandon(self) -> None:
        porter = self._porter
        if porter is None:
            return
        log.error("%s does not heed its interrupt and is given up", porter.name)
        porter.abandon()
        self._ended(TransportDown(f"it showed no sign of life for {self._receiver.poll_timeout:g} s"))

    # Hearing

    def _hear(self, letter: PorterPolled | PorterSaid | PorterGone) -> None:
        if isinstance(letter, PorterPolled):
            self._watching = self._watching.got_through()
            self._error = None
            status = self._status
            self._show("up", status.reason if status.status == "up" else "")
        elif isinstance(letter, PorterGone):
            letter.porter.abandon()
            error = letter.error
            if self._hangs:
                error = TransportDown(f"it showed no sign of life for {self._receiver.poll_timeout:g} s")
            self._ended(error)
        elif self._watching.heeds(letter.status):
            self._show(letter.status, letter.reason)

    def _ended(self, error: BaseException | None) -> None:
        """The porter is gone, or given up."""
        now = self.monotonic()
        self._porter = None
        if not self._watching.may_run(now):
            self._watching = self._watching.stopped()
            self._show("standby", _ELSEWHERE)
            return
        retry_after = error.retry_after if isinstance(error, TransportDown) else None
        self._watching = self._watching.failed(now, self._receiver.retry, retry_after)
        reason = "its session ended" if error is None else _reason(error)
        if error is not None and (self._error is None or _reason(self._error) != reason):
            expected = isinstance(error, PostroomError | OSError)
            log.warning("%s: %s", self.name, reason, exc_info=None if expected else error)
        self._error = error
        pause = self._watching.open_at - now
        self._show("down", reason, until=self._context.clock.time() + pause)

    def _took(self, letter: PorterTook) -> None:
        if letter.porter is self._porter:
            self._watching = self._watching.took_something()
        before = self._status
        self._publish(
            ReceiverStatus(
                before.name, before.status, before.reason, before.since, before.until,
                before.taken + letter.messages, letter.at, before.failures,
            )
        )  # fmt: skip

    # Showing

    @property
    def _status(self) -> ReceiverStatus:
        name = self._receiver.name
        return self._context.receiving.get(name) or ReceiverStatus(name, "starting")

    @property
    def _shown(self) -> str:
        return self._status.status

    def _show(self, status: str, reason: str = "", until: float | None = None) -> None:
        """Say how it goes, and tell subscribers if that is new."""
        before, now = self._status, self._context.clock.time()
        reason = "".join(each if each.isprintable() else " " for each in reason)[:MAX_REASON]
        changed = status != before.status
        failures = 0 if status == "up" else self._watching.failures
        since = now if changed else before.since
        self._publish(
            ReceiverStatus(
                before.name, status, reason, since, until, before.taken, before.last_taken, failures
            )
        )
        if (changed or (status == "up" and reason != before.reason)) and self._context.audience.any:
            event = ReceiverChanged(now, before.name, status, reason)
            self._context.handles.notifier.tell(Happened(events=(event,)))

    def _publish(self, status: ReceiverStatus) -> None:
        self._context.receiving[status.name] = status

    # Ending

    def _dismiss(self) -> None:
        porter, self._porter = self._porter, None
        if porter is not None:
            until = time.monotonic() + STOP_SECONDS
            porter.stop()
            while porter.is_alive() and time.monotonic() < until:
                porter.join(NUDGE_SECONDS)
                porter.stop()
            if porter.is_alive():
                log.warning("%s does not end and is left behind", porter.name)
            porter.abandon()
        if self._receiver.exclusive and self._watching.leased_until is not None:
            lease = self._lease

            def step(store: Store) -> None:
                store.inbox.end_lease(lease)

            self._context.handles.store.tell(Perform(step, Ticket()))


def _reason(error: BaseException) -> str:
    if isinstance(error, PostroomError):
        return str(error)
    return f"{type(error).__name__}: {error}"
