"""Forgetting what is old, in small steps.

Messages are visited in the order of their ids, hence of their age, so no index on a completion time is needed (it would
cost every delivery a write). A round ends at the age limit and begins again at the oldest; a step is one short
transaction, so that accepting never waits for more than a step.
"""

import json
from typing import TYPE_CHECKING

from postroom.ids import key_at

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["OLD", "Purger"]

OLD = """
SELECT m.id, max(r.state < 10), max(coalesce(r.changed, m.created)),
    EXISTS (SELECT 1 FROM content AS c WHERE c.message_id = m.id)
FROM message AS m CROSS JOIN recipient AS r ON r.message_id = m.id
WHERE m.id > ? AND m.id < ? GROUP BY m.id ORDER BY m.id LIMIT ?
"""


class Purger:
    """Walks a spool's messages; holds the place where it is. Used by the store's thread.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: "sqlite3.Connection") -> None:
        self._connection = connection
        self._position = 0

    def purge(self, before: float | None, content_before: float, limit: int) -> int:
        """Look at the next ``limit`` messages older than both times; returns how many, 0 at the end of a round."""
        horizon = key_at(max(before or 0.0, content_before))
        rows = self._connection.execute(OLD, (self._position, horizon, limit)).fetchall()
        if not rows:
            self._position = 0
            return 0
        self._position = rows[-1][0]
        complete = [(key, changed, kept) for key, pending, changed, kept in rows if not pending]
        forget = [key for key, changed, _ in complete if before is not None and changed < before]
        drop = [key for key, changed, kept in complete if kept and changed < content_before]
        if drop:
            self._delete("content", "message_id", drop)
        if forget:
            for table, column in (
                ("content", "message_id"), ("attempt", "message_id"), ("recipient", "message_id"), ("message", "id"),
            ):  # fmt: skip
                self._delete(table, column, forget, keys_too=table == "message")
        return len(rows)

    def _delete(self, table: str, column: str, keys: list[int], *, keys_too: bool = False) -> None:
        parameter = (json.dumps(keys),)
        if keys_too:
            self._connection.execute(
                "DELETE FROM idempotency WHERE key IN (SELECT idempotency_key FROM message"
                " WHERE idempotency_key IS NOT NULL AND id IN (SELECT value FROM json_each(?)))",
                parameter,
            )
        self._connection.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
            parameter,
        )
