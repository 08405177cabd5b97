"""The store actor: the only writer. It commits whatever waits in its mailbox as one transaction.

It never waits for a batch to fill: an idle spool commits each message at once, a busy one batches by itself, because
letters gather while a commit is under way.
"""

import contextlib
import logging
import math
import sqlite3 as stdlib_sqlite3
from collections.abc import Callable, Collection, Sequence
from queue import Empty
from types import TracebackType

from postroom.active_queue import Phase
from postroom.actors.batches import Batch, Effects, TornLetterError, sort_letters
from postroom.actors.context import Context
from postroom.actors.housekeeping import Housekeeper
from postroom.actors.protocol import (
    Accept,
    Act,
    Checkpoint,
    Checkpointed,
    Claimed,
    Committed,
    FollowedUp,
    FollowupsDue,
    Happened,
    Housekeep,
    Journalled,
    MoveOn,
    Order,
    Ordered,
    Perform,
    Reclaimed,
    Reroute,
    Room,
    Work,
)
from postroom.actors.timer import wake
from postroom.errors import SpoolFull, SpoolUnavailable, WorldError
from postroom.stores.base import Accepted, Controlled
from postroom.stores.driver import sqlite3
from postroom.supervision import MailboxActor
from postroom.tickets import StoreDied, resolve_all

__all__ = ["StoreActor"]

log = logging.getLogger("postroom.store")

CHECKPOINT_OCTETS = 16 * 1024 * 1024
"""Octets written after which the write-ahead log is copied into the database, by another thread."""

BLOCKED_PAUSE = 1.0
"""Seconds until due work is looked for again when only that of blocked destinations may be left."""

RETRY_SECONDS = 1.0
"""Pause after a transaction failed for want of disk space or the like."""

BUSY = 100
"""Messages and jobs committed between two rounds of housekeeping above which it leaves what can wait."""

MAX_FAILURES = 10
"""Failures in a row after which the actor gives up its connection and is restarted with a fresh one."""

DriverError = (sqlite3.Error, stdlib_sqlite3.Error)
IntegrityError = (sqlite3.IntegrityError, stdlib_sqlite3.IntegrityError)
OperationalError = (sqlite3.OperationalError, stdlib_sqlite3.OperationalError)


