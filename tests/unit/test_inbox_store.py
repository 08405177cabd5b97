"""Incoming messages in the store: the ledger, folders, marks, postprocessing, leases, and the journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.errors import UsageError
from postroom.events import InboundChanged, NewMessage
from postroom.ids import format_id
from postroom.inbound.values import Filing, LedgerKey, Marks
from tests.support.inbound import CONTENT, OpenStore


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "spool.db") as spool:
        yield spool


def kinds(spool: OpenStore) -> list[str]:
    return [
        event.change if isinstance(event, InboundChanged) else type(event).__name__
        for event in spool.store.inbox.news
    ]


def test_a_message_is_filed_and_told_of(spool: OpenStore) -> None:
    new = spool.new()
    (received,) = spool.receive(new)
    assert (received.key, received.duplicate, received.arriving) == (new.key, False, False)
    (event,) = spool.store.inbox.news
    assert isinstance(event, NewMessage)
    assert (event.message_id, event.folder, event.subject) == (format_id(new.key), "Inbox", "hello")
    record = spool.reader.inbound(new.key)
    assert record is not None
    assert (record.folder, record.size, record.sender, record.recipients) == (
        "Inbox", len(CONTENT), "ann@example.org", ("box@example.org",),
    )  # fmt: skip
    assert spool.reader.inbound_content(new.key) == CONTENT
    assert [(f.name, f.total, f.unseen) for f in spool.reader.folders()] == [("Inbox", 1, 1)]


def test_the_ledger_knows_what_was_taken(spool: OpenStore) -> None:
    first = spool.new()
    spool.receive(first)
    again = spool.new()
    (received,) = spool.receive(again)
    assert (received.key, received.duplicate) == (first.key, True)
    assert spool.store.inbox.news == []
    assert spool.reader.inbound(again.key) is None
    assert spool.reader.ledger("imap", "INBOX;1") == {"1"}


def test_the_ledger_outlives_the_message(spool: OpenStore) -> None:
    new = spool.new()
    spool.receive(new)
    spool.store.begin()
    assert spool.store.inbox.delete([new.key], 1.0) == [new.key]
    spool.store.commit()
    assert spool.receive(spool.new())[0].duplicate
    assert spool.reader.folders()[0].total == 0


def test_two_in_one_transaction_with_one_key_are_one(spool: OpenStore) -> None:
    one, two = spool.receive(spool.new(), spool.new())
    assert (one.duplicate, two.duplicate, two.key) == (False, True, one.key)


def test_the_same_letter_again_is_no_duplicate(spool: OpenStore) -> None:
    new = spool.new()
    spool.receive(new)
    assert spool.receive(new)[0] == spool.receive(new)[0]
    assert not spool.receive(new)[0].duplicate


def test_another_receiver_has_a_ledger_of_its_own(spool: OpenStore) -> None:
    spool.receive(spool.new())
    assert not spool.receive(spool.new(), receiver="pop3")[0].duplicate


def test_a_second_key_of_a_known_message_is_learnt(spool: OpenStore) -> None:
    new = spool.new()
    spool.receive(new)
    spool.store.begin()
    spool.store.inbox.note_keys("imap", [LedgerKey("INBOX;2", "9")])
    spool.store.commit()
    assert spool.receive(spool.new("9", source="INBOX;2"))[0].duplicate


def test_forgotten_keys_may_come_again(spool: OpenStore) -> None:
    spool.receive(spool.new())
    spool.store.begin()
    spool.store.inbox.forget_keys("imap", "INBOX;1", ["1"])
    spool.store.commit()
    assert not spool.receive(spool.new())[0].duplicate


def test_a_copy_in_each_folder(spool: OpenStore) -> None:
    spool.receive(spool.new(folders=("Inbox", "Support/Open")))
    assert kinds(spool) == ["NewMessage", "NewMessage"]
    assert [(f.name, f.total) for f in spool.reader.folders()] == [("Inbox", 1), ("Support/Open", 1)]
    (copy,) = spool.reader.list_inbound(folder="Support/Open")
    assert spool.reader.inbound_content(copy.key) == CONTENT
    # Of several copies one may answer a request for a disposition notification.
    assert copy.notified == "none"


def test_what_arrives_for_postprocessing_is_claimed_and_filed(spool: OpenStore) -> None:
    new = spool.new(folders=())
    (received,) = spool.receive(new)
    assert received.arriving
    assert spool.store.inbox.due == spool.clock.time()
    assert spool.store.inbox.news == []
    assert spool.reader.list_inbound() == []
    now = spool.clock.time()
    spool.store.begin()
    ((record, again),) = spool.store.inbox.claim(now, 10, 60.0)
    assert spool.store.inbox.claim(now, 10, 60.0) == []
    assert (record.attempts, again.arrival.content, again.arrival.recipients) == (
        1,
        CONTENT,
        ("box@example.org",),
    )
    assert spool.store.inbox.file(new.key, 1, Filing(folders=("Junk",), content=b"x", tags=("spam",)), now)
    assert not spool.store.inbox.file(new.key, 1, Filing(folders=("Inbox",)), now)
    spool.store.commit()
    assert kinds(spool) == ["NewMessage"]
    (filed,) = spool.reader.list_inbound(folder="Junk")
    assert (filed.tags, filed.size, filed.due) == (("spam",), 1, None)
    assert spool.reader.inbound_content(new.key) == b"x"
    assert spool.reader.next_arriving() is None


def test_whoever_claimed_it_later_has_the_word(spool: OpenStore) -> None:
    new = spool.new(folders=())
    spool.receive(new)
    now = spool.clock.time()
    spool.store.begin()
    spool.store.inbox.claim(now, 10, 60.0)
    spool.store.inbox.claim(now + 61, 10, 60.0)
    assert not spool.store.inbox.file(new.key, 1, Filing(folders=("Inbox",)), now)
    assert not spool.store.inbox.postpone(new.key, 1, now, "slow", now)
    assert spool.store.inbox.postpone(new.key, 2, now + 100, "slow", now)
    spool.store.commit()
    assert spool.reader.next_arriving() == now + 100


def test_what_a_dead_process_had_claimed_is_due_at_once(tmp_path: Path) -> None:
    one, two = OpenStore(tmp_path / "spool.db"), OpenStore(tmp_path / "spool.db")
    with two:
        one.store.open()
        now = one.clock.time()
        new = one.new(folders=())
        one.receive(new)
        one.store.begin()
        one.store.inbox.claim(now, 10, 60.0)
        assert one.store.inbox.lease("imap", now, 60.0)
        one.store.commit()
        assert two.reader.next_arriving() == now + 60.0
        one.reader.close()
        one.store.close(leave=False)
        two.store.begin()
        two.store.adopt((), now)
        assert two.store.inbox.lease("imap", now, 60.0)
        two.store.commit()
        assert two.reader.next_arriving() == now


def test_what_is_dropped_is_gone_but_known(spool: OpenStore) -> None:
    new = spool.new(folders=())
    spool.receive(new)
    spool.store.begin()
    spool.store.inbox.claim(spool.clock.time(), 10, 60.0)
    assert spool.store.inbox.file(new.key, 1, Filing(folders=()), 1.0)
    spool.store.commit()
    assert spool.reader.inbound_content(new.key) is None
    assert spool.receive(spool.new())[0].duplicate


def test_marks_moves_and_deletions_are_told_once(spool: OpenStore) -> None:
    new = spool.new()
    spool.receive(new)
    spool.store.begin()
    inbox = spool.store.inbox
    assert inbox.mark([new.key], Marks(seen=True), 1.0) == [new.key]
    assert inbox.mark([new.key], Marks(seen=True), 1.0) == []
    assert inbox.mark([new.key], Marks(flagged=True, tags=("a",)), 1.0) == [new.key]
    assert inbox.mark([new.key], Marks(notified="sent"), 1.0) == [new.key]
    assert inbox.mark([new.key], Marks(notified="denied"), 1.0) == []
    assert inbox.move([new.key], "Done", 1.0) == [new.key]
    assert inbox.move([new.key], "Done", 1.0) == []
    assert inbox.delete([new.key], 1.0) == [new.key]
    assert inbox.delete([new.key], 1.0) == []
    spool.store.commit()
    assert kinds(spool) == ["read", "marked", "moved", "deleted"]


def test_a_folder_that_is_in_use_stays(spool: OpenStore) -> None:
    spool.receive(spool.new())
    spool.store.begin()
    with pytest.raises(UsageError, match="holds 1 messages"):
        spool.store.inbox.drop_folder("Inbox")
    assert spool.store.inbox.make_folder("Empty", 1.0)
    assert not spool.store.inbox.make_folder("Empty", 1.0)
    assert spool.store.inbox.drop_folder("Empty")
    assert not spool.store.inbox.drop_folder("Empty")
    spool.store.commit()


def test_pages_in_both_directions(spool: OpenStore) -> None:
    new = [spool.new(str(n)) for n in range(5)]
    spool.receive(*new)
    numbers = [each.key for each in new]
    first = [r.key for r in spool.reader.list_inbound(limit=2)]
    assert first == numbers[:2:-1]
    assert [r.key for r in spool.reader.list_inbound(limit=9, after=first[-1])] == numbers[2::-1]
    assert [r.key for r in spool.reader.list_inbound(newest_first=False, after=numbers[2])] == numbers[3:]


def test_progress_is_remembered_by_source(spool: OpenStore) -> None:
    spool.store.begin()
    spool.store.inbox.set_progress("imap", "INBOX;1", "17")
    spool.store.inbox.set_progress("imap", "INBOX;1", "18")
    spool.store.commit()
    assert spool.reader.progress("imap") == {"INBOX;1": "18"}
    assert spool.reader.progress("pop3") == {}


def test_one_living_instance_has_the_lease(tmp_path: Path) -> None:
    with OpenStore(tmp_path / "spool.db") as one, OpenStore(tmp_path / "spool.db") as two:

        def lease(spool: OpenStore, now: float) -> bool:
            spool.store.begin()
            try:
                return spool.store.inbox.lease("imap", now, 30.0)
            finally:
                spool.store.commit()

        assert lease(one, 0.0)
        assert not lease(two, 1.0)
        assert lease(one, 20.0)
        assert not lease(two, 40.0)
        assert lease(two, 50.0), "it has lapsed"
        assert not lease(one, 51.0)
        two.store.begin()
        two.store.inbox.end_lease("imap")
        two.store.commit()
        assert lease(one, 52.0)


def test_old_keys_and_old_rubbish_go(spool: OpenStore) -> None:
    new = spool.new(None)
    spool.receive(new)
    spool.store.begin()
    inbox = spool.store.inbox
    inbox.note_keys("smtp", [LedgerKey("smtp", "a", 10.0), LedgerKey("smtp", "b", 20.0)])
    inbox.move([new.key], "Trash", 5.0)
    assert inbox.purge(15.0, 100, 5.0) == 1
    assert inbox.purge(15.0, 100, 6.0) == 1
    spool.store.commit()
    assert spool.reader.ledger("smtp", "smtp") == {"b"}
    assert spool.reader.inbound(new.key) is None


def test_the_journal_counts_in_order_and_forgets_from_its_start(spool: OpenStore) -> None:
    events = [NewMessage(float(n), "id", "Inbox", "s", "a", "r", "IPM.Note", 1, seen=False) for n in range(5)]
    spool.store.begin()
    spool.store.events.write(events)
    spool.store.commit()
    rows = spool.reader.events(0, 10)
    assert [row.at for row in rows] == [0.0, 1.0, 2.0, 3.0, 4.0]
    numbers = [row.cursor for row in rows]
    assert numbers == sorted(set(numbers))
    assert [row.cursor for row in spool.reader.events(numbers[1], 2)] == numbers[2:4]
    assert spool.reader.events(0, 10, {"RecipientFailed"}) == []
    assert spool.reader.bounds() == (0, numbers[-1])
    spool.store.begin()
    assert spool.store.events.purge(3.0, 2) == 2
    assert spool.store.events.purge(3.0, 2) == 1
    assert spool.store.events.purge(3.0, 2) == 0
    spool.store.commit()
    assert spool.reader.bounds() == (numbers[2], numbers[-1])
    assert [row.at for row in spool.reader.events(0, 10)] == [3.0, 4.0]


def test_a_cursor_moves_only_from_where_it_stood(spool: OpenStore) -> None:
    spool.store.begin()
    journal = spool.store.events
    assert journal.advance("crm", 5, None, 1.0)
    assert not journal.advance("crm", 6, None, 1.0)
    assert not journal.advance("crm", 6, 4, 1.0)
    assert journal.advance("crm", 6, 5, 1.0)
    spool.store.commit()
    assert spool.reader.cursors() == {"crm": 6}
    spool.store.begin()
    assert journal.drop_cursor("crm")
    assert not journal.drop_cursor("crm")
    spool.store.commit()


def test_what_is_undone_never_was(spool: OpenStore) -> None:
    new = spool.new()
    spool.store.begin()
    spool.store.inbox.receive("imap", [new], 1.0)
    spool.store.rollback()
    assert spool.reader.inbound(new.key) is None
    assert not spool.receive(spool.new())[0].duplicate
