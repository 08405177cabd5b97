"""What the end of a recipient means for others: reports that are due, messages that waited for this one, content.

All of it happens in the transaction of the end itself, so that nothing is forgotten by a crash in between.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from postroom.recipients import State
from postroom.stores import sql
from postroom.stores.base import Followup, NewMessage, Settlement

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["Following"]

NUDGE = 0.001
"""Seconds by which a followup that is noted again moves, so that whoever is working on it sees that there is more."""

_FAILING = frozenset({State.FAILED, State.EXPIRED})
_GOOD = frozenset({State.DELIVERED, State.RELAYED})


class Following:
    """Keeps followups and the order of messages on one connection. Used by the store's thread.

    Args:
        connection: the writer's.
        linger: seconds from the first failed recipient of a message until it is reported, unless the message is
            complete before; None when nobody reports.

    Attributes:
        due: the earliest followup noted since :meth:`begin`, or None.
        freed: the earliest due time of recipients that need not wait for another message any more, by transport.
    """

    def __init__(self, connection: "sqlite3.Connection", linger: float | None) -> None:
        self._connection = connection
        self._linger = linger
        self.due: float | None = None
        self.freed: dict[str, float] = {}

    def begin(self) -> None:
        """Forget what was noted in the last transaction."""
        self.due = None
        self.freed.clear()

    def note(self, at: float) -> None:
        """Remember the earliest time at which there is a followup."""
        self.due = at if self.due is None else min(self.due, at)

    # Accepting

    def accepted(self, messages: Iterable[NewMessage]) -> None:
        """Store the followups that messages bring with them."""
        rows = [(m.key, kind, due) for m in messages for kind, due in m.followups]
        if rows:
            self._connection.executemany(
                "INSERT INTO followup (message_id, kind, due) VALUES (?, ?, ?)", rows
            )
            for _, _, due in rows:
                if due is not None:
                    self.note(due)

    def predecessors(self, messages: Iterable[NewMessage]) -> dict[int, int]:
        """Return for each message with an ordering key the one that it must wait for, where there is one."""
        waits: dict[int, int] = {}
        fresh: set[int] = set()
        for message in messages:
            if message.ordering_key is None:
                continue
            row = self._connection.execute(
                "SELECT last FROM ordering WHERE key = ?", (message.ordering_key,)
            ).fetchone()
            if row is not None:
                before = self._undone(row[0], waits, fresh)
                if before is not None:
                    waits[message.key] = before
            self._connection.execute(
                "INSERT INTO ordering (key, last) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET last = excluded.last",
                (message.ordering_key, message.key),
            )
            if any(
                recipient.state is None or not recipient.state.is_final for recipient in message.recipients
            ):
                fresh.add(message.key)
        return waits

    def _undone(self, last: int, waits: dict[int, int], fresh: set[int]) -> int | None:
        """Return ``last`` if it is not done; else whom it waited for itself when it was recalled before its turn."""
        if last in fresh or self._goes_on(last):
            return last
        if last in waits:
            return waits[last]
        row = self._connection.execute(
            "SELECT max(after) FROM recipient WHERE message_id = ?", (last,)
        ).fetchone()
        before: int | None = row[0]
        return before

    def _goes_on(self, key: int) -> bool:
        """Return whether a message has recipients that are not done: others may not overtake it."""
        return (
            self._connection.execute(
                "SELECT 1 FROM recipient WHERE message_id = ? AND state IN (0, 1, 3) LIMIT 1", (key,)
            ).fetchone()
            is not None
        )

    # Ending

    def ended(self, settlements: Sequence[Settlement], completed: Collection[int]) -> None:
        """Note what follows from changes that are not plain."""
        over = [s for s in settlements if s.state.is_final or s.state is State.ACCEPTED]
        if not over:
            return
        keys = json.dumps(sorted({s.key for s in over}))
        followed = dict(
            self._connection.execute(
                "SELECT m.id, m.report || ',' || coalesce(group_concat(r.options), '') FROM message AS m"
                " JOIN recipient AS r ON r.message_id = m.id"
                " WHERE m.followed AND m.id IN (SELECT value FROM json_each(?)) GROUP BY m.id",
                (keys,),
            ).fetchall()
        )
        if self._linger is not None:
            self._report(over, followed, completed)
        if followed:
            self._free([key for key in followed if not self._goes_on(key)])
        if completed:
            self._complete(completed, max(s.at for s in over))

    def _report(
        self, over: Sequence[Settlement], followed: dict[int, str], completed: Collection[int]
    ) -> None:
        due: dict[int, float] = {}
        for s in over:
            asked = s.state in _GOOD and "success" in followed.get(s.key, "") and not s.reported
            if (s.state in _FAILING and not s.reported) or asked:
                due[s.key] = s.at if s.key in completed else s.at + (self._linger or 0.0)
        for key, at in due.items():
            self._connection.execute(
                "INSERT INTO followup (message_id, kind, due) VALUES (?, 'report', ?) ON CONFLICT (message_id, kind)"
                " DO UPDATE SET due = min(due, excluded.due) - ?",
                (key, at, NUDGE),
            )
            self.note(at)

    def _complete(self, completed: Collection[int], now: float) -> None:
        """What waited for the last recipient is due now."""
        changed = self._connection.execute(
            "UPDATE followup SET due = ? WHERE kind IN ('report', 'sent') AND (due IS NULL OR due > ?)"
            " AND message_id IN (SELECT value FROM json_each(?))",
            (now, now, json.dumps(list(completed))),
        ).rowcount
        if changed:
            self.note(now)

    def _free(self, done: Collection[int]) -> None:
        """Let the followers of messages go, or have them wait for what these had been waiting for themselves."""
        for key in done:
            rows = self._connection.execute(
                "UPDATE recipient SET after = (SELECT max(p.after) FROM recipient AS p WHERE p.message_id = :key)"
                " WHERE after = :key RETURNING transport, due, after",
                {"key": key},
            ).fetchall()
            for transport, due, after in rows:
                if after is None and due is not None:
                    self.freed[transport] = min(self.freed.get(transport, due), due)

    # Following up

    def followed_up(
        self, followup: Followup, reported: Collection[int], again: float | None, *, keep_content: bool
    ) -> bool:
        """Note that a followup is done; see the protocol."""
        place = (followup.key, followup.kind, followup.due)
        if again is None:
            statement = "DELETE FROM followup WHERE message_id = ? AND kind = ? AND due = ?"
            changed = self._connection.execute(statement, place).rowcount
        else:
            statement = "UPDATE followup SET due = ? WHERE message_id = ? AND kind = ? AND due = ?"
            changed = self._connection.execute(statement, (again, *place)).rowcount
            self.note(again)
        if not changed:
            return False
        if reported:
            self._connection.execute(
                "UPDATE recipient SET reported = 1 WHERE message_id = ? AND idx IN (SELECT value FROM json_each(?))",
                (followup.key, json.dumps(sorted(reported))),
            )
        if again is None and not keep_content:
            complete = self._connection.execute(sql.COMPLETED, (json.dumps([followup.key]),)).fetchone()
            if complete is not None:
                self.drop_content([followup.key])
        return True

    def drop_content(self, complete: Collection[int]) -> None:
        """Remove the octets of complete messages, of those that nobody needs any more."""
        for statement in sql.DROP_CONTENT:
            self._connection.execute(statement, (json.dumps(list(complete)),))
