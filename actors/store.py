"""The store actor: the only writer. It commits whatever waits in its mailbox as one transaction.

It never waits for a batch to fill: an idle spool commits each message at once, a busy one batches by itself, because
letters gather while a commit is under way.
"""

import contextlib
import logging
import sqlite3 as stdlib_sqlite3
from collections.abc import Callable, Collection, Sequence
from queue import Empty
from types import TracebackType

from postroom.active_queue import Phase
from postroom.actors.batches import Batch, Effects, TornLetterError, sort_letters
from postroom.actors.context import Context
from postroom.actors.housekeeping import Housekeeper
from postroom.actors.notifier import events_of
from postroom.actors.protocol import (
    Accept,
    Act,
    Checkpoint,
    Checkpointed,
    FollowedUp,
    Happened,
    Housekeep,
    MoveOn,
    Order,
    Perform,
    Receive,
)
from postroom.actors.telling import Telling
from postroom.actors.timer import wake
from postroom.errors import SpoolFull, SpoolUnavailable, UsageError, WorldError
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
        self._telling = Telling(context)
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
            if isinstance(letter, Accept | Act | FollowedUp | Order | Perform | Receive):
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
        effects = Effects(listened=self._context.audience.any or self._is_journalled(batch))
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
        except BaseException as error:
            self._store.rollback()
            effects.release_reserved()
            if not (batch.receives and isinstance(error, Exception)):
                raise
            self._refuse_received(batch, error)
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
        if batch.exchange_only and not self._is_journalled(batch):
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
        for receive in batch.receives:
            messages += receive.messages
            self._receive(receive, effects, now)
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
            self._claim(transport, effects, now)
        for stand in batch.stands:
            store.set_standing(stand.standing)
        for destination in batch.destinations:
            store.set_destination(destination.standing)
        self._write_journal(effects, now)
        store.commit()
        self._revoked.clear()
        self._measure(batch, started)

    def _receive(self, receive: Receive, effects: Effects, now: float) -> None:
        inbox = self._store.inbox
        received = inbox.receive(receive.receiver, receive.inbound, now)
        for source, value in receive.progress.items():
            inbox.set_progress(receive.receiver, source, value)
        effects.tickets.append((receive.ticket, received))
        effects.octets += sum(len(each.arrival.content) + 1024 for each in receive.inbound)

    def _refuse_received(self, batch: Batch, error: Exception) -> None:
        """Refuse the letter that brought something nobody can store; others have nothing to do with it."""
        if len(batch.letters) > 1:
            for letter in batch.letters:
                self._try([letter])
            return
        log.error("what was received cannot be stored", exc_info=error)
        for receive in batch.receives:
            problem = f"cannot be stored ({type(error).__name__}: {error})"
            receive.ticket.resolve(
                error=UsageError("arrivals", problem, "give values of the types they have")
            )

    def _is_journalled(self, batch: Batch) -> bool:
        """Return whether the journal may have to be written; quick for what a busy spool nearly always does."""
        if not batch.exchange_only:
            return bool(self._context.journalled.kinds)
        settlements = [s for job in batch.jobs for s in job.settlements]
        return self._context.journalled.concerns(batch.messages(), settlements)

    def _write_journal(self, effects: Effects, now: float) -> None:
        """Keep the events of this transaction that are to be kept, within it."""
        effects.received(self._store.inbox)
        journalled = self._context.journalled
        if not journalled.kinds:
            return
        kept = journalled.of(
            events_of(Happened(now, effects.fresh, effects.changed, effects.completed, effects.events))
        )
        if kept:
            self._store.events.write(kept)
            effects.journalled_events = True

    def _claim(self, transport: str, effects: Effects, now: float) -> None:
        context, store = self._context, self._store
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
            answer = letter.step(self._store)
            effects.tickets.append((letter.ticket, answer))
            if answer and letter.messages:
                owned = effects.reserve(letter.messages, self._context.queues, self._context.clock.time())
                effects.accepted(letter.messages, self._store.accept(letter.messages, owned), Batch())

        try:
            self._in_transaction(step)
        except Exception as error:  # noqa: BLE001 - it is theirs
            letter.ticket.resolve(error=error)

    def _in_transaction(self, work: Callable[[Effects], None]) -> None:
        """Do ``work`` in a transaction of its own and announce what follows from it.

        Raises:
            sqlite3.Error: it was undone.
        """
        effects = Effects(listened=self._context.audience.any or bool(self._context.journalled.kinds))
        before = set(self._revoked)
        self._store.begin()
        try:
            work(effects)
            self._write_journal(effects, self._context.clock.time())
            self._store.commit()
        except BaseException:
            self._store.rollback()
            effects.release_reserved()
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

    def _announce(self, batch: Batch, effects: Effects) -> None:
        self._telling.tell(batch, effects)
        self._written += effects.octets
        if self._written > CHECKPOINT_OCTETS and not self._checkpointing:
            self._checkpointing = self._context.handles.checkpointer.tell(Checkpoint())

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
            for receive in batch.receives:
                receive.ticket.resolve(error=_refusal(error))
            self._retained += [letter for letter in batch.letters if not isinstance(letter, Accept | Receive)]
            self._retry_at = self.monotonic() + RETRY_SECONDS
            if self._failures >= MAX_FAILURES and not isinstance(_refusal(error), SpoolFull):
                raise error
        elif len(batch.letters) == 1:
            (letter,) = batch.letters
            if not isinstance(letter, Accept | Act | FollowedUp | Order | Receive):
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
