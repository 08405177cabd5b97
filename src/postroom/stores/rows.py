"""Between the values of the store and the rows of its tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from postroom.addresses import Address
from postroom.delivery import Target
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.onestep import is_plain
from postroom.stores.values import Claimed, Settlement

__all__ = ["QUIET", "attempt_row", "claimed", "expiry", "finished", "is_happy", "settle_row"]


def finished(settlements: Iterable[Settlement]) -> tuple[list[int], list[int]]:
    """Return the messages that are complete by these changes, and those that may be."""
    done: list[int] = []
    asked: dict[int, None] = {}
    for s in settlements:
        if s.state.is_final:
            if s.only:
                done.append(s.key)
            else:
                asked[s.key] = None
    return done, list(asked)


def settle_row(s: Settlement, variant: int | None, lane: int | None) -> tuple[Any, ...]:
    """Return the values of :data:`postroom.stores.sql.SETTLE`."""
    reply = s.reply or Reply()
    to = s.next_address
    return (
        s.key, s.index, s.was, s.state, s.due, s.next_transport, s.attempts, s.first_attempt, s.at, s.crashes,
        int(s.in_doubt), reply.code, reply.status, reply.text, reply.remote, s.remote_id, s.detail, reply.tls or None,
        s.duration, to and to.type, to and to.value, s.next_options and s.next_options.to_json(),
        lane, variant, int(s.reported),
        int(s.reply is None and not s.outcome),
    )  # fmt: skip


QUIET = frozenset({"", "delivered", "relayed", "accepted", "cancelled"})


def is_happy(s: Settlement) -> bool:
    """Whether a settlement is plain and leaves no row of history."""
    return s.outcome in QUIET and is_plain(s)


def attempt_row(s: Settlement, address: str | None = None) -> tuple[Any, ...]:
    """The happy end is on the recipient itself; everything else leaves a row of history."""
    reply = s.reply or Reply()
    return (
        s.key, s.index, s.at, s.transport, s.outcome, reply.code, reply.status, reply.text, reply.remote, s.duration,
        s.detail, reply.tls or None, address,
    )  # fmt: skip


def expiry(row: tuple[Any, ...], transport: str, now: float) -> Settlement:
    """Return the end of a recipient that was claimed too late."""
    return Settlement(
        key=row[0], index=row[1], transport=transport, was=State.QUEUED, state=State.EXPIRED, at=now, attempts=row[4],
        first_attempt=row[5], reply=Reply("expired before it could be delivered", "4.4.7"), outcome="expired",
        in_doubt=bool(row[6]), crashes=row[7], only=row[16] == 1,
    )  # fmt: skip


def claimed(group: Sequence[tuple[Any, ...]]) -> Claimed:
    """Return what the rows of one message say that were claimed together."""
    (
        key, _, _, _, _, _, _, _, _, sender, created, expires, priority, size, smtputf8, eight_bit, count, _, _, tenant,
        report, options, followed,
    ) = group[0]  # fmt: skip
    return Claimed(
        key=key, sender=sender, created=created, due=min(row[8] for row in group), priority=priority, expires=expires,
        size=size, smtputf8=bool(smtputf8), eight_bit=bool(eight_bit), recipient_count=count,
        targets=tuple(
            Target(
                row[1], Address(row[2], row[3]), row[4], row[5], bool(row[6]),
                RecipientOptions.from_json(row[17]), row[18],
            )
            for row in group
        ),
        crashes=max(row[7] for row in group), tenant=tenant or "", report=report or "",
        options=MessageOptions.from_json(options), followed=bool(followed) or any(row[18] is not None for row in group),
    )  # fmt: skip
