"""The part of the spooler's surface that concerns what comes in, and who wants to know."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

from postroom.actors.notifier import Subscription
from postroom.actors.receiving import SpoolInlet
from postroom.events import Event
from postroom.inbound.mailstore import MailStore
from postroom.inbound.values import RemoteReport
from postroom.notifying.asynchronous import AsyncEvents
from postroom.notifying.cursors import EventCursor
from postroom.notifying.journal import EventLog, Recorded
from postroom.receivers.status import ReceiverStatus
from postroom.running import Running

__all__ = ["ReceivingSurface"]


class ReceivingSurface(ABC):
    """Incoming mail and durable events: :class:`postroom.Spooler` is one. Thread-safe."""

    @abstractmethod
    def _engine(self) -> Running:
        """Return what runs."""

    @abstractmethod
    def subscribe(
        self,
        callback: Callable[[Event], object],
        *,
        events: Collection[type[Event]] = (),
        name: str | None = None,
    ) -> Subscription:
        """Have a callback called for events of this process."""

    # Incoming mail

    @property
    def mail(self) -> MailStore:
        """The incoming mail in its folders.

        Raises:
            NotRunning: the spooler is not running.
        """
        return self._engine().mail

    def receivers(self) -> tuple[ReceiverStatus, ...]:
        """Return how each receiver does, in the order in which they were given.

        Raises:
            NotRunning: the spooler is not running.
        """
        return self._engine().receivers()

    def poll(self, *names: str) -> None:
        """Have receivers look for messages at once, without waiting for that: MAPI's FlushQueues, download part.

        Args:
            names: of the receivers; none means all that this process runs.

        Raises:
            UsageError: there is none of a name.
            NotRunning: the spooler is not running.
        """
        self._engine().poll(names)

    def inlet(self, name: str) -> SpoolInlet:
        """Return a way to hand over incoming messages under a receiver's name of your own, for example from a web view.

        Raises:
            NotRunning: the spooler is not running.
        """
        return self._engine().inlets.inlet(name)

    def take_reports(self, reports: Sequence[RemoteReport], *, timeout: float | None = None) -> list[bool]:
        """Have recipients changed by what another system says became of them; may be repeated without harm.

        Returns:
            for each report whether it means a recipient of this spool.

        Raises:
            SpoolUnavailable: the store did not answer in time.
            NotRunning: the spooler is not running.
        """
        return self._engine().inlets.take_reports(reports, timeout)

    # Events

    @property
    def event_log(self) -> EventLog:
        """The journal of events, for streams and other readers.

        Raises:
            NotRunning: the spooler is not running.
        """
        return self._engine().event_log

    def events(
        self, after: int = 0, *, kinds: Collection[type[Event]] = (), limit: int | None = None
    ) -> Iterator[Recorded]:
        """Yield the durable events behind a cursor until now; see :meth:`postroom.notifying.journal.EventLog.events`.

        Args:
            after: the ``cursor`` of the last event that is done with, 0 for all that is kept.
            kinds: classes of events, subclasses included; none means all that are kept (``settings.durable_events``).
            limit: how many at most.

        Raises:
            CursorExpired: events behind ``after`` were forgotten (``settings.keep_events``).
            UsageError: ``after`` was never given, or the journal does not keep one of ``kinds``.
        """
        return self._engine().event_log.events(after, kinds=kinds, limit=limit)

    def cursor(
        self,
        name: str,
        *,
        kinds: Collection[type[Event]] = (),
        start: Literal["oldest", "newest"] = "oldest",
    ) -> EventCursor:
        """Return a named cursor that the spool remembers: each event once per commit, whatever dies meanwhile.

        Args:
            name: who reads.
            kinds: as in :meth:`events`.
            start: where a new name begins.

        Raises:
            UsageError: the name is none, or the journal does not keep one of ``kinds``.
        """
        engine = self._engine()
        return EventCursor(name, engine.event_log, engine.cursors, kinds=kinds, start=start)

    def subscribe_async(
        self,
        events: Collection[type[Event]] = (),
        *,
        after: int | None = None,
        limit: int = 1000,
        name: str = "async",
    ) -> AsyncEvents:
        """Return an asynchronous iterator over events; see :class:`postroom.notifying.asynchronous.AsyncEvents`.

        Args:
            events: classes of events, subclasses included; none means all.
            after: a cursor: from there on, without gap or repetition, from the journal; None for what happens from now
                on in this process.
            limit: events that may wait for a slow reader without ``after``; later ones are dropped and counted.
            name: for logs and metrics.
        """
        log = self._engine().event_log
        return AsyncEvents(self.subscribe, log, kinds=events, after=after, limit=limit, name=name)
