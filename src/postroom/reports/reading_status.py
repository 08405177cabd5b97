"""Reading the three sorts of reports that programs write for programs: RFC 3464 and 6533, RFC 8098, RFC 5965. Pure."""

import re
from typing import Final

from postroom.inbound.fields import Fields, decoded
from postroom.inbound.values import RemoteReport, ReportedAction, ReportedRecipient
from postroom.reports.reading_fields import (
    Report,
    groups,
    mailbox_in,
    message_id_in,
    moment,
    status_in,
    typed_address,
    typed_text,
)

__all__ = ["MAX_RECIPIENTS", "read_delivery_status", "read_disposition", "read_feedback"]

MAX_RECIPIENTS: Final = 1_000
"""Recipients of one report that are looked at."""

_ACTIONS: Final[dict[str, ReportedAction]] = {
    "failed": "failed",
    "delayed": "delayed",
    "delivered": "delivered",
    "relayed": "relayed",
    "expanded": "expanded",
}
_BY_CLASS: Final[dict[str, ReportedAction]] = {"5": "failed", "4": "delayed"}
"""What a status means where the action is missing, which the RFC does not allow. Success is not guessed."""

_DISPOSITIONS: Final[dict[str, ReportedAction]] = {"displayed": "displayed", "deleted": "deleted"}
_DISPOSITION: Final = re.compile(r"[^;]*;\s*([A-Za-z-]+)")
_NO_COMPLAINTS: Final = frozenset({"not-spam", "auth-failure", "dmarc"})
"""Feedback that is none about a recipient's displeasure (RFC 5965 section 7.3, RFC 6591)."""

_MAX_ENVID: Final = 200


def read_delivery_status(report: Report) -> RemoteReport | None:
    """Return what a delivery status says (RFC 3464), None if no recipient can be read from it."""
    whole: Fields | None = None
    said: list[ReportedRecipient] = []
    at: float | None = None
    for group in groups(report.said):
        if whole is None and ("reporting-mta" in group or "final-recipient" not in group):
            whole = group
        recipient = _recipient(group)
        if recipient is None:
            continue
        said.append(recipient)
        at = moment(group.raw("last-attempt-date")) if at is None else at
        if len(said) == MAX_RECIPIENTS:
            break
    if not said:
        return None
    return RemoteReport(
        kind="dsn",
        recipients=tuple(said),
        envid="" if whole is None else decoded(whole.raw("original-envelope-id"), _MAX_ENVID),
        message_id=report.message_id,
        reporter="" if whole is None else typed_text(whole.raw("reporting-mta"))[1],
        at=at,
    )


def _recipient(group: Fields) -> ReportedRecipient | None:
    """Return what is said of one recipient, None where nobody is named or nothing is said."""
    if "final-recipient" not in group and "original-recipient" not in group:
        return None
    status = status_in(group.text("status"))
    word = group.word("action")
    action = _ACTIONS.get(word) if word else _BY_CLASS.get(status[:1])
    if action is None:
        return None
    diagnostic = typed_text(group.raw("diagnostic-code"))[1]
    return ReportedRecipient(
        action=action,
        address=typed_address(group.raw("final-recipient")),
        original=typed_address(group.raw("original-recipient")),
        status=status,
        text=diagnostic or group.text("status"),
    )


def read_disposition(report: Report) -> RemoteReport | None:
    """Return what a disposition notification says (RFC 8098), None unless the message was displayed or deleted."""
    fields = next(groups(report.said), None)
    if fields is None:
        return None
    disposition = fields.text("disposition")
    found = _DISPOSITION.match(disposition)
    action = None if found is None else _DISPOSITIONS.get(found[1].lower())
    if action is None:
        return None
    return RemoteReport(
        kind="mdn",
        recipients=(
            ReportedRecipient(
                action=action,
                address=typed_address(fields.raw("final-recipient")),
                original=typed_address(fields.raw("original-recipient")),
                text=disposition,
            ),
        ),
        message_id=message_id_in(fields.raw("original-message-id")) or report.message_id,
        reporter=fields.text("reporting-ua") or fields.text("mdn-gateway"),
    )


def read_feedback(report: Report) -> tuple[RemoteReport, str] | None:
    """Return what a feedback report says (RFC 5965) and the message's envelope sender, None if it is no complaint."""
    fields = next(groups(report.said), None)
    if fields is None:
        return None
    kind = fields.word("feedback-type")
    if not kind or kind in _NO_COMPLAINTS:
        return None
    named = [mailbox_in(decoded(value)) for value in fields.all("original-rcpt-to")[:MAX_RECIPIENTS]]
    reporter = typed_text(fields.raw("reporting-mta"))[1] or fields.text("user-agent")
    said = RemoteReport(
        kind="feedback",
        recipients=tuple(
            ReportedRecipient(action="complaint", address=address, text=kind) for address in named or [""]
        ),
        envid=decoded(fields.raw("original-envelope-id"), _MAX_ENVID),
        message_id=report.message_id,
        reporter=reporter,
        at=moment(fields.raw("arrival-date")) or moment(fields.raw("received-date")),
    )
    sender = mailbox_in(decoded(fields.raw("original-mail-from")))
    if not sender and report.returned is not None:
        sender = mailbox_in(decoded(report.returned.raw("return-path")))
    return said, sender
