"""What a preprocessor answered, checked before anything of it counts. Pure."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from hashlib import blake2b
from typing import Any, Final

from postroom import headers
from postroom.delivery import Target
from postroom.domains import Malformed, canonical_domain
from postroom.envelopes import Submission
from postroom.errors import InvalidMessage, UsageError
from postroom.hooks import Content, Verdict, Work
from postroom.messages import prepare
from postroom.options import MessageOptions
from postroom.outcomes import Deferred, Failed, Reply
from postroom.stores.base import NewMessage

__all__ = ["MAX_ADDED", "Admit", "Judged", "judge", "origin_of"]

MAX_ADDED: Final = 100
"""Messages that one verdict may add."""

Admit = Callable[[Submission, str], NewMessage]
"""Checks and serialises a submission, as :meth:`postroom.submitting.Submitter.prepare` does, naming the field in what
it raises."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict that may be acted upon.

    Attributes:
        contents: the new content by recipient's index, only where it changes.
        outcomes: what became of those that go no further.
        added: the messages to store.
        anonymous: how many of them had no idempotency key of their own.
    """

    contents: dict[int, bytes] = field(default_factory=dict[int, bytes])
    outcomes: dict[int, Failed | Deferred] = field(default_factory=dict[int, Failed | Deferred])
    added: tuple[NewMessage, ...] = ()
    anonymous: int = 0


def origin_of(options: MessageOptions | None) -> tuple[str, ...]:
    """Return the preprocessors that a message was added by."""
    return tuple(options.added_by.split(",")) if options is not None and options.added_by else ()


def judge(  # noqa: PLR0913 - keywords only
    work: Work, verdict: object, *, name: str, admit: Admit, first: int, max_size: int, now: float
) -> Judged:
    """Return what a preprocessor's answer comes to.

    Args:
        work: what it was given.
        verdict: what it returned.
        name: its own.
        admit: makes submissions storable.
        first: messages without a key of their own that it added to this message before.
        max_size: octets that a content may have.
        now: wall-clock seconds.

    Raises:
        UsageError: the answer cannot be used; names the part of the verdict at fault.
        TypeError: it is no verdict.
    """
    if not isinstance(verdict, Verdict):
        raise TypeError(f"process() returned {type(verdict).__name__}; it must return a Verdict")
    contents: dict[int, bytes] = {}
    outcomes: dict[int, Failed | Deferred] = {}
    named: set[int] = set()
    for field_name, recipients, outcome in _ends(verdict):
        outcomes |= dict.fromkeys(_indices(recipients, work, named, field_name), outcome)
    for at, (recipients, content) in enumerate(verdict.contents):
        field_name = f"verdict.contents[{at}]"
        octets = _octets(content, work, field_name, max_size, now)
        contents |= dict.fromkeys(_indices(recipients, work, named, field_name), octets)
    if verdict.content is not None:
        octets = _octets(verdict.content, work, "verdict.content", max_size, now)
        contents |= {target.index: octets for target in work.recipients if target.index not in named}
    added = _added(work, verdict, name, admit, first)
    anonymous = sum(submission.idempotency_key is None for submission in verdict.added)
    return Judged(contents, outcomes, added, anonymous)


def _ends(verdict: Verdict) -> Iterator[tuple[str, Collection[Target], Failed | Deferred]]:
    """Yield what is said of recipients that go no further: where, of whom, and what becomes of them."""
    for at, returned in enumerate(verdict.returned):
        field_name = f"verdict.returned[{at}]"
        yield field_name, returned.recipients, Failed(_reply(returned.reply, "5", field_name))
    for at, postponed in enumerate(verdict.postponed):
        field_name = f"verdict.postponed[{at}]"
        reply = _reply(postponed.reply, "4", field_name)
        yield field_name, postponed.recipients, Deferred(reply, postponed.retry_after)


def _indices(recipients: Collection[Target], work: Work, named: set[int], field_name: str) -> list[int]:
    """Return the recipients' numbers, and note that they are named."""
    known = {target.index for target in work.recipients}
    given: list[int] = []
    for target in recipients:
        if not isinstance(target, Target):  # pyright: ignore[reportUnnecessaryIsInstance] - hooks may be untyped
            raise UsageError(field_name, f"holds {type(target).__name__}", "give members of work.recipients")
        if target.index not in known:
            raise UsageError(
                field_name, f"names {target.address}, which is none of the work's", "give members of it"
            )
        if target.index in named:
            raise UsageError(
                field_name, f"names {target.address} once more", "name every recipient once at most"
            )
        named.add(target.index)
        given.append(target.index)
    return given


