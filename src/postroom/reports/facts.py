"""What a report is made from: immutable values."""

from dataclasses import dataclass
from enum import StrEnum

from postroom.addresses import Address
from postroom.envelopes import Report
from postroom.outcomes import Reply

__all__ = ["Action", "DeliveryReport", "FormerAddress", "ReportFacts", "ReportedRecipient", "kind_of"]


class Action(StrEnum):
    """What became of a recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


_REPORTS = {Action.FAILED: Report.FAILURE, Action.DELAYED: Report.DELAY}


@dataclass(frozen=True, slots=True)
class FormerAddress:
    """An address that a recipient had before, and what was said of it last."""

    address: Address
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """One recipient in a report. Times are wall-clock seconds.

    Attributes:
        index: its number within the message, from 0.
        address: where it went last.
        action: what became of it.
        status: enhanced status code (RFC 3463); "" to have one made from ``action`` and ``reply``.
        reply: what was said last, or None.
        protocol: in which protocol it was said: "smtp", "http", or "" when we said it ourselves.
        expired: it failed because there was no more time, not because somebody refused it.
        attempts: attempts made.
        last_attempt: when the last one was made, or None.
        retry_until: until when a delayed one is tried, or None when that is not known.
        orcpt: the original recipient as the sender named it (RFC 3461 section 4.2), "rfc822;ann@example.org", or "".
        original: the address it had first, when that was another.
        via: the distribution lists that it came from, outermost first.
        former: the addresses that it had before, oldest first.
    """

    index: int
    address: Address
    action: Action
    status: str = ""
    reply: Reply | None = None
    protocol: str = ""
    expired: bool = False
    attempts: int = 0
    last_attempt: float | None = None
    retry_until: float | None = None
    orcpt: str = ""
    original: Address | None = None
    via: tuple[str, ...] = ()
    former: tuple[FormerAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that a report says. Times are wall-clock seconds, sizes octets.

    Attributes:
        id: of the message reported on, as in ``receipt.id``.
        sender: its envelope sender, "" for the null reverse-path.
        to: who is told: the sender, or the postmaster of a double bounce.
        subject: its subject, decoded.
        message_id: its Message-ID field.
        created: when it was submitted.
        recipients: those to report, at least one.
        total: how many recipients it has.
        original: its octets, None when they are gone.
        ret: what a failure report returns: "full", "hdrs" or "" for the usual (RFC 3461 section 4.3).
        envid: the sender's own name for it (RFC 3461 section 4.4), "" without.
        reporting_mta: the host that reports, a domain.
        author: who the report is from, "Mail Delivery System <postmaster@example.org>".
        unique: what makes the report's Message-ID and boundary unlike others: letters and digits.
        now: the report's date.
        max_original: a larger message is returned as its header only.
        double_bounce: what could not be delivered was sent with the null reverse-path.
    """

    id: str
    sender: str
    to: str
    subject: str = ""
    message_id: str = ""
    created: float
    recipients: tuple[ReportedRecipient, ...]
    total: int
    original: bytes | None
    ret: str = ""
    envid: str = ""
    reporting_mta: str
    author: str
    unique: str
    now: float
    max_original: int
    double_bounce: bool = False

    @property
    def kind(self) -> Report:
        """What the report is about first of all: failure before delay before success."""
        return kind_of(self.recipients)

    @property
    def internationalised(self) -> bool:
        """Whether who is told has an address that needs SMTPUTF8, and so can read a report in UTF-8."""
        return not self.to.isascii()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """A report handed to a callback instead of being sent. Times are wall-clock seconds.

    At least once: after a crash the same report (same ``id`` and recipients) may come again.

    Attributes:
        kind: failure, delay or success.
        id: of the message reported on, as in ``receipt.id``.
        sender: its envelope sender, "" for the null reverse-path.
        subject: its subject, decoded.
        message_id: its Message-ID field.
        created: when it was submitted.
        envid: the sender's own name for it, "" without.
        recipients: those that are reported.
        double_bounce: nobody else is told: the message was sent with the null reverse-path.
        content: the whole report as an RFC 5322 message.
    """

    kind: Report
    id: str
    sender: str
    subject: str
    message_id: str
    created: float
    envid: str
    recipients: tuple[ReportedRecipient, ...]
    double_bounce: bool
    content: bytes


def kind_of(recipients: tuple[ReportedRecipient, ...]) -> Report:
    """Return what a report about these recipients is about first of all: failure before delay before success."""
    kinds = {_REPORTS.get(recipient.action, Report.SUCCESS) for recipient in recipients}
    return next(kind for kind in (Report.FAILURE, Report.DELAY, Report.SUCCESS) if kind in kinds)