class StoreActor(MailboxActor):
    """See the module's docstring.

    Args:
        context: what the actors share; its store belongs to this actor from now on.
        name: of the thread.
    """

    def __init__(self, context: Context, name: str) -> None:
        super().__init__()
        self.name = name
        self.monotonic = context.clock.monotonic
        self._context = context
        self._store = context.store
        self._retained: list[object] = []
        self._retry_at: float | None = None
        self._failures = 0
        self._written = 0
        self._committed = 0
        self._checkpointing = False
        self._house = Housekeeper(context, self._in_transaction, self._is_busy, self._act)
        self._current: list[object] = []
        self._awaited: dict[str, float] = {}
        # Out of memory but not changed yet; a transaction that fails in between is repeated with them.
        self._revoked: dict[int, list[int]] = {}

    # Life

    def on_start(self) -> None:
        """Open the spool, take over what dead processes left, and arrange for housekeeping."""
        self._store.open()
        self._house.open()
        self._context.orders.given = self._context.reader.orders()
        self._housekeep_in(self._context.settings.sync_interval)

    def on_stop(self) -> None:
        """Give back what waits, keep what hangs for the next process to doubt, and close."""
        try:
            self._store.begin()
            for transport, active in self._context.queues.items():
                self._store.reclaim(transport, active.void_waiting())
            self._store.commit()
        except DriverError:
            log.exception("could not give back what waits; it will be adopted as in doubt")
        self._store.close(leave=True)

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection, and let those who wait for an answer turn to the successor."""
        del exception_type, exception_value, traceback
        self._store.disconnect()
        letters = [*self._current, *(envelope.message for envelope in self._behind)]
        with contextlib.suppress(Empty):
            while True:
                letters.append(self.mailbox.get_nowait().message)
        for letter in letters:
            if isinstance(letter, Accept | Act | FollowedUp | Order | Perform):
                letter.ticket.resolve(error=StoreDied())

    # Letters

    def on_letters(self, letters: list[object]) -> None:
        """Do all that waits in one transaction, then say so."""
        if self._retained:
            letters = self._retained + letters
            self._retained = []
            self._retry_at = None
        self._current = letters
        for letter in letters:
            if isinstance(letter, Housekeep):
                self._housekeep_in(self._house.keep())
            elif isinstance(letter, Checkpointed):
                self._checkpointed()
            elif isinstance(letter, MoveOn):
                self._house.move_on(letter.transport)
            elif isinstance(letter, Perform):
                self._perform(letter)
        self._try(letters)
        self._current = []

    def _try(self, letters: Sequence[object]) -> None:
        batch = sort_letters(letters)
        if batch.empty:
            return
        effects = Effects(listened=self._context.audience.any)
        try:
            self._transact(batch, effects)
        except DriverError as error:
            self._store.rollback()
            effects.release_reserved()
            self._after_failure(batch, error)
        except TornLetterError:
            self._store.rollback()
            effects.release_reserved()
            if len(batch.letters) == 1:
                resolve_all(effects.tickets)
            else:
                for letter in batch.letters:
                    self._try([letter])
        except BaseException:
            self._store.rollback()
            effects.release_reserved()
            raise
        else:
            self._failures = 0
            self._announce(batch, effects)

    def _transact(self, batch: Batch, effects: Effects) -> None:  # noqa: C901 - one step per kind of letter
        context = self._context
        store = self._store
        now = context.clock.time()
        started = context.clock.monotonic()
        keep = {
            letter.transport: context.queues[letter.transport].void_waiting() for letter in batch.reclaims
        }
        if batch.exchange_only:
            self._exchange(batch, effects, now)
            self._measure(batch, started)
            return
        store.begin()
        for transport, kept in keep.items():
            store.reclaim(transport, kept)
        if batch.jobs:
            effects.settled(batch.jobs, *store.settle([s for job in batch.jobs for s in job.settlements]))
        messages = batch.messages()
        for letter in batch.followed:
            there = store.followed_up(letter.followup, letter.reported, letter.again)
            messages += letter.messages if there else ()
            effects.tickets.append((letter.ticket, there))
        messages += [message for job in batch.jobs for message in job.added]
        if messages:
            owned = effects.reserve(messages, context.queues, now)
            effects.accepted(messages, store.accept(messages, owned), batch)
        for act in batch.acts:
            self._act(act, effects)
        for order in batch.orders:
            self._order(order, effects, now)
        for journal in batch.journals:
            jobs = [job for job in journal.jobs if job.phase is Phase.WAITING]
            store.journal(
                [(job.key, target.index) for job in jobs for target in job.targets], journal.transport
            )
            effects.journalled.append((journal.transport, jobs))
        for transport in batch.claims:
            active = context.queues[transport]
            limit = active.room
            fair = context.transports[transport].limits.concurrency > 1
            blocked = active.blocked
            claimed, gone, done = (
                store.claim(transport, now, limit, fair=fair, blocked=blocked) if limit else ([], [], [])
            )
            effects.claimed(context.transports[transport], active, claimed, gone, done)
            taken = len(gone) + sum(len(claim.targets) for claim in claimed)
            more = taken >= limit
            if not more:
                active.backlog = False
            effects.claims[transport] = (more, None if more else self._next_due(transport, blocked, now))
        for stand in batch.stands:
            store.set_standing(stand.standing)
        for destination in batch.destinations:
            store.set_destination(destination.standing)
        store.commit()
        self._revoked.clear()
        self._measure(batch, started)

    def _next_due(self, transport: str, blocked: Collection[str], now: float) -> float | None:
        """Return when to claim again; what is due but left where it is must not be asked for at every turn."""
        due = self._store.next_due(transport)
        return max(due, now + BLOCKED_PAUSE) if blocked and due is not None else due

    def _act(self, act: Act, effects: Effects) -> None:
        now = self._context.clock.time()
        results: list[Controlled] = []
        for key, indices in act.subjects:
            revoked = self._revoked.setdefault(key, [])
            if act.action.kind not in {"release", "probe"}:
                for active in self._context.queues.values():
                    revoked += active.revoke(key, indices)
            result = self._store.control(act.action, key, revoked, indices, now)
            effects.acted(key, result)
            results.append(result)
        effects.tickets.append((act.ticket, results))

    def _order(self, order: Order, effects: Effects, now: float) -> None:
        if order.operation is not None:
            action, selection, changed, number = order.operation
            effects.tickets.append(
                (order.ticket, self._store.log_operation(action, selection, changed, now, number))
            )
            return
        dropped = self._store.drop_orders(order.drop) if order.drop else 0
        given = [self._store.set_order(standing) for standing in order.give]
        effects.tickets.append((order.ticket, (given, dropped)))
        effects.ordered = True

    def _perform(self, letter: Perform) -> None:
        """Do a step of maintenance; whatever is wrong with it is for those to hear who asked."""

        def step(effects: Effects) -> None:
            effects.tickets.append((letter.ticket, letter.step(self._store)))

        try:
            self._in_transaction(step)
        except Exception as error:  # noqa: BLE001 - it is theirs
            letter.ticket.resolve(error=error)

    def _in_transaction(self, work: Callable[[Effects], None]) -> None:
        """Do ``work`` in a transaction of its own and announce what follows from it.

        Raises:
            sqlite3.Error: it was undone.
        """
        effects = Effects(listened=self._context.audience.any)
        before = set(self._revoked)
        self._store.begin()
        try:
            work(effects)
            self._store.commit()
        except BaseException:
            self._store.rollback()
            raise
        # What an earlier transaction took out of memory and could not change is still to be repeated with it.
        for key in self._revoked.keys() - before:
            del self._revoked[key]
        self._announce(Batch(), effects)

    def _exchange(self, batch: Batch, effects: Effects, now: float) -> None:
        """Commit new messages and outcomes alone, which is what a busy spool nearly always does."""
        messages = batch.messages()
        owned = effects.reserve(messages, self._context.queues, now)
        settlements = [s for job in batch.jobs for s in job.settlements]
        results, applied, completed = self._store.exchange(messages, owned, settlements)
        if batch.jobs:
            effects.settled(batch.jobs, applied, completed)
        if messages:
            effects.accepted(messages, results, batch)

    def _is_busy(self) -> bool:
        committed, self._committed = self._committed, 0
        return committed > BUSY

    def _measure(self, batch: Batch, started: float) -> None:
        self._committed += batch.size
        instruments = self._context.instruments
        instruments.commit_seconds.observe(self._context.clock.monotonic() - started)
        instruments.commit_batch_size.observe(batch.size)

    def _announce(self, batch: Batch, effects: Effects) -> None:  # noqa: C901, PLR0912 - one step per kind of effect
        """Tell everybody what is durable now: submitters first, they hold up their callers."""
        context = self._context
        handles = context.handles
        if effects.ordered:
            # Who gave an order may rely on it as soon as there is an answer.
            self.spread_orders()
        resolve_all(effects.tickets)
        now = context.clock.time()
        due = self._news(effects)
        work = effects.make_jobs(context.transports, context.queues)
        coupled = context.coupled
        if coupled is not None and coupled in work:
            handles.transports[coupled].tell(Work(work.pop(coupled)))
        if work or due:
            handles.router.tell(Committed(work, due))
        if self._store.following.due is not None:
            handles.follower.tell(FollowupsDue(self._store.following.due))
        for transport, jobs in batch.jobs_by_transport().items():
            active = context.queues[transport]
            active.settled(jobs)
            if active.backlog:
                handles.transports[transport].tell(Room())
            context.instruments.delivery_seconds.labels(transport).observe_many(
                max(0.0, now - job.created)
                for job in jobs
                for settlement in job.settlements
                if settlement.state.is_final
            )
        if effects.late:
            context.instruments.late_settlements.inc(effects.late)
            log.warning("%d outcomes came too late to be recorded", effects.late)
        for reclaim in batch.reclaims:
            self._awaited.pop(reclaim.transport, None)
            handles.transports[reclaim.transport].tell(Reclaimed())
        for transport, jobs in effects.journalled:
            for job in jobs:
                job.journalled = True
            handles.transports[transport].tell(Journalled(jobs))
        for transport, (more, next_due) in effects.claims.items():
            handles.transports[transport].tell(
                Claimed(effects.claimed_jobs.get(transport, ()), more, next_due)
            )
        if effects.moved and context.delivers:
            handles.router.tell(Reroute(frozenset(effects.moved)))
        context.completions.completed(effects.completed)
        if context.audience.any:
            handles.notifier.tell(Happened(now, effects.fresh, effects.changed, effects.completed))
        self._written += effects.octets
        if self._written > CHECKPOINT_OCTETS and not self._checkpointing:
            self._checkpointing = handles.checkpointer.tell(Checkpoint())

    def _news(self, effects: Effects) -> dict[str, float]:
        """Return the due times that their transports do not wait for already: they need not be woken for later ones."""
        for transport, at in self._store.following.freed.items():
            effects.note_due(transport, at)
        known = self._awaited
        for transport, (more, next_due) in effects.claims.items():
            known[transport] = 0.0 if more else math.inf if next_due is None else next_due
        news = {transport: at for transport, at in effects.due.items() if at < known.get(transport, math.inf)}
        known.update(news)
        return news

    # Trouble

    def _after_failure(self, batch: Batch, error: Exception) -> None:
        """Refuse what can be refused and keep the rest for later; a bad message must not take others with it."""
        outside = isinstance(error, OperationalError)
        self._context.instruments.store_errors.labels("operational" if outside else "data").inc()
        if outside:
            self._failures += 1
            log.error("a transaction failed (%d in a row): %s", self._failures, error)
            for accept in batch.accepts:
                accept.ticket.resolve(error=_refusal(error))
            self._retained += [letter for letter in batch.letters if not isinstance(letter, Accept)]
            self._retry_at = self.monotonic() + RETRY_SECONDS
            if self._failures >= MAX_FAILURES and not isinstance(_refusal(error), SpoolFull):
                raise error
        elif len(batch.letters) == 1:
            (letter,) = batch.letters
            if not isinstance(letter, Accept | Act | FollowedUp | Order):
                raise error
            if isinstance(letter, Accept) and letter.again and isinstance(error, IntegrityError):
                # The numbers are there already: an earlier incarnation of the store committed them.
                letter.ticket.resolve([Accepted(message.key) for message in letter.messages])
                return
            letter.ticket.resolve(error=SpoolUnavailable(f"the store could not take it: {error}"))
            if self._revoked:
                raise error
        else:
            for letter in batch.letters:
                self._try([letter])

    def next_wake(self) -> float | None:
        """Return when what was kept back is tried again."""
        return self._retry_at

    def on_wake(self) -> None:
        """Try what was kept back."""
        self._retry_at = None
        self.on_letters([])

    # Housekeeping

    def spread_orders(self) -> None:
        """Tell everybody in this process which standing orders there are now."""
        context = self._context
        orders = context.reader.orders()
        context.orders.given = orders
        for handle in context.handles.transports.values():
            handle.tell(Ordered(orders))

    def _checkpointed(self) -> None:
        self._checkpointing = False
        self._written = 0
        try:
            self._store.checkpoint()
        except OperationalError as error:
            log.warning("the write-ahead log could not be copied: %s", error)

    def _housekeep_in(self, seconds: float) -> None:
        handles = self._context.handles
        wake(handles.timer, self._context.clock.time() + seconds, handles.store, Housekeep(), "housekeep")


def _refusal(error: Exception) -> WorldError:
    text = str(error)
    if "full" in text:
        return SpoolFull(f"the disk that holds the spool is full ({text}); nothing was stored")
    return SpoolUnavailable(f"the spool could not be written: {text}")
