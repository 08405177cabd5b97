"""What a final delivery wrote into a message of the envelope that it came in. Pure."""

from email.utils import parseaddr
from typing import Final

from postroom.headers import field_value

__all__ = ["envelope_of"]

MAX_HEAD: Final = 256 * 1024
"""Octets of a header section that are looked through."""

# RFC 9228; the others are what Postfix, Exim and fetchmail's followers write. Only the first of each counts: it is the
# last that was written, and what stands below it may be the sender's own.
_RECIPIENT_FIELDS: Final = (b"x-original-to", b"delivered-to", b"envelope-to", b"x-envelope-to")


def envelope_of(content: bytes) -> tuple[str | None, tuple[str, ...]]:
    """Return the envelope's sender and recipients as the message's trace fields have them.

    The sender is that of Return-Path (RFC 5321 section 4.4): "" for the null reverse-path, None without the field.
    Whoever can write into the mailbox can write these fields, as they could write anything.
    """
    # With a line end in front, the first field is found as the others are, and a header section may be empty.
    head = b"\r\n" + content[:MAX_HEAD]
    end = head.find(b"\r\n\r\n")
    if end >= 0:
        head = head[: end + 2]
    lowered = head.lower()
    recipients = (_address(field_value(head, lowered, name)) for name in _RECIPIENT_FIELDS)
    path = field_value(head, lowered, b"return-path")
    sender = None
    if path:
        sender = "" if path == b"<>" else _address(path) or None
    return sender, tuple(dict.fromkeys(recipient for recipient in recipients if recipient))


def _address(value: bytes) -> str:
    address = parseaddr(value.decode("utf-8", "replace"))[1]
    return address if "@" in address and not any(ord(c) < 33 or c == "\N{DELETE}" for c in address) else ""
