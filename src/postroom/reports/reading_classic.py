"""Bounces in words: what a server of the old school writes when it gives up. Pure.

Nothing of this is a standard, so it is read only where the rest is certain: the address that it came to carries our
signature for one recipient, and it was sent with the null reverse-path. Even then it must say for good that it failed:
in the words of qmail (D. J. Bernstein's QSBMF), or with a permanent status code (RFC 3463) where servers put one.
"""

import re
from typing import Final

from postroom.inbound.fields import Fields, Part, addresses, parts, printable, text_of
from postroom.inbound.values import RemoteReport, ReportedRecipient
from postroom.reports.reading_fields import LOOK, mailbox_in, message_id_in, status_in

__all__ = ["read_classic"]

_TEXT_LOOK: Final = 64 * 1024
"""Octets of the text that are looked at."""

_QSBMF: Final = "Hi. This is the"
_QMAIL_COPY: Final = "--- Below this line is"
_PARAGRAPH: Final = re.compile(r"<([^<>\s]*)>:?\n(.+)", re.DOTALL)
# Runs are bounded or never given back, so that a text cannot be made to take long.
_COPY: Final = re.compile(
    r"(?im)^[ \t]*+-{2,}+[^\n]{0,200}?(?:copy of|original|returned|unsent) (?:the |your )?(?:message|mail|text)|"
    r"^received:[ \t]*+from |^return-path:"
)
# A number with dots alone may be anything's version.
_PERMANENT: Final = re.compile(
    r"(?i)(?:(?<!\d)5[0-9]{2}[ \t-]{1,3}(?:[^\s:]{1,100}[: \t]{1,3}){0,2}\(?#?|#|\bstatus(?: code)?[:= \t]{1,3})"
    r"(5\.[0-9]{1,3}\.[0-9]{1,3})(?![\d.])"
)


def read_classic(content: bytes, fields: Fields) -> RemoteReport | None:
    """Return the failure of one recipient that a text speaks of, None if it is not certain that it does."""
    text = _text(content, fields)
    return _qmail(text) or _status(text, fields)


def _text(content: bytes, fields: Fields) -> str:
    """Return the first text of a message with LF line ends."""
    whole = Part(fields, 0)
    whole.end = len(content)
    leaves = parts(content, fields, LOOK) or [whole]
    part = next((leaf for leaf in leaves if leaf.fields.type == "text/plain"), None)
    if part is None:
        return ""
    text = text_of(content, part, _TEXT_LOOK).decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _qmail(text: str) -> RemoteReport | None:
    if not text.startswith(_QSBMF):
        return None
    head, _, copy = text.partition(_QMAIL_COPY)
    paragraphs = [paragraph.strip() for paragraph in head.split("\n\n", 50)[1:50]]
    for paragraph in paragraphs:
        found = _PARAGRAPH.fullmatch(paragraph)
        if found is not None:
            reason = printable(found[2].replace("\n", " "))
            return _failure(mailbox_in(found[1]), status_in(reason), reason, copy)
    return None


def _status(text: str, fields: Fields) -> RemoteReport | None:
    copy = _COPY.search(text)
    words = text if copy is None else text[: copy.start()]
    found = _PERMANENT.search(words)
    if found is None:
        return None
    line_start = words.rfind("\n", 0, found.start()) + 1
    line_end = words.find("\n", found.end())
    line = words[line_start:] if line_end < 0 else words[line_start:line_end]
    # Exim's field; with one address it says who, and with more than one it is about others of its own.
    failed = addresses(fields.raw("x-failed-recipients"))
    named = failed[0] if len(failed) == 1 else ""
    return _failure(named, found[1], printable(line.strip()), "" if copy is None else text[copy.start() :])


def _failure(address: str, status: str, reason: str, copy: str) -> RemoteReport:
    message_id = re.search(r"(?im)^message-id:([^\n]*)", copy)
    return RemoteReport(
        kind="dsn",
        recipients=(ReportedRecipient(action="failed", address=address, status=status, text=reason),),
        message_id="" if message_id is None else message_id_in(message_id[1].encode("utf-8", "replace")),
    )
