"""The stage that runs preprocessors, and the threads they run in."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from postroom.clock import ManualClock
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError, TransportDown
from postroom.hooks import OnError, Verdict, Work
from postroom.outcomes import Deferred, Failed, Outcome, Processed
from postroom.preprocessing.stage import PreprocessSession, PreprocessTransport
from postroom.preprocessing.threads import HookHung, HookThread, Hung
from postroom.retries import RetryPolicy
from postroom.routing import PREPROCESS, Route
from postroom.transports.base import Limits
from tests.support.hooks import CONTENT, Scripted, admit, delivery, tagging
from tests.support.spooling import until

PATIENCE = 30.0
BRIEF = 0.05
"""Seconds that a call which never ends is waited for."""


class Stuck:
    """Blocks whoever calls it until the test is over or lets go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()

    def __call__(self, work: Work) -> Verdict:
        self.entered.release()
        assert self.let_go.wait(PATIENCE)
        return Verdict(content=b"X-Late: yes\r\n" + work.content)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.let_go.set()


def one(stage: PreprocessTransport, session: PreprocessSession | None = None) -> Outcome:
    """Return what the stage says of one recipient."""
    given = session or stage.open()
    (outcome,) = given.send(delivery())
    if session is None:
        given.close()
    return outcome


class TestSession:
    def test_a_message_goes_through_and_what_is_added_is_taken_once(self) -> None:
        note = Submission(message=CONTENT, to="log@example.org")
        adding = Scripted(name="archive", does=lambda _: Verdict(added=[note]))
        stage = PreprocessTransport(preprocessors=[adding, tagging("Seen")], admit=admit)
        session = stage.open()
        (outcome,) = session.send(delivery())
        assert isinstance(outcome, Processed)
        assert (outcome.content or b"").startswith(b"X-Seen: yes")
        (message,) = session.take_added()
        assert str(message.recipients[0].address) == "smtp:log@example.org"
        assert session.take_added() == ()
        session.close()

    def test_without_a_spooler_nothing_can_be_added(self) -> None:
        adding = Scripted(does=lambda _: Verdict(added=[Submission(message=CONTENT, to="log@example.org")]))
        outcome = one(PreprocessTransport(preprocessors=[adding]))
        assert isinstance(outcome, Deferred)
        assert "admit" in outcome.reply.text

    def test_calls_run_in_a_daemon_thread_that_is_kept(self) -> None:
        threads: list[threading.Thread] = []

        def look(_: Work) -> Verdict:
            threads.append(threading.current_thread())
            return Verdict()

        stage = PreprocessTransport(preprocessors=[Scripted(does=look)])
        session = stage.open()
        one(stage, session)
        one(stage, session)
        assert threads[0] is threads[1] is not threading.current_thread()
        assert threads[0].daemon
        session.close()
        threads[0].join(PATIENCE)
        assert not threads[0].is_alive()

    def test_even_a_hook_that_exits_is_only_an_error(self) -> None:
        def leave(_: Work) -> Verdict:
            raise RuntimeError from SystemExit(1)

        assert isinstance(one(PreprocessTransport(preprocessors=[Scripted(does=leave)])), Deferred)


class TestHanging:
    @pytest.mark.parametrize(("policy", "kind"), [("defer", Deferred), ("fail", Failed), ("skip", Processed)])
    def test_the_policy_decides_and_the_session_works_on(
        self, stuck: Stuck, policy: OnError, kind: type[Outcome]
    ) -> None:
        hanging = Scripted(name="hanging", does=stuck, timeout=BRIEF, on_error=policy)
        stage = PreprocessTransport(preprocessors=[hanging])
        session = stage.open()
        outcome = one(stage, session)
        assert type(outcome) is kind
        if policy != "skip":
            assert "hanging: HookHung: no answer within" in outcome.reply.text
        assert stage.hung.counts() == {"hanging": 1}
        hanging.does = lambda _: Verdict(content=b"X-New: yes\r\n" + CONTENT)
        following = one(stage, session)
        assert isinstance(following, Processed)
        assert (following.content or b"").startswith(b"X-New")
        stuck.let_go.set()
        until(lambda: stage.hung.counts() == {}, "no hanging call")
        session.close()

    def test_a_hook_that_hangs_too_often_is_not_called_and_others_go_on(self, stuck: Stuck) -> None:
        hanging = Scripted(name="hanging", does=stuck, timeout=BRIEF, address_types={"smtp"})
        stage = PreprocessTransport(preprocessors=[hanging, tagging("Web", {"https"})], hung_per_hook=2)
        session = stage.open()
        for _ in range(3):
            one(stage, session)
        assert len(hanging.shown) == 2
        refused = one(stage, session)
        assert "2 calls of it hang already" in refused.reply.text
        (web,) = session.send(delivery("https://h.example.org/"))
        assert isinstance(web, Processed)
        stuck.let_go.set()
        until(lambda: stage.hung.counts() == {}, "no hanging call")
        hanging.does = lambda _: Verdict()
        assert isinstance(one(stage, session), Processed)
        session.close()

    def test_too_many_hanging_calls_bring_the_stage_down_until_they_return(self, stuck: Stuck) -> None:
        stage = PreprocessTransport(
            preprocessors=[Scripted(name="hanging", does=stuck, timeout=BRIEF)], hung_in_all=2
        )
        for _ in range(2):
            one(stage)
        with pytest.raises(TransportDown, match="2 of hanging"):
            one(stage)
        stuck.let_go.set()
        until(lambda: not stage.hung.too_many, "room")
        assert isinstance(one(stage), Processed)

    def test_abort_ends_the_wait_and_begins_nothing_more(self, stuck: Stuck) -> None:
        last = Scripted(name="last")
        first = Scripted(name="first", does=stuck, timeout=PATIENCE, on_error="skip")
        stage = PreprocessTransport(preprocessors=[first, last])
        session = stage.open()
        outcomes: list[Any] = []
        sender = threading.Thread(target=lambda: outcomes.append(session.send(delivery())), daemon=True)
        sender.start()
        assert stuck.entered.acquire(timeout=PATIENCE)
        session.abort()
        sender.join(PATIENCE)
        assert isinstance(outcomes[0][0], Deferred)
        assert last.shown == []
        session.close()

    def test_one_that_is_slow_leaves_the_others_their_share_of_the_attempt(self) -> None:
        clock = ManualClock()

        def personal(given: Work) -> Verdict:
            return Verdict(contents=[((t,), b"X-T: %d\r\n" % t.index + CONTENT) for t in given.recipients])

        def slow(_: Work) -> Verdict:
            clock.advance(59.0)
            return Verdict()

        last = Scripted(name="last", timeout=60.0)
        stage = PreprocessTransport(
            preprocessors=[
                Scripted(name="personal", does=personal, timeout=60.0),
                Scripted(name="slow", does=slow, timeout=60.0, on_error="fail"),
                last,
            ],
            clock=clock,
            limits=Limits(attempt_timeout=600.0),
        )
        session = stage.open()
        outcomes = session.send(delivery(*(f"a{number}@x.org" for number in range(10))))
        session.close()
        # 400 seconds are for the first two; the sixth call of 59 seconds begins at 295.
        assert [type(outcome) for outcome in outcomes] == [Processed] * 6 + [Deferred] * 4
        assert outcomes[-1].reply.status == "4.3.2"
        assert len(last.shown) == 6

    @pytest.mark.parametrize("timeout", [1.0, 599.9, 600.0, 5_000.0])
    def test_there_is_always_time_for_one_call(self, timeout: float) -> None:
        stage = PreprocessTransport(preprocessors=[Scripted(name=name, timeout=timeout) for name in "abc"])
        assert isinstance(one(stage), Processed)


