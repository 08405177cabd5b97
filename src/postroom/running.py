"""One run of a spooler, from start to stop: its context, its supervision tree and what is asked of them."""

import ctypes
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from postroom import forking
from postroom.active_queue import Phase
from postroom.actors.announcer import AnnouncerParts
from postroom.actors.context import Audience
from postroom.actors.courier import Courier
from postroom.actors.follower import FollowerParts
from postroom.actors.intake import IntakeParts
from postroom.actors.notifier import Subscriptions
from postroom.actors.protocol import Probe
from postroom.actors.receiving import Inlets
from postroom.archive import Archive
from postroom.archive_writer import StoreWriter
from postroom.clock import Clock
from postroom.destinations import Gate
from postroom.errors import NotRunning, SpoolUnavailable, UsageError
from postroom.handling import Handling
from postroom.ids import parse_id
from postroom.inbound.mailstore import MailStore
from postroom.metrics import Instruments
from postroom.notifying.cursors import StoreCursors
from postroom.notifying.journal import EventLog
from postroom.operations import Operations
from postroom.order_book import OrderBook
from postroom.preprocessing.stage import PreprocessTransport
from postroom.receivers.status import ReceiverStatus
from postroom.recipients import State
from postroom.reports.policy import ReportPolicy
from postroom.routing import PREPROCESS
from postroom.settings import Settings
from postroom.status import MessageStatus, TransportStatus
from postroom.stores.base import Standing
from postroom.submitting import Submitter
from postroom.supervision import ChildState, Handle, SupervisionError, SupervisionEvent
from postroom.transports.base import Transport
from postroom.viewing import SpoolView, best_standings
from postroom.wiring import Background, build_context, build_supervisor

__all__ = ["Running"]

log = logging.getLogger("postroom")

FIRST_LOOK = 0.25
LAST_LOOK = 2.0
"""Seconds between looks at the record for a message that another process may have taken over: first and longest."""

STORE = "core/store"
"""The store's path in the supervision tree."""

NOBODY = "no process delivers now"

DRAIN_SHARE = 0.6
"""Part of the stop's time that attempts under way may use."""


