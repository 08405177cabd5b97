"""Taking due work out of the spool, fairly.

As long as everything that is due fits, it is taken in order. When more is due than fits, the tenants that have work get
equal parts of the room, and within a tenant its destinations do, so that nobody's backlog stands before somebody else's
single message; lanes of destinations that are blocked are passed over without touching their rows.

The walk over the lanes begins at a random place each time: with more lanes than are looked at in one claim all get
their turn, without anything to be remembered.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

from postroom.lanes import LANE_MASK
from postroom.stores import sql

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["PRIORITIES", "SHARES", "Claimer", "share_out"]

PRIORITIES = (1, 0, -1)

SHARES = {1: 16, 0: 4, -1: 1}
"""Parts of the room that a priority gets at least while it has work: a lower one is slowed, never starved."""

MOST_LANES = 64
"""Tenants looked at in one claim, and destinations of each."""

_MAX_LANE = 2**63 - 1
_PRIORITY = 12
"""Where the priority stands in a row of :data:`postroom.stores.sql.CLAIM_ROWS`."""


def share_out(waiting: Mapping[int, Sequence[Any]], limit: int, credit: dict[int, float]) -> list[Any]:
    """Return up to ``limit`` rows: of each priority the share that is due to it, and the rest by priority.

    Args:
        waiting: rows by priority.
        limit: how many there is room for.
        credit: parts of rows that a priority is still owed from earlier times; changed, and nothing else is.
    """
    total = sum(SHARES[priority] for priority, rows in waiting.items() if rows)
    taken: dict[int, int] = {}
    left = limit
    for priority in reversed(PRIORITIES):
        rows = waiting.get(priority, ())
        if not rows:
            credit[priority] = 0.0
            continue
        owed = credit.get(priority, 0.0) + limit * SHARES[priority] / total
        taken[priority] = min(len(rows), int(owed), left)
        credit[priority] = min(owed - taken[priority], 1.0)
        left -= taken[priority]
    for priority in PRIORITIES:
        more = min(left, len(waiting.get(priority, ())) - taken.get(priority, 0))
        if more > 0:
            taken[priority] += more
            left -= more
    return [row for priority in PRIORITIES for row in waiting.get(priority, ())[: taken.get(priority, 0)]]


class Claimer:
    """Finds due rows on one connection. Used by the store's thread.

    Args:
        connection: the writer's.
        start: where randomness comes from: returns a number from 0 to the given one.
    """

    def __init__(
        self,
        connection: "sqlite3.Connection",
        start: Callable[[int], int] = lambda most: random.randint(0, most),  # noqa: S311 - for spreading only
    ) -> None:
        self._connection = connection
        self._start = start
        self._credit: dict[str, dict[int, float]] = {}

    def find(
        self, transport: str, now: float, limit: int, *, fair: bool, blocked: Iterable[str] = ()
    ) -> list[tuple[Any, ...]]:
        """Return up to ``limit`` rows of :data:`postroom.stores.sql.CLAIM_ROWS` to take."""
        shut = frozenset(crc32(destination.encode()) for destination in blocked)
        waiting: dict[int, Sequence[Any]] = {}
        for priority in PRIORITIES:
            if shut and not fair:
                place = (transport, priority, now, json.dumps(sorted(shut)), limit)
                waiting[priority] = self._connection.execute(sql.CLAIM_OPEN, place).fetchall()
                continue
            rows = self._connection.execute(sql.CLAIM_ROWS, (transport, priority, now, limit)).fetchall()
            if shut or (fair and len(rows) == limit):
                rows = self._find_fairly(transport, priority, now, limit, shut, rows)
            waiting[priority] = rows
        taken = share_out(waiting, limit, self._credit.setdefault(transport, {}))
        if fair:
            counts = Counter(row[_PRIORITY] for row in taken)
            cut = [priority for priority, count in counts.items() if count < len(waiting[priority])]
            for priority in cut:
                # What is cut off must not be what came last of all tenants, but of each tenant its last.
                oldest = waiting[priority][: counts[priority]]
                waiting[priority] = self._find_fairly(
                    transport, priority, now, counts[priority], shut, oldest
                )
            if cut:
                return [row for priority in PRIORITIES for row in waiting[priority][: counts[priority]]]
        return taken

    def _find_fairly(  # noqa: PLR0913, PLR0917 - internal
        self,
        transport: str,
        priority: int,
        now: float,
        limit: int,
        shut: frozenset[int],
        oldest: Sequence[Any],
    ) -> list[Any]:
        tenants = self._lanes(transport, priority, LANE_MASK, 0, _MAX_LANE)
        if len(tenants) == 1 and not shut:
            return list(oldest)
        found: list[Any] = []
        queues: list[list[_Lane]] = []
        for tenant in tenants:
            floor = tenant & ~LANE_MASK
            lanes = self._lanes(transport, priority, 0, floor, floor | LANE_MASK)
            queues.append([_Lane(lane) for lane in lanes if lane & LANE_MASK not in shut])
        while len(found) < limit:
            queues = [rest for queue in queues if (rest := [lane for lane in queue if not lane.empty])]
            if not queues:
                break
            for position, queue in enumerate(queues):
                share = -(-(limit - len(found)) // (len(queues) - position))
                found += self._take((transport, priority), queue, now, share)
        found.sort(key=lambda row: (row[8], row[0], row[1]))
        return found

    def _take(
        self, place: tuple[str, int], lanes: "Sequence[_Lane]", now: float, share: int
    ) -> list[tuple[Any, ...]]:
        """Return up to ``share`` rows of one tenant, the same part of each of its destinations as far as it goes."""
        taken: list[tuple[Any, ...]] = []
        for number, lane in enumerate(lanes):
            part = -(-(share - len(taken)) // (len(lanes) - number))
            if part <= 0:
                break
            rows = self._connection.execute(
                sql.CLAIM_LANE, (*place, lane.number, now, part, lane.taken)
            ).fetchall()
            lane.taken += len(rows)
            lane.empty = len(rows) < part
            taken += rows
        return taken

    def _lanes(self, transport: str, priority: int, skip: int, low: int, high: int) -> list[int]:
        """Return lanes that have work, from a random place on and then from the beginning, ``MOST_LANES`` at most."""
        first = low + self._start(high - low)
        values: dict[int, None] = {}
        for begin, end in ((first, high), (low, high)):
            if len(values) >= MOST_LANES:
                break
            parameters = {
                "transport": transport, "priority": priority, "skip": skip, "first": begin, "last": end,
                "most": MOST_LANES,
            }  # fmt: skip
            for (lane,) in self._connection.execute(sql.LANES, parameters):
                # One lane stands for all of its tenant where only tenants are wanted.
                values.setdefault(lane & ~skip if skip else lane)
        return list(values)[:MOST_LANES]


class _Lane:
    __slots__ = ("empty", "number", "taken")

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0
        self.empty = False
