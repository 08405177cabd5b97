"""Webhooks: a message is posted to the URL that is its recipient's address (``https://hooks.example.org/x``).

What a receiver gets, besides the body (:mod:`postroom.transports.webhook_body`):

=====================  ====================================================================================
``webhook-id``         ``msg_<message id>_<recipient index>``, the same at every attempt: a receiver that
                       remembers it sees nothing twice (Standard Webhooks)
``webhook-timestamp``  Unix seconds of this attempt
``webhook-signature``  ``v1,<base64>`` for each secret, when there are any
``Idempotency-Key``    the same as ``webhook-id``, under the name that HTTP frameworks look for
=====================  ====================================================================================

What an answer means is in :data:`postroom.replies.HTTP_TABLE`. A receiver that cannot be reached concerns its
host alone: the outcome is ``Deferred(destination_down=True)``. ``TransportDown`` is for what concerns all hosts, as
when this machine has no socket left.
"""

import email.utils
import re
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Literal

from postroom.addresses import Address
from postroom.clock import Clock, SystemClock
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Reply
from postroom.replies import Phase, ReplyRow, ReplyTable, http_table, one_line
from postroom.retries import MAX_RETRY_AFTER
from postroom.transports.base import Outcomes, Session, Transport
from postroom.transports.signatures import Secret, read_secrets, signature_headers
from postroom.transports.webhook_body import JsonBody
from postroom.transports.webhook_exchange import HttpReply, NoAnswerError, Timeouts
from postroom.transports.webhook_guard import AddressGuard, read_networks

if TYPE_CHECKING:
    from postroom.transports.webhook_client import HttpClient

__all__ = ["Timeouts", "WebhookTransport"]

_BUILT_IN = http_table()

SecretChooser = Callable[[Address], Secret | Sequence[Secret] | None]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)


@dataclass(kw_only=True, eq=False)
class WebhookTransport(Transport):
    """Posts messages to URLs over HTTP/1.1. Needs the ``webhook`` extra (httpx).

    Attributes:
        body: "json" posts :class:`~postroom.transports.webhook_body.JsonBody`; "raw" posts the RFC 5322
            message as it is (``message/rfc822``).
        secret: what to sign with: ``"whsec_…"`` or the key as bytes, or several of them while one is being
            replaced, or a function of the address that returns them (receivers that must not be able to forge
            for each other need a secret each). None: not signed.
        headers: headers of every request, for example ``{"Authorization": "Bearer …"}``.
        allow_http: plain http URLs are sent to as well. Without it the address type "http" is not handled,
            so that submitting to one is refused at once.
        allow_private: addresses that are not public are connected to (see
            :mod:`postroom.transports.webhook_guard`).
        allow_networks: networks that are connected to although not public, for example ``["10.1.0.0/16"]``.
        replies: rows of the reply table that are tried before the built-in ones; see
            :class:`~postroom.reply_rows.ReplyRow`.
        timeouts: see :class:`Timeouts`. The system's resolver has its own.
        tls: the context for https; by default certificates are verified against httpx's bundle.
        clock: where the timestamps come from.
        table: what answers mean: ``replies`` and the built-in rows.

    Raises:
        ConfigurationError: an option is wrong, or httpx is not installed.
    """

    name: str = "webhook"
    address_types: Collection[str] = ()
    body: Literal["json", "raw"] = "json"
    secret: Secret | Sequence[Secret] | SecretChooser | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    allow_http: bool = False
    allow_private: bool = False
    allow_networks: Sequence[str | IPv4Network | IPv6Network] = ()
    replies: Sequence[ReplyRow] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    clock: Clock = field(default_factory=SystemClock, repr=False)
    table: ReplyTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.address_types = _address_types(self.address_types, allow_http=self.allow_http)
        if self.body not in {"json", "raw"}:
            raise ConfigurationError("body", f"{self.body!r} is not a kind of body", 'give "json" or "raw"')
        self._headers = _read_headers(self.headers)
        self._keys = () if callable(self.secret) else read_secrets(self.secret)
        self._guard = AddressGuard(self.allow_private, read_networks(self.allow_networks))
        self._tls = _require_client()[1]() if self.tls is None else self.tls
        self.table = http_table(self.replies)

    def reply_table(self) -> tuple[ReplyRow, ...]:
        """Return the rows that say what answers mean, in the order in which they are tried."""
        return self.table.rows

    def open(self) -> Session:
        """Return a session; nothing is connected before there is something to send."""
        make_client, _ = _require_client()
        client = make_client(self._guard, self.timeouts, self._tls, idle=self.limits.session_idle)
        return WebhookSession(self, client)

    def request_headers(self, delivery: Delivery, target: Target, body: bytes) -> dict[str, str]:
        """Return the headers of one attempt, all but Host and Content-Length."""
        webhook_id = f"msg_{delivery.message_id}_{target.index}"
        keys = self._keys
        if callable(self.secret):
            keys = read_secrets(self.secret(target.address), field="secret()")
        return {
            "User-Agent": "postroom",
            "Accept": "*/*",
            **self._headers,
            # The beginning of the answer goes on record as text; nothing is unpacked for that.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json" if self.body == "json" else "message/rfc822",
            "Idempotency-Key": webhook_id,
            **signature_headers(keys, webhook_id, self.clock.time(), body),
        }


