from collections.abc import Sequence

import pytest
from tenacity import wait_fixed

from postroom.active_queue import ActiveQueue, Crash, Job, Outage, Phase, Result, TimedOut
from postroom.actors.aside import KEPT_SECONDS
from postroom.actors.schedule import Schedule
from postroom.addresses import Address
from postroom.breaker import Status
from postroom.clock import ManualClock
from postroom.delivery import Target
from postroom.options import MessageOptions
from postroom.outcomes import Deferred, Delivered, Outcome, Reply
from postroom.pauses import Pause
from postroom.recipients import State
from postroom.routing import Route, Router
from postroom.stores.base import DestinationStanding, Settlement
from postroom.throttles import DestinationLimits, Rate, Throttle
from postroom.transports.base import Limits
from postroom.transports.memory import MemoryTransport
from postroom.windows import parse_window

WINDOW = 64
ROUTER = Router([Route("memory", frozenset({"memory", "sms"})), Route("backup", frozenset({"memory"}))])
DOWN = Deferred(Reply("refused", "4.4.1"), destination_down=True)


class Bench:
    """A schedule with its queue and a clock that stands still."""

    def __init__(
        self, throttle: Throttle | None = None, *, concurrency: int = 4, failover: float | None = None
    ) -> None:
        self.clock = ManualClock()
        limits = Limits(concurrency=concurrency, window=WINDOW)
        transport = MemoryTransport(
            limits=limits, throttle=throttle or Throttle(), failover_after=failover, probe=wait_fixed(5)
        )
        self.queue = ActiveQueue(WINDOW, 1 << 20, strict=concurrency == 1)
        self.schedule = Schedule(transport, self.queue, ROUTER)
        self.under_way: set[Job] = set()
        self.made = 0

    @property
    def now(self) -> float:
        return self.clock.time()

    def add(
        self, *destinations: str, kind: str = "memory", window: str = "", expires: float | None = None
    ) -> list[Job]:
        jobs: list[Job] = []
        for destination in destinations:
            self.made += 1
            jobs.append(
                Job(
                    key=self.made, transport="memory", epoch=0, sender="", content=b"", size=0, created=self.now,
                    targets=(Target(0, Address(kind, f"x@{destination}")),), due=self.now, recipient_count=1,
                    destination=destination, expires=expires, options=MessageOptions(window=window) if window else None,
                )
            )  # fmt: skip
        self.queue.take(len(jobs))
        self.schedule.add(self.queue.admit(jobs))
        return jobs

    def take(self) -> Job | None:
        job = self.schedule.take(self.now)
        if job is not None:
            self.schedule.offered(job, self.now)
            self.under_way.add(job)
        return job

    def take_all(self) -> list[Job]:
        taken: list[Job] = []
        while len(self.under_way) < self.schedule.permits(self.now) and (job := self.take()) is not None:
            taken.append(job)
        return taken

    def end(self, job: Job, result: Result | Outcome) -> None:
        self.under_way.discard(job)
        values: Result = [result] if isinstance(result, Outcome) else result
        self.schedule.ended(job, values, self.now, self.under_way)

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.schedule.look(self.now)

    def settlements(self) -> Sequence[Settlement]:
        found = [settlement for job in self.schedule.given_back for settlement in job.settlements]
        self.schedule.given_back.clear()
        return found


def test_the_plain_case_asks_for_nothing() -> None:
    bench = Bench()
    jobs = bench.add("a", "b", "")
    assert [bench.take() for _ in range(4)] == [*jobs, None]
    for job in jobs:
        bench.end(job, Delivered())
    assert bench.schedule.prefetches
    assert bench.schedule.next_look(bench.now) is None
    assert bench.schedule.throttled == {}
    assert not bench.schedule.destinations.watching


def test_a_rate_spaces_the_attempts() -> None:
    bench = Bench(Throttle(rate=Rate(1, 10, 2)))
    jobs = bench.add("a", "b", "c")
    assert bench.take_all() == jobs[:2]
    assert not bench.schedule.prefetches
    assert bench.schedule.next_look(bench.now) == bench.now + 10
    assert bench.schedule.throttled == {"rate": 1}
    assert bench.queue.gates.gate_of("c", bench.now) == ("rate", bench.now + 10, "1/10s burst 2")
    bench.later(10)
    assert bench.take() is jobs[2]
    assert bench.schedule.next_look(bench.now) is None


def test_what_was_not_begun_uses_up_no_rate() -> None:
    bench = Bench(Throttle(rate=Rate(1, 10, 2), destination=DestinationLimits(concurrency=2, initial=2)))
    jobs = bench.add("a", "a", "a")
    assert bench.take_all() == jobs[:2]
    bench.schedule.taken_back(jobs[:2])
    bench.under_way.clear()
    assert bench.take_all() == jobs[:2]
    bench.schedule.void(jobs[0])
    assert bench.take() is jobs[2]


