"""One followup after the other, on a real spool: what is reported, what is stored with it, what is tried again."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tenacity import stop_after_delay

from postroom.addresses import Address, parse_address
from postroom.envelopes import Report, Submission
from postroom.errors import MessageTooLarge, UnknownAddressType
from postroom.hooks import Preprocessor, SentHook, Verdict, Work
from postroom.ids import format_id
from postroom.options import MessageOptions
from postroom.outcomes import Reply
from postroom.preprocessing.aftermath import Aftermath
from postroom.recipients import State
from postroom.reports.facts import DeliveryReport
from postroom.reports.following import GIVE_UP, Done, SentTeller, pause_after
from postroom.reports.policy import ReportPolicy
from postroom.retries import RetryPolicy
from postroom.status import MessageStatus
from postroom.stores.base import Followup, NewMessage
from postroom.transports.memory import MemoryTransport
from tests.support.report_spool import Spool
from tests.support.reporting import failures


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db")
    yield made
    made.close()


def test_recipients_that_end_together_are_reported_together(spool: Spool) -> None:
    key = spool.submit("ann@example.net", "bob@example.net", "carl@example.net")
    spool.settle(key, 0, State.FAILED)
    spool.clock.advance(5)
    spool.settle(key, 1, State.FAILED)
    assert spool.due() == []
    spool.clock.advance(6)
    (followup,) = spool.due()
    reporter = spool.reporter()
    done = reporter.perform(followup)
    (message,) = done.messages
    assert failures(message.content)[1] == {b"ann@example.net", b"bob@example.net"}
    assert (message.sender, message.report) == ("", "")
    assert message.options == MessageOptions(report_of=key)
    assert message.idempotency_key == f"report:report:{key}:0,1"
    assert [recipient.address for recipient in message.recipients] == [Address("smtp", "app@example.org")]
    assert done.result == ("failure", "queued")
    assert spool.finish(followup, done)
    assert not spool.finish(followup, done)
    assert spool.due() == []
    spool.settle(key, 2, State.EXPIRED, Reply("too late", "4.4.7"))
    (last,) = spool.due()
    (second,) = reporter.perform(last).messages
    assert failures(second.content)[1] == {b"carl@example.net"}
    reporter.close()


def test_what_ends_while_a_report_is_made_is_not_forgotten(spool: Spool) -> None:
    key = spool.submit("ann@example.net", "bob@example.net")
    spool.settle(key, 0, State.FAILED)
    spool.clock.advance(11)
    (followup,) = spool.due()
    reporter = spool.reporter()
    done = reporter.perform(followup)
    spool.settle(key, 1, State.FAILED)
    assert not spool.finish(followup, done)
    (fresh,) = spool.due()
    (message,) = reporter.perform(fresh).messages
    assert failures(message.content)[1] == {b"ann@example.net", b"bob@example.net"}
    reporter.close()


def test_a_message_that_is_gone_needs_nothing(spool: Spool) -> None:
    reporter = spool.reporter()
    assert reporter.perform(Followup("report", 4711, 0.0)) == Done()
    reporter.close()


def test_a_report_that_would_be_too_large_returns_the_header(spool: Spool) -> None:
    key = spool.submit("ann@example.net", body=b"x" * 70 + b"\r\n" + b"x" * 900 + b"\r\n" * 2000)
    spool.settle(key, 0, State.FAILED)
    spool.max_size = 4000
    (followup,) = spool.due()
    reporter = spool.reporter()
    (message,) = reporter.perform(followup).messages
    assert b"text/rfc822-headers" in message.content
    spool.max_size = 10
    with pytest.raises(MessageTooLarge):
        spool.prepare(Submission(message=message.content, sender="", to=["a@example.org"]))
    assert reporter.perform(followup).result == ("failure", "unreachable")
    reporter.close()


def test_without_a_way_to_the_sender_the_report_is_counted(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    def nobody(_: Submission) -> NewMessage:
        raise UnknownAddressType("to[0]", "no transport handles it", "configure one")

    key = spool.submit("ann@example.net")
    spool.settle(key, 0, State.FAILED)
    reporter = spool.reporter(prepare=nobody)
    with caplog.at_level("INFO", "postroom.follower"):
        done = reporter.perform(spool.due()[0])
    assert (done.messages, done.reported, done.result) == ((), frozenset({0}), ("failure", "unreachable"))
    assert "no transport handles it" in caplog.text
    reporter.close()


def test_a_delay_is_told_once_with_its_deadline(spool: Spool) -> None:
    now = spool.clock.time()
    key = spool.submit("ann@example.net", report={Report.DELAY}, followups=(("delay", now + 4 * 3600),))
    spool.settle(key, 0, State.QUEUED, Reply("greylisted", "4.7.1", 451, "mx"), due=now + 60)
    spool.clock.advance(4 * 3600)
    (followup,) = spool.due()
    transport = MemoryTransport(name="smtp", retry=RetryPolicy(stop=stop_after_delay(86_400)))
    reporter = spool.reporter(transports={"smtp": transport})
    done = reporter.perform(followup)
    assert done.reported == frozenset()
    assert b"Action: delayed\r\n" in done.messages[0].content
    assert b"Will-Retry-Until: Wed, 15 Nov 2023 22:13:20 -0000\r\n" in done.messages[0].content
    assert spool.finish(followup, done)
    assert spool.due() == []
    reporter.close()


def test_a_double_bounce_goes_to_the_postmaster_and_no_further(spool: Spool) -> None:
    policy = ReportPolicy(postmaster="keeper@example.org")
    key = spool.submit("ann@example.net", sender="")
    spool.settle(key, 0, State.FAILED)
    (followup,) = spool.due()
    reporter = spool.reporter(policy)
    done = reporter.perform(followup)
    (message,) = done.messages
    assert message.recipients[0].address == Address("smtp", "keeper@example.org")
    assert message.sender == ""
    assert b"X-Postroom-Report: double bounce\r\n" in message.content
    assert spool.finish(followup, replace(done, messages=()))
    assert spool.accept(message) == message.key
    spool.settle(message.key, 0, State.FAILED)
    (second,) = spool.due()
    dropped = reporter.perform(second)
    assert (dropped.messages, dropped.result) == ((), ("double_bounce", "dropped"))
    reporter.close()


def test_without_a_postmaster_a_double_bounce_is_counted_only(spool: Spool) -> None:
    key = spool.submit("ann@example.net", sender="")
    spool.settle(key, 0, State.FAILED)
    reporter = spool.reporter()
    done = reporter.perform(spool.due()[0])
    assert (done.messages, done.reported, done.result) == ((), frozenset({0}), ("double_bounce", "dropped"))
    reporter.close()


def test_a_sender_is_not_flooded(spool: Spool) -> None:
    policy = ReportPolicy(per_hour=1, max_wait=3600)
    reporter = spool.reporter(policy)
    keys = [spool.submit("ann@example.net") for _ in range(3)]
    for key in keys:
        spool.settle(key, 0, State.FAILED)
    first, second, third = (reporter.perform(followup) for followup in spool.due())
    assert first.result == ("failure", "queued")
    assert second == Done(again=spool.clock.time() + 3600)
    assert third == Done(frozenset({0}), result=("failure", "suppressed"))
    spool.clock.advance(3600)
    assert reporter.perform(Followup("report", keys[1], 0.0)).result == ("failure", "queued")
    reporter.close()


# Callbacks


def test_a_callback_gets_the_report_in_place_of_the_sender(spool: Spool) -> None:
    got: list[DeliveryReport] = []
    policy = ReportPolicy(deliver=got.append, per_hour=1)
    reporter = spool.reporter(policy)
    for sender in ("app@example.org", ""):
        key = spool.submit("ann@example.net", sender=sender)
        spool.settle(key, 0, State.FAILED)
        done = reporter.perform(spool.due()[-1])
        assert (done.messages, done.reported) == ((), frozenset({0}))
        assert got[-1].id == format_id(key)
        assert got[-1].double_bounce is (sender == "")
        assert [one.address for one in got[-1].recipients] == [parse_address("ann@example.net")]
        assert failures(got[-1].content)[1] == {b"ann@example.net"}
    reporter.close()


def test_a_callback_that_raises_is_called_again_for_a_day(spool: Spool) -> None:
    def refuse(_: DeliveryReport) -> None:
        raise OSError("no")

    key = spool.submit("ann@example.net")
    spool.settle(key, 0, State.FAILED)
    (followup,) = spool.due()
    reporter = spool.reporter(ReportPolicy(deliver=refuse))
    tries = 0
    while (done := reporter.perform(followup)).again is not None:
        assert done.again > spool.clock.time()
        spool.clock.advance(done.again - spool.clock.time())
        tries += 1
    assert 20 <= tries <= 40
    assert (done.reported, done.result) == (frozenset({0}), ("failure", "given_up"))
    assert spool.count("failure", "failed") == tries + 1
    reporter.close()


def test_a_callback_that_hangs_is_left_behind(spool: Spool) -> None:
    gate = threading.Event()
    key = spool.submit("ann@example.net")
    spool.settle(key, 0, State.FAILED)
    reporter = spool.reporter(ReportPolicy(deliver=lambda _: gate.wait(), callback_timeout=0.01))
    try:
        assert reporter.perform(spool.due()[0]).again is not None
        assert spool.count("failure", "failed") == 1
    finally:
        gate.set()
        reporter.close()


# Sent-hooks


class Listener(SentHook):
    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(name="listener")
        self.fails = fails
        self.told: list[tuple[MessageStatus, bytes | None]] = []

    def sent(self, status: MessageStatus, content: bytes | None) -> None:
        self.told.append((status, content))
        if self.fails:
            raise ValueError("not now")


class Cleaner(Preprocessor):
    def __init__(self) -> None:
        super().__init__(name="cleaner")
        self.cleaned: list[str] = []

    def process(self, work: Work) -> Verdict:
        raise NotImplementedError

    def clean_up(self, message_id: str) -> None:
        self.cleaned.append(message_id)


def teller(spool: Spool, *hooks: SentHook, preprocessors: tuple[Preprocessor, ...] = ()) -> SentTeller:
    return SentTeller(Aftermath(hooks, preprocessors), spool.reader, spool.clock, spool.instruments)


def test_hooks_are_told_of_a_complete_message(spool: Spool) -> None:
    listener, cleaner = Listener(), Cleaner()
    key = spool.submit("ann@example.net", followed=True, followups=(("sent", None),))
    assert spool.due() == []
    spool.settle(key, 0, State.DELIVERED, followed=True)
    (followup,) = spool.due()
    made = teller(spool, listener, preprocessors=(cleaner,))
    done = made.perform(followup)
    assert done == Done()
    ((status, content),) = listener.told
    assert status.id == format_id(key)
    assert status.complete
    assert content is not None
    assert content.endswith(b"\r\nHello\r\n")
    assert cleaner.cleaned == [format_id(key)]
    assert spool.finish(followup, done)
    assert spool.reader.content(key) is None
    made.close()


def test_a_hook_that_raises_is_told_again_and_then_given_up(spool: Spool) -> None:
    listener = Listener(fails=True)
    key = spool.submit("ann@example.net", followed=True, followups=(("sent", None),))
    spool.settle(key, 0, State.DELIVERED, followed=True)
    (followup,) = spool.due()
    made = teller(spool, listener)
    assert made.perform(followup).again == spool.clock.time() + 5
    spool.clock.advance(GIVE_UP)
    assert made.perform(followup).again is None
    assert len(listener.told) == 2
    registry = spool.instruments.registry
    assert registry.get_sample_value("postroom_sent_hook_errors_total") == 2
    assert registry.get_sample_value("postroom_sent_hooks_given_up_total") == 1
    made.close()


def test_without_hooks_there_is_nothing_to_do(spool: Spool) -> None:
    made = teller(spool)
    assert made.perform(Followup("sent", 1, 0.0)) == Done()
    made.close()


def test_pauses_grow_and_end() -> None:
    assert pause_after(100.0, 100.0) == 105.0
    assert pause_after(100.0, 50.0) == 55.0
    assert pause_after(100.0, 200.0) == 300.0
    assert pause_after(0.0, 50_000.0) == 53_600.0
    assert pause_after(0.0, GIVE_UP) is None
