"""From what a transport said to what goes on the record: pure functions."""

from collections.abc import Sequence
from typing import cast

from postroom.active_queue import Crash, Job, Outage, Result, TimedOut
from postroom.delivery import Target
from postroom.outcomes import (
    MAX_REPLY_TEXT,
    Accepted,
    Deferred,
    Delivered,
    Failed,
    NotMine,
    Outcome,
    Relayed,
    Reply,
)
from postroom.recipients import State
from postroom.retries import RetryPolicy
from postroom.routing import Router
from postroom.stores.base import Settlement, storable

__all__ = ["POISON_CRASHES", "check_outcomes", "expire_job", "settle_job"]

POISON_CRASHES = 3
"""Couriers that a message may crash before it is put on hold."""

MAX_STATUS = 16
MAX_REMOTE = 255
"""Characters of an enhanced status code and of a host's name that are kept."""

CRASH_DELAY = 5.0
"""Seconds until a recipient whose courier crashed is tried again, times the number of its crashes."""


def check_outcomes(outcomes: object, targets: Sequence[Target]) -> Sequence[Outcome]:
    """Return one outcome per target.

    Raises:
        TypeError: the transport returned something else.
    """
    if isinstance(outcomes, Outcome):
        return (outcomes,) * len(targets)
    if isinstance(outcomes, Sequence):
        sequence = cast("Sequence[object]", outcomes)
        given = [outcome for outcome in sequence if isinstance(outcome, Outcome)]
        if len(given) == len(sequence) == len(targets):
            return given
    raise TypeError(
        f"a session's send() returned {outcomes!r} for {len(targets)} target(s); "
        "it must return one Outcome, or one for each target in their order"
    )


def settle_job(  # noqa: PLR0913 - named
    job: Job, result: Result, *, policy: RetryPolicy, router: Router, now: float, hold_in_doubt: bool = False
) -> list[Settlement]:
    """Return the change on the record of every recipient of a job that ended.

    Recipients of one message that are deferred together get one due time, so that they go out together again. With
    ``hold_in_doubt`` a recipient whose attempt may have succeeded is held instead of tried again.
    """
    if isinstance(result, Outage):
        raise TypeError("an outage settles nothing")
    if isinstance(result, Crash):
        return [_crashed(job, target, result, now, hold=hold_in_doubt) for target in job.targets]
    if isinstance(result, TimedOut):
        text = f"no answer within {result.seconds:.0f} s; the attempt was abandoned and may have succeeded"
        result = [Deferred(Reply(text, "4.4.2"), in_doubt=True)] * len(job.targets)
    return _settle(job, result, policy, router, now, hold_in_doubt=hold_in_doubt)


def _settle(  # noqa: C901, PLR0912, PLR0913 - internal; one case per outcome
    job: Job,
    outcomes: Sequence[Outcome],
    policy: RetryPolicy,
    router: Router,
    now: float,
    *,
    hold_in_doubt: bool,
) -> list[Settlement]:
    if len(outcomes) == 1 and type(outcomes[0]) in _PLAIN:
        return [_plain(job, job.targets[0], outcomes[0], now)]
    due_times: dict[tuple[int, float, float | None], float | None] = {}
    settlements: list[Settlement] = []
    for target, outcome in zip(job.targets, outcomes, strict=True):
        doubtful = isinstance(outcome, Deferred) and outcome.in_doubt
        if doubtful and hold_in_doubt:
            settlements.append(_doubtful(job, target, outcome.reply.text, now))
            continue
        first = target.first_attempt if target.first_attempt is not None else job.started
        attempts = target.attempts + 1
        due: float | None = None
        transport: str | None = None
        remote_id: str | None = None
        reply = _clean(outcome.reply)
        match outcome:
            case Relayed():
                state, label = State.RELAYED, "relayed"
            case Delivered():
                state, label = State.DELIVERED, "delivered"
            case Accepted():
                state, label, remote_id = State.ACCEPTED, "accepted", storable(outcome.remote_id)
            case Failed():
                state, label = State.FAILED, "failed"
            case NotMine():
                attempts -= 1
                transport = router.after(target.address, job.transport)
                if transport is None:
                    state, label = State.FAILED, "failed"
                    reply = Reply("no transport delivers to this address", "5.1.2")
                else:
                    state, label, due = State.QUEUED, "not_mine", now
            case Deferred():
                asked = (attempts, first, outcome.retry_after)
                if asked not in due_times:
                    due_times[asked] = policy.next_attempt(
                        attempts=attempts, first_attempt=first, now=now, retry_after=outcome.retry_after
                    )
                due = due_times[asked]
                if due is None:
                    state, label = State.EXPIRED, "expired"
                else:
                    state, label = State.QUEUED, "deferred"
                    due = due if job.expires is None else min(due, job.expires)
        settlements.append(
            Settlement(
                key=job.key, index=target.index, transport=job.transport, was=_was(job), state=state, at=now,
                attempts=attempts, first_attempt=first, due=due, reply=reply, outcome=label, next_transport=transport,
                remote_id=remote_id, crashes=job.crashes, in_doubt=doubtful or target.in_doubt,
                duration=job.ended - job.started,
                only=job.recipient_count == 1,
            )
        )  # fmt: skip
    return settlements


