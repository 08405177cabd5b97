"""What an operator's action does to the recipients of one message."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Control, Settlement

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["ControlResult", "control_message", "next_state"]

HELD = "held by an operator"

_MOVES: dict[tuple[Control, State], State] = {
    ("hold", State.QUEUED): State.HELD,
    ("release", State.HELD): State.QUEUED,
    ("cancel", State.QUEUED): State.CANCELLED,
    ("cancel", State.HELD): State.CANCELLED,
    ("cancel", State.ACCEPTED): State.CANCELLED,
    ("retry", State.QUEUED): State.QUEUED,
}


@dataclass(frozen=True, slots=True)
class ControlResult:
    """The changes made, and who was left alone."""

    settlements: tuple[Settlement, ...]
    in_transit: tuple[int, ...]
    final: tuple[int, ...]


def next_state(action: Control, state: State) -> State | None:
    """Return the state that ``action`` leads to from ``state``; None where it does nothing."""
    return _MOVES.get((action, state))


def control_message(  # noqa: PLR0913, PLR0917 - the protocol's parameters and the connection
    connection: "sqlite3.Connection",
    node: int,
    action: Control,
    key: int,
    revoked: Collection[int],
    indices: Collection[int] | None,
    now: float,
) -> ControlResult:
    """Change what can be changed; recipients somebody is sending are left alone."""
    rows: list[Any] = connection.execute(
        "SELECT r.idx, r.transport, r.state, r.owner, r.attempts, r.first_attempt, r.crashes, r.in_doubt, m.due,"
        " m.recipients, r.due FROM recipient AS r JOIN message AS m ON m.id = r.message_id WHERE r.message_id = ?",
        (key,),
    ).fetchall()
    settlements: list[Settlement] = []
    in_transit: list[int] = []
    final: list[int] = []
    for idx, transport, code, owner, attempts, first, crashes, in_doubt, message_due, count, due in rows:
        if indices is not None and idx not in indices:
            continue
        state = State(code)
        if state.is_final:
            final.append(idx)
        elif owner is not None and not (owner == node and idx in revoked):
            in_transit.append(idx)
        elif (target := next_state(action, state)) is not None:
            settlements.append(
                Settlement(
                    key=key, index=idx, transport=transport, was=state, state=target, at=now, attempts=attempts,
                    first_attempt=first, due=_due(action, due, message_due, now),
                    outcome="cancelled" if target is State.CANCELLED else "",
                    crashes=0 if action == "release" else crashes, in_doubt=bool(in_doubt), only=count == 1,
                    reply=Reply(HELD) if target is State.HELD else None,
                )
            )  # fmt: skip
    connection.executemany(
        "UPDATE recipient SET state = ?, due = ?, owner = NULL, changed = ?, crashes = ?"
        " WHERE message_id = ? AND idx = ?",
        [(int(s.state), s.due, now, s.crashes, key, s.index) for s in settlements],
    )
    if action == "hold" and settlements:
        connection.executemany(
            "UPDATE recipient SET reply_status = '', reply_text = ? WHERE message_id = ? AND idx = ?",
            [(HELD, key, s.index) for s in settlements],
        )
    return ControlResult(tuple(settlements), tuple(in_transit), tuple(final))


def _due(action: Control, due: float | None, message_due: float, now: float) -> float | None:
    if action == "release":
        return max(now, message_due)
    return now if action == "retry" else due
