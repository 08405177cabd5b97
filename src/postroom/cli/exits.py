"""How the command line ends: exit codes as in sysexits.h, and one line for each error.

====  ===============  ==================================================================================
code  sysexits.h       when
====  ===============  ==================================================================================
0     EX_OK            done
1                      a check failed (``stats --audit``, ``demo``), or nobody reads the output any more
64    EX_USAGE         the command line is wrong
65    EX_DATAERR       the message or its envelope is refused
66    EX_NOINPUT       a file, the spool or the message in it does not exist or cannot be read
69    EX_UNAVAILABLE   it cannot be done: a recipient is settled, delivery failed, an extra is not installed
70    EX_SOFTWARE      a bug in Postroom
73    EX_CANTCREAT     the spool cannot be created or written
75    EX_TEMPFAIL      not now, try again: the spool is full or busy, a recipient is in transit
78    EX_CONFIG        the configuration file is wrong
130                    interrupted
====  ===============  ==================================================================================
"""

import sqlite3 as stdlib_sqlite3
from typing import Final

import click

from postroom.errors import (
    ConfigurationError,
    InternalError,
    InTransit,
    PostroomError,
    SpoolFull,
    SpoolUnavailable,
    StateError,
    UnknownMessage,
    UsageError,
)
from postroom.stores.driver import sqlite3

__all__ = [
    "BUG",
    "CANT_CREATE",
    "CHECK_FAILED",
    "CONFIG",
    "DATA",
    "INTERRUPTED",
    "NO_INPUT",
    "OK",
    "TEMPORARY",
    "UNAVAILABLE",
    "USAGE",
    "Refusal",
    "judge",
]

OK: Final = 0
CHECK_FAILED: Final = 1
USAGE: Final = 64
DATA: Final = 65
NO_INPUT: Final = 66
UNAVAILABLE: Final = 69
BUG: Final = 70
CANT_CREATE: Final = 73
TEMPORARY: Final = 75
CONFIG: Final = 78
INTERRUPTED: Final = 130


class Refusal(Exception):
    """An end with a line for people and an exit code."""

    def __init__(self, code: int, field: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{field}: {problem}; {remedy}" if remedy else f"{field}: {problem}")
        self.code = code


_DATABASE_ERRORS = (sqlite3.Error, stdlib_sqlite3.Error)


def judge(error: BaseException) -> tuple[int, str]:  # noqa: PLR0911 - one return per row of the table
    """Return the exit code for what went wrong, and the line to print."""
    if isinstance(error, Refusal):
        return error.code, str(error)
    if isinstance(error, click.UsageError):
        context = error.ctx
        help_command = f"; see {context.command_path} --help" if context is not None else ""
        return USAGE, error.format_message().rstrip(".") + help_command
    if isinstance(error, click.ClickException):
        return NO_INPUT if isinstance(error, click.FileError) else USAGE, error.format_message()
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, PostroomError) and not isinstance(error, InternalError):
        return _code(error), str(error)
    if isinstance(error, _DATABASE_ERRORS):
        return NO_INPUT, f"spool: {error}; name a spool of Postroom"
    if isinstance(error, OSError):
        where = str(error.filename or "system")
        return NO_INPUT, f"{where}: {error.strerror or error}"
    return BUG, f"bug: {type(error).__name__}: {error}; report it with what 'postroom --debug …' prints"


_CODES: Final[tuple[tuple[type[PostroomError], int], ...]] = (
    (ConfigurationError, CONFIG),
    (UnknownMessage, NO_INPUT),
    (UsageError, DATA),
    (InTransit, TEMPORARY),
    (SpoolFull, TEMPORARY),
    (SpoolUnavailable, TEMPORARY),
    (StateError, UNAVAILABLE),
)


def _code(error: PostroomError) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), TEMPORARY)
