import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from postroom.tickets import Gate, Ticket, resolve_all

PATIENCE = 30.0


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads take turns a hundred times as often, so that races show."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.00005)
    yield
    sys.setswitchinterval(usual)


def run(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiting(thing: Ticket | Gate) -> int:
    """Return how many threads wait, which nobody but a test needs to know."""
    return int(thing._waiting)  # pyright: ignore[reportPrivateUsage]


def test_an_answer_that_is_there_is_not_waited_for() -> None:
    ticket = Ticket()
    assert not ticket.wait(0)
    assert not ticket.resolved
    ticket.resolve("answer")
    assert ticket.wait(0)
    assert ticket.wait(-1)
    assert ticket.result() == "answer"


def test_an_error_is_raised() -> None:
    ticket = Ticket()
    ticket.resolve(error=KeyError("no"))
    with pytest.raises(KeyError, match="no"):
        ticket.result()


def test_the_first_answer_counts() -> None:
    ticket = Ticket()
    ticket.resolve(1)
    ticket.resolve(2, error=KeyError())
    resolve_all([(ticket, 3)])
    assert ticket.result() == 1


def test_a_waiter_is_woken() -> None:
    ticket, seen = Ticket(), list[object]()
    thread = run(lambda: seen.append(ticket.wait(PATIENCE) and ticket.result()))
    until(lambda: waiting(ticket) == 1)
    ticket.resolve("answer")
    thread.join(PATIENCE)
    assert seen == ["answer"]


def test_waiting_in_vain_can_be_repeated() -> None:
    ticket = Ticket()
    assert not ticket.wait(0.001)
    assert not ticket.wait(0.001)
    ticket.resolve()
    assert ticket.wait(0.001)


def test_callbacks_are_called_once_whenever_they_come() -> None:
    calls: list[str] = []
    ticket = Ticket(lambda _: calls.append("first"))
    ticket.also(lambda: calls.append("before"))
    ticket.resolve()
    ticket.resolve()
    ticket.also(lambda: calls.append("after"))
    assert calls == ["first", "before", "after"]


def test_many_are_answered_at_once() -> None:
    tickets = [Ticket() for _ in range(50)]
    seen: list[int] = []

    def wait_for(ticket: Ticket) -> None:
        assert ticket.wait(PATIENCE)
        seen.append(ticket.result())

    threads = [run(partial(wait_for, ticket)) for ticket in tickets[:40]]
    until(lambda: sum(map(waiting, tickets)) == 40)
    resolve_all([(ticket, number) for number, ticket in enumerate(tickets)])
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(seen) == list(range(40))
    assert all(ticket.wait(0) for ticket in tickets)


def test_who_leaves_does_not_break_the_chain(frequent_switches: None) -> None:
    """A waiter whose time is up just when it is answered must still see to it that the next is woken."""
    del frequent_switches
    for turn in range(60):
        tickets = [Ticket() for _ in range(12)]
        # Half of them leave at about the time at which they are answered; the others would wait for minutes.
        patience = [0.002 if number % 2 == turn % 2 else 600 for number in range(len(tickets))]
        woken = [
            run(partial(ticket.wait, seconds)) for ticket, seconds in zip(tickets, patience, strict=True)
        ]
        time.sleep(0.0015)  # only makes the race likely; whatever happens must pass
        resolve_all([(ticket, None) for ticket in tickets])
        for thread in woken:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in woken)


# The gate


def test_what_is_inside_is_bounded() -> None:
    gate = Gate(3, 100)
    assert gate.enter(2, 50, 0)
    assert not gate.enter(2, 10, 0.001)
    assert not gate.enter(1, 51, 0.001)
    assert gate.enter(1, 50, 0)
    assert gate.inside == 3
    gate.leave(2, 50)
    assert gate.enter(2, 50, 0)


def test_what_is_larger_than_the_gate_passes_alone() -> None:
    gate = Gate(3, 100)
    assert gate.enter(10, 1000, 0)
    assert not gate.enter(1, 1, 0.001)
    gate.leave(10, 1000)
    assert gate.enter(1, 1, 0)
    assert not gate.enter(10, 1000, 0.001)


def test_who_waits_is_let_in_when_there_is_room() -> None:
    gate, entered = Gate(1, 100), threading.Event()
    assert gate.enter(1, 1, 0)

    def enter() -> None:
        assert gate.enter(1, 1, PATIENCE)
        entered.set()

    thread = run(enter)
    until(lambda: waiting(gate) == 1)
    assert not entered.is_set()
    gate.leave(1, 1)
    assert entered.wait(PATIENCE)
    thread.join(PATIENCE)


def test_the_bound_holds_among_threads(frequent_switches: None) -> None:
    del frequent_switches
    gate, lock = Gate(5, 1000), threading.Lock()
    inside = most = passed = 0

    def pass_through() -> None:
        nonlocal inside, most, passed
        for _ in range(200):
            assert gate.enter(1, 10, PATIENCE)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
                passed += 1
            gate.leave(1, 10)

    threads = [run(pass_through) for _ in range(12)]
    for thread in threads:
        thread.join(PATIENCE)
    assert passed == 12 * 200
    assert most <= 5
    assert gate.inside == 0
