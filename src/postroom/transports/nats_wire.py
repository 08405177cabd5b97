"""What is published, and what the answers of a NATS server mean: the parts of the NATS transport without a network."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from postroom.delivery import Delivery, Target
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Relayed, Reply
from postroom.replies import one_line
from postroom.transports.webhook_body import JsonBody

__all__ = [
    "Answer",
    "Body",
    "NoStream",
    "Problem",
    "Publication",
    "Trouble",
    "deduplication_id",
    "outcome_of",
    "publication_of",
    "subject_problem",
]

Body = Literal["raw", "json", "text"]

_CONTENT_TYPES: Final = {
    "raw": "message/rfc822",
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
}
_COPIED: Final = (
    "From",
    "To",
    "Cc",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
)
"""Headers of the message that become headers of the publication."""

_OF_THE_SERVER: Final = frozenset({"_INBOX", "_R_", "_GR_"})
_MAX_SUBJECT: Final = 1024
_NOT_IN_A_TOKEN: Final = re.compile(r"[\s*>\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published to one subject.

    Attributes:
        subject: where.
        headers: besides the message's own: ``Nats-Msg-Id``, ``Postroom-Message-Id``, ``Postroom-Recipient`` (its
            number), ``Postroom-Sender`` and ``Content-Type``.
        payload: what.
    """

    subject: str
    headers: Mapping[str, str]
    payload: bytes


def subject_problem(subject: str) -> str:
    """Return why nothing may be published to ``subject``, "" when it may (pure).

    The server's own subjects are refused: publishing to ``$JS.API.…`` manages streams.
    """
    tokens = subject.split(".")
    if len(subject) > _MAX_SUBJECT:
        return f"it has more than {_MAX_SUBJECT} characters"
    if not all(tokens):
        return "it has an empty token"
    if _NOT_IN_A_TOKEN.search(subject):
        return "it has a blank, a control character or a wildcard"
    if tokens[0].startswith("$") or tokens[0] in _OF_THE_SERVER:
        return f"{tokens[0]} belongs to the server"
    return ""


def publication_of(delivery: Delivery, target: Target, body: Body) -> Publication:
    """Return what is published for one recipient (pure)."""
    parsed = JsonBody(delivery)
    encoded = parsed.encode(target)
    document: dict[str, Any] = json.loads(encoded)
    found: dict[str, str] = {}
    for name, value in document["headers"]:
        found.setdefault(name.lower(), value)
    headers = {name: shown for name in _COPIED if (shown := _header_value(found.get(name.lower(), "")))}
    headers |= {
        "Content-Type": _CONTENT_TYPES[body],
        "Nats-Msg-Id": deduplication_id(delivery, target),
        "Postroom-Message-Id": delivery.message_id,
        "Postroom-Recipient": str(target.index),
        "Postroom-Sender": _header_value(delivery.sender),
    }
    payload = delivery.content
    if body == "json":
        payload = encoded
    elif body == "text":
        payload = (document["text"] or document["html"] or "").encode("utf-8", "replace")
    return Publication(target.address.value, headers, payload)


def deduplication_id(delivery: Delivery, target: Target) -> str:
    """Return the id by which a stream knows a second attempt: the same for every attempt (pure).

    The digest keeps apart what two spools number alike when they publish to one stream.
    """
    what = hashlib.blake2b(digest_size=8)
    for part in (delivery.sender.encode("utf-8", "replace"), str(target.address).encode("utf-8", "replace")):
        what.update(part + b"\0")
    what.update(delivery.content)
    return f"{delivery.message_id}.{target.index}.{what.hexdigest()}"


def _header_value(text: str) -> str:
    # Lone surrogates stand for octets that nobody could decode; UTF-8 has no form for them.
    return one_line(text.encode("utf-8", "replace").decode("utf-8"))


NoStream = Literal["defer", "fail", "not_mine"]
Trouble = Literal["no_stream", "jetstream", "refused", "too_large", "subject", "silence"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A stream took it: its name, the number there, and whether it had it already. Empty for core NATS."""

    stream: str = ""
    sequence: int = 0
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """It was not published, or nobody knows.

    Attributes:
        trouble: "silence" is a time-out or a lost connection: the server may have it.
        text: what was said.
        code: JetStream's code, as HTTP has them, or None.
        number: JetStream's own number of the error, or None.
    """

    trouble: Trouble
    text: str
    code: int | None = None
    number: int | None = None


_REFUSALS: Final[Mapping[str, str]] = {"refused": "5.7.1", "too_large": "5.3.4", "subject": "5.1.3"}

# JetStream's own numbers, from its table of errors: what is permanent; anything else is temporary.
_PERMANENT: Final = {
    10054: "5.3.4",  # the message is larger than the stream takes
    10060: "5.1.2",  # the stream is not the one that was expected
    10109: "5.7.1",  # the stream is sealed
}
_FULL: Final = frozenset({10023, 10047, 10077})
"""No room: of the server's memory or disk, of the account's, or of the stream's limits."""


def outcome_of(answer: Answer | Problem, no_stream: NoStream) -> Outcome:
    """Return what became of a publication (pure).

    Args:
        answer: what was answered.
        no_stream: what it means that no stream takes the subject.
    """
    if isinstance(answer, Problem):
        return _outcome_of_problem(answer, no_stream)
    if not answer.stream:
        return Relayed(Reply("published; nobody acknowledges", "2.0.0"))
    where = one_line(f"stream {answer.stream}, sequence {answer.sequence}")
    return Delivered(Reply(f"stored before: {where}" if answer.duplicate else where, "2.0.0"))


def _outcome_of_problem(problem: Problem, no_stream: NoStream) -> Outcome:
    text = problem.text
    if problem.trouble == "silence":
        return Deferred(Reply(text, "4.4.2"), in_doubt=True)
    if problem.trouble == "jetstream":
        return _outcome_of_number(problem)
    if problem.trouble == "no_stream":
        if no_stream == "not_mine":
            return NotMine(Reply(text, "5.1.2"))
        # A stream that is only just electing its leader looks the same.
        return Failed(Reply(text, "5.1.2")) if no_stream == "fail" else Deferred(Reply(text, "4.4.4"))
    return Failed(Reply(text, _REFUSALS[problem.trouble]))


def _outcome_of_number(problem: Problem) -> Outcome:
    number = problem.number or 0
    said = one_line(f"{problem.text} (JetStream {number})")
    if number in _PERMANENT:
        return Failed(Reply(said, _PERMANENT[number], problem.code))
    return Deferred(Reply(said, "4.3.1" if number in _FULL else "4.3.0", problem.code))
