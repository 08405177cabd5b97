"""Automatic replies that harm nobody (RFC 3834): whether one may be sent, and what it is. Pure."""

import re
from collections.abc import Collection, Iterator
from hashlib import blake2b
from typing import Final

from postroom.composing import Message
from postroom.envelopes import Submission
from postroom.errors import UsageError
from postroom.inbound.fields import Fields, addresses, decoded
from postroom.inbound.hooks import Incoming
from postroom.inbound.values import Digest

__all__ = ["automatic_reply", "may_answer", "reason_not_to_answer"]

DAY: Final = 86_400.0

# RFC 3834 section 2, and what mailing lists and machines are called besides.
_MACHINES: Final = re.compile(
    r"(owner-.*|.*-(owner|request|bounces?|noreply)(\+.*)?|mailer-daemon|postmaster|listserv|majordomo|bounces?([-+=].*)?"
    r"|(no|do-?not)[-_.]?reply.*)",
    re.IGNORECASE,
)

MAX_REFERENCES: Final = 20
_ID: Final = re.compile(r"<[^<>\s]+>")


def reason_not_to_answer(
    digest: Digest,
    sender: str | None,
    *,
    own: Collection[str] = (),
    named: str | None = None,
    tags: Collection[str] = (),
) -> str | None:
    """Return why a message must not be answered automatically (RFC 3834 section 2), None if it may be.

    Args:
        digest: of the message.
        sender: envelope sender, the only address that an automatic reply may go to.
        own: the addresses that answer. Given any, one of them must be named in the header: who was not addressed does
            not answer.
        named: To and Cc as written; None for the digest's To.
        tags: that the message has; spam is not answered.
    """
    return next(_objections(digest, sender, frozenset(a.lower() for a in own), named, tags), None)


def _objections(
    digest: Digest, sender: str | None, ours: frozenset[str], named: str | None, tags: Collection[str]
) -> Iterator[str]:
    yield from _objections_to_sender(sender, ours)
    if digest.auto_submitted != "no":
        yield f"it is automatic itself (Auto-Submitted: {digest.auto_submitted})"
    if digest.bulk:
        yield "it came by a mailing list or in bulk"
    if digest.message_class.startswith("REPORT."):
        yield "it is a report"
    if "spam" in tags:
        yield "it is tagged as spam"
    said = (digest.to if named is None else named).lower()
    if ours and not any(re.search(rf"(?<![\w.+-]){re.escape(one)}(?![\w.-])", said) for one in ours):
        yield "none of the addresses that would answer is named in To or Cc"


def _objections_to_sender(sender: str | None, ours: frozenset[str]) -> Iterator[str]:
    if not sender:
        yield "its envelope sender is not known" if sender is None else "its envelope sender is null"
        return
    local, _, domain = sender.rpartition("@")
    if not local or not domain:
        yield f"its envelope sender {sender!r} is no mailbox"
    if _MACHINES.fullmatch(local):
        yield f"its envelope sender {sender!r} is a machine or a list"
    if sender.lower() in ours:
        yield "it comes from the address that would answer"


def may_answer(incoming: Incoming, *, own: Collection[str] = ()) -> str | None:
    """Return why an incoming message must not be answered automatically, None if it may be.

    As :func:`reason_not_to_answer`, and besides it heeds X-Auto-Response-Suppress (MS-OXCMAIL) and X-Loop.
    """
    fields = Fields(incoming.content)
    suppressed = {word.strip().lower() for word in fields.text("x-auto-response-suppress").split(",")}
    if suppressed & {"all", "oof", "autoreply"}:
        return "its sender wants no automatic reply (X-Auto-Response-Suppress)"
    if any(decoded(value).lower() in {one.lower() for one in own} for value in fields.all("x-loop")):
        return "it went through here before (X-Loop)"
    named = ", ".join(decoded(value) for name in ("to", "cc") for value in fields.all(name))
    return reason_not_to_answer(incoming.digest, incoming.sender, own=own, named=named, tags=incoming.tags)


def automatic_reply(  # noqa: PLR0913 - keywords only but for the message
    incoming: Incoming,
    *,
    author: str,
    text: str,
    html: str | None = None,
    subject: str = "",
    days: float = 7.0,
) -> tuple[Submission, ...]:
    """Return the submission of an automatic reply, () where RFC 3834 forbids one.

    It goes to the envelope sender alone (section 4), from the null reverse-path (section 3.3), says that it is
    automatic (section 5), and is one of the conversation (sections 3.1.5 and 3.1.6).

    One sender gets one in ``days``: of those in the same stretch of time only the first is submitted, by its
    idempotency key. So two may come shortly one after the other where a stretch ends, and the spool must keep what it
    sent (``keep_sent``) for as long.

    Args:
        incoming: what it answers.
        author: From of the reply, and the address that answers.
        text: what it says.
        html: the same as HTML.
        subject: "" for "Auto: " and that of the message.
        days: how long a sender gets no second one.

    Raises:
        UsageError: ``days`` is not positive.
    """
    if not days > 0:
        raise UsageError("days", f"{days!r} is not positive", "give a number above 0, as 7")
    fields = Fields(incoming.content)
    own = addresses(author.encode())
    if incoming.sender is None or may_answer(incoming, own=own) is not None:
        return ()
    parent = incoming.digest.message_id
    headers = {"Auto-Submitted": "auto-replied"}
    if parent and parent.isascii():
        raw = fields.raw("references").decode("ascii", "replace") or incoming.digest.in_reply_to
        before = [one for one in _ID.findall(raw) if one.isascii() and len(one) < MAX_ID and one != parent]
        kept = before[:1] + before[1:][-MAX_REFERENCES:]
        headers["In-Reply-To"] = parent
        headers["References"] = " ".join((*kept, parent))
    message = Message(
        subject=(subject or f"Auto: {incoming.digest.subject}")[:200].strip(),
        text=text,
        html=html,
        sender=author,
        to=incoming.sender,
        headers=headers,
    )
    stretch = int(incoming.received // (days * DAY))
    whom = blake2b(f"{incoming.sender.lower()} {author.lower()}".encode(), digest_size=16).hexdigest()
    return (
        Submission(
            message=message,
            sender="",
            to=[incoming.sender],
            idempotency_key=f"auto:{whom}:{days:g}:{stretch}",
            report=frozenset(),
        ),
    )


MAX_ID: Final = 250
"""Characters of a message id that is repeated."""
