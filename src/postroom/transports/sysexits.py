"""What a program's exit status means: the one table, after ``sysexits.h`` of 4.3BSD, which mail programs share.

Errors are temporary unless a row says otherwise, as everywhere in Postroom.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.replies import Verdict, one_line

__all__ = ["EXITS", "ExitRow", "ExitTable", "exit_table"]

_MEANINGS: Final = (Verdict.OK, Verdict.DEFERRED, Verdict.FAILED, Verdict.TRANSPORT_DOWN)
_CLASSES: Final = {Verdict.OK: "2", Verdict.FAILED: "5"}
_STATUS: Final = re.compile(r"([245])\.\d{1,3}\.\d{1,3}")
_SAID_STATUS: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class ExitRow:
    """What one exit status means.

    Attributes:
        code: the exit status, 0 to 255.
        means: ok, deferred, failed or transport_down; as text too.
        status: the enhanced status code (RFC 3463) for the record; its class follows from ``means`` if left out.
        name: what ``sysexits.h`` calls it, or "".
        one_recipient: it speaks of a recipient, so that a run for several says nothing of each.
        why: where the row comes from, for readers of the table.

    Raises:
        ConfigurationError: a field is wrong.
    """

    code: int
    means: Verdict
    status: str = ""
    name: str = ""
    one_recipient: bool = False
    why: str = ""

    def __post_init__(self) -> None:
        known = ", ".join(_MEANINGS)
        if self.means not in _MEANINGS:
            raise _wrong("means", f"{str(self.means)!r} is not possible", f"give one of: {known}")
        object.__setattr__(self, "means", Verdict(self.means))
        if not 0 <= self.code <= 255:
            raise _wrong("code", f"{self.code} is not an exit status", "give 0 to 255")
        wanted = _CLASSES.get(self.means, "4")
        if not self.status:
            object.__setattr__(self, "status", f"{wanted}.0.0")
        found = _STATUS.fullmatch(self.status)
        if found is None or found[1] != wanted:
            raise _wrong("status", f"{self.status!r} does not fit", f"give one like {wanted}.3.0")


def _wrong(field: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"exits.{field}", problem, remedy)


EXITS: Final[Sequence[ExitRow]] = (
    ExitRow(0, Verdict.OK, "2.0.0", "EX_OK"),
    ExitRow(
        64, Verdict.DEFERRED, "4.5.4", "EX_USAGE", why="our command line is wrong: people mend it, in time"
    ),
    ExitRow(65, Verdict.FAILED, "5.6.0", "EX_DATAERR", why="it cannot use this message"),
    ExitRow(66, Verdict.DEFERRED, "4.3.0", "EX_NOINPUT", why="a file that it needs is missing"),
    ExitRow(67, Verdict.FAILED, "5.1.1", "EX_NOUSER", one_recipient=True),
    ExitRow(68, Verdict.FAILED, "5.1.2", "EX_NOHOST", one_recipient=True),
    ExitRow(69, Verdict.FAILED, "5.3.0", "EX_UNAVAILABLE", why="mail programs mean: I will not take this"),
    ExitRow(70, Verdict.DEFERRED, "4.3.0", "EX_SOFTWARE", why="a bug is mended by people, in time"),
    ExitRow(71, Verdict.DEFERRED, "4.3.0", "EX_OSERR", why="it could not fork, or the like"),
    ExitRow(72, Verdict.DEFERRED, "4.3.5", "EX_OSFILE", why="a file of the system is missing"),
    ExitRow(73, Verdict.DEFERRED, "4.2.1", "EX_CANTCREAT", why="the mailbox cannot be written"),
    ExitRow(74, Verdict.DEFERRED, "4.3.0", "EX_IOERR"),
    ExitRow(75, Verdict.DEFERRED, "4.0.0", "EX_TEMPFAIL"),
    ExitRow(76, Verdict.DEFERRED, "4.5.0", "EX_PROTOCOL"),
    ExitRow(77, Verdict.FAILED, "5.7.0", "EX_NOPERM", why="this may not be delivered there"),
    ExitRow(78, Verdict.TRANSPORT_DOWN, "4.3.5", "EX_CONFIG", why="no message will fare better"),
    ExitRow(126, Verdict.TRANSPORT_DOWN, "4.3.5", why="a shell's answer for a program that it may not run"),
    ExitRow(127, Verdict.TRANSPORT_DOWN, "4.3.5", why="a shell's answer for a program that is not there"),
)
"""The built-in rows. Any other exit status is temporary."""

ExitTable = Mapping[int, ExitRow]


def exit_table(own: Iterable[ExitRow] = ()) -> ExitTable:
    """Return the table that is in effect with rows of one's own, which replace the built-in ones. Pure."""
    return {row.code: row for row in (*EXITS, *own)}


def exit_row(code: int, table: ExitTable) -> ExitRow:
    """Return the row about an exit status, 0 to 255. Pure."""
    return table.get(code) or ExitRow(code, Verdict.DEFERRED, "4.3.0", why="unknown, hence temporary")


def exit_outcome(code: int, said: str, table: ExitTable, success: type[Delivered] | type[Relayed]) -> Outcome:
    """Return what an exit status means for the recipients of the run. Pure.

    A program may begin its last line with an enhanced status code, which is taken when its class fits.

    Args:
        code: the exit status; negative for the signal that killed the program, as :mod:`subprocess` has it.
        said: the end of what the program wrote.
        table: what exit statuses mean.
        success: what an exit status that means ok is called.

    Raises:
        TransportDown: no message will fare better now.
    """
    if code < 0:
        # Who was killed in the middle may have delivered before.
        return Deferred(Reply(_text(f"killed by signal {-code}", said), "4.3.0"), in_doubt=True)
    row = exit_row(code, table)
    last = said.strip().rpartition("\n")[2]
    found = _SAID_STATUS.match(last)
    status = row.status
    if found is not None and found[1][0] == row.status[0]:
        status = found[1]
    reply = Reply(_text("" if code == 0 else f"exit status {code} {row.name}".strip(), said), status)
    if row.means is Verdict.OK:
        return success(replace(reply, text=reply.text or "ok"))
    if row.means is Verdict.TRANSPORT_DOWN:
        raise TransportDown(reply.text)
    return Failed(reply) if row.means is Verdict.FAILED else Deferred(reply)


def _text(what: str, said: str) -> str:
    said = one_line(said)
    return one_line(f"{what}: {said}" if what and said else what or said)