class TestThread:
    def test_results_and_errors_come_back(self) -> None:
        thread = HookThread(Hung(1, 1))
        assert thread.call("a", lambda: 42, PATIENCE) == 42
        with pytest.raises(ZeroDivisionError):
            thread.call("a", lambda: 1 // 0, PATIENCE)
        with pytest.raises(SystemExit):
            thread.call("a", exit_now, PATIENCE)
        assert thread.call("a", lambda: 43, PATIENCE) == 43
        thread.close()

    def test_what_comes_late_is_dropped(self) -> None:
        hung = Hung(3, 3)
        thread = HookThread(hung)
        let_go = threading.Event()
        with pytest.raises(HookHung):
            thread.call("a", lambda: let_go.wait(PATIENCE), BRIEF)
        assert thread.call("a", lambda: "next", PATIENCE) == "next"
        let_go.set()
        until(lambda: hung.counts() == {}, "no hanging call")
        thread.close()


def exit_now() -> None:
    raise SystemExit


class TestTransport:
    def test_it_is_in_no_plan_by_itself_and_tells_what_it_preprocesses(self) -> None:
        stage = PreprocessTransport(preprocessors=[tagging("a", {"smtp"}), tagging("b", {"https", "http"})])
        assert stage.name == PREPROCESS
        assert stage.route.address_types == frozenset()
        assert stage.preprocessed == {"smtp", "https", "http"}
        assert "*" in PreprocessTransport(preprocessors=[tagging("c")]).preprocessed

    def test_order_follows_the_routes(self) -> None:
        seen: list[str] = []

        def noting(name: str, kind: str) -> Scripted:
            def note(_: Work) -> Verdict:
                seen.append(name)
                return Verdict()

            return Scripted(name=name, address_types={kind}, does=note)

        stage = PreprocessTransport(
            preprocessors=[noting("web", "https"), noting("mail", "smtp")],
            routes=[Route("m", frozenset({"smtp"})), Route("w", frozenset({"https"}))],
        )
        session = stage.open()
        session.send(delivery("https://h.example.org/", "a@x.org"))
        session.close()
        assert seen == ["mail", "web"]

    def test_names_are_unique(self) -> None:
        with pytest.raises(ConfigurationError, match="'a' is taken"):
            PreprocessTransport(preprocessors=[tagging("a"), tagging("a")])

    def test_bounds_are_positive(self) -> None:
        with pytest.raises(ConfigurationError, match="hung_in_all"):
            PreprocessTransport(preprocessors=[], hung_in_all=0)

    def test_the_attempt_is_long_enough_for_all(self) -> None:
        slow = [Scripted(name=name, timeout=400.0) for name in "ab"]
        assert PreprocessTransport(preprocessors=slow).limits.attempt_timeout == 860.0

    def test_retries_are_quick_and_end(self) -> None:
        retry = PreprocessTransport(preprocessors=[]).retry
        assert isinstance(retry, RetryPolicy)
        first = retry.next_attempt(attempts=1, first_attempt=1000.0, now=1000.0)
        late = retry.next_attempt(attempts=50, first_attempt=1000.0, now=50_000.0)
        assert first is not None
        assert 0.8 <= first - 1000.0 <= 1.2
        assert late is not None
        assert late - 50_000.0 <= 360.0
        assert retry.next_attempt(attempts=400, first_attempt=1000.0, now=1000.0 + 86_401) is None

    def test_prepare_asks_every_preprocessor(self) -> None:
        class Missing(Scripted):
            def prepare(self) -> None:
                raise ConfigurationError("key", "is missing", "make one")

        with pytest.raises(ConfigurationError, match="is missing"):
            PreprocessTransport(preprocessors=[tagging("a"), Missing(name="b")]).prepare()
