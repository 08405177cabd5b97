"""The full-text index: which messages have these words in their subject, sender or recipients.

FTS5 through sqlite-utils, over a table of its own that is filled in the order of the messages' numbers, a bounded step
at a time, when the store has nothing better to do or somebody searches. So accepting and settling cost nothing more,
and a spool that nobody searches need not have the index at all: it is made by the first step.

Messages are numbered before they are committed, and several processes commit, so a message may appear below one that is
in the index already. The index therefore goes over everything twice: once as far as there is anything
(``search.tail``), and once more, for latecomers, as far as nothing can appear any more (``search.position``).
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import idna
from sqlite_utils import Database
from sqlite_utils.db import Table

from postroom.addresses import Address
from postroom.errors import UsageError
from postroom.ids import key_at
from postroom.options import RecipientOptions
from postroom.stores.driver import sqlite3

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = [
    "IndexState",
    "forget_indexed",
    "has_index",
    "index_state",
    "index_step",
    "match_expression",
    "matching",
]

TABLE = "searchable"
COLUMNS = ("subject", "sender", "recipients")
LATE_SECONDS = 300.0
"""Seconds after which no message with an earlier number is committed any more; a submission gives up long before."""

POSITION = "search.position"
TAIL = "search.tail"

_FRESH = "SELECT id, subject, sender FROM message WHERE id > ? ORDER BY id LIMIT ?"
_AGAIN = """
SELECT m.id, m.subject, m.sender, EXISTS (SELECT 1 FROM searchable AS s WHERE s.id = m.id)
FROM message AS m WHERE m.id > ? AND m.id < ? ORDER BY m.id LIMIT ?
"""
_RECIPIENTS = """
SELECT r.message_id, r.address_type, r.address, r.options FROM json_each(?) AS j
CROSS JOIN recipient AS r ON r.message_id = j.value ORDER BY r.message_id, r.idx
"""


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far the index has come.

    Attributes:
        exists: somebody has begun it.
        tail: the highest number in it, 0 without one.
        complete: no message has a higher number.
        possible: this SQLite has FTS5.
    """

    exists: bool
    tail: int
    complete: bool
    possible: bool = True


def has_index(connection: "Connection") -> bool:
    """Return whether the index was made."""
    return connection.execute(f"PRAGMA table_info({TABLE})").fetchone() is not None


def index_state(connection: "Connection") -> IndexState:
    """Return how far the index has come."""
    tail = _fact(connection, TAIL)
    (more,) = connection.execute("SELECT EXISTS (SELECT 1 FROM message WHERE id > ?)", (tail,)).fetchone()
    exists = has_index(connection)
    return IndexState(exists, tail, not more, exists or _possible(connection))


def _possible(connection: "Connection") -> bool:
    found = connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone()
    return found is not None


def index_step(connection: "Connection", limit: int, now: float) -> int:
    """Bring the index on by up to ``limit`` messages, within the caller's transaction.

    Args:
        connection: the writer's.
        limit: messages to look at.
        now: wall-clock seconds.

    Returns:
        how many were looked at; 0 when there is nothing to do, or this SQLite has no FTS5.
    """
    exists = has_index(connection)
    if not exists and not _possible(connection):
        return 0
    tail = _fact(connection, TAIL)
    fresh = connection.execute(_FRESH, (tail, limit)).fetchall()
    if fresh:
        if not exists:
            _make(connection)
        _index(connection, fresh)
        _set_fact(connection, TAIL, fresh[-1][0])
        return len(fresh)
    if not exists:
        return 0
    seen = connection.execute(
        _AGAIN, (_fact(connection, POSITION), min(tail + 1, key_at(now - LATE_SECONDS)), limit)
    ).fetchall()
    if seen:
        _index(connection, [row[:3] for row in seen if not row[3]])
        _set_fact(connection, POSITION, seen[-1][0])
    return len(seen)


def forget_indexed(connection: "Connection", keys: Sequence[int]) -> None:
    """Take messages out of the index, within the caller's transaction."""
    if keys and has_index(connection):
        connection.execute(
            "DELETE FROM searchable WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(keys),)
        )


