"""Postmark's webhooks, which carry a user name and a password (RFC 7617)."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from postroom.errors import ConfigurationError
from postroom.inbound.values import RemoteReport, ReportedAction, ReportedRecipient
from postroom.receivers.providers_base import (
    Malformed,
    Provider,
    Unauthorized,
    json_value,
    moment,
    record,
    same,
    secret_octets,
    text,
)
from postroom.reports.reading_fields import status_in

__all__ = ["PostmarkReports"]

MIN_PASSWORD: Final = 16

_BOUNCES: Final[Mapping[str, ReportedAction]] = {
    "HardBounce": "failed",
    "SoftBounce": "failed",
    "Blocked": "failed",
    "SpamNotification": "failed",
    "VirusNotification": "failed",
    "BadEmailAddress": "failed",
    "ManuallyDeactivated": "failed",
    "DMARCPolicy": "failed",
    "TemplateRenderingFailed": "failed",
    "InboundError": "failed",
    "SMTPApiError": "failed",
    "Transient": "delayed",
    "DnsError": "delayed",
    "SpamComplaint": "complaint",
}
"""Postmark's types of bounces; the others are answers of programs and people, and no failures."""


class PostmarkReports(Provider[RemoteReport]):
    """Reads Postmark's webhooks: Delivery, Bounce, SpamComplaint.

    ``PostmarkReports("postroom", read_password())``, with both in the URL that Postmark is given:
    ``https://postroom:…@app.example.org/postmark``. Recipients are found by Postmark's message id, which its API
    returns.

    Args:
        username: of the URL.
        password: of the URL; at least 16 characters, for there is no other protection.
    """

    challenge: ClassVar[str] = 'Basic realm="postroom", charset="UTF-8"'

    def __init__(self, username: str, password: str) -> None:
        secret_octets(username, field="username")
        if len(secret_octets(password, field="password")) < MIN_PASSWORD:
            raise ConfigurationError(
                "password", f"it has fewer than {MIN_PASSWORD} characters", "use secrets.token_urlsafe(32)"
            )
        self._right = f"{username}:{password}".encode()

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[RemoteReport]:
        """Return the event as a report of one recipient; see :class:`Provider`."""
        scheme, _, given = headers.get("authorization", "").strip().partition(" ")
        try:
            credentials = base64.b64decode(given.strip(), validate=True)
        except (binascii.Error, ValueError):
            credentials = b""
        if scheme.lower() != "basic" or not same(credentials, self._right):
            raise Unauthorized("the user name or the password is wrong")
        event = record(json_value(body))
        if not event:
            raise Malformed("not an object")
        report = _report(event)
        return () if report is None else (report,)


def _report(event: Mapping[str, Any]) -> RemoteReport | None:
    kind = text(event, "RecordType")
    if kind == "Delivery":
        action: ReportedAction | None = "delivered"
        address, reason, at = text(event, "Recipient"), text(event, "Details"), text(event, "DeliveredAt")
    elif kind in {"Bounce", "SpamComplaint"}:
        action = "complaint" if kind == "SpamComplaint" else _BOUNCES.get(text(event, "Type"))
        address, at = text(event, "Email"), text(event, "BouncedAt")
        reason = text(event, "Details") or text(event, "Description")
    else:
        return None
    remote_id = text(event, "MessageID")
    if action is None or not remote_id:
        return None
    recipient = ReportedRecipient(
        action=action, address=address, status=status_in(reason), text=reason, remote_id=remote_id
    )
    return RemoteReport(kind="provider", recipients=(recipient,), reporter="Postmark", at=moment(at))
