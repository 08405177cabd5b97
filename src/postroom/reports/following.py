"""What is to be done about one followup of the spool, and doing it. Blocks on the spool and on other people's code."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

from tenacity.stop import stop_after_delay

from postroom.clock import Clock
from postroom.envelopes import Submission
from postroom.errors import MessageTooLarge, UsageError
from postroom.ids import format_id
from postroom.metrics import Instruments
from postroom.options import MessageOptions
from postroom.preprocessing.aftermath import Aftermath
from postroom.preprocessing.threads import HookHung, HookThread, Hung
from postroom.reports.composing import compose_report
from postroom.reports.deciding import Decision, decide_delay, decide_ends
from postroom.reports.facts import DeliveryReport, ReportFacts, kind_of
from postroom.reports.limiting import SenderLimiter
from postroom.reports.policy import ReportPolicy
from postroom.status import message_status
from postroom.stores.base import Followup, MessageRecord, NewMessage, Reader, RecipientRecord
from postroom.transports.base import Transport

__all__ = ["Done", "Follower", "Reporter", "SentTeller", "pause_after"]

log = logging.getLogger("postroom.follower")

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 3600.0
GIVE_UP: Final = 86_400.0
"""Seconds: what other people's code refuses is tried again after pauses as long as the time since it was first due,
within these bounds, and given up after a day: some 30 times in all, whoever counts."""

HUNG_CALLBACKS: Final = 4
"""Calls of the callback that may hang before it is not called any more."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a followup.

    Attributes:
        reported: the recipients that are dealt with.
        again: when to look again, or None.
        messages: reports to store in the same transaction.
        result: what is counted once that is durable, as (kind, result), or None.
    """

    reported: frozenset[int] = frozenset()
    again: float | None = None
    messages: tuple[NewMessage, ...] = ()
    result: tuple[str, str] | None = None


class Follower(Protocol):
    """Does followups of some kinds. Used by one thread, except ``interrupt``."""

    def perform(self, followup: Followup) -> Done:
        """Do what is to be done. Never raises for other people's faults."""
        ...

    def interrupt(self) -> None:
        """End a wait for other people's code; any thread may say so."""
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...


def pause_after(since: float, now: float) -> float | None:
    """Return when to try again what has failed since ``since``; None to give up. Times are wall-clock seconds."""
    failing = max(0.0, now - since)
    if failing >= GIVE_UP:
        return None
    return now + min(max(failing, FIRST_PAUSE), LONGEST_PAUSE)


