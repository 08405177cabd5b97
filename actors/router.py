"""The router actor: hands committed work to the transports, and what moved on to the next of them."""

import logging
from collections.abc import Mapping

from postroom.actors.protocol import Committed, Due, Reroute, Work
from postroom.clock import Clock
from postroom.supervision import Handle, MailboxActor

__all__ = ["RouterActor"]

log = logging.getLogger("postroom.router")


class RouterActor(MailboxActor):
    """See the module's docstring. Holds no state of its own: whatever is lost with it is reclaimed from the store.

    Args:
        transports: the handle of each transport actor, by transport name.
        clock: for work that is due at once.
        name: of the thread.
    """

    def __init__(self, transports: Mapping[str, Handle], clock: Clock, name: str) -> None:
        super().__init__()
        self.name = name
        self._transports = transports
        self._clock = clock

    def on_letters(self, letters: list[object]) -> None:
        """Pass work and due times on."""
        for letter in letters:
            if isinstance(letter, Committed):
                for transport, jobs in letter.work.items():
                    self._transports[transport].tell(Work(jobs))
                for transport, at in letter.due.items():
                    self._tell(transport, Due(at))
            elif isinstance(letter, Reroute):
                for transport in letter.transports:
                    self._tell(transport, Due(self._clock.time()))

    def _tell(self, transport: str, letter: object) -> None:
        handle = self._transports.get(transport)
        if handle is not None:
            handle.tell(letter)
        else:
            log.warning("recipients wait for the transport %r, which is not configured", transport)
