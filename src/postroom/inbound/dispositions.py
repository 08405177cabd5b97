"""Whether the sender of a message is told that it was read, or deleted unread (RFC 8098), and by what message. Pure.

A disposition notification tells a stranger when somebody was at their desk, so it is sent as seldom as the RFC asks:

* only when the message asks for it, once, and never in answer to a report, to an automatic message or to one that went
  to many (RFC 8098 section 2.1, RFC 3834 section 2);
* by itself only to the one address that the message also came from. Where Disposition-Notification-To names several, or
  another address than Return-Path, or where there is no Return-Path, the user must have agreed (section 2.1);
* not at all when the message makes a condition that we do not know (section 2.2), or when it is not known which of the
  addresses is ours: the notification is from that address (section 3).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from postroom.addresses import Address, parse_address
from postroom.envelopes import Submission
from postroom.errors import InvalidAddress
from postroom.ids import format_id
from postroom.inbound.disposition_composing import DispositionFacts, compose_disposition
from postroom.inbound.fields import Fields, addresses
from postroom.inbound.values import InboundRecord

__all__ = ["DispositionKind", "Refusal", "disposition", "disposition_asked"]

DispositionKind = Literal["displayed", "deleted"]

MAX_ASKING: Final = 10
"""Addresses that may ask; whoever names more wants something else than a receipt."""

# Who it was delivered to, as the last mail server wrote it.
_DELIVERED_TO: Final = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to")
_REQUIRED: Final = re.compile(r"=\s*required\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """No notification goes out.

    Attributes:
        reason: why.
        consent: it would if the user agreed.
    """

    reason: str
    consent: bool = False


def disposition_asked(record: InboundRecord) -> str:
    """Return why no notification about a message may be sent whoever agrees, "" when one may."""
    digest = record.digest
    if not digest.mdn_to or record.notified == "none":
        return "nobody asked for it"
    if record.notified:
        return "it was decided before"
    if digest.message_class.startswith("REPORT."):
        return "it is a report itself"
    if digest.auto_submitted != "no":
        return "it is an automatic message"
    if digest.bulk:
        return "it went to many"
    return ""


def disposition(  # noqa: PLR0913 - by keyword
    record: InboundRecord,
    content: bytes,
    *,
    kind: DispositionKind,
    host: str,
    now: float,
    consent: bool = False,
    automatic: bool = False,
    recipient: str | None = None,
    identities: Collection[str] = (),
) -> Submission | Refusal:
    """Return the notification to submit, or why there is none.

    Args:
        record: the message.
        content: its octets.
        kind: what became of it.
        host: the domain for Message-ID and Reporting-UA.
        now: wall-clock seconds.
        consent: the user agreed to this notification.
        automatic: a program did it rather than somebody at the screen (action mode, section 3.2.6.1).
        recipient: the user's address that the message came to; None to find it in the message.
        identities: addresses of users here; one that the message is addressed to is the recipient when nothing else
            tells.

    Raises:
        InvalidAddress: ``recipient`` is none.
    """
    fields = Fields(content)
    reason = disposition_asked(record) or _objection(record, fields, kind)
    if reason:
        return Refusal(reason)
    asking = _parsed(record.digest.mdn_to)
    if not asking:
        return Refusal("whoever asks gives no address of mail")
    if len(asking) > MAX_ASKING:
        return Refusal(f"{len(asking)} addresses ask")
    if not consent and (doubt := _doubt(record, fields, asking)):
        return Refusal(doubt, consent=True)
    user = _own(record, fields, recipient, identities)
    if user is None:
        return Refusal("it is not known to which address here it came")
    facts = DispositionFacts(
        kind=kind,
        to=asking,
        recipient=user,
        original_recipient=fields.text("original-recipient"),
        subject=record.digest.subject,
        message_id=record.digest.message_id,
        date=record.digest.date,
        received=record.received,
        content=content,
        manual_action=not automatic,
        manual_sending=consent,
        unique=f"{format_id(record.key)}.{kind}",
        host=host,
        now=now,
    )
    # The null reverse-path: nobody answers an answer (section 3).
    return Submission(message=compose_disposition(facts), sender="", to=asking, report=frozenset())


def _objection(record: InboundRecord, fields: Fields, kind: DispositionKind) -> str:
    if kind == "deleted" and record.seen:
        return "it was read before"
    if fields.type == "multipart/report":
        return "it is a report itself"
    if _REQUIRED.search(fields.text("disposition-notification-options")):
        return "it makes a condition that is not known here"
    return ""


def _parsed(texts: Collection[str]) -> tuple[Address, ...]:
    found: dict[Address, None] = {}
    for text in texts:
        try:
            address = parse_address(text)
        except InvalidAddress:
            continue
        if address.type == "smtp":
            found[address] = None
    return tuple(found)


def _doubt(record: InboundRecord, fields: Fields, asking: Collection[Address]) -> str:
    """Return why the user must agree, "" when nothing in the message asks for that."""
    if len(asking) > 1:
        return "several addresses ask for it"
    sender = record.sender
    if sender is None:
        paths = [addresses(raw) for raw in fields.all("return-path")]
        # Several, or one that is no path, are as good as none.
        sender = paths[0][0] if len(paths) == 1 and len(paths[0]) == 1 else None
    if not sender:
        return "it is not known where it came from" if sender is None else "it came from nobody"
    # Canonical addresses: the domain in lower case, the local part as it is (section 2.1).
    if _parsed([sender]) != tuple(asking):
        return "another address asks for it than the one it came from"
    return ""


def _own(
    record: InboundRecord, fields: Fields, recipient: str | None, identities: Collection[str]
) -> Address | None:
    """Return the address of the user, None when it cannot be told."""
    if recipient is not None:
        address = parse_address(recipient, field="recipient")
        if address.type != "smtp":
            raise InvalidAddress("recipient", f"{recipient!r} is no mailbox", "give one, as ann@example.org")
        return address
    envelope = _parsed(record.recipients)
    if len(envelope) == 1:
        return envelope[0]
    # To and Cc alone would not do: a blind copy is addressed to others.
    ours = {_folded(address): address for address in _parsed(identities)}
    addressed = [
        ours[_folded(address)]
        for address in envelope or _parsed([a for name in ("to", "cc") for a in addresses(fields.raw(name))])
        if _folded(address) in ours
    ]
    if len(addressed) == 1:
        return addressed[0]
    if envelope:
        return None
    for name in _DELIVERED_TO:
        found = _parsed(addresses(fields.raw(name)))
        if len(found) == 1:
            return found[0]
    return None


def _folded(address: Address) -> str:
    return address.value.casefold()
