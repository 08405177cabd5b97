"""Why a recipient is where it is: the gates that it has to pass, in this order.

====================  ==============================================================================================
gate                  what it waits for
====================  ==============================================================================================
``settled``           nothing: it is final
``held``              an operator, who held it or has to look at it
``remote_report``     the other side, which took it and will report
``sending``           the answer to the attempt that is under way
``other_process``     another process on the spool, which has it in memory
``expiry``            the sweeper: its time is over
``ordering``          an earlier message with the same ordering key
``no_transport``      a process that has its transport: those that run have none of that name
``offline``           an operator, who took the whole spooler offline
``pause``             an operator, who paused the transport
``destination_pause`` an operator, who paused the domain or host
``delivery_window``   the weekdays and hours that the sender asked for
``send_at``           the time that the sender asked for
``retry``             the time that the retry policy chose
``transport``         its transport, which is parked, probing or restarting, or stopped because no process delivers
``hours``             the hours of the transport
``rate``              the rate of the transport
``destination``       the domain or host, which is down
``destination_rate``  the rate for the domain or host
``destination_limit`` an attempt for the domain or host to end: so many at once are permitted
``preprocess``        the preprocessing stage, which comes before its first transport
``courier``           a courier: it is in memory and may go
``window``            room in memory, of which the tenants get equal shares
====================  ==============================================================================================

What an operator ordered comes before the times, since it goes on when they have come; what is not due comes before the
troubles of its transport and its destination, which may be over by then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from postroom.destinations import Gate
from postroom.errors import UsageError
from postroom.ids import format_id
from postroom.lanes import destination_of
from postroom.pauses import pauses_of
from postroom.recipients import State
from postroom.routing import PREPROCESS
from postroom.status import Explanation
from postroom.stores.base import (
    DestinationStanding,
    InstanceRow,
    MessageRecord,
    Order,
    RecipientRecord,
    Standing,
)
from postroom.windows import parse_window

__all__ = ["Scene", "explain_recipient"]

_LIVE: Final = {
    "closed": ("hours", "{transport} is used only {rule}"),
    "rate": ("rate", "{transport} sends at most {rule}"),
    "destination_parked": ("destination", "{destination} is parked: {rule}"),
    "destination_probing": ("destination", "{destination} is probed with another recipient: {rule}"),
    "destination_limit": ("destination_limit", "{destination} gets no more than {rule}"),
    "destination_rate": ("destination_rate", "{destination} gets at most {rule}"),
}
"""What transport actors call their gates (:meth:`postroom.destinations.Gates.gate_of`), and how people are told."""

_WELL: Final = frozenset({"up", "ramping", "closed", "paused", "offline"})
"""Standings that are no outage; the reason why nothing is sent in the last three is told by its own gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is known beside the record. Times are wall-clock seconds.

    Attributes:
        now: the time.
        node: this process's instance number, None when it runs no spooler.
        standings: where the transports stand, by name.
        instances: the processes that share the spool, by number.
        orders: the standing orders.
        destinations: where destinations stand on the record, by (transport, destination).
        live: told (transport, destination), what this process's transport actors know to be in the way.
        failover: seconds of outage after which a transport's work moves on, by name.
    """

    now: float
    node: int | None = None
    standings: Mapping[str, Standing] = field(default_factory=dict[str, Standing])
    instances: Mapping[int, InstanceRow] = field(default_factory=dict[int, InstanceRow])
    orders: Sequence[Order] = ()
    destinations: Mapping[tuple[str, str], DestinationStanding] = field(
        default_factory=dict[tuple[str, str], DestinationStanding]
    )
    live: Callable[[str, str], Gate | None] | None = None
    failover: Mapping[str, float] = field(default_factory=dict[str, float])


def explain_recipient(
    record: RecipientRecord, scene: Scene, *, message: MessageRecord, phase: str | None = None
) -> Explanation:
    """Return the first gate at which a recipient waits. Pure.

    Args:
        record: the recipient.
        scene: what is known beside it.
        message: its message.
        phase: what this process does with it: "waiting", "sending" or None.
    """
    gate, until, rule = (
        _not_queued(record)
        or _in_hand(record, scene, phase)
        or _not_its_turn(record, scene, message)
        or _nobody_there(record, scene)
        or _paused(record, scene)
        or _not_due(record, scene, message)
        or _outage(record, scene)
        or _throttled(record, scene)
        or _next_in_line(record, message, phase)
    )
    expires = None if record.state.is_final else record.expires
    return Explanation(record.index, record.address, gate, until, rule, expires)


def _said(record: RecipientRecord) -> str:
    return f": {record.reply}" if record.reply is not None and str(record.reply) else ""


def _not_queued(record: RecipientRecord) -> Gate | None:
    said = _said(record)
    if record.state.is_final:
        return "settled", None, f"{record.state.label}{said}"
    if record.state is State.HELD:
        return "held", None, f"waits until it is released{said or ': submitted with hold'}"
    if record.state is State.ACCEPTED:
        return "remote_report", None, f"the other side took it as {record.remote_id!r} and will report"
    return None


def _in_hand(record: RecipientRecord, scene: Scene, phase: str | None) -> Gate | None:
    if phase == "sending":
        return "sending", None, f"{record.transport} is sending it now"
    if record.owner is None or record.owner == scene.node:
        return None
    other = scene.instances.get(record.owner)
    who = f"process {other.pid} on {other.host}" if other is not None else f"instance {record.owner}"
    return "other_process", None, f"{who} has it"


def _not_its_turn(record: RecipientRecord, scene: Scene, message: MessageRecord) -> Gate | None:
    if record.expires is not None and record.expires <= scene.now:
        return "expiry", None, "its time is over: it expires when the spool is swept next"
    if record.after is None:
        return None
    key = message.ordering_key
    if key is None or not key.isprintable():
        why = f"{record.transport} keeps the order of submission"
    else:
        why = f"it has the same ordering key, {key!r}"
    return "ordering", None, f"waits for message {format_id(record.after)}: {why}"


def _nobody_there(record: RecipientRecord, scene: Scene) -> Gate | None:
    if record.transport in scene.standings:
        return None
    if not scene.standings:
        return "transport", None, f"{record.transport} is stopped: no process delivers now"
    names = ", ".join(sorted(scene.standings))
    return (
        "no_transport",
        None,
        f"no process runs a transport named {record.transport!r} now; there are: {names}",
    )


def _paused(record: RecipientRecord, scene: Scene) -> Gate | None:
    destination = destination_of(record.address)
    pauses = pauses_of(scene.orders, record.transport)
    for pause in pauses:
        if pause.holds(None, scene.now):
            subject = "the spooler is offline" if pause.everywhere else record.transport
            return "offline" if pause.everywhere else "pause", pause.expires, f"{subject}, {pause.rule}"
    for pause in pauses:
        if pause.destination is not None and pause.holds(destination, scene.now):
            return "destination_pause", pause.expires, f"{destination}, {pause.rule}"
    return None


def _not_due(record: RecipientRecord, scene: Scene, message: MessageRecord) -> Gate | None:
    due = record.due if record.due is not None else scene.now
    window = message.options.window if message.options is not None else ""
    if window and (opens := _opens(window, scene.now)) > scene.now and due <= opens + 1:
        return "delivery_window", opens, f"submitted to be sent only {window}"
    if due <= scene.now:
        return None
    if record.attempts == 0 and record.crashes == 0 and record.first_attempt is None:
        return "send_at", due, "submitted with send_at"
    return (
        "retry",
        due,
        f"the retry policy of {record.transport} after {record.attempts} attempt(s){_said(record)}",
    )


def _opens(window: str, now: float) -> float:
    try:
        return parse_window(window).next_open(now)
    except UsageError:  # its time zone is not known on this machine
        return now


def _outage(record: RecipientRecord, scene: Scene) -> Gate | None:
    name = record.transport
    standing = scene.standings[name]
    if standing.status in _WELL:
        return None
    rule = f"{name} is {standing.status}: {standing.reason}"
    after = scene.failover.get(name)
    if after is not None and standing.since:
        left = max(0.0, standing.since + after - scene.now)
        rule += (
            f"; what waits moves on to its next transport after {after:g} s of that ({left:.0f} s from now)"
        )
    return "transport", standing.until, rule


def _throttled(record: RecipientRecord, scene: Scene) -> Gate | None:
    name, destination = record.transport, destination_of(record.address)
    if scene.live is not None:
        found = scene.live(name, destination)
        if found is None or found[0] not in _LIVE:
            return None
        gate, text = _LIVE[found[0]]
        return gate, found[1], text.format(transport=name, destination=destination, rule=found[2])
    standing = scene.standings[name]
    if standing.status == "closed":
        return "hours", standing.until, f"{name} is closed{f': {standing.reason}' if standing.reason else ''}"
    known = scene.destinations.get((name, destination))
    if known is None or known.status == "ramping":
        return None
    return "destination", known.until, f"{destination} is {known.status}: {known.reason}"


def _next_in_line(record: RecipientRecord, message: MessageRecord, phase: str | None) -> Gate:
    if record.transport == PREPROCESS:
        return "preprocess", None, "waits for the preprocessing stage, which comes before its first transport"
    if phase == "waiting":
        return "courier", None, f"waits in memory for a free courier of {record.transport}"
    share = f", of which {message.tenant!r} gets its share" if message.tenant else ""
    return "window", None, f"due, waits for room in the window of {record.transport}{share}"
