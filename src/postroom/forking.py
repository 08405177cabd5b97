"""What ``fork()`` does to a spooler: threads do not survive it, and SQLite connections must not be touched after it.

In the child every running spooler is marked. Its connections are deliberately never closed there: closing one would run
a checkpoint with locks that belong to the parent (https://sqlite.org/howtocorrupt.html, section 2.6).
"""

import os
import weakref
from typing import Protocol

__all__ = ["Forkable", "watch"]


class Forkable(Protocol):
    """Something that must know that it is in a forked child."""

    def after_fork(self) -> None:
        """Be told, in the child, before any other code runs there."""
        ...


_watched: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_leaked: list[object] = []


def watch(thing: Forkable) -> None:
    """Tell ``thing`` when the process is forked, for as long as it lives."""
    _watched.add(thing)


def leak(thing: object) -> None:
    """Keep ``thing`` from ever being finalised in this process."""
    _leaked.append(thing)


def _after_fork() -> None:
    for thing in list(_watched):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