class Reporter:
    """Makes the reports of one spool.

    Args:
        policy: see :class:`ReportPolicy`.
        reader: for messages and their octets.
        clock: for dates.
        prepare: checks and serialises a submission, as :meth:`postroom.submitting.Submitter.prepare`.
        host: the domain that reports are from, if the policy says nothing.
        transports: by name, for how long they try.
        limiter: how often a sender is told; shared by all that report in a process.
        instruments: where reports of which nothing is stored are counted.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        *,
        policy: ReportPolicy,
        reader: Reader,
        clock: Clock,
        prepare: Callable[[Submission], NewMessage],
        host: str,
        transports: Mapping[str, Transport],
        limiter: SenderLimiter,
        instruments: Instruments,
    ) -> None:
        self._policy = policy
        self._reader = reader
        self._clock = clock
        self._prepare = prepare
        self._host = policy.host(host)
        self._transports = transports
        self._limiter = limiter
        self._instruments = instruments
        self._thread = HookThread(Hung(HUNG_CALLBACKS, HUNG_CALLBACKS))

    def perform(self, followup: Followup) -> Done:
        """Report what is to be reported about a message now."""
        record = self._reader.message(followup.key)
        if record is None:
            return Done()
        now = self._clock.time()
        if followup.kind == "delay":
            decision = decide_delay(record, self._policy, now, self._until)
        else:
            decision = decide_ends(record, self._policy)
        if decision.recipients:
            return self._report(followup, record, decision, now)
        return Done(decision.settled, decision.again)

    def _report(self, followup: Followup, record: MessageRecord, decision: Decision, now: float) -> Done:
        kind = "double_bounce" if decision.double_bounce else str(kind_of(decision.recipients))
        if self._policy.deliver != "spool":
            return self._call(followup, record, decision, kind, now)
        if decision.dropped:
            log.warning(
                "the failure of %s, which has no return address, is counted only", format_id(record.key)
            )
            return Done(decision.settled, result=(kind, "dropped"))
        if not self._policy.reaches(decision.to):
            return Done(decision.settled, result=(kind, "unreachable"))
        at = self._limiter.admit(decision.to, (followup.kind, followup.key), now)
        if at is None:
            return Done(decision.settled, result=(kind, "suppressed"))
        if at > now:
            return Done(again=at)
        return self._send(followup, record, decision, kind, now)

    def interrupt(self) -> None:
        """End a wait for the callback or the wording."""
        self._thread.interrupt()

    def close(self) -> None:
        """Let go of the thread in which the callback runs."""
        self._thread.close()

    def _facts(
        self, followup: Followup, record: MessageRecord, decision: Decision, now: float
    ) -> ReportFacts:
        options = record.options or MessageOptions()
        numbers = ",".join(str(recipient.index) for recipient in decision.recipients)
        unique = blake2b(f"{followup.kind}:{record.key}:{numbers}".encode(), digest_size=6).hexdigest()
        return ReportFacts(
            id=format_id(record.key),
            sender=record.sender,
            to=decision.to or f"postmaster@{self._host}",
            subject=record.subject,
            message_id=record.message_id,
            created=record.created,
            recipients=decision.recipients,
            total=len(record.recipients),
            original=self._reader.content(record.key),
            ret=options.ret,
            envid=options.envid,
            reporting_mta=self._host,
            author=self._policy.author_at(self._host),
            unique=f"{format_id(record.key)}.{followup.kind}.{unique}",
            now=now,
            max_original=self._policy.max_original,
            double_bounce=decision.double_bounce,
        )

    def _composed(self, facts: ReportFacts, *, whole: bool = True) -> bytes:
        wording = self._policy.wording(facts.kind)
        return self._thread.call(
            "wording", lambda: compose_report(facts, wording, whole=whole), self._policy.callback_timeout
        )

    def _send(
        self, followup: Followup, record: MessageRecord, decision: Decision, kind: str, now: float
    ) -> Done:
        facts = self._facts(followup, record, decision, now)
        numbers = ",".join(str(recipient.index) for recipient in decision.recipients)
        name = f"report:{followup.kind}:{record.key}:{numbers}"
        try:
            try:
                message = self._prepared(self._composed(facts), facts, name)
            except MessageTooLarge:
                message = self._prepared(self._composed(facts, whole=False), facts, name)
        except HookHung as error:
            return self._failed(record, decision, kind, now, f"its wording hangs: {error}")
        except UsageError as error:
            # No transport for mail, or an address that is refused now: another try would end alike. A host that
            # sends no mail at all must not hear of it each time.
            log.info("no report about %s can be sent: %s", facts.id, error)
            return Done(decision.settled, result=(kind, "unreachable"))
        options = MessageOptions(report_of=record.key)
        return Done(
            decision.settled,
            messages=(message._replace(options=options, tenant=""),),
            result=(kind, "queued"),
        )

    def _prepared(self, content: bytes, facts: ReportFacts, name: str) -> NewMessage:
        key = (
            name if len(name) <= 200 else f"{name[:150]}:{blake2b(name.encode(), digest_size=16).hexdigest()}"
        )
        message = self._prepare(
            Submission(message=content, sender="", to=[facts.to], idempotency_key=key, report=frozenset())
        )
        # Reports about the same recipients are the same, though they may differ in a date or a word.
        return message._replace(digest=blake2b(key.encode(), digest_size=32).digest())

    def _call(
        self, followup: Followup, record: MessageRecord, decision: Decision, kind: str, now: float
    ) -> Done:
        callback = self._policy.deliver
        assert callback != "spool"  # noqa: S101 - for the type checkers
        facts = self._facts(followup, record, decision, now)
        try:
            report = DeliveryReport(
                kind=facts.kind,
                id=facts.id,
                sender=facts.sender,
                subject=facts.subject,
                message_id=facts.message_id,
                created=facts.created,
                envid=facts.envid,
                recipients=facts.recipients,
                double_bounce=facts.double_bounce,
                content=self._composed(facts),
            )
            self._thread.call("report callback", lambda: callback(report), self._policy.callback_timeout)
        except Exception as error:
            # Other people's code: whatever it raises, the sender is still to be told.
            if not isinstance(error, HookHung):
                log.exception("the callback for reports fails")
            return self._failed(record, decision, kind, now, f"the callback: {error}")
        return Done(decision.settled, result=(kind, "delivered"))

    def _failed(self, record: MessageRecord, decision: Decision, kind: str, now: float, why: str) -> Done:
        again = pause_after(decision.since, now)
        self._instruments.reports.labels(kind, "failed").inc()
        log.warning("no report about %s: %s", format_id(record.key), why)
        if again is None:
            return Done(decision.settled, result=(kind, "given_up"))
        return Done(again=again)

    def _until(self, recipient: RecipientRecord) -> float | None:
        """Return until when a waiting recipient is tried, as far as that can be read from its transport's policy."""
        transport = self._transports.get(recipient.transport)
        limits = [recipient.expires]
        stop = transport.retry.for_address(recipient.address).stop if transport is not None else None
        if isinstance(stop, stop_after_delay) and recipient.first_attempt is not None:
            limits.append(recipient.first_attempt + float(stop.max_delay))
        return min((limit for limit in limits if limit is not None), default=None)


class SentTeller:
    """Tells sent-hooks and preprocessors that messages are complete.

    Args:
        aftermath: whom to tell; its own, not shared.
        reader: for messages and their octets.
        clock: for pauses.
        instruments: where hooks that fail are counted.
    """

    def __init__(self, aftermath: Aftermath, reader: Reader, clock: Clock, instruments: Instruments) -> None:
        self._aftermath = aftermath
        self._reader = reader
        self._clock = clock
        self._instruments = instruments

    def perform(self, followup: Followup) -> Done:
        """Tell everybody; again later when something went wrong, until it is given up."""
        record = self._reader.message(followup.key) if self._aftermath.needed else None
        if record is None:
            return Done()
        problems = self._aftermath.conclude(message_status(record), self._reader.content(followup.key))
        if not problems:
            return Done()
        self._instruments.sent_hook_errors.inc(len(problems))
        since = max((r.changed or record.created for r in record.recipients), default=record.created)
        again = pause_after(since, self._clock.time())
        if again is None:
            log.error(
                "%s is not announced as complete any more: %s", format_id(followup.key), "; ".join(problems)
            )
            self._instruments.sent_hooks_given_up.inc()
        return Done(again=again)

    def interrupt(self) -> None:
        """Nothing that waits can be hurried."""

    def close(self) -> None:
        """Let go of the thread in which hooks run."""
        self._aftermath.close()
