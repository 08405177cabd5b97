"""An actor with a mailbox, without a supervisor."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pykka
import pytest

from postroom.supervision import (
    AskTimeout,
    ChildUnavailable,
    Crash,
    Handle,
    InjectedCrash,
    Mailbox,
    MailboxActor,
)
from postroom.supervision.letters import ActorStop, Envelope
from tests.support.supervised import PATIENCE, Fail, Hang, PlainPlayer, Player, Stage, eventually


class Watcher:
    def __init__(self, ref: pykka.ActorRef[Any]) -> None:
        self.calls: list[str] = []
        self.threads: list[threading.Thread] = []
        self.failure: BaseException | None = None
        self.exited = threading.Event()
        mailbox(ref).watch(on_ready=self.on_ready, on_close=self.on_close, on_exit=self.on_exit)

    def on_ready(self) -> None:
        self.calls.append("ready")

    def on_close(self) -> None:
        self.calls.append("close")

    def on_exit(self, failure: BaseException | None) -> None:
        self.calls.append("exit")
        self.threads.append(threading.current_thread())
        self.failure = failure
        self.exited.set()

    def wait(self) -> BaseException | None:
        assert self.exited.wait(PATIENCE)
        return self.failure


def mailbox(ref: pykka.ActorRef[Any]) -> Mailbox:
    assert isinstance(ref.actor_inbox, Mailbox)
    return ref.actor_inbox


@pytest.fixture
def ref(stage: Stage) -> Iterator[pykka.ActorRef[Player]]:
    ref = Player.start(stage, "x")
    yield ref
    stage.release.set()
    ref.stop(timeout=PATIENCE)


def test_what_waits_is_taken_at_once_and_in_order(stage: Stage, ref: pykka.ActorRef[Player]) -> None:
    ref.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    for number in range(2500):
        ref.tell(number)
    assert mailbox(ref).qsize() == 2500
    stage.release.set()
    assert ref.ask("letters", timeout=PATIENCE) == list(range(2500))
    batches: Any = ref.ask("batches", timeout=PATIENCE)
    assert [len(batch) for batch in batches] == [1, 1000, 1000, 500]


def test_asks_keep_their_place_among_tells(stage: Stage, ref: pykka.ActorRef[Player]) -> None:
    ref.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    ref.tell(1)
    ref.tell(2)
    early = ref.ask("letters", block=False)
    ref.tell(3)
    late = ref.ask("letters", block=False)
    stage.release.set()
    assert early.get(timeout=PATIENCE) == [1, 2]
    assert late.get(timeout=PATIENCE) == [1, 2, 3]


def test_letters_before_a_stop_are_handled_and_those_behind_refused(
    stage: Stage, ref: pykka.ActorRef[Player]
) -> None:
    watcher = Watcher(ref)
    ref.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    before = ref.ask("before", block=False)
    stopped = ref.stop(block=False)
    ref.tell("lost")
    behind = ref.ask("behind", block=False)
    again = ref.stop(block=False)
    stage.release.set()
    assert before.get(timeout=PATIENCE) == ("answer", "before")
    assert stopped.get(timeout=PATIENCE) is True
    assert again.get(timeout=PATIENCE) is True
    with pytest.raises(pykka.ActorDeadError):
        behind.get(timeout=PATIENCE)
    assert watcher.wait() is None
    assert mailbox(ref).dropped == 2
    assert stage.log == ["start x", "stop x"]


def test_an_end_is_told_in_the_dying_thread(ref: pykka.ActorRef[Player]) -> None:
    thread = mailbox(ref).thread
    watcher = Watcher(ref)
    failure = ValueError("boom")
    ref.tell(Fail(failure))
    assert watcher.wait() is failure
    assert watcher.calls[-2:] == ["close", "exit"]
    assert watcher.threads == [thread]
    assert not ref.is_alive()


def test_letters_behind_a_failure_are_counted_and_asks_answered(
    stage: Stage, ref: pykka.ActorRef[Player]
) -> None:
    watcher = Watcher(ref)
    ref.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    ref.tell(Fail(ValueError("boom")))
    asks = [ref.ask(number, block=False) for number in range(3)]
    ref.tell("lost")
    stage.release.set()
    for ask in asks:
        with pytest.raises(pykka.ActorDeadError):
            ask.get(timeout=PATIENCE)
    watcher.wait()
    assert mailbox(ref).dropped == 4


def test_whoever_watches_late_is_told_all_the_same(stage: Stage) -> None:
    failure = OSError("no database")
    stage.failing["x"] = failure
    ref = Player.start(stage, "x")
    eventually(lambda: mailbox(ref).ended)
    watcher = Watcher(ref)
    assert watcher.wait() is failure
    assert watcher.calls == ["close", "exit"]
    assert watcher.threads == [threading.current_thread()]


def test_a_watcher_that_raises_harms_nobody(
    ref: pykka.ActorRef[Player], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise SystemExit("watcher")

    thread = mailbox(ref).thread
    mailbox(ref).watch(on_ready=lambda: None, on_close=refuse, on_exit=refuse)
    ref.stop(timeout=PATIENCE)
    assert thread is not None
    thread.join(PATIENCE)
    assert mailbox(ref).ended
    assert [record.message for record in caplog.records] == ["a watcher failed"] * 2


def test_an_exception_of_an_ask_goes_to_the_asker_and_the_actor_lives(ref: pykka.ActorRef[Player]) -> None:
    with pytest.raises(ValueError, match="boom"):
        ref.ask(Fail(ValueError("boom")), timeout=PATIENCE)
    assert ref.ask("still there?", timeout=PATIENCE) == ("answer", "still there?")


def test_a_system_exit_of_an_ask_ends_the_actor_and_not_the_asker(ref: pykka.ActorRef[Player]) -> None:
    watcher = Watcher(ref)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask(Fail(SystemExit(3)), timeout=PATIENCE)
    assert isinstance(watcher.wait(), SystemExit)


@pytest.mark.parametrize("exception", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_system_exit_ends_no_other_actor_of_the_process(
    ref: pykka.ActorRef[Player], exception: BaseException
) -> None:
    bystander = PlainPlayer.start()
    try:
        watcher = Watcher(ref)
        ref.tell(Fail(exception))
        assert watcher.wait() is exception
        assert bystander.ask("still there?", timeout=PATIENCE) == ("answer", "still there?")
        assert pykka.ActorRegistry.get_all() == [bystander]
    finally:
        bystander.stop(timeout=PATIENCE)


def test_a_crash_letter_crashes_in_its_turn(ref: pykka.ActorRef[Player]) -> None:
    watcher = Watcher(ref)
    ref.tell("before")
    answer = ref.ask("letters", block=False)
    ref.tell(Crash("on purpose"))
    assert answer.get(timeout=PATIENCE) == ["before"]
    failure = watcher.wait()
    assert isinstance(failure, InjectedCrash)
    assert str(failure) == "on purpose"


def test_a_failure_is_logged_once(ref: pykka.ActorRef[Player], caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher(ref)
    ref.tell(Fail(ValueError("boom")))
    watcher.wait()
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.name, record.message) for record in errors] == [
        ("postroom.supervision", "player-x failed")
    ]


def test_a_failing_on_stop_is_told_and_stops_all_the_same() -> None:
    class Clumsy(Player):
        def on_stop(self) -> None:
            raise OSError("close failed")

    ref = Clumsy.start(Stage(), "x")
    watcher = Watcher(ref)
    assert ref.stop(timeout=PATIENCE) is True
    assert isinstance(watcher.wait(), OSError)


def test_on_failure_may_fail_too() -> None:
    class Hopeless(Player):
        def on_failure(
            self,
            exception_type: type[BaseException] | None,
            exception_value: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            raise SystemExit(f"again, after {exception_type}, {traceback}") from exception_value

    ref = Hopeless.start(Stage(), "x")
    watcher = Watcher(ref)
    ref.tell(Fail(ValueError("first")))
    assert isinstance(watcher.wait(), ValueError)


def test_proxies_of_pykka_work(ref: pykka.ActorRef[Player]) -> None:
    proxy: Any = ref.proxy()
    assert proxy.role.get(timeout=PATIENCE) == "x"
    assert proxy.depth().get(timeout=PATIENCE) == 0
    setattr(proxy, "role", "y")  # noqa: B010 - a plain assignment would tell pyright that it reads back as a text
    assert proxy.role.get(timeout=PATIENCE) == "y"


def test_what_nobody_overrides_is_refused_in_the_open(caplog: pytest.LogCaptureFixture) -> None:
    ref = MailboxActor.start()
    ref.tell("for nobody")
    with pytest.raises(NotImplementedError, match="answers no asks"):
        ref.ask("anything", timeout=PATIENCE)
    ref.stop(timeout=PATIENCE)
    assert "has no use for 1 letters" in caplog.text


def test_the_thread_has_the_actors_name_and_never_holds_the_process(ref: pykka.ActorRef[Player]) -> None:
    thread = mailbox(ref).thread
    assert thread is not None
    assert thread.name == "player-x"
    assert thread.daemon


def test_a_busy_actor_shows_since_when(stage: Stage, ref: pykka.ActorRef[Player]) -> None:
    eventually(lambda: mailbox(ref).busy_since is None)
    assert mailbox(ref).busy_for() == 0
    before = time.monotonic()
    ref.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    since = mailbox(ref).busy_since
    assert since is not None
    assert before <= since <= time.monotonic()
    stage.release.set()
    eventually(lambda: mailbox(ref).busy_since is None)


class Alarm(MailboxActor):
    """Wakes up a number of times without any letters."""

    def __init__(self, interval: float, times: int) -> None:
        super().__init__()
        self.interval = interval
        self.times = times
        self.due = self.monotonic() + interval
        self.early = 0
        self.seen: queue.SimpleQueue[object] = queue.SimpleQueue()

    def next_wake(self) -> float | None:
        return self.due if self.times else None

    def on_wake(self) -> None:
        self.early += self.monotonic() < self.due
        self.times -= 1
        self.due += self.interval
        self.seen.put("wake")

    def on_letters(self, letters: list[object]) -> None:
        for letter in letters:
            self.seen.put(letter)

    def on_ask(self, letter: object) -> object:
        assert letter == "early"
        return self.early


def test_an_actor_wakes_when_it_is_due() -> None:
    ref = Alarm.start(0.01, 3)
    seen = ref.proxy().seen.get(timeout=PATIENCE)
    assert [seen.get(timeout=PATIENCE) for _ in range(3)] == ["wake"] * 3
    assert ref.ask("early", timeout=PATIENCE) == 0
    ref.stop(timeout=PATIENCE)


def test_wakes_that_are_always_due_do_not_starve_letters() -> None:
    ref = Alarm.start(0.0, 10**9)
    try:
        assert ref.ask("early", timeout=PATIENCE) == 0
    finally:
        ref.stop(timeout=PATIENCE)


def test_a_far_wake_is_no_trouble() -> None:
    ref = Alarm.start(float("inf"), 1)
    assert ref.ask("early", timeout=PATIENCE) == 0
    ref.stop(timeout=PATIENCE)


def test_a_handle_leads_to_one_child_after_the_other(stage: Stage) -> None:
    handle = Handle("x")
    assert not handle.tell("nobody there")
    with pytest.raises(ChildUnavailable, match="x is not running") as unavailable:
        handle.ask("anybody?", timeout=PATIENCE)
    assert not unavailable.value.sent
    assert (handle.dropped, handle.incarnation, handle.alive, handle.depth()) == (2, 0, False, 0)

    first, second = Player.start(stage, "x"), Player.start(stage, "x")
    handle.attach(first)
    assert handle.tell("one")
    assert handle.ask("letters", timeout=PATIENCE) == ["one"]
    handle.attach(second)
    handle.detach(first)
    assert handle.ref is second
    assert handle.ask("letters", timeout=PATIENCE) == []
    assert (handle.incarnation, handle.alive) == (2, True)
    assert repr(handle) == "<Handle 'x', incarnation 2, alive True>"
    first.stop(timeout=PATIENCE)
    second.stop(timeout=PATIENCE)
    with pytest.raises(ChildUnavailable, match="not running"):
        handle.ask("anybody?", timeout=PATIENCE)


def test_an_ask_that_is_not_answered_ends_in_its_time(stage: Stage, ref: pykka.ActorRef[Player]) -> None:
    handle = Handle("x")
    handle.attach(ref)
    handle.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    with pytest.raises(AskTimeout, match=r"did not answer within 0\.01 s"):
        handle.ask("late", timeout=0.01)
    assert handle.depth() == 1


def test_an_ask_whose_child_dies_is_answered_before_its_time(
    stage: Stage, ref: pykka.ActorRef[Player]
) -> None:
    handle = Handle("x")
    handle.attach(ref)
    handle.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    handle.tell(Crash())
    timer = threading.Timer(0.02, stage.release.set)
    timer.start()
    with pytest.raises(ChildUnavailable, match="died before it answered") as unavailable:
        handle.ask("behind the crash", timeout=PATIENCE)
    assert unavailable.value.sent
    timer.join()


def test_an_ask_put_after_the_end_is_answered_too(stage: Stage) -> None:
    ref = Player.start(stage, "x")
    ref.stop(timeout=PATIENCE)
    eventually(lambda: mailbox(ref).ended)
    handle = Handle("x")
    handle.attach(ref)
    ref.actor_stopped.clear()  # as if the actor had ended between the look and the letter
    with pytest.raises(ChildUnavailable, match="died before it answered"):
        handle.ask("too late", timeout=PATIENCE)


def test_the_private_parts_of_pykka_are_where_they_were(stage: Stage) -> None:
    ref = PlainPlayer.start()
    future: pykka.ThreadingFuture[object] = pykka.ThreadingFuture()
    ref.actor_inbox.put(Envelope("letter", future))
    assert future.get(timeout=PATIENCE) == ("answer", "letter")
    ref.actor_inbox.put(Envelope(ActorStop()))
    eventually(lambda: not ref.is_alive())
    del stage
