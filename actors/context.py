"""What the actors of one spooler share: addresses of each other, queues, settings, instruments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from postroom.active_queue import ActiveQueue
from postroom.actors.courier import CourierPool
from postroom.clock import Clock
from postroom.completions import Completions
from postroom.metrics import Instruments
from postroom.notifying.bell import Bell
from postroom.notifying.journalled import Journalled
from postroom.receivers.status import ReceiverStatus
from postroom.routing import Router
from postroom.settings import Settings
from postroom.stores.base import Order, Reader, Standing, Store
from postroom.supervision import Handle
from postroom.transports.base import Transport

__all__ = ["Audience", "Context", "Handles", "StandingOrders"]


@dataclass(frozen=True, slots=True)
class Handles:
    """The stable addresses of the actors."""

    store: Handle = field(default_factory=Handle)
    router: Handle = field(default_factory=Handle)
    notifier: Handle = field(default_factory=Handle)
    timer: Handle = field(default_factory=Handle)
    checkpointer: Handle = field(default_factory=Handle)
    follower: Handle = field(default_factory=Handle)
    intake: Handle = field(default_factory=Handle)
    transports: Mapping[str, Handle] = field(default_factory=dict[str, Handle])
    receivers: Mapping[str, Handle] = field(default_factory=dict[str, Handle])
    announcers: Mapping[str, Handle] = field(default_factory=dict[str, Handle])


class StandingOrders:
    """The standing orders as this process knows them; the store actor replaces them, anybody reads."""

    __slots__ = ("given",)

    def __init__(self) -> None:
        self.given: Sequence[Order] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything here is safe to use from any thread, except ``store``, which is the store actor's.

    ``coupled`` is the transport, if any, that gets its work straight from the store. Without ``delivers`` there are no
    transport actors, and what concerns deliveries is left to other processes.
    """

    clock: Clock
    settings: Settings
    store: Store
    reader: Reader
    router: Router
    transports: Mapping[str, Transport]
    queues: Mapping[str, ActiveQueue]
    handles: Handles
    instruments: Instruments
    completions: Completions
    audience: "Audience"
    delivers: bool = True
    coupled: str | None = None
    pools: dict[str, CourierPool] = field(default_factory=dict[str, CourierPool])
    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])
    orders: StandingOrders = field(default_factory=StandingOrders)
    journalled: Journalled = field(default_factory=Journalled)
    bell: Bell = field(default_factory=Bell)
    receiving: dict[str, ReceiverStatus] = field(default_factory=dict[str, ReceiverStatus])
    keep_trash: float | None = None


class Audience:
    """Whether anybody listens; read on the hot path without a lock."""

    __slots__ = ("any",)

    def __init__(self) -> None:
        self.any = False
