"""From what a transport said to what goes on the record: pure functions."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from postroom.active_queue import Crash, Job, Outage, Result, TimedOut
from postroom.addresses import Address
from postroom.alternatives import turn_to_alternative
from postroom.delivery import Target
from postroom.options import RecipientOptions
from postroom.outcomes import (
    MAX_REPLY_TEXT,
    Accepted,
    Deferred,
    Delivered,
    Failed,
    NotMine,
    Outcome,
    Processed,
    Relayed,
    Reply,
)
from postroom.recipients import State
from postroom.retries import RetryPolicies, RetryPolicy
from postroom.routing import Router
from postroom.stores.base import Settlement, storable
from postroom.windows import parse_window

__all__ = ["NO_TRANSPORT", "POISON_CRASHES", "check_outcomes", "expire_job", "next_due", "settle_job"]

POISON_CRASHES = 3
"""Couriers that a message may crash before it is put on hold."""

NO_TRANSPORT = Reply("no transport delivers to this address", "5.1.2")
"""What is on the record of a recipient when nobody is left to try."""

MAX_STATUS = 16
MAX_REMOTE = 255
"""Characters of an enhanced status code and of a host's name or a cipher's that are kept."""

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
    job: Job,
    result: Result,
    *,
    policy: RetryPolicy | RetryPolicies,
    router: Router,
    now: float,
    hold_in_doubt: bool = False,
) -> list[Settlement]:
    """Return the change on the record of every recipient of a job that ended.

    Recipients of one message that are deferred together get one due time, so that they go out together again. With
    ``hold_in_doubt`` a recipient whose attempt may have succeeded is held instead of tried again. One that fails for
    good turns to its alternatives first, unless the message has expired. Whoever is due again is so within the
    message's delivery window.
    """
    if isinstance(result, Outage):
        raise TypeError("an outage settles nothing")
    if isinstance(result, Crash):
        return [_crashed(job, target, result, now, hold=hold_in_doubt) for target in job.targets]
    if isinstance(result, TimedOut):
        text = f"no answer within {result.seconds:.0f} s; the attempt was abandoned and may have succeeded"
        result = [Deferred(Reply(text, "4.4.2"), in_doubt=True)] * len(job.targets)
    if len(result) == 1 and isinstance(happy := result[0], (Relayed, Delivered)):
        return [_plain(job, job.targets[0], happy, now)]
    circumstances = _Circumstances(job, policy, router, now, {})
    return [
        _plain(job, target, outcome, now)
        if isinstance(outcome, (Relayed, Delivered))
        else _doubtful(job, target, outcome.reply.text, now)
        if hold_in_doubt and isinstance(outcome, Deferred) and outcome.in_doubt
        else _settle(circumstances, target, outcome)
        for target, outcome in zip(job.targets, result, strict=True)
    ]


def expire_job(job: Job, now: float, router: Router | None = None) -> list[Settlement]:
    """Return the settlements of a job that nobody tries any more because its message expired.

    A message that expired is not sent to alternatives either. Where it has not, as when an operator lets a recipient
    expire, they are tried; ``router`` says who delivers to them, None has none tried.
    """
    reply = Reply("expired before it could be delivered", "4.4.7")
    settlements: list[Settlement] = []
    for target in job.targets:
        change = _Change(State.EXPIRED, "expired", reply, target.attempts, target.first_attempt)
        if router is not None:
            change = _turned(job, target, change, router, now)
        settlements.append(_settlement(job, target, change, now, duration=None))
    return settlements


def next_due(job: Job, at: float) -> float:
    """Return when a recipient is really due that is to be tried at ``at``.

    That is when the message's delivery window is open, but not after it expires: that is then noticed.
    """
    if job.options is not None and job.options.window:
        at = parse_window(job.options.window).next_open(at)
    return at if job.expires is None else min(at, job.expires)


_Unhappy = Accepted | Failed | NotMine | Processed | Deferred


class _Circumstances(NamedTuple):
    """What the settling of one job has in common.

    Attributes:
        job: the job.
        policy: of its transport.
        router: where recipients go next.
        now: wall-clock seconds.
        retries: the due times that were worked out, by everything that they depend on.
    """

    job: Job
    policy: RetryPolicy | RetryPolicies
    router: Router
    now: float
    retries: dict[tuple[int, int, float, float | None, bool], float | None]


class _Change(NamedTuple):
    """What becomes of one recipient; the fields are those of :class:`postroom.stores.base.Settlement`."""

    state: State
    outcome: str
    reply: Reply
    attempts: int
    first_attempt: float | None
    due: float | None = None
    next_transport: str | None = None
    next_address: Address | None = None
    next_options: RecipientOptions | None = None
    remote_id: str | None = None
    in_doubt: bool = False
    content: bytes | None = None


def _settle(given: _Circumstances, target: Target, outcome: _Unhappy) -> Settlement:
    job, now = given.job, given.now
    change = _change(given, target, outcome)
    if change.state is State.FAILED or change.state is State.EXPIRED:
        change = _turned(job, target, change, given.router, now)
    return _settlement(job, target, change, now, duration=job.ended - job.started)


def _change(given: _Circumstances, target: Target, outcome: _Unhappy) -> _Change:
    first = target.first_attempt if target.first_attempt is not None else given.job.started
    attempts = target.attempts + 1
    reply = outcome.reply
    match outcome:
        case Accepted():
            remote_id = storable(outcome.remote_id)
            return _Change(State.ACCEPTED, "accepted", reply, attempts, first, remote_id=remote_id)
        case Failed():
            return _Change(State.FAILED, "failed", reply, attempts, first)
        case NotMine():
            return _moved(given, target, _Change(State.QUEUED, "not_mine", reply, target.attempts, first))
        case Processed():
            # Nobody has tried to deliver to it yet, so that the time to give up has not begun to run either.
            return _moved(
                given,
                target,
                _Change(
                    State.QUEUED,
                    "processed",
                    reply,
                    0,
                    None,
                    content=outcome.content,
                ),
            )
        case Deferred():
            due = _retry(given, target, outcome, attempts, first)
            state, label = (State.EXPIRED, "expired") if due is None else (State.QUEUED, "deferred")
            return _Change(state, label, reply, attempts, first, due, in_doubt=outcome.in_doubt)


def _moved(given: _Circumstances, target: Target, change: _Change) -> _Change:
    """Return the change with the transport that comes next, or a failure when there is none."""
    following = given.router.after(target.address, given.job.transport)
    if following is None:
        return change._replace(state=State.FAILED, outcome="failed", reply=NO_TRANSPORT, content=None)
    return change._replace(due=next_due(given.job, given.now), next_transport=following)


def _retry(
    given: _Circumstances, target: Target, outcome: Deferred, attempts: int, first: float
) -> float | None:
    policy = given.policy.for_address(target.address)
    asked = (id(policy), attempts, first, outcome.retry_after, outcome.greylisted)
    if asked not in given.retries:
        due = policy.next_attempt(
            attempts=attempts, first_attempt=first, now=given.now, retry_after=outcome.retry_after,
            greylisted=outcome.greylisted,
        )  # fmt: skip
        given.retries[asked] = None if due is None else next_due(given.job, due)
    return given.retries[asked]


def _turned(job: Job, target: Target, change: _Change, router: Router, now: float) -> _Change:
    """Return what becomes of a recipient that failed for good: it turns to its next alternative, if it has one."""
    if target.options is None or (job.expires is not None and job.expires <= now):
        return change
    turn = turn_to_alternative(target.address, target.options, router)
    if turn is None:
        return change
    return change._replace(
        state=State.QUEUED, attempts=0, first_attempt=None, due=next_due(job, now), next_transport=turn.transport,
        next_address=turn.address, next_options=turn.options,
    )  # fmt: skip


def _settlement(
    job: Job, target: Target, change: _Change, now: float, *, duration: float | None
) -> Settlement:
    return Settlement(
        key=job.key, index=target.index, transport=job.transport, was=_was(job), state=change.state, at=now,
        attempts=change.attempts, first_attempt=change.first_attempt, due=change.due, reply=_clean(change.reply),
        outcome=change.outcome, next_transport=change.next_transport, remote_id=change.remote_id,
        crashes=job.crashes, in_doubt=change.in_doubt or target.in_doubt,
        duration=duration, only=job.recipient_count == 1, next_address=change.next_address,
        next_options=change.next_options, content=change.content, followed=job.followed,
    )  # fmt: skip


def _plain(job: Job, target: Target, outcome: Relayed | Delivered, now: float) -> Settlement:
    """Return what nearly every job comes to, without the questions that the others need."""
    if isinstance(outcome, Relayed):
        state, label, reported = State.RELAYED, "relayed", outcome.reports
    else:
        state, label, reported = State.DELIVERED, "delivered", False
    first = target.first_attempt
    return Settlement(
        job.key, target.index, job.transport, State.SENDING if job.journalled else State.QUEUED, state, now,
        target.attempts + 1, job.started if first is None else first, None, _clean(outcome.reply), label, None, None,
        job.crashes, target.in_doubt, None, job.ended - job.started, job.recipient_count == 1, None, None, None,
        job.followed, reported,
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
        first_attempt=target.first_attempt, due=next_due(job, now + CRASH_DELAY * crashes),
        reply=_clean(Reply(text, "4.3.0")),
        outcome="crashed", crashes=crashes, in_doubt=True, detail=storable(crash.traceback),
        duration=job.ended - job.started, only=job.recipient_count == 1,
        followed=job.followed,
    )  # fmt: skip


def _doubtful(job: Job, target: Target, text: str, now: float) -> Settlement:
    return Settlement(
        key=job.key, index=target.index, transport=job.transport, was=_was(job), state=State.HELD, at=now,
        attempts=target.attempts + 1, first_attempt=target.first_attempt or job.started, due=now,
        reply=Reply(f"in doubt: {text}; release to send it (again)", "4.4.2"), outcome="deferred", crashes=job.crashes,
        in_doubt=True, duration=job.ended - job.started, only=job.recipient_count == 1,
        followed=job.followed,
    )  # fmt: skip


def _clean(reply: Reply) -> Reply:
    """Make a remote's text fit for the record: one line, bounded, valid Unicode."""
    whole = reply.text + reply.status + reply.remote + reply.tls
    if len(whole) <= MAX_REPLY_TEXT and whole.isascii() and whole.isprintable():
        return reply
    return Reply(
        _line(reply.text, MAX_REPLY_TEXT), _line(reply.status, MAX_STATUS), reply.code, _line(reply.remote, MAX_REMOTE),
        _line(reply.tls, MAX_REMOTE),
    )  # fmt: skip


def _line(text: str, limit: int) -> str:
    line = " ".join(storable(text).split())[:limit]
    return "".join(char if char.isprintable() else "?" for char in line)
