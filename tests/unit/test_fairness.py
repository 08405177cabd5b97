"""A transport in virtual time: who waits for whom, with the very parts that decide it in a running spooler."""

import heapq
from collections import Counter, deque
from itertools import count

import pytest
from tenacity import wait_fixed

from postroom.active_queue import ActiveQueue, Job
from postroom.actors.schedule import Schedule
from postroom.addresses import Address
from postroom.clock import ManualClock
from postroom.delivery import Target
from postroom.outcomes import Deferred, Delivered, Outcome, Reply
from postroom.recipients import State
from postroom.routing import Route, Router
from postroom.throttles import DestinationLimits, Throttle
from postroom.transports.base import Limits
from postroom.transports.memory import MemoryTransport

ATTEMPT = 0.01
"""Seconds that an attempt takes."""

PREFETCH = 3
"""Jobs offered per courier when attempts take so long, as postroom.actors.crew works it out."""

HANDFUL = 5


class Simulation:
    """Couriers that take ``ATTEMPT`` seconds each, a spool in the order of submission, and a window between them."""

    def __init__(self, *, concurrency: int = 4, window: int = 2000, throttle: Throttle | None = None) -> None:
        self.clock = ManualClock()
        self.concurrency = concurrency
        self.window = window
        transport = MemoryTransport(
            limits=Limits(concurrency=concurrency, window=window),
            throttle=throttle or Throttle(),
            probe=wait_fixed(5),
        )
        self.queue = ActiveQueue(window, 1 << 30, strict=concurrency == 1)
        self.schedule = Schedule(transport, self.queue, Router([Route("memory", frozenset({"memory"}))]))
        self.spool: deque[Job] = deque()
        self.later: list[tuple[float, int, Job]] = []
        self.offered: deque[Job] = deque()
        self.under_way: list[tuple[float, int, Job]] = []
        self.begun: list[Job] = []
        self.numbers = count()
        self.dead: frozenset[str] = frozenset()

    @property
    def now(self) -> float:
        return self.clock.time()

    def submit(
        self, number: int, tenant: str = "", *, priority: int = 0, destination: str = "", recipients: int = 1
    ) -> list[Job]:
        """Accept messages: into memory where there is room, else into the spool."""
        jobs = [
            Job(
                key=next(self.numbers), transport="memory", epoch=0, sender="", content=b"", size=0, created=self.now,
                targets=tuple(Target(n, Address("memory", "x")) for n in range(recipients)), due=self.now,
                recipient_count=recipients, priority=priority, tenant=tenant, destination=destination,
            )
            for _ in range(number)
        ]  # fmt: skip
        for job in jobs:
            if destination not in self.queue.blocked and self.queue.reserve(recipients, tenant):
                self.schedule.add(self.queue.admit([job]))
            else:
                self.spool.append(job)
        return jobs

    def _claim(self) -> None:
        """As the store does, though in plain order: its own fairness is tested with it."""
        room = self.queue.room
        if room * 2 < self.window:
            return
        while self.later and self.later[0][0] <= self.now:
            self.spool.append(heapq.heappop(self.later)[2])
        left: list[Job] = []
        claimed: list[Job] = []
        while self.spool and room > 0:
            job = self.spool.popleft()
            if job.destination in self.queue.blocked:
                left.append(job)
                continue
            room -= len(job.targets)
            self.queue.take(len(job.targets), job.tenant)
            claimed.append(job)
        self.spool.extendleft(reversed(left))
        self.schedule.add(self.queue.admit(claimed))

    def _offer(self) -> None:
        schedule = self.schedule
        permits = schedule.permits(self.now)
        most = permits * PREFETCH if schedule.prefetches else permits
        while len(self.offered) + len(self.under_way) < most and (job := schedule.take(self.now)) is not None:
            schedule.offered(job, self.now)
            self.offered.append(job)
        while self.offered and len(self.under_way) < self.concurrency:
            job = self.offered.popleft()
            self.queue.begin(job, "courier", self.now)
            self.begun.append(job)
            heapq.heappush(self.under_way, (self.now + ATTEMPT, job.key, job))

    def step(self) -> None:
        """Go on to the next thing that happens."""
        self._claim()
        self._offer()
        self.schedule.clear_aside(self.now)
        given_back = bool(self.schedule.given_back)
        for job in self.schedule.given_back:
            due = job.settlements[0].due
            assert due is not None
            assert job.settlements[0].state is State.QUEUED
            self.queue.settled([job])
            back = self._copy(job)
            heapq.heappush(self.later, (due, back.key, back))
        self.schedule.given_back.clear()
        if given_back:
            # There is room now.
            return
        times = [heap[0][0] for heap in (self.under_way, self.later) if heap]
        at = self.schedule.next_look(self.now)
        times += [] if at is None else [at]
        assert times, "nothing will ever happen any more"
        self.clock.advance(max(0.0, min(times) - self.now))
        self.schedule.look(self.now)
        while self.under_way and self.under_way[0][0] <= self.now:
            self._end(heapq.heappop(self.under_way)[2])

    @staticmethod
    def _copy(job: Job) -> Job:
        return Job(
            key=job.key, transport="memory", epoch=0, sender="", content=b"", size=0, created=job.created,
            targets=job.targets, due=job.due, recipient_count=job.recipient_count, priority=job.priority,
            tenant=job.tenant, destination=job.destination,
        )  # fmt: skip

    def _end(self, job: Job) -> None:
        outcome: Outcome = Delivered()
        if job.destination in self.dead:
            outcome = Deferred(Reply("refused", "4.4.1"), destination_down=True)
        others = {*self.offered, *(each for _, _, each in self.under_way)}
        self.schedule.ended(job, [outcome], self.now, others)
        self.queue.end(job, "courier", [outcome], self.now)
        self.queue.settling(job, [])
        self.queue.settled([job])

    def run_until_begun(self, job: Job) -> int:
        """Go on until a job is begun; returns how many others were begun meanwhile."""
        before = len(self.begun)
        while not any(each.key == job.key for each in self.begun[before:]):
            self.step()
        return next(n for n, each in enumerate(self.begun[before:]) if each.key == job.key)


