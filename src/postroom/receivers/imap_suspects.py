"""Messages at which a server breaks the connection, so that one of them does not hold all others up for ever.

Some servers hang up on whoever fetches a message that they cannot read. After a break during a fetch, messages are
fetched one by one; the one at which the connection breaks twice is left alone for a while, and the others come through.
"""

from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Suspects"]

FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 3600.0


class Suspects:
    """What is remembered from one session of a receiver to the next, in memory. Used by one session at a time.

    Args:
        monotonic: the clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._careful: set[str] = set()
        self._breaks: dict[tuple[str, int], tuple[int, float]] = {}

    def careful(self, source: str) -> bool:
        """Return whether messages of this source are to be fetched one by one."""
        return source in self._careful

    def resting(self, source: str, uid: int) -> bool:
        """Return whether a message is to be left alone for now."""
        return self._breaks.get((source, uid), (0, 0.0))[1] > self._monotonic()

    def broke(self, source: str, uids: Sequence[int]) -> None:
        """Note that the connection broke while these were fetched."""
        self._careful.add(source)
        if len(uids) != 1:
            return
        count = self._breaks.get((source, uids[0]), (0, 0.0))[0] + 1
        # Once may be the network's fault.
        pause = min(FIRST_SECONDS * 2.0 ** min(count - 2, 10), LONGEST_SECONDS) if count > 1 else 0.0
        self._breaks[source, uids[0]] = (count, self._monotonic() + pause)

    def came(self, source: str, uid: int) -> None:
        """Note that a message could be fetched."""
        self._breaks.pop((source, uid), None)

    def passed(self, source: str) -> None:
        """Note that everything of a source was gone through without a break."""
        self._careful.discard(source)
