"""The journal read by number, and named cursors of which each event is committed once."""

import pickle
import threading
from collections.abc import Iterable
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.errors import CursorExpired, CursorMoved, SpoolUnavailable, UsageError
from postroom.events import (
    Event,
    InboundChanged,
    MessageEvent,
    NewMessage,
    RecipientDelivered,
    RecipientEvent,
    RecipientFailed,
)
from postroom.notifying.codec import UnknownEvent
from postroom.notifying.cursors import IDLE_STEP, EventCursor
from postroom.notifying.journal import PAGE, Recorded
from postroom.stores.inbox_base import JournalRow
from tests.support.journalling import FakeJournal, changed, new_message

PATIENCE = 10.0


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


def numbers(events: Iterable[Recorded]) -> list[int]:
    return [cursor for cursor, _ in events]


# Reading


def test_what_is_behind_a_cursor_comes_in_order(journal: FakeJournal) -> None:
    journal.write(*[new_message(number) for number in range(1, 6)])
    log = journal.log()
    assert list(log.events(3)) == [Recorded(4, new_message(4)), Recorded(5, new_message(5))]
    assert numbers(log.events()) == [1, 2, 3, 4, 5]
    assert numbers(log.events(0, limit=2)) == [1, 2]
    assert numbers(log.events(0, limit=0)) == []
    assert numbers(log.events(5)) == []
    assert (log.first, log.last) == (0, 5)


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40), st.none() | st.integers(0, 12))
def test_pages_of_any_size_are_one_list(which: list[bool], after: int, limit: int | None) -> None:
    journal = FakeJournal()
    for number, new in enumerate(which, 1):
        journal.write(new_message(number) if new else changed(number))
    after = min(after, len(which))
    log = journal.log()
    expected = [number for number, new in enumerate(which, 1) if new and number > after][:limit]
    assert numbers(log.events(after, kinds={NewMessage}, limit=limit)) == expected
    through, got, more = after, list[int](), True
    while more:
        page = log.page(through, frozenset({"NewMessage"}), 3)
        got += numbers(page.events)
        through, more = page.through, page.more
    assert got[:limit] == expected
    assert through == len(which)


def test_it_ends_with_what_was_there_at_the_call(journal: FakeJournal) -> None:
    journal.write(*[new_message(number) for number in range(PAGE + 1)])
    events = journal.log().events()
    journal.write(new_message(0))
    assert len(list(events)) == PAGE + 1


def test_classes_that_others_derive_from_mean_all_of_those(journal: FakeJournal) -> None:
    journal.write(new_message(1), RecipientFailed(2.0, "m", 0, None, "t", 1, None), changed(3))
    journal.write(RecipientDelivered(4.0, "m", 0, None, "t", 1, None))
    log = journal.log()
    assert numbers(log.events(kinds={RecipientEvent})) == [2, 4]
    assert numbers(log.events(kinds={MessageEvent})) == [1, 2, 3, 4]
    assert numbers(log.events(kinds={Event})) == [1, 2, 3, 4]
    assert numbers(log.events(kinds={NewMessage, InboundChanged})) == [1, 3]


def test_what_is_not_kept_cannot_be_asked_for(journal: FakeJournal) -> None:
    with pytest.raises(UsageError, match=r"RecipientDelivered is not kept .*durable_events") as caught:
        journal.log().events(kinds={RecipientDelivered})
    assert caught.value.field == "kinds"
    with pytest.raises(UsageError, match="keeps no events"):
        journal.log(frozenset()).events()


@pytest.mark.parametrize("kinds", [NewMessage, {int}, ["NewMessage"]])
def test_kinds_are_classes_of_events(journal: FakeJournal, kinds: object) -> None:
    with pytest.raises(UsageError, match=r"^kinds: "):
        journal.log().events(kinds=kinds)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the point


@pytest.mark.parametrize("after", [-1, True, "5", 1.0, None])
def test_a_cursor_is_a_number(journal: FakeJournal, after: object) -> None:
    with pytest.raises(UsageError, match=r"^after: "):
        journal.log().events(after)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the point


def test_a_cursor_that_was_never_given_is_of_another_spool(journal: FakeJournal) -> None:
    journal.write(new_message(1))
    with pytest.raises(UsageError, match="last cursor of this spool is 1"):
        journal.log().events(2)
    with pytest.raises(UsageError, match=r"^limit: "):
        journal.log().events(limit=-1)


