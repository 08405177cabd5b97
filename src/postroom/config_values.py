"""Reading the values of a configuration file: each reader takes what TOML gave and returns what the code wants.

A reader raises :class:`Unreadable`; a :class:`Section` adds file, table and key. Pure.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError, UsageError
from postroom.throttles import Rate, parse_rate
from postroom.windows import DeliveryWindow, parse_window

__all__ = [
    "Reader",
    "Section",
    "Unreadable",
    "boolean",
    "choice",
    "destination",
    "duration",
    "durations",
    "endless",
    "guess",
    "integer",
    "number",
    "octets",
    "parse_duration",
    "port",
    "rate",
    "string",
    "strings",
    "table",
    "tables",
    "types",
    "unlimited",
    "window",
]

Reader = Callable[[Any], Any]
T = TypeVar("T")

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_OCTETS = re.compile(r"(\d+) ?(KiB|MiB|GiB)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Unreadable(ValueError):
    """A value is not what it has to be."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(slots=True)
class Section:
    """One table of a configuration file.

    Attributes:
        where: how errors name it, for example ``postroom.toml: [spool]``.
        values: what TOML gave.
    """

    where: str
    values: Mapping[str, Any]

    def error(self, key: str, problem: str, remedy: str) -> ConfigurationError:
        """Return the error that names the file, the table and the key."""
        return ConfigurationError(f"{self.where} {key}", problem, remedy)

    def read(self, readers: Mapping[str, Reader], required: Iterable[str] = ()) -> dict[str, Any]:
        """Return the values that are given, read, by key.

        Args:
            readers: every key that may be given, with its reader.
            required: those that must be given.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value cannot be read.
        """
        for key in self.values:
            if key not in readers:
                raise self.error(key, "is not a known key", guess(key, readers))
        for key in required:
            if key not in self.values:
                raise self.error(key, "is missing", f"add {key} = …")
        read: dict[str, Any] = {}
        for key, value in self.values.items():
            read[key] = self.convert(key, readers[key], value)
        return read

    def convert(self, key: str, reader: Callable[[Any], T], value: Any) -> T:
        """Return a value of this table, read.

        Raises:
            ConfigurationError: it cannot be.
        """
        try:
            return reader(value)
        except Unreadable as error:
            raise self.error(key, error.problem, error.remedy) from None

    def inner(self, key: str, values: Mapping[str, Any]) -> "Section":
        """Return the table that stands in this one under ``key``."""
        return Section(f"{self.where} {key}:", values)

    def make(self, build: Callable[[], T], name: Callable[[str], str] = str) -> T:
        """Return what ``build`` makes of this table's values.

        Args:
            build: may raise a ``UsageError``.
            name: from the field that the error names to the key of this table.

        Raises:
            ConfigurationError: it did; this one names file, table and key, too.
        """
        try:
            return build()
        except UsageError as error:
            raise self.error(name(error.field), error.problem, error.remedy) from error


def guess(word: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown word: the closest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1)
    return f"did you mean {close[0]}?" if close else f"use one of: {', '.join(names)}"


# Plain values


def string(value: Any) -> str:
    """Read a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise Unreadable(f"{value!r} is not a text", "write it in quotes")
    return value


def strings(value: Any) -> list[str]:
    """Read a list of strings."""
    if not isinstance(value, list):
        raise Unreadable(f"{value!r} is not a list", 'write ["…", "…"]')
    return [string(item) for item in cast("Sequence[Any]", value)]


def boolean(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise Unreadable(f"{value!r} is neither true nor false", "write it without quotes")
    return value


def integer(value: Any) -> int:
    """Read a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unreadable(f"{value!r} is not a whole number", "write digits without quotes")
    return value


