"""Composing a disposition notification (RFC 8098 section 3): a multipart/report of three parts, built as octets.

1. a text for people;
2. message/disposition-notification, or message/global-disposition-notification (RFC 6533) when somebody's address needs
   SMTPUTF8;
3. the header of the message, never the message: whoever asks has it, and must not get it in plain text from us.
"""

import re
from dataclasses import dataclass
from email.header import Header
from email.utils import formatdate
from quopri import encodestring
from textwrap import wrap
from typing import Final

from postroom.addresses import Address
from postroom.reports.addressing import field, one_line, typed_address
from postroom.serialising import MAX_LINE

__all__ = ["DispositionFacts", "compose_disposition"]

MAX_HEAD: Final = 32_768
"""Octets of a header that are returned at most, in whole lines."""

MAX_SUBJECT: Final = 120
WIDTH: Final = 76

_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{3,600}>")
_ORIGINAL: Final = re.compile(r"[A-Za-z0-9-]{1,40} ?; ?[!-~]{1,500}")
_HEADER_ENDS: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class DispositionFacts:
    """What a notification says.

    Attributes:
        kind: "displayed" or "deleted".
        to: who asked.
        recipient: the user, whom the notification is from.
        original_recipient: the message's field of that name, "" without.
        subject: of the message, decoded.
        message_id: of the message, with angle brackets, "" without.
        date: wall-clock seconds of its Date field, None without.
        received: wall-clock seconds.
        content: its octets.
        manual_action: somebody at the screen did it.
        manual_sending: somebody agreed to this notification.
        unique: left-hand side of the notification's Message-ID.
        host: its right-hand side, and the Reporting-UA.
        now: wall-clock seconds.
    """

    kind: str
    to: tuple[Address, ...]
    recipient: Address
    original_recipient: str
    subject: str
    message_id: str
    date: float | None
    received: float
    content: bytes
    manual_action: bool
    manual_sending: bool
    unique: str
    host: str
    now: float


def compose_disposition(facts: DispositionFacts) -> bytes:
    """Return a notification as an RFC 5322 message with CRLF line ends.

    Whatever stands in ``facts``, no field but those written here comes to be, and no line is longer than 998 octets.
    """
    utf8 = not all(address.is_ascii for address in (*facts.to, facts.recipient))
    status = _status(facts, utf8=utf8)
    kind = "message/global-disposition-notification" if utf8 else "message/disposition-notification"
    parts = [
        _text_part(_text(facts)),
        _part(kind, "7bit" if status.isascii() else "8bit", status.encode()),
        _header_part(facts.content),
    ]
    boundary = _boundary(facts.unique, parts)
    mark = f"\r\n--{boundary}".encode()
    head = [
        field("Date", formatdate(facts.now)),
        field("From", f"<{facts.recipient.value}>", utf8=utf8),
        field("To", ", ".join(f"<{address.value}>" for address in facts.to), utf8=utf8),
        _subject(facts),
        field("Message-ID", f"<{facts.unique}@{facts.host}>"),
    ]
    if _MESSAGE_ID.fullmatch(facts.message_id):
        head += [field("In-Reply-To", facts.message_id), field("References", facts.message_id)]
    head += [
        # RFC 3834 section 5: nobody's vacation notice shall answer this.
        field("Auto-Submitted", "auto-replied"),
        "MIME-Version: 1.0\r\n",
        "Content-Type: multipart/report; report-type=disposition-notification;\r\n",
        f' boundary="{boundary}"\r\n',
        f"Content-Transfer-Encoding: {'7bit' if status.isascii() else '8bit'}\r\n",
    ]
    body = b"This is a report in MIME format.\r\n" + b"".join(mark + b"\r\n" + part for part in parts)
    return "".join(head).encode("utf-8", "replace") + b"\r\n" + body + mark + b"--\r\n"


