"""What the archive and the mail store change, through the store's actor."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from postroom.actors.context import Context
from postroom.actors.protocol import Perform
from postroom.operating import ask, ordered
from postroom.operations import Operations
from postroom.stores.base import Action, NewMessage, Store
from postroom.stores.sqlite import SqliteStore
from postroom.tickets import Ticket

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["StoreWriter"]

T = TypeVar("T")


class StoreWriter:
    """See :class:`postroom.privacy.Writer` and ``MailWriter`` of the mail store. Thread-safe.

    Args:
        context: what the actors share.
        operations: for recalling messages.
        running: whether the spooler still runs.
    """

    def __init__(self, context: Context, operations: Operations, running: Callable[[], bool]) -> None:
        self._context = context
        self._operations = operations
        self._running = running

    def perform(self, work: "Callable[[sqlite3.Connection], T]", timeout: float) -> T:
        """Do ``work`` in the store's thread, in a transaction of its own.

        Raises:
            SpoolUnavailable: the store did not answer in time.
            NotRunning: the spooler was stopped before it did.
        """
        return self.step(lambda store: work(cast("SqliteStore", store).connection), timeout=timeout)

    def step(self, step: Callable[[Store], T], messages: Sequence[NewMessage] = (), *, timeout: float) -> T:
        """Do ``step`` in the store's thread, in a transaction of its own; see ``Perform`` for ``messages``.

        Raises: as :meth:`perform`.
        """
        letter = Perform(step, Ticket(), messages)
        return cast("T", ask(self._context, letter, "a step", timeout=timeout, running=self._running))

    def cancel(self, message_id: str, recipients: Collection[int] | None = None) -> tuple[int, ...]:
        """Recall recipients.

        Raises:
            InTransit: none could be recalled because they are being sent.
            NotQueued: all are settled.
            UnknownMessage: there is none with this id.
        """
        return self._operations.act(Action("cancel", reason="erased"), message_id, recipients)

    def drop_orders(self, ids: Collection[int]) -> int:
        """Drop standing orders; returns how many there were."""
        timeout = self._context.settings.submit_timeout
        _, dropped = ordered(self._context, drop=frozenset(ids), timeout=timeout, running=self._running)
        return dropped
