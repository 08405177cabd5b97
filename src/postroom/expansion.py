"""Expansion: from the recipients that a caller names to the addresses that the message goes to.

Distribution lists stand wherever an address does. A list has a name (``list:staff``, or just ``staff``) or an address
of any type that a source knows (``staff@example.org``). Its members are addresses in every form that ``to=`` takes,
:class:`postroom.envelope_recipients.Recipient` included, and other lists.

- An address gets the message once, however many lists it is on and in whatever way it is named: the first mention
  wins, with what is said there. Members stand in the place of their list.
- A list is expanded once for each message. So a loop is no error: it ends where it comes back, as in MAPI's
  ExpandRecips and with Postfix's aliases.
- A list that has an address of its own and names it as a member delivers there too, as Postfix's virtual(5) does.
- Names of lists and their addresses are compared without regard to case.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Final, NamedTuple, cast

from postroom.address_book import AddressBook, Names
from postroom.addresses import Address, parse_address
from postroom.envelope_recipients import LIST_TYPE, Recipient, recipient_options
from postroom.errors import ConfigurationError, InvalidAddress, TooManyRecipients, UsageError
from postroom.list_files import ListFile
from postroom.list_tables import Lookup, Members, is_name, list_key, list_table, table_lookup
from postroom.options import RecipientOptions

__all__ = ["MAX_DEPTH", "Expanded", "Expander", "Lists", "Source"]

MAX_DEPTH: Final = 50
"""How deep lists may be nested in each other."""

_MIN_STEPS: Final = 100_000
"""Members that are looked at for one message at most, the same ones again included, or 20 times ``max_recipients``."""

Source = Mapping[str, Members] | Lookup | ListFile | PathLike[str]
Lists = Source | Sequence[Source]
"""Where lists come from: dictionaries (copied), callables, files, or several of them; the first that knows one wins."""


class Expanded(NamedTuple):
    """Who a message goes to.

    Attributes:
        recipients: each address once, with what is said of it, in order.
        given: what the caller named, in canonical form, before lists were expanded.
        lists: the lists among it.
    """

    recipients: Mapping[Address, RecipientOptions | None]
    given: tuple[str, ...]
    lists: tuple[str, ...]


class _Members(NamedTuple):
    """A list that is being walked.

    Attributes:
        numbered: its members, each with the field that names it.
        key: what the list itself is compared by.
        via: its name and those of the lists that it was reached by, outermost first.
        report: what is said of whom the caller named, for those on it.
        orcpt: ditto.
    """

    numbered: Iterator[tuple[str, object]]
    key: str = ""
    via: tuple[str, ...] = ()
    report: str | None = None
    orcpt: str = ""


class Expander:
    """Expands lists and looks names up. Thread-safe; callables are called in the thread that submits.

    What a callable raises goes to the submitter, and nothing is stored. It is asked for every address of every message,
    so it should be quick.

    Args:
        lists: see :data:`Lists`.
        names: an address book for what is neither an address nor the name of a list, or None.
        max_depth: how deep lists may be nested.

    Raises:
        ConfigurationError: a dictionary or a file holds something that cannot be an address.
    """

    def __init__(
        self, lists: Lists | None = None, *, names: Names | None = None, max_depth: int = MAX_DEPTH
    ) -> None:
        self._sources = _lookups(lists)
        self._names = AddressBook(names)
        self._max_depth = max_depth

    def expand(self, numbered: Iterable[tuple[str, object]], limit: int, name: str = "to") -> Expanded:
        """Return who the message goes to.

        Args:
            numbered: (field, recipient) for each that the caller named.
            limit: how many different addresses may come of it.
            name: the field that names all of them.

        Raises:
            TooManyRecipients: there are more than ``limit``.
            InvalidAddress: an address cannot be parsed, or a list or a name is not known or is ambiguous.
            UsageError: lists are nested too deep, never end, or are given alternatives.
        """
        lookups = [source.snapshot() if isinstance(source, ListFile) else source for source in self._sources]
        walk = _Walk(lookups, self._names, self._max_depth, limit, name)
        walk.run(numbered)
        return Expanded(walk.found, tuple(walk.given), tuple(walk.lists))


class _Walk:
    """The expansion of one message's recipients: depth first, in order, on a stack of its own."""

    def __init__(
        self, lookups: Sequence[Lookup], names: AddressBook, max_depth: int, limit: int, name: str
    ) -> None:
        self.found: dict[Address, RecipientOptions | None] = {}
        self.given: list[str] = []
        self.lists: list[str] = []
        self._lookups = lookups
        self._names = names
        self._max_depth = max_depth
        self._limit = limit
        self._name = name
        self._expanded: set[str] = set()
        self._steps = max(_MIN_STEPS, 20 * limit)

    def run(self, numbered: Iterable[tuple[str, object]]) -> None:
        """Walk through everything."""
        stack = [_Members(iter(numbered))]
        while stack:
            for field, item in stack[-1].numbered:
                inner = self._take(field, item, stack[-1])
                if inner is not None:
                    if len(stack) > self._max_depth:
                        raise UsageError(
                            field,
                            f"names lists that are nested more than {self._max_depth} deep: "
                            f"{' > '.join(inner.via[:5])} …",
                            "nest them less",
                        )
                    stack.append(inner)
                    break
            else:
                stack.pop()

    def _take(self, field: str, item: object, outer: _Members) -> _Members | None:
        """Take one member; returns its own members when it is a list that has not been expanded."""
        self._steps -= 1
        if self._steps < 0:
            raise TooManyRecipients(
                self._name, "names lists with more members than can be looked at", "submit to fewer lists"
            )
        said = item if isinstance(item, Recipient) else None
        address, members = self._resolve(item if said is None else said.address, field, outer)
        if not outer.via:
            self.given.append(str(address))
        key = list_key(address)
        if members is not None and (key != outer.key or address.type == LIST_TYPE):
            if key in self._expanded:
                return None
            self._expanded.add(key)
            return self._open(address, key, members, said, field, outer)
        if address not in self.found:
            self.found[address] = _options(said, address, field, outer)
            if len(self.found) > self._limit:
                raise TooManyRecipients(
                    self._name,
                    f"names more than {self._limit} recipients",
                    "submit the message several times",
                )
        return None

    def _open(  # noqa: PLR0913, PLR0917 - one value for each part of what was named
        self,
        address: Address,
        key: str,
        members: Members,
        said: Recipient | None,
        field: str,
        outer: _Members,
    ) -> _Members:
        via = (*outer.via, _brief(address))
        outermost = field.partition(" (")[0]
        options = None if said is None else recipient_options(said, address, field)
        report, orcpt = outer.report, outer.orcpt
        if options is not None:
            if options.alternatives:
                raise UsageError(
                    f"{field}.alternatives", f"{via[-1]} is a distribution list", "give them to its members"
                )
            report = options.report if options.report is not None else report
            orcpt = options.orcpt or orcpt
        if isinstance(members, (str, Address, Recipient)):
            members = (members,)
        try:
            numbered = (
                (f"{outermost} ({via[-1]}, member {number})", one) for number, one in enumerate(members, 1)
            )
        except TypeError:
            raise UsageError(
                "lists",
                f"{type(members).__name__} is not what is on {via[-1]}",
                "return an iterable of addresses, or None for what is no list",
            ) from None
        if not outer.via:
            self.lists.append(via[-1])
        return _Members(numbered, key, via, report, orcpt)

    def _resolve(self, item: object, field: str, outer: _Members) -> tuple[Address, Members | None]:
        """Return an address, and its members when it is a list."""
        if isinstance(item, str) and is_name(item):
            address = Address(LIST_TYPE, " ".join(item.split()))
            members = self._members(address)
            if members is not None:
                return address, members
            address = self._names.address(item, field)
        else:
            address = parse_address(item, field=field)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # it checks
        members = self._members(address)
        if members is None and address.type == LIST_TYPE:
            way = f", by way of {' > '.join(outer.via)}" if outer.via else ""
            raise InvalidAddress(
                field, f"no list is called {address.value[:100]!r}{way}", "name one that lists= knows"
            )
        return address, members

    def _members(self, address: Address) -> Members | None:
        for lookup in self._lookups:
            members = lookup(address)
            if members is not None:
                return members
        return None


def _options(
    said: Recipient | None, address: Address, field: str, outer: _Members
) -> RecipientOptions | None:
    options = None if said is None else recipient_options(said, address, field)
    if not outer.via:
        return options
    options = options or RecipientOptions()
    return replace(
        options,
        via=outer.via,
        report=outer.report if options.report is None else options.report,
        orcpt=options.orcpt or outer.orcpt,
    )


def _brief(address: Address) -> str:
    """Return an address as people write it."""
    return address.value if address.type == "smtp" else str(address)


def _lookups(lists: object) -> tuple[Lookup | ListFile, ...]:
    if lists is None:
        return ()
    if isinstance(lists, PathLike):
        return (ListFile(cast("PathLike[str]", lists)),)
    if isinstance(lists, Mapping):
        return (table_lookup(list_table(cast("Mapping[str, Members]", lists))),)
    if callable(lists):
        return (cast("Lookup", lists),)
    if isinstance(lists, Sequence) and not isinstance(lists, (str, bytes)):
        return tuple(lookup for source in cast("Sequence[object]", lists) for lookup in _lookups(source))
    raise ConfigurationError(
        "lists", f"{type(lists).__name__} is no source of lists", "give a dict, a callable or ListFile(path)"
    )
