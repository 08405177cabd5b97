"""Disposition notifications from the mail store: once, with the change they tell of, and only as it is allowed."""

import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from postroom import MemoryTransport, Spooler
from postroom.errors import UsageError
from postroom.events import RecipientReported
from postroom.inbound.policy import ReadReceipts, ReceivePolicy
from postroom.receivers.memory import MemoryReceiver
from tests.support.mail_spool import MailDepot, letter
from tests.support.spooling import Listener, until

ANN = "ann@sender.example"
ASKING = letter(
    f"From: Ann <{ANN}>", "To: bob@here.example", "Subject: the plan", "Message-ID: <1@sender.example>",
    f"Disposition-Notification-To: <{ANN}>",
)  # fmt: skip
FROM_OTHERS = ASKING.replace(b"-To: <ann@", b"-To: <eve@")
Open = Callable[[ReadReceipts], MailDepot]


@pytest.fixture
def depots(tmp_path: Path) -> Iterator[Open]:
    opened: list[MailDepot] = []

    def make(mode: ReadReceipts) -> MailDepot:
        folder = tmp_path / mode
        folder.mkdir()
        opened.append(MailDepot(folder, read_receipts=mode))
        return opened[-1]

    yield make
    for depot in opened:
        depot.close()


def take(depot: MailDepot, content: bytes = ASKING, sender: str = ANN) -> str:
    return depot.take(content, sender=sender, recipients=("bob@here.example",))


def test_ask_leaves_it_to_the_user(depots: Open) -> None:
    depot = depots("ask")
    one = take(depot)
    assert depot.mail.get(one).receipt == "wanted"
    changed = depot.mail.mark_read(one)
    assert (changed.ids, changed.receipts, changed.withheld) == ((one,), (), {one: "nobody agreed to it"})
    assert depot.mail.get(one).receipt == "wanted"
    # The user agrees later, and once.
    changed = depot.mail.mark_read(one, receipt=True)
    assert (changed.ids, changed.receipts, changed.withheld) == ((one,), (one,), {})
    assert depot.mail.get(one).receipt == "sent"
    (told,) = depot.accepted
    assert told.sender == ""
    assert [str(recipient.address) for recipient in told.recipients] == [f"smtp:{ANN}"]
    assert b"Disposition: manual-action/MDN-sent-manually; displayed" in told.content
    again = depot.mail.mark_read(one, receipt=True)
    assert (again.ids, again.receipts, again.withheld) == ((), (), {one: "it was decided before"})
    assert len(depot.accepted) == 1
    # It is in the spool like any other message.
    assert depot.reader.content(told.key) == told.content


def test_what_is_denied_is_denied_for_ever(depots: Open) -> None:
    depot = depots("always")
    one = take(depot)
    changed = depot.mail.mark_read(one, receipt=False)
    assert (changed.ids, changed.receipts) == ((one,), ())
    assert depot.mail.get(one).receipt == "denied"
    assert depot.mail.mark_read(one, receipt=True).withheld == {one: "it was decided before"}
    assert not depot.accepted


def test_always_tells_by_itself_where_the_rfc_lets_it(depots: Open) -> None:
    depot = depots("always")
    one, two, three = take(depot), take(depot, FROM_OTHERS), take(depot, letter("From: x@y", "Subject: z"))
    changed = depot.mail.mark_read([one, two, three])
    assert sorted(changed.ids) == [one, two, three]
    assert changed.receipts == (one,)
    assert changed.withheld == {two: "another address asks for it than the one it came from"}
    assert [depot.mail.get(each).receipt for each in (one, two, three)] == ["sent", "wanted", ""]
    assert b"MDN-sent-automatically" in depot.accepted[0].content
    assert depot.mail.mark_read(two, receipt=True).receipts == (two,)
    assert str(depot.accepted[1].recipients[0].address) == "smtp:eve@sender.example"


def test_never_is_never(depots: Open) -> None:
    depot = depots("never")
    one = take(depot)
    assert depot.mail.mark_read(one).withheld == {one: "read receipts are switched off"}
    for change in (depot.mail.mark_read, depot.mail.delete):
        with pytest.raises(UsageError, match="where none is sent"):
            change(one, receipt=True)
    assert not depot.accepted


def test_deleted_unread(depots: Open) -> None:
    depot = depots("always")
    one, two = take(depot), take(depot)
    depot.mail.mark_read(two, receipt=None)
    assert len(depot.accepted) == 1
    # In the trash it can still be read.
    assert depot.mail.delete([one, two]).receipts == ()
    assert len(depot.accepted) == 1
    changed = depot.mail.delete([one, two])
    assert (sorted(changed.ids), changed.receipts) == ([one, two], (one,))
    assert b"Disposition: manual-action/MDN-sent-automatically; deleted" in depot.accepted[1].content
    assert not list(depot.mail.list(None))


def test_what_was_read_is_not_reported_as_deleted(depots: Open) -> None:
    depot = depots("ask")
    one = take(depot)
    depot.mail.mark_read(one)
    changed = depot.mail.delete(one, permanently=True, receipt=True)
    assert (changed.ids, changed.withheld) == ((one,), {one: "it was read before"})
    assert not depot.accepted


def test_copies_ask_once(depots: Open) -> None:
    depot = depots("always")
    depot.take(ASKING, "Inbox", "Copies", sender=ANN, recipients=("bob@here.example",))
    both = [message.id for message in depot.mail.list(None)]
    assert len(both) == 2
    assert len(depot.mail.mark_read(both).receipts) == 1
    assert len(depot.accepted) == 1


def test_what_cannot_be_sent_does_not_keep_it_from_being_read(depots: Open) -> None:
    depot = depots("always")
    one = take(depot)
    depot.refuses = True
    changed = depot.mail.mark_read(one)
    assert changed.ids == (one,)
    assert "cannot be sent: to: no transport delivers there" in changed.withheld[one]
    assert depot.mail.get(one).seen
    assert depot.mail.get(one).receipt == "wanted"


def test_of_two_that_decide_at_once_one_tells(depots: Open) -> None:
    depot = depots("ask")
    one = take(depot)
    # Another process decides between our look and our step.
    depot.meanwhile.append(lambda: depot.mail.mark_read(one, receipt=True))
    changed = depot.mail.mark_read(one, receipt=True)
    assert (changed.receipts, len(depot.accepted)) == ((), 1)
    # It stands as the other left it, so that nothing changed here.
    assert (changed.ids, changed.withheld) == ((), {one: "it was decided before"})


def test_a_running_spooler_delivers_the_notification(tmp_path: Path) -> None:
    received = MemoryReceiver()
    sent = MemoryTransport(address_types=["smtp"])
    spooler = Spooler(
        tmp_path / "spool.db", [sent], receivers=[received], receiving=ReceivePolicy(read_receipts="always")
    )
    with spooler:
        received.put(ASKING, sender=ANN, recipients=["bob@here.example"])
        (message,) = spooler.mail.list()
        results: list[tuple[str, ...]] = []
        threads = [
            threading.Thread(target=lambda: results.append(spooler.mail.mark_read(message.id).receipts))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        # However many read it at once, its sender is told once.
        assert sorted(results) == [()] * 7 + [(message.id,)]
        until(lambda: len(sent.deliveries) == 1, "the notification")
        until(lambda: spooler.tally().pending == 0)
    (delivery,) = sent.deliveries
    assert delivery.sender == ""
    told = message_from_bytes(delivery.content)
    assert told.get_content_type() == "multipart/report"
    assert told["To"] == f"<{ANN}>"


def test_from_the_sender_to_the_reader_and_back(tmp_path: Path) -> None:
    received = MemoryReceiver()
    sent = MemoryTransport(address_types=["smtp"])
    events = Listener()
    with Spooler(tmp_path / "spool.db", [sent], receivers=[received]) as spooler:
        spooler.subscribe(events, events=[RecipientReported])
        receipt = spooler.submit(ASKING, sender=ANN, to="bob@here.example")
        until(lambda: len(sent.deliveries) == 1, "the message")
        received.put(sent.deliveries[0].content, sender=ANN, recipients=["bob@here.example"])
        (message,) = spooler.mail.list()
        assert spooler.mail.mark_read(message.id, receipt=True).receipts == (message.id,)
        until(lambda: len(sent.deliveries) == 2, "the notification")
        received.put(sent.deliveries[1].content, sender="", recipients=[ANN])
        told = events.wait(RecipientReported)
        assert (told.message_id, told.index, told.action) == (receipt.id, 0, "displayed")
        (report,) = spooler.mail.list("Reports")
        assert (report.matched, report.message_class) == (True, "REPORT.IPM.Note.IPNRN")
        # Nobody is told that a report was read.
        assert not spooler.mail.mark_read(report.id, receipt=True).receipts
