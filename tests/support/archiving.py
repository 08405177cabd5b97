"""A spool with settled messages, and a writer on it, without the actors."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from postroom.addresses import parse_address
from postroom.archive import Archive
from postroom.clock import ManualClock
from postroom.ids import format_id, parse_id
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.archive import SqliteArchive
from postroom.stores.base import Action, NewMessage, NewRecipient, Settlement
from postroom.stores.driver import sqlite3
from postroom.stores.reader import SqliteReader
from postroom.stores.sqlite import SqliteStore

T = TypeVar("T")

GOOD = Reply("ok", "2.0.0", 250, "mx.example.org", "TLSv1.3")


class Depot:
    """A store of which the test's thread is the only user; also what an :class:`Archive` writes through.

    Attributes:
        files: for reading what the database holds.
        performed: steps done in transactions of their own.
        dropped: standing orders that were dropped.
    """

    def __init__(self, folder: Path, *, keep_content: bool = True) -> None:
        self.clock = ManualClock()
        self.path = folder / "spool.db"
        self.store = SqliteStore(self.path, self.clock, synchronous="off", keep_content=keep_content)
        self.store.open()
        self.reader = SqliteReader(self.path)
        self.archive = Archive(self.path, writer=self, clock=self.clock)
        self.files = SqliteArchive(self.path)
        self.performed = 0
        self.dropped: list[int] = []

    def close(self) -> None:
        self.reader.close()
        self.store.close(leave=True)

    # What an archive writes through

    def perform(self, work: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        assert timeout > 0
        self.performed += 1
        self.store.begin()
        try:
            result = work(self.store.connection)
        except BaseException:
            self.store.rollback()
            raise
        self.store.commit()
        return result

    def cancel(self, message_id: str, recipients: Collection[int] | None = None) -> tuple[int, ...]:
        self.store.begin()
        done = self.store.control(Action("cancel"), parse_id(message_id), (), recipients, self.clock.time())
        self.store.commit()
        return done.changed

    def drop_orders(self, ids: Collection[int]) -> int:
        self.dropped += ids
        self.store.begin()
        count = self.store.drop_orders(ids)
        self.store.commit()
        return count

    # Filling it

    def accept(self, *recipients: NewRecipient | str, **fields: Any) -> NewMessage:
        """Accept a message, owned, so that it can be settled."""
        now = self.clock.time()
        defaults: dict[str, Any] = {
            "sender": "app@example.com",
            "content": b"From: app@example.com\r\nSubject: hello\r\n\r\nhello\r\n",
            "created": now,
            "due": now,
            "subject": "hello",
        }
        one = NewMessage(
            key=self.store.ids.next(),
            recipients=tuple(
                NewRecipient(parse_address(each), "a") if isinstance(each, str) else each
                for each in recipients or ("ann@example.org",)
            ),
            **(defaults | fields),
        )
        self.store.begin()
        self.store.accept([one], {(one.key, index) for index in range(len(one.recipients))})
        self.store.commit()
        return one

    def settle(self, one: NewMessage, *states: State, reply: Reply = GOOD, **fields: Any) -> None:
        """Settle the recipients of a message, in order."""
        settlements = [
            Settlement(
                key=one.key, index=index, transport="a", was=State.QUEUED, state=state, at=self.clock.time(),
                attempts=1, first_attempt=self.clock.time(), reply=reply, duration=0.25,
                outcome="deferred" if state is State.QUEUED else state.label,
                due=None if state.is_final else self.clock.time() + 60, **fields,
            )
            for index, state in enumerate(states)
        ]  # fmt: skip
        self.store.begin()
        applied, _ = self.store.settle(settlements)
        self.store.commit()
        assert len(applied) == len(states)

    def sent(self, *recipients: NewRecipient | str, state: State = State.DELIVERED, **fields: Any) -> str:
        """Accept a message and settle all of its recipients; return its id. A second passes."""
        one = self.accept(*recipients, **fields)
        self.settle(one, *[state] * len(one.recipients))
        self.clock.advance(1)
        return format_id(one.key)

    def ledger_is_exact(self) -> None:
        tally = self.reader.tally()
        assert tally.imbalance == 0
        pending = {where: n for where, n in tally.states.items() if n and not where[1].is_final}
        assert pending == dict(self.reader.recount())
