"""Apprise: more than a hundred notification services, each an Apprise URL.

A recipient is ``apprise:ops``, a name of ``services={"ops": "slack://…"}``, or ``apprise:slack://…``, a URL itself. The
first is recommended: such a URL carries tokens and passwords, and a recipient's address stands in the spool, in logs,
in events and reports. Where addresses come from people who are not trusted, say ``urls=False``: a URL makes this host
connect to where they like, and some schemas act on this machine.

The title is the message's Subject, the body its plain text or its HTML (see ``body``), which Apprise turns into what
the service takes, without blank lines at the end; where there is only a Subject, it is the body. Attachments go along
to services that take them. A service may shorten or split what is too long.

Apprise says yes or no, and why in its log. The log of the call becomes the reply's text, without the parts of the URL,
and an HTTP status code in it is judged by the webhooks' table (:data:`postroom.replies.HTTP_TABLE`, ``replies=``):

======================================================  =======================================================
what happened                                           outcome
======================================================  =======================================================
Apprise says yes                                        relayed
it says no, with an HTTP status code                    as the table says: 401, 403, 404 deferred, 400, 410 failed
it says no, without one                                 deferred 4.4.0
no answer in ``timeout`` seconds, or given up           deferred 4.4.2 and in doubt
a name that is not in ``services``                      not mine
an unknown schema, or a URL that Apprise refuses        failed 5.1.3 (a named service: deferred 4.3.5)
neither subject nor text nor attachment                 failed 5.6.0
======================================================  =======================================================

There is no key by which a service could drop a second copy: what was answered too late comes twice.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, SessionStale
from postroom.outcomes import Deferred, Failed, NotMine, Outcome, Relayed, Reply
from postroom.replies import Phase, ReplyRow, ReplyTable, http_table
from postroom.transports.apprise_notice import Attached, Notice, Said, read_code, without_secrets
from postroom.transports.base import Outcomes, Session, Transport
from postroom.transports.webhook_body import JsonBody

if TYPE_CHECKING:
    from postroom.transports.apprise_call import Call

__all__ = ["AppriseTransport"]

_BODIES: Final = ("text", "html")
_NO_SERVICE: Final = NotMine(Reply("no service of this name", "5.1.2"))

ServiceUrl = str | Callable[[], str]


@dataclass(kw_only=True, eq=False)
class AppriseTransport(Transport):
    """Notifies through Apprise. Needs the ``apprise`` extra. Thread-safe.

    Attributes:
        services: Apprise URLs by the name that stands in an address, or functions that return them.
        urls: addresses may be Apprise URLs themselves.
        body: which alternative of a message is preferred, "text" or "html".
        timeout: seconds that one notification may take.
        replies: rows of the reply table that are tried before the built-in ones; see
            :class:`~postroom.reply_rows.ReplyRow`.
        table: what HTTP status codes in Apprise's log mean: ``replies`` and the built-in rows.

    Raises:
        ConfigurationError: an option is wrong, or Apprise is not installed.
    """

    name: str = "apprise"
    address_types: Collection[str] = frozenset({"apprise"})
    services: Mapping[str, ServiceUrl] = field(default_factory=dict[str, ServiceUrl], repr=False)
    urls: bool = True
    body: Literal["text", "html"] = "text"
    timeout: float = 60.0
    replies: Sequence[ReplyRow] = ()
    table: ReplyTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.body not in _BODIES:
            raise ConfigurationError("body", f"{self.body!r} is not possible", f"give {' or '.join(_BODIES)}")
        if self.timeout <= 0:
            raise ConfigurationError("timeout", f"{self.timeout!r} is not positive", "give seconds above 0")
        for name in self.services:
            if not name or "://" in name or not name.isprintable() or name != name.strip():
                raise ConfigurationError(
                    f"services[{name!r}]", "cannot stand in an address", "name it with a word, like ops"
                )
        self.table = http_table(self.replies)
        _require_call()

    def reply_table(self) -> tuple[ReplyRow, ...]:
        """Return the rows that say what HTTP status codes mean, in the order in which they are tried."""
        return self.table.rows

    def open(self) -> Session:
        """Return a session; Apprise connects anew for each notification."""
        return AppriseSession(self)

    def url(self, address: Address) -> str | None:
        """Return the Apprise URL of an address, or None when it is not this transport's."""
        named = self.services.get(address.value)
        if named is not None:
            return named() if callable(named) else named
        return address.value if self.urls and "://" in address.value else None