def test_hours() -> None:
    bench = Bench(Throttle(hours=parse_window("09:00-17:00")))
    (job,) = bench.add("a")
    # 2023-11-14 22:13:20 UTC.
    assert bench.take_all() == []
    opens = bench.now + 10 * 3600 + 46 * 60 + 40
    assert bench.schedule.next_look(bench.now) == opens
    assert bench.queue.gates.gate_of("a", bench.now) == ("closed", opens, "Mo-Su 09:00-17:00 UTC")
    assert bench.schedule.throttled == {"closed": 1}
    bench.later(opens - bench.now)
    assert bench.take_all() == [job]
    assert bench.queue.gates.gate_of("a", bench.now) is None
    bench.later(8 * 3600)
    assert bench.schedule.permits(bench.now) == 0


def test_a_messages_window() -> None:
    bench = Bench()
    late, soon, now = (
        bench.add("a", window="09:00-17:00")[0],
        bench.add("a", window="09:00-17:00", expires=bench.now + 60)[0],
        bench.add("a", window="22:00-23:00")[0],
    )
    assert bench.take() is now
    first, second = bench.settlements()
    assert (first.key, first.state, first.outcome, first.attempts) == (late.key, State.QUEUED, "", 0)
    assert first.due == bench.now + 10 * 3600 + 46 * 60 + 40
    assert (second.key, second.due) == (soon.key, bench.now + 60)
    assert late.phase is Phase.SETTLING


def test_what_expired_meanwhile() -> None:
    bench = Bench()
    bench.add("a", expires=bench.now)
    assert bench.take() is None
    assert [settlement.state for settlement in bench.settlements()] == [State.EXPIRED]


def test_pauses_of_the_transport_end_by_themselves() -> None:
    bench = Bench()
    (job,) = bench.add("a")
    bench.schedule.pause([Pause("order 1", None, bench.now + 60)], bench.now)
    assert bench.take_all() == []
    assert bench.queue.gates.gate_of("a", bench.now) == ("paused", bench.now + 60, "order 1")
    assert bench.schedule.next_look(bench.now) == bench.now + 60
    bench.later(60)
    assert bench.take_all() == [job]
    assert bench.schedule.throttled == {"paused": 1}


def test_a_gate_that_would_open_behind_another_wakes_nobody() -> None:
    bench = Bench(Throttle(hours=parse_window("09:00-17:00"), rate=Rate(1, 10)))
    bench.add("a")
    assert bench.take_all() == []
    bench.schedule.pause([Pause("order 1")], bench.now)
    opens = bench.schedule.next_look(bench.now)
    assert opens is not None
    bench.later(opens - bench.now)
    assert bench.take_all() == []
    assert bench.schedule.next_look(bench.now) is None


def test_pauses_of_a_destination_leave_the_others_alone() -> None:
    bench = Bench()
    first, second = bench.add("a", "b")
    bench.schedule.pause([Pause("order 1", "a")], bench.now)
    assert bench.take_all() == [second]
    bench.schedule.clear_aside(bench.now)
    bench.schedule.pause([], bench.now)
    assert bench.take_all() == [first]


def test_a_dead_destination_steps_aside_and_is_passed_over_by_claims() -> None:
    bench = Bench()
    jobs = bench.add("dead", "dead", "live", "dead")
    assert bench.take() is jobs[0]
    bench.end(jobs[0], DOWN)
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == {"dead"}
    assert bench.take_all() == [jobs[2]]
    bench.schedule.clear_aside(bench.now)
    assert bench.schedule.destinations.changed["dead"].status == "parked"
    at = bench.schedule.next_look(bench.now)
    assert at is not None
    bench.later(at - bench.now)
    # One canary, and no more are claimed meanwhile.
    assert bench.take_all() == [jobs[1]]
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == {"dead"}
    assert not bench.schedule.wanted
    bench.end(jobs[1], Delivered())
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == frozenset()
    assert bench.schedule.wanted
    assert bench.take_all() == [jobs[3]]


def test_a_canary_is_claimed_where_there_is_none() -> None:
    bench = Bench()
    (job,) = bench.add("dead")
    bench.take()
    bench.end(job, DOWN)
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == {"dead"}
    at = bench.schedule.next_look(bench.now)
    assert at is not None
    bench.later(at - bench.now)
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == frozenset()
    assert bench.schedule.wanted


def test_a_standing_is_taken_up_at_the_start() -> None:
    bench = Bench()
    saved = DestinationStanding("memory", "dead", "parked", "refused", 0.0, bench.now + 9, 3)
    bench.schedule.restore([saved], bench.now)
    assert bench.queue.blocked == {"dead"}
    jobs = bench.add("dead", "live")
    assert bench.take_all() == [jobs[1]]
    assert bench.queue.gates.gate_of("dead", bench.now) == ("destination_parked", bench.now + 9, "refused")


