"""Reading the journal of events: what happened, in the order in which it became durable, by number.

A *cursor* is the number of an event: ``after=cursor`` means everything behind it. Numbers are given in the order of the
commits, by all processes that share the spool, so who has read up to a number never misses one below it.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from postroom.errors import CursorExpired, UsageError
from postroom.events import Event
from postroom.notifying.bell import Bell
from postroom.notifying.codec import UnknownEvent, decode
from postroom.notifying.journalled import KINDS
from postroom.stores.inbox_base import JournalReader, JournalRow

__all__ = [
    "EventLog",
    "Page",
    "Recorded",
    "check_cursor",
    "check_kinds",
    "check_name",
    "kept_names",
    "leaves",
]

log = logging.getLogger("postroom.notifier")

PAGE: Final = 500
"""Events that are read at once."""

Kinds = Collection[type[Event]]


class Recorded(NamedTuple):
    """An event of the journal.

    Attributes:
        cursor: its number; give it as ``after`` to read on behind it.
        event: what happened.
    """

    cursor: int
    event: Event


@dataclass(frozen=True, slots=True)
class Page:
    """Some events of the journal.

    Attributes:
        events: in their order.
        through: everything up to this number has been read, whether it was asked for or not.
        more: there may be more behind it.
    """

    events: tuple[Recorded, ...]
    through: int
    more: bool


def check_kinds(kinds: Kinds, field: str = "kinds") -> tuple[type[Event], ...]:
    """Return ``kinds`` if they are classes of events.

    Raises:
        UsageError: naming ``field``.
    """
    given = cast("object", kinds)  # callers may be untyped
    if not isinstance(given, Collection) or not all(
        isinstance(each, type) and issubclass(each, Event) for each in cast("Collection[object]", given)
    ):
        raise UsageError(
            field,
            f"{kinds!r} are no classes of events",
            "give classes of postroom.events, as in {NewMessage}",
        )
    return tuple(kinds)


def leaves(kinds: Kinds) -> frozenset[str]:
    """Return the names of the events that are of some classes or their subclasses; of all for none."""
    wanted = tuple(kinds) or (Event,)
    return frozenset(name for name, kind in KINDS.items() if issubclass(kind, wanted))


def check_cursor(cursor: object, field: str = "after") -> int:
    """Return ``cursor`` if it can be one.

    Raises:
        UsageError: naming ``field``.
    """
    if isinstance(cursor, bool) or not isinstance(cursor, int) or cursor < 0:
        raise UsageError(field, f"{cursor!r} is no cursor", "give one that an event came with, or 0")
    return cursor


def check_name(name: str, field: str = "name") -> str:
    """Return ``name`` if a cursor can be called so.

    Raises:
        UsageError: naming ``field``.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise UsageError(field, f"{name!r} is no name", "give 1 to 200 printable characters")
    return name


def kept_names(kinds: Kinds, kept: frozenset[str], field: str = "kinds") -> frozenset[str]:
    """Return the names of the events that ``kinds`` stand for; empty for all.

    Args:
        kinds: classes of events, subclasses included.
        kept: the names of those that the journal keeps.
        field: what ``kinds`` is called.

    Raises:
        UsageError: the journal does not keep one of them.
    """
    remedy = "name it in Settings(durable_events=…), with keep_events above 0, or subscribe() to it"
    checked = check_kinds(kinds, field)
    if not kept:
        raise UsageError(field, "the journal keeps no events", remedy)
    for kind in checked:
        if not kept & leaves((kind,)):
            raise UsageError(field, f"{kind.__name__} is not kept in the journal", remedy)
    return frozenset() if not checked or Event in checked else leaves(checked)


