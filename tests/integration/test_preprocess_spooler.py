"""Preprocessors and sent-hooks in a running spooler."""

import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path

import pytest

from postroom import MemoryTransport, Spooler, Submission
from postroom.addresses import parse_address
from postroom.delivery import Delivery
from postroom.envelopes import Recipient
from postroom.hooks import PostponedRecipients, ReturnedRecipients, Verdict, Work, sent_hook
from postroom.outcomes import Failed, Reply
from postroom.preprocessing.dkim import DkimKey, DkimSigner
from postroom.preprocessing.footers import Footer
from postroom.recipients import State
from postroom.routing import PREPROCESS
from postroom.status import MessageStatus
from postroom.transports.base import Limits
from postroom.transports.smtp import SmtpTransport
from tests.support.dkim_keys import dns, pem, rsa_key, verified
from tests.support.hooks import CONTENT, Scripted, tagging
from tests.support.smtp_server import SmtpServer
from tests.support.spooling import PATIENCE, Monkey, deliveries_by_id, in_threads, settled, until

SENDER = "ann@example.org"


def memory() -> MemoryTransport:
    return MemoryTransport(keep=10_000)


def head(delivery: Delivery, name: str) -> str:
    return str(message_from_bytes(delivery.content, policy=SMTP).get(name, ""))


def submit(spooler: Spooler, *to: str | Recipient, content: bytes = CONTENT) -> MessageStatus:
    """Submit and wait for the end."""
    submission = Submission(message=content, sender=SENDER, to=to, report=frozenset())
    (receipt,) = spooler.submit_many([submission])
    return receipt.wait(PATIENCE)


def typed(work: Work) -> bytes:
    """Return the message with the type of its recipients in front."""
    return f"X-For: {work.addresses[0].type}\r\n".encode() + work.content


class TestChanges:
    def test_signed_mail_with_a_footer_arrives_as_it_was_signed(self, tmp_path: Path) -> None:
        signer = DkimSigner(keys=[DkimKey("example.org", "s1", pem(rsa_key()))])
        with SmtpServer(tmp_path / "received.jsonl", options=("--engine", "aiosmtpd")) as server:
            transport = SmtpTransport("127.0.0.1", server.port, security="none")
            with Spooler(
                tmp_path / "spool.db", [transport], preprocessors=[Footer(text="-- \nFor $recipient"), signer]
            ) as spooler:
                status = submit(spooler, "bob@example.net", "eve@example.net")
                settled(spooler)
            received = {message.recipients: message.content for message in server.messages()}
        assert status.succeeded
        assert set(received) == {("bob@example.net",), ("eve@example.net",)}
        for (recipient,), content in received.items():
            assert f"For {recipient}".encode() in content
            assert verified(content, dns(s1__example_org=rsa_key())) == [True]

    def test_only_the_types_that_ask_for_it_go_the_long_way(self, tmp_path: Path) -> None:
        web, mail = (
            MemoryTransport(name="web", address_types={"x"}),
            MemoryTransport(name="mail", address_types={"smtp"}),
        )
        with Spooler(
            tmp_path / "spool.db", [mail, web], preprocessors=[tagging("Mail", {"smtp"})]
        ) as spooler:
            status = submit(spooler, "bob@example.net", "x:1")
            settled(spooler)
        assert head(mail.deliveries[0], "X-Mail") == "yes"
        assert web.deliveries[0].content == CONTENT
        passed = [[attempt.transport for attempt in recipient.history] for recipient in status.recipients]
        assert passed == [[PREPROCESS, "mail"], ["web"]]

    def test_many_contents_wait_in_the_spool_and_none_is_mixed_up(self, tmp_path: Path) -> None:
        """More recipients than fit into memory, each with a content of his own."""

        def personal(work: Work) -> Verdict:
            return Verdict(
                contents=[
                    ((target,), f"X-For: {target.address.value}\r\n".encode() + work.content)
                    for target in work.recipients
                ]
            )

        transport = memory()
        transport.limits = Limits(concurrency=2, window=5, window_bytes=1_000)
        with Spooler(tmp_path / "spool.db", [transport], preprocessors=[Scripted(does=personal)]) as spooler:
            status = submit(spooler, *(f"memory:{number}" for number in range(200)))
            settled(spooler)
        assert status.succeeded
        assert len(transport.deliveries) == 200
        for delivery in transport.deliveries:
            assert [head(delivery, "X-For")] == [target.address.value for target in delivery.targets]

    @pytest.mark.parametrize("types", [{"smtp", "sms"}, {"smtp"}])
    def test_an_alternative_of_another_type_begins_with_the_message_as_submitted(
        self, types: set[str], tmp_path: Path
    ) -> None:
        mail = MemoryTransport(
            name="mail", address_types={"smtp"}, answer=lambda _: Failed(Reply("no such user", "5.1.1"))
        )
        text = MemoryTransport(name="text", address_types={"sms"})
        hook = Scripted(name="types", address_types=types, does=lambda work: Verdict(content=typed(work)))
        with Spooler(tmp_path / "spool.db", [mail, text], preprocessors=[hook]) as spooler:
            status = submit(
                spooler, Recipient("bob@example.net", alternatives=[parse_address("sms:+15550100123")])
            )
            settled(spooler)
        assert status.succeeded
        assert mail.deliveries[0].content == b"X-For: smtp\r\n" + CONTENT
        assert text.deliveries[0].content == (b"X-For: sms\r\n" if "sms" in types else b"") + CONTENT


