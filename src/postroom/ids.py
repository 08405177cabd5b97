"""Message numbers: unique across the processes that share a spool, sorted by time, one SQLite rowid each.

A number has 63 bits: 42 of milliseconds since 2020, 10 of the instance that made it, 11 of a counter within
the millisecond. As text it is 13 characters of Crockford's base 32, whose order is the numbers' order.
"""

import threading
from collections.abc import Callable
from itertools import count

from postroom.errors import UnknownMessage

__all__ = ["MAX_NODE", "IdGenerator", "created_at", "format_id", "key_at", "parse_id"]

EPOCH_MS = 1_577_836_800_000
"""2020-01-01T00:00:00Z, in milliseconds since the Unix epoch."""

NODE_BITS = 10
COUNTER_BITS = 11
MAX_NODE = (1 << NODE_BITS) - 1
"""The highest number an instance may have."""

ID_LENGTH = 13
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)} | {
    char.lower(): value for value, char in enumerate(_ALPHABET)
}
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_SHIFT = NODE_BITS + COUNTER_BITS
_COUNTER_MASK = (1 << COUNTER_BITS) - 1
_HEADROOM = 512
"""Ticks left free at the start of a millisecond for threads that still draw from the former counter: one each at most,
and only those that were interrupted between reading the attribute and drawing."""


class IdGenerator:
    """Makes numbers for one instance. Thread-safe, and without a lock on the common path.

    A clock that is set back does not make numbers go back: they go on from the last millisecond used.

    Args:
        node: the instance's number, 0 to ``MAX_NODE``, unique among the living instances of a spool.
        time: wall clock in seconds since the Unix epoch.
        floor: the highest number known to exist already, 0 if none.
    """

    def __init__(self, node: int, time: Callable[[], float], floor: int = 0) -> None:
        if not 0 <= node <= MAX_NODE:
            raise ValueError(f"node: {node} is outside 0 to {MAX_NODE}")
        self._node = node << COUNTER_BITS
        self._time = time
        # Milliseconds and counter as one rising number without the node between them; drawing from it is atomic.
        self._ticks = count(((floor >> _SHIFT) + 1) << COUNTER_BITS)
        self._advancing = threading.Lock()

    def next(self) -> int:
        """Return a number greater than all that this generator returned before the call."""
        now = int(self._time() * 1000) - EPOCH_MS
        while True:
            ticks = self._ticks
            tick = next(ticks)
            if tick >> COUNTER_BITS >= now or not self._advance(ticks, now):
                return (tick >> COUNTER_BITS) << _SHIFT | self._node | (tick & _COUNTER_MASK)

    def _advance(self, behind: "count[int]", now: int) -> bool:
        """Bring the ticks up to the clock; False, with the tick at hand as good as any, while another thread does."""
        if not self._advancing.acquire(blocking=False):
            return False
        try:
            if self._ticks is behind:
                self._ticks = count((now << COUNTER_BITS) + _HEADROOM)
        finally:
            self._advancing.release()
        return True


def format_id(number: int) -> str:
    """Return the 13 characters that stand for ``number``."""
    pairs = _PAIRS
    return (
        _ALPHABET[number >> 60]
        + pairs[(number >> 50) & 1023]
        + pairs[(number >> 40) & 1023]
        + pairs[(number >> 30) & 1023]
        + pairs[(number >> 20) & 1023]
        + pairs[(number >> 10) & 1023]
        + pairs[number & 1023]
    )


def parse_id(text: str) -> int:
    """Return the number that ``text`` stands for; lower case is understood.

    Raises:
        UnknownMessage: ``text`` is not 13 characters of base 32.
    """
    number = -1
    if isinstance(text, str) and len(text) == ID_LENGTH:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        try:
            number = 0
            for char in text:
                number = number << 5 | _VALUES[char]
        except KeyError:
            number = -1
    if not 0 <= number < 1 << 63:
        raise UnknownMessage(
            "id", f"{text!r} is not a message id", f"an id has {ID_LENGTH} characters, as in receipt.id"
        )
    return number


def created_at(number: int) -> float:
    """Return when ``number`` was made, in seconds since the Unix epoch, to the millisecond."""
    return ((number >> _SHIFT) + EPOCH_MS) / 1000


def key_at(time: float) -> int:
    """Return the smallest number that can be made at ``time`` (seconds since the Unix epoch), at least 0."""
    return max(0, int(time * 1000) - EPOCH_MS) << _SHIFT
