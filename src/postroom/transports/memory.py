"""A transport that keeps what it is given in memory: for tests, trials and benchmarks."""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from postroom.delivery import Delivery
from postroom.outcomes import Delivered
from postroom.transports.base import Outcomes, Session, Transport

__all__ = ["MemoryTransport"]

Answer = Callable[[Delivery], Outcomes]

_DELIVERED = Delivered()


@dataclass(kw_only=True, eq=False)
class MemoryTransport(Transport):
    """Delivers into memory. Thread-safe, and its inspection methods may be called while it works.

    Attributes:
        address_types: any may be given; "memory" by default.
        keep: how many deliveries are remembered, the latest; older ones are forgotten. 0 remembers none.
        answer: what to say of a delivery, called in the courier's thread; may raise what a session may raise,
            and may block. None: everything is delivered.
    """

    name: str = "memory"
    address_types: Collection[str] = frozenset({"memory"})
    keep: int = 1_000
    answer: Answer | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._kept: deque[Delivery] = deque(maxlen=max(0, self.keep))
        self._count = 0

    def open(self) -> Session:
        """Return a session."""
        return MemorySession(self)

    @property
    def deliveries(self) -> list[Delivery]:
        """What is remembered of the attempts made so far, whatever the answer was, in their order: a copy."""
        with self._lock:
            return list(self._kept)

    @property
    def count(self) -> int:
        """How many attempts were made so far, remembered or not."""
        with self._lock:
            return self._count

    def wait_for(self, count: int, timeout: float) -> bool:
        """Wait until ``count`` attempts were made, ``timeout`` seconds at most; return whether they were."""
        with self._lock:
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: self._count >= count, timeout)
            finally:
                self._waiting -= 1

    def clear(self) -> None:
        """Forget everything and count from 0 again."""
        with self._lock:
            self._kept.clear()
            self._count = 0

    def take(self, delivery: Delivery) -> None:
        """Count and remember a delivery."""
        with self._lock:
            self._count += 1
            self._kept.append(delivery)
            if self._waiting:  # notifying nobody costs more than all the rest
                self._changed.notify_all()


class MemorySession(Session):
    """Hands everything to its transport."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._take = transport.take
        self._answer = transport.answer

    def send(self, delivery: Delivery) -> Outcomes:
        """Remember the delivery, then answer."""
        self._take(delivery)
        return _DELIVERED if self._answer is None else self._answer(delivery)

    def close(self) -> None:
        """Nothing is held."""
