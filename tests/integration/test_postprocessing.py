"""Incoming messages through postprocessors into folders, in a whole spooler: once and whole, whatever dies."""

import threading
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from tenacity import wait_fixed

from postroom import MemoryTransport, Spooler
from postroom.events import NewMessage
from postroom.inbound.automatic import automatic_reply
from postroom.inbound.forwarding import forward
from postroom.inbound.hooks import Incoming, Postprocessed, Postprocessor, postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.postprocessors import Route, SpamTag, StripAttachments
from postroom.inbound.rules import ReceiveRule
from postroom.inbound.values import FolderRow, InboundRecord
from postroom.receivers.memory import MemoryReceiver
from postroom.running import Running
from tests.support.found_mail import found_mail
from tests.support.spooling import PATIENCE, settled, until

POLICY = ReceivePolicy(attempts=3, wait=wait_fixed(0.01), clerks=2)


def engine(spooler: Spooler) -> Running:
    running = spooler.snapshot_source()
    assert running is not None
    return running


def filed(spooler: Spooler) -> list[InboundRecord]:
    return list(engine(spooler).context.reader.list_inbound(limit=1000, newest_first=False))


def folders(spooler: Spooler) -> dict[str, int]:
    rows: list[FolderRow] = list(engine(spooler).context.reader.folders())
    return {row.name: row.total for row in rows if row.total}


def content(spooler: Spooler, record: InboundRecord) -> bytes:
    octets = engine(spooler).context.reader.inbound_content(record.key)
    assert octets is not None
    return octets


def all_filed(spooler: Spooler) -> None:
    until(lambda: engine(spooler).context.reader.next_arriving() is None, "everything filed")


def mail(subject: object, more: str = "", body: str = "Hello") -> bytes:
    return f"From: Ann <ann@example.org>\r\nTo: desk@example.com\r\nSubject: {subject}\r\n{more}\r\n{body}\r\n".encode()


