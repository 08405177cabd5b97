"""Changing incoming messages through the store, and telling senders what became of them, in one transaction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from postroom.envelopes import Submission
from postroom.errors import UsageError
from postroom.ids import format_id
from postroom.inbound.dispositions import (
    DispositionKind,
    Refusal,
    disposition,
    disposition_asked,
)
from postroom.inbound.mailstore_values import Changed
from postroom.inbound.policy import ReadReceipts
from postroom.inbound.values import InboundRecord, Marks
from postroom.stores.base import NewMessage, Store

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = ["STEP", "Change", "MailWriter", "Prepare", "Receipts", "in_steps"]

T = TypeVar("T")

STEP: Final = 500
"""Messages that are changed in one transaction."""

Prepare = Callable[[Submission], NewMessage]

Change = Callable[[Store, Sequence[int]], Sequence[int]]
"""Changes messages within a transaction; returns the numbers of those that changed."""


class MailWriter(Protocol):
    """The store, as far as incoming mail needs it. Every method waits until it is done."""

    def step(self, step: Callable[[Store], T], messages: Sequence[NewMessage] = (), *, timeout: float) -> T:
        """Do ``step`` in the store's thread, in a transaction of its own.

        ``messages`` are accepted in the same transaction if it returns something true.

        Raises:
            SpoolUnavailable: the store did not answer in time.
        """
        ...

    def perform(self, work: "Callable[[Connection], T]", timeout: float) -> T:
        """Do ``work`` with the store's connection, likewise."""
        ...


def in_steps(writer: MailWriter, keys: Sequence[int], change: Change, timeout: float) -> tuple[str, ...]:
    """Change messages, some at a time; returns the ids of those that changed."""
    changed: list[int] = []
    for start in range(0, len(keys), STEP):
        changed += writer.step(partial(_changed, change, keys[start : start + STEP]), timeout=timeout)
    return tuple(map(format_id, changed))


def _changed(change: Change, keys: Sequence[int], store: Store) -> Sequence[int]:
    return change(store, keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipts:
    """Decides about disposition notifications, and sends them with the change that they tell of.

    Attributes:
        mode: see :class:`postroom.inbound.mailstore.MailStore`.
        identities: likewise.
        prepare: checks and serialises a notification; None sends none.
        host: the domain that notifications name.
        content: returns a message's octets.
    """

    mode: ReadReceipts
    identities: tuple[str, ...]
    prepare: Prepare | None
    host: str
    content: Callable[[int], bytes | None]

    def check(self, receipt: bool | None) -> None:
        """Check that a receipt may be wanted.

        Raises:
            UsageError: it may not.
        """
        if receipt and self.mode == "never":
            raise UsageError("receipt", "is wanted where none is sent", 'set read_receipts to "ask"')
        if receipt and self.prepare is None:
            raise UsageError("receipt", "is wanted, and nothing can be sent here", "leave it out")

    def change(  # noqa: PLR0913 - by keyword
        self,
        records: Iterable[InboundRecord],
        kind: DispositionKind,
        change: Change,
        *,
        writer: MailWriter,
        now: float,
        timeout: float,
        receipt: bool | None,
        recipient: str | None,
    ) -> Changed:
        """Change messages, and tell their senders where that is wanted and allowed.

        Args:
            records: the messages.
            kind: what the change means for whoever reads a notification.
            change: what is done in any case.
            writer: does it.
            now: wall-clock seconds.
            timeout: seconds for each transaction.
            receipt: what the user says; see :meth:`postroom.inbound.mailstore.MailStore.mark_read`.
            recipient: likewise.
        """
        plain: list[int] = []
        denied: list[int] = []
        telling: list[tuple[int, NewMessage]] = []
        withheld: dict[str, str] = {}
        for record in records:
            decision = self._decide(record, kind, now, receipt=receipt, recipient=recipient)
            if isinstance(decision, NewMessage):
                telling.append((record.key, decision))
                continue
            (denied if receipt is False else plain).append(record.key)
            if decision and record.digest.mdn_to:
                withheld[format_id(record.key)] = decision
        ids = list(in_steps(writer, plain, change, timeout))

        def deny(store: Store, keys: Sequence[int]) -> Sequence[int]:
            decided = store.inbox.mark(keys, Marks(notified="denied"), now)
            return sorted({*decided, *change(store, keys)})

        ids += in_steps(writer, denied, deny, timeout)
        told: list[str] = []
        for key, message in telling:
            outcome = _Outcome()
            if writer.step(_Telling(key, change, now, outcome), [message], timeout=timeout):
                told.append(format_id(key))
            else:
                withheld[format_id(key)] = "it was decided before"
            ids += [format_id(key)] * (key in outcome.changed)
        return Changed(tuple(ids), tuple(told), withheld)

    def _decide(
        self,
        record: InboundRecord,
        kind: DispositionKind,
        now: float,
        *,
        receipt: bool | None,
        recipient: str | None,
    ) -> NewMessage | str:
        """Return the notification, or why there is none."""
        reason = disposition_asked(record)
        if not reason and receipt is not True:
            reason = self._unwanted(receipt)
        if reason or self.prepare is None:
            return reason or "nothing can be sent here"
        content = self.content(record.key)
        if content is None:
            return "its octets are gone"
        decided = disposition(
            record, content, kind=kind, host=self.host, now=now, consent=receipt is True, recipient=recipient,
            identities=self.identities,
        )  # fmt: skip
        if isinstance(decided, Refusal):
            return decided.reason
        try:
            return self.prepare(decided)
        except UsageError as error:
            # No transport for mail, or an address that is refused: the message was read all the same.
            return f"the notification cannot be sent: {error}"

    def _unwanted(self, receipt: bool | None) -> str:
        if receipt is False:
            return "the user does not want it"
        if self.mode == "never":
            return "read receipts are switched off"
        return "nobody agreed to it" if self.mode == "ask" else ""


class _Outcome:
    """What a step changed; filled in the store's thread, read once it is done."""

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed: frozenset[int] = frozenset()


class _Telling:
    """A step that changes a message, and is true if its sender is to be told, which is so for the first one only."""

    __slots__ = ("_change", "_key", "_now", "_outcome")

    def __init__(self, key: int, change: Change, now: float, outcome: _Outcome) -> None:
        self._key = key
        self._change = change
        self._now = now
        self._outcome = outcome

    def __call__(self, store: Store) -> bool:
        first = bool(store.inbox.mark([self._key], Marks(notified="sent"), self._now))
        self._outcome.changed = frozenset({*self._change(store, [self._key]), *([self._key] * first)})
        return first
