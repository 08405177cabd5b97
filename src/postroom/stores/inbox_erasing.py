"""Erasing an address from incoming mail and from the journal, as :mod:`postroom.stores.erasing` does from sent mail.

Rows stay, with the tombstone where the address was; the octets of every message in which it stands go. The ledger stays
as it is but for a key that holds the address: that gets the tombstone as well, so that a copy which still lies in the
messaging system may be taken again. Messages that postprocessors have in hand are left alone.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postroom.stores.inbox_search import index_inbound_again
from postroom.traces import Traces

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

    Connection = sqlite3.Connection

__all__ = ["ConcernedInbound", "concerned_inbound", "erase_inbound_step", "erase_journal_step"]

_TEXTS: Final = (
    "sender", "recipients", "remote", "subject", "author", "message_id", "digest", "tags", "error",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConcernedInbound:
    """What was found in a stretch of the incoming mail.

    Attributes:
        keys: messages in which the address stands somewhere.
        pending: those of them that postprocessors have.
        contents: those of them whose octets are kept.
        last: the number of the last message looked at; None when that was all.
    """

    keys: tuple[int, ...] = ()
    pending: tuple[int, ...] = ()
    contents: int = 0
    last: int | None = None


def concerned_inbound(connection: "Connection", traces: Traces, after: int, limit: int) -> ConcernedInbound:
    """Look for the address in up to ``limit`` messages behind ``after``; one read transaction is the caller's."""
    rows = connection.execute(
        f"SELECT id, folder, {', '.join(_TEXTS)} FROM inbound WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - our names
        (after, limit),
    ).fetchall()
    keys: list[int] = []
    pending: list[int] = []
    contents = 0
    for key, folder, *texts in rows:
        kept = connection.execute("SELECT data FROM inbound_content WHERE inbound_id = ?", (key,)).fetchone()
        if any(map(traces.in_text, texts)) or (kept is not None and traces.in_octets(kept[0])):
            keys.append(key)
            contents += kept is not None
            if not folder:
                pending.append(key)
    last = rows[-1][0] if len(rows) == limit else None
    return ConcernedInbound(tuple(keys), tuple(pending), contents, last)


def erase_inbound_step(connection: "Connection", traces: Traces, keys: Sequence[int]) -> int:
    """Erase the address from filed messages, within the caller's transaction; returns how many contents went.

    Args:
        connection: the writer's; it overwrites what it deletes.
        traces: what to look for.
        keys: the messages, few enough for one transaction.
    """
    listed = json.dumps(list(keys))
    rows = connection.execute(
        f"SELECT id, {', '.join(_TEXTS)} FROM inbound WHERE folder <> ''"  # noqa: S608 - our own names
        " AND id IN (SELECT value FROM json_each(?))",
        (listed,),
    ).fetchall()
    connection.executemany(
        f"UPDATE inbound SET {', '.join(f'{name} = ?' for name in _TEXTS)} WHERE id = ?",  # noqa: S608 - our own names
        [(*map(traces.cleared, row[1:]), row[0]) for row in rows],
    )
    filed = [row[0] for row in rows]
    gone = connection.execute(
        "DELETE FROM inbound_content WHERE inbound_id IN (SELECT value FROM json_each(?))",
        (json.dumps(filed),),
    ).rowcount
    index_inbound_again(connection, filed)
    return gone


def erase_journal_step(connection: "Connection", traces: Traces) -> int:
    """Erase the address from events, ledger and progress, within the caller's transaction; returns rows changed."""
    events = _naming(connection, traces, "event", ("id",), "data")
    connection.executemany(
        "UPDATE event SET data = ? WHERE id = ?", [(traces.cleared(text), number) for number, text in events]
    )
    ledger = [
        row
        for row in _naming(connection, traces, "ledger", ("receiver", "source"), "uid")
        if traces.in_text(row[2])
    ]
    connection.executemany(
        "UPDATE OR REPLACE ledger SET uid = ? WHERE receiver = ? AND source = ? AND uid = ?",
        [(traces.cleared(uid), receiver, source, uid) for receiver, source, uid in ledger],
    )
    return len(events) + len(ledger)


def _naming(
    connection: "Connection", traces: Traces, table: str, identity: Iterable[str], column: str
) -> list[Any]:
    """Return the rows of a table in whose text the address stands."""
    condition = " OR ".join([f"{column} LIKE ? ESCAPE '\\'"] * len(traces.likes))
    rows = connection.execute(
        f"SELECT {', '.join(identity)}, {column} FROM {table} WHERE {condition}",  # noqa: S608 - our own names
        traces.likes,
    )
    return [row for row in rows if traces.in_text(row[-1])]
