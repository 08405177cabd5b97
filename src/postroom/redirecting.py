"""What becomes of a recipient whose address an operator changes."""

from dataclasses import replace
from functools import lru_cache

from postroom.addresses import Address, parse_address
from postroom.errors import UsageError
from postroom.options import RecipientOptions

__all__ = ["new_address", "redirected", "same_place"]

_WHOLE_DOMAIN = "*@"


@lru_cache(maxsize=1024)
def new_address(argument: str, address: Address) -> Address:
    """Return where a recipient goes: the address that ``argument`` names, or ``*@domain`` for its like at a domain.

    Raises:
        UsageError: it names no address; ``*@domain`` is applied to something that is no mailbox.
    """
    domain = argument.removeprefix("smtp:")
    if not domain.startswith(_WHOLE_DOMAIN):
        return parse_address(argument, field="argument")
    if address.type != "smtp":
        raise UsageError(
            "argument",
            f"{argument!r} keeps the part before the @, and {address} has none",
            "give a whole address",
        )
    return parse_address(address.value.rpartition("@")[0] + domain[1:], field="argument")


def same_place(argument: str, address: Address) -> bool:
    """Return whether ``argument`` leads where the recipient goes already, or cannot be applied to it."""
    try:
        return new_address(argument, address) == address
    except UsageError:
        return True


def redirected(options: RecipientOptions | None, address: Address) -> RecipientOptions:
    """Return the options of a recipient that leaves ``address``; the first address it had stays on the record."""
    options = options or RecipientOptions()
    return options if options.original is not None else replace(options, original=address)
