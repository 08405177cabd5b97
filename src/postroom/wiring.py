"""How the parts of a running spooler are put together: the one place that knows them all."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pykka

from postroom.active_queue import ActiveQueue
from postroom.actors.checkpointer import CheckpointActor
from postroom.actors.context import Audience, Context, Handles
from postroom.actors.follower import FollowerActor, FollowerParts
from postroom.actors.notifier import NotifierActor, Subscriptions
from postroom.actors.router import RouterActor
from postroom.actors.store import StoreActor
from postroom.actors.timer import TimerActor
from postroom.actors.transport import TransportActor
from postroom.clock import Clock
from postroom.completions import Completions
from postroom.handling import Handling
from postroom.metrics import Instruments
from postroom.preprocessing.stage import PreprocessTransport
from postroom.routing import Router
from postroom.settings import Settings
from postroom.stores.reader import SqliteReader
from postroom.stores.sqlite import SqliteStore
from postroom.supervision import ChildSpec, Handle, Strategy, SupervisionEvent, Supervisor, supervisor_child
from postroom.transports.base import Transport

__all__ = ["build_context", "build_supervisor"]

HANG_SECONDS = 120.0
"""How long an actor may be busy with one batch before it is abandoned and replaced."""


def build_context(  # noqa: PLR0913 - by keyword
    *,
    path: Path,
    transports: Sequence[Transport],
    settings: Settings,
    clock: Clock,
    instruments: Instruments,
    audience: Audience,
    handling: Handling,
    delivers: bool,
) -> Context:
    """Return what the actors of one start of a spooler share."""
    routes = [transport.route for transport in transports]
    coupled = next((transport.name for transport in transports if transport.tightly_coupled), None)
    preprocessed: frozenset[str] = frozenset()
    if handling.preprocessors:
        stage = PreprocessTransport(
            preprocessors=handling.preprocessors,
            routes=routes,
            max_message_size=settings.max_message_size,
            clock=clock,
        )
        if handling.preprocessing is not None:
            stage = replace(stage, limits=handling.preprocessing)
        preprocessed = stage.preprocessed
        transports = [stage, *transports]
    router = Router(routes, preprocessed)
    names = [transport.name for transport in transports]
    queues = {
        transport.name: ActiveQueue(
            transport.limits.window, transport.limits.window_bytes, strict=transport.limits.concurrency == 1
        )
        for transport in transports
    }
    for queue in queues.values():
        # A queue that takes nothing lets every recipient be born unowned, for whichever process delivers.
        queue.accepting = delivers
    return Context(
        clock=clock,
        settings=settings,
        store=SqliteStore(
            path,
            clock,
            synchronous=settings.synchronous,
            keep_content=settings.keep_content > 0 or not delivers,
            plan=router.plan,
            linger=None if handling.reports is None else handling.reports.linger,
        ),
        reader=SqliteReader(path),
        router=router,
        transports={transport.name: transport for transport in transports},
        queues=queues,
        handles=Handles(transports={name: Handle(name) for name in names}),
        instruments=instruments,
        completions=Completions(),
        audience=audience,
        delivers=delivers,
        coupled=coupled,
    )


def build_supervisor(
    context: Context,
    path: Path,
    subscriptions: Subscriptions,
    follower: FollowerParts | None,
    on_event: Callable[[SupervisionEvent], None],
) -> Supervisor:
    """Return the supervision tree, which is this one literal list.

    The store, the router and the transports depend on each other in this order, so the failure of one restarts it and
    those after it. Transports do not depend on each other. Nobody depends on the others; without ``follower`` (nothing
    is reported and no hooks are told, or another process does it) there is no such actor.
    """
    handles = context.handles

    def transport(name: str) -> Callable[[], "pykka.ActorRef[TransportActor]"]:
        return lambda: TransportActor.start(context, name, f"postroom-transport-{name}")

    return Supervisor(
        "postroom",
        [
            ChildSpec(
                "notifier",
                lambda: NotifierActor.start(subscriptions, "postroom-notifier"),
                handle=handles.notifier,
                hang_timeout=HANG_SECONDS,
            ),
            supervisor_child(
                "core",
                [
                    ChildSpec(
                        "timer",
                        lambda: TimerActor.start(context.clock, "postroom-timer"),
                        handle=handles.timer,
                        hang_timeout=HANG_SECONDS,
                    ),
                    ChildSpec(
                        "store",
                        lambda: StoreActor.start(context, "postroom-store"),
                        handle=handles.store,
                        essential=True,
                        stop_timeout=15.0,
                    ),
                    ChildSpec(
                        "router",
                        lambda: RouterActor.start(handles.transports, context.clock, "postroom-router"),
                        handle=handles.router,
                        hang_timeout=HANG_SECONDS,
                    ),
                    supervisor_child(
                        "transports",
                        [
                            ChildSpec(
                                name,
                                transport(name),
                                handle=handles.transports[name],
                                hang_timeout=HANG_SECONDS,
                            )
                            for name in (context.transports if context.delivers else ())
                        ],
                        strategy=Strategy.ONE_FOR_ONE,
                    ),
                ],
                strategy=Strategy.REST_FOR_ONE,
                essential=True,
            ),
            *(
                []
                if follower is None
                else [
                    ChildSpec(
                        "follower",
                        lambda: FollowerActor.start(context, follower, "postroom-follower"),
                        handle=handles.follower,
                        hang_timeout=HANG_SECONDS,
                    )
                ]
            ),
            ChildSpec(
                "checkpointer",
                lambda: CheckpointActor.start(path, handles.store, "postroom-checkpointer"),
                handle=handles.checkpointer,
            ),
        ],
        strategy=Strategy.ONE_FOR_ONE,
        on_event=on_event,
    )
