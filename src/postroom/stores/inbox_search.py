"""The search index of incoming messages: FTS5 over subject, author, recipients and the text of the body.

It is kept like that of sent mail (:mod:`postroom.stores.search`): by bounded steps, when the store has nothing better
to do or somebody searches, and the first step makes it. What is to be indexed is noted by triggers in a table of its
own, so that a message is found once it is filed, whatever the order in which processes commit; what is gone is noted
too. The triggers touch plain tables only: a process whose SQLite has no FTS5 still takes and removes mail.

The text itself is not stored again: the FTS5 table is contentless where SQLite can do that (3.43 and later).
"""

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postroom.inbound.mailstore_parsing import indexable_text
from postroom.inbound.values import InboundRecord
from postroom.stores.driver import sqlite3
from postroom.stores.inbox_reader import COLUMNS, record_of

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = [
    "InboundIndexState",
    "forget_inbound",
    "inbound_index_state",
    "index_inbound_again",
    "index_inbound_step",
    "matching_inbound",
]

MAX_PARSED: Final = 256 * 1024
"""Octets of a message that are read for its text, from its beginning."""

MAX_TEXT: Final = 100_000
"""Characters of its text that are indexed."""

STEP_OCTETS: Final = 1024 * 1024
"""Octets after which a step ends, since parsing them holds up the store's thread."""

_COLUMNS: Final = "subject, author, recipients, body"
_TOKENIZER: Final = "tokenize = 'unicode61 remove_diacritics 2'"
_NOTE: Final = "BEGIN INSERT OR IGNORE INTO inbound_unindexed (id) VALUES"
_TRIGGERS: Final = (
    f"CREATE TRIGGER inbound_index_new AFTER INSERT ON inbound WHEN new.folder <> '' {_NOTE} (new.id); END",
    (
        "CREATE TRIGGER inbound_index_filed AFTER UPDATE OF folder ON inbound"
        f" WHEN old.folder = '' AND new.folder <> '' {_NOTE} (new.id); END"
    ),
    f"CREATE TRIGGER inbound_index_gone AFTER DELETE ON inbound {_NOTE} (old.id); END",
)


@dataclass(frozen=True, slots=True)
class InboundIndexState:
    """How far the index has come.

    Attributes:
        exists: somebody has begun it.
        complete: every filed message is in it.
        possible: this SQLite has FTS5.
    """

    exists: bool
    complete: bool
    possible: bool = True


def _has_index(connection: "Connection") -> bool:
    row = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'inbound_unindexed'").fetchone()
    return row is not None


def _possible(connection: "Connection") -> bool:
    row = connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone()
    return row is not None


def inbound_index_state(connection: "Connection") -> InboundIndexState:
    """Return how far the index has come."""
    exists = _has_index(connection)
    # What is noted because it is gone was taken out already by whoever removed it, as a rule.
    waiting = (
        "inbound_unindexed AS u CROSS JOIN inbound AS i ON i.id = u.id"
        if exists
        else "inbound WHERE folder <> ''"
    )
    (more,) = connection.execute(f"SELECT EXISTS (SELECT 1 FROM {waiting})").fetchone()  # noqa: S608 - our own names
    return InboundIndexState(exists, not more, _possible(connection))


def index_inbound_step(connection: "Connection", limit: int) -> int:
    """Bring the index on by up to ``limit`` messages, the newest first, within the caller's transaction.

    Returns:
        how many were looked at; 0 when there is nothing to do, or this SQLite has no FTS5.
    """
    if not _possible(connection):
        return 0
    if not _has_index(connection):
        if connection.execute("SELECT 1 FROM inbound WHERE folder <> '' LIMIT 1").fetchone() is None:
            return 0
        _make(connection)
    keys = [
        key
        for (key,) in connection.execute(
            "SELECT id FROM inbound_unindexed ORDER BY id DESC LIMIT ?", (limit,)
        )
    ]
    octets = done = 0
    for key in keys:
        octets += _index(connection, key)
        done += 1
        if octets >= STEP_OCTETS:
            break
    return done


