"""Subscribers that are told by messages: what happens in the spool is sent through the spool.

So it is stored before it is sent, tried again while the other side is down, and seen by operators like anything else.
A webhook of :class:`postroom.WebhookTransport` gets the JSON of the event (:mod:`postroom.notifying.codec`) as the body
of the request, signed with the transport's secret for its address::

    {"type": "new_message", "at": "2026-01-31T12:00:00.250Z", "message_id": "0C8G3W1T0R004", "folder": "Inbox", …,
     "cursor": 4711, "subscriber": "crm"}

and with ``batch`` above 1 several of them: ``{"type": "events", "subscriber": "crm", "events": [{…}, …]}``. Any other
address gets a message with that JSON as its content.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from email.message import EmailMessage
from typing import Any, Literal

from postroom.addresses import Address, parse_address
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError, UsageError
from postroom.events import Event
from postroom.notifying.codec import public_name, to_public
from postroom.notifying.journal import Recorded, check_kinds, check_name, kept_names
from postroom.options import MessageOptions
from postroom.stores.values import NewMessage

__all__ = ["WebhookSubscriber"]

MOST: int = 1000
"""Events in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSubscriber:
    """One who is told of events at an address, in order, each event once into the spool.

    Its place in the journal is the named cursor ``webhook:<name>``, so that what happened while nobody announced is
    announced later, and that processes which share the spool and have the same subscribers do not announce twice.
    Never announced is what becomes of announcements.

    Attributes:
        to: where to: a URL for a :class:`postroom.WebhookTransport`, or any other address that a transport handles.
        name: under which its place is remembered; keep it, and never give it to another subscriber.
        kinds: classes of events that the journal keeps, subclasses included; none means all of them.
        filter: says of an event whether it is announced. Must be quick; one that raises has the event announced.
        batch: events that may go together in one message, when several are there.
        ordered: announcements never overtake each other: one that cannot be delivered holds back the later ones.
        start: where a new name begins: with what happens from now on, or with the oldest event that is kept.
        sender: envelope sender; "" for the null reverse-path, so that nobody is told of failures by mail.
        author: the From field; "" for postroom@ this host.
        priority: as in :meth:`postroom.Spooler.submit`.
        lifetime: seconds that an announcement is tried; None for as long as the transport's policy tries.

    Raises:
        ConfigurationError: an option is wrong; names it.
    """

    to: str | Address
    name: str
    kinds: Collection[type[Event]] = ()
    filter: Callable[[Event], bool] | None = None
    batch: int = 1
    ordered: bool = False
    start: Literal["newest", "oldest"] = "newest"
    sender: str = ""
    author: str = ""
    priority: int = 0
    lifetime: float | None = None

    def __post_init__(self) -> None:
        try:
            parse_address(self.to)
            check_name(self.name)
            check_kinds(self.kinds)
        except UsageError as error:
            raise ConfigurationError(
                f"WebhookSubscriber.{error.field}", error.problem, error.remedy
            ) from error
        if "/" in self.name or len(self.name) > 100:
            raise ConfigurationError(
                "WebhookSubscriber.name",
                f"{self.name!r} has a slash or over 100 characters",
                "give a shorter, plain one",
            )
        if not 1 <= self.batch <= MOST:
            raise ConfigurationError(
                "WebhookSubscriber.batch", f"{self.batch!r} is out of range", f"give 1 to {MOST}"
            )
        if self.start not in {"newest", "oldest"}:
            raise ConfigurationError(
                "WebhookSubscriber.start", f"{self.start!r} is unknown", 'give "newest" or "oldest"'
            )
        if self.lifetime is not None and not self.lifetime > 0:
            raise ConfigurationError(
                "WebhookSubscriber.lifetime",
                f"{self.lifetime!r} is not positive",
                "give seconds above 0, or None",
            )

    def check(self, kept: frozenset[str]) -> None:
        """Look whether the journal keeps what it is to be told.

        Args:
            kept: ``settings.journalled``.

        Raises:
            ConfigurationError: it does not.
        """
        try:
            kept_names(self.kinds, kept, f"WebhookSubscriber({self.name!r}).kinds")
        except UsageError as error:
            raise ConfigurationError(error.field, error.problem, error.remedy) from error

    @property
    def address(self) -> Address:
        """Where it is told."""
        return parse_address(self.to)

    @property
    def cursor(self) -> str:
        """The name of its cursor."""
        return f"webhook:{self.name}"

    def wants(self, event: Event) -> bool:
        """Return what the filter says; raises what it raises."""
        return self.filter is None or bool(self.filter(event))

    def messages(
        self, events: Sequence[Recorded], prepare: Callable[[Submission], NewMessage], host: str
    ) -> list[NewMessage]:
        """Return the messages that announce some events.

        Args:
            events: in order.
            prepare: checks and serialises a submission.
            host: the domain that they are from.

        Raises:
            UsageError: one cannot be sent, for example because no transport handles the address.
        """
        batches = [events[begin : begin + self.batch] for begin in range(0, len(events), self.batch)]
        return [self._message(batch, prepare, host) for batch in batches]

    def _message(
        self, batch: Sequence[Recorded], prepare: Callable[[Submission], NewMessage], host: str
    ) -> NewMessage:
        email = EmailMessage()
        email["From"] = self.author or f"Postroom <postroom@{host}>"
        email["Subject"] = public_name(type(batch[0].event)) if len(batch) == 1 else f"{len(batch)} events"
        email["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
        email.set_content(self.body(batch), maintype="application", subtype="json", cte="base64")
        message = prepare(
            Submission(
                message=email,
                sender=self.sender,
                to=[self.address],
                expires_at=None if self.lifetime is None else timedelta(seconds=self.lifetime),
                priority=self.priority,
                report=frozenset(),
                tenant=self.cursor,
                ordering_key=self.cursor if self.ordered else None,
            )
        )
        return message._replace(options=replace(message.options or MessageOptions(), announces=self.name))

    def body(self, batch: Sequence[Recorded]) -> bytes:
        """Return the JSON of some events, in UTF-8."""
        public: list[dict[str, Any]] = [
            {**to_public(event), "cursor": cursor, "subscriber": self.name} for cursor, event in batch
        ]
        body = public[0] if self.batch == 1 else {"type": "events", "subscriber": self.name, "events": public}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
