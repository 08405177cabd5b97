"""An incoming message that was opened: its parts, made safe to ask for."""

import re
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

from postroom.inbound.mailstore_parsing import (
    file_name,
    html_text,
    is_attachment,
    leaves,
    parse_message,
    part_octets,
    plain_text,
)
from postroom.inbound.mailstore_values import InboundMessage

__all__ = ["Attachment", "OpenedMessage"]

MAX_NAME: Final = 200

_PATH: Final = re.compile(r"[/\\]+")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is not the text.

    Attributes:
        name: a file name without path, control characters or leading dots, "" when it has none. It is the sender's
            word: two may have the same, and it says nothing about the content.
        content_type: what the sender says it is, in lower case, as "image/png".
        content: its octets without transfer encoding.
        content_id: by which HTML refers to it, without angle brackets, "" without.
        inline: it is meant to be shown within the text.
    """

    name: str
    content_type: str
    content: bytes
    content_id: str
    inline: bool


class OpenedMessage:
    """A message with its octets; nothing in them makes it raise. Immutable, thread-safe.

    Args:
        message: what the record says.
        content: the octets.

    Attributes:
        message: what the record says; as it was when it was opened.
        content: the octets exactly as they came, but for what postprocessors changed.
    """

    __slots__ = ("_parsed", "content", "message")

    def __init__(self, message: InboundMessage, content: bytes) -> None:
        self.message = message
        self.content = content
        self._parsed: EmailMessage | None = None

    def parse(self) -> EmailMessage:
        """Return the message as the standard library has it, a new one each time.

        Fields are typed as with ``email.policy.default``. Reading a field or a content never raises: a field that
        cannot be parsed is empty, and of a content there is what stands there. Defects that were seen are in
        ``defects``. A message of a thousand parts or of parts nested 20 deep is not taken apart.
        """
        return parse_message(self.content)

    def _own(self) -> EmailMessage:
        if self._parsed is None:
            self._parsed = parse_message(self.content)
        return self._parsed

    def text(self) -> str:
        """Return the text for people, with LF line ends; made from the HTML where there is nothing else."""
        return plain_text(self._own())

    def html(self) -> str:
        """Return the HTML as it stands, "" without. Make it harmless before a browser shows it."""
        return html_text(self._own())

    def attachments(self) -> tuple[Attachment, ...]:
        """Return the attached parts in their order."""
        return tuple(_attachment(part) for part in leaves(self._own()) if is_attachment(part))


def _attachment(part: EmailMessage) -> Attachment:
    return Attachment(
        name=_safe(file_name(part)),
        content_type=part.get_content_type(),
        content=part_octets(part),
        content_id=str(part.get("Content-ID", "")).strip().removeprefix("<").removesuffix(">"),
        inline=part.get_content_disposition() == "inline",
    )


def _safe(name: str) -> str:
    last = _PATH.split(name)[-1]
    return "".join(char if char.isprintable() else "_" for char in last).strip().lstrip(".")[-MAX_NAME:]
