from postroom.completions import Completions


def test_all_who_wait_for_a_message_are_told() -> None:
    completions = Completions()
    first, second, other = completions.add(1), completions.add(1), completions.add(2)
    completions.completed([3, 1])
    assert first.wait(0)
    assert second.wait(0)
    assert not other.wait(0)
    completions.completed([2, 2])
    assert other.wait(0)


def test_who_no_longer_waits_is_forgotten() -> None:
    completions = Completions()
    first, second = completions.add(1), completions.add(1)
    completions.remove(1, first)
    completions.remove(1, first)
    completions.completed([1])
    assert not first.resolved
    assert second.resolved
    completions.remove(1, second)
    completions.completed([1])


def test_a_completion_that_nobody_waits_for_leaves_no_trace() -> None:
    completions = Completions()
    completions.completed(range(1000))
    assert not completions.add(1).resolved
