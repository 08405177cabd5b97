"""Erasing an address from a spool: everywhere it stands, step by step, so that the ledger stays what it is.

Rows stay, with a tombstone where the address was: what was counted stays counted, and what happened to the other
recipients of a message stays told. Octets of messages to or from the address go, since nobody can take an address out
of a message without breaking it.

Finding is done on read-only connections (:func:`concerned`), so that the writer only has to change what was found
(:func:`erase_step`). Texts are judged by :class:`Traces`, rows by the same: a row is changed exactly where a trace is.
"""

import json
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.stores.base import storable
from postroom.stores.inbox_erasing import erase_inbound_step, erase_journal_step
from postroom.stores.search import index_again
from postroom.traces import Traces

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

    Connection = sqlite3.Connection

__all__ = [
    "Concerned",
    "Erased",
    "concerned",
    "erase_asides",
    "erase_incoming",
    "erase_step",
    "log_erasure",
    "operations_naming",
    "orders_naming",
]

# Finding

_MESSAGE_TEXTS = ("sender", "subject", "message_id", "tenant", "ordering_key", "options", "idempotency_key")
_RECIPIENT_TEXTS = ("address", "options", "reply_text", "remote", "remote_id", "detail")
_ATTEMPT_TEXTS = ("address", "text", "remote", "detail")
_KEYS = frozenset({"ordering_key", "idempotency_key"})
"""Texts that programs made up."""


def _stands(traces: Traces, names: Iterable[str], texts: Iterable[str | None]) -> bool:
    return any(
        traces.in_key(text) if name in _KEYS else traces.in_text(text)
        for name, text in zip(names, texts, strict=True)
    )


def _like(alias: str, columns: Iterable[str], count: int) -> str:
    joined = " || char(10) || ".join(f"coalesce({alias}.{column}, '')" for column in columns)
    return "(" + " OR ".join([f"{joined} LIKE ? ESCAPE '\\'"] * count) + ")"


@dataclass(frozen=True, slots=True)
class Concerned:
    """What was found in a stretch of the spool.

    Attributes:
        keys: messages in which the address stands somewhere.
        pending: those of them that are not complete, with the numbers of the recipients that would have to be recalled
            (None: all, because the message is from the address).
        recipients: recipients that have, had or may get the address.
        senders: messages from the address.
        contents: messages among them whose octets are kept.
        last: the number of the last message looked at; None when that was all.
    """

    keys: tuple[int, ...] = ()
    pending: tuple[tuple[int, tuple[int, ...] | None], ...] = ()
    recipients: int = 0
    senders: int = 0
    contents: int = 0
    last: int | None = None


def concerned(connection: "Connection", traces: Traces, after: int, limit: int) -> Concerned:
    """Look for the address in up to ``limit`` messages behind ``after``; one read transaction is the caller's."""
    bounds = connection.execute(
        "SELECT min(id), max(id), count(*) FROM (SELECT id FROM message WHERE id > ? ORDER BY id LIMIT ?)",
        (after, limit),
    ).fetchone()
    if bounds[0] is None:
        return Concerned()
    first, last, count = bounds
    keys = _found(connection, traces, first, last)
    pending: list[tuple[int, tuple[int, ...] | None]] = []
    recipients = senders = contents = 0
    for key in keys:
        (sender, kept) = connection.execute(
            "SELECT sender, EXISTS (SELECT 1 FROM content WHERE message_id = id) FROM message WHERE id = ?",
            (key,),
        ).fetchone()
        rows = connection.execute(
            "SELECT idx, address_type, address, options, state FROM recipient WHERE message_id = ? ORDER BY idx",
            (key,),
        ).fetchall()
        theirs = [row for row in rows if traces.is_of(row[1], row[2]) or traces.in_text(row[3])]
        from_them = traces.in_text(sender)
        recipients += len(theirs)
        senders += from_them
        contents += kept
        if any(row[4] < 10 for row in rows):
            pending.append((key, None if from_them else tuple(row[0] for row in theirs if row[4] < 10)))
    return Concerned(
        tuple(keys), tuple(pending), recipients, senders, contents, last if count == limit else None
    )


