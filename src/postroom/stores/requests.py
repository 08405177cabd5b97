"""What an operator in one process wants done with recipients that another has in hand.

Only the owner of a recipient can take it out of its memory, so the wish is written down, and the owner performs it at
its next look at the spool. A request whose addressee is gone is anybody's: the recipients are then in the spool, or
with whoever adopted them.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, cast

from postroom.stores.base import Action, Control, Request, storable

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["insert_probe", "insert_requests", "take_requests"]

_TAKE = """
DELETE FROM request WHERE id IN (
    SELECT id FROM request WHERE node = ? OR node NOT IN (SELECT node FROM instance) ORDER BY id LIMIT ?
)
RETURNING id, action, argument, operator, reason, message_id, indices
"""


def insert_requests(
    connection: "sqlite3.Connection",
    action: Action,
    key: int,
    owners: Iterable[tuple[int, Collection[int]]],
    now: float,
) -> None:
    """Ask other instances to act on recipients of one message that they own.

    Args:
        connection: the writer's, within its transaction.
        action: what is wanted.
        key: the message.
        owners: (instance, the indices of its recipients).
        now: wall-clock seconds.
    """
    _insert(connection, action, [(node, key, json.dumps(sorted(indices))) for node, indices in owners], now)


def insert_probe(connection: "sqlite3.Connection", action: Action, node: int, now: float) -> int:
    """Ask all instances but ``node`` to probe what is parked; returns how many there are."""
    others = [
        (other, 0, None)
        for (other,) in connection.execute("SELECT node FROM instance WHERE node <> ?", (node,))
    ]
    _insert(connection, action, others, now)
    return len(others)


def _insert(
    connection: "sqlite3.Connection",
    action: Action,
    rows: Iterable[tuple[int, int, str | None]],
    now: float,
) -> None:
    connection.executemany(
        "INSERT INTO request (node, at, action, message_id, indices, argument, operator, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (node, now, action.kind, key, indices, storable(action.argument), storable(action.operator),
             storable(action.reason))
            for node, key, indices in rows
        ],
    )  # fmt: skip


def take_requests(connection: "sqlite3.Connection", node: int, limit: int) -> Sequence[Request]:
    """Remove and return, in the order in which they were made, up to ``limit`` requests to ``node``.

    Those to instances that are gone are returned too.
    """
    rows = sorted(connection.execute(_TAKE, (node, limit)).fetchall())
    return [
        Request(
            number,
            Action(cast("Control", kind), argument or "", operator or "", reason or ""),
            key,
            None if indices is None else tuple(json.loads(indices)),
        )
        for number, kind, argument, operator, reason, key, indices in rows
    ]
