"""What the actors of one spooler share: addresses of each other, queues, settings, instruments."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from postroom.active_queue import ActiveQueue
from postroom.actors.courier import CourierPool
from postroom.clock import Clock
from postroom.completions import Completions
from postroom.metrics import Instruments
from postroom.routing import Router
from postroom.settings import Settings
from postroom.stores.base import Reader, Standing, Store
from postroom.supervision import Handle
from postroom.transports.base import Transport

__all__ = ["Context", "Handles"]


@dataclass(frozen=True, slots=True)
class Handles:
    """The stable addresses of the actors."""

    store: Handle = field(default_factory=Handle)
    router: Handle = field(default_factory=Handle)
    notifier: Handle = field(default_factory=Handle)
    timer: Handle = field(default_factory=Handle)
    checkpointer: Handle = field(default_factory=Handle)
    transports: Mapping[str, Handle] = field(default_factory=dict[str, Handle])


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything here is safe to use from any thread, except ``store``, which is the store actor's.

    Without ``delivers`` there are no transport actors, and what concerns deliveries is left to other processes.
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
    pools: dict[str, CourierPool] = field(default_factory=dict[str, CourierPool])
    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])


class Audience:
    """Whether anybody listens; read on the hot path without a lock."""

    __slots__ = ("any",)

    def __init__(self) -> None:
        self.any = False