def test_what_is_forgotten_is_said_at_once(journal: FakeJournal) -> None:
    journal.write(*[new_message(number) for number in range(1, 10)])
    journal.purge(4)
    log = journal.log()
    with pytest.raises(CursorExpired) as caught:
        log.events(3)
    assert (caught.value.after, caught.value.first) == (3, 4)
    assert numbers(log.events(caught.value.first)) == numbers(log.events(0)) == [5, 6, 7, 8, 9]
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (again.after, again.first, str(again)) == (3, 4, str(caught.value))


def test_what_is_forgotten_while_one_reads_is_noticed(journal: FakeJournal) -> None:
    journal.write(*[new_message(number) for number in range(1, 10)])
    journal.on_read = lambda: journal.purge(6)
    with pytest.raises(CursorExpired):
        journal.log().page(5)


def test_a_damaged_row_does_not_hide_those_behind_it(
    journal: FakeJournal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.rows += [JournalRow(1, 5.0, "NewMessage", "{"), JournalRow(2, 6.0, "FutureEvent", "{}")]
    journal.given = 2
    first, second = journal.log().events()
    assert first.event == UnknownEvent(5.0, "NewMessage", "{")
    assert second.event == UnknownEvent(6.0, "FutureEvent", "{}")
    assert "event 1 of the journal" in caplog.text


# Following


def test_following_sees_what_comes(journal: FakeJournal) -> None:
    journal.write(new_message(1))
    log = journal.log(interval=60.0)
    got: list[int] = []
    seen = threading.Event()

    def follow() -> None:
        for cursor, _ in islice(log.follow(kinds={NewMessage}), 3):
            got.append(cursor)
            seen.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert seen.wait(PATIENCE)
    journal.write(changed(2), new_message(3))
    journal.write(new_message(4))
    thread.join(PATIENCE)
    assert got == [1, 3, 4]


def test_following_finds_what_other_processes_wrote(journal: FakeJournal) -> None:
    events = journal.log(interval=0.01).follow()
    journal.write(new_message(1), ring=False)
    assert next(events).cursor == 1
    journal.write(new_message(2), ring=False)
    assert next(events).cursor == 2


def test_following_ends_when_told_or_when_it_is_quiet_or_over(journal: FakeJournal) -> None:
    log = journal.log(interval=0.01)
    journal.write(new_message(1))
    assert numbers(log.follow(timeout=0)) == [1]
    assert numbers(log.follow(timeout=0.02)) == [1]
    stop = threading.Event()
    events = log.follow(stop=stop)
    assert next(events).cursor == 1
    stop.set()
    assert list(events) == []
    events = log.follow()
    assert next(events).cursor == 1
    journal.running = False
    assert list(events) == []


def test_the_journal_s_own_trouble_is_raised_while_the_spooler_runs(journal: FakeJournal) -> None:
    def trouble() -> None:
        raise SpoolUnavailable("disk")

    events = journal.log().follow()
    journal.on_read = trouble
    with pytest.raises(SpoolUnavailable):
        next(events)


# Named cursors


def cursor(journal: FakeJournal, name: str = "crm", **more: object) -> EventCursor:
    return EventCursor(name, journal.log(interval=0.01), journal, **more)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - by the tests


def test_what_is_read_is_read_again_until_it_is_committed(journal: FakeJournal) -> None:
    journal.write(*[new_message(number) for number in range(1, 6)])
    mine = cursor(journal)
    assert mine.position is None
    assert numbers(mine.read(3)) == [1, 2, 3]
    assert numbers(cursor(journal).read(3)) == [1, 2, 3]
    assert mine.commit() == 3
    assert mine.position == 3
    assert numbers(mine.read(1)) == [4]
    assert numbers(mine.read()) == [4, 5]
    assert mine.commit(4) == 4
    assert mine.commit(5) == 5
    assert mine.commit() == 5
    assert mine.read() == []


def test_of_two_readers_one_commits(journal: FakeJournal) -> None:
    journal.write(new_message(1), new_message(2))
    one, other = cursor(journal), cursor(journal)
    one.read()
    other.read()
    other.commit()
    with pytest.raises(CursorMoved, match="'crm'"):
        one.commit()
    assert one.read() == []
    with pytest.raises(UsageError, match="nothing was read"):
        cursor(journal).commit()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["read", "commit", "write"])), max_size=40))
