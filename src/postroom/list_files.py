"""Distribution lists in a file of the kind that aliases(5) describes.

::

    # Comments and empty lines are passed over, also within a list.
    staff:  ann@example.org, "Other, Bob" <bob@example.org>,
            sms:+15550100, board
    board:  carol@example.org                       # no comment: only whole lines are
    staff@example.org: staff
    "All of us": staff, board

A list begins at the start of a line with its name or address and a colon; an address with its type, which holds a colon
itself, is put in quotes. Lines that begin with a blank or a tab go on with it. Members are separated by commas; a comma
within quotes, ``<…>`` or ``[…]`` separates nothing. A member is an address in every form that ``to=`` takes, or the
name of a list. The encoding is UTF-8.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from postroom.addresses import Address
from postroom.errors import ConfigurationError, InvalidAddress
from postroom.list_tables import Lookup, Member, Members, Table, list_key, parse_list, table_lookup

__all__ = ["ListFile", "parse_lists"]

log = logging.getLogger("postroom.lists")

_NAME = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^":]*?))\s*:(.*)', re.DOTALL)
_MEMBER = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^>]*>|\[[^\]]*\]|[^,"<\[]|["<\[])+')
_QUOTED_PAIR = re.compile(r"\\(.)")


class _Stamp(NamedTuple):
    """What a file looked like when it was read."""

    inode: int
    size: int
    modified: int


class ListFile:
    """Lists in a file, read again when it has changed. Thread-safe.

    Replace the file by renaming a new one into its place, so that nobody reads half of it. When a changed file
    cannot be read or has a mistake, that is logged and the lists stay as they were.

    Args:
        path: the file; see the module's docstring.

    Raises:
        ConfigurationError: it cannot be read, or has a mistake; names file and line.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._lookup = table_lookup(self._read())

    def __call__(self, address: Address) -> Members | None:
        """Return who is on a list now, None when it is no list of this file."""
        return self.snapshot()(address)

    def snapshot(self) -> Lookup:
        """Return a lookup in the lists as they are now; one expansion uses one throughout."""
        stamp = self._look()
        if stamp != self._stamp:
            with self._lock:
                if stamp != self._stamp:
                    # Noted first, so that a mistake is logged once and not for every message.
                    self._stamp = stamp
                    try:
                        self._lookup = table_lookup(self._read())
                    except ConfigurationError as error:
                        log.error("the lists stay as they were: %s", error)  # noqa: TRY400 - no bug of ours
        return self._lookup

    def _look(self) -> _Stamp | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)

    def _read(self) -> Table:
        try:
            text = self.path.read_text("utf-8")
        except OSError as error:
            raise ConfigurationError(str(self.path), f"cannot be read: {error}", "name a file") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                str(self.path), f"is not UTF-8: {error}", "encode it as UTF-8"
            ) from error
        return parse_lists(text, str(self.path))


def parse_lists(text: str, source: str = "lists") -> Table:
    """Return the lists that a text holds; see the module's docstring.

    Raises:
        ConfigurationError: naming ``source`` and the line, as in ``lists:12``.
    """
    table: dict[str, tuple[Member, ...]] = {}
    for line, entry in _entries(text, source):
        field = f"{source}:{line}"
        found = _NAME.fullmatch(entry)
        if found is None:
            raise ConfigurationError(
                field, f"{entry.strip()[:80]!r} has no colon", "write name: member, member"
            )
        quoted, plain, rest = found.groups()
        name = plain if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
        try:
            key = list_key(parse_list(name, field))
            members = tuple(member for part in _MEMBER.findall(rest) if (member := part.strip()))
            for member in members:
                parse_list(member, field)
        except InvalidAddress as error:
            raise ConfigurationError(error.field, error.problem, error.remedy) from None
        if key in table:
            raise ConfigurationError(
                field, f"another list is called {name!r}", "case does not count: join the two"
            )
        table[key] = members
    return table


def _entries(text: str, source: str) -> Iterator[tuple[int, str]]:
    """Yield each list as one text, with the number of its first line."""
    begun: tuple[int, list[str]] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t":
            if begun is None:
                raise ConfigurationError(
                    f"{source}:{number}", "goes on with a list before any began", "begin it without a blank"
                )
            begun[1].append(line)
            continue
        if begun is not None:
            yield begun[0], "\n".join(begun[1])
        begun = number, [line]
    if begun is not None:
        yield begun[0], "\n".join(begun[1])
