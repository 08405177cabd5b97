"""Running the chain for one clerk: each postprocessor bounded in time, in a thread that can be left behind."""

import threading

from postroom.clock import Clock
from postroom.inbound.chain import Chain, Outcome
from postroom.inbound.hooks import Incoming, Postprocessor
from postroom.inbound.values import InboundRecord, NewInbound
from postroom.preprocessing.threads import HookThread, Hung

__all__ = ["Interrupted", "Processor"]


class Interrupted(BaseException):
    """The clerk is to end: what is under way is begun anew some time later. No error of anybody's."""


class Processor:
    """Takes messages through the chain. Used by one thread, except ``interrupt``.

    Args:
        chain: what is to be done with each.
        hung: where calls that do not return are counted, for all processors of a spooler.
        clock: for the time.
    """

    def __init__(self, chain: Chain, hung: Hung, clock: Clock) -> None:
        self._chain = chain
        self._clock = clock
        self._thread = HookThread(hung)
        self._ending = threading.Event()

    def perform(self, claimed: tuple[InboundRecord, NewInbound]) -> Outcome:
        """Return what becomes of a claimed message. Never raises for other people's faults."""
        record, new = claimed
        return self._chain.run(record, new.arrival, self._call, self._clock.time)

    def interrupt(self) -> None:
        """End a wait for other people's code, and begin nothing more; any thread may say so."""
        self._ending.set()
        self._thread.interrupt()

    def close(self) -> None:
        """Let go of the thread in which postprocessors run."""
        self._thread.close()

    def _call(self, postprocessor: Postprocessor, incoming: Incoming) -> object:
        if self._ending.is_set():
            raise Interrupted
        try:
            return self._thread.call(
                postprocessor.name, lambda: postprocessor.process(incoming), postprocessor.timeout
            )
        except BaseException:
            # Whoever was interrupted has not failed.
            if self._ending.is_set():
                raise Interrupted from None
            raise
