"""What was taken from where, how far receivers have come, and which process runs one. On the writer's connection."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from postroom.inbound.values import LedgerKey

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["Ledger"]


class Ledger:
    """The part of :class:`postroom.stores.inbox_base.Inbox` that is for receivers. Used by the store's thread.

    Args:
        connection: the writer's.
        node: this instance.
        is_dead: tells whether another instance is gone; None where that cannot be known.
    """

    def __init__(
        self, connection: "sqlite3.Connection", node: int, is_dead: Callable[[int], bool | None]
    ) -> None:
        self._connection = connection
        self._node = node
        self._is_dead = is_dead

    def known(self, receiver: str, keys: Iterable[LedgerKey]) -> int | None:
        """Return the number of the message that one of the keys stands for, None when all are new."""
        for key in keys:
            row = self._connection.execute(
                "SELECT inbound_id FROM ledger WHERE receiver = ? AND source = ? AND uid = ?",
                (receiver, key.source, key.uid),
            ).fetchone()
            if row is not None:
                return int(row[0])
        return None

    def set_progress(self, receiver: str, source: str, value: str) -> None:
        """Remember a fact about a source; see the protocol."""
        self._connection.execute(
            "INSERT OR REPLACE INTO progress (receiver, source, value) VALUES (?, ?, ?)",
            (receiver, source, value),
        )

    def note_keys(self, receiver: str, keys: Sequence[LedgerKey], key: int = 0) -> None:
        """Enter keys in the ledger; see the protocol."""
        self._connection.executemany(
            "INSERT INTO ledger (receiver, source, uid, inbound_id, expires) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            [(receiver, each.source, each.uid, key, each.expires) for each in keys],
        )

    def forget_keys(self, receiver: str, source: str, uids: Collection[str]) -> None:
        """Take keys out of the ledger; see the protocol."""
        self._connection.execute(
            "DELETE FROM ledger WHERE receiver = ? AND source = ? AND uid IN (SELECT value FROM json_each(?))",
            (receiver, source, json.dumps(sorted(uids))),
        )

    def lease(self, name: str, now: float, seconds: float) -> bool:
        """Take or prolong a lease; see the protocol."""
        row = self._connection.execute("SELECT node, until FROM lease WHERE name = ?", (name,)).fetchone()
        if row is not None and row[0] != self._node and row[1] > now and self._lives(row[0]):
            return False
        self._connection.execute(
            "INSERT OR REPLACE INTO lease (name, node, until) VALUES (?, ?, ?)",
            (name, self._node, now + seconds),
        )
        return True

    def _lives(self, node: int) -> bool:
        there = self._connection.execute("SELECT 1 FROM instance WHERE node = ?", (node,)).fetchone()
        return there is not None and not self._is_dead(node)

    def end_lease(self, name: str) -> None:
        """Give a lease up; see the protocol."""
        self._connection.execute("DELETE FROM lease WHERE name = ? AND node = ?", (name, self._node))

    def forget_expired(self, now: float, limit: int) -> int:
        """Forget keys whose time is over; returns how many."""
        return self._connection.execute(
            "DELETE FROM ledger WHERE (receiver, source, uid) IN (SELECT receiver, source, uid FROM ledger"
            " WHERE expires IS NOT NULL AND expires <= ? LIMIT ?)",
            (now, limit),
        ).rowcount
