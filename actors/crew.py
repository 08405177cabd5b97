"""The couriers of one incarnation of a transport actor: how many there are, and whether one crashes or hangs."""

import logging

from postroom.active_queue import Job, Phase
from postroom.actors.courier import Courier, CourierPool, Errand
from postroom.breaker import consecutive_wait, default_probe_wait
from postroom.errors import PostroomError
from postroom.supervision import Intensity

__all__ = ["CourierFailuresError", "Crew"]

log = logging.getLogger("postroom.transport")

CRASHES_PER_PERIOD = (10, 60.0)
"""Courier crashes within so many seconds after which the actor itself gives up and is restarted."""

PREFETCH_SECONDS = 0.02
"""How much work is offered to the couriers ahead while the transport is up, so that none of them waits for the actor
between two jobs: many jobs where attempts are quick, one where they are slow, so that urgent ones need not queue."""

PREFETCH_START = 16
PREFETCH_MOST = 256
MEMORY = 0.05
"""Weight of the latest attempt in the mean time of an attempt."""

PREFETCH_JOURNALLED = 2
"""The same where attempts are journalled before: what is offered when the process dies is held afterwards."""


class CourierFailuresError(PostroomError):
    """Couriers crash too often: the transport is beyond what replacing couriers can mend."""


class Crew:
    """See the module's docstring. Used by the transport actor's thread.

    Args:
        errand: what each courier is given.
        journals: attempts are journalled before, so that little is offered ahead.

    Attributes:
        pool: the couriers.
        outstanding: jobs that are offered to them and have not ended.
        spawn_after: wall-clock seconds before which no courier replaces one that crashed.
    """

    def __init__(self, errand: Errand, *, journals: bool) -> None:
        self._errand = errand
        self._prefetch_most = PREFETCH_JOURNALLED if journals else PREFETCH_MOST
        self._mean_attempt = PREFETCH_SECONDS / PREFETCH_START
        self._crashes = Intensity(*CRASHES_PER_PERIOD)
        self._crash_times: list[float] = []
        self._lowest = 1
        self.pool = CourierPool(errand)
        self.outstanding: set[Job] = set()
        self.spawn_after = 0.0

    # Jobs

    @property
    def lowest(self) -> int:
        """The lowest priority of what is offered to the couriers; 1 when nothing is."""
        if not self.outstanding:
            self._lowest = 1
        return self._lowest

    def offer(self, job: Job) -> None:
        """Offer a job to whichever courier is free first."""
        self._lowest = min(self.lowest, job.priority)
        self.pool.put(job)
        self.outstanding.add(job)

    def take_back(self) -> list[Job]:
        """Take back what was offered and no courier has begun."""
        back = self.pool.take_back()
        self.outstanding.difference_update(back)
        self._lowest = min((job.priority for job in self.outstanding), default=1)
        return back

    def ended(self, duration: float) -> None:
        """Note how long an attempt took, in seconds."""
        self._mean_attempt += MEMORY * (duration - self._mean_attempt)

    @property
    def prefetch(self) -> int:
        """How many jobs to offer per courier."""
        return min(self._prefetch_most, 1 + int(PREFETCH_SECONDS / max(1e-6, self._mean_attempt)))

    # Couriers

    def spawn(self, wanted: int, now: float) -> bool:
        """Add couriers until there are ``wanted``; False when that must wait until ``spawn_after``."""
        if len(self.pool) < wanted and now < self.spawn_after:
            return False
        while len(self.pool) < wanted and self.pool.spawn():
            pass
        return True

    def gone(self, courier: object, *, crashed: bool) -> bool:
        """Note that a courier's thread ends; returns whether it was one of ours that crashed."""
        if not self.pool.remove(courier) or not crashed:
            return False
        clock = self._errand.clock
        now = clock.monotonic()
        self._crash_times = [*self._crashes.within(self._crash_times, now), now]
        self.spawn_after = clock.time() + min(
            30.0, consecutive_wait(default_probe_wait(), len(self._crash_times)) / 8
        )
        return True

    def check(self) -> None:
        """Give up when there is no mending it.

        Raises:
            CourierFailuresError: too many couriers have crashed in a short time.
        """
        if self._crashes.exceeded(self._crash_times, self._errand.clock.monotonic()):
            raise CourierFailuresError(
                f"{len(self._crash_times)} couriers of {self._errand.transport.name} crashed in a short time"
            )

    def abandon_hung(self) -> list[Job]:
        """Give up on couriers that hang, and return the jobs they had."""
        clock, queue, limits = self._errand.clock, self._errand.jobs, self._errand.transport.limits
        deadline = clock.monotonic() - limits.attempt_timeout - limits.hang_grace
        taken: list[Job] = []
        for job in queue.in_phase(Phase.SENDING):
            courier = job.holder
            if (
                not isinstance(courier, Courier)
                or courier.busy_since is None
                or courier.busy_since > deadline
            ):
                continue
            if queue.abandon(job, clock.time()):
                log.error("%s hangs and is replaced", courier.name)
                courier.abandon()
                self.pool.remove(courier)
                taken.append(job)
        return taken
