"""Clerks: threads that do an actor's errands, which may block on the spool and on other people's code."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar

from postroom.reports.following import Done
from postroom.stores.base import Followup

__all__ = ["Clerks", "Errand", "Worker"]

E = TypeVar("E")
J = TypeVar("J")
R = TypeVar("R")
J_contra = TypeVar("J_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol[J_contra, R_co]):
    """Does what errands are about. Used by one thread, except ``interrupt``."""

    def perform(self, job: J_contra, /) -> R_co:
        """Do it, and return what became of it."""
        ...

    def interrupt(self) -> None:
        """End a wait for other people's code; any thread may say so."""
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...


WAITING_PER_CLERK: Final = 8
"""Errands that wait in memory for each clerk at most; the others wait in the spool."""


@dataclass(eq=False, slots=True)
class Errand:
    """One followup on its way through the follower. Changed by the follower's thread only.

    Attributes:
        followup: as it stands in the spool.
        step: who has it: the store (leasing, answering) or a clerk (working).
        since: monotonic seconds of the last step.
        done: what became of it, once that is known.
        store: the incarnation of the store that was told of it last.
    """

    followup: Followup
    step: Literal["leasing", "working", "answering"]
    since: float
    done: Done | None = None
    store: int = 0


class Clerks(Generic[E, J, R]):
    """Some clerks for errands of one sort, started when they are needed. Used by one thread.

    Args:
        name: of the threads.
        size: how many clerks there may be.
        make: makes the worker of a clerk, in the clerk's thread.
        worked: told each errand and what became of it, in the clerk's thread; must not raise.
        job: what an errand is about.
        waiting: errands that wait in memory for each clerk at most.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - two callers
        self,
        name: str,
        size: int,
        make: Callable[[], Worker[J, R]],
        worked: Callable[[E, R | BaseException], None],
        job: Callable[[E], J],
        waiting: int = WAITING_PER_CLERK,
    ) -> None:
        self._name = name
        self._size = size
        self._make = make
        self._worked = worked
        self._job = job
        self._waiting = waiting
        self._inbox: queue.SimpleQueue[E | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: list[Worker[J, R]] = []
        self._closed = False
        self.held = 0

    @property
    def capacity(self) -> int:
        """Errands that may be in memory, waiting or worked on."""
        return self._size * (self._waiting + 1)

    @property
    def room(self) -> int:
        """Errands that may still be given."""
        return self.capacity - self.held

    def give(self, errand: E) -> None:
        """Have an errand done; it was counted with :meth:`reserve`."""
        self._inbox.put(errand)
        if len(self._threads) < min(self._size, self.held):
            thread = threading.Thread(
                target=self._run, name=f"{self._name}-{len(self._threads) + 1}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def reserve(self) -> None:
        """Count an errand that is about to be given."""
        self.held += 1

    def release(self) -> None:
        """Count an errand that is over, whether it was given or not."""
        self.held -= 1

    def close(self, timeout: float) -> bool:
        """Let the clerks end, what waits undone; return whether they have within ``timeout`` seconds."""
        self._closed = True
        for _ in self._threads:
            self._inbox.put(None)
        for worker in list(self._workers):
            worker.interrupt()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        worker: Worker[J, R] | None = None
        while (errand := self._inbox.get()) is not None and not self._closed:
            outcome: R | BaseException
            try:
                if worker is None:
                    worker = self._make()
                    self._workers.append(worker)
                outcome = worker.perform(self._job(errand))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the clerk goes on
                outcome = error
            if not self._closed:
                self._worked(errand, outcome)
            # Nothing of a message is kept while the clerk waits for the next.
            del errand, outcome
        if worker is not None:
            worker.close()
