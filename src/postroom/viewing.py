"""Looking at a spool: from the process that runs it, or from any other that can read the file."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from postroom.archive import Archive
from postroom.clock import Clock, SystemClock
from postroom.destinations import Gate
from postroom.errors import ConfigurationError, NotRunning, UnknownMessage
from postroom.explaining import Scene, explain_recipient
from postroom.ids import parse_id
from postroom.inbound.mailstore import MailStore
from postroom.pauses import pauses_of
from postroom.recipients import PENDING_STATES, State
from postroom.status import (
    Explanation,
    MessageStatus,
    QueueEntry,
    message_status,
    queue_entry,
)
from postroom.stores.base import InstanceRow, MessageRecord, Order, Reader, Standing, Tally
from postroom.stores.inbox_reader import SqliteInboxReader

__all__ = ["SpoolView", "best_standings"]

PAGE = 500


def best_standings(reader: Reader) -> dict[str, Standing]:
    """Of several processes' standings of a transport the best is the one that counts: it can deliver."""
    best: dict[str, Standing] = {}
    for standing in reader.standings():
        known = best.get(standing.transport)
        if known is None or (known.status != "up" and standing.status == "up"):
            best[standing.transport] = standing
    return best


def _no_phase(_key: int, _index: int) -> str | None:
    return None


def _paused(standing: Standing, orders: Sequence[Order], now: float) -> Standing:
    """Return where a transport stands, seen with the pauses; one that does not run is not paused but stopped."""
    if standing.status == "stopped":
        return standing
    for pause in pauses_of(orders, standing.transport):
        if pause.holds(None, now):
            return replace(standing, status="paused", reason=pause.rule, until=pause.expires)
    return standing