def number(value: Any) -> float:
    """Read a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{value!r} is not a number", "write digits without quotes")
    return float(value)


def port(value: Any) -> int:
    """Read a TCP port; 0 lets the system choose."""
    if not 0 <= integer(value) < 65536:
        raise Unreadable(f"{value!r} is not a TCP port", "give 0 to 65535")
    return integer(value)


def table(value: Any) -> Mapping[str, Any]:
    """Read a table."""
    if not isinstance(value, dict):
        raise Unreadable(f"{value!r} is not a table", "write { key = value, … } or a section of its own")
    return cast("dict[str, Any]", value)


def tables(value: Any) -> Sequence[Mapping[str, Any]]:
    """Read a list of tables."""
    if not isinstance(value, list):
        raise Unreadable(f"{value!r} is not a list", "write [{ key = value, … }, …]")
    return [table(item) for item in cast("Sequence[Any]", value)]


def types(value: Any) -> str | frozenset[str]:
    """Read a list of address types, or "*" for all of them."""
    if value == "*":
        return "*"
    if isinstance(value, str):
        raise Unreadable(f"{value!r} is not a list", f'write ["{value}"], or "*" for all types')
    named = frozenset(name.lower() for name in strings(value))
    if not named:
        raise Unreadable("it is empty", 'name at least one, or write "*"')
    return named


def choice(*words: str) -> Reader:
    """Return a reader of one of these words."""

    def read(value: Any) -> str:
        if value not in words:
            raise Unreadable(f"{value!r} is not possible", guess(str(value), words))
        return str(value)

    return read


# Quantities


def parse_duration(text: str) -> float:
    """Return the seconds that "30s", "1h30m" or "2.5" stand for.

    Raises:
        Unreadable: it is none of these.
    """
    text = text.strip()
    if _DURATION.fullmatch(text):
        return sum(float(amount) * SECONDS[unit] for amount, unit in _PART.findall(text))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise Unreadable(f"{text!r} is not a duration", "write 30s, 5m, 1h30m or 7d")
    return seconds


def duration(value: Any) -> float:
    """Read a duration: "30s", "5m", "4h", "7d", "1h30m", or a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value != value:  # noqa: PLR0124 - NaN
        raise Unreadable(
            f"{value!r} is not a duration", 'write "30s", "5m", "4h", "7d" or a number of seconds'
        )
    return parse_duration(str(value))


def endless(value: Any) -> float | None:
    """Read a duration or "forever", which is None."""
    return None if value == "forever" else duration(value)


def durations(value: Any) -> list[float]:
    """Read a list of durations above 0."""
    if not isinstance(value, list) or not value:
        raise Unreadable(f"{value!r} is not a list of durations", 'write ["5m", "15m", …]')
    read = [duration(item) for item in cast("Sequence[Any]", value)]
    if not all(read):
        raise Unreadable("a wait of 0 is none", "give durations above 0")
    return read


def unlimited(reader: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Return a reader that also takes "unlimited", which is None."""
    return lambda value: None if value == "unlimited" else reader(value)


def octets(value: Any) -> int:
    """Read a size: "50MiB", "64KiB", or a number of octets."""
    if isinstance(value, str):
        match = _OCTETS.fullmatch(value)
        if match is None:
            raise Unreadable(f"{value!r} is not a size", 'write "64KiB", "50MiB" or a number of octets')
        return int(match[1]) * _UNITS[match[2]]
    return integer(value)


# Texts with a grammar of their own


def rate(value: Any) -> Rate:
    """Read a rate: "100/min", "5/s burst 20"."""
    return _understood(parse_rate, value)


def window(value: Any) -> DeliveryWindow:
    """Read a delivery window: "Mo-Fr 09:00-17:00 Europe/Berlin"."""
    return _understood(parse_window, value)


def _understood(parse: Callable[[str], T], value: Any) -> T:
    try:
        return parse(string(value))
    except UsageError as error:
        raise Unreadable(error.problem, error.remedy) from None


def destination(value: Any) -> str:
    """Read the name of a destination or a glob over such names: lower case, and A-labels for a name beyond ASCII."""
    text = string(value)
    literal = text.startswith("[") and text.endswith("]")
    if set("@/ \t") & set(text) or (":" in text and not literal):
        raise Unreadable(
            "is neither a domain nor a host", "give what follows the @ of a mailbox, or the host of a URL"
        )
    if text.isascii():
        return text.lower()
    try:
        return canonical_domain(text)
    except Malformed as error:
        raise Unreadable(error.problem, f"{error.remedy}; in a glob write A-labels (xn--…)") from None
