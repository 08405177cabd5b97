"""An actor that empties its mailbox in batches, shows whether it hangs, and reports its end."""

import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import repeat, starmap
from types import TracebackType
from typing import Any, ClassVar

import pykka

from postroom.supervision.errors import HungChild, InjectedCrash
from postroom.supervision.inbox import Mailbox
from postroom.supervision.letters import CONTROL_LETTERS, ActorStop, Crash, Envelope

__all__ = ["MailboxActor"]

_log = logging.getLogger("postroom.supervision")

_LONGEST_WAIT = 86_400.0
"""Seconds; what a lock can wait at most differs between platforms, so wakes are capped below it."""


class MailboxActor(pykka.ThreadingActor):
    """A pykka actor that takes all that waits in its mailbox at once.

    Override the hooks; all run in the actor's own thread.

    Tells are handed to :meth:`on_letters` in batches, in order. An ask is handed to :meth:`on_ask` alone,
    after the tells before it. ``on_start``, ``on_stop`` and ``on_failure`` are pykka's. What differs from
    pykka:

    * A ``SystemExit`` or ``KeyboardInterrupt`` inside the actor is a failure of this actor, never the end of
      all actors of the process (pykka answers one with ``ActorRegistry.stop_all()``).
    * A failing ``on_start`` or ``on_stop`` is a failure like any other: ``on_failure`` is called and the
      watcher told.
    * An exception is logged once, by the logger ``postroom.supervision``.

    Attributes:
        batch_limit: letters taken at once at most; bounds how long a batch takes.
        ready_after_start: whether the actor counts as up when ``on_start`` returns. An actor that is up only
            later sets it to False and calls ``self.mailbox.ready()`` itself.
        monotonic: the clock behind ``next_wake`` and ``busy_since``.
        name: the name of its thread; set it on the class, or in ``__init__``.
    """

    use_daemon_thread: ClassVar[bool] = True
    batch_limit: ClassVar[int] = 1000
    ready_after_start: ClassVar[bool] = True
    monotonic: Callable[[], float] = staticmethod(time.monotonic)
    name: str = "postroom-actor"
    # Set once, by pykka, to what _create_actor_inbox returns.
    actor_inbox: Mailbox  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._behind: deque[Envelope[Any]] = deque()

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox with the signs of life; safe to read from any thread."""
        return self.actor_inbox

    @property
    def busy_since(self) -> float | None:
        """Monotonic seconds at which the current batch or hook began; None while waiting. Any thread."""
        return self.actor_inbox.busy_since

    def tell_self(self, letter: object) -> bool:
        """Put a letter into this very actor's mailbox, from any thread; False if the actor has ended.

        A handle that is to lead here may not do so yet while the actor starts.
        """
        try:
            self.actor_ref.tell(letter)
        except pykka.ActorDeadError:
            return False
        return True

    def depth(self) -> int:
        """Return how many letters wait, without those of the current batch. Any thread may ask."""
        return self.actor_inbox.qsize()

    def on_letters(self, letters: list[object]) -> None:
        """Handle a batch of tells, in order. An exception ends the actor, and the batch with it."""
        _log.warning("%s has no use for %d letters, the first is %r", self.name, len(letters), letters[0])

    def on_ask(self, letter: object) -> object:
        """Return the answer to an ask. An ``Exception`` goes to the asker and the actor lives on."""
        raise NotImplementedError(f"{self.name} answers no asks; it was asked {letter!r}")

    def next_wake(self) -> float | None:
        """Return when :meth:`on_wake` is due, in monotonic seconds, or None. Asked before each wait."""
        return None

    def on_wake(self) -> None:
        """Do what was due at ``next_wake``, which must be later or None afterwards."""

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    def _start_actor_loop(self) -> None:
        thread = threading.Thread(target=self._actor_loop, name=self.name, daemon=self.use_daemon_thread)
        self.actor_inbox.thread = thread
        self.actor_inbox.monotonic = self.monotonic
        thread.start()

    def _actor_loop(self) -> None:
        failure: BaseException | None = None
        try:
            self._actor_loop_setup()
            self._actor_loop_running()
            if not self.actor_inbox.closed:
                raise HungChild(f"{self.name} came back after it had been abandoned")  # noqa: TRY301 - ends like any failure
        except BaseException as exception:  # noqa: BLE001 - a SystemExit too is this actor's failure and nobody else's
            failure = exception
            self._fail(exception)
        self._actor_loop_teardown()
        self.actor_inbox.end(failure)

    def _actor_loop_setup(self) -> None:
        self.actor_inbox.busy_since = self.monotonic()
        self.on_start()
        self.actor_inbox.busy_since = None
        if self.ready_after_start:
            self.actor_inbox.ready()

    def _actor_loop_running(self) -> None:
        mailbox = self.actor_inbox
        stopped = self.actor_stopped
        while not stopped.is_set():
            envelopes = self._wait()
            if envelopes:
                mailbox.busy_since = self.monotonic()
                self._handle(envelopes)
                mailbox.busy_since = None

    def _actor_loop_teardown(self) -> None:
        self.actor_inbox.refuse(self._behind)
        self._behind.clear()
        self.actor_inbox.drain()
        self.actor_inbox.busy_since = None

    def _wait(self) -> list[Envelope[Any]]:
        """Wait for letters or for the wake-up; return what is there, which may be nothing."""
        mailbox = self.actor_inbox
        wake = self.next_wake()
        if wake is None:
            first = mailbox.get()
        else:
            now = self.monotonic()
            try:
                if wake > now:
                    first = mailbox.get(timeout=min(wake - now, _LONGEST_WAIT))
                else:
                    mailbox.busy_since = now
                    self.on_wake()
                    mailbox.busy_since = None
                    # Letters are looked at too, so that wakes in quick succession cannot starve them.
                    first = mailbox.get_nowait()
            except queue.Empty:
                return []
        # This thread is the only reader, so what is counted here is there to be taken without blocking.
        waiting = min(mailbox.qsize(), self.batch_limit - 1)
        return [first, *starmap(mailbox.get_nowait, repeat((), waiting))]

    def _handle(self, envelopes: list[Envelope[Any]]) -> None:
        letters: list[object] = [envelope.message for envelope in envelopes if envelope.reply_to is None]
        if len(letters) == len(envelopes) and CONTROL_LETTERS.isdisjoint(map(type, letters)):
            self.on_letters(letters)
        else:
            self._handle_mixed(envelopes)

    def _handle_mixed(self, envelopes: list[Envelope[Any]]) -> None:
        behind = self._behind = deque(envelopes)
        letters: list[object] = []
        while behind and not self.actor_stopped.is_set():
            envelope = behind[0]
            if envelope.reply_to is None and type(envelope.message) not in CONTROL_LETTERS:
                letters.append(behind.popleft().message)
                continue
            if letters:
                batch, letters = letters, []
                self.on_letters(batch)
            self._handle_one(behind.popleft())
        if letters:
            self.on_letters(letters)

    def _handle_one(self, envelope: Envelope[Any]) -> None:
        reply_to = envelope.reply_to
        if type(envelope.message) is ActorStop:
            try:
                self._stop()
            finally:
                # Who asked for the stop learns that it is over; a failure of on_stop is the watcher's to
                # know.
                if reply_to is not None:
                    reply_to.set(None)
            return
        if reply_to is None:
            self._handle_receive(envelope.message)
            return
        try:
            answer = self._handle_receive(envelope.message)
        except InjectedCrash:
            reply_to.set_exception()
            raise
        except Exception:  # noqa: BLE001 - it is the asker's
            reply_to.set_exception()
        except BaseException:
            # The asker must not be ended by the SystemExit of somebody else's thread.
            dead = pykka.ActorDeadError(f"{self.name} died of the letter")
            reply_to.set_exception((pykka.ActorDeadError, dead, None))
            raise
        else:
            reply_to.set(answer)

    def _handle_receive(self, message: Any) -> Any:
        if isinstance(message, Crash):
            raise InjectedCrash(message.reason)
        return super()._handle_receive(message)

    def on_receive(self, message: Any) -> Any:
        """Pass an ask on to :meth:`on_ask`; pykka's own letters are handled before. Not for overriding."""
        return self.on_ask(message)

    def _stop(self) -> None:
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        self.actor_inbox.close()
        self.on_stop()

    def _fail(self, failure: BaseException) -> None:
        self._handle_failure(type(failure), failure, failure.__traceback__)
        self.actor_inbox.close()
        try:
            self.on_failure(type(failure), failure, failure.__traceback__)
        except BaseException:  # noqa: BLE001 - whatever it is, this thread is ending anyway
            _log.error("%s failed again in on_failure", self.name, exc_info=sys.exc_info())

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception_type is not None and exception_value is not None:
            _log.error("%s failed", self.name, exc_info=(exception_type, exception_value, traceback))
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
