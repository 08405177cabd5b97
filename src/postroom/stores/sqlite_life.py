"""The life of a store on SQLite: opening, being an instance, transactions, and what is kept beside the messages."""

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from postroom.addresses import Address
from postroom.clock import Clock
from postroom.errors import SpoolUnavailable
from postroom.ids import MAX_NODE, IdGenerator
from postroom.stores import sql
from postroom.stores.base import (
    Action,
    DestinationStanding,
    Order,
    Request,
    Settlement,
    Standing,
    storable,
)
from postroom.stores.claiming import Claimer
from postroom.stores.driver import Synchronous, connect, drop_statistics, sqlite3
from postroom.stores.following import Following
from postroom.stores.inbox import SqliteInbox
from postroom.stores.inbox_search import index_inbound_step
from postroom.stores.journal import SqliteJournal
from postroom.stores.liveness import InstanceLocks
from postroom.stores.onestep import (
    OneStep,
)
from postroom.stores.orders import drop_orders, log_operation, set_order
from postroom.stores.requests import take_requests
from postroom.stores.retention import Purger
from postroom.stores.schema import migrate
from postroom.stores.search import index_step

__all__ = ["SqliteLife"]

MAX_ROWS = 100
"""Rows inserted by one statement."""


def _nowhere(_address: Address) -> tuple[str, ...]:
    return ()


class SqliteLife:
    """The connection, the transactions and the small facts of :class:`postroom.stores.sqlite.SqliteStore`.

    Args:
        path: the database file; ``PATH-wal``, ``PATH-shm`` and the folder ``PATH.instances`` stand beside it.
        clock: for the instance's times.
        synchronous: SQLite's durability: "full" survives power loss, "normal" only process death.
        keep_content: whether octets outlive the completion of their message.
        plan: the transports to try for an address, in order; for recipients that get another address.
        linger: seconds until the failed recipients of an incomplete message are reported; None without reports.

    Attributes:
        following: what the last transaction means for followups and for messages that wait for others.
        inbox: incoming messages.
        events: the journal of events.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        path: Path,
        clock: Clock,
        *,
        synchronous: Synchronous = "full",
        keep_content: bool = False,
        plan: Callable[[Address], tuple[str, ...]] = _nowhere,
        linger: float | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._synchronous: Synchronous = synchronous
        self._keep_content = keep_content
        self._linger = linger
        self._locks = InstanceLocks(path.with_name(path.name + ".instances"))
        self._tally: Counter[tuple[str, str, str]] = Counter()
        self._data_version = -1
        self._untouched = True
        self._place: tuple[int, int] | None = None
        self._plan = plan
        self.node = -1
        self.ids: IdGenerator
        self.following: Following
        self.inbox: SqliteInbox
        self.events: SqliteJournal

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
        self._claimer = Claimer(self.connection)
        self.following = Following(self.connection, self._linger)
        if self.node < 0:
            self._register()
        self.inbox = SqliteInbox(
            self.connection, self.node, self.ids, self._tally, self._change_unowned, self._locks.is_dead
        )
        self.events = SqliteJournal(self.connection)
        self._place = self._found()

    def _change_unowned(self, settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[int]]:
        """Settle recipients that nobody has in hand."""
        raise NotImplementedError

    def _register(self) -> None:
        """Become an instance; the generator of numbers lives as long as that, since some are not stored yet."""
        now = self._clock.time()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            taken = {node for (node,) in self.connection.execute("SELECT node FROM instance")}
            free = (node for node in range(MAX_NODE + 1) if node not in taken and self._locks.acquire(node))
            node = next(free, None)
            if node is None:
                raise SpoolUnavailable(f"all {MAX_NODE + 1} instance numbers are taken")  # noqa: TRY301 - as the rest
            (floor,) = self.connection.execute(
                "SELECT max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT max(id) FROM inbound), 0))"
            ).fetchone()
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
        self.following.begin()
        self.inbox.begin()
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

    # Orders, requests, facts

    def take_requests(self, limit: int) -> Sequence[Request]:
        """Take what operators elsewhere want of this instance; see the protocol."""
        self._untouched = False
        return take_requests(self.connection, self.node, limit)

    def set_order(self, order: Order) -> Order:
        """Record a standing order; see the protocol."""
        return set_order(self.connection, order)

    def drop_orders(self, ids: Collection[int]) -> int:
        """Forget standing orders; see the protocol."""
        return drop_orders(self.connection, ids)

    def log_operation(
        self, action: Action, selection: str, changed: int, now: float, operation: int | None
    ) -> int:
        """Record what an operator does; see the protocol."""
        return log_operation(self.connection, action, selection, changed, now, operation)

    def fact(self, name: str) -> str | None:
        """Return a small fact about the spool; see the protocol."""
        row = self.connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        """Record a small fact about the spool; see the protocol."""
        self.connection.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, value))

    # Housekeeping

    def purge(self, before: float | None, content_before: float, limit: int) -> int:
        """Forget old messages; see the protocol."""
        return self._purger.purge(before, content_before, limit)

    def index(self, limit: int, now: float) -> int:
        """Take messages, sent and received, into the search index; see the protocol."""
        sent = index_step(self.connection, limit, now)
        return sent + index_inbound_step(self.connection, limit)

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

    def set_destination(self, standing: DestinationStanding) -> None:
        """Record where a destination stands; see the protocol."""
        if standing.status == "up":
            self.connection.execute(
                "DELETE FROM destination WHERE transport = ? AND destination = ?",
                (standing.transport, standing.destination),
            )
            return
        self.connection.execute(
            "INSERT OR REPLACE INTO destination (transport, destination, status, reason, since, until, failures,"
            " allowed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                standing.transport, standing.destination, standing.status, storable(standing.reason), standing.since,
                standing.until, standing.failures, standing.limit,
            ),
        )  # fmt: skip

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
