"""Standing orders: giving, showing and dropping them. Pauses of transports and destinations are standing orders too.

They are in the spool: a restart does not forget them, and other processes on it heed them within their
``sync_interval``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from postroom.actors.context import Context
from postroom.bulk import Progress
from postroom.envelope_fields import When
from postroom.errors import UsageError
from postroom.operating import ordered
from postroom.operations import Operations
from postroom.orders import ARRIVING, PAUSE, in_force, make_order
from postroom.selections import Selection
from postroom.stores.base import Action, Control, Order

__all__ = ["OrderBook"]


class OrderBook:
    """The standing orders of a spool. Thread-safe.

    Args:
        context: what the actors share.
        operations: acts on what waits already.
        running: whether the spooler still runs.
    """

    def __init__(self, context: Context, operations: Operations, running: Callable[[], bool]) -> None:
        self._context = context
        self._operations = operations
        self._running = running

    def give(  # noqa: PLR0913 - by keyword
        self,
        action: str,
        selection: Selection,
        *,
        expires: When | None = None,
        reason: str = "",
        operator: str = "",
        argument: str = "",
        also_waiting: bool = True,
        progress: Progress | None = None,
    ) -> Order:
        """Give a standing order and return it with its number; see :meth:`postroom.Spooler.order`.

        Raises:
            UsageError: it makes no sense; nothing was done.
            SpoolUnavailable: the store did not answer; the text says whether it may have been given.
        """
        now = self._context.clock.time()
        order = make_order(
            action, selection, now=now, expires=expires, argument=argument, operator=operator, reason=reason
        )
        if action in ARRIVING:
            self._operations.check(Action(cast("Control", action), argument))
        if action == PAUSE and selection.transport is not None:
            self._operations.check_transport(selection.transport, "transport")
        known = self._context.reader.orders()
        if action == PAUSE:
            # The same pause once more only gets another end.
            same = (each.id for each in known if each.action == PAUSE and each.selection == order.selection)
            order = replace(order, id=next(same, 0))
        expired = frozenset(each.id for each in known if not in_force(each, now)) - {order.id}
        (given,), _ = self._ordered(give=[order], drop=expired)
        if also_waiting and action in ARRIVING:
            wanted = Action(cast("Control", action), argument, operator, reason)
            self._operations.apply(wanted, selection, progress=progress)
        return given

    def orders(self) -> tuple[Order, ...]:
        """Return the standing orders that are in force, the first given first."""
        now = self._context.clock.time()
        return tuple(order for order in self._context.reader.orders() if in_force(order, now))

    def drop(self, number: int) -> Order:
        """Drop a standing order and return it. What it has done stays done.

        Raises:
            UsageError: there is none with this number.
        """
        orders = {order.id: order for order in self._context.reader.orders()}
        if number not in orders or not self._ordered(drop=frozenset({number}))[1]:
            numbers = ", ".join(str(order.id) for order in self.orders())
            raise UsageError(
                "order", f"there is no standing order {number}", f"there are: {numbers or 'none'}"
            )
        return orders[number]

    def pause(
        self,
        *,
        transport: str | None = None,
        destination: str | None = None,
        expires: When | None = None,
        reason: str = "",
        operator: str = "",
    ) -> Order:
        """Keep a transport, a destination, or (naming neither) everything from being tried; returns the order."""
        selection = _paused(transport, destination)
        return self.give(PAUSE, selection, expires=expires, reason=reason, operator=operator)

    def resume(self, *, transport: str | None = None, destination: str | None = None) -> int:
        """Drop the pauses of exactly that; returns how many there were."""
        wanted = _paused(transport, destination).to_json()
        mine = frozenset(
            order.id
            for order in self._context.reader.orders()
            if order.action == PAUSE and order.selection == wanted
        )
        return self._ordered(drop=mine)[1] if mine else 0

    def _ordered(
        self, *, give: Sequence[Order] = (), drop: frozenset[int] = frozenset()
    ) -> tuple[Sequence[Order], int]:
        timeout = self._context.settings.submit_timeout
        return ordered(self._context, give=give, drop=drop, timeout=timeout, running=self._running)


def _paused(transport: str | None, destination: str | None) -> Selection:
    """Return what a pause concerns, always written in the same way."""
    return Selection(
        transport=transport,
        destination=destination and destination.lower(),
        everything=transport is None and destination is None,
    )