def _found(connection: "Connection", traces: Traces, first: int, last: int) -> list[int]:
    """Return the messages between two numbers in which the address stands anywhere."""
    count = len(traces.likes)
    sources = (
        ("message", "id", _MESSAGE_TEXTS), ("recipient", "message_id", _RECIPIENT_TEXTS),
        ("attempt", "message_id", _ATTEMPT_TEXTS),
    )  # fmt: skip
    found: set[int] = set()
    for table, column, texts in sources:
        rows = connection.execute(
            f"SELECT t.{column}, {', '.join(f't.{text}' for text in texts)} FROM {table} AS t"  # noqa: S608 - our own names
            f" WHERE t.{column} BETWEEN ? AND ? AND {_like('t', texts, count)}",
            (first, last, *traces.likes),
        )
        found.update(row[0] for row in rows if _stands(traces, texts, row[1:]))
    for table in ("content", "variant"):
        for key, octets in connection.execute(
            f"SELECT message_id, data FROM {table} WHERE message_id BETWEEN ? AND ?",  # noqa: S608 - our own names
            (first, last),
        ):
            if key not in found and traces.in_octets(octets):
                found.add(key)
    return sorted(found)


# Erasing


@dataclass(frozen=True, slots=True)
class Erased:
    """What a step changed.

    Attributes:
        messages: changed.
        recipients: that have a tombstone for their address now.
        attempts: rows of history changed.
        contents: messages whose octets went.
        left: messages left alone because they have recipients that are not settled.
    """

    messages: int = 0
    recipients: int = 0
    attempts: int = 0
    contents: int = 0
    left: tuple[int, ...] = ()


def erase_step(connection: "Connection", traces: Traces, keys: Sequence[int]) -> Erased:
    """Erase the address from complete messages, within the caller's transaction.

    Args:
        connection: the writer's.
        traces: what to look for.
        keys: the messages, few enough for one transaction.
    """
    listed = json.dumps(list(keys))
    found = dict(
        connection.execute(
            "SELECT message_id, max(state < 10) FROM recipient WHERE message_id IN (SELECT value FROM json_each(?))"
            " GROUP BY message_id",
            (listed,),
        ).fetchall()
    )
    complete = [key for key, pending in found.items() if not pending]
    listed = json.dumps(complete)
    with _zeroing(connection):
        recipients = _erase_recipients(connection, traces, listed)
        attempts = _erase_texts(connection, traces, "attempt", ("id",), "message_id", _ATTEMPT_TEXTS, listed)
        _erase_messages(connection, traces, listed)
        dropped = [
            connection.execute(
                f"DELETE FROM {table} WHERE message_id IN (SELECT value FROM json_each(?))",  # noqa: S608 - our names
                (listed,),
            ).rowcount
            for table in ("content", "variant")
        ]
        index_again(connection, complete)
    left = tuple(key for key in keys if found.get(key))
    return Erased(len(complete), recipients, attempts, dropped[0], left)


def erase_incoming(connection: "Connection", traces: Traces, keys: Sequence[int]) -> int:
    """Erase the address from filed incoming messages, within the caller's transaction; returns how many contents went.

    Args:
        connection: the writer's.
        traces: what to look for.
        keys: the messages, few enough for one transaction.
    """
    with _zeroing(connection):
        return erase_inbound_step(connection, traces, keys)


@contextmanager
def _zeroing(connection: "Connection") -> Generator[None]:
    """Have SQLite overwrite what is deleted with zeros, rather than only mark it as free."""
    (before,) = connection.execute("PRAGMA secure_delete").fetchone()
    connection.execute("PRAGMA secure_delete=ON")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA secure_delete={int(before)}")


def _erase_messages(connection: "Connection", traces: Traces, listed: str) -> None:
    rows = connection.execute(
        "SELECT id, sender, tenant, idempotency_key FROM message WHERE id IN (SELECT value FROM json_each(?))",
        (listed,),
    ).fetchall()
    keyed = [(row[3], row[0]) for row in rows if traces.in_key(row[3])]
    connection.executemany("DELETE FROM idempotency WHERE key = ? AND message_id = ?", keyed)
    connection.executemany(
        "UPDATE message SET idempotency_key = NULL WHERE idempotency_key = ? AND id = ?", keyed
    )
    # Nobody is left to be told.
    connection.executemany(
        "DELETE FROM followup WHERE message_id = ? AND kind IN ('report', 'delay')",
        [(row[0],) for row in rows if traces.in_text(row[1])],
    )
    # A lane is a hash of the tenant, which is the sender unless said otherwise.
    connection.executemany(
        "UPDATE recipient SET lane = 0 WHERE message_id = ?",
        [(row[0],) for row in rows if traces.in_text(row[2])],
    )
    _erase_texts(connection, traces, "message", ("id",), "id", _MESSAGE_TEXTS, listed)


