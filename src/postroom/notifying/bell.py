"""A bell that is rung when the journal has grown."""

import logging
import threading
from collections.abc import Callable

__all__ = ["Bell"]

log = logging.getLogger("postroom.notifier")


class Bell:
    """Wakes whoever waits for new events of this process. Thread-safe."""

    __slots__ = ("_changed", "_listeners", "_rung")

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = 0
        self._listeners: tuple[Callable[[], object], ...] = ()

    @property
    def rung(self) -> int:
        """How often it was rung; read it before looking into the journal."""
        return self._rung

    def ring(self) -> None:
        """Wake all who wait and tell all who listen."""
        with self._changed:
            self._rung += 1
            self._changed.notify_all()
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                # It is the store's thread that rings: whoever listens must not be able to harm it.
                log.exception("a listener of the journal raised")

    def wait(self, seen: int, timeout: float) -> int:
        """Wait until it was rung more than ``seen`` times, at most ``timeout`` seconds; return how often it was."""
        with self._changed:
            self._changed.wait_for(lambda: self._rung > seen, timeout)
            return self._rung

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Have ``listener`` called at each ring, in the ringing thread: it must be quick.

        Returns:
            what ends it; calling that twice is harmless.
        """

        # A callable of its own, so that the same listener may be there twice.
        def called() -> None:
            listener()

        def end() -> None:
            with self._changed:
                self._listeners = tuple(each for each in self._listeners if each is not called)

        with self._changed:
            self._listeners = (*self._listeners, called)
        return end
