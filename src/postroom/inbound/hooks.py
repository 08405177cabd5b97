"""Hooks for incoming messages: your code between a message's arrival and its folder.

A :class:`Postprocessor` sees a message after it is durable and before anybody can open it: it may change it, tag it,
say where it goes, drop it, and send messages because of it. It is an ordinary class without threads; Postroom runs it
bounded in time, apart from its actors (:mod:`postroom.inbound.processing`). Postprocessors run in the order in which
they were given, then the receive rules decide, if none of them has.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final, Literal

from postroom.envelopes import Submission
from postroom.errors import ConfigurationError
from postroom.hooks import MAX_NAME, Content
from postroom.ids import format_id
from postroom.inbound.values import Digest

__all__ = [
    "UNCHANGED",
    "FunctionPostprocessor",
    "Incoming",
    "OnIncomingError",
    "Postprocessed",
    "Postprocessor",
    "postprocessor",
]

OnIncomingError = Literal["defer", "skip", "quarantine"]
"""What becomes of a message when a postprocessor raises or hangs: all of them see it again later, it goes on as though
this one were not there, or it is filed in quarantine as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """An incoming message as a postprocessor sees it.

    Attributes:
        key: its number in the spool.
        content: its octets so far: as they came, or as a postprocessor before has left them.
        digest: of this content's header.
        sender: envelope sender, "" for the null reverse-path, None where it is not known.
        recipients: envelope recipients, () where they are not known.
        receiver: the name of the receiver that took it.
        remote: the peer that it came from, for the record.
        remote_folder: the folder that it lay in there, "" where there are none.
        received: wall-clock seconds.
        tags: that it has so far.
        matched: it is a report about a message of ours, which knows of it already.
        attempt: the how-manieth time it is postprocessed, from 1.
    """

    key: int
    content: bytes
    digest: Digest
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    receiver: str = ""
    remote: str = ""
    remote_folder: str = ""
    received: float = 0.0
    tags: tuple[str, ...] = ()
    matched: bool = False
    attempt: int = 1

    @property
    def message_id(self) -> str:
        """The message's public id in the spool (not the Message-ID header; that is ``digest.message_id``)."""
        return format_id(self.key)

    def parse(self) -> EmailMessage:
        """Return the content as a new object at every call, the caller's to change.

        The standard library's parser takes anything; its objects may raise when what is malformed is looked at.
        """
        return message_from_bytes(self.content, policy=SMTP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessed:
    """What a postprocessor wants changed.

    Attributes:
        content: the message from now on, None for no change. Octets are kept exactly as they are given.
        tags: to add.
        folder: where it goes, whatever the rules say; None for no opinion. The last opinion counts.
        drop: it is not kept; nobody after sees it. The ledger still knows it, so it is not taken again.
        reason: for the record and the log; of a drop, or of the folder.
        forward: messages to submit, at most 100, in the transaction that files the message. Each is submitted once,
            however often the message is processed: its idempotency key is made of the postprocessor's name, and of its
            own key, if it has one, or else of the message and its place. So a key of its own is the way to send
            something once for several messages, as an automatic reply.
        stop: nobody after this one sees it.
    """

    content: Content | None = None
    tags: Sequence[str] = ()
    folder: str | None = None
    drop: bool = False
    reason: str = ""
    forward: Sequence[Submission] = ()
    stop: bool = False


UNCHANGED: Final = Postprocessed()
"""The verdict that leaves everything as it is."""


@dataclass(kw_only=True)
class Postprocessor(ABC):
    """Sees incoming messages before they are filed. Immutable once the spooler has started.

    It is called by several threads at once, each with a message of its own, so that it must be thread-safe. It is
    called at least once for a message: again when it was put off, or when a process died in between, always beginning
    with the message as it came.

    Attributes:
        name: unique among the postprocessors; it stands in the record, the logs and in idempotency keys.
        timeout: seconds that one call of ``process`` may take; then the thread it runs in is abandoned.
        on_error: what becomes of the message when it raises, hangs, or answers what cannot be done. What is deferred
            too often goes to quarantine (:class:`postroom.inbound.policy.ReceivePolicy`); nothing is ever lost.
    """

    name: str
    timeout: float = 30.0
    on_error: OnIncomingError = "defer"

    def __post_init__(self) -> None:
        if (
            not 1 <= len(self.name) <= MAX_NAME
            or not self.name.isascii()
            or not self.name.isprintable()
            or set(self.name) & set(",: ")
        ):
            raise ConfigurationError(
                "name",
                f"{self.name!r} cannot name a hook",
                f"give 1 to {MAX_NAME} ASCII characters without comma, colon, space",
            )
        if not self.timeout > 0:
            raise ConfigurationError("timeout", f"{self.timeout!r} is not positive", "give seconds above 0")
        if self.on_error not in {"defer", "skip", "quarantine"}:
            raise ConfigurationError(
                "on_error", f"{self.on_error!r} is unknown", 'give "defer", "skip" or "quarantine"'
            )

    @abstractmethod
    def process(self, incoming: Incoming) -> Postprocessed:
        """Say what is to change; :data:`UNCHANGED` for nothing.

        Raises:
            Exception: whatever it is, ``on_error`` decides.
        """

    def prepare(self) -> None:  # noqa: B027 - many have nothing to check
        """Check what can be checked beforehand; called whenever the intake actor starts.

        Whatever it raises is logged, shown and tried again with back-off; messages wait meanwhile.
        """


Answer = Postprocessed | Content | None
"""What a function may say for a verdict: a content is the message from now on, None changes nothing."""

Postprocessing = Callable[[EmailMessage, Incoming], Answer]


@dataclass(kw_only=True, eq=False)
class FunctionPostprocessor(Postprocessor):
    """A postprocessor made of a function; made by :func:`postprocessor`."""

    function: Postprocessing = field(repr=False)

    def process(self, incoming: Incoming) -> Postprocessed:
        """Call the function with the parsed message."""
        answer = self.function(incoming.parse(), incoming)
        if answer is None:
            return UNCHANGED
        return answer if isinstance(answer, Postprocessed) else Postprocessed(content=answer)


def postprocessor(
    *, name: str = "", timeout: float = 30.0, on_error: OnIncomingError = "defer"
) -> Callable[[Postprocessing], FunctionPostprocessor]:
    """Return a decorator that makes a :class:`Postprocessor` of ``def f(message, incoming)``.

    The function gets the parsed message, its own to change, and must *return* it for a change to count; see
    :data:`Answer`.

    Args:
        name: "" for the function's.
        timeout: see :class:`Postprocessor`.
        on_error: see :class:`Postprocessor`.
    """

    def decorate(function: Postprocessing) -> FunctionPostprocessor:
        called = name or getattr(function, "__name__", "")
        return FunctionPostprocessor(name=called, timeout=timeout, on_error=on_error, function=function)

    return decorate
