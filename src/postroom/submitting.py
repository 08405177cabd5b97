"""The submitter's side: from a submission to durable, in the caller's thread."""

import math
import socket
import time
from collections.abc import Callable, Sequence

from postroom.accepting import STRICT_KEY, asks_for, first_due, new_recipients, ordering_key
from postroom.actors.context import Context
from postroom.actors.protocol import Accept
from postroom.domains import Malformed, canonical_domain
from postroom.envelope_recipients import FAILURE_ONLY, Report, written_reports
from postroom.envelopes import Envelope, Submission, prepare_envelope
from postroom.errors import (
    ConfigurationError,
    IdempotencyConflict,
    NotRunning,
    SpoolFull,
    SpoolUnavailable,
)
from postroom.expansion import Expander
from postroom.ids import format_id
from postroom.messages import prepare
from postroom.orders import Orders
from postroom.receipts import results_of
from postroom.retries import HOUR
from postroom.stores.base import Accepted, NewMessage, NewRecipient, Order
from postroom.tickets import Gate, StoreDied, Ticket

__all__ = ["Submitter"]

Followups = tuple[tuple[str, float | None], ...]

WATCH_SECONDS = 1.0
"""How often a waiting submitter looks whether the store it told has died."""


SMALL = 8192
"""Octets up to which a single message is not counted on its own: with the default settings they fit the bound on
octets many times over."""

RESTART_PAUSE = 0.02
"""Seconds between looks for the successor of a store that died."""


