"""What one transport has in memory: Postfix's *active queue*.

It is bounded (so memory follows the window, never the backlog), and it outlives its actor: a job that a courier has in
hand when the transport actor crashes is still known afterwards, and its outcome is still settled exactly once.

A job goes WAITING → SENDING → ENDED → SETTLING → GONE. Whoever moves it does so under the queue's lock, so that only
one of two rivals (a courier and the watchdog, an operator and a courier, two incarnations of an actor) wins.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from postroom.brief import BriefLock
from postroom.delivery import Delivery, Target
from postroom.destinations import Gates
from postroom.options import MessageOptions
from postroom.outcomes import Outcome
from postroom.stores.base import NewMessage, Settlement

__all__ = ["ActiveQueue", "Crash", "Job", "Outage", "Phase", "Result", "TimedOut"]


EXPRESS_SHARE = 16
"""A tenant who has less than this part of the window finds room in a window that others have filled …"""

EXPRESS_ROOM = 8
"""… up to this part of it more."""


class Phase(IntEnum):
    """Where a job is."""

    WAITING = 0
    SENDING = 1
    ENDED = 2
    SETTLING = 3
    GONE = 4


@dataclass(frozen=True, slots=True)
class Outage:
    """The messaging system as a whole was unavailable."""

    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """A courier crashed while it had the job."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The courier did not come back in time and was abandoned."""

    seconds: float


Result = Sequence[Outcome] | Outage | Crash | TimedOut


class Job:
    """One message and some of its recipients, owned by this instance, on the way through one transport.

    All its targets have the same ``destination`` where the transport looks at destinations, and the same ``variant`` of
    the content. ``added`` are messages that a preprocessor wants stored together with the settlements.

    Plain attributes; ``phase``, ``result``, ``holder`` and ``settlements`` are changed by the active queue only.
    """

    __slots__ = (
        "added",
        "content",
        "crashes",
        "created",
        "destination",
        "due",
        "eight_bit",
        "ended",
        "epoch",
        "expires",
        "followed",
        "holder",
        "journalled",
        "key",
        "options",
        "phase",
        "priority",
        "recipient_count",
        "report",
        "result",
        "sender",
        "settlements",
        "size",
        "smtputf8",
        "started",
        "targets",
        "tenant",
        "transport",
        "turn",
        "variant",
    )

    def __init__(  # noqa: PLR0913 - a record; every field is named by its caller
        self,
        *,
        key: int,
        transport: str,
        epoch: int,
        sender: str,
        targets: tuple[Target, ...],
        content: bytes | None,
        size: int,
        created: float,
        due: float,
        recipient_count: int,
        priority: int = 0,
        expires: float | None = None,
        smtputf8: bool = False,
        eight_bit: bool = False,
        crashes: int = 0,
        tenant: str = "",
        destination: str = "",
        report: str = "failure",
        options: MessageOptions | None = None,
        followed: bool = False,
    ) -> None:
        self.key = key
        self.transport = transport
        self.epoch = epoch
        self.sender = sender
        self.targets = targets
        self.content = content
        self.size = size
        self.created = created
        self.due = due
        self.recipient_count = recipient_count
        self.priority = priority
        self.expires = expires
        self.smtputf8 = smtputf8
        self.eight_bit = eight_bit
        self.crashes = crashes
        self.tenant = tenant
        self.destination = destination
        self.report = report
        self.options = options
        self.followed = followed
        self.variant = targets[0].variant
        self.added: Sequence[NewMessage] = ()
        self.journalled = False
        self.phase = Phase.WAITING
        self.turn: list[None] = [None]
        self.holder: object = None
        self.started = 0.0
        self.ended = 0.0
        self.result: Result | None = None
        self.settlements: Sequence[Settlement] = ()

    def delivery(self, content: bytes) -> Delivery:
        """Return what the transport's session gets to see."""
        return Delivery(
            self.key, self.sender, self.targets, content, self.created, self.smtputf8, self.eight_bit, self.priority,
            self.expires, self.report, self.options,
        )  # fmt: skip


