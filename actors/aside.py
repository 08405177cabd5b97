"""Jobs that cannot go: how many of them stay in memory, and whose destinations claims pass over meanwhile."""

from collections.abc import Callable, Mapping, Sequence

from postroom.active_queue import ActiveQueue, Job, Phase
from postroom.actors.ready import ReadyJobs
from postroom.destinations import Destinations
from postroom.stores.base import Settlement
from postroom.transports.base import Limits
from postroom.untried import give_back_job

__all__ = ["BLOCKED_SECONDS", "KEPT_SECONDS", "Aside"]

ASIDE = 4
"""This part of the window may be jobs whose destination cannot be tried; beyond it they go back to the spool."""

CLAIMED_ASIDE = 16
"""A destination with this part of the window waiting for it is passed over by claims."""

KEPT_SECONDS = 5.0
"""What a destination that has reached its limits will have taken within so many seconds stays in memory."""

SHORTEST_PAUSE = 1.0
"""Seconds for which a job that was given back stays in the spool at least."""

BLOCKED_SECONDS = 10.0
"""When a job that was given back is due again if nobody knows when its destination can be tried."""


class Aside:
    """See the module's docstring. Used by one thread, the transport actor's.

    Args:
        ready: the jobs that wait.
        destinations: where the destinations stand.
        active: where claims read whom to pass over.
        settle: settles a job that waits without an attempt.
        limits: of the transport.

    Attributes:
        opened: destinations are not passed over any more, so that there may be work for them in the spool; whoever
            sees to that clears it.
        counted: how many jobs were found to be unable to go; whoever counts them clears it.
    """

    def __init__(
        self,
        ready: ReadyJobs,
        destinations: Destinations,
        active: ActiveQueue,
        settle: Callable[[Job, Sequence[Settlement]], None],
        limits: Limits,
    ) -> None:
        self._ready = ready
        self._destinations = destinations
        self._active = active
        self._settle = settle
        self._strict = limits.concurrency == 1
        self._aside_limit = max(1, limits.window // ASIDE)
        self._claimed_limit = max(1, limits.window // CLAIMED_ASIDE)
        self._aside_told = 0
        self.opened = False
        self.counted = 0

    def clear(self, now: float) -> None:
        """Give back what is too much, and let claims know whom to pass over, if much has changed."""
        ready, destinations = self._ready, self._destinations
        if not ready.aside and not self._aside_told and not destinations.changed:
            return
        if ready.aside > self._aside_limit:
            self._give_back_aside(now)
        elif (
            not destinations.changed
            and abs(ready.aside - self._aside_told) < self._claimed_limit
            and ready.aside
        ):
            return
        if ready.aside > self._aside_told:
            self.counted += ready.aside - self._aside_told
        self.tell_blocked(now)

    def _give_back_aside(self, now: float) -> None:
        """Give back half of what stands aside, of those destinations first that have most."""
        excess = self._ready.aside - self._aside_limit // 2
        shelved: Mapping[str, int] = self._ready.shelved
        for name in sorted(shelved, key=lambda name: -shelved[name]):
            if excess <= 0:
                return
            if self._destinations.reachable(name, now):
                excess -= self._give_back_slow(name, shelved[name], excess, now)
                continue
            until = self._destinations.blocked_until(name, now)
            # Never at once: store and transport would hand them to and fro until the gate is looked at.
            due = now + BLOCKED_SECONDS if until is None else max(until, now + SHORTEST_PAUSE)
            for job in self._ready.withdraw(name, excess):
                excess -= 1
                self._give_back(job, due, now)

    def _give_back_slow(self, name: str, number: int, most: int, now: float) -> int:
        """Give back what a destination within its limits will not take soon; returns how many jobs.

        Each is due about when its turn will come, so that it is not claimed and given back again and again.
        """
        standing = self._destinations.known.get(name)
        if standing is None or not standing.pace:
            return 0
        surplus = number - max(self._claimed_limit, int(KEPT_SECONDS / standing.pace))
        jobs = self._ready.withdraw(name, min(most, surplus)) if surplus > 0 else []
        for job in reversed(jobs):
            # Rather too early than too late: it may become quicker.
            standing.booked = max(standing.booked, now + KEPT_SECONDS) + standing.pace / 2
            self._give_back(job, standing.booked, now)
        return len(jobs)

    def _give_back(self, job: Job, due: float, now: float) -> None:
        if job.phase is Phase.WAITING:
            self._settle(job, give_back_job(job, due, now))

    def tell_blocked(self, now: float) -> None:
        """Let claims know whom to pass over."""
        self._aside_told = self._ready.aside
        many = [
            name
            for name, number in self._ready.shelved.items()
            # Where the order counts, only what cannot be tried at all is passed over.
            if (number >= self._claimed_limit and not self._strict)
            or not self._destinations.reachable(name, now)
        ]
        blocked = frozenset((*self._destinations.down(), *many))
        if blocked != self._active.blocked:
            self.opened = self.opened or not blocked.issuperset(self._active.blocked)
            self._active.blocked = blocked
