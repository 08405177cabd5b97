"""The timer actor: wakes who asked to be woken."""

import heapq
from itertools import count

from postroom.actors.protocol import WakeAt
from postroom.clock import Clock
from postroom.supervision import Handle, MailboxActor

__all__ = ["Agenda", "TimerActor", "wake"]

LONGEST_SLEEP = 30.0
"""Seconds after which the wall clock is looked at again, since it may have been set."""


SLACK = 64
"""Replaced wishes that are kept before it is worth the work to forget them."""


class Agenda:
    """Who wants to be woken when. Plain logic; used by one thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, WakeAt]] = []
        self._latest: dict[tuple[int, str], int] = {}
        self._numbers = count()

    def add(self, wake: WakeAt) -> None:
        """Note a wish; it replaces the earlier one of the same handle and tag."""
        number = next(self._numbers)
        self._latest[id(wake.handle), wake.tag] = number
        heapq.heappush(self._heap, (wake.at, number, wake))
        if len(self._heap) > 2 * len(self._latest) + SLACK:
            # Wishes that were replaced would else stay until their time, which may be hours away.
            self._heap = [entry for entry in self._heap if self._holds(entry)]
            heapq.heapify(self._heap)

    def _holds(self, entry: tuple[float, int, WakeAt]) -> bool:
        """Return whether a wish has not been replaced."""
        _, number, wake = entry
        return self._latest.get((id(wake.handle), wake.tag)) == number

    def __len__(self) -> int:
        """Return how many wishes are kept in memory, replaced ones included."""
        return len(self._heap)

    def next(self) -> float | None:
        """Return when the next wake is due, in wall-clock seconds, or None."""
        while self._heap:
            if self._holds(self._heap[0]):
                return self._heap[0][0]
            heapq.heappop(self._heap)
        return None

    def pop(self, now: float) -> list[WakeAt]:
        """Remove and return the wishes that are due, in order."""
        due: list[WakeAt] = []
        while (at := self.next()) is not None and at <= now:
            _, _, wake = heapq.heappop(self._heap)
            del self._latest[id(wake.handle), wake.tag]
            due.append(wake)
        return due


class TimerActor(MailboxActor):
    """See the module's docstring. Wishes die with the actor: whoever needs one makes it again when it starts.

    Args:
        clock: wall clock for the wishes, monotonic clock for the waiting.
        name: of the thread.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        super().__init__()
        self.name = name
        self.monotonic = clock.monotonic
        self._clock = clock
        self._agenda = Agenda()

    def on_letters(self, letters: list[object]) -> None:
        """Note the wishes."""
        for letter in letters:
            if isinstance(letter, WakeAt):
                self._agenda.add(letter)

    def next_wake(self) -> float | None:
        """Return the next wish's time on the monotonic clock."""
        at = self._agenda.next()
        if at is None:
            return None
        return self._clock.monotonic() + min(max(0.0, at - self._clock.time()), LONGEST_SLEEP)

    def on_wake(self) -> None:
        """Tell those whose time has come."""
        for wake in self._agenda.pop(self._clock.time()):
            wake.handle.tell(wake.letter)


def wake(timer: Handle, at: float, handle: Handle, letter: object, tag: str) -> None:
    """Ask ``timer`` to tell ``letter`` to ``handle`` at wall-clock time ``at``."""
    timer.tell(WakeAt(at, handle, letter, tag))
