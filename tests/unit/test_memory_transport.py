import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import TransportDown
from postroom.outcomes import Deferred, Delivered, Reply
from postroom.transports.memory import MemoryTransport


def delivery(key: int) -> Delivery:
    return Delivery(key, "", (Target(0, parse_address("memory:box")),), b"x")


def test_everything_is_delivered_and_remembered_in_order() -> None:
    transport = MemoryTransport()
    session = transport.open()
    sent = [delivery(key) for key in range(3)]
    assert [session.send(each) for each in sent] == [Delivered()] * 3
    assert transport.deliveries == sent
    assert transport.count == 3


@pytest.mark.parametrize(("keep", "keys"), [(2, [3, 4]), (0, [])])
def test_only_the_latest_are_kept_and_all_are_counted(keep: int, keys: list[int]) -> None:
    transport = MemoryTransport(keep=keep)
    session = transport.open()
    for key in range(5):
        session.send(delivery(key))
    assert [each.key for each in transport.deliveries] == keys
    assert transport.count == 5


def test_the_list_is_a_copy_and_clear_starts_again() -> None:
    transport = MemoryTransport()
    transport.open().send(delivery(1))
    transport.deliveries.clear()
    assert len(transport.deliveries) == 1
    transport.clear()
    assert (transport.deliveries, transport.count) == ([], 0)


def test_answers_are_scripted() -> None:
    later = Deferred(Reply("busy", "4.2.0"), 5)

    def answer(given: Delivery) -> list[Deferred]:
        if given.key == 1:
            raise TransportDown("off")
        return [later]

    transport = MemoryTransport(answer=answer)
    session = transport.open()
    with pytest.raises(TransportDown):
        session.send(delivery(1))
    assert session.send(delivery(2)) == [later]
    assert transport.count == 2


def test_waiting_ends_when_enough_have_come_from_any_thread() -> None:
    transport = MemoryTransport(keep=0)
    assert transport.wait_for(0, timeout=0)
    assert not transport.wait_for(1, timeout=0)
    ready = threading.Barrier(5)

    def courier() -> None:
        session = transport.open()
        ready.wait(20)
        for key in range(500):
            session.send(delivery(key))

    with ThreadPoolExecutor(5) as pool:
        waiting = pool.submit(transport.wait_for, 2000, 20)
        for _ in range(4):
            pool.submit(courier)
        ready.wait(20)
        assert waiting.result(20)
    assert transport.count == 2000