class TestVerdicts:
    def test_returned_postponed_and_sent(self, tmp_path: Path) -> None:
        turns: list[int] = []

        def sort(work: Work) -> Verdict:
            turns.append(len(work.recipients))
            by = {target.address.value: target for target in work.recipients}
            return Verdict(
                returned=[ReturnedRecipients([by["bad"]], Reply("closed", "5.7.1"))] if "bad" in by else [],
                postponed=[PostponedRecipients([by["late"]], Reply("later"))]
                if "late" in by and len(turns) < 3
                else [],
            )

        transport = memory()
        with Spooler(tmp_path / "spool.db", [transport], preprocessors=[Scripted(does=sort)]) as spooler:
            good, bad, late = submit(spooler, "memory:good", "memory:bad", "memory:late").recipients
            settled(spooler)
        assert good.state is State.DELIVERED
        assert bad.state is State.FAILED
        assert bad.reply is not None
        assert (bad.reply.text, bad.reply.status) == ("closed", "5.7.1")
        assert late.state is State.DELIVERED
        assert turns == [3, 1, 1]

    def test_what_is_added_is_sent_once_however_often_the_message_is_shown(self, tmp_path: Path) -> None:
        def archive(work: Work) -> Verdict:
            copy = work.content.replace(b"Hello", b"Copy for %d" % len(work.recipients))
            late = [
                target for target in work.recipients if target.address.value == "late" and not target.attempts
            ]
            return Verdict(
                added=[Submission(message=copy, sender="", to="memory:archive", report=frozenset())],
                postponed=[PostponedRecipients(late, Reply("later"))] if late else [],
            )

        archiver = Scripted(name="archive", does=archive)
        transport = memory()
        with Spooler(
            tmp_path / "spool.db", [transport], preprocessors=[archiver, tagging("Seen")]
        ) as spooler:
            assert submit(spooler, "memory:now", "memory:late").succeeded
            settled(spooler)
        sent = {delivery.targets[0].address.value: delivery for delivery in transport.deliveries}
        assert len(transport.deliveries) == 3
        assert head(sent["archive"], "Subject") == "Copy for 2"
        assert head(sent["archive"], "X-Seen") == "yes"
        assert [len(work.recipients) for work in archiver.shown] == [2, 1]

    def test_a_preprocessor_that_raises_for_a_while_delays_the_message(self, tmp_path: Path) -> None:
        def broken(_: Work) -> Verdict:
            if len(hook.shown) < 3:
                raise RuntimeError("out of ink")
            return Verdict()

        hook = Scripted(name="stamp", does=broken)
        transport = memory()
        with Spooler(tmp_path / "spool.db", [transport], preprocessors=[hook]) as spooler:
            status = submit(spooler, "memory:x")
            settled(spooler)
        (recipient,) = status.recipients
        assert recipient.state is State.DELIVERED
        replies = [attempt.reply.text for attempt in recipient.history]
        assert sum("stamp: RuntimeError: out of ink" in text for text in replies) == 2


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


