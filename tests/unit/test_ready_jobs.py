from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postroom.active_queue import Job
from postroom.actors.ready import WEIGHT, ReadyJobs
from postroom.addresses import Address
from postroom.delivery import Target

priorities = st.lists(st.sampled_from([1, 0, -1]), max_size=WEIGHT)


def job(key: int, priority: int = 0, *, tenant: str = "", destination: str = "", recipients: int = 1) -> Job:
    return Job(
        key=key, transport="memory", epoch=0, sender="",
        targets=tuple(Target(n, Address("memory", "x")) for n in range(recipients)), content=b"",
        size=0, created=0.0, due=0.0, recipient_count=recipients, priority=priority, tenant=tenant,
        destination=destination,
    )  # fmt: skip


def jobs_of(given_priorities: list[int]) -> list[Job]:
    return [job(key, priority) for key, priority in enumerate(given_priorities)]


def popped(ready: ReadyJobs) -> Job:
    found = ready.pop()
    assert found is not None
    return found


def drained(ready: ReadyJobs) -> list[Job]:
    found: list[Job] = []
    while ready:
        assert ready.top is not None
        found.append(popped(ready))
    assert ready.top is None
    assert ready.pop() is None
    return found


@given(priorities)
def test_a_few_go_by_priority_then_as_they_came(given_priorities: list[int]) -> None:
    jobs = jobs_of(given_priorities)
    ready = ReadyJobs()
    ready.add(jobs)
    assert drained(ready) == sorted(jobs, key=lambda each: -each.priority)


@given(st.lists(st.sampled_from([1, 0, -1]), max_size=40), st.integers(0, 40))
def test_what_is_put_back_is_where_it_was(given_priorities: list[int], taken: int) -> None:
    ready = ReadyJobs()
    ready.add(jobs_of(given_priorities))
    expected = drained(ready)
    ready = ReadyJobs()
    ready.add(sorted(expected, key=lambda each: each.key))
    ready.put_back([popped(ready) for _ in range(min(taken, len(expected)))])
    assert drained(ready) == expected


def test_what_is_put_back_after_all_is_gone_is_had_again() -> None:
    ready = ReadyJobs()
    jobs = jobs_of([0, 1, 0])
    ready.add(jobs)
    out = drained(ready)
    ready.put_back(out)
    assert drained(ready) == out == [jobs[1], jobs[0], jobs[2]]


@pytest.mark.parametrize(("high", "low"), [(1, 0), (0, -1)])
def test_an_endless_stream_leaves_the_lower_priority_its_share(high: int, low: int) -> None:
    ready = ReadyJobs()
    ready.add(job(n, low) for n in range(10))
    order: list[int] = []
    for n in range(10 * (WEIGHT + 1)):
        ready.add([job(100 + n, high)])
        order.append(popped(ready).priority)
    assert Counter(order) == {high: 10 * WEIGHT, low: 10}
    assert all(low in order[start : start + WEIGHT + 1] for start in range(0, len(order), WEIGHT + 1))


def test_what_was_offered_in_vain_does_not_use_up_a_share() -> None:
    """As when something urgent comes all the time, and what was offered to the couriers is taken back for it."""
    ready = ReadyJobs()
    ready.add([job(0, -1)])
    for n in range(WEIGHT * WEIGHT + 1):
        ready.add([job(1 + n, 1)])
        ready.put_back([popped(ready), popped(ready)])
        if popped(ready).priority == -1:
            break
    else:
        pytest.fail("it starves")


def test_it_says_what_there_is() -> None:
    ready = ReadyJobs()
    ready.add([job(1, 0, destination="x"), job(2, -1, destination="x")])
    assert [ready.has(priority) for priority in (1, 0, -1)] == [False, True, True]
    assert ready.pop(lambda _: False) is None
    assert not any(ready.has(priority) for priority in (1, 0, -1))


def test_what_was_put_back_does_not_hold_up_what_comes_next() -> None:
    ready = ReadyJobs()
    ready.add([job(0, -1)])
    offered = [popped(ready)]
    ready.put_back(offered)
    ready.add([job(1, 0), job(2, 1)])
    assert [each.key for each in drained(ready)] == [2, 1, 0]