class Submitter:
    """Prepares submissions and hands them to the store. Thread-safe.

    Args:
        context: what the actors share.
        running: whether the spooler still runs.
        trouble: what keeps the store from running, "" when nothing does.
        expander: knows the distribution lists and names; None without.
        delay_after: seconds from when a message is first due until a delay warning, where that is asked for;
            infinity for none.
        hooked: sent-hooks, or preprocessors that clean up, are told of the end of every message.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        context: Context,
        running: Callable[[], bool],
        trouble: Callable[[], str] = lambda: "",
        *,
        expander: Expander | None = None,
        delay_after: float = 4 * HOUR,
        hooked: bool = False,
    ) -> None:
        self._context = context
        self._running = running
        self._store_trouble = trouble
        self._expander = expander
        self._delay_after = delay_after
        self._hooked = hooked
        self._strict = {
            name: STRICT_KEY.format(name)
            for name, transport in context.transports.items()
            if transport.limits.strict_order
        }
        self._orders: tuple[Sequence[Order], Orders] = ((), Orders())
        settings = context.settings
        self.gate = Gate(settings.max_waiting_messages, settings.max_waiting_octets)
        self.domain = _message_id_domain(settings.message_id_domain)

    def prepare(self, submission: Submission, field: str = "") -> NewMessage:
        """Check and serialise one submission; nothing is stored. ``field`` names it in a list.

        Raises:
            UsageError: one of its family, naming the field and the remedy.
        """
        context = self._context
        settings = context.settings
        now = context.clock.time()
        key = context.store.ids.next()
        prepared = prepare(
            submission.message, now=now, message_id_domain=self.domain, unique=format_id(key),
            max_size=settings.max_message_size, sender=submission.sender,
        )  # fmt: skip
        envelope = prepare_envelope(
            submission, prepared, now=now, max_recipients=settings.max_recipients, expander=self._expander
        )
        recipients = new_recipients(envelope, context.router, settings.unroutable, field)
        given = context.orders.given
        if given:
            recipients = self._standing(given).judge(
                recipients, sender=envelope.sender, tenant=envelope.tenant, subject=prepared.subject, now=now,
                plan=context.router.plan,
            )  # fmt: skip
        due = first_due(envelope, now)
        expires = envelope.expires_at
        if expires is None and settings.lifetime is not None:
            expires = due + settings.lifetime
        key_of_order = envelope.ordering_key
        if self._strict:
            key_of_order = ordering_key(key_of_order, recipients, context.router, self._strict)
        followed: bool = False
        followups: Followups = ()
        if (
            envelope.report is not FAILURE_ONLY or envelope.said or key_of_order is not None or given
            or self._hooked or settings.unroutable == "fail"
        ):  # fmt: skip
            followed, followups = self._following(envelope, recipients, key_of_order, due)
        return NewMessage(
            key, envelope.sender, prepared.content, recipients, now, due, expires, envelope.priority, envelope.hold,
            prepared.subject, prepared.message_id, prepared.smtputf8 or not envelope.sender.isascii(),
            prepared.eight_bit, written_reports(envelope.report), envelope.idempotency_key, envelope.digest,
            envelope.tenant, key_of_order, envelope.options, followed, followups,
        )  # fmt: skip

    def _standing(self, given: Sequence[Order]) -> Orders:
        """Return the standing orders, compiled once for as long as they are the same."""
        before, orders = self._orders
        if before is not given:
            orders = Orders(given)
            self._orders = given, orders
        return orders

    def _following(
        self, envelope: Envelope, recipients: Sequence[NewRecipient], key_of_order: str | None, due: float
    ) -> tuple[bool, Followups]:
        """Return whether the store is to look at the message's settlements, and what is to be done about it later."""
        said = envelope.said.values()
        followups: list[tuple[str, float | None]] = []
        if self._delay_after < math.inf and asks_for(Report.DELAY, envelope.report, said):
            # What waits because it was told to is not delayed.
            followups.append(("delay", due + self._delay_after))
        if self._hooked:
            followups.append(("sent", None))
        followed = (
            self._hooked
            or key_of_order is not None
            or asks_for(Report.SUCCESS, envelope.report, said)
            or any(recipient.state is not None for recipient in recipients)
        )
        return followed, tuple(followups)

    def enter(self, messages: Sequence[NewMessage], timeout: float) -> int:
        """Wait for room in front of the store; returns the octets that ``leave`` must be given back.

        A single small message is only counted by the length of the store's mailbox, so that submitters share no lock
        (:mod:`postroom.brief` tells what that would cost).

        Raises:
            SpoolFull: there was no room in time.
        """
        octets = sum(len(message.content) for message in messages)
        if len(messages) == 1 and octets <= SMALL:
            limit = self._context.settings.max_waiting_messages
            depth = self._context.handles.store.depth
            if depth() < limit or self.gate.wait_for(lambda: depth() < limit, timeout):
                return 0
        elif self.gate.enter(len(messages), octets, timeout):
            return octets
        raise SpoolFull(
            f"{max(self.gate.inside, self._context.handles.store.depth())} messages wait to be made durable and there "
            f"was no room within {timeout:g} s; try again later or submit more slowly"
        )

    def leave(self, messages: int, octets: int) -> None:
        """Make room again after ``enter`` returned ``octets``."""
        if octets:
            self.gate.leave(messages, octets)

    def submit(self, messages: Sequence[NewMessage], timeout: float) -> list[Accepted]:
        """Make messages durable and return what the store says.

        Raises:
            SpoolFull: there was no room in time, or the disk is full; nothing was stored.
            SpoolUnavailable: the store did not answer; whether they were stored is not known.
            IdempotencyConflict: a key was used before with another payload.
        """
        deadline = self._context.clock.monotonic() + timeout
        octets = self.enter(messages, timeout)
        try:
            letter = Accept(messages, Ticket())
            incarnation = self.tell(letter)
            if not incarnation:
                letter.ticket.resolve(error=StoreDied())
            return self.finish(letter, incarnation, deadline)
        finally:
            self.leave(len(messages), octets)

    def tell(self, letter: Accept) -> int:
        """Hand a letter to the store; returns the incarnation that got it, 0 when there is none now."""
        store = self._context.handles.store
        incarnation = store.incarnation
        return incarnation if store.tell(letter) else 0

    def _trouble(self) -> str:
        trouble = self._store_trouble()
        return f" ({trouble})" if trouble else ""

    def finish(self, letter: Accept, incarnation: int, deadline: float) -> list[Accepted]:
        """Wait for the store's answer; tell its successor again if the store dies over it.

        Telling again is safe: the messages' numbers are primary keys, so they cannot be stored twice.
        """
        clock = self._context.clock
        store = self._context.handles.store
        while True:
            left = deadline - clock.monotonic()
            died = isinstance(letter.ticket.error, StoreDied)
            if not died and letter.ticket.wait(min(left, WATCH_SECONDS)):
                if isinstance(letter.ticket.error, StoreDied):
                    continue
                return check_conflicts(letter.messages, results_of(letter.ticket))
            if not self._running() and not store.alive:
                if letter.ticket.resolved and not died:
                    continue
                raise NotRunning(
                    "the spooler was stopped before the store answered; whether the message was accepted is not known:"
                    " submit it again with the same idempotency_key"
                )
            if left <= 0:
                raise SpoolUnavailable(
                    f"the store did not answer in time{self._trouble()}; whether the message was accepted is not "
                    "known: submit it again with the same idempotency_key"
                )
            if store.alive and (died or store.incarnation != incarnation):
                # Whoever counts on an answer to the former letter is told; nobody else will do so.
                letter.ticket.resolve(error=StoreDied())
                letter = Accept(letter.messages, Ticket(), again=True)
                incarnation = self.tell(letter)
                if not incarnation:
                    letter.ticket.resolve(error=StoreDied())
            if died:
                time.sleep(RESTART_PAUSE)


def check_conflicts(messages: Sequence[NewMessage], results: list[Accepted]) -> list[Accepted]:
    """Return ``results`` unless one of them is a conflict.

    What was told to two incarnations of the store meets itself under its idempotency key: that is no duplicate.

    Raises:
        IdempotencyConflict: a key was used before with another payload.
    """
    for message, result in zip(messages, results, strict=True):
        if result.conflict:
            raise IdempotencyConflict(
                "idempotency_key",
                f"{message.idempotency_key!r} was used before, for message {format_id(result.key)}, with another"
                " payload",
                "use a new key for a new message, or submit exactly the same again",
            )
    return [
        Accepted(result.key) if result.key == message.key else result
        for message, result in zip(messages, results, strict=True)
    ]


def _message_id_domain(configured: str) -> str:
    try:
        return canonical_domain(configured or socket.gethostname() or "localhost")
    except Malformed:
        if configured:
            raise ConfigurationError(
                "message_id_domain",
                f"{configured!r} is not a domain",
                "give one of your own, as in 'mail.example.org'",
            ) from None
        return "localhost"
