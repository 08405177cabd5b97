"""What is told to an actor's handle, for tests that drive the actors around it by hand."""

import queue
from typing import TYPE_CHECKING, Any, cast

from postroom.supervision import Handle
from tests.support.spooling import PATIENCE

if TYPE_CHECKING:
    from pykka import ActorRef

__all__ = ["Letters"]


class Letters:
    """What is told to a handle; looks to it like a child's reference."""

    def __init__(self, handle: Handle) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._handle = handle
        self.actor_inbox = self
        self.attach()

    def attach(self) -> None:
        """Be told what the handle is told from now on."""
        self._handle.attach(cast("ActorRef[Any]", self))

    def detach(self) -> None:
        """Be as an actor that has ended."""
        self._handle.detach(cast("ActorRef[Any]", self))

    def put(self, envelope: Any) -> None:
        """Take what pykka puts into an inbox."""
        self._queue.put(envelope.message)

    def next(self) -> Any:
        """Wait for the next letter."""
        return self._queue.get(timeout=PATIENCE)

    @property
    def empty(self) -> bool:
        """Whether there is none."""
        return self._queue.empty()
