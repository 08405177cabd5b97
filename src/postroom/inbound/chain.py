"""The chain: one incoming message through all postprocessors, and then to its folder. Pure but for the hooks."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from hashlib import blake2b
from typing import Final

from postroom.envelopes import MAX_KEY, Submission
from postroom.errors import ConfigurationError, MessageTooLarge, UsageError
from postroom.inbound.digesting import digest_of
from postroom.inbound.folders import check_folder, check_tag
from postroom.inbound.hooks import Incoming, Postprocessed, Postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule, folders_for
from postroom.inbound.values import Arrival, Filing, InboundRecord
from postroom.stores.base import NewMessage

__all__ = ["MAX_FORWARDED", "Chain", "Filed", "Outcome", "Postponed", "put_off"]

log = logging.getLogger("postroom.intake")

MAX_FORWARDED: Final = 100
"""Messages that one postprocessor may submit because of one message."""

MAX_ERROR: Final = 500
"""Characters of an error that go on the record."""

Admit = Callable[[Submission, str], NewMessage]
"""Checks and serialises a submission, naming the field in what it raises."""

Call = Callable[[Postprocessor, Incoming], object]
"""Runs a postprocessor and returns its verdict, or raises whatever it raises."""


@dataclass(frozen=True, slots=True)
class Filed:
    """A message is done with: where it goes, and what is submitted because of it, in one transaction."""

    filing: Filing
    messages: tuple[NewMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class Postponed:
    """A message is put off.

    Attributes:
        due: wall-clock seconds of the next attempt.
        error: why.
    """

    due: float
    error: str


Outcome = Filed | Postponed


def put_off(record: InboundRecord, error: str, policy: ReceivePolicy, now: float) -> Outcome:
    """Return what becomes of a message over which postprocessing fails: another attempt, or quarantine as it came."""
    due = policy.next_attempt(key=record.key, attempts=max(1, record.attempts), now=now)
    if due is not None:
        return Postponed(due, error[:MAX_ERROR])
    return _quarantined(record.tags, f"{error} (after {record.attempts} attempts)", policy)


def _quarantined(tags: Iterable[str], reason: str, policy: ReceivePolicy) -> Filed:
    return Filed(Filing(folders=(policy.quarantine,), tags=tuple(tags), reason=reason[:MAX_ERROR]))


class Chain:
    """Postprocessors in their order, and the rules after them. Thread-safe as far as ``call`` and ``admit`` are.

    Args:
        postprocessors: with different names.
        rules: asked in this order, of the message as the postprocessors left it.
        policy: of the spooler.
        admit: makes submissions storable.
        max_size: octets that a content may have that a postprocessor made.

    Raises:
        ConfigurationError: two postprocessors have the same name.
    """

    def __init__(
        self,
        postprocessors: Sequence[Postprocessor],
        *,
        rules: Sequence[ReceiveRule],
        policy: ReceivePolicy,
        admit: Admit,
        max_size: int,
    ) -> None:
        names = [each.name for each in postprocessors]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise ConfigurationError(
                    f"postprocessors[{at}].name",
                    f"{name!r} is taken by another",
                    "give each a name of its own",
                )
        self._postprocessors = tuple(postprocessors)
        self._rules = rules
        self._policy = policy
        self._admit = admit
        self._max_size = max_size

    def run(self, record: InboundRecord, arrival: Arrival, call: Call, time: Callable[[], float]) -> Outcome:
        """Take a message through the chain.

        Args:
            record: as it was claimed.
            arrival: as it came.
            call: how a postprocessor is run.
            time: tells the wall-clock seconds.
        """
        policy = self._policy
        if record.attempts > policy.attempts:
            # Each claim counts, and none of them came to an end: perhaps it is this message that ends processes.
            return put_off(record, record.error or "its postprocessing never came to an end", policy, time())
        state = _State(record, arrival)
        for each in self._postprocessors:
            try:
                state.take(each.name, call(each, state.incoming()), self._admit, self._max_size)
            except Exception as error:
                # Other people's code: whatever it raises must not cost more than this message's turn.
                log.exception(
                    "the postprocessor %s fails for message %s", each.name, state.incoming().message_id
                )
                text = f"postprocessor {each.name}: {type(error).__name__}: {error}"
                if each.on_error == "skip":
                    continue
                if each.on_error == "quarantine":
                    return _quarantined(record.tags, text, policy)
                return put_off(record, text, policy, time())
            if state.ended:
                break
        return state.filed(record, self._rules, policy)


@dataclass(slots=True)
class _State:
    """A message on its way through the chain. A verdict that is refused changes nothing of it."""

    record: InboundRecord
    arrival: Arrival
    tags: list[str] = field(init=False)
    content: bytes | None = None
    folder: str | None = None
    dropped: bool = False
    ended: bool = False
    reasons: list[str] = field(default_factory=list[str])
    messages: list[NewMessage] = field(default_factory=list[NewMessage])

    def __post_init__(self) -> None:
        self.tags = list(self.record.tags)

    def incoming(self) -> Incoming:
        record, arrival = self.record, self.arrival
        return Incoming(
            key=record.key, content=arrival.content, digest=record.digest, sender=arrival.sender,
            recipients=arrival.recipients, receiver=record.receiver, remote=arrival.remote,
            remote_folder=arrival.folder, received=record.received, tags=tuple(self.tags), matched=record.matched,
            attempt=max(1, record.attempts),
        )  # fmt: skip

    def take(self, name: str, verdict: object, admit: Admit, max_size: int) -> None:
        """Act upon a verdict, after all of it was looked at.

        Raises:
            UsageError: it cannot be used; names the part of it at fault.
            TypeError: it is no verdict.
        """
        if not isinstance(verdict, Postprocessed):
            raise TypeError(f"process() returned {type(verdict).__name__}; it must return a Postprocessed")
        if isinstance(verdict.tags, str):
            raise UsageError("verdict.tags", f"{verdict.tags!r} is not a sequence", "give a tuple")
        tags = [check_tag(tag, f"verdict.tags[{at}]") for at, tag in enumerate(verdict.tags)]
        if verdict.folder is not None:
            check_folder(verdict.folder, "verdict.folder")
        content = None if verdict.content is None else _octets(verdict.content, max_size)
        messages = _forwarded(self.record, name, verdict.forward, admit)
        if content is not None and content != self.arrival.content:
            self.content = content
            self.arrival = replace(self.arrival, content=content)
            self.record = replace(self.record, digest=digest_of(content))
        self.tags += [tag for tag in dict.fromkeys(tags) if tag not in self.tags]
        self.folder = verdict.folder or self.folder
        self.messages += messages
        if verdict.drop:
            self.dropped = True
            self.reasons.append(f"dropped by {name}" + (f": {verdict.reason}" if verdict.reason else ""))
        elif verdict.reason:
            self.reasons.append(f"{name}: {verdict.reason}")
        self.ended = verdict.drop or verdict.stop

    def filed(self, record: InboundRecord, rules: Sequence[ReceiveRule], policy: ReceivePolicy) -> Filed:
        """Return where it goes; ``record`` is as it was claimed."""
        reason = "; ".join(self.reasons)[:MAX_ERROR]
        if self.dropped:
            log.info("message %s is %s", self.incoming().message_id, reason)
            return Filed(Filing(folders=(), tags=tuple(self.tags), reason=reason), tuple(self.messages))
        folders: tuple[str, ...]
        tags: tuple[str, ...] = tuple(self.tags)
        if self.folder is not None:
            folders = (self.folder,)
        elif self.record.matched and policy.reports_folder is not None:
            folders = (policy.reports_folder,)
        else:
            folders, tags = folders_for(
                self.arrival, self.record.digest, tags, rules, receiver=record.receiver, default=policy.folder
            )
        filing = Filing(
            folders=folders,
            content=self.content,
            digest=None if self.content is None else self.record.digest,
            tags=tags,
            reason=reason,
        )
        return Filed(filing, tuple(self.messages))


def _octets(content: object, max_size: int) -> bytes:
    """Return a content as it is stored: octets as they are, an object serialised as it is, with CRLF."""
    if isinstance(content, EmailMessage):
        try:
            content = content.as_bytes(policy=SMTP)
        except (MessageError, ValueError, LookupError, AttributeError, TypeError) as error:
            # The standard library's generator answers some malformed messages with errors of its own workings.
            raise UsageError(
                "verdict.content", f"cannot be serialised ({error})", "give octets, or leave it as it came"
            ) from error
    if not isinstance(content, bytes):
        raise UsageError("verdict.content", f"is {type(content).__name__}", "give bytes or an EmailMessage")
    if len(content) > max_size:
        raise MessageTooLarge(
            "verdict.content", f"has {len(content)} octets", f"at most {max_size} are allowed"
        )
    return content


def _forwarded(record: InboundRecord, name: str, forward: Sequence[object], admit: Admit) -> list[NewMessage]:
    if len(forward) > MAX_FORWARDED:
        raise UsageError("verdict.forward", f"holds {len(forward)} messages", f"give {MAX_FORWARDED} at most")
    messages: list[NewMessage] = []
    for at, submission in enumerate(forward):
        field_name = f"verdict.forward[{at}]"
        if not isinstance(submission, Submission):
            raise UsageError(field_name, f"is {type(submission).__name__}", "give a Submission")
        own = submission.idempotency_key
        key = f"post:{name}:{record.key}:{at}" if own is None else f"post:{name}:own:{own}"
        if len(key) > MAX_KEY:
            key = f"post:{name}:hash:{blake2b(key.encode(), digest_size=16).hexdigest()}"
        message = admit(replace(submission, idempotency_key=key), f"{field_name}.")
        # The digest says that whatever comes under this key is the same: a postprocessor that runs again may word it
        # otherwise, and that is no conflict.
        messages.append(message._replace(digest=blake2b(key.encode(), digest_size=32).digest()))
    return messages
