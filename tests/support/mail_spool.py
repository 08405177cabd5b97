"""A spool with incoming mail, and a mail store on it, without the actors."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from postroom.addresses import parse_address
from postroom.envelopes import Submission
from postroom.errors import UsageError
from postroom.events import Event
from postroom.ids import format_id
from postroom.inbound.digesting import digest_of
from postroom.inbound.mailstore import MailStore
from postroom.inbound.policy import ReadReceipts
from postroom.inbound.values import Arrival, NewInbound
from postroom.stores.base import NewMessage, NewRecipient, Store
from postroom.stores.inbox_reader import SqliteInboxReader
from tests.support.archiving import Depot

T = TypeVar("T")


def letter(*lines: str, body: str = "hello") -> bytes:
    """Return a message with these header lines."""
    return "\r\n".join((*lines, "", body, "")).encode()


class MailDepot(Depot):
    """A depot that takes mail; what a :class:`MailStore` writes through.

    Attributes:
        mail: the store of incoming mail.
        accepted: notifications that were accepted.
        refuses: preparing a notification fails.
        meanwhile: what others do, one while a notification is prepared, the last first.
        events: what was committed.
    """

    def __init__(
        self, folder: Path, *, read_receipts: ReadReceipts = "ask", identities: Collection[str] = ()
    ) -> None:
        super().__init__(folder)
        self.accepted: list[NewMessage] = []
        self.refuses = False
        self.meanwhile: list[Callable[[], object]] = []
        self.events: list[Event] = []
        self.inbox_reader = SqliteInboxReader(self.path)
        self.mail = MailStore(
            self.path, self.inbox_reader, writer=self, clock=self.clock, read_receipts=read_receipts,
            identities=identities, prepare=self.prepare, host="here.example",
        )  # fmt: skip

    def close(self) -> None:
        self.inbox_reader.close()
        super().close()

    def step(self, step: Callable[[Store], T], messages: Sequence[NewMessage] = (), *, timeout: float) -> T:
        assert timeout > 0
        self.store.begin()
        try:
            result = step(self.store)
            if result and messages:
                self.store.accept(list(messages), set[tuple[int, int]]())
        except BaseException:
            self.store.rollback()
            raise
        self.events += self.store.inbox.news
        self.store.commit()
        if result:
            self.accepted += messages
        return result

    def prepare(self, submission: Submission) -> NewMessage:
        if self.meanwhile:
            self.meanwhile.pop()()
        if self.refuses:
            raise UsageError("to", "no transport delivers there", "configure one")
        now = self.clock.time()
        assert isinstance(submission.message, bytes)
        to: Any = submission.to
        return NewMessage(
            key=self.store.ids.next(), sender=str(submission.sender), content=submission.message,
            recipients=tuple(NewRecipient(parse_address(each), "smtp") for each in to), created=now, due=now,
        )  # fmt: skip

    def take(self, content: bytes, *folders: str, **arrival: Any) -> str:
        """Take a message into folders; returns its id. A second passes."""
        new = NewInbound(
            key=self.store.ids.next(), arrival=Arrival(content=content, **arrival), receiver="test",
            received=self.clock.time(), digest=digest_of(content), folders=folders or ("Inbox",),
        )  # fmt: skip
        self.store.begin()
        self.store.inbox.receive("test", [new], self.clock.time())
        self.store.commit()
        self.clock.advance(1)
        return format_id(new.key)

    def take_for_processing(self, content: bytes, **arrival: Any) -> str:
        """Take a message that postprocessors see first."""
        new = NewInbound(
            key=self.store.ids.next(), arrival=Arrival(content=content, **arrival), receiver="test",
            received=self.clock.time(), digest=digest_of(content), folders=(),
        )  # fmt: skip
        self.store.begin()
        self.store.inbox.receive("test", [new], self.clock.time())
        self.store.commit()
        return format_id(new.key)
