"""The announcer actor: tells one subscriber of events by messages through the spool.

::

    journal ──page──► announcer: filters, composes
      ▲                   │
      └─────Perform───────┘   one transaction: the subscriber's cursor moves, the announcements are accepted

The cursor is only moved from where the page began. So after a crash at any point the page is read again or was done,
and of several processes that announce to the same subscriber one is first and the others read on behind it.

It is woken by the bell of this process's journal, and looks once every ``sync_interval`` for what others wrote. One
page is under way at a time; the actor never waits for the store.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from postroom.actors.context import Context
from postroom.actors.protocol import Perform
from postroom.addresses import Address
from postroom.envelopes import Submission
from postroom.errors import CursorExpired, SpoolUnavailable, UsageError
from postroom.events import Event, InboundChanged, MessageEvent, NewMessage, RecipientEvent
from postroom.ids import parse_id
from postroom.notifying.codec import UnknownEvent
from postroom.notifying.journal import EventLog, Page
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.stores.base import NewMessage as Outgoing
from postroom.stores.base import Store
from postroom.supervision import Handle, MailboxActor
from postroom.tickets import Ticket

__all__ = ["AnnouncerActor", "AnnouncerParts"]

log = logging.getLogger("postroom.announcer")

STEP: Final = 200
"""Events that are read, and announced in one transaction, at most."""

IDLE_STEP: Final = 1000
"""Events that were left out after which the cursor is moved all the same."""

ANSWER_SECONDS: Final = 60.0
"""How long the store is waited for; then, or when it was restarted, the page is read again."""

PAUSE: Final = 1.0
"""Seconds after a failure of the store."""

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0
"""Seconds after an announcement that cannot be sent, as when no transport handles the address; they double."""

REMEMBERED: Final = 1000
"""Messages of which it is remembered whether they are announcements."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """There is something new in the journal."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A page that the store was asked to do.

    Attributes:
        through: where the cursor goes.
        announced: how many events are announced.
        more: there may be more behind it.
        since: monotonic seconds at which the store was told.
        store: its incarnation.
        ticket: for the answer.
    """

    through: int
    announced: int
    more: bool
    since: float
    store: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class _Answered:
    """The store has answered."""

    ticket: Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncerParts:
    """What the announcers of a spooler work with; outlives their incarnations.

    Attributes:
        events: the journal.
        prepare: checks and serialises a submission (:meth:`postroom.submitting.Submitter.prepare`).
        host: the domain that announcements are from.
        addresses: of all subscribers: what becomes of a message to one of them is left out if its record is gone.
    """

    events: EventLog
    prepare: Callable[[Submission], Outgoing]
    host: str
    addresses: frozenset[Address] = frozenset()


class AnnouncerActor(MailboxActor):
    """See the module's docstring.

    Args:
        context: what the actors share.
        subscriber: who is told.
        parts: what it works with.
        handle: must lead to this actor.
        name: of the thread.
    """

    def __init__(
        self,
        context: Context,
        subscriber: WebhookSubscriber,
        parts: AnnouncerParts,
        handle: Handle,
        name: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.monotonic = context.clock.monotonic
        self._context = context
        self._subscriber = subscriber
        self._parts = parts
        self._own = handle
        self._names: frozenset[str] = frozenset()
        self._end_listening: Callable[[], None] | None = None
        self._rung = False
        self._look_at = 0.0
        self._rests_until = 0.0
        self._work: _Work | None = None
        self._passed = 0
        self._faults = 0
        self._ours: OrderedDict[int, bool] = OrderedDict()

    def on_start(self) -> None:
        """Look at once: what a former incarnation had under way is still in the journal, or is done."""
        events = self._parts.events
        self._names = events.names_of(self._subscriber.kinds)
        self._end_listening = events.bell.listen(self._hear)
        self._look_at = self.monotonic()

    def on_stop(self) -> None:
        """Listen no more."""
        if self._end_listening is not None:
            self._end_listening()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listen no more."""
        del exception_type, exception_value, traceback
        self.on_stop()

    def _hear(self) -> None:
        """Note, in the store's thread, that the journal has grown; once until it is looked at."""
        if not self._rung:
            self._rung = True
            self._own.tell(_Rung())

    def on_letters(self, letters: list[object]) -> None:
        """Take note of news and of the store's answers."""
        for letter in letters:
            if isinstance(letter, _Rung):
                self._wake_in(0.0)
            elif (
                isinstance(letter, _Answered)
                and self._work is not None
                and self._work.ticket is letter.ticket
            ):
                self._take_answer(self._work)

    def next_wake(self) -> float | None:
        """Return when to look into the journal, or for an answer that is missing."""
        return max(self._look_at, self._rests_until)

    def on_wake(self) -> None:
        """Look into the journal, and forget what the store does not answer."""
        now = self.monotonic()
        interval = self._parts.events.interval
        if self._work is not None and self._work.ticket.resolved:
            # The letter about it is lost if it came before the supervisor knew this actor's address.
            self._take_answer(self._work)
            if self._rests_until > now:
                return
        if self._work is not None:
            lost = self._work.store != self._context.handles.store.incarnation
            if not lost and now < self._work.since + ANSWER_SECONDS:
                # Its answer wakes us; news that come before it are found then.
                self._look_at = now + interval
                return
            log.warning("the store did not answer the announcer of %s; it looks again", self._subscriber.name)
            self._work = None
        self._look_at = now + interval
        self._rung = False
        try:
            self._look()
        except UsageError as error:
            self._faults += 1
            pause = min(FIRST_PAUSE * 2.0 ** (self._faults - 1), LONGEST_PAUSE)
            log.error("events cannot be announced to %s: %s", self._subscriber.name, error)  # noqa: TRY400 - ours to say
            self._rest(pause)
        except SpoolUnavailable as error:
            log.warning("the journal cannot be read for %s: %s", self._subscriber.name, error)
            self._rest(PAUSE)

    def _wake_in(self, seconds: float) -> None:
        self._look_at = min(self._look_at, self.monotonic() + max(0.0, seconds))

    def _rest(self, seconds: float) -> None:
        """Do nothing for a while, whatever is new."""
        self._rests_until = self.monotonic() + seconds

    # Reading

    def _look(self) -> None:
        events, subscriber = self._parts.events, self._subscriber
        before = events.cursors().get(subscriber.cursor)
        if before is None:
            # Whoever is first says where it begins.
            begin = events.last if subscriber.start == "newest" else events.first
            self._tell_store(begin, None, [], 0, more=True)
            return
        page = self._page(before)
        wanted = [each for each in page.events if self._wants(each.event)]
        if not wanted and page.through - before < IDLE_STEP:
            self._passed = page.through
            if page.more:
                self._wake_in(0.0)
            return
        messages = subscriber.messages(wanted, self._parts.prepare, self._parts.host)
        self._tell_store(page.through, before, messages, len(wanted), more=page.more)

    def _page(self, before: int) -> Page:
        """Return what is behind the cursor, but for what was found to be of no interest since."""
        events = self._parts.events
        try:
            return events.page(max(before, self._passed), self._names, STEP)
        except CursorExpired as expired:
            log.warning(
                "events that %s was not told of are not kept any more: it was not announced to for too long",
                self._subscriber.name,
            )
            return events.page(expired.first, self._names, STEP)

    def _wants(self, event: Event) -> bool:
        # What a newer process wrote may be about an announcement too.
        if isinstance(event, UnknownEvent) or self._is_ours(event):
            return False
        try:
            return self._subscriber.wants(event)
        except Exception:
            log.exception("the filter of %s raised on %r", self._subscriber.name, event)
            return True

    def _is_ours(self, event: Event) -> bool:
        """Return whether an event is about an announcement: that would never end."""
        if not isinstance(event, MessageEvent) or isinstance(event, NewMessage | InboundChanged):
            return False
        key = parse_id(event.message_id)
        known = self._ours.get(key)
        if known is None:
            record = self._context.reader.message(key)
            if record is None:
                return self._may_be_ours(event)
            known = record.options is not None and bool(record.options.announces)
            self._ours[key] = known
            if len(self._ours) > REMEMBERED:
                self._ours.popitem(last=False)
        return known

    def _may_be_ours(self, event: MessageEvent) -> bool:
        """Return whether a message whose record is gone (``keep_sent``) must be taken for an announcement."""
        address = event.address if isinstance(event, RecipientEvent) else None
        return address is None or address in self._parts.addresses

    # Writing

    def _tell_store(
        self, through: int, before: int | None, messages: Sequence[Outgoing], announced: int, *, more: bool
    ) -> None:
        name, now, store = self._subscriber.cursor, self._context.clock.time(), self._context.handles.store
        tell = self._own.tell

        def step(spool: Store) -> bool:
            return spool.events.advance(name, through, before, now)

        def pass_on(ticket: Ticket) -> None:
            tell(_Answered(ticket))

        ticket = Ticket(pass_on)
        self._work = _Work(through, announced, more, self.monotonic(), store.incarnation, ticket)
        if not store.tell(Perform(step, ticket, tuple(messages))):
            self._work = None
            self._rest(PAUSE)

    def _take_answer(self, work: _Work) -> None:
        self._work = None
        if work.ticket.error is not None:
            log.warning(
                "events could not be announced to %s now: %s", self._subscriber.name, work.ticket.error
            )
            self._rest(PAUSE)
            return
        self._faults = 0
        self._rests_until = 0.0
        # If somebody else was first, the cursor says where to go on.
        self._passed = work.through if work.ticket.value else 0
        if work.more or self._rung or not work.ticket.value:
            self._wake_in(0.0)