def _take(job: Job, phase: Phase) -> bool:
    """Take the job's turn token if it is in ``phase``; whoever has it must give it back with its new phase set."""
    while job.phase is phase:
        try:
            job.turn.pop()
        except IndexError:
            # Somebody is in the middle of moving it, a few bytecodes away from being done.
            time.sleep(0)
            continue
        if job.phase is phase:
            return True
        job.turn.append(None)
    return False


class ActiveQueue:
    """The jobs of one transport in one process.

    Thread-safe, with one restriction: room is reserved, taken and released by one thread, the store actor's.

    The window may be full of one tenant's work while another's single message comes. For that there is *express room*,
    an eighth of the window more, open to tenants who have less than a sixteenth of it in memory; not where the order
    is strict.

    Args:
        window: recipients at most.
        window_bytes: octets of content at most; a job beyond it goes without content and reads it from the spool.
        strict: while work is left in the spool, new work must join it there, so that it cannot overtake.

    Attributes:
        epoch: grows whenever the jobs that wait are given back to the spool; work of an older epoch is void.
        backlog: work was left in the spool for want of room.
        accepting: False when the transport is being stopped.
        last_progress: wall-clock seconds at which the messaging system last answered, or None.
        blocked: destinations that cannot be tried now, so that claims pass over them. Replaced as a whole by the
            transport actor.
        gates: what keeps jobs that wait from being tried, for ``explain``. Replaced as a whole by the transport actor.
    """

    def __init__(self, window: int, window_bytes: int, *, strict: bool = False) -> None:
        self._strict = strict
        self._window = window
        self._share = 0 if strict else max(1, window // EXPRESS_SHARE)
        self._express = window + window // EXPRESS_ROOM
        self._tenants: dict[str, int] = {}
        self._window_bytes = window_bytes
        self._lock = BriefLock()
        self._jobs: dict[int, Job] = {}
        self._by_key: dict[int, list[Job]] = {}
        self._recipients = 0
        self._bytes = 0
        self.epoch = 0
        self.backlog = False
        self.accepting = True
        self.last_progress: float | None = None
        self.blocked: frozenset[str] = frozenset()
        self.gates = Gates()

    # Room

    def reserve(self, recipients: int, tenant: str = "") -> bool:
        """Take room for ``recipients`` of ``tenant`` about to be owned; False when there is none.

        ``backlog`` is set unless there was ordinary room.
        """
        full = self._recipients + recipients > self._window
        if full or not self.accepting or (self._strict and self.backlog):
            self.backlog = True
            if (
                not self.accepting
                or self._recipients + recipients > self._express
                or self._tenants.get(tenant, 0) + recipients > self._share
            ):
                return False
        self.take(recipients, tenant)
        return True

    def take(self, recipients: int, tenant: str = "") -> None:
        """Take room for ``recipients`` that were claimed from the spool, no more of them than there was ``room``."""
        self._recipients += recipients
        self._tenants[tenant] = self._tenants.get(tenant, 0) + recipients

    def release(self, recipients: int, tenant: str = "") -> None:
        """Give back room that was reserved or taken and is not needed."""
        self._recipients -= recipients
        left = self._tenants.get(tenant, 0) - recipients
        if left > 0:
            self._tenants[tenant] = left
        else:
            self._tenants.pop(tenant, None)

    @property
    def room(self) -> int:
        """How many more recipients fit now."""
        return max(0, self._window - self._recipients) if self.accepting else 0

    @property
    def held(self) -> int:
        """Recipients in memory or about to be."""
        return self._recipients

    def admit(self, jobs: Iterable[Job]) -> list[Job]:
        """Take in jobs for which room was reserved; returns those that are not void."""
        admitted: list[Job] = []
        with self._lock:
            for job in jobs:
                if job.epoch != self.epoch:
                    continue
                if job.content is not None:
                    if self._bytes + job.size > self._window_bytes:
                        job.content = None
                    else:
                        self._bytes += job.size
                self._jobs[id(job)] = job
                self._by_key.setdefault(job.key, []).append(job)
                admitted.append(job)
        return admitted

    def _drop(self, job: Job, phase: Phase) -> bool:
        """Forget a job that is in ``phase``; returns whether it still was. Under the lock."""
        if not _take(job, phase):
            return False
        job.phase = Phase.GONE
        job.turn.append(None)
        if self._jobs.pop(id(job), None) is None:
            return True
        self.release(len(job.targets), job.tenant)
        if job.content is not None:
            self._bytes -= job.size
            job.content = None
        same = self._by_key[job.key]
        if len(same) == 1:
            del self._by_key[job.key]
        else:
            same.remove(job)
        return True

    # The life of a job

    def begin(self, job: Job, holder: object, now: float) -> bool:
        """Let ``holder`` send the job; False when it is void or somebody else's by now."""
        if not _take(job, Phase.WAITING):
            return False
        job.holder = holder
        job.started = now
        job.phase = Phase.SENDING
        job.turn.append(None)
        return True

    def end(self, job: Job, holder: object, result: Result, now: float) -> bool:
        """Note what became of the job; False when ``holder`` does not have it any more."""
        if job.holder is not holder or not _take(job, Phase.SENDING):
            return False
        mine = job.holder is holder
        if mine:
            job.ended = now
            job.result = result
            job.phase = Phase.ENDED
        job.turn.append(None)
        return mine

    def abandon(self, job: Job, now: float) -> bool:
        """Take a job from a hung courier; what that courier reports later is ignored."""
        return self.end(job, job.holder, TimedOut(now - job.started), now)

    def wait_again(self, job: Job) -> None:
        """Put a job back to waiting, as if it had not been tried."""
        if _take(job, Phase.ENDED):
            job.holder = None
            job.result = None
            job.phase = Phase.WAITING
            job.turn.append(None)

    def expire(self, job: Job, settlements: Sequence[Settlement]) -> bool:
        """Settle a waiting job without an attempt; False when it does not wait any more."""
        return self._settle(job, Phase.WAITING, settlements)

    def settling(self, job: Job, settlements: Sequence[Settlement]) -> bool:
        """Note that the outcome is on its way to the store; False when that was noted before."""
        return self._settle(job, Phase.ENDED, settlements)

    def _settle(self, job: Job, phase: Phase, settlements: Sequence[Settlement]) -> bool:
        if not _take(job, phase):
            return False
        job.settlements = settlements
        job.phase = Phase.SETTLING
        job.turn.append(None)
        return True

    def settled(self, jobs: Iterable[Job]) -> None:
        """Forget jobs whose outcome is durable."""
        with self._lock:
            for job in jobs:
                self._drop(job, Phase.SETTLING)

    # Crashes, stops and operators

    def void_waiting(self) -> list[tuple[int, int]]:
        """Begin a new epoch: forget the jobs that wait; returns the (key, index) of the recipients that remain."""
        with self._lock:
            self.epoch += 1
            for job in list(self._jobs.values()):
                self._drop(job, Phase.WAITING)
            self._recipients = 0
            self._tenants.clear()
            for job in self._jobs.values():
                self.take(len(job.targets), job.tenant)
            self.backlog = True
            return [(job.key, target.index) for job in self._jobs.values() for target in job.targets]

    def revoke(self, key: int, indices: Collection[int] | None = None) -> list[int]:
        """Forget the waiting jobs of one message that have one of these recipients; returns all their recipients.

        A job goes as a whole: those of its recipients that nobody meant must go back to the spool.
        """
        revoked: list[int] = []
        with self._lock:
            for job in list(self._by_key.get(key, ())):
                mine = [target.index for target in job.targets]
                if (
                    job.phase is Phase.WAITING
                    and not job.journalled
                    and (indices is None or not set(mine).isdisjoint(indices))
                ) and self._drop(job, Phase.WAITING):
                    revoked += mine
        return revoked

    def in_phase(self, *phases: Phase) -> list[Job]:
        """Return the jobs in these phases, in order of admission."""
        with self._lock:
            return [job for job in self._jobs.values() if job.phase in phases]

    def phase_of(self, key: int, index: int) -> Phase | None:
        """Return the phase of the job that has this recipient, None when none has."""
        with self._lock:
            for job in self._by_key.get(key, ()):
                if any(target.index == index for target in job.targets):
                    return job.phase
            return None
