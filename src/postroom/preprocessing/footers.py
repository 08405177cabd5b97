"""Footers from templates: an example of a preprocessor, and a useful one."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage, MIMEPart
from html import escape
from string import Template
from typing import Any, Final

from postroom.addresses import Address
from postroom.errors import ConfigurationError
from postroom.hooks import UNCHANGED, Preprocessor, Verdict, Work

__all__ = ["Footer"]

_VARIABLES: Final = frozenset({"sender", "subject", "from", "to", "message_id", "recipient"})
_SEALED: Final = frozenset(
    {
        "multipart/signed", "multipart/encrypted", "multipart/report", "application/pkcs7-mime",
        "application/x-pkcs7-mime", "application/pgp-encrypted",
    }
)  # fmt: skip
"""What may not be touched: signatures cover it, it cannot be read, or it is no human's text."""

_INLINE_PGP: Final = re.compile(r"^-----BEGIN PGP ", re.MULTILINE)
_BODY_END: Final = re.compile(r"</body\s*>", re.IGNORECASE)


@dataclass(kw_only=True, eq=False)
class Footer(Preprocessor):
    """Adds a footer to the text and to the HTML of a message.

    Messages that hold a part which is signed, encrypted or a report stay as they are, and so do parts whose text cannot
    be decoded. Attachments and forwarded messages are not touched. Give it before anything that signs.

    The templates are :class:`string.Template` ones with ``$sender`` (envelope), ``$subject``, ``$from``, ``$to``
    (headers), ``$message_id`` (in the spool) and ``$recipient``; "$$" is a dollar sign. With ``$recipient`` every
    recipient gets a content of his own, which costs a copy of the message in the spool for each.

    Attributes:
        text: for text/plain parts, "" for none.
        html: for text/html parts, "" for none; values are escaped, the template is not.
    """

    name: str = "footer"
    address_types: Collection[str] = frozenset({"smtp"})
    text: str = ""
    html: str = ""
    _templates: Mapping[str, Template] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.text or self.html):
            raise ConfigurationError("footer", "has neither text nor html", "give one of them")
        self._templates = {"plain": Template(self.text), "html": Template(self.html)}
        named: set[str] = set()
        for kind, template in self._templates.items():
            if not template.is_valid():
                raise ConfigurationError(
                    f"footer.{kind}", "holds a $ that names nothing", 'write "$$" for a dollar sign'
                )
            named.update(template.get_identifiers())
        if unknown := sorted(named - _VARIABLES):
            raise ConfigurationError(
                "footer", f"knows no ${unknown[0]}", f"use one of {', '.join(sorted(_VARIABLES))}"
            )
        self._personal = "recipient" in named

    def process(self, work: Work) -> Verdict:
        """Return the message with the footer, one for each recipient where it names them."""
        if self._personal:
            contents = [((target,), self._footed(work, target.address)) for target in work.recipients]
            return Verdict(
                contents=[(targets, message) for targets, message in contents if message is not None]
            )
        message = self._footed(work, None)
        return UNCHANGED if message is None else Verdict(content=message)

    def _footed(self, work: Work, recipient: Address | None) -> EmailMessage | None:
        message = work.parse()
        bodies = _bodies(message)
        if bodies is None:
            return None
        values = {
            "sender": work.sender,
            "subject": str(message.get("Subject", "")),
            "from": str(message.get("From", "")),
            "to": str(message.get("To", "")),
            "message_id": work.message_id,
            "recipient": recipient.value if recipient is not None else "",
        }
        changed = [self._append(part, values) for part in bodies]
        return message if any(changed) else None

    def _append(self, part: MIMEPart, values: Mapping[str, str]) -> bool:
        kind = part.get_content_subtype()
        if not (self.html if kind == "html" else self.text):
            return False
        text = _text_of(part)
        if text is None:
            return False
        if kind == "html":
            footer = self._templates["html"].substitute(
                {name: escape(value) for name, value in values.items()}
            )
            end = max((match.start() for match in _BODY_END.finditer(text)), default=len(text))
            text = f"{text[:end]}{footer}\n{text[end:]}"
        else:
            footer = self._templates["plain"].substitute(values)
            text = f"{text.rstrip()}\n\n{footer.rstrip()}\n"
        _set_text(part, text, kind)
        return True


def _bodies(part: MIMEPart) -> list[MIMEPart] | None:
    """Return the parts that a reader takes for the text of a message; None if it must not be touched."""
    kind = part.get_content_type()
    if kind in _SEALED:
        return None
    if kind in {"text/plain", "text/html"}:
        return [] if part.is_attachment() else [part]
    if part.get_content_maintype() != "multipart":
        return []
    found: list[MIMEPart] = []
    for position, inner in enumerate(part.iter_parts()):
        bodies = _bodies(inner)
        if bodies is None:
            return None
        # The text is every branch of an alternative, else what comes first.
        if kind == "multipart/alternative" or position == 0:
            found += bodies
    return found


def _text_of(part: MIMEPart) -> str | None:
    """Return the decoded text, None if that would lose something or must not be added to."""
    try:
        text: Any = part.get_content(errors="strict")
    except (LookupError, UnicodeError, ValueError):
        return None
    if not isinstance(text, str) or _INLINE_PGP.search(text):
        return None
    return text.replace("\r\n", "\n")


def _set_text(part: MIMEPart, text: str, kind: str) -> None:
    """Put a text in place of the former, in its charset if that can express it, and keep the other Content fields."""
    charset = part.get_content_charset("utf-8")
    try:
        text.encode(charset)
    except (LookupError, UnicodeEncodeError):
        charset = "utf-8"
    parameters: dict[str, str] = (
        {name: value for name, value in part["Content-Type"].params.items() if name != "charset"}
        if "Content-Type" in part
        else {}
    )
    kept = [
        (name, value)
        for name, value in part.raw_items()
        if name.lower().startswith("content-")
        and name.lower() not in {"content-type", "content-transfer-encoding"}
    ]
    part.set_content(text, subtype=kind, charset=charset, params=parameters)
    for name, value in kept:
        if name not in part:
            part.set_raw(name, str(value))
