"""The header and the parts of a message of any octets at all, found without a parser: bounded work, exact positions.

What comes in was made by others, and much of it breaks RFC 5322. Nothing here raises for a content, and nothing looks
further than it is told to.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes
from email.header import decode_header
from email.utils import getaddresses
from typing import Final

__all__ = ["MAX_HEAD", "Fields", "Part", "addresses", "decoded", "parts", "printable", "text_of"]

MAX_HEAD: Final = 256 * 1024
"""Octets of a header section that are looked at; of a part's, a sixteenth."""

MAX_VALUE: Final = 16 * 1024
"""Octets of one field that are looked at."""

MAX_TEXT: Final = 998
"""Characters of a decoded field that are kept."""

MAX_PARTS: Final = 1000
MAX_DEPTH: Final = 50

# Line ends of any sort, a line at the end of the data without one, white space before the colon (RFC 5322 section 4.5).
_FIELD: Final = re.compile(
    rb"([!-9;-~]++)[ \t]*+:([^\r\n]*+(?:\r\n|\n|\r|\Z)(?:[ \t][^\r\n]*+(?:\r\n|\n|\r|\Z))*+)"
)
_FROM_LINE: Final = re.compile(rb">?From [^\r\n]*+(?:\r\n|\n|\r|\Z)")
_BLANK: Final = re.compile(rb"\r\n|\n|\r")
_FOLD: Final = re.compile(rb"[\r\n]+")
_SPACES: Final = re.compile(r"\s+")
_TYPE: Final = re.compile(r"\s*([!#-'*+\-.0-9A-Z^-~]+)/([!#-'*+\-.0-9A-Z^-~]+)", re.IGNORECASE)
# One after the other, so that what looks like a parameter within quotes is none.
_PARAMETER: Final = re.compile(r";\s*([^\s=;\"]++)\s*+=\s*+(?:\"((?:[^\"\\]|\\.)*+)\"|([^;\"]*+))")
# Joiners belong to words and signs; they are invisible, and no danger to a terminal.
_JOINERS: Final = "\u200c\u200d"
_DROPPED: Final = "\u00ad\ufeff\ufffe"


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """Return text without control characters: white space becomes a space, what else cannot be shown U+FFFD."""
    if not text.isprintable():
        text = "".join(map(_visible, text[: 4 * limit]))
    return text[:limit].strip()


def _visible(char: str) -> str:
    if char.isprintable() or char in _JOINERS:
        return char
    if char in _DROPPED:
        return ""
    return " " if char.isspace() else "\ufffd"


def decoded(value: bytes, limit: int = MAX_TEXT) -> str:
    """Return a field's value as text: unfolded, encoded words decoded (RFC 2047), printable. Never raises."""
    text = _FOLD.sub(b"", value[:MAX_VALUE]).decode("utf-8", "replace")
    if "=?" in text:
        # Charsets are code of many sorts; what cannot be decoded is shown as it stands (RFC 2047 section 6.3).
        with suppress(Exception):
            text = "".join(
                part if isinstance(part, str) else part.decode(charset or "ascii", "replace")
                for part, charset in decode_header(text)
            )
    return printable(_SPACES.sub(" ", text), limit)


def addresses(value: bytes) -> tuple[str, ...]:
    """Return the addresses that a field holds, each once, without their names; () for what cannot be parsed."""
    text = _FOLD.sub(b"", value[:MAX_VALUE]).decode("utf-8", "replace")
    try:
        found = [address for _, address in getaddresses([text])]
    except Exception:  # noqa: BLE001 - the parser answers some malformed lists with errors of its own workings
        return ()
    return tuple(dict.fromkeys(printable(address) for address in found if "@" in address))


class Fields:
    """The fields of a header section.

    Args:
        content: the octets.
        start: where the section begins.
        limit: how many octets are looked at.

    Attributes:
        start: where it begins.
        body: where what follows the empty line begins.
    """

    __slots__ = ("_fields", "body", "start")

    def __init__(self, content: bytes, start: int = 0, limit: int = MAX_HEAD) -> None:
        end = min(len(content), start + limit)
        self.start = start
        self._fields: dict[str, list[bytes]] = {}
        at = start
        if start == 0 and (line := _FROM_LINE.match(content, 0, end)):
            at = line.end()
        while match := _FIELD.match(content, at, end):
            self._fields.setdefault(match[1].decode("ascii").lower(), []).append(match[2])
            at = match.end()
        blank = _BLANK.match(content, at)
        self.body = at if blank is None else blank.end()

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def raw(self, name: str) -> bytes:
        """Return the first field called ``name`` (lower case) as it stands, b"" without one."""
        found = self._fields.get(name)
        return found[0] if found else b""

    def all(self, name: str) -> list[bytes]:
        """Return all fields called ``name`` (lower case) as they stand, from the top."""
        return self._fields.get(name, [])

    def text(self, name: str) -> str:
        """Return the first field called ``name``, decoded; "" without one."""
        return decoded(self.raw(name))

    def word(self, name: str) -> str:
        """Return what stands before a semicolon, a comment or white space, in lower case."""
        words = re.split(r"[\s;(]", self.text(name), maxsplit=1)
        return words[0].lower()

    @property
    def type(self) -> str:
        """The content type in lower case, "text/plain" without one (RFC 2045 section 5.2)."""
        match = _TYPE.match(self.text("content-type"))
        return f"{match[1]}/{match[2]}".lower() if match else "text/plain"

    def parameter(self, field: str, name: str) -> str:
        """Return a parameter (its name in lower case) as it stands, without quotes, "" without one."""
        value = _FOLD.sub(b"", self.raw(field)[:MAX_VALUE]).decode("latin-1")
        for match in _PARAMETER.finditer(value):
            if match[1].lower() == name:
                return re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3].strip()
        return ""