def test_tenants_take_turns() -> None:
    ready = ReadyJobs()
    ready.add(job(n, tenant="a") for n in range(4))
    ready.add(job(10 + n, tenant="b") for n in range(2))
    ready.add([job(20, tenant="c")])
    assert [each.key for each in drained(ready)] == [0, 10, 20, 1, 11, 2, 3]


def test_turns_are_counted_in_recipients() -> None:
    ready = ReadyJobs()
    ready.add(job(n, tenant="a", recipients=3) for n in range(10))
    ready.add(job(100 + n, tenant="b") for n in range(30))
    served = Counter[str]()
    for _ in range(20):
        found = popped(ready)
        served[found.tenant] += len(found.targets)
        assert abs(served["a"] - served["b"]) <= 4


def test_a_newcomer_waits_for_nobodys_backlog() -> None:
    ready = ReadyJobs()
    ready.add(job(n, tenant="a") for n in range(1000))
    for _ in range(500):
        ready.pop()
    ready.add([job(5000, tenant="b")])
    assert 5000 in {popped(ready).key for _ in range(2)}


def test_who_comes_again_and_again_gets_no_more_than_a_share() -> None:
    ready = ReadyJobs()
    ready.add(job(n, tenant="a") for n in range(1000))
    served = Counter[str]()
    last = "b"
    for n in range(100):
        if last == "b":
            ready.add([job(5000 + n, tenant="b")])
        last = popped(ready).tenant
        served[last] += 1
    assert abs(served["a"] - served["b"]) <= 2


