"""Postprocessors that are useful as they are, and examples of how to write one's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final

from postroom.errors import ConfigurationError
from postroom.inbound.fields import Fields, Part, parts, printable
from postroom.inbound.folders import JUNK, check_folder, check_tag
from postroom.inbound.forwarding import forward
from postroom.inbound.hooks import UNCHANGED, Incoming, Postprocessed, Postprocessor
from postroom.inbound.rules import recipients_of

__all__ = ["Route", "SpamTag", "StripAttachments"]

_NUMBER: Final = re.compile(r"[-+]?\d+(?:\.\d+)?")
_NAMED_SCORE: Final = re.compile(r"score=([-+]?\d+(?:\.\d+)?)", re.IGNORECASE)
_FIELD_NAME: Final = re.compile(r"[!-9;-~]+")


@dataclass(kw_only=True, eq=False)
class SpamTag(Postprocessor):
    """Tags what a filter before us took for spam, and files it in "Junk".

    Believes the topmost of these fields: that is the one that the last server wrote. Name only fields that your own
    server writes or takes away, or else a sender may vouch for himself.

    Attributes:
        header: a field that says yes: its name, and a glob for its value.
        score: the name of a field with a number, or with "score=" and a number, as filters write it; "" for none.
        threshold: from this score on it is spam, whatever ``header`` says.
        tag: that it gets.
        folder: where it goes; None to leave that to the rules (``ReceiveRule("Junk", tag="spam")``).
    """

    name: str = "spam-tag"
    header: str = "X-Spam-Flag: yes"
    score: str = ""
    threshold: float = 5.0
    tag: str = "spam"
    folder: str | None = JUNK

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tag(self.tag, "tag")
        if self.folder is not None:
            check_folder(self.folder, "folder")
        name, _, pattern = self.header.partition(":")
        if not (self.header or self.score):
            raise ConfigurationError("header", "is empty, and so is score", "name one of them")
        for field_name, given in (("header", name.strip()), ("score", self.score)):
            if given and not _FIELD_NAME.fullmatch(given):
                raise ConfigurationError(
                    field_name, f"{given!r} is no name of a field", "give one as 'X-Spam-Flag'"
                )
        self._name = name.strip().lower()
        self._glob = re.compile(translate(pattern.strip() or "*"), re.IGNORECASE)

    def process(self, incoming: Incoming) -> Postprocessed:
        """Tag it, or leave it."""
        fields = Fields(incoming.content)
        said = self._said(fields)
        if not said:
            return UNCHANGED
        return Postprocessed(tags=(self.tag,), folder=self.folder, reason=said)

    def _said(self, fields: Fields) -> str:
        score = _score(fields.text(self.score.lower())) if self.score else None
        if score is not None and score >= self.threshold:
            return f"{self.score} is {score:g}"
        if self._name and self._name in fields and self._glob.match(fields.text(self._name)):
            return f"{self.header.partition(':')[0].strip()}: {fields.text(self._name)[:100]}"
        return ""


def _score(text: str) -> float | None:
    match = _NAMED_SCORE.search(text)
    if match:
        return float(match[1])
    plain = _NUMBER.match(text)
    return float(plain[0]) if plain else None


_SEALED: Final = frozenset(
    {
        "multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime",
        "application/pgp-encrypted", "multipart/report",
    }
)  # fmt: skip
"""What may not be touched: signatures cover it, it cannot be read, or machines read it."""

_INLINE_PGP: Final = re.compile(rb"(?m)^-----BEGIN PGP (?:SIGNED )?MESSAGE-----")

NOTE: Final = "The attachment {name} ({type}, {size} octets) was removed: {reason}."


@dataclass(kw_only=True, eq=False)
class StripAttachments(Postprocessor):
    """Takes attachments out of messages and puts a note in their place; the rest stays as it is, octet by octet.

    Mail that holds a part which is signed or encrypted stays whole, and so do reports; it gets the tag ``left`` if an
    attachment that would go is in it. Only parts of multipart messages are looked at, and no messages within messages.
    This is housekeeping, and no defence: what is malformed on purpose is read differently by different programs.

    Attributes:
        types: globs of content types that go, as "application/x-msdownload" or "video/*".
        extensions: endings of file names that go, without the dot: {"exe", "js"}.
        max_size: octets (as they stand in the message) above which any attachment goes; None for any size.
        note: what stands in its place; may say {name}, {type}, {size} and {reason}.
        tag: for messages of which something was taken.
        left: for messages that were left whole because they are signed or encrypted.
    """

    name: str = "strip-attachments"
    types: Sequence[str] = ()
    extensions: Sequence[str] = ()
    max_size: int | None = None
    note: str = NOTE
    tag: str = "stripped"
    left: str = "not-stripped"
    _types: tuple[re.Pattern[str], ...] = field(init=False, repr=False)
    _endings: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("types", "extensions"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise ConfigurationError(name, f"{given!r} is not a sequence", f"give [{given!r}]")
        if not self.types and not self.extensions and self.max_size is None:
            raise ConfigurationError("types", "says nothing", "give types, extensions or max_size")
        if self.max_size is not None and not self.max_size >= 0:
            raise ConfigurationError("max_size", f"{self.max_size!r} is negative", "give octets from 0")
        for name in ("tag", "left"):
            check_tag(getattr(self, name), name)
        try:
            self.note.format(name="", type="", size=0, reason="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                "note", f"cannot be filled in ({error})", "use {name}, {type}, {size} and {reason} only"
            ) from error
        self._types = tuple(re.compile(translate(one), re.IGNORECASE) for one in self.types)
        self._endings = tuple("." + one.lower().lstrip(".") for one in self.extensions)

    def process(self, incoming: Incoming) -> Postprocessed:
        """Return the message without what is to go."""
        content = incoming.content
        fields = Fields(content)
        found = parts(content, fields)
        going = [(part, reason) for part in found if (reason := self._reason(content, part))]
        if not going:
            return UNCHANGED
        if (
            fields.type in _SEALED
            or any(part.fields.type in _SEALED for part in found)
            or _INLINE_PGP.search(content)
        ):
            return Postprocessed(tags=(self.left,))
        pieces: list[bytes] = []
        at = 0
        for part, reason in going:
            pieces += (content[at : part.fields.start], self._note(content, part, reason))
            at = part.end
        pieces.append(content[at:])
        return Postprocessed(content=b"".join(pieces), tags=(self.tag,))

    def _reason(self, content: bytes, part: Part) -> str:
        """Return why a part goes, "" if it stays."""
        if part.multipart:
            return ""
        kind = part.fields.type
        if any(glob.match(kind) for glob in self._types):
            return f"{kind} is not accepted"
        names = part.filenames(content) if part.attached else ()
        for name in names:
            # Windows ignores dots and spaces at the end.
            ending = next((e for e in self._endings if name.lower().rstrip(". ").endswith(e)), "")
            if ending:
                return f"*{ending} is not accepted"
        if part.attached and self.max_size is not None and part.end - part.body > self.max_size:
            return f"it has more than {self.max_size} octets"
        return ""

    def _note(self, content: bytes, part: Part, reason: str) -> bytes:
        name = next(iter(part.filenames(content)), "") or "without a name"
        text = self.note.format(
            name=printable(name, 200), type=part.fields.type, size=part.end - part.body, reason=reason
        )
        newline = b"\r\n" if content[part.body - 2 : part.body] == b"\r\n" else b"\n"
        quoted = _quoted_printable(text)
        head = (
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Transfer-Encoding: quoted-printable",
            b"Content-Disposition: inline",
            b"",
        )
        return newline.join((*head, *quoted))


def _quoted_printable(text: str) -> list[bytes]:
    """Return lines of at most 76 characters (RFC 2045 section 6.7), whatever the text holds."""
    lines: list[bytes] = []
    for line in text.encode("utf-8", "replace").splitlines() or [b""]:
        out = b""
        for at, octet in enumerate(line):
            plain = 33 <= octet <= 126 and octet != 61
            blank = octet == 32 and at < len(line) - 1
            token = bytes((octet,)) if plain or blank else b"=%02X" % octet
            if len(out) + len(token) > 75:
                lines.append(out + b"=")
                out = b""
            out += token
        lines.append(out)
    # A line that looks like a boundary would end the part.
    return [b"=2D" + line[1:] if line.startswith(b"--") else line for line in lines]


@dataclass(kw_only=True, eq=False)
class Route(Postprocessor):
    """Sends messages on by recipient: ``Route(to={"sales@*": ["ann@example.org", "sms:+15550100"]})``.

    For filing by recipient no postprocessor is needed: a :class:`postroom.inbound.rules.ReceiveRule` does that.

    Attributes:
        to: whom a message goes to, by a glob for its envelope recipients, or for those in the header where the envelope
            is not known. Every glob that matches counts.
        keep: whether a copy stays here.
        author: From of what carries a message that cannot be sent on as it is
            (:func:`postroom.inbound.forwarding.forward`).
        sender: another envelope sender; None for that of the message.
    """

    name: str = "route"
    to: Mapping[str, Sequence[str]]
    keep: bool = True
    author: str = ""
    sender: str | None = None
    _globs: Sequence[tuple[re.Pattern[str], tuple[str, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for pattern, to in self.to.items():
            if not pattern or not to or isinstance(to, str):
                raise ConfigurationError(
                    f"to[{pattern!r}]",
                    f"{to!r} is no list of addresses",
                    "give {'sales@*': ['ann@example.org']}",
                )
        self._globs = [
            (re.compile(translate(pattern), re.IGNORECASE), tuple(to)) for pattern, to in self.to.items()
        ]

    def process(self, incoming: Incoming) -> Postprocessed:
        """Send it on to everybody whose glob matches."""
        recipients = recipients_of(incoming.recipients, Fields(incoming.content))
        matching = [
            (recipient, to) for glob, to in self._globs for recipient in recipients if glob.match(recipient)
        ]
        if not matching:
            return UNCHANGED
        # Whoever is one of the recipients has it already.
        to = dict.fromkeys(one for _, all_of_them in matching for one in all_of_them if one not in recipients)
        if not to:
            return UNCHANGED
        place = matching[0][0]
        sent = forward(incoming, list(to), at=place, sender=self.sender, author=self.author)
        if not sent:
            return Postprocessed(tags=("loop",), reason=f"not sent on: it went through {place} before")
        return Postprocessed(
            forward=sent, drop=not self.keep, reason="" if self.keep else f"sent on to {', '.join(to)}"
        )
