"""Forgetting messages altogether."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from postroom.stores.search import forget_indexed

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["forget_messages"]

_TABLES = (
    ("content", "message_id"),
    ("variant", "message_id"),
    ("attempt", "message_id"),
    ("followup", "message_id"),
    ("request", "message_id"),
    ("recipient", "message_id"),
    ("message", "id"),
)

_ORDERED = """
key IN (SELECT ordering_key FROM message WHERE ordering_key IS NOT NULL AND id IN (SELECT value FROM json_each(:keys)))
AND last IN (SELECT value FROM json_each(:keys))
"""
_LET_NOBODY_OVERTAKE = f"""
UPDATE ordering SET last = (SELECT max(after) FROM recipient WHERE message_id = ordering.last)
WHERE {_ORDERED} AND EXISTS (SELECT 1 FROM recipient WHERE message_id = ordering.last AND after IS NOT NULL)
"""  # noqa: S608 - our own text
"""A message that was recalled before its turn hands on whom it waited for, to those that come after it."""
_FORGET_ORDER = f"DELETE FROM ordering WHERE {_ORDERED}"  # noqa: S608 - our own text


def forget_messages(connection: "sqlite3.Connection", keys: Sequence[int]) -> None:
    """Delete complete messages with all that is known of them; what the ledger counted stays counted."""
    forget_indexed(connection, keys)
    parameter = (json.dumps(list(keys)),)
    connection.execute(
        "DELETE FROM idempotency WHERE key IN (SELECT idempotency_key FROM message"
        " WHERE idempotency_key IS NOT NULL AND id IN (SELECT value FROM json_each(?)))",
        parameter,
    )
    connection.execute(_LET_NOBODY_OVERTAKE, {"keys": parameter[0]})
    connection.execute(_FORGET_ORDER, {"keys": parameter[0]})
    for table, column in _TABLES:
        connection.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
            parameter,
        )