def test_a_backlog_of_100_000_does_not_delay_somebody_elses_single_message() -> None:
    simulation = Simulation()
    simulation.submit(100_000, "a")
    for _ in range(50):
        for _ in range(25):
            simulation.step()
        (single,) = simulation.submit(1, "b")
        # What the couriers were offered ahead goes before: a fiftieth of a second's work.
        assert simulation.run_until_begun(single) <= 4 * PREFETCH + HANDFUL
    assert Counter(job.tenant for job in simulation.begun)["a"] > 2000


def test_also_when_each_of_the_backlog_has_many_recipients() -> None:
    simulation = Simulation(window=10_000)
    simulation.submit(1000, "a", recipients=100)
    for _ in range(10):
        simulation.step()
    (single,) = simulation.submit(1, "b")
    assert simulation.run_until_begun(single) <= 4 * PREFETCH + HANDFUL


def test_tenants_with_a_backlog_get_equal_shares() -> None:
    simulation = Simulation(window=300)
    for tenant in ("a", "b", "c"):
        simulation.submit(100, tenant)
    while len(simulation.begun) < 240:
        simulation.step()
    shares = Counter(job.tenant for job in simulation.begun[:240])
    assert max(shares.values()) - min(shares.values()) <= 1


def test_an_endless_stream_of_urgent_ones_does_not_starve_the_others() -> None:
    simulation = Simulation()
    simulation.submit(100, priority=1)
    normal = simulation.submit(3, priority=0)
    lazy = simulation.submit(1, priority=-1)
    while not {job.key for job in (*normal, *lazy)} <= {job.key for job in simulation.begun}:
        # More than the couriers can do.
        if simulation.queue.held < 1000:
            simulation.submit(8, priority=1)
        simulation.step()
        assert len(simulation.begun) < 1000
    assert Counter(job.priority for job in simulation.begun)[1] > 200


def test_an_urgent_one_goes_before_a_backlog() -> None:
    simulation = Simulation()
    simulation.submit(100_000, priority=-1, tenant="a")
    for _ in range(10):
        simulation.step()
    (urgent,) = simulation.submit(1, priority=1, tenant="b")
    assert simulation.run_until_begun(urgent) <= 4 * PREFETCH


@pytest.mark.parametrize(
    "throttle", [Throttle(), Throttle(destination=DestinationLimits(probe=wait_fixed(60)))]
)
def test_a_dead_destination_does_not_delay_the_others(throttle: Throttle) -> None:
    simulation = Simulation(window=400, throttle=throttle)
    simulation.dead = frozenset({"dead.example"})
    # All of one tenant, so that it is the destinations that are kept apart.
    simulation.submit(10_000, destination="dead.example")
    simulation.submit(2000, destination="live.example")
    started = simulation.now
    live = 0
    while live < 2000:
        simulation.step()
        live = sum(job.destination == "live.example" for job in simulation.begun)
    attempts = Counter(job.destination for job in simulation.begun)
    # A few before the first of them came back, then a canary now and then; those who wait were not charged.
    assert attempts["dead.example"] <= 4 * PREFETCH + HANDFUL
    assert simulation.now - started <= 1.2 * 2000 * ATTEMPT / 4
    # And what comes for others later finds room at once, though thousands wait.
    (single,) = simulation.submit(1, destination="other.example")
    assert simulation.run_until_begun(single) <= HANDFUL


def test_a_slow_destination_takes_no_more_couriers_than_it_may() -> None:
    simulation = Simulation(
        window=400, throttle=Throttle(destination=DestinationLimits(concurrency=1, initial=1))
    )
    simulation.submit(5000, destination="slow.example")
    for n in range(900):
        simulation.submit(1, destination=f"{n}.example")
    started = simulation.now
    while Counter(job.destination for job in simulation.begun)["slow.example"] < 600:
        simulation.step()
    # One courier of four was its, the others did the rest meanwhile.
    assert simulation.now - started <= 1.5 * 600 * ATTEMPT
    assert len(simulation.begun) == 600 + 900


def test_when_a_dead_destination_comes_back_it_gets_all_that_waited() -> None:
    simulation = Simulation(window=400)
    simulation.dead = frozenset({"dead.example"})
    jobs = simulation.submit(1000, destination="dead.example")
    while not simulation.queue.blocked:
        simulation.step()
    simulation.dead = frozenset()
    charged = len(simulation.begun)
    while len({job.key for job in simulation.begun}) < len(jobs):
        simulation.step()
    assert len(simulation.begun) <= len(jobs) + charged
