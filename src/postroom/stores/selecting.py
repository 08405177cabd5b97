"""Selections in SQL. Reads only.

What SQL can say exactly is said in SQL, so that rows that do not fit are passed over quickly; globs and texts are left
to the very functions that judge records in memory, called from SQL. Pages are in the order of (message, recipient) and
begin behind the last row seen, so that whoever works through them never loses the place while rows change.
"""

import json
from typing import TYPE_CHECKING, Any, Final

from postroom.addresses import Address
from postroom.lanes import destination_of
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.selections import Selection, error_matches, text_matches

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["count_selected", "selected"]

_FIRST_FINAL = min(state for state in State if state.is_final)


def selected(  # noqa: PLR0913 - by keyword
    connection: "sqlite3.Connection",
    selection: Selection,
    *,
    now: float,
    after: tuple[int, int] | None,
    limit: int,
    idle: bool = False,
) -> list[tuple[int, int]]:
    """Return the (message, recipient) numbers of up to ``limit`` recipients that are meant.

    Args:
        connection: any that can read; gets some functions.
        selection: which.
        now: wall-clock seconds.
        after: the last one of the page before, None to begin.
        limit: how many at most.
        idle: only those that wait in the spool for a later time, in nobody's hand, and not because of ``send_at``.
    """
    source, conditions, parameters = _conditions(connection, selection, now)
    if idle:
        conditions.append(
            "r.owner IS NULL AND r.due > ? AND (r.attempts > 0 OR r.crashes > 0 OR EXISTS"
            " (SELECT 1 FROM message AS own WHERE own.id = r.message_id AND own.due <= ?))"
        )
        parameters += [now, now]
    # Message first: it uses the primary key also where no recipient number is to be compared.
    conditions.append("r.message_id >= ? AND (r.message_id, r.idx) > (?, ?)")
    start = after or (-1, -1)
    parameters += [start[0], *start, limit]
    rows = connection.execute(
        f"SELECT r.message_id, r.idx FROM {source} WHERE {' AND '.join(conditions)}"  # noqa: S608 - our own text
        " ORDER BY r.message_id, r.idx LIMIT ?",
        parameters,
    )
    return [(key, index) for key, index in rows]


def count_selected(
    connection: "sqlite3.Connection", selection: Selection, *, now: float, due: bool = False
) -> tuple[int, int]:
    """Return how many recipients are meant, and of how many messages; with ``due`` only those that are due."""
    source, conditions, parameters = _conditions(connection, selection, now)
    if due:
        conditions.append("r.due <= ?")
        parameters.append(now)
    recipients, messages = connection.execute(
        f"SELECT count(*), count(DISTINCT r.message_id) FROM {source}"  # noqa: S608 - our own text
        f" WHERE {' AND '.join(conditions)}",
        parameters,
    ).fetchone()
    return recipients, messages


def _conditions(
    connection: "sqlite3.Connection", selection: Selection, now: float
) -> tuple[str, list[str], list[Any]]:
    """Return the tables, the conditions and their parameters, the cheap conditions first."""
    for function in _FUNCTIONS:
        connection.create_function(
            function.__name__, function.__code__.co_argcount, function, deterministic=True
        )
    conditions: list[str] = []
    parameters: list[Any] = []
    joined = False
    said = set(selection.said)
    for name, condition in _CONDITIONS.items():
        if name in said:
            conditions.append(condition)
            parameters.append(_parameter(selection, name, now))
            joined = joined or "m." in condition
    if "states" in said and not any(state.is_final for state in selection.states):
        # What the partial indices of pending recipients need to be told.
        conditions.append(f"r.state < {int(_FIRST_FINAL)}")
    # The recipients lead: the pages are in their order.
    source = "recipient AS r" + (" CROSS JOIN message AS m ON m.id = r.message_id" if joined else "")
    return source, conditions or ["1"], parameters


def _parameter(selection: Selection, name: str, now: float) -> Any:
    if name == "ids":
        return json.dumps(selection.keys)
    value = getattr(selection, name)
    if name in {"older_than", "newer_than"}:
        return now - value
    return json.dumps(value) if isinstance(value, tuple) else value


def postroom_address(pattern: str, kind: str, value: str) -> bool:
    """Judge an address, for SQL."""
    return text_matches(pattern, f"{kind}:{value}")


def postroom_destination(pattern: str, kind: str, value: str) -> bool:
    """Judge where an address is at, for SQL."""
    return text_matches(pattern, destination_of(Address(kind, value)))


def postroom_error(
    error: str, code: int | None, status: str | None, text: str | None, remote: str | None
) -> bool:
    """Judge what was said last, for SQL; the reader makes replies in the same way."""
    if code is None and status is None and text is None:
        return False
    return error_matches(error, Reply(text or "", status or "", code, remote or ""))


def postroom_subject(part: str, subject: str | None) -> bool:
    """Judge a subject, for SQL."""
    return part.casefold() in (subject or "").casefold()


_FUNCTIONS: Final = (postroom_address, postroom_destination, postroom_error, postroom_subject, text_matches)

_CONDITIONS: Final = {
    "ids": "r.message_id IN (SELECT value FROM json_each(?))",
    "recipients": "r.idx IN (SELECT value FROM json_each(?))",
    "states": "r.state IN (SELECT value FROM json_each(?))",
    "transport": "r.transport = ?",
    "address_type": "r.address_type = ?",
    "tenant": "coalesce(m.tenant, '') = ?",
    "older_than": "m.created <= ?",
    "newer_than": "m.created > ?",
    "address": "postroom_address(?, r.address_type, r.address)",
    "destination": "postroom_destination(?, r.address_type, r.address)",
    "error": "postroom_error(?, r.reply_code, r.reply_status, r.reply_text, r.remote)",
    "sender": "text_matches(?, m.sender)",
    "subject": "postroom_subject(?, m.subject)",
}
"""The condition for each field of a selection; the field's value is its parameter."""
