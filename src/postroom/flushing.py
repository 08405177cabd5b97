"""Flush: everything that waits for later is due now, and what is parked is tried at once (MAPI ``FlushQueues``)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from postroom.actors.context import Context
from postroom.actors.protocol import Probe
from postroom.errors import NotRunning
from postroom.operating import perform
from postroom.operations import Operations
from postroom.recipients import State
from postroom.selections import Selection
from postroom.stores.base import Action

__all__ = ["Flushed", "flush"]

FIRST_LOOK: Final = 0.02
LAST_LOOK: Final = 1.0
"""Seconds between looks at what is left: first and longest."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """How far a flush has come. Counts recipients.

    Attributes:
        made_due: those that waited for a later time and are due now.
        total: those that were due when it began, ``made_due`` included.
        remaining: those of them that were not tried yet.
    """

    made_due: int
    total: int
    remaining: int

    @property
    def done(self) -> bool:
        """Whether everything has been tried."""
        return self.remaining == 0


def flush(  # noqa: PLR0913 - by keyword
    context: Context,
    operations: Operations,
    running: Callable[[], bool],
    *,
    transport: str | None,
    destination: str | None,
    wait: bool,
    timeout: float | None,
    progress: Callable[[Flushed], object] | None,
    operator: str,
    reason: str,
) -> Flushed:
    """Make everything due and probe what is parked; see :meth:`postroom.Spooler.flush`."""
    if transport is not None:
        operations.check_transport(transport, "transport")
    clock = context.clock
    deadline = None if timeout is None else clock.monotonic() + timeout
    selection = Selection(
        transport=transport,
        destination=destination,
        states=(State.QUEUED,),
        everything=transport is None and destination is None,
    )
    made_due = operations.apply(Action("retry", "", operator, reason), selection, idle=True).changed
    began = clock.time()
    probe = Action("probe", transport or "", operator, reason)
    perform(
        context, action=probe, subjects=[(0, None)], timeout=context.settings.submit_timeout, running=running
    )
    for name, handle in context.handles.transports.items():
        if transport in {None, name}:
            handle.tell(Probe())
    waiting = replace(selection, states=(State.QUEUED, State.SENDING))

    def remaining() -> int:
        now = clock.time()
        submitted_before = replace(waiting, older_than=max(0.0, now - began))
        return context.reader.count_selected(submitted_before, now=now, due=True)[0]

    left = remaining()
    flushed = Flushed(made_due, left, left)
    pause = FIRST_LOOK
    while True:
        if progress is not None:
            progress(flushed)
        spare = None if deadline is None else deadline - clock.monotonic()
        if flushed.done or not wait or (spare is not None and spare <= 0):
            return flushed
        if not running():
            raise NotRunning("the spooler was stopped during a flush; what was made due stays due")
        time.sleep(pause if spare is None else min(pause, spare))
        pause = min(LAST_LOOK, pause * 1.5)
        left = remaining()
        # What came back to be due again has been tried: the number never grows.
        flushed = replace(flushed, remaining=min(flushed.remaining, left))
