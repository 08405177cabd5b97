"""What the connections of one listener share: its rules, its workers, what is in hand, who is connected."""

import asyncio
import logging
import queue
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from postroom.receivers.listener_auth import Auth
from postroom.receivers.listener_intake import Intake, Transaction
from postroom.receivers.listener_policy import Local, Relaying

__all__ = ["Caller", "Hub", "Rules", "Workers"]

log = logging.getLogger("postroom.receivers.listener")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of a listener as its connections need them; see :mod:`postroom.receivers.listener`."""

    protocol: Literal["smtp", "lmtp"]
    hostname: str
    local: Local
    local_blocks: bool
    relaying: Relaying
    auth: Auth | None
    insecure_auth: bool
    starttls: ssl.SSLContext | None
    max_message_size: int
    max_recipients: int
    max_connections: int
    max_buffered: int
    max_errors: int
    max_auth_failures: int
    timeout: float
    data_timeout: float


class Caller(Protocol):
    """A connection, as the server sees it that ends it."""

    def dismiss(self) -> None:
        """Say goodbye and close, at once or when the message in hand is answered."""
        ...

    def cut(self) -> None:
        """Close without a word."""
        ...


class Workers:
    """Threads that block in the event loop's place, started as they are needed; daemons, so that none is waited for.

    Args:
        name: of the threads.
        count: how many at most.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def run(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns, or raise what it raises; called from the event loop.

        A caller that is cancelled meanwhile does not stop the function.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                self._tell(loop, _fail, future, error)
            else:
                self._tell(loop, _succeed, future, result)

        with self._lock:
            if self._idle <= self._jobs.qsize() and len(self._threads) < self._count:
                number = len(self._threads) + 1
                thread = threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)
        return await future

    def stop(self, timeout: float) -> None:
        """Let the threads end, and wait for them for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
            job()
            # No content is kept while the thread waits for the next.
            del job

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
        # A loop that is closed has nobody left who would be told.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function, *arguments)


def _succeed(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


@dataclass(kw_only=True, eq=False)
class Hub:
    """The shared state; all but ``rules``, ``intake`` and the workers belongs to the event loop's thread.

    Attributes:
        rules: what is allowed.
        intake: where finished messages go.
        takers: the threads that wait for the spool.
        askers: the threads that wait for other people's answers (``local``, ``auth``), so that a spool that is stuck
            does not keep recipients from being judged.
        callers: the connections.
        closing: the listener is being closed.
        buffered: octets of contents in memory.
        gone: set whenever there are no connections.
    """

    rules: Rules
    intake: Intake
    takers: Workers
    askers: Workers
    callers: set[Caller] = field(default_factory=set[Caller])
    closing: bool = False
    buffered: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: int = 0

    def enter(self, caller: Caller) -> None:
        """Note a connection."""
        self.callers.add(caller)
        self.gone.clear()

    def leave(self, caller: Caller) -> None:
        """Forget a connection, if it is known."""
        self.callers.discard(caller)
        if not self.callers:
            self.gone.set()

    def reserve(self, octets: int) -> bool:
        """Make room for a piece of a content; False when too much is in memory."""
        if self.buffered + octets > self.rules.max_buffered:
            return False
        self.buffered += octets
        return True

    def take(self, transaction: Transaction, wire: bytes) -> tuple[str, ...]:
        """Hand a message over; see :meth:`Intake.take`. For the takers."""
        replies = self.intake.take(transaction, wire)
        if any(reply.startswith("2") for reply in replies):
            with self._lock:
                self._taken += 1
        return replies

    def tally(self) -> int:
        """Return how many messages the spool took since the last call. From any thread."""
        with self._lock:
            taken, self._taken = self._taken, 0
        return taken
