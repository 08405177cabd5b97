"""Messages: whatever the caller gave, made into the octets that are stored, or refused with a reason.

Bytes are kept as they are but for what submission allows (RFC 6409 section 8): Date, Message-ID and
MIME-Version are added where they are missing, Bcc is taken out, LF becomes CRLF. From is never guessed. An
:class:`email.message.Message` is serialised once and never changed.
"""

import re
from dataclasses import dataclass
from email.message import Message as EmailMessage
from hashlib import blake2b
from typing import Any

from postroom import headers
from postroom.addresses import Address
from postroom.composing import Attachment, Message, compose
from postroom.errors import InvalidMessage, MessageTooLarge, UsageError
from postroom.serialising import MAX_LINE, serialise

__all__ = ["MAX_LINE", "AnyMessage", "Attachment", "Message", "PreparedMessage", "prepare"]

AnyMessage = EmailMessage | bytes | bytearray | memoryview | Message
"""What can be submitted: a standard library message, its octets, or the convenience :class:`Message`."""

_BOUNDARY = re.compile(rb'(?i)\bboundary="?([^"\s;]{1,200})')
_MAX_BOUNDARIES = 64
_BUFFERS: Any = (bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A message that may be stored and sent.

    Attributes:
        content: the whole message with CRLF line ends, complete, without Bcc.
        smtputf8: the header holds UTF-8 and needs SMTPUTF8 (RFC 6531).
        eight_bit: the body holds octets above 127 and needs 8BITMIME (RFC 6152).
        subject: the decoded subject, at most 200 characters, printable.
        message_id: the value of the Message-ID field.
        head: the header section as it was given, Bcc included.
    """

    content: bytes
    smtputf8: bool
    eight_bit: bool
    subject: str
    message_id: str
    head: bytes

    @property
    def size(self) -> int:
        """Octets of the content."""
        return len(self.content)

    @property
    def header_sender(self) -> str:
        """The address of Sender or else the first of From, Resent fields first. Computed when asked for.

        Raises:
            InvalidMessage: the field holds no address.
        """
        return headers.sender(self.head)

    def header_recipients(self) -> tuple[str, ...]:
        """Return the addresses of To, Cc and Bcc, or of the latest Resent block. Computed when asked for.

        Raises:
            InvalidMessage: one of the fields cannot be parsed.
        """
        return headers.recipients(self.head)

    def fingerprint(self) -> bytes:
        """Return 32 octets that are the same for the same message given again.

        Programs that build a message anew for every try give it a new Date, a new Message-ID and new MIME
        boundaries: these do not count. Everything else does, octet by octet, Bcc excepted (its addresses are
        recipients).
        """
        head, blank, body = self.content.partition(b"\r\n\r\n")
        content = headers.without(head + b"\r\n", volatile=True) + blank + body
        for number, boundary in enumerate(dict.fromkeys(_BOUNDARY.findall(content)[:_MAX_BOUNDARIES])):
            # No message holds NUL, so that two messages never become equal by this.
            content = content.replace(boundary, b"\0%d\0" % number)
        return blake2b(content, digest_size=32).digest()


def prepare(  # noqa: PLR0913 - keywords only
    message: AnyMessage,
    *,
    now: float,
    message_id_domain: str,
    unique: str,
    max_size: int,
    sender: str | Address | None = None,
) -> PreparedMessage:
    """Return ``message`` as it is to be stored. Pure, but for the files that a :class:`Message` attaches.

    Args:
        message: see :data:`AnyMessage`; never changed.
        now: wall-clock seconds since the Unix epoch, for a missing Date.
        message_id_domain: right-hand side of a missing Message-ID, in A-labels.
        unique: its left-hand side, also used in MIME boundaries: different for every message.
        max_size: octets that the content may have.
        sender: envelope sender; becomes From of a :class:`Message` that names none.

    Raises:
        InvalidMessage: the message breaks RFC 5322 or holds something that must not be sent; names the field.
        MessageTooLarge: it is larger than ``max_size``.
        InvalidAddress: a :class:`Message` names a malformed address.
        UsageError: ``message`` is of another type.
    """
    if isinstance(message, bytes):
        content = message
    else:
        if isinstance(message, Message):
            message = compose(message, sender)
        content = _serialised(message, unique) if isinstance(message, EmailMessage) else _octets(message)
    return _prepare(content, now=now, message_id=f"<{unique}@{message_id_domain}>", max_size=max_size)


def _prepare(data: bytes, *, now: float, message_id: str, max_size: int) -> PreparedMessage:
    _check_size(data, max_size)
    if not data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r"):
        data = _with_crlf(data)
    if data[-2:] != b"\r\n":
        data += b"\r\n"
    problem = _line_problem(data)
    if problem is not None:
        raise problem
    # An empty line at once: no header section; none at all: a message without body (RFC 5322 section 3.5).
    end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 2
    head = data[:end] if end != 1 else data
    end = len(head)
    lowered = head.lower()
    names = headers.field_names(head, lowered)
    smtputf8 = not head.isascii()
    if smtputf8:
        _require_utf8(head)
    eight_bit = not data.isascii() and not data[end:].isascii()
    subject = headers.decoded(headers.field_value(head, lowered, b"subject"))
    if b"message-id" in names:
        message_id = headers.field_value(head, lowered, b"message-id").decode()
    kept = head if b"bcc" not in names and b"resent-bcc" not in names else headers.without(head)
    added = headers.completion(names, now=now, message_id=message_id, mime=eight_bit)
    if added or kept is not head:
        data = b"%b%b%b" % (kept, added, data[end:])
    _check_size(data, max_size)
    return PreparedMessage(data, smtputf8, eight_bit, subject, message_id, head)


def _serialised(message: EmailMessage, unique: str) -> bytes:
    content = serialise(message, unique)
    return content if _line_problem(content) is None else serialise(message, unique, encode=True)


def _octets(message: Any) -> bytes:
    if isinstance(message, _BUFFERS):
        view: memoryview[int] = memoryview(message)
        return view.tobytes()
    remedy = "encode it" if isinstance(message, str) else "give bytes or an EmailMessage"
    raise UsageError(
        "message", f"{type(message).__name__} is not a message", f"{remedy}, or use postroom.Message"
    )


def _with_crlf(data: bytes) -> bytes:
    """Return ``data`` with CRLF if its line ends are all LF; a mixture could smuggle a second message."""
    lone_cr = data.count(b"\r") - data.count(b"\r\n")
    if lone_cr:
        raise InvalidMessage(
            "message", f"holds {lone_cr} CR without LF", "end every line with CRLF, or every line with LF"
        )
    if b"\r" in data:
        raise InvalidMessage(
            "message", "ends some lines with LF and others with CRLF", "use one of them throughout"
        )
    return data.replace(b"\n", b"\r\n")


def _line_problem(data: bytes) -> InvalidMessage | None:
    """Return what forbids lines that end in CRLF to be sent, or None."""
    if b"\0" in data:
        return InvalidMessage(
            "message",
            "holds NUL (BINARYMIME is not supported)",
            "encode binary parts in base64 or quoted-printable",
        )
    start, end = 0, len(data)
    while end - start > MAX_LINE + 2:
        # The last line end within reach: a step per 1000 octets, not one per line.
        step = data.rfind(b"\n", start, start + MAX_LINE + 2) + 1
        if not step:
            number = data.count(b"\n", 0, start) + 1
            return InvalidMessage(
                "message",
                f"line {number} is longer than {MAX_LINE} octets",
                "fold the header field, or encode the part in quoted-printable or base64 (RFC 5322 2.1.1)",
            )
        start = step
    return None


def _require_utf8(head: bytes) -> None:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        line = head.rfind(b"\n", 0, error.start) + 1
        field = head[line : error.start].partition(b":")[0].decode("ascii", "replace")
        raise InvalidMessage(
            field or "message",
            "holds octets that are not UTF-8",
            "encode them as RFC 2047 or as UTF-8 (RFC 6532)",
        ) from None


def _check_size(data: bytes, max_size: int) -> None:
    if len(data) > max_size:
        raise MessageTooLarge(
            "message", f"has {len(data)} octets", f"at most {max_size} are allowed (max_message_size)"
        )
