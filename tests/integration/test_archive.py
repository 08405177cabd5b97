"""Sent items: lists, search, export, and the index that is filled when there is time."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import parse_address
from postroom.archive import Archive
from postroom.clock import SystemClock
from postroom.errors import SpoolUnavailable, UnknownMessage, UsageError
from postroom.ids import format_id, parse_id
from postroom.mailfiles import from_mboxrd
from postroom.options import RecipientOptions
from postroom.recipients import State
from postroom.stores import archive as archive_store
from postroom.stores.base import NewRecipient
from postroom.stores.driver import connect
from postroom.stores.search import (
    LATE_SECONDS,
    has_index,
    index_state,
    index_step,
    match_expression,
    matching,
)
from tests.support.archiving import Depot


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    made = Depot(tmp_path)
    yield made
    made.close()


def ids(items: Any) -> list[str]:
    return [item.id for item in items]


# Lists


def test_what_is_settled_is_listed_the_newest_first(depot: Depot) -> None:
    first = depot.sent("ann@example.org", subject="Grüße")
    pending = depot.accept()
    half = depot.accept("ann@example.org", "bob@example.org")
    depot.settle(half, State.DELIVERED)
    last = depot.sent("bob@example.org", state=State.FAILED)
    assert ids(depot.archive.sent()) == [last, first]
    assert ids(depot.archive.sent(newest_first=False)) == [first, last]
    (found,) = depot.archive.sent(limit=1, newest_first=False)
    assert (found.subject, found.sender, found.complete, found.content_kept) == (
        "Grüße",
        "app@example.com",
        True,
        True,
    )
    assert found.states == {State.DELIVERED: 1}
    (recipient,) = found.recipients
    assert (str(recipient.address), recipient.state, recipient.transport) == (
        "smtp:ann@example.org",
        State.DELIVERED,
        "a",
    )
    assert recipient.reply is not None
    assert recipient.reply.tls == "TLSv1.3"
    depot.settle(pending, State.CANCELLED)
    assert len(ids(depot.archive.sent())) == 3


def test_lists_are_chosen_by_sender_tenant_time_and_state(depot: Depot) -> None:
    start = depot.clock.time()
    one = depot.sent(sender="one@example.com", tenant="t")
    two = depot.sent(sender="two@example.com", state=State.FAILED)
    nobody = depot.sent(sender="")

    def sent(**chosen: Any) -> list[str]:
        return ids(depot.archive.sent(newest_first=False, **chosen))

    assert sent(sender="one@example.com") == [one]
    assert sent(sender="Other <two@EXAMPLE.com>") == [two]
    assert sent(sender="") == [nobody]
    assert sent(tenant="t") == [one]
    assert sent(states={State.FAILED, State.EXPIRED}) == [two]
    assert sent(since=start + 1) == [two, nobody]
    assert sent(until=datetime.fromtimestamp(start + 1, UTC)) == [one]
    assert sent(since=start + 1, until=start + 2) == [two]


@pytest.mark.parametrize(
    "chosen",
    [
        {"since": datetime(2026, 1, 1)}, {"until": float("nan")}, {"since": True}, {"since": 1e15}, {"since": -1.0},  # noqa: DTZ001
        {"states": ()}, {"states": {State.QUEUED}}, {"sender": "no address"},
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused_at_once(depot: Depot, chosen: dict[str, Any]) -> None:
    (name,) = chosen
    with pytest.raises(UsageError) as refused:
        depot.archive.sent(**chosen)
    assert refused.value.field == name


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_join_without_a_seam(depot: Depot, monkeypatch: pytest.MonkeyPatch, newest_first: bool) -> None:
    monkeypatch.setattr("postroom.archive.PAGE", 3)
    every = [depot.sent() for _ in range(10)]
    expected = every[::-1] if newest_first else every
    for limit in (None, 1, 3, 4, 9, 10, 11):
        assert ids(depot.archive.sent(limit=limit, newest_first=newest_first)) == expected[:limit]


def test_a_list_shows_the_first_recipients_and_counts_the_others(depot: Depot) -> None:
    depot.sent(*[f"user{number}@example.org" for number in range(archive_store.SHOWN + 5)])
    (item,) = depot.archive.sent()
    assert item.recipient_count == archive_store.SHOWN + 5
    assert [recipient.index for recipient in item.recipients] == list(range(archive_store.SHOWN))


def test_a_page_costs_the_same_in_a_long_archive(depot: Depot) -> None:
    """Counted in steps of SQLite's virtual machine, which do not depend on the machine that runs the test."""

    def steps() -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        with depot.files.snapshot() as connection:
            connection.set_progress_handler(tick, 1)
            archive_store.read_page(connection, archive_store.Filter(), None, 3, newest_first=True)
            connection.set_progress_handler(None, 1)
        return count

    for _ in range(5):
        depot.sent()
    short = steps()
    for _ in range(200):
        depot.sent()
    assert steps() <= short * 1.2


