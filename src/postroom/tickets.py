"""Waiting for an answer, as cheaply as Python allows.

A bare lock as the waiter instead of a future: one acquire to make it, one to wait, one release to answer. With dozens
of threads waiting for each commit the difference is a third of the throughput (see ``benchmarks/``).
"""

# ruff: noqa: SLF001 - tickets wake each other

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from postroom.brief import BriefLock

__all__ = ["Gate", "StoreDied", "Ticket", "resolve_all"]


POLL_SECONDS = 0.005
"""How often a submitter looks for room while the store is at its limit."""


class StoreDied(Exception):
    """The store died before it answered; its successor must be asked."""


class Ticket:
    """One answer for one waiter. Resolved by one thread, waited for by another, once.

    Args:
        on_resolved: called with the ticket in the resolving thread; must be quick and not raise.
    """

    __slots__ = ("_lock", "_next", "_on_resolved", "_waiting", "error", "resolved", "value")

    def __init__(self, on_resolved: "Callable[[Ticket], None] | None" = None) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._on_resolved = on_resolved
        self._waiting = False
        self._next: Ticket | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.resolved = False

    def resolve(self, value: object = None, error: BaseException | None = None) -> None:
        """Give the answer and wake the waiter; a second answer is ignored."""
        if self._answer(value, error):
            self._lock.release()

    def _answer(self, value: object, error: BaseException | None) -> bool:
        """Give the answer; return whether it is the first."""
        if self.resolved:
            return False
        self.value = value
        self.error = error
        self.resolved = True
        if self._on_resolved is not None:
            self._on_resolved(self)
        return True

    def also(self, then: "Callable[[], object]") -> None:
        """Call ``then`` when the answer is there: at once if it is, else in the resolving thread."""
        before = self._on_resolved
        called = threading.Lock()

        def both(ticket: "Ticket") -> None:
            if before is not None:
                before(ticket)
            if called.acquire(blocking=False):
                then()

        self._on_resolved = both
        # It may have been resolved meanwhile, with the former callback.
        if self.resolved and called.acquire(blocking=False):
            then()

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; return whether the answer is there."""
        if self.resolved:
            return True
        self._waiting = True
        woken = False
        try:
            woken = self._lock.acquire(timeout=max(0.0, timeout))
        finally:
            # The lock is a baton: whoever gets it, this waiter or one that finds it gone, wakes the next.
            self._waiting = False
            if woken or self._lock.acquire(blocking=False):
                self._pass_on()
        return self.resolved

    def result(self) -> Any:
        """Return the answer, or raise the error, once it is there."""
        if self.error is not None:
            raise self.error
        return self.value

    def _pass_on(self) -> None:
        """Wake the next waiter of the chain."""
        ticket, self._next = self._next, None
        self._wake(ticket)

    @staticmethod
    def _wake(ticket: "Ticket | None") -> None:
        """Wake a waiter, which wakes the next of its chain; skip those that have left without the baton."""
        while ticket is not None:
            ticket._lock.release()
            if ticket._waiting or not ticket._lock.acquire(blocking=False):
                return
            following, ticket._next = ticket._next, None
            ticket = following

    @staticmethod
    def answer_all(answers: "Iterable[tuple[Ticket, object]]") -> None:
        """See :func:`resolve_all`."""
        first: Ticket | None = None
        last: Ticket | None = None
        for ticket, value in answers:
            if not ticket._answer(value, None):
                continue
            if not ticket._waiting:
                ticket._lock.release()
            elif last is None:
                first = last = ticket
            else:
                last._next = ticket
                last = ticket
        Ticket._wake(first)


def resolve_all(answers: "Iterable[tuple[Ticket, object]]") -> None:
    """Resolve many tickets at once, waking their waiters one after the other.

    Woken together they would only queue for the GIL, each waking up every few milliseconds to ask for it. In a chain
    each wakes the next as soon as it runs itself.
    """
    Ticket.answer_all(answers)


class Gate:
    """Bounds what waits to be made durable, since mailboxes have no bound of their own. Thread-safe.

    Args:
        messages: messages at most.
        octets: octets of content at most; a single larger message may pass when nothing else is inside.
    """

    def __init__(self, messages: int, octets: int) -> None:
        self._limit_messages = messages
        self._limit_octets = octets
        self._lock = BriefLock()
        self._room = threading.Condition()
        self._messages = 0
        self._octets = 0
        self._waiting = 0

    @property
    def inside(self) -> int:
        """Messages between ``enter`` and ``leave``."""
        return self._messages

    def _try(self, messages: int, octets: int) -> bool:
        with self._lock:
            fits = self._messages == 0 or (
                self._messages + messages <= self._limit_messages
                and self._octets + octets <= self._limit_octets
            )
            if fits:
                self._messages += messages
                self._octets += octets
            return fits

    def enter(self, messages: int, octets: int, timeout: float) -> bool:
        """Wait for room at most ``timeout`` seconds; return whether there is."""
        if self._try(messages, octets):
            return True
        with self._room:
            self._waiting += 1
            try:
                return self._room.wait_for(lambda: self._try(messages, octets), timeout)
            finally:
                self._waiting -= 1

    def wait_for(self, predicate: "Callable[[], bool]", timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for something that nobody announces; return whether it came true."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def leave(self, messages: int, octets: int) -> None:
        """Make room again."""
        with self._lock:
            self._messages -= messages
            self._octets -= octets
        # Who began to wait before the lines above is counted; who does so later finds the room.
        if self._waiting:
            with self._room:
                self._room.notify_all()