def _erase_recipients(connection: "Connection", traces: Traces, listed: str) -> int:
    rows = connection.execute(
        "SELECT message_id, idx, address_type, address FROM recipient"
        " WHERE message_id IN (SELECT value FROM json_each(?))",
        (listed,),
    ).fetchall()
    theirs = [(traces.tombstone, key, idx) for key, idx, kind, value in rows if traces.is_of(kind, value)]
    connection.executemany(
        "UPDATE recipient SET address = ?, variant = NULL WHERE message_id = ? AND idx = ?", theirs
    )
    _erase_texts(
        connection, traces, "recipient", ("message_id", "idx"), "message_id", _RECIPIENT_TEXTS, listed
    )
    return len(theirs)


def _erase_texts(  # noqa: PLR0913, PLR0917 - a statement in parts
    connection: "Connection",
    traces: Traces,
    table: str,
    identity: Sequence[str],
    column: str,
    texts: Sequence[str],
    listed: str | None,
) -> int:
    """Put the tombstone into the texts of a table's rows, all or those of some messages; returns how many changed."""
    where = "1" if listed is None else f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names
    rows: list[Any] = connection.execute(
        f"SELECT {', '.join((*identity, *texts))} FROM {table} WHERE {where}",  # noqa: S608 - our own names
        () if listed is None else (listed,),
    ).fetchall()
    changed: list[tuple[Any, ...]] = []
    for row in rows:
        said = row[len(identity) :]
        if _stands(traces, texts, said):
            cleared = [
                traces.cleared_key(text) if name in _KEYS else traces.cleared(text)
                for name, text in zip(texts, said, strict=True)
            ]
            changed.append((*cleared, *row[: len(identity)]))
    connection.executemany(
        f"UPDATE {table} SET {', '.join(f'{text} = ?' for text in texts)}"  # noqa: S608 - our own names
        f" WHERE {' AND '.join(f'{name} = ?' for name in identity)}",
        changed,
    )
    return len(changed)


# What is not about one message

_ASIDES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("operation", ("id",), ("operator", "selection", "argument", "reason")),
    ("standing", ("node", "transport"), ("reason",)),
    ("destination", ("transport", "destination"), ("reason",)),
)


def orders_naming(connection: "Connection", traces: Traces) -> tuple[int, ...]:
    """Return the numbers of the standing orders that name the address."""
    rows = connection.execute(
        "SELECT id, selection, argument, operator, reason FROM standing_order"
    ).fetchall()
    return tuple(row[0] for row in rows if any(map(traces.in_text, row[1:])))


def operations_naming(connection: "Connection", traces: Traces) -> int:
    """Return how many entries of the log of operations name the address."""
    rows = connection.execute("SELECT operator, selection, argument, reason FROM operation")
    return sum(any(map(traces.in_text, row)) for row in rows)


def erase_asides(connection: "Connection", traces: Traces) -> int:
    """Erase the address from what is not about one message, within the caller's transaction; returns rows changed.

    Standing orders that name it go, and so do requests to other processes; the log of operations and the journal of
    events keep their entries.
    """
    with _zeroing(connection):
        changed = sum(
            _erase_texts(connection, traces, table, identity, "", texts, None)
            for table, identity, texts in _ASIDES
        )
        orders = [(number,) for number in orders_naming(connection, traces)]
        connection.executemany("DELETE FROM standing_order WHERE id = ?", orders)
        requests = [
            row[:1]
            for row in connection.execute("SELECT id, argument, operator, reason FROM request").fetchall()
            if any(map(traces.in_text, row[1:]))
        ]
        connection.executemany("DELETE FROM request WHERE id = ?", requests)
        # An ordering key that still has work is needed; it goes with a later erasure.
        ordering = [
            row
            for row in connection.execute(
                "SELECT key FROM ordering AS o WHERE NOT EXISTS"
                " (SELECT 1 FROM recipient AS r WHERE r.message_id = o.last AND r.state < 10)"
            ).fetchall()
            if traces.in_key(row[0])
        ]
        connection.executemany("DELETE FROM ordering WHERE key = ?", ordering)
        changed += erase_journal_step(connection, traces)
    return changed + len(orders) + len(requests) + len(ordering)


def log_erasure(  # noqa: PLR0913 - by keyword
    connection: "Connection", traces: Traces, *, operator: str, reason: str, changed: int, now: float
) -> None:
    """Write into the log of operations that somebody was erased, by the tombstone; within the caller's transaction."""
    connection.execute(
        "INSERT INTO operation (at, operator, action, selection, argument, reason, changed, finished)"
        " VALUES (?, ?, 'erase', '{}', ?, ?, ?, ?)",
        (now, storable(operator), traces.tombstone, traces.cleared(storable(reason)), changed, now),
    )
