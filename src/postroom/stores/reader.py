"""Reading a spool without getting in the writer's way: read-only connections, any number of threads."""

import contextlib
import json
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from postroom.addresses import Address
from postroom.errors import NotRunning, SpoolUnavailable
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.selections import Selection
from postroom.stores.base import (
    Attempt,
    DestinationStanding,
    Followup,
    InstanceRow,
    MessageRecord,
    Operation,
    Order,
    RecipientRecord,
    Standing,
    Tally,
)
from postroom.stores.driver import connect, sqlite3
from postroom.stores.orders import read_operations, read_orders
from postroom.stores.selecting import count_selected, selected
from postroom.stores.sql import CONTENT, VARIANT

__all__ = ["SqliteReader"]

MAX_IDLE = 16
"""Connections kept for later; more are opened when more threads read at once."""

_MESSAGE = (
    "SELECT m.id, m.sender, m.subject, m.message_id, m.created, m.expires, m.priority, m.size, m.report,"
    " m.idempotency_key, EXISTS (SELECT 1 FROM content AS c WHERE c.message_id = m.id), m.tenant, m.ordering_key,"
    " m.options, m.due FROM message AS m"
)
_RECIPIENT = (
    "SELECT r.message_id, r.idx, r.address_type, r.address, r.transport, r.state, r.due, r.owner, r.attempts,"
    " r.first_attempt, r.changed, r.crashes, r.in_doubt, r.reply_code, r.reply_status, r.reply_text, r.remote,"
    " r.remote_id, r.detail, r.tls, r.options, r.duration, r.after, r.variant, r.reported, r.expires"
    " FROM recipient AS r"
)
_BY_NAME = {state.label: state for state in State}
_PARKED = frozenset({State.SENDING, State.ACCEPTED, State.HELD})
"""What the index ``recipient_parked`` covers."""


