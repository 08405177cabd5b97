"""What a courier hands to a transport's session: one message and those of its recipients to try now."""

from dataclasses import dataclass

from postroom.addresses import Address
from postroom.ids import format_id
from postroom.options import MessageOptions, RecipientOptions

__all__ = ["Delivery", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """One recipient of a delivery.

    Attributes:
        index: the recipient's number within its message, from 0, in the order of submission.
        address: where it goes.
        attempts: attempts made before this one.
        first_attempt: wall-clock seconds of the first attempt, or None.
        in_doubt: an earlier attempt may have succeeded without our learning of it (a process died,
            a connection broke after the data): this one may be a duplicate.
        options: what was said of the recipient beyond its address, or None.
        variant: the number of the content that a preprocessor made for it, None for the message's own.
    """

    index: int
    address: Address
    attempts: int = 0
    first_attempt: float | None = None
    in_doubt: bool = False
    options: RecipientOptions | None = None
    variant: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message and the unsettled recipients of it that one transport is to try together.

    Attributes:
        key: the message's number in the spool (sorts by time; see :mod:`postroom.ids`).
        sender: envelope sender, "" for the null reverse-path (RFC 5321 section 4.5.5). Its domain is in A-labels.
        targets: the recipients, at least one, all of the same transport.
        content: the RFC 5322 message with CRLF line ends and without Bcc.
        created: wall-clock seconds of submission.
        smtputf8: a header or an address needs SMTPUTF8 (RFC 6531).
        eight_bit: the body holds octets above 127 (RFC 6152).
        priority: 1 urgent, 0 normal, -1 non-urgent.
        expires: wall-clock seconds after which it must not be tried any more, or None.
        report: what the sender wants to be told, as "delay,failure,success"; "" for nothing (RFC 3461 NOTIFY).
        options: RET, ENVID and what else was said of the message, or None.
    """

    key: int
    sender: str
    targets: tuple[Target, ...]
    content: bytes
    created: float = 0.0
    smtputf8: bool = False
    eight_bit: bool = False
    priority: int = 0
    expires: float | None = None
    report: str = "failure"
    options: MessageOptions | None = None

    @property
    def message_id(self) -> str:
        """The message's public id in the spool, as in ``receipt.id`` (not the Message-ID header)."""
        return format_id(self.key)
