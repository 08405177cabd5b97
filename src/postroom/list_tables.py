"""Distribution lists as a table in memory, however they were given: name or address to members."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from postroom.addresses import Address, has_type, parse_address
from postroom.envelope_recipients import LIST_TYPE, Recipient
from postroom.errors import ConfigurationError, InvalidAddress

__all__ = [
    "Lookup",
    "Member",
    "Members",
    "Table",
    "is_name",
    "list_key",
    "list_table",
    "parse_list",
    "table_lookup",
]

Member = str | Address | Recipient
"""Who may be on a list."""

Members = Iterable[Member] | Member
"""All who are on a list; one alone needs no brackets."""

Lookup = Callable[[Address], Members | None]
"""Told an address, returns who is on that list; None when it is no list."""

Table = Mapping[str, tuple[Member, ...]]
"""Members by :func:`list_key`."""


def is_name(text: str) -> bool:
    """Return whether a text has neither a type nor an @ and is no one-off address, so that it can only be a name."""
    stripped = text.strip()
    return bool(stripped) and not has_type(stripped) and not any(sign in stripped for sign in "@[<")


def list_key(address: Address) -> str:
    """Return what a list is compared by. Only in URLs may case matter."""
    return str(address) if address.type in {"http", "https"} else str(address).casefold()


def parse_list(text: str | Address, field: str) -> Address:
    """Return the address that stands for a list: what is only a name is ``list:name``.

    Raises:
        InvalidAddress: naming ``field``.
    """
    if isinstance(text, str) and is_name(text):
        return Address(LIST_TYPE, " ".join(text.split()))
    return parse_address(text, field=field)


def list_table(lists: Mapping[str, Members]) -> Table:
    """Return a dictionary of lists as a table, so that mistakes show when it is made and not when it is used.

    Raises:
        ConfigurationError: something cannot be an address, or two lists have one name.
    """
    table: dict[str, tuple[Member, ...]] = {}
    for name, given in lists.items():
        field = f"lists[{name!r}]"
        try:
            key = list_key(parse_list(name, field))
            members = _members(given, field)
        except InvalidAddress as error:
            raise ConfigurationError(error.field, error.problem, error.remedy) from None
        if key in table:
            raise ConfigurationError(
                field, "another list is called that", "case does not count: join the two"
            )
        table[key] = members
    return table


def table_lookup(table: Table) -> Lookup:
    """Return a lookup in a table."""
    return lambda address: table.get(list_key(address))


def _members(given: Any, field: str) -> tuple[Member, ...]:
    if isinstance(given, (str, Address, Recipient)):
        given = (given,)
    try:
        members = tuple(given)
    except TypeError:
        raise ConfigurationError(
            field, f"{type(given).__name__} is not what is on a list", "give a list of addresses"
        ) from None
    for number, member in enumerate(members):
        parse_list(member.address if isinstance(member, Recipient) else member, f"{field}[{number}]")
    return members
