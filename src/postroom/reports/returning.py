"""The part of a report that returns the message, or its header, octet for octet."""

from base64 import encodebytes
from dataclasses import dataclass
from quopri import encodestring
from typing import Final

from postroom.envelopes import Report
from postroom.reports.facts import ReportFacts
from postroom.serialising import MAX_LINE

__all__ = ["Returned", "returned"]

MAX_HEAD: Final = 32_768
"""Octets of a header that are returned at most, in whole lines."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A MIME part with what is returned.

    Attributes:
        content_type: of the part.
        encoding: its Content-Transfer-Encoding.
        content: its octets, encoded.
        whole: whether it is the whole message.
    """

    content_type: str
    encoding: str
    content: bytes
    whole: bool


def returned(facts: ReportFacts, *, whole: bool = True) -> Returned | None:
    """Return the part that returns the message, None when its octets are gone.

    The whole message goes back with a failure only (RFC 3461 section 4.3), if RET does not say otherwise and it is not
    larger than ``max_original``; else its header. Whatever cannot travel as a message part (bare line ends, NUL, long
    lines, a header that is not UTF-8) goes in base64, so that it is the same octets in any case.

    Args:
        facts: what the report says.
        whole: False for the header in any case.
    """
    content = facts.original
    if not content:
        return None
    head = _head(content)
    utf8 = not head.isascii()
    whole = (
        whole and facts.kind is Report.FAILURE and facts.ret != "hdrs" and len(content) <= facts.max_original
    )
    given = content if whole else _bounded(head)
    if not _travels(given) or (utf8 and not _is_utf8(head)):
        return Returned(
            "application/octet-stream", "base64", encodebytes(given).replace(b"\n", b"\r\n"), whole
        )
    if not utf8:
        kind = "message/rfc822" if whole else "text/rfc822-headers"
        return Returned(kind, "7bit" if given.isascii() else "8bit", given, whole)
    kind = "message/global" if whole else "message/global-headers"
    if facts.internationalised:
        return Returned(kind, "8bit", given, whole)
    # RFC 6532 section 3.7 permits an encoding, so that the report needs neither SMTPUTF8 nor 8BITMIME on its way.
    return Returned(kind, "quoted-printable", _quoted(given), whole)


def _head(content: bytes) -> bytes:
    end = content.find(b"\r\n\r\n")
    if end < 0:
        end = content.find(b"\n\n")
        return content if end < 0 else content[: end + 1]
    return content[: end + 2]


def _bounded(head: bytes) -> bytes:
    if len(head) <= MAX_HEAD:
        return head
    return head[: head.rfind(b"\n", 0, MAX_HEAD) + 1] or head[:MAX_HEAD]


def _travels(content: bytes) -> bool:
    """Return whether octets can stand in a MIME part as they are (RFC 2045 sections 2.7 and 2.8)."""
    if b"\0" in content or not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        return False
    return all(len(line) <= MAX_LINE for line in content.split(b"\r\n"))


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(content: bytes) -> bytes:
    # The module knows LF as the only line end, and would quote the CR of a CRLF.
    return encodestring(content.replace(b"\r\n", b"\n"), quotetabs=False).replace(b"\n", b"\r\n")
