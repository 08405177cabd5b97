"""``replies`` of a transport's section: rows of the reply table that are tried before the built-in ones."""

import builtins
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from postroom.config_objects import imported
from postroom.config_values import (
    Reader,
    Section,
    Unreadable,
    boolean,
    choice,
    duration,
    guess,
    integer,
    string,
    strings,
)
from postroom.replies import Phase, ReplyRow, ReplyTable, Verdict

__all__ = ["REPLY", "read_replies"]

NAMES: Final = {"codes": "code", "given": "status", "status": "record_status", "means": "verdict"}
"""What fields of :class:`ReplyRow` are called in the file, where it is not the same."""

CONDITIONS: Final = ("code", "status", "text", "phases", "exception", "attempts", "asked")
VERDICTS: Final = tuple(each.value for each in Verdict if each not in {Verdict.OK, Verdict.NONSENSE})
PHASES: Final = {each.name.lower(): each for each in Phase}
_ROW = re.compile(r"replies\[(?P<position>[0-9]+)\](?:\.(?P<name>\w+))?")


def _code(value: Any) -> str:
    """Read a reply code: 450, [450, 451], or a regular expression like "4.." over the digits."""
    if isinstance(value, str):
        return string(value)
    codes = cast("Sequence[Any]", value) if isinstance(value, list) else [value]
    if not codes or not all(isinstance(code, int) and 100 <= code < 600 for code in codes):
        raise Unreadable(f"{value!r} is no reply code", 'write 450, [450, 451] or "45."')
    return "|".join(map(str, codes))


def _phases(value: Any) -> frozenset[Phase]:
    read = choice(*PHASES)
    return frozenset(PHASES[read(name)] for name in strings(value))


def _exception(value: Any) -> type[BaseException]:
    """Read the name of an exception's class: a built-in one, or "module:Class"."""
    text = string(value)
    if ":" in text:
        found = imported(text)
    else:
        found = getattr(builtins, text, None)
        if found is None:
            known = [name for name, each in vars(builtins).items() if _is_exception(each)]
            close = guess(text, known)
            remedy = close if close.startswith("did") else 'write "ConnectionError" or "ssl:SSLError"'
            raise Unreadable(f"{text!r} is not a built-in exception", remedy)
    if not _is_exception(found):
        raise Unreadable(f"{text!r} is not the class of an exception", 'write "ConnectionError" or the like')
    return cast("type[BaseException]", found)


def _is_exception(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)


REPLY: Final[Mapping[str, Reader]] = {
    "code": _code,
    "status": string,
    "text": string,
    "phases": _phases,
    "exception": _exception,
    "attempts": integer,
    "asked": boolean,
    "verdict": choice(*VERDICTS),
    "retry_after": duration,
    "record_status": string,
    "why": string,
}


def read_replies(
    section: Section, given: Sequence[Mapping[str, Any]], check: Callable[[Sequence[ReplyRow]], ReplyTable]
) -> tuple[ReplyRow, ...]:
    """Return the rows of a section's ``replies``.

    Args:
        section: the transport's.
        given: the tables.
        check: the protocol's, which refuses rows that can never match.
    """
    sections = [section.inner(f"replies[{position}]", values) for position, values in enumerate(given)]
    rows = [_row(each) for each in sections]

    def name(field: str) -> str:
        match = _ROW.fullmatch(field)
        if match is None:
            return field
        key = match["name"]
        return f"replies[{match['position']}]" + (f": {NAMES.get(key, key)}" if key else "")

    section.make(lambda: check(rows), name)
    return tuple(rows)


def _row(section: Section) -> ReplyRow:
    given = section.read(REPLY, ["verdict"])
    if not given.keys() & set(CONDITIONS):
        raise section.error("verdict", "is for every refusal", f"say which: {', '.join(CONDITIONS)}")
    for key in ("code", "status"):
        if key in given and "exception" in given:
            raise section.error(key, "stands beside exception, which has none", "make two rows of them")
    fields = {name: given[key] for name, key in NAMES.items() if key in given}
    fields |= {name: value for name, value in given.items() if name not in NAMES.values()}

    def key_of(field: str) -> str:
        name = field.rpartition(".")[2]
        return NAMES.get(name, name)

    return section.make(lambda: ReplyRow(**fields), key_of)
