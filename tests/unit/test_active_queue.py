import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postroom.active_queue import ActiveQueue, Crash, Job, Outage, Phase, TimedOut
from postroom.addresses import Address
from postroom.delivery import Target
from postroom.outcomes import Delivered


def job(
    key: int = 1,
    recipients: int = 1,
    *,
    epoch: int = 0,
    content: bytes | None = b"12345",
    first: int = 0,
    tenant: str = "",
) -> Job:
    return Job(
        key=key, transport="a", epoch=epoch, sender="app@example.org",
        targets=tuple(Target(first + n, Address("smtp", f"{n}@example.org")) for n in range(recipients)),
        content=content, size=5, created=1.0, due=2.0, recipient_count=recipients,
        tenant=tenant,
    )  # fmt: skip


@pytest.fixture
def queue() -> ActiveQueue:
    return ActiveQueue(window=4, window_bytes=12)


def admitted(queue: ActiveQueue, *jobs: Job) -> list[Job]:
    for one in jobs:
        assert queue.reserve(len(one.targets))
    return queue.admit(jobs)


def test_the_window_is_never_exceeded(queue: ActiveQueue) -> None:
    assert queue.reserve(3)
    assert not queue.reserve(2)
    assert queue.backlog
    assert queue.reserve(1)
    assert (queue.held, queue.room) == (4, 0)
    queue.release(2)
    assert (queue.held, queue.room) == (2, 2)


def test_a_transport_that_is_being_stopped_has_no_room(queue: ActiveQueue) -> None:
    queue.accepting = False
    assert queue.room == 0
    assert not queue.reserve(1)
    assert queue.backlog


def test_somebody_elses_backlog_leaves_room_for_a_single_message() -> None:
    queue = ActiveQueue(window=32, window_bytes=100)
    assert all(queue.reserve(1, "a") for _ in range(32))
    assert not queue.reserve(1, "a")
    # A sixteenth of the window each, an eighth for all of them.
    assert queue.reserve(2, "b")
    assert not queue.reserve(1, "b")
    assert not queue.reserve(3, "c")
    assert queue.reserve(2, "c")
    assert not queue.reserve(1, "d")
    assert (queue.held, queue.room, queue.backlog) == (36, 0, True)
    queue.release(2, "b")
    assert queue.reserve(1, "d")


def test_room_is_counted_by_tenant_whatever_becomes_of_the_jobs() -> None:
    queue = ActiveQueue(window=32, window_bytes=100)
    mine = [job(n, tenant="b") for n in range(2)]
    assert all(queue.reserve(1, "b") for _ in mine)
    queue.take(31, "a")
    queue.admit(mine)
    assert not queue.reserve(1, "b")
    finish(queue, mine[0])
    assert not queue.reserve(1, "a")
    assert queue.reserve(1, "b")
    queue.void_waiting()
    assert queue.held == 0
    assert queue.reserve(2, "b")


def test_where_the_order_is_strict_nobody_overtakes() -> None:
    queue = ActiveQueue(window=32, window_bytes=100, strict=True)
    queue.take(32, "a")
    assert not queue.reserve(1, "b")


def test_nothing_is_blocked_at_first(queue: ActiveQueue) -> None:
    assert queue.blocked == frozenset()
    assert queue.gates.gate_of("example.org", 0.0) is None


def test_content_beyond_the_octets_stays_in_the_spool(queue: ActiveQueue) -> None:
    first, second, third = job(1), job(2), job(3)
    admitted(queue, first, second, third)
    assert [one.content for one in (first, second, third)] == [b"12345", b"12345", None]
    finish(queue, first)
    assert first.content is None
    assert admitted(queue, fourth := job(4)) == [fourth]
    assert fourth.content == b"12345"


def finish(queue: ActiveQueue, one: Job) -> None:
    assert queue.begin(one, "courier", 10.0)
    assert queue.end(one, "courier", [Delivered()], 11.0)
    assert queue.settling(one, [])
    queue.settled([one])


def test_the_life_of_a_job(queue: ActiveQueue) -> None:
    one = job(recipients=2)
    admitted(queue, one)
    assert queue.phase_of(1, 1) is Phase.WAITING
    assert queue.begin(one, "courier", 10.0)
    assert (one.phase, one.started) == (Phase.SENDING, 10.0)
    assert queue.end(one, "courier", [Delivered(), Delivered()], 11.0)
    assert (one.phase, one.ended) == (Phase.ENDED, 11.0)
    assert queue.settling(one, [])
    assert queue.in_phase(Phase.SETTLING) == [one]
    queue.settled([one])
    assert one.phase is Phase.GONE
    assert queue.phase_of(1, 1) is None
    assert queue.held == 0
    queue.settled([one])
    assert queue.held == 0


def test_only_one_of_two_couriers_gets_a_job(queue: ActiveQueue) -> None:
    one = job()
    admitted(queue, one)
    assert queue.begin(one, "first", 1.0)
    assert not queue.begin(one, "second", 1.0)
    assert not queue.end(one, "second", [Delivered()], 2.0)
    assert queue.end(one, "first", [Delivered()], 2.0)
    assert not queue.end(one, "first", Crash("late", ""), 3.0)
    assert one.result == [Delivered()]


def test_what_an_abandoned_courier_reports_is_ignored(queue: ActiveQueue) -> None:
    one = job()
    admitted(queue, one)
    queue.begin(one, "hung", 1.0)
    assert queue.abandon(one, 61.0)
    assert one.result == TimedOut(60.0)
    assert not queue.end(one, "hung", [Delivered()], 62.0)
    assert not queue.abandon(one, 63.0)
    assert queue.settling(one, [])
    assert not queue.settling(one, [])