def _reply(reply: Any, kind: str, field_name: str) -> Reply:
    """Return a reply with a status of that class (RFC 3463 section 3)."""
    if not isinstance(reply, Reply):
        raise UsageError(
            field_name, f"has a reply of type {type(reply).__name__}", "give a postroom.outcomes.Reply"
        )
    if not reply.status:
        return replace(reply, status=f"{kind}.7.0")
    if not reply.status.startswith(f"{kind}."):
        raise UsageError(field_name, f"has the status {reply.status!r}", f"give one that begins with {kind}")
    return reply


def _octets(content: Content, work: Work, field_name: str, max_size: int, now: float) -> bytes:
    """Return a content as it can be stored: complete, with CRLF, without Bcc, and with no more needs than before."""
    if isinstance(content, bytes):
        if content == work.content:
            return work.content
    elif not isinstance(content, EmailMessage):  # pyright: ignore[reportUnnecessaryIsInstance] - hooks may be untyped
        raise UsageError(field_name, f"is {type(content).__name__}", "give bytes or an EmailMessage")
    try:
        prepared = prepare(
            content,
            now=now,
            message_id_domain=_message_id_domain(work),
            unique=work.message_id,
            max_size=max_size,
        )
    except InvalidMessage as error:
        raise InvalidMessage(f"{field_name}: {error.field}", error.problem, error.remedy) from error
    if prepared.smtputf8 and not work.smtputf8:
        raise InvalidMessage(
            field_name,
            "has a header that needs SMTPUTF8, which the message did not",
            "encode it as RFC 2047 has it",
        )
    if prepared.eight_bit and not work.eight_bit:
        raise InvalidMessage(
            field_name, "has octets above 127, which the message did not", "use base64 or quoted-printable"
        )
    return work.content if prepared.content == work.content else prepared.content


def _message_id_domain(work: Work) -> str:
    """Return the right-hand side of a Message-ID to add where a preprocessor took it away: that of the former one."""
    end = work.content.find(b"\r\n\r\n") + 2
    head = work.content[:end] if end > 1 else work.content
    former = headers.field_value(head, head.lower(), b"message-id")
    try:
        return canonical_domain(former.rpartition(b"@")[2].rstrip(b"> ").decode("ascii"))
    except (Malformed, UnicodeDecodeError):
        return "localhost"


def _added(work: Work, verdict: Verdict, name: str, admit: Admit, first: int) -> tuple[NewMessage, ...]:
    if len(verdict.added) > MAX_ADDED:
        raise UsageError("verdict.added", f"holds {len(verdict.added)} messages", f"add {MAX_ADDED} at most")
    by = ",".join((*origin_of(work.options), name))
    number = first
    added: list[NewMessage] = []
    for at, submission in enumerate(verdict.added):
        if not isinstance(submission, Submission):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise UsageError(f"verdict.added[{at}]", f"is {type(submission).__name__}", "give a Submission")
        own = submission.idempotency_key
        if own is None:
            own = str(number)
            number += 1
        key = f"pre:{work.message_id}:{name}:{own}"
        message = admit(replace(submission, idempotency_key=key), f"verdict.added[{at}].")
        # The digest says that whatever comes under this key is the same: a preprocessor that runs again after some
        # recipients were put off may word it otherwise, and that is no conflict.
        added.append(
            message._replace(
                digest=blake2b(key.encode(), digest_size=32).digest(),
                options=replace(message.options or MessageOptions(), added_by=by),
            )
        )
    return tuple(added)
