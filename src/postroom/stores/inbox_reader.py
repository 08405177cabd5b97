"""Incoming messages and the journal on SQLite, the reading side."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from postroom.inbound.values import Digest, FolderRow, InboundRecord
from postroom.stores import journal
from postroom.stores.inbox_base import JournalRow
from postroom.stores.reader import SqliteReader

__all__ = ["COLUMNS", "SqliteInboxReader", "record_of"]

COLUMNS = (
    "id, folder, received, receiver, digest, sender, recipients, remote, size, seen, answered, flagged, tags, matched,"
    " notified, attempts, due, error, changed"
)
"""Of the table ``inbound``, in the order of :func:`record_of`."""


def record_of(row: Sequence[Any]) -> InboundRecord:
    """Return what a row with :data:`COLUMNS` says."""
    said: dict[str, Any] = json.loads(row[4])
    said["mdn_to"] = tuple(said.get("mdn_to", ()))
    return InboundRecord(
        key=row[0], folder=row[1], received=row[2], receiver=row[3], digest=Digest(**said), sender=row[5],
        recipients=tuple(json.loads(row[6])), remote=row[7], size=row[8], seen=bool(row[9]), answered=bool(row[10]),
        flagged=bool(row[11]), tags=tuple(json.loads(row[12])) if row[12] else (), matched=bool(row[13]),
        notified=row[14], attempts=row[15], due=row[16], error=row[17], changed=row[18],
    )  # fmt: skip


class SqliteInboxReader(SqliteReader):
    """See ``InboxReader`` and ``JournalReader`` in :mod:`postroom.stores.inbox_base`; the argument is the base's."""

    def folders(self) -> Sequence[FolderRow]:
        """Return the folders by name; see the protocol."""
        rows = self._rows(
            "SELECT f.name, (SELECT count(*) FROM inbound AS i WHERE i.folder = f.name),"
            " (SELECT count(*) FROM inbound AS i INDEXED BY inbound_unseen WHERE i.folder = f.name AND i.seen = 0)"
            " FROM folder AS f ORDER BY f.name"
        )
        return [FolderRow(*row) for row in rows]

    def inbound(self, key: int) -> InboundRecord | None:
        """Return a message; see the protocol."""
        rows = self._rows(f"SELECT {COLUMNS} FROM inbound WHERE id = ?", (key,))  # noqa: S608 - our own text
        return record_of(rows[0]) if rows else None

    def inbound_content(self, key: int) -> bytes | None:
        """Return a message's octets; see the protocol."""
        rows = self._rows("SELECT data FROM inbound_content WHERE inbound_id = ?", (key,))
        return bytes(rows[0][0]) if rows else None

    def list_inbound(
        self,
        *,
        folder: str | None = None,
        unseen: bool = False,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Sequence[InboundRecord]:
        """Return a page of messages; see the protocol."""
        conditions = ["folder <> ''" if folder is None else "folder = :folder"]
        if unseen:
            conditions.append("seen = 0")
        if after is not None:
            conditions.append("id < :after" if newest_first else "id > :after")
        order = "DESC" if newest_first else "ASC"
        rows = self._rows(
            f"SELECT {COLUMNS} FROM inbound WHERE {' AND '.join(conditions)} ORDER BY id {order} LIMIT :limit",  # noqa: S608 - our own text
            {"folder": folder, "after": after, "limit": limit},
        )
        return [record_of(row) for row in rows]

    def next_arriving(self) -> float | None:
        """Return when the next arriving message is due; see the protocol."""
        rows = self._rows("SELECT min(due) FROM inbound WHERE due IS NOT NULL")
        due: float | None = rows[0][0]
        return due

    def ledger(self, receiver: str, source: str) -> frozenset[str]:
        """Return the uids of a source; see the protocol."""
        return frozenset(
            uid
            for (uid,) in self._rows(
                "SELECT uid FROM ledger WHERE receiver = ? AND source = ?", (receiver, source)
            )
        )

    def progress(self, receiver: str) -> Mapping[str, str]:
        """Return what is remembered of a receiver's sources; see the protocol."""
        return dict(self._rows("SELECT source, value FROM progress WHERE receiver = ?", (receiver,)))

    # The journal

    def events(self, after: int, limit: int, kinds: Collection[str] = ()) -> Sequence[JournalRow]:
        """Return events behind ``after``; see the protocol."""
        with self._connection() as connection:
            return journal.read_events(connection, after, limit, kinds)

    def bounds(self) -> tuple[int, int]:
        """Return what is forgotten and what was given; see the protocol."""
        with self._snapshot() as connection:
            return journal.bounds(connection)

    def cursors(self) -> Mapping[str, int]:
        """Return the named cursors; see the protocol."""
        with self._connection() as connection:
            return journal.read_cursors(connection)
