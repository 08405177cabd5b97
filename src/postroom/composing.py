"""The convenience message: a subject, texts and attachments, composed with the standard library."""

import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

from postroom.addresses import Address, parse_mailbox
from postroom.errors import InvalidMessage

__all__ = ["Attachment", "AttachmentLike", "Mailboxes", "Message", "compose"]

_CONTENT_TYPE = re.compile(r"([a-z0-9!#$&^_.+-]{1,127})/([a-z0-9!#$&^_.+-]{1,127})", re.IGNORECASE)
_CONTENT_ID = re.compile(r"[!-;=?-~]+")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SHORT = 76
_PHRASE_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."]')
_OURS = frozenset({"bcc", "cc", "from", "mime-version", "reply-to", "subject", "to"})


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a message.

    Attributes:
        filename: shown to the reader; a name, not a path.
        content: its octets.
        content_type: "type/subtype", or None to guess it from the file name.
        cid: Content-ID without angle brackets of an image that the HTML shows as ``cid:…``, or None.
    """

    filename: str
    content: bytes
    content_type: str | None = None
    cid: str | None = None


AttachmentLike: TypeAlias = Attachment | str | PathLike[str] | tuple[str, bytes] | tuple[str, bytes, str]
"""An attachment, the path of a file to read, or (file name, octets) with or without a content type."""

Mailboxes = str | Address | Sequence[str | Address]
"""One mailbox or several: ``ann@example.org``, ``Ann Other <ann@example.org>``, an ``smtp`` address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message described by what it says; Postroom composes the RFC 5322 message.

    ``to`` and ``cc`` are what readers see; who receives it is decided by ``to=`` of the submission, or by
    these if that is None.

    Attributes:
        subject: one line.
        text: the plain text.
        html: the same as HTML.
        attachments: see :data:`AttachmentLike`.
        sender: the author (From); None to take the submission's ``sender=``.
        to: To.
        cc: Cc.
        reply_to: where answers go.
        headers: further header fields.
    """

    subject: str = ""
    text: str | None = None
    html: str | None = None
    attachments: Sequence[AttachmentLike] = ()
    sender: str | Address | None = None
    to: Mailboxes = ()
    cc: Mailboxes = ()
    reply_to: Mailboxes = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def compose(message: Message, sender: str | Address | None = None) -> EmailMessage:
    """Return ``message`` as the standard library has it. Reads the files that are attached by path.

    Args:
        message: what to say.
        sender: the author if ``message`` names none.

    Raises:
        InvalidMessage: a part cannot be expressed; names the field.
        InvalidAddress: a mailbox is malformed.
    """
    composed = EmailMessage(policy=SMTP)
    author = message.sender or sender
    if not author:
        raise InvalidMessage("From", "is missing", "give Message(sender=…) or sender= of the submission")
    _add(composed, "From", _mailbox(author, "sender"))
    for name, field_name, mailboxes in (
        ("To", "to", message.to),
        ("Cc", "cc", message.cc),
        ("Reply-To", "reply_to", message.reply_to),
    ):
        if mailboxes:
            listed = [mailboxes] if isinstance(mailboxes, (str, Address)) else mailboxes
            _add(
                composed,
                name,
                ", ".join(_mailbox(one, f"{field_name}[{at}]") for at, one in enumerate(listed)),
            )
    if message.subject != "":
        _add(composed, "Subject", message.subject)
    for name, value in message.headers.items():
        if name.lower() in _OURS or name.lower().startswith("content-"):
            raise InvalidMessage(
                name, "cannot be given in headers=", "use the argument of Message that is meant for it"
            )
        _add(composed, name, value)
    _add_texts(composed, message)
    for at, given in enumerate(message.attachments):
        attachment = _attachment(given, f"attachments[{at}]")
        if attachment.cid is None:
            _attach(composed, attachment, f"attachments[{at}]")
    return composed


def _add(composed: EmailMessage, name: str, value: str) -> None:
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidMessage(name, f"is {type(value).__name__}", "give a str")
    if _CONTROL.search(value):
        raise InvalidMessage(
            name, "holds a line end, a control character or an unpaired surrogate", "remove it"
        )
    if value.isascii() and "=?" not in value and len(name) + len(value) <= _SHORT:
        # The email package would parse it for a hundred microseconds and then write these octets.
        composed.set_raw(name, value)
        return
    try:
        composed[name] = value
    except (ValueError, MessageError, LookupError, AttributeError, TypeError) as error:
        raise InvalidMessage(name, f"is not possible ({error})", "give one well-formed line") from error


def _mailbox(given: str | Address, field_name: str) -> str:
    name, address = parse_mailbox(given, field=field_name)
    if not name:
        return address
    if _PHRASE_SPECIAL.search(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{address}>"


def _add_texts(composed: EmailMessage, message: Message) -> None:
    for name, text in (("text", message.text), ("html", message.html)):
        try:
            (text or "").encode()
        except (AttributeError, UnicodeError):
            raise InvalidMessage(
                name, "is not text that UTF-8 can express", "give a str without lone surrogates"
            ) from None
    html_part = None
    if message.text is not None or message.html is None:
        composed.set_content(message.text or "")
        if message.html is not None:
            composed.add_alternative(message.html, subtype="html")
            html_part = _last_part(composed)
    else:
        composed.set_content(message.html, subtype="html")
        html_part = composed
    for at, given in enumerate(message.attachments):
        if isinstance(given, Attachment) and given.cid is not None:
            _relate(html_part, given, given.cid, f"attachments[{at}]")


def _relate(html_part: EmailMessage | None, image: Attachment, cid: str, where: str) -> None:
    """Add an image that the HTML shows (RFC 2392)."""
    if html_part is None:
        raise InvalidMessage(f"{where}.cid", "needs HTML that shows it", "give html=, or leave cid out")
    if _CONTENT_ID.fullmatch(cid) is None:
        raise InvalidMessage(
            f"{where}.cid", f"{cid!r} is no Content-ID", "write it in ASCII without <> and spaces"
        )
    image = _attachment(image, where)
    kind, subtype = _type_of(image, where)
    _check_filename(image, where)
    html_part.add_related(
        image.content, kind, subtype, cid=f"<{cid}>", filename=image.filename, disposition="inline"
    )


def _last_part(composed: EmailMessage) -> EmailMessage:
    *_, last = composed.iter_parts()
    if not isinstance(last, EmailMessage):  # pragma: no cover - add_alternative made it
        raise TypeError(type(last).__name__)
    return last


def _attachment(given: AttachmentLike, where: str) -> Attachment:
    if isinstance(given, Attachment):
        attachment = given
    elif isinstance(given, tuple):
        filename, content, *content_type = given
        attachment = Attachment(filename, content, *content_type)
    else:
        path = Path(fspath(given))
        try:
            attachment = Attachment(path.name, path.read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidMessage(
                where, f"cannot be read ({error})", "give a readable file, or (name, bytes)"
            ) from error
    if not isinstance(attachment.content, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise InvalidMessage(where, f"has content of type {type(attachment.content).__name__}", "give bytes")
    return attachment


def _attach(composed: EmailMessage, attachment: Attachment, where: str) -> None:
    kind, subtype = _type_of(attachment, where)
    _check_filename(attachment, where)
    if kind == "message" and subtype == "rfc822":
        # RFC 2046 section 5.2.1 forbids base64 for it: it goes in as a message.
        inner = message_from_bytes(attachment.content, policy=SMTP)
        composed.add_attachment(inner, filename=attachment.filename)
    else:
        composed.add_attachment(attachment.content, kind, subtype, filename=attachment.filename)


def _check_filename(attachment: Attachment, where: str) -> None:
    name = attachment.filename
    if not name or _CONTROL.search(name) or "/" in name or "\\" in name:
        raise InvalidMessage(
            f"{where}.filename", f"{name!r} is no file name", "give a name without path or line ends"
        )


def _type_of(attachment: Attachment, where: str) -> tuple[str, str]:
    content_type = attachment.content_type
    if content_type is None:
        guessed, compressed = mimetypes.guess_type(attachment.filename, strict=False)
        content_type = guessed if guessed and not compressed else "application/octet-stream"
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None or match[1].lower() == "multipart":
        raise InvalidMessage(
            f"{where}.content_type",
            f"{content_type!r} is not usable",
            "write type/subtype, or build an EmailMessage",
        )
    return match[1].lower(), match[2].lower()
