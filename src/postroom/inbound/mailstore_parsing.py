"""Parsing mail that anybody may have written: nothing in it makes this raise. Pure.

The standard library's parser is lenient, but not to the end: a few malformed fields and deep nestings make it raise.
Here a field that cannot be parsed is parsed as far as its printable characters go, or else is empty; a message that
cannot be taken apart is one part with its octets; a content that cannot be decoded is what stands there.
"""

import html
import re
from collections.abc import Iterator
from email import policy
from email.headerregistry import BaseHeader
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser, BytesParser
from typing import Any, Final, cast

from postroom.inbound.fields import Fields, Part, parts, text_of

__all__ = [
    "decoded_text",
    "file_name",
    "html_text",
    "indexable_text",
    "is_attachment",
    "leaves",
    "parse_message",
    "part_octets",
    "plain_text",
    "readable",
]

MAX_PARTS: Final = 1000
"""Parts of a message that are looked at."""

MAX_DEPTH: Final = 20
"""How deep parts may be nested for a message to be taken apart; the parser's time grows with depth times lines."""

MAX_RETRIED: Final = 2000
"""Characters of a field that are parsed once more when it could not be parsed as it stands."""

_UNPRINTABLE: Final = re.compile(r"[^ -~]+")
_TAG: Final = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)")
_SPACES: Final = re.compile(r"\s+")
_BLOCKS: Final = frozenset(
    {"p", "br", "div", "tr", "li", "h1", "h2", "h3", "h4", "blockquote", "table", "hr"}
)
_UNSEEN: Final = frozenset({"script", "style", "head", "title", "template"})
_EMPTY_LINES: Final = re.compile(r"\n\s+")


class _Lenient(policy.EmailPolicy):
    """The standard library's policy, of which no field raises when it is read."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Return a field's value, parsed as far as that is possible."""
        for text in (value, _UNPRINTABLE.sub("?", value)[:MAX_RETRIED]):
            try:
                return cast("BaseHeader", super().header_fetch_parse(name, text))
            except Exception:  # noqa: BLE001, S112 - whatever the parser stumbles over, the next text is plainer
                continue
        return super().header_fetch_parse(name, "")


class _Message(EmailMessage):
    """A message or part whose content can be had whatever its header says of it."""

    def get_payload(self, *args: Any, **keywords: Any) -> Any:
        """Return the payload as usual; where a charset or an encoding is broken, as it stands."""
        try:
            return super().get_payload(*args, **keywords)
        except (ValueError, LookupError, AssertionError):
            plain: object = self._payload  # type: ignore[attr-defined]  # there is no other way to what stands there
            if not isinstance(plain, str):
                raise
            octets = plain.encode("utf-8", "surrogateescape")
            decode = keywords.get("decode") or args[1:2] == (True,)
            return octets if decode else octets.decode("utf-8", "replace")

    def get_content(self, *args: Any, **keywords: Any) -> Any:
        """Return the content as usual; where that cannot be had, the text or the octets as far as they go."""
        try:
            return super().get_content(*args, **keywords)
        except Exception:  # noqa: BLE001 - content managers know what is well-formed
            return decoded_text(self) if self.get_content_maintype() == "text" else part_octets(self)


_POLICY: Final = _Lenient(message_factory=_Message)


def parse_message(content: bytes) -> EmailMessage:
    """Return a message that may be read without anything raising; never raises."""
    if not _is_reasonable(content):
        return _header_parsed(content)
    try:
        return cast("EmailMessage", BytesParser(policy=_POLICY).parsebytes(content))
    except Exception:  # noqa: BLE001 - RecursionError of deep nestings among them
        return _header_parsed(content)


def _is_reasonable(content: bytes) -> bool:
    """Return whether a message was made to be read, rather than to keep its reader busy."""
    found = parts(content, Fields(content))
    return len(found) < MAX_PARTS and all(part.depth <= MAX_DEPTH for part in found)


def _header_parsed(content: bytes) -> EmailMessage:
    try:
        return cast("EmailMessage", BytesHeaderParser(policy=_POLICY).parsebytes(content))
    except Exception:  # noqa: BLE001 - not even its header: then all of it is the body
        message = _Message(policy=_POLICY)
        message.set_payload(content.decode("ascii", "surrogateescape"))
        return message


def leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """Yield the parts that hold no others, in their order, at most :data:`MAX_PARTS`; attached messages are parts."""
    waiting: list[Message] = [message]
    for _ in range(MAX_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        payload: object = part.get_payload()
        if isinstance(payload, list) and part.get_content_maintype() == "multipart":
            waiting += reversed(cast("list[Message]", payload))
        else:
            yield cast("EmailMessage", part)


def is_attachment(part: EmailMessage) -> bool:
    """Return whether a part is not to be shown with the text."""
    return (
        part.get_content_disposition() == "attachment"
        or bool(file_name(part))
        or part.get_content_maintype() != "text"
    )


def file_name(part: EmailMessage) -> str:
    """Return the file name that a part says it has, as it is said, "" for none."""
    try:
        return str(part.get_filename() or "")
    except Exception:  # noqa: BLE001 - parameters of RFC 2231 can be broken in many ways
        return ""


def part_octets(part: EmailMessage) -> bytes:
    """Return the octets of a part without its transfer encoding; of an attached message the message."""
    payload: object = part.get_payload()
    if isinstance(payload, list):
        inner = cast("list[Message]", payload)
        return b"" if not inner else _written(inner[0])
    try:
        octets: object = part.get_payload(decode=True)
    except Exception:  # noqa: BLE001 - a broken encoding: what stands there is all there is
        octets = str(payload).encode("utf-8", "replace")
    return octets if isinstance(octets, bytes) else b""


def _written(message: Message) -> bytes:
    for written in (None, policy.compat32):
        try:
            return message.as_bytes(policy=written) if written else message.as_bytes()
        except Exception:  # noqa: BLE001, S112 - the older way of writing takes what the newer does not
            continue
    return b""


def decoded_text(part: EmailMessage) -> str:
    """Return the text of a part, with LF line ends; octets that its charset does not have are replaced."""
    octets = part_octets(part)
    try:
        charset = part.get_content_charset() or "us-ascii"
    except Exception:  # noqa: BLE001 - as above
        charset = "us-ascii"
    return _decoded(octets, charset).replace("\r\n", "\n").replace("\r", "\n")


def _decoded(octets: bytes, charset: str) -> str:
    if charset.lower() not in {"", "us-ascii", "ascii"}:
        try:
            return octets.decode(charset, "replace")
        except (LookupError, ValueError):
            pass
    # What says it is ASCII, or nothing, and is not, is UTF-8 mostly; everything is Latin-1.
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("cp1252", "replace")


def _texts(message: EmailMessage, subtype: str) -> list[str]:
    return [
        decoded_text(part)
        for part in leaves(message)
        if part.get_content_type() == f"text/{subtype}" and not is_attachment(part)
    ]


def plain_text(message: EmailMessage) -> str:
    """Return the text of a message, LF line ends; of one that has only HTML what people would read of it."""
    plain = _texts(message, "plain")
    if any(text.strip() for text in plain):
        return "\n".join(plain)
    return "\n".join(map(readable, _texts(message, "html")))


def html_text(message: EmailMessage) -> str:
    """Return the first HTML of a message as it stands, "" without. Whoever shows it must make it harmless first."""
    return next(iter(_texts(message, "html")), "")


def readable(text: str) -> str:
    """Return what people would read of HTML, roughly, in a time that grows with its length only."""
    words: list[str] = []
    at = 0
    while at < len(text):
        start = text.find("<", at)
        if start < 0:
            start = len(text)
        words.append(_SPACES.sub(" ", text[at:start]))
        comment = text.startswith("<!--", start)
        end = text.find("-->" if comment else ">", start)
        if end < 0:
            break
        at = end + (3 if comment else 1)
        found = _TAG.match(text, start)
        name = found[1].lower() if found else ""
        if name in _BLOCKS:
            words.append("\n")
        elif name in _UNSEEN and not text.startswith("</", start):
            closing = re.compile(f"</{name}", re.IGNORECASE).search(text, at)
            at = closing.start() if closing else len(text)
    return _EMPTY_LINES.sub("\n\n", html.unescape("".join(words))).strip()


def indexable_text(content: bytes, limit: int) -> str:
    """Return the text of a message as far as its first ``limit`` octets go, in a time that is bounded by them.

    The standard library's parser takes seconds over some messages that were made for that; this is for the store's
    thread, which has no seconds.
    """
    fields = Fields(content)
    if fields.type.startswith("multipart/"):
        found = [part for part in parts(content, fields, limit) if not part.multipart and not part.attached]
    else:
        alone = Part(fields, 1)
        alone.end = min(len(content), fields.body + limit)
        found = [] if alone.attached else [alone]
    for kind, make in (("text/plain", str), ("text/html", readable)):
        text = "\n".join(
            make(_decoded(text_of(content, part, limit), part.fields.parameter("content-type", "charset")))
            for part in found
            if part.fields.type == kind
        )
        if text.strip():
            return text
    return ""
