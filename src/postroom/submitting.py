"""The submitter's side: from a submission to durable, in the caller's thread."""

import socket
import time
from collections.abc import Callable, Sequence

from postroom.actors.context import Context
from postroom.actors.protocol import Accept
from postroom.domains import Malformed, canonical_domain
from postroom.envelopes import Submission, prepare_envelope
from postroom.errors import (
    ConfigurationError,
    IdempotencyConflict,
    NotRunning,
    SpoolFull,
    SpoolUnavailable,
    UnknownAddressType,
)
from postroom.ids import format_id
from postroom.messages import prepare
from postroom.receipts import results_of
from postroom.stores.base import Accepted, NewMessage, NewRecipient
from postroom.tickets import Gate, StoreDied, Ticket

__all__ = ["Submitter"]

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
    """

    def __init__(
        self, context: Context, running: Callable[[], bool], trouble: Callable[[], str] = lambda: ""
    ) -> None:
        self._context = context
        self._running = running
        self._store_trouble = trouble
        settings = context.settings
        self.gate = Gate(settings.max_waiting_messages, settings.max_waiting_octets)
        self._domain = _message_id_domain(settings.message_id_domain)

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
            submission.message, now=now, message_id_domain=self._domain, unique=format_id(key),
            max_size=settings.max_message_size, sender=submission.sender,
        )  # fmt: skip
        envelope = prepare_envelope(submission, prepared, now=now, max_recipients=settings.max_recipients)
        plan = context.router.plan
        recipients: list[NewRecipient] = []
        for index, address in enumerate(envelope.recipients):
            names = plan(address)
            if not names:
                handled = sorted({kind for route in context.router.routes for kind in route.address_types})
                raise UnknownAddressType(
                    f"{field}to[{index}]",
                    f"no transport handles addresses of type {address.type!r} ({address})",
                    f"configure one, or use one of: {', '.join(handled) or 'none, there is no transport'}",
                )
            recipients.append(NewRecipient(address, names[0]))
        expires = envelope.expires_at
        if expires is None and settings.lifetime is not None:
            expires = max(now, envelope.send_at or now) + settings.lifetime
        return NewMessage(
            key, envelope.sender, prepared.content, tuple(recipients), now, max(now, envelope.send_at or now), expires,
            envelope.priority, envelope.hold, prepared.subject, prepared.message_id,
            prepared.smtputf8 or not envelope.sender.isascii(), prepared.eight_bit, ",".join(sorted(envelope.report)),
            envelope.idempotency_key, envelope.digest,
        )  # fmt: skip

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
