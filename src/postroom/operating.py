"""The operator's side: an action on one message, from the caller's thread to the store and back."""

import time
from collections.abc import Callable, Collection

from postroom.actors.context import Context
from postroom.actors.protocol import Act
from postroom.errors import NotRunning, SpoolUnavailable
from postroom.stores.base import Control, Controlled
from postroom.tickets import StoreDied, Ticket

__all__ = ["perform"]

RESTART_PAUSE = 0.02
"""Seconds between tries to reach a store that is being restarted."""

WATCH_SECONDS = 1.0
"""How often it is looked whether the store that was told has died, or the spooler was stopped."""


def perform(  # noqa: PLR0913 - by keyword
    context: Context,
    *,
    action: Control,
    key: int,
    indices: Collection[int] | None,
    timeout: float,
    running: Callable[[], bool],
) -> Controlled:
    """Have the store act on a message, within ``timeout`` seconds; returns what it did.

    Raises:
        SpoolUnavailable: the store did not answer; the text says whether the action may have been done.
        NotRunning: the spooler was stopped before the store answered.
    """
    store = context.handles.store
    letter = Act(action, key, None if indices is None else frozenset(indices), Ticket())
    deadline = context.clock.monotonic() + timeout
    incarnation = store.incarnation
    while not store.tell(letter):
        # Nobody has it, so that it may be told again without being done twice.
        if not running():
            raise NotRunning(f"the spooler was stopped; {action} was not done")
        if context.clock.monotonic() >= deadline:
            raise SpoolUnavailable(f"the store is not running; {action} was not done")
        time.sleep(RESTART_PAUSE)
        incarnation = store.incarnation
    while not letter.ticket.wait(min(WATCH_SECONDS, deadline - context.clock.monotonic())):
        if store.incarnation != incarnation or context.clock.monotonic() >= deadline:
            raise SpoolUnavailable(f"the store did not answer; whether {action} was done is not known")
        if not running() and not store.alive and not letter.ticket.resolved:
            raise NotRunning(f"the spooler was stopped; whether {action} was done is not known")
    if isinstance(letter.ticket.error, StoreDied):
        raise SpoolUnavailable(f"the store died before it answered; whether {action} was done is not known")
    result: Controlled = letter.ticket.result()
    return result
