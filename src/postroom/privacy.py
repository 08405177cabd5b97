"""Erasing somebody from a spool, for privacy requests: finding on read-only connections, changing through the store."""

import math
import secrets
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from postroom.addresses import Address, parse_address
from postroom.clock import Clock
from postroom.errors import InTransit, NotQueued, SpoolUnavailable, UnknownMessage, UsageError
from postroom.ids import format_id
from postroom.sentitems import Erasure
from postroom.stores.archive import SqliteArchive
from postroom.stores.driver import connect, sqlite3
from postroom.stores.erasing import (
    Concerned,
    Erased,
    concerned,
    erase_asides,
    erase_incoming,
    erase_step,
    log_erasure,
    operations_naming,
    orders_naming,
)
from postroom.stores.inbox_erasing import ConcernedInbound, concerned_inbound
from postroom.traces import Traces

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = ["Eraser", "Writer", "tombstone"]

T = TypeVar("T")
SCAN = 500
"""Messages that one reading step looks at."""
STEP = 100
"""Messages that one writing step changes, in one transaction."""


def tombstone() -> str:
    """Return what stands for an erased address: random, since a hash of an address can be guessed."""
    return f"erased:{secrets.token_hex(4)}"


class Writer(Protocol):
    """The store, as far as the archive needs it. Every method waits until it is done."""

    def perform(self, work: "Callable[[Connection], T]", timeout: float) -> T:
        """Do ``work`` in the store's thread, in a transaction of its own."""
        ...

    def cancel(self, message_id: str, recipients: Collection[int] | None = None) -> tuple[int, ...]:
        """Recall recipients; see :meth:`postroom.Spooler.cancel`."""
        ...

    def drop_orders(self, ids: Collection[int]) -> object:
        """Drop standing orders, and have everybody know."""
        ...


@dataclass(slots=True)
class _Scan:
    """What was found in the whole spool; see :class:`postroom.stores.erasing.Concerned`.

    Of incoming messages ``inbound`` are in folders; ``processed`` are those that postprocessors have.
    """

    keys: list[int] = field(default_factory=list[int])
    pending: list[tuple[int, tuple[int, ...] | None]] = field(
        default_factory=list[tuple[int, tuple[int, ...] | None]]
    )
    recipients: int = 0
    senders: int = 0
    contents: int = 0
    inbound: list[int] = field(default_factory=list[int])
    processed: list[int] = field(default_factory=list[int])


