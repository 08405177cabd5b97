"""How often a child may be restarted before it counts as down."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Intensity"]


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most ``restarts`` restarts within any ``period`` seconds.

    The window slides: the times of restarts inside the period are kept and their number compared.
    """

    restarts: int = 5
    period: float = 60.0

    def __post_init__(self) -> None:
        if self.restarts < 0:
            raise ValueError(f"restarts: {self.restarts} is negative; give 0 or more")
        if not self.period > 0:
            raise ValueError(f"period: {self.period} is not positive; give seconds above 0")

    def within(self, times: Iterable[float], now: float) -> tuple[float, ...]:
        """Return the times inside the period that ends now, the youngest ``restarts + 1`` at most."""
        recent = tuple(time for time in times if now - time <= self.period)
        # More than one above the limit change nothing, and must not pile up.
        return recent[-(self.restarts + 1) :]

    def exceeded(self, times: Iterable[float], now: float) -> bool:
        """Return whether these restarts are too many."""
        return len(self.within(times, now)) > self.restarts
