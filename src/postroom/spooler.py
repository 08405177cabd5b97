"""The spooler: what a server embeds."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from prometheus_client import CollectorRegistry

from postroom import forking
from postroom.actors.context import Audience
from postroom.actors.notifier import SubscriberStatus, Subscription, Subscriptions
from postroom.actors.protocol import Accept, Happened
from postroom.address_book import Names
from postroom.addresses import Address
from postroom.archive_surface import ArchiveSurface
from postroom.checking import check_names, check_parts, check_receivers, check_transports, tokens_of
from postroom.clock import Clock, SystemClock
from postroom.envelope_recipients import Recipient
from postroom.envelopes import Report, Submission, When
from postroom.errors import (
    AlreadyRunning,
    ConfigurationError,
    ForkedProcess,
    NotRunning,
    SpoolFull,
    UsageError,
)
from postroom.events import ActorRestarted, Event
from postroom.expansion import Lists
from postroom.exporter import Exporter
from postroom.handling import Handling
from postroom.hooks import Preprocessor, SentHook
from postroom.inbound.hooks import Postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule, check_rules
from postroom.messages import AnyMessage
from postroom.metrics import Instruments
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.operator_surface import OperatorSurface
from postroom.receipts import PendingReceipt, Receipt, receipt_of
from postroom.receivers.base import Receiver
from postroom.receiving_surface import ReceivingSurface
from postroom.recipients import PENDING_STATES, State
from postroom.reports.policy import ReportPolicy
from postroom.running import Running
from postroom.settings import Settings
from postroom.status import Explanation, MessageStatus, QueueEntry, TransportStatus
from postroom.stores.base import Tally
from postroom.stores.driver import warn_if_affected
from postroom.supervision import ChildEnded, ChildRow, ChildStarted, SupervisionEvent, UnknownChild
from postroom.tickets import StoreDied, Ticket
from postroom.transports.base import Limits, Transport
from postroom.windows import DeliveryWindow

__all__ = ["Spooler"]

log = logging.getLogger("postroom")

_REPORTS = ReportPolicy()

INLINE_OCTETS = 64 * 1024
"""Messages given as octets up to this size are prepared in the event loop's thread; larger ones in another."""