class Eraser:
    """Erases addresses. Thread-safe.

    Args:
        store: for finding.
        writer: for changing.
        clock: where the time comes from.
        tombstones: makes what stands for an address.
    """

    def __init__(
        self,
        store: SqliteArchive,
        writer: Writer | None,
        clock: Clock,
        tombstones: Callable[[], str] = tombstone,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._tombstones = tombstones

    def erase(  # noqa: PLR0913 - by keyword
        self,
        address: str | Address,
        *,
        apply: bool,
        cancel: bool,
        rewrite: bool,
        operator: str,
        reason: str,
        timeout: float,
    ) -> Erasure:
        """Erase an address; see :meth:`postroom.archive.Archive.erase`."""
        parsed = parse_address(address, field="address")
        traces = Traces(parsed, self._tombstones() if apply else "")
        deadline = self._clock.monotonic() + timeout
        scan = self._scan(traces)
        orders = self._store.read(lambda connection: orders_naming(connection, traces))
        operations = self._store.read(lambda connection: operations_naming(connection, traces))

        def result(pending: Iterable[int], *, rewritten: bool = False, trouble: str = "") -> Erasure:
            return Erasure(
                address=parsed, applied=apply, tombstone=traces.tombstone, messages=len(scan.keys), sent=scan.senders,
                recipients=scan.recipients, inbound=len(scan.inbound) + len(scan.processed), contents=scan.contents,
                orders=len(orders), operations=operations,
                pending=tuple(map(format_id, pending)), rewritten=rewritten, trouble=trouble,
            )  # fmt: skip

        if not apply:
            return result([*(key for key, _ in scan.pending), *scan.processed])
        writer = self._writer
        if writer is None:
            raise UsageError("apply", "needs a spooler that writes", "call erase() of a running Spooler")
        if scan.pending:
            if not cancel:
                raise UsageError(
                    "address",
                    f"{len(scan.pending)} messages with it are not settled ({format_id(scan.pending[0][0])} is one)",
                    "wait until they are, or recall them with cancel=True",
                )
            _recall(writer, scan.pending)
        if orders:
            writer.drop_orders(orders)
        left, scan.contents = self._erase_all(writer, traces, scan.keys, deadline)
        left += scan.processed
        for start in range(0, len(scan.inbound), STEP):
            some = scan.inbound[start : start + STEP]
            scan.contents += writer.perform(partial(_change_incoming, traces, some), self._left(deadline))
        now = self._clock.time()

        def finish(connection: "Connection") -> None:
            erase_asides(connection, traces)
            log_erasure(
                connection, traces, operator=operator, reason=reason, changed=scan.recipients, now=now
            )

        writer.perform(finish, self._left(deadline))
        trouble = self._rewrite(deadline) if rewrite else ""
        return result(left, rewritten=rewrite and not trouble, trouble=trouble)

    def _scan(self, traces: Traces) -> _Scan:
        scan = _Scan()
        after: int | None = 0
        while after is not None:
            found = self._store.read(partial(_look, traces, after))
            scan.keys += found.keys
            scan.pending += found.pending
            scan.recipients += found.recipients
            scan.senders += found.senders
            scan.contents += found.contents
            after = found.last
        after = 0
        while after is not None:
            incoming = self._store.read(partial(_look_incoming, traces, after))
            scan.inbound += [key for key in incoming.keys if key not in incoming.pending]
            scan.processed += incoming.pending
            scan.contents += incoming.contents
            after = incoming.last
        return scan

    def _erase_all(
        self, writer: Writer, traces: Traces, keys: list[int], deadline: float
    ) -> tuple[list[int], int]:
        """Return the messages that are left alone, and how many contents went."""
        left: list[int] = []
        contents = 0
        for start in range(0, len(keys), STEP):
            some = keys[start : start + STEP]
            erased = writer.perform(partial(_change, traces, some), self._left(deadline))
            left += erased.left
            contents += erased.contents
        return left, contents

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise SpoolUnavailable(
                "the erasure took too long and is not complete; erase again to do the rest"
            )
        return left

    def _rewrite(self, deadline: float) -> str:
        """Rewrite the database file and empty its log; return why that could not be done, "" when it was."""
        try:
            with closing(connect(self._store.path, create=False)) as connection:
                connection.execute(f"PRAGMA busy_timeout={max(1, math.ceil(self._left(deadline) * 1000))}")
                connection.execute("VACUUM")
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (sqlite3.Error, SpoolUnavailable) as error:
            return f"the file could not be rewritten: {error}"
        return "somebody reads an older state of the spool; erase again when that is over" if busy else ""


def _look(traces: Traces, after: int, connection: "Connection") -> Concerned:
    return concerned(connection, traces, after, SCAN)


def _look_incoming(traces: Traces, after: int, connection: "Connection") -> ConcernedInbound:
    return concerned_inbound(connection, traces, after, SCAN)


def _change_incoming(traces: Traces, keys: list[int], connection: "Connection") -> int:
    return erase_incoming(connection, traces, keys)


def _change(traces: Traces, keys: list[int], connection: "Connection") -> Erased:
    return erase_step(connection, traces, keys)


def _recall(writer: Writer, pending: Iterable[tuple[int, tuple[int, ...] | None]]) -> None:
    for key, indices in pending:
        # One that is being sent, or was settled meanwhile, shows in what the erasure leaves.
        if indices is None or indices:
            with suppress(InTransit, NotQueued, UnknownMessage):
                writer.cancel(format_id(key), indices)
