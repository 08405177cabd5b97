"""Whatever waits, claims share it out fairly: priorities by their weights, tenants of a priority alike."""

import math
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.clock import ManualClock
from postroom.stores.base import Claimed
from postroom.stores.claiming import SHARES
from postroom.stores.sqlite import SqliteStore
from tests.conformance.stores import message, transaction

backlogs = st.dictionaries(
    st.tuples(st.sampled_from([1, 0, -1]), st.sampled_from(["", "big", "small", "few"])),
    st.tuples(st.integers(1, 40), st.sampled_from(["x", "y"]), st.sampled_from([0.0, -5.0, -9.0])),
    min_size=1,
)
"""By (priority, tenant): how many messages, where to, and for how long they have been due."""

Backlog = dict[tuple[int, str], tuple[int, str, float]]


@contextmanager
def spool() -> Generator[SqliteStore]:
    with TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "spool.db", ManualClock(), synchronous="off")
        store.open()
        yield store
        store.close(leave=True)


def claim(store: SqliteStore, limit: int, *blocked: str) -> list[Claimed]:
    with transaction(store):
        return store.claim("a", ManualClock().time(), limit, fair=True, blocked=blocked)[0]


def fill(store: SqliteStore, backlog: Backlog) -> None:
    clock = ManualClock()
    with transaction(store):
        for (priority, tenant), (count, domain, age) in backlog.items():
            store.accept(
                [
                    message(store, clock, f"{n}@{domain}", priority=priority, tenant=tenant, delay=age)
                    for n in range(count)
                ],
                (),
            )


@settings(max_examples=40, deadline=None)
@given(backlog=backlogs, limit=st.integers(1, 30), blocked=st.sampled_from([(), ("x",)]))
def test_a_claim_is_fair(backlog: Backlog, limit: int, blocked: tuple[str, ...]) -> None:
    with spool() as store:
        fill(store, backlog)
        left = Counter({place: n for place, (n, domain, _) in backlog.items() if domain not in blocked})
        while left:
            got = Counter((one.priority, one.tenant) for one in claim(store, limit, *blocked))
            assert got.total() == min(limit, left.total())
            total = sum(SHARES[priority] for priority in {priority for priority, _ in left})
            for level in {priority for priority, _ in left}:
                waiting = {place: n for place, n in left.items() if place[0] == level}
                taken = sum(got[place] for place in waiting)
                # Each lower priority may have been owed one from earlier claims.
                share = math.floor(limit * SHARES[level] / total) - (level + 1)
                assert taken >= min(sum(waiting.values()), share)
                for place, n in waiting.items():
                    assert got[place] >= min(n, taken // len(waiting)), "no tenant gets less than its part"
            left -= got
