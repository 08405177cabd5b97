from hypothesis import given
from hypothesis import strategies as st

from postroom.actors.protocol import Look, WakeAt
from postroom.actors.timer import SLACK, Agenda
from postroom.supervision import Handle


def test_nothing_is_due_on_an_empty_agenda() -> None:
    agenda = Agenda()
    assert agenda.next() is None
    assert agenda.pop(1e12) == []


def test_wishes_come_in_the_order_of_their_times() -> None:
    agenda, handle = Agenda(), Handle("a")
    late, early, same = (WakeAt(at, handle, Look(), tag) for at, tag in ((3.0, "x"), (1.0, "y"), (3.0, "z")))
    for wish in (late, early, same):
        agenda.add(wish)
    assert agenda.next() == 1.0
    assert agenda.pop(0.9) == []
    assert agenda.pop(1.0) == [early]
    assert agenda.next() == 3.0
    assert agenda.pop(9.0) == [late, same]
    assert agenda.next() is None


def test_a_later_wish_of_the_same_tag_replaces_the_earlier_one() -> None:
    agenda, handle, other = Agenda(), Handle("a"), Handle("b")
    agenda.add(WakeAt(1.0, handle, "first", "due"))
    agenda.add(WakeAt(5.0, handle, "second", "due"))
    agenda.add(WakeAt(2.0, other, "other", "due"))
    assert [wish.letter for wish in agenda.pop(4.0)] == ["other"]
    agenda.add(WakeAt(3.0, handle, "third", "due"))
    assert [wish.letter for wish in agenda.pop(9.0)] == ["third"]


def test_a_wish_can_be_made_again_after_it_came_true() -> None:
    agenda, handle = Agenda(), Handle("a")
    for at in (1.0, 2.0):
        agenda.add(WakeAt(at, handle, at, "due"))
        assert [wish.letter for wish in agenda.pop(at)] == [at]


def test_replaced_wishes_do_not_fill_the_memory() -> None:
    agenda, handle = Agenda(), Handle("a")
    agenda.add(WakeAt(0.5, handle, "soon", "watch"))
    for number in range(10_000):
        agenda.add(WakeAt(1e6 + number, handle, number, "due"))
    assert len(agenda) <= 2 * 2 + SLACK + 1
    assert [wish.letter for wish in agenda.pop(1e9)] == ["soon", 9_999]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), st.booleans())))
def test_an_agenda_is_a_dictionary_sorted_by_time(steps: list[tuple[int, int, bool]]) -> None:
    agenda, handles = Agenda(), [Handle(str(n)) for n in range(3)]
    expected: dict[tuple[int, str], tuple[float, int]] = {}
    for number, (at, who, pop) in enumerate(steps):
        if pop:
            due = sorted((time, n, key) for key, (time, n) in expected.items() if time <= at)
            assert [wish.letter for wish in agenda.pop(at)] == [n for _, n, _ in due]
            for _, _, key in due:
                del expected[key]
        else:
            tag = "odd" if who % 2 else "even"
            agenda.add(WakeAt(at, handles[who // 2], number, tag))
            expected[who // 2, tag] = (at, number)
        assert agenda.next() == min((time for time, _ in expected.values()), default=None)
