"""Lines of jobs that take turns, one for each tenant, on a level for each priority: parts of the ready jobs.

Plain values with little of their own: who takes what from where, and when, is for the ready jobs to say.
"""

import heapq
from collections import deque

from postroom.active_queue import Job

__all__ = ["WEIGHT", "Level", "Line", "next_line", "turn"]

WEIGHT = 16
"""Jobs of one priority that go before one of the next lower that waits."""

SPARE = 64
"""Lines without jobs that are kept for those who come, since making one is most of what a lone job costs."""


class Line:
    """The jobs of one tenant with one priority."""

    __slots__ = ("entry", "jobs", "level", "open", "shelves", "tag", "tenant")

    def __init__(self, level: "Level", tenant: str, tag: int) -> None:
        self.level = level
        self.tenant = tenant
        self.tag = tag
        self.entry: int | None = None
        self.jobs: deque[Job] = deque()
        self.shelves: dict[str, deque[Job]] = {}
        self.open: deque[str] = deque()

    def head_cost(self) -> int:
        """Return what the next job costs; 0 when there is none but on shelves."""
        if self.open:
            return len(self.shelves[self.open[0]][0].targets)
        return len(self.jobs[0].targets) if self.jobs else 0


class Level:
    """The jobs of one priority: tenants taking turns.

    Attributes:
        active: how many lines have jobs which are not known to be unable to go.
        clock: virtual time: the tag of the line that was served last.
        heap: active lines by tag; an entry that is not its line's present one is void.
        loose: the one active line where there is only one line at all: it need not go through the heap, and stays
            active without jobs until somebody else comes.
        tag: the level's own turn among the levels.
    """

    __slots__ = ("_spare", "active", "clock", "heap", "lines", "loose", "priority", "stride", "tag")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.stride: int = WEIGHT ** (1 - priority)
        self.tag = 0
        self.lines: dict[str, Line] = {}
        self.active = 0
        self.clock = 0
        self.heap: list[tuple[int, int, Line]] = []
        self.loose: Line | None = None
        self._spare: list[Line] = []

    def line(self, tenant: str) -> Line:
        """Return a new line."""
        if not self._spare:
            line = Line(self, tenant, self.clock)
        else:
            line = self._spare.pop()
            line.tenant = tenant
            line.tag = self.clock
        self.lines[tenant] = line
        return line

    def forget(self, line: Line) -> None:
        """Forget a line that has no jobs; the next that comes is spared being made."""
        del self.lines[line.tenant]
        if len(self._spare) < SPARE:
            self._spare.append(line)

    @property
    def busy(self) -> bool:
        """Whether there are jobs that are not known to be unable to go."""
        loose = self.loose
        return self.active > 0 if loose is None else bool(loose.jobs or loose.open)


def next_line(heap: list[tuple[int, int, Line]]) -> Line:
    """Remove and return the line whose turn it is; there must be one."""
    while True:
        _, entry, line = heapq.heappop(heap)
        if line.entry == entry:
            return line


def turn(level: Level) -> tuple[int, int]:
    """Return what the levels take turns by; the higher priority is first where the tags are the same."""
    return level.tag, -level.priority
