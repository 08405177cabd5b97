"""The operator's side: a wish from the caller's thread to the store and back."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from postroom.active_queue import Phase
from postroom.actors.context import Context
from postroom.actors.protocol import Act, Order
from postroom.errors import NotRunning, SpoolUnavailable
from postroom.stores.base import Action, Controlled
from postroom.stores.base import Order as StandingOrder
from postroom.stores.changing import WITH_PENDING
from postroom.tickets import StoreDied, Ticket

__all__ = ["log_operation", "ordered", "perform"]

RESTART_PAUSE = 0.02
"""Seconds between tries to reach a store that is being restarted."""

WATCH_SECONDS = 1.0
"""How often it is looked whether the store that was told has died, or the spooler was stopped."""


ARRIVING_PAUSE = 0.005
"""Seconds between looks for recipients that are on their way from the spool to their transport's actor."""

PATIENCE_SECONDS = 1.0
"""How long they are waited for: usually that takes a few milliseconds."""

Subject = tuple[int, frozenset[int] | None]
"""A message, and its recipients or None for all."""


class Letter(Protocol):
    """A letter with a ticket for the answer."""

    @property
    def ticket(self) -> Ticket:
        """Gets the answer."""
        ...


def perform(
    context: Context,
    *,
    action: Action,
    subjects: Sequence[Subject],
    timeout: float,
    running: Callable[[], bool],
) -> Sequence[Controlled]:
    """Have the store act on messages, within ``timeout`` seconds; returns what it did with each.

    Recipients that were just taken out of the spool but have not come to their transport's actor yet can be had by
    nobody. They are being sent as little as any others that wait, so they are waited for and acted on as well.

    Args:
        context: what the actors share.
        action: what is to be done.
        subjects: (message, its recipients or None for all), few enough for one transaction.
        timeout: seconds.
        running: whether the spooler still runs.

    Raises:
        SpoolUnavailable: the store did not answer; the text says whether the action may have been done.
        NotRunning: the spooler was stopped before the store answered.
    """

    def act(some: Sequence[Subject]) -> Sequence[Controlled]:
        letter = Act(action, some, Ticket())
        answer = ask(context, letter, action.kind, timeout=timeout, running=running)
        return cast("Sequence[Controlled]", answer)

    done = list(act(subjects))
    deadline = context.clock.monotonic() + min(PATIENCE_SECONDS, timeout)
    while (arriving := _arriving(context, action, subjects, done)) and context.clock.monotonic() < deadline:
        time.sleep(ARRIVING_PAUSE)
        try:
            answers = act([subject for _, subject in arriving])
        except (SpoolUnavailable, NotRunning):
            # What was done before is to be told all the same.
            break
        for (number, (_, indices)), again in zip(arriving, answers, strict=True):
            done[number] = _together(done[number], again, indices)
    return done


def _arriving(
    context: Context, action: Action, subjects: Sequence[Subject], done: Sequence[Controlled]
) -> list[tuple[int, Subject]]:
    """Return the recipients that are in memory but in no courier's hands, with the number of their subject."""
    whole = action.kind == "delete"
    if action.kind == "release" or (whole and action.argument != WITH_PENDING):
        # Nothing that is held is in memory, and what is pending may not be deleted anyway.
        return []
    if not all(handle.alive for handle in context.handles.transports.values()):
        return []
    found: list[tuple[int, Subject]] = []
    for number, ((key, _), result) in enumerate(zip(subjects, done, strict=True)):
        indices = frozenset(index for index in result.in_transit if _is_free(context, key, index))
        if indices:
            found.append((number, (key, None if whole else indices)))
    return found


def _is_free(context: Context, key: int, index: int) -> bool:
    phases = (queue.phase_of(key, index) for queue in context.queues.values())
    return all(phase is None or phase is Phase.WAITING for phase in phases)


def _together(first: Controlled, again: Controlled, indices: frozenset[int] | None) -> Controlled:
    """Return what two actions on one message have done, the second of them on ``indices``."""
    left = () if indices is None else tuple(index for index in first.in_transit if index not in indices)
    return Controlled(
        changed=(*first.changed, *again.changed),
        in_transit=(*left, *again.in_transit),
        final=tuple(sorted({*first.final, *again.final} - {*first.changed})),
        transports=first.transports | again.transports,
        completed=first.completed or again.completed,
        settlements=(*first.settlements, *again.settlements),
        requested=(*first.requested, *again.requested),
        deleted=first.deleted or again.deleted,
    )


def ordered(
    context: Context,
    *,
    give: Sequence[StandingOrder] = (),
    drop: frozenset[int] = frozenset(),
    timeout: float,
    running: Callable[[], bool],
) -> tuple[Sequence[StandingOrder], int]:
    """Have standing orders recorded and dropped; returns those given, and how many were dropped.

    Raises: as :func:`perform`.
    """
    letter = Order(give, drop, Ticket())
    answer = ask(context, letter, "the order", timeout=timeout, running=running)
    return cast("tuple[Sequence[StandingOrder], int]", answer)


def log_operation(  # noqa: PLR0913 - by keyword
    context: Context,
    *,
    action: Action,
    selection: str,
    changed: int,
    operation: int | None,
    timeout: float,
    running: Callable[[], bool],
) -> int:
    """Have what an operator begins, or has ended, written into the log of operations; returns the entry's number.

    Raises: as :func:`perform`.
    """
    letter = Order((), frozenset(), Ticket(), (action, selection, changed, operation))
    return cast("int", ask(context, letter, "the log entry", timeout=timeout, running=running))


def ask(
    context: Context, letter: Letter, what: str, *, timeout: float, running: Callable[[], bool]
) -> object:
    """Tell the store and wait for its answer, within ``timeout`` seconds. It is never told twice.

    Raises:
        SpoolUnavailable: the store did not answer; the text says whether it may have been done.
        NotRunning: the spooler was stopped before the store answered.
    """
    store = context.handles.store
    deadline = context.clock.monotonic() + timeout
    incarnation = store.incarnation
    while not store.tell(letter):
        # Nobody has it, so that it may be told again without being done twice.
        if not running():
            raise NotRunning(f"the spooler was stopped; {what} was not done")
        if context.clock.monotonic() >= deadline:
            raise SpoolUnavailable(f"the store is not running; {what} was not done")
        time.sleep(RESTART_PAUSE)
        incarnation = store.incarnation
    while not letter.ticket.wait(min(WATCH_SECONDS, deadline - context.clock.monotonic())):
        if store.incarnation != incarnation or context.clock.monotonic() >= deadline:
            raise SpoolUnavailable(f"the store did not answer; whether {what} was done is not known")
        if not running() and not store.alive and not letter.ticket.resolved:
            raise NotRunning(f"the spooler was stopped; whether {what} was done is not known")
    if isinstance(letter.ticket.error, StoreDied):
        raise SpoolUnavailable(f"the store died before it answered; whether {what} was done is not known")
    return letter.ticket.result()
