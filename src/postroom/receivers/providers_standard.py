"""Reports and messages from whoever shares a secret with us, signed by the Standard Webhooks specification.

This is how one Postroom tells another, or a service of one's own, what became of a message::

    {"message_id": "<m1@example.org>",      or the id in the spool, as in receipt.id
     "recipient": "ann@example.org",        or any other address, as "sms:+15550100"
     "action": "delivered",                 failed, delayed, delivered, relayed, expanded, displayed, deleted, complaint
     "status": "5.1.1", "text": "…",        optional, as what follows
     "remote_id": "…",                      the id under which the message was accepted; may stand for message_id
     "reporter": "mx.example.org", "at": 1700000000.0}

or ``{"reports": [{…}, …]}`` with many of them.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final, get_args

from postroom.errors import ConfigurationError, UnknownMessage
from postroom.ids import parse_id
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
    records,
    same,
    secret_octets,
    text,
)
from postroom.reports.reading_fields import status_in
from postroom.transports.signatures import Secret, read_secrets, signature_headers

__all__ = ["PostedMessages", "StandardReports", "check_signature"]

_ACTIONS: Final[Mapping[str, ReportedAction]] = {action: action for action in get_args(ReportedAction)}


def check_signature(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, *, now: float, tolerance: float
) -> str:
    """Check a request's signature and age, and return its id.

    Args:
        keys: any of them may have signed.
        headers: by their names in lower case.
        body: as it came.
        now: wall-clock seconds.
        tolerance: seconds.

    Raises:
        Unauthorized: it is not authentic, or too old.
    """
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    # Longer or stranger ones are nobody's; the signature is over their octets.
    if not (
        name.isascii() and 0 < len(name) <= 256 and stamp.isascii() and stamp.isdigit() and len(stamp) <= 12
    ):
        raise Unauthorized("without webhook-id or webhook-timestamp")
    given = headers.get("webhook-signature", "").split(" ")[:16]
    right = [signature_headers((key,), name, int(stamp), body)["webhook-signature"] for key in keys]
    fits = [same(one, other) for one in given for other in right]
    if not any(fits):
        raise Unauthorized("the signature is wrong")
    check_age(stamp, now, tolerance)
    return name


class StandardReports(Provider[RemoteReport]):
    """Reads reports in the form above. ``StandardReports("whsec_…")``.

    Args:
        secret: or several, of which any may have signed; see :func:`postroom.transports.signatures.read_secrets`.
        tolerance: seconds after which a request is too old.
        time: wall clock, in seconds.
    """

    def __init__(
        self,
        secret: Secret | Sequence[Secret],
        *,
        tolerance: float = 300.0,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._keys = read_secrets(secret)
        self._tolerance = tolerance
        self._time = time

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[RemoteReport]:
        """Return the reports; see :class:`Provider`."""
        check_signature(self._keys, headers, body, now=self._time(), tolerance=self._tolerance)
        said = record(json_value(body))
        return tuple(_report(each) for each in (records(said, "reports") if "reports" in said else [said]))


def _report(said: Mapping[str, Any]) -> RemoteReport:
    action = _ACTIONS.get(text(said, "action"))
    name, remote_id = text(said, "message_id"), text(said, "remote_id")
    if action is None or not (name or remote_id):
        raise Malformed("a report needs an action, and a message_id or a remote_id")
    key: int | None = None
    message_id = ""
    try:
        # Whoever signs with our secret may name a message by our own number.
        key = parse_id(name)
    except UnknownMessage:
        message_id = bracketed(name)
    reason = text(said, "text")
    recipient = ReportedRecipient(
        action=action,
        address=text(said, "recipient"),
        status=status_in(text(said, "status")) or status_in(reason),
        text=reason,
        remote_id=remote_id,
    )
    return RemoteReport(
        kind="provider",
        recipients=(recipient,),
        key=key,
        message_id=message_id,
        reporter=text(said, "reporter") or "webhook",
        at=number(said, "at"),
    )


class PostedMessages(Provider[Arrival]):
    """Takes messages that are posted as they are, as message/rfc822, with a signature or a bearer token.

    The envelope is not known then; Return-Path and Delivered-To in the message tell what there is to know of it.

    Args:
        secret: of Standard Webhooks, or several; None where there is a token.
        bearer: a token (RFC 6750), at least 16 characters; None where there is a secret.
        tolerance: seconds after which a signed request is too old.
        time: wall clock, in seconds.

    Raises:
        ConfigurationError: there is neither, or one of them is too weak.
    """

    content_types: ClassVar[Collection[str]] = frozenset({"message/rfc822", "message/global"})
    challenge: ClassVar[str] = "Bearer"

    def __init__(
        self,
        secret: Secret | Sequence[Secret] | None = None,
        *,
        bearer: str | None = None,
        tolerance: float = 300.0,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._keys = read_secrets(secret)
        self._bearer = None if bearer is None else secret_octets(bearer, field="bearer")
        if not self._keys and self._bearer is None:
            raise ConfigurationError(
                "secret", "there is neither a secret nor a bearer token", "give one of them"
            )
        if self._bearer is not None and len(self._bearer) < 16:
            raise ConfigurationError(
                "bearer", "it has fewer than 16 characters", "use secrets.token_urlsafe(32)"
            )
        self._tolerance = tolerance
        self._time = time

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Arrival]:
        """Return the message; see :class:`Provider`."""
        now = self._time()
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if self._bearer is not None and scheme.lower() == "bearer":
            if not same(token.strip(), self._bearer):
                raise Unauthorized("the token is wrong")
            uid = hashlib.sha256(body).hexdigest()
        elif self._keys:
            uid = check_signature(self._keys, headers, body, now=now, tolerance=self._tolerance)
        else:
            raise Unauthorized("without a token")
        if not body.strip():
            raise Malformed("no message")
        return (Arrival(content=body, keys=(LedgerKey("posted", uid, now + LEDGER_SECONDS),)),)
