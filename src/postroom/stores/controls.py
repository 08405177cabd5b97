"""What an operator's action does to the recipients of one message."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postroom.addresses import Address
from postroom.lanes import destination_of, lane_of
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Action, Control, Settlement, storable
from postroom.stores.changing import WITH_PENDING, Plan, Row, change
from postroom.stores.requests import insert_probe, insert_requests

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = ["ControlResult", "control_message"]

_RECALL: Final = Action("cancel")


@dataclass(slots=True)
class ControlResult:
    """The changes made, and who was left alone.

    Attributes:
        settlements: the changes.
        in_transit: being sent at this moment.
        final: settled.
        requested: in another instance's memory; it was asked.
        freed: transports of recipients that came back to the spool unchanged, because they shared a delivery with one
            that was taken out of memory.
        deleted: the message is to be forgotten, once everything else about it is done
            (:func:`postroom.stores.forgetting.forget_messages`).
    """

    settlements: tuple[Settlement, ...] = ()
    in_transit: tuple[int, ...] = ()
    final: tuple[int, ...] = ()
    requested: tuple[int, ...] = ()
    freed: frozenset[str] = frozenset()
    deleted: bool = False


@dataclass(slots=True)
class _Sorted:
    """The recipients of a message by what can be done with them."""

    free: list[Row] = field(default_factory=list[Row])
    in_transit: list[int] = field(default_factory=list[int])
    final: list[int] = field(default_factory=list[int])
    elsewhere: dict[int, list[int]] = field(default_factory=dict[int, list[int]])


def control_message(  # noqa: PLR0913, PLR0917 - the protocol's parameters, the connection and the routes
    connection: "sqlite3.Connection",
    node: int,
    action: Action,
    key: int,
    revoked: Collection[int],
    indices: Collection[int] | None,
    now: float,
    plan: Plan = lambda _: (),
) -> ControlResult:
    """Change what can be changed; recipients somebody is sending are left alone.

    Args:
        connection: the writer's, within its transaction.
        node: this instance.
        action: what is to be done.
        key: the message.
        revoked: recipients that are ours and were taken out of memory; those not changed go back to the spool.
        indices: the recipients meant, None for all.
        now: wall-clock seconds.
        plan: the transports that reach an address; where it knows none, a recipient stays with its transport, and may
            only be redirected to another address of its type.
    """
    if action.kind == "probe":
        insert_probe(connection, action, node, now)
        return ControlResult()
    rows = _read(connection, key)
    found = _sort(rows, node, revoked, indices)
    pending = [row.number for row in rows if not row.state.is_final]
    if action.kind == "delete" and action.argument != WITH_PENDING and pending:
        found.free, found.in_transit, found.elsewhere = [], pending, {}
    each = _RECALL if action.kind == "delete" else action
    settlements = [s for row in found.free if (s := change(each, row, key, now, plan)) is not None]
    if action.kind == "redirect":
        settlements = _without_duplicates(settlements, rows)
    _write(connection, action, settlements, {row.number: row for row in found.free})
    changed = {s.index for s in settlements}
    freed = [
        row
        for row in rows
        if row.number in revoked
        and row.owner == node
        and row.state is State.QUEUED
        and row.number not in changed
    ]
    connection.executemany(
        "UPDATE recipient SET owner = NULL WHERE message_id = ? AND idx = ?",
        [(key, row.number) for row in freed],
    )
    insert_requests(connection, action, key, found.elsewhere.items(), now)
    return ControlResult(
        tuple(settlements), tuple(found.in_transit), tuple(found.final), _all(found.elsewhere.values()),
        frozenset(row.transport for row in freed),
        deleted=action.kind == "delete" and bool(rows) and len(settlements) == len(pending),
    )  # fmt: skip


def _all(groups: Iterable[Iterable[int]]) -> tuple[int, ...]:
    return tuple(sorted(number for group in groups for number in group))


def _read(connection: "sqlite3.Connection", key: int) -> list[Row]:
    rows: list[Any] = connection.execute(
        "SELECT r.idx, r.transport, r.state, r.owner, r.attempts, r.first_attempt, r.crashes, r.in_doubt, r.due,"
        " r.address_type, r.address, r.options, m.due, m.recipients, m.tenant, m.followed"
        " FROM recipient AS r JOIN message AS m ON m.id = r.message_id WHERE r.message_id = ? ORDER BY r.idx",
        (key,),
    ).fetchall()
    return [
        Row(
            row[0], row[1], State(row[2]), row[3], row[4], row[5], row[6], bool(row[7]), row[8],
            Address(row[9], row[10]), RecipientOptions.from_json(row[11]), row[12], row[13], row[14] or "",
            bool(row[15]),
        )
        for row in rows
    ]  # fmt: skip


def _sort(
    rows: Iterable[Row], node: int, revoked: Collection[int], indices: Collection[int] | None
) -> _Sorted:
    found = _Sorted()
    for row in rows:
        if indices is not None and row.number not in indices:
            continue
        if row.state.is_final:
            found.final.append(row.number)
        elif row.owner is None or (row.owner == node and row.number in revoked):
            found.free.append(row)
        elif row.owner == node or row.state is State.SENDING:
            found.in_transit.append(row.number)
        else:
            found.elsewhere.setdefault(row.owner, []).append(row.number)
    return found


def _without_duplicates(settlements: Iterable[Settlement], rows: Iterable[Row]) -> list[Settlement]:
    """Recall a recipient instead of sending a second copy where another recipient of the message is."""
    taken: dict[Address, int] = {}
    moving = {s.index for s in settlements}
    for row in rows:
        if row.number not in moving and row.state not in {State.FAILED, State.EXPIRED, State.CANCELLED}:
            taken[row.address] = row.number
    kept: list[Settlement] = []
    for settlement in settlements:
        address = settlement.next_address
        if address is None or taken.setdefault(address, settlement.index) == settlement.index:
            kept.append(settlement)
            continue
        kept.append(
            settlement._replace(
                state=State.CANCELLED, due=None, outcome="cancelled", next_transport=None, next_address=None,
                next_options=None, reply=Reply(f"duplicate of recipient {taken[address]}, which goes to {address}"),
            )
        )  # fmt: skip
    return kept


def _write(
    connection: "sqlite3.Connection", action: Action, settlements: Iterable[Settlement], rows: dict[int, Row]
) -> None:
    connection.executemany(
        "UPDATE recipient SET state = ?, due = ?, owner = NULL, changed = ?, crashes = ?, attempts = ?,"
        " first_attempt = ?, transport = coalesce(?, transport) WHERE message_id = ? AND idx = ?",
        [
            (
                int(s.state),
                s.due,
                s.at,
                s.crashes,
                s.attempts,
                s.first_attempt,
                s.next_transport,
                s.key,
                s.index,
            )
            for s in settlements
        ],
    )
    connection.executemany(
        "UPDATE recipient SET reply_code = NULL, reply_status = ?, reply_text = ?, remote = NULL, tls = NULL"
        " WHERE message_id = ? AND idx = ?",
        [(s.reply.status, s.reply.text, s.key, s.index) for s in settlements if s.reply is not None],
    )
    connection.executemany(
        # What a preprocessor made for one type of address is not for another.
        "UPDATE recipient SET variant = CASE WHEN address_type = ? AND transport <> 'preprocess' THEN variant END,"
        " address_type = ?, address = ?, options = ?, lane = ? WHERE message_id = ? AND idx = ?",
        [
            (s.next_address.type, s.next_address.type, s.next_address.value, s.next_options.to_json(),
             lane_of(rows[s.index].tenant, destination_of(s.next_address)), s.key, s.index)
            for s in settlements
            if s.next_address is not None and s.next_options is not None
        ],
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO attempt (message_id, idx, at, transport, outcome, status, text, detail, address)"
        " VALUES (?, ?, ?, ?, 'operator', '', ?, ?, ?)",
        [
            (s.key, s.index, s.at, s.transport, storable(_said(action, s)), _who(action),
             None if s.next_address is None else str(rows[s.index].address))
            for s in settlements
        ],
    )  # fmt: skip


_DONE: Final[dict[Control, str]] = {
    "hold": "held",
    "release": "released",
    "cancel": "cancelled",
    "retry": "made due at once",
    "fail": "failed",
    "expire": "expired",
}


def _said(action: Action, settlement: Settlement) -> str:
    if settlement.next_address is not None:
        return f"redirected to {settlement.next_address}"
    if action.kind == "redirect" and settlement.reply is not None:
        return settlement.reply.text
    return _DONE.get(action.kind) or f"rerouted to {action.argument}"


def _who(action: Action) -> str | None:
    """Return who did it and why; None where neither is known."""
    who = f"by {action.operator}" if action.operator else ""
    return storable(": ".join(part for part in (who, action.reason) if part)) or None
