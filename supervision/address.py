"""The address of a child that outlives the child."""

import threading
from collections.abc import Callable
from typing import Any

import pykka

from postroom.supervision.errors import AskTimeout, ChildUnavailable
from postroom.supervision.inbox import Mailbox
from postroom.supervision.letters import Envelope

__all__ = ["Handle"]


class Handle:
    """A stable address: an ``ActorRef`` dies with its actor, a handle leads to whoever has the place now.

    Thread-safe. Letters told while the child is in ``on_start`` wait for it; letters told while there is no
    child are dropped and counted. A handle belongs to one child of one supervisor at a time.

    Attributes:
        name: the child's name, for messages to people; taken from the ``ChildSpec`` when left empty.
    """

    __slots__ = ("_attached", "_dropped", "_incarnation", "_lock", "_put", "_ref", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._put: Callable[[Envelope[Any]], None] | None = None
        self._ref: pykka.ActorRef[Any] | None = None
        self._incarnation = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._attached = threading.Condition(self._lock)

    def __repr__(self) -> str:
        return f"<Handle {self.name!r}, incarnation {self._incarnation}, alive {self.alive}>"

    def tell(self, letter: object) -> bool:
        """Put a letter into the child's mailbox; return whether there is a child now. Never raises.

        True does not promise that the letter is handled: the child may die before.
        """
        put = self._put
        if put is None:
            self.count_dropped(1)
            return False
        put(Envelope(letter))
        return True

    def ask(self, letter: object, timeout: float) -> Any:
        """Return the child's answer to a letter.

        Args:
            letter: what to ask.
            timeout: seconds to wait for the answer.

        Raises:
            ChildUnavailable: there is no child now, or it died before it answered.
            AskTimeout: (a ``ChildUnavailable``) it did not answer in time.
            Exception: what the child's ``on_ask`` raised.
        """
        ref = self._ref
        if ref is None or not ref.is_alive():
            self.count_dropped(1)
            raise ChildUnavailable(f"{self.name} is not running", sent=False)
        future: pykka.Future[Any] = ref.ask(letter, block=False)
        if isinstance(ref.actor_inbox, Mailbox) and ref.actor_inbox.ended:
            # The child ended between the look and the letter, so that nobody is left to refuse it.
            ref.actor_inbox.drain()
        try:
            return future.get(timeout=timeout)
        except pykka.ActorDeadError as dead:
            raise ChildUnavailable(f"{self.name} died before it answered", sent=True) from dead
        except pykka.Timeout as late:
            raise AskTimeout(f"{self.name} did not answer within {timeout:g} s") from late

    @property
    def alive(self) -> bool:
        """Whether there is a child now."""
        ref = self._ref
        return ref is not None and ref.is_alive()

    @property
    def incarnation(self) -> int:
        """How many children have had this address; grows by one at each start."""
        return self._incarnation

    @property
    def dropped(self) -> int:
        """Letters told while there was no child, or still waiting when the child ended."""
        return self._dropped

    @property
    def ref(self) -> pykka.ActorRef[Any] | None:
        """The present child's own reference, which dies with it; None when there is no child."""
        return self._ref

    def depth(self) -> int:
        """Return how many letters wait in the child's mailbox; 0 when there is no child or it cannot say."""
        ref = self._ref
        return ref.actor_inbox.qsize() if ref is not None and isinstance(ref.actor_inbox, Mailbox) else 0

    def attach(self, ref: pykka.ActorRef[Any], after: int | None = None) -> bool:
        """Lead to a new child from now on. For supervisors.

        Args:
            ref: the child.
            after: the incarnation that it was made to follow; when there has been another since, as when a
                supervisor was abandoned while it made this one, nothing changes. None attaches in any case.

        Returns:
            whether the handle leads to this child now.
        """
        with self._lock:
            if after is not None and after != self._incarnation:
                return False
            self._incarnation += 1
            self._ref = ref
            self._put = ref.actor_inbox.put
            self._attached.notify_all()
            return True

    def wait_for(self, ref: pykka.ActorRef[Any], timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until the handle leads to this child; return whether it does.

        For a child whose ``on_start`` makes others answer to its handle: it runs before the supervisor has seen
        the child.
        """
        with self._lock:
            return self._attached.wait_for(lambda: self._ref is ref, timeout)

    def detach(self, ref: pykka.ActorRef[Any]) -> None:
        """Lead nowhere, if it is this child that the handle leads to. For supervisors."""
        with self._lock:
            if self._ref is ref:
                self._ref = self._put = None

    def count_dropped(self, letters: int) -> None:
        """Add to ``dropped``. For supervisors."""
        with self._lock:
            self._dropped += letters
