"""What a transport may try, when, and in which order: every gate between a job that waits and the couriers.

Plain logic over the ready jobs, the breaker, the rates, the hours, the destinations and the operators' pauses. No
thread and no letter: the transport actor tells it what happened, and does what it says.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from postroom.active_queue import ActiveQueue, Crash, Job, Outage, Phase, Result, TimedOut
from postroom.actors.aside import Aside
from postroom.actors.ready import ReadyJobs
from postroom.breaker import Breaker, Status
from postroom.destinations import Destinations, Gates
from postroom.outcomes import Deferred
from postroom.pauses import Pause
from postroom.routing import Router
from postroom.settling import expire_job
from postroom.stores.base import DestinationStanding, Settlement
from postroom.throttles import resumed
from postroom.transports.base import Transport
from postroom.untried import give_back_job, move_on_job
from postroom.verdicts import Verdict, verdict_of
from postroom.windows import DeliveryWindow, parse_window

__all__ = ["Schedule"]


class Schedule:
    """See the module's docstring. Used by one thread, the transport actor's.

    Args:
        transport: with its limits and throttle.
        active: where its jobs are, and where others read what is blocked.
        router: says where recipients go when the transport is out for long.

    Attributes:
        ready: the jobs that wait.
        destinations: where the destinations stand.
        breaker: where the transport as a whole stands.
        rate: the transport's rate, None without one.
        given_back: jobs that were settled without an attempt; whoever tells the store clears it.
        throttled: how often a gate was found closed with work before it, by gate; whoever counts it clears it.
        wanted: destinations have become free, so that there may be work for them in the spool.
    """

    def __init__(self, transport: Transport, active: ActiveQueue, router: Router) -> None:
        limits, throttle = transport.limits, transport.throttle
        self._transport = transport
        self._active = active
        self._router = router
        self.ready = ReadyJobs(rotate=limits.concurrency > 1)
        self.destinations = Destinations(transport.name, throttle, limits.concurrency)
        self.breaker = Breaker(limits.concurrency, transport.probe)
        # What an earlier incarnation has begun counts: a restart must not grant another burst.
        former = active.gates
        self.rate = resumed(former.rate, throttle.rate)
        self.destinations.resume_rates(former.destinations)
        self.given_back: list[Job] = []
        self.throttled: dict[str, int] = {}
        self.wanted = False
        self._aside = Aside(self.ready, self.destinations, active, self._settle, limits)
        self._hours = throttle.hours
        self._opens: float | None = None
        self._closes = 0.0
        self._pause: Pause | None = None
        self._plain = self.rate is None and self._hours is None
        self._moving = False
        self._fresh = False
        self.publish()

    def add(self, jobs: Iterable[Job]) -> None:
        """Let jobs wait for their turn."""
        self.ready.add(jobs)
        self._fresh = True

    # How much

    def permits(self, now: float) -> int:
        """Return how many attempts may run at once now."""
        if self._pause is not None:
            return self._closed("paused")
        if self._hours is not None and now >= self._closes and not self._open(self._hours, now):
            return self._closed("closed")
        return self.breaker.permits

    @property
    def prefetches(self) -> bool:
        """Whether jobs may be offered ahead of the couriers: not where it matters when exactly each is begun."""
        return self.rate is None and self.breaker.status is Status.UP

    def _closed(self, gate: str) -> int:
        if self.ready:
            self.throttled[gate] = self.throttled.get(gate, 0) + 1
        return 0

    def _open(self, hours: DeliveryWindow, now: float) -> bool:
        """Return whether the transport's hours permit, and remember until when that holds."""
        opens = hours.next_open(now)
        opened = opens <= now
        self._closes = hours.next_close(now) if opened else 0.0
        if self._opens != (None if opened else opens):
            self._opens = None if opened else opens
            self.publish()
        return opened

    # Which

    def take(self, now: float) -> Job | None:
        """Remove and return the next job that may be offered to the couriers; None when there is none now."""
        destinations = self.destinations
        if destinations.opened:
            self._take_up()
        if self.rate is not None and not self.rate.permits(now):
            self._closed("rate")
            return None
        while True:
            if destinations.watching:
                job = self.ready.pop(lambda name: destinations.eligible(name, now))
            else:
                job = self.ready.pop()
            if job is None:
                return None
            if job.phase is not Phase.WAITING:
                continue
            if job.expires is not None and job.expires <= now:
                self._settle(job, expire_job(job, now))
                continue
            if job.options is not None and job.options.window:
                opens = parse_window(job.options.window).next_open(now)
                if opens > now:
                    self._settle(job, give_back_job(job, opens, now))
                    continue
            return job

    def _settle(self, job: Job, settlements: Sequence[Settlement]) -> None:
        if self._active.expire(job, settlements):
            self.given_back.append(job)

    def _take_up(self) -> None:
        """Look again at what stands aside for destinations that have become free."""
        opened = self.destinations.opened
        if "*" in opened:
            self.ready.unblock_all()
        else:
            for name, free in opened.items():
                self.ready.unblock(name, free)
        opened.clear()

    # What happened

    def offered(self, job: Job, now: float) -> None:
        """Note that a job is offered to the couriers."""
        if self.rate is not None:
            self.rate.take(now)
        if self.destinations.watching:
            self.destinations.begin(job.destination, now)

    def taken_back(self, jobs: Iterable[Job]) -> None:
        """Note that jobs which were offered were not begun, and let them wait where they were."""
        jobs = list(jobs)
        for job in jobs:
            self._never_begun(job)
        self.ready.put_back(jobs)

    def void(self, job: Job) -> None:
        """Note that a job which was offered was somebody else's by then."""
        self._never_begun(job)

    def _never_begun(self, job: Job) -> None:
        if self.rate is not None:
            self.rate.give_back()
        if self.destinations.watching:
            self.destinations.give_back(job.destination)

    def ended(self, job: Job, result: Result, now: float, others: AbstractSet[Job]) -> None:
        """Learn from an attempt.

        Args:
            job: what was tried.
            result: what became of it.
            now: wall-clock seconds.
            others: the other jobs that are offered to the couriers.
        """
        destination = job.destination
        if not destination:
            return
        reason, retry_after = "", None
        if isinstance(result, TimedOut):
            verdict, reason = Verdict.TROUBLED, "no answer within the attempt timeout"
        elif isinstance(result, Outage | Crash):
            verdict = Verdict.UNKNOWN
        elif self.destinations.watching or any(type(outcome) is Deferred for outcome in result):
            verdict, reason, retry_after = verdict_of(result)
        else:
            return
        self.destinations.ended(
            destination, verdict, now, reason=reason, retry_after=retry_after,
            in_flight=lambda: sum(other.destination == destination for other in others),
        )  # fmt: skip

    def pause(self, pauses: Sequence[Pause], now: float) -> None:
        """Take these pauses for the ones there are."""
        self.destinations.pause(pauses, now)
        self._pause = self.destinations.pause_of_all(now)
        self.publish()
        self._aside.tell_blocked(now)

    def look(self, now: float) -> bool:
        """See to whatever time brings about; return whether the breaker has changed."""
        destinations = self.destinations
        expiry = destinations.next_expiry()
        if expiry is not None and expiry <= now:
            self.pause(destinations.pauses, now)
        destinations.look(now)
        return self.breaker.wake(now)

    def restore(self, standings: Iterable[DestinationStanding], now: float) -> None:
        """Take up what is on record of the destinations."""
        self.destinations.restore(standings, now)
        self.publish()
        self._aside.tell_blocked(now)

    def next_look(self, now: float) -> float | None:
        """Return when to look at the clock again for any gate but the breaker, in wall-clock seconds."""
        destinations = self.destinations
        if (
            self._plain
            and not destinations.watching
            and not destinations.pauses
            and not self.breaker.failures
        ):
            return None
        # What may be past is seen to by look(), which is what follows; the others would be asked for again and again.
        times = [destinations.next_time(), destinations.next_expiry()]
        future = [self.failover_at, self._opens]
        if self.rate is not None and self.ready:
            future.append(self.rate.earliest())
        times += [at for at in future if at is not None and at > now]
        return min((at for at in times if at is not None), default=None)

    # An outage that lasts

    @property
    def failover_at(self) -> float | None:
        """When what waits moves on to other transports, in wall-clock seconds; None while there is no outage."""
        since, after = self.breaker.down_since, self._transport.failover_after
        return None if since is None or after is None else since + after

    def failing_over(self, now: float) -> bool:
        """Return whether the outage has lasted for so long that what waits moves on."""
        at = self.failover_at
        return at is not None and now >= at and self.breaker.status in {Status.PARKED, Status.PROBING}

    def move_on(self, now: float) -> bool:
        """Hand all that waits to the next transports, as far as there are any, if the outage has lasted for so long.

        Returns whether that has just begun, so that what waits in the spool should follow.
        """
        began = not self._moving
        self._moving = self.failing_over(now)
        if not self._moving:
            return False
        if began or self._fresh:
            self._move_all(now)
        self._fresh = False
        return began

    def _move_all(self, now: float) -> None:
        staying: list[Job] = []
        for job in self.ready.drain():
            if job.phase is not Phase.WAITING:
                continue
            settlements = move_on_job(job, self._router, now)
            if settlements is None:
                staying.append(job)
            else:
                self._settle(job, settlements)
        self.ready.add(staying)

    def clear_aside(self, now: float) -> None:
        """Keep jobs that cannot go from filling the window, and tell others whom they would wait for."""
        aside = self._aside
        aside.clear(now)
        self.wanted = self.wanted or aside.opened
        aside.opened = False
        if aside.counted:
            self.throttled["destination"] = self.throttled.get("destination", 0) + aside.counted
            aside.counted = 0

    def publish(self) -> None:
        """Let ``explain`` know of the gates."""
        self._active.gates = Gates(
            self.destinations.pauses, "" if self._hours is None else str(self._hours), self._opens, self.rate,
            self.destinations.known,
        )  # fmt: skip
