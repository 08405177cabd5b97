"""What supervision raises. It is apart from ``postroom.errors`` because supervision imports nothing of ours.

::

    SupervisionError
    ├── ChildUnavailable          an ask got no answer
    │   └── AskTimeout            … within its time
    ├── SupervisorStateError      started twice, or used after its end (also a RuntimeError)
    ├── UnknownChild              no child has this path (also a LookupError)
    ├── StartTimeout              a child's start took too long (also a TimeoutError)
    ├── HungChild                 a child was busy with one batch for too long, and was abandoned
    ├── LostChild                 a child ended without saying why
    └── InjectedCrash             the failure asked for by a ``Crash`` letter
"""

__all__ = [
    "AskTimeout",
    "ChildUnavailable",
    "HungChild",
    "InjectedCrash",
    "LostChild",
    "StartTimeout",
    "SupervisionError",
    "SupervisorStateError",
    "UnknownChild",
]


class SupervisionError(Exception):
    """The root of what supervision raises."""


class ChildUnavailable(SupervisionError):
    """A child did not answer an ask because it is not alive, or died before it answered.

    Attributes:
        sent: False when the letter certainly reached nobody; True when it may have been handled.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class AskTimeout(ChildUnavailable):
    """A child is alive but did not answer in time; it may still handle the letter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, sent=True)


class SupervisorStateError(SupervisionError, RuntimeError):
    """A supervisor was started twice or used after it was stopped; make a new one."""


class UnknownChild(SupervisionError, LookupError):
    """No child of this supervisor has the path that was asked for."""


class StartTimeout(SupervisionError, TimeoutError):
    """A child's ``on_start`` had not finished in time."""


class HungChild(SupervisionError):
    """A child did not come back from a batch in time; it was abandoned and its place given to a new one."""


class LostChild(SupervisionError):
    """A child's thread ended without a word; a plain pykka actor leaves its traceback in pykka's log."""


class InjectedCrash(SupervisionError):
    """The failure that a ``Crash`` letter asks for."""
