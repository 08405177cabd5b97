"""Reports and sent-hooks through a running spooler: from a refusal to what comes back to the sender."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from postroom import MemoryTransport, Report, SmtpTransport, Spooler
from postroom.delivery import Delivery
from postroom.envelope_recipients import Recipient
from postroom.hooks import FunctionSentHook, SentHook
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.reports.facts import DeliveryReport
from postroom.reports.policy import ReportPolicy
from postroom.settings import Settings
from postroom.status import MessageStatus
from tests.support.reporting import failures, reports_counted, status_blocks, taken_apart
from tests.support.smtp_server import Script, SmtpServer
from tests.support.spooling import PATIENCE, SENDER, Monkey, message, settled, until


class Post:
    """Mail for example.org arrives; elsewhere happens what the test says. Thread-safe."""

    def __init__(self, outcomes: dict[str, Outcome]) -> None:
        self.outcomes = outcomes
        self._changed = threading.Condition()
        self._arrived: list[bytes] = []

    def answer(self, delivery: Delivery) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for target in delivery.targets:
            outcomes.append(self.outcomes.get(target.address.value, Delivered()))
            if target.address.value.endswith("@example.org") and isinstance(outcomes[-1], Delivered):
                with self._changed:
                    self._arrived.append(delivery.content)
                    self._changed.notify_all()
        return outcomes

    @property
    def arrived(self) -> list[bytes]:
        with self._changed:
            return list(self._arrived)

    def wait_for(self, count: int) -> list[bytes]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._arrived) >= count, PATIENCE), self._arrived
            return list(self._arrived)


NO = Failed(Reply("user unknown", "5.1.1", 550, "mx.example.net"))


def spooling(
    path: Path, post: Post, policy: ReportPolicy | None = None, hooks: Sequence[SentHook] = (), **more: Any
) -> Spooler:
    transport = MemoryTransport(name="smtp", address_types={"smtp"}, answer=post.answer)
    settings = Settings(message_id_domain="mail.example.org")
    policy = policy or ReportPolicy(linger=0.0)
    return Spooler(path, [transport], settings=settings, reports=policy, sent_hooks=hooks, **more)


def quiet(spooler: Spooler) -> None:
    """Wait until nothing is to be done any more, then check the ledger."""
    engine = spooler.snapshot_source()
    assert engine is not None
    until(lambda: engine.context.reader.next_followup() is None, "nothing more to do")
    settled(spooler)


def test_a_refusal_comes_back_to_the_sender_through_the_spool(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    post = Post({"ann@example.net": NO, "bob@example.net": NO})
    with spooling(tmp_path / "spool.db", post, registry=registry) as spooler:
        receipt = spooler.submit(
            message("lost"),
            sender=SENDER,
            to=["ann@example.net", "bob@example.net", "carl@example.net"],
            envid="QQ314159",
        )
        (report,) = post.wait_for(1)
        quiet(spooler)
        assert reports_counted(registry, "failure", "queued") == 1
        content = spooler.content(receipt.id)
    assert post.arrived == [report]
    assert failures(report)[1] == {b"ann@example.net", b"bob@example.net"}
    assert b"From: Mail Delivery System <postmaster@mail.example.org>\r\n" in report
    assert b"Original-Envelope-Id: QQ314159\r\n" in report
    assert receipt.id.encode() in report
    assert b"Subject: test lost\r\n" in taken_apart(report).parts[2][1]
    assert content is None


def test_recipients_that_end_within_the_linger_are_told_of_together(tmp_path: Path) -> None:
    post = Post(
        {"ann@example.net": NO, "slow@example.net": Deferred(Reply("later", "4.2.0", 451), retry_after=0.2)}
    )
    with spooling(tmp_path / "spool.db", post, ReportPolicy(linger=3600.0)) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to=["ann@example.net", "slow@example.net"])
        until(lambda: spooler.status(receipt.id).recipients[0].state.is_final, "the first end")
        post.outcomes["slow@example.net"] = NO
        spooler.retry(receipt.id)
        (report,) = post.wait_for(1)
        quiet(spooler)
    assert failures(report)[1] == {b"ann@example.net", b"slow@example.net"}


def test_the_next_process_reports_when_one_ends_before_it_could(tmp_path: Path) -> None:
    post = Post({"ann@example.net": NO, "bob@example.net": Deferred(Reply("later", "4.2.0", 451))})
    with spooling(tmp_path / "spool.db", post, ReportPolicy(linger=1.0)) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to=["ann@example.net", "bob@example.net"])
        until(lambda: spooler.status(receipt.id).recipients[0].state.is_final, "the end of one")
        early = len(post.arrived)
    with spooling(tmp_path / "spool.db", post) as spooler:
        post.wait_for(1)
        spooler.cancel(receipt.id)
        quiet(spooler)
    assert early == 0
    assert len(post.arrived) == 1


def test_success_is_reported_on_request_unless_the_relay_took_over_the_duty(tmp_path: Path) -> None:
    post = Post({"ann@example.net": Relayed(), "bob@example.net": Relayed(reports=True)})
    with spooling(tmp_path / "spool.db", post) as spooler:
        spooler.submit(
            message(), sender=SENDER, to=["ann@example.net", "bob@example.net"], report={Report.SUCCESS}
        )
        (report,) = post.wait_for(1)
        quiet(spooler)
    assert [block["Final-Recipient"] for block in status_blocks(report)[1:]] == ["rfc822;ann@example.net"]
    assert [block["Action"] for block in status_blocks(report)[1:]] == ["relayed"]
    assert failures(report) == (set(), set())


def test_a_delay_is_told_while_the_message_waits(tmp_path: Path) -> None:
    post = Post({"ann@example.net": Deferred(Reply("greylisted", "4.7.1", 451, "mx.example.net"))})
    with spooling(tmp_path / "spool.db", post, ReportPolicy(delay_after=0.0)) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to=["ann@example.net"], report={Report.DELAY})
        (report,) = post.wait_for(1)
        assert failures(report) == ({b"ann@example.net"}, set())
        assert status_blocks(report)[1]["Action"] == "delayed"
        spooler.cancel(receipt.id)
        quiet(spooler)
    assert len(post.arrived) == 1


def test_a_report_that_is_refused_goes_to_the_postmaster_and_then_nowhere(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    post = Post({"ann@example.net": NO, SENDER: NO})
    policy = ReportPolicy(linger=0.0, postmaster="keeper@example.org")
    with spooling(tmp_path / "spool.db", post, policy, registry=registry) as spooler:
        spooler.submit(message(), sender=SENDER, to=["ann@example.net"])
        (report,) = post.wait_for(1)
        assert b"To: <keeper@example.org>\r\n" in report
        assert [block["Final-Recipient"] for block in status_blocks(report)[1:]] == [f"rfc822;{SENDER}"]
        post.outcomes["keeper@example.org"] = NO
        spooler.submit(message(), sender=SENDER, to=["ann@example.net"])
        until(lambda: reports_counted(registry, "double_bounce", "dropped") == 1, "the end of it")
        quiet(spooler)
        assert reports_counted(registry, "double_bounce", "queued") == 2
    assert len(post.arrived) == 1


def test_nobody_is_told_who_did_not_want_to_be(tmp_path: Path) -> None:
    post = Post({"ann@example.net": NO})
    with spooling(tmp_path / "spool.db", post) as spooler:
        spooler.submit(message(), sender=SENDER, to=["ann@example.net"], report=set()).wait(timeout=PATIENCE)
        quiet(spooler)
    assert post.arrived == []


def test_a_recipient_of_a_list_is_reported_with_its_list(tmp_path: Path) -> None:
    post = Post({"ann@example.net": NO})
    lists = {"staff@lists.example.org": ["ann@example.net", "bob@example.net"]}
    with spooling(tmp_path / "spool.db", post, lists=lists) as spooler:
        spooler.submit(message(), sender=SENDER, to=["staff@lists.example.org"])
        (report,) = post.wait_for(1)
    (failed,) = status_blocks(report)[1:]
    assert failed["Final-Recipient"] == "rfc822;ann@example.net"
    assert "staff@lists.example.org" in failed["X-Postroom-List"]


def test_internationalised_addresses_all_the_way(tmp_path: Path) -> None:
    post = Post({"josé@example.net": NO})
    with spooling(tmp_path / "spool.db", post) as spooler:
        spooler.submit(message(), sender="ünal@example.org", to=["josé@example.net"])
        (report,) = post.wait_for(1)
    assert b"message/global-delivery-status" in report
    assert "Final-Recipient: utf-8;josé@example.net\r\n".encode() in report


def test_followers_and_stores_that_are_struck_down_report_each_failure_once(tmp_path: Path) -> None:
    post = Post({"ann@example.net": NO})
    with (
        spooling(tmp_path / "spool.db", post, ReportPolicy(linger=0.0, per_hour=None)) as spooler,
        Monkey(spooler, ["follower", "core/store"], seed=2, pause=0.1, most=6),
    ):
        ids = [
            spooler.submit(message(number), sender=SENDER, to=["ann@example.net"]).id for number in range(50)
        ]
        post.wait_for(len(ids))
        quiet(spooler)
    told = [status_blocks(report)[0]["X-Postroom-Message"] for report in post.arrived]
    assert sorted(told) == sorted(ids)


def test_what_an_smtp_server_said_comes_back_over_smtp(tmp_path: Path) -> None:
    script = Script(
        recipients={"ann@example.net": "550-5.1.1 no such\n550 5.1.1 user here"}, keep_content=True
    )
    with SmtpServer(tmp_path / "received.jsonl", script=script) as server:
        transport = SmtpTransport("127.0.0.1", server.port, security="none")
        settings = Settings(message_id_domain="mail.example.org")
        with Spooler(
            tmp_path / "spool.db", [transport], settings=settings, reports=ReportPolicy(linger=0.0)
        ) as spooler:
            spooler.submit(message("lost"), sender=SENDER, to=["ann@example.net"])
            until(lambda: bool(server.messages()), "the report")
            quiet(spooler)
        (received,) = server.messages()
    assert (received.sender, received.recipients) == ("", (SENDER,))
    assert failures(received.content)[1] == {b"ann@example.net"}
    (failed,) = status_blocks(received.content)[1:]
    assert failed["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user here"
    assert failed["Remote-MTA"] == "dns; 127.0.0.1"
    assert failed["Status"] == "5.1.1"


def test_a_recipient_that_failed_over_in_vain_is_reported_once_with_its_former_address(
    tmp_path: Path,
) -> None:
    post = Post({"ann@example.net": NO, "+15550100": Failed(Reply("no credit", "5.7.0"))})
    transport = MemoryTransport(name="any", address_types={"smtp", "sms"}, answer=post.answer)
    with Spooler(tmp_path / "spool.db", [transport], reports=ReportPolicy(linger=0.0)) as spooler:
        ann = Recipient("ann@example.net", alternatives=["sms:+15550100"])
        spooler.submit(message(), sender=SENDER, to=[ann])
        (report,) = post.wait_for(1)
        quiet(spooler)
    (failed,) = status_blocks(report)[1:]
    assert failed["Original-Recipient"] == "rfc822;ann@example.net"
    assert failed["Final-Recipient"] == "x-sms;+15550100"
    assert failed["Diagnostic-Code"] == "x-postroom; 5.7.0 no credit"
    former = "rfc822;ann@example.net; smtp; 550 5.1.1 user unknown"
    assert failed["X-Postroom-Former-Address"] == former
    assert failures(report)[1] == {b"ann@example.net"}
    assert len(post.arrived) == 1


# Callbacks and hooks


def test_of_two_spoolers_on_one_spool_one_calls(tmp_path: Path) -> None:
    post = Post({"ann@example.net": NO})
    told: list[DeliveryReport] = []
    policy = ReportPolicy(linger=0.0, deliver=told.append)
    with (
        spooling(tmp_path / "spool.db", post, policy) as one,
        spooling(tmp_path / "spool.db", post, policy) as two,
    ):
        ids = [
            (one, two)[number % 2].submit(message(number), sender=SENDER, to=["ann@example.net"]).id
            for number in range(20)
        ]
        quiet(one)
    assert sorted(report.id for report in told) == sorted(ids)
    assert post.arrived == []


def test_a_callback_that_hangs_holds_up_no_delivery_and_no_hook(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    post = Post({"ann@example.net": NO})
    gate, told = threading.Event(), threading.Event()
    hook = FunctionSentHook(name="hook", function=lambda _status, _content: told.set())
    policy = ReportPolicy(linger=0.0, deliver=lambda _: gate.wait(), callback_timeout=0.05)
    try:
        with spooling(tmp_path / "spool.db", post, policy, (hook,), registry=registry) as spooler:
            spooler.submit(message(), sender=SENDER, to=["ann@example.net"])
            until(lambda: reports_counted(registry, "failure", "failed") >= 1, "a call that failed")
            told.clear()
            spooler.submit(message(), sender=SENDER, to=["bob@example.org"]).wait(timeout=PATIENCE)
            assert told.wait(PATIENCE)
    finally:
        gate.set()


def test_sent_hooks_are_told_of_every_complete_message_with_its_octets(tmp_path: Path) -> None:
    post = Post({"ann@example.net": NO})
    told: dict[str, tuple[MessageStatus, bytes | None]] = {}

    def take(status: MessageStatus, content: bytes | None) -> None:
        told[status.id] = (status, content)

    hook = FunctionSentHook(name="hook", function=take)
    with spooling(tmp_path / "spool.db", post, hooks=(hook,)) as spooler:
        bad = spooler.submit(message("bad"), sender=SENDER, to=["ann@example.net"]).id
        good = spooler.submit(message("good"), sender=SENDER, to=["bob@example.net"]).id
        post.wait_for(1)
        quiet(spooler)
        assert spooler.content(good) is None
    assert told[good][0].succeeded
    assert not told[bad][0].succeeded
    assert b"Subject: test good\r\n" in (told[good][1] or b"")
    assert len(told) == 3


def test_a_hook_that_raises_is_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.reports.following.FIRST_PAUSE", 0.05)
    post = Post({})
    calls: list[str] = []

    def stumble(status: MessageStatus, _content: bytes | None) -> None:
        calls.append(status.id)
        if len(calls) == 1:
            raise RuntimeError("not yet")

    hook = FunctionSentHook(name="hook", function=stumble)
    with spooling(tmp_path / "spool.db", post, hooks=(hook,)) as spooler:
        receipt = spooler.submit(message(), sender=SENDER, to=["ann@example.net"])
        until(lambda: len(calls) == 2, "the second call")
        quiet(spooler)
    assert calls == [receipt.id] * 2


def test_a_stop_does_not_wait_for_a_hook_that_hangs(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    def hang(_status: MessageStatus, _content: bytes | None) -> None:
        entered.set()
        gate.wait()

    hook = FunctionSentHook(name="hook", function=hang)
    spooler = spooling(tmp_path / "spool.db", Post({}), hooks=(hook,))
    spooler.start()
    try:
        spooler.submit(message(), sender=SENDER, to=["ann@example.net"])
        assert entered.wait(PATIENCE)
    finally:
        spooler.stop(timeout=PATIENCE)
        gate.set()
