"""Composing a report: a multipart/report of three parts (RFC 6522), built as octets so that nothing is re-encoded.

1. a text for people (:mod:`postroom.reports.wording`);
2. message/delivery-status (RFC 3464), or message/global-delivery-status (RFC 6533) when whoever is told has an address
   that needs SMTPUTF8. Everybody else gets the first form, which all programs understand; internationalised recipients
   stand in it in ASCII (``utf-8-addr-xtext``, RFC 6533 section 3);
3. the message or its header (:mod:`postroom.reports.returning`).
"""

import logging
import re
from email.header import Header
from email.utils import formatdate
from quopri import encodestring
from typing import Final

from postroom.addresses import parse_mailbox
from postroom.envelopes import Report
from postroom.errors import InvalidAddress
from postroom.reports.addressing import field, one_line
from postroom.reports.facts import Action, ReportFacts
from postroom.reports.fields import delivery_status
from postroom.reports.returning import Returned, returned
from postroom.reports.wording import Text, Wording, english

__all__ = ["compose_report"]

log = logging.getLogger("postroom.reports")

MAX_TEXT_LINE: Final = 78
NAMED_FAILURES: Final = 50
"""Recipients that X-Failed-Recipients names at most."""

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{3,600}>")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")


def compose_report(facts: ReportFacts, wording: Wording = english, *, whole: bool = True) -> bytes:
    """Return a report as an RFC 5322 message with CRLF line ends. Pure.

    Whatever stands in ``facts``, no field but those written here comes to be, and no line is longer than 998 octets.

    Args:
        facts: what it says.
        wording: makes the text for people; when it raises, the English one is used and the error logged.
        whole: False to return the header of the message in any case.
    """
    back = returned(facts, whole=whole)
    text = _text(facts, wording, back)
    status = delivery_status(facts).encode()
    utf8 = facts.internationalised
    boundary = _boundary(facts, text.body.encode("utf-8", "replace"), status, back)
    encoding = "8bit" if (back is not None and back.encoding == "8bit") or not status.isascii() else "7bit"
    head = [
        *_addressing_fields(facts, text),
        "MIME-Version: 1.0\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;\r\n",
        f' boundary="{boundary}"\r\n',
        f"Content-Transfer-Encoding: {encoding}\r\n",
    ]
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    parts = [
        _text_part(text.body),
        _part(kind, "7bit" if status.isascii() else "8bit", "Delivery report", status),
    ]
    if back is not None:
        described = "Undelivered message" if facts.kind is Report.FAILURE else "Message"
        parts.append(
            _part(
                back.content_type,
                back.encoding,
                described if back.whole else "Header of the message",
                back.content,
            )
        )
    mark = f"\r\n--{boundary}".encode()
    # The preamble is for readers that know no MIME (RFC 2046 section 5.1.1).
    body = b"This is a report in MIME format.\r\n" + b"".join(mark + b"\r\n" + part for part in parts)
    return "".join(head).encode("utf-8", "replace") + b"\r\n" + body + mark + b"--\r\n"


def _text(facts: ReportFacts, wording: Wording, back: Returned | None) -> Text:
    what = "" if back is None else "message" if back.whole else "header"
    try:
        text = wording(facts, what)
        if one_line(text.subject) and text.body.strip():
            return text
        log.error("the wording of a report about %s is empty; English is used", facts.id)
    except Exception:
        # Other people's templates must not cost a sender the report.
        log.exception("the wording of a report about %s fails; English is used", facts.id)
    return english(facts, what)


def _addressing_fields(facts: ReportFacts, text: Text) -> list[str]:
    utf8 = facts.internationalised
    lines = [
        field("Date", formatdate(facts.now)),
        _mailbox_field("From", facts.author, utf8=utf8),
        field("To", f"<{facts.to}>", utf8=utf8),
        _subject(text.subject),
        field("Message-ID", f"<{facts.unique}@{facts.reporting_mta}>"),
    ]
    if _MESSAGE_ID.fullmatch(facts.message_id):
        lines += [field("In-Reply-To", facts.message_id), field("References", facts.message_id)]
    # RFC 3834 section 5: nobody's vacation notice shall answer this.
    lines.append(field("Auto-Submitted", "auto-replied"))
    # Not standard, but what Exim began and other servers' reports and their readers have in common.
    failed = [
        r.address.value
        for r in facts.recipients
        if r.action is Action.FAILED and r.address.type == "smtp" and r.address.is_ascii
    ]
    if failed:
        lines.append(field("X-Failed-Recipients", ", ".join(failed[:NAMED_FAILURES])))
    return lines


def _mailbox_field(name: str, author: str, *, utf8: bool) -> str:
    try:
        display, address = parse_mailbox(author, field=name)
    except InvalidAddress:
        # The policy checks it; whoever gives something else still gets one harmless field.
        return field(name, author, utf8=utf8)
    if not display:
        return field(name, f"<{address}>", utf8=utf8)
    if not display.isascii():
        display = _encoded(display, len(name) + 2)
    elif not _PHRASE.fullmatch(display):
        display = '"' + display.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return field(name, f"{display} <{address}>", utf8=utf8)


def _subject(subject: str) -> str:
    line = one_line(subject)
    plain = field("Subject", line)
    if line.isascii() and "=?" not in line and max(map(len, plain.split("\r\n"))) <= MAX_TEXT_LINE:
        return plain
    return field("Subject", _encoded(line, len("Subject: ")))


def _encoded(text: str, indent: int) -> str:
    """Return text as encoded words of RFC 2047, folded by whoever writes the field."""
    return Header(text, "utf-8", header_name=" " * (indent - 2)).encode(linesep="\n").replace("\n", "")


def _text_part(body: str) -> bytes:
    lines = body.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    text = "\n".join(lines)
    if text.isascii() and "\0" not in text and all(len(line) <= MAX_TEXT_LINE for line in lines):
        return _part(
            "text/plain; charset=us-ascii", "7bit", "Notification", text.replace("\n", "\r\n").encode()
        )
    quoted = encodestring(text.encode(), quotetabs=False).replace(b"\n", b"\r\n")
    return _part("text/plain; charset=utf-8", "quoted-printable", "Notification", quoted)


def _part(content_type: str, encoding: str, description: str, content: bytes) -> bytes:
    head = (
        f"Content-Type: {content_type}\r\n"
        f"Content-Description: {description}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "\r\n"
    )
    return head.encode() + content


def _boundary(facts: ReportFacts, text: bytes, status: bytes, back: Returned | None) -> str:
    """Return a boundary that nothing in the report contains, though the message may have been made to contain it."""
    boundary = f"=_report_{facts.unique}"
    number = 0
    while any(boundary.encode() in octets for octets in (text, status, back.content if back else b"")):
        number += 1
        boundary = f"=_report_{number}_{facts.unique}"
    return boundary