class SqliteReader:
    """See :class:`postroom.stores.base.Reader`.

    Args:
        path: the database file, which must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def close(self) -> None:
        """Close; reads under way finish first, later ones raise."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def connections(self) -> Sequence[object]:
        """Return the connections that are open and idle, for the fork guard."""
        return self._idle

    @contextlib.contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise NotRunning(f"the spool {self._path} is closed")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            try:
                connection = connect(self._path, read_only=True)
            except sqlite3.Error as error:
                raise SpoolUnavailable(f"cannot read the spool {self._path}: {error}") from error
        try:
            yield connection
        except sqlite3.Error as error:
            connection.close()
            raise SpoolUnavailable(f"cannot read the spool {self._path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = not self._closed and len(self._idle) < MAX_IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    @contextlib.contextmanager
    def _snapshot(self) -> Generator[sqlite3.Connection]:
        """Let several statements see one state of the spool."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            yield connection  # when this raises, the connection is closed
            connection.execute("ROLLBACK")

    def _rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        with self._connection() as connection:
            return connection.execute(sql, parameters).fetchall()

    # One message

    def message(self, key: int) -> MessageRecord | None:
        """Return a message; see the protocol."""
        with self._snapshot() as connection:
            row = connection.execute(f"{_MESSAGE} WHERE m.id = ?", (key,)).fetchone()
            if row is None:
                return None
            recipients = connection.execute(
                f"{_RECIPIENT} WHERE r.message_id = ? ORDER BY r.idx", (key,)
            ).fetchall()
            history = _history(connection, key)
        return _message(row, tuple(_recipient(recipient, history) for recipient in recipients))

    def content(self, key: int, variant: int | None = None) -> bytes | None:
        """Return a message's octets; see the protocol."""
        rows = self._rows(CONTENT, (key,)) if variant is None else self._rows(VARIANT, (key, variant))
        return bytes(rows[0][0]) if rows else None

    def pending(self, key: int) -> int | None:
        """Return how many recipients are not final; see the protocol."""
        rows = self._rows("SELECT sum(state < 10) FROM recipient WHERE message_id = ?", (key,))
        count: int | None = rows[0][0]
        return count

    # Many

    def list_recipients(
        self, *, states: Collection[State], transport: str | None, after: tuple[int, int] | None, limit: int
    ) -> Sequence[tuple[MessageRecord, RecipientRecord]]:
        """Return recipients in order; see the protocol."""
        where = " AND (r.message_id, r.idx) > (?, ?)"
        parameters: list[Any] = [*(after or (-1, -1))]
        if transport is not None:
            where += " AND r.transport = ?"
            parameters.append(transport)
        where += " ORDER BY r.message_id, r.idx LIMIT ?"
        parameters.append(limit)
        if _PARKED.issuperset(states):
            # Few among many: found by their index (whose condition must be repeated), one state after the other.
            source = f"{_RECIPIENT} INDEXED BY recipient_parked"
            conditions = [f"r.state BETWEEN 1 AND 9 AND r.state = {int(state)}" for state in set(states)]
        else:
            source = _RECIPIENT
            conditions = [f"r.state IN ({','.join(str(int(state)) for state in states)})"]
        with self._snapshot() as connection:
            found = [
                row
                for condition in conditions
                for row in connection.execute(f"{source} WHERE {condition}{where}", parameters)
            ]
            rows = sorted(found, key=itemgetter(0, 1))[:limit]
            keys = json.dumps(sorted({row[0] for row in rows}))
            messages = {
                row[0]: _message(row, ())
                for row in connection.execute(f"{_MESSAGE} JOIN json_each(?) AS j ON j.value = m.id", (keys,))
            }
        return [(messages[row[0]], _recipient(row, {})) for row in rows]

    def instances(self) -> Sequence[InstanceRow]:
        """Return the processes that share the spool."""
        return [
            InstanceRow(*row)
            for row in self._rows("SELECT node, pid, host, started, heartbeat FROM instance")
        ]

    def standings(self) -> Sequence[Standing]:
        """Return where the transports stand, per instance."""
        rows = self._rows(
            "SELECT transport, status, reason, since, until, node FROM standing ORDER BY transport, node"
        )
        return [Standing(*row) for row in rows]

    def selected(
        self,
        selection: Selection,
        *,
        now: float,
        after: tuple[int, int] | None,
        limit: int,
        idle: bool = False,
    ) -> Sequence[tuple[int, int]]:
        """Return a page of what is selected; see the protocol."""
        with self._connection() as connection:
            return selected(connection, selection, now=now, after=after, limit=limit, idle=idle)

    def count_selected(self, selection: Selection, *, now: float, due: bool = False) -> tuple[int, int]:
        """Return how much is selected; see the protocol."""
        with self._connection() as connection:
            return count_selected(connection, selection, now=now, due=due)

    def operations(self, limit: int) -> Sequence[Operation]:
        """Return the log of operations; see the protocol."""
        with self._connection() as connection:
            return read_operations(connection, limit)

    def orders(self) -> Sequence[Order]:
        """Return the standing orders; see the protocol."""
        with self._connection() as connection:
            return read_orders(connection)

    def followups(self, now: float, limit: int) -> Sequence[Followup]:
        """Return what is to be done about messages; see the protocol."""
        rows = self._rows(
            "SELECT kind, message_id, due FROM followup WHERE due IS NOT NULL AND due <= ? ORDER BY due LIMIT ?",
            (now, limit),
        )
        return [Followup(*row) for row in rows]

    def next_followup(self) -> float | None:
        """Return when the next followup is due; see the protocol."""
        due: float | None = self._rows("SELECT min(due) FROM followup WHERE due IS NOT NULL")[0][0]
        return due

    def destinations(self, transport: str | None = None) -> Sequence[DestinationStanding]:
        """Return where destinations stand; see the protocol."""
        rows = self._rows(
            "SELECT transport, destination, status, reason, since, until, failures, allowed FROM destination"
            " WHERE :transport IS NULL OR transport = :transport ORDER BY transport, destination",
            {"transport": transport},
        )
        return [DestinationStanding(*row) for row in rows]

    # Counts

    def tally(self) -> Tally:
        """Return the ledger's counts; see the protocol. The cost does not depend on the depth of the queue."""
        states: dict[tuple[str, State], int] = {}
        accepted: dict[str, int] = {}
        outcomes: dict[tuple[str, str], int] = {}
        received: dict[str, int] = {}
        reports: dict[tuple[str, str], int] = {}
        for kind, scope, label, n in self._rows("SELECT kind, scope, label, n FROM tally"):
            if kind == "state":
                states[scope, _BY_NAME[label]] = n
            elif kind == "accepted":
                accepted[label] = n
            elif kind == "outcome":
                outcomes[scope, label] = n
            elif kind == "received":
                received[scope] = n
            elif kind == "reports":
                reports[scope, label] = n
        return Tally(states, accepted, outcomes, received, reports)

    def recount(self) -> Mapping[tuple[str, State], int]:
        """Count the pending recipients row by row; see the protocol."""
        rows = self._rows(
            "SELECT transport, state, count(*) FROM recipient WHERE state < 10 GROUP BY transport, state"
        )
        return {(transport, State(state)): n for transport, state, n in rows}

    def oldest_due(self, transport: str, now: float) -> float | None:
        """Return the longest-waiting due time; see the protocol."""
        oldest: list[float] = []
        for priority in (1, 0, -1):
            rows = self._rows(
                "SELECT min(due) FROM recipient INDEXED BY recipient_ready"
                " WHERE state = 0 AND owner IS NULL AND after IS NULL AND transport = ? AND priority = ?",
                (transport, priority),
            )
            oldest += [due for (due,) in rows if due is not None and due <= now]
        rows = self._rows(
            "SELECT min(due) FROM recipient INDEXED BY recipient_owned"
            " WHERE owner IS NOT NULL AND state = 0 AND transport = ?",
            (transport,),
        )
        oldest += [due for (due,) in rows if due is not None and due <= now]
        return min(oldest, default=None)


def _message(row: Any, recipients: tuple[RecipientRecord, ...]) -> MessageRecord:
    return MessageRecord(
        key=row[0], sender=row[1], subject=row[2] or "", message_id=row[3] or "", created=row[4], expires=row[5],
        priority=row[6], size=row[7], report=row[8] or "", idempotency_key=row[9], content_kept=bool(row[10]),
        recipients=recipients, tenant=row[11] or "", ordering_key=row[12], options=MessageOptions.from_json(row[13]),
        due=row[14],
    )  # fmt: skip


def _recipient(row: Any, history: Mapping[int, tuple[Attempt, ...]]) -> RecipientRecord:
    said = row[13] is not None or row[14] is not None or row[15] is not None
    return RecipientRecord(
        index=row[1], address=Address(row[2], row[3]), transport=row[4], state=State(row[5]), due=row[6], owner=row[7],
        attempts=row[8], first_attempt=row[9], changed=row[10], crashes=row[11], in_doubt=bool(row[12]),
        reply=Reply(row[15] or "", row[14] or "", row[13], row[16] or "", row[19] or "") if said else None,
        remote_id=row[17], detail=row[18], history=history.get(row[1], ()),
        options=RecipientOptions.from_json(row[20]), duration=row[21], after=row[22], variant=row[23],
        reported=bool(row[24]), expires=row[25],
    )  # fmt: skip


def _history(connection: sqlite3.Connection, key: int) -> dict[int, tuple[Attempt, ...]]:
    history: dict[int, tuple[Attempt, ...]] = {}
    for (
        idx,
        at,
        transport,
        outcome,
        code,
        status,
        text,
        remote,
        duration,
        detail,
        tls,
        address,
    ) in connection.execute(
        "SELECT idx, at, transport, outcome, code, status, text, remote, duration, detail, tls, address FROM attempt"
        " WHERE message_id = ? ORDER BY id",
        (key,),
    ):
        kind, colon, value = (address or "").partition(":")
        attempt = Attempt(
            at, transport, outcome, Reply(text or "", status or "", code, remote or "", tls or ""), duration, detail,
            Address(kind, value) if colon else None,
        )  # fmt: skip
        history[idx] = (*history.get(idx, ()), attempt)
    return history
