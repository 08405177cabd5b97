"""What a transport actor lets others know: where the transport and its destinations stand, and what was measured."""

from postroom.actors.context import Context
from postroom.actors.protocol import Happened, Look, Stand, StandDestination
from postroom.actors.schedule import Schedule
from postroom.actors.timer import wake
from postroom.breaker import Breaker
from postroom.events import TransportChanged
from postroom.stores.base import Standing

__all__ = ["Notices"]


class Notices:
    """See the module's docstring. Used by the transport actor's thread.

    Args:
        context: what the actors share.
        transport: the transport's name.
    """

    def __init__(self, context: Context, transport: str) -> None:
        self._context = context
        self._transport = transport
        self._attempt_seconds = context.instruments.attempt_seconds.labels(transport)
        self._wait_seconds = context.instruments.queue_wait_seconds.labels(transport)
        self._durations: list[float] = []
        self._waits: list[float] = []

    def attempt(self, duration: float, waited: float) -> None:
        """Note how long an attempt took and how long its job had been due, in seconds."""
        self._durations.append(duration)
        self._waits.append(waited)

    def flush(self) -> None:
        """Count what was noted."""
        if self._durations:
            self._attempt_seconds.observe_many(self._durations)
            self._wait_seconds.observe_many(self._waits)
            self._durations, self._waits = [], []

    def schedule(self, schedule: Schedule) -> None:
        """Put on record where destinations stand now, and count what was throttled."""
        instruments = self._context.instruments
        changed = schedule.destinations.changed
        for standing in changed.values():
            self._context.handles.store.tell(StandDestination(standing))
        if changed:
            changed.clear()
            instruments.destinations_parked.labels(self._transport).set(schedule.destinations.in_trouble)
        for gate, number in schedule.throttled.items():
            instruments.throttled.labels(self._transport, gate).inc(number)
        schedule.throttled.clear()

    def announce(self, breaker: Breaker) -> None:
        """Say where the transport stands, and ask to be woken when it is to be probed."""
        self.publish(Standing(self._transport, breaker.status, breaker.reason, breaker.since, breaker.until))
        if breaker.until is not None:
            handles = self._context.handles
            wake(handles.timer, breaker.until, handles.transports[self._transport], Look(), "probe")

    def publish(self, standing: Standing) -> None:
        """Say where the transport stands, on the record too if that is new."""
        context = self._context
        before = context.standings.get(standing.transport)
        context.standings[standing.transport] = standing
        if before is not None and before.status == standing.status:
            return
        context.handles.store.tell(Stand(standing))
        if context.audience.any and before is not None:
            event = TransportChanged(
                context.clock.time(), standing.transport, standing.status, standing.reason, standing.until
            )
            context.handles.notifier.tell(Happened(events=(event,)))
