"""Addresses and texts as the fields of a delivery status take them (RFC 3464 section 2.1, RFC 6533 section 3)."""

import re
from typing import Final

from postroom.addresses import Address
from postroom.transports.smtp_dsn import utf8_xtext

__all__ = ["MAX_FIELD_WORD", "field", "host_in", "one_line", "original_recipient", "typed_address"]

MAX_FIELD_WORD: Final = 900
"""Octets of a word that cannot be folded: a line has at most 998 (RFC 5322 section 2.1.1)."""

_FOLD_AT = 76
_ORCPT = re.compile(r"[A-Za-z0-9-]{1,40};.+")
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:/]+):[0-9]{1,5}")
_NOT_ASCII = re.compile(r"[^ -~]")


def _embedded(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match[0]):X}}}"


def typed_address(address: Address, *, utf8: bool) -> str:
    """Return "type;address" for Original-Recipient and Final-Recipient.

    Args:
        address: a mailbox becomes ``rfc822`` or, when it is not ASCII, ``utf-8``; other types become ``x-TYPE``.
        utf8: whether the report itself may hold UTF-8 (message/global-delivery-status).
    """
    if address.type == "smtp":
        if address.is_ascii:
            return f"rfc822;{address.value}"
        return f"utf-8;{address.value if utf8 else utf8_xtext(address.value, unicode=False)}"
    # A URL is written whole, so that people and programs recognise it.
    value = str(address) if address.value.startswith("//") else address.value
    return f"x-{address.type};{value if utf8 else _NOT_ASCII.sub(_embedded, value)}"


def original_recipient(orcpt: str, original: Address | None, *, utf8: bool) -> str:
    """Return the value of Original-Recipient, "" when there is nothing to say."""
    if _ORCPT.fullmatch(orcpt):
        kind, _, value = orcpt.partition(";")
        if kind.lower() == "utf-8" and not utf8:
            return f"utf-8;{utf8_xtext(value, unicode=False)}" if not value.isascii() else orcpt
        return orcpt
    return typed_address(original, utf8=utf8) if original is not None else ""


def host_in(remote: str) -> str:
    """Return the host of "host:port"; anything else as it is."""
    found = _HOST_AND_PORT.fullmatch(remote)
    return found[1] if found else remote


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters and half surrogates: nothing in it can end a field."""
    spaced = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return spaced if spaced.isprintable() else "".join(c if c.isprintable() else "?" for c in spaced)


def field(name: str, value: str, *, utf8: bool = False) -> str:
    """Return the line, or folded lines, of a field, with CRLF.

    Whatever ``value`` holds, the result is this one field: line ends and control characters do not survive. Words
    that are too long for a line are cut. Without ``utf8`` other characters than ASCII become question marks.
    """
    words = one_line(value).split(" ")
    if not utf8:
        words = [word.encode("ascii", "replace").decode() for word in words]
    lines = [f"{name}:"]
    for word in map(_cut, words):
        if len(lines[-1]) + 1 + len(word) > _FOLD_AT and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines) + "\r\n"


def _cut(word: str) -> str:
    octets = word.encode()
    if len(octets) <= MAX_FIELD_WORD:
        return word
    return octets[: MAX_FIELD_WORD - 3].decode("utf-8", "ignore") + "..."
