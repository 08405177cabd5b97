"""What a supervisor tells: events as they happen, and rows that show how things stand."""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "ChildAbandoned",
    "ChildDown",
    "ChildEnded",
    "ChildRestarting",
    "ChildRow",
    "ChildStarted",
    "ChildState",
    "SupervisionEvent",
]


class ChildState(Enum):
    """Where a child stands."""

    WAITING = "waiting"
    """To be started: not tried yet, in back-off, or behind an earlier child that is."""
    STARTING = "starting"
    """In ``on_start``."""
    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to stop and not ended yet."""
    DOWN = "down"
    """Failed too often; tried again at the capped back-off."""
    ENDED = "ended"
    """Ended, and not to be restarted."""
    STOPPED = "stopped"
    """Stopped together with its supervisor."""


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """A child is up: its ``on_start`` has finished.

    Attributes:
        name: its path.
        incarnation: 1 at its first start.
    """

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A child has ended.

    Attributes:
        name: its path.
        incarnation: which one; 0 when it could not even be made.
        exception: what it failed with; None for an orderly end.
        traceback: the formatted traceback, or an empty text.
    """

    name: str
    incarnation: int
    exception: BaseException | None
    traceback: str


@dataclass(frozen=True, slots=True)
class ChildRestarting:
    """A child will be started again.

    Attributes:
        name: its path.
        at: monotonic seconds of the start at the earliest.
        delay: seconds until then.
        consecutive: restarts since it last ran for a quiet time, with this one.
    """

    name: str
    at: float
    delay: float
    consecutive: int


@dataclass(frozen=True, slots=True)
class ChildDown:
    """A child exceeded its restart intensity.

    Told once per spell, which ends when the child has run for a quiet time.

    Attributes:
        name: its path.
        at: monotonic seconds at which it will be tried again.
        delay: seconds until then.
        consecutive: restarts since it last ran for a quiet time.
    """

    name: str
    at: float
    delay: float
    consecutive: int


@dataclass(frozen=True, slots=True)
class ChildAbandoned:
    """A child did not come back in time: its thread is left behind, and it can be addressed no more.

    Attributes:
        name: its path.
        incarnation: which one.
        reason: what it was too slow at.
    """

    name: str
    incarnation: int
    reason: str


SupervisionEvent = ChildStarted | ChildEnded | ChildRestarting | ChildDown | ChildAbandoned


@dataclass(frozen=True, slots=True)
class ChildRow:
    """How one child stands.

    Attributes:
        name: its path, for example ``transports/smtp``.
        state: see :class:`ChildState`.
        incarnation: how many have been started under its handle.
        restarts: how often it was started again, for whatever reason; never falls.
        last_error: the last failure as text, or None.
        next_start_at: monotonic seconds of the next start while it waits for one, else None.
    """

    name: str
    state: ChildState
    incarnation: int = 0
    restarts: int = 0
    last_error: str | None = None
    next_start_at: float | None = None
