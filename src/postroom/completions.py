"""Who waits for which message to be complete."""

import threading
from collections.abc import Iterable

from postroom.tickets import Ticket

__all__ = ["Completions"]


class Completions:
    """Tickets by message number. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: dict[int, list[Ticket]] = {}

    def add(self, key: int) -> Ticket:
        """Return a ticket that is resolved when the message completes in this process."""
        ticket = Ticket()
        with self._lock:
            self._tickets.setdefault(key, []).append(ticket)
        return ticket

    def remove(self, key: int, ticket: Ticket) -> None:
        """Stop waiting."""
        with self._lock:
            tickets = self._tickets.get(key)
            if tickets and ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self._tickets[key]

    def completed(self, keys: Iterable[int]) -> None:
        """Resolve the tickets of these messages."""
        if not self._tickets:
            return
        with self._lock:
            done = [ticket for key in keys for ticket in self._tickets.pop(key, ())]
        for ticket in done:
            ticket.resolve()
