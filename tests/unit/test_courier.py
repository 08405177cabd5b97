"""What a courier does with one job, without its thread."""

import queue
from collections.abc import Callable

import pytest

from postroom.active_queue import ActiveQueue, Crash, Job, Outage
from postroom.actors.courier import Courier, Errand
from postroom.addresses import Address
from postroom.clock import ManualClock
from postroom.delivery import Delivery, Target
from postroom.errors import TransportDown
from postroom.outcomes import Delivered
from postroom.transports.base import Outcomes
from postroom.transports.memory import MemoryTransport


def job(variant: int | None = None, content: bytes | None = None) -> Job:
    return Job(
        key=7, transport="memory", epoch=0, sender="", targets=(Target(0, Address("memory", "x"), variant=variant),),
        content=content, size=5, created=1.0, due=2.0, recipient_count=1,
    )  # fmt: skip


def courier(
    transport: MemoryTransport, load: Callable[[int, int | None], bytes | None] = lambda _key, _variant: None
) -> Courier:
    active = ActiveQueue(10, 100)
    errand = Errand(transport=transport, jobs=active, load=load, tell=lambda _: True, clock=ManualClock())
    return Courier(errand, queue.SimpleQueue(), "courier")


@pytest.mark.parametrize("variant", [None, 3])
def test_content_is_read_in_the_variant_that_was_made_for_the_recipients(variant: int | None) -> None:
    asked: list[tuple[int, int | None]] = []

    def load(key: int, variant: int | None) -> bytes:
        asked.append((key, variant))
        return b"octets"

    transport = MemoryTransport()
    assert courier(transport, load).attempt(job(variant)) == [Delivered()]
    assert asked == [(7, variant)]
    assert transport.deliveries[0].content == b"octets"


def test_content_in_memory_is_not_read_again() -> None:
    transport = MemoryTransport()
    assert courier(transport).attempt(job(content=b"12345")) == [Delivered()]
    assert transport.deliveries[0].content == b"12345"


def test_content_that_is_gone_is_a_crash_and_no_loss() -> None:
    result = courier(MemoryTransport()).attempt(job())
    assert isinstance(result, Crash)
    assert "the content of message 7 is gone" in result.reason


def test_a_transport_that_is_down_is_an_outage() -> None:
    def refuse(delivery: Delivery) -> Outcomes:
        del delivery
        raise TransportDown("refused", 30.0)

    assert courier(MemoryTransport(answer=refuse)).attempt(job(content=b"1")) == Outage("refused", 30.0)
