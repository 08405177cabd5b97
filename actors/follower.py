"""The follower actor: does what is to be done about messages later (reports, delay warnings, sent-hooks, clean-ups).

What is to be done stands in the spool (:class:`postroom.stores.base.Followup`) until it is done::

    spool ──read──► follower ──errand──► clerk: decides, composes, calls hooks
      ▲                ▲   │                │
      │                └───│────outcome─────┘
      └──FollowedUp────────┘   one transaction: the followup goes, the recipients are marked, the report is accepted

A report is stored in the same transaction in which its followup goes, and only if that still was there as it was read:
after a crash at any point it is made again, or was made once. What calls other people's code is *leased* first (its due
time is moved, which only one process can do), so that processes that share a spool do not call it for the same message
at the same time; it is called at least once.

The follower itself never waits: reading is short, clerks work in their own threads, the store answers by letter.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from postroom.actors.clerks import Clerks, Errand
from postroom.actors.context import Context
from postroom.actors.protocol import FollowedUp, FollowupsDue
from postroom.envelopes import Submission
from postroom.hooks import Preprocessor, SentHook
from postroom.preprocessing.aftermath import Aftermath
from postroom.reports.following import Done, Reporter, SentTeller
from postroom.reports.limiting import SenderLimiter
from postroom.reports.policy import ReportPolicy
from postroom.stores.base import Followup, NewMessage
from postroom.supervision import MailboxActor
from postroom.tickets import Ticket

__all__ = ["FollowerActor", "FollowerParts"]

log = logging.getLogger("postroom.follower")

STEP: Final = 500
"""Followups that are read at once."""

SENT_CLERKS: Final = 4
"""Messages about which sent-hooks are told at the same time."""

LEASE_SECONDS: Final = 300.0
"""How long a followup that calls other people's code is left to the process that took it."""

ANSWER_SECONDS: Final = 60.0
"""How long the store is waited for; then, or when it was restarted, the followup is read and done again."""

WATCH_SECONDS: Final = 1.0
"""How often it is looked whether the store was restarted over something that it was told."""

SHORTEST_SLEEP: Final = 1.0
LONGEST_SLEEP: Final = 30.0
"""Seconds between looks into the spool: other processes' followups are noticed by looking only."""

MAX_FAULTS: Final = 12
"""Errors of ours over one followup until it is given up; pauses double from 5 seconds to an hour."""

CLOSE_SECONDS: Final = 2.0


def _followup_of(errand: Errand) -> Followup:
    return errand.followup


@dataclass(frozen=True, slots=True)
class _Worked:
    """A clerk is done with an errand."""

    errand: Errand
    outcome: Done | BaseException


@dataclass(frozen=True, slots=True)
class _Answered:
    """The store has answered."""

    errand: Errand
    ticket: Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerParts:
    """What the follower works with; outlives its incarnations.

    Attributes:
        policy: of reports.
        prepare: checks and serialises a submission (:meth:`postroom.submitting.Submitter.prepare`).
        host: the domain that reports are from where the policy names none.
        sent_hooks: told of complete messages.
        preprocessors: those whose ``clean_up`` is called for complete messages.
        limiter: how often a sender is told.
    """

    policy: ReportPolicy
    prepare: Callable[[Submission], NewMessage]
    host: str
    sent_hooks: Sequence[SentHook] = ()
    preprocessors: Sequence[Preprocessor] = ()
    limiter: SenderLimiter = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limiter", SenderLimiter(self.policy.per_hour, self.policy.max_wait))


