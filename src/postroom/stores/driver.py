"""Which SQLite is used, and how its connections are set up.

sqlite-utils prefers the ``pysqlite3`` package over the standard library when it is installed; Postroom follows it, so
that both speak through the same library.
"""

import logging
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import sqlite3
else:
    from sqlite_utils.utils import sqlite3

__all__ = ["SqliteVersionWarning", "connect", "drop_statistics", "sqlite3", "warn_if_affected"]

log = logging.getLogger("postroom.store")

FIXED_VERSION = (3, 51, 3)
"""Since 3.7.0, several connections on one WAL file could corrupt it in a rare race; this version mends it."""

BUSY_TIMEOUT_MS = 10_000
BUSY_PAUSE = 0.01
STATEMENT_CACHE = 1024

Synchronous = Literal["full", "normal", "extra", "off"]


class SqliteVersionWarning(RuntimeWarning):
    """The SQLite in use has a known bug that can corrupt a spool that several connections use."""


def warn_if_affected(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Warn when the SQLite ``version`` has the WAL bug; return whether it does."""
    affected = (3, 7, 0) <= version < FIXED_VERSION
    if affected:
        text = ".".join(map(str, version))
        warnings.warn(
            f"SQLite {text} can, rarely, corrupt a WAL database that several connections use (fixed in 3.51.3); "
            "install the pysqlite3 package (pip install 'postroom[sqlite]') or a newer SQLite",
            SqliteVersionWarning,
            stacklevel=3,
        )
    return affected


def connect(
    path: Path, *, read_only: bool = False, create: bool = True, synchronous: Synchronous = "full"
) -> sqlite3.Connection:
    """Open a connection that may be used by any one thread at a time.

    Raises:
        sqlite3.OperationalError: the file cannot be opened.
    """
    mode = "ro" if read_only else "rwc" if create else "rw"
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(
        f"file:{quoted}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,  # transactions are begun by hand: BEGIN IMMEDIATE, never an implicit deferred one
        check_same_thread=False,
        cached_statements=STATEMENT_CACHE,
    )
    try:
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        else:
            _prepare_file(connection, path)
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute("PRAGMA foreign_keys=OFF")  # rows go in groups; the ledger is the check
            connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute("PRAGMA cache_size=-65536")
        connection.execute("PRAGMA temp_store=MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def drop_statistics(connection: sqlite3.Connection) -> bool:
    """Undo an ``ANALYZE`` that somebody ran; return whether there was one.

    Statistics of a spool that happens to be short make plans that are slow on a long one; without them the planner
    takes the indices for what they are.
    """
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE name GLOB 'sqlite_stat[1-4]'"
    ).fetchall()
    return sum(connection.execute(f"DELETE FROM {name}").rowcount for (name,) in tables) > 0  # noqa: S608 - as above


def _prepare_file(connection: sqlite3.Connection, path: Path) -> None:
    """Put the file into WAL mode; a mail spool is for its owner's eyes only."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # Processes that make a spool together switch its mode together; for that SQLite's own patience is not used.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)
    if mode != "wal":
        log.warning(
            "%s: journal mode is %r, not WAL; the file system may not support shared memory", path, mode
        )
    os.chmod(path, 0o600)  # noqa: PTH101 - Path.chmod is the same call
