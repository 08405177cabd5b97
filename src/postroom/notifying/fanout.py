"""One thread reads events for any number of clients; each has a bounded buffer and a place in the journal of its own.

A client that is too slow for its buffer loses nothing of what the journal keeps: it falls back to reading there by
itself, from where it stands, until it has caught up. Nobody waits for it. Live events, which the journal does not keep,
are dropped for it and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from postroom.errors import CursorExpired, NotRunning, SpoolFull
from postroom.events import Event
from postroom.notifying.asynchronous import Cancellable
from postroom.notifying.journal import EventLog, Kinds, Page, check_kinds, leaves
from postroom.notifying.journalled import KINDS

__all__ = ["Client", "EventSource", "Fanout", "Frame"]

log = logging.getLogger("postroom.notifier")

PAGE: Final = 100
"""Events that a client which catches up reads at once."""

Wanted = Callable[[Event], bool]
Write = Callable[[Event, int | None], bytes]


class EventSource(Protocol):
    """What is needed of a spooler."""

    @property
    def running(self) -> bool:
        """Whether it runs."""
        ...

    @property
    def event_log(self) -> EventLog:
        """The journal; raises ``NotRunning``."""
        ...

    def subscribe(
        self, callback: Callable[[Event], object], *, events: Kinds = (), name: str | None = None
    ) -> Cancellable:
        """See :meth:`postroom.Spooler.subscribe`."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """An event on its way to clients.

    Attributes:
        cursor: its number in the journal, None for a live one.
        event: it.
        data: as written for clients.
    """

    cursor: int | None
    event: Event
    data: bytes


class Client:
    """One who reads. ``take`` belongs to one thread at a time; the rest is the fan-out's.

    Attributes:
        position: everything up to this cursor was taken, or is none of its business.
        reset: it cannot be told all that happened since it was here last.
        ended: there is nothing more to come.
        dropped: live events that were lost because it was too slow.
    """

    def __init__(self, fanout: "Fanout", wanted: Wanted, wake: Callable[[], object], limit: int) -> None:
        self._fanout = fanout
        self._wanted = wanted
        self._limit = limit
        self._frames: deque[Frame] = deque()
        self.wake = wake
        self.position = 0
        self.lagging = False
        self.reset = False
        self.ended = False
        self.dropped = 0

    def offer(self, frame: Frame) -> None:
        """Add a frame, under the fan-out's lock; never blocks."""
        if frame.cursor is not None and (self.lagging or frame.cursor <= self.position):
            return
        if len(self._frames) >= self._limit:
            if frame.cursor is None:
                self.dropped += 1
                return
            # It will read them from the journal; live ones are nowhere else.
            self._frames = deque(waiting for waiting in self._frames if waiting.cursor is None)
            self.lagging = True
        else:
            self._frames.append(frame)
        self.wake()

    def take_reset(self) -> bool:
        """Return whether it missed something since this was asked last."""
        with self._fanout.lock:
            missed, self.reset = self.reset, False
        return missed

    def take(self) -> list[bytes]:
        """Return what has come, perhaps nothing. Reads the journal while ``lagging``, and only then."""
        taken: list[bytes] = []
        if self.lagging:
            taken += self._catch_up()
        with self._fanout.lock:
            frames, self._frames = self._frames, deque()
            if not self.lagging:
                self.position = max(self.position, self._fanout.position)
        return taken + [frame.data for frame in frames if self._wants(frame.event)]

    def _catch_up(self) -> list[bytes]:
        fanout = self._fanout
        try:
            page = fanout.page(self.position, PAGE)
        except CursorExpired as expired:
            self.reset = True
            self.position = expired.first
            return []
        if page is None:
            self.ended = True
            return []
        taken = [fanout.write(each.event, each.cursor) for each in page.events if self._wants(each.event)]
        with fanout.lock:
            self.position = page.through
            # What the fan-out has not seen yet will be offered; what it has, and this client has not, never again.
            self.lagging = self.position < fanout.position
        return taken

    def _wants(self, event: Event) -> bool:
        try:
            return self._wanted(event)
        except Exception:
            # A filter decides who may see what: in doubt nobody.
            log.exception("the filter of a client raised on %r", event)
            return False