class AppriseSession(Session):
    """Holds nothing between notifications."""

    def __init__(self, transport: AppriseTransport) -> None:
        self._transport = transport
        self._call: Call = _require_call()()

    def send(self, delivery: Delivery) -> Outcomes:
        """Notify each target in turn."""
        if not self.usable:
            raise SessionStale("the session is closed")
        parsed = JsonBody(delivery)
        return [
            self._notify(target, notice_of(parsed, target, self._transport.body))
            for target in delivery.targets
        ]

    def _notify(self, target: Target, notice: Notice) -> Outcome:
        transport = self._transport
        url = transport.url(target.address)
        if url is None:
            return _NO_SERVICE
        if notice.is_empty:
            return Failed(Reply("neither a subject nor a text nor an attachment", "5.6.0"))
        said = self._call.notify(url, notice, transport.timeout)
        text = without_secrets(said.text, url)
        if said.how == "unusable" and target.address.value in transport.services:
            # It is our configuration that is wrong, which people mend, in time.
            return Deferred(Reply(text or "Apprise cannot use this service's URL", "4.3.5"))
        return outcome_of(Said(said.how, text), transport.table, target.attempts)

    def close(self) -> None:
        """Nothing is held."""
        self.usable = False

    def abort(self) -> None:
        """Stop waiting for Apprise."""
        self.usable = False
        self._call.abort()


def outcome_of(said: Said, table: ReplyTable, attempts: int = 0) -> Outcome:
    """Return what Apprise's word means (pure).

    Args:
        said: its word.
        table: what HTTP status codes mean.
        attempts: attempts made before this one.

    Raises:
        TransportDown: a row of one's own says so.
    """
    if said.how == "yes":
        return Relayed(Reply(said.text or "notified", "2.0.0"))
    if said.how == "unusable":
        return Failed(Reply(said.text or "not a URL that Apprise can use", "5.1.3"))
    if said.how == "silence":
        return Deferred(Reply(said.text or "no answer in time", "4.4.2"), in_doubt=True)
    code = read_code(said.text)
    text = said.text or "Apprise could not notify, and did not say why"
    if code is None:
        return Deferred(Reply(text, "4.4.0"))
    outcome = table.outcome(Reply(text, "", code), Phase.REQUEST, success=Relayed, attempts=attempts)
    # An Apprise address names no host that others could be at: nobody else is parked for it.
    return replace(outcome, destination_down=False) if isinstance(outcome, Deferred) else outcome


def notice_of(parsed: JsonBody, target: Target, prefer: Literal["text", "html"]) -> Notice:
    """Return what is said of a message (pure)."""
    document = json.loads(parsed.encode(target))
    text, html = document["text"], document["html"]
    is_html = html is not None and (prefer == "html" or text is None)
    title, body = document["subject"] or "", (html if is_html else text) or ""
    if not body.strip():
        title, body, is_html = "", title, False
    return Notice(
        title=title,
        body=body,
        is_html=is_html,
        attachments=tuple(Attached.read(each) for each in document["attachments"]),
    )


def _require_call() -> "type[Call]":
    try:
        from postroom.transports.apprise_call import Call  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        remedy = "run: pip install 'postroom[apprise]'"
        raise ConfigurationError("AppriseTransport", f"{error.name} is not installed", remedy) from error
    return Call
