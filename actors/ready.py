"""The jobs of a transport that wait in memory for a courier, in the order in which they are to be sent."""

from collections import deque
from collections.abc import Iterable

from postroom.active_queue import Job

__all__ = ["ReadyJobs"]


class ReadyJobs:
    """Urgent jobs before normal before non-urgent ones; those of one priority in the order in which they came.

    Used by one thread.
    """

    __slots__ = ("_non_urgent", "_normal", "_of", "_urgent")

    def __init__(self) -> None:
        self._urgent: deque[Job] = deque()
        self._normal: deque[Job] = deque()
        self._non_urgent: deque[Job] = deque()
        self._of = {1: self._urgent, 0: self._normal, -1: self._non_urgent}

    def __bool__(self) -> bool:
        return bool(self._normal or self._urgent or self._non_urgent)

    @property
    def top(self) -> int | None:
        """The priority of the next job; None without one."""
        for priority, jobs in self._of.items():
            if jobs:
                return priority
        return None

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs behind those that are there."""
        of = self._of
        for job in jobs:
            of[job.priority].append(job)

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Put jobs back before those that are there; they keep their order among themselves."""
        for job in reversed(list(jobs)):
            self._of[job.priority].appendleft(job)

    def pop(self) -> Job:
        """Remove and return the next job; there must be one."""
        return (self._urgent or self._normal or self._non_urgent).popleft()
