"""Reading the values of a configuration file: each reader takes what TOML gave and returns what the code wants.

A reader raises :class:`Unreadable`; :mod:`postroom.config` adds file, table and key. Pure, but for paths,
which are made absolute, and secrets, which are read when they are asked for.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from postroom.errors import ConfigurationError

__all__ = [
    "SecretSource",
    "Section",
    "Unreadable",
    "boolean",
    "choice",
    "duration",
    "endless",
    "integer",
    "number",
    "octets",
    "parse_duration",
    "port",
    "string",
    "strings",
    "table",
]

Reader = Callable[[Any], Any]

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
            try:
                read[key] = readers[key](value)
            except ConfigurationError as error:
                raise self.error(f"{key} {error.field}", error.problem, error.remedy) from None
            except Unreadable as error:
                raise self.error(key, error.problem, error.remedy) from None
        return read


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


def octets(value: Any) -> int:
    """Read a size: "50MiB", "64KiB", or a number of octets."""
    if isinstance(value, str):
        match = _OCTETS.fullmatch(value)
        if match is None:
            raise Unreadable(f"{value!r} is not a size", 'write "64KiB", "50MiB" or a number of octets')
        return int(match[1]) * _UNITS[match[2]]
    return integer(value)


# Secrets


class SecretSource:
    """A secret that lives outside the configuration; calling it reads it, so that a new one is taken up. Thread-safe.

    Once it was read, a file that is unreadable for a while does no harm: what was read last is returned.

    Args:
        where: names the key that it comes from.
        variable: the environment variable that holds it, or None.
        file: the file that holds it (white space around it does not count), or None.
    """

    def __init__(self, where: str, variable: str | None = None, file: Path | None = None) -> None:
        self.where = where
        self.variable = variable
        self.file = file
        self._last: str | None = None

    def __repr__(self) -> str:
        return f"<SecretSource {self.variable or self.file}>"

    def __call__(self, *_: object) -> str:
        """Return the secret as it is now, whatever it is asked for.

        Raises:
            ConfigurationError: it cannot be had, and never could.
        """
        try:
            text = self._from_environment() if self.file is None else self._from_file(self.file)
        except ConfigurationError:
            if self._last is None:
                raise
            return self._last
        self._last = text
        return text

    def _from_environment(self) -> str:
        text = os.environ.get(str(self.variable))
        if text is None:
            raise ConfigurationError(
                self.where, f"the environment has no variable {self.variable}", "set it for this process"
            )
        return self._not_empty(text)

    def _from_file(self, file: Path) -> str:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                self.where,
                f"{file} cannot be read: {_reason(error)}",
                "make it readable for this process",
            ) from None
        return self._not_empty(text)

    def _not_empty(self, text: str) -> str:
        if not text:
            raise ConfigurationError(self.where, "the secret is empty", "put it there")
        return text


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not UTF-8"
