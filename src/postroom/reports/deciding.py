"""Which recipients of a message are to be reported now, and to whom. Pure.

Rules, in this order:

1. *Who asked.* A recipient's own wish (``RecipientOptions.report``) goes before the message's (``NewMessage.report``).
   Failures are told unless that was declined, delays and successes only where they were asked for.
2. *Never a report about a report.* Of a message without return address, and of a report, nobody is told but the
   configured postmaster, and of failures only (a *double bounce*). When what fails was sent to that postmaster, it is
   counted and no more.
3. *Duties taken over.* A relay that promised to report success (``Relayed.reports``) has the recipient recorded as
   reported already.
4. *Delays* concern recipients that should have been tried by now: one that waits for its ``send_at`` is not late, and
   one that is held waits for an operator and not for a way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from postroom.addresses import Address
from postroom.envelopes import Report
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.reports.facts import Action, FormerAddress, ReportedRecipient
from postroom.reports.policy import ReportPolicy
from postroom.stores.base import Attempt, MessageRecord, RecipientRecord

__all__ = ["Decision", "Until", "decide_delay", "decide_ends"]

Until = Callable[[RecipientRecord], float | None]
"""Says until when a waiting recipient is tried, in wall-clock seconds, or None."""

_ENDS: Final = {
    State.FAILED: (Action.FAILED, Report.FAILURE),
    State.EXPIRED: (Action.FAILED, Report.FAILURE),
    State.DELIVERED: (Action.DELIVERED, Report.SUCCESS),
    State.RELAYED: (Action.RELAYED, Report.SUCCESS),
}
_WAITING: Final = frozenset({State.QUEUED, State.SENDING})
_NOT_ATTEMPTS: Final = frozenset({"operator", "failover", "not_mine"})


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about reports of a message.

    Attributes:
        to: who is told; "" for nobody.
        recipients: of whom.
        settled: the numbers of the recipients that are dealt with, told or not.
        double_bounce: the message has no return address.
        dropped: a double bounce that nobody is told of.
        since: wall-clock seconds from which on there was something to tell.
        again: when to look again, or None.
    """

    to: str = ""
    recipients: tuple[ReportedRecipient, ...] = ()
    settled: frozenset[int] = frozenset()
    double_bounce: bool = False
    dropped: bool = False
    since: float = 0.0
    again: float | None = None


def decide_ends(record: MessageRecord, policy: ReportPolicy) -> Decision:
    """Return what is to be told now about recipients that ended."""
    no_return = is_double_bounce(record)
    told: list[RecipientRecord] = []
    dealt: set[int] = set()
    for recipient in record.recipients:
        if recipient.reported or recipient.state not in _ENDS:
            continue
        dealt.add(recipient.index)
        if _is_wanted(record, recipient, policy, no_return=no_return):
            told.append(recipient)
    if not told:
        return Decision(settled=frozenset(dealt))
    since = min(recipient.changed or record.created for recipient in told)
    to = record.sender
    if no_return:
        to = policy.postmaster
        if any(recipient.address == Address("smtp", to) for recipient in told):
            to = ""
    return Decision(
        to,
        tuple(_ended(recipient) for recipient in told),
        frozenset(dealt),
        no_return,
        no_return and not to,
        since,
    )


def decide_delay(record: MessageRecord, policy: ReportPolicy, now: float, until: Until) -> Decision:
    """Return what is to be told now about recipients that are late, or when to look again."""
    late_at = max(record.created, record.due) + policy.delay_after
    if is_double_bounce(record) or Report.DELAY not in policy.kinds:
        return Decision()
    waiting = [
        recipient
        for recipient in record.recipients
        if recipient.state in _WAITING and Report.DELAY in wishes(record, recipient)
    ]
    if not waiting:
        return Decision()
    if now < late_at:
        return Decision(again=late_at)
    recipients = tuple(_reported(r, Action.DELAYED, retry_until=until(r)) for r in waiting)
    return Decision(record.sender, recipients, since=late_at)


def is_double_bounce(record: MessageRecord) -> bool:
    """Return whether a failure of the message is a double bounce: it has no return address, or is a report."""
    return not record.sender or (record.options is not None and record.options.report_of is not None)


def wishes(record: MessageRecord, recipient: RecipientRecord) -> frozenset[str]:
    """Return what the sender wants to be told of a recipient."""
    own = recipient.options.report if recipient.options is not None else None
    return frozenset((record.report if own is None else own).split(","))


def _is_wanted(
    record: MessageRecord, recipient: RecipientRecord, policy: ReportPolicy, *, no_return: bool
) -> bool:
    kind = _ENDS[recipient.state][1]
    if kind not in policy.kinds:
        return False
    if no_return:
        # A report asks for no report, but that it failed is worth knowing.
        is_report = record.options is not None and record.options.report_of is not None
        return kind is Report.FAILURE and (is_report or kind in wishes(record, recipient))
    return kind in wishes(record, recipient)


def _ended(recipient: RecipientRecord) -> ReportedRecipient:
    return _reported(recipient, _ENDS[recipient.state][0])


def _reported(
    recipient: RecipientRecord, action: Action, retry_until: float | None = None
) -> ReportedRecipient:
    options = recipient.options
    reply = recipient.reply
    expired = recipient.state is State.EXPIRED
    if expired:
        reply = _last_refusal(recipient) or reply
    original = options.original if options is not None else None
    return ReportedRecipient(
        index=recipient.index,
        address=recipient.address,
        action=action,
        reply=reply,
        protocol=protocol_of(recipient.address, reply),
        expired=expired,
        attempts=recipient.attempts,
        last_attempt=_last_attempt(recipient),
        retry_until=retry_until,
        orcpt=options.orcpt if options is not None else "",
        original=original if original != recipient.address else None,
        via=options.via if options is not None else (),
        former=_former(recipient),
    )


def protocol_of(address: Address, reply: Reply | None) -> str:
    """Return in which protocol a reply was given; "" when it was not a remote system that spoke."""
    if reply is None or reply.code is None or not 200 <= reply.code <= 599:
        return ""
    return {"smtp": "smtp", "http": "http", "https": "http"}.get(address.type, "")


def _attempts(recipient: RecipientRecord) -> list[Attempt]:
    return [attempt for attempt in recipient.history if attempt.outcome not in _NOT_ATTEMPTS]


def _last_attempt(recipient: RecipientRecord) -> float | None:
    if recipient.state in {State.DELIVERED, State.RELAYED}:
        return recipient.changed
    tries = [attempt for attempt in _attempts(recipient) if attempt.outcome != "expired"]
    if tries:
        return tries[-1].at
    return recipient.changed if recipient.attempts and recipient.state is State.FAILED else None


def _last_refusal(recipient: RecipientRecord) -> Reply | None:
    """Return what the other side said last: that it was too late in the end says nothing of the reason."""
    refusals = [
        attempt.reply
        for attempt in _attempts(recipient)
        if attempt.outcome != "expired" and attempt.address is None and str(attempt.reply)
    ]
    return refusals[-1] if refusals else None


def _former(recipient: RecipientRecord) -> tuple[FormerAddress, ...]:
    former: dict[Address, Reply] = {}
    for attempt in _attempts(recipient):
        if attempt.address is not None and attempt.address != recipient.address:
            former[attempt.address] = attempt.reply
    return tuple(FormerAddress(address, reply) for address, reply in former.items())