class Fanout:
    """See the module's docstring. Thread-safe. Its thread runs while there are clients and the spooler does.

    Args:
        source: the spooler.
        kinds: classes of events, subclasses included; none means all.
        write: makes of an event and its cursor what clients get.
        buffer: events that may wait for one client.
        most: clients at a time.
        name: for logs, metrics and the thread.

    Attributes:
        position: what is in the journal up to this cursor was offered to all clients.
        lock: guards the clients' buffers.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self, source: EventSource, *, kinds: Kinds, write: Write, buffer: int, most: int, name: str
    ) -> None:
        self._source = source
        self._names = leaves(check_kinds(kinds))
        self.write = write
        self._buffer = buffer
        self._most = most
        self._name = name
        self.lock = threading.Lock()
        self._clients: tuple[Client, ...] = ()
        self._log: EventLog | None = None
        self._thread: threading.Thread | None = None
        self.position = 0
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._clients)

    def join(
        self, after: int | None, wanted: Wanted, wake: Callable[[], object], *, lost: bool = False
    ) -> Client:
        """Add a client.

        Args:
            after: the last cursor that it knows, 0 for all that is kept, None for what happens from now on.
            wanted: which events it may have and wants.
            wake: called, quickly, from other threads when there is something to take.
            lost: it knew a cursor that says nothing to us.

        Raises:
            SpoolFull: there are too many clients.
            NotRunning: the spooler does not run.
        """
        client = Client(self, wanted, wake, self._buffer)
        with self.lock:
            if self._thread is not None and not self._thread.is_alive():
                # This is a forked child: the thread and those it served are the parent's.
                self._thread, self._clients = None, ()
            if len(self._clients) >= self._most:
                raise SpoolFull(f"there are {self._most} clients already")
            if not self._source.running:
                raise NotRunning("the spooler does not run")
            if self._thread is None:
                self._begin()
            assert self._log is not None  # noqa: S101 - for the type checkers
            first, last = self._log.first, self._log.last
            client.reset = lost or (after is not None and (after > last or 0 < after < first))
            client.position = last if after is None or client.reset else max(after, first)
            client.lagging = client.position < self.position
            self._clients = (*self._clients, client)
        return client

    def leave(self, client: Client) -> None:
        """Take a client out; doing so twice is harmless."""
        with self.lock:
            if client in self._clients:
                self._clients = tuple(other for other in self._clients if other is not client)
                self.dropped += client.dropped

    def close(self) -> None:
        """End all clients."""
        with self.lock:
            self._end_clients()
            bell = None if self._log is None else self._log.bell
        if bell is not None:
            bell.ring()

    def page(self, after: int, limit: int) -> Page | None:
        """Return what the journal has for clients; None when the spooler was stopped."""
        events = self._log
        if events is None:
            return None
        names = self._names & events.kept
        if not names:
            return Page((), max(after, self.position), more=False)
        return events.page_or_none(after, names, limit)

    # The thread

    def _begin(self) -> None:
        self._log = self._source.event_log
        self.position = self._log.last
        live = [KINDS[name] for name in sorted(self._names - self._log.kept)]
        subscription = (
            self._source.subscribe(self._offer_live, events=live, name=self._name) if live else None
        )
        self._thread = threading.Thread(
            target=self._run, args=(self._log, subscription), name=f"postroom-{self._name}", daemon=True
        )
        self._thread.start()

    def _run(self, events: EventLog, subscription: Cancellable | None) -> None:
        try:
            while self._goes_on(events):
                rung = events.bell.rung
                try:
                    more = self._read(events)
                except Exception:
                    if events.running():
                        log.exception("%s cannot read the journal; it tries again", self._name)
                    more = False
                if not more:
                    events.bell.wait(rung, events.interval)
        finally:
            if subscription is not None:
                subscription.cancel()

    def _goes_on(self, events: EventLog) -> bool:
        with self.lock:
            if not events.running():
                self._end_clients()
            if self._clients:
                return True
            self._thread = None
            return False

    def _end_clients(self) -> None:
        for client in self._clients:
            client.ended = True
            client.wake()
            self.dropped += client.dropped
        self._clients = ()

    def _read(self, events: EventLog) -> bool:
        names = self._names & events.kept
        if not names:
            return False
        try:
            page = events.page(self.position, names)
        except CursorExpired as expired:
            # The machine slept, or a purge came very early; clients that had not caught up are told.
            with self.lock:
                for client in self._clients:
                    client.reset = client.reset or client.position < expired.first
                    client.wake()
                self.position = expired.first
            return True
        frames = [Frame(each.cursor, each.event, self.write(each.event, each.cursor)) for each in page.events]
        with self.lock:
            for frame in frames:
                if (frame.cursor or 0) > self.position:  # if it was not overtaken
                    for client in self._clients:
                        client.offer(frame)
            self.position = max(self.position, page.through)
        return page.more

    def _offer_live(self, event: Event) -> None:
        frame = Frame(None, event, self.write(event, None))
        with self.lock:
            for client in self._clients:
                client.offer(frame)