def _make(connection: "Connection") -> None:
    create = f"CREATE VIRTUAL TABLE inbound_search USING fts5({_COLUMNS}, {_TOKENIZER}"
    try:
        connection.execute(f"{create}, content = '', contentless_delete = 1)")
    except sqlite3.OperationalError:
        # Before SQLite 3.43 nothing can be deleted from a contentless table; there the text is kept twice.
        connection.execute(f"{create})")
    # Words of what is deleted leave the pages of the index too (SQLite 3.42 and later).
    with suppress(sqlite3.OperationalError):
        connection.execute("INSERT INTO inbound_search (inbound_search, rank) VALUES ('secure-delete', 1)")
    connection.execute("CREATE TABLE inbound_unindexed (id INTEGER PRIMARY KEY)")
    for trigger in _TRIGGERS:
        connection.execute(trigger)
    connection.execute("INSERT INTO inbound_unindexed (id) SELECT id FROM inbound WHERE folder <> ''")


def _index(connection: "Connection", key: int) -> int:
    """Put one message into the index as it is now, or take it out; returns the octets that were parsed."""
    connection.execute("DELETE FROM inbound_search WHERE rowid = ?", (key,))
    connection.execute("DELETE FROM inbound_unindexed WHERE id = ?", (key,))
    row = connection.execute(
        f"SELECT {COLUMNS} FROM inbound WHERE id = ? AND folder <> ''",  # noqa: S608 - our own text
        (key,),
    ).fetchone()
    if row is None:
        return 0
    record = record_of(row)
    kept = connection.execute(
        "SELECT substr(data, 1, ?) FROM inbound_content WHERE inbound_id = ?", (MAX_PARSED, key)
    ).fetchone()
    content = bytes(kept[0]) if kept is not None else b""
    text = indexable_text(content, MAX_PARSED)[:MAX_TEXT]
    recipients = "\n".join((record.digest.to, *record.recipients))
    author = "\n".join((record.digest.author, record.sender or ""))
    connection.execute(
        f"INSERT INTO inbound_search (rowid, {_COLUMNS}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - our own names
        (key, *map(_storable, (record.digest.subject, author, recipients, text))),
    )
    return len(content)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def index_inbound_again(connection: "Connection", keys: Collection[int]) -> None:
    """Put messages into the index as they are now, if there is one; within the caller's transaction."""
    if keys and _has_index(connection) and _possible(connection):
        for key in keys:
            _index(connection, key)


def forget_inbound(connection: "Connection", keys: Collection[int]) -> None:
    """Take messages out of the index, within the caller's transaction."""
    if keys and _has_index(connection) and _possible(connection):
        listed = (json.dumps(list(keys)),)
        for table, column in (("inbound_search", "rowid"), ("inbound_unindexed", "id")):
            connection.execute(
                f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
                listed,
            )


def matching_inbound(
    connection: "Connection", expression: str, *, folder: str | None, limit: int
) -> Sequence[InboundRecord]:
    """Return messages that match, the newest first; () when there is no index.

    Args:
        connection: any.
        expression: of :func:`postroom.stores.search.match_expression`.
        folder: only in this one; None for all.
        limit: how many at most.
    """
    if not _has_index(connection):
        return ()
    keys = [
        key
        for (key,) in connection.execute(
            "SELECT i.id FROM inbound_search CROSS JOIN inbound AS i ON i.id = inbound_search.rowid"
            " WHERE inbound_search MATCH :expression AND i.folder <> '' AND (:folder IS NULL OR i.folder = :folder)"
            " ORDER BY inbound_search.rowid DESC LIMIT :limit",
            {"expression": expression, "folder": folder, "limit": limit},
        )
    ]
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM inbound WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id DESC",  # noqa: S608 - our own text
        (json.dumps(keys),),
    )
    return [record_of(row) for row in rows]
