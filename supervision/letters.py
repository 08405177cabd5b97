"""The letters that the machinery itself sends, and the two private names of pykka that it needs.

pykka has no public name for the envelope around a letter nor for the stop letter, though both are stable
since version 2; they are imported here and nowhere else, and a test fails when they move.
"""

from dataclasses import dataclass

from pykka import messages
from pykka._envelope import Envelope

__all__ = ["CONTROL_LETTERS", "ActorStop", "Crash", "Envelope"]

ActorStop = messages._ActorStop  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, slots=True)
class Crash:
    """Makes the actor that reads it fail with :class:`~postroom.supervision.InjectedCrash`.

    Attributes:
        reason: the text of the exception.
    """

    reason: str = "asked to crash"


CONTROL_LETTERS: frozenset[type] = frozenset(
    {ActorStop, Crash, messages.ProxyCall, messages.ProxyGetAttr, messages.ProxySetAttr}
)
"""Types of letters that a mailbox actor handles itself, in their turn; by exact type, for speed."""
