"""The store on SQLite: the only writer of a process."""

import contextlib
import json
import os
import socket
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from postroom.addresses import Address
from postroom.clock import Clock
from postroom.delivery import Target
from postroom.errors import SpoolUnavailable
from postroom.ids import MAX_NODE, IdGenerator
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores import sql
from postroom.stores.base import (
    Accepted,
    Claimed,
    Control,
    Controlled,
    NewMessage,
    Settlement,
    Standing,
    storable,
)
from postroom.stores.controls import control_message
from postroom.stores.driver import Synchronous, connect, drop_statistics, sqlite3
from postroom.stores.liveness import InstanceLocks
from postroom.stores.onestep import MAX_OCTETS, OneStep, is_plain, message_row, plain_row, recipient_rows
from postroom.stores.retention import Purger
from postroom.stores.schema import migrate

__all__ = ["SqliteStore"]

PRIORITIES = (1, 0, -1)
HEARTBEAT_LAPSE = 60.0
"""Seconds after which an instance without lock support counts as dead."""

MAX_ROWS = 100
"""Rows inserted by one statement."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class SqliteStore:
    """See :class:`postroom.stores.base.Store`.

    Args:
        path: the database file; ``PATH-wal``, ``PATH-shm`` and the folder ``PATH.instances`` stand beside it.
        clock: for the instance's times.
        synchronous: SQLite's durability: "full" survives power loss, "normal" only process death.
        keep_content: whether octets outlive the completion of their message.
    """

    def __init__(
        self, path: Path, clock: Clock, *, synchronous: Synchronous = "full", keep_content: bool = False
    ) -> None:
        self._path = path
        self._clock = clock
        self._synchronous: Synchronous = synchronous
        self._keep_content = keep_content
        self._locks = InstanceLocks(path.with_name(path.name + ".instances"))
        self._tally: Counter[tuple[str, str, str]] = Counter()
        self._data_version = -1
        self._untouched = True
        self._place: tuple[int, int] | None = None
        self.node = -1
        self.ids: IdGenerator

    # Opening and closing

    def open(self) -> None:
        """Open the spool; see the protocol.

        Raises:
            SpoolUnavailable: the file cannot be opened, is not a spool, or every instance number is taken.
        """
        try:
            self.check_place()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = connect(self._path, synchronous=self._synchronous)
            if drop_statistics(self.connection):
                # They are read with the schema, once.
                self.connection.close()
                self.connection = connect(self._path, synchronous=self._synchronous)
            try:
                self._prepare()
            except BaseException:
                self.connection.close()
                raise
        except (sqlite3.Error, OSError, SpoolUnavailable) as error:
            raise SpoolUnavailable(f"cannot open the spool {self._path}: {error}") from error

    def check_place(self) -> None:
        """Make sure that the file in use is the one with the spool's name; see the protocol."""
        if self._place is not None and self._place != self._found():
            raise SpoolUnavailable(
                f"the spool {self._path} was removed or replaced while it was in use; put it back, or stop and start "
                "to begin with what is there now"
            )

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _prepare(self) -> None:
        self.connection.execute("PRAGMA busy_timeout=30000")
        migrate(Database(self.connection, execute_plugins=False, recursive_triggers=False))
        # Checkpoints are the checkpointer's business: a commit that also had to copy the log would stall submitters.
        self.connection.execute("PRAGMA wal_autocheckpoint=0")
        self._purger = Purger(self.connection)
        self._onestep = OneStep(self.connection)
        if self.node < 0:
            self._register()
        self._place = self._found()

    def _register(self) -> None:
        """Become an instance; the generator of numbers lives as long as that, since some are not stored yet."""
        now = self._clock.time()
        self.begin()
        try:
            taken = {node for (node,) in self.connection.execute("SELECT node FROM instance")}
            free = (node for node in range(MAX_NODE + 1) if node not in taken and self._locks.acquire(node))
            node = next(free, None)
            if node is None:
                raise SpoolUnavailable(f"all {MAX_NODE + 1} instance numbers are taken")  # noqa: TRY301 - as the rest
            (floor,) = self.connection.execute("SELECT max(id) FROM message").fetchone()
            self.connection.execute(
                "INSERT INTO instance (node, pid, host, started, heartbeat) VALUES (?, ?, ?, ?, ?)",
                (node, os.getpid(), socket.gethostname(), now, now),
            )
            self.connection.execute("COMMIT")
        except BaseException:
            self.rollback()
            self._locks.release_all()
            raise
        self.node = node
        self.ids = IdGenerator(node, self._clock.time, floor or 0)

    def disconnect(self) -> None:
        """Close the connection but stay an instance: what this process owns stays its own. Never raises."""
        with contextlib.suppress(sqlite3.Error):
            self.rollback()
        self.connection.close()

    def close(self, *, leave: bool) -> None:
        """Close; see the protocol. Never raises."""
        try:
            if leave:
                self.begin()
                left = self.connection.execute(
                    "SELECT 1 FROM recipient WHERE owner = ? LIMIT 1", (self.node,)
                ).fetchone()
                if left is None:
                    self.connection.execute("DELETE FROM instance WHERE node = ?", (self.node,))
                self.connection.execute("DELETE FROM standing WHERE node = ?", (self.node,))
                self.connection.execute("COMMIT")
        except sqlite3.Error:
            self.rollback()
        finally:
            self.connection.close()
            self._locks.release_all()

    def connections(self) -> list[object]:
        """Return the connections that are open, for the fork guard."""
        return [self.connection] if hasattr(self, "connection") else []

    def forget(self) -> None:
        """Let go of the lock files in a forked child; the parent's locks stay with the parent's copy."""
        self._locks.release_all()

    # Transactions

    def begin(self) -> None:
        """Begin; IMMEDIATE, so that a transaction never fails half-way for want of the write lock."""
        self._tally.clear()
        self._untouched = True
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Write the tally's changes and commit."""
        rows = [(*key, n) for key, n in self._tally.items() if n]
        if rows:
            self._insert(sql.ADD_TALLY, rows, sql.TALLY_CONFLICT)
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo; harmless outside a transaction."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _insert(self, head: str, rows: Sequence[tuple[Any, ...]], tail: str = "") -> None:
        """Insert with as few statements as possible; the statement of each number of rows is kept prepared."""
        width = len(rows[0])
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            self.connection.execute(_insertion(head, width, len(part), tail), list(chain.from_iterable(part)))

    # The life of a recipient

    def accept(self, messages: Sequence[NewMessage], owned: Container[tuple[int, int]]) -> list[Accepted]:
        """Insert messages; see the protocol."""
        results, fresh = self._sort_out(messages)
        if fresh:
            self._insert_messages(fresh, owned)
        return results

    def _sort_out(self, messages: Sequence[NewMessage]) -> tuple[list[Accepted], list[NewMessage]]:
        """Return what becomes of each message, and those whose idempotency keys are new."""
        known = self._known_keys(messages)
        results: list[Accepted] = []
        fresh: list[NewMessage] = []
        for message in messages:
            key = message.idempotency_key
            earlier = known.get(key) if key is not None else None
            if earlier is not None:
                same = earlier[1] == message.digest
                results.append(Accepted(earlier[0], duplicate=same, conflict=not same))
                continue
            if key is not None:
                known[key] = (message.key, message.digest)
            fresh.append(message)
            results.append(Accepted(message.key))
        return results, fresh

    def _known_keys(self, messages: Sequence[NewMessage]) -> dict[str, tuple[int, bytes]]:
        keys = [message.idempotency_key for message in messages if message.idempotency_key is not None]
        if not keys:
            return {}
        rows = self.connection.execute(
            "SELECT key, message_id, digest FROM idempotency WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(keys),),
        )
        return {key: (message_id, digest) for key, message_id, digest in rows}

    def _insert_messages(self, fresh: Sequence[NewMessage], owned: Container[tuple[int, int]]) -> None:
        self._untouched = False
        self._count_accepted(fresh)
        recipients = [row for m in fresh for row in recipient_rows(m, owned, self.node)]
        self._insert(sql.INSERT_MESSAGE, [message_row(m) for m in fresh])
        self._insert(sql.INSERT_CONTENT, [(m.key, m.content) for m in fresh])
        self._insert(sql.INSERT_RECIPIENT, recipients)
        keyed = [(m.idempotency_key, m.key, m.digest) for m in fresh if m.idempotency_key is not None]
        if keyed:
            self._insert("INSERT INTO idempotency (key, message_id, digest) VALUES ", keyed)

    def _count_accepted(self, fresh: Iterable[NewMessage]) -> None:
        counts = Counter(
            [(transport, m.hold, address.type) for m in fresh for address, transport in m.recipients]
        )
        for (transport, hold, kind), n in counts.items():
            self._tally["state", transport, (State.HELD if hold else State.QUEUED).label] += n
            self._tally["accepted", "", kind] += n

    def exchange(
        self,
        messages: Sequence[NewMessage],
        owned: Container[tuple[int, int]],
        settlements: Sequence[Settlement],
    ) -> tuple[list[Accepted], list[Settlement], list[int]]:
        """Accept and settle in a transaction of their own; see the protocol."""
        if sum(len(m.content) for m in messages) <= MAX_OCTETS and all(map(_is_happy, settlements)):
            # An IntegrityError means that nothing was changed: somebody else's recipient or a used key is among them.
            # Which one, the ordinary way finds out.
            with contextlib.suppress(sqlite3.IntegrityError):
                return self._exchange_at_once(messages, owned, settlements)
        self.begin()
        applied, completed = self.settle(settlements)
        results = self.accept(messages, owned)
        self.commit()
        return results, applied, completed

    def _exchange_at_once(
        self,
        messages: Sequence[NewMessage],
        owned: Container[tuple[int, int]],
        settlements: Sequence[Settlement],
    ) -> tuple[list[Accepted], list[Settlement], list[int]]:
        results, fresh = self._sort_out(messages)
        self._tally.clear()
        self._count_accepted(fresh)
        self._count(settlements)
        done, asked = _finished(settlements)
        drop = not self._keep_content
        tally = [(*key, n) for key, n in self._tally.items() if n]
        self._onestep.exchange(
            node=self.node, messages=fresh, owned=owned, settlements=settlements, done=done if drop else [],
            asked=asked if drop else [], tally=tally,
        )  # fmt: skip
        if asked:
            # All is committed by now: what goes wrong here costs a notification, and waiters look for themselves.
            with contextlib.suppress(sqlite3.Error):
                done += [key for (key,) in self.connection.execute(sql.COMPLETED, (json.dumps(asked),))]
        return results, list(settlements), done

    def settle(self, settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[int]]:
        """Apply changes; see the protocol."""
        if not settlements:
            return [], []
        # Usually this is the first thing in its transaction, and beginning again undoes it without a savepoint.
        first = self._untouched
        self._untouched = False
        if not first:
            self.connection.execute("SAVEPOINT settle")
        if self._apply(settlements) == len(settlements):
            applied = list(settlements)
        else:
            # Somebody else's recipient, or one settled already, is among them: find out which, one by one.
            self.connection.execute("ROLLBACK" if first else "ROLLBACK TO settle")
            if first:
                self.connection.execute("BEGIN IMMEDIATE")
            applied = [settlement for settlement in settlements if self._apply([settlement]) == 1]
        if not first:
            self.connection.execute("RELEASE settle")
        self._count(applied)
        attempts = [_attempt_row(s) for s in applied if s.outcome not in _QUIET]
        if attempts:
            self._insert(sql.INSERT_ATTEMPT, attempts)
        return applied, self._complete(applied)

    def _apply(self, settlements: Sequence[Settlement]) -> int:
        plain: list[tuple[Any, ...]] = []
        full: list[tuple[Any, ...]] = []
        for settlement in settlements:
            if is_plain(settlement):
                plain.append(plain_row(settlement))
            else:
                full.append(_settle_row(settlement))
        changed = 0
        for statement, rows in ((sql.SETTLE_PLAIN, plain), (sql.SETTLE, full)):
            if rows:
                parameters = {"rows": _encode(rows), "node": self.node}
                changed += self.connection.execute(statement, parameters).rowcount
        return changed

    def _count(self, applied: Iterable[Settlement]) -> None:
        tally = self._tally
        counts = Counter([(s.transport, s.was, s.next_transport, s.state, s.outcome) for s in applied])
        for (transport, was, moved, state, outcome), n in counts.items():
            tally["state", transport, was.label] -= n
            tally["state", moved or transport, state.label] += n
            if outcome:
                tally["outcome", transport, outcome] += n

    def _complete(self, applied: Iterable[Settlement]) -> list[int]:
        """Return the messages that are complete now, and drop their content."""
        done, asked = _finished(applied)
        if asked:
            done += [key for (key,) in self.connection.execute(sql.COMPLETED, (json.dumps(asked),))]
        if done and not self._keep_content:
            self.connection.execute(sql.DROP_CONTENT, (json.dumps(done),))
        return done

    def claim(
        self, transport: str, now: float, limit: int
    ) -> tuple[list[Claimed], list[Settlement], list[int]]:
        """Take due recipients; see the protocol."""
        rows: list[tuple[Any, ...]] = []
        for priority in PRIORITIES:
            if len(rows) < limit:
                rows += self.connection.execute(sql.CLAIM_ROWS, (transport, priority, now, limit - len(rows)))
        if not rows:
            return [], [], []
        self._untouched = False
        self.connection.execute(sql.OWN, {"node": self.node, "rows": json.dumps([row[:2] for row in rows])})
        expired = [_expiry(row, transport, now) for row in rows if row[11] is not None and row[11] <= now]
        gone, completed = self.settle(expired)
        grouped: dict[int, list[tuple[Any, ...]]] = {}
        for row in rows:
            if row[11] is None or row[11] > now:
                grouped.setdefault(row[0], []).append(row)
        return [_claimed(group) for group in grouped.values()], gone, completed

    def journal(self, recipients: Iterable[tuple[int, int]], transport: str) -> None:
        """Record recipients as ``sending``; see the protocol."""
        self._untouched = False
        rows = json.dumps(list(recipients))
        moved = self.connection.execute(sql.JOURNAL, {"rows": rows, "node": self.node}).rowcount
        self._move(transport, State.QUEUED, State.SENDING, moved)

    def _move(self, transport: str, was: State, state: State, n: int) -> None:
        self._tally["state", transport, was.label] -= n
        self._tally["state", transport, state.label] += n

    def reclaim(self, transport: str, keep: Collection[tuple[int, int]]) -> int:
        """Give recipients back; see the protocol."""
        self._untouched = False
        kept = set(keep)
        rows = self.connection.execute(
            "SELECT message_id, idx, state FROM recipient WHERE owner = ? AND transport = ?",
            (self.node, transport),
        )
        back = [row for row in rows if (row[0], row[1]) not in kept]
        self.connection.executemany(
            "UPDATE recipient SET owner = NULL, state = 0 WHERE message_id = ? AND idx = ?",
            [row[:2] for row in back],
        )
        self._move(transport, State.SENDING, State.QUEUED, sum(row[2] == State.SENDING for row in back))
        return len(back)

    def adopt(self, hold: Collection[str], now: float) -> Mapping[str, int]:
        """Free the recipients of dead instances; see the protocol."""
        adopted: Counter[str] = Counter()
        for node, heartbeat in self.connection.execute("SELECT node, heartbeat FROM instance").fetchall():
            if node == self.node:
                continue
            dead = self._locks.is_dead(node)
            if dead is None:
                dead = heartbeat < now - HEARTBEAT_LAPSE
            if dead:
                self._adopt_from(node, hold, adopted)
        return adopted

    def _adopt_from(self, node: int, hold: Collection[str], adopted: Counter[str]) -> None:
        held = json.dumps(sorted(hold))
        for transport, state, n in self.connection.execute(
            "SELECT transport, state, count(*) FROM recipient WHERE owner = ? GROUP BY transport, state",
            (node,),
        ).fetchall():
            adopted[transport] += n
            if state == State.SENDING:
                self._move(transport, State.SENDING, State.HELD if transport in hold else State.QUEUED, n)
        self.connection.execute(sql.ADOPT_HELD, {"node": node, "hold": held})
        self.connection.execute(sql.ADOPT_DOUBTFUL, {"node": node, "hold": held})
        self.connection.execute("DELETE FROM standing WHERE node = ?", (node,))
        self.connection.execute("DELETE FROM instance WHERE node = ?", (node,))

    def control(
        self, action: Control, key: int, revoked: Collection[int], indices: Collection[int] | None, now: float
    ) -> Controlled:
        """Act on a message's pending recipients; see the protocol."""
        self._untouched = False
        result = control_message(self.connection, self.node, action, key, revoked, indices, now)
        self._count(result.settlements)
        completed = bool(self._complete(result.settlements))
        return Controlled(
            changed=tuple(s.index for s in result.settlements),
            in_transit=result.in_transit,
            final=result.final,
            transports=frozenset(s.transport for s in result.settlements),
            completed=completed,
            settlements=result.settlements,
        )

    # Housekeeping

    def next_due(self, transport: str) -> float | None:
        """Return the next due time; see the protocol."""
        times = [
            due
            for priority in PRIORITIES
            for (due,) in self.connection.execute(sql.NEXT_DUE, (transport, priority))
            if due is not None
        ]
        return min(times, default=None)

    def purge(self, before: float | None, content_before: float, limit: int) -> int:
        """Forget old messages; see the protocol."""
        return self._purger.purge(before, content_before, limit)

    def set_standing(self, standing: Standing) -> None:
        """Record where a transport stands; see the protocol."""
        self.connection.execute(
            "INSERT OR REPLACE INTO standing (node, transport, status, reason, since, until) VALUES (?, ?, ?, ?, ?, ?)",
            (
                self.node,
                standing.transport,
                standing.status,
                storable(standing.reason),
                standing.since,
                standing.until,
            ),
        )

    def checkpoint(self) -> None:
        """Copy what is left of the write-ahead log, so that it begins again at its start; waits for nobody."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def changed_elsewhere(self) -> bool:
        """Return whether another connection committed since the last call."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        changed: bool = version != self._data_version
        self._data_version = version
        return changed

    def heartbeat(self, now: float) -> None:
        """Record that this instance lives."""
        self.connection.execute("UPDATE instance SET heartbeat = ? WHERE node = ?", (now, self.node))