def index_again(connection: "Connection", keys: Sequence[int]) -> None:
    """Put messages into the index as they are now, where they were in it; within the caller's transaction."""
    if not keys or not has_index(connection):
        return
    listed = json.dumps(keys)
    rows = connection.execute(
        "SELECT m.id, m.subject, m.sender FROM json_each(?) AS j CROSS JOIN message AS m ON m.id = j.value"
        " WHERE EXISTS (SELECT 1 FROM searchable AS s WHERE s.id = m.id)",
        (listed,),
    ).fetchall()
    forget_indexed(connection, keys)
    _index(connection, rows)


def _database(connection: "Connection") -> Database:
    return Database(connection, execute_plugins=False, recursive_triggers=False)


def _make(connection: "Connection") -> None:
    table = cast("Table", _database(connection)[TABLE])
    table.create({"id": int, **dict.fromkeys(COLUMNS, str)}, pk="id")
    table.enable_fts(COLUMNS, tokenize="unicode61 remove_diacritics 2", create_triggers=True)
    # What leaves the index leaves its pages too (SQLite 3.42 and later); else words of forgotten messages stay in it
    # until segments happen to be merged.
    with suppress(sqlite3.OperationalError):
        connection.execute("INSERT INTO searchable_fts (searchable_fts, rank) VALUES ('secure-delete', 1)")


def _index(connection: "Connection", rows: Sequence[Sequence[Any]]) -> None:
    recipients: dict[int, list[str]] = {}
    for key, kind, value, options in connection.execute(_RECIPIENTS, (json.dumps([row[0] for row in rows]),)):
        texts = recipients.setdefault(key, [])
        texts.append(_spelled(Address(kind, value)))
        if options is not None:
            said = RecipientOptions.from_json(options)
            texts += [_spelled(address) for address in _others(said)]
    connection.executemany(
        "INSERT INTO searchable (id, subject, sender, recipients) VALUES (?, ?, ?, ?)",
        [
            (key, subject or "", _spelled(Address("smtp", sender)), "\n".join(recipients.get(key, ())))
            for key, subject, sender in rows
        ],
    )  # fmt: skip


def _others(options: RecipientOptions | None) -> Iterable[Address]:
    if options is None:
        return ()
    return (*options.alternatives, *(() if options.original is None else (options.original,)))


def _spelled(address: Address) -> str:
    """Return an address as people look for it: a mailbox without its type, a domain also in its own script."""
    if address.type != "smtp":
        return str(address)
    local, _, domain = address.value.rpartition("@")
    if "xn--" in domain:
        with suppress(idna.IDNAError):
            return f"{address.value}\n{local}@{idna.decode(domain)}"
    return address.value


def _fact(connection: "Connection", name: str) -> int:
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row is not None else 0


def _set_fact(connection: "Connection", name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, str(value)))


# Searching


def match_expression(text: str) -> str:
    """Return what FTS5 takes for words that people typed: all of them must occur, each as the beginning of a word.

    ``"in quotes"`` is found as it stands, and so is an address, whose parts are words. Nothing of FTS5's own syntax
    means anything. Pure.

    Raises:
        UsageError: there is no letter or digit in it.
    """
    terms: list[str] = []
    for number, part in enumerate(text.replace("\0", " ").split('"')):
        quoted = number % 2 == 1
        terms += [
            _term(word, prefix=not quoted) for word in ([part] if quoted else part.split()) if _has_word(word)
        ]
    if not terms:
        raise UsageError(
            "query",
            f"{text[:100]!r} has no word to look for",
            "give words of the subject, or parts of an address",
        )
    return " ".join(terms)


def _term(word: str, *, prefix: bool) -> str:
    # A word that ends with a separator is complete: "ann@" does not mean anna@….
    return f'"{word}"' + ("*" if prefix and _is_word(word[-1]) else "")


def _has_word(text: str) -> bool:
    return any(map(_is_word, text))


def _is_word(char: str) -> bool:
    """Whether the tokenizer unicode61 takes it for part of a word."""
    category = unicodedata.category(char)
    return category[0] in "LN" or category == "Co"


def matching(connection: "Connection", expression: str, *, below: int, limit: int) -> list[int]:
    """Return the numbers of messages that match, the newest first.

    Args:
        connection: any.
        expression: of :func:`match_expression`.
        below: only numbers below it.
        limit: how many at most.
    """
    if not has_index(connection):
        return []
    table = cast("Any", _database(connection)[TABLE])  # its search() is not fully typed
    rows = table.search(
        expression, columns=["id"], where="id < :below", where_args={"below": below},
        order_by="searchable_fts.rowid DESC", limit=limit,
    )  # fmt: skip
    return [int(row["id"]) for row in rows]
