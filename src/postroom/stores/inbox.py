"""Incoming messages on SQLite, the writing side: one transaction makes each step of their life.

The ledger is what makes taking idempotent: it is written with the message and outlives it, so a copy that is still in
the messaging system is known again however the step between the two was interrupted.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from postroom.errors import UsageError
from postroom.events import Event, InboundChanged, NewMessage
from postroom.ids import IdGenerator, format_id
from postroom.inbound.values import (
    Arrival,
    Digest,
    Filing,
    InboundRecord,
    Marks,
    NewInbound,
    Received,
    RemoteReport,
)
from postroom.stores.inbox_base import Reported
from postroom.stores.inbox_reader import COLUMNS, record_of
from postroom.stores.inbox_search import forget_inbound
from postroom.stores.ledger import Ledger
from postroom.stores.remote_reports import RemoteReports
from postroom.stores.values import Settlement, storable

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["SqliteInbox"]

TRASH: Final = "Trash"

_INSERT = (
    "INSERT INTO inbound (id, folder, received, receiver, sender, recipients, remote, size, subject, author,"
    " message_id, message_class, digest, seen, tags, matched, due, changed, notified)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Settle = Callable[[Sequence[Settlement]], tuple[list[Settlement], list[int]]]


class SqliteInbox(Ledger):
    """See :class:`postroom.stores.inbox_base.Inbox`.

    Args:
        connection: the writer's.
        node: this instance.
        ids: makes the numbers of copies.
        tally: the counts that the transaction changes.
        settle: applies changes of recipients that nobody has in hand.
        is_dead: tells whether another instance is gone; None where that cannot be known.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one caller
        self,
        connection: "sqlite3.Connection",
        node: int,
        ids: IdGenerator,
        tally: Counter[tuple[str, str, str]],
        settle: Settle,
        is_dead: Callable[[int], bool | None],
    ) -> None:
        super().__init__(connection, node, is_dead)
        self._ids = ids
        self._tally = tally
        self._settle = settle
        self._matching = RemoteReports(connection)
        self.news: list[Event] = []
        self.reported: list[Reported] = []
        self.due: float | None = None

    def begin(self) -> None:
        """Forget what the last transaction meant."""
        self.news = []
        self.reported = []
        self.due = None

    # Receiving

    def receive(self, receiver: str, inbound: Sequence[NewInbound], now: float) -> list[Received]:
        """Store messages that the ledger does not know; see the protocol."""
        return [self._receive(receiver, each, now) for each in inbound]

    def _receive(self, receiver: str, new: NewInbound, now: float) -> Received:
        known = self.known(receiver, new.arrival.keys)
        if known is None and self._exists(new.key):
            known = new.key
        if known is not None:
            self.note_keys(receiver, new.arrival.keys, known)
            return Received(known, duplicate=known != new.key)
        matched = any(self.apply_reports(new.reports, now))
        folders = new.folders
        if matched and folders and new.report_folder is not None:
            folders = (new.report_folder,)
        self._insert(new, folders[0] if folders else "", matched=matched, now=now)
        for folder in folders[1:]:
            self._copy(new.key, folder)
        for folder in folders:
            self._ensure(folder, now)
        if not folders:
            kept = asdict(new.arrival)
            del kept["content"], kept["keys"]
            more = {"report_folder": new.report_folder, "tags": new.tags}
            self._connection.execute(
                "INSERT INTO arriving (inbound_id, data) VALUES (?, ?)",
                (new.key, json.dumps({"arrival": kept, **more})),
            )
            self._note_due(now)
        self.note_keys(receiver, new.arrival.keys, new.key)
        self._tally["received", receiver, ""] += 1
        if matched:
            self._tally["reports", receiver, "matched"] += 1
        elif new.reports:
            self._tally["reports", receiver, "unmatched"] += 1
        return Received(new.key, matched=matched, arriving=not folders)

    def _exists(self, key: int) -> bool:
        return self._connection.execute("SELECT 1 FROM inbound WHERE id = ?", (key,)).fetchone() is not None

    def _insert(self, new: NewInbound, folder: str, *, matched: bool, now: float) -> None:
        arrival, digest = new.arrival, new.digest
        self._connection.execute(
            _INSERT,
            (
                new.key, folder, new.received, new.receiver, _text(arrival.sender), _list(arrival.recipients),
                storable(arrival.remote), len(arrival.content), storable(digest.subject), storable(digest.author),
                storable(digest.message_id), digest.message_class, _digest(digest), int(arrival.seen),
                _list(new.tags) if new.tags else None, int(matched), None if folder else now, now, "",
            ),
        )  # fmt: skip
        if new.quarantine:
            self._connection.execute(
                "UPDATE inbound SET error = ? WHERE id = ?", (storable(new.quarantine), new.key)
            )
        self._connection.execute(
            "INSERT INTO inbound_content (inbound_id, data) VALUES (?, ?)", (new.key, arrival.content)
        )
        if folder:
            self._tell_new(
                new.key, folder, digest, new.receiver, len(arrival.content), seen=arrival.seen, now=now
            )

    def _tell_new(  # noqa: PLR0913 - a row
        self, key: int, folder: str, digest: Digest, receiver: str, size: int, *, seen: bool, now: float
    ) -> None:
        self.news.append(
            NewMessage(
                now, format_id(key), folder, digest.subject, digest.author, receiver, digest.message_class, size, seen
            )
        )  # fmt: skip

    def _copy(self, key: int, folder: str) -> None:
        """File a copy of a message in another folder."""
        copy = self._ids.next()
        self._connection.execute(
            "INSERT INTO inbound (id, folder, received, receiver, sender, recipients, remote, size, subject, author,"
            " message_id, message_class, digest, seen, tags, matched, changed, notified)"
            " SELECT ?, ?, received, receiver, sender, recipients, remote, size, subject, author, message_id,"
            " message_class, digest, seen, tags, matched, changed, 'none' FROM inbound WHERE id = ?",
            (copy, folder, key),
        )
        self._connection.execute(
            "INSERT INTO inbound_content (inbound_id, data) SELECT ?, data FROM inbound_content WHERE inbound_id = ?",
            (copy, key),
        )
        record = self._record(copy)
        if record is not None:
            self._tell_new(
                copy, folder, record.digest, record.receiver, record.size, seen=record.seen, now=record.changed
            )  # fmt: skip

    def _record(self, key: int) -> InboundRecord | None:
        row = self._connection.execute(f"SELECT {COLUMNS} FROM inbound WHERE id = ?", (key,)).fetchone()  # noqa: S608 - our own text
        return None if row is None else record_of(row)

    def _note_due(self, at: float) -> None:
        self.due = at if self.due is None else min(self.due, at)

    # Remote reports

    def apply_reports(self, reports: Sequence[RemoteReport], now: float) -> list[bool]:
        """Change the recipients that reports speak of; see the protocol."""
        return [self._apply(report, now) for report in reports]

    def apply_early_reports(self, now: float, limit: int) -> int:
        """Look again at reports that came before the outcomes they are about; see the protocol."""
        ripe = self._matching.ripe(now, limit)
        self.apply_reports(ripe, now)
        return len(ripe)

    def has_early_reports(self) -> bool:
        """Return whether there are such; see the protocol."""
        return self._matching.any_early()

    def _apply(self, report: RemoteReport, now: float) -> bool:
        found, changes, later = self._matching.changes(report, now)
        self.news += [change.event for change in changes if change.event is not None]
        addresses = {
            (s.key, s.index): change.address for change in changes if (s := change.settlement) is not None
        }
        settlements = [change.settlement for change in changes if change.settlement is not None]
        if settlements:
            if not report.told:
                # The other side promised to tell the sender, and has told us instead.
                self._connection.executemany(
                    "UPDATE recipient SET reported = 0 WHERE message_id = ? AND idx = ?",
                    [(s.key, s.index) for s in settlements],
                )
            applied, completed = self._settle(settlements)
            # A message that was complete before is not completed once more.
            fresh = {s.key for s in applied if not s.was.is_final}
            self.reported.append(
                Reported(
                    tuple((s, addresses[s.key, s.index]) for s in applied),
                    tuple(key for key in completed if key in fresh),
                )
            )
        if later:
            self._apply(replace(report, recipients=later), now)
        return found

    # Postprocessing

    def claim(self, now: float, limit: int, lease: float) -> list[tuple[InboundRecord, NewInbound]]:
        """Take arriving messages that are due; see the protocol."""
        rows = self._connection.execute(
            f"UPDATE inbound SET attempts = attempts + 1, due = ?, owner = ? WHERE id IN (SELECT id FROM inbound"  # noqa: S608 - our own text
            f" WHERE due IS NOT NULL AND due <= ? ORDER BY due, id LIMIT ?) RETURNING {COLUMNS}",
            (now + lease, self._node, now, limit),
        ).fetchall()
        taken = [self._arriving(record_of(row)) for row in rows]
        return sorted(taken, key=lambda pair: pair[0].key)

    def _arriving(self, record: InboundRecord) -> tuple[InboundRecord, NewInbound]:
        (data,) = self._connection.execute(
            "SELECT data FROM inbound_content WHERE inbound_id = ?", (record.key,)
        ).fetchone()
        (kept,) = self._connection.execute(
            "SELECT data FROM arriving WHERE inbound_id = ?", (record.key,)
        ).fetchone()
        said: dict[str, Any] = json.loads(kept)
        fields = said["arrival"]
        fields["recipients"] = tuple(fields["recipients"])
        arrival = Arrival(content=data, **fields)
        new = NewInbound(
            key=record.key, arrival=arrival, receiver=record.receiver, received=record.received, digest=record.digest,
            folders=(), report_folder=said["report_folder"], tags=tuple(said["tags"]),
        )  # fmt: skip
        return record, new

    def file(self, key: int, attempts: int, filing: Filing, now: float) -> bool:
        """End the postprocessing of a message; see the protocol."""
        record = self._record(key)
        if record is None or record.folder or record.attempts != attempts:
            return False
        self._connection.execute("DELETE FROM arriving WHERE inbound_id = ?", (key,))
        if not filing.folders:
            self._remove([key])
            return True
        digest = filing.digest or record.digest
        size = record.size if filing.content is None else len(filing.content)
        if filing.content is not None:
            self._connection.execute(
                "UPDATE inbound_content SET data = ? WHERE inbound_id = ?", (filing.content, key)
            )
        self._connection.execute(
            "UPDATE inbound SET folder = ?, due = NULL, owner = NULL, size = ?, subject = ?, author = ?,"
            " message_id = ?, message_class = ?, digest = ?, tags = ?, error = ?, changed = ? WHERE id = ?",
            (
                filing.folders[0], size, storable(digest.subject), storable(digest.author),
                storable(digest.message_id), digest.message_class, _digest(digest),
                _list(filing.tags) if filing.tags else None, storable(filing.reason), now, key,
            ),
        )  # fmt: skip
        self._tell_new(key, filing.folders[0], digest, record.receiver, size, seen=record.seen, now=now)
        for folder in filing.folders[1:]:
            self._copy(key, folder)
        for folder in filing.folders:
            self._ensure(folder, now)
        return True

    def postpone(self, key: int, attempts: int, due: float, error: str, now: float) -> bool:
        """Put an arriving message off; see the protocol."""
        changed = self._connection.execute(
            "UPDATE inbound SET due = ?, owner = NULL, error = ?, changed = ?"
            " WHERE id = ? AND folder = '' AND attempts = ?",
            (due, storable(error), now, key, attempts),
        ).rowcount
        if changed:
            self._note_due(due)
        return bool(changed)

    # What users do

    def _filed(self, keys: Collection[int]) -> list[InboundRecord]:
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM inbound WHERE folder <> '' AND id IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own text
            " ORDER BY id",
            (json.dumps(list(keys)),),
        )
        return [record_of(row) for row in rows]

    def mark(self, keys: Collection[int], marks: Marks, now: float) -> list[int]:
        """Change marks; see the protocol."""
        changed: list[int] = []
        for record in self._filed(keys):
            wanted: dict[str, object] = {
                name: value
                for name, value in (
                    ("seen", marks.seen), ("answered", marks.answered), ("flagged", marks.flagged),
                    ("tags", marks.tags),
                )
                if value is not None and value != getattr(record, name)
            }  # fmt: skip
            if marks.notified is not None and not record.notified:
                wanted["notified"] = marks.notified
            if not wanted:
                continue
            changed.append(record.key)
            columns = ", ".join(f"{name} = ?" for name in wanted)
            values = [
                _list(marks.tags) if name == "tags" and marks.tags is not None else value
                for name, value in wanted.items()
            ]
            self._connection.execute(
                f"UPDATE inbound SET {columns}, changed = ? WHERE id = ?",  # noqa: S608 - our own names
                (*values, now, record.key),
            )
            if "seen" in wanted:
                self._tell_changed(record, "read" if marks.seen else "unread", now)
            elif wanted.keys() != {"notified"}:
                self._tell_changed(record, "marked", now)
        return changed

    def _tell_changed(
        self, record: InboundRecord, change: str, now: float, folder: str | None = None
    ) -> None:
        self.news.append(InboundChanged(now, format_id(record.key), folder or record.folder, change))

    def move(self, keys: Collection[int], folder: str, now: float) -> list[int]:
        """Move messages to a folder; see the protocol."""
        moving = [record for record in self._filed(keys) if record.folder != folder]
        if moving:
            self._ensure(folder, now)
        for record in moving:
            self._connection.execute(
                "UPDATE inbound SET folder = ?, changed = ? WHERE id = ?", (folder, now, record.key)
            )
            self._tell_changed(record, "moved", now, folder)
        return [record.key for record in moving]

    def delete(self, keys: Collection[int], now: float) -> list[int]:
        """Remove messages for good; see the protocol."""
        there = self._filed(keys)
        for record in there:
            self._tell_changed(record, "deleted", now)
        self._remove([record.key for record in there])
        return [record.key for record in there]

    def _remove(self, keys: Sequence[int]) -> None:
        if not keys:
            return
        listed = (json.dumps(list(keys)),)
        forget_inbound(self._connection, keys)
        for table, column in (
            ("inbound_content", "inbound_id"),
            ("arriving", "inbound_id"),
            ("inbound", "id"),
        ):
            self._connection.execute(
                f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",  # noqa: S608 - our own names
                listed,
            )

    def make_folder(self, name: str, now: float) -> bool:
        """Make a folder; see the protocol."""
        return self._ensure(name, now)

    def _ensure(self, name: str, now: float) -> bool:
        return (
            self._connection.execute(
                "INSERT INTO folder (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, now)
            ).rowcount
            == 1
        )

    def drop_folder(self, name: str) -> bool:
        """Remove an empty folder; see the protocol."""
        (n,) = self._connection.execute("SELECT count(*) FROM inbound WHERE folder = ?", (name,)).fetchone()
        if n:
            raise UsageError(
                "folder",
                f"{name!r} holds {n} messages",
                "move or delete them first; only an empty folder goes",
            )
        return self._connection.execute("DELETE FROM folder WHERE name = ?", (name,)).rowcount == 1

    # Housekeeping

    def purge(self, now: float, limit: int, trash_before: float | None) -> int:
        """Forget expired keys and old rubbish; see the protocol."""
        removed = self.forget_expired(now, limit)
        if trash_before is not None:
            old = [
                key
                for (key,) in self._connection.execute(
                    "SELECT id FROM inbound WHERE folder = ? AND changed < ? LIMIT ?",
                    (TRASH, trash_before, limit),
                )
            ]
            removed += len(self.delete(old, now))
        return removed


def _text(value: str | None) -> str | None:
    return None if value is None else storable(value)


def _list(values: Iterable[str]) -> str:
    return json.dumps([storable(value) for value in values], ensure_ascii=False)


def _digest(digest: Digest) -> str:
    return storable(json.dumps(asdict(digest), ensure_ascii=False))
