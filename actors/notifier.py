"""The notifier actor: matches what happened to subscriptions.

Each subscription has a thread and a bounded queue of its own, so that a subscriber that raises, stalls or never returns
harms nobody: not the notifier, not the others, not delivery. Its errors and lost events are counted under its name.
"""

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from postroom.actors.context import Audience
from postroom.actors.protocol import Happened
from postroom.addresses import Address
from postroom.clock import Clock
from postroom.events import (
    Event,
    MessageCompleted,
    MessageQueued,
    RecipientAccepted,
    RecipientCancelled,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
    RecipientHeld,
    RecipientRelayed,
)
from postroom.ids import format_id
from postroom.metrics import Instruments
from postroom.recipients import State
from postroom.stores.base import Settlement
from postroom.supervision import MailboxActor

__all__ = ["NotifierActor", "Subscription", "Subscriptions", "events_of"]

log = logging.getLogger("postroom.notifier")

QUEUE_LIMIT = 10_000
"""Events that wait for one subscriber at most; later ones are dropped and counted."""

_PLAIN = {
    State.DELIVERED: RecipientDelivered,
    State.RELAYED: RecipientRelayed,
    State.FAILED: RecipientFailed,
    State.EXPIRED: RecipientExpired,
    State.HELD: RecipientHeld,
    State.CANCELLED: RecipientCancelled,
}


def events_of(happened: Happened) -> Iterator[Event]:
    """Yield the events that a letter stands for."""
    at = happened.at
    for message in happened.queued:
        yield MessageQueued(
            at, format_id(message.key), message.sender, len(message.recipients), len(message.content)
        )
    for settlement, address in happened.settled:
        event = _recipient_event(settlement, address)
        if event is not None:
            yield event
    for key in happened.completed:
        yield MessageCompleted(at, format_id(key))
    yield from happened.events


def _recipient_event(s: Settlement, address: Address | None) -> Event | None:
    common = (s.at, format_id(s.key), s.index, address, s.transport, s.attempts, s.reply)
    if s.state is State.QUEUED:
        return RecipientDeferred(*common, s.due or s.at) if s.outcome in {"deferred", "crashed"} else None
    if s.state is State.ACCEPTED:
        return RecipientAccepted(*common, s.remote_id or "")
    plain = _PLAIN.get(s.state)
    return plain(*common) if plain is not None else None


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """How a subscriber does."""

    name: str
    waiting: int
    errors: int
    dropped: int
    busy_since: float | None


class Subscription:
    """One subscriber with its queue and thread. ``cancel`` may be called from any thread, also from the callback.

    Attributes:
        name: for logs and metrics.
        errors: exceptions that the callback raised.
        dropped: events lost because the subscriber was too slow.
        busy_since: monotonic seconds at which the present call of the callback began, or None.
    """

    def __init__(  # noqa: PLR0913 - named
        self,
        callback: Callable[[Event], object],
        kinds: Collection[type[Event]],
        name: str,
        *,
        instruments: Instruments,
        clock: Clock,
        on_cancel: "Callable[[Subscription], None]",
        series: str | None = None,
        limit: int = QUEUE_LIMIT,
    ) -> None:
        self.name = name
        self.errors = 0
        self.dropped = 0
        self.busy_since: float | None = None
        self._callback = callback
        self._kinds = tuple(kinds)
        self._queue: queue.Queue[Event | None] = queue.Queue(limit)
        self._cancelled = False
        self._clock = clock
        self._on_cancel = on_cancel
        # Under the callback's name: a host that subscribes again and again must not make ever new time series.
        self._count_error = instruments.subscriber_errors.labels(series or name).inc
        self._count_drop = instruments.subscriber_dropped.labels(series or name).inc
        self._thread = threading.Thread(target=self._run, name=f"postroom-subscriber-{name}", daemon=True)
        self._thread.start()

    def wants(self, event: Event) -> bool:
        """Return whether the event is of a kind that was subscribed to."""
        return not self._kinds or isinstance(event, self._kinds)

    def offer(self, event: Event) -> None:
        """Queue an event; never blocks."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.dropped += 1
            self._count_drop()
            if self.dropped == 1:
                log.warning("subscriber %s is too slow; events for it are dropped and counted", self.name)

    def cancel(self, timeout: float = 0.0) -> bool:
        """Stop after the event at hand; return whether the thread has ended within ``timeout`` seconds."""
        if not self._cancelled:
            self._cancelled = True
            self._on_cancel(self)
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                log.debug("subscriber %s is cancelled with a full queue", self.name)
        if timeout > 0 and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def drain(self) -> None:
        """Let the thread end once it has handled what is queued."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._cancelled = True

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end; return whether it has, or will once the callback that asks has returned."""
        if self._thread is threading.current_thread():
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def status(self) -> SubscriberStatus:
        """Return how the subscriber does."""
        return SubscriberStatus(self.name, self._queue.qsize(), self.errors, self.dropped, self.busy_since)

    def _run(self) -> None:
        while not self._cancelled:
            event = self._queue.get()
            if event is None:
                return
            self.busy_since = self._clock.monotonic()
            try:
                self._callback(event)
            except Exception:
                self.errors += 1
                self._count_error()
                log.exception("subscriber %s raised on %r", self.name, event)
            self.busy_since = None


class Subscriptions:
    """The subscriptions of a spooler; they outlive the notifier actor. Thread-safe.

    Args:
        instruments: where errors are counted.
        clock: for ``busy_since``.
        audience: told whether anybody listens.
    """

    def __init__(self, instruments: Instruments, clock: Clock, audience: Audience) -> None:
        self._instruments = instruments
        self._clock = clock
        self._audience = audience
        self._lock = threading.Lock()
        self._all: tuple[Subscription, ...] = ()
        self._made = 0

    def add(
        self, callback: Callable[[Event], object], kinds: Collection[type[Event]], name: str | None
    ) -> Subscription:
        """Add a subscriber; without a name it gets one from the callback."""
        with self._lock:
            self._made += 1
            kind = name or str(getattr(callback, "__qualname__", type(callback).__name__))
            subscription = Subscription(
                callback,
                kinds,
                name or f"{kind}-{self._made}",
                instruments=self._instruments,
                clock=self._clock,
                on_cancel=self._remove,
                series=kind,
            )
            self._all = (*self._all, subscription)
            self._audience.any = True
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._all = tuple(other for other in self._all if other is not subscription)
            self._audience.any = bool(self._all)

    def current(self) -> tuple[Subscription, ...]:
        """Return those that are not cancelled."""
        return self._all

    def close(self, deadline: float, monotonic: Callable[[], float]) -> list[str]:
        """Let all handle what they have and end by ``deadline``; returns the names of those that did not."""
        subscriptions = self._all
        for subscription in subscriptions:
            subscription.drain()
        hung = [s.name for s in subscriptions if not s.join(max(0.0, deadline - monotonic()))]
        for subscription in subscriptions:
            subscription.cancel()
        return hung


class NotifierActor(MailboxActor):
    """See the module's docstring.

    Args:
        subscriptions: who listens.
        name: of the thread.
    """

    def __init__(self, subscriptions: Subscriptions, name: str) -> None:
        super().__init__()
        self.name = name
        self._subscriptions = subscriptions

    def on_letters(self, letters: list[object]) -> None:
        """Offer each event to those who want it."""
        subscriptions = self._subscriptions.current()
        if not subscriptions:
            return
        for letter in letters:
            if isinstance(letter, Happened):
                for event in events_of(letter):
                    for subscription in subscriptions:
                        if subscription.wants(event):
                            subscription.offer(event)
