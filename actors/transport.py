"""The transport actor, one per transport: keeps the window filled and the couriers busy; never waits.

What may be tried, and when, is for :class:`postroom.actors.schedule.Schedule` to say; the couriers are looked after by
:class:`postroom.actors.crew.Crew`. Here is what moves between them, the store and the timer.
"""

import logging
from collections.abc import Sequence
from types import TracebackType

from postroom.active_queue import Crash, Job, Outage, Phase, TimedOut
from postroom.actors.context import Context
from postroom.actors.courier import Errand
from postroom.actors.crew import CourierFailuresError, Crew
from postroom.actors.notices import Notices
from postroom.actors.protocol import (
    Claim,
    Claimed,
    CourierGone,
    Due,
    Ended,
    Journal,
    Journalled,
    Look,
    MoveOn,
    Ordered,
    Probe,
    Reclaim,
    Reclaimed,
    Room,
    Settle,
    Work,
)
from postroom.actors.schedule import Schedule
from postroom.actors.timer import wake
from postroom.breaker import Status
from postroom.errors import InternalError
from postroom.pauses import pauses_of
from postroom.settling import settle_job
from postroom.stores.base import Settlement, Standing
from postroom.supervision import MailboxActor

__all__ = ["CourierFailuresError", "TransportActor"]

log = logging.getLogger("postroom.transport")

ATTACH_SECONDS = 10.0
"""How long a new incarnation waits until the supervisor leads its handle to it."""


