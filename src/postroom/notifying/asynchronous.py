"""Events for an event loop: ``async for event in spooler.subscribe_async({NewMessage})``.

Two ways to the same events. Without a cursor they come from the notifier as they happen, through a bounded buffer: who
is too slow loses some, which are counted. With ``after=cursor`` they come from the journal, from there on and as they
happen: none is lost or repeated, however slow the reader, and ``cursor`` tells where to go on another time.
"""

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from postroom.errors import UsageError
from postroom.events import Event
from postroom.notifying.journal import EventLog, Kinds, Recorded, check_kinds

__all__ = ["AsyncEvents", "Cancellable", "Subscribe"]


class Cancellable(Protocol):
    """What a subscription is to those who end it."""

    def cancel(self) -> object:
        """End it; never blocks."""
        ...


class Subscribe(Protocol):
    """Subscribes a callback, as :meth:`postroom.Spooler.subscribe`."""

    def __call__(
        self, callback: Callable[[Event], object], *, events: Kinds = (), name: str | None = None
    ) -> Cancellable:
        """Subscribe."""
        ...


class _Buffer:
    """What waits for the event loop, apart from its reader: a subscription must not keep that alive.

    Attributes:
        dropped: events for which there was no room.
    """

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._events: deque[Event] = deque()
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Add an event, in the subscription's thread."""
        with self._lock:
            if len(self._events) >= self._limit:
                self.dropped += 1
                return
            self._events.append(event)
        self.wake()

    def take(self) -> Event | None:
        """Return the next event, None when there is none."""
        with self._lock:
            return self._events.popleft() if self._events else None

    def wake(self) -> None:
        """Wake the reader, from any thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            loop, woken = waiting
            # The loop may be closed by now; whoever tells must not suffer for it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

    def about_to_wait(self) -> asyncio.Event:
        """Return what is set by the next :meth:`wake`; look once more before waiting for it."""
        woken = asyncio.Event()
        with self._lock:
            self._waiting = asyncio.get_running_loop(), woken
        return woken


class AsyncEvents:
    """An asynchronous iterator over events; see the module's docstring. For one task at a time.

    It ends when it is closed, when the spooler is stopped (after what was before that), and, if it is dropped, when it
    is collected. ``async with`` closes it.

    Args:
        subscribe: to live events.
        log: the journal.
        kinds: classes of events, subclasses included; none means all.
        after: a cursor, 0 for the oldest event that is kept, or None for live events only.
        limit: live events that may wait for the reader; later ones are dropped and counted.
        name: for logs and metrics.

    Raises:
        CursorExpired: events behind ``after`` are not kept any more.
        UsageError: ``after`` was never given, or the journal does not keep one of ``kinds``.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        subscribe: Subscribe,
        log: EventLog,
        *,
        kinds: Kinds = (),
        after: int | None = None,
        limit: int = 1000,
        name: str = "async",
    ) -> None:
        if limit < 1:
            raise UsageError("limit", f"{limit} is below 1", "give how many events may wait")
        kinds = check_kinds(kinds)
        self._log = log
        self._buffer = _Buffer(limit)
        self._page: deque[Recorded] = deque()
        self._closed = False
        self._through = 0
        self._names: frozenset[str] | None = None
        self._cursor = after
        if after is None:
            end: Callable[[], object] = subscribe(self._buffer.put, events=kinds, name=name).cancel
        else:
            self._names = log.names_of(kinds)
            self._through = log.start(after)
            end = log.bell.listen(self._buffer.wake)
        self._end = weakref.finalize(self, end)

    @property
    def cursor(self) -> int | None:
        """Where to go on behind the last event that was returned; None without ``after``."""
        return self._cursor

    @property
    def dropped(self) -> int:
        """Live events that were lost because the reader was too slow."""
        return self._buffer.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            woken = self._buffer.about_to_wait()
            # Before looking: what happened until the stop is still there.
            running = self._log.running()
            event = self._buffer.take() if self._names is None else await self._journalled(self._names)
            if event is not None:
                return event
            if not running:
                await self.aclose()
                break
            # Not wait_for: in Python 3.11 that forgets a cancellation that comes together with the wake.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._log.interval):
                    await woken.wait()
        raise StopAsyncIteration

    async def _journalled(self, names: frozenset[str]) -> Event | None:
        while not self._page:
            page = await asyncio.to_thread(self._log.page_or_none, self._through, names)
            if page is None:
                return None
            self._page.extend(page.events)
            self._through = page.through
            if not page.more:
                break
        if not self._page:
            # Events of other kinds: whoever goes on from here need not look at them again.
            self._cursor = self._through
            return None
        recorded = self._page.popleft()
        self._cursor = recorded.cursor
        return recorded.event

    async def aclose(self) -> None:
        """End the iteration, also for a task that waits in it. Closing twice is harmless."""
        self._closed = True
        self._end()
        self._buffer.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self.aclose()
