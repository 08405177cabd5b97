"""The receiver actor letter by letter: real porters, a trial spool, and a store that answers when the test says."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from pykka import ActorRef
from tenacity import wait_fixed
from tenacity.wait import wait_base

from postroom.actors.context import Audience, Context, Handles
from postroom.actors.porter import PorterGone, PorterPolled, PorterSaid, PorterTook
from postroom.actors.protocol import Happened, Perform, Probe
from postroom.actors.receiver import ReceiverActor
from postroom.clock import ManualClock
from postroom.completions import Completions
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError, NotRunning, SpoolUnavailable, TransportDown
from postroom.events import ReceiverChanged
from postroom.inbound.values import Arrival, LedgerKey
from postroom.metrics import Instruments
from postroom.receivers.base import Inlet, Receiver, ReceiverSession
from postroom.receivers.status import ReceiverStatus
from postroom.receivers.watching import GRACE_SECONDS, LEASE_SECONDS, PROLONG_SECONDS
from postroom.routing import Router
from postroom.settings import Settings
from postroom.testing.inlets import TrialInlet, TrialSpool
from tests.support.letters import Letters

PATIENCE = 20.0


class Session(ReceiverSession):
    """Does at each poll and wait what the test says; nothing else ends a wait."""

    def __init__(self, receiver: "Scripted", inlet: Inlet) -> None:
        self.receiver = receiver
        self.inlet = inlet
        self.interrupts = 0
        self.closed = threading.Event()
        self.go_on = threading.Event()

    def poll(self) -> int:
        self.receiver.polls.put(self)
        return self.receiver.poll_script(self)

    def wait(self, timeout: float) -> None:
        self.receiver.waits.put(timeout)
        self.go_on.wait(PATIENCE)
        self.go_on.clear()

    def interrupt(self) -> None:
        self.interrupts += 1
        if not self.receiver.deaf:
            self.go_on.set()

    def close(self) -> None:
        self.closed.set()


@dataclass(kw_only=True, eq=False)
class Scripted(Receiver):
    name: str = "box"
    exclusive: bool = False
    interval: float = 60.0
    poll_timeout: float = 300.0
    retry: wait_base | None = field(default_factory=lambda: wait_fixed(7.0))
    poll_script: Callable[[Session], int] = lambda _: 0
    open_script: Callable[[], None] = lambda: None
    prepare_script: Callable[[], None] = lambda: None
    deaf: bool = False

    def __post_init__(self) -> None:
        self.polls: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self.waits: queue.SimpleQueue[float] = queue.SimpleQueue()

    def open(self, inlet: Inlet) -> ReceiverSession:
        self.open_script()
        return Session(self, inlet)

    def prepare(self) -> None:
        self.prepare_script()


class ReportingInlet(TrialInlet):
    """Tells the actor what the session says, as the spool's own inlet does."""

    def __init__(
        self, spool: TrialSpool, stopping: threading.Event, report: Callable[[str, str], None]
    ) -> None:
        super().__init__(spool)
        self.stopping = stopping
        self._report = report

    def report(self, status: str, reason: str = "") -> None:
        self._report(status, reason)


