"""The letters that actors send to each other. A letter carries a batch wherever a batch can exist.

====================  ====================  ===========================================================================
letter                from → to             meaning
====================  ====================  ===========================================================================
``Accept``            submitters → store    make these messages durable, then resolve the ticket
``Receive``           receivers → store     make these incoming messages durable, then resolve the ticket
``Settle``            transport → store     write down what became of these jobs
``Journal``           transport → store     write down that these jobs are about to be sent
``Claim``             transport → store     hand over due work from the spool
``Reclaim``           transport → store     a new incarnation: give back what waits in memory
``Act``               operators → store     do this with these messages
``Order``             operators → store     give or drop standing orders
``FollowedUp``        follower → store      a followup is done; a report may go with it
``StandDestination``  transport → store     this is where a destination stands
``MoveOn``            transport → store     an outage lasts: what waits goes to the next transport
``Perform``           operators → store     one bounded step of maintenance
``Stand``             transport → store     this is where the transport stands
``Housekeep``         timer → store         adopt, purge, heartbeat, look for other processes' work
``Checkpointed``      checkpointer → store  the log is copied but for a remainder
``Committed``         store → router        work for transports, and new due times
``Reroute``           store → router        recipients moved on to these transports
``FollowupsDue``      store → follower      something is to be done about messages then
``Ordered``           store → transports    the standing orders have changed
``Probe``             store → transports    try what is parked at once
``Work``              router → transport    jobs, owned and in memory
``Claimed``           store → transport     the answer to ``Claim``
``Reclaimed``         store → transport     the answer to ``Reclaim``
``Journalled``        store → transport     the answer to ``Journal``
``Due``               router → transport    work will be due then
``Room``              store → transport     settled work has left; there may be room for more
``Ended``             courier → transport   a job ended; its result is on the job
``CourierGone``       courier → transport   a courier's thread ends
``Look``              timer → transport     look at the clock
``WakeAt``            anyone → timer        tell me this letter then
``Happened``          anyone → notifier     what subscribers may want to know
``Arriving``          store → intake        incoming messages wait for postprocessing
``Checkpoint``        store → checkpointer  copy the log into the database
====================  ====================  ===========================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from postroom.active_queue import Job
from postroom.addresses import Address
from postroom.events import Event
from postroom.inbound.values import NewInbound
from postroom.stores.base import (
    Action,
    DestinationStanding,
    Followup,
    NewMessage,
    Settlement,
    Standing,
    Store,
)
from postroom.stores.base import Order as StandingOrder
from postroom.supervision import Handle
from postroom.tickets import Ticket

__all__ = [
    "Accept",
    "Act",
    "Arriving",
    "Checkpoint",
    "Checkpointed",
    "Claim",
    "Claimed",
    "Committed",
    "CourierGone",
    "Due",
    "Ended",
    "FollowedUp",
    "FollowupsDue",
    "Happened",
    "Housekeep",
    "Journal",
    "Journalled",
    "Look",
    "MoveOn",
    "Order",
    "Ordered",
    "Perform",
    "Probe",
    "Receive",
    "Reclaim",
    "Reclaimed",
    "Reroute",
    "Room",
    "Settle",
    "Stand",
    "StandDestination",
    "WakeAt",
    "Work",
]


class Accept:
    """Messages to make durable; the ticket gets a list of :class:`postroom.stores.base.Accepted`.

    ``again`` says that the letter may have been handled by an earlier incarnation of the store.
    """

    __slots__ = ("again", "messages", "ticket")

    def __init__(self, messages: Sequence[NewMessage], ticket: Ticket, *, again: bool = False) -> None:
        self.messages = messages
        self.ticket = ticket
        self.again = again


@dataclass(frozen=True, slots=True)
class Receive:
    """Incoming messages to make durable; the ticket gets a list of :class:`postroom.inbound.values.Received`.

    Attributes:
        receiver: the receiver's name.
        inbound: the messages.
        messages: outgoing ones that are accepted in the same transaction.
        progress: facts to remember by source.
        ticket: for the answer.
        again: the letter may have been handled by an earlier incarnation of the store.
    """

    receiver: str
    inbound: Sequence[NewInbound]
    messages: Sequence[NewMessage]
    progress: Mapping[str, str]
    ticket: Ticket
    again: bool = False


@dataclass(frozen=True, slots=True)
class Arriving:
    """Incoming messages wait for postprocessing; the earliest is due at this wall-clock time."""

    at: float


@dataclass(frozen=True, slots=True)
class Settle:
    """Jobs of one transport in phase SETTLING; their settlements are on them."""

    transport: str
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Journal:
    """Waiting jobs of one transport that are to be recorded as ``sending`` first."""

    transport: str
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Claim:
    """A transport has room."""

    transport: str


@dataclass(frozen=True, slots=True)
class Reclaim:
    """A transport actor has started."""

    transport: str


@dataclass(frozen=True, slots=True)
class Act:
    """An operator's action on messages; the ticket gets a :class:`postroom.stores.base.Controlled` for each.

    Attributes:
        action: what.
        subjects: (number of a message, numbers of its recipients or None for all), few enough for one transaction.
        ticket: for the answer.
    """

    action: Action
    subjects: Sequence[tuple[int, frozenset[int] | None]]
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Order:
    """Standing orders to give and to drop; the ticket gets those given, with their numbers, and how many were dropped.

    With ``operation`` it is an entry in the log of operations instead: (action, selection, changed, number or None);
    the ticket gets its number.
    """

    give: Sequence[StandingOrder]
    drop: frozenset[int]
    ticket: Ticket
    operation: tuple[Action, str, int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class FollowedUp:
    """A followup is done; the ticket gets whether it still was to be done.

    Attributes:
        followup: as it was read.
        reported: the recipients whose end was reported.
        again: when to look again, or None.
        messages: reports to accept in the same transaction, not at all if the followup was done by somebody else.
        ticket: for the answer.
    """

    followup: Followup
    reported: frozenset[int]
    again: float | None
    messages: Sequence[NewMessage]
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class FollowupsDue:
    """Something is to be done about messages at this wall-clock time."""

    at: float


@dataclass(frozen=True, slots=True)
class StandDestination:
    """Where a destination of a transport stands."""

    standing: DestinationStanding


@dataclass(frozen=True, slots=True)
class MoveOn:
    """The transport is out for longer than its ``failover_after``: what waits for it in the spool goes to the next."""

    transport: str


@dataclass(frozen=True, slots=True)
class Perform:
    """One bounded step of maintenance, in a transaction of its own; the ticket gets what it returns.

    The step raises whatever it likes: it is undone, and the ticket gets the error.

    Attributes:
        step: what to do.
        ticket: for the answer.
        messages: outgoing messages that are accepted in the same transaction, if the step returns something true.
    """

    step: Callable[[Store], object]
    ticket: Ticket
    messages: Sequence[NewMessage] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """An operator wants what is parked to be tried at once."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """The standing orders have changed."""

    orders: Sequence[StandingOrder]


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a transport stands."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Housekeep:
    """It is time for housekeeping."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The write-ahead log has grown."""


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """The write-ahead log has been copied, but for what was written meanwhile."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit means for the transports: jobs, and the earliest new due time in the spool, by transport."""

    work: Mapping[str, Sequence[Job]] = field(default_factory=dict[str, Sequence[Job]])
    due: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Reroute:
    """Recipients moved on to these transports, or came from elsewhere."""

    transports: frozenset[str]


