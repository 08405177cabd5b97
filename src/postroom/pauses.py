"""Operators' pauses: standing orders that keep a transport, a destination or everything from being tried."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from postroom.selections import Selection
from postroom.stores.base import Order

__all__ = ["Pause", "pauses_of"]

log = logging.getLogger("postroom.pauses")

_MEANT = frozenset({"transport", "destination", "everything"})
"""What a pause can be narrowed down by."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator's word that something is not to be tried. Times are wall-clock seconds.

    Attributes:
        rule: which standing order that is, for people.
        destination: a glob, None for all destinations.
        expires: until when, None for until it is withdrawn.
        everywhere: it concerns every transport: the offline state.
    """

    rule: str
    destination: str | None = None
    expires: float | None = None
    everywhere: bool = False

    def holds(self, destination: str | None, now: float) -> bool:
        """Return whether it concerns ``destination`` (None: the transport as a whole) at ``now``."""
        if self.expires is not None and self.expires <= now:
            return False
        if self.destination is None or destination is None:
            return self.destination is None
        return fnmatchcase(destination, self.destination)


def pauses_of(orders: Iterable[Order], transport: str) -> tuple[Pause, ...]:
    """Return the pauses among standing orders that concern a transport.

    One that is narrowed down by something else than transport and destination is left out: it would stop more than it
    says.
    """
    pauses: list[Pause] = []
    for order in orders:
        if order.action != "pause":
            continue
        selection = Selection.from_json(order.selection)
        if not _MEANT.issuperset(selection.said):
            log.warning(
                "standing order %d is no pause: it must name transports or destinations only", order.id
            )
        elif selection.transport is None or selection.transport.lower() == transport.lower():
            destination = selection.destination
            everywhere = selection.transport is None and destination is None
            pauses.append(Pause(_rule(order), destination and destination.lower(), order.expires, everywhere))
    return tuple(pauses)


def _rule(order: Order) -> str:
    said = f"paused by standing order {order.id}"
    if order.operator:
        said += f" of {order.operator}"
    return f"{said}: {order.reason}" if order.reason else said
