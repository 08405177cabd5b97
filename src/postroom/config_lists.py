"""``[lists]`` and ``[names]``: distribution lists and the address book of a configuration file."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from postroom.address_book import AddressBook
from postroom.config_reports import report_kinds
from postroom.config_values import Reader, Section, Unreadable, string, strings
from postroom.envelope_recipients import Recipient, recipient_options
from postroom.expansion import Source
from postroom.list_files import ListFile
from postroom.list_tables import Member, list_table, parse_list

__all__ = ["FILE", "MEMBER", "read_lists", "read_names"]

FILE: Final = "file"
"""The key of ``[lists]`` that is no list."""

_FIELD = re.compile(r"""(?:lists|names)\[(?P<quote>['"])(?P<name>.*)(?P=quote)\](?P<rest>.*)""", re.DOTALL)


MEMBER: Final[Mapping[str, Reader]] = {
    "address": string,
    "alternatives": strings,
    "report": report_kinds,
    "orcpt": string,
}


def read_lists(section: Section, folder: Path) -> tuple[Source, ...]:
    """Return where lists come from: the table's own, then its file.

    Args:
        section: ``[lists]``.
        folder: what the file's path is relative to.
    """
    given = dict(section.values)
    file = given.pop(FILE, None)
    if file is not None and not isinstance(file, str):
        raise section.error(
            FILE,
            "names a file of lists",
            f'give one path; a list of that name is written "list:{FILE}" = […]',
        )
    lists = {name: section.convert(name, _members(section, name), members) for name, members in given.items()}
    section.make(lambda: list_table(lists), _key)
    sources: list[Source] = [lists] if lists else []
    if file is not None:
        path = folder / Path(section.convert(FILE, string, file)).expanduser()
        sources.append(section.make(lambda: ListFile(path), lambda field: f"{FILE} {field}"))
    return tuple(sources)


def read_names(section: Section) -> Mapping[str, str] | None:
    """Return the address book, None when there is none."""
    names: dict[str, str] = section.read(dict.fromkeys(section.values, string))
    section.make(lambda: AddressBook(names), _key)
    return names or None


def _members(section: Section, name: str) -> Callable[[Any], tuple[Member, ...]]:
    """Return a reader of the members of one list: texts, and tables for those of whom there is more to say."""

    def read(value: Any) -> tuple[Member, ...]:
        if not isinstance(value, list):
            raise Unreadable(f"{value!r} is not a list", 'write ["ann@example.org", …]')
        members = cast("Sequence[Any]", value)
        return tuple(_member(section, f"{name}[{at}]", member) for at, member in enumerate(members))

    return read


def _member(section: Section, field: str, given: Any) -> Member:
    if not isinstance(given, dict):
        return section.convert(field, string, given)
    inner = section.inner(field, cast("dict[str, Any]", given))
    recipient = Recipient(**inner.read(MEMBER, ["address"]))

    def check() -> None:
        recipient_options(recipient, parse_list(recipient.address, f"{field}.address"), field)

    section.make(check)
    return recipient


def _key(field: str) -> str:
    """Return a field of a table in memory as it is called in the file."""
    match = _FIELD.fullmatch(field)
    return field if match is None else match["name"] + match["rest"]
