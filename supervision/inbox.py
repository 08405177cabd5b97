"""The queue between an actor and the world, with the signs of life of the actor behind it.

They are together, so that whoever holds an ``ActorRef`` can see them, as ``ref.actor_inbox``.
"""

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pykka

from postroom.supervision.letters import ActorStop, Envelope

__all__ = ["Mailbox"]

_log = logging.getLogger("postroom.supervision")


class Mailbox(queue.SimpleQueue[Envelope[Any]]):
    """An unbounded queue of envelopes with the signs of life of the actor that reads it. Thread-safe.

    Attributes:
        busy_since: monotonic seconds at which the actor began what it does now, or None while it waits for
            letters.
        dropped: letters that were waiting when the actor ended, and were never handled.
        abandoned: whether a supervisor gave the actor up; it ends as soon as it comes back.
        thread: the actor's thread once it has been started.
        monotonic: the actor's clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.busy_since: float | None = None
        self.dropped = 0
        self.abandoned = False
        self.thread: threading.Thread | None = None
        self.monotonic: Callable[[], float] = time.monotonic
        self._lock = threading.Lock()
        self._ready = False
        self._closed = False
        self._ended = False
        self._failure: BaseException | None = None
        self._on_ready: Callable[[], None] | None = None
        self._on_close: Callable[[], None] | None = None
        self._on_exit: Callable[[BaseException | None], None] | None = None

    def busy_for(self) -> float:
        """Return for how many seconds the actor has been at what it does now; 0 while it waits."""
        since = self.busy_since
        return 0.0 if since is None else self.monotonic() - since

    @property
    def closed(self) -> bool:
        """Whether the actor handles no more letters: it is in its last hook, or past it."""
        return self._closed

    @property
    def ended(self) -> bool:
        """Whether the actor is past its last hook (``on_stop`` or ``on_failure``)."""
        return self._ended

    def watch(
        self,
        *,
        on_ready: Callable[[], None],
        on_close: Callable[[], None],
        on_exit: Callable[[BaseException | None], None],
    ) -> None:
        """Set the one watcher; what has happened already is told at once, in the calling thread.

        Args:
            on_ready: called in the actor's thread when ``on_start`` has finished.
            on_close: called in the dying thread when no more letters will be handled, before the last hook.
            on_exit: called in the dying thread after the last hook, with what it failed with or None.
        """
        with self._lock:
            ready, closed, ended, failure = self._ready, self._closed, self._ended, self._failure
            self._on_ready, self._on_close, self._on_exit = on_ready, on_close, on_exit
            self._failure = None
        if ready:
            _guarded(on_ready)
        if closed:
            _guarded(on_close)
        if ended:
            _guarded(on_exit, failure)

    def drain(self) -> int:
        """Throw away what waits, answer asks with ``ActorDeadError``; return how many letters were lost."""
        lost = 0
        while True:
            try:
                envelope = self.get_nowait()
            except queue.Empty:
                break
            lost += self.refuse((envelope,))
        return lost

    def refuse(self, envelopes: Iterable[Envelope[Any]]) -> int:
        """Answer and count letters that nobody will handle; return how many (stop letters are none)."""
        lost = 0
        for envelope in envelopes:
            stop = type(envelope.message) is ActorStop
            lost += not stop
            if envelope.reply_to is not None and stop:
                envelope.reply_to.set(None)
            elif envelope.reply_to is not None:
                dead = pykka.ActorDeadError("the actor ended before it handled the letter")
                envelope.reply_to.set_exception((pykka.ActorDeadError, dead, None))
        with self._lock:
            self.dropped += lost
        return lost

    def ready(self) -> None:
        """Tell the watcher that the actor is up. For the actor's own thread."""
        with self._lock:
            self._ready = True
            tell = self._on_ready
        if tell is not None:
            _guarded(tell)

    def close(self) -> None:
        """Tell the watcher that no more letters will be handled. For the actor's own thread."""
        with self._lock:
            self._closed = True
            tell = self._on_close
        if tell is not None:
            _guarded(tell)

    def end(self, failure: BaseException | None) -> None:
        """Tell the watcher that the actor has ended, and how. For the actor's own thread."""
        with self._lock:
            self._ended = True
            tell = self._on_exit
            # Kept only while nobody has been told: a traceback holds the whole actor.
            self._failure = failure if tell is None else None
        if tell is not None:
            _guarded(tell, failure)


def _guarded(function: Callable[..., None], *args: object) -> None:
    try:
        function(*args)
    except BaseException:  # noqa: BLE001 - a watcher's failure must not reach the watched
        _log.error("a watcher failed", exc_info=sys.exc_info())
