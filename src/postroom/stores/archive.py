"""Reading what was sent: lists, searches and contents, on read-only connections of their own.

Lists go by number, and a number begins with the time of submission, so a page costs what it shows whatever the size of
the archive. Only a filter that few messages pass (a sender who seldom writes) makes a page walk further, over the
message table alone: an index for that would cost every submission a write.
"""

import json
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from postroom.addresses import Address
from postroom.errors import SpoolUnavailable
from postroom.outcomes import Reply
from postroom.recipients import FINAL_STATES, State
from postroom.sentitems import SentItem, SentRecipient
from postroom.stores.driver import connect, sqlite3
from postroom.stores.search import IndexState, index_state, matching
from postroom.stores.sql import CONTENT

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = ["SHOWN", "Filter", "SqliteArchive", "read_page"]

T = TypeVar("T")
SHOWN = 20
"""Recipients of a message that a list shows; the others are counted."""

_ITEM = (
    "SELECT m.id, m.sender, m.tenant, m.subject, m.message_id, m.created, m.size, m.recipients,"
    " EXISTS (SELECT 1 FROM content AS c WHERE c.message_id = m.id) FROM message AS m"
)
_COUNTS = """
SELECT r.message_id, r.state, count(*), max(r.changed) FROM json_each(?) AS j
CROSS JOIN recipient AS r ON r.message_id = j.value GROUP BY r.message_id, r.state
"""
_RECIPIENTS = """
SELECT r.message_id, r.idx, r.address_type, r.address, r.state, r.transport, r.changed, r.reply_code, r.reply_status,
    r.reply_text, r.remote, r.tls
FROM json_each(?) AS j CROSS JOIN recipient AS r ON r.message_id = j.value AND r.idx < ? ORDER BY r.message_id, r.idx
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages a list shows; only complete ones anyway.

    Attributes:
        sender: the envelope sender, None for any.
        tenant: likewise.
        first: the smallest number.
        end: the number at which it ends, not included.
        states: at least one recipient is in one of them.
    """

    sender: str | None = None
    tenant: str | None = None
    first: int = 0
    end: int = (1 << 63) - 1
    states: Collection[State] = FINAL_STATES


