"""Twilio's status callbacks for text messages."""

import base64
import hmac
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from postroom.errors import ConfigurationError
from postroom.inbound.fields import printable
from postroom.inbound.values import RemoteReport, ReportedAction, ReportedRecipient
from postroom.receivers.providers_base import Malformed, Provider, Unauthorized, same, secret_octets
from postroom.receivers.providers_forms import read_pairs

__all__ = ["TwilioReports"]

_ACTIONS: Final[Mapping[str, ReportedAction]] = {
    "delivered": "delivered",
    "undelivered": "failed",
    "failed": "failed",
    "read": "displayed",
}


class TwilioReports(Provider[RemoteReport]):
    """Reads the callbacks of a message's ``StatusCallback``: delivered, undelivered, failed, read.

    ``TwilioReports(auth_token, "https://app.example.org/hooks/twilio")``. Recipients are found by the MessageSid, which
    a transport gives as ``Accepted.remote_id``. Twilio signs no time; a callback that is repeated changes nothing.

    Args:
        auth_token: of the account; it is the key of the signature.
        url: the callback's URL exactly as Twilio was given it, with its query if it has one: it is signed, and what
            stands before this process may see another.
    """

    content_types: ClassVar[Collection[str]] = frozenset({"application/x-www-form-urlencoded"})

    def __init__(self, auth_token: str | bytes, url: str) -> None:
        self._key = secret_octets(auth_token, field="auth_token")
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError("url", f"{url[:100]!r} is no URL", "give it as Twilio was given it")
        self._url = url.encode()

    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[RemoteReport]:
        """Return the callback as a report of one recipient; see :class:`Provider`."""
        pairs = read_pairs(body)
        signed = bytearray(self._url)
        for name, value in sorted(set(pairs)):
            signed += name.encode("utf-8", "replace") + value
        # SHA-1 is Twilio's choice; as the hash of an HMAC it is not broken.
        right = base64.b64encode(hmac.digest(self._key, bytes(signed), "sha1"))
        if not same(headers.get("x-twilio-signature", ""), right):
            raise Unauthorized("the signature is wrong")
        form = {name: printable(value.decode("utf-8", "replace")) for name, value in reversed(pairs)}
        remote_id = form.get("MessageSid") or form.get("SmsSid", "")
        if not remote_id:
            raise Malformed("without a MessageSid")
        action = _ACTIONS.get(form.get("MessageStatus") or form.get("SmsStatus", ""))
        if action is None:
            return ()
        to = form.get("To", "")
        code = form.get("ErrorCode", "")
        recipient = ReportedRecipient(
            action=action,
            address=f"sms:{to}" if to.startswith("+") else to,
            text=form.get("ErrorMessage") or (f"error {code}" if code else ""),
            remote_id=remote_id,
        )
        return (RemoteReport(kind="provider", recipients=(recipient,), reporter="Twilio"),)
