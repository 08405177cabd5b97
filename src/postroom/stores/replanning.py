"""Changes of many unowned recipients in bounded steps: expiry, and another plan."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom.addresses import Address
from postroom.alternatives import turn_to_alternative
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores import sql
from postroom.stores.base import Place, Replan, Settlement

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["expiring", "find_replans"]

_ASIDE = -2
"""In a place: behind the priorities come those that wait for another message, or are held."""


def expiring(connection: "sqlite3.Connection", now: float, limit: int, *, held: bool) -> list[Settlement]:
    """Return the settlements of recipients whose time is over and whom nobody has in hand."""
    rows = connection.execute(sql.EXPIRING, (now, limit)).fetchall()
    if held and len(rows) < limit:
        rows += connection.execute(sql.EXPIRING_HELD, (now, limit - len(rows))).fetchall()
    reply = Reply("expired before it could be delivered", "4.4.7")
    silent = Reply("no report came in time", "4.4.7")
    return [
        _change(
            row,
            now,
            state=State.EXPIRED,
            outcome="expired",
            reply=silent if row[3] == State.ACCEPTED else reply,
        )
        for row in rows
    ]


def find_replans(  # noqa: PLR0913, PLR0917 - internal
    connection: "sqlite3.Connection",
    transport: str,
    plan: Replan,
    after: Place | None,
    limit: int,
    now: float,
    routes: Callable[[Address], tuple[str, ...]],
    *,
    aside: bool,
) -> tuple[list[Settlement], Place | None]:
    """Return the changes that ``plan`` wants among the next ``limit`` recipients, and the last place looked at.

    With ``aside`` also among those that are held or wait for another message. Whom nobody delivers to any more turns to
    an alternative, if ``routes`` knows a way to one.
    """
    rows, place = _next_rows(connection, transport, after, limit, aside=aside)
    declined: dict[tuple[int, int], set[str]] = {}
    if rows:
        keys = json.dumps(sorted({row[0] for row in rows}))
        for key, index, name in connection.execute(sql.DECLINED, (keys,)):
            declined.setdefault((key, index), set()).add(name)
    settlements: list[Settlement] = []
    for row in rows:
        planned = plan(Address(row[9], row[10]), transport, frozenset(declined.get((row[0], row[1]), ())))
        if planned is None:
            continue
        if planned.transport is None:
            reply = Reply(planned.reason, "5.1.2")
            settlements.append(_turned_or_failed(row, now, reply, _First(routes)))
        else:
            settlements.append(
                _change(
                    row, now, state=State(row[3]), outcome="replanned", reply=Reply(planned.reason),
                    next_transport=planned.transport, due=row[8],
                )
            )  # fmt: skip
    return settlements, place


class _First(NamedTuple):
    """Where addresses begin."""

    routes: Callable[[Address], tuple[str, ...]]

    def first(self, address: Address) -> str | None:
        return next(iter(self.routes(address)), None)


def _turned_or_failed(row: Any, now: float, reply: Reply, routes: _First) -> Settlement:
    turn = turn_to_alternative(Address(row[9], row[10]), RecipientOptions.from_json(row[11]), routes)
    if turn is None:
        return _change(row, now, state=State.FAILED, outcome="failed", reply=reply)
    return _change(
        row, now, state=State(row[3]), outcome="failed", reply=reply, due=row[8], next_transport=turn.transport,
        next_address=turn.address, next_options=turn.options,
    )._replace(attempts=0, first_attempt=None, crashes=0)  # fmt: skip


def _next_rows(
    connection: "sqlite3.Connection", transport: str, after: Place | None, limit: int, *, aside: bool
) -> tuple[Sequence[Any], Place | None]:
    for priority in (1, 0, -1):
        if after is not None and after[0] < priority:
            continue
        begin = after[1:] if after is not None and after[0] == priority else (-1.0, -1, -1)
        rows = connection.execute(sql.REPLAN_READY, (transport, priority, *begin, limit)).fetchall()
        if rows:
            return rows, (priority, rows[-1][8], rows[-1][0], rows[-1][1])
    if not aside:
        return [], None
    begin_aside = after[2:] if after is not None and after[0] == _ASIDE else (-1, -1)
    rows = connection.execute(sql.REPLAN_ASIDE, (transport, *begin_aside, limit)).fetchall()
    return rows, (_ASIDE, 0.0, rows[-1][0], rows[-1][1]) if rows else None


def _change(row: Any, now: float, **fields: Any) -> Settlement:
    return Settlement(
        key=row[0], index=row[1], transport=row[2], was=State(row[3]), at=now, attempts=row[4], first_attempt=row[5],
        in_doubt=bool(row[6]), crashes=row[7], only=row[12] == 1, **fields,
    )  # fmt: skip
