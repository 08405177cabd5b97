"""Forgetting what is old, in small steps.

There is no index on a completion time (it would cost every delivery a write), so what is old is found by number, hence
by age of submission. Two walks take turns, and each visits only what it is about to remove and what is too young to be
removed although it was submitted long ago: one walks the *contents*, to drop those that were kept long enough, the
other the *messages*, to forget them altogether. An archive that is kept for a year and its content for a day is so
visited once a year and once a day, whatever its size. A third walk removes variants of content (made by
preprocessors) whose message's own content is gone.

A round ends at the age limit and begins again at the oldest; a step is one short transaction, so that accepting never
waits for more than a step. What a report or a sent-hook still needs (a followup) stays until that is done.
"""

import json
from typing import TYPE_CHECKING

from postroom.ids import key_at
from postroom.stores.forgetting import forget_messages

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["OLD", "OLD_CONTENT", "ORPHANS", "Purger"]

_DONE = "max(r.state < 10), max(coalesce(r.changed, m.created))"
_NEEDED = "EXISTS (SELECT 1 FROM followup AS f WHERE f.message_id = m.id AND f.kind IN ('report', 'sent'))"

OLD = f"""
SELECT m.id, {_DONE}, {_NEEDED}
FROM message AS m CROSS JOIN recipient AS r ON r.message_id = m.id
WHERE m.id > ? AND m.id < ? GROUP BY m.id ORDER BY m.id LIMIT ?
"""  # noqa: S608 - our own text

OLD_CONTENT = f"""
SELECT m.id, {_DONE}, {_NEEDED}
FROM content AS c CROSS JOIN message AS m ON m.id = c.message_id CROSS JOIN recipient AS r ON r.message_id = m.id
WHERE c.message_id > ? AND c.message_id < ? GROUP BY c.message_id ORDER BY c.message_id LIMIT ?
"""  # noqa: S608 - our own text

ORPHANS = """
SELECT v.id, EXISTS (SELECT 1 FROM content AS c WHERE c.message_id = v.message_id)
FROM variant AS v WHERE v.id > ? ORDER BY v.id LIMIT ?
"""


class Purger:
    """Walks a spool's messages; holds the places where it is. Used by the store's thread.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: "sqlite3.Connection") -> None:
        self._connection = connection
        self._forgotten = 0
        self._dropped = 0
        self._orphans = 0

    def purge(self, before: float | None, content_before: float, limit: int) -> int:
        """Take a step in each of the walks within the caller's transaction.

        Args:
            before: messages completed before this wall-clock time are forgotten; None: none are.
            content_before: of those completed before this one the octets are dropped.
            limit: rows to look at in each of the walks.

        Returns:
            how many rows the walk that had most to do looked at; 0 at the end of a round.
        """
        forgotten = 0 if before is None else self._forget(before, limit)
        looked = max(forgotten, self._drop(content_before, limit), self._drop_orphans(limit))
        if not looked:
            self._forgotten = self._dropped = self._orphans = 0
        return looked

    def _forget(self, before: float, limit: int) -> int:
        rows = self._connection.execute(OLD, (self._forgotten, key_at(before), limit)).fetchall()
        if rows:
            self._forgotten = rows[-1][0]
            old = [
                key
                for key, pending, changed, needed in rows
                if not pending and not needed and changed < before
            ]
            if old:
                forget_messages(self._connection, old)
        return len(rows)

    def _drop(self, before: float, limit: int) -> int:
        rows = self._connection.execute(OLD_CONTENT, (self._dropped, key_at(before), limit)).fetchall()
        if rows:
            self._dropped = rows[-1][0]
            old = [
                key
                for key, pending, changed, needed in rows
                if not pending and not needed and changed < before
            ]
            for table in ("content", "variant") if old else ():
                self._delete(table, "message_id", old)
        return len(rows)

    def _drop_orphans(self, limit: int) -> int:
        rows = self._connection.execute(ORPHANS, (self._orphans, limit)).fetchall()
        if rows:
            self._orphans = rows[-1][0]
            orphans = [number for number, kept in rows if not kept]
            if orphans:
                self._delete("variant", "id", orphans)
        return len(rows)

    def _delete(self, table: str, column: str, keys: list[int]) -> None:
        self._connection.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
            (json.dumps(keys),),
        )
