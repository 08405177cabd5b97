"""What the mail store shows: public values made from the record."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from postroom.ids import format_id
from postroom.inbound.dispositions import disposition_asked
from postroom.inbound.values import InboundRecord

__all__ = ["Changed", "FoundMail", "InboundMessage", "inbound_message"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """An incoming message in a folder. Times are wall-clock seconds, sizes octets.

    Attributes:
        id: its public id, as in the events about it.
        folder: where it is.
        received: when the messaging system got it.
        receiver: who took it.
        subject: decoded, without control characters, like the texts that follow.
        author: its From field.
        to: its To field.
        message_id: with angle brackets, "" without.
        in_reply_to: what it answers, likewise.
        date: of its Date field; None when missing or senseless.
        message_class: MAPI's, as in "IPM.Note" or "REPORT.IPM.Note.NDR".
        sender: envelope sender, "" for the null reverse-path, None when not known.
        recipients: envelope recipients, () when not known.
        remote: the peer it came from.
        size: of its content.
        seen: it was read.
        answered: somebody replied.
        flagged: somebody flagged it.
        tags: labels.
        automatic: it is an automatic message (RFC 3834), to which no automatic answer goes.
        bulk: it went to many.
        attachments: how many files are attached, as far as it was looked.
        matched: it is a report about a message of ours.
        receipt: "wanted" if its sender asks for a disposition notification and nobody decided about it; "sent",
            "denied", or "" when there is nothing to decide.
        note: why it was filed as it was, if that is not the usual; "" otherwise.
    """

    id: str
    folder: str
    received: float
    receiver: str
    subject: str
    author: str
    to: str
    message_id: str
    in_reply_to: str
    date: float | None
    message_class: str
    sender: str | None
    recipients: tuple[str, ...]
    remote: str
    size: int
    seen: bool
    answered: bool
    flagged: bool
    tags: tuple[str, ...]
    automatic: bool
    bulk: bool
    attachments: int
    matched: bool
    receipt: str
    note: str


def inbound_message(record: InboundRecord) -> InboundMessage:
    """Return what is shown of a record. Pure."""
    digest = record.digest
    return InboundMessage(
        id=format_id(record.key), folder=record.folder, received=record.received, receiver=record.receiver,
        subject=digest.subject, author=digest.author, to=digest.to, message_id=digest.message_id,
        in_reply_to=digest.in_reply_to, date=digest.date, message_class=digest.message_class, sender=record.sender,
        recipients=record.recipients, remote=record.remote, size=record.size, seen=record.seen,
        answered=record.answered, flagged=record.flagged, tags=record.tags, automatic=digest.auto_submitted != "no",
        bulk=digest.bulk, attachments=digest.attachments, matched=record.matched, receipt=_receipt(record),
        note=record.error,
    )  # fmt: skip


def _receipt(record: InboundRecord) -> str:
    if record.notified in {"sent", "denied"}:
        return record.notified
    return "" if disposition_asked(record) else "wanted"


@dataclass(frozen=True, slots=True)
class FoundMail:
    """What a search found; iterates over ``items``.

    Attributes:
        items: the newest first.
        complete: the index covers every message. If not, some may be missing.
    """

    items: tuple[InboundMessage, ...]
    complete: bool

    def __iter__(self) -> Iterator[InboundMessage]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Changed:
    """What reading or deleting messages did; iterates over ``ids``.

    Attributes:
        ids: the messages that changed.
        receipts: those of them whose senders are told.
        withheld: why the senders of others, who asked for it, are not told, by id.
    """

    ids: tuple[str, ...]
    receipts: tuple[str, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict[str, str])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)
