"""The states of a recipient and which of them are final."""

from enum import IntEnum
from typing import Self

__all__ = ["FINAL_STATES", "PENDING_STATES", "State"]

_FIRST_FINAL = 10


class State(IntEnum):
    """Where a recipient stands. The numbers are stored: never change their meaning.

    ``accepted recipients = final + pending`` at all times (the ledger).
    """

    QUEUED = 0
    """Waits for its turn, now or later; with attempts > 0 it is what Postfix calls deferred."""
    SENDING = 1
    """Journalled before the attempt, for transports with ``in_doubt="hold"`` only."""
    ACCEPTED = 2
    """The other side took it and will report later."""
    HELD = 3
    """Waits until an operator releases it."""
    DELIVERED = 10
    """Final: in the recipient's mailbox or application."""
    RELAYED = 11
    """Final: the next system took responsibility."""
    FAILED = 12
    """Final: refused for good."""
    EXPIRED = 13
    """Final: temporary trouble lasted too long, or ``expires_at`` passed."""
    CANCELLED = 14
    """Final: recalled before it was sent."""

    is_final: bool
    """Whether the recipient is settled."""
    label: str
    """The lower-case name, as in metrics and on the command line."""

    def __new__(cls, value: int) -> Self:
        """Make a member with its attributes worked out once: they are read for every message."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.is_final = value >= _FIRST_FINAL
        return member

    def __init__(self, value: int) -> None:
        del value
        self.label = self.name.lower()


PENDING_STATES = tuple(state for state in State if not state.is_final)
FINAL_STATES = tuple(state for state in State if state.is_final)