def test_what_steps_aside_does_not_fill_the_window() -> None:
    bench = Bench()
    (canary,) = bench.add("dead")
    bench.take()
    bench.end(canary, DOWN)
    until = bench.schedule.destinations.blocked_until("dead", bench.now)
    jobs = bench.add(*["dead"] * 40)
    assert bench.take() is None
    bench.schedule.clear_aside(bench.now)
    settlements = bench.settlements()
    # Half of a quarter of the window remains: those who came first.
    assert {settlement.key for settlement in settlements} == {job.key for job in jobs[WINDOW // 8 :]}
    assert {(settlement.due, settlement.outcome, settlement.attempts) for settlement in settlements} == {
        (until, "", 0)
    }
    assert bench.schedule.throttled == {"destination": WINDOW // 8}


def test_what_waits_for_a_slow_destination_does_not_fill_the_window_either() -> None:
    bench = Bench(Throttle(destination=DestinationLimits(concurrency=1, initial=1, rate=Rate(1, 2))))
    jobs = bench.add(*["slow"] * 40)
    assert bench.take_all() == jobs[:1]
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == {"slow"}
    # Each is due about when its turn comes.
    given = bench.settlements()
    assert [settlement.key for settlement in given] == [job.key for job in jobs[1 + WINDOW // 8 :]]
    assert [settlement.due for settlement in given] == [
        bench.now + KEPT_SECONDS + 1 + n for n in range(len(given))
    ]
    done = jobs[:1]
    while bench.under_way:
        bench.end(done[-1], Delivered())
        bench.later(2)
        done += bench.take_all()
        bench.schedule.clear_aside(bench.now)
    assert done == jobs[: 1 + WINDOW // 8]
    assert bench.queue.blocked == frozenset()
    assert bench.schedule.wanted


def test_what_a_destination_takes_soon_stays_in_memory() -> None:
    bench = Bench(Throttle(destination=DestinationLimits(concurrency=1, initial=1)))
    jobs = bench.add(*["quick"] * 40)
    done: list[Job] = []
    for _ in range(20):
        done += bench.take_all()
        bench.clock.advance(0.01)
        bench.end(done[-1], Delivered())
        bench.schedule.clear_aside(bench.now)
    assert done == jobs[:20]
    assert bench.settlements() == []
    # Now it takes its time.
    for _ in range(4):
        done += bench.take_all()
        bench.clock.advance(30.0)
        bench.end(done[-1], Delivered())
        bench.schedule.clear_aside(bench.now)
    bench.add(*["quick"] * 20)
    assert len(bench.take_all()) == 1
    bench.schedule.clear_aside(bench.now)
    assert bench.settlements()


def test_where_the_order_is_strict_claims_pass_over_what_cannot_be_tried() -> None:
    bench = Bench(concurrency=1)
    (canary,) = bench.add("dead")
    bench.take()
    bench.end(canary, DOWN)
    bench.add("dead")
    assert bench.take() is None
    bench.schedule.clear_aside(bench.now)
    assert bench.queue.blocked == {"dead"}


@pytest.mark.parametrize("result", [Outage("refused"), Crash("boom", "")])
def test_an_outage_or_a_crash_says_nothing_of_the_destination(result: Result) -> None:
    bench = Bench(Throttle(destination=DestinationLimits(concurrency=1, initial=1)))
    first, second = bench.add("a", "a")
    assert bench.take_all() == [first]
    bench.end(first, result)
    assert bench.schedule.destinations.changed == {}
    assert bench.take_all() == [second]


def test_a_time_out_does() -> None:
    bench = Bench(Throttle(destination=DestinationLimits(concurrency=1, initial=1)))
    (job,) = bench.add("a")
    bench.take()
    bench.end(job, TimedOut(600.0))
    assert bench.schedule.destinations.changed["a"].status == "parked"


def test_an_outage_that_lasts_moves_on_what_waits() -> None:
    bench = Bench(failover=60)
    mine = bench.add("a", "b")
    (stays,) = bench.add("c", kind="sms")
    bench.schedule.breaker.down(bench.now, "refused")
    began = bench.now
    assert not bench.schedule.move_on(bench.now)
    assert bench.schedule.next_look(bench.now) == began + 60
    bench.later(60)
    assert bench.schedule.move_on(bench.now)
    settlements = bench.settlements()
    assert [(each.key, each.next_transport) for each in settlements] == [(job.key, "backup") for job in mine]
    assert {each.outcome for each in settlements} == {"failover"}
    # It is said once; what comes later follows, and what has nowhere to go is the canary.
    assert not bench.schedule.move_on(bench.now)
    bench.add("d")
    assert not bench.schedule.move_on(bench.now)
    assert len(bench.settlements()) == 1
    assert bench.schedule.breaker.status is Status.PROBING
    assert bench.take_all() == [stays]
    bench.schedule.breaker.answered(bench.now)
    assert not bench.schedule.move_on(bench.now)
    (job,) = bench.add("e")
    assert not bench.schedule.move_on(bench.now)
    assert bench.take_all() == [job]
    assert bench.settlements() == []