class Desk:
    """An actor that is driven by hand: nothing happens but what the test calls, and porters."""

    def __init__(self, receiver: Scripted) -> None:
        self.receiver = receiver
        self.clock = ManualClock()
        self.spool = TrialSpool()
        handles = Handles()
        self.to_store = Letters(handles.store)
        self.to_notifier = Letters(handles.notifier)
        self.context = Context(
            clock=self.clock, settings=Settings(), store=cast("Any", None), reader=cast("Any", None),
            router=Router([]), transports={}, queues={}, handles=handles,
            instruments=Instruments(CollectorRegistry()), completions=Completions(), audience=Audience(),
        )  # fmt: skip
        self.context.audience.any = True
        self.inlets: list[Any] = []
        self.actor = ReceiverActor(self.context, receiver, self._inlet, "receiver")

    def _inlet(self, name: str, stopping: threading.Event, report: Callable[[str, str], None]) -> Inlet:
        assert name == self.receiver.name
        inlet = ReportingInlet(self.spool, stopping, report)
        self.inlets.append(inlet)
        return inlet

    def hear(self, *kinds: type) -> Any:
        """Let the actor read letters until one of these kinds was read; return it."""
        while True:
            letter = self.actor.actor_inbox.get(timeout=PATIENCE).message
            self.actor.on_letters([letter])
            if not kinds or isinstance(letter, kinds):
                return letter

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.actor.on_wake()

    def answer(self, *, granted: bool | None) -> None:
        """Answer the actor's question for the lease as the store would."""
        letter = self.to_store.next()
        assert isinstance(letter, Perform)
        asked: list[tuple[Any, ...]] = []

        def lease(*args: Any) -> bool:
            asked.append(args)
            return bool(granted)

        result = letter.step(cast("Any", SimpleNamespace(inbox=SimpleNamespace(lease=lease))))
        assert asked == [("receiver/box", self.clock.time(), LEASE_SECONDS)]
        letter.ticket.resolve(result, None if granted is not None else SpoolUnavailable("no"))
        self.hear()

    @property
    def status(self) -> ReceiverStatus:
        return self.context.receiving[self.receiver.name]

    def events(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while not self.to_notifier.empty:
            happened = self.to_notifier.next()
            assert isinstance(happened, Happened)
            for event in happened.events:
                assert isinstance(event, ReceiverChanged)
                found.append((event.status, event.reason))
        return found


@pytest.fixture
def desks() -> Iterator[Callable[[Scripted], Desk]]:
    made: list[Desk] = []

    def make(receiver: Scripted) -> Desk:
        made.append(Desk(receiver))
        return made[-1]

    yield make
    for desk in made:
        desk.receiver.deaf = False
        desk.actor.on_stop()


Make = Callable[[Scripted], Desk]


def arrival(uid: str) -> Arrival:
    return Arrival(content=b"From: ann@example.org\r\n\r\n", keys=(LedgerKey("x", uid),))


def test_it_opens_polls_waits_and_polls_again(desks: Make) -> None:
    desk = desks(Scripted())
    desk.actor.on_start()
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.hear(PorterPolled)
    assert desk.status.status == "up"
    assert desk.receiver.waits.get(timeout=PATIENCE) == 60.0
    session.go_on.set()
    assert desk.receiver.polls.get(timeout=PATIENCE) is session
    assert desk.events() == [("connecting", ""), ("up", "")]


def test_what_was_taken_is_counted(desks: Make) -> None:
    desk = desks(Scripted(poll_script=lambda session: len(session.inlet.take([arrival("1"), arrival("1")]))))
    desk.actor.on_start()
    took = desk.hear(PorterTook)
    desk.hear(PorterPolled)
    assert took.messages == 1
    assert (desk.status.taken, desk.status.last_taken) == (1, desk.clock.time())


def test_a_failure_is_shown_and_tried_again_after_the_pause(desks: Make) -> None:
    def refuse() -> None:
        raise TransportDown("refused\x1b[0m")

    desk = desks(Scripted(open_script=refuse))
    desk.actor.on_start()
    desk.hear(PorterGone)
    assert (desk.status.status, desk.status.reason) == ("down", "refused [0m")
    assert desk.status.until == desk.clock.time() + 7.0
    assert desk.status.failures == 1
    assert desk.actor.next_wake() == desk.clock.monotonic() + 7.0
    desk.advance(7.0)
    desk.hear(PorterGone)
    assert desk.status.failures == 2
    desk.receiver.open_script = lambda: None
    desk.advance(7.0)
    desk.hear(PorterPolled)
    now_up = desk.status
    assert (now_up.status, now_up.reason, now_up.until, now_up.failures) == ("up", "", None, 0)
    assert [status for status, _ in desk.events()] == ["connecting", "down", "up"]


def test_an_operator_need_not_wait(desks: Make) -> None:
    def stumble() -> None:
        raise IndexError("pop from empty list")

    desk = desks(Scripted(open_script=stumble))
    desk.actor.on_start()
    desk.hear(PorterGone)
    assert desk.status.reason == "IndexError: pop from empty list"
    desk.receiver.open_script = lambda: None
    desk.actor.on_letters([Probe()])
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.hear(PorterPolled)
    desk.receiver.waits.get(timeout=PATIENCE)
    desk.actor.on_letters([Probe()])
    assert desk.receiver.polls.get(timeout=PATIENCE) is session, "it looks at once"


def test_the_other_sides_wish_for_a_pause_is_heeded(desks: Make) -> None:
    def refuse() -> None:
        raise TransportDown("busy", 90.0)

    desk = desks(Scripted(open_script=refuse))
    desk.actor.on_start()
    desk.hear(PorterGone)
    assert desk.status.until == desk.clock.time() + 90.0


def test_a_session_that_fails_is_closed_and_replaced(desks: Make) -> None:
    def fail(_: Session) -> int:
        raise ConnectionResetError("reset")

    desk = desks(Scripted(poll_script=fail))
    desk.actor.on_start()
    first = desk.receiver.polls.get(timeout=PATIENCE)
    desk.hear(PorterGone)
    assert first.closed.is_set()
    with pytest.raises(NotRunning):
        first.inlet.take([arrival("1")])
    desk.advance(7.0)
    assert desk.receiver.polls.get(timeout=PATIENCE) is not first


def test_what_a_session_says_is_shown(desks: Make) -> None:
    def complain(session: Session) -> int:
        session.inlet.report("up", "3 files are left alone")
        return 0

    desk = desks(Scripted(poll_script=complain))
    desk.actor.on_start()
    desk.hear(PorterSaid)
    desk.hear(PorterPolled)
    assert (desk.status.status, desk.status.reason) == ("up", "3 files are left alone")


def test_a_hung_poll_is_interrupted(desks: Make) -> None:
    def hang(session: Session) -> int:
        session.go_on.wait(PATIENCE)
        raise OSError("shut down")

    desk = desks(Scripted(poll_script=hang))
    desk.actor.on_start()
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.advance(299.0)
    assert session.interrupts == 0
    desk.advance(1.0)
    assert session.interrupts >= 1
    desk.hear(PorterGone)
    assert desk.status.status == "down"
    assert desk.status.reason == "it showed no sign of life for 300 s"


def test_a_call_of_the_inlet_is_a_sign_of_life(desks: Make) -> None:
    turn: queue.SimpleQueue[Callable[[Session], object] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[object] = queue.SimpleQueue()

    def work(session: Session) -> int:
        while (call := turn.get(timeout=PATIENCE)) is not None:
            done.put(call(session))
        return 0

    desk = desks(Scripted(poll_script=work))
    desk.actor.on_start()
    session = desk.receiver.polls.get(timeout=PATIENCE)
    calls: list[Callable[[Session], object]] = [
        lambda s: s.inlet.known("x"),
        lambda s: s.inlet.progress("x"),
        lambda s: s.inlet.forget("x", ["1"]),
        lambda s: s.inlet.prepare(Submission(message=b"", sender="", to=["ann@example.org"])),
        lambda s: s.inlet.take([arrival("1")]),
    ]
    for call in calls:
        desk.advance(299.0)
        turn.put(call)
        done.get(timeout=PATIENCE)
    assert session.interrupts == 0
    desk.advance(300.0)
    assert session.interrupts >= 1
    turn.put(None)
    desk.hear(PorterGone)


def test_waiting_is_no_hang(desks: Make) -> None:
    desk = desks(Scripted(interval=1000.0))
    desk.actor.on_start()
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.receiver.waits.get(timeout=PATIENCE)
    desk.advance(1299.0)
    assert session.interrupts == 0
    desk.advance(1.0)
    assert session.interrupts >= 1


def test_who_does_not_heed_the_interrupt_is_given_up_and_can_do_no_harm(desks: Make) -> None:
    release = threading.Event()
    problems: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def hang(session: Session) -> int:
        if release.wait(PATIENCE if len(desk.inlets) == 1 else 0):
            try:
                session.inlet.take([arrival("1")])
            except NotRunning as error:
                problems.put(error)
                raise
        return 0

    desk = desks(Scripted(poll_script=hang, deaf=True))
    desk.actor.on_start()
    first = desk.receiver.polls.get(timeout=PATIENCE)
    desk.advance(300.0)
    desk.advance(GRACE_SECONDS - 0.1)
    assert desk.status.status == "connecting"
    desk.advance(0.1)
    assert desk.status.status == "down"
    desk.advance(7.0)
    second = desk.receiver.polls.get(timeout=PATIENCE)
    assert second is not first
    desk.hear(PorterPolled)
    release.set()
    assert isinstance(problems.get(timeout=PATIENCE), NotRunning)
    gone = desk.hear(PorterGone)
    assert desk.spool.arrivals == []
    assert gone.error is not None
    assert desk.status.status == "up", "what the one that was given up says counts no more"
    assert first.closed.wait(PATIENCE)
    second.go_on.set()


def test_a_porter_that_hangs_in_open_is_given_up(desks: Make) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(PATIENCE)

    desk = desks(Scripted(open_script=hang))
    desk.actor.on_start()
    desk.advance(300.0)
    desk.advance(GRACE_SECONDS)
    assert desk.status.status == "down"
    release.set()
    desk.hear(PorterGone)
    assert desk.receiver.polls.empty(), "it noticed that it was given up"
    desk.advance(7.0)
    desk.hear(PorterPolled)


def test_an_exclusive_receiver_needs_the_lease(desks: Make) -> None:
    desk = desks(Scripted(exclusive=True))
    desk.actor.on_start()
    desk.answer(granted=False)
    assert (desk.status.status, desk.status.reason) == ("standby", "another process runs it")
    assert desk.inlets == []
    desk.advance(PROLONG_SECONDS)
    desk.answer(granted=None)
    desk.advance(1.0)
    desk.answer(granted=True)
    desk.hear(PorterPolled)
    assert [status for status, _ in desk.events()] == ["connecting", "standby", "connecting", "up"]


def test_a_lease_is_prolonged_and_given_up_in_the_end(desks: Make) -> None:
    desk = desks(Scripted(exclusive=True))
    desk.actor.on_start()
    desk.answer(granted=True)
    desk.hear(PorterPolled)
    for _ in range(10):
        desk.advance(PROLONG_SECONDS)
        desk.answer(granted=True)
    assert desk.status.status == "up"
    desk.actor.on_stop()
    ended: list[str] = []
    letter = desk.to_store.next()
    letter.step(SimpleNamespace(inbox=SimpleNamespace(end_lease=ended.append)))
    assert ended == ["receiver/box"]


def test_a_lost_lease_ends_the_session_and_lets_nothing_through(desks: Make) -> None:
    desk = desks(Scripted(exclusive=True))
    desk.actor.on_start()
    desk.answer(granted=True)
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.hear(PorterPolled)
    desk.advance(PROLONG_SECONDS)
    desk.answer(granted=False)
    with pytest.raises(NotRunning):
        session.inlet.take([arrival("1")])
    desk.hear(PorterGone)
    assert desk.status.status == "standby"
    assert session.closed.is_set()
    desk.advance(PROLONG_SECONDS)
    desk.answer(granted=True)
    assert desk.receiver.polls.get(timeout=PATIENCE) is not session


def test_without_an_answer_nothing_gets_through_when_the_lease_is_over(desks: Make) -> None:
    desk = desks(Scripted(exclusive=True))
    desk.actor.on_start()
    desk.answer(granted=True)
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.hear(PorterPolled)
    desk.clock.advance(LEASE_SECONDS)
    with pytest.raises(NotRunning):
        session.inlet.take([arrival("1")])
    desk.actor.on_wake()
    desk.hear(PorterGone)
    assert desk.status.status == "standby"


def test_a_store_that_is_away_is_asked_again(desks: Make) -> None:
    desk = desks(Scripted(exclusive=True))
    handle = desk.context.handles.store
    handle.detach(cast("ActorRef[Any]", desk.to_store))
    desk.actor.on_start()
    handle.attach(cast("ActorRef[Any]", desk.to_store))
    desk.advance(1.0)
    desk.answer(granted=True)
    desk.hear(PorterPolled)


def test_what_cannot_be_prepared_fails_the_actor_and_says_why(desks: Make) -> None:
    def refuse() -> None:
        raise ConfigurationError("host", "it is empty", "give one")

    desk = desks(Scripted(prepare_script=refuse))
    with pytest.raises(ConfigurationError):
        desk.actor.on_start()
    assert (desk.status.status, desk.status.reason) == ("down", "host: it is empty; give one")


def test_the_first_news_are_heard_before_any_handle_leads_to_the_actor(desks: Make) -> None:
    desk = desks(Scripted())
    assert desk.context.handles.receivers == {}
    desk.actor.on_start()
    desk.hear(PorterPolled)
    assert desk.status.status == "up"


def test_a_failed_actor_leaves_no_porter_behind(desks: Make) -> None:
    desk = desks(Scripted())
    desk.actor.on_start()
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.actor.on_failure(RuntimeError, RuntimeError("struck down"), None)
    assert session.closed.is_set()
    with pytest.raises(NotRunning):
        session.inlet.take([arrival("1")])
    assert desk.status.reason == "RuntimeError: struck down"


def test_a_porter_that_hangs_does_not_hold_up_the_end_for_ever(
    desks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.actors.receiver.STOP_SECONDS", 0.1)
    release = threading.Event()
    desk = desks(Scripted(poll_script=lambda _: int(release.wait(PATIENCE)), deaf=True))
    desk.actor.on_start()
    session = desk.receiver.polls.get(timeout=PATIENCE)
    desk.actor.on_stop()
    with pytest.raises(NotRunning):
        session.inlet.take([arrival("1")])
    release.set()
    assert session.closed.wait(PATIENCE)
