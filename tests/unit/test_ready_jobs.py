from hypothesis import given
from hypothesis import strategies as st

from postroom.active_queue import Job
from postroom.actors.ready import ReadyJobs
from postroom.addresses import Address
from postroom.delivery import Target

priorities = st.lists(st.sampled_from([1, 0, -1]), max_size=30)


def job(key: int, priority: int) -> Job:
    return Job(
        key=key, transport="memory", epoch=0, sender="", targets=(Target(0, Address("memory", "x")),), content=b"",
        size=0, created=0.0, due=0.0, recipient_count=1, priority=priority,
    )  # fmt: skip


def jobs_of(given_priorities: list[int]) -> list[Job]:
    return [job(key, priority) for key, priority in enumerate(given_priorities)]


def drained(ready: ReadyJobs) -> list[Job]:
    found: list[Job] = []
    while ready:
        assert ready.top is not None
        found.append(ready.pop())
        assert found[-1].priority >= (ready.top if ready.top is not None else -1)
    assert ready.top is None
    return found


@given(priorities)
def test_by_priority_then_as_they_came(given_priorities: list[int]) -> None:
    jobs = jobs_of(given_priorities)
    ready = ReadyJobs()
    ready.add(jobs)
    assert drained(ready) == sorted(jobs, key=lambda each: -each.priority)


@given(priorities, st.integers(0, 30))
def test_what_is_put_back_is_where_it_was(given_priorities: list[int], taken: int) -> None:
    ready = ReadyJobs()
    ready.add(jobs_of(given_priorities))
    expected = drained(ready)
    ready.add(expected)
    ready.put_back([ready.pop() for _ in range(min(taken, len(expected)))])
    assert drained(ready) == expected
