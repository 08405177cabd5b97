"""The way into the spool for receivers: from the porter's thread to the store and back.

What can be found out without the spool (the digest, the folder, what reports say) is found out here, in the receiver's
own thread; the letter that goes to the store is complete.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import cast

from postroom.actors.context import Context
from postroom.actors.protocol import Perform, Receive
from postroom.envelopes import Submission
from postroom.errors import NotRunning, SpoolUnavailable
from postroom.inbound.checking import check_arrivals, check_progress, check_reports
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule
from postroom.inbound.sorting import sort_arrival
from postroom.inbound.values import Arrival, NewInbound, Received, RemoteReport
from postroom.operating import ask
from postroom.reports.reading import read_reports
from postroom.stores.base import NewMessage, Store
from postroom.tickets import StoreDied, Ticket
from postroom.tokens import Tokens

__all__ = ["Inlets", "SpoolInlet"]

RESTART_PAUSE = 0.02
WATCH_SECONDS = 1.0
"""Seconds between tries to reach a store that is being restarted, and between looks whether it was."""


MOST_DEATHS = 5
"""Stores that may die over a letter before it is given up: it may be what they die of."""

UNKNOWN_PAUSES = (0.1, 0.4)
"""Seconds after which ids that nobody knows are looked for again."""


def _ignore(_status: str, _reason: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Inlets:
    """What all inlets of a spooler share. Thread-safe.

    Attributes:
        context: what the actors share.
        prepare: checks and serialises a submission (:meth:`postroom.submitting.Submitter.prepare`).
        running: whether the spooler still runs.
        rules: where messages are filed.
        policy: the rest of what is done with them.
        postprocessed: postprocessors see them before they are filed.
        tokens: reads the addresses that reports come back to; None to match by other means only.
    """

    context: Context
    prepare: Callable[[Submission], NewMessage]
    running: Callable[[], bool]
    rules: Sequence[ReceiveRule] = ()
    policy: ReceivePolicy = field(default_factory=ReceivePolicy)
    postprocessed: bool = False
    tokens: Tokens | None = None

    def inlet(
        self,
        name: str,
        stopping: Flag | None = None,
        report: Callable[[str, str], None] = _ignore,
    ) -> "SpoolInlet":
        """Return the inlet of a receiver."""
        return SpoolInlet(self, name, stopping or Flag(), report)

    def take_reports(self, reports: Sequence[RemoteReport], timeout: float | None = None) -> list[bool]:
        """Change the recipients that reports speak of; returns for each report whether it means one of ours.

        Raises:
            SpoolUnavailable: the store did not answer; they may be told again without harm.
            NotRunning: the spooler was stopped.
        """
        matched = self._apply(check_reports(reports), timeout)
        for pause in UNKNOWN_PAUSES:
            # Whoever took a message may report about it before the id that he gave it is on the record.
            early = [
                number
                for number, report in enumerate(reports)
                if not matched[number] and any(said.remote_id for said in report.recipients)
            ]
            if not early:
                break
            time.sleep(pause)
            for number, found in zip(
                early, self._apply([reports[number] for number in early], timeout), strict=True
            ):
                matched[number] = found
        return matched

    def _apply(self, reports: Sequence[RemoteReport], timeout: float | None) -> list[bool]:
        context = self.context

        def step(store: Store) -> list[bool]:
            return store.inbox.apply_reports(reports, context.clock.time())

        return list(cast("list[bool]", self._perform(step, timeout)))

    def _perform(self, step: Callable[[Store], object], timeout: float | None = None) -> object:
        seconds = self.context.settings.submit_timeout if timeout is None else timeout
        return ask(self.context, Perform(step, Ticket()), "a step", timeout=seconds, running=self.running)


class SpoolInlet:
    """See :class:`postroom.receivers.base.Inlet`."""

    def __init__(self, inlets: Inlets, name: str, stopping: Flag, report: Callable[[str, str], None]) -> None:
        self._inlets = inlets
        self._name = name
        self._stopping = stopping
        self._report = report

    @property
    def stopping(self) -> Flag:
        """Set when the receiver is to end."""
        return self._stopping

    def report(self, status: str, reason: str = "") -> None:
        """Say how it goes; see the protocol."""
        self._report(status, reason)

    def prepare(self, submission: Submission) -> None:
        """Check a submission; see the protocol."""
        self._inlets.prepare(submission)

    def take(
        self,
        arrivals: Sequence[Arrival],
        *,
        progress: Mapping[str, str] | None = None,
        submissions: Sequence[Submission] = (),
        timeout: float | None = None,
    ) -> list[Received]:
        """Make messages durable; see the protocol."""
        inlets = self._inlets
        clock = inlets.context.clock
        seconds = inlets.context.settings.submit_timeout if timeout is None else timeout
        deadline = clock.monotonic() + seconds
        progress = check_progress(progress)
        inbound = [self._sorted(arrival) for arrival in check_arrivals(arrivals)]
        messages = [inlets.prepare(submission) for submission in submissions]
        if not (inbound or messages or progress):
            return []
        return self._tell(inbound, messages, dict(progress), deadline)

    def _sorted(self, arrival: Arrival) -> NewInbound:
        inlets = self._inlets
        context = inlets.context
        return sort_arrival(
            arrival,
            key=context.store.ids.next(),
            receiver=self._name,
            now=context.clock.time(),
            rules=inlets.rules,
            policy=inlets.policy,
            postprocessed=inlets.postprocessed,
            reports=read_reports(
                arrival.content, recipients=arrival.recipients, tokens=inlets.tokens, sender=arrival.sender
            ),
        )

    def _tell(
        self,
        inbound: Sequence[NewInbound],
        messages: Sequence[NewMessage],
        progress: Mapping[str, str],
        deadline: float,
    ) -> list[Received]:
        """Have the store take a letter; if it dies over it, its successor is told again.

        That is safe: the numbers are primary keys, and the store looks for them first.
        """
        context = self._inlets.context
        store = context.handles.store
        again = False
        deaths = 0
        while True:
            if again:
                # What the former letter brought in before the store died is there already.
                messages = [m for m in messages if context.reader.pending(m.key) is None]
            letter = Receive(self._name, inbound, messages, progress, Ticket(), again)
            incarnation = store.incarnation
            told = store.tell(letter)
            while told and not letter.ticket.wait(
                min(WATCH_SECONDS, max(0.0, deadline - context.clock.monotonic()))
            ):
                if store.incarnation != incarnation or context.clock.monotonic() >= deadline:
                    break
                if not self._inlets.running() and not store.alive:
                    break
            if letter.ticket.resolved and not isinstance(letter.ticket.error, StoreDied):
                return cast("list[Received]", letter.ticket.result())
            again = again or told
            if not self._inlets.running() and not store.alive:
                raise NotRunning("the spooler was stopped; what was received may not be in the spool")
            deaths += isinstance(letter.ticket.error, StoreDied)
            if deaths >= MOST_DEATHS or context.clock.monotonic() >= deadline:
                raise SpoolUnavailable(
                    "the store did not answer in time; whether the messages are in the spool is not known"
                )
            letter.ticket.resolve(error=StoreDied())
            time.sleep(RESTART_PAUSE)

    def known(self, source: str) -> frozenset[str]:
        """Return the uids that the ledger has; see the protocol."""
        return self._inlets.context.reader.ledger(self._name, source)

    def forget(self, source: str, uids: Collection[str]) -> None:
        """Forget uids; see the protocol."""
        if not uids:
            return
        name, gone = self._name, sorted(uids)

        def step(store: Store) -> None:
            store.inbox.forget_keys(name, source, gone)

        self._inlets._perform(step)  # noqa: SLF001 - they belong together

    def progress(self, source: str) -> str | None:
        """Return what is remembered of a source; see the protocol."""
        return self._inlets.context.reader.progress(self._name).get(source)
