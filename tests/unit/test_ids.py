import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.clock import ManualClock
from postroom.errors import UnknownMessage
from postroom.ids import MAX_NODE, IdGenerator, created_at, format_id, parse_id

NUMBERS = st.integers(0, (1 << 63) - 1)


@given(NUMBERS)
def test_the_text_stands_for_the_number_in_either_case(number: int) -> None:
    text = format_id(number)
    assert len(text) == 13
    assert parse_id(text) == parse_id(text.lower()) == number


@given(NUMBERS, NUMBERS)
def test_texts_sort_like_numbers(one: int, other: int) -> None:
    assert (format_id(one) < format_id(other)) == (one < other)


@pytest.mark.parametrize(
    "text", ["", "0" * 12, "0" * 14, "Z" * 13, "8" + "0" * 12, "U" * 13, "é" * 13, "0" * 12 + " "]
)
def test_what_is_no_id_is_unknown(text: str) -> None:
    with pytest.raises(UnknownMessage) as caught:
        parse_id(text)
    assert caught.value.field == "id"


@given(st.text(max_size=20))
def test_whatever_the_text_it_is_unknown_or_comes_back(text: str) -> None:
    try:
        number = parse_id(text)
    except UnknownMessage:
        return
    assert format_id(number) == text.upper()


@given(
    st.integers(0, MAX_NODE),
    st.lists(st.floats(1.5e9, 2.5e9), min_size=1, max_size=60),
    st.sampled_from([0, 1, 1 << 40, 1 << 62]),
)
def test_numbers_rise_whatever_the_clock_does(node: int, times: list[float], floor: int) -> None:
    clock = iter(times)
    generator = IdGenerator(node, lambda: next(clock), floor)
    numbers = [generator.next() for _ in times]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > floor
    assert all((number >> 11) & MAX_NODE == node for number in numbers)
    assert all(0 < number < 1 << 63 for number in numbers)


def test_a_full_millisecond_borrows_from_the_next_one() -> None:
    generator = IdGenerator(7, ManualClock().time)
    numbers = [generator.next() for _ in range(10_000)]
    assert numbers == sorted(set(numbers))
    assert created_at(numbers[-1]) - created_at(numbers[0]) == pytest.approx(5 / 1000, abs=1e-6)


@given(st.floats(1.6e9, 4e9))
def test_created_at_is_the_clocks_time_to_the_millisecond(now: float) -> None:
    assert created_at(IdGenerator(0, lambda: now).next()) == pytest.approx(now, abs=0.0011)


@pytest.mark.parametrize("node", [-1, MAX_NODE + 1])
def test_a_node_has_ten_bits(node: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        IdGenerator(node, ManualClock().time)


def test_generators_of_different_nodes_and_many_threads_never_collide() -> None:
    clock = ManualClock()
    generators = [IdGenerator(node, clock.time) for node in range(3)]
    found: list[int] = []
    lock = threading.Lock()

    def work(generator: IdGenerator) -> None:
        mine = [generator.next() for _ in range(1000)]
        with lock:
            found.extend(mine)

    threads = [threading.Thread(target=work, args=(generator,)) for generator in generators for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 6000
