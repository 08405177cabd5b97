"""The checkpointer: copies the write-ahead log into the database while the store goes on committing."""

from pathlib import Path
from types import TracebackType

from postroom.actors.protocol import Checkpoint, Checkpointed
from postroom.stores.driver import connect, sqlite3
from postroom.supervision import Handle, MailboxActor

__all__ = ["CheckpointActor"]


class CheckpointActor(MailboxActor):
    """Runs ``PRAGMA wal_checkpoint(PASSIVE)`` on a connection of its own: it blocks neither readers nor the writer.

    Args:
        path: the database file.
        store: who is told when it is done, and copies the remainder.
        name: of the thread.
    """

    def __init__(self, path: Path, store: Handle, name: str) -> None:
        super().__init__()
        self.name = name
        self._path = path
        self._store = store
        self._connection: sqlite3.Connection | None = None

    def on_start(self) -> None:
        """Open the connection, and do what the last incarnation may have failed to do."""
        self._connection = connect(self._path, create=False)
        self._copy(self._connection)

    def on_letters(self, letters: list[object]) -> None:
        """Copy once, however often it was asked for."""
        if any(isinstance(letter, Checkpoint) for letter in letters):
            assert self._connection is not None  # noqa: S101 - it is started
            self._copy(self._connection)

    def _copy(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._store.tell(Checkpointed())

    def on_stop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        del exception_type, exception_value, traceback
        self.on_stop()
