"""Hooks: your code between a message's acceptance and its first transport, and after its end.

A :class:`Preprocessor` sees a message before any transport does: it may change it for some or all of its recipients,
return recipients as undeliverable, put some off, and add messages of its own. A :class:`SentHook` is told when a
message is complete. Both are ordinary classes without threads; Postroom runs them bounded in time, apart from its
actors (:mod:`postroom.preprocessing`). docs/hooks.md has examples.

Order: for every recipient, the preprocessors that handle its address type run in the order in which they were given.
Where two handle no address type in common, so that no recipient sees both, the one whose address type comes first in
transport order runs first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final, Literal

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError
from postroom.ids import format_id
from postroom.options import MessageOptions
from postroom.outcomes import Reply
from postroom.status import MessageStatus

__all__ = [
    "ANY_TYPE",
    "UNCHANGED",
    "Answer",
    "Content",
    "FunctionPreprocessor",
    "FunctionSentHook",
    "OnError",
    "PostponedRecipients",
    "Preprocessor",
    "ReturnedRecipients",
    "SentHook",
    "Verdict",
    "Work",
    "preprocessor",
    "sent_hook",
]

ANY_TYPE: Final = "*"
"""In place of address types: all of them."""

MAX_NAME: Final = 64
"""Characters of a hook's name: it is part of idempotency keys."""

OnError = Literal["defer", "fail", "skip"]
"""What becomes of the recipients when a preprocessor raises or hangs: tried again later, returned to the sender, or
sent as though it were not there."""

Content = bytes | EmailMessage
"""A message as a preprocessor may give it: its octets, or the standard library's object."""

_SEVEN_BIT = SMTP.clone(cte_type="7bit")


@dataclass(frozen=True, slots=True)
class Work:
    """One message, and those of its recipients that a preprocessor handles and that share one content so far.

    Attributes:
        key: the message's number in the spool.
        sender: envelope sender, "" for the null reverse-path.
        recipients: at least one, in the order of submission; the same objects name them in the :class:`Verdict`.
        content: the message so far: CRLF line ends, no Bcc.
        created: wall-clock seconds of submission.
        smtputf8: a header or an address needs SMTPUTF8 (RFC 6531).
        eight_bit: the body holds octets above 127 (RFC 6152).
        priority: 1 urgent, 0 normal, -1 non-urgent.
        expires: wall-clock seconds after which it is not tried any more, or None.
        report: what the sender wants to be told, as "delay,failure,success".
        options: what was said of the message beyond the ordinary, or None.
    """

    key: int
    sender: str
    recipients: tuple[Target, ...]
    content: bytes
    created: float = 0.0
    smtputf8: bool = False
    eight_bit: bool = False
    priority: int = 0
    expires: float | None = None
    report: str = "failure"
    options: MessageOptions | None = None

    @staticmethod
    def of(delivery: Delivery, recipients: tuple[Target, ...], content: bytes) -> "Work":
        """Return the work on some recipients of a delivery, with their content so far."""
        return Work(
            delivery.key, delivery.sender, recipients, content, delivery.created, delivery.smtputf8, delivery.eight_bit,
            delivery.priority, delivery.expires, delivery.report, delivery.options,
        )  # fmt: skip

    @property
    def message_id(self) -> str:
        """The message's public id in the spool, as in ``receipt.id`` (not the Message-ID header)."""
        return format_id(self.key)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The recipients' addresses."""
        return tuple(recipient.address for recipient in self.recipients)

    def parse(self) -> EmailMessage:
        """Return the content as a new object at every call, the caller's to change.

        Texts set in it are encoded in 7 bits unless the message had 8 already, so that its needs do not grow.
        """
        return message_from_bytes(self.content, policy=SMTP if self.eight_bit else _SEVEN_BIT)


@dataclass(frozen=True, slots=True)
class ReturnedRecipients:
    """Recipients that cannot be delivered to: they fail, and the sender gets a report that quotes the reply.

    Attributes:
        recipients: of the work.
        reply: why, with an enhanced status "5.x.x" (RFC 3463); "" becomes 5.7.0.
    """

    recipients: Collection[Target]
    reply: Reply