def test_each_event_is_committed_once(steps: list[tuple[int, str]]) -> None:
    journal = FakeJournal()
    readers = [cursor(journal) for _ in range(3)]
    held: dict[int, list[int]] = {}
    done: list[int] = []
    for who, what in [*steps, (0, "read"), (0, "commit")]:
        if what == "write":
            journal.write(new_message(0), changed(0))
        elif what == "read":
            held[who] = numbers(readers[who].read(3))
        elif held.get(who):
            try:
                readers[who].commit()
            except CursorMoved:
                pass
            else:
                done += held[who]
            held[who] = []
    assert done == list(range(1, len(done) + 1))
    assert journal.named.get("crm", 0) == len(done)


def test_a_batch_is_committed_at_its_end_but_not_if_it_fails(journal: FakeJournal) -> None:
    journal.write(new_message(1), new_message(2))
    mine = cursor(journal)
    with pytest.raises(ZeroDivisionError), mine.batch():
        raise ZeroDivisionError
    assert mine.position is None
    with mine.batch(1) as events:
        assert numbers(events) == [1]
        assert mine.position is None
    assert mine.position == 1
    with pytest.raises(CursorMoved), mine.batch():
        cursor(journal).reset(2)
    with mine.batch() as events:
        assert events == []
    assert mine.position == 2


def test_only_the_own_kinds_are_seen_and_the_others_do_not_make_it_expire(journal: FakeJournal) -> None:
    mine = cursor(journal, kinds={NewMessage})
    journal.write(changed(1), new_message(2), changed(3))
    with mine.batch() as events:
        assert numbers(events) == [2]
    assert mine.position == 3
    journal.write(changed(0))
    with mine.batch() as events:
        assert events == []
    assert mine.position == 3
    journal.write(*[changed(0)] * IDLE_STEP)
    with mine.batch() as events:
        assert events == []
    assert mine.position == journal.given
    journal.purge(journal.given - 1)
    assert mine.read() == []


def test_an_expired_cursor_goes_on_with_what_is_left_when_it_is_told_to(journal: FakeJournal) -> None:
    journal.write(*[new_message(number) for number in range(1, 10)])
    mine = cursor(journal)
    assert mine.reset(2) == 2
    journal.purge(5)
    with pytest.raises(CursorExpired) as caught:
        mine.read()
    assert mine.reset(caught.value.first) == 5
    assert numbers(mine.read()) == [6, 7, 8, 9]
    assert mine.reset() == 5
    with pytest.raises(UsageError, match="never given"):
        mine.reset(10)


def test_a_new_name_may_begin_now(journal: FakeJournal) -> None:
    journal.write(new_message(1))
    mine = cursor(journal, start="newest")
    assert mine.read() == []
    assert mine.position == 1
    journal.write(new_message(2))
    assert numbers(cursor(journal, start="newest").read()) == [2]


def test_a_reader_can_wait(journal: FakeJournal) -> None:
    mine = cursor(journal)
    assert mine.read(timeout=0.03) == []
    timer = threading.Timer(0.02, lambda: journal.write(new_message(1)))
    timer.start()
    assert numbers(mine.read(timeout=PATIENCE)) == [1]
    timer.join()


def test_a_name_can_be_forgotten(journal: FakeJournal) -> None:
    journal.write(new_message(1))
    mine = cursor(journal)
    mine.read()
    mine.commit()
    assert mine.forget()
    assert not mine.forget()
    assert mine.position is None
    assert numbers(mine.read()) == [1]


def test_commits_are_of_what_was_read(journal: FakeJournal) -> None:
    journal.write(new_message(1), new_message(2), new_message(3))
    mine = cursor(journal)
    mine.read(2)
    for wrong in (3, -1):
        with pytest.raises(UsageError, match=r"^cursor: "):
            mine.commit(wrong)
    mine.commit(2)
    with pytest.raises(UsageError, match="is not between"):
        mine.commit(1)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", 5])
def test_names_are_printable(journal: FakeJournal, name: object) -> None:
    with pytest.raises(UsageError, match=r"^name: "):
        cursor(journal, name)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the point


def test_limits_are_positive(journal: FakeJournal) -> None:
    with pytest.raises(UsageError, match=r"^limit: "):
        cursor(journal).read(0)


# The bell


def test_a_listener_that_raises_harms_nobody(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def broken() -> None:
        raise ZeroDivisionError

    end_broken = journal.bell.listen(broken)
    end = journal.bell.listen(lambda: heard.append(1))
    journal.bell.ring()
    assert heard == [1]
    assert "raised" in caplog.text
    end()
    end()
    end_broken()
    journal.bell.ring()
    assert heard == [1]
