"""The header section of a message as bytes: scanned, judged, completed and stripped without a parser's cost.

A section is what stands before the empty line: whole lines that end in CRLF. Nothing here changes a byte that
it does not have to, so that signatures over the header (RFC 6376) stay valid.
"""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from email.errors import MessageError
from email.header import decode_header
from email.headerregistry import HeaderRegistry
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

from postroom.errors import InvalidMessage

__all__ = [
    "completion",
    "decoded",
    "field_names",
    "field_value",
    "recipients",
    "sender",
    "without",
]

MAX_SUBJECT: Final = 200
"""Characters of a subject that are kept on the record."""

# One match per field, its folded lines included; a line that is no field matches with an empty name.
_NAMES = re.compile(rb"(?:([!-9;-~]++):)?[^\n]*+\n(?:[ \t][^\n]*+\n)*+")
_FIELDS = re.compile(rb"([!-9;-~]++):([^\n]*+\n(?:[ \t][^\n]*+\n)*+)")
_PERHAPS_EMPTY = re.compile(rb":[ \t]*+\r\n")
_BCC = re.compile(rb"(?mi)^(?:resent-)?bcc:[^\n]*\n(?:[ \t][^\n]*\n)*")
_VOLATILE = re.compile(rb"(?mi)^(?:date|message-id):[^\n]*\n(?:[ \t][^\n]*\n)*")

# RFC 5322 section 3.6, and RFC 2045 section 3 for those of MIME.
_ONCE = frozenset(
    {
        b"bcc", b"cc", b"content-transfer-encoding", b"content-type", b"date", b"from", b"in-reply-to",
        b"message-id", b"mime-version", b"references", b"reply-to", b"sender", b"subject", b"to",
    }
)  # fmt: skip
_NOT_EMPTY = {b"date": "Date", b"from": "From", b"message-id": "Message-ID"}

_FOLDS = (b" ", b"\t")
_ATOMS = r"[^\s<>\"@,;:()\[\]\\]+"
# "Ann Other" <ann@example.org>, Ann <…>, <…> or the bare address; whatever is more goes to the real parser.
_MAILBOX = re.compile(
    rf"\s*(?:(?:\"[^\"\\]*\"|[^\"<>@,;:()\\]*)\s*<({_ATOMS}@{_ATOMS})>|({_ATOMS}@{_ATOMS}))\s*(?:,|$)"
)
_make_header = HeaderRegistry()


def field_names(head: bytes, lowered: bytes) -> frozenset[bytes]:
    """Return the names of the fields of a header section, in lower case.

    Args:
        head: the header section.
        lowered: ``head.lower()``.

    Raises:
        InvalidMessage: a line is no field, a field that RFC 5322 section 3.6 allows once stands twice, From
            is missing, or From, Date or Message-ID is empty.
    """
    names = _NAMES.findall(lowered)
    once = frozenset(names)
    if b"" in once:
        _refuse_malformed(head)
    if len(once) != len(names):
        _refuse_duplicate(names)
    if not head:
        raise InvalidMessage(
            "message", "has no header section", "begin with a field, as in From: ann@example.org"
        )
    if b"from" not in once:
        raise InvalidMessage("From", "is missing", "name the author, whom nobody else can guess")
    for name, spelled in _NOT_EMPTY.items() if _PERHAPS_EMPTY.search(head) else ():
        if name in once and not field_value(head, lowered, name):
            raise InvalidMessage(spelled, "is empty", "give it a value or leave the line out")
    return once


def field_value(head: bytes, lowered: bytes, name: bytes) -> bytes:
    """Return the unfolded value of the first field called ``name`` (lower case), or b"".

    Args:
        head: the header section.
        lowered: ``head.lower()``.
        name: of the field.
    """
    start = 0 if lowered.startswith(name + b":") else lowered.find(b"\n" + name + b":") + 1
    if not start and not lowered.startswith(name + b":"):
        return b""
    start += len(name) + 1
    end = head.find(b"\n", start) + 1
    while head.startswith(_FOLDS, end):
        end = head.find(b"\n", end) + 1
    return head[start:end].replace(b"\r\n", b"").strip()


def completion(names: AbstractSet[bytes], *, now: float, message_id: str, mime: bool) -> bytes:
    """Return the lines that a header section lacks: Date, Message-ID, MIME-Version (RFC 6409 section 8).

    Args:
        names: the names that are there, lower case.
        now: wall-clock seconds, for Date.
        message_id: for Message-ID, with its angle brackets.
        mime: whether the body needs MIME-Version even if no Content-* field stands there.
    """
    lines = b""
    if b"date" not in names:
        lines = b"Date: " + _date(int(now)) + b"\r\n"
    if b"message-id" not in names:
        lines += b"Message-ID: " + message_id.encode() + b"\r\n"
    if b"mime-version" not in names and (mime or any(name.startswith(b"content-") for name in names)):
        lines += b"MIME-Version: 1.0\r\n"
    return lines


