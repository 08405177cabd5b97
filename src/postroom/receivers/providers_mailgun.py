"""Mailgun: its webhooks, and the messages that its routes forward.

Mailgun signs a time and a random token, and not what it says: whoever has seen one request could make up others until
the signature is too old. It is TLS that keeps requests from being seen.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, Final

from postroom.inbound.fields import printable
from postroom.inbound.values import Arrival, LedgerKey, RemoteReport, ReportedAction, ReportedRecipient
from postroom.receivers.providers_base import (
    LEDGER_SECONDS,
    Malformed,
    Provider,
    Unauthorized,
    bracketed,
    check_age,
    json_value,
    number,
    record,
    same,
    secret_octets,
    text,
)
from postroom.receivers.providers_forms import FORM_TYPES, read_form
from postroom.reports.reading_fields import status_in

__all__ = ["MailgunInbound", "MailgunReports"]

TOLERANCE: Final = 8 * 3600.0
"""Seconds: Mailgun tries for eight hours, and what it says again does no harm."""

_ACTIONS: Final[Mapping[str, ReportedAction]] = {
    "delivered": "delivered",
    "rejected": "failed",
    "complained": "complaint",
}


class _Signature:
    def __init__(self, key: str | bytes, tolerance: float, time: Callable[[], float]) -> None:
        self._key = secret_octets(key, field="signing_key")
        self._tolerance = tolerance
        self._time = time

    def check(self, stamp: str, token: str, signature: str) -> None:
        """Raise Unauthorized unless the signature is right and of our time."""
        right = hmac.new(self._key, (stamp + token).encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        if not token or not same(signature, right):
            raise Unauthorized("the signature is wrong")
        check_age(stamp, self._time(), self._tolerance)


class MailgunReports(Provider[RemoteReport]):
    """Reads Mailgun's webhooks: delivered, failed (permanent and temporary), rejected, complained.

    ``MailgunReports(signing_key)``. Recipients are found by the Message-ID, which Mailgun's API returns too.

    Args:
        signing_key: the HTTP webhook signing key.
        tolerance: seconds after which a request is too old.
        time: wall clock, in seconds.
    """

    def __init__(
        self, signing_key: str | bytes, *, tolerance: float = TOLERANCE, time: Callable[[], float] = time.time
    ) -> None:
        self._signature = _Signature(signing_key, tolerance, time)

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[RemoteReport]:
        """Return the event as a report of one recipient; see :class:`Provider`."""
        del headers
        said = json_value(body)
        signature = record(said, "signature")
        self._signature.check(
            text(signature, "timestamp"), text(signature, "token"), text(signature, "signature")
        )
        event = record(said, "event-data")
        kind = text(event, "event")
        if kind == "failed":
            action: ReportedAction | None = "delayed" if text(event, "severity") == "temporary" else "failed"
        else:
            action = _ACTIONS.get(kind)
        if action is None:
            return ()
        status = record(event, "delivery-status")
        words = (text(status, "message"), text(status, "description"), text(event, "reject", "reason"))
        reason = next((each for each in words if each), text(event, "reason"))
        code = text(status, "code")
        recipient = ReportedRecipient(
            action=action,
            address=text(event, "recipient"),
            status=status_in(text(status, "enhanced-code")) or status_in(reason),
            text=reason if not code or reason.startswith(code) else f"{code} {reason}".strip(),
        )
        return (
            RemoteReport(
                kind="provider",
                recipients=(recipient,),
                message_id=bracketed(text(event, "message", "headers", "message-id")),
                reporter="Mailgun",
                at=number(event, "timestamp"),
            ),
        )


class MailgunInbound(Provider[Arrival]):
    """Reads messages that a route forwards to a URL ending in "mime", which has Mailgun post them as they are.

    Args:
        signing_key: the HTTP webhook signing key.
        tolerance: seconds after which a request is too old.
        time: wall clock, in seconds.
    """

    content_types: ClassVar[Collection[str]] = FORM_TYPES

    def __init__(
        self, signing_key: str | bytes, *, tolerance: float = TOLERANCE, time: Callable[[], float] = time.time
    ) -> None:
        self._signature = _Signature(signing_key, tolerance, time)
        self._time = time

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Arrival]:
        """Return the message; see :class:`Provider`."""
        form = read_form(headers, body)

        def field(name: str) -> str:
            return printable(form.get(name, b"").decode("utf-8", "replace"))

        self._signature.check(field("timestamp"), field("token"), field("signature"))
        content = form.get("body-mime")
        if not content:
            raise Malformed("without body-mime: the URL of the route has to end in mime")
        recipients = tuple(each for part in field("recipient").split(",") if (each := part.strip()))
        # Each recipient has a request of its own; the token may be another when it is sent again.
        uid = hashlib.sha256(b"\0".join((*(each.encode() for each in recipients), content))).hexdigest()
        return (
            Arrival(
                content=content,
                keys=(LedgerKey("mailgun", uid, self._time() + LEDGER_SECONDS),),
                sender=field("sender") if "sender" in form else None,
                recipients=recipients,
                remote="Mailgun",
            ),
        )
