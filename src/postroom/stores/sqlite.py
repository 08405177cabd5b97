"""The store on SQLite: the only writer of a process."""

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from postroom.lanes import destination_of, lane_of
from postroom.recipients import State
from postroom.stores import sql
from postroom.stores.base import (
    Accepted,
    Action,
    Claimed,
    Controlled,
    Followup,
    NewMessage,
    Place,
    Replan,
    Replanned,
    Settlement,
    storable,
)
from postroom.stores.claiming import PRIORITIES
from postroom.stores.controls import control_message
from postroom.stores.driver import sqlite3
from postroom.stores.forgetting import forget_messages
from postroom.stores.onestep import (
    MAX_OCTETS,
    is_plain,
    is_plain_message,
    message_row,
    plain_row,
    recipient_rows,
)
from postroom.stores.replanning import expiring, find_replans
from postroom.stores.rows import QUIET, attempt_row, claimed, expiry, finished, is_happy, settle_row
from postroom.stores.sqlite_life import SqliteLife

__all__ = ["SqliteStore"]

HEARTBEAT_LAPSE = 60.0
"""Seconds after which an instance without lock support counts as dead."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class SqliteStore(SqliteLife):
    """See :class:`postroom.stores.base.Store`; the arguments are those of :class:`SqliteLife`."""

    # The life of a recipient

    def accept(self, messages: Sequence[NewMessage], owned: Container[tuple[int, int]]) -> list[Accepted]:
        """Insert messages; see the protocol."""
        results, fresh = self._sort_out(messages)
        if fresh:
            self._insert_messages(fresh, owned)
            if any(m.followed for m in fresh):
                done = self._end_at_once(fresh)
                results = [Accepted(r.key, r.duplicate, r.conflict, r.key in done) for r in results]
        return results

    def _end_at_once(self, fresh: Iterable[NewMessage]) -> set[int]:
        """Put on the record why recipients do not begin queued; returns the messages that are complete by that."""
        ended: list[Settlement] = []
        for m in fresh:
            for index, (_, transport, _, state, reply, outcome) in enumerate(m.recipients):
                if state is None or reply is None:
                    continue
                s = Settlement(
                    m.key, index, transport, state, state, m.created, 0, reply=reply, outcome=outcome
                )
                self.connection.execute(
                    "UPDATE recipient SET reply_code = ?, reply_status = ?, reply_text = ?, changed = ?,"
                    " due = CASE WHEN state < 10 THEN due END WHERE message_id = ? AND idx = ?",
                    (reply.code, reply.status, storable(reply.text), m.created, m.key, index),
                )
                if state.is_final:
                    self._tally["outcome", transport, outcome] += 1
                    ended.append(s)
        if not ended:
            return set()
        attempts = [attempt_row(s) for s in ended if s.outcome not in QUIET]
        if attempts:
            self._insert(sql.INSERT_ATTEMPT, attempts)
        return set(self._complete(ended))

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
        after = self.following.predecessors(fresh)
        recipients = [row for m in fresh for row in recipient_rows(m, owned, self.node, after.get(m.key))]
        self._insert(sql.INSERT_MESSAGE, [message_row(m) for m in fresh])
        self._insert(sql.INSERT_CONTENT, [(m.key, m.content) for m in fresh])
        self._insert(sql.INSERT_RECIPIENT, recipients)
        keyed = [(m.idempotency_key, m.key, m.digest) for m in fresh if m.idempotency_key is not None]
        if keyed:
            self._insert("INSERT INTO idempotency (key, message_id, digest) VALUES ", keyed)
        self.following.accepted(fresh)

    def _count_accepted(self, fresh: Iterable[NewMessage]) -> None:
        counts = Counter(
            [
                (transport, m.hold, state, address.type)
                for m in fresh
                for address, transport, _, state, _, _ in m.recipients
            ]
        )
        for (transport, hold, state, kind), n in counts.items():
            begins = state if state is not None else State.HELD if hold else State.QUEUED
            self._tally["state", transport, begins.label] += n
            self._tally["accepted", "", kind] += n

    def exchange(
        self,
        messages: Sequence[NewMessage],
        owned: Container[tuple[int, int]],
        settlements: Sequence[Settlement],
    ) -> tuple[list[Accepted], list[Settlement], list[int]]:
        """Accept and settle in a transaction of their own; see the protocol."""
        if (
            sum(len(m.content) for m in messages) <= MAX_OCTETS
            and all(map(is_happy, settlements))
            and all(map(is_plain_message, messages))
        ):
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
        self.following.begin()
        self._count_accepted(fresh)
        self._count(settlements)
        done, asked = finished(settlements)
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
        former = self._former_addresses(settlements)
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
        return applied, self._record(applied, former)

    def _former_addresses(self, settlements: Iterable[Settlement]) -> dict[tuple[int, int], str]:
        """Return the present addresses of the recipients that turn to another one."""
        return {
            (s.key, s.index): address
            for s in settlements
            if s.next_address is not None
            for (address,) in self.connection.execute(
                "SELECT address_type || ':' || address FROM recipient WHERE message_id = ? AND idx = ?",
                (s.key, s.index),
            )
        }

    def _record(self, applied: Sequence[Settlement], former: Mapping[tuple[int, int], str]) -> list[int]:
        """Write the history of changes and what follows from them; returns the messages that are complete now."""
        attempts = [attempt_row(s, former.get((s.key, s.index))) for s in applied if s.outcome not in QUIET]
        if attempts:
            self._insert(sql.INSERT_ATTEMPT, attempts)
        return self._complete(applied)

    def _apply(self, settlements: Sequence[Settlement]) -> int:
        plain: list[tuple[Any, ...]] = []
        full: list[tuple[Any, ...]] = []
        variants: dict[tuple[int, int], int] = {}
        for settlement in settlements:
            if is_plain(settlement):
                plain.append(plain_row(settlement))
            else:
                full.append(
                    settle_row(settlement, self._variant_of(settlement, variants), self._lane_of(settlement))
                )
        changed = 0
        for statement, rows in ((sql.SETTLE_PLAIN, plain), (sql.SETTLE, full)):
            if rows:
                parameters = {"rows": _encode(rows), "node": self.node}
                changed += self.connection.execute(statement, parameters).rowcount
        return changed

    def _variant_of(self, s: Settlement, variants: dict[tuple[int, int], int]) -> int | None:
        """Store the content that a preprocessor made, once for all recipients that share it; returns its number."""
        if s.content is None:
            return None
        shared = (s.key, id(s.content))
        if shared not in variants:
            cursor = self.connection.execute(
                "INSERT INTO variant (message_id, data) VALUES (?, ?)", (s.key, s.content)
            )
            variants[shared] = cursor.lastrowid or 0
        return variants[shared]

    def _lane_of(self, s: Settlement) -> int | None:
        """Return the lane of a recipient that turns to another address, None when it stays in its own."""
        if s.next_address is None:
            return None
        (tenant,) = self.connection.execute("SELECT tenant FROM message WHERE id = ?", (s.key,)).fetchone()
        return lane_of(tenant or "", destination_of(s.next_address))

    def _count(self, applied: Iterable[Settlement]) -> None:
        tally = self._tally
        counts = Counter([(s.transport, s.was, s.next_transport, s.state, s.outcome) for s in applied])
        for (transport, was, moved, state, outcome), n in counts.items():
            tally["state", transport, was.label] -= n
            tally["state", moved or transport, state.label] += n
            if outcome:
                tally["outcome", transport, outcome] += n

    def _complete(self, applied: Sequence[Settlement]) -> list[int]:
        """Return the messages that are complete now, and drop their content."""
        done, asked = finished(applied)
        if asked:
            done += [key for (key,) in self.connection.execute(sql.COMPLETED, (json.dumps(asked),))]
        self.following.ended(applied, done)
        if done and not self._keep_content:
            self.following.drop_content(done)
        return done

    def claim(
        self, transport: str, now: float, limit: int, *, fair: bool = False, blocked: Collection[str] = ()
    ) -> tuple[list[Claimed], list[Settlement], list[int]]:
        """Take due recipients; see the protocol."""
        rows = self._claimer.find(transport, now, limit, fair=fair, blocked=blocked)
        if not rows:
            return [], [], []
        self._untouched = False
        self._own([row[:2] for row in rows])
        expired = [expiry(row, transport, now) for row in rows if row[11] is not None and row[11] <= now]
        gone, completed = self.settle(expired)
        grouped: dict[int, list[tuple[Any, ...]]] = {}
        for row in rows:
            if row[11] is None or row[11] > now:
                grouped.setdefault(row[0], []).append(row)
        return [claimed(group) for group in grouped.values()], gone, completed

    def _own(self, places: Sequence[Sequence[int]]) -> None:
        self.connection.execute(sql.OWN, {"node": self.node, "rows": _encode(places)})

    def sweep(self, now: float, limit: int, *, held: bool) -> tuple[list[Settlement], list[int]]:
        """Expire what waits too long; see the protocol."""
        return self._change_unowned(expiring(self.connection, now, limit, held=held))

    def _change_unowned(self, settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[int]]:
        """Settle recipients that nobody has in hand."""
        if not settlements:
            return [], []
        self._untouched = False
        self._own([(s.key, s.index) for s in settlements])
        return self.settle(settlements)

    def next_expiry(self) -> float | None:
        """Return when the next recipient expires; see the protocol."""
        row: tuple[float | None] = self.connection.execute(sql.NEXT_EXPIRY).fetchone()
        return row[0]

    def replan(  # noqa: PLR0913 - the protocol's
        self, transport: str, plan: Replan, after: Place | None, limit: int, now: float, *, aside: bool
    ) -> Replanned:
        """Plan again; see the protocol."""
        settlements, last = find_replans(
            self.connection, transport, plan, after, limit, now, self._plan, aside=aside
        )
        applied, completed = self._change_unowned(settlements)
        return Replanned(applied, completed, last)

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
        # What its intake had claimed is due now, and its receivers are anybody's.
        self.connection.execute(
            "UPDATE inbound SET due = ?, owner = NULL WHERE due IS NOT NULL AND owner = ?",
            (self._clock.time(), node),
        )
        self.connection.execute("DELETE FROM lease WHERE node = ?", (node,))
        self.connection.execute("DELETE FROM standing WHERE node = ?", (node,))
        self.connection.execute("DELETE FROM instance WHERE node = ?", (node,))

    def control(
        self, action: Action, key: int, revoked: Collection[int], indices: Collection[int] | None, now: float
    ) -> Controlled:
        """Act on a message's recipients; see the protocol."""
        self._untouched = False
        result = control_message(self.connection, self.node, action, key, revoked, indices, now, self._plan)
        self._count(result.settlements)
        completed = bool(self._record(result.settlements, {}))
        if result.deleted:
            forget_messages(self.connection, [key])
        return Controlled(
            changed=tuple(s.index for s in result.settlements),
            in_transit=result.in_transit,
            final=result.final,
            transports=frozenset(s.next_transport or s.transport for s in result.settlements) | result.freed,
            completed=completed,
            settlements=result.settlements,
            requested=result.requested,
            deleted=result.deleted,
        )

    def followed_up(self, followup: Followup, reported: Collection[int], again: float | None) -> bool:
        """Note that a followup is done; see the protocol."""
        self._untouched = False
        return self.following.followed_up(followup, reported, again, keep_content=self._keep_content)

    # Beside the messages

    def next_due(self, transport: str) -> float | None:
        """Return the next due time; see the protocol."""
        times = [
            due
            for priority in PRIORITIES
            for (due,) in self.connection.execute(sql.NEXT_DUE, (transport, priority))
            if due is not None
        ]
        return min(times, default=None)
