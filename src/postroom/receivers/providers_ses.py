"""Amazon SES: what became of what it sent, and the mail that it received, both by way of SNS."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final

from postroom.inbound.values import Arrival, LedgerKey, RemoteReport, ReportedAction, ReportedRecipient
from postroom.receivers.providers_base import (
    LEDGER_SECONDS,
    Malformed,
    Provider,
    bracketed,
    json_value,
    moment,
    record,
    records,
    text,
    texts,
)
from postroom.receivers.providers_sns import SnsTopics, base64_text, https_get
from postroom.reports.reading_fields import status_in

__all__ = ["SesInbound", "SesReports"]

_TYPES: Final = frozenset({"text/plain", "application/json"})  # SNS says the former, and sends the latter
_ACTIONS: Final[Mapping[str, ReportedAction]] = {
    "failed": "failed", "delayed": "delayed", "delivered": "delivered", "relayed": "relayed", "expanded": "expanded",
}  # fmt: skip


class SesReports(Provider[RemoteReport]):
    """Reads SES's notifications, and the events of a configuration set: bounces, complaints, deliveries, delays.

    ``SesReports({"arn:aws:sns:eu-west-1:123456789012:mail"}, confirm=https_get)``. Recipients are found by SES's own
    message id, which a sender over its API gives as ``Accepted.remote_id``, or by the Message-ID where the topic is
    told to include the original headers. Bounces that are not permanent fail a recipient only where SES says that its
    server did; else they may be an automatic answer. Opens and clicks say nothing that is certain, and are not read.

    Args:
        topics: see :class:`~postroom.receivers.providers_sns.SnsTopics`, as the others.
        fetch: likewise.
        confirm: likewise.
        tolerance: likewise.
        time: likewise.
    """

    content_types: ClassVar[Collection[str]] = _TYPES

    def __init__(
        self,
        topics: Collection[str],
        *,
        fetch: Callable[[str], bytes] = https_get,
        confirm: Callable[[str], object] | None = None,
        tolerance: float = 3600.0,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._sns = SnsTopics(topics, fetch=fetch, confirm=confirm, tolerance=tolerance, time=time)

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[RemoteReport]:
        """Return what became of the recipients of one message; see :class:`Provider`."""
        del headers
        notification = self._sns.open(body)
        if notification is None:
            return ()
        try:
            event = record(json_value(notification.message))
        except Malformed:
            # A topic says in words, for example, that it is ready.
            return ()
        kind = text(event, "notificationType") or text(event, "eventType")
        reader = _READERS.get(kind)
        if reader is None:
            return ()
        field, read = reader
        said = record(event, field)
        recipients = tuple(read(said, event))
        if not recipients:
            return ()
        return (
            RemoteReport(
                kind="provider",
                recipients=recipients,
                message_id=_message_id(event),
                reporter=text(said, "reportingMTA").removeprefix("dns;").strip() or "Amazon SES",
                at=moment(text(said, "timestamp")) or notification.at,
            ),
        )


def _message_id(event: Mapping[str, Any]) -> str:
    """Return the Message-ID that we gave; SES puts its own in its place on the wire."""
    for field in records(event, "mail", "headers"):
        if text(field, "name").lower() == "message-id":
            return bracketed(text(field, "value"))
    return bracketed(text(event, "mail", "commonHeaders", "messageId"))


def _recipient(
    event: Mapping[str, Any], action: ReportedAction, address: str, said: str = "", status: str = ""
) -> ReportedRecipient:
    return ReportedRecipient(
        action=action,
        address=address,
        status=status_in(status) or status_in(said),
        text=said,
        remote_id=text(event, "mail", "messageId"),
    )


def _bounce(said: Mapping[str, Any], event: Mapping[str, Any]) -> list[ReportedRecipient]:
    final = text(said, "bounceType") == "Permanent"
    why = f"{text(said, 'bounceType')} {text(said, 'bounceSubType')}".strip()
    found: list[ReportedRecipient] = []
    for each in records(said, "bouncedRecipients"):
        action = "failed" if final else _ACTIONS.get(text(each, "action").lower(), "delayed")
        reason = text(each, "diagnosticCode").removeprefix("smtp;").strip() or why
        found.append(_recipient(event, action, text(each, "emailAddress"), reason, text(each, "status")))
    return found


def _complaint(said: Mapping[str, Any], event: Mapping[str, Any]) -> list[ReportedRecipient]:
    kind = text(said, "complaintFeedbackType")
    if kind == "not-spam":
        return []
    return [
        _recipient(event, "complaint", text(each, "emailAddress"), kind)
        for each in records(said, "complainedRecipients")
    ]


def _delivery(said: Mapping[str, Any], event: Mapping[str, Any]) -> list[ReportedRecipient]:
    reply = text(said, "smtpResponse")
    return [_recipient(event, "delivered", each, reply) for each in texts(said, "recipients")]


def _delay(said: Mapping[str, Any], event: Mapping[str, Any]) -> list[ReportedRecipient]:
    return [
        _recipient(
            event, "delayed", text(each, "emailAddress"), text(each, "diagnosticCode"), text(each, "status")
        )
        for each in records(said, "delayedRecipients")
    ]


def _reject(said: Mapping[str, Any], event: Mapping[str, Any]) -> list[ReportedRecipient]:
    reason = text(said, "reason") or text(said, "errorMessage")
    return [_recipient(event, "failed", each, reason) for each in texts(event, "mail", "destination")]


_Read = Callable[[Mapping[str, Any], Mapping[str, Any]], list[ReportedRecipient]]
_READERS: Final[Mapping[str, tuple[str, _Read]]] = {
    "Bounce": ("bounce", _bounce),
    "Complaint": ("complaint", _complaint),
    "Delivery": ("delivery", _delivery),
    "DeliveryDelay": ("deliveryDelay", _delay),
    "Reject": ("reject", _reject),
    "Rendering Failure": ("failure", _reject),
}


class SesInbound(Provider[Arrival]):
    """Reads the mail that SES received and publishes to a topic with its content: messages of up to 150 KB.

    Args:
        topics: see :class:`~postroom.receivers.providers_sns.SnsTopics`, as the others.
        fetch: likewise.
        confirm: likewise.
        tolerance: likewise.
        time: likewise.
    """

    content_types: ClassVar[Collection[str]] = _TYPES

    def __init__(
        self,
        topics: Collection[str],
        *,
        fetch: Callable[[str], bytes] = https_get,
        confirm: Callable[[str], object] | None = None,
        tolerance: float = 3600.0,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._sns = SnsTopics(topics, fetch=fetch, confirm=confirm, tolerance=tolerance, time=time)
        self._time = time

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Arrival]:
        """Return the message; see :class:`Provider`."""
        del headers
        notification = self._sns.open(body)
        if notification is None:
            return ()
        try:
            event = record(json_value(notification.message))
        except Malformed:
            return ()
        if text(event, "notificationType") != "Received":
            return ()
        content = event.get("content")
        if not isinstance(content, str):
            raise Malformed("without the message: the rule's action has to be SNS, not S3")
        encoded = text(event, "receipt", "action", "encoding").upper() == "BASE64"
        octets = base64_text(content) if encoded else content.encode("utf-8", "replace")
        return (
            Arrival(
                content=octets,
                keys=(LedgerKey("sns", notification.id, self._time() + LEDGER_SECONDS),),
                sender=_null_or(text(event, "mail", "source")),
                recipients=tuple(texts(event, "receipt", "recipients")),
                received=moment(text(event, "mail", "timestamp")),
                remote="Amazon SES",
            ),
        )


def _null_or(sender: str) -> str | None:
    """Return the envelope sender, "" for how SES writes the null reverse-path, None where there is none."""
    if not sender:
        return None
    return "" if sender == "<>" else sender