def test_an_unreadable_spool_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnavailable, match="cannot read the spool"):
        list(Archive(tmp_path / "none.db").sent())


# Search


def test_words_of_subject_and_addresses_are_found(depot: Depot) -> None:
    invoice = depot.sent("ann.other@mail.example.org", subject="Invoice 4711 für Zürich")
    pending = format_id(depot.accept("sms:+15550100", subject="Your code").key)
    punycode = depot.sent("info@münchen.example", subject="Re: invoice")

    def found(query: str) -> list[str]:
        result = depot.archive.search(query)
        assert result.complete
        assert len(result) == len(result.items)
        return ids(result)

    assert found("invoice") == [punycode, invoice]
    assert found("INV zur") == [invoice]
    assert found("zürich 4711") == [invoice]
    assert found("ann.other@mail.example.org") == [invoice]
    assert found("ann") == found("other") == found("mail.example") == found("ann other") == [invoice]
    assert found("ann.other@mail.exam") == [invoice]
    assert found('"invoice 4711"') == [invoice]
    assert found('"4711 invoice"') == []
    assert found('"invo"') == []
    assert found("app@example.com code") == [pending]
    assert found("15550100") == [pending]
    assert found("münchen") == found("xn--mnchen") == [punycode]
    assert found("invoice nobody") == []
    assert ids(depot.archive.search("example", limit=2)) == [punycode, pending]


def test_former_and_alternative_addresses_are_found(depot: Depot) -> None:
    options = RecipientOptions(
        alternatives=(parse_address("sms:+15550199"),), original=parse_address("former@example.net")
    )
    one = depot.sent(NewRecipient(parse_address("now@example.org"), "a", options))
    assert ids(depot.archive.search("former")) == ids(depot.archive.search("15550199")) == [one]


@pytest.mark.parametrize("query", ["", "  ", '""', "*", "@ . -", '"', "\0", "^"])
def test_a_query_without_a_word_is_refused(depot: Depot, query: str) -> None:
    with pytest.raises(UsageError, match=r"query: .* has no word to look for"):
        depot.archive.search(query)


def test_searching_must_make_sense(depot: Depot) -> None:
    with pytest.raises(UsageError, match="limit: 0 is not positive"):
        depot.archive.search("x", limit=0)
    off = Archive(depot.path, writer=depot, clock=depot.clock, index=False)
    with pytest.raises(UsageError, match="is switched off"):
        off.search("x")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depot]:
    made = Depot(tmp_path_factory.mktemp("indexed"))
    made.sent("ann@example.org", subject="NEAR AND OR NOT a*b col: {x} (y)")
    made.archive.search("ann")
    yield made
    made.close()


@given(st.one_of(st.text(max_size=40), st.text("\"'*()^:{}+-ANDORTNE ab@.\\", max_size=25)))
def test_nothing_that_people_type_is_a_syntax_error(indexed: Depot, query: str) -> None:
    try:
        expression = match_expression(query)
    except UsageError:
        return
    with indexed.files.snapshot() as connection:
        assert len(matching(connection, expression, below=1 << 62, limit=5)) <= 1


@pytest.mark.parametrize("query", ["NEAR", "and", "NOT", "a*b", "col:", "{x}", "(y)", 'an"n', "ann AND or"])
def test_words_of_the_query_language_are_words(indexed: Depot, query: str) -> None:
    assert bool(indexed.archive.search(query)) is (query != 'an"n')


# The index


def step(depot: Depot, limit: int = 100) -> int:
    return depot.perform(lambda connection: index_step(connection, limit, depot.clock.time()), 1.0)


def read(depot: Depot, query: str) -> list[int]:
    with depot.files.snapshot() as connection:
        return matching(connection, match_expression(query), below=1 << 62, limit=100)