@dataclass(frozen=True, slots=True)
class Work:
    """Jobs for a transport."""

    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought.

    Attributes:
        jobs: owned now, room for them is reserved.
        more: there may be more that is due.
        next_due: wall-clock seconds of the next work that is not due yet, or None.
    """

    jobs: Sequence[Job]
    more: bool
    next_due: float | None


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Work of earlier epochs is void and back in the spool."""


@dataclass(frozen=True, slots=True)
class Journalled:
    """These jobs may be sent now."""

    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Due:
    """Work in the spool will be due at this wall-clock time."""

    at: float


@dataclass(frozen=True, slots=True)
class Room:
    """Settled work has left the window."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job's result is there."""

    job: Job


@dataclass(frozen=True, slots=True)
class CourierGone:
    """A courier's thread ends; ``crashed`` says why it is not by request."""

    courier: object
    crashed: bool


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the clock."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Tell ``letter`` to ``handle`` at the wall-clock time ``at``.

    A later request with the same ``tag`` from the same handle replaces the earlier one.
    """

    at: float
    handle: Handle
    letter: object
    tag: str


@dataclass(frozen=True, slots=True)
class Happened:
    """What subscribers may want to know; turned into events only where somebody listens.

    Attributes:
        at: wall-clock seconds.
        queued: messages that became durable.
        settled: changes with the address of each recipient.
        completed: messages that are complete.
        events: ready-made ones.
    """

    at: float = 0.0
    queued: Sequence[NewMessage] = ()
    settled: Sequence[tuple[Settlement, Address | None]] = ()
    completed: Sequence[int] = ()
    events: Sequence[Event] = ()
