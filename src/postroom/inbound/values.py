"""The values of receiving: what a receiver hands over, what the store keeps of it, what a remote report says."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "Arrival",
    "Digest",
    "Filing",
    "FolderRow",
    "InboundRecord",
    "LedgerKey",
    "Marks",
    "NewInbound",
    "Received",
    "RemoteReport",
    "ReportedRecipient",
]


class LedgerKey(NamedTuple):
    """What makes a remote copy known again; a message of which any key is in the ledger is not taken twice.

    Attributes:
        source: the remote place, stable for as long as ``uid`` means the same there: "INBOX;1699999999" (folder and
            UIDVALIDITY), "pop3", "new".
        uid: the copy's identity in that place.
        expires: wall-clock seconds after which the entry may be forgotten; None until the receiver forgets it.
    """

    source: str
    uid: str
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One message as a receiver hands it over.

    Attributes:
        content: its octets exactly as the messaging system gave them.
        keys: under which the ledger knows it; () for what cannot come twice.
        sender: envelope sender (MAIL FROM, Return-Path), "" for the null reverse-path, None where it is not known.
        recipients: envelope recipients, () where they are not known.
        received: wall-clock seconds at which the messaging system got it; None for now.
        remote: the peer, as "192.0.2.1" or a host's name, for the record.
        seen: it was read there already.
        folder: the remote folder it lay in, "" where there are none; rules may ask for it.
    """

    content: bytes
    keys: tuple[LedgerKey, ...] = ()
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    received: float | None = None
    remote: str = ""
    seen: bool = False
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What the header of an incoming message says, decoded, without control characters, each at most 998 characters.

    Attributes:
        subject: decoded (RFC 2047).
        author: the From field, as written, decoded.
        to: the To field, likewise.
        message_id: with its angle brackets, "" without one.
        in_reply_to: of In-Reply-To (or the last of References), "" without.
        date: wall-clock seconds of the Date field; None when missing or senseless.
        message_class: MAPI's: "IPM.Note", "REPORT.IPM.Note.NDR" (non-delivery), "REPORT.IPM.Note.DR" (delivery),
            "REPORT.IPM.Note.DELAYED", "REPORT.IPM.Note.IPNRN" (read), "REPORT.IPM.Note.IPNNRN" (not read),
            "REPORT.IPM.Note.FBL" (feedback, RFC 5965), "IPM.Note.OOF" (automatic reply), "IPM.Schedule.Meeting".
        auto_submitted: RFC 3834's keyword, lower case, "no" when the field is missing.
        bulk: a mailing list, bulk or junk message (List-Id, Precedence), which nobody answers automatically.
        hops: Received fields.
        mdn_to: addresses that ask for a disposition notification (RFC 8098), () for none.
        attachments: parts with a file name or the disposition "attachment", as far as it was looked.
    """

    subject: str = ""
    author: str = ""
    to: str = ""
    message_id: str = ""
    in_reply_to: str = ""
    date: float | None = None
    message_class: str = "IPM.Note"
    auto_submitted: str = "no"
    bulk: bool = False
    hops: int = 0
    mdn_to: tuple[str, ...] = ()
    attachments: int = 0


ReportKind = Literal["dsn", "mdn", "feedback", "provider"]
ReportedAction = Literal[
    "failed", "delayed", "delivered", "relayed", "expanded", "displayed", "deleted", "complaint"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """What a remote report says of one recipient.

    Attributes:
        action: of RFC 3464 section 2.3.3; "displayed" and "deleted" of a disposition notification; "complaint" of a
            feedback report.
        address: the final recipient as "type:value" or a bare mail address, "" when it is not named.
        original: the original recipient (ORCPT), likewise.
        status: RFC 3463, "" when there is none.
        text: the diagnostic.
        remote_id: the id under which the other side accepted this recipient's message (``Accepted.remote_id``).
        index: the recipient's number within our message where the report's own address told it (VERP).
    """

    action: ReportedAction
    address: str = ""
    original: str = ""
    status: str = ""
    text: str = ""
    remote_id: str = ""
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReport:
    """What another system says became of a message of ours; pure data, nothing is believed before it is matched.

    Attributes:
        kind: where it was read from.
        recipients: at least one.
        key: our message's number where the report's own address or ENVID told it with our signature; else None.
        envid: the original envelope id, "" when there is none.
        message_id: of the original message, with angle brackets, "" when it is not known.
        reporter: who says so (Reporting-MTA, the provider's name).
        told: the envelope sender has this report already, so that no report of ours is needed.
        at: wall-clock seconds at which it happened there, None when not known.
    """

    kind: ReportKind
    recipients: tuple[ReportedRecipient, ...]
    key: int | None = None
    envid: str = ""
    message_id: str = ""
    reporter: str = ""
    told: bool = True
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInbound:
    """An incoming message on its way into the store.

    Attributes:
        key: its number, new.
        arrival: as the receiver gave it.
        receiver: the receiver's name.
        received: wall-clock seconds.
        digest: of its header.
        folders: where it is filed, a copy in each; () when postprocessors see it first.
        report_folder: instead of ``folders`` when one of its reports matches a message of ours.
        reports: what it says of messages of ours.
        tags: labels that rules or postprocessors gave it.
        quarantine: why it is not processed like others (a mail loop), "" for none.
    """

    key: int
    arrival: Arrival
    receiver: str
    received: float
    digest: Digest
    folders: tuple[str, ...] = ("Inbox",)
    report_folder: str | None = None
    reports: tuple[RemoteReport, ...] = ()
    tags: tuple[str, ...] = ()
    quarantine: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """What the store did with an incoming message.

    Attributes:
        key: its number, or that of the one that it is a duplicate of (0 when that is gone).
        duplicate: the ledger knew it; nothing was stored.
        matched: a report in it was matched to a message of ours.
        arriving: postprocessors are to see it.
    """

    key: int
    duplicate: bool = False
    matched: bool = False
    arriving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundRecord:
    """An incoming message as the spool has it.

    Attributes:
        key: its number; :func:`postroom.ids.format_id` makes the public id.
        folder: where it is; "" while postprocessors have it.
        received: wall-clock seconds.
        receiver: who took it.
        digest: of its header.
        sender: envelope sender, None when not known.
        recipients: envelope recipients.
        remote: the peer.
        size: octets of the content.
        seen: it was read.
        answered: somebody replied.
        flagged: somebody flagged it.
        tags: labels.
        matched: it is a report about a message of ours.
        notified: "" nobody decided about a disposition notification yet; "sent", "denied" or "none" (RFC 8098 allows
            one answer only).
        attempts: how often postprocessing was begun and not finished.
        due: when it is tried next, None when it is filed.
        error: what it failed with last.
        changed: wall-clock seconds of the last change.
    """

    key: int
    folder: str
    received: float
    receiver: str
    digest: Digest
    sender: str | None
    recipients: tuple[str, ...]
    remote: str
    size: int
    seen: bool = False
    answered: bool = False
    flagged: bool = False
    tags: tuple[str, ...] = ()
    matched: bool = False
    notified: str = ""
    attempts: int = 0
    due: float | None = None
    error: str = ""
    changed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filing:
    """The end of postprocessing: where a message goes.

    Attributes:
        folders: a copy in each; () drops it (the ledger still knows it).
        content: what postprocessors made of it, None for no change.
        digest: of the new content, None for no change.
        tags: labels, all of them.
        reason: for the record and the event, "" for none.
    """

    folders: tuple[str, ...]
    content: bytes | None = None
    digest: Digest | None = None
    tags: tuple[str, ...] = ()
    reason: str = ""


class Marks(NamedTuple):
    """Changes of a message's marks; None leaves one as it is.

    Attributes:
        seen: it was read.
        answered: somebody replied.
        flagged: somebody flagged it.
        tags: labels, all of them.
        notified: see :class:`InboundRecord`; changed only from "".
    """

    seen: bool | None = None
    answered: bool | None = None
    flagged: bool | None = None
    tags: tuple[str, ...] | None = None
    notified: str | None = None


@dataclass(frozen=True, slots=True)
class FolderRow:
    """A folder.

    Attributes:
        name: its path, parts separated by "/".
        total: messages in it.
        unseen: those not read yet.
    """

    name: str
    total: int
    unseen: int