_PLAIN: dict[type, tuple[State, str]] = {
    Delivered: (State.DELIVERED, "delivered"),
    Relayed: (State.RELAYED, "relayed"),
}


def _plain(job: Job, target: Target, outcome: Outcome, now: float) -> Settlement:
    """Return what nearly every job comes to, without the questions that the others need."""
    state, label = _PLAIN[type(outcome)]
    first = target.first_attempt
    return Settlement(
        job.key, target.index, job.transport, State.SENDING if job.journalled else State.QUEUED, state, now,
        target.attempts + 1, job.started if first is None else first, None, _clean(outcome.reply), label, None, None,
        job.crashes, target.in_doubt, None, job.ended - job.started, job.recipient_count == 1,
    )  # fmt: skip


def _was(job: Job) -> State:
    return State.SENDING if job.journalled else State.QUEUED


def _crashed(job: Job, target: Target, crash: Crash, now: float, *, hold: bool) -> Settlement:
    crashes = job.crashes + 1
    poison = crashes >= POISON_CRASHES
    if poison:
        text = f"poison: crashed {crashes} couriers, last with {crash.reason}"
    elif hold:
        text = f"in doubt: crashed: {crash.reason}; release to send it (again)"
    else:
        text = f"crashed: {crash.reason}"
    return Settlement(
        key=job.key, index=target.index, transport=job.transport, was=_was(job),
        state=State.HELD if poison or hold else State.QUEUED, at=now, attempts=target.attempts,
        first_attempt=target.first_attempt, due=now + CRASH_DELAY * crashes, reply=_clean(Reply(text, "4.3.0")),
        outcome="crashed", crashes=crashes, in_doubt=True, detail=storable(crash.traceback),
        duration=job.ended - job.started, only=job.recipient_count == 1,
    )  # fmt: skip


def _doubtful(job: Job, target: Target, text: str, now: float) -> Settlement:
    return Settlement(
        key=job.key, index=target.index, transport=job.transport, was=_was(job), state=State.HELD, at=now,
        attempts=target.attempts + 1, first_attempt=target.first_attempt or job.started, due=now,
        reply=Reply(f"in doubt: {text}; release to send it (again)", "4.4.2"), outcome="deferred", crashes=job.crashes,
        in_doubt=True, duration=job.ended - job.started, only=job.recipient_count == 1,
    )  # fmt: skip


def expire_job(job: Job, now: float) -> list[Settlement]:
    """Return the settlements of a job that nobody tries any more because its message expired."""
    return [
        Settlement(
            key=job.key, index=target.index, transport=job.transport, was=_was(job), state=State.EXPIRED, at=now,
            attempts=target.attempts, first_attempt=target.first_attempt, outcome="expired", in_doubt=target.in_doubt,
            reply=Reply("expired before it could be delivered", "4.4.7"), only=job.recipient_count == 1,
        )
        for target in job.targets
    ]  # fmt: skip


def _clean(reply: Reply) -> Reply:
    """Make a remote's text fit for the record: one line, bounded, valid Unicode."""
    whole = reply.text + reply.status + reply.remote
    if len(whole) <= MAX_REPLY_TEXT and whole.isascii() and whole.isprintable():
        return reply
    return Reply(
        _line(reply.text, MAX_REPLY_TEXT), _line(reply.status, MAX_STATUS), reply.code, _line(reply.remote, MAX_REMOTE)
    )  # fmt: skip


def _line(text: str, limit: int) -> str:
    line = " ".join(storable(text).split())[:limit]
    return "".join(char if char.isprintable() else "?" for char in line)