class TestHanging:
    def test_one_that_hangs_keeps_no_other_message_waiting(
        self, tmp_path: Path, let_go: threading.Event
    ) -> None:
        def hang(work: Work) -> Verdict:
            if b"Hello" in work.content:
                let_go.wait(PATIENCE)
            return Verdict()

        transport = memory()
        hook = Scripted(name="hanging", does=hang, timeout=PATIENCE)
        with Spooler(tmp_path / "spool.db", [transport], preprocessors=[hook]) as spooler:
            stuck = spooler.submit(CONTENT, sender=SENDER, to="memory:stuck")
            until(lambda: len(hook.shown) == 1, "the hanging call")
            assert submit(spooler, "memory:free", content=CONTENT.replace(b"Hello", b"Free")).succeeded
            assert not spooler.status(stuck.id).complete
            let_go.set()
            assert stuck.wait(PATIENCE).succeeded
            settled(spooler)

    def test_its_policy_applies_when_its_time_is_up(self, tmp_path: Path, let_go: threading.Event) -> None:
        def hang(_: Work) -> Verdict:
            let_go.wait(PATIENCE)
            return Verdict(content=b"too late")

        hook = Scripted(name="hanging", does=hang, timeout=0.1, on_error="skip")
        transport = memory()
        with Spooler(tmp_path / "spool.db", [transport], preprocessors=[hook, tagging("After")]) as spooler:
            assert submit(spooler, "memory:x").succeeded
            settled(spooler)
        assert transport.deliveries[0].content == b"X-After: yes\r\n" + CONTENT

    def test_what_was_being_processed_at_the_stop_is_processed_again(
        self, tmp_path: Path, let_go: threading.Event
    ) -> None:
        def hang(_: Work) -> Verdict:
            let_go.wait(PATIENCE)
            return Verdict(
                added=[Submission(message=CONTENT, sender="", to="memory:added", report=frozenset())]
            )

        hanging = Scripted(name="hook", does=hang, timeout=PATIENCE)
        transport = memory()
        path = tmp_path / "spool.db"
        with Spooler(path, [transport], preprocessors=[hanging]) as spooler:
            receipt = spooler.submit(CONTENT, sender=SENDER, to="memory:x", report=frozenset())
            until(lambda: len(hanging.shown) == 1, "the hanging call")
            spooler.stop(timeout=1.0)
        let_go.set()
        with Spooler(path, [transport], preprocessors=[hanging]) as spooler:
            assert spooler.wait(receipt.id, PATIENCE).succeeded
            settled(spooler)
        assert sorted(delivery.targets[0].address.value for delivery in transport.deliveries) == [
            "added",
            "x",
        ]


class TestAftermath:
    def test_sent_hooks_are_told_and_preprocessors_clean_up(self, tmp_path: Path) -> None:
        told: list[MessageStatus] = []
        contents: list[bytes | None] = []
        cleaned: list[str] = []

        @sent_hook
        def note(status: MessageStatus, content: bytes | None) -> None:
            told.append(status)
            contents.append(content)

        class Cleaning(Scripted):
            def clean_up(self, message_id: str) -> None:
                cleaned.append(message_id)

        with Spooler(
            tmp_path / "spool.db",
            [
                memory(),
                MemoryTransport(
                    name="bad", address_types={"bad"}, answer=lambda _: Failed(Reply("no", "5.0.0"))
                ),
            ],
            preprocessors=[Cleaning(name="cleaning")],
            sent_hooks=[note],
        ) as spooler:
            status = submit(spooler, "memory:x", "bad:y")
            until(lambda: bool(told and cleaned), "the end to be told")
            settled(spooler)
        assert told[0].id == cleaned[0] == status.id
        assert [recipient.state for recipient in told[0].recipients] == [State.DELIVERED, State.FAILED]
        assert contents[0] == CONTENT

    def test_a_sent_hook_that_raises_is_told_again(self, tmp_path: Path) -> None:
        times: list[str] = []

        @sent_hook
        def moody(status: MessageStatus, content: bytes | None) -> None:
            assert content is not None
            times.append(status.id)
            if len(times) == 1:
                raise RuntimeError("not now")

        with Spooler(tmp_path / "spool.db", [memory()], sent_hooks=[moody]) as spooler:
            status = submit(spooler, "memory:x")
            until(lambda: len(times) == 2, "the second call")
        assert times == [status.id, status.id]


class TestCrashes:
    @pytest.mark.parametrize("actor", ["core/transports/preprocess", "core/store", "core/router"])
    def test_every_message_is_changed_and_added_to_exactly_once(self, actor: str, tmp_path: Path) -> None:
        """Whichever actor crashes: each recipient gets his content once, and what is added is accepted once."""

        def add(work: Work) -> Verdict:
            if work.addresses[0].type == "copy":
                return Verdict()
            copy = Submission(message=work.content, sender="", to=f"copy:{work.key}", report=frozenset())
            return Verdict(content=b"X-Seen: yes\r\n" + work.content, added=[copy])

        mail = MemoryTransport(keep=10_000)
        copies = MemoryTransport(name="copies", address_types={"copy"}, keep=10_000)
        ids: list[str] = []
        with Spooler(
            tmp_path / "spool.db", [mail, copies], preprocessors=[Scripted(name="adder", does=add)]
        ) as spooler:

            def work(number: int) -> None:
                for n in range(20):
                    content = CONTENT.replace(b"Hello", b"%d-%d" % (number, n))
                    ids.append(spooler.submit(content, sender=SENDER, to="memory:x", report=frozenset()).id)

            with Monkey(spooler, [actor], seed=5) as monkey:
                in_threads(8, work)
            settled(spooler)
            accepted = dict(spooler.tally().accepted)
        assert monkey.crashes > 0
        assert deliveries_by_id(mail) == dict.fromkeys(ids, 1)
        assert all(head(delivery, "X-Seen") == "yes" for delivery in mail.deliveries)
        assert accepted == {"memory": 160, "copy": 160}
        assert len({delivery.targets[0].address for delivery in copies.deliveries}) == copies.count == 160
