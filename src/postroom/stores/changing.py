"""What an operator's action does to one recipient. Pure."""

from collections.abc import Callable
from typing import Final, NamedTuple

from postroom.addresses import Address
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.redirecting import new_address, redirected, same_place
from postroom.routing import PREPROCESS
from postroom.stores.base import Action, Control, Settlement, storable

__all__ = ["APPLICABLE", "WITH_PENDING", "Plan", "Row", "change", "next_state"]

HELD = "held by an operator"
WITH_PENDING: Final = "pending"
"""The argument of "delete" that first recalls what is not settled yet."""

_WAITING = frozenset({State.QUEUED, State.HELD})
_ENDING = frozenset({State.QUEUED, State.HELD, State.ACCEPTED})

APPLICABLE: Final[dict[Control, frozenset[State]]] = {
    "hold": frozenset({State.QUEUED}),
    "release": frozenset({State.HELD}),
    "cancel": _ENDING,
    "retry": frozenset({State.QUEUED}),
    "fail": _ENDING,
    "expire": _ENDING,
    "reroute": _WAITING,
    "redirect": _WAITING,
    "delete": frozenset(state for state in State if state.is_final),
}
"""The states in which an action does something."""

_LEADS_TO: Final[dict[Control, State]] = {
    "hold": State.HELD,
    "release": State.QUEUED,
    "cancel": State.CANCELLED,
    "fail": State.FAILED,
    "expire": State.EXPIRED,
}
_OUTCOMES: Final = {State.CANCELLED: "cancelled", State.FAILED: "failed", State.EXPIRED: "expired"}

Plan = Callable[[Address], tuple[str, ...]]
"""Returns the transports that reach an address, in order."""


class Row(NamedTuple):
    """A recipient and of its message what matters, as the spool has them."""

    number: int
    transport: str
    state: State
    owner: int | None
    attempts: int
    first_attempt: float | None
    crashes: int
    in_doubt: bool
    due: float | None
    address: Address
    options: RecipientOptions | None
    message_due: float
    siblings: int
    tenant: str
    followed: bool


def next_state(action: Control, state: State) -> State | None:
    """Return the state that ``action`` leads to from ``state``; None where it does nothing."""
    if action == "delete" or state not in APPLICABLE.get(action, ()):
        return None
    return _LEADS_TO.get(action, state)


def change(action: Action, row: Row, key: int, now: float, plan: Plan) -> Settlement | None:
    """Return what an action does to a recipient that nobody has in hand; None for nothing. Pure.

    A transport or an address that was not tried yet begins with a clean slate: attempts, crashes and their times count
    from there.
    """
    state = next_state(action.kind, row.state)
    if state is None:
        return None
    settlement = Settlement(
        key=key, index=row.number, transport=row.transport, was=row.state, state=state, at=now, attempts=row.attempts,
        first_attempt=row.first_attempt, due=None if state.is_final else row.due, reply=_reply(action),
        outcome=_OUTCOMES.get(state, ""), crashes=row.crashes, in_doubt=row.in_doubt, only=row.siblings == 1,
        followed=row.followed,
    )  # fmt: skip
    if action.kind == "reroute":
        return _rerouted(settlement, row, action.argument)
    if action.kind == "redirect":
        return _redirected(settlement, row, action.argument, plan)
    if action.kind == "release":
        return settlement._replace(due=max(now, row.message_due), crashes=0)
    return settlement._replace(due=now) if action.kind == "retry" else settlement


def _rerouted(settlement: Settlement, row: Row, transport: str) -> Settlement | None:
    if transport == row.transport:
        return None
    return _afresh(settlement, row)._replace(next_transport=transport)


def _redirected(settlement: Settlement, row: Row, argument: str, plan: Plan) -> Settlement | None:
    if same_place(argument, row.address):
        return None
    address = new_address(argument, row.address)
    names = plan(address)
    if row.transport != PREPROCESS and address.type == row.address.type:
        # It was preprocessed: once more, and it would have its footer twice.
        names = tuple(name for name in names if name != PREPROCESS)
    if not names and address.type != row.address.type:
        # Whoever acts does not know the routes, and the transport that has it cannot reach another type.
        return None
    first = names[0] if names else row.transport
    return _afresh(settlement, row)._replace(
        next_transport=None if first == row.transport else first,
        next_address=address,
        next_options=redirected(row.options, row.address),
    )


def _afresh(settlement: Settlement, row: Row) -> Settlement:
    due = max(settlement.at, row.message_due) if row.state is State.QUEUED else row.due
    return settlement._replace(attempts=0, first_attempt=None, crashes=0, due=due)


def _reply(action: Action) -> Reply | None:
    because = f": {action.reason}" if action.reason else ""
    if action.kind == "hold":
        return Reply(storable(HELD + because))
    if action.kind == "fail":
        return Reply(storable(action.argument or f"refused by an operator{because}"), "5.7.1")
    if action.kind == "expire":
        return Reply(storable(f"expired by an operator{because}"), "4.4.7")
    return None