def without(head: bytes, *, volatile: bool = False) -> bytes:
    """Return ``head`` without Bcc and Resent-Bcc, or (``volatile``) without Date and Message-ID."""
    return (_VOLATILE if volatile else _BCC).sub(b"", head)


def decoded(value: bytes) -> str:
    """Return an unfolded value as text, encoded words decoded (RFC 2047), at most 200 characters."""
    text = value.decode("utf-8", "replace")
    if "=?" in text:
        # An encoded word that cannot be decoded is shown as it stands (RFC 2047 section 6.3).
        with suppress(MessageError, LookupError, ValueError):
            text = "".join(
                part if isinstance(part, str) else part.decode(charset or "ascii", "replace")
                for part, charset in decode_header(text)
            )
    # A decoded word may hold anything, and this text goes to logs and terminals.
    return text[:MAX_SUBJECT] if text.isprintable() else "".join(map(_visible, text[:MAX_SUBJECT]))


def sender(head: bytes) -> str:
    """Return the address of who sent it last: Sender or the first of From, of the latest Resent block if any.

    Raises:
        InvalidMessage: the field holds no address.
    """
    fields = _latest(head)
    name = next(name for name in ("Resent-Sender", "Resent-From", "Sender", "From") if name.lower() in fields)
    found = _addresses(name, fields[name.lower()])
    if not found:
        raise InvalidMessage(
            name, "holds no address", "name one, as in Ann <ann@example.org>, or give sender="
        )
    return found[0]


def recipients(head: bytes) -> tuple[str, ...]:
    """Return the addresses of To, Cc and Bcc, or those of the latest Resent block if there is one.

    RFC 5322 section 3.6.6: a message that is sent again goes to whom the Resent fields name, not to the first
    readers.

    Raises:
        InvalidMessage: one of the fields cannot be parsed.
    """
    fields = _latest(head)
    prefix = "Resent-" if any(name.startswith("resent-") for name in fields) else ""
    found: list[str] = []
    for name in (f"{prefix}To", f"{prefix}Cc", f"{prefix}Bcc"):
        found += _addresses(name, fields.get(name.lower(), ""))
    return tuple(found)


def _latest(head: bytes) -> dict[str, str]:
    """Return the fields by name, of the Resent ones only the topmost block: it ends where a name recurs."""
    fields: dict[str, str] = {}
    ended = False
    for raw_name, raw_value in _FIELDS.findall(head):
        name = raw_name.decode("ascii").lower()
        if name.startswith("resent-"):
            ended = ended or name in fields
            if ended:
                continue
        fields.setdefault(name, raw_value.replace(b"\r\n", b"").decode("utf-8", "replace").strip())
    return fields


def _addresses(name: str, value: str) -> list[str]:
    found: list[str] = []
    position = 0
    while position < len(value):
        match = _MAILBOX.match(value, position)
        if match is None:
            return _parsed_addresses(name, value)
        found.append(match[1] or match[2])
        position = match.end()
    return found


def _parsed_addresses(name: str, value: str) -> list[str]:
    try:
        header: Any = _make_header(name, value)
        return [str(address.addr_spec) for address in header.addresses if address.addr_spec != "<>"]
    except (MessageError, ValueError, LookupError, AttributeError, TypeError) as error:
        # The standard library's parser answers some malformed lists with errors of its own workings.
        raise InvalidMessage(
            name, f"cannot be parsed ({error})", "write Ann <ann@example.org>, Bob <…>"
        ) from error


def _visible(char: str) -> str:
    return char if char.isprintable() else " " if char.isspace() else "\ufffd"


@lru_cache(maxsize=8)
def _date(seconds: int) -> bytes:
    return formatdate(seconds).encode("ascii")


def _bad_lines(head: bytes) -> Iterator[tuple[int, bytes]]:
    number = 1
    for field in _NAMES.finditer(head):
        if field[1] is None:
            yield number, field[0]
        number += field[0].count(b"\n")


def _refuse_malformed(head: bytes) -> None:
    number, line = next(_bad_lines(head))
    shown = f"line {number} of the header section, {line[:60].rstrip()!r},"
    if line.startswith((b"From ", b">From ")):
        raise InvalidMessage("message", f"{shown} is the separator of an mbox file", "leave that line out")
    if line.startswith((b" ", b"\t")):
        raise InvalidMessage(
            "message", f"{shown} continues no field", "begin with a field, as in From: ann@example.org"
        )
    if b":" in line:
        raise InvalidMessage(
            "message",
            f"{shown} has a malformed field name",
            "use printable ASCII without spaces before the colon",
        )
    raise InvalidMessage(
        "message", f"{shown} is no header field", "end the header section with an empty line before the body"
    )


def _refuse_duplicate(names: list[bytes]) -> None:
    seen: set[bytes] = set()
    for name in names:
        if name in seen and name in _ONCE:
            raise InvalidMessage(
                name.decode("ascii").title(),
                "stands more than once",
                "leave one of them (RFC 5322 section 3.6)",
            )
        seen.add(name)
