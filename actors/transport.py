"""The transport actor, one per transport: keeps the window filled, the couriers busy and the breaker; never waits."""

import logging
from types import TracebackType

from postroom.active_queue import Crash, Job, Outage, Phase, TimedOut
from postroom.actors.context import Context
from postroom.actors.courier import Courier, CourierPool, Errand
from postroom.actors.protocol import (
    Claim,
    Claimed,
    CourierGone,
    Due,
    Ended,
    Happened,
    Journal,
    Journalled,
    Look,
    Reclaim,
    Reclaimed,
    Room,
    Settle,
    Stand,
    Work,
)
from postroom.actors.ready import ReadyJobs
from postroom.actors.timer import wake
from postroom.breaker import Breaker, Status, consecutive_wait, default_probe_wait
from postroom.errors import InternalError, PostroomError
from postroom.events import TransportChanged
from postroom.settling import expire_job, settle_job
from postroom.stores.base import Settlement, Standing
from postroom.supervision import Intensity, MailboxActor

__all__ = ["CourierFailuresError", "TransportActor"]

log = logging.getLogger("postroom.transport")

PREFETCH_SECONDS = 0.02
"""How much work is offered to the couriers ahead while the transport is up, so that none of them waits for the actor
between two jobs: many jobs where attempts are quick, one where they are slow, so that urgent ones need not queue."""

PREFETCH_START = 16
PREFETCH_MOST = 256
MEMORY = 0.05
"""Weight of the latest attempt in the mean time of an attempt."""

PREFETCH_JOURNALLED = 2
"""The same where attempts are journalled before: what is offered when the process dies is held afterwards."""

ATTACH_SECONDS = 10.0
"""How long a new incarnation waits until the supervisor leads its handle to it."""

CRASHES_PER_PERIOD = (10, 60.0)
"""Courier crashes within so many seconds after which the actor itself gives up and is restarted."""


