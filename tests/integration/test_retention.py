"""Forgetting what is old, and looking at no more than that."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.ids import parse_id
from postroom.recipients import State
from tests.support.archiving import Depot


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    made = Depot(tmp_path)
    yield made
    made.close()


def purge(depot: Depot, *, before: float | None = None, content_before: float = 0.0, limit: int = 3) -> int:
    """Purge until the end of a round; return how many rows were looked at."""
    looked = 0
    while step := depot.perform(lambda _: depot.store.purge(before, content_before, limit), 1.0):
        looked += step
    return looked


def write(depot: Depot, statement: str, *parameters: Any) -> None:
    depot.perform(lambda connection: connection.execute(statement, parameters), 1.0)


def variants(depot: Depot) -> int:
    (count,) = depot.store.connection.execute("SELECT count(*) FROM variant").fetchone()
    return int(count)


def add_variant(depot: Depot, message_id: str) -> None:
    write(depot, "INSERT INTO variant (message_id, data) VALUES (?, x'00')", parse_id(message_id))


def test_content_goes_before_the_record(depot: Depot) -> None:
    old = depot.sent()
    depot.clock.advance(100)
    young = depot.sent()
    now = depot.clock.time()
    assert purge(depot, before=now - 500, content_before=now - 50) == 1
    assert depot.reader.content(parse_id(old)) is None
    assert depot.reader.content(parse_id(young)) is not None
    assert depot.reader.message(parse_id(old)) is not None
    purge(depot, before=now - 50, content_before=now - 50)
    assert depot.reader.message(parse_id(old)) is None
    assert depot.reader.message(parse_id(young)) is not None
    depot.ledger_is_exact()


def test_a_walk_for_content_does_not_visit_the_archive(depot: Depot) -> None:
    for _ in range(20):
        depot.sent()
    now = depot.clock.time()
    assert purge(depot, content_before=now) == 20
    for _ in range(3):
        depot.sent()
    depot.clock.advance(10)
    assert purge(depot, content_before=depot.clock.time()) == 3
    assert purge(depot, content_before=depot.clock.time()) == 0


def test_what_is_not_settled_keeps_its_content(depot: Depot) -> None:
    one = depot.accept("ann@example.org", "bob@example.org")
    depot.settle(one, State.DELIVERED)
    depot.clock.advance(100)
    now = depot.clock.time()
    purge(depot, before=now, content_before=now)
    assert depot.reader.content(one.key) is not None


def test_age_counts_from_completion(depot: Depot) -> None:
    one = depot.accept()
    depot.clock.advance(100)
    depot.settle(one, State.DELIVERED)
    now = depot.clock.time()
    purge(depot, before=now - 50, content_before=now - 50)
    assert depot.reader.content(one.key) is not None
    depot.clock.advance(60)
    purge(depot, before=depot.clock.time() - 50, content_before=depot.clock.time() - 50)
    assert depot.reader.message(one.key) is None


@pytest.mark.parametrize(("kind", "stays"), [("report", True), ("sent", True), ("delay", False)])
def test_what_somebody_still_needs_stays(depot: Depot, kind: str, stays: bool) -> None:
    one = parse_id(depot.sent())
    write(depot, "INSERT OR REPLACE INTO followup (message_id, kind, due) VALUES (?, ?, 1.0)", one, kind)
    depot.clock.advance(100)
    now = depot.clock.time()
    purge(depot, content_before=now)
    assert (depot.reader.content(one) is not None) is stays
    purge(depot, before=now, content_before=now)
    assert (depot.reader.message(one) is not None) is stays
    write(depot, "DELETE FROM followup")
    purge(depot, before=now, content_before=now)
    assert depot.reader.message(one) is None


def test_variants_go_with_their_content(depot: Depot) -> None:
    old = depot.sent()
    depot.clock.advance(100)
    young = depot.sent()
    for message_id in (old, young, young):
        add_variant(depot, message_id)
    purge(depot, content_before=depot.clock.time() - 50)
    assert variants(depot) == 2


def test_variants_go_with_their_message(depot: Depot) -> None:
    add_variant(depot, depot.sent())
    purge(depot, before=depot.clock.time())
    assert variants(depot) == 0


def test_variants_without_content_or_message_go(depot: Depot) -> None:
    kept, bare = depot.sent(), depot.sent()
    for message_id in (bare, kept, bare):
        add_variant(depot, message_id)
    write(depot, "INSERT INTO variant (message_id, data) VALUES (1, x'00')")
    write(depot, "DELETE FROM content WHERE message_id = ?", parse_id(bare))
    purge(depot, limit=1)
    assert variants(depot) == 1


def test_the_walks_begin_again(depot: Depot) -> None:
    for _ in range(2):
        depot.sent()
        depot.clock.advance(10)
        assert purge(depot, before=depot.clock.time()) == 1
    assert not list(depot.archive.sent())
