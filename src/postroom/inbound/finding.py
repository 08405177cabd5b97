"""Finding incoming messages by their words."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from postroom.clock import Clock
from postroom.errors import SpoolUnavailable, UsageError
from postroom.inbound.mailstore_values import FoundMail, inbound_message
from postroom.stores.archive import SqliteArchive
from postroom.stores.inbox_search import inbound_index_state, index_inbound_step, matching_inbound
from postroom.stores.search import match_expression

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = ["IndexWriter", "MailSearch"]

T = TypeVar("T")
STEP = 50
"""Messages that the index takes in with one transaction."""


class IndexWriter(Protocol):
    """The store, as far as the index needs it."""

    def perform(self, work: "Callable[[Connection], T]", timeout: float) -> T:
        """Do ``work`` in the store's thread, in a transaction of its own."""
        ...


class MailSearch:
    """Searches incoming messages. Thread-safe.

    Args:
        path: the database file.
        writer: brings the index up to date; None only reads.
        clock: where the time comes from.
        index: the spool keeps an index; without one searching is refused.
    """

    def __init__(self, path: Path, writer: IndexWriter | None, clock: Clock, *, index: bool = True) -> None:
        self._files = SqliteArchive(path)
        self._writer = writer
        self._clock = clock
        self._index = index

    def search(self, query: str, *, folder: str | None, limit: int, timeout: float) -> FoundMail:
        """Return the newest messages that match; see :meth:`postroom.inbound.mailstore.MailStore.search`."""
        expression = match_expression(query)
        if limit < 1:
            raise UsageError("limit", f"{limit} is not positive", "give a number above 0")
        if not self._index:
            raise UsageError("search", "is switched off for this spool", "set search = true in its settings")
        if self._writer is not None:
            self._catch_up(self._writer, self._clock.monotonic() + timeout)
        with self._files.snapshot() as connection:
            state = inbound_index_state(connection)
            if not state.possible:
                raise UsageError(
                    "search",
                    "needs a SQLite with FTS5, which this one lacks",
                    "install the extra postroom[sqlite]",
                )
            records = matching_inbound(connection, expression, folder=folder, limit=limit)
        return FoundMail(tuple(map(inbound_message, records)), state.complete)

    def _catch_up(self, writer: IndexWriter, deadline: float) -> None:
        """Have the store bring the index up to date; what goes wrong costs no more than that."""
        with suppress(SpoolUnavailable):
            while (
                not self._files.read(inbound_index_state).complete
                and (left := deadline - self._clock.monotonic()) > 0
            ):
                if not writer.perform(_index_more, left):
                    return


def _index_more(connection: "Connection") -> int:
    return index_inbound_step(connection, STEP)