class FollowerActor(MailboxActor):
    """See the module's docstring.

    Args:
        context: what the actors share; ``handles.follower`` must lead to this actor.
        parts: what it works with.
        name: of the thread.
    """

    def __init__(self, context: Context, parts: FollowerParts, name: str) -> None:
        super().__init__()
        self.name = name
        self.monotonic = context.clock.monotonic
        self._context = context
        self._parts = parts
        self._under_way: dict[tuple[str, int], Errand] = {}
        self._faults: Counter[tuple[str, int]] = Counter()
        self._look_at: float = 0.0
        self._watch_at = math.inf
        self._more = False
        self._reports = Clerks(f"{name}-reports", 1, self._reporter, self._tell_worked, _followup_of)
        self._sent = Clerks(f"{name}-sent", SENT_CLERKS, self._teller, self._tell_worked, _followup_of)

    def on_start(self) -> None:
        """Look at once: what a former incarnation had under way is still in the spool."""
        self._look_at = self.monotonic()

    def on_stop(self) -> None:
        """Let the clerks go; what they have in hand stays in the spool."""
        for clerks in (self._reports, self._sent):
            if not clerks.close(CLOSE_SECONDS):
                log.warning(
                    "%s: other people's code still runs in a clerk's thread, which is left behind", self.name
                )

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the clerks go."""
        del exception_type, exception_value, traceback
        self.on_stop()

    def on_letters(self, letters: list[object]) -> None:
        """Take note of due times, of clerks' work and of the store's answers."""
        for letter in letters:
            if isinstance(letter, FollowupsDue):
                self._wake_in(letter.at - self._context.clock.time())
            elif isinstance(letter, _Worked):
                self._worked(letter.errand, letter.outcome)
            elif isinstance(letter, _Answered):
                self._answered(letter.errand, letter.ticket)

    def next_wake(self) -> float | None:
        """Return when to look into the spool, or for an answer that is missing."""
        return min(self._look_at, self._watch_at)

    def on_wake(self) -> None:
        """Look for what is due, and forget what the store does not answer."""
        now = self.monotonic()
        if now >= self._watch_at:
            self._watch_store(now)
        if now >= self._look_at:
            self._look()

    def _watch_store(self, now: float) -> None:
        """Forget what the store does not answer, perhaps because it died: then it is read and done again.

        That is safe when the store had done it after all: it is done only where it is found as it was read.
        """
        store = self._context.handles.store.incarnation
        self._watch_at = math.inf
        for errand in list(self._under_way.values()):
            if errand.step == "working":
                continue
            if errand.store != store or now >= errand.since + ANSWER_SECONDS:
                log.warning("the store did not answer about followup %s; it is done again", errand.followup)
                self._forget(errand)
                self._wake_in(0.0)
            else:
                self._watch_at = now + WATCH_SECONDS

    # Reading

    def _wake_in(self, seconds: float) -> None:
        self._look_at = min(self._look_at, self.monotonic() + max(0.0, seconds))

    def _look(self) -> None:
        context = self._context
        now = context.clock.time()
        rows = context.reader.followups(now, STEP)
        self._more = len(rows) == STEP
        for row in rows:
            if (row.kind, row.key) in self._under_way:
                continue
            if self._clerks(row).room > 0:
                self._begin(row, now)
            else:
                self._more = True
        due = context.reader.next_followup()
        # What is under way stays due in the spool until it is done: that must not become a busy loop.
        sleep = LONGEST_SLEEP if due is None else min(max(due - now, SHORTEST_SLEEP), LONGEST_SLEEP)
        self._look_at = self.monotonic() + sleep

    def _clerks(self, followup: Followup) -> Clerks[Errand, Followup, Done]:
        return self._sent if followup.kind == "sent" else self._reports

    def _begin(self, followup: Followup, now: float) -> None:
        clerks = self._clerks(followup)
        clerks.reserve()
        foreign = followup.kind == "sent" or self._parts.policy.deliver != "spool"
        errand = Errand(followup, "leasing" if foreign else "working", self.monotonic())
        self._under_way[followup.kind, followup.key] = errand
        if foreign:
            errand.done = Done(again=now + LEASE_SECONDS)
            self._tell_store(errand, errand.done)
        else:
            clerks.give(errand)

    # Working

    def _reporter(self) -> Reporter:
        context, parts = self._context, self._parts
        return Reporter(
            policy=parts.policy,
            reader=context.reader,
            clock=context.clock,
            prepare=parts.prepare,
            host=parts.host,
            transports=context.transports,
            limiter=parts.limiter,
            instruments=context.instruments,
        )

    def _teller(self) -> SentTeller:
        aftermath = Aftermath(self._parts.sent_hooks, self._parts.preprocessors)
        return SentTeller(aftermath, self._context.reader, self._context.clock, self._context.instruments)

    def _tell_worked(self, errand: Errand, outcome: Done | BaseException) -> None:
        self._hear(_Worked(errand, outcome))

    def _hear(self, letter: object) -> None:
        """Be told something from another thread, also while the handle does not lead here yet."""
        if not self._context.handles.follower.tell(letter):
            self.tell_self(letter)

    def _worked(self, errand: Errand, outcome: Done | BaseException) -> None:
        if not self._is_ours(errand):
            return
        if isinstance(outcome, BaseException):
            outcome = self._fault(errand, outcome)
        errand.done = outcome
        errand.step = "answering"
        errand.since = self.monotonic()
        self._tell_store(errand, outcome)

    def _fault(self, errand: Errand, error: BaseException) -> Done:
        """Return what is to become of a followup over which we made an error."""
        followup = errand.followup
        place = (followup.kind, followup.key)
        self._faults[place] += 1
        self._context.instruments.followup_errors.inc()
        log.error("followup %s failed", followup, exc_info=error)
        if self._faults[place] >= MAX_FAULTS:
            log.error("followup %s is given up", followup)
            return Done()
        pause = min(5.0 * 2.0 ** (self._faults[place] - 1), 3600.0)
        return Done(again=self._context.clock.time() + pause)

    # Answering

    def _tell_store(self, errand: Errand, done: Done) -> None:
        handles = self._context.handles
        tell = self._hear

        def pass_on(ticket: Ticket) -> None:
            tell(_Answered(errand, ticket))

        ticket = Ticket(pass_on)
        errand.store = handles.store.incarnation
        self._watch_at = min(self._watch_at, self.monotonic() + WATCH_SECONDS)
        letter = FollowedUp(errand.followup, done.reported, done.again, done.messages, ticket)
        if not handles.store.tell(letter):
            self._forget(errand)
            self._wake_in(SHORTEST_SLEEP)

    def _answered(self, errand: Errand, ticket: Ticket) -> None:
        if not self._is_ours(errand):
            return
        followup = errand.followup
        if ticket.error is not None or not ticket.value:
            # Somebody else has done it, or there is more to do than when it was read: the spool knows.
            if ticket.error is not None:
                log.warning("the store could not note that followup %s is done: %s", followup, ticket.error)
            self._forget(errand)
            self._wake_in(SHORTEST_SLEEP if ticket.error is not None else 0.0)
        elif errand.step == "leasing" and errand.done is not None and errand.done.again is not None:
            errand.followup = followup._replace(due=errand.done.again)
            errand.step = "working"
            self._clerks(followup).give(errand)
        else:
            self._noted(errand)

    def _noted(self, errand: Errand) -> None:
        """Count what is durable now."""
        self._forget(errand)
        done = errand.done
        if done is None:
            return
        if done.result is not None:
            self._context.instruments.reports.labels(*done.result).inc()
        if done.again is None:
            self._faults.pop((errand.followup.kind, errand.followup.key), None)
        if done.again is not None:
            self._wake_in(done.again - self._context.clock.time())

    def _is_ours(self, errand: Errand) -> bool:
        """Return whether an errand is under way: not one of a former incarnation, or one that was given up."""
        return self._under_way.get((errand.followup.kind, errand.followup.key)) is errand

    def _forget(self, errand: Errand) -> None:
        clerks = self._clerks(errand.followup)
        clerks.release()
        del self._under_way[errand.followup.kind, errand.followup.key]
        if self._more and clerks.room >= clerks.capacity // 2:
            self._wake_in(0.0)
