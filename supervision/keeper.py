"""The actor that keeps the children of one supervisor: it does what ``decisions`` says.

All that happens to children arrives here as letters, and every wait is a wait for the next letter or the next
due time. So a start that hangs, a back-off and a stop that takes its time never keep the keeper from anything
else.
"""

import logging
import queue
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

import pykka
from tenacity.wait import wait_base

from postroom.supervision.children import Child, abandon
from postroom.supervision.decisions import (
    Stop,
    after_end,
    all_tried,
    next_steps,
    schedule_restart,
    stop_allowance,
)
from postroom.supervision.events import (
    ChildAbandoned,
    ChildDown,
    ChildRestarting,
    ChildStarted,
    ChildState,
    SupervisionEvent,
)
from postroom.supervision.letters import CONTROL_LETTERS, Envelope
from postroom.supervision.mailbox import MailboxActor
from postroom.supervision.specs import Subtree
from postroom.supervision.tree import Tree

__all__ = ["Keeper", "Shutdown"]

_log = logging.getLogger("postroom.supervision")

_PROBE_INTERVAL = 0.01
"""Seconds between looks at a plain pykka actor that is starting, which cannot tell when it is up."""

_TO_START = frozenset({ChildState.WAITING, ChildState.DOWN})
_PASSING = frozenset({ChildState.STARTING, ChildState.STOPPING})


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Asks a keeper to stop its children and then itself.

    Attributes:
        deadline: monotonic seconds by which that should be over.
    """

    deadline: float


@dataclass(frozen=True, slots=True)
class _Ready:
    ref: pykka.ActorRef[Any]


@dataclass(frozen=True, slots=True)
class _Exited:
    ref: pykka.ActorRef[Any]
    failure: BaseException | None


class Keeper(MailboxActor):
    """Keeps the children of one :class:`Subtree`.

    Args:
        tree: what it shares with the other keepers.
        path: its own path; empty at the root.
        subtree: its children, and how they hang together.
        backoff: the wait between restarts where a child has none of its own.
    """

    ready_after_start: ClassVar[bool] = False

    def __init__(self, tree: Tree, path: str, subtree: Subtree, backoff: wait_base) -> None:
        super().__init__()
        self.name = f"{tree.name}-supervisor/{path}" if path else f"{tree.name}-supervisor"
        self.monotonic = tree.monotonic
        self._tree = tree
        self._path = path
        self._subtree = subtree
        self._backoff = subtree.backoff or backoff
        self._children: list[Child] = []
        self._announced = False
        self._closing_by: float | None = None
        self._fatal: BaseException | None = None
        self._wake = 0.0

    def on_start(self) -> None:
        """Begin to start the children; this supervisor counts as up when each had its try."""
        now = self.monotonic()
        prefix = f"{self._path}/" if self._path else ""
        for spec in self._subtree.children:
            path = prefix + spec.name
            before = self._tree.rows.get(path)
            child = Child(spec, path, now, known=before is not None)
            if before is not None:
                child.restarts, child.last_error = before.restarts, before.last_error
            self._children.append(child)
        self._advance()

    def on_letters(self, letters: list[object]) -> None:
        """Take note of what happened to the children, and do what follows."""
        for letter in letters:
            self._read(letter)
        self._advance()

    def next_wake(self) -> float | None:
        """Return when something is due."""
        return self._wake

    def on_wake(self) -> None:
        """Do what is due."""
        self._advance()

    def on_stop(self) -> None:
        """Stop the children, the last started first."""
        self._take_down()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the children along, so that they are not there twice when this supervisor is restarted."""
        del exception_type, exception_value, traceback
        try:
            self._take_down()
        finally:
            for child in self._children:
                if child.ref is not None:
                    abandon(child.spec, child.ref, child.path)

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The child's own failure has been logged by the child; it only passes through here.
        passing = exception_value is not None and exception_value is self._fatal
        super()._handle_failure(None if passing else exception_type, exception_value, traceback)

    def _read(self, letter: object) -> None:
        match letter:
            case _Ready(ref):
                child = self._child_of(ref)
                if child is not None and child.state is ChildState.STARTING:
                    self._came_up(child)
            case _Exited(ref, failure):
                child = self._child_of(ref)
                if child is not None:
                    self._ended(child, failure)
            case Shutdown(deadline):
                self._close(deadline)
                self.stop()
            case _ if type(letter) in CONTROL_LETTERS:
                pass  # asked to stop while it takes its children down
            case _:
                _log.warning("%s has no use for %r", self.name, letter)

    def _child_of(self, ref: pykka.ActorRef[Any]) -> Child | None:
        """Return whose place this actor has; None for one that was abandoned."""
        return next((child for child in self._children if child.ref is ref), None)

    def _advance(self) -> None:
        """Do all that can be done now, and note when to look again."""
        now = self.monotonic()
        self._look_around(now)
        while self._fatal is None:
            views = [child.view() for child in self._children]
            steps = next_steps(views, self._subtree.strategy, now)
            if not steps:
                break
            for step in steps:
                child = next(child for child in self._children if child.spec.name == step.name)
                if isinstance(step, Stop):
                    self._stop_child(child, now)
                else:
                    self._start_child(child, now)
        self._publish()
        self._wake = self._next_look(now)
        if self._fatal is not None and self._closing_by is None:
            raise self._fatal
        if not self._announced and all_tried(
            [child.view() for child in self._children], self._subtree.strategy
        ):
            self._announced = True
            self.mailbox.ready()

    def _look_around(self, now: float) -> None:
        for child in self._children:
            if child.state is ChildState.STARTING and child.came_up():
                self._came_up(child)
            reason = child.overdue(now)
            if reason is not None and child.ref is not None:
                self._give_up(child, child.ref, reason)
            lost = child.lost()
            if lost is not None:
                self._ended(child, None if child.state is ChildState.STOPPING else lost)

    def _next_look(self, now: float) -> float:
        poll = self._tree.poll_interval
        if any(child.probe is not None and child.state is ChildState.STARTING for child in self._children):
            poll = min(poll, _PROBE_INTERVAL)
        starts = [
            child.start_at for child in self._children if child.state in _TO_START and child.start_at > now
        ]
        deadlines = [child.deadline for child in self._children if child.state in _PASSING]
        return min([now + poll, *starts, *deadlines])

    def _start_child(self, child: Child, now: float) -> None:
        child.state = ChildState.STARTING
        child.deadline = now + child.spec.start_timeout
        child.up_since = None
        child.restarts += child.tried or child.known
        after = child.spec.handle.incarnation
        try:
            child.place(self._make(child), after, self._on_ready, self._on_exit)
        except BaseException as failure:  # noqa: BLE001 - whatever it is, it is the child's and not the supervisor's
            _log.error("%s could not be made", child.path, exc_info=sys.exc_info())
            self._ended(child, failure)

    def _make(self, child: Child) -> pykka.ActorRef[Any]:
        start = child.spec.start
        if isinstance(start, Subtree):
            return Keeper.start(self._tree, child.path, start, self._backoff)
        return start()

    def _on_ready(self, ref: pykka.ActorRef[Any]) -> None:
        self._note(_Ready(ref))

    def _on_exit(self, ref: pykka.ActorRef[Any], failure: BaseException | None) -> None:
        self._note(_Exited(ref, failure))

    def _note(self, letter: object) -> None:
        """Put a letter into this keeper's mailbox, also while it stops and its reference is dead already."""
        self.mailbox.put(Envelope(letter))

    def _came_up(self, child: Child) -> None:
        child.state = ChildState.RUNNING
        child.tried = True
        child.probe = None
        child.up_since = self.monotonic()
        self._tell(ChildStarted(child.path, child.spec.handle.incarnation))

    def _stop_child(self, child: Child, now: float) -> None:
        allowance = child.spec.stop_timeout
        if self._closing_by is not None:
            others = sum(c.spec.stop_timeout for c in self._children if c.alive and c is not child)
            allowance = stop_allowance(self._closing_by - now, allowance, others)
        child.state = ChildState.STOPPING
        child.deadline = now + allowance
        ref = child.ref
        if ref is None:
            return
        if isinstance(child.spec.start, Subtree) and ref.is_alive():
            # A little less than its own time, so that it can still say whom it had to abandon.
            ref.actor_inbox.put(Envelope(Shutdown(now + 0.9 * allowance)))
        else:
            ref.stop(block=False)

    def _give_up(self, child: Child, ref: pykka.ActorRef[Any], reason: Exception) -> None:
        given_up = abandon(child.spec, ref, child.path)
        if self._closing_by is not None:
            self._tree.abandoned += given_up
        self._tell(ChildAbandoned(child.path, child.spec.handle.incarnation, str(reason)))
        self._ended(child, reason)

    def _ended(self, child: Child, failure: BaseException | None) -> None:
        first_failure = not child.tried and failure is not None
        mailbox = child.mailbox
        if (
            self._closing_by is not None
            and mailbox is not None
            and mailbox.ended
            and mailbox.thread is not None
        ):
            mailbox.thread.join(
                timeout=1.0
            )  # it has nothing left to do; so no thread outlives an orderly stop
        child.vacate()
        child.tried = True
        if child.marked:
            child.marked = False
            child.state = child.after_stop
            self._tell(child.ended(failure))
        elif first_failure and child.spec.essential:
            child.state = ChildState.ENDED
            self._tell(child.ended(failure))
            self._fatal = failure
            if not self._path:
                self._tree.fatal = failure
        else:
            self._tell(child.ended(failure))
            self._restart(child, failed=failure is not None)

    def _restart(self, child: Child, *, failed: bool) -> None:
        views = [c.view() for c in self._children]
        verdict = after_end(views, self._subtree.strategy, child.spec.name, failed=failed)
        if not verdict.again:
            child.state = ChildState.ENDED
            return
        now = self.monotonic()
        schedule = schedule_restart(
            child.record,
            now=now,
            uptime=0.0 if child.up_since is None else now - child.up_since,
            intensity=self._subtree.intensity,
            quiet_after=self._subtree.quiet_after,
            backoff=child.spec.backoff or self._backoff,
        )
        record = child.record = schedule.record
        child.state = ChildState.DOWN if record.down else ChildState.WAITING
        child.start_at = now + schedule.delay
        for sibling in self._children:
            if sibling.spec.name in verdict.stop:
                sibling.marked = True
                sibling.after_stop = ChildState.ENDED
            if sibling.spec.name in verdict.again:
                # The group waits as a whole: half of it would be of no use to anybody.
                sibling.start_at = max(sibling.start_at, child.start_at)
                sibling.after_stop = ChildState.WAITING
                if sibling.state is ChildState.ENDED:
                    sibling.state = ChildState.WAITING
        if schedule.fell:
            self._tell(ChildDown(child.path, child.start_at, schedule.delay, record.consecutive))
        self._tell(ChildRestarting(child.path, child.start_at, schedule.delay, record.consecutive))

    def _close(self, deadline: float | None) -> None:
        """Mark all children to be stopped; no child is started any more."""
        if self._closing_by is not None:
            return
        living = [child for child in self._children if child.alive]
        self._closing_by = deadline or self.monotonic() + sum(child.spec.stop_timeout for child in living)
        self._fatal = None
        self._announced = True
        for child in self._children:
            child.after_stop = ChildState.STOPPED
            child.marked = child.alive
            if not child.alive:
                child.state = ChildState.STOPPED

    def _take_down(self) -> None:
        self._close(None)
        # Ends may have been told in the batch that this keeper failed in; nobody tells them again.
        for envelope in self._behind:
            if envelope.reply_to is None:
                self._read(envelope.message)
        self._advance()
        while any(child.alive for child in self._children):
            try:
                envelope = self.mailbox.get(timeout=max(0.0, self._wake - self.monotonic()))
            except queue.Empty:
                pass
            else:
                if envelope.reply_to is None:
                    self._read(envelope.message)
                else:
                    self.mailbox.refuse((envelope,))
            self._advance()

    def _publish(self) -> None:
        if not self.mailbox.abandoned:
            self._tree.rows.update({child.path: child.row() for child in self._children})

    def _tell(self, event: SupervisionEvent) -> None:
        if self.mailbox.abandoned:
            return
        # Who is told may ask how things stand.
        self._publish()
        self._tree.tell(event)
