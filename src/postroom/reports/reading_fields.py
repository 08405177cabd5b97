"""What the readers of all sorts of reports share: groups of fields, addresses with their type, message ids. Pure."""

import re
from collections.abc import Iterator
from email.utils import mktime_tz, parsedate_tz
from typing import Final

from postroom.inbound.fields import Fields, Part, addresses, decoded, parts, printable, text_of

__all__ = [
    "HEAD_LOOK",
    "LOOK",
    "Report",
    "groups",
    "mailbox_in",
    "message_id_in",
    "moment",
    "status_in",
    "taken_apart",
    "typed_address",
    "typed_text",
]

LOOK: Final = 8 * 1024 * 1024
"""Octets of a body in which a report's parts are looked for."""

HEAD_LOOK: Final = 256 * 1024
"""Octets of a returned message that are looked at."""

MAX_GROUPS: Final = 5_000

_STATUS: Final = re.compile(r"(?<![\d.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![\d.])")
_ID: Final = re.compile(r"<[^<>\s]+>")
_TYPED: Final = re.compile(r"([A-Za-z0-9-]{1,64})[ \t]*;[ \t]*(.*)", re.DOTALL)
_UTF8_ESCAPE: Final = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
# RFC 3461 section 4 has an ORCPT decoded before it is reported, and not everybody does; these two are always encoded.
_XTEXT_LEFT: Final = re.compile(r"(?:[^+]|\+2B|\+3D)+")
_ESCAPED: Final = {"+2B": "+", "+3D": "="}
_BLANK: Final = re.compile(rb"[ \t]*(?:\r\n|\n|\r)")
_LINE: Final = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r|\Z)")
_MAIL_TYPES: Final = frozenset({"rfc822", "smtp", "utf-8", "internet", "local", "unknown"})
_LATEST: Final = 4_102_444_800.0
"""Wall-clock seconds of the year 2100: a date beyond is a mistake."""

MACHINE_TYPES: Final = {
    "message/delivery-status": "dsn",
    "message/global-delivery-status": "dsn",
    "message/disposition-notification": "mdn",
    "message/global-disposition-notification": "mdn",
    "message/feedback-report": "feedback",
}
"""The part that programs read (RFC 3464, RFC 8098, RFC 5965, RFC 6533), and the sort of report."""

_RETURNED: Final = frozenset(
    {
        "message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "text/rfc822", "message/global",
        "message/global-headers",
    }
)  # fmt: skip


class Report:
    """The parts of a report.

    Attributes:
        kind: "dsn", "mdn" or "feedback".
        said: the fields that programs read, in groups parted by empty lines.
        returned: the header of the message that it is about, None if it came without.
    """

    __slots__ = ("kind", "returned", "said")

    def __init__(self, kind: str, said: bytes, returned: Fields | None) -> None:
        self.kind = kind
        self.said = said
        self.returned = returned

    @property
    def message_id(self) -> str:
        """The Message-ID of the returned message, "" without one."""
        return "" if self.returned is None else message_id_in(self.returned.raw("message-id"))


def taken_apart(content: bytes, fields: Fields, limit: int) -> Report | None:
    """Return the parts of a report by what they are, whatever the message calls itself; None if it is none.

    Args:
        content: the message.
        fields: of its header.
        limit: octets that are looked at of what programs read.
    """
    if not fields.type.startswith("multipart/"):
        return None
    found = parts(content, fields, LOOK)
    machine = next((part for part in found if part.fields.type in MACHINE_TYPES), None)
    if machine is None:
        return None
    back = next((part for part in found if part.fields.type in _RETURNED), None)
    said = _untangled(content, machine, limit)
    head = None if back is None else Fields(text_of(content, back, HEAD_LOOK).lstrip(b"\r\n"))
    return Report(MACHINE_TYPES[machine.fields.type], said, head)


def _untangled(content: bytes, part: Part, limit: int) -> bytes:
    """Return the octets of a part, and of what is left of it where there is no empty line behind its header."""
    text = text_of(content, part, limit)
    fields = part.fields
    if not text.strip() and ("final-recipient" in fields or "disposition" in fields):
        return content[fields.start : min(part.end, fields.start + limit)]
    return text


def groups(text: bytes) -> Iterator[Fields]:
    """Yield groups of fields that are parted by empty lines; lines that are no fields are passed over."""
    at = 0
    for _ in range(MAX_GROUPS):
        while blank := _BLANK.match(text, at):
            at = blank.end()
        if at >= len(text):
            return
        group = Fields(text, at, len(text))
        if any(True for _ in group):
            yield group
        if group.body > at:
            at = group.body
        else:
            line = _LINE.match(text, at)
            at = len(text) if line is None else max(line.end(), at + 1)


def typed_address(value: bytes) -> str:
    """Return the address in a field such as "rfc822; ann@example.net", "" for none that means something to us.

    What "x-sms; +1555" stands for is "sms:+1555" (RFC 3461 has other types than mail begin with "x-").
    """
    kind, text = typed_text(value)
    if kind in _MAIL_TYPES or not kind:
        if kind == "utf-8":
            text = _UTF8_ESCAPE.sub(_character, text)
        elif "+" in text and _XTEXT_LEFT.fullmatch(text):
            text = re.sub(r"\+2B|\+3D", lambda found: _ESCAPED[found[0]], text)
        return mailbox_in(text)
    if kind.startswith("x-") and text and not text.isspace():
        return printable(f"{kind[2:]}:{text}")
    return ""


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else "\ufffd"


def typed_text(value: bytes) -> tuple[str, str]:
    """Return the type in lower case, "" without one, and what follows it."""
    text = decoded(value)
    found = _TYPED.fullmatch(text)
    return ("", text) if found is None else (found[1].lower(), found[2].strip())


def mailbox_in(text: str) -> str:
    """Return the mail address in a text that is one but for brackets, comments or a name, "" for none."""
    text = text.strip().strip("<>").strip()
    if "@" not in text:
        return ""
    if not re.search(r"[\s<>(,]", text):
        return printable(text)
    found = addresses(text.encode("utf-8", "replace"))
    return found[0] if len(found) == 1 else ""


def message_id_in(value: bytes) -> str:
    """Return the first Message-ID in a field with its angle brackets, "" without one."""
    found = _ID.search(decoded(value))
    return "" if found is None else found[0]


def status_in(text: str) -> str:
    """Return the first enhanced status code (RFC 3463) in a text, "" without one."""
    found = _STATUS.search(text)
    return "" if found is None else found[1]


def moment(value: bytes) -> float | None:
    """Return the wall-clock seconds of a date (RFC 5322 section 3.3), None without one that makes sense."""
    try:
        parsed = parsedate_tz(decoded(value, 200))
        seconds = None if parsed is None else float(mktime_tz(parsed))
    except Exception:  # noqa: BLE001 - numbers of any size, in any place
        return None
    return seconds if seconds is not None and 0 < seconds < _LATEST else None
