"""One child as its keeper sees it: what it was told, where it stands, and which actor has the place."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pykka
from pykka.messages import ProxyGetAttr

from postroom.supervision.decisions import ChildView, Record
from postroom.supervision.errors import HungChild, LostChild, StartTimeout
from postroom.supervision.events import ChildEnded, ChildRow, ChildState
from postroom.supervision.inbox import Mailbox
from postroom.supervision.specs import ChildSpec, Subtree

__all__ = ["Child", "abandon"]

_log = logging.getLogger("postroom.supervision")


@dataclass(slots=True, eq=False)
class Child:
    """The keeper's book on one child. Used by the keeper's thread alone.

    Attributes:
        spec: what it was told.
        path: its name in the tree.
        state: where it stands.
        tried: whether its first start is over.
        start_at: monotonic seconds before which it is not started.
        marked: whether it is to be stopped.
        after_stop: the state it goes to when it has been stopped.
        deadline: monotonic seconds by which it must have started or stopped, while it does.
        up_since: monotonic seconds at which it came up, or None.
        record: its failures so far.
        known: whether an earlier keeper of the same tree had it, so that even its first start here is a
            restart.
        restarts: how often it was started again, in the times of earlier keepers too.
        last_error: its last failure as text.
        ref: the actor that has the place, or None.
        probe: the pending answer by which a plain pykka actor shows that its ``on_start`` is over.
    """

    spec: ChildSpec
    path: str
    start_at: float
    state: ChildState = ChildState.WAITING
    tried: bool = False
    marked: bool = False
    after_stop: ChildState = ChildState.STOPPED
    deadline: float = 0.0
    up_since: float | None = None
    record: Record = field(default_factory=Record)
    known: bool = False
    restarts: int = 0
    last_error: str | None = None
    ref: pykka.ActorRef[Any] | None = None
    probe: pykka.Future[Any] | None = None

    @property
    def alive(self) -> bool:
        """Whether an actor has the place."""
        return self.ref is not None

    @property
    def mailbox(self) -> Mailbox | None:
        """The signs of life of the actor that has the place, when it is one that shows them."""
        inbox = None if self.ref is None else self.ref.actor_inbox
        return inbox if isinstance(inbox, Mailbox) else None

    def view(self) -> ChildView:
        """Return what decisions need to know."""
        return ChildView(
            self.spec.name, self.state, self.spec.restart, self.tried, self.start_at, self.marked
        )

    def row(self) -> ChildRow:
        """Return what people want to know."""
        waiting = self.state in {ChildState.WAITING, ChildState.DOWN}
        return ChildRow(
            self.path,
            self.state,
            self.spec.handle.incarnation,
            self.restarts,
            self.last_error,
            self.start_at if waiting else None,
        )

    def place(
        self,
        ref: pykka.ActorRef[Any],
        after: int,
        on_ready: Callable[[pykka.ActorRef[Any]], None],
        on_exit: Callable[[pykka.ActorRef[Any], BaseException | None], None],
    ) -> None:
        """Give the place to an actor just started and watch it; callbacks come from the actor's thread.

        Raises:
            HungChild: the place was given away while this follower of incarnation ``after`` was made.
        """
        handle = self.spec.handle
        if not handle.attach(ref, after):
            ref.stop(block=False)
            raise HungChild(f"{self.path} was made too late, there is another by now")
        self.ref = ref
        mailbox = self.mailbox
        if mailbox is None:
            self.probe = ref.ask(ProxyGetAttr(attr_path=("actor_urn",)), block=False)
        else:
            mailbox.watch(
                on_ready=lambda: on_ready(ref),
                on_close=lambda: handle.detach(ref),
                on_exit=lambda failure: on_exit(ref, failure),
            )

    def vacate(self) -> None:
        """Take the place from the actor that has it, and count the letters that nobody read."""
        ref, mailbox = self.ref, self.mailbox
        self.ref = self.probe = None
        if ref is not None:
            self.spec.handle.detach(ref)
        if mailbox is not None:
            if mailbox.ended:
                mailbox.drain()
            self.spec.handle.count_dropped(mailbox.dropped)

    def overdue(self, now: float) -> Exception | None:
        """Return why the child is to be abandoned now, if it is."""
        if self.state is ChildState.STARTING and now >= self.deadline:
            return StartTimeout(f"{self.path} did not start within {self.spec.start_timeout:g} s")
        if self.state is ChildState.STOPPING and now >= self.deadline:
            return HungChild(f"{self.path} did not stop in time")
        mailbox, limit = self.mailbox, self.spec.hang_timeout
        if self.state is ChildState.RUNNING and mailbox is not None and limit is not None:
            busy = mailbox.busy_for()
            if busy >= limit:
                return HungChild(f"{self.path} has been busy with one batch for {busy:.3g} s")
        return None

    def came_up(self) -> bool:
        """Return whether a plain pykka actor has answered the probe by now."""
        if self.probe is None:
            return False
        try:
            self.probe.get(timeout=0)
        except (pykka.Timeout, pykka.ActorDeadError):
            return False
        return True

    def lost(self) -> Exception | None:
        """Return a failure when the actor that has the place is dead and nobody will report it."""
        ref, mailbox = self.ref, self.mailbox
        if ref is None or ref.is_alive():
            return None
        if mailbox is None:
            return LostChild(f"{self.path} ended without a word; see the log of pykka")
        if mailbox.thread is not None and not mailbox.thread.is_alive() and not mailbox.ended:
            return LostChild(f"the thread of {self.path} is gone")
        return None

    def ended(self, failure: BaseException | None) -> ChildEnded:
        """Note how it ended and return the event that tells it."""
        text = ""
        if failure is not None:
            self.last_error = f"{type(failure).__name__}: {failure}"
            text = "".join(traceback.format_exception(failure))
        return ChildEnded(self.path, self.spec.handle.incarnation, failure, text)


def abandon(spec: ChildSpec, ref: pykka.ActorRef[Any], path: str) -> list[str]:
    """Give an actor up: nothing reaches it any more, and it ends as soon as it comes back. Never waits.

    With a supervisor its whole subtree is given up, since nobody would look after it.

    Returns:
        the paths of those that were given up.
    """
    given_up = [path]
    spec.handle.detach(ref)
    if isinstance(ref.actor_inbox, Mailbox):
        ref.actor_inbox.abandoned = True
    ref.stop(block=False)  # wakes it should it only be waiting
    ref.actor_stopped.set()
    pykka.ActorRegistry.unregister(ref)
    if isinstance(spec.start, Subtree):
        for below in spec.start.children:
            below_ref = below.handle.ref
            if below_ref is not None:
                given_up += abandon(below, below_ref, f"{path}/{below.name}")
    return given_up
