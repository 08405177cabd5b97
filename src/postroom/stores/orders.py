"""Standing orders and the log of operations, in SQL. Within the caller's transaction."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from postroom.stores.base import Action, Operation, Order, storable

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["drop_orders", "log_operation", "read_operations", "read_orders", "set_order"]


def set_order(connection: "sqlite3.Connection", order: Order) -> Order:
    """Record a standing order (``id`` 0 for a new one); returns it with its number.

    Numbers grow, so that of several orders the first given is the one with the smallest number.
    """
    row = (
        order.id or None, order.action, order.selection, storable(order.argument), storable(order.reason),
        storable(order.operator), order.created, order.expires,
    )  # fmt: skip
    (number,) = connection.execute(
        "INSERT OR REPLACE INTO standing_order (id, action, selection, argument, reason, operator, created, expires)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        row,
    ).fetchone()
    return replace(order, id=number)


def drop_orders(connection: "sqlite3.Connection", ids: Collection[int], expired: float | None = None) -> int:
    """Forget standing orders; returns how many there were.

    Args:
        connection: the writer's.
        ids: their numbers.
        expired: also forget those that expired before this wall-clock time.
    """
    dropped = connection.execute(
        "DELETE FROM standing_order WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(sorted(ids)),)
    ).rowcount
    if expired is not None:
        connection.execute("DELETE FROM standing_order WHERE expires < ?", (expired,))
    return dropped


def read_orders(connection: "sqlite3.Connection") -> Sequence[Order]:
    """Return the standing orders in the order in which they were given, expired ones included."""
    rows = connection.execute(
        "SELECT id, action, selection, argument, operator, reason, created, expires FROM standing_order ORDER BY id"
    )
    return [
        Order(number, action, selection, argument or "", operator or "", reason or "", created, expires)
        for number, action, selection, argument, operator, reason, created, expires in rows
    ]


def log_operation(  # noqa: PLR0913, PLR0917 - the protocol's parameters and the connection
    connection: "sqlite3.Connection",
    action: Action,
    selection: str,
    changed: int,
    now: float,
    operation: int | None,
) -> int:
    """Write an entry for what an operator begins (``operation`` None), or that it has ended; returns its number."""
    if operation is not None:
        connection.execute(
            "UPDATE operation SET changed = ?, finished = ? WHERE id = ?", (changed, now, operation)
        )
        return operation
    (number,) = connection.execute(
        "INSERT INTO operation (at, operator, action, selection, argument, reason, changed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (now, storable(action.operator), action.kind, selection, storable(action.argument), storable(action.reason),
         changed),
    ).fetchone()  # fmt: skip
    return int(number)


def read_operations(connection: "sqlite3.Connection", limit: int) -> Sequence[Operation]:
    """Return up to ``limit`` entries of the log of operations, the latest first."""
    rows = connection.execute(
        "SELECT id, at, action, argument, operator, reason, selection, changed, finished FROM operation"
        " ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [
        Operation(
            number,
            at,
            Action(kind, argument or "", operator or "", reason or ""),
            selection,
            changed or 0,
            finished,
        )
        for number, at, kind, argument, operator, reason, selection, changed, finished in rows
    ]