class Spooler(OperatorSurface, ArchiveSurface, ReceivingSurface):
    """A store-and-forward spooler running in the background of the host process.

    It owns no main thread, installs no signal handler, and never ends the process. All methods are thread-safe. A
    spooler that was stopped may be started again. After ``fork()`` the child's copy refuses to work until ``start()``
    is called there.

    Args:
        path: the spool's database file, made when missing; several processes of one machine may share it.
        transports: in transport order: it decides who gets an address that several could deliver to.
        settings: limits, retention and durability.
        metrics_port: serve ``/metrics`` on this port (0 lets the system choose; see ``metrics_address``).
        metrics_host: the interface for it.
        registry: register the metrics here instead of in a registry of the spooler's own.
        clock: where the time comes from.
        deliver: False only accepts, looks and acts: the transports say where messages go but are not started, and
            another process that has the spool open delivers (it looks once every ``sync_interval``). Nothing is
            adopted from dead processes and nothing is purged either.
        lists: distribution lists: a dictionary, a callable, a :class:`postroom.ListFile`, or several of them.
        names: an address book: a dictionary or a callable from what is neither an address nor a list to an address.
        preprocessors: may change, add to or return a message before it is sent (:mod:`postroom.hooks`).
        preprocessing: how many messages are preprocessed at once and the like; None for the stage's own limits.
        sent_hooks: told of every message that is complete.
        reports: who is told what became of a message, when and in which words; None to make no reports.
        receivers: where messages come from (:mod:`postroom.receivers`); each runs in a thread of its own.
        postprocessors: see incoming messages, in this order, before they are filed (:mod:`postroom.inbound.hooks`).
        rules: where incoming messages are filed; the first that fits decides, else it is "Inbox".
        receiving: mail loops, read receipts, how long what was deleted is kept, and the like.
        subscribers: are told of durable events by messages through the spool itself.

    Raises:
        ConfigurationError: two transports have one name, or a setting is wrong.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        path: str | os.PathLike[str],
        transports: Sequence[Transport] = (),
        *,
        settings: Settings | None = None,
        metrics_port: int | None = None,
        metrics_host: str = "127.0.0.1",
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
        deliver: bool = True,
        lists: Lists | None = None,
        names: Names | None = None,
        preprocessors: Sequence[Preprocessor] = (),
        preprocessing: Limits | None = None,
        sent_hooks: Sequence[SentHook] = (),
        reports: ReportPolicy | None = _REPORTS,
        receivers: Sequence[Receiver] = (),
        postprocessors: Sequence[Postprocessor] = (),
        rules: Sequence[ReceiveRule] = (),
        receiving: ReceivePolicy | None = None,
        subscribers: Sequence[WebhookSubscriber] = (),
    ) -> None:
        self.path = Path(path)
        self._deliver = deliver
        self.transports_configured = tuple(transports)
        self.settings = settings or Settings()
        self._clock: Clock = clock or SystemClock()
        check_transports(self.transports_configured)
        check_receivers(receivers)
        check_parts("postprocessors", postprocessors, Postprocessor)
        check_parts("rules", rules, ReceiveRule)
        check_parts("subscribers", subscribers, WebhookSubscriber)
        check_parts("receiving", [] if receiving is None else [receiving], ReceivePolicy)
        self._handling = Handling(
            lists=lists,
            names=names,
            preprocessors=tuple(preprocessors),
            preprocessing=preprocessing,
            sent_hooks=tuple(sent_hooks),
            reports=reports,
            receivers=tuple(receivers),
            postprocessors=tuple(postprocessors),
            rules=tuple(rules),
            receiving=receiving or ReceivePolicy(),
            subscribers=tuple(subscribers),
            tokens=tokens_of(self.transports_configured),
        )
        check_rules(self._handling.rules)
        check_names("postprocessors", [each.name for each in self._handling.postprocessors])
        check_names("subscribers", [each.name for each in self._handling.subscribers])
        for subscriber in self._handling.subscribers:
            subscriber.check(self.settings.journalled)
        # What is wrong with a list is said now.
        _ = self._handling.expander
        self._instruments = Instruments(registry or CollectorRegistry())
        self._audience = Audience()
        self._subscriptions = Subscriptions(self._instruments, self._clock, self._audience)
        self._exporter = Exporter(
            self._instruments.registry, self.snapshot_source, metrics_host, metrics_port
        )
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._forked = False
        self._failures: dict[str, str] = {}
        warn_if_affected()
        forking.watch(self)

    # Life

    def start(self, timeout: float = 30.0) -> None:
        """Open the spool, take over what dead processes left, and begin to deliver.

        A transport that cannot start does not hinder the others; it is tried again in the background.

        Raises:
            AlreadyRunning: it was started before.
            SpoolUnavailable: the spool cannot be opened.
        """
        with self._lock:
            if self._running is not None:
                raise AlreadyRunning("the spooler is running; stop() it before you start() it again")
            self._forked = False
            running = Running(
                self.path, self.transports_configured, self.settings, self._clock, self._instruments, self._audience,
                self._subscriptions, self._on_supervision, handling=self._handling, delivers=self._deliver,
            )  # fmt: skip
            running.start(timeout)
            self._running = running
        try:
            self._exporter.serve()
        except OSError as error:
            self.stop()
            raise ConfigurationError(
                "metrics_port",
                f"cannot listen there: {error}",
                "choose a free port, or 0 to let the system choose",
            ) from error

    def stop(self, timeout: float = 30.0) -> bool:
        """Stop; return within ``timeout`` seconds whether everything ended in good order. Loses nothing either way.

        Attempts under way may finish; what waits stays in the spool. Stopping twice is harmless.
        """
        with self._lock:
            running, self._running = self._running, None
            if running is None:
                return True
            self._exporter.close()
            return running.stop(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped, in this process."""
        return self._running is not None

    def after_fork(self) -> None:
        """Be told that this is a forked child. For Postroom's own fork guard.

        Nothing here waits for a lock, since another thread of the parent may have held any at the fork.
        """
        self._lock = threading.Lock()
        running, self._running = self._running, None
        if running is not None:
            self._forked = True
            running.abandon_after_fork()
            self._exporter.after_fork()
        self._audience.any = False
        self._subscriptions = Subscriptions(self._instruments, self._clock, self._audience)

    def _engine(self) -> Running:
        running = self._running
        if self._forked:
            raise ForkedProcess(
                "this process was forked from one that runs the spooler, and threads do not survive fork(); "
                "call start() in the child to run one here"
            )
        if running is None:
            raise NotRunning("the spooler is not running; call start() first, or use it as a context manager")
        return running

    # Submitting

    def submit(  # noqa: PLR0913 - the envelope, by keyword
        self,
        message: AnyMessage,
        *,
        sender: str | Address | None = None,
        to: Iterable[str | Address | Recipient] | str | Address | Recipient | None = None,
        send_at: When | None = None,
        expires_at: When | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
        report: AbstractSet[Report] = frozenset({Report.FAILURE}),
        hold: bool = False,
        tenant: str | None = None,
        ordering_key: str | None = None,
        window: DeliveryWindow | str | None = None,
        ret: Literal["full", "headers"] | None = None,
        envid: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Make a message durable and return; it is delivered in the background.

        Args:
            message: an ``EmailMessage``, its octets, or a :class:`postroom.Message`.
            sender: envelope sender, "" for the null reverse-path; by default Sender or From of the message.
            to: recipients of any address type; by default To, Cc and Bcc of the message.
            send_at: not before then: seconds since the epoch, an aware datetime, or a timedelta from now.
            expires_at: not after then, likewise.
            priority: 1 urgent, 0 normal, -1 non-urgent.
            idempotency_key: a second submission with the same key and payload gets the first one's receipt.
            report: what the sender wants to be told by a message to it: by default of failures only (RFC 3461 NOTIFY).
            hold: keep it until it is released.
            tenant: whose fair share of the transports it uses; by default each sender is one of its own.
            ordering_key: two messages with the same key never overtake each other.
            window: deliver only then, as in "Mo-Fr 09:00-17:00 Europe/Berlin".
            ret: what a failure report returns: "full", "headers", or None for the usual (RFC 3461 RET).
            envid: the sender's own name for it, named in reports (RFC 3461 ENVID).
            timeout: seconds to wait for durability; by default ``settings.submit_timeout``.

        Raises:
            UsageError: something is wrong with the message or the envelope; names the field and the remedy.
            SpoolFull: not accepted: the store is too far behind or the disk is full.
            SpoolUnavailable: the store did not answer in time; whether it was accepted is not known.
            NotRunning: the spooler is not running.
        """
        return self._submit_all(
            [
                Submission(
                    message=message, sender=sender, to=to, send_at=send_at, expires_at=expires_at, priority=priority,
                    idempotency_key=idempotency_key, report=report, hold=hold, tenant=tenant,
                    ordering_key=ordering_key, window=window, ret=ret, envid=envid,
                )
            ],
            timeout,
            listed=False,
        )[0]  # fmt: skip

    def submit_many(
        self, submissions: Iterable[Submission], *, timeout: float | None = None
    ) -> list[Receipt]:
        """Make many messages durable together, in one transaction where they fit; all or none are accepted.

        Raises:
            UsageError: as ``submit``; ``field`` begins with the submission's number. Nothing was stored.
            SpoolFull: likewise.
            SpoolUnavailable: likewise.
        """
        return self._submit_all(list(submissions), timeout, listed=True)

    def _submit_all(
        self, submissions: Sequence[Submission], timeout: float | None, *, listed: bool
    ) -> list[Receipt]:
        engine = self._engine()
        prepare = engine.submitter.prepare
        messages = [
            prepare(submission, f"submissions[{number}]." if listed else "")
            for number, submission in enumerate(submissions)
        ]
        if not messages:
            return []
        limit = self.settings.submit_timeout if timeout is None else timeout
        return [receipt_of(result, self.wait) for result in engine.submitter.submit(messages, limit)]

    def submit_nowait(self, submission: Submission, *, timeout: float | None = None) -> PendingReceipt:
        """Hand a message over without waiting for durability; ``result()`` of what is returned waits for it.

        Args:
            submission: the message with its envelope.
            timeout: seconds to wait for room in front of the store.

        Raises:
            UsageError: as ``submit``.
            SpoolFull: there was no room in time.
        """
        engine = self._engine()
        submitter = engine.submitter
        messages = [submitter.prepare(submission)]
        octets = submitter.enter(messages, self.settings.submit_timeout if timeout is None else timeout)
        letter = Accept(messages, Ticket(lambda _ticket: submitter.leave(1, octets)))
        incarnation = submitter.tell(letter)
        if not incarnation:
            # The store is being restarted: nobody but its submitter can tell its successor.
            letter.ticket.resolve(error=StoreDied())

        def finish(seconds: float | None) -> Receipt:
            limit = self.settings.submit_timeout if seconds is None else seconds
            deadline = self._clock.monotonic() + limit
            return receipt_of(submitter.finish(letter, incarnation, deadline)[0], self.wait)

        return PendingReceipt(letter.ticket, finish)

    async def submit_async(self, message: AnyMessage, **envelope: Any) -> Receipt:
        """Do what :meth:`submit` does, with the same arguments, without blocking the event loop."""
        if isinstance(message, bytes) and len(message) <= INLINE_OCTETS:
            timeout: float = envelope.pop("timeout", None) or self.settings.submit_timeout
            submission = Submission(message=message, **envelope)
            try:
                pending = self.submit_nowait(submission, timeout=0)
            except SpoolFull:
                pending = await asyncio.to_thread(self.submit_nowait, submission, timeout=timeout)
            if await pending.arrived(timeout) and not pending.interrupted:
                return pending.result(0)
            return await asyncio.to_thread(pending.result, timeout)
        return await asyncio.to_thread(self.submit, message, **envelope)

    # Asking

    def wait(self, message_id: str, timeout: float | None = None) -> MessageStatus:
        """Wait until every recipient of a message is settled; see :meth:`postroom.Receipt.wait`."""
        return self._engine().wait(message_id, timeout)

    def status(self, message_id: str) -> MessageStatus:
        """Return where a message and each of its recipients stand.

        Raises:
            UnknownMessage: there is none with this id (any more).
        """
        return self._engine().view.status(message_id)

    def explain(self, message_id: str) -> tuple[Explanation, ...]:
        """Return for each recipient the gate at which it waits, until when, and by which rule.

        Raises:
            UnknownMessage: there is none with this id (any more).
        """
        return self._engine().view.explain(message_id)

    def content(self, message_id: str) -> bytes | None:
        """Return a message's octets, None when they are gone (``keep_content``)."""
        return self._engine().view.content(message_id)

    def queue(
        self,
        *,
        states: Collection[State] = PENDING_STATES,
        transport: str | None = None,
        limit: int | None = 1000,
    ) -> Iterator[QueueEntry]:
        """Yield recipients in the order of submission; by default those that are not settled."""
        return self._engine().view.queue(states=states, transport=transport, limit=limit)

    def tally(self) -> Tally:
        """Return the ledger: recipients by transport and state. Costs the same at any depth."""
        return self._engine().view.tally()

    def audit(self) -> dict[tuple[str, State], int]:
        """Recount the pending recipients row by row; returns where the tally differs, empty when it is right."""
        return self._engine().view.audit()

    def transports(self) -> tuple[TransportStatus, ...]:
        """Return where each transport stands, in transport order."""
        return self._engine().transports()

    def actors(self) -> tuple[ChildRow, ...]:
        """Return how each actor of the supervision tree stands."""
        return self._engine().supervisor.children()

    def crash_actor(self, path: str, reason: str = "asked to crash") -> bool:
        """Make one actor fail and be restarted: to try out on a running spooler that nothing is lost by it.

        Args:
            path: its name as in :meth:`actors`, for example ``core/transports/smtp``.
            reason: the text of the exception that it fails with.

        Returns:
            False when the actor is not alive at this moment, for example because it is being restarted.

        Raises:
            UsageError: there is no such actor.
        """
        try:
            return self._engine().supervisor.crash(path, reason)
        except UnknownChild as error:
            raise UsageError("path", str(error), "give a path as in actors()") from error

    # Notification

    def subscribe(
        self,
        callback: Callable[[Event], object],
        *,
        events: Collection[type[Event]] = (),
        name: str | None = None,
    ) -> Subscription:
        """Have ``callback`` called with each event of the given kinds (and their subclasses); none means all.

        The callback runs in a thread of its own. What it raises is logged and counted; when it is too slow, events
        for it are dropped and counted; nobody else notices.

        Args:
            callback: called with one event at a time, in order.
            events: event classes of :mod:`postroom.events`.
            name: for logs and metrics.

        Returns:
            the subscription; ``cancel()`` ends it.
        """
        return self._subscriptions.add(callback, events, name)

    def subscribers(self) -> tuple[SubscriberStatus, ...]:
        """Return how the subscribers do."""
        return tuple(subscription.status() for subscription in self._subscriptions.current())

    @property
    def metrics(self) -> CollectorRegistry:
        """The registry with all metrics of this spooler, to mount in the host's own exposition."""
        return self._exporter.registry

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port where ``/metrics`` is served, None when it is not."""
        return self._exporter.address

    def snapshot_source(self) -> Running | None:
        """Return what the exporter reads from, None when the spooler does not run. For the exporter."""
        return self._running

    def _on_supervision(self, event: SupervisionEvent) -> None:
        if isinstance(event, ChildEnded) and event.exception is not None:
            self._failures[event.name] = f"{type(event.exception).__name__}: {event.exception}"
        elif isinstance(event, ChildStarted) and event.incarnation > 1:
            self._instruments.actor_restarts.labels(event.name).inc()
            running = self._running
            if running is not None and self._audience.any:
                restarted = ActorRestarted(
                    self._clock.time(), event.name, event.incarnation, self._failures.get(event.name, "")
                )
                running.context.handles.notifier.tell(Happened(events=(restarted,)))