class Part:
    """A part of a multipart message, by its place in the octets.

    Attributes:
        fields: its header.
        end: where its body ends, without the line end that belongs to the boundary; of a multipart one, where it
            begins.
        depth: how many multipart ones it lies in, from 1.
    """

    __slots__ = ("depth", "end", "fields")

    def __init__(self, fields: Fields, depth: int) -> None:
        self.fields = fields
        self.end = fields.body
        self.depth = depth

    @property
    def multipart(self) -> bool:
        """Whether it holds parts of its own."""
        return self.fields.type.startswith("multipart/")

    @property
    def body(self) -> int:
        """Where its body begins."""
        return self.fields.body

    def filenames(self, content: bytes) -> tuple[str, ...]:
        """Return the file names that it gives itself, decoded (RFC 2231, RFC 2047): they need not agree."""
        if b"name" not in content[self.fields.start : self.body].lower():
            return ()
        names: list[str] = []
        for field, parameter in (("content-disposition", "filename"), ("content-type", "name")):
            if field not in self.fields:
                continue
            head = field.encode() + b":" + self.fields.raw(field)[:MAX_VALUE] + b"\n\n"
            name = ""
            # Charsets are code of many sorts, and the parser has errors of its own; the name as it stands is as good.
            with suppress(Exception):
                given = message_from_bytes(head).get_param(parameter, "", field)
                charset, _, name = given if isinstance(given, tuple) else ("", "", given)
                if charset:
                    name = name.encode("latin-1", "replace").decode(charset, "replace")
            name = name or self.fields.parameter(field, parameter)
            if name:
                names.append(decoded(name.encode("utf-8", "replace")))
        return tuple(dict.fromkeys(names))

    @property
    def attached(self) -> bool:
        """Whether it has a file name or the disposition "attachment" (RFC 2183)."""
        fields = self.fields
        if "content-disposition" in fields:
            if fields.word("content-disposition") == "attachment":
                return True
            if re.search(rb"(?i);\s*filename", fields.raw("content-disposition")[:MAX_VALUE]):
                return True
        return bool(re.search(rb"(?i);\s*name\*?\d?\*?\s*=", fields.raw("content-type")[:MAX_VALUE]))


def parts(content: bytes, fields: Fields, limit: int | None = None) -> list[Part]:
    """Return the parts of a multipart message in their order, those that hold others before what they hold.

    Messages within messages are one part. A part that is not closed ends where the data that is looked at ends.

    Args:
        content: the octets.
        fields: of their header.
        limit: octets of the body that are looked at; None for all.
    """
    boundary = _boundary(fields)
    if not boundary:
        return []
    end = len(content) if limit is None else min(len(content), fields.body + limit)
    stack = [boundary]
    found: list[Part] = []
    current: Part | None = None
    at = max(fields.body - 1, 0)
    while len(found) < MAX_PARTS:
        at = content.find(b"\n--", at, end)
        if at < 0:
            break
        line_end = content.find(b"\n", at + 1, min(end, at + 512))
        line = content[at + 3 : line_end if line_end >= 0 else min(end, at + 512)].rstrip()
        depth, last = _match(line, stack)
        if depth < 0:
            at += 1
            continue
        _close(content, current, at)
        current = None
        del stack[depth + (not last) :]
        if not stack:
            return found
        if last or line_end < 0:
            at = at + 1 if line_end < 0 else line_end
            continue
        current = Part(Fields(content, line_end + 1, MAX_HEAD // 16), len(stack))
        found.append(current)
        at = max(current.body - 1, line_end)
        inner = _boundary(current.fields)
        if inner and len(stack) < MAX_DEPTH:
            stack.append(inner)
            current = None
    if current is not None:
        current.end = max(current.body, end)
    return found


def _boundary(fields: Fields) -> bytes:
    if not fields.type.startswith("multipart/"):
        return b""
    return fields.parameter("content-type", "boundary").encode("latin-1").rstrip()


def _match(line: bytes, stack: list[bytes]) -> tuple[int, bool]:
    """Return which boundary a line is, the innermost first, and whether it is its last; -1 for none."""
    for depth in range(len(stack) - 1, -1, -1):
        if line == stack[depth]:
            return depth, False
        if line == stack[depth] + b"--":
            return depth, True
    return -1, False


def _close(content: bytes, part: Part | None, newline: int) -> None:
    """Note where a part ends: the line end before a boundary belongs to the boundary (RFC 2046 section 5.1.1)."""
    if part is not None:
        end = newline - 1 if content[newline - 1 : newline] == b"\r" else newline
        part.end = max(part.body, end)


def text_of(content: bytes, part: Part, limit: int) -> bytes:
    """Return the beginning of a part's body with its transfer encoding taken away; as it stands where it is wrong."""
    raw = content[part.body : min(part.end, part.body + limit)]
    encoding = part.fields.word("content-transfer-encoding")
    try:
        if encoding == "base64":
            raw = re.sub(rb"[^0-9A-Za-z+/]", b"", raw)
            return a2b_base64(raw[: len(raw) // 4 * 4])
        if encoding == "quoted-printable":
            return a2b_qp(raw)
    except (Base64Error, ValueError):
        pass
    return raw