def test_where_the_order_is_strict_tenants_do_not_take_turns() -> None:
    ready = ReadyJobs(rotate=False)
    jobs = [job(n, tenant="abc"[n // 2]) for n in range(6)]
    ready.add(jobs)
    assert drained(ready) == jobs


def test_a_destination_that_cannot_be_tried_does_not_hold_up_the_others() -> None:
    ready = ReadyJobs()
    dead = [job(n, destination="dead") for n in range(3)]
    live = [job(10 + n, destination="live") for n in range(3)]
    ready.add([dead[0], live[0], dead[1], live[1]])
    out = [ready.pop(lambda name: name != "dead") for _ in range(3)]
    assert out == [live[0], live[1], None]
    assert not ready
    assert ready.shelved == {"dead": 2}
    ready.add([dead[2], live[2]])
    assert ready.pop(lambda name: name != "dead") is live[2]
    assert ready.pop(lambda name: name != "dead") is None
    ready.unblock("dead")
    assert ready
    assert drained(ready) == dead
    assert ready.shelved == {}


def test_what_stands_aside_is_taken_up_as_far_as_it_can_go() -> None:
    ready = ReadyJobs()
    jobs = [job(n, tenant=f"t{n}", destination="slow") for n in range(5)]
    ready.add(jobs)
    free = 0

    def eligible(_: str) -> bool:
        return free > 0

    assert ready.pop(eligible) is None
    out: list[Job] = []
    for _ in range(5):
        free = 1
        ready.unblock("slow", 1)
        assert ready
        out.append(found := ready.pop(eligible) or jobs[0])
        free = 0
        assert ready.pop(eligible) is None
        assert found is out[-1]
    assert out == jobs


def test_when_nothing_else_is_to_do_all_that_waits_is_looked_at() -> None:
    ready = ReadyJobs()
    ready.add([job(1, 1, tenant="a", destination="slow"), job(2, 0, tenant="b", destination="slow")])
    assert ready.pop(lambda _: False) is None
    ready.unblock("slow", 1)
    assert {popped(ready).key, popped(ready).key} == {1, 2}


def test_what_stands_aside_can_be_given_back() -> None:
    ready = ReadyJobs()
    jobs = [job(n, tenant="ab"[n % 2], destination="dead") for n in range(6)]
    ready.add(jobs)
    assert ready.pop(lambda _: False) is None
    given = ready.withdraw("dead", 4)
    assert len(given) == 4
    assert ready.shelved == {"dead": 2}
    # What remains is what came first.
    ready.unblock("dead")
    rest = drained(ready)
    assert len(rest) == 2
    assert not set(rest) & set(given)
    for tenant in "ab":
        mine = [
            each.key for each in [*rest, *sorted(given, key=lambda each: each.key)] if each.tenant == tenant
        ]
        assert mine == sorted(mine)
    assert ready.withdraw("dead", 4) == []


def test_all_can_be_drained() -> None:
    ready = ReadyJobs()
    jobs = [job(n, n % 3 - 1, tenant="ab"[n % 2], destination="xyz"[n % 3]) for n in range(30)]
    ready.add(jobs)
    ready.pop(lambda _: False)
    assert set(ready.drain()) == set(jobs)
    assert not ready
    assert ready.shelved == {}
    ready.add(jobs)
    assert set(drained(ready)) == set(jobs)


TENANTS = ["", "a", "b", "c"]
PLACES = ["", "x", "y", "z"]


class Rivals(RuleBasedStateMachine):
    """Nothing is lost or doubled, and the jobs of one tenant, destination and priority keep their order."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = ReadyJobs()
        self.made = 0
        self.blocked: set[str] = set()
        self.inside: set[Job] = set()
        self.out: list[Job] = []
        self.last: dict[tuple[str, str, int], int] = defaultdict(lambda: -1)

    def eligible(self, destination: str) -> bool:
        return destination not in self.blocked

    @rule(
        kinds=st.lists(
            st.tuples(
                st.sampled_from([1, 0, -1]),
                st.sampled_from(TENANTS),
                st.sampled_from(PLACES),
                st.integers(1, 3),
            ),
            max_size=8,
        )
    )
    def add(self, kinds: list[tuple[int, str, str, int]]) -> None:
        jobs = [
            job(self.made + n, priority, tenant=tenant, destination=place, recipients=size)
            for n, (priority, tenant, place, size) in enumerate(kinds)
        ]
        self.made += len(jobs)
        self.inside.update(jobs)
        self.ready.add(jobs)

    @rule(times=st.integers(1, 6))
    def pop(self, times: int) -> None:
        for _ in range(times):
            found = self.ready.pop(self.eligible if self.blocked else None)
            if found is None:
                assert all(each.destination in self.blocked for each in self.inside)
                break
            assert found.destination not in self.blocked
            self.inside.remove(found)
            self.out.append(found)
            kind = found.tenant, found.destination, found.priority
            assert found.key > self.last[kind]
            self.last[kind] = found.key

    @precondition(lambda self: self.out)
    @rule(number=st.integers(1, 5))
    def put_back(self, number: int) -> None:
        back = self.out[-number:]
        del self.out[-number:]
        self.inside.update(back)
        self.ready.put_back(back)
        for each in back:
            kind = each.tenant, each.destination, each.priority
            self.last[kind] = min(self.last[kind], each.key - 1)

    @rule(place=st.sampled_from(PLACES[1:]))
    def block(self, place: str) -> None:
        self.blocked.add(place)

    @rule(place=st.sampled_from(PLACES[1:]), number=st.none() | st.integers(1, 3))
    def unblock(self, place: str, number: int | None) -> None:
        self.blocked.discard(place)
        self.ready.unblock(place, number)

    @rule(place=st.sampled_from(PLACES[1:]), number=st.integers(1, 5))
    def withdraw(self, place: str, number: int) -> None:
        given = self.ready.withdraw(place, number)
        assert len(given) <= number
        assert all(each.destination == place for each in given)
        assert self.inside.issuperset(given)
        self.inside.difference_update(given)

    @invariant()
    def aside(self) -> None:
        assert sum(self.ready.shelved.values()) == self.ready.aside <= len(self.inside)
        assert all(count > 0 for count in self.ready.shelved.values())

    def teardown(self) -> None:
        for place in PLACES:
            self.ready.unblock(place)
        assert set(drained(self.ready)) == self.inside


TestRivals = Rivals.TestCase
