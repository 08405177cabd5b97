"""What a supervisor is told about its children: plain values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pykka
from tenacity.wait import wait_base

from postroom.supervision.address import Handle
from postroom.supervision.intensity import Intensity

__all__ = ["ChildSpec", "Restart", "StartChild", "Strategy", "Subtree", "supervisor_child", "walk"]

StartChild = Callable[[], pykka.ActorRef[Any]]
"""Starts one incarnation of a child; called in the supervisor's thread, hence must not block."""


class Restart(Enum):
    """Which ends of a child are followed by a restart."""

    PERMANENT = "permanent"
    """Every end."""
    TRANSIENT = "transient"
    """A failure; not an orderly end."""
    TEMPORARY = "temporary"
    """None, not even when siblings are restarted together."""


class Strategy(Enum):
    """Who is restarted when one child is."""

    ONE_FOR_ONE = "one_for_one"
    """That child alone."""
    REST_FOR_ONE = "rest_for_one"
    """That child and those after it, which depend on it."""
    ONE_FOR_ALL = "one_for_all"
    """All children: each depends on each."""


@dataclass(frozen=True, slots=True)
class Subtree:
    """The ``start`` of a child that is itself a supervisor.

    Attributes are those of :class:`~postroom.supervision.Supervisor`; a ``backoff`` of None is the parent's.
    """

    children: Sequence["ChildSpec"]
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: Intensity = field(default_factory=Intensity)
    quiet_after: float = 60.0
    backoff: wait_base | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for position, child in enumerate(self.children):
            if child.name in seen:
                raise ValueError(
                    f"children[{position}].name: {child.name!r} is taken; give each child its own name"
                )
            seen.add(child.name)
        if self.quiet_after < 0:
            raise ValueError(f"quiet_after: {self.quiet_after} is negative; give seconds from 0")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is started, ended and restarted. Times are in seconds.

    Attributes:
        name: unique among its siblings; no slash, which separates names in a path ("transports/smtp").
        start: starts an incarnation and returns its reference. A :class:`MailboxActor` reports its end and
            shows whether it hangs; of a plain pykka actor only the liveness is polled.
        restart: which ends are followed by a restart.
        stop_timeout: how long an orderly stop may take before the child is abandoned.
        backoff: a tenacity wait, evaluated on the number of consecutive restarts; None is the supervisor's.
        hang_timeout: how long one batch or hook may take before the child is abandoned and replaced; None is
            for ever.
        start_timeout: how long ``on_start`` may take before the child is abandoned and tried again.
        essential: whether a failure of the very first start ends the supervisor, and is raised by its
            ``start()``.
        handle: the child's address, made here unless one is given.
    """

    name: str
    start: StartChild | Subtree
    restart: Restart = Restart.PERMANENT
    stop_timeout: float = 5.0
    backoff: wait_base | None = None
    hang_timeout: float | None = None
    start_timeout: float = 30.0
    essential: bool = False
    handle: Handle = field(default_factory=Handle, compare=False)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name: {self.name!r} cannot be part of a path; give a name without a slash")
        for name in ("stop_timeout", "start_timeout", "hang_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name}: {seconds} is not positive; give seconds above 0")
        self.handle.name = self.handle.name or self.name


def supervisor_child(  # noqa: PLR0913 - the fields of two values, by keyword
    name: str,
    children: Sequence[ChildSpec],
    *,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    intensity: Intensity | None = None,
    quiet_after: float = 60.0,
    backoff: wait_base | None = None,
    stop_timeout: float | None = None,
    start_timeout: float | None = None,
    hang_timeout: float | None = None,
    essential: bool = False,
) -> ChildSpec:
    """Return the spec of a child that supervises children of its own.

    When such a supervisor fails, it takes its children down in order, and the restarted one starts them all
    again.

    Args:
        name: its name among its siblings.
        children: its children in start order.
        strategy: who is restarted when one of them is.
        intensity: how often each may be restarted before it is down.
        quiet_after: seconds a child must run before its failures are forgotten.
        backoff: the default of the children, and the wait between restarts of this supervisor itself.
        stop_timeout: seconds an orderly stop may take; by default as long as its children may take together.
        start_timeout: the same for the start.
        hang_timeout: how long it may be busy at once, as in a child's factory, before the whole subtree
            is abandoned and replaced; None is for ever.
        essential: whether a failure of its first start ends the supervisor above.
    """
    return ChildSpec(
        name,
        Subtree(tuple(children), strategy, intensity or Intensity(), quiet_after, backoff),
        backoff=backoff,
        stop_timeout=stop_timeout or 1.0 + 1.2 * sum(child.stop_timeout for child in children),
        start_timeout=start_timeout or 1.0 + sum(child.start_timeout for child in children),
        hang_timeout=hang_timeout,
        essential=essential,
    )


def walk(children: Sequence[ChildSpec], prefix: str = "") -> Iterator[tuple[str, ChildSpec]]:
    """Yield the path and spec of every child of a tree, parents before children, in start order."""
    for child in children:
        path = prefix + child.name
        yield path, child
        if isinstance(child.start, Subtree):
            yield from walk(child.start.children, f"{path}/")
