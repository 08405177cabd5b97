"""What the demo's audience sees at one moment: plain values, and the timeline that threads write to."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from postroom.recipients import State
from postroom.spooler import Spooler
from postroom.status import TransportStatus

__all__ = ["Row", "Sample", "Sampler", "Timeline"]

RATE_SECONDS: Final = 1.0
HISTORY: Final = 600


class Timeline:
    """What happened, and the caption for what is going on. Thread-safe.

    Attributes:
        caption: for the present act.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.caption = ""
        self._lock = threading.Lock()
        self._lines: list[tuple[float, str]] = []

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        """Add a line."""
        with self._lock:
            self._lines.append((self.seconds, text))

    def lines(self, after: int = 0) -> list[tuple[float, str]]:
        """Return the lines, but for the first ``after``."""
        with self._lock:
            return self._lines[after:]


@dataclass(frozen=True, slots=True)
class Row:
    """One transport."""

    status: TransportStatus
    settled: int
    rate: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment.

    Attributes:
        seconds: since the beginning.
        accepted: recipients made durable.
        settled: of these, settled.
        waiting: of these, not settled.
        accept_rate: recipients accepted per second.
        settle_rate: recipients settled per second.
        rows: one for each transport.
        depths: how many waited, up to now.
    """

    seconds: float
    accepted: int
    settled: int
    waiting: int
    accept_rate: float
    settle_rate: float
    rows: Sequence[Row]
    depths: Sequence[int]


class Sampler:
    """Takes samples of a spooler through its public methods. Used by one thread.

    Args:
        spooler: a running one.
        timeline: for the time.
    """

    def __init__(self, spooler: Spooler, timeline: Timeline) -> None:
        self._spooler = spooler
        self._timeline = timeline
        self._past: deque[tuple[float, int, dict[str, int]]] = deque()
        self._depths: deque[int] = deque(maxlen=HISTORY)

    def take(self) -> Sample:
        """Return how things stand now."""
        now = self._timeline.seconds
        tally = self._spooler.tally()
        accepted = sum(tally.accepted.values())
        statuses = self._spooler.transports()
        settled = {
            status.name: sum(tally.states.get((status.name, state), 0) for state in State if state.is_final)
            for status in statuses
        }
        self._past.append((now, accepted, settled))
        while len(self._past) > 2 and now - self._past[1][0] >= RATE_SECONDS:
            self._past.popleft()
        then, accepted_then, settled_then = self._past[0]
        seconds = max(now - then, 0.1)
        rows = [
            Row(
                status,
                settled[status.name],
                (settled[status.name] - settled_then.get(status.name, 0)) / seconds,
            )
            for status in statuses
        ]
        self._depths.append(tally.pending)
        return Sample(
            now, accepted, sum(settled.values()), tally.pending, (accepted - accepted_then) / seconds,
            sum(row.rate for row in rows), rows, tuple(self._depths),
        )  # fmt: skip