class EventLog:
    """The journal of events of one spool. Thread-safe; reading never waits for the writer.

    Args:
        reader: of the spool.
        kept: the names of the classes that the journal keeps (``settings.journalled``).
        bell: rung when this process wrote into the journal.
        interval: seconds between looks for what other processes wrote.
        running: whether the spooler still runs; those who wait end when it does not.
    """

    def __init__(
        self,
        reader: JournalReader,
        *,
        kept: frozenset[str],
        bell: Bell | None = None,
        interval: float = 1.0,
        running: Callable[[], bool] = lambda: True,
    ) -> None:
        self._reader = reader
        self.kept = kept
        self.bell = bell or Bell()
        self.interval = interval
        self.running = running

    @property
    def first(self) -> int:
        """The earliest cursor that can be read on from."""
        return self._reader.bounds()[0]

    @property
    def last(self) -> int:
        """The last number given: the cursor behind which there is only what happens from now on."""
        return self._reader.bounds()[1]

    def cursors(self) -> Mapping[str, int]:
        """Return the named cursors."""
        return self._reader.cursors()

    def events(self, after: int = 0, *, kinds: Kinds = (), limit: int | None = None) -> Iterator[Recorded]:
        """Yield what happened behind a cursor until now, page by page.

        Args:
            after: a cursor, or 0 for everything that is kept.
            kinds: classes of events, subclasses included; none means all that the journal has.
            limit: how many at most.

        Raises:
            CursorExpired: events behind ``after`` are not kept any more.
            UsageError: ``after`` was never given, or the journal does not keep one of ``kinds``.
        """
        names = self.names_of(kinds)
        if limit is not None and limit < 0:
            raise UsageError("limit", f"{limit} is negative", "give how many events at most, or None")
        after = self.start(after)
        return self._until(after, names, self.last, limit)

    def _until(self, after: int, names: frozenset[str], last: int, limit: int | None) -> Iterator[Recorded]:
        left = limit
        while after < last and left != 0:
            page = self.page(after, names, PAGE if left is None else min(left, PAGE))
            for recorded in page.events:
                if recorded.cursor <= last:
                    yield recorded
            left = None if left is None else left - len(page.events)
            after = page.through

    def follow(
        self,
        after: int = 0,
        *,
        kinds: Kinds = (),
        timeout: float | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Recorded]:
        """Yield what happened behind a cursor and then, as it happens, what comes; blocks in between.

        What this process does is seen at once, what others do within ``settings.sync_interval``. It ends when the
        spooler is stopped.

        Args:
            after: a cursor, or 0 for everything that is kept.
            kinds: as in :meth:`events`.
            timeout: end when nothing came for so many seconds; None never.
            stop: end when it is set, which is noticed within ``settings.sync_interval``.

        Raises: as :meth:`events`.
        """
        return self._follow(self.start(after), self.names_of(kinds), timeout, stop)

    def _follow(
        self, after: int, names: frozenset[str], timeout: float | None, stop: threading.Event | None
    ) -> Iterator[Recorded]:
        quiet_since = time.monotonic()
        while self.running() and not (stop is not None and stop.is_set()):
            rung = self.bell.rung
            page = self.page_or_none(after, names)
            if page is None:
                return
            yield from page.events
            after = page.through
            if page.events:
                quiet_since = time.monotonic()
            if page.more:
                continue
            left = self.interval
            if timeout is not None:
                left = min(left, quiet_since + timeout - time.monotonic())
                if left <= 0:
                    return
            self.bell.wait(rung, left)

    # For those who read page by page

    def names_of(self, kinds: Kinds, field: str = "kinds") -> frozenset[str]:
        """Return the names of the events that ``kinds`` stand for; empty for all.

        Raises:
            UsageError: the journal does not keep one of them.
        """
        return kept_names(kinds, self.kept, field)

    def start(self, after: int) -> int:
        """Return the cursor to read on from: the earliest one for 0.

        Raises:
            CursorExpired: events behind ``after`` are not kept any more.
            UsageError: it is no cursor, or was never given.
        """
        after = check_cursor(after)
        first, last = self._reader.bounds()
        if after > last:
            raise UsageError(
                "after",
                f"{after} was never given; the last cursor of this spool is {last}",
                "give a cursor of this spool, or 0 for all that is kept",
            )
        if 0 < after < first:
            raise CursorExpired(after, first)
        return max(after, first)

    def page(self, after: int, names: frozenset[str] = frozenset(), limit: int = PAGE) -> Page:
        """Return events behind ``after``.

        Args:
            after: a cursor, from :meth:`start` or an earlier page.
            names: of the kinds, from :meth:`names_of`; empty for all.
            limit: how many at most.

        Raises:
            CursorExpired: events behind ``after`` are not kept any more.
        """
        # In this order: what is written meanwhile is above `last`, what is forgotten meanwhile is noticed.
        last = self._reader.bounds()[1]
        rows = self._reader.events(after, limit, names)
        first = self._reader.bounds()[0]
        if after < first:
            raise CursorExpired(after, first)
        more = len(rows) >= limit
        through = rows[-1].cursor if rows else after
        if not more:
            through = max(through, last)
        return Page(tuple(Recorded(row.cursor, _event(row)) for row in rows), through, more)

    def page_or_none(self, after: int, names: frozenset[str] = frozenset(), limit: int = PAGE) -> Page | None:
        """Do what :meth:`page` does, but return None when the spooler was stopped."""
        try:
            return self.page(after, names, limit)
        except Exception:
            if self.running():
                raise
            return None


def _event(row: JournalRow) -> Event:
    try:
        return decode(row.kind, row.at, row.data)
    except (ValueError, TypeError):
        # One damaged row must not keep everybody from what comes behind it.
        log.exception("event %d of the journal cannot be read", row.cursor)
        return UnknownEvent(row.at, row.kind, row.data)
