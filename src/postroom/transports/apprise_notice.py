"""What is handed to Apprise and what it says: the parts of the Apprise transport without Apprise. Pure."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self
from urllib.parse import unquote

from postroom.replies import one_line

__all__ = ["Attached", "Notice", "Said", "read_code", "without_secrets"]


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment."""

    name: str
    content_type: str
    content: bytes

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the attachment of a document as :mod:`postroom.transports.webhook_body` describes it."""
        content_type = str(document["content_type"])
        name = document["filename"] or f"attachment.{content_type.rpartition('/')[2]}"
        return cls(one_line(name), content_type, base64.b64decode(document["content"]))


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be notified."""

    title: str
    body: str
    is_html: bool = False
    attachments: tuple[Attached, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that a service could show."""
        return not (self.title.strip() or self.body.strip() or self.attachments)


@dataclass(frozen=True, slots=True)
class Said:
    """Apprise's word.

    Attributes:
        how: "unusable" for a URL that it cannot use, "silence" when it did not come to an end in time.
        text: what stood in its log.
    """

    how: Literal["yes", "no", "unusable", "silence"]
    text: str = ""


# As Apprise's plugins end their sentences: "…, error=404." or "… (error=404)".
_CODE: Final = re.compile(r"\berror(?:\s+code)?\s*[=:]?\s*([345]\d\d)\b", re.IGNORECASE)


def read_code(text: str) -> int | None:
    """Return the HTTP status code that a log text names, None for none or several different ones."""
    codes = {int(found) for found in _CODE.findall(text)}
    return codes.pop() if len(codes) == 1 else None


_PARTS: Final = re.compile(r"[^:/?&=@+,;#]+")
_HIDDEN_LENGTH: Final = 6
"""Shorter parts of a URL are words and numbers, and hiding them would garble the text."""


def without_secrets(text: str, url: str) -> str:
    """Return a text on one line without the parts of an Apprise URL that may be secrets."""
    schema, _, rest = url.partition("://")
    text = text.replace(url, f"{schema}://…")
    parts = {form for part in _PARTS.findall(rest) for form in (part, unquote(part))}
    # What stands before an "@" is a login, however short.
    login = rest.partition("/")[0].rpartition("@")[0].partition(":")[2]
    hidden = {part for part in parts if len(part) >= _HIDDEN_LENGTH} | ({login, unquote(login)} - {""})
    for part in sorted(hidden, key=len, reverse=True):
        text = text.replace(part, "…")
    return one_line(text)
