"""The jobs of a transport that wait in memory for a courier, and whose turn it is.

Three rules, one inside the other:

- *Priorities* share the transport by weight, so that a stream of urgent jobs never starves the others: up to ``WEIGHT``
  jobs of a priority go before one of the next lower.
- *Tenants* of one priority take turns, counted in recipients.
- Of one tenant the first comes first, except that a job whose destination cannot be tried now steps aside (onto a
  *shelf*) and is taken up again when its destination can.

Turns follow self-clocked fair queueing (Golestani, *A Self-Clocked Fair Queueing Scheme*, INFOCOM 1994): whoever waits
has a tag, its turn's end in virtual time; the smallest is next, and its tag is what the virtual clock shows. Unlike
deficit round robin this serves a tenant who comes with one job at once, whatever the others' jobs weigh, and an absent
tenant needs no memory.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count

from postroom.active_queue import Job
from postroom.actors.lines import WEIGHT, Level, Line, next_line, turn

__all__ = ["WEIGHT", "ReadyJobs"]

Eligible = Callable[[str], bool]


class ReadyJobs:
    """See the module's docstring. Used by one thread.

    Args:
        rotate: whether tenants take turns; else the order is that of coming, whoever sent it.

    Attributes:
        shelved: jobs that stepped aside, by destination.
        aside: how many they are together.
    """

    def __init__(self, *, rotate: bool = True) -> None:
        self._rotate = rotate
        self._of = {priority: Level(priority) for priority in (1, 0, -1)}
        self._levels: list[Level] = []
        self._clock = 0
        self._numbers = count()
        self._waiting: dict[str, deque[Line]] = {}
        self._partly: set[str] = set()
        self.shelved: dict[str, int] = {}
        self.aside = 0

    def __bool__(self) -> bool:
        """Whether there are jobs that are not known to be unable to go."""
        for level in self._levels:
            if level.busy:
                return True
        return bool(self._partly)

    @property
    def top(self) -> int | None:
        """The highest priority with a job that may go; None without one."""
        return max((level.priority for level in self._levels if level.busy), default=None)

    def has(self, priority: int) -> bool:
        """Return whether there are jobs of a priority that are not known to be unable to go."""
        return self._of[priority].busy

    # In

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs behind those that are there."""
        of, rotate = self._of, self._rotate
        for job in jobs:
            level = of[job.priority]
            tenant = job.tenant if rotate else ""
            line = level.lines.get(tenant)
            if line is None:
                line = level.line(tenant)
            line.jobs.append(job)
            if line.entry is None:
                self._activate(line)
            elif line is level.loose and len(line.jobs) == 1:
                self._refill(level)

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Put jobs that were popped back where they were; they keep their order among themselves."""
        moved: dict[int, Line] = {}
        for job in reversed(list(jobs)):
            level = self._of[job.priority]
            tenant = job.tenant if self._rotate else ""
            line = level.lines.get(tenant)
            if line is None:
                line = level.line(tenant)
            shelf = line.shelves.get(job.destination)
            if shelf is None:
                line.jobs.appendleft(job)
            else:
                shelf.appendleft(job)
                self.shelved[job.destination] += 1
                self.aside += 1
            # The turn that was not taken is had again.
            line.tag -= len(job.targets)
            level.tag -= level.stride
            moved[id(line)] = line
        for line in moved.values():
            if line.entry is not None:
                self._enter(line)
            elif line.jobs or line.open:
                self._activate(line, again=True)
            line.level.clock = min(line.level.clock, line.tag - line.head_cost())
        if moved:
            # The virtual clock goes back with them, or whoever comes next would stand behind what has not happened.
            starts = [level.tag - level.stride for level in self._levels if level.busy]
            self._clock = min(self._clock, max(starts, default=self._clock))

    def _activate(self, line: Line, *, again: bool = False) -> None:
        """Let a line take turns; its first is no earlier than that of one who comes now, unless it had one already."""
        level = line.level
        if not again:
            line.tag = max(line.tag, level.clock + line.head_cost())
        if not level.active:
            self._levels.append(level)
        if not again and not level.busy:
            self._refill(level)
        level.active += 1
        self._enter(line)

    def _refill(self, level: Level) -> None:
        """Let a level take turns again: what it missed while it had no jobs is not made up for."""
        level.tag = max(level.tag, self._clock + level.stride)

    def _enter(self, line: Line) -> None:
        """Give an active line its place among the others by its tag."""
        level = line.level
        line.entry = next(self._numbers)
        if len(level.lines) == 1:
            level.loose = line
            level.heap.clear()
            return
        loose = level.loose
        if loose is not None:
            level.loose = None
            if loose is not line and loose.entry is not None:
                heapq.heappush(level.heap, (loose.tag, loose.entry, loose))
        heapq.heappush(level.heap, (line.tag, line.entry, line))

    # Out

    def pop(self, eligible: Eligible | None = None) -> Job | None:
        """Remove and return the next job whose destination is ``eligible``; None when there is none.

        Without ``eligible`` every destination is; what stands on a shelf waits for :meth:`unblock` all the same.
        """
        levels = self._levels
        if eligible is None and len(levels) == 1:
            # Nearly always: one priority, one tenant, and nobody steps aside.
            level = levels[0]
            loose = level.loose
            if loose is not None and not loose.shelves:
                if loose.jobs:
                    job = loose.jobs.popleft()
                    self._clock = level.tag
                    level.tag += level.stride
                    level.clock = loose.tag
                    loose.tag += len(job.targets)
                    return job
                if not self._partly:
                    return None
        return self._pop_next(eligible)

    def _pop_next(self, eligible: Eligible | None) -> Job | None:
        levels = self._levels
        while True:
            if not levels:
                if not self._partly:
                    return None
                self.unblock(self._partly.pop())
                continue
            level = levels[0] if len(levels) == 1 else min(levels, key=turn)
            line = level.loose or next_line(level.heap)
            job = self._take(line, eligible)
            if job is None:
                self._deactivate(line)
                continue
            self._clock = level.tag
            level.tag += level.stride
            level.clock = line.tag
            if line is level.loose:
                line.tag += len(job.targets)
            elif line.jobs or line.open:
                line.tag += len(job.targets)
                self._enter(line)
            else:
                self._deactivate(line)
            return job

    def _take(self, line: Line, eligible: Eligible | None) -> Job | None:
        """Remove and return the first job of a line that can go, and put those before it on shelves."""
        jobs, shelves = line.jobs, line.shelves
        while line.open:
            destination = line.open[0]
            if eligible is None or eligible(destination):
                shelf = shelves[destination]
                job = shelf.popleft()
                self._unshelve(destination)
                if not shelf:
                    del shelves[destination]
                    line.open.popleft()
                return job
            line.open.popleft()
            self._wait(line, destination)
        while jobs:
            job = jobs.popleft()
            destination = job.destination
            aside = shelves.get(destination)
            if aside is None:
                if eligible is None or eligible(destination):
                    return job
                aside = shelves[destination] = deque()
                self._wait(line, destination)
            aside.append(job)
            self.shelved[destination] = self.shelved.get(destination, 0) + 1
            self.aside += 1
        return None

    def _wait(self, line: Line, destination: str) -> None:
        self._waiting.setdefault(destination, deque()).append(line)

    def _unshelve(self, destination: str, number: int = 1) -> None:
        self.aside -= number
        left = self.shelved[destination] - number
        if left:
            self.shelved[destination] = left
        else:
            del self.shelved[destination]

    def _deactivate(self, line: Line) -> None:
        """Take a line that has nothing to go out of the rotation."""
        level = line.level
        line.entry = None
        if level.loose is line:
            level.loose = None
        level.active -= 1
        if not line.shelves and not line.jobs:
            level.forget(line)
        if not level.active:
            level.heap.clear()
            self._levels.remove(level)

    # Shelves

    def unblock(self, destination: str, number: int | None = None) -> None:
        """Take up again what stands aside for a destination that may be tried: of ``number`` lines, None for all.

        Fewer are enough where fewer attempts are free; the others are taken up when nothing else is to do.
        """
        waiting = self._waiting.get(destination)
        if waiting is None:
            return
        for _ in range(len(waiting) if number is None else min(number, len(waiting))):
            line = waiting.popleft()
            if destination not in line.shelves:
                continue
            idle = not line.level.busy
            line.open.append(destination)
            if line.entry is None:
                self._activate(line)
            elif idle:
                self._refill(line.level)
        if waiting:
            self._partly.add(destination)
        else:
            del self._waiting[destination]
            self._partly.discard(destination)

    def unblock_all(self) -> None:
        """Take up again all that stands aside."""
        for destination in list(self._waiting):
            self.unblock(destination)

    def withdraw(self, destination: str, number: int) -> list[Job]:
        """Remove and return up to ``number`` jobs that stand aside for a destination, the last to come first."""
        taken: list[Job] = []
        for line in reversed(self._waiting.get(destination, ())):
            shelf = line.shelves.get(destination)
            while shelf and len(taken) < number:
                taken.append(shelf.pop())
            if shelf is not None and not shelf:
                del line.shelves[destination]
                if line.entry is None and not line.shelves and not line.jobs:
                    line.level.forget(line)
        if taken:
            self._unshelve(destination, len(taken))
            self._waiting[destination] = deque(
                line for line in self._waiting[destination] if destination in line.shelves
            )
            if not self._waiting[destination]:
                del self._waiting[destination]
                self._partly.discard(destination)
        return taken

    def drain(self) -> list[Job]:
        """Remove and return all jobs, those that stand aside too."""
        jobs = [
            job
            for level in self._of.values()
            for line in level.lines.values()
            for jobs in (*line.shelves.values(), line.jobs)
            for job in jobs
        ]
        for level in self._of.values():
            level.lines.clear()
            level.heap.clear()
            level.active = 0
            level.loose = None
        self._levels.clear()
        self._waiting.clear()
        self._partly.clear()
        self.shelved.clear()
        self.aside = 0
        return jobs
