"""What other systems report about recipients of ours: finding whom they mean, and what changes.

A message is found by our own signed number, by the id that the other side gave a recipient, or by its Message-ID; a
recipient within it by number, by that id, or by an address that the report names. What a report says is believed as far
as it goes *forward*: an end that the other side promised or could not know yet (accepted, relayed, delivered) may turn
into a better known one; nothing ever becomes queued again.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postroom.addresses import Address, parse_address
from postroom.errors import UnknownMessage, UsageError
from postroom.events import Event, RecipientReported
from postroom.ids import ID_LENGTH, format_id, parse_id
from postroom.inbound.values import RemoteReport, ReportedRecipient
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.values import Settlement, storable

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["Change", "RemoteReports"]

MAX_MESSAGES: Final = 20
"""Messages with one Message-ID that are looked at: the same message may have been submitted to several at once."""

_AT: Final = ID_LENGTH + 1
"""Where the "@" stands in a Message-ID of our own making."""

_GOES: Final[dict[str, tuple[State, frozenset[State]]]] = {
    "failed": (State.FAILED, frozenset({State.ACCEPTED, State.RELAYED, State.DELIVERED})),
    "delivered": (State.DELIVERED, frozenset({State.ACCEPTED, State.RELAYED})),
    "displayed": (State.DELIVERED, frozenset({State.ACCEPTED, State.RELAYED})),
    "relayed": (State.RELAYED, frozenset({State.ACCEPTED})),
    "expanded": (State.RELAYED, frozenset({State.ACCEPTED})),
}
"""Which state each action leads to, and from where; another recipient stays as it is."""

_UNSETTLED: Final = frozenset({State.QUEUED, State.SENDING})

LONGEST_WAIT: Final = 86_400.0
"""Seconds after which a report that came early is looked at whatever becomes of its recipient."""

_TOLD_APART: Final = frozenset({"delayed", "expanded", "displayed", "deleted", "complaint"})
"""Actions that are news whether or not they change the state."""

_ROW = (
    "SELECT r.message_id, r.idx, r.address_type, r.address, r.transport, r.state, r.attempts, r.first_attempt,"
    " r.remote_id, r.duration, r.tls, r.options, m.recipients, m.followed, r.in_doubt, r.owner FROM recipient AS r"
    " JOIN message AS m ON m.id = r.message_id"
)


class _Row(NamedTuple):
    key: int
    index: int  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride] # hides tuple.index
    kind: str
    value: str
    transport: str
    state: int
    attempts: int
    first_attempt: float | None
    remote_id: str | None
    duration: float | None
    tls: str | None
    options: str | None
    siblings: int
    followed: int | None
    in_doubt: int
    owner: int | None

    @property
    def address(self) -> Address:
        return Address(self.kind, self.value)

    def names(self) -> frozenset[str]:
        """Return what the other side may call it, in lower case."""
        said = {f"{self.kind}:{self.value}".lower()}
        options = RecipientOptions.from_json(self.options)
        if options is not None:
            if options.original is not None:
                said.add(str(options.original).lower())
            if options.orcpt:
                said.add(options.orcpt.partition(";")[2].lower())
        return frozenset(said | {name.removeprefix("smtp:") for name in said})


class Change(NamedTuple):
    """What a report means for one recipient.

    Attributes:
        settlement: the change of its state, None for none.
        event: to be told apart from that, None for none.
        address: the recipient's.
    """

    settlement: Settlement | None
    event: Event | None
    address: Address


class RemoteReports:
    """Matches reports on the writer's connection. Used by the store's thread.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: "sqlite3.Connection") -> None:
        self._connection = connection

    def changes(
        self, report: RemoteReport, now: float
    ) -> tuple[bool, list[Change], tuple[ReportedRecipient, ...]]:
        """Return whether a recipient was meant, and what is to be changed that was not changed by it before.

        The last value is what it says of recipients that are among the changes already: that is to be looked at once
        those are made. The history of what changes no state is written here, which is how a report that comes twice is
        known.
        """
        found = False
        changes: list[Change] = []
        seen: set[tuple[int, int]] = set()
        later: list[ReportedRecipient] = []
        for said in report.recipients:
            rows = self._meant(report, said)
            found = found or bool(rows)
            if any((row.key, row.index) in seen for row in rows):
                later.append(said)
                continue
            for row in rows:
                seen.add((row.key, row.index))
                change = self._change(report, said, row, now)
                if change is not None:
                    changes.append(change)
        return found, changes, tuple(later)

    # Those that came too early

    def _keep(self, report: RemoteReport, said: ReportedRecipient, row: _Row, now: float) -> None:
        """Remember a report about a recipient that somebody is sending to: its outcome is about to be recorded."""
        one = replace(report, key=row.key, recipients=(replace(said, index=row.index),))
        self._connection.execute(
            "INSERT INTO early_report (message_id, idx, at, data) VALUES (?, ?, ?, ?)",
            (row.key, row.index, now, storable(json.dumps(asdict(one), ensure_ascii=False))),
        )

    def ripe(self, now: float, limit: int) -> list[RemoteReport]:
        """Forget and return those of the reports kept whose recipients nobody is sending to any more."""
        rows = self._connection.execute(
            "SELECT e.id, e.data FROM early_report AS e WHERE e.id > 0 AND (e.at < ? OR NOT EXISTS ("
            " SELECT 1 FROM recipient AS r WHERE r.message_id = e.message_id AND r.idx = e.idx"
            " AND r.owner IS NOT NULL)) ORDER BY e.id LIMIT ?",
            (now - LONGEST_WAIT, limit),
        ).fetchall()
        self._connection.execute(
            "DELETE FROM early_report WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([number for number, _ in rows]),),
        )
        return [_report(json.loads(data)) for _, data in rows]

    def any_early(self) -> bool:
        """Return whether reports are kept."""
        return self._connection.execute("SELECT 1 FROM early_report LIMIT 1").fetchone() is not None

    # Whom it means

    def _meant(self, report: RemoteReport, said: ReportedRecipient) -> list[_Row]:
        if report.key is not None:
            rows = self._rows("WHERE r.message_id = ?", report.key)
            if said.index is not None:
                return [row for row in rows if row.index == said.index]
            return self._named(rows, said)
        if said.remote_id:
            rows = self._rows("INDEXED BY recipient_remote WHERE r.remote_id = ?", said.remote_id)
            if rows:
                return rows if len(rows) == 1 else self._named(rows, said)
        if report.message_id:
            keys = self._keys(report.message_id)
            rows = self._rows("WHERE r.message_id IN (SELECT value FROM json_each(?))", json.dumps(keys))
            return self._named(rows, said)
        return []

    def _keys(self, message_id: str) -> list[int]:
        """Return the latest messages with this Message-ID."""
        if message_id[_AT : _AT + 1] == "@":
            # As we make them: the number is in it, and there is no index of those.
            try:
                found = (parse_id(message_id[1:_AT]), message_id)
            except UnknownMessage:
                return []
            statement = "SELECT id FROM message WHERE id = ? AND message_id = ?"
            return [key for (key,) in self._connection.execute(statement, found)]
        statement = (
            "SELECT id FROM message WHERE message_id = ? AND substr(message_id, 15, 1) <> '@'"
            " ORDER BY id DESC LIMIT ?"
        )
        return [key for (key,) in self._connection.execute(statement, (message_id, MAX_MESSAGES))]

    def _rows(self, where: str, parameter: object) -> list[_Row]:
        statement = _ROW.replace(" JOIN", f" {where.partition('WHERE')[0]}JOIN")
        condition = where.partition("WHERE")[2]
        rows = self._connection.execute(
            f"{statement} WHERE {condition} ORDER BY r.message_id, r.idx",
            (parameter,),
        )
        return [_Row(*row) for row in rows]

    @staticmethod
    def _named(rows: Iterable[_Row], said: ReportedRecipient) -> list[_Row]:
        """Return the recipients that go by a name in the report; a message's only one may have been forwarded."""
        rows = list(rows)
        names = {_plain(name) for name in (said.address, said.original) if name}
        by_name = [row for row in rows if names & row.names()]
        if by_name:
            return by_name
        return rows if len(rows) == 1 and rows[0].siblings == 1 else []

    # What it changes

    def _change(self, report: RemoteReport, said: ReportedRecipient, row: _Row, now: float) -> Change | None:
        state = State(row.state)
        reply = Reply(
            storable(said.text or f"reported as {said.action}"), said.status, remote=storable(report.reporter),
            tls=row.tls or "",
        )  # fmt: skip
        settlement = event = None
        if state in _UNSETTLED and row.owner is not None and said.action in _GOES:
            self._keep(report, said, row, now)
            return None
        goes, sources = _GOES.get(said.action, (state, frozenset[State]()))
        if state in sources and goes is not state:
            settlement = Settlement(
                row.key, row.index, row.transport, state, goes, now, row.attempts, row.first_attempt, reply=reply,
                outcome=goes.label, remote_id=row.remote_id, duration=row.duration, only=row.siblings == 1,
                detail=f"reported by {report.reporter or 'another system'} ({report.kind})",
                followed=bool(row.followed), reported=report.told, in_doubt=bool(row.in_doubt),
            )  # fmt: skip
        apart = said.action in _TOLD_APART
        if apart or (settlement is not None and said.action != "failed"):
            fresh = self._note(row, said, reply, now)
            if apart and fresh:
                event = RecipientReported(
                    now, format_id(row.key), row.index, row.address, row.transport, row.attempts, reply, said.action,
                    report.reporter,
                )  # fmt: skip
        if settlement is None and event is None:
            return None
        return Change(settlement, event, row.address)

    def _note(self, row: _Row, said: ReportedRecipient, reply: Reply, now: float) -> bool:
        """Write a line of history; False if it is there already."""
        there = self._connection.execute(
            "SELECT 1 FROM attempt WHERE message_id = ? AND idx = ? AND outcome = 'reported' AND detail = ?"
            " AND status = ? AND text = ?",
            (row.key, row.index, said.action, reply.status, reply.text),
        ).fetchone()
        if there is not None:
            return False
        self._connection.execute(
            "INSERT INTO attempt (message_id, idx, at, transport, outcome, status, text, remote, detail)"
            " VALUES (?, ?, ?, ?, 'reported', ?, ?, ?, ?)",
            (
                row.key,
                row.index,
                now,
                row.transport,
                reply.status,
                reply.text,
                reply.remote,
                said.action,
            ),
        )
        return True


def _report(said: dict[str, Any]) -> RemoteReport:
    recipients = tuple(ReportedRecipient(**each) for each in said.pop("recipients"))
    return RemoteReport(recipients=recipients, **said)


def _plain(name: str) -> str:
    """Return an address as it would stand in the spool, in lower case; what is none stays as it is."""
    try:
        return str(parse_address(name)).lower()
    except UsageError:
        return name.lower()