class SpoolView(AbstractContextManager["SpoolView"]):
    """A read-only look at a spool. Thread-safe; never waits for the writer.

    Args:
        path: the database file, which must exist; or a reader that is open already.
        clock: for what is due.
        node: this process's instance number, when it runs a spooler on the spool.
        standings: where this process's transports stand; by default what running processes have recorded.
        phase: what this process does with a recipient: "waiting", "sending" or None.
        live: told (transport, destination), what this process's transport actors know to be in the way.
        failover: seconds of outage after which a transport's work moves on, by name.
        archive: for sent items; by default one that only reads, where a path is given.

    Raises:
        ConfigurationError: there is no such file.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        path: str | Path | Reader,
        *,
        clock: Clock | None = None,
        node: int | None = None,
        standings: Callable[[], Mapping[str, Standing]] | None = None,
        phase: Callable[[int, int], str | None] | None = None,
        live: Callable[[str, str], Gate | None] | None = None,
        failover: Mapping[str, float] | None = None,
        archive: Archive | None = None,
    ) -> None:
        if isinstance(path, str | Path):
            if not Path(path).is_file():
                raise ConfigurationError(
                    "path", f"there is no spool at {path}", "start a spooler on it first"
                )
            self._own: SqliteInboxReader | None = SqliteInboxReader(Path(path))
            self._reader: Reader = self._own
        else:
            self._own = None
            self._reader = path
        self._clock = clock or SystemClock()
        self._node = node
        self._standings = standings or self._recorded_standings
        self._phase = phase or _no_phase
        self._live = live
        self._failover = failover or {}
        self._archive = archive
        if archive is None and isinstance(path, str | Path):
            self._archive = Archive(Path(path), clock=self._clock)
        self._mail = (
            MailStore(Path(path), self._own, clock=self._clock)
            if isinstance(path, str | Path) and self._own is not None
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that the view opened itself."""
        if self._own is not None:
            self._own.close()

    def _recorded_standings(self) -> Mapping[str, Standing]:
        return best_standings(self._reader)

    def record(self, message_id: str) -> MessageRecord:
        """Return a message as the spool has it.

        Raises:
            UnknownMessage: there is none with this id (any more).
        """
        record = self._reader.message(parse_id(message_id))
        if record is None:
            raise UnknownMessage(
                "id", f"the spool holds no message {message_id}", "check the id; old ones go after keep_sent"
            )
        return record

    def status(self, message_id: str) -> MessageStatus:
        """Return where a message and each of its recipients stand.

        Raises:
            UnknownMessage: there is none with this id (any more).
        """
        return message_status(self.record(message_id))

    def content(self, message_id: str) -> bytes | None:
        """Return a message's octets, None when they are gone (``keep_content``).

        Raises:
            UnknownMessage: there is none with this id (any more).
        """
        return self._reader.content(self.record(message_id).key)

    def explain(self, message_id: str) -> tuple[Explanation, ...]:
        """Return for each recipient the gate at which it waits, until when, and by which rule.

        Raises:
            UnknownMessage: there is none with this id (any more).
        """
        record = self.record(message_id)
        scene = Scene(
            now=self._clock.time(),
            node=self._node,
            standings=self._standings(),
            instances={row.node: row for row in self._reader.instances()},
            orders=self._reader.orders(),
            destinations={(row.transport, row.destination): row for row in self._reader.destinations()},
            live=self._live,
            failover=self._failover,
        )
        return tuple(
            explain_recipient(
                recipient, scene, message=record, phase=self._phase(record.key, recipient.index)
            )
            for recipient in record.recipients
        )

    @property
    def archive(self) -> Archive:
        """Sent items: lists, search and export. From a path it only reads, so that nothing can be erased through it.

        Raises:
            NotRunning: the view was made without one.
        """
        if self._archive is None:
            raise NotRunning("this view has no archive; open one on the spool's file")
        return self._archive

    @property
    def mail(self) -> MailStore:
        """Incoming mail: lists, search and export. It only reads.

        Raises:
            NotRunning: the view was not opened on a path.
        """
        if self._mail is None:
            raise NotRunning("this view has no mail; open one on the spool's file")
        return self._mail

    def queue(
        self,
        *,
        states: Collection[State] = PENDING_STATES,
        transport: str | None = None,
        limit: int | None = 1000,
    ) -> Iterator[QueueEntry]:
        """Yield recipients in the order of submission, read page by page, so that memory stays bounded.

        Args:
            states: those of interest; by default all that are not settled.
            transport: only those that this transport has.
            limit: how many at most; None for all.
        """
        after: tuple[int, int] | None = None
        left = limit
        while left is None or left > 0:
            page = PAGE if left is None else min(PAGE, left)
            rows = self._reader.list_recipients(states=states, transport=transport, after=after, limit=page)
            for message, recipient in rows:
                yield queue_entry(message, recipient)
            if len(rows) < page:
                return
            after = (rows[-1][0].key, rows[-1][1].index)
            left = None if left is None else left - len(rows)

    def tally(self) -> Tally:
        """Return the ledger: recipients by state, for ever; costs the same at any depth."""
        return self._reader.tally()

    def standings(self) -> Mapping[str, Standing]:
        """Return where the transports stand, by name; "paused" where an operator wants that."""
        now = self._clock.time()
        orders = self._reader.orders()
        return {name: _paused(standing, orders, now) for name, standing in self._standings().items()}

    def instances(self) -> tuple[InstanceRow, ...]:
        """Return the processes that share the spool."""
        return tuple(self._reader.instances())

    def audit(self) -> dict[tuple[str, State], int]:
        """Recount the pending recipients row by row; returns where the tally differs, empty when it is right.

        The cost grows with the spool; traffic between the two readings shows as a difference.
        """
        tally = {key: n for key, n in self._reader.tally().states.items() if not key[1].is_final}
        counted = self._reader.recount()
        return {
            key: counted.get(key, 0) - tally.get(key, 0)
            for key in {*tally, *counted}
            if counted.get(key, 0) != tally.get(key, 0)
        }
