"""The intake actor: has incoming messages postprocessed, and files them.

What arrives stands in the spool without a folder until it is filed::

    spool ──claim──► intake ──errand──► clerk: calls postprocessors, asks the rules
      ▲                ▲   │               │
      │                └───│────outcome────┘
      └──file, postpone────┘   one transaction: the folder, the new content, the messages that are sent because of it

A claim leases messages: their due time is moved a minute, and moved on while they are in hand, so that processes that
share a spool do not have the same message in hand, and what a dead process had is soon taken over. Each claim has a
number (the attempt). A message is filed only under the number it was claimed with, so it is filed once, whoever
crashed, and what is sent because of it is sent once. Postprocessors are called at least once.

The intake itself never waits: clerks work in their own threads, the store answers by letter.
"""

import logging
import math
import sqlite3 as stdlib_sqlite3
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from postroom.actors.clerks import Clerks
from postroom.actors.context import Context
from postroom.actors.intake_values import (
    Answered,
    Claim,
    ClaimAnswered,
    Errand,
    IntakeParts,
    Told,
    Worked,
    give_back,
    note,
    renew,
)
from postroom.actors.protocol import Arriving, Perform
from postroom.ids import format_id
from postroom.inbound.chain import Filed, Outcome, put_off
from postroom.inbound.processing import Processor
from postroom.inbound.values import InboundRecord, NewInbound
from postroom.stores.base import Store
from postroom.stores.driver import sqlite3
from postroom.supervision import MailboxActor
from postroom.tickets import StoreDied, Ticket

__all__ = ["IntakeActor", "IntakeParts"]

log = logging.getLogger("postroom.intake")

WAITING_PER_CLERK: Final = 3
"""Messages that wait in memory, with their content, for each clerk at most."""

LEASE_SECONDS: Final = 60.0
"""How long a message is left to the process that claimed it, unless that says that it still has it."""

RENEW_SECONDS: Final = 20.0
"""How often it says so."""

ANSWER_SECONDS: Final = 60.0
"""How long the store is waited for; then it is told again, which is safe: what it has done it does not do twice."""

WATCH_SECONDS: Final = 1.0
"""How often it is looked whether the store was restarted over something that it was told."""

SHORTEST_SLEEP: Final = 1.0
LONGEST_SLEEP: Final = 30.0
"""Seconds between looks into the spool."""

DRIVER_ERRORS: Final = (sqlite3.Error, stdlib_sqlite3.Error)

MAX_TRIES: Final = 60
"""How often the store is told, a second after it failed each time; then the message is put off."""

CLOSE_SECONDS: Final = 2.0


