"""Twilio SendGrid's event webhook, signed with ECDSA."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from postroom.inbound.values import RemoteReport, ReportedAction, ReportedRecipient
from postroom.receivers.providers_base import (
    Malformed,
    Provider,
    Unauthorized,
    bracketed,
    check_age,
    json_value,
    number,
    records,
    text,
)
from postroom.receivers.providers_sns import crypto
from postroom.reports.reading_fields import status_in

__all__ = ["SendGridReports"]

_ACTIONS: Final[Mapping[str, ReportedAction]] = {
    "delivered": "delivered",
    "bounce": "failed",
    "dropped": "failed",
    "deferred": "delayed",
    "spamreport": "complaint",
}


class SendGridReports(Provider[RemoteReport]):
    """Reads the events of SendGrid: delivered, bounce, dropped, deferred, spamreport.

    ``SendGridReports(public_key)``. Recipients are found by the beginning of SendGrid's message id, which its API
    returns as X-Message-Id, or by the Message-ID of what came over SMTP.

    Args:
        public_key: the verification key of the signed event webhook, in base64.
        tolerance: seconds after which a request is too old: SendGrid tries for a day, and a report that is told again
            does no harm.
        time: wall clock, in seconds.

    Raises:
        ConfigurationError: the key is none, or ``cryptography`` is not installed.
    """

    def __init__(
        self, public_key: str, *, tolerance: float = 86400.0, time: Callable[[], float] = time.time
    ) -> None:
        self._crypto = crypto()
        self._key = self._crypto.EcdsaKey(public_key)
        self._tolerance = tolerance
        self._time = time

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[RemoteReport]:
        """Return the events as reports of one recipient each; see :class:`Provider`."""
        signature = headers.get("x-twilio-email-event-webhook-signature", "")
        stamp = headers.get("x-twilio-email-event-webhook-timestamp", "")
        octets = stamp.encode("utf-8", "replace") + body
        if not self._key.signed(octets, self._crypto.decoded(signature)):
            raise Unauthorized("the signature is wrong")
        check_age(stamp, self._time(), self._tolerance)
        if not body.lstrip().startswith(b"["):
            raise Malformed("not an array of events")
        events = records(json_value(body))
        return tuple(report for event in events if (report := _report(event)) is not None)


def _report(event: Mapping[str, Any]) -> RemoteReport | None:
    action = _ACTIONS.get(text(event, "event"))
    if action is None:
        return None
    reason = text(event, "reason") or text(event, "response")
    recipient = ReportedRecipient(
        action=action,
        address=text(event, "email"),
        status=status_in(text(event, "status")) or status_in(reason),
        text=reason,
        remote_id=text(event, "sg_message_id").partition(".")[0],
    )
    return RemoteReport(
        kind="provider",
        recipients=(recipient,),
        message_id=bracketed(text(event, "smtp-id")),
        reporter="SendGrid",
        at=number(event, "timestamp"),
    )