def _status(facts: DispositionFacts, *, utf8: bool) -> str:
    lines = [field("Reporting-UA", f"{facts.host}; Postroom")]
    if _ORIGINAL.fullmatch(facts.original_recipient):
        lines.append(field("Original-Recipient", facts.original_recipient))
    lines.append(field("Final-Recipient", typed_address(facts.recipient, utf8=utf8), utf8=utf8))
    if _MESSAGE_ID.fullmatch(facts.message_id):
        lines.append(field("Original-Message-ID", facts.message_id))
    action = "manual-action" if facts.manual_action else "automatic-action"
    sending = "MDN-sent-manually" if facts.manual_sending else "MDN-sent-automatically"
    lines.append(field("Disposition", f"{action}/{sending}; {facts.kind}"))
    return "".join(lines)


def _text(facts: DispositionFacts) -> str:
    subject = one_line(facts.subject)[:MAX_SUBJECT]
    about = f'"{subject}"' if subject else "without a subject"
    sent = f" of {formatdate(facts.date)}" if facts.date is not None else ""
    if facts.kind == "displayed":
        became = (
            f"was displayed at {formatdate(facts.now)}. This is no guarantee that it was read or understood."
        )
    else:
        became = f"was deleted at {formatdate(facts.now)} without having been displayed."
    paragraph = f"The message {about}{sent} to <{facts.recipient.value}> {became}"
    return "\n".join(wrap(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)) + "\n"


def _subject(facts: DispositionFacts) -> str:
    said = "Read" if facts.kind == "displayed" else "Not read"
    line = one_line(f"{said}: {one_line(facts.subject)[:MAX_SUBJECT]}").strip()
    plain = field("Subject", line)
    if line.isascii() and "=?" not in line and "\r\n " not in plain:
        return plain
    words = Header(line, "utf-8", header_name="Subject").encode(linesep="\n").replace("\n", "")
    return field("Subject", words)


def _header_part(content: bytes) -> bytes:
    found = _HEADER_ENDS.search(content)
    head = content if found is None else content[: found.start()] + b"\r\n"
    if len(head) > MAX_HEAD:
        head = head[: head.rfind(b"\n", 0, MAX_HEAD) + 1] or head[:MAX_HEAD]
    kind = "text/rfc822-headers"
    if not head.isascii() and _is_utf8(head):
        kind = "message/global-headers"
    elif head.isascii() and _travels(head):
        return _part(kind, "7bit", head)
    # RFC 6522 section 4 and RFC 6532 section 3.7 permit it, and so the notification travels everywhere.
    quoted = encodestring(head.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), quotetabs=False)
    return _part(kind, "quoted-printable", quoted.replace(b"\n", b"\r\n"))


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _travels(head: bytes) -> bool:
    """Return whether octets can stand in a MIME part as they are (RFC 2045 section 2.7)."""
    if b"\0" in head or not head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r"):
        return False
    return all(len(line) <= MAX_LINE for line in head.split(b"\r\n"))


def _text_part(text: str) -> bytes:
    crlf = text.encode("utf-8", "replace").replace(b"\n", b"\r\n")
    if crlf.isascii() and all(len(line) <= WIDTH + 2 for line in crlf.split(b"\r\n")):
        return _part("text/plain; charset=us-ascii", "7bit", crlf)
    quoted = encodestring(text.encode("utf-8", "replace"), quotetabs=False).replace(b"\n", b"\r\n")
    return _part("text/plain; charset=utf-8", "quoted-printable", quoted)


def _part(content_type: str, encoding: str, content: bytes) -> bytes:
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content


def _boundary(unique: str, parts: list[bytes]) -> str:
    """Return a boundary that no part contains, though the message may have been made to contain it."""
    boundary = f"=_disposition_{unique}"
    number = 0
    while any(boundary.encode() in part for part in parts):
        number += 1
        boundary = f"=_disposition_{number}_{unique}"
    return boundary