def test_an_outage_puts_a_job_back_to_waiting(queue: ActiveQueue) -> None:
    one = job()
    admitted(queue, one)
    queue.begin(one, "courier", 1.0)
    queue.wait_again(one)
    assert one.phase is Phase.SENDING
    queue.end(one, "courier", Outage("refused"), 2.0)
    queue.wait_again(one)
    assert (one.phase, one.result, one.holder) == (Phase.WAITING, None, None)
    assert queue.begin(one, "courier", 3.0)


def test_only_a_waiting_job_expires(queue: ActiveQueue) -> None:
    one, two = job(1), job(2)
    admitted(queue, one, two)
    queue.begin(two, "courier", 1.0)
    assert queue.expire(one, [])
    assert not queue.expire(one, [])
    assert not queue.expire(two, [])
    assert one.phase is Phase.SETTLING


def test_a_new_epoch_keeps_what_is_not_waiting(queue: ActiveQueue) -> None:
    waiting, sending = job(1), job(2, recipients=2)
    admitted(queue, waiting, sending)
    queue.begin(sending, "courier", 1.0)
    assert queue.reserve(1)  # by a transaction that is not committed yet
    assert queue.void_waiting() == [(2, 0), (2, 1)]
    assert (waiting.phase, waiting.content) == (Phase.GONE, None)
    assert queue.held == 2
    assert queue.backlog
    # Jobs of the old epoch that arrive now are void; their recipients were given back.
    assert queue.admit([job(3)]) == []
    assert admitted(queue, fresh := job(4, epoch=queue.epoch)) == [fresh]
    assert not queue.begin(waiting, "courier", 1.0)


def test_revoking_takes_whole_waiting_jobs_of_one_message(queue: ActiveQueue) -> None:
    first, second = job(1, 2), job(1, 1, first=2)
    other = job(2)
    admitted(queue, first, second, other)
    assert queue.revoke(1, [7]) == []
    assert queue.revoke(1, [0]) == [0, 1]
    queue.begin(second, "courier", 1.0)
    assert queue.revoke(1) == []
    assert queue.revoke(9) == []
    assert queue.revoke(2) == [0]
    assert queue.held == 1


def test_what_is_journalled_cannot_be_revoked(queue: ActiveQueue) -> None:
    one = job()
    admitted(queue, one)
    one.journalled = True
    assert queue.revoke(1) == []
    assert one.phase is Phase.WAITING


def test_a_job_shows_the_session_what_it_needs() -> None:
    one = job(7, 2)
    delivery = one.delivery(b"octets")
    assert (delivery.key, delivery.sender, delivery.content) == (7, "app@example.org", b"octets")
    assert delivery.targets == one.targets


def test_rivals_in_threads_never_both_win() -> None:
    queue = ActiveQueue(window=400, window_bytes=1000)
    jobs = [job(key) for key in range(400)]
    admitted(queue, *jobs)
    won: list[list[Job]] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def rival(number: int) -> None:
        start.wait(10)
        won[number] = [one for one in jobs if queue.begin(one, number, 1.0)]

    threads = [threading.Thread(target=rival, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(one.key for mine in won for one in mine) == list(range(400))


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens to jobs, the counts are those of the jobs that are inside."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ActiveQueue(window=8, window_bytes=20)
        self.inside: list[Job] = []
        self.keys = 0

    @rule(recipients=st.integers(1, 4), content=st.sampled_from([None, b"12345"]), stale=st.booleans())
    def admit(self, recipients: int, content: bytes | None, stale: bool) -> None:
        room = self.queue.room
        assert self.queue.reserve(recipients) == (recipients <= room)
        if recipients > room:
            return
        self.keys += 1
        one = job(self.keys, recipients, epoch=self.queue.epoch - stale, content=content)
        if self.queue.admit([one]):
            self.inside.append(one)
        else:
            assert stale
            self.queue.release(recipients)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.inside))
        phase = one.phase
        step = data.draw(
            st.sampled_from(["begin", "end", "abandon", "again", "expire", "settling", "revoke"])
        )
        match step:
            case "begin":
                assert self.queue.begin(one, "courier", 1.0) == (phase is Phase.WAITING)
            case "end":
                assert self.queue.end(one, "courier", [], 2.0) == (phase is Phase.SENDING)
            case "abandon":
                assert self.queue.abandon(one, 2.0) == (phase is Phase.SENDING)
            case "again":
                self.queue.wait_again(one)
            case "expire":
                assert self.queue.expire(one, []) == (phase is Phase.WAITING)
            case "settling":
                assert self.queue.settling(one, []) == (phase is Phase.ENDED)
            case _:
                assert bool(self.queue.revoke(one.key)) == (phase is Phase.WAITING)
        self.forget()

    @rule()
    def settle(self) -> None:
        self.queue.settled(self.queue.in_phase(Phase.SETTLING))
        self.forget()

    @rule()
    def begin_an_epoch(self) -> None:
        remaining = self.queue.void_waiting()
        self.forget()
        assert len(remaining) == sum(len(one.targets) for one in self.inside)

    def forget(self) -> None:
        self.inside = [one for one in self.inside if one.phase is not Phase.GONE]

    @invariant()
    def the_counts_are_right(self) -> None:
        assert self.queue.held == sum(len(one.targets) for one in self.inside) <= 8
        assert sum(one.size for one in self.inside if one.content is not None) <= 20
        assert self.queue.in_phase(*Phase) == self.inside


TestQueueMachine = QueueMachine.TestCase