class Source:
    """A spool with a way in and a way out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inbox = MemoryReceiver(name="imap")
        self.out = MemoryTransport(name="smtp", address_types={"smtp"})

    def spooler(
        self, *hooks: Postprocessor, policy: ReceivePolicy = POLICY, rules: tuple[ReceiveRule, ...] = ()
    ) -> Spooler:
        self.inbox = MemoryReceiver(name="imap")
        return Spooler(
            self.path, transports=[self.out], receivers=[self.inbox], postprocessors=hooks, rules=rules,
            receiving=policy,
        )  # fmt: skip

    def put(self, octets: bytes) -> None:
        self.inbox.put(octets, sender="ann@example.org", recipients=["desk@example.com"])


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "spool.db")


def hook(
    function: Callable[[Incoming], Postprocessed | None], name: str = "hook", timeout: float = PATIENCE
) -> Postprocessor:
    def process(_: EmailMessage, incoming: Incoming) -> Postprocessed | None:
        return function(incoming)

    return postprocessor(name=name, timeout=timeout)(process)


def test_mail_is_tagged_stripped_sorted_answered_and_sent_on(source: Source) -> None:
    def answer(incoming: Incoming) -> Postprocessed:
        return Postprocessed(
            forward=automatic_reply(incoming, author="desk@example.com", text="We are on it.")
        )

    attached = EmailMessage()
    attached["From"] = "ann@example.org"
    attached["To"] = "desk@example.com"
    attached["Subject"] = "attached"
    attached.set_content("See there.")
    attached.add_attachment(b"MZ", "application", "octet-stream", filename="virus.exe")
    news: list[NewMessage] = []
    hooks = (
        SpamTag(), StripAttachments(extensions=["exe"]), Route(to={"desk@*": ["bob@example.net"]}),
        hook(answer, "answer"),
    )  # fmt: skip
    rules = (ReceiveRule("Stripped", tag="stripped"), ReceiveRule("Desk/New", recipient="desk@*"))
    with source.spooler(*hooks, rules=rules) as spooler:
        spooler.subscribe(
            lambda event: news.append(event) if isinstance(event, NewMessage) else None, events={NewMessage}
        )
        source.put(mail("plain"))
        source.put(mail("bad", "X-Spam-Flag: YES\r\n"))
        source.put(attached.as_bytes())
        source.put(mail("round", "Received: x\r\n" * 51))
        all_filed(spooler)
        assert folders(spooler) == {"Desk/New": 1, "Junk": 1, "Stripped": 1, "Quarantine": 1}
        by_subject = {record.digest.subject: record for record in filed(spooler)}
        assert by_subject["bad"].tags == ("spam",)
        assert b"virus.exe" in content(spooler, by_subject["attached"])
        assert b"TVo=" not in content(spooler, by_subject["attached"])
        assert "mail loop" in by_subject["round"].error
        settled(spooler)
        until(lambda: len(news) == 4, "four events")
        assert {event.folder for event in news} == {"Desk/New", "Junk", "Stripped", "Quarantine"}
    sent = Counter(
        str(target.address.value) for delivery in source.out.deliveries for target in delivery.targets
    )
    # One automatic reply to Ann, who wrote three times; the spam is not answered, the loop is not touched.
    assert sent == {"bob@example.net": 3, "ann@example.org": 1}


def test_mail_that_nobody_here_wrote_stays_as_it_came(source: Source) -> None:
    def on(incoming: Incoming) -> Postprocessed:
        return Postprocessed(forward=forward(incoming, "bob@example.net", author="desk@example.com"))

    mails = list(found_mail().values())
    with source.spooler(hook(on)) as spooler:
        for octets in mails:
            source.put(octets)
        all_filed(spooler)
        assert sorted(content(spooler, record) for record in filed(spooler)) == sorted(mails)
        assert folders(spooler) == {"Inbox": len(mails)}
        settled(spooler)
    assert len(source.out.deliveries) == len(mails)


def test_what_raises_always_ends_in_quarantine_and_others_pass(source: Source) -> None:
    def sometimes(incoming: Incoming) -> None:
        if incoming.digest.subject == "bad":
            raise RuntimeError("cannot bear it")

    with source.spooler(hook(sometimes)) as spooler:
        for subject in ("good", "bad", "fine"):
            source.put(mail(subject))
        all_filed(spooler)
        assert folders(spooler) == {"Inbox": 2, "Quarantine": 1}
        (bad,) = [record for record in filed(spooler) if record.folder == "Quarantine"]
        assert bad.error == "postprocessor hook: RuntimeError: cannot bear it (after 3 attempts)"
        assert content(spooler, bad) == mail("bad")


def test_one_that_hangs_holds_nobody_up(source: Source) -> None:
    gate = threading.Event()

    def hang(incoming: Incoming) -> None:
        if incoming.digest.subject == "hang":
            gate.wait(PATIENCE)

    with source.spooler(hook(hang, timeout=0.1)) as spooler:
        source.put(mail("hang"))
        for number in range(10):
            source.put(mail(number))
        all_filed(spooler)
        assert folders(spooler) == {"Inbox": 10, "Quarantine": 1}
        gate.set()


def test_whoever_is_struck_down_each_message_is_filed_and_sent_on_once(source: Source) -> None:
    total = 60
    calls: Counter[str] = Counter()
    spoolers: list[Spooler] = []

    def on(incoming: Incoming) -> Postprocessed:
        calls[incoming.digest.subject] += 1
        # Few enough for the supervisor not to give up.
        if calls.total() in {5, 15, 25, 35}:
            spoolers[0].crash_actor("intake" if calls.total() % 20 == 5 else "core/store")
        return Postprocessed(forward=forward(incoming, "bob@example.net"))

    policy = ReceivePolicy(attempts=1000, wait=wait_fixed(0.01), clerks=2)
    with source.spooler(hook(on), policy=policy) as spooler:
        spoolers.append(spooler)
        for number in range(total):
            source.put(mail(number))
        all_filed(spooler)
        assert sorted(int(record.digest.subject) for record in filed(spooler)) == list(range(total))
        settled(spooler)
        assert {each.name: each.restarts for each in spooler.actors() if each.name in {"intake", "core/store"}} == {
            "intake": 2, "core/store": 2,
        }  # fmt: skip
    sent = Counter(
        delivery.content.partition(b"Subject: ")[2].split(b"\r\n")[0] for delivery in source.out.deliveries
    )
    assert sent == {str(number).encode(): 1 for number in range(total)}


def test_what_was_in_hand_when_it_stopped_is_done_after_the_next_start(source: Source) -> None:
    began = threading.Event()
    gate = threading.Event()

    def wait(_: Incoming) -> None:
        began.set()
        gate.wait(PATIENCE)

    with source.spooler(hook(wait)):
        source.put(mail("late"))
        assert began.wait(PATIENCE)
    gate.set()
    with source.spooler(hook(lambda _: Postprocessed(folder="Later"))) as spooler:
        # No lease is waited for: it was given back.
        all_filed(spooler)
        (record,) = filed(spooler)
        assert (record.folder, record.attempts) == ("Later", 2)


def test_processes_that_share_a_spool_share_the_work(source: Source) -> None:
    seen: Counter[str] = Counter()
    another = threading.Event()

    def first(incoming: Incoming) -> None:
        seen[incoming.digest.subject] += 1
        assert another.wait(PATIENCE)

    def second(incoming: Incoming) -> None:
        seen[incoming.digest.subject] += 1
        another.set()

    one = source.spooler(hook(first))
    inbox = source.inbox
    two = source.spooler(hook(second))
    # What the first one cannot hold is left to the second, and what it holds the second leaves alone.
    with one, two:
        for number in range(40):
            inbox.put(mail(number), sender="ann@example.org", recipients=["desk@example.com"])
        all_filed(one)
        assert folders(one) == {"Inbox": 40}
    assert another.is_set()
    assert seen == {str(number): 1 for number in range(40)}
