"""One process of a spooler without threads: the real actors, moved by hand one batch of letters at a time.

The store, the router, the transports and the timer are the program's own; only their loops do not run, and neither do
the couriers: a test takes the jobs that are offered to them and says what became of each.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from unittest import mock

from prometheus_client import CollectorRegistry

from postroom.active_queue import Crash, Job, Phase, Result
from postroom.actors.batches import Batch, Effects
from postroom.actors.context import Audience
from postroom.actors.courier import Courier
from postroom.actors.protocol import CourierGone, Ended
from postroom.actors.router import RouterActor
from postroom.actors.store import StoreActor
from postroom.actors.timer import TimerActor
from postroom.actors.transport import TransportActor
from postroom.clock import ManualClock
from postroom.handling import Handling
from postroom.hooks import Preprocessor, Verdict, Work
from postroom.metrics import Instruments
from postroom.reports.following import Reporter
from postroom.reports.limiting import SenderLimiter
from postroom.reports.policy import ReportPolicy
from postroom.settings import Settings
from postroom.submitting import Submitter
from postroom.supervision import Handle, MailboxActor
from postroom.transports.base import Transport
from postroom.wiring import build_context

__all__ = ["LINGER", "Killed", "Process", "Sending", "idle_couriers"]

LINGER = 20.0
POLICY = ReportPolicy(linger=LINGER, delay_after=50.0)
SETTINGS = Settings(
    synchronous="off", keep_sent=None, sync_interval=15.0, unroutable="fail", message_id_domain="host.example"
)


class Killed(BaseException):
    """Somebody pulled the plug."""


@dataclass
class Sending:
    """A job in a courier's hand."""

    job: Job
    courier: Courier
    transport: str

    @property
    def abandoned(self) -> bool:
        """Whether the job was taken from the courier."""
        return self.job.phase is not Phase.SENDING or self.job.holder is not self.courier


class Stamp(Preprocessor):
    """Has text messages go through the stage; what it does with each is for the test to say."""

    def process(self, work: Work) -> Verdict:
        raise NotImplementedError


class FragileStore(StoreActor):
    """A store that may be struck between its commit and the announcement."""

    struck = False

    def _announce(self, batch: Batch, effects: Effects) -> None:
        if self.struck:
            raise Killed
        super()._announce(batch, effects)


@contextmanager
def idle_couriers() -> Generator[None]:
    """Let couriers be made and counted, but not run."""

    def start(courier: Courier) -> None:
        assert Process.at_work is not None
        Process.at_work.couriers.append(courier)

    with mock.patch.object(Courier, "start", start):
        yield


