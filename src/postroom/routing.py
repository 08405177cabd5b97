"""Which transports can reach an address, in transport order.

The order is the MAPI spooler's: first every transport's address patterns, in the order in which the
transports are configured, then every transport's address types, in the same order.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import translate

from postroom.addresses import Address, has_type

__all__ = ["Route", "Router", "plan"]


@dataclass(frozen=True, slots=True)
class Route:
    """What one transport handles.

    Attributes:
        transport: its name.
        address_types: types, lower case.
        patterns: globs (``*``, ``?``, ``[seq]``) over the whole "type:value", case-insensitive.
    """

    transport: str
    address_types: frozenset[str]
    patterns: tuple[str, ...] = ()
    _compiled: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = tuple(
            re.compile(translate(pattern if has_type(pattern) else f"smtp:{pattern}"), re.IGNORECASE)
            for pattern in self.patterns
        )
        object.__setattr__(self, "_compiled", compiled)

    def matches_pattern(self, address: Address) -> bool:
        """Return whether one of the patterns matches."""
        text = str(address)
        return any(pattern.match(text) for pattern in self._compiled)


def plan(address: Address, routes: Sequence[Route]) -> tuple[str, ...]:
    """Return the names of the transports to try for ``address``, each once, in transport order."""
    by_pattern = [route.transport for route in routes if route.patterns and route.matches_pattern(address)]
    by_type = [route.transport for route in routes if address.type in route.address_types]
    return tuple(dict.fromkeys(by_pattern + by_type))


class Router:
    """``plan()`` over fixed routes, worked out beforehand where no pattern can matter. Thread-safe."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._patterned = any(route.patterns for route in self.routes)
        # Known types only: recipients may name any number of others, and memory is not theirs to fill.
        self._by_type = {
            kind: plan(Address(kind, ""), self.routes)
            for kind in frozenset[str]().union(*(route.address_types for route in self.routes))
            if not self._patterned
        }

    def plan(self, address: Address) -> tuple[str, ...]:
        """Return what :func:`plan` returns for these routes."""
        if self._patterned:
            return plan(address, self.routes)
        return self._by_type.get(address.type, ())

    def after(self, address: Address, transport: str) -> str | None:
        """Return the transport to try when ``transport`` said ``NotMine``, or None when nobody is left."""
        names = self.plan(address)
        if transport not in names:
            return names[0] if names else None
        position = names.index(transport) + 1
        return names[position] if position < len(names) else None