class TransportActor(MailboxActor):
    """See the module's docstring.

    Args:
        context: what the actors share.
        transport: the transport's name.
        name: of the thread.
    """

    def __init__(self, context: Context, transport: str, name: str) -> None:
        super().__init__()
        self.name = name
        self.monotonic = context.clock.monotonic
        self._context = context
        self._clock = context.clock
        self._transport = context.transports[transport]
        self._queue = context.queues[transport]
        self._me = context.handles.transports[transport]
        self._store = context.handles.store
        self._settling: list[Job] = []
        self._journalling = False
        self._journals = self._transport.in_doubt == "hold"
        self._next_due: float | None = None
        self._gates_at: float | None = None
        self._claiming = False
        self._wanted = False
        self._watching = False
        self._schedule = Schedule(self._transport, self._queue, context.router)
        self._ready = self._schedule.ready
        self._breaker = self._schedule.breaker
        self._notices = Notices(context, transport)
        self._crew = Crew(
            Errand(
                transport=self._transport, jobs=self._queue, load=context.reader.content, tell=self._me.tell,
                clock=context.clock,
            ),
            journals=self._journals,
        )  # fmt: skip

    # Life

    def on_start(self) -> None:
        """Take up what the last incarnation left: outcomes are settled, what waited goes back to the spool first."""
        self._transport.prepare()
        # The store and the timer answer to the handle, which the supervisor sets when start() has returned.
        if not self._me.wait_for(self.actor_ref, ATTACH_SECONDS):
            raise InternalError(f"{self.name} was not given its place")
        name = self._transport.name
        former = self._context.pools.get(name)
        if former is not None:
            former.retire()
        self._context.pools[name] = self._crew.pool
        now = self._clock.time()
        self._breaker.since = now
        self._schedule.restore(self._context.reader.destinations(name), now)
        self._schedule.pause(pauses_of(self._context.orders.given, name), now)
        self._claiming = True
        self._store.tell(Reclaim(name))
        unconfirmed = self._queue.in_phase(Phase.SETTLING)
        if unconfirmed:
            self._store.tell(Settle(name, unconfirmed))
        for job in self._queue.in_phase(Phase.ENDED):
            self._ended(job)
        self._notices.announce(self._breaker)
        self._flush()
        self._watch()

    def on_stop(self) -> None:
        """Let the couriers end; what they have in hand is settled by whoever comes next."""
        self._flush()
        self._crew.pool.retire()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the couriers end, and say where the transport stands."""
        del traceback
        self._crew.pool.retire()
        reason = f"{exception_type.__name__ if exception_type else 'failure'}: {exception_value}"
        self._notices.publish(Standing(self._transport.name, "restarting", reason, self._clock.time()))

    # Letters

    def on_letters(self, letters: list[object]) -> None:  # noqa: C901 - one branch per kind of letter
        """Handle a batch, then do once what follows from all of it."""
        for letter in letters:
            if isinstance(letter, Ended):
                self._ended(letter.job)
            elif isinstance(letter, Work):
                self._add(letter.jobs)
            elif isinstance(letter, Claimed):
                self._claimed(letter)
            elif isinstance(letter, Room):
                self._wanted = True
            elif isinstance(letter, Due):
                self._due(letter.at)
            elif isinstance(letter, Reclaimed):
                self._claiming = False
                self._wanted = True
            elif isinstance(letter, Journalled):
                self._journalling = False
                self._ready.put_back(letter.jobs)
            elif isinstance(letter, Look):
                self._look()
            elif isinstance(letter, CourierGone):
                self._courier_gone(letter)
            elif isinstance(letter, Ordered):
                self._ordered(letter)
            elif isinstance(letter, Probe):
                self._probe()
        self._dispatch()
        self._flush()

    def _add(self, jobs: Sequence[Job]) -> None:
        admitted = self._queue.admit(jobs)
        lowest = self._crew.lowest
        if lowest < 1 and admitted:
            most = max(job.priority for job in admitted)
            if most > lowest and not self._ready.has(most):
                # What is offered to the couriers already must not go before what is more urgent.
                self._take_back()
        self._schedule.add(admitted)

    def _claimed(self, letter: Claimed) -> None:
        self._claiming = False
        self._wanted = self._wanted or letter.more
        self._add(letter.jobs)
        if letter.next_due is not None:
            self._due(letter.next_due)

    def _due(self, at: float) -> None:
        now = self._clock.time()
        if at <= now:
            self._wanted = True
        if self._next_due is not None and self._next_due <= now:
            self._next_due = None
        if at > now and (self._next_due is None or at < self._next_due):
            self._next_due = at
            wake(self._context.handles.timer, at, self._me, Due(at), "due")

    def _wake(self, at: float, tag: str) -> None:
        wake(self._context.handles.timer, at, self._me, Look(), tag)

    def _ordered(self, letter: Ordered) -> None:
        self._schedule.pause(pauses_of(letter.orders, self._transport.name), self._clock.time())
        # What is paused now may be among what was offered.
        self._take_back()

    def _probe(self) -> None:
        now = self._clock.time()
        self._schedule.destinations.probe_now(now)
        if self._breaker.probe_now(now):
            self._notices.announce(self._breaker)

    # Results

    def _ended(self, job: Job) -> None:
        offered = self._crew.outstanding
        mine = job in offered
        offered.discard(job)
        result = job.result
        if job.phase is not Phase.ENDED or result is None:
            if mine:
                self._schedule.void(job)
            return
        now = self._clock.time()
        self._schedule.ended(job, result, now, offered)
        if isinstance(result, Outage):
            self._queue.wait_again(job)
            self._outage(result, now)
            self._ready.put_back([job])
            return
        duration = max(0.0, job.ended - job.started)
        self._crew.ended(duration)
        self._notices.attempt(duration, max(0.0, job.started - job.due))
        if isinstance(result, TimedOut):
            if self._breaker.status is not Status.UP and self._breaker.down(
                now, "no answer within the attempt timeout"
            ):
                self._notices.announce(self._breaker)
        elif not isinstance(result, Crash):
            self._queue.last_progress = now
            if self._breaker.answered(now):
                self._notices.announce(self._breaker)
        self._settle(
            job,
            settle_job(
                job, result, policy=self._transport.retry, router=self._context.router, now=now,
                hold_in_doubt=self._journals,
            ),
        )  # fmt: skip

    def _settle(self, job: Job, settlements: list[Settlement]) -> None:
        if self._queue.settling(job, settlements):
            self._settling.append(job)

    def _outage(self, outage: Outage, now: float) -> None:
        if self._breaker.down(now, outage.reason, outage.retry_after):
            self._take_back()
            log.warning("%s is parked: %s", self._transport.name, outage.reason)
            self._notices.announce(self._breaker)

    # Work

    def _dispatch(self) -> None:
        now = self._clock.time()
        schedule, crew = self._schedule, self._crew
        permits = schedule.permits(now)
        most = permits * crew.prefetch if schedule.prefetches else permits
        to_journal = self._offer(most, now)
        if to_journal:
            self._journalling = self._store.tell(Journal(self._transport.name, to_journal))
        if not crew.spawn(min(permits, len(crew.outstanding)), now):
            self._wake(crew.spawn_after, "spawn")
        if crew.outstanding and not self._watching:
            self._watch()
        if schedule.move_on(now):
            self._store.tell(MoveOn(self._transport.name))
        schedule.clear_aside(now)
        self._look_again(now)

    def _offer(self, most: int, now: float) -> list[Job]:
        """Offer the couriers jobs until they have ``most``; returns those that must be journalled before."""
        schedule, crew = self._schedule, self._crew
        to_journal: list[Job] = []
        while len(crew.outstanding) + len(to_journal) < most:
            job = schedule.take(now)
            if job is None:
                break
            if not self._journals or job.journalled:
                schedule.offered(job, now)
                crew.offer(job)
            elif self._journalling:
                self._ready.put_back([job])
                break
            else:
                to_journal.append(job)
        return to_journal

    def _take_back(self) -> None:
        """Take back what was offered to the couriers and none of them has begun."""
        self._schedule.taken_back(self._crew.take_back())

    def _look_again(self, now: float) -> None:
        """Ask to be woken when a gate may open."""
        at = self._schedule.next_look(now)
        if at != self._gates_at:
            self._gates_at = at
            if at is not None:
                self._wake(at, "gates")

    def _flush(self) -> None:
        """Send on what gathered: outcomes to the store, and a claim when there is room for it."""
        self._notices.flush()
        schedule = self._schedule
        if schedule.given_back:
            self._settling += schedule.given_back
            schedule.given_back.clear()
        if self._settling:
            jobs, self._settling = self._settling, []
            self._store.tell(Settle(self._transport.name, jobs))
        if schedule.destinations.changed or schedule.throttled:
            self._notices.schedule(schedule)
        if schedule.wanted:
            schedule.wanted = False
            self._wanted = True
        if self._wanted and not self._claiming:
            # Before the look at the room: whoever makes some after it will say so.
            self._queue.backlog = True
            room = self._queue.room
            # Half a window of room is waited for while there is work, so that claims are few and large.
            if room and (not self._queue.held or room * 2 >= self._transport.limits.window):
                self._wanted = False
                self._claiming = self._store.tell(Claim(self._transport.name))

    # Couriers

    def _courier_gone(self, letter: CourierGone) -> None:
        if self._crew.gone(letter.courier, crashed=letter.crashed):
            self._context.instruments.courier_restarts.labels(self._transport.name).inc()
            self._crew.check()

    def _look(self) -> None:
        """Probe when it is time, and take jobs from couriers that hang."""
        self._gates_at = None
        if self._schedule.look(self._clock.time()):
            self._notices.announce(self._breaker)
        self._watching = False
        for job in self._crew.abandon_hung():
            self._context.instruments.courier_restarts.labels(self._transport.name).inc()
            self._ended(job)
        if self._queue.in_phase(Phase.SENDING):
            self._watch()

    def _watch(self) -> None:
        self._watching = True
        limits = self._transport.limits
        self._wake(self._clock.time() + min(30.0, (limits.attempt_timeout + limits.hang_grace) / 2), "watch")
