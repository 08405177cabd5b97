import os
import warnings
from pathlib import Path

import pytest

from postroom.stores.driver import SqliteVersionWarning, connect, sqlite3, warn_if_affected


@pytest.mark.parametrize("version", [(3, 7, 0), (3, 40, 1), (3, 50, 4), (3, 51, 2)])
def test_versions_with_the_wal_bug_are_warned_of(version: tuple[int, ...]) -> None:
    with pytest.warns(
        SqliteVersionWarning, match=rf"SQLite {'.'.join(map(str, version))} can.*postroom\[sqlite\]"
    ):
        assert warn_if_affected(version)


@pytest.mark.parametrize("version", [(3, 6, 23), (3, 51, 3), (3, 52, 0), (4, 0, 0)])
def test_versions_without_it_are_not(version: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_if_affected(version)


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("level", "number"), [("off", 0), ("normal", 1), ("full", 2), ("extra", 3)])
def test_a_writer_is_durable_as_asked(tmp_path: Path, level: str, number: int) -> None:
    connection = connect(tmp_path / "spool.db", synchronous=level)  # type: ignore[arg-type] # one of the four
    assert pragma(connection, "synchronous") == number
    assert pragma(connection, "journal_mode") == "wal"
    assert not connection.in_transaction
    connection.close()


@pytest.mark.parametrize("name", ["plain.db", "q?mark#and%41.db", "with space.db", "ünïcode.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    connect(path).close()
    assert path.exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {name}


def test_a_reader_cannot_write_and_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with pytest.raises(sqlite3.OperationalError):
        connect(path, read_only=True)
    assert not path.exists()
    writer = connect(path)
    writer.execute("CREATE TABLE t (x)")
    reader = connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (1)")
    reader.close()
    writer.close()


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        connect(tmp_path / "spool.db").close()
    finally:
        os.umask(before)
    assert (tmp_path / "spool.db").stat().st_mode & 0o777 == 0o600
