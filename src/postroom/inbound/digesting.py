"""The digest of an incoming message: what its header says, and which of MAPI's message classes it belongs to. Pure."""

import re
from email.utils import mktime_tz, parsedate_tz
from typing import Final

from postroom.inbound.fields import Fields, Part, addresses, decoded, parts, text_of
from postroom.inbound.values import Digest

__all__ = ["digest_of"]

LOOK: Final = 8 * 1024 * 1024
"""Octets of a body in which parts are looked for."""

REPORT_LOOK: Final = 64 * 1024
"""Octets of a report's or an invitation's own text that are looked at."""

EARLIEST: Final = 0.0
LATEST: Final = 4_102_444_800.0
"""Wall-clock seconds of 1970 and 2100: a Date outside is a mistake."""

_ID: Final = re.compile(r"<[^<>\s]+>")
_BARE_ID: Final = re.compile(r"[^<>\s]+@[^<>\s]+")
_ACTION: Final = re.compile(rb"(?mi)^action[ \t]*:[ \t]*([a-z]+)")
_DISPOSITION: Final = re.compile(rb"(?mi)^disposition[ \t]*:[^\r\n;]*;[ \t]*([a-z]+)")
_PARTSTAT: Final = re.compile(rb"(?i)PARTSTAT=\"?(ACCEPTED|DECLINED|TENTATIVE)")
_BULK: Final = frozenset({"bulk", "junk", "list"})
_ANSWERS: Final = {b"ACCEPTED": ".Pos", b"DECLINED": ".Neg", b"TENTATIVE": ".Tent"}


def digest_of(content: bytes) -> Digest:
    """Return what a message of any octets at all says of itself. Never raises.

    Of the header the first 256 KiB are looked at, of a multipart body the first 8 MiB, and there only where a part
    begins, of what a report says 64 KiB.

    The class is the one of a report (RFC 6522) by its report-type, of an automatic reply (RFC 3834 section 5), or of an
    invitation (RFC 6047): "IPM.Schedule.Meeting.Request", ".Canceled", ".Resp.Pos", ".Resp.Neg", ".Resp.Tent".
    """
    fields = Fields(content)
    found = parts(content, fields, LOOK)
    automatic = fields.word("auto-submitted") or "no"
    return Digest(
        subject=fields.text("subject"),
        author=fields.text("from"),
        to=fields.text("to"),
        message_id=_message_id(fields.text("message-id")),
        in_reply_to=_parent(fields),
        date=_date(fields.raw("date")),
        message_class=_class(content, fields, found, automatic),
        auto_submitted=automatic,
        bulk=_is_bulk(fields),
        hops=len(fields.all("received")),
        mdn_to=addresses(fields.raw("disposition-notification-to")),
        attachments=sum(part.attached for part in found) if found else int(_is_file(fields)),
    )


def _message_id(text: str) -> str:
    match = _ID.search(text)
    if match:
        return match[0]
    bare = _BARE_ID.search(text)
    return f"<{bare[0]}>" if bare else ""


def _parent(fields: Fields) -> str:
    first = _ID.search(fields.text("in-reply-to"))
    if first:
        return first[0]
    # The last ones count: what is too long is cut at its beginning.
    references = _ID.findall(decoded(fields.raw("references")[-4096:], 4096))
    return references[-1] if references else ""


def _date(raw: bytes) -> float | None:
    try:
        parsed = parsedate_tz(decoded(raw, 200))
        seconds = None if parsed is None else float(mktime_tz(parsed))
    except Exception:  # noqa: BLE001 - numbers of any size, in any place
        return None
    return seconds if seconds is not None and EARLIEST <= seconds < LATEST else None


def _is_bulk(fields: Fields) -> bool:
    # RFC 2369, RFC 2919, RFC 8058: people do not write them.
    return fields.word("precedence") in _BULK or any(name.startswith("list-") for name in fields)


def _is_file(fields: Fields) -> bool:
    return Part(fields, 0).attached


def _class(content: bytes, fields: Fields, found: list[Part], automatic: str) -> str:
    kind = fields.type
    if kind == "multipart/report":
        reported = _report_class(content, fields, found)
        if reported:
            return reported
    if automatic == "auto-replied":
        return "IPM.Note.OOF"
    if kind == "text/calendar":
        whole = Part(fields, 0)
        whole.end = len(content)
        return _meeting_class(content, whole)
    invitation = next((part for part in found if _is_invitation(part)), None)
    return "IPM.Note" if invitation is None else _meeting_class(content, invitation)


def _report_class(content: bytes, fields: Fields, found: list[Part]) -> str:
    """Return the class of a report, "" if nothing says of what sort it is."""
    report = fields.parameter("content-type", "report-type").lower()
    machine = next((p for p in found if p.fields.type in _MACHINE), None)
    if report not in _MACHINE.values():
        report = "" if machine is None else _MACHINE[machine.fields.type]
    if report == "feedback-report":
        return "REPORT.IPM.Note.FBL"
    text = b"" if machine is None else text_of(content, machine, REPORT_LOOK).replace(b"\r", b"\n")
    if report == "disposition-notification":
        disposition = _DISPOSITION.search(text)
        read = disposition is not None and disposition[1].lower() == b"displayed"
        return "REPORT.IPM.Note.IPNRN" if read else "REPORT.IPM.Note.IPNNRN"
    if report == "delivery-status":
        actions = {action.lower() for action in _ACTION.findall(text)}
        if b"failed" in actions or not actions:
            return "REPORT.IPM.Note.NDR"
        return "REPORT.IPM.Note.DELAYED" if b"delayed" in actions else "REPORT.IPM.Note.DR"
    return ""


_MACHINE: Final = {
    "message/delivery-status": "delivery-status",
    "message/global-delivery-status": "delivery-status",
    "message/disposition-notification": "disposition-notification",
    "message/global-disposition-notification": "disposition-notification",
    "message/feedback-report": "feedback-report",
}
"""The part of a report that machines read, and the report-type that it means."""


def _is_invitation(part: Part) -> bool:
    if part.fields.type != "text/calendar":
        return False
    # A calendar that somebody attached is a file; with a method it is to be acted upon (RFC 6047 section 2.4).
    return bool(part.fields.parameter("content-type", "method")) or not part.attached


def _meeting_class(content: bytes, part: Part) -> str:
    method = part.fields.parameter("content-type", "method").upper()
    if method == "REQUEST":
        return "IPM.Schedule.Meeting.Request"
    if method == "CANCEL":
        return "IPM.Schedule.Meeting.Canceled"
    if method == "REPLY":
        answer = _PARTSTAT.search(text_of(content, part, REPORT_LOOK))
        return "IPM.Schedule.Meeting.Resp" + ("" if answer is None else _ANSWERS[answer[1].upper()])
    return "IPM.Schedule.Meeting"
