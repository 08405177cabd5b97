"""Text for people and JSON for programs: tables, times and sizes. Pure, but for asking how wide the terminal is."""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click

from postroom.outcomes import Reply

__all__ = [
    "Column",
    "ago",
    "cut",
    "dim",
    "echo_json",
    "emphasise",
    "iso",
    "moment",
    "printable",
    "render",
    "reply_json",
    "size",
    "span",
    "terminal_width",
]

GAP: Final = "  "
_SPANS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is, None when it is none."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None


# Colour


def _styled(text: str, **style: Any) -> str:
    # click itself strips styles where standard output is no terminal.
    return text if "NO_COLOR" in os.environ else click.style(text, **style)


def dim(text: str) -> str:
    """Return text that stands back."""
    return _styled(text, dim=True)


def emphasise(text: str) -> str:
    """Return text that stands out."""
    return _styled(text, bold=True)


# Times and sizes


def span(seconds: float) -> str:
    """Return a length of time with its one largest unit: "0s", "59s", "4m", "3h", "12d"."""
    seconds = max(0.0, seconds)
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{int(seconds / length)}{unit}"
    return f"{int(seconds)}s"


def ago(at: float, now: float) -> str:
    """Return "3h ago" or "in 4m"."""
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def moment(at: float | None, now: float) -> str:
    """Return a time for people: the local time, and how far away it is; "-" for None."""
    if at is None:
        return "-"
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S %z} ({ago(at, now)})"


def size(octets: int) -> str:
    """Return a size: "912", "4.2K", "1.5M"."""
    amount = float(octets)
    for unit in ("", "K", "M"):
        if amount < 1000:
            return f"{amount:.1f}{unit}" if unit and amount < 100 else f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.1f}G"


# JSON


def iso(at: float | None) -> str | None:
    """Return a time in ISO 8601, in UTC with milliseconds; None for None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reply_json(reply: Reply | None) -> dict[str, Any] | None:
    """Return a reply as JSON has it."""
    if reply is None:
        return None
    return {
        "code": reply.code, "status": reply.status, "text": reply.text, "remote": reply.remote, "tls": reply.tls,
    }  # fmt: skip


def echo_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


# Tables


def printable(text: str) -> str:
    """Return text that cannot move the cursor: what servers and headers said must not write to the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def width(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def cut(text: str, columns: int) -> str:
    """Return a text of at most so many columns, the last of them "…" where something is missing."""
    if width(text) <= columns:
        return text
    taken = 0
    for at, char in enumerate(text):
        taken += _char_width(char)
        if taken > columns - 1:
            return text[:at] + "…"
    return text


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        right: whether it is aligned to the right.
        least: columns to which it may be cut when the terminal is narrow; None: it is never cut.
        optional: whether it is left out when the terminal is too narrow even then.
    """

    title: str
    right: bool = False
    least: int | None = None
    optional: bool = False


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], columns_available: int | None
) -> list[str]:
    """Return the lines of a table, the heading first.

    Args:
        columns: what the columns are.
        rows: as many texts as there are columns.
        columns_available: the terminal's width; None: nothing is cut.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    shown = list(range(len(columns)))
    widths = [
        max([width(column.title), *(width(row[at]) for row in rows)]) for at, column in enumerate(columns)
    ]
    if columns_available is not None:
        shown = _choose(columns, widths, columns_available)
        _squeeze(columns, widths, shown, columns_available)
    lines = [_line(columns, [column.title for column in columns], widths, shown)]
    return lines + [_line(columns, row, widths, shown) for row in rows]


def _needed(widths: Mapping[int, int] | Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[at] for at in shown) + len(GAP) * (len(shown) - 1)


def _choose(columns: Sequence[Column], widths: Sequence[int], available: int) -> list[int]:
    """Leave out optional columns, the last first, until the rest can be squeezed in."""
    least = [
        natural if column.least is None else min(natural, column.least)
        for column, natural in zip(columns, widths, strict=True)
    ]
    shown = list(range(len(columns)))
    for at in reversed(range(len(columns))):
        if _needed(least, shown) <= available:
            break
        if columns[at].optional:
            shown.remove(at)
    return shown


def _squeeze(columns: Sequence[Column], widths: list[int], shown: Sequence[int], available: int) -> None:
    """Take what is too much from the widest column that may be cut, again and again."""
    while _needed(widths, shown) > available:
        flexible = [at for at in shown if (least := columns[at].least) is not None and widths[at] > least]
        if not flexible:
            return
        widths[max(flexible, key=lambda at: widths[at])] -= 1


def _line(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], shown: Sequence[int]
) -> str:
    parts: list[str] = []
    for at in shown:
        text = cut(cells[at], widths[at])
        filling = " " * (widths[at] - width(text))
        parts.append(filling + text if columns[at].right else text + filling)
    return GAP.join(parts).rstrip()
