"""From a finished SMTP or LMTP transaction to the spool, and to the replies; runs in a worker's thread."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

from postroom.addresses import Address
from postroom.clock import Clock
from postroom.envelopes import Recipient, Submission
from postroom.errors import IdempotencyConflict, UsageError, WorldError
from postroom.inbound.values import Arrival, LedgerKey
from postroom.receivers.base import Inlet
from postroom.receivers.listener_commands import MailCommand, RcptCommand, Refused
from postroom.receivers.listener_policy import Way
from postroom.receivers.listener_replies import TOO_LARGE, TROUBLE, refusal
from postroom.receivers.listener_trace import (
    Origin,
    fingerprint,
    has_message_id,
    hops,
    received_field,
    return_path,
)

__all__ = ["LEDGER_SOURCE", "Addressee", "Intake", "Transaction", "unstuffed"]

LEDGER_SOURCE = "smtp"
"""The ledger's name for what came in through listeners."""

log = logging.getLogger("postroom.receivers.listener")


@dataclass(frozen=True, slots=True)
class Addressee:
    """A recipient that was accepted.

    Attributes:
        command: what RCPT said.
        way: what becomes of it.
    """

    command: RcptCommand
    way: Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An envelope at the moment its content has come.

    Attributes:
        mail: what MAIL said.
        recipients: those accepted, in the order of RCPT; one that came twice is there twice.
        origin: who sends it.
        tenant: the client's, None when it gave no user and password.
    """

    mail: MailCommand
    recipients: tuple[Addressee, ...]
    origin: Origin
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What one message becomes: mail for us, or mail to send, or both."""

    arrivals: tuple[Arrival, ...]
    submissions: tuple[Submission, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Takes messages in. Thread-safe.

    Attributes:
        inlet: the way into the spool.
        clock: the time in Received fields and of arrivals.
        hostname: our own name.
        max_size: octets that a content may have.
        max_hops: Received fields with which a message is taken for a loop.
        remember: seconds for which the ledger knows an incoming message.
        timeout: seconds for the spool to take a message, None for its own default.
        unique: makes the names under which clients are told that we have a message.
    """

    inlet: Inlet
    clock: Clock
    hostname: str
    max_size: int
    max_hops: int
    remember: float
    timeout: float | None = None
    unique: Callable[[], str] = lambda: token_hex(8)

    def take(self, transaction: Transaction, wire: bytes) -> tuple[str, ...]:
        """Make a message durable; return the reply to each recipient, equal ones in SMTP. Never raises.

        A reply of 250 means that the transaction of the spool is committed.

        Args:
            transaction: the envelope, with at least one recipient.
            wire: the content, dot-stuffed, without the final dot.
        """
        count = len(transaction.recipients)
        try:
            return self._hand_over(transaction, self._checked(unstuffed(wire)))
        except Refused as refused:
            return (refused.reply,) * count
        except UsageError as error:
            return (refusal(error),) * count
        except WorldError as error:
            log.warning("a message from %s was put off: %s", transaction.origin.ip, error)
            return (refusal(error),) * count
        except Exception:
            # Its sender still has the message and must keep it, whatever is wrong here.
            log.exception("a message from %s was put off", transaction.origin.ip)
            return (TROUBLE,) * count

    def _checked(self, content: bytes) -> bytes:
        if len(content) > self.max_size:
            raise Refused(TOO_LARGE.format(self.max_size))
        found = hops(content)
        if found > self.max_hops:
            raise Refused(f"554 5.4.6 Mail loop: the message has {found} Received fields")
        return content

    def _hand_over(self, transaction: Transaction, content: bytes) -> tuple[str, ...]:
        unique = self.unique()
        taken = f"250 2.0.0 Ok, taken as {unique}"
        parts = self._parts(transaction, content, unique)
        outgoing = taken
        try:
            self.inlet.take(parts.arrivals, submissions=parts.submissions, timeout=self.timeout)
        except IdempotencyConflict:
            # The key is a digest of all that the client sent, so this is the same message once more, with another
            # Received field of ours. The incoming part was committed with it; the ledger knows it if it was.
            if parts.arrivals:
                self.inlet.take(parts.arrivals, timeout=self.timeout)
        except UsageError as error:
            if transaction.origin.protocol == "smtp" or not (parts.arrivals and parts.submissions):
                raise
            # RFC 2033 section 4.2: what is wrong with outgoing mail is no reason to refuse the others.
            self.inlet.take(parts.arrivals, timeout=self.timeout)
            outgoing = refusal(error)
        return tuple(
            outgoing if addressee.way is Way.OUTGOING else taken for addressee in transaction.recipients
        )

    def _parts(self, transaction: Transaction, content: bytes, unique: str) -> _Parts:
        now = self.clock.time()
        mail, origin = transaction.mail, transaction.origin
        incoming: dict[str, RcptCommand] = {}
        outgoing: dict[str, RcptCommand] = {}
        for addressee in transaction.recipients:
            ways = incoming if addressee.way is Way.INCOMING else outgoing
            ways.setdefault(addressee.command.address, addressee.command)
        received = received_field(
            origin, hostname=self.hostname, unique=unique, recipients=(*incoming, *outgoing), now=now
        )
        name = fingerprint(content, *_said(transaction)) if has_message_id(content) else None
        arrivals: tuple[Arrival, ...] = ()
        submissions: tuple[Submission, ...] = ()
        if incoming:
            arrival = Arrival(
                content=b"%b%b%b" % (return_path(mail.sender), received, content),
                keys=() if name is None else (LedgerKey(LEDGER_SOURCE, name, now + self.remember),),
                sender=mail.sender,
                recipients=tuple(incoming),
                received=now,
                remote=origin.ip,
            )
            arrivals = (arrival,)
        if outgoing:
            submission = Submission(
                message=received + content,
                sender=mail.sender,
                to=[
                    Recipient(Address("smtp", address), report=command.report, orcpt=command.orcpt)
                    for address, command in outgoing.items()
                ],
                idempotency_key=None if name is None else f"{LEDGER_SOURCE}:{name}",
                tenant=transaction.tenant,
                ret=mail.ret,
                envid=mail.envid,
            )
            submissions = (submission,)
        return _Parts(arrivals=arrivals, submissions=submissions)


def unstuffed(wire: bytes) -> bytes:
    """Return a content as its author wrote it (RFC 5321 section 4.5.2).

    Raises:
        Refused: it holds a CR without LF, or an LF without CR. Another system may take these for line ends, find the
            end of the data behind one of them, and a second message after it.
    """
    pairs = wire.count(b"\r\n")
    if not pairs == wire.count(b"\n") == wire.count(b"\r"):
        raise Refused("554 5.5.2 The message holds a bare CR or LF; end lines with CRLF")
    if wire.startswith(b"."):
        wire = wire[1:]
    return wire.replace(b"\r\n.", b"\r\n") if b"\r\n." in wire else wire


def _said(transaction: Transaction) -> tuple[str, ...]:
    """Return all that an envelope says, in an order of its own, since a client may try again in another one."""
    mail = transaction.mail
    recipients = sorted(
        repr(
            (
                one.way.value,
                one.command.address,
                None if one.command.report is None else sorted(one.command.report),
                one.command.orcpt,
            )
        )
        for one in set(transaction.recipients)
    )
    return (mail.sender, transaction.tenant or "", mail.ret or "", mail.envid or "", *recipients)