def test_the_index_is_made_by_the_first_step_and_filled_step_by_step(depot: Depot) -> None:
    assert step(depot) == 0
    assert not has_index(depot.store.connection)
    assert read(depot, "ann") == []
    for _ in range(5):
        depot.sent("ann@example.org")
    assert [step(depot, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert len(read(depot, "ann")) == 5
    assert index_state(depot.store.connection).complete
    depot.sent("ann@example.org")
    assert not index_state(depot.store.connection).complete
    assert len(read(depot, "ann")) == 5


def test_a_message_that_is_committed_late_is_found_in_the_second_round(depot: Depot) -> None:
    early = depot.store.ids.next()
    depot.clock.advance(1)
    depot.sent("ann@example.org")
    step(depot)
    late = depot.accept("ann@example.org")
    late = late._replace(key=early)
    depot.store.begin()
    depot.store.accept([late], ())
    depot.store.commit()
    assert early not in read(depot, "ann")
    step(depot)
    assert early not in read(depot, "ann")
    depot.clock.advance(LATE_SECONDS + 1)
    while step(depot, 1):
        pass
    assert early in read(depot, "ann")
    assert step(depot) == 0


def test_messages_are_indexed_once(depot: Depot) -> None:
    for _ in range(3):
        depot.sent("ann@example.org")
    while step(depot, 2):
        pass
    depot.clock.advance(LATE_SECONDS + 1)
    while step(depot, 2):
        pass
    assert len(read(depot, "ann")) == len(set(read(depot, "ann"))) == 3


def test_forgotten_messages_leave_the_index_with_all_their_words(depot: Depot) -> None:
    depot.sent("unique@example.org", subject="vanishing")
    kept = depot.sent("ann@example.org")
    while step(depot):
        pass
    depot.perform(lambda _: depot.store.purge(depot.clock.time() - 1.5, 0.0, 100), 1.0)
    assert read(depot, "example") == [parse_id(kept)]
    with connect(depot.path) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, searchable_fts, row)")
        words = {row[0] for row in connection.execute("SELECT term FROM temp.words")}
    connection.close()
    assert "ann" in words
    assert not {"unique", "vanishing"} & words


def test_a_search_says_how_far_the_index_goes(depot: Depot) -> None:
    first = depot.sent("ann@example.org")
    reading = Archive(depot.path, clock=depot.clock)
    found = reading.search("ann")
    assert (found.items, found.complete, found.indexed_until) == ((), False, None)
    step(depot)
    depot.sent("ann@example.org")
    found = reading.search("ann")
    assert ids(found) == [first]
    assert not found.complete
    assert found.indexed_until == depot.clock.time() - 2
    timeless = Archive(depot.path, writer=depot, clock=depot.clock).search("ann", timeout=0.0)
    assert not timeless.complete
    assert depot.archive.search("ann").complete


def test_a_store_that_does_not_answer_costs_the_newest_only(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.sent("ann@example.org")
    step(depot)
    depot.sent("ann@example.org")

    def unavailable(*_: object) -> int:
        raise SpoolUnavailable("the store is not running")

    monkeypatch.setattr(depot, "perform", unavailable)
    found = Archive(depot.path, writer=depot, clock=SystemClock()).search("ann")
    assert len(found) == 1
    assert not found.complete


# Export


def test_an_mbox_has_what_was_sent_in_order(depot: Depot, tmp_path: Path) -> None:
    contents = [f"Subject: {number}\r\n\r\nFrom me\r\n".encode() for number in range(3)]
    for content in contents:
        depot.sent(content=content)
    depot.accept()
    target = tmp_path / "sent.mbox"
    exported = depot.archive.export(to=target)
    assert (exported.messages, exported.octets, exported.skipped) == (3, sum(map(len, contents)), 0)
    entries = [b"From app" + part for part in target.read_bytes().split(b"From app")[1:]]
    assert [from_mboxrd(entry) for entry in entries] == contents


def test_named_messages_are_exported_settled_or_not(depot: Depot, tmp_path: Path) -> None:
    depot.sent()
    settled = depot.sent(content=b"A: 1\r\n\r\n")
    pending = format_id(depot.accept(content=b"A: 2\r\n\r\n").key)
    folder = tmp_path / "mails"
    exported = depot.archive.export([settled, pending], to=str(folder), format="eml")
    assert exported.messages == 2
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == {
        f"{settled}.eml": b"A: 1\r\n\r\n", f"{pending}.eml": b"A: 2\r\n\r\n",
    }  # fmt: skip
    file = io.BytesIO()
    assert depot.archive.export(settled, to=file, format="eml").messages == 1
    assert file.getvalue() == b"A: 1\r\n\r\n"


def test_what_is_gone_is_counted(tmp_path: Path) -> None:
    depot = Depot(tmp_path, keep_content=False)
    try:
        gone = [depot.sent() for _ in range(25)]
        file = io.BytesIO()
        exported = depot.archive.export(to=file)
        assert (exported.messages, exported.skipped, exported.sample) == (0, 25, tuple(gone[:20]))
        assert file.getvalue() == b""
    finally:
        depot.close()


def test_an_export_is_whole_or_not_there(depot: Depot, tmp_path: Path) -> None:
    one = depot.sent()
    target = tmp_path / "out" / "x.mbox"
    target.parent.mkdir()
    with pytest.raises(UnknownMessage):
        depot.archive.export([one, "0" * 13], to=target)
    with pytest.raises(UnknownMessage):
        depot.archive.export(["nonsense"], to=target)
    assert not list(target.parent.iterdir())
    depot.archive.export([one], to=target)
    with pytest.raises(UsageError, match="there is a file"):
        depot.archive.export([one], to=target)
    depot.archive.export([one], to=target, overwrite=True)