@dataclass(eq=False)
class Process:
    """See the module's docstring. A context of :func:`idle_couriers` must be open.

    Attributes:
        path: of the spool.
        clock: turned by hand.
        transports: in transport order.
        stamped: whether text messages are preprocessed.
        couriers: that were hired and have not left.
        hand: what its couriers are sending.
    """

    path: Path
    clock: ManualClock
    transports: Sequence[Transport]
    stamped: bool = False
    couriers: list[Courier] = field(default_factory=list[Courier])
    hand: list[Sending] = field(default_factory=list[Sending])

    at_work: ClassVar["Process | None"] = None

    def __post_init__(self) -> None:
        instruments = Instruments(CollectorRegistry())
        stamps = [Stamp(name="stamp", address_types={"sms"})] if self.stamped else []
        self.context = build_context(
            path=self.path, transports=self.transports, settings=SETTINGS, clock=self.clock, instruments=instruments,
            audience=Audience(), handling=Handling(preprocessors=stamps, reports=POLICY), delivers=True,
        )  # fmt: skip
        self.submitter = Submitter(self.context, lambda: True, delay_after=50.0)
        self.reporter = Reporter(
            policy=POLICY, reader=self.context.reader, clock=self.clock, prepare=self.submitter.prepare,
            host="host.example", transports=self.context.transports, limiter=SenderLimiter(None, 0.0),
            instruments=instruments,
        )  # fmt: skip
        self.actors: dict[Handle, MailboxActor] = {}
        self.timer = TimerActor(self.clock, "timer")
        self._put(self.context.handles.timer, self.timer)
        self._begin()

    @property
    def node(self) -> int:
        return self.context.store.node

    def _put(self, handle: Handle, actor: MailboxActor) -> None:
        """Give an actor its place. What waited for its predecessor is lost."""
        handle.attach(actor.actor_ref)
        self.actors[handle] = actor
        with self._working():
            actor.on_start()

    def _begin(self) -> None:
        handles = self.context.handles
        self.store = FragileStore(self.context, "store")
        self._put(handles.store, self.store)
        self._put(handles.router, RouterActor(handles.transports, self.clock, "router"))
        for name in self.context.transports:
            self.restart_transport(name)

    @contextmanager
    def _working(self) -> Generator[None]:
        Process.at_work = self
        try:
            yield
        finally:
            Process.at_work = None

    # Letters

    def waiting(self) -> list[Handle]:
        """Return the actors that have letters, in the order in which they were started."""
        return [handle for handle, actor in self.actors.items() if actor.mailbox.qsize()]

    def deliver(self, handle: Handle, most: int = 1000) -> None:
        """Let an actor handle the first letters of its mailbox."""
        actor = self.actors[handle]
        envelopes = [actor.mailbox.get_nowait() for _ in range(min(most, actor.mailbox.qsize()))]
        with self._working():
            actor.on_letters([envelope.message for envelope in envelopes])

    def deliver_all(self) -> None:
        """Deliver until no letter is left."""
        for _ in range(1000):
            self.wake()
            waiting = self.waiting()
            if not waiting:
                return
            for handle in waiting:
                self.deliver(handle)
        raise AssertionError("the actors write to each other without end")

    def wake(self) -> None:
        """Let the timer tell those whose time has come."""
        self.deliver(self.context.handles.timer)
        at = self.timer.next_wake()
        if at is not None and at <= self.clock.monotonic():
            self.timer.on_wake()

    def sleep(self) -> float | None:
        """Return how long the timer would sleep now, in seconds."""
        at = self.timer.next_wake()
        return None if at is None else at - self.clock.monotonic()

    # Couriers

    def offered(self) -> list[str]:
        """Return the transports that offer a job to a courier who is free."""
        free = {name for courier in self.couriers if (name := self._place(courier)) is not None}
        return sorted(name for name in free if self._peek(name) is not None)

    def _place(self, courier: Courier) -> str | None:
        """Return whose courier it is, None if it is busy or on its way out."""
        if courier.retired or courier.busy_since is not None:
            return None
        return courier.name.removeprefix("postroom-courier-").rpartition("-")[0]

    def _peek(self, transport: str) -> Job | None:
        pool = self.context.pools[transport]
        jobs = pool.take_back()
        for job in jobs:
            pool.put(job)
        return jobs[0] if jobs else None

    def begin(self, transport: str) -> Sending | None:
        """Let a courier take the first job that is offered; None when it turns out void."""
        context = self.context
        pool = context.pools[transport]
        first, *rest = pool.take_back()
        for job in rest:
            pool.put(job)
        courier = next(each for each in self.couriers if self._place(each) == transport)
        if not context.queues[transport].begin(first, courier, self.clock.time()):
            context.handles.transports[transport].tell(Ended(first))
            return None
        courier.busy_since = self.clock.monotonic()
        sending = Sending(first, courier, transport)
        self.hand.append(sending)
        return sending

    def end(self, sending: Sending, result: Result) -> None:
        """Let a courier come back with a result."""
        self.hand.remove(sending)
        courier, context = sending.courier, self.context
        tell = context.handles.transports[sending.transport].tell
        courier.busy_since = None
        if context.queues[sending.transport].end(sending.job, courier, result, self.clock.time()):
            tell(Ended(sending.job))
        crashed = isinstance(result, Crash)
        if crashed or courier.retired:
            courier.retired = True
            self.couriers.remove(courier)
            tell(CourierGone(courier, crashed))

    # Crashes

    def restart_transport(self, name: str) -> None:
        """Let a transport's actor fail, if there is one, and start the next."""
        handle = self.context.handles.transports[name]
        former = self.actors.get(handle)
        if former is not None:
            with self._working():
                former.on_failure(None, None, None)
        self._put(handle, TransportActor(self.context, name, name))

    def restart_store(self) -> None:
        """Let the store fail, and start it and all that depends on it again."""
        handles = self.context.handles
        handles.store.detach(self.store.actor_ref)
        for handle in handles.transports.values():
            self.actors.pop(handle).on_stop()
        self.store.on_failure(None, None, None)
        self._begin()

    def stop(self) -> None:
        """Stop in good order."""
        for handle in self.context.handles.transports.values():
            with self._working():
                self.actors[handle].on_stop()
        self.deliver(self.context.handles.store)
        with self._working():
            self.store.on_stop()
        self._leave()

    def kill(self) -> None:
        """Die, with all that is in memory."""
        self.context.store.close(leave=False)
        self._leave()

    def _leave(self) -> None:
        self.context.reader.close()
        self.reporter.close()
