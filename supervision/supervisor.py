"""The supervisor as its owner sees it."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pykka
from tenacity.wait import wait_base

from postroom.supervision.address import Handle
from postroom.supervision.children import abandon
from postroom.supervision.decisions import wait_restart
from postroom.supervision.errors import StartTimeout, SupervisionError, SupervisorStateError, UnknownChild
from postroom.supervision.events import ChildRow, ChildState, SupervisionEvent
from postroom.supervision.inbox import Mailbox
from postroom.supervision.intensity import Intensity
from postroom.supervision.keeper import Keeper, Shutdown
from postroom.supervision.letters import Crash, Envelope
from postroom.supervision.specs import ChildSpec, Strategy, Subtree, walk
from postroom.supervision.tree import Tree

__all__ = ["Supervisor"]


def _ignore(event: SupervisionEvent) -> None:
    del event


class Supervisor:
    """Starts children in order, restarts those that fail, and stops them in reverse order. Thread-safe.

    It has a (daemon) thread of its own, installs no signal handler and never ends the process. A child that
    fails too often is down and tried again at the capped back-off; it is never given up. It can be started
    once: after ``stop()``, or a ``start()`` that raised, make a new one (the same specs will do).

    Args:
        name: begins the names of its threads.
        specs: the children in start order; a subtree is a ``supervisor_child``. The whole tree is one literal
            list.
        strategy: who is restarted when one is.
        intensity: how many restarts of one child in which period are too many.
        quiet_after: seconds a child must run before its earlier failures are forgotten.
        backoff: a tenacity wait: seconds between restarts where a spec has none of its own. By default 0.05
            s, doubled at each restart, up to 30 s, with jitter.
        monotonic: the clock, in seconds; due times are noticed within ``poll_interval`` if it jumps.
        on_event: called with each :data:`SupervisionEvent` in a supervisor's thread (each subtree has its
            own), so it must be quick; what it raises is logged and otherwise ignored.
        poll_interval: seconds between looks at who is alive and who hangs.
    """

    def __init__(  # noqa: PLR0913 - its settings, by keyword
        self,
        name: str,
        specs: Sequence[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        quiet_after: float = 60.0,
        backoff: wait_base | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        on_event: Callable[[SupervisionEvent], None] = _ignore,
        poll_interval: float = 1.0,
    ) -> None:
        if not poll_interval > 0:
            raise ValueError(f"poll_interval: {poll_interval} is not positive; give seconds above 0")
        self.name = name
        self._subtree = Subtree(tuple(specs), strategy, intensity or Intensity(), quiet_after, backoff)
        self._specs = dict(walk(self._subtree.children))
        self._tree = Tree(name, monotonic, poll_interval, on_event)
        self._lock = threading.Lock()
        self._stopping = threading.Lock()
        self._used = False
        self._stopped: tuple[str, ...] | None = None
        self._root: pykka.ActorRef[Any] | None = None
        self._settled = threading.Event()
        self._ended = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor ended by an essential child's failure."""
        return self._root is not None and self._stopped is None and not self._ended.is_set()

    def start(self, timeout: float = 30.0) -> None:
        """Start the children in order and return when each had its try.

        A child whose start fails is tried again in the background, unless it is essential: then those that
        run already are stopped again and its own exception is raised. Where children depend on each other
        (rest-for-one and one-for-all), those after one that failed wait for it in the background too.

        Args:
            timeout: seconds to wait. When they are over and every essential child is up, the rest goes on in
                the background.

        Raises:
            SupervisorStateError: it was started or stopped before.
            StartTimeout: an essential child was not up in time; everything is being stopped in the
                background.
            Exception: what an essential child failed with. A ``SystemExit`` and the like come wrapped in a
                ``SupervisionError``, so that they do not end the caller.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._used:
                raise SupervisorStateError(
                    f"{self.name} was started or stopped before; make a new Supervisor"
                )
            self._used = True
            root = self._root = Keeper.start(self._tree, "", self._subtree, wait_restart())
        _mailbox(root).watch(on_ready=self._settled.set, on_close=lambda: None, on_exit=self._root_ended)
        settled = self._settled.wait(timeout)
        fatal = self._tree.fatal
        if fatal is not None:
            self._ended.wait(max(0.0, deadline - time.monotonic()))
            self._stopped = ()
            if isinstance(fatal, Exception):
                raise fatal
            raise SupervisionError(f"an essential child failed at its first start: {fatal!r}") from fatal
        if not settled:
            self._check_essential(root, timeout)

    def stop(self, timeout: float = 30.0) -> tuple[str, ...]:
        """Stop the children in reverse order, each within its ``stop_timeout``, then the supervisor.

        Pending back-offs are cut short. Whoever does not come back in time is abandoned: its thread, a
        daemon, is left behind and ends as soon as it comes back. When ``timeout`` is less than the stop
        timeouts together, each child has its share of it.

        Args:
            timeout: seconds after which it returns in any case.

        Returns:
            the paths of those that had to be abandoned (the supervisor's own name if it was hung itself); the
            same again when it is called again.

        Raises:
            SupervisorStateError: another thread's ``stop()`` is still under way after ``timeout``.
        """
        if not self._stopping.acquire(timeout=timeout):
            raise SupervisorStateError(f"{self.name} is being stopped by another thread")
        try:
            with self._lock:
                self._used = True
                root = self._root
            if self._stopped is None:
                self._stopped = () if root is None else self._stop_root(root, timeout)
            return self._stopped
        finally:
            self._stopping.release()

    def children(self) -> tuple[ChildRow, ...]:
        """Return how each child of the tree stands, parents before children, in start order."""
        rows = self._tree.rows
        return tuple(rows.get(path) or ChildRow(path, ChildState.WAITING) for path in self._specs)

    def handle(self, name: str) -> Handle:
        """Return the stable address of a child.

        Args:
            name: its path, for example ``transports/smtp``.

        Raises:
            UnknownChild: there is no such child.
        """
        return self._spec(name).handle

    def crash(self, name: str, reason: str = "asked to crash") -> bool:
        """Make a child fail in its turn, by a letter, to see what follows; for tests and demonstrations.

        Only a :class:`MailboxActor`, and a supervisor, understands the letter.

        Args:
            name: its path.
            reason: the text of the exception.

        Returns:
            False when the child is not alive now.

        Raises:
            UnknownChild: there is no such child.
        """
        return self._spec(name).handle.tell(Crash(reason))

    def _spec(self, name: str) -> ChildSpec:
        try:
            return self._specs[name]
        except KeyError:
            known = ", ".join(self._specs) or "none"
            raise UnknownChild(f"{self.name} has no child {name!r}; there are: {known}") from None

    def _root_ended(self, failure: BaseException | None) -> None:
        del failure  # it was logged where it happened; an essential child's is in the tree
        self._ended.set()
        self._settled.set()

    def _check_essential(self, root: pykka.ActorRef[Any], timeout: float) -> None:
        late = [
            spec.name
            for spec, row in zip(self._specs.values(), self.children(), strict=True)
            if spec.essential and "/" not in row.name and row.state is not ChildState.RUNNING
        ]
        if late:
            self._stopped = ()
            allowance = sum(spec.stop_timeout for spec in self._subtree.children)
            root.actor_inbox.put(Envelope(Shutdown(self._tree.monotonic() + allowance)))
            raise StartTimeout(f"{', '.join(late)} did not start within {timeout:g} s")

    def _stop_root(self, root: pykka.ActorRef[Any], timeout: float) -> tuple[str, ...]:
        deadline = time.monotonic() + timeout
        if root.is_alive():
            # A little less, so that the keeper can still say whom it had to abandon.
            root.actor_inbox.put(Envelope(Shutdown(self._tree.monotonic() + 0.9 * timeout)))
        if self._ended.wait(timeout):
            thread = _mailbox(root).thread
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
            return tuple(self._tree.abandoned)
        # The keeper itself hangs, most likely in a child's factory: nobody else can take the children down.
        whole = ChildSpec(self.name, self._subtree)
        own, *others = abandon(whole, root, self.name)
        prefix = f"{self.name}/"
        return (*self._tree.abandoned, *(path.removeprefix(prefix) for path in others), own)


def _mailbox(ref: pykka.ActorRef[Any]) -> Mailbox:
    inbox = ref.actor_inbox
    assert isinstance(inbox, Mailbox)  # noqa: S101 - keepers are mailbox actors
    return inbox
