"""Supervisors with real threads: order, restarts, hangs, and that the host is left alone."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import pykka
import pytest
from tenacity import wait_exponential, wait_fixed, wait_none

from postroom.supervision import (
    ChildAbandoned,
    ChildDown,
    ChildEnded,
    ChildRestarting,
    ChildSpec,
    ChildStarted,
    ChildState,
    ChildUnavailable,
    Handle,
    HungChild,
    InjectedCrash,
    Intensity,
    LostChild,
    Restart,
    StartTimeout,
    Strategy,
    SupervisionError,
    Supervisor,
    SupervisorStateError,
    UnknownChild,
    supervisor_child,
)
from tests.support.supervised import (
    PATIENCE,
    Fail,
    Hang,
    PlainPlayer,
    Player,
    Recorder,
    Stage,
    eventually,
    row_of,
)

Supervise = Callable[..., Supervisor]
FOREVER = wait_fixed(3000)


def in_state(supervisor: Supervisor, name: str, state: ChildState) -> bool:
    return row_of(supervisor, name).state is state


def test_children_start_in_order_and_stop_in_reverse(stage: Stage, supervise: Supervise) -> None:
    supervisor = supervise(stage.specs("abc"))
    supervisor.start(PATIENCE)
    assert supervisor.running
    assert [row.state for row in supervisor.children()] == [ChildState.RUNNING] * 3
    assert supervisor.stop(PATIENCE) == ()
    assert stage.log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert [row.state for row in supervisor.children()] == [ChildState.STOPPED] * 3
    assert not supervisor.running


@pytest.mark.parametrize("strategy", Strategy)
def test_each_start_waits_for_the_one_before(stage: Stage, supervise: Supervise, strategy: Strategy) -> None:
    stage.hanging.add("a")
    supervisor = supervise(stage.specs("ab"), strategy=strategy)
    thread = threading.Thread(target=supervisor.start, args=(PATIENCE,))
    thread.start()
    assert stage.entered.wait(PATIENCE)
    expected = [ChildState.STARTING, ChildState.WAITING]
    eventually(lambda: [row.state for row in supervisor.children()] == expected)
    assert stage.log == []
    stage.release.set()
    thread.join(PATIENCE)
    assert stage.log == ["start a", "start b"]


@pytest.mark.parametrize(
    ("strategy", "log"),
    [
        (Strategy.ONE_FOR_ONE, ["start b"]),
        (Strategy.REST_FOR_ONE, ["stop d", "stop c", "start b", "start c", "start d"]),
        (
            Strategy.ONE_FOR_ALL,
            ["stop d", "stop c", "stop a", "start a", "start b", "start c", "start d"],
        ),
    ],
)
def test_a_crash_restarts_whom_the_strategy_says(
    stage: Stage, supervise: Supervise, recorder: Recorder, strategy: Strategy, log: list[str]
) -> None:
    supervisor = supervise(stage.specs("abcd"), strategy=strategy)
    supervisor.start(PATIENCE)
    stage.log.clear()
    assert supervisor.crash("b", "on purpose")
    ended = recorder.wait(ChildEnded, "b")
    assert isinstance(ended.exception, InjectedCrash)
    assert "InjectedCrash: on purpose" in ended.traceback
    restarting = recorder.wait(ChildRestarting, "b")
    assert (restarting.delay, restarting.consecutive) == (0.01, 1)
    eventually(lambda: stage.log == log, f"{log}")
    recorder.wait(ChildStarted, log[-1].split()[1], 2)
    row = row_of(supervisor, "b")
    assert (row.state, row.incarnation, row.restarts) == (ChildState.RUNNING, 2, 1)
    assert row.last_error == "InjectedCrash: on purpose"


def test_a_handle_works_across_restarts(stage: Stage, supervise: Supervise, recorder: Recorder) -> None:
    store = Handle("store")
    supervisor = supervise([stage.spec("a", handle=store)])
    supervisor.start(PATIENCE)
    assert supervisor.handle("a") is store
    for incarnation in range(1, 4):
        assert store.ask("hello", timeout=PATIENCE) == ("answer", "hello")
        assert store.incarnation == incarnation
        store.tell(Fail(ValueError("boom")))
        recorder.wait(ChildStarted, "a", incarnation + 1)


def test_letters_to_a_dead_child_are_dropped_and_counted(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    supervisor = supervise(stage.specs("a", backoff=FOREVER))
    supervisor.start(PATIENCE)
    handle = supervisor.handle("a")
    handle.tell(Hang())
    assert stage.entered.wait(PATIENCE)
    supervisor.crash("a")
    assert handle.tell("behind the crash")
    stage.release.set()
    recorder.wait(ChildRestarting, "a")
    assert handle.dropped == 1
    assert not handle.alive
    assert not handle.tell("nobody there")
    with pytest.raises(ChildUnavailable):
        handle.ask("anybody?", timeout=PATIENCE)
    assert handle.dropped == 3
    assert not supervisor.crash("a")
    row = row_of(supervisor, "a")
    assert row.state is ChildState.WAITING
    assert row.next_start_at is not None
    assert row.next_start_at > time.monotonic() + 2000


def test_a_start_that_fails_is_tried_again_behind_a_prompt_start(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    stage.failing["b"] = OSError("no route")
    supervisor = supervise(stage.specs("abc"))
    supervisor.start(PATIENCE)
    assert stage.log == ["start a", "start c"]
    assert row_of(supervisor, "b").last_error == "OSError: no route"
    recorder.wait(ChildEnded, "b", 2)
    assert isinstance(recorder.wait(ChildEnded, "b").exception, OSError)
    stage.failing.clear()
    recorder.wait(ChildStarted, "b")
    assert supervisor.handle("b").ask("up?", timeout=PATIENCE) == ("answer", "up?")


def test_who_depends_on_a_failed_start_waits_for_it(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    stage.failing["b"] = OSError("no route")
    supervisor = supervise(stage.specs("abc"), strategy=Strategy.REST_FOR_ONE)
    supervisor.start(PATIENCE)
    assert stage.log == ["start a"]
    stage.failing.clear()
    recorder.wait(ChildStarted, "c")
    assert stage.log == ["start a", "start b", "start c"]


def test_a_restart_without_any_back_off_does_not_hold_up_the_start(
    stage: Stage, supervise: Supervise
) -> None:
    stage.failing["a"] = OSError("no route")
    supervisor = supervise(stage.specs("ab"), backoff=wait_none(), intensity=Intensity(10**6, 1))
    supervisor.start(PATIENCE)
    assert stage.log == ["start b"]


def test_a_factory_that_raises_is_a_failed_start(
    stage: Stage, supervise: Supervise, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> pykka.ActorRef[Player]:
        raise SystemExit("cannot be made")

    supervisor = supervise([ChildSpec("a", start=broken), stage.spec("b")])
    supervisor.start(PATIENCE)
    assert isinstance(recorder.wait(ChildEnded, "a", 2).exception, SystemExit)
    assert "a could not be made" in caplog.text
    assert row_of(supervisor, "b").state is ChildState.RUNNING


def test_an_essential_child_that_fails_at_first_raises_and_stops_everything(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    failure = OSError("disk gone")
    stage.failing["b"] = failure
    supervisor = supervise([stage.spec("a"), stage.spec("b", essential=True), stage.spec("c")])
    with pytest.raises(OSError, match="disk gone") as raised:
        supervisor.start(PATIENCE)
    assert raised.value is failure
    assert stage.log == ["start a", "stop a"]
    assert not supervisor.running
    assert not recorder.of(ChildRestarting, "b")
    assert supervisor.stop(PATIENCE) == ()


def test_an_essential_child_in_a_subtree_is_heard_at_the_top(stage: Stage, supervise: Supervise) -> None:
    stage.failing["b"] = OSError("disk gone")
    subtree = supervisor_child("sub", [stage.spec("b", essential=True)], essential=True)
    supervisor = supervise([stage.spec("a"), subtree])
    with pytest.raises(OSError, match="disk gone"):
        supervisor.start(PATIENCE)
    assert stage.log == ["start a", "stop a"]


def test_the_exit_of_an_essential_child_does_not_end_the_host(stage: Stage, supervise: Supervise) -> None:
    stage.failing["a"] = SystemExit(1)
    supervisor = supervise(stage.specs("a", essential=True))
    with pytest.raises(SupervisionError, match=r"essential child failed at its first start: SystemExit\(1\)"):
        supervisor.start(PATIENCE)


def test_an_essential_child_is_restarted_like_any_other_later(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    supervisor = supervise(stage.specs("a", essential=True))
    supervisor.start(PATIENCE)
    stage.failing["a"] = OSError("disk gone")
    supervisor.crash("a")
    recorder.wait(ChildEnded, "a", 3)
    stage.failing.clear()
    recorder.wait(ChildStarted, "a", 2)


def test_an_essential_child_that_hangs_at_first_costs_no_more_than_the_timeout(
    stage: Stage, supervise: Supervise
) -> None:
    stage.hanging.add("b")
    supervisor = supervise([stage.spec("a"), stage.spec("b", essential=True, stop_timeout=0.05)])
    with pytest.raises(StartTimeout, match=r"b did not start within 0\.2 s"):
        supervisor.start(timeout=0.2)
    eventually(lambda: stage.log == ["start a", "stop a"])


def test_a_start_that_takes_longer_goes_on_behind_the_timeout(stage: Stage, supervise: Supervise) -> None:
    stage.hanging.add("b")
    supervisor = supervise([stage.spec("a", essential=True), stage.spec("b"), stage.spec("c")])
    supervisor.start(timeout=0.2)
    assert row_of(supervisor, "b").state is ChildState.STARTING
    stage.release.set()
    eventually(lambda: stage.log == ["start a", "start b", "start c"])


def test_a_start_that_hangs_is_abandoned_and_tried_again(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    stage.hanging.add("a")
    supervisor = supervise(stage.specs("a", start_timeout=0.05))
    thread = threading.Thread(target=supervisor.start, args=(PATIENCE,))
    thread.start()
    assert stage.entered.wait(PATIENCE)
    stage.hanging.clear()
    assert "did not start" in recorder.wait(ChildAbandoned, "a").reason
    assert isinstance(recorder.wait(ChildEnded, "a").exception, StartTimeout)
    assert recorder.wait(ChildStarted, "a").incarnation == 2
    thread.join(PATIENCE)


def test_a_hung_child_is_abandoned_and_replaced(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    supervisor = supervise(stage.specs("a", hang_timeout=0.05))
    supervisor.start(PATIENCE)
    handle = supervisor.handle("a")
    hung = handle.ref
    assert hung is not None
    handle.tell(Hang())
    assert "busy with one batch" in recorder.wait(ChildAbandoned, "a").reason
    assert isinstance(recorder.wait(ChildEnded, "a").exception, HungChild)
    recorder.wait(ChildStarted, "a", 2)
    assert handle.ask("letters", timeout=PATIENCE) == []
    assert handle.ref is not hung
    assert not hung.is_alive()
    stage.release.set()
    # The one that hung ends as soon as it comes back, and its end is nobody's business any more.
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "player-a"][1:])
    assert handle.ask("up?", timeout=PATIENCE) == ("answer", "up?")
    assert len(recorder.of(ChildEnded, "a")) == 1


def test_a_system_exit_in_a_child_leaves_the_hosts_actors_alone(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    bystander = PlainPlayer.start()
    try:
        supervisor = supervise(stage.specs("ab"))
        supervisor.start(PATIENCE)
        supervisor.handle("a").tell(Fail(SystemExit(1)))
        assert isinstance(recorder.wait(ChildEnded, "a").exception, SystemExit)
        recorder.wait(ChildStarted, "a", 2)
        supervisor.stop(PATIENCE)
        assert pykka.ActorRegistry.get_all() == [bystander]
        assert bystander.ask("up?", timeout=PATIENCE) == ("answer", "up?")
    finally:
        bystander.stop(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("restart", "orderly", "failed"),
    [
        (Restart.PERMANENT, ChildState.RUNNING, ChildState.RUNNING),
        (Restart.TRANSIENT, ChildState.ENDED, ChildState.RUNNING),
        (Restart.TEMPORARY, ChildState.ENDED, ChildState.ENDED),
    ],
)
def test_which_ends_are_followed_by_a_restart(  # noqa: PLR0917 - fixtures are parameters
    stage: Stage,
    supervise: Supervise,
    recorder: Recorder,
    restart: Restart,
    orderly: ChildState,
    failed: ChildState,
) -> None:
    supervisor = supervise(stage.specs("ab", restart=restart))
    supervisor.start(PATIENCE)
    ref = supervisor.handle("a").ref
    assert ref is not None
    ref.stop(timeout=PATIENCE)
    supervisor.crash("b")
    for name, state in (("a", orderly), ("b", failed)):
        recorder.wait(ChildEnded, name)
        if state is ChildState.RUNNING:
            recorder.wait(ChildStarted, name, 2)
        eventually(partial(in_state, supervisor, name, state))
    assert recorder.wait(ChildEnded, "a").exception is None


def test_a_child_over_the_intensity_is_down_and_recovers(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    stage.failing["a"] = OSError("no route")
    backoff = wait_exponential(multiplier=0.001, max=0.2)
    supervisor = supervise(stage.specs("ab"), intensity=Intensity(3, 60), backoff=backoff, quiet_after=0)
    supervisor.start(PATIENCE)
    down = recorder.wait(ChildDown, "a")
    assert (down.consecutive, down.delay) == (4, 0.2)
    recorder.wait(ChildRestarting, "a", 5)
    assert row_of(supervisor, "a").state in {ChildState.DOWN, ChildState.STARTING}
    assert row_of(supervisor, "b").state is ChildState.RUNNING
    stage.failing.clear()
    recorder.wait(ChildStarted, "a")
    assert len(recorder.of(ChildDown, "a")) == 1
    assert supervisor.handle("a").ask("up?", timeout=PATIENCE) == ("answer", "up?")


def test_a_quiet_time_forgets_earlier_failures(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    now = [0.0]
    supervisor = supervise(stage.specs("a"), backoff=wait_none(), quiet_after=60, monotonic=lambda: now[0])
    supervisor.start(PATIENCE)
    for count, uptime in enumerate([1, 1, 61], start=1):
        recorder.wait(ChildStarted, "a", count)
        now[0] += uptime
        supervisor.crash("a")
        recorder.wait(ChildRestarting, "a", count)
    recorder.wait(ChildStarted, "a", 4)
    assert [event.consecutive for event in recorder.of(ChildRestarting, "a")] == [1, 2, 1]


def test_a_subtree_keeps_its_failures_to_itself(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    supervisor = supervise(
        [
            stage.spec("a"),
            supervisor_child("sub", stage.specs("bc"), strategy=Strategy.ONE_FOR_ALL),
            stage.spec("d"),
        ],
        strategy=Strategy.REST_FOR_ONE,
    )
    supervisor.start(PATIENCE)
    assert [row.name for row in supervisor.children()] == ["a", "sub", "sub/b", "sub/c", "d"]
    assert {row.state for row in supervisor.children()} == {ChildState.RUNNING}
    stage.log.clear()
    supervisor.crash("sub/c")
    recorder.wait(ChildStarted, "sub/c", 2)
    assert stage.log == ["stop b", "start b", "start c"]
    assert supervisor.stop(PATIENCE) == ()
    assert stage.log[3:] == ["stop d", "stop c", "stop b", "stop a"]


def test_a_supervisor_that_fails_is_restarted_with_its_subtree(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    supervisor = supervise([stage.spec("a"), supervisor_child("sub", stage.specs("bc"))])
    supervisor.start(PATIENCE)
    handle = supervisor.handle("sub/b")
    stage.log.clear()
    supervisor.crash("sub")
    recorder.wait(ChildStarted, "sub", 2)
    assert stage.log == ["stop c", "stop b", "start b", "start c"]
    assert handle.ask("up?", timeout=PATIENCE) == ("answer", "up?")
    row = row_of(supervisor, "sub/b")
    assert (row.state, row.incarnation, row.restarts) == (ChildState.RUNNING, 2, 1)
    assert row_of(supervisor, "a").restarts == 0


def test_a_stop_cuts_a_back_off_short(stage: Stage, supervise: Supervise, recorder: Recorder) -> None:
    supervisor = supervise(
        [supervisor_child("sub", stage.specs("a")), stage.spec("b")], backoff=FOREVER, poll_interval=3000
    )
    supervisor.start(PATIENCE)
    supervisor.crash("b")
    supervisor.crash("sub/a")
    recorder.wait(ChildRestarting, "b")
    recorder.wait(ChildRestarting, "sub/a")
    assert supervisor.stop(timeout=60) == ()
    assert stage.log == ["start a", "start b"]
    assert {row.state for row in supervisor.children()} == {ChildState.STOPPED}


def test_who_does_not_stop_is_abandoned_and_named(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    supervisor = supervise(
        [
            stage.spec("a"),
            stage.spec("b", stop_timeout=0.05),
            supervisor_child("sub", [stage.spec("c"), stage.spec("d", stop_timeout=0.05)]),
        ]
    )
    supervisor.start(PATIENCE)
    for name in ("b", "sub/d"):
        supervisor.handle(name).tell(Hang())
        assert stage.entered.wait(PATIENCE)
        stage.entered.clear()
    assert supervisor.stop(PATIENCE) == ("sub/d", "b")
    assert stage.log[4:] == ["stop c", "stop a"]
    assert recorder.wait(ChildAbandoned, "b").reason == "b did not stop in time"
    assert supervisor.stop(PATIENCE) == ("sub/d", "b")
    assert not supervisor.handle("b").alive


def test_a_short_stop_leaves_time_for_everybody(stage: Stage, supervise: Supervise) -> None:
    supervisor = supervise(stage.specs("abc", stop_timeout=1000))
    supervisor.start(PATIENCE)
    for name in "bc":
        supervisor.handle(name).tell(Hang())
        assert stage.entered.wait(PATIENCE)
        stage.entered.clear()
    assert supervisor.stop(timeout=0.5) == ("c", "b")
    assert stage.log[-1] == "stop a"


def test_a_stop_returns_even_when_the_supervisor_itself_hangs(stage: Stage, supervise: Supervise) -> None:
    def hanging() -> pykka.ActorRef[Player]:
        stage.hang()
        return Player.start(stage, "late")

    supervisor = supervise(
        [stage.spec("a"), supervisor_child("sub", stage.specs("b")), ChildSpec("c", start=hanging)]
    )
    supervisor.start(timeout=0.2)
    assert stage.entered.is_set()
    assert supervisor.stop(timeout=0.1) == ("a", "sub", "sub/b", "test")
    assert not supervisor.handle("a").alive
    assert not supervisor.handle("sub/b").alive
    # All end as soon as the supervisor comes back, the late child included (the fixture looks).
    stage.release.set()


def test_a_hung_subtree_is_abandoned_as_a_whole(
    stage: Stage, supervise: Supervise, recorder: Recorder
) -> None:
    hang = threading.Event()

    def start() -> pykka.ActorRef[Player]:
        if hang.is_set():
            hang.clear()
            stage.hang()
        return Player.start(stage, "b")

    subtree = supervisor_child("sub", [stage.spec("a"), ChildSpec("b", start=start)], hang_timeout=0.1)
    supervisor = supervise([subtree])
    supervisor.start(PATIENCE)
    hang.set()
    supervisor.crash("sub/b")
    recorder.wait(ChildAbandoned, "sub")
    recorder.wait(ChildStarted, "sub", 2)
    assert {row.state for row in supervisor.children()} == {ChildState.RUNNING}
    stage.release.set()
    for name in ("sub/a", "sub/b"):
        assert supervisor.handle(name).ask("up?", timeout=PATIENCE) == ("answer", "up?")


def test_plain_actors_of_pykka_are_watched_by_polling(supervise: Supervise, recorder: Recorder) -> None:
    supervisor = supervise([ChildSpec("a", start=PlainPlayer.start, restart=Restart.TRANSIENT)])
    supervisor.start(PATIENCE)
    handle = supervisor.handle("a")
    assert handle.ask("up?", timeout=PATIENCE) == ("answer", "up?")
    assert handle.depth() == 0
    handle.tell(Fail(ValueError("boom")))
    assert isinstance(recorder.wait(ChildEnded, "a").exception, LostChild)
    recorder.wait(ChildStarted, "a", 2)
    assert handle.ask("up?", timeout=PATIENCE) == ("answer", "up?")
    assert supervisor.stop(PATIENCE) == ()


def test_a_plain_actor_whose_on_start_fails_is_tried_again(supervise: Supervise, recorder: Recorder) -> None:
    failures = [OSError("no route")]

    class Reluctant(PlainPlayer):
        def on_start(self) -> None:
            if failures:
                raise failures.pop()

    supervisor = supervise([ChildSpec("a", start=Reluctant.start)])
    supervisor.start(PATIENCE)
    recorder.wait(ChildEnded, "a")
    recorder.wait(ChildStarted, "a")


def test_an_observer_that_raises_stops_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def observer(event: object) -> None:
        raise SystemExit(f"no use for {event}")

    supervisor = Supervisor("test", stage.specs("a"), on_event=observer, backoff=wait_none())
    supervisor.start(PATIENCE)
    supervisor.crash("a")
    eventually(lambda: supervisor.handle("a").incarnation == 2)
    assert supervisor.stop(PATIENCE) == ()
    assert "the observer of supervision events failed at ChildStarted" in caplog.text


def test_one_traceback_a_failure(
    stage: Stage, supervise: Supervise, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = supervise([supervisor_child("sub", stage.specs("a"))])
    supervisor.start(PATIENCE)
    with caplog.at_level(logging.DEBUG):
        supervisor.crash("sub/a")
        recorder.wait(ChildStarted, "sub/a", 2)
    assert [record.message for record in caplog.records if record.exc_info] == ["player-a failed"]
    assert "sub/a starts again in 0.01 s (restart 1 in a row)" in caplog.text


def test_the_failure_of_an_essential_child_is_logged_once(
    stage: Stage, supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    stage.failing["a"] = OSError("disk gone")
    supervisor = supervise([supervisor_child("sub", stage.specs("a", essential=True), essential=True)])
    with pytest.raises(OSError, match="disk gone"):
        supervisor.start(PATIENCE)
    assert [record.message for record in caplog.records if record.exc_info] == ["player-a failed"]


def test_a_supervisor_is_used_once(stage: Stage, supervise: Supervise) -> None:
    specs = stage.specs("a")
    supervisor = supervise(specs)
    supervisor.start(PATIENCE)
    with pytest.raises(SupervisorStateError, match="make a new Supervisor"):
        supervisor.start(PATIENCE)
    supervisor.stop(PATIENCE)
    with pytest.raises(SupervisorStateError, match="make a new Supervisor"):
        supervisor.start(PATIENCE)
    second = supervise(specs)
    second.start(PATIENCE)
    assert second.handle("a").ask("up?", timeout=PATIENCE) == ("answer", "up?")


def test_a_stop_before_any_start(stage: Stage, supervise: Supervise) -> None:
    supervisor = supervise(stage.specs("a"))
    assert [row.state for row in supervisor.children()] == [ChildState.WAITING]
    assert supervisor.stop(PATIENCE) == ()
    with pytest.raises(SupervisorStateError):
        supervisor.start(PATIENCE)


def test_stops_from_many_threads_agree(stage: Stage, supervise: Supervise) -> None:
    supervisor = supervise(stage.specs("abc"))
    supervisor.start(PATIENCE)
    answers: list[tuple[str, ...]] = []
    threads = [threading.Thread(target=lambda: answers.append(supervisor.stop(PATIENCE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [()] * 8
    assert stage.log[3:] == ["stop c", "stop b", "stop a"]


def test_the_threads_are_daemons_with_names(stage: Stage, supervise: Supervise) -> None:
    supervisor = supervise([supervisor_child("sub", stage.specs("a"))])
    before = set(threading.enumerate())
    supervisor.start(PATIENCE)
    made = set(threading.enumerate()) - before
    assert {thread.name for thread in made} == {"test-supervisor", "test-supervisor/sub", "player-a"}
    assert all(thread.daemon for thread in made)
    supervisor.stop(PATIENCE)
    assert not made & set(threading.enumerate())


def test_unknown_children_are_named(stage: Stage, supervise: Supervise) -> None:
    supervisor = supervise([supervisor_child("sub", stage.specs("ab"))])
    with pytest.raises(UnknownChild, match="'a'; there are: sub, sub/a, sub/b"):
        supervisor.handle("a")
    with pytest.raises(UnknownChild):
        supervisor.crash("sub/c")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"stop_timeout": 0.0}, "stop_timeout"),
        ({"start_timeout": -1.0}, "start_timeout"),
        ({"hang_timeout": 0.0}, "hang_timeout"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(
    stage: Stage, settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}: .*; give|^{complaint}: .* give"):
        stage.spec(**({"name": "a"} | settings))  # type: ignore[arg-type]


def test_a_tree_that_makes_no_sense_is_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match=r"children\[1\].name: 'a' is taken"):
        Supervisor("test", stage.specs("aa"))
    with pytest.raises(ValueError, match="quiet_after"):
        Supervisor("test", [], quiet_after=-1)
    with pytest.raises(ValueError, match="poll_interval"):
        Supervisor("test", [], poll_interval=0)


def test_a_supervisor_without_children_is_content(supervise: Supervise) -> None:
    supervisor = supervise([])
    supervisor.start(PATIENCE)
    assert supervisor.children() == ()
    assert supervisor.stop(PATIENCE) == ()