class SqliteArchive:
    """The archive of a spool on SQLite. Thread-safe; never waits for the writer.

    Args:
        path: the database file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def snapshot(self) -> "Generator[Connection]":
        """Open a read-only connection on which all statements see one state of the spool.

        Raises:
            SpoolUnavailable: it cannot be read.
        """
        try:
            with closing(connect(self.path, read_only=True)) as connection:
                connection.execute("BEGIN")
                yield connection
        except sqlite3.Error as error:
            raise SpoolUnavailable(f"cannot read the spool {self.path}: {error}") from error

    def read(self, work: "Callable[[Connection], T]") -> T:
        """Return what ``work`` finds in one state of the spool."""
        with self.snapshot() as connection:
            return work(connection)

    def page(self, chosen: Filter, after: int | None, limit: int, *, newest_first: bool) -> list[SentItem]:
        """Return up to ``limit`` complete messages behind the number ``after`` in the order asked for."""
        return self.read(
            lambda connection: read_page(connection, chosen, after, limit, newest_first=newest_first)
        )

    def search(self, expression: str, below: int, limit: int) -> tuple[list[SentItem], IndexState]:
        """Return the newest messages that match, complete or not, and how far the index has come."""
        with self.snapshot() as connection:
            state = index_state(connection)
            keys = matching(connection, expression, below=below, limit=limit)
            rows = connection.execute(
                f"{_ITEM} JOIN json_each(?) AS j ON j.value = m.id ORDER BY m.id DESC", (json.dumps(keys),)
            ).fetchall()
            return _items(connection, rows), state

    def index_state(self) -> IndexState:
        """Return how far the search index has come."""
        return self.read(index_state)

    def keys(self, chosen: Filter, after: int | None, limit: int) -> list[int]:
        """Return the numbers of up to ``limit`` complete messages behind ``after``, in the order of submission."""
        where, parameters = _conditions(chosen, after, newest_first=False)
        with self.snapshot() as connection:
            rows = connection.execute(
                f"SELECT m.id FROM message AS m WHERE {where} ORDER BY m.id LIMIT ?",  # noqa: S608 - our own text
                (*parameters, limit),
            ).fetchall()
        return [row[0] for row in rows]

    def contents(self, keys: Iterable[int]) -> Iterator[tuple[int, tuple[str, float, bytes | None] | None]]:
        """Yield each number with sender, time of submission and octets of the message; None for an unknown one.

        One message at a time is in memory, and one state of the spool is read until the last is taken.
        """
        with self.snapshot() as connection:
            for key in keys:
                row = connection.execute(
                    "SELECT sender, created FROM message WHERE id = ?", (key,)
                ).fetchone()
                if row is None:
                    yield key, None
                    continue
                kept = connection.execute(CONTENT, (key,)).fetchone()
                yield key, (row[0], row[1], None if kept is None else bytes(kept[0]))


def read_page(
    connection: "Connection", chosen: Filter, after: int | None, limit: int, *, newest_first: bool
) -> list[SentItem]:
    """Return a page of a list; see :meth:`SqliteArchive.page`."""
    where, parameters = _conditions(chosen, after, newest_first=newest_first)
    order = "DESC" if newest_first else "ASC"
    rows = connection.execute(
        f"{_ITEM} WHERE {where} ORDER BY m.id {order} LIMIT ?", (*parameters, limit)
    ).fetchall()
    return _items(connection, rows)


def _conditions(chosen: Filter, after: int | None, *, newest_first: bool) -> tuple[str, list[Any]]:
    first, end = chosen.first, chosen.end
    if after is not None:
        first, end = (first, min(end, after)) if newest_first else (max(first, after + 1), end)
    conditions = ["m.id >= ? AND m.id < ?"]
    parameters: list[Any] = [first, end]
    for column, value in (("sender", chosen.sender), ("tenant", chosen.tenant)):
        if value is not None:
            conditions.append(f"m.{column} = ?")
            parameters.append(value)
    conditions.append("NOT EXISTS (SELECT 1 FROM recipient AS r WHERE r.message_id = m.id AND r.state < 10)")
    if set(chosen.states) != set(FINAL_STATES):
        listed = ",".join(str(int(state)) for state in chosen.states)
        conditions.append(
            f"EXISTS (SELECT 1 FROM recipient AS r WHERE r.message_id = m.id AND r.state IN ({listed}))"  # noqa: S608 - numbers
        )
    return " AND ".join(conditions), parameters


def _items(connection: "Connection", rows: Sequence[Any]) -> list[SentItem]:
    keys = json.dumps([row[0] for row in rows])
    counts: dict[int, dict[State, int]] = {}
    changes: dict[int, float] = {}
    for key, state, count, changed in connection.execute(_COUNTS, (keys,)):
        counts.setdefault(key, {})[State(state)] = count
        if changed is not None:
            changes[key] = max(changed, changes.get(key, changed))
    shown: dict[int, list[SentRecipient]] = {}
    for row in connection.execute(_RECIPIENTS, (keys, SHOWN)):
        shown.setdefault(row[0], []).append(_recipient(row))
    return [
        SentItem(
            key=row[0], sender=row[1], tenant=row[2] or "", subject=row[3] or "", message_id=row[4] or "",
            created=row[5], size=row[6], recipient_count=row[7], content_kept=bool(row[8]),
            changed=changes.get(row[0]), states=counts.get(row[0], {}), recipients=tuple(shown.get(row[0], ())),
        )
        for row in rows
    ]  # fmt: skip


def _recipient(row: Any) -> SentRecipient:
    said = row[7] is not None or row[8] is not None or row[9] is not None
    reply = Reply(row[9] or "", row[8] or "", row[7], row[10] or "", row[11] or "") if said else None
    return SentRecipient(row[1], Address(row[2], row[3]), State(row[4]), row[5], row[6], reply)
