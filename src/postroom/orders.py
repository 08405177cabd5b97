"""What standing orders mean for what arrives, and for a transport. Pure.

Orders are judged in the order in which they were given, and the first that concerns a recipient decides about it. They
are compiled once, when they change; where there are none, asking costs a look at an empty tuple.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from postroom.addresses import Address
from postroom.envelope_fields import check_time
from postroom.errors import UsageError
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.redirecting import new_address, redirected, same_place
from postroom.routing import PREPROCESS
from postroom.selections import Selection
from postroom.stores.base import NewRecipient, Order, storable

__all__ = [
    "ARRIVING",
    "PAUSE",
    "Orders",
    "check_argument",
    "in_force",
    "make_order",
]

PAUSE: Final = "pause"
ARRIVING: Final = frozenset({"hold", "fail", "cancel", "reroute", "redirect"})
"""Orders that catch what arrives."""

_KNOWN_AT_ONCE: Final = frozenset(
    {"transport", "destination", "address", "address_type", "sender", "tenant", "subject"}
)
_PAUSABLE: Final = frozenset({"transport", "destination"})

Plan = Callable[[Address], tuple[str, ...]]


def make_order(  # noqa: PLR0913 - by keyword
    action: str,
    selection: Selection,
    *,
    now: float,
    expires: float | datetime | timedelta | None = None,
    argument: str = "",
    operator: str = "",
    reason: str = "",
) -> Order:
    """Return a standing order that was checked; its ``id`` is 0 until it is recorded.

    Args:
        action: one of ``ARRIVING``, or "pause".
        selection: what it concerns. What arrives has no age, state or last reply yet, and a pause concerns transports
            and destinations, so that only some fields make sense.
        now: wall-clock seconds.
        expires: until when, None for until it is dropped.
        argument: of "reroute" the transport, of "redirect" the address, of "fail" the text of the bounce.
        operator: who gives it.
        reason: why.

    Raises:
        UsageError: something is wrong with it; names the field.
    """
    if action not in {*ARRIVING, PAUSE}:
        raise UsageError(
            "action", f"{action!r} cannot be ordered", f"give {PAUSE} or one of {', '.join(sorted(ARRIVING))}"
        )
    allowed = _PAUSABLE if action == PAUSE else _KNOWN_AT_ONCE
    if meaningless := [name for name in selection.said if name not in allowed]:
        what = "a pause concerns transports and destinations" if action == PAUSE else "what arrives has none"
        raise UsageError(
            meaningless[0], f"means nothing in a standing order: {what}", f"use {', '.join(sorted(allowed))}"
        )
    check_argument(action, argument)
    until = None if expires is None else check_time("expires", expires, now)
    if until is not None and until <= now:
        raise UsageError("expires", f"is {now - until:.3f} s in the past", "give a later time, or None")
    return Order(
        0, action, selection.to_json(), argument, storable(operator), storable(reason), now, until
    )  # fmt: skip


def check_argument(action: str, argument: str) -> None:
    """Check what an action needs besides its subjects.

    Raises:
        UsageError: the argument is missing, malformed or of no use.
    """
    if action == "redirect":
        if not argument:
            raise UsageError("argument", "is missing", "give the address to redirect to, or *@domain")
        new_address(argument, Address("smtp", "probe@example.org"))
    elif action == "reroute":
        if not argument:
            raise UsageError("argument", "is missing", "give the name of the transport to reroute to")
    elif argument and action not in {"fail", "delete", "probe"}:
        raise UsageError("argument", f"is of no use to {action}", "leave it out")


def in_force(order: Order, now: float) -> bool:
    """Return whether an order has not expired."""
    return order.expires is None or order.expires > now


@dataclass(frozen=True, slots=True)
class _Compiled:
    order: Order
    selection: Selection


def _compile(orders: Iterable[Order], actions: Iterable[str]) -> tuple[_Compiled, ...]:
    wanted = frozenset(actions)
    return tuple(
        _Compiled(order, Selection.from_json(order.selection))
        for order in sorted(orders, key=lambda order: order.id)
        if order.action in wanted
    )


class Orders:
    """The standing orders for what arrives. Immutable and thread-safe; false when there are none.

    Args:
        orders: all standing orders, pauses among them (which are left out here).
    """

    __slots__ = ("_compiled",)

    def __init__(self, orders: Sequence[Order] = ()) -> None:
        self._compiled = _compile(orders, ARRIVING)

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def judge(  # noqa: PLR0913 - by keyword
        self,
        recipients: Sequence[NewRecipient],
        *,
        sender: str,
        tenant: str,
        subject: str,
        now: float,
        plan: Plan,
    ) -> tuple[NewRecipient, ...]:
        """Return the recipients of a message that is submitted as the orders want them.

        A recipient that would get a second copy by being redirected begins cancelled.

        Args:
            recipients: planned, in order.
            sender: envelope sender, "" for the null reverse-path.
            tenant: whose share it uses.
            subject: decoded.
            now: wall-clock seconds.
            plan: the transports that reach an address; what is redirected where it knows none is held.
        """
        judged: list[NewRecipient] = []
        taken = {recipient.address for recipient in recipients}
        for recipient in recipients:
            transport = _first(plan(recipient.address), recipient.transport)
            order = next(
                (
                    compiled.order
                    for compiled in self._compiled
                    if in_force(compiled.order, now)
                    and compiled.selection.concerns(
                        sender=sender,
                        tenant=tenant,
                        subject=subject,
                        address=recipient.address,
                        transport=transport,
                    )
                ),
                None,
            )
            after = recipient if order is None else _changed(recipient, order, plan)
            if after.address != recipient.address:
                if after.address in taken:
                    reply = Reply(f"duplicate: {_by(order)} redirects more than one to {after.address}")
                    after = recipient._replace(state=State.CANCELLED, reply=reply, ended="cancelled")
                else:
                    taken.add(after.address)
            judged.append(after)
        return tuple(judged)


def _first(names: Sequence[str], otherwise: str) -> str:
    return next((name for name in names if name != PREPROCESS), otherwise)


def _by(order: Order | None) -> str:
    return (
        ""
        if order is None
        else f"standing order {order.id}" + (f" of {order.operator}" if order.operator else "")
    )


def _changed(recipient: NewRecipient, order: Order, plan: Plan) -> NewRecipient:
    why = f"{_by(order)}{f': {order.reason}' if order.reason else ''}"
    if order.action == "hold":
        return recipient._replace(state=State.HELD, reply=Reply(f"held by {why}"))
    if order.action == "fail":
        reply = Reply(order.argument or f"refused by {why}", "5.7.1")
        return recipient._replace(state=State.FAILED, reply=reply, ended="failed")
    if order.action == "cancel":
        return recipient._replace(
            state=State.CANCELLED, reply=Reply(f"cancelled by {why}"), ended="cancelled"
        )
    if order.action == "reroute":
        return recipient._replace(transport=order.argument)
    return _redirected(recipient, order, plan)


def _redirected(recipient: NewRecipient, order: Order, plan: Plan) -> NewRecipient:
    if same_place(order.argument, recipient.address):
        return recipient
    address = new_address(order.argument, recipient.address)
    names = plan(address)
    if not names:
        return recipient._replace(
            state=State.HELD, reply=Reply(f"no transport reaches {address}, where {_by(order)} redirects it")
        )
    return recipient._replace(
        address=address,
        transport=names[0],
        options=redirected(recipient.options, recipient.address),
    )
