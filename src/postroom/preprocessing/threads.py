"""Calls of other people's code with a deadline.

A thread cannot be ended from outside. So each call runs in a daemon thread beside the caller's, and when the deadline
passes that thread is abandoned, counted as hung until the call returns after all, and replaced for the next call.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

__all__ = ["HookHung", "HookThread", "Hung"]

log = logging.getLogger("postroom.hooks")

T = TypeVar("T")

_numbers = count(1)


class HookHung(Exception):
    """A call took longer than it may; it may still be running."""


class Hung:
    """How many calls hang at present, by hook. Thread-safe.

    Args:
        per_hook: calls of one hook that may hang; it is not called beyond that.
        total: calls of all hooks that may hang.
    """

    def __init__(self, per_hook: int, total: int) -> None:
        self.per_hook = per_hook
        self.total = total
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one more call that hangs."""
        with self._lock:
            self._counts[name] += 1

    def remove(self, name: str) -> None:
        """Count one less: the call came back."""
        with self._lock:
            self._counts[name] -= 1

    def counts(self) -> dict[str, int]:
        """Return how many calls hang, by hook, without those that have none."""
        with self._lock:
            return {name: number for name, number in self._counts.items() if number}

    def refuses(self, name: str) -> bool:
        """Return whether too many calls of this hook hang to begin another."""
        with self._lock:
            return self._counts[name] >= self.per_hook

    @property
    def too_many(self) -> bool:
        """Whether as many calls hang as may hang in all."""
        with self._lock:
            return self._counts.total() >= self.total


class _Call:
    """One call, seen by the thread that waits and by the one that works."""

    def __init__(self, name: str, function: Callable[[], Any], hung: Hung) -> None:
        self._name = name
        self._function = function
        self._hung = hung
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._returned = False
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        with self._lock:
            self._returned = True
            late = self.abandoned
        if late:
            self._hung.remove(self._name)
            log.warning("a call of %s came back after it had been abandoned", self._name)
        self._ended.set()

    def wait(self, timeout: float) -> bool:
        """Wait for the end; return whether it came."""
        self._ended.wait(timeout)
        with self._lock:
            if not self._returned:
                self.abandoned = True
                self._hung.add(self._name)
        return not self.abandoned

    def interrupt(self) -> None:
        """Let the waiting thread go on as though the time were up."""
        self._ended.set()


class HookThread:
    """Runs one call after another in a daemon thread. Used by one thread, except ``interrupt``.

    Args:
        hung: where calls that do not return are counted.
    """

    def __init__(self, hung: Hung) -> None:
        self._hung = hung
        self._inbox: queue.SimpleQueue[_Call | None] | None = None
        self._call: _Call | None = None

    def call(self, name: str, function: Callable[[], T], timeout: float) -> T:
        """Return what ``function`` returns, or raise what it raises.

        Args:
            name: the hook's.
            function: without arguments.
            timeout: seconds.

        Raises:
            HookHung: it did not end in time, or too many calls of this hook hang already.
        """
        if self._hung.refuses(name):
            raise HookHung(f"not called because {self._hung.per_hook} calls of it hang already")
        call = self._call = _Call(name, function, self._hung)
        if self._inbox is None:
            self._inbox = queue.SimpleQueue()
            threading.Thread(
                target=_work, args=(self._inbox,), name=f"postroom-hook-{next(_numbers)}", daemon=True
            ).start()
        self._inbox.put(call)
        in_time = call.wait(timeout)
        self._call = None
        if not in_time:
            self.close()
            raise HookHung(f"no answer within {timeout:g} s")
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def interrupt(self) -> None:
        """End the wait of the call under way, if there is one, as though its time were up; any thread may say so."""
        call = self._call
        if call is not None:
            call.interrupt()

    def close(self) -> None:
        """Let the thread end as soon as it has nothing in hand; another is started when it is needed."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.put(None)


def _work(inbox: "queue.SimpleQueue[_Call | None]") -> None:
    while (call := inbox.get()) is not None:
        call.run()
        # Nothing of a call, least of all a content, is kept while the thread waits for the next.
        del call
