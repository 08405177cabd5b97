"""Sending a message again, to those only whom it did not reach.

The message is the same one, octet for octet, so that its readers see whom it was written to; before it stands a block
of Resent fields (RFC 5322 section 3.6.6) that says who sent it again, when, and to which of its visible recipients.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import blake2b

from postroom import headers
from postroom.actors.context import Context
from postroom.addresses import Address, parse_address, parse_mailbox
from postroom.envelopes import Report, Submission
from postroom.errors import NotQueued, StateError, UsageError
from postroom.ids import format_id
from postroom.options import MessageOptions
from postroom.recipients import State
from postroom.stores.base import Accepted, MessageRecord, NewMessage, NewRecipient, RecipientRecord
from postroom.submitting import Submitter

__all__ = ["resend", "resent_block"]

_MISSED = frozenset({State.FAILED, State.EXPIRED})
_MAY_BE_NAMED = _MISSED | {State.CANCELLED}


def resend(  # noqa: PLR0913 - by keyword
    context: Context,
    submitter: Submitter,
    record: MessageRecord,
    recipients: Collection[int] | None,
    *,
    resent_from: str | None,
    idempotency_key: str | None,
    timeout: float,
) -> Accepted:
    """Submit a message again; see :meth:`postroom.Spooler.resend`."""
    chosen = choose(record, recipients)
    content = context.reader.content(record.key)
    if content is None:
        raise StateError(
            f"the octets of message {format_id(record.key)} are gone; to send failed messages again, have them kept "
            "with settings.keep_content"
        )
    head = content.partition(b"\r\n\r\n")[0] + b"\r\n"
    author = resent_from or record.sender or headers.sender(head)
    block = resent_block(
        head,
        [recipient.address for recipient in chosen],
        author=author,
        now=context.clock.time(),
        unique=format_id(context.store.ids.next()),
    )
    options = record.options or MessageOptions()
    submission = Submission(
        message=block + content,
        sender=record.sender,
        to=[recipient.address for recipient in chosen],
        priority=record.priority,
        idempotency_key=idempotency_key,
        report=frozenset(Report(name) for name in record.report.split(",") if name),
        tenant=record.tenant or None,
        window=options.window or None,
        ret={"full": "full", "hdrs": "headers"}.get(options.ret),  # type: ignore[arg-type] # the two that it takes
        envid=options.envid or None,
    )
    message = _as_recorded(submitter.prepare(submission), chosen, context.router.plan)
    # Each has another date, and yet is the same again under its key.
    digest = (
        f"resend {record.key} {[recipient.index for recipient in chosen]}".encode()
        if idempotency_key
        else b""
    )
    message = message._replace(
        options=replace(message.options or MessageOptions(), resend_of=record.key),
        digest=blake2b(digest, digest_size=32).digest() if digest else b"",
    )
    return submitter.submit([message], timeout)[0]


def choose(record: MessageRecord, numbers: Collection[int] | None) -> tuple[RecipientRecord, ...]:
    """Return the recipients to send to again: those that failed or expired, or of those not reached the ones named.

    Raises:
        UsageError: a number is of nobody, or of somebody who got the message or may still get it.
        NotQueued: everybody got it.
    """
    if numbers is None:
        missed = tuple(recipient for recipient in record.recipients if recipient.state in _MISSED)
        if missed:
            return missed
        raise NotQueued(f"message {format_id(record.key)} has no recipient that failed or expired")
    for number in numbers:
        if not 0 <= number < len(record.recipients):
            raise UsageError(
                "recipients",
                f"{number} is not one of this message",
                f"give 0 to {len(record.recipients) - 1}",
            )
        recipient = record.recipients[number]
        if recipient.state not in _MAY_BE_NAMED:
            raise UsageError(
                "recipients",
                f"{number} ({recipient.address}) is {recipient.state.label}",
                "name some that failed, expired or were cancelled",
            )
    if not numbers:
        raise UsageError(
            "recipients", "names nobody", "give numbers, or None for those that failed or expired"
        )
    return tuple(record.recipients[number] for number in sorted(set(numbers)))


def resent_block(
    head: bytes, recipients: Sequence[Address], *, author: str, now: float, unique: str
) -> bytes:
    """Return the Resent fields that stand before a message that is sent again. Pure.

    Only recipients that the message shows are named in Resent-To: a blind copy stays blind.

    Args:
        head: the message's header section.
        recipients: to whom it is sent.
        author: the mailbox of who sends it again.
        now: wall-clock seconds.
        unique: the left-hand side of Resent-Message-ID.

    Raises:
        InvalidAddress: ``author`` is no mailbox.
    """
    _, mailbox = parse_mailbox(author, field="resent_from")
    shown = {str(parse_address(text)) for text in headers.recipients(head)}
    named = [address.value for address in recipients if address.type == "smtp" and str(address) in shown]
    lines = [
        f"Resent-Date: {format_datetime(datetime.fromtimestamp(int(now), UTC))}",
        f"Resent-From: {mailbox}",
        *(["Resent-To: " + ",\r\n ".join(named)] if named else []),
        f"Resent-Message-ID: <{unique}@{mailbox.rpartition('@')[2]}>",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _as_recorded(
    message: NewMessage, chosen: Sequence[RecipientRecord], plan: Callable[[Address], tuple[str, ...]]
) -> NewMessage:
    """Return it with exactly these recipients (a list by that name is not expanded again) and what was said of them."""
    prepared = {recipient.address: recipient for recipient in message.recipients}
    recipients: list[NewRecipient] = []
    for record in chosen:
        new = prepared.get(record.address)
        if new is None:
            names = plan(record.address)
            new = NewRecipient(record.address, names[0] if names else record.transport)
        recipients.append(new if record.options is None else new._replace(options=record.options))
    return message._replace(recipients=tuple(recipients))