@lru_cache(maxsize=1024)
def _insertion(head: str, width: int, rows: int, tail: str) -> str:
    one = f"({','.join('?' * width)})"
    return f"{head}{','.join([one] * rows)}{tail}"


def _finished(settlements: Iterable[Settlement]) -> tuple[list[int], list[int]]:
    """Return the messages that are complete by these changes, and those that may be."""
    done: list[int] = []
    asked: dict[int, None] = {}
    for s in settlements:
        if s.state.is_final:
            if s.only:
                done.append(s.key)
            else:
                asked[s.key] = None
    return done, list(asked)


def _settle_row(s: Settlement) -> tuple[Any, ...]:
    reply = s.reply or Reply()
    return (
        s.key, s.index, s.was, s.state, s.due, s.next_transport, s.attempts, s.first_attempt, s.at, s.crashes,
        int(s.in_doubt), reply.code, reply.status, reply.text, reply.remote, s.remote_id, s.detail,
    )  # fmt: skip


_QUIET = frozenset({"", "delivered", "relayed", "accepted", "cancelled"})


def _is_happy(s: Settlement) -> bool:
    """Whether a settlement is plain and leaves no row of history."""
    return s.outcome in _QUIET and is_plain(s)


def _attempt_row(s: Settlement) -> tuple[Any, ...]:
    """The happy end is on the recipient itself; everything else leaves a row of history."""
    reply = s.reply or Reply()
    return (
        s.key, s.index, s.at, s.transport, s.outcome, reply.code, reply.status, reply.text, reply.remote, s.duration,
        s.detail,
    )  # fmt: skip


def _expiry(row: tuple[Any, ...], transport: str, now: float) -> Settlement:
    return Settlement(
        key=row[0], index=row[1], transport=transport, was=State.QUEUED, state=State.EXPIRED, at=now, attempts=row[4],
        first_attempt=row[5], reply=Reply("expired before it could be delivered", "4.4.7"), outcome="expired",
        in_doubt=bool(row[6]), crashes=row[7], only=row[16] == 1,
    )  # fmt: skip


def _claimed(group: Sequence[tuple[Any, ...]]) -> Claimed:
    key, _, _, _, _, _, _, _, _, sender, created, expires, priority, size, smtputf8, eight_bit, count = group[
        0
    ]
    return Claimed(
        key=key, sender=sender, created=created, due=min(row[8] for row in group), priority=priority, expires=expires,
        size=size, smtputf8=bool(smtputf8), eight_bit=bool(eight_bit), recipient_count=count,
        targets=tuple(Target(row[1], Address(row[2], row[3]), row[4], row[5], bool(row[6])) for row in group),
        crashes=max(row[7] for row in group),
    )  # fmt: skip
