"""A whole spooler for the tests of its host: real in every part, in memory, with a clock that the test turns.

::

    with InMemorySpooler(clock=ManualClock()) as spooler:
        register(spooler, "ann@example.org")              # your code
        assert_spooled(spooler, to="ann@example.org", subject="Welcome*")
        spooler.outbox.answer_next(Deferred(Reply("busy", "4.3.2")))
        spooler.advance(hours=1)
        spooler.drain()
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from postroom.actors.protocol import Perform
from postroom.clock import Clock, ManualClock
from postroom.errors import UsageError
from postroom.operating import ask
from postroom.retries import DAY
from postroom.running import Running
from postroom.settings import Settings
from postroom.spooler import Spooler
from postroom.stores.base import Store
from postroom.stores.sqlite import SqliteStore
from postroom.supervision import Mailbox
from postroom.testing.outbox import Outbox
from postroom.tickets import Ticket
from postroom.transports.base import Transport

__all__ = ["InMemorySpooler"]

PATIENCE: Final = 10.0
LOOK: Final = 0.002


class _Nudge:
    """Means nothing; whoever gets it looks at the clock again."""


class InMemorySpooler(Spooler):
    """A spooler whose spool is in memory, as far as the system has a file system there, and gone afterwards.

    It is the real thing, threads and transactions included, but for ``synchronous="off"``. Without transports
    everything goes to its :attr:`outbox`. Leaving the ``with`` block removes the spool; after ``stop()`` alone it can
    be started again and finds what was left.

    Args:
        transports: None for an :class:`~postroom.testing.outbox.Outbox` alone.
        settings: None for settings that keep all content, so that it can be looked at.
        clock: a :class:`postroom.clock.ManualClock` to turn with :meth:`advance`; None for the machine's.
        more: as for :class:`postroom.Spooler`.
    """

    def __init__(
        self,
        transports: Sequence[Transport] | None = None,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        **more: Any,
    ) -> None:
        memory = Path("/dev/shm")  # noqa: S108 - a file system in memory, in a folder of our own
        self._folder = Path(tempfile.mkdtemp(prefix="postroom-", dir=memory if memory.is_dir() else None))
        if settings is None:
            settings = Settings(synchronous="off", keep_content=365 * DAY, sync_interval=0.2)
        try:
            super().__init__(
                self._folder / "spool.db",
                [Outbox()] if transports is None else transports,
                settings=settings,
                clock=clock,
                **more,
            )
        except BaseException:
            self.remove()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Stop, and remove the spool."""
        super().__exit__(kind, error, traceback)
        self.remove()

    def remove(self) -> None:
        """Remove the spool of a spooler that is stopped for good."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def outbox(self) -> Outbox:
        """The outbox among the transports.

        Raises:
            UsageError: there is none.
        """
        for transport in self.transports_configured:
            if isinstance(transport, Outbox):
                return transport
        raise UsageError("transports", "no Outbox is among them", "add Outbox() as the last one")

    # Time

    def advance(self, seconds: float = 0.0, **more: float) -> None:
        """Turn the clock forward and have everybody look at it.

        Args:
            seconds: how far.
            more: days, hours, minutes … as for :class:`datetime.timedelta`.

        Raises:
            UsageError: the clock is not a ``ManualClock``.
        """
        if not isinstance(self._clock, ManualClock):
            raise UsageError("clock", "it is not one that can be turned", "give clock=ManualClock()")
        self._clock.advance(timedelta(seconds=seconds, **more).total_seconds())
        for _, handle in self._engine().handles():
            handle.tell(_Nudge())

    def drain(self, timeout: float = PATIENCE) -> None:
        """Wait until nothing is left that is due: attempts, reports, hooks, postprocessing, and callbacks.

        What is due later by the clock stays: see :meth:`advance`. A transport that is out, parked or throttled keeps
        what is due for it.

        Args:
            timeout: seconds, by the machine's clock.

        Raises:
            TimeoutError: something is still due; tells what.
            NotRunning: the spooler is not running.
        """
        engine = self._engine()
        deadline = time.monotonic() + timeout
        while True:
            left = self._left(engine)
            if not left:
                # What the store committed it has told by the time it does the next step.
                self.in_store(lambda _store: None)
                left = self._left(engine) or _busy(engine) or _busy(engine) or self._untold()
            if not left:
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(f"after {timeout:g} s there is still {left}")
            time.sleep(LOOK)

    def _left(self, engine: Running) -> str:
        context = engine.context
        now = context.clock.time()
        due = {
            name: context.reader.oldest_due(name, now) is not None or queue.held > 0
            for name, queue in context.queues.items()
        }
        waiting = [name for name, is_due in due.items() if is_due]
        if waiting:
            return f"work that is due for {', '.join(waiting)}"
        if context.reader.followups(now, 1):
            return "a report or a hook that is due"
        arriving = context.reader.next_arriving()
        if arriving is not None and arriving <= now:
            return "an incoming message to postprocess"
        return ""

    def _untold(self) -> str:
        behind = [row.name for row in self.subscribers() if row.waiting or row.busy_since is not None]
        return f"something to tell {', '.join(behind)}" if behind else ""

    # Faults

    def in_store(self, step: Callable[[Store], Any]) -> Any:
        """Do a step in the store's thread, in a transaction of its own; returns what it returns."""
        engine = self._engine()
        letter = Perform(step, Ticket())
        return ask(engine.context, letter, "a step", timeout=PATIENCE, running=lambda: engine.alive)

    @contextmanager
    def full_disk(self) -> Generator[None]:
        """Let the spool not grow within the block, as on a disk that is full: it answers with ``SpoolFull``."""
        self.in_store(_no_more_pages)
        try:
            yield
        finally:
            self.in_store(_pages_again)

    def crash(self, actor: str) -> None:
        """Make an actor fail, as "core/store" or "core/transports/outbox", and wait until there is a new one.

        Raises:
            UnknownChild: there is none with this path.
            TimeoutError: nobody took its place.
        """
        handle = dict(self._engine().handles()).get(actor)
        before = 0 if handle is None else handle.incarnation
        self.crash_actor(actor)
        deadline = time.monotonic() + PATIENCE
        while handle is not None and (handle.incarnation == before or not handle.alive):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{actor} was not started again within {PATIENCE:g} s")
            if isinstance(self._clock, ManualClock):
                self._clock.advance(LOOK)
            time.sleep(LOOK)

    def die(self) -> None:
        """End as a process does that is killed: nothing is given back or told, and the spool is left as it is.

        ``start()`` then begins as another process would, and finds what was being sent in doubt.
        """
        engine = self._engine()
        _die_with(cast("SqliteStore", engine.context.store))
        for queue in engine.context.queues.values():
            queue.accepting = False
        self.stop(timeout=1.0)


def _die_with(store: SqliteStore) -> None:
    """Have the store leave everything as it stands when it is closed."""
    close = store.close

    def keep(transport: str, keep: Collection[tuple[int, int]]) -> int:
        del transport, keep
        return 0

    def closed(*, leave: bool) -> None:
        del leave
        close(leave=False)

    store.reclaim = keep  # type: ignore[method-assign] # a death gives nothing back
    store.close = closed  # type: ignore[method-assign] # nor does it say farewell


def _no_more_pages(store: Store) -> None:
    connection = cast("SqliteStore", store).connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def _pages_again(store: Store) -> None:
    cast("SqliteStore", store).connection.execute("PRAGMA max_page_count = 4294967294")


def _busy(engine: Running) -> str:
    for path, handle in engine.handles():
        inbox = None if handle.ref is None else handle.ref.actor_inbox
        if isinstance(inbox, Mailbox) and (inbox.qsize() or inbox.busy_since is not None):
            return f"a letter for {path}"
    return ""