class Running:
    """A started spooler. Thread-safe, except ``start`` and ``stop``, which belong to one thread at a time.

    Args: as for :class:`postroom.Spooler`; ``on_supervision`` hears what the supervisor does.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one caller
        self,
        path: Path,
        transports: Sequence[Transport],
        settings: Settings,
        clock: Clock,
        instruments: Instruments,
        audience: Audience,
        subscriptions: Subscriptions,
        on_supervision: Callable[[SupervisionEvent], None],
        *,
        handling: Handling,
        delivers: bool = True,
    ) -> None:
        self.context = build_context(
            path=path,
            transports=transports,
            settings=settings,
            clock=clock,
            instruments=instruments,
            audience=audience,
            handling=handling,
            delivers=delivers,
        )
        self._alive = True
        self.submitter = Submitter(
            self.context,
            lambda: self._alive,
            self._store_trouble,
            expander=handling.expander,
            delay_after=handling.reports.delay_after if handling.reports else math.inf,
            hooked=handling.hooked,
        )
        self.inlets = Inlets(
            context=self.context,
            prepare=self.submitter.prepare,
            running=lambda: self._alive,
            rules=handling.rules,
            policy=handling.receiving,
            postprocessed=bool(handling.postprocessors),
            tokens=handling.tokens,
        )
        stage = self.context.transports.get(PREPROCESS)
        if isinstance(stage, PreprocessTransport):
            stage.admit = self.submitter.prepare
        self.path = path
        self._clock = clock
        self._handling = handling
        self._subscriptions = subscriptions
        self.view: SpoolView
        self.operations: Operations
        self.order_book: OrderBook
        self.archive: Archive
        self.mail: MailStore
        self.event_log = EventLog(
            self.context.reader,
            kept=settings.journalled,
            bell=self.context.bell,
            interval=settings.sync_interval,
            running=lambda: self._alive,
        )
        self.cursors = StoreCursors(self.context, lambda: self._alive)
        background = self._background(handling) if delivers else None
        self.supervisor = build_supervisor(self.context, path, subscriptions, background, on_supervision)

    def _background(self, handling: Handling) -> Background:
        submitter = self.submitter
        follower = None
        if handling.reports is not None or handling.hooked:
            follower = FollowerParts(
                policy=handling.reports or ReportPolicy(kinds=frozenset()),
                prepare=submitter.prepare,
                host=submitter.domain,
                sent_hooks=handling.sent_hooks,
                preprocessors=handling.preprocessors,
            )
        # Also without postprocessors: some may have been given when the messages came that still wait for them.
        intake = IntakeParts(
            postprocessors=handling.postprocessors,
            rules=handling.rules,
            policy=handling.receiving,
            prepare=submitter.prepare,
            max_size=self.context.settings.max_message_size,
        )
        return Background(
            follower=follower,
            intake=intake,
            announcers=AnnouncerParts(
                events=self.event_log,
                prepare=submitter.prepare,
                host=submitter.domain,
                addresses=frozenset(each.address for each in handling.subscribers),
            ),
            subscribers=handling.subscribers,
            receivers=handling.receivers,
            make_inlet=self.inlets.inlet,
        )

    @property
    def alive(self) -> bool:
        """Whether it was not stopped yet."""
        return self._alive

    def start(self, timeout: float) -> None:
        """Start the actors.

        Raises:
            SpoolUnavailable: the spool cannot be opened.
        """
        context = self.context
        try:
            self.supervisor.start(timeout)
        except SupervisionError as error:
            raise SpoolUnavailable(f"the spool {self.path} cannot be opened: {error}") from error
        self.view = SpoolView(
            context.reader,
            clock=self._clock,
            node=context.store.node,
            standings=self.standings,
            phase=self._phase,
            live=self._gate,
            failover={
                name: each.failover_after
                for name, each in context.transports.items()
                if each.failover_after is not None
            },
            archive=Archive(self.path, clock=self._clock),
        )
        self.operations = Operations(context, self.view, lambda: self._alive)
        self.order_book = OrderBook(context, self.operations, lambda: self._alive)
        writer = StoreWriter(context, self.operations, lambda: self._alive)
        self.archive = Archive(self.path, writer=writer, clock=self._clock, index=context.settings.search)
        self.mail = MailStore(
            self.path,
            context.reader,
            writer=writer,
            clock=self._clock,
            read_receipts=self._handling.receiving.read_receipts,
            identities=self._handling.receiving.identities,
            prepare=self.submitter.prepare,
            host=self.submitter.domain,
            index=context.settings.search,
            timeout=context.settings.submit_timeout,
        )

    def stop(self, timeout: float) -> bool:
        """Stop the actors; returns whether all ended in good order."""
        deadline = time.monotonic() + timeout
        self._alive = False
        # Whoever follows the journal is to notice.
        self.context.bell.ring()
        couriers: list[Courier] = []
        for name, queue in self.context.queues.items():
            queue.accepting = False
            pool = self.context.pools.get(name)
            if pool is not None:
                couriers += pool.retire()
        drained = time.monotonic() + timeout * DRAIN_SHARE
        for courier in couriers:
            courier.join(max(0.0, drained - time.monotonic()))
        hung = [courier for courier in couriers if courier.is_alive() and courier.busy_since is not None]
        abandoned = self.supervisor.stop(max(0.1, (deadline - time.monotonic()) * 0.8))
        for courier in hung:
            log.warning("%s was still sending at the stop; its recipients are in doubt", courier.name)
            courier.abandon()
        stalled = self._subscriptions.close(min(deadline, time.monotonic() + timeout * 0.1), time.monotonic)
        for name in stalled:
            log.warning("subscriber %s did not end in time and was left behind", name)
        self.context.reader.close()
        return not (abandoned or hung or stalled)

    def abandon_after_fork(self) -> None:
        """Make sure that nothing of the parent's is ever closed or finalised in this (child) process."""
        for connection in (*self.context.reader.connections(), *self.context.store.connections()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        forking.leak(self)
        self.context.store.forget()

    # Asking

    def standings(self) -> dict[str, Standing]:
        """Return where each configured transport stands, by name."""
        if self.context.delivers:
            standings, otherwise = self.context.standings, Standing("", "starting")
        else:
            standings, otherwise = best_standings(self.context.reader), Standing("", "stopped", NOBODY)
        return {
            name: standings.get(name) or replace(otherwise, transport=name)
            for name in self.context.transports
        }

    def handles(self) -> Iterator[tuple[str, Handle]]:
        """Yield the path and the address of each actor."""
        handles = self.context.handles
        yield "notifier", handles.notifier
        yield "core/timer", handles.timer
        yield "core/store", handles.store
        yield "core/router", handles.router
        for name, handle in handles.transports.items():
            yield f"core/transports/{name}", handle
        yield "follower", handles.follower
        for name, handle in handles.receivers.items():
            yield f"receivers/{name}", handle
        yield "intake", handles.intake
        for name, handle in handles.announcers.items():
            yield f"announcers/{name}", handle
        yield "checkpointer", handles.checkpointer

    def poll(self, names: Collection[str]) -> None:
        """Have receivers look at once.

        Raises:
            UsageError: there is none of a name.
        """
        handles = self.context.handles.receivers
        for name in names:
            if name not in handles:
                raise UsageError(
                    "receivers", f"{name!r} is none", f"choose among {', '.join(handles) or 'none'}"
                )
        for name in names or handles:
            handles[name].tell(Probe())

    def receivers(self) -> tuple[ReceiverStatus, ...]:
        """Return how each receiver does, in the order in which they were given."""
        return tuple(
            self.context.receiving.get(receiver.name) or ReceiverStatus(receiver.name, "starting")
            for receiver in self._handling.receivers
        )

    def _store_trouble(self) -> str:
        """Return what the store failed with, "" while it runs."""
        for row in self.supervisor.children():
            if row.name == STORE and row.state is not ChildState.RUNNING:
                return row.last_error or ""
        return ""

    def _phase(self, key: int, index: int) -> str | None:
        for queue in self.context.queues.values():
            phase = queue.phase_of(key, index)
            if phase is not None:
                return "waiting" if phase is Phase.WAITING else "sending"
        return None

    def _gate(self, transport: str, destination: str) -> Gate | None:
        """Return what keeps this process's transport from trying a destination now."""
        queue = self.context.queues.get(transport)
        return None if queue is None else queue.gates.gate_of(destination, self._clock.time())

    def transports(self) -> tuple[TransportStatus, ...]:
        """Return where each transport stands, in transport order."""
        states = self.view.tally().states
        rows: list[TransportStatus] = []
        for name, standing in self.view.standings().items():
            queue = self.context.queues[name]
            pool = self.context.pools.get(name)
            rows.append(
                TransportStatus(
                    name, standing.status, standing.reason, standing.since, standing.until, queue.held,
                    pool.busy if pool else 0, len(pool) if pool else 0, states.get((name, State.QUEUED), 0),
                    queue.last_progress,
                )
            )  # fmt: skip
        return tuple(rows)

    def wait(self, message_id: str, timeout: float | None) -> MessageStatus:
        """Wait until a message is complete, at most ``timeout`` seconds; returns where it stands then.

        Raises:
            UnknownMessage: there is none with this id (any more).
            NotRunning: the spooler was stopped meanwhile.
        """
        key = parse_id(message_id)
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        ticket = self.context.completions.add(key)
        pause = FIRST_LOOK
        try:
            while True:
                status = self.view.status(message_id)
                left = None if deadline is None else deadline - self._clock.monotonic()
                if status.complete or (left is not None and left <= 0):
                    return status
                if not self._alive:
                    raise NotRunning("the spooler was stopped while a message was waited for")
                # Another process may settle it, which only the record tells.
                ticket.wait(pause if left is None else min(pause, left))
                pause = min(LAST_LOOK, pause * 2)
        finally:
            self.context.completions.remove(key, ticket)
