"""Where a recipient turns to when its address fails for good: alternative addresses, as first e-mail and then SMS."""

from dataclasses import replace
from typing import NamedTuple, Protocol

from postroom.addresses import Address
from postroom.options import RecipientOptions

__all__ = ["Routes", "Turn", "turn_to_alternative"]


class Routes(Protocol):
    """Who delivers where."""

    def first(self, address: Address) -> str | None:
        """Return where an address begins, None when nobody delivers to it."""
        ...


class Turn(NamedTuple):
    """Where a recipient goes on.

    Attributes:
        address: the alternative.
        options: what is said of it from now on: the address it had first, and the alternatives that are left.
        transport: the first of the alternative's plan.
    """

    address: Address
    options: RecipientOptions
    transport: str


def turn_to_alternative(address: Address, options: RecipientOptions | None, router: Routes) -> Turn | None:
    """Return where a recipient of ``address`` goes on, or None when no alternative is left. Pure.

    Alternatives that no transport delivers to are passed over. Where an alternative is preprocessed, that begins with
    the message as it was submitted.

    Args:
        address: the one that failed.
        options: of the recipient.
        router: says who delivers to the alternatives.
    """
    if options is None:
        return None
    for position, alternative in enumerate(options.alternatives, 1):
        first = router.first(alternative)
        if first is None:
            continue
        left = replace(
            options, alternatives=options.alternatives[position:], original=options.original or address
        )
        return Turn(alternative, left, first)
    return None
