"""When a receiver is opened, interrupted, given up, and when it may run at all: the rules of its actor, as values.

::

              lease (exclusive ones)         session
    wanted ── asked ── held ───────────► opening ── first poll ──► at work
      ▲          │       │                  │                        │
      └─ pause ──┘ no    └ lost: stopped    └──── failed: pause ◄────┘
                                                    ▲
                          no sign of life: interrupted ── grace ──► abandoned

All times are monotonic seconds. Nothing here waits, and nothing knows threads.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tenacity.wait import wait_base

from postroom.breaker import consecutive_wait, default_probe_wait
from postroom.retries import MAX_RETRY_AFTER

__all__ = ["ANSWER_SECONDS", "GRACE_SECONDS", "LEASE_SECONDS", "Step", "Watching"]

LEASE_SECONDS: Final = 60.0
"""How long a process that has died keeps others from running its exclusive receivers, at most."""

PROLONG_SECONDS: Final = LEASE_SECONDS / 3
"""How old a lease is when it is prolonged; also the pause until one that somebody else has is asked for again."""

ANSWER_SECONDS: Final = 10.0
"""How long the store's answer about a lease is waited for until it is asked again."""

ASK_AGAIN_SECONDS: Final = 1.0
"""The pause when the store could not answer."""

GRACE_SECONDS: Final = 5.0
"""How long a session has to heed an interrupt until its porter is given up."""

QUIET_SECONDS: Final = 60.0
"""How long a session has to live for its failures of before to be forgotten."""


class Step(StrEnum):
    """What the actor has to do now."""

    ASK = "ask for the lease"
    OPEN = "let a porter open a session"
    INTERRUPT = "interrupt the porter's session"
    ABANDON = "give the porter up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Where a receiver stands, as its actor knows it.

    Attributes:
        exclusive: it needs a lease.
        leased_until: until when the lease holds, None without one.
        asked_at: when the store was asked, None when it is not being asked.
        ask_at: when it is asked next.
        open_at: when a session may be opened next.
        opened_at: when the present porter began, None without a porter.
        polled: its session got through a poll.
        took: its session took something.
        ending: the porter was told to end, or interrupted, then.
        failures: sessions in a row that failed soon.
    """

    exclusive: bool
    leased_until: float | None = None
    asked_at: float | None = None
    ask_at: float = 0.0
    open_at: float = 0.0
    opened_at: float | None = None
    polled: bool = False
    took: bool = False
    ending: float | None = None
    failures: int = 0

    def may_run(self, now: float) -> bool:
        """Return whether a session may take messages."""
        return not self.exclusive or (self.leased_until is not None and now < self.leased_until)

    def heeds(self, status: str) -> bool:
        """Return whether what a session says of itself is to be shown.

        What fails again and again is down, and not by turns down, connecting and up.
        """
        if self.ending is not None:
            return False
        return self.polled or not self.failures or status == "down"

    # What is to be done

    def step(self, now: float, deadline: float | None) -> Step | None:
        """Return what is to be done first, None for nothing now.

        Args:
            now: monotonic seconds.
            deadline: when the porter will be taken to hang, None without a porter.
        """
        if self.exclusive and now >= self._ask_due():
            return Step.ASK
        if self.opened_at is None:
            return Step.OPEN if self.may_run(now) and now >= self.open_at else None
        if self.ending is not None:
            return Step.ABANDON if now >= self.ending + GRACE_SECONDS else None
        if not self.may_run(now) or (deadline is not None and now >= deadline):
            return Step.INTERRUPT
        return None

    def due(self, now: float, deadline: float | None) -> float:
        """Return when :meth:`step` will have something to say if nothing happens, infinity for never."""
        times: list[float] = []
        if self.exclusive:
            times.append(self._ask_due())
        if self.opened_at is None:
            if self.may_run(now):
                times.append(self.open_at)
        elif self.ending is not None:
            times.append(self.ending + GRACE_SECONDS)
        else:
            times += [
                each for each in (deadline, self.leased_until if self.exclusive else None) if each is not None
            ]
        return min(times, default=float("inf"))

    def _ask_due(self) -> float:
        return self.ask_at if self.asked_at is None else self.asked_at + ANSWER_SECONDS

    # What happens

    def asking(self, now: float) -> "Watching":
        """The store is being asked for the lease."""
        return replace(self, asked_at=now)

    def leased(self, now: float, *, granted: bool | None) -> "Watching":
        """The store has answered: the lease is ours, somebody else's, or (None) it could not say.

        The lease counts from when it was asked for, so that it never outlasts the store's opinion of it.
        """
        if self.asked_at is None:
            return self
        if granted is None:
            return replace(self, asked_at=None, ask_at=now + ASK_AGAIN_SECONDS)
        since = self.asked_at
        return replace(
            self,
            asked_at=None,
            ask_at=since + PROLONG_SECONDS,
            leased_until=since + LEASE_SECONDS if granted else None,
        )

    def opening(self, now: float) -> "Watching":
        """A porter begins."""
        return replace(self, opened_at=now, polled=False, took=False, ending=None)

    def got_through(self) -> "Watching":
        """The session got through a poll."""
        return replace(self, polled=True)

    def took_something(self) -> "Watching":
        """The session took a message."""
        return replace(self, took=True)

    def interrupted(self, now: float) -> "Watching":
        """The session was interrupted."""
        return replace(self, ending=now)

    def failed(self, now: float, wait: wait_base | None, retry_after: float | None = None) -> "Watching":
        """The porter is gone, or given up."""
        lived = self.opened_at is not None and now - self.opened_at >= QUIET_SECONDS
        failures = 1 if self.polled and (lived or self.took) else self.failures + 1
        pause = max(
            consecutive_wait(wait or default_probe_wait(), failures),
            min(retry_after or 0.0, MAX_RETRY_AFTER),
        )
        return replace(self, opened_at=None, ending=None, failures=failures, open_at=now + pause)

    def stopped(self) -> "Watching":
        """The porter ended because it was not to run any more."""
        return replace(self, opened_at=None, ending=None, failures=0, open_at=0.0)

    def hurried(self) -> "Watching":
        """An operator wants it to be tried at once."""
        ask_at = self.ask_at if self.leased_until is not None else 0.0
        return replace(self, open_at=0.0, ask_at=ask_at)
