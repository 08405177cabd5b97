"""Named cursors: a place in the journal that the spool remembers, for one who reads each event once.

Which of several readers with one name gets an event is decided at the commit: a cursor is only moved from where its
reader found it, in one transaction, so that of two who read the same events one commits and the other is told
(:class:`postroom.errors.CursorMoved`). Who has effects of its own writes them where they can be taken back: ::

    cursor = spooler.cursor("billing")
    with database.transaction(), cursor.batch() as events:
        for event in events:
            ...

The cursor is committed at the end of the inner block. If that fails, the outer one is rolled back. If the process dies
between the two commits, the events were committed and the outer effects were not; who would rather see events twice
than lose one swaps the two, and keeps ``recorded.cursor`` among its own data to tell a repetition.
"""

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Literal, Protocol, cast

from postroom.actors.context import Context
from postroom.actors.protocol import Perform
from postroom.errors import CursorMoved, UsageError
from postroom.notifying.journal import EventLog, Kinds, Recorded, check_cursor, check_name
from postroom.operating import ask
from postroom.stores.base import Store
from postroom.tickets import Ticket

__all__ = ["CursorWriter", "EventCursor", "StoreCursors"]

IDLE_STEP = 1000
"""Events of other kinds after which a cursor is moved although there was nothing for its reader: else those would be
forgotten behind it, and it would seem to have missed something."""


class CursorWriter(Protocol):
    """Changes named cursors. Thread-safe."""

    def advance(self, name: str, position: int, before: int | None) -> bool:
        """Move a cursor; False, and nothing is done, unless it stood at ``before`` (None: there was none).

        Raises:
            SpoolUnavailable: the store did not answer; whether it was moved is not known.
            NotRunning: the spooler was stopped before it did.
        """
        ...

    def drop(self, name: str) -> bool:
        """Forget a cursor; returns whether there was one. Raises as :meth:`advance`."""
        ...


class StoreCursors:
    """The cursors of a running spooler, changed by its store's actor. Thread-safe.

    Args:
        context: what the actors share.
        running: whether the spooler still runs.
    """

    def __init__(self, context: Context, running: Callable[[], bool]) -> None:
        self._context = context
        self._running = running

    def advance(self, name: str, position: int, before: int | None) -> bool:
        """Move a cursor; see :class:`CursorWriter`."""
        now = self._context.clock.time()
        return self._perform(
            lambda store: store.events.advance(name, position, before, now), f"cursor {name!r} was moved"
        )

    def drop(self, name: str) -> bool:
        """Forget a cursor; see :class:`CursorWriter`."""
        return self._perform(lambda store: store.events.drop_cursor(name), f"cursor {name!r} was dropped")

    def _perform(self, step: Callable[[Store], bool], what: str) -> bool:
        timeout = self._context.settings.submit_timeout
        letter = Perform(step, Ticket())
        return cast("bool", ask(self._context, letter, what, timeout=timeout, running=self._running))


class EventCursor:
    """A named cursor and what is behind it. Not for several threads at once; each makes its own.

    Args:
        name: under which the spool remembers it.
        log: the journal.
        writer: changes cursors.
        kinds: classes of events, subclasses included; none means all that the journal has.
        start: where a new name begins: with the oldest event that is kept, or with what happens from now on.

    Raises:
        UsageError: the name is none, or the journal does not keep one of ``kinds``.
    """

    def __init__(
        self,
        name: str,
        log: EventLog,
        writer: CursorWriter,
        *,
        kinds: Kinds = (),
        start: Literal["oldest", "newest"] = "oldest",
    ) -> None:
        self.name = check_name(name)
        self._log = log
        self._writer = writer
        self._names = log.names_of(kinds)
        self._start = start
        self._before: int | None = None
        self._through: int | None = None

    @property
    def position(self) -> int | None:
        """Where it stands in the spool; None while nothing was committed under its name."""
        return self._log.cursors().get(self.name)

    def read(self, limit: int = 100, *, timeout: float = 0.0) -> list[Recorded]:
        """Return the next events behind the cursor; the same again until they are committed.

        Args:
            limit: how many at most.
            timeout: seconds to wait for the first one.

        Raises:
            CursorExpired: events behind it are not kept any more; :meth:`reset` goes on with what is left.
        """
        if limit < 1:
            raise UsageError("limit", f"{limit} is below 1", "give how many events at most")
        deadline = time.monotonic() + timeout
        while True:
            rung = self._log.bell.rung
            before = self._before = self._found()
            page = self._log.page(self._log.start(before or 0), self._names, limit)
            self._through = page.through
            left = deadline - time.monotonic()
            if page.events or left <= 0 or not self._log.running():
                return list(page.events)
            self._log.bell.wait(rung, min(left, self._log.interval))

    def _found(self) -> int | None:
        """Return where the cursor stands, after seeing to it that a new one which begins now does stand there."""
        found = self.position
        if found is None and self._start == "newest":
            # Whoever is first says where it begins.
            self._writer.advance(self.name, self._log.last, None)
            found = self.position
        return found

    def commit(self, cursor: int | None = None) -> int:
        """Move the cursor behind an event that was read, or behind all that :meth:`read` returned last.

        Args:
            cursor: of the last event that is done with; None for all of them.

        Returns:
            where it stands now.

        Raises:
            CursorMoved: somebody else committed it since :meth:`read`; nothing was done.
            UsageError: nothing was read, or ``cursor`` is not among it.
            SpoolUnavailable: the store did not answer; ``position`` tells whether it was moved.
        """
        through = self._through
        if through is None:
            raise UsageError("cursor", "nothing was read", "read() first, or reset() to a place")
        target = through if cursor is None else check_cursor(cursor, "cursor")
        before = self._before
        if not (before or 0) <= target <= through:
            raise UsageError(
                "cursor",
                f"{target} is not between where reading began ({before or 0}) and what was read ({through})",
                "give the cursor of an event that read() returned",
            )
        if target == before:
            return target
        if not self._writer.advance(self.name, target, before):
            self._through = None
            raise CursorMoved(
                f"cursor {self.name!r} was moved by somebody else since it was read at {before}; read() again"
            )
        self._before = target
        return target

    def reset(self, cursor: int = 0) -> int:
        """Move the cursor to any place, wherever it stands; returns where it is now.

        Args:
            cursor: where to go on; 0 for the oldest event that is kept.

        Raises:
            CursorExpired: events behind ``cursor`` are not kept any more.
            UsageError: it was never given.
        """
        target = self._log.start(cursor)
        while (found := self.position) != target and not self._writer.advance(self.name, target, found):
            pass
        self._before = self._through = target
        return target

    def forget(self) -> bool:
        """Have the spool forget the name; returns whether it knew it."""
        self._before = self._through = None
        return self._writer.drop(self.name)

    @contextlib.contextmanager
    def batch(self, limit: int = 100, *, timeout: float = 0.0) -> Generator[list[Recorded]]:
        """Give the next events to a block and commit the cursor when it ends; not if it raises.

        Args:
            limit: how many at most.
            timeout: seconds to wait for the first one.

        Raises: as :meth:`read` at its beginning, as :meth:`commit` at its end.
        """
        events = self.read(limit, timeout=timeout)
        yield events
        through = self._through
        if events or (through is not None and through - (self._before or 0) >= IDLE_STEP):
            self.commit()