@dataclass(frozen=True, slots=True)
class PostponedRecipients:
    """Recipients whose turn comes later: all preprocessors see them again then, with the message as it was submitted.

    Attributes:
        recipients: of the work.
        reply: why, with an enhanced status "4.x.x" (RFC 3463); "" becomes 4.7.0.
        retry_after: seconds to wait at least, or None.
    """

    recipients: Collection[Target]
    reply: Reply
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a preprocessor wants changed. No recipient may be named twice.

    Attributes:
        content: the message from now on for every recipient that is not named below, None for no change.
        contents: the message from now on for some, as (recipients, content) each.
        returned: who fails.
        postponed: who is put off.
        added: messages to submit, at most 100. Each is stored in the same transaction as the first of these recipients
            that is settled here, once for the message however often it is processed: its idempotency key is made from
            the message, the preprocessor, and its own key or else its place among those added.
    """

    content: Content | None = None
    contents: Sequence[tuple[Collection[Target], Content]] = ()
    returned: Sequence[ReturnedRecipients] = ()
    postponed: Sequence[PostponedRecipients] = ()
    added: Sequence[Submission] = ()


UNCHANGED: Final = Verdict()
"""The verdict that leaves everything as it is."""


def _check(name: str, timeout: float) -> None:
    if (
        not 1 <= len(name) <= MAX_NAME
        or not name.isascii()
        or not name.isprintable()
        or set(name) & set(",: ")
    ):
        raise ConfigurationError(
            "name",
            f"{name!r} cannot name a hook",
            f"give 1 to {MAX_NAME} ASCII characters without comma, colon, space",
        )
    if not timeout > 0:
        raise ConfigurationError("timeout", f"{timeout!r} is not positive", "give seconds above 0")


@dataclass(kw_only=True)
class Preprocessor(ABC):
    """Sees messages before any transport does. Immutable once the spooler has started.

    It is called by several threads at once, each with a message of its own, so that it must be thread-safe.

    Attributes:
        name: unique among the preprocessors; it stands in the replies and logs that speak of it.
        address_types: types of the recipients that it is to see, for example ``{"smtp"}``; "*" for all.
        timeout: seconds that one call of ``process`` may take; then the thread it runs in is abandoned.
        on_error: what becomes of the recipients when it raises, hangs, or returns what cannot be sent.
    """

    name: str
    address_types: Collection[str] = ANY_TYPE
    timeout: float = 30.0
    on_error: OnError = "defer"

    def __post_init__(self) -> None:
        _check(self.name, self.timeout)
        if self.on_error not in {"defer", "fail", "skip"}:
            raise ConfigurationError(
                "on_error", f"{self.on_error!r} is unknown", 'give "defer", "fail" or "skip"'
            )
        if isinstance(self.address_types, str) and self.address_types != ANY_TYPE:
            raise ConfigurationError(
                "address_types",
                f"{self.address_types!r} is not a set",
                f'give {{"{self.address_types}"}}, or "*"',
            )

    @abstractmethod
    def process(self, work: Work) -> Verdict:
        """Say what is to change; :data:`UNCHANGED` for nothing.

        Called again for the same recipients whenever they were put off or a process died in between, always beginning
        with the message as it was submitted. Not called for messages that it added itself, directly or by way of
        others' additions.

        Raises:
            Exception: whatever it is, ``on_error`` decides.
        """

    def clean_up(self, message_id: str) -> None:  # noqa: B027 - most have nothing to clean up
        """Forget what was kept for a message, which is complete (MAPI: RemovePreprocessInfo).

        Called at least once for every message of whose recipients it could have seen one; perhaps twice, perhaps in
        another process than ``process``, and also if ``process`` was never called for it.
        """

    def prepare(self) -> None:  # noqa: B027 - many have nothing to check
        """Check what can be checked beforehand, as keys that must be readable; called whenever the stage starts.

        Whatever it raises is logged, shown and tried again with back-off; messages wait meanwhile.
        """

    def handles(self, address_type: str) -> bool:
        """Return whether it is to see recipients of this type."""
        return self.address_types == ANY_TYPE or address_type in self.address_types


Answer = Verdict | Content | None
"""What a function may say for a verdict: a content is for all recipients, None changes nothing."""

Processing = Callable[[EmailMessage, Work], Answer]


@dataclass(kw_only=True, eq=False)
class FunctionPreprocessor(Preprocessor):
    """A preprocessor made of a function; made by :func:`preprocessor`."""

    function: Processing = field(repr=False)

    def process(self, work: Work) -> Verdict:
        """Call the function with the parsed message."""
        answer = self.function(work.parse(), work)
        if answer is None:
            return UNCHANGED
        return answer if isinstance(answer, Verdict) else Verdict(content=answer)


def preprocessor(
    *,
    address_types: Collection[str] = ANY_TYPE,
    name: str = "",
    timeout: float = 30.0,
    on_error: OnError = "defer",
) -> Callable[[Processing], FunctionPreprocessor]:
    """Return a decorator that makes a :class:`Preprocessor` of ``def f(message, work)``.

    The function gets the parsed message, its own to change, and must *return* it for a change to count; see
    :data:`Answer`.

    Args:
        address_types: see :class:`Preprocessor`.
        name: "" for the function's.
        timeout: see :class:`Preprocessor`.
        on_error: see :class:`Preprocessor`.
    """

    def decorate(function: Processing) -> FunctionPreprocessor:
        called = name or getattr(function, "__name__", "")
        return FunctionPreprocessor(
            name=called, address_types=address_types, timeout=timeout, on_error=on_error, function=function
        )

    return decorate


@dataclass(kw_only=True)
class SentHook(ABC):
    """Is told when a message is complete: when no recipient of it is pending any more.

    Attributes:
        name: unique among the sent-hooks.
        timeout: seconds that one call may take.
    """

    name: str
    timeout: float = 30.0

    def __post_init__(self) -> None:
        _check(self.name, self.timeout)

    @abstractmethod
    def sent(self, status: MessageStatus, content: bytes | None) -> None:
        """Take note of it. Called at least once for every message, after a crash perhaps twice.

        Args:
            status: with the end of every recipient.
            content: the message as it was submitted, None when it is gone.

        Raises:
            Exception: logged, and it is called again some time later; nothing else comes of it.
        """


@dataclass(kw_only=True, eq=False)
class FunctionSentHook(SentHook):
    """A sent-hook made of a function; made by :func:`sent_hook`."""

    function: Callable[[MessageStatus, bytes | None], object] = field(repr=False)

    def sent(self, status: MessageStatus, content: bytes | None) -> None:
        """Call the function."""
        self.function(status, content)


def sent_hook(function: Callable[[MessageStatus, bytes | None], object]) -> FunctionSentHook:
    """Make a :class:`SentHook` of ``def f(status, content)``."""
    return FunctionSentHook(name=getattr(function, "__name__", ""), function=function)
