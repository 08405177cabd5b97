"""What a submitter gets back."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from postroom.ids import format_id
from postroom.status import MessageStatus
from postroom.stores.base import Accepted
from postroom.tickets import StoreDied, Ticket

__all__ = ["PendingReceipt", "Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A message is in the spool, durably.

    Attributes:
        id: its id, 13 characters, sorts by time.
        duplicate: an earlier submission with the same idempotency key is meant; nothing was stored now.
    """

    id: str
    duplicate: bool = False
    _wait: Callable[[str, float | None], MessageStatus] | None = field(
        default=None, repr=False, compare=False
    )

    def wait(self, timeout: float | None = None) -> MessageStatus:
        """Wait until every recipient is settled, at most ``timeout`` seconds (None: without limit).

        Returns:
            where the message stands then; ``.complete`` tells whether it is settled.

        Raises:
            UnknownMessage: the record is gone already (``keep_sent``).
            NotRunning: the spooler was stopped meanwhile.
        """
        if self._wait is None:
            raise TypeError("this receipt belongs to no spooler; ask spooler.status(receipt.id)")
        return self._wait(self.id, timeout)


class PendingReceipt:
    """A message on its way into the spool; it is not durable until ``result()`` has returned. Thread-safe."""

    __slots__ = ("_finish", "_ticket")

    def __init__(self, ticket: Ticket, finish: Callable[[float | None], Receipt]) -> None:
        self._ticket = ticket
        self._finish = finish

    @property
    def done(self) -> bool:
        """Whether ``result()`` would return (or raise) at once."""
        return self._ticket.resolved

    @property
    def interrupted(self) -> bool:
        """Whether the store died over it, so that ``result()`` will have to ask its successor."""
        return isinstance(self._ticket.error, StoreDied)

    async def arrived(self, timeout: float) -> bool:  # noqa: ASYNC109 - the answer may come later, and is kept
        """Wait in an event loop until the store has answered, at most ``timeout`` seconds; whether it has."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def tell() -> None:
            # The loop may be closed by the time the answer comes; the store's thread must not suffer for it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

        self._ticket.also(tell)
        try:
            # Not wait_for: in Python 3.11 that forgets a cancellation that comes together with the answer.
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def result(self, timeout: float | None = None) -> Receipt:
        """Wait until the message is durable, at most ``timeout`` seconds (None: the spooler's ``submit_timeout``).

        Raises:
            SpoolFull: it was not accepted.
            SpoolUnavailable: the store did not answer in time.
            IdempotencyConflict: the key was used before with another payload.
        """
        return self._finish(timeout)


def receipt_of(accepted: Accepted, wait: Callable[[str, float | None], MessageStatus]) -> Receipt:
    """Return the receipt for what the store answered."""
    return Receipt(format_id(accepted.key), accepted.duplicate, wait)


def results_of(ticket: Ticket) -> list[Accepted]:
    """Return what the store answered, or raise what it refused with."""
    results: Any = ticket.result()
    accepted: list[Accepted] = results
    return accepted
