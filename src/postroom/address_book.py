"""The address book: names of people to addresses, for what is neither an address nor the name of a list."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from postroom.addresses import Address, parse_address
from postroom.errors import ConfigurationError, InvalidAddress

__all__ = ["AddressBook", "Names"]

Names = Mapping[str, str | Address] | Callable[[str], "str | Address | Iterable[str | Address] | None"]
"""A name's address. A callable may return several, which makes the name ambiguous, or None."""


class AddressBook:
    """Resolves names, as MAPI's ResolveName does. Thread-safe; a callable is called in the caller's thread.

    Args:
        names: a dictionary (copied; case does not count), a callable, or None for an empty book.

    Raises:
        ConfigurationError: the dictionary holds what is no address, or one name twice.
    """

    def __init__(self, names: Names | None = None) -> None:
        self._ask: Callable[[str], Any]
        if names is None:
            self._ask = _nobody
        elif callable(names):
            self._ask = names
        elif isinstance(names, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            table = _table(names)
            self._ask = lambda name: table.get(name.casefold())
        else:
            raise ConfigurationError(
                "names", f"{type(names).__name__} is no address book", "give a dict or a callable"
            )

    def address(self, name: str, field: str) -> Address:
        """Return the address of a name.

        Raises:
            InvalidAddress: naming ``field``: nobody has the name, or several have.
        """
        found = self._ask(" ".join(name.split()))
        several = [found] if isinstance(found, (str, Address)) else list(found or ())
        if len(several) == 1:
            return parse_address(several[0], field=field)
        shown = name.strip()[:100]
        if several:
            candidates = ", ".join(map(str, several[:3])) + ", …" * (len(several) > 3)
            raise InvalidAddress(field, f"{shown!r} is ambiguous ({candidates})", "give the address")
        raise InvalidAddress(
            field,
            f"{shown!r} is no address, and no list and nobody is called that",
            "write ann@example.org, type:value or the name of a list",
        )


def _nobody(name: str) -> None:
    """Know nobody."""
    del name


def _table(names: Mapping[str, str | Address]) -> Mapping[str, Address]:
    table: dict[str, Address] = {}
    for name, text in names.items():
        field = f"names[{name!r}]"
        key = " ".join(name.split()).casefold()
        if key in table:
            raise ConfigurationError(field, "is there twice", "case does not count: tell them apart")
        try:
            table[key] = parse_address(text, field=field)
        except InvalidAddress as error:
            raise ConfigurationError(error.field, error.problem, error.remedy) from None
    return table
