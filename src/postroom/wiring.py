"""How the parts of a running spooler are put together: the one place that knows them all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pykka

from postroom.active_queue import ActiveQueue
from postroom.actors.announcer import AnnouncerActor, AnnouncerParts
from postroom.actors.checkpointer import CheckpointActor
from postroom.actors.context import Audience, Context, Handles
from postroom.actors.follower import FollowerActor, FollowerParts
from postroom.actors.intake import IntakeActor, IntakeParts
from postroom.actors.notifier import NotifierActor, Subscriptions
from postroom.actors.porter import MakeInlet
from postroom.actors.receiver import ReceiverActor
from postroom.actors.router import RouterActor
from postroom.actors.store import StoreActor
from postroom.actors.timer import TimerActor
from postroom.actors.transport import TransportActor
from postroom.clock import Clock
from postroom.completions import Completions
from postroom.handling import Handling
from postroom.metrics import Instruments
from postroom.notifying.journalled import Journalled, kinds_named
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.preprocessing.stage import PreprocessTransport
from postroom.receivers.base import Receiver
from postroom.routing import Router
from postroom.settings import Settings
from postroom.stores.inbox_reader import SqliteInboxReader
from postroom.stores.sqlite import SqliteStore
from postroom.supervision import ChildSpec, Handle, Strategy, SupervisionEvent, Supervisor, supervisor_child
from postroom.transports.base import Transport

__all__ = ["Background", "build_context", "build_supervisor"]

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
        reader=SqliteInboxReader(path),
        router=router,
        transports={transport.name: transport for transport in transports},
        queues=queues,
        handles=Handles(
            transports={name: Handle(name) for name in names},
            receivers={receiver.name: Handle(receiver.name) for receiver in handling.receivers},
            announcers={each.name: Handle(each.name) for each in handling.subscribers},
        ),
        instruments=instruments,
        completions=Completions(),
        audience=audience,
        delivers=delivers,
        coupled=coupled,
        journalled=Journalled(kinds_named(settings.journalled)),
        keep_trash=handling.receiving.keep_trash,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What runs beside the way of a message from the store to its transports.

    Attributes:
        follower: reports and hooks; None where nobody reports, or another process does.
        intake: postprocessing.
        announcers: tell subscribers of events.
        subscribers: those who are told.
        receivers: where messages come from.
        make_inlet: the receivers' way into the spool.
    """

    follower: FollowerParts | None = None
    intake: IntakeParts
    announcers: AnnouncerParts
    subscribers: Sequence[WebhookSubscriber] = ()
    receivers: Sequence[Receiver] = ()
    make_inlet: MakeInlet


def build_supervisor(
    context: Context,
    path: Path,
    subscriptions: Subscriptions,
    background: Background | None,
    on_event: Callable[[SupervisionEvent], None],
) -> Supervisor:
    """Return the supervision tree, which is this one literal list.

    The store, the router and the transports depend on each other in this order, so the failure of one restarts it and
    those after it. Transports do not depend on each other. Nobody depends on the others; the receivers come last, so
    that they stop first. Without ``background`` another process does everything but accept.
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
            *(() if background is None else _beside(context, background)),
            ChildSpec(
                "checkpointer",
                lambda: CheckpointActor.start(path, handles.store, "postroom-checkpointer"),
                handle=handles.checkpointer,
            ),
            supervisor_child(
                "receivers",
                [] if background is None else _receivers(context, background),
                strategy=Strategy.ONE_FOR_ONE,
            ),
        ],
        strategy=Strategy.ONE_FOR_ONE,
        on_event=on_event,
    )


def _beside(context: Context, background: Background) -> Iterator[ChildSpec]:
    """Yield those who work on what the store tells them, as far as there are any."""
    handles = context.handles
    follower, intake = background.follower, background.intake
    if follower is not None:
        yield ChildSpec(
            "follower",
            lambda: FollowerActor.start(context, follower, "postroom-follower"),
            handle=handles.follower,
            hang_timeout=HANG_SECONDS,
        )
    yield ChildSpec(
        "intake",
        lambda: IntakeActor.start(context, intake, "postroom-intake"),
        handle=handles.intake,
        hang_timeout=HANG_SECONDS,
    )
    if background.subscribers:
        yield supervisor_child(
            "announcers",
            [_announcer(context, background, subscriber) for subscriber in background.subscribers],
            strategy=Strategy.ONE_FOR_ONE,
        )


def _announcer(context: Context, background: Background, subscriber: WebhookSubscriber) -> ChildSpec:
    handle = context.handles.announcers[subscriber.name]
    return ChildSpec(
        subscriber.name,
        lambda: AnnouncerActor.start(
            context, subscriber, background.announcers, handle, f"postroom-announcer-{subscriber.name}"
        ),
        handle=handle,
        hang_timeout=HANG_SECONDS,
    )


def _receivers(context: Context, background: Background) -> list[ChildSpec]:
    def start(receiver: Receiver) -> Callable[[], "pykka.ActorRef[ReceiverActor]"]:
        thread = f"postroom-receiver-{receiver.name}"
        return lambda: ReceiverActor.start(context, receiver, background.make_inlet, thread)

    return [
        ChildSpec(
            receiver.name,
            start(receiver),
            handle=context.handles.receivers[receiver.name],
            hang_timeout=HANG_SECONDS,
            stop_timeout=10.0,
        )
        for receiver in background.receivers
    ]
