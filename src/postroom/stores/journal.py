"""The journal of events: written in the transaction of what happened, read by number.

The numbers are given in commit order, because a transaction begins by taking the write lock: who has read up to a
number never misses one below it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from postroom.events import Event
from postroom.notifying.codec import encode
from postroom.stores.inbox_base import JournalRow
from postroom.stores.values import storable

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["SqliteJournal", "bounds", "read_cursors", "read_events"]

FORGOTTEN = "events forgotten"
"""The fact that tells the last number that is gone."""


class SqliteJournal:
    """See :class:`postroom.stores.inbox_base.Journal`.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: "sqlite3.Connection") -> None:
        self._connection = connection

    def write(self, events: Sequence[Event]) -> None:
        """Append events; see the protocol."""
        rows = [(event.at, *encode(event)) for event in events]
        self._connection.executemany(
            "INSERT INTO event (at, kind, data) VALUES (?, ?, ?)",
            [(at, kind, storable(data)) for at, kind, data in rows],
        )

    def advance(self, name: str, position: int, before: int | None, now: float) -> bool:
        """Set a named cursor; see the protocol."""
        if before is None:
            statement = (
                "INSERT INTO event_cursor (name, position, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            )
            parameters: tuple[object, ...] = (name, position, now)
        else:
            statement = "UPDATE event_cursor SET position = ?, at = ? WHERE name = ? AND position = ?"
            parameters = (position, now, name, before)
        return self._connection.execute(statement, parameters).rowcount == 1

    def drop_cursor(self, name: str) -> bool:
        """Forget a named cursor; see the protocol."""
        return self._connection.execute("DELETE FROM event_cursor WHERE name = ?", (name,)).rowcount == 1

    def purge(self, before: float, limit: int) -> int:
        """Forget old events; see the protocol.

        They go from the oldest number on, and only so far as all are old: what is left has no gaps.
        """
        old = [
            (key, at)
            for key, at in self._connection.execute(
                "SELECT id, at FROM event WHERE id > 0 ORDER BY id LIMIT ?", (limit,)
            )
        ]
        last = None
        removed = 0
        for key, at in old:
            if at >= before:
                break
            last, removed = key, removed + 1
        if last is None:
            return 0
        self._connection.execute("DELETE FROM event WHERE id <= ?", (last,))
        self._connection.execute(
            "INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (FORGOTTEN, str(last))
        )
        return removed


def read_events(
    connection: "sqlite3.Connection", after: int, limit: int, kinds: Collection[str] = ()
) -> list[JournalRow]:
    """Return events behind ``after``."""
    if kinds:
        rows = connection.execute(
            "SELECT id, at, kind, data FROM event WHERE id > ? AND kind IN (SELECT value FROM json_each(?))"
            " ORDER BY id LIMIT ?",
            (after, json.dumps(sorted(kinds)), limit),
        )
    else:
        rows = connection.execute(
            "SELECT id, at, kind, data FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        )
    return [JournalRow(*row) for row in rows]


def bounds(connection: "sqlite3.Connection") -> tuple[int, int]:
    """Return the number of the last event that was forgotten, and the last number given."""
    gone = connection.execute("SELECT value FROM fact WHERE name = ?", (FORGOTTEN,)).fetchone()
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
    return (int(gone[0]) if gone else 0), (int(last[0]) if last else 0)


def read_cursors(connection: "sqlite3.Connection") -> Mapping[str, int]:
    """Return the named cursors."""
    return dict(connection.execute("SELECT name, position FROM event_cursor").fetchall())
