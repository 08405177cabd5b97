"""Settlements of jobs that wait and are not going to be tried now: they go back to the spool, or on. Pure functions."""

from postroom.active_queue import Job
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.routing import Router
from postroom.stores.base import Settlement

__all__ = ["give_back_job", "move_on_job"]


def give_back_job(job: Job, due: float, now: float) -> list[Settlement]:
    """Return the settlements that put a job back into the spool, due at ``due``; it costs no attempt.

    Times are wall-clock seconds. No later than its expiry, which is then seen to.
    """
    due = due if job.expires is None else min(due, job.expires)
    return [
        Settlement(
            key=job.key, index=target.index, transport=job.transport,
            was=State.SENDING if job.journalled else State.QUEUED, state=State.QUEUED, at=now,
            attempts=target.attempts, first_attempt=target.first_attempt, due=due, crashes=job.crashes,
            in_doubt=target.in_doubt, only=job.recipient_count == 1, followed=job.followed,
        )
        for target in job.targets
    ]  # fmt: skip


def move_on_job(job: Job, router: Router, now: float) -> list[Settlement] | None:
    """Return the settlements that hand a job to the next transport in its plan, because its own is out for long.

    Recipients who have no other transport go back to the spool. None when none of them has one.
    """
    settlements: list[Settlement] = []
    moved = False
    for target, back in zip(job.targets, give_back_job(job, now, now), strict=True):
        planned = router.failover(target.address, job.transport, frozenset())
        if planned is None or planned.transport is None:
            settlements.append(back)
            continue
        moved = True
        settlements.append(
            back._replace(next_transport=planned.transport, reply=Reply(planned.reason), outcome="failover")
        )
    return settlements if moved else None