class CourierFailuresError(PostroomError):
    """Couriers crash too often: the transport is beyond what replacing couriers can mend."""


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
        self._ready = ReadyJobs()
        self._settling: list[Job] = []
        self._outstanding: set[Job] = set()
        self._lowest = 0
        self._journalling = False
        self._journals = self._transport.in_doubt == "hold"
        self._next_due: float | None = None
        self._claiming = False
        self._wanted = False
        self._breaker = Breaker(self._transport.limits.concurrency, self._transport.probe)
        self._crashes = Intensity(*CRASHES_PER_PERIOD)
        self._crash_times: list[float] = []
        self._spawn_after = 0.0
        self._watching = False
        labels = context.instruments
        self._attempt_seconds = labels.attempt_seconds.labels(transport)
        self._wait_seconds = labels.queue_wait_seconds.labels(transport)
        self._durations: list[float] = []
        self._waits: list[float] = []
        self._mean_attempt = PREFETCH_SECONDS / PREFETCH_START
        self._pool = CourierPool(
            Errand(
                transport=self._transport, jobs=self._queue, load=context.reader.content, tell=self._me.tell,
                clock=context.clock,
            )
        )  # fmt: skip

    # Life

    def on_start(self) -> None:
        """Take up what the last incarnation left: outcomes are settled, what waited goes back to the spool first."""
        self._transport.prepare()
        # The store and the timer answer to the handle, which the supervisor sets when start() has returned.
        if not self._me.wait_for(self.actor_ref, ATTACH_SECONDS):
            raise InternalError(f"{self.name} was not given its place")
        former = self._context.pools.get(self._transport.name)
        if former is not None:
            former.retire()
        self._context.pools[self._transport.name] = self._pool
        self._breaker.since = self._clock.time()
        self._claiming = True
        self._store.tell(Reclaim(self._transport.name))
        unconfirmed = self._queue.in_phase(Phase.SETTLING)
        if unconfirmed:
            self._store.tell(Settle(self._transport.name, unconfirmed))
        for job in self._queue.in_phase(Phase.ENDED):
            self._ended(job)
        self._announce()
        self._flush()
        self._watch()

    def on_stop(self) -> None:
        """Let the couriers end; what they have in hand is settled by whoever comes next."""
        self._flush()
        self._pool.retire()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the couriers end, and say where the transport stands."""
        del traceback
        self._pool.retire()
        reason = f"{exception_type.__name__ if exception_type else 'failure'}: {exception_value}"
        self._publish(Standing(self._transport.name, "restarting", reason, self._clock.time()))

    # Letters

    def on_letters(self, letters: list[object]) -> None:  # noqa: C901 - one branch per kind of letter
        """Handle a batch, then do once what follows from all of it."""
        for letter in letters:
            if isinstance(letter, Ended):
                self._outstanding.discard(letter.job)
                self._ended(letter.job)
            elif isinstance(letter, Work):
                self._ready.add(self._queue.admit(letter.jobs))
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
        self._dispatch()
        self._flush()

    def _claimed(self, letter: Claimed) -> None:
        self._claiming = False
        self._wanted = self._wanted or letter.more
        self._ready.add(self._queue.admit(letter.jobs))
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

    # Results

    def _ended(self, job: Job) -> None:
        result = job.result
        if job.phase is not Phase.ENDED or result is None:
            return
        now = self._clock.time()
        if isinstance(result, Outage):
            self._queue.wait_again(job)
            self._outage(result, now)
            self._ready.put_back([job])
            return
        duration = max(0.0, job.ended - job.started)
        self._mean_attempt += MEMORY * (duration - self._mean_attempt)
        self._durations.append(duration)
        self._waits.append(max(0.0, job.started - job.due))
        if isinstance(result, TimedOut):
            if self._breaker.status is not Status.UP and self._breaker.down(
                now, "no answer within the attempt timeout"
            ):
                self._announce()
        elif not isinstance(result, Crash):
            self._queue.last_progress = now
            if self._breaker.answered(now):
                self._announce()
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
            self._announce()

    # Work

    def _dispatch(self) -> None:
        permits = self._breaker.permits
        most = permits * self._prefetch() if self._breaker.status is Status.UP else permits
        now = self._clock.time()
        if not self._outstanding:
            self._lowest = 1
        elif (top := self._ready.top) is not None and top > self._lowest:
            # What is offered to the couriers already must not go before what is more urgent.
            self._take_back()
        to_journal = self._offer(most, now)
        if to_journal:
            self._journalling = self._store.tell(Journal(self._transport.name, to_journal))
        self._spawn(min(permits, len(self._outstanding)), now)
        if self._outstanding and not self._watching:
            self._watch()

    def _offer(self, most: int, now: float) -> list[Job]:
        """Offer the couriers jobs until they have ``most``; returns those that must be journalled before."""
        ready = self._ready
        to_journal: list[Job] = []
        while ready and len(self._outstanding) + len(to_journal) < most:
            job = ready.pop()
            if job.phase is not Phase.WAITING:
                continue
            if job.expires is not None and job.expires <= now:
                if self._queue.expire(job, expire_job(job, now)):
                    self._settling.append(job)
            elif not self._journals or job.journalled:
                self._lowest = min(self._lowest, job.priority)
                self._pool.put(job)
                self._outstanding.add(job)
            elif self._journalling:
                ready.put_back([job])
                break
            else:
                to_journal.append(job)
        return to_journal

    def _take_back(self) -> None:
        """Take back what was offered to the couriers and none of them has begun."""
        back = self._pool.take_back()
        self._outstanding.difference_update(back)
        self._ready.put_back(back)
        self._lowest = min((job.priority for job in self._outstanding), default=1)

    def _prefetch(self) -> int:
        """Return how many jobs to offer per courier."""
        most = PREFETCH_JOURNALLED if self._journals else PREFETCH_MOST
        return min(most, 1 + int(PREFETCH_SECONDS / max(1e-6, self._mean_attempt)))

    def _spawn(self, wanted: int, now: float) -> None:
        if len(self._pool) < wanted and now < self._spawn_after:
            self._wake(self._spawn_after, "spawn")
            return
        while len(self._pool) < wanted and self._pool.spawn():
            pass

    def _flush(self) -> None:
        """Send on what gathered: outcomes to the store, and a claim when there is room for it."""
        if self._durations:
            self._attempt_seconds.observe_many(self._durations)
            self._wait_seconds.observe_many(self._waits)
            self._durations, self._waits = [], []
        if self._settling:
            jobs, self._settling = self._settling, []
            self._store.tell(Settle(self._transport.name, jobs))
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
        if not self._pool.remove(letter.courier) or not letter.crashed:
            return
        self._context.instruments.courier_restarts.labels(self._transport.name).inc()
        now = self._clock.monotonic()
        self._crash_times = [*self._crashes.within(self._crash_times, now), now]
        self._spawn_after = self._clock.time() + min(
            30.0, consecutive_wait(default_probe_wait(), len(self._crash_times)) / 8
        )
        if self._crashes.exceeded(self._crash_times, now):
            raise CourierFailuresError(
                f"{len(self._crash_times)} couriers of {self._transport.name} crashed in a short time"
            )

    def _look(self) -> None:
        """Probe when it is time, and take jobs from couriers that hang."""
        now = self._clock.time()
        if self._breaker.wake(now):
            self._announce()
        self._watching = False
        limits = self._transport.limits
        deadline = self._clock.monotonic() - limits.attempt_timeout - limits.hang_grace
        for job in self._queue.in_phase(Phase.SENDING):
            courier = job.holder
            if (
                not isinstance(courier, Courier)
                or courier.busy_since is None
                or courier.busy_since > deadline
            ):
                continue
            if self._queue.abandon(job, now):
                log.error("%s hangs and is replaced", courier.name)
                courier.abandon()
                self._context.instruments.courier_restarts.labels(self._transport.name).inc()
                self._pool.remove(courier)
                self._outstanding.discard(job)
                self._ended(job)
        if self._queue.in_phase(Phase.SENDING):
            self._watch()

    def _watch(self) -> None:
        self._watching = True
        limits = self._transport.limits
        self._wake(self._clock.time() + min(30.0, (limits.attempt_timeout + limits.hang_grace) / 2), "watch")

    # Standing

    def _announce(self) -> None:
        breaker = self._breaker
        self._publish(
            Standing(self._transport.name, breaker.status, breaker.reason, breaker.since, breaker.until)
        )
        if breaker.until is not None:
            self._wake(breaker.until, "probe")

    def _publish(self, standing: Standing) -> None:
        context = self._context
        before = context.standings.get(standing.transport)
        context.standings[standing.transport] = standing
        if before is not None and before.status == standing.status:
            return
        self._store.tell(Stand(standing))
        if context.audience.any and before is not None:
            event = TransportChanged(
                self._clock.time(), standing.transport, standing.status, standing.reason, standing.until
            )
            context.handles.notifier.tell(Happened(events=(event,)))
