"""What the keepers of one tree share: the clock, the observer, and the board that shows how things stand."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from postroom.supervision.events import (
    ChildAbandoned,
    ChildDown,
    ChildEnded,
    ChildRestarting,
    ChildRow,
    ChildStarted,
    SupervisionEvent,
)

__all__ = ["Tree"]

_log = logging.getLogger("postroom.supervision")


@dataclass(slots=True, eq=False)
class Tree:
    """What the keepers of one tree share. Each path is written by one keeper at a time.

    Attributes:
        name: the root supervisor's name.
        monotonic: the clock.
        poll_interval: seconds between looks at who is alive and who hangs.
        on_event: who is told what happens.
        rows: how each child stands, by path.
        abandoned: paths of those that were given up during the shutdown.
        fatal: what an essential child of the root failed with at its first start.
    """

    name: str
    monotonic: Callable[[], float]
    poll_interval: float
    on_event: Callable[[SupervisionEvent], None]
    rows: dict[str, ChildRow] = field(default_factory=dict[str, ChildRow])
    abandoned: list[str] = field(default_factory=list[str])
    fatal: BaseException | None = None

    def tell(self, event: SupervisionEvent) -> None:
        """Log an event and tell the observer, whatever the observer does."""
        _log_event(event)
        try:
            self.on_event(event)
        except BaseException:  # noqa: BLE001 - an observer's failure never stops the work
            _log.error(
                "the observer of supervision events failed at %s",
                type(event).__name__,
                exc_info=sys.exc_info(),
            )


def _log_event(event: SupervisionEvent) -> None:
    match event:
        case ChildStarted(name, incarnation):
            _log.debug("%s is up, incarnation %d", name, incarnation)
        case ChildEnded(name, _, None, _):
            _log.debug("%s has ended", name)
        case ChildEnded(name, _, exception, _):
            _log.warning("%s has ended: %s: %s", name, type(exception).__name__, exception)
        case ChildRestarting(name, _, delay, consecutive):
            _log.warning("%s starts again in %.3g s (restart %d in a row)", name, delay, consecutive)
        case ChildDown(name, _, delay, consecutive):
            _log.error("%s is down after %d restarts in a row; next try in %.3g s", name, consecutive, delay)
        case ChildAbandoned(name, incarnation, reason):
            _log.error("%s is abandoned, incarnation %d: %s", name, incarnation, reason)
