"""Which transports can reach an address, in transport order.

The order is the MAPI spooler's: first every transport's address patterns, in the order in which the
transports are configured, then every transport's address types, in the same order.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final

from postroom.addresses import Address, has_type
from postroom.errors import ConfigurationError
from postroom.stores.base import Planned

__all__ = ["PREPROCESS", "Route", "Router", "plan"]

PREPROCESS: Final = "preprocess"
"""The name of the preprocessing stage, which looks like a transport on the record."""


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
    """``plan()`` over fixed routes, worked out beforehand where no pattern can matter. Thread-safe.

    Args:
        routes: in transport order.
        preprocessed: address types that have a preprocessor, or "*" for all: the plan of such an address begins with
            the stage :data:`PREPROCESS`.

    Raises:
        ConfigurationError: a transport has the stage's name.
    """

    def __init__(self, routes: Sequence[Route], preprocessed: Collection[str] = frozenset()) -> None:
        self.routes = tuple(routes)
        self.preprocessed = frozenset(preprocessed)
        if any(route.transport == PREPROCESS for route in self.routes):
            raise ConfigurationError(
                "transports",
                f"one is named {PREPROCESS!r}, as the preprocessing stage is",
                "name it otherwise",
            )
        self._patterned = any(route.patterns for route in self.routes)
        # Known types only: recipients may name any number of others, and memory is not theirs to fill.
        self._by_type = {
            kind: self._work_out(Address(kind, ""))
            for kind in frozenset[str]().union(*(route.address_types for route in self.routes))
            if not self._patterned
        }

    def plan(self, address: Address) -> tuple[str, ...]:
        """Return what :func:`plan` returns for these routes, behind :data:`PREPROCESS` where that comes first."""
        if self._patterned:
            return self._work_out(address)
        return self._by_type.get(address.type, ())

    def first(self, address: Address) -> str | None:
        """Return where an address begins, None when nobody delivers to it."""
        names = self.plan(address)
        return names[0] if names else None

    def after(self, address: Address, transport: str) -> str | None:
        """Return the transport to try when ``transport`` said ``NotMine``, or None when nobody is left.

        Behind the stage :data:`PREPROCESS` it is the first that delivers.
        """
        names = self.plan(address)
        if transport in names:
            names = names[names.index(transport) + 1 :]
        return next((name for name in names if name != PREPROCESS), None)

    def replan(self, address: Address, transport: str, declined: frozenset[str]) -> Planned | None:
        """Return where a recipient that waits goes now that the configuration has changed, None to leave it.

        It goes to the first transport of its new plan, never to one that declined it, and never back to preprocessing.
        That undoes a failover, and what an operator rerouted to a transport outside the plan goes back to the plan.
        When nobody is left it fails, as it does when the last one says ``NotMine``. Pure; a
        :data:`postroom.stores.base.Replan`.

        Args:
            address: the recipient's present one.
            transport: the one it waits for.
            declined: the transports that said ``NotMine`` to this address.
        """
        names = self.plan(address)
        if transport == PREPROCESS and transport in names:
            return None
        first = next((name for name in names if name not in declined and name != PREPROCESS), None)
        if first == transport:
            return None
        if first is None:
            return Planned(None, "no transport delivers to this address since the configuration changed")
        gone = not any(transport == route.transport for route in self.routes)
        why = "is not configured any more" if gone else "does not come first any more"
        return Planned(first, f"{transport} {why}: goes to {first}")

    def failover(self, address: Address, transport: str, declined: frozenset[str]) -> Planned | None:
        """Return where a recipient goes when ``transport`` is out for long, None when nobody else is left.

        That is the next behind it in the plan; a transport that declined it is passed over. It never goes back in the
        plan, so that two transports that are out do not play ping-pong with it. Pure; a
        :data:`postroom.stores.base.Replan`.
        """
        if transport == PREPROCESS:
            return None
        names = self.plan(address)
        if transport in names:
            names = names[names.index(transport) + 1 :]
        following = next(
            (name for name in names if name not in declined and name not in {transport, PREPROCESS}), None
        )
        return None if following is None else Planned(following, f"{transport} is down: goes to {following}")

    def digest(self) -> str:
        """Return the routes as a stable text: it differs when some address might have another plan.

        For noticing a changed configuration; what it is made of may be read, but is not a format.
        """
        routes = [
            [route.transport, sorted(route.address_types), list(route.patterns)] for route in self.routes
        ]
        return json.dumps([sorted(self.preprocessed), routes], ensure_ascii=False, separators=(",", ":"))

    def _work_out(self, address: Address) -> tuple[str, ...]:
        names = plan(address, self.routes)
        if names and not self.preprocessed.isdisjoint((address.type, "*")):
            return (PREPROCESS, *names)
        return names
