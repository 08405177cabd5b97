"""How a receiver does."""

from dataclasses import dataclass

__all__ = ["ReceiverStatus"]


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """How a receiver does in this process.

    Attributes:
        name: the receiver's.
        status: "up", "connecting", "down", "standby" (another process runs it) or "starting".
        reason: why it is not up, "" when it is.
        since: wall-clock seconds at which it came to that.
        until: wall-clock seconds of the next try, or None.
        taken: messages it took since the start of this process.
        last_taken: wall-clock seconds of the last of them, or None.
        failures: in a row.
    """

    name: str
    status: str
    reason: str = ""
    since: float = 0.0
    until: float | None = None
    taken: int = 0
    last_taken: float | None = None
    failures: int = 0
