"""What the tests of a whole spooler share: messages, waiting with a deadline, and the ledger's check."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

from postroom import MemoryTransport, Spooler
from postroom.delivery import Delivery
from postroom.events import Event
from postroom.outcomes import Delivered, Outcome
from postroom.supervision import Mailbox
from postroom.transports.base import Outcomes

PATIENCE = 30.0
"""Seconds after which a test stops waiting; nothing is expected to take them."""

E = TypeVar("E", bound=Event)

SENDER = "app@example.org"


def message(name: object = "", lines: int = 1) -> bytes:
    """Return a message that carries ``name`` where the SMTP server of the tests looks for it."""
    head = f"From: {SENDER}\r\nSubject: test {name}\r\nX-Postroom-Id: {name}\r\n\r\n".encode()
    return head + (b"x" * 62 + b"\r\n") * lines


def until(holds: Callable[[], bool], what: str = "it", timeout: float = PATIENCE) -> None:
    """Wait until something holds that nobody signals."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"{what} never came to hold"
        time.sleep(0.005)


def settled(spooler: Spooler, timeout: float = PATIENCE) -> None:
    """Wait until no recipient is pending, then check the ledger."""
    until(lambda: spooler.tally().pending == 0, "an empty queue", timeout)
    ledger_is_exact(spooler)


def actors_rest(spooler: Spooler) -> None:
    """Wait until every letter has been handled: a message is durable before its transport's actor has it."""
    engine = spooler.snapshot_source()
    assert engine is not None

    def resting() -> bool:
        refs = [handle.ref for _, handle in engine.handles()]
        inboxes = [ref.actor_inbox for ref in refs if ref is not None]
        return all(isinstance(i, Mailbox) and not i.qsize() and i.busy_since is None for i in inboxes)

    # Twice, since a letter may be between two mailboxes while one is looked at after the other.
    until(lambda: resting() and resting(), "rest")


def ledger_is_exact(spooler: Spooler) -> None:
    assert spooler.tally().imbalance == 0
    assert spooler.audit() == {}


def deliveries_by_id(transport: MemoryTransport) -> Counter[str]:
    """Return how often each message was handed to the transport."""
    return Counter(delivery.message_id for delivery in transport.deliveries)


def in_threads(count: int, work: Callable[[int], Any], timeout: float = 60.0) -> None:
    """Run ``work(number)`` in so many threads at once; fails if one of them raises or hangs."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = sum(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]
    assert not hung, f"{hung} of {count} threads hang"


class Monkey:
    """Crashes actors at random in a thread of its own, until the ``with`` block ends.

    Args:
        spooler: whose.
        paths: of which actors.
        seed: of the choice.
        pause: seconds between crashes, at most.
        most: crashes in all; the supervisor's pauses between restarts double with each.
    """

    def __init__(
        self, spooler: Spooler, paths: Iterable[str], *, seed: int, pause: float = 0.2, most: int = 5
    ) -> None:
        self._spooler = spooler
        self._paths = list(paths)
        self._most = most
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self._pause = pause
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.crashes = 0

    def _run(self) -> None:
        while self.crashes < self._most and not self._end.wait(self._random.uniform(0.01, self._pause)):
            self.crashes += self._spooler.crash_actor(self._random.choice(self._paths))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


class Gatekeeper:
    """An answer for a ``MemoryTransport`` that holds attempts back until it is opened.

    Attributes:
        entered: how many attempts have come to it.
    """

    def __init__(self, outcome: Outcome | None = None, *, is_open: bool = False) -> None:
        self._outcome = outcome or Delivered()
        self._open = threading.Event()
        self._changed = threading.Condition()
        self.entered = 0
        if is_open:
            self._open.set()

    def __call__(self, delivery: Delivery) -> Outcomes:
        del delivery
        with self._changed:
            self.entered += 1
            self._changed.notify_all()
        self._open.wait(PATIENCE)
        return self._outcome

    def open(self) -> None:
        self._open.set()

    def wait_for(self, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.entered >= count, PATIENCE), "no attempt was made"


class Listener:
    """A subscriber that keeps what it is told and lets a test wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[Event] = []

    def __call__(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    @property
    def events(self) -> list[Event]:
        with self._changed:
            return list(self._events)

    def wait(self, kind: type[E], fits: Callable[[E], bool] = lambda _: True) -> E:
        """Return the first event of a kind that fits, once there is one."""
        found: list[E] = []

        def look() -> bool:
            found[:] = [event for event in self._events if isinstance(event, kind) and fits(event)]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(look, PATIENCE), f"no {kind.__name__} among {self._events}"
            return found[0]