class IntakeActor(MailboxActor):
    """See the module's docstring.

    Args:
        context: what the actors share; ``handles.intake`` must lead to this actor.
        parts: what it works with.
        name: of the thread.
    """

    def __init__(self, context: Context, parts: IntakeParts, name: str) -> None:
        super().__init__()
        self.name = name
        self.monotonic = context.clock.monotonic
        self._context = context
        self._parts = parts
        self._under_way: dict[int, Errand] = {}
        self._claim: Claim | None = None
        self._back: dict[tuple[int, int], float] = {}
        self._look_at = 0.0
        self._watch_at = math.inf
        self._more = False
        self._missed = False
        self._clerks: Clerks[Errand, tuple[InboundRecord, NewInbound], Outcome] = Clerks(
            name, parts.policy.clerks, self._processor, self._tell_worked, _job_of, WAITING_PER_CLERK
        )
        self._renew_at = math.inf

    def on_start(self) -> None:
        """Have the postprocessors check what they can, and take back what a former incarnation had in hand."""
        for each in self._parts.postprocessors:
            each.prepare()
        self._back = self._parts.in_hand(self._context.clock.time())
        self._look_at = self.monotonic()

    def on_stop(self) -> None:
        """Let the clerks go, and give back what they have in hand: the next process need not wait for the lease."""
        if not self._clerks.close(CLOSE_SECONDS):
            log.warning("%s: a postprocessor still runs in a clerk's thread, which is left behind", self.name)
        clock, parts = self._context.clock, self._parts
        # What is claimed is known once the store comes to this letter: a claim may be waiting before it.
        step = Perform(lambda store: give_back(store, parts.in_hand(clock.time()), clock.time()), Ticket())
        self._context.handles.store.tell(step)

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the clerks go."""
        del exception_type, exception_value, traceback
        self._clerks.close(CLOSE_SECONDS)

    def on_letters(self, letters: list[object]) -> None:
        """Take note of due times, of clerks' work and of the store's answers."""
        done: list[Errand] = []
        for letter in letters:
            if isinstance(letter, Arriving):
                self._missed = self._claim is not None
                self._wake_in(letter.at - self._context.clock.time())
            elif isinstance(letter, Worked):
                if self._worked(letter.errand, letter.outcome):
                    done.append(letter.errand)
            elif isinstance(letter, ClaimAnswered):
                self._claimed(letter.claim, letter.ticket)
            elif isinstance(letter, Answered):
                self._answered(letter.told, letter.ticket)
        self._conclude(done)

    def next_wake(self) -> float | None:
        """Return when to look into the spool, or for an answer that is missing, or when to renew leases."""
        return min(self._look_at, self._watch_at, self._renew_at)

    def on_wake(self) -> None:
        """Look for what is due, and tell again what the store does not answer."""
        now = self.monotonic()
        if now >= self._renew_at:
            self._renew()
        if now >= self._watch_at:
            self._watch_store(now)
        if now >= self._look_at:
            self._look()

    # Claiming

    def _wake_in(self, seconds: float) -> None:
        self._look_at = min(self._look_at, self.monotonic() + max(0.0, seconds))

    def _watch(self) -> None:
        self._watch_at = min(self._watch_at, self.monotonic() + WATCH_SECONDS)

    def _room(self) -> int:
        claimed = 0 if self._claim is None else self._claim.limit
        return self._clerks.capacity - len(self._under_way) - claimed

    def _look(self) -> None:
        now = self._context.clock.time()
        self._look_at = self.monotonic() + LONGEST_SLEEP
        if self._claim is not None:
            # Its answer wakes us.
            return
        due = self._context.reader.next_arriving()
        if not self._back and (due is None or due > now):
            if due is not None:
                self._wake_in(max(due - now, SHORTEST_SLEEP))
            return
        room = self._room()
        if self._parts.hung.too_many:
            log.warning("%s: so many calls of postprocessors hang that no message is taken", self.name)
            room = 0
            self._wake_in(SHORTEST_SLEEP)
        self._more = room <= 0
        if room > 0 or self._back:
            self._ask(max(0, room))

    def _ask(self, limit: int) -> None:
        """Have the store claim messages, and give back first what nobody works on."""
        context = self._context
        store = context.handles.store
        claim = Claim(limit, dict(self._back), self.monotonic(), store.incarnation)
        claimed = self._parts.claimed
        self._missed = False

        def step(spool: Store) -> object:
            now = context.clock.time()
            give_back(spool, claim.returned, now)
            claim.rows = spool.inbox.claim(now, limit, LEASE_SECONDS) if limit else ()
            # Noted here, in the store's thread, so that a successor knows of it even if nobody is left to be told.
            claimed.update((record.key, record.attempts) for record, _ in claim.rows)
            return claim.rows

        tell = self._hear

        def pass_on(ticket: Ticket) -> None:
            tell(ClaimAnswered(claim, ticket))

        if store.tell(Perform(step, Ticket(pass_on))):
            self._claim = claim
            self._watch()
        else:
            self._wake_in(SHORTEST_SLEEP)

    def _claimed(self, claim: Claim, ticket: Ticket) -> None:
        if claim is not self._claim:
            # It was given up, and came after all.
            self._return(claim)
            return
        self._claim = None
        if ticket.error is not None:
            if not isinstance(ticket.error, StoreDied):
                log.warning("no arriving messages could be claimed: %s", ticket.error)
            self._return(claim)
            self._wake_in(SHORTEST_SLEEP)
            return
        for place, due in claim.returned.items():
            if self._back.get(place) == due:
                del self._back[place]
            if self._parts.claimed.get(place[0]) == place[1] and place[0] not in self._under_way:
                del self._parts.claimed[place[0]]
        for record, new in claim.rows:
            self._begin(record, new)
        if len(claim.rows) == claim.limit:
            self._more = True
        # What was there a moment ago may have gone to another process: that must not become a busy loop.
        again = self._missed or (len(claim.rows) == claim.limit and self._room() > 0)
        self._wake_in(0.0 if again else SHORTEST_SLEEP)

    def _return(self, claim: Claim) -> None:
        """Have what a claim brought given back, if it was committed at all: it is not known."""
        now = self._context.clock.time()
        for record, _ in claim.rows:
            self._back[record.key, record.attempts] = now
        if claim.rows:
            self._wake_in(0.0)

    def _begin(self, record: InboundRecord, new: NewInbound) -> None:
        errand = self._under_way.get(record.key)
        if errand is not None:
            # The lease ran out over it; what is under way is still the latest attempt, under its new number.
            errand.record = record
            return
        errand = self._under_way[record.key] = Errand(record, new)
        self._clerks.reserve()
        self._clerks.give(errand)
        self._renew_at = min(self._renew_at, self.monotonic() + RENEW_SECONDS)

    def _renew(self) -> None:
        """Keep the leases of what clerks have. If the letter is lost, another process may work on it as well."""
        records = [errand.record for errand in self._under_way.values() if errand.step == "working"]
        self._renew_at = math.inf
        if not records:
            return
        self._renew_at = self.monotonic() + RENEW_SECONDS
        clock = self._context.clock
        step = Perform(lambda spool: renew(spool, records, LEASE_SECONDS, clock.time()), Ticket())
        self._context.handles.store.tell(step)

    # Working

    def _processor(self) -> Processor:
        return Processor(self._parts.chain, self._parts.hung, self._context.clock)

    def _tell_worked(self, errand: Errand, outcome: Outcome | BaseException) -> None:
        self._hear(Worked(errand, outcome))

    def _hear(self, letter: object) -> None:
        """Be told something from another thread, also while the handle does not lead here yet."""
        if not self._context.handles.intake.tell(letter):
            self.tell_self(letter)

    def _worked(self, errand: Errand, outcome: Outcome | BaseException) -> bool:
        """Note what a clerk has done; return whether the store is to be told."""
        if self._under_way.get(errand.record.key) is not errand or errand.step != "working":
            return False
        if isinstance(outcome, BaseException):
            log.error("message %s could not be postprocessed", format_id(errand.record.key), exc_info=outcome)
            text = f"{type(outcome).__name__}: {outcome}"
            outcome = put_off(errand.record, text, self._parts.policy, self._context.clock.time())
        errand.outcome = outcome
        errand.new = None
        errand.step = "answering"
        return True

    # Answering

    def _conclude(self, done: Sequence[Errand]) -> None:
        """Tell the store: together what stands for itself, alone what has messages that go with it."""
        together: list[Errand] = []
        for errand in done:
            if isinstance(errand.outcome, Filed) and errand.outcome.messages:
                self._tell_store([errand])
            else:
                together.append(errand)
        if together:
            self._tell_store(together)

    def _tell_store(self, errands: Sequence[Errand]) -> None:
        context = self._context
        store = context.handles.store
        told = Told(
            [(errand, errand.record.attempts) for errand in errands],
            self.monotonic(),
            store.incarnation,
            1 + max(0 if errand.told is None else errand.told.tries for errand in errands),
        )
        outcomes = [
            (errand.record.key, attempts, errand.outcome)
            for errand, attempts in told.errands
            if errand.outcome is not None
        ]
        messages = outcomes[0][2].messages if len(outcomes) == 1 and isinstance(outcomes[0][2], Filed) else ()

        def step(spool: Store) -> list[bool]:
            now = context.clock.time()
            noted = [note(spool, key, attempts, outcome, now) for key, attempts, outcome in outcomes]
            # Messages go with a truth only, and they go with one outcome alone.
            return noted if len(noted) > 1 or noted[0] else []

        for errand in errands:
            errand.told = told
        tell = self._hear

        def pass_on(ticket: Ticket) -> None:
            tell(Answered(told, ticket))

        self._watch()
        if not store.tell(Perform(step, Ticket(pass_on), messages)):
            told.store = 0

    def _answered(self, told: Told, ticket: Ticket) -> None:
        answers = ticket.value or [False] * len(told.errands)
        ours = [
            (errand, attempts, noted)
            for (errand, attempts), noted in zip(told.errands, answers, strict=True)
            if errand.told is told and self._under_way.get(errand.record.key) is errand
        ]
        error = ticket.error
        if error is None:
            for errand, attempts, noted in ours:
                self._noted(errand, attempts, noted=noted)
        elif isinstance(error, StoreDied) or (isinstance(error, DRIVER_ERRORS) and told.tries < MAX_TRIES):
            # The store's own trouble: what was worked out is kept, and told again.
            if not isinstance(error, StoreDied):
                log.warning(
                    "what was worked out about %d messages could not be stored yet: %s", len(ours), error
                )
            told.store = 0
            self._watch()
        elif len(told.errands) > 1:
            for errand, _, _ in ours:
                self._tell_store([errand])
        else:
            for errand, attempts, _ in ours:
                self._refused(errand, attempts, error)

    def _refused(self, errand: Errand, attempts: int, error: BaseException) -> None:
        """Put a message off that cannot be filed: an error of ours."""
        record = errand.record
        log.error("message %s could not be filed", format_id(record.key), exc_info=error)
        now = self._context.clock.time()
        again = self._parts.policy.next_attempt(key=record.key, attempts=attempts, now=now)
        self._forget(errand)
        self._back[record.key, attempts] = now + LONGEST_SLEEP if again is None else again
        self._wake_in(0.0)

    def _noted(self, errand: Errand, attempts: int, *, noted: bool) -> None:
        if not noted and errand.record.attempts != attempts:
            # It was claimed again while the store had the letter: it is filed under the new number.
            self._tell_store([errand])
            return
        self._parts.claimed.pop(errand.record.key, None)
        self._forget(errand)

    def _watch_store(self, now: float) -> None:
        """Tell again what the store does not answer, perhaps because it died."""
        store = self._context.handles.store
        incarnation = store.incarnation
        self._watch_at = math.inf
        claim = self._claim
        if claim is not None:
            if claim.store != incarnation or now >= claim.since + ANSWER_SECONDS:
                self._claim = None
                self._return(claim)
                self._wake_in(0.0)
            else:
                self._watch()
        waiting = {id(e.told): e.told for e in self._under_way.values() if e.told is not None}
        for told in waiting.values():
            if told.store == incarnation and now < told.since + ANSWER_SECONDS:
                self._watch()
                continue
            self._conclude([errand for errand, _ in told.errands if errand.told is told])

    def _forget(self, errand: Errand) -> None:
        errand.told = None
        self._clerks.release()
        del self._under_way[errand.record.key]
        if self._more and self._room() >= self._clerks.capacity // 2:
            self._wake_in(0.0)


def _job_of(errand: Errand) -> tuple[InboundRecord, NewInbound]:
    return errand.job