class WebhookSession(Session):
    """Keeps connections to the hosts it posted to."""

    def __init__(self, transport: WebhookTransport, client: "HttpClient") -> None:
        self._transport = transport
        self._client = client

    def send(self, delivery: Delivery) -> Outcomes:
        """Post to each target in turn."""
        if not self.usable:
            raise SessionStale("the session is closed")
        parsed = JsonBody(delivery) if self._transport.body == "json" else None
        outcomes: list[Outcome] = []
        for target in delivery.targets:
            body = delivery.content if parsed is None else parsed.encode(target)
            try:
                outcomes.append(self._post(delivery, target, body))
            except TransportDown as down:
                if not outcomes:
                    raise
                # What was posted for the targets before must be settled now, or it would be posted again.
                outcomes.append(Deferred(Reply(one_line(down.reason), "4.3.0"), down.retry_after))
        return outcomes

    def _post(self, delivery: Delivery, target: Target, body: bytes) -> Outcome:
        kind = target.address.type
        if kind not in {"https", "http"}:
            return NotMine()
        if kind == "http" and not self._transport.allow_http:
            # Reached only by a pattern: the type is not announced.
            text = "plain http is not allowed; use https, or allow_http=True"
            return Failed(Reply(text, "5.7.1"))
        headers = self._transport.request_headers(delivery, target, body)
        table = self._transport.table
        try:
            reply = self._client.post(str(target.address), headers, body)
        except NoAnswerError as error:
            return outcome_of_silence(error, table)
        return outcome_of(reply, self._transport.clock.time(), table=table, attempts=target.attempts)

    def close(self) -> None:
        """Close the connections."""
        self.usable = False
        self._client.close()

    def abort(self) -> None:
        """Cut the connections off."""
        self.usable = False
        self._client.abort()


def outcome_of(reply: HttpReply, now: float, *, table: ReplyTable = _BUILT_IN, attempts: int = 0) -> Outcome:
    """Return what an answer means (pure).

    Args:
        reply: the answer.
        now: wall-clock seconds, for a Retry-After with a date.
        table: what answers mean.
        attempts: attempts made before this one.

    Raises:
        TransportDown: a row of one's own says so.
    """
    text = reply.text
    if 300 <= reply.code < 400 and reply.location is not None:
        text = f"redirects are not followed; it points to {reply.location}"
    return table.outcome(
        Reply(one_line(text), "", reply.code, reply.host, reply.tls),
        Phase.REQUEST,
        success=Delivered,
        attempts=attempts,
        retry_after=read_retry_after(reply.retry_after, now),
    )


def outcome_of_silence(silence: NoAnswerError, table: ReplyTable = _BUILT_IN) -> Outcome:
    """Return what it means that there was no answer (pure).

    Raises:
        TransportDown: a row of one's own says so.
    """
    record = silence.reply
    record = Reply(one_line(record.text), record.status, None, record.remote, record.tls)
    if silence.error is not None:
        return table.exception_outcome(silence.error, silence.phase, record)
    return Failed(record) if record.status.startswith("5") else Deferred(record)


def read_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110 section 10.2.3), or None.

    Never negative and at most ``MAX_RETRY_AFTER``; a header that is neither a number nor a date is ignored.

    Args:
        value: the header, or None.
        now: wall-clock seconds.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            date = email.utils.parsedate_to_datetime(text)
            # The form of asctime() names no zone: it is UTC (RFC 9110 section 5.6.7), not that of this machine.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _address_types(given: Collection[str], *, allow_http: bool) -> frozenset[str]:
    known = frozenset({"https", "http"} if allow_http else {"https"})
    types = frozenset(given) or known
    if unknown := types - known:
        remedy = 'give "https", and "http" only together with allow_http=True'
        raise ConfigurationError("address_types", f"{sorted(unknown)} cannot be posted to", remedy)
    return types


def _read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        where = f"headers[{name!r}]"
        if not _TOKEN.fullmatch(name):
            raise ConfigurationError(where, "is not a header name", "use letters, digits and hyphens")
        if name.lower() in _OURS:
            raise ConfigurationError(where, "is set by the transport", "leave it out")
        if not _FIELD_VALUE.fullmatch(value):
            remedy = "use printable ASCII without line breaks or blanks at the ends"
            raise ConfigurationError(where, "its value is not a header value", remedy)
    return dict(headers)


def _require_client() -> "tuple[type[HttpClient], Callable[[], ssl.SSLContext]]":
    try:
        from postroom.transports.webhook_client import HttpClient, default_tls  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        remedy = "run: pip install 'postroom[webhook]'"
        raise ConfigurationError("WebhookTransport", f"{error.name} is not installed", remedy) from error
    return HttpClient, default_tls
