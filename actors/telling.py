"""What the store actor tells everybody after a commit."""

import logging
import math

from postroom.actors.batches import Batch, Effects
from postroom.actors.context import Context
from postroom.actors.protocol import (
    Arriving,
    Claimed,
    Committed,
    FollowupsDue,
    Happened,
    Journalled,
    Ordered,
    Reclaimed,
    Reroute,
    Room,
    Work,
)
from postroom.tickets import resolve_all

__all__ = ["Telling", "spread_orders"]

log = logging.getLogger("postroom.store")


def spread_orders(context: Context) -> None:
    """Tell everybody in this process which standing orders there are now."""
    orders = context.reader.orders()
    context.orders.given = orders
    for handle in context.handles.transports.values():
        handle.tell(Ordered(orders))


class Telling:
    """Tells of commits, and remembers which due times the transports know. Used by the store actor's thread.

    Args:
        context: what the actors share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._awaited: dict[str, float] = {}

    def tell(self, batch: Batch, effects: Effects) -> None:  # noqa: C901, PLR0912 - one step per kind of effect
        """Tell everybody what is durable now: submitters first, they hold up their callers."""
        context = self._context
        handles = context.handles
        if effects.ordered:
            # Who gave an order may rely on it as soon as there is an answer.
            spread_orders(context)
        resolve_all(effects.tickets)
        now = context.clock.time()
        due = self._news(effects)
        work = effects.make_jobs(context.transports, context.queues)
        coupled = context.coupled
        if coupled is not None and coupled in work:
            handles.transports[coupled].tell(Work(work.pop(coupled)))
        if work or due:
            handles.router.tell(Committed(work, due))
        if context.store.following.due is not None:
            handles.follower.tell(FollowupsDue(context.store.following.due))
        for transport, jobs in batch.jobs_by_transport().items():
            active = context.queues[transport]
            active.settled(jobs)
            if active.backlog:
                handles.transports[transport].tell(Room())
            context.instruments.delivery_seconds.labels(transport).observe_many(
                max(0.0, now - job.created)
                for job in jobs
                for settlement in job.settlements
                if settlement.state.is_final
            )
        if effects.late:
            context.instruments.late_settlements.inc(effects.late)
            log.warning("%d outcomes came too late to be recorded", effects.late)
        for reclaim in batch.reclaims:
            self._awaited.pop(reclaim.transport, None)
            handles.transports[reclaim.transport].tell(Reclaimed())
        for transport, jobs in effects.journalled:
            for job in jobs:
                job.journalled = True
            handles.transports[transport].tell(Journalled(jobs))
        for transport, (more, next_due) in effects.claims.items():
            handles.transports[transport].tell(
                Claimed(effects.claimed_jobs.get(transport, ()), more, next_due)
            )
        if effects.moved and context.delivers:
            handles.router.tell(Reroute(frozenset(effects.moved)))
        context.completions.completed(effects.completed)
        if context.audience.any:
            handles.notifier.tell(
                Happened(now, effects.fresh, effects.changed, effects.completed, effects.events)
            )
        if effects.arriving is not None:
            handles.intake.tell(Arriving(effects.arriving))
        if effects.journalled_events:
            context.bell.ring()

    def _news(self, effects: Effects) -> dict[str, float]:
        """Return the due times that their transports do not wait for already: they need not be woken for later ones."""
        for transport, at in self._context.store.following.freed.items():
            effects.note_due(transport, at)
        known = self._awaited
        for transport, (more, next_due) in effects.claims.items():
            known[transport] = 0.0 if more else math.inf if next_due is None else next_due
        news = {transport: at for transport, at in effects.due.items() if at < known.get(transport, math.inf)}
        known.update(news)
        return news
