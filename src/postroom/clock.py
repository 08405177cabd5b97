"""Time comes in from outside, so that tests can turn it."""

import threading
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Where the time comes from."""

    def time(self) -> float:
        """Seconds since the Unix epoch (wall clock: due times survive restarts)."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back (durations and deadlines within a process)."""
        ...


class SystemClock:
    """The machine's clocks. Thread-safe."""

    def time(self) -> float:
        """Return the seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move. Thread-safe."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._wall = start
        self._monotonic = 0.0

    def time(self) -> float:
        """Return the wall-clock time last set, in seconds since the Unix epoch."""
        with self._lock:
            return self._wall

    def monotonic(self) -> float:
        """Return the seconds that ``advance`` has added so far."""
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by ``seconds`` (not negative)."""
        if seconds < 0:
            raise ValueError(f"seconds: {seconds} is negative; a clock is advanced forward")
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds
