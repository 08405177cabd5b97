"""Incoming mail in its folders, on a real spool: listed, opened, marked, moved, deleted, found, exported."""

import mailbox
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest

from postroom.errors import NotRunning, UnknownMessage, UsageError
from postroom.events import InboundChanged
from postroom.ids import format_id
from postroom.inbound.digesting import digest_of
from postroom.inbound.mailstore import MailStore
from postroom.inbound.values import Arrival, Filing, NewInbound
from postroom.mailfiles import from_mboxrd
from postroom.stores.driver import connect, sqlite3
from postroom.stores.inbox_search import index_inbound_step
from postroom.viewing import SpoolView
from tests.support.mail_spool import MailDepot, letter

PLAIN = letter(
    "From: Ann <ann@sender.example>", "To: bob@here.example", "Subject: The plan", body="about Zürich"
)
OTHER = letter("From: Eve <eve@example.com>", "To: bob@here.example", "Subject: Grüße", body="nothing")


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[MailDepot]:
    opened = MailDepot(tmp_path)
    yield opened
    opened.close()


def ids(messages: Any) -> list[str]:
    return [message.id for message in messages]


# Lists


def test_an_empty_spool_has_an_empty_inbox(depot: MailDepot) -> None:
    assert depot.mail.folders() == ()
    assert not list(depot.mail.list())
    assert not list(depot.mail.list("trash"))
    with pytest.raises(UsageError, match="there is no 'Support'"):
        depot.mail.list("Support")


def test_messages_are_listed(depot: MailDepot) -> None:
    one = depot.take(PLAIN, sender="ann@sender.example", recipients=("bob@here.example",), remote="192.0.2.1")
    two = depot.take(OTHER, seen=True)
    three = depot.take(OTHER, "Support/Open")
    assert [(row.name, row.total, row.unseen) for row in depot.mail.folders()] == [
        ("Inbox", 2, 1), ("Support/Open", 1, 1),
    ]  # fmt: skip
    assert ids(depot.mail.list()) == [two, one]
    assert ids(depot.mail.list("INBOX", newest_first=False)) == [one, two]
    assert ids(depot.mail.list(unseen=True)) == [one]
    assert ids(depot.mail.list(None, limit=2)) == [three, two]
    assert ids(depot.mail.list("Support/Open")) == [three]
    message = depot.mail.get(one)
    assert (message.subject, message.author, message.to) == (
        "The plan",
        "Ann <ann@sender.example>",
        "bob@here.example",
    )
    assert (message.sender, message.recipients, message.remote) == (
        "ann@sender.example", ("bob@here.example",), "192.0.2.1",
    )  # fmt: skip
    assert (message.folder, message.seen, message.receipt, message.message_class) == (
        "Inbox",
        False,
        "",
        "IPM.Note",
    )
    assert "key" not in repr(message)


def test_messages_are_listed_by_time_and_page_by_page(
    depot: MailDepot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.inbound.mailstore.PAGE", 2)
    start = depot.clock.time()
    taken = [depot.take(PLAIN) for _ in range(7)]
    assert ids(depot.mail.list(limit=None)) == taken[::-1]
    assert ids(depot.mail.list(limit=5, newest_first=False)) == taken[:5]
    assert ids(depot.mail.list(since=start + 2, until=start + 5)) == taken[2:5][::-1]
    since = datetime.fromtimestamp(start + 5, UTC)
    assert ids(depot.mail.list(since=since, newest_first=False)) == taken[5:]
    assert ids(depot.mail.list(until=start + 2, newest_first=False)) == taken[:2]
    with pytest.raises(UsageError, match="since"):
        depot.mail.list(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused
    with pytest.raises(UsageError, match="until"):
        depot.mail.list(until=-1)


def test_what_is_being_processed_is_in_no_folder(depot: MailDepot) -> None:
    one = depot.take_for_processing(PLAIN)
    assert not list(depot.mail.list(None))
    with pytest.raises(UnknownMessage, match="still being processed"):
        depot.mail.get(one)
    with pytest.raises(UnknownMessage, match="in no folder"):
        depot.mail.open("0" * 13)
    with pytest.raises(UnknownMessage, match="not a message id"):
        depot.mail.mark_read("nonsense")


def test_a_message_is_opened_as_it_came(depot: MailDepot) -> None:
    content = b"From: a@b\nSubject: \xff\xfe\r\n\rmixed line ends\0"
    one = depot.take(content)
    opened = depot.mail.open(one)
    assert opened.content == content == depot.mail.content(one)
    assert opened.message == depot.mail.get(one)
    assert not depot.mail.get(one).seen
    assert opened.parse()["from"] == "a@b"


# Folders


def test_folders_are_made_and_removed(depot: MailDepot) -> None:
    assert depot.mail.create("Support/Open")
    assert not depot.mail.create("Support/Open")
    assert not list(depot.mail.list("Support/Open"))
    one = depot.take(PLAIN, "Support/Open")
    with pytest.raises(UsageError, match="holds 1 messages"):
        depot.mail.remove("Support/Open")
    depot.mail.move(one, "Inbox")
    depot.mail.remove("Support/Open")
    with pytest.raises(UsageError, match="there is no"):
        depot.mail.remove("Support/Open")
    with pytest.raises(UsageError, match="standard"):
        depot.mail.remove("inbox")


@pytest.mark.parametrize("name", ["", "/", "a//b", "a/../b", ".", " a", "a\nb", "x" * 300, "a/"])
def test_names_of_folders_are_checked(depot: MailDepot, name: str) -> None:
    for attempt in (depot.mail.create, depot.mail.remove, depot.mail.list):
        with pytest.raises(UsageError, match="folder") as refused:
            attempt(name)
        assert type(refused.value) is UsageError


# Changes


def test_marks(depot: MailDepot) -> None:
    one, two = depot.take(PLAIN), depot.take(OTHER)
    assert depot.mail.mark_read([one, two]).ids == (one, two)
    assert depot.mail.mark_read([one, two]).ids == ()
    assert list(depot.mail.mark_read(one, read=False)) == [one]
    assert depot.mail.flag([two]) == (two,)
    assert depot.mail.mark_answered(two) == (two,)
    assert depot.mail.tag([one, two], ["urgent", "urgent", "customer"]) == (one, two)
    first, second = depot.mail.get(one), depot.mail.get(two)
    assert (first.seen, first.flagged, first.answered, first.tags) == (
        False,
        False,
        False,
        ("urgent", "customer"),
    )
    assert (second.seen, second.flagged, second.answered) == (True, True, True)
    assert depot.mail.flag(two, flagged=False) == (two,)
    assert depot.mail.tag(two, []) == (two,)
    assert depot.mail.get(two).tags == ()
    changes = [
        (event.message_id, event.change) for event in depot.events if isinstance(event, InboundChanged)
    ]
    assert changes[:3] == [(one, "read"), (two, "read"), (one, "unread")]
    with pytest.raises(UsageError, match="tags"):
        depot.mail.tag(one, ["two words"])
    with pytest.raises(UsageError, match="too many"):
        depot.mail.tag(one, map(str, range(51)))
    with pytest.raises(UsageError, match="was not read"):
        depot.mail.mark_read(one, read=False, receipt=True)


def test_an_unknown_id_changes_nothing(depot: MailDepot) -> None:
    one = depot.take(PLAIN)
    both = [one, "0" * 13]
    for change in (
        partial(depot.mail.mark_read, both), partial(depot.mail.flag, both), partial(depot.mail.delete, both),
        partial(depot.mail.move, both, "Elsewhere"),
    ):  # fmt: skip
        with pytest.raises(UnknownMessage):
            change()
    assert depot.mail.get(one) == next(depot.mail.list())
    assert [row.name for row in depot.mail.folders()] == ["Inbox"]


def test_messages_are_changed_in_bounded_steps(depot: MailDepot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.inbound.mailstore_changing.STEP", 2)
    taken = [depot.take(PLAIN) for _ in range(5)]
    assert depot.mail.move(taken, "Archive/2026") == tuple(taken)
    assert ids(depot.mail.list("Archive/2026", newest_first=False)) == taken
    assert depot.mail.move(taken, "Archive/2026") == ()


def test_deleting_goes_to_the_trash_first(depot: MailDepot) -> None:
    one, two, three = depot.take(PLAIN), depot.take(OTHER), depot.take(OTHER)
    assert depot.mail.delete([one, two]).ids == (one, two)
    assert ids(depot.mail.list("Trash")) == [two, one]
    # Of two, one lies in the trash and goes, the other is moved there.
    assert sorted(depot.mail.delete([one, three]).ids) == [one, three]
    assert ids(depot.mail.list("Trash")) == [three, two]
    with pytest.raises(UnknownMessage):
        depot.mail.get(one)
    depot.mail.move(two, "Inbox")
    assert depot.mail.delete(two, permanently=True).ids == (two,)
    assert not list(depot.mail.list())
    changes = [
        (event.message_id, event.change) for event in depot.events if isinstance(event, InboundChanged)
    ]
    assert (one, "deleted") in changes
    assert (two, "deleted") in changes


def test_a_view_only_reads(depot: MailDepot) -> None:
    one = depot.take(PLAIN)
    view = MailStore(depot.path, depot.inbox_reader)
    assert ids(view.list()) == [one]
    for attempt in (view.mark_read, view.flag, view.delete):
        with pytest.raises(UsageError, match="only read here"):
            attempt(one)


# Search


def found(depot: MailDepot, query: str, folder: str | None = None) -> list[str]:
    result = depot.mail.search(query, folder)
    assert result.complete
    return ids(result)


def test_words_are_found_wherever_they_stand(depot: MailDepot) -> None:
    assert found(depot, "plan") == []
    one = depot.take(PLAIN, sender="bounce-7@sender.example")
    two = depot.take(OTHER, "Support", recipients=("desk@here.example",))
    assert found(depot, "pla") == [one]
    assert found(depot, "zurich") == [one]
    assert found(depot, "ANN@sender") == [one]
    assert found(depot, "bounce-7") == [one]
    assert found(depot, "bob@here.example") == [two, one]
    assert found(depot, "desk@") == [two]
    assert found(depot, '"the plan" about') == [one]
    assert found(depot, "gruße") == [two]
    assert found(depot, "bob", "Support") == [two]
    assert found(depot, "bob", "inbox") == [one]
    assert ids(depot.mail.search("bob", limit=1)) == [two]
    for query, message in (("***", "no word"), ("", "no word")):
        with pytest.raises(UsageError, match=message):
            depot.mail.search(query)
    with pytest.raises(UsageError, match="limit"):
        depot.mail.search("x", limit=0)


def test_what_moves_is_found_there_and_what_goes_is_not(depot: MailDepot) -> None:
    one, two = depot.take(PLAIN), depot.take(OTHER)
    assert found(depot, "bob") == [two, one]
    depot.mail.move(one, "Archive")
    assert found(depot, "plan", "Archive") == [one]
    depot.mail.delete([one, two], permanently=True)
    assert found(depot, "bob") == []
    connection = connect(depot.path)
    connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, inbound_search, row)")
    words = {row[0] for row in connection.execute("SELECT term FROM temp.words")}
    connection.close()
    assert not words


def test_what_is_processed_is_found_once_it_is_filed(depot: MailDepot) -> None:
    depot.take(OTHER)
    assert found(depot, "plan") == []
    one = depot.take_for_processing(PLAIN)
    assert found(depot, "plan") == []
    ((record, _),) = depot.step(lambda store: store.inbox.claim(depot.clock.time(), 10, 60), timeout=1)
    changed = PLAIN.replace("Zürich".encode(), b"Geneva")
    depot.step(
        lambda store: store.inbox.file(
            record.key,
            record.attempts,
            Filing(folders=("Inbox", "Copies"), content=changed),
            depot.clock.time(),
        ),
        timeout=1,
    )
    assert len(found(depot, "geneva plan")) == 2
    assert found(depot, "geneva", "Inbox") == [one]
    assert found(depot, "zurich") == []


def test_the_index_grows_in_bounded_steps_the_newest_first(depot: MailDepot) -> None:
    taken = [depot.take(PLAIN) for _ in range(5)]
    view = MailStore(depot.path, depot.inbox_reader)
    assert (len(view.search("plan")), view.search("plan").complete) == (0, False)
    assert depot.perform(lambda connection: index_inbound_step(connection, 2), 1) == 2
    partly = view.search("plan")
    assert (ids(partly), partly.complete) == (taken[:2:-1], False)
    assert depot.perform(lambda connection: index_inbound_step(connection, 10), 1) == 3
    assert depot.perform(lambda connection: index_inbound_step(connection, 10), 1) == 0
    assert ids(view.search("plan")) == taken[::-1]


def test_a_step_ends_after_so_many_octets(depot: MailDepot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.stores.inbox_search.STEP_OCTETS", 2 * len(PLAIN))
    for _ in range(5):
        depot.take(PLAIN)
    assert depot.perform(lambda connection: index_inbound_step(connection, 10), 1) == 2


def test_a_spool_without_index_says_so(depot: MailDepot) -> None:
    with pytest.raises(UsageError, match="switched off"):
        MailStore(depot.path, depot.inbox_reader, index=False).search("x")


# Export


def test_export_to_an_mbox(depot: MailDepot, tmp_path: Path) -> None:
    depot.take(PLAIN, sender="ann@sender.example")
    two = depot.take(OTHER, "Support")
    exported = depot.mail.export(to=tmp_path / "all.mbox")
    assert (exported.messages, exported.octets, exported.skipped) == (2, len(PLAIN) + len(OTHER), 0)
    with closing(mailbox.mbox(tmp_path / "all.mbox", create=False)) as box:
        first, second = box
        assert first["subject"] == "The plan"
        assert first.get_from().startswith("ann@sender.example ")
        assert second.get_from().startswith("MAILER-DAEMON ")
    one_folder = BytesIO()
    assert depot.mail.export(to=one_folder, folder="Support").messages == 1
    assert from_mboxrd(one_folder.getvalue()) == OTHER
    by_id = BytesIO()
    depot.mail.export(two, to=by_id, format="eml")
    assert by_id.getvalue() == OTHER
    with pytest.raises(UsageError, match="there is a file"):
        depot.mail.export(to=tmp_path / "all.mbox")
    with pytest.raises(UsageError, match="there is no"):
        depot.mail.export(to=tmp_path / "none.mbox", folder="None")
    with pytest.raises(UnknownMessage):
        depot.mail.export(["0" * 13], to=tmp_path / "none.mbox")
    assert not (tmp_path / "none.mbox").exists()
    with pytest.raises(UsageError, match="format"):
        depot.mail.export(to=tmp_path / "x", format="pst")  # type: ignore[arg-type]


def test_export_to_a_maildir(depot: MailDepot, tmp_path: Path) -> None:
    one, two = depot.take(PLAIN), depot.take(b"bare\nline\rends\0\xff")
    depot.mail.mark_read(one)
    depot.mail.flag(one)
    place = tmp_path / "mail"
    assert depot.mail.export(to=place, format="maildir").messages == 2
    box = mailbox.Maildir(str(place), create=False)
    flags = {key.split(".")[1]: box.get_message(key).get_flags() for key in box.keys()}  # noqa: SIM118 - no dict
    assert flags == {one: "FS", two: ""}
    (new,) = (place / "new").iterdir()
    assert new.read_bytes() == depot.mail.content(two)
    assert not list((place / "tmp").iterdir())
    # What is there is kept, or replaced when that is asked for.
    with pytest.raises(UsageError, match=r"is in .* already"):
        depot.mail.export(to=place, format="maildir")
    depot.mail.mark_read(two)
    assert depot.mail.export(to=place, format="maildir", overwrite=True).messages == 2
    assert not list((place / "new").iterdir())
    assert len(list((place / "cur").iterdir())) == 2
    with pytest.raises(UsageError, match="a Maildir is a folder"):
        depot.mail.export(to=BytesIO(), format="maildir")


# Privacy


def test_erasing_covers_incoming_mail(depot: MailDepot) -> None:
    theirs = depot.take(PLAIN, sender="ann@sender.example", recipients=("bob@here.example",))
    within = depot.take(letter("From: eve@example.com", "Subject: about", body="ask ann@sender.example"))
    other = depot.take(letter("From: joann@sender.example", "Subject: kept", body="x"))
    arriving = depot.take_for_processing(PLAIN)
    assert found(depot, "ann@sender.example") == [within, theirs]
    preview = depot.archive.erase("ann@sender.example")
    assert (preview.inbound, preview.contents, preview.pending) == (3, 3, (arriving,))
    assert depot.mail.get(theirs).sender == "ann@sender.example"
    done = depot.archive.erase("ann@sender.example", apply=True)
    assert (done.inbound, done.contents, done.pending, done.complete) == (3, 2, (arriving,), False)
    message = depot.mail.get(theirs)
    assert (message.sender, message.author) == (done.tombstone, f"Ann <{done.tombstone}>")
    assert message.subject == "The plan"
    for erased in (theirs, within):
        with pytest.raises(UnknownMessage, match=r"octets .* are gone"):
            depot.mail.open(erased)
    assert depot.mail.open(other).text() == "x\n"
    assert found(depot, "ann@sender.example") == []
    assert found(depot, done.tombstone) == [theirs]
    exported = depot.mail.export(to=BytesIO())
    assert (exported.messages, exported.skipped, exported.sample) == (1, 2, (theirs, within))
    # Once it is filed, it is erased like the others.
    ((record, _),) = depot.step(lambda store: store.inbox.claim(depot.clock.time(), 10, 60), timeout=1)
    depot.step(
        lambda store: store.inbox.file(
            record.key, record.attempts, Filing(folders=("Inbox",)), depot.clock.time()
        ),
        timeout=1,
    )
    again = depot.archive.erase("ann@sender.example", apply=True)
    assert (again.inbound, again.complete) == (1, True)
    # Read by another process: opening the files here would drop SQLite's locks on them.
    files = [
        path for path in depot.path.parent.glob("spool.db*") if path.is_file() and path.suffix != ".db-shm"
    ]
    left = subprocess.run(["cat", *files], capture_output=True, check=True).stdout
    assert b" ann@sender.example" not in left
    assert b"<ann@sender.example" not in left
    assert b"joann@sender.example" in left


def test_erasing_covers_the_journal(depot: MailDepot) -> None:
    one = depot.take(PLAIN)
    depot.step(
        lambda store: store.events.write([InboundChanged(1.0, one, "ann@sender.example", "moved")]),
        timeout=1,
    )
    depot.archive.erase("ann@sender.example", apply=True, rewrite=False)
    (row,) = depot.inbox_reader.events(0, 10)
    assert "erased:" in row.data
    assert "ann@sender" not in row.data


# The index elsewhere


def test_a_message_that_is_committed_late_is_found(depot: MailDepot) -> None:
    early = depot.store.ids.next()
    later = depot.take(PLAIN)
    assert found(depot, "plan") == [later]
    new = NewInbound(
        key=early, arrival=Arrival(content=PLAIN), receiver="test", received=depot.clock.time(), digest=digest_of(PLAIN)
    )  # fmt: skip
    depot.step(lambda store: store.inbox.receive("test", [new], depot.clock.time()), timeout=1)
    assert found(depot, "plan") == [later, format_id(early)]


def missing(_connection: sqlite3.Connection) -> bool:
    return False


def test_mail_is_taken_and_removed_without_fts5(depot: MailDepot, monkeypatch: pytest.MonkeyPatch) -> None:
    one = depot.take(PLAIN)
    assert found(depot, "plan") == [one]
    with monkeypatch.context() as without:
        without.setattr("postroom.stores.inbox_search._possible", missing)
        two, three = depot.take(PLAIN), depot.take(PLAIN)
        depot.mail.delete([one, two], permanently=True)
        with pytest.raises(UsageError, match="FTS5"):
            depot.mail.search("plan")
    # A process that has it catches up.
    assert found(depot, "plan") == [three]


def test_an_older_sqlite_keeps_the_text_in_the_index(depot: MailDepot) -> None:
    class Older:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            if "contentless_delete" in statement:
                raise sqlite3.OperationalError("unrecognized option")
            return self._connection.execute(statement, *parameters)

    one, two = depot.take(PLAIN), depot.take(OTHER)
    depot.perform(lambda connection: index_inbound_step(cast("Any", Older(connection)), 10), 1)
    assert found(depot, "plan") == [one]
    depot.mail.delete(one, permanently=True)
    assert found(depot, "bob") == [two]


def test_a_look_at_a_spool_has_its_mail(depot: MailDepot) -> None:
    one = depot.take(PLAIN)
    with SpoolView(depot.path, clock=depot.clock) as view:
        assert ids(view.mail.list()) == [one]
    with pytest.raises(NotRunning):
        _ = SpoolView(depot.inbox_reader).mail
