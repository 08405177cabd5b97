"""How far the taking from an IMAP folder came: what is remembered, what is found again, what goes together."""

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from postroom.receivers.imap_progress import (
    Carried,
    Described,
    Progress,
    batches,
    chunks,
    digest_of,
    entry_of,
    read_entries,
    source_of,
)
from postroom.receivers.imap_suspects import FIRST_SECONDS, LONGEST_SECONDS, Suspects

numbers = st.integers(0, 2**32 - 1)
progresses = st.builds(
    Progress,
    uidvalidity=numbers,
    taken=numbers,
    tidied=numbers,
    since=st.floats(0, 1e10),
    old=numbers,
    before=st.lists(numbers, max_size=3).map(tuple),
)


@given(progresses)
def test_progress_is_read_as_it_was_written(progress: Progress) -> None:
    assert Progress.read(progress.written()) == progress


@given(progresses, numbers, numbers)
def test_new_numbers_begin_at_the_beginning_and_remember_the_old(
    progress: Progress, uidvalidity: int, last: int
) -> None:
    new = progress.renumbered(uidvalidity, last)
    assert (new.uidvalidity, new.taken, new.tidied, new.old) == (uidvalidity, 0, 0, last)
    assert new.before == (*progress.before, progress.uidvalidity)
    assert new.since == progress.since


@given(st.dictionaries(st.integers(1, 10_000), st.binary(max_size=3)))
def test_entries_are_found_by_their_uids(contents: dict[int, bytes]) -> None:
    entries = [entry_of(uid, digest_of(content)) for uid, content in contents.items()]
    assert read_entries(entries) == dict(zip(contents, entries, strict=True))


@given(
    st.lists(st.sampled_from("abc"), max_size=8),
    st.lists(st.sampled_from("abc"), max_size=8),
    st.lists(st.sampled_from("abcd"), max_size=12),
)
def test_each_copy_is_found_again_once(old: list[str], again: list[str], asked: list[str]) -> None:
    # Half of the old entries in each of two earlier numberings.
    earlier = {
        source_of("INBOX", half): [entry_of(uid, digest) for uid, digest in enumerate(old) if uid % 2 == half]
        for half in (0, 1)
    }
    carried = Carried(earlier, [entry_of(uid, digest) for uid, digest in enumerate(again, 100)])
    found = [key for digest in asked for key in carried.find(digest)]
    left = Counter(old) - Counter(again)
    assert Counter(key.uid.partition(":")[2] for key in found) == left & Counter(asked)
    assert len(set(found)) == len(found)
    for key in found:
        assert key.uid in earlier[key.source]
        assert key.expires is None


sizes = st.lists(st.integers(0, 100), max_size=30)


@given(sizes, st.integers(1, 150), st.integers(1, 7))
def test_batches_keep_the_order_and_the_bounds(octets: list[int], most: int, count: int) -> None:
    copies = [Described(uid, size, None, seen=False) for uid, size in enumerate(octets, 1)]
    cut = list(batches(copies, most, count))
    assert [copy for batch in cut for copy in batch] == copies
    for batch in cut:
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or sum(copy.size for copy in batch) <= most
    for batch, following in itertools.pairwise(cut):
        full = len(batch) == count or sum(copy.size for copy in batch) + following[0].size > most
        assert full, "a batch ends only when nothing more goes in"


@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_chunks_are_all_of_it(uids: list[int], count: int) -> None:
    cut = list(chunks(uids, count))
    assert [uid for chunk in cut for uid in chunk] == uids
    assert all(1 <= len(chunk) <= count for chunk in cut)


class TestSuspects:
    def test_a_break_among_many_makes_careful_and_rests_nobody(self) -> None:
        suspects = Suspects(lambda: 0.0)
        suspects.broke("INBOX;1", [1, 2])
        assert suspects.careful("INBOX;1")
        assert not suspects.careful("Lists;1")
        assert not suspects.resting("INBOX;1", 1)
        suspects.passed("INBOX;1")
        assert not suspects.careful("INBOX;1")

    def test_who_breaks_it_twice_rests_longer_and_longer(self) -> None:
        now = 1000.0
        suspects = Suspects(lambda: now)
        suspects.broke("INBOX;1", [7])
        assert not suspects.resting("INBOX;1", 7), "once may be the network's fault"
        pauses: list[float] = []
        for _ in range(12):
            suspects.broke("INBOX;1", [7])
            begin = now
            while suspects.resting("INBOX;1", 7):
                now += 15.0
            pauses.append(now - begin)
        assert pauses[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
        assert pauses[-1] == LONGEST_SECONDS
        suspects.came("INBOX;1", 7)
        suspects.broke("INBOX;1", [7])
        assert not suspects.resting("INBOX;1", 7)
