"""The transport of spoolers under test: takes what every address is sent, and fails where it is told to."""

import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from fnmatch import fnmatchcase

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import TransportDown
from postroom.outcomes import Delivered, Outcome
from postroom.transports.base import Outcomes, Session, Transport

__all__ = ["Outbox", "Sent"]

_DELIVERED = Delivered()


@dataclass(frozen=True, slots=True)
class Sent:
    """What one recipient got.

    Attributes:
        message_id: of the message, as in ``receipt.id``.
        sender: envelope sender, "" for the null reverse-path.
        to: the recipient.
        content: the octets.
    """

    message_id: str
    sender: str
    to: Address
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The content as a new object."""
        return message_from_bytes(self.content, policy=default)

    @property
    def subject(self) -> str:
        """The Subject, decoded; "" without one."""
        return str(self.message.get("Subject", ""))


@dataclass(kw_only=True, eq=False)
class Outbox(Transport):
    """Takes messages to any address. Thread-safe; what is set applies to the attempts that begin after it.

    Put it last among several transports: it handles whatever they do not.
    """

    name: str = "outbox"
    address_types: Collection[str] = frozenset({"smtp"})
    patterns: Sequence[str] = ("*:*",)
    _sent: list[Sent] = field(default_factory=list[Sent], init=False, repr=False)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._next: deque[Outcome | BaseException] = deque()
        self._rules: list[tuple[str, Outcome | BaseException]] = []
        self._down: TransportDown | None = None
        self._open = threading.Event()
        self._open.set()
        self.attempts = 0

    def open(self) -> Session:
        """Return a session; see :class:`postroom.transports.base.Transport`."""
        if self._down is not None:
            raise self._down
        return _Session(self)

    # What was sent

    @property
    def sent(self) -> list[Sent]:
        """What was delivered so far, one entry for each recipient, in order: a copy."""
        with self._changed:
            return list(self._sent)

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Sent]:
        return iter(self.sent)

    def clear(self) -> None:
        """Forget what was delivered."""
        with self._changed:
            self._sent.clear()

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until ``count`` recipients were delivered to, ``timeout`` seconds at most; return whether they were."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._sent) >= count, timeout)

    # Faults

    def answer_next(self, *outcomes: Outcome | BaseException) -> None:
        """Have the next attempts, one recipient each, answered so (an exception is raised), then as usual."""
        with self._changed:
            self._next.extend(outcomes)

    def answer_for(self, pattern: str, outcome: Outcome | BaseException) -> None:
        """Have recipients answered so from now on whose "type:value" matches a glob; the latest rule counts."""
        with self._changed:
            self._rules.insert(0, (pattern, outcome))

    def go_down(self, reason: str = "it was told to be down") -> None:
        """Be out as a whole: no recipient is charged an attempt."""
        self._down = TransportDown(reason)

    def come_back(self) -> None:
        """End the outage, and every other fault."""
        with self._changed:
            self._down = None
            self._next.clear()
            self._rules.clear()
        self._open.set()

    @contextmanager
    def hanging(self) -> Generator[None]:
        """Answer no attempt within the block; they go on after it."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    # For its sessions

    def take(self, delivery: Delivery) -> list[Outcome]:
        """Answer a delivery."""
        self._open.wait()
        if self._down is not None:
            raise self._down
        with self._changed:
            return [self._answer(delivery, target) for target in delivery.targets]

    def _answer(self, delivery: Delivery, target: Target) -> Outcome:
        self.attempts += 1
        address = str(target.address)
        if self._next:
            answer = self._next.popleft()
        else:
            answer = next((said for glob, said in self._rules if fnmatchcase(address, glob)), _DELIVERED)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Delivered):
            self._sent.append(Sent(delivery.message_id, delivery.sender, target.address, delivery.content))
            self._changed.notify_all()
        return answer


class _Session(Session):
    def __init__(self, outbox: Outbox) -> None:
        self._take: Callable[[Delivery], Outcomes] = outbox.take

    def send(self, delivery: Delivery) -> Outcomes:
        return self._take(delivery)

    def close(self) -> None:
        """There is nothing to release."""
