"""The store on SQLite: the conformance suite, and what is SQLite's own business."""

import json
import re
import shutil
import sqlite3 as stdlib_sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from sqlite_utils import Database

from postroom.errors import SpoolUnavailable
from postroom.inbound.values import (
    Arrival,
    Digest,
    Filing,
    LedgerKey,
    Marks,
    NewInbound,
    RemoteReport,
    ReportedRecipient,
)
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores import retention, sql
from postroom.stores.base import Action, Control, Followup, Planned
from postroom.stores.driver import connect, sqlite3
from postroom.stores.inbox_reader import SqliteInboxReader
from postroom.stores.schema import KNOWN, MIGRATIONS, migrate
from postroom.stores.sqlite import SqliteStore
from tests.conformance.store_gates import GateSuite
from tests.conformance.store_walks import StoreMachine
from tests.conformance.stores import (
    SettableClock,
    Spool,
    StoreSuite,
    accept,
    message,
    record,
    settle,
    settlement,
    transaction,
)


class SqliteSpool:
    """A database file and what is open on it. Durability against power loss is not what these tests are about."""

    def __init__(self, folder: Path) -> None:
        self.clock = SettableClock()
        self.linger: float | None = None
        self.path = folder / "spool.db"
        self._stores: list[SqliteStore] = []
        self._readers: list[SqliteInboxReader] = []

    def open(self, *, keep_content: bool = False) -> SqliteStore:
        store = SqliteStore(
            self.path, self.clock, synchronous="off", keep_content=keep_content, linger=self.linger
        )
        store.open()
        self._stores.append(store)
        return store

    def reader(self) -> SqliteInboxReader:
        reader = SqliteInboxReader(self.path)
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for store in self._stores:
            store.close(leave=False)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteSpool]:
    made = SqliteSpool(tmp_path)
    yield made
    made.close()


class TestSqliteStore(StoreSuite):
    """Runs the suite."""


class TestSqliteGates(GateSuite):
    """Runs the other suite."""


class SqliteMachine(StoreMachine):
    def make_spool(self) -> Spool:
        self.folder = Path(tempfile.mkdtemp())
        return SqliteSpool(self.folder)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# The schema


def database(path: Path) -> Database:
    return Database(connect(path), execute_plugins=False, recursive_triggers=False)


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    db = database(tmp_path / "spool.db")
    migrate(db)
    made = db.schema
    assert {"message", "content", "recipient", "attempt", "tally"} <= set(db.table_names())
    migrate(db)
    assert db.schema == made
    db.close()


def test_every_migration_is_known_by_name() -> None:
    db = Database(memory=True)
    assert {migration.name for migration in MIGRATIONS.pending(db)} == KNOWN
    db.close()


def test_an_empty_file_becomes_a_spool(spool: SqliteSpool) -> None:
    spool.path.touch()
    store = spool.open()
    one = message(store, spool.clock)
    accept(store, one)
    assert record(spool.reader(), one.key).state is State.QUEUED


def test_the_folder_is_made_and_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "spool.db"
    store = SqliteStore(path, SettableClock())
    store.open()
    assert path.stat().st_mode & 0o077 == 0
    store.close(leave=True)


def refused(path: Path) -> str:
    """Return why a store cannot be opened; it has nothing open afterwards (warnings are errors)."""
    with pytest.raises(SpoolUnavailable) as caught:
        SqliteStore(path, SettableClock()).open()
    return str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"From: nobody, and not a database at all\n" * 500)
    assert refused(path) == f"cannot open the spool {path}: file is not a database"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert f"cannot open the spool {tmp_path}: " in refused(tmp_path)


def test_a_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot open the spool" in refused(tmp_path / "file" / "spool.db")


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with stdlib_sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customer (name TEXT)")
    connection.close()
    assert "not a spool: it holds other tables (customer)" in refused(path)


def test_a_newer_spool_is_refused(spool: SqliteSpool) -> None:
    spool.open().close(leave=True)
    db = database(spool.path)
    db.conn.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('postroom', ?, '2099-01-01')",
        ("m999_carrier_pigeons",),
    )
    db.close()
    text = refused(spool.path)
    assert "made by a newer Postroom (it has m999_carrier_pigeons); upgrade this one" in text


def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = database(tmp_path / "spool.db")

    apply = MIGRATIONS.apply

    def apply_and_fail(db: Database) -> None:
        apply(db)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(MIGRATIONS, "apply", apply_and_fail)
    with pytest.raises(sqlite3.OperationalError):
        migrate(db)
    assert db.table_names() == []
    monkeypatch.undo()
    migrate(db)
    assert "message" in db.table_names()
    db.close()


def test_what_the_first_version_stored_still_expires(spool: SqliteSpool) -> None:
    db = database(spool.path)
    MIGRATIONS.apply(db, stop_before="m002_complete")
    now = spool.clock.time()
    for key, state, expires in (
        (1, State.ACCEPTED, now + 5),
        (2, State.QUEUED, now + 5),
        (3, State.QUEUED, None),
    ):
        db.conn.execute(
            "INSERT INTO message (id, sender, created, due, expires, priority, size, recipients, message_id)"
            " VALUES (?, '', ?, ?, ?, 0, 1, 1, ?)",
            (key, now, now, expires, f"<{key}@example.org>"),
        )
        db.conn.execute(
            "INSERT INTO recipient (message_id, idx, address_type, address, transport, state, priority, due)"
            " VALUES (?, 0, 'smtp', 'a@x', 'a', ?, 0, ?)",
            (key, state, now),
        )
    db.conn.commit()
    db.close()
    store = spool.open()
    assert store.next_expiry() == now + 5
    with transaction(store):
        gone, completed = store.sweep(now + 6, 10, held=False)
    assert {s.key for s in gone} == set(completed) == {1, 2}


OPEN_AT_ONCE = textwrap.dedent("""
    import sys
    from pathlib import Path
    from postroom.clock import SystemClock
    from postroom.stores.sqlite import SqliteStore

    store = SqliteStore(Path(sys.argv[1]), SystemClock())
    print("ready", flush=True)
    sys.stdin.readline()
    store.open()
    print(store.node, flush=True)
    sys.stdin.readline()
    store.close(leave=True)
""")


def test_several_processes_open_a_new_spool_at_once(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AT_ONCE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]  # fmt: skip
    nodes: set[int] = set()
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            nodes.add(int(process.stdout.readline()))
    finally:
        for process in processes:
            process.communicate("end\n", timeout=30)
    assert [process.returncode for process in processes] == [0] * 4
    assert len(nodes) == 4
    reader = SqliteInboxReader(path)
    assert reader.instances() == []
    reader.close()


# Query plans: what keeps a million queued recipients as fast as a thousand


def plan(store: SqliteStore, statement: str, parameters: Any = ()) -> list[str]:
    rows = store.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return [row[3] for row in rows]


@pytest.fixture
def busy(spool: SqliteSpool) -> SqliteStore:
    """A store whose tables hold some of everything, so that ANALYZE would not change the plans' nature."""
    store = spool.open()
    messages = [message(store, spool.clock, "a@x", ("b", "b@x")) for _ in range(50)]
    accept(store, *messages[:25], own=True)
    accept(store, *messages[25:])
    settle(store, *[settlement(one.key, 0, State.DELIVERED, spool.clock.time()) for one in messages[:10]])
    return store


PRIMARY_KEY = "SEARCH recipient USING PRIMARY KEY (message_id=? AND idx=?)"
READY = "SEARCH recipient USING INDEX recipient_ready (transport=? AND priority=?)"
OWNED = "SEARCH recipient USING INDEX recipient_owned (owner=?)"
FOLLOWUP = "SEARCH f USING PRIMARY KEY (message_id=? AND kind=?)"
EXPIRING = "SEARCH r USING INDEX recipient_expiring (expires>? AND expires<?)"
MESSAGE = "SEARCH m USING INTEGER PRIMARY KEY (rowid=?)"

PLANS: dict[str, tuple[str, Any, list[str]]] = {
    "settle": (sql.SETTLE, {"rows": "[]", "node": 0}, [PRIMARY_KEY]),
    "settle_plain": (sql.SETTLE_PLAIN, {"rows": "[]", "node": 0, "at": 1.0}, [PRIMARY_KEY]),
    "own": (sql.OWN, {"rows": "[]", "node": 0}, [PRIMARY_KEY]),
    "journal": (sql.JOURNAL, {"rows": "[]", "node": 0}, [PRIMARY_KEY]),
    "claim": (
        sql.CLAIM_ROWS,
        ("a", 0, 1.0, 9),
        [
            "SEARCH r USING INDEX recipient_ready (transport=? AND priority=? AND due<?)",
            "SEARCH m USING INTEGER PRIMARY KEY (rowid=?)",
        ],
    ),
    "next_due": (sql.NEXT_DUE, ("a", 0), [READY]),
    "completed": (sql.COMPLETED, ("[]",), ["SEARCH recipient USING PRIMARY KEY (message_id=?)"]),
    "claim_lane": (
        sql.CLAIM_LANE,
        ("a", 0, 1, 1.0, 9, 0),
        [
            "SEARCH r USING INDEX recipient_lane (transport=? AND priority=? AND lane=? AND due<?)",
            "SEARCH m USING INTEGER PRIMARY KEY (rowid=?)",
        ],
    ),
    "drop_content": (
        sql.DROP_CONTENT[0],
        ("[]",),
        ["SEARCH content USING INTEGER PRIMARY KEY (rowid=?)", FOLLOWUP],
    ),
    "drop_variant": (
        sql.DROP_CONTENT[1],
        ("[]",),
        ["SEARCH variant USING INDEX idx_variant_message_id (message_id=?)", FOLLOWUP],
    ),
    "expiring": (sql.EXPIRING, (1.0, 9), [EXPIRING, MESSAGE]),
    "next_expiry": (sql.NEXT_EXPIRY, (), ["SEARCH recipient USING INDEX recipient_expiring (expires>?)"]),
    "adopt_held": (sql.ADOPT_HELD, {"node": 0, "hold": "[]"}, [OWNED]),
    "adopt_doubtful": (sql.ADOPT_DOUBTFUL, {"node": 0, "hold": "[]"}, [OWNED]),
    "content": (sql.CONTENT, (1,), ["SEARCH content USING INTEGER PRIMARY KEY (rowid=?)"]),
    "purge": (
        retention.OLD,
        (0, 1, 9),
        [
            "SEARCH m USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
            "SEARCH r USING PRIMARY KEY (message_id=?)",
            FOLLOWUP,
        ],
    ),
}

LISTS = re.compile(r"SCAN (json_each|j) VIRTUAL TABLE|.*SUBQUERY \d+|CREATE BLOOM FILTER")


def _apart(steps: Sequence[str]) -> list[str]:
    """Return the steps without what SQLite's versions say differently of the same plan."""
    return [step.replace("COVERING ", "") for step in steps]


"""Steps that go through a statement's own list of values."""


def check_plan(store: SqliteStore, name: str) -> None:
    statement, parameters, expected = PLANS[name]
    steps = plan(store, statement, parameters)
    assert _apart([step for step in steps if not LISTS.match(step)]) == _apart(expected), steps


@pytest.mark.parametrize("name", PLANS)
def test_the_plans_of_the_hot_path(busy: SqliteStore, name: str) -> None:
    check_plan(busy, name)


def test_statistics_of_a_short_spool_do_not_outlive_it(busy: SqliteStore, spool: SqliteSpool) -> None:
    busy.connection.execute("ANALYZE")
    with pytest.raises(AssertionError):  # what this is about: SCAN recipient USING INDEX recipient_owned
        check_plan(busy, "settle")
    for _ in range(2):  # whoever opens the spool puts it right for itself and for those that open it later
        reopened = spool.open()
        for name in PLANS:
            check_plan(reopened, name)


class Trace:
    """The statements that a piece of code executes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.statements: list[str] = []

    def __enter__(self) -> list[str]:
        self._connection.set_trace_callback(self.statements.append)
        return self.statements

    def __exit__(self, *_: object) -> None:
        self._connection.set_trace_callback(None)


FULL_SCAN = re.compile(
    r"SCAN (?!json_each|j |CONSTANT|\d+ CONSTANT ROWS|\d+-ROW VALUES|instance|request|lease|sqlite_master"
    r"|pragma_module_list)"
)


def receive_and_handle(store: SqliteStore, now: float) -> None:
    """Do with incoming messages and the journal whatever can be done."""
    inbox = store.inbox
    reports = tuple(
        RemoteReport(kind="dsn", recipients=(said,), message_id="<1@x>")
        for said in (
            ReportedRecipient(action="failed", address="a@x"),
            ReportedRecipient(action="delayed", remote_id="id"),
        )
    )
    arriving, filed = (
        NewInbound(
            key=store.ids.next(), arrival=Arrival(content=b"x", keys=(LedgerKey("s", uid, now),)), receiver="r",
            received=now, digest=Digest(), folders=folders, reports=reports,
        )
        for uid, folders in (("1", ()), ("2", ("Inbox", "Copies")))
    )  # fmt: skip
    inbox.receive("r", [arriving, filed], now)
    inbox.claim(now, 10, 60.0)
    inbox.postpone(arriving.key, 1, now, "later", now)
    inbox.claim(now, 10, 60.0)
    inbox.file(arriving.key, 2, Filing(folders=("Inbox",), content=b"y"), now)
    inbox.mark([filed.key], Marks(seen=True, tags=("t",)), now)
    inbox.move([filed.key], "Trash", now - 10)
    inbox.set_progress("r", "s", "1")
    inbox.lease("r", now, 60.0)
    inbox.purge(now, 10, now)
    inbox.forget_keys("r", "s", ["2"])
    inbox.delete([arriving.key], now)
    store.events.write(inbox.news)
    store.events.advance("c", 1, None, now)
    store.events.advance("c", 2, 1, now)
    store.events.purge(now + 1, 10)
    store.events.drop_cursor("c")


def test_no_statement_of_the_store_scans_a_table(busy: SqliteStore, spool: SqliteSpool) -> None:
    """Whatever the methods execute, with or without a constant for a name in :mod:`postroom.stores.sql`."""
    other = spool.open()
    foreign = message(other, spool.clock)
    accept(other, foreign, own=True)
    other.close(leave=False)
    now = spool.clock.time()
    one = message(busy, spool.clock, "a@x", "b@x", idempotency_key="k")
    with Trace(busy.connection) as statements:
        accept(busy, one, own=True)
        settle(
            busy,
            settlement(one.key, 0, State.FAILED, now),
            settlement(one.key, 0, State.FAILED, now),
            settlement(one.key, 1, State.QUEUED, now),
        )
        with transaction(busy):
            busy.claim("a", now, 10)
            busy.next_due("a")
            busy.journal([(one.key, 1)], "a")
            busy.reclaim("a", [])
            busy.adopt([], now)
            first: tuple[Control, ...] = ("hold", "release", "retry", "cancel")
            for action in first:
                busy.control(Action(action), one.key, (), None, now)
            busy.purge(now, now, 10)
            busy.heartbeat(now)
        ordered = [message(busy, spool.clock, "a@x", ordering_key="k", followed=True) for _ in range(2)]
        late = message(
            busy, spool.clock, ("b", "b@x"), expires=now - 1, followups=(("sent", None),), followed=True
        )
        accept(busy, *ordered, late)
        with transaction(busy):
            busy.sweep(now, 10, held=True)
            busy.claim("a", now, 1, fair=True, blocked=["elsewhere.example"])
            busy.claim("a", now, 1, blocked=["elsewhere.example"])
            then: tuple[Control, ...] = ("cancel", "delete")
            for action in then:
                busy.control(Action(action), ordered[0].key, (), None, now)
            busy.replan(
                "a", lambda _address, _transport, _declined: Planned("b", "moved"), None, 10, now, aside=True
            )
            busy.take_requests(10)
            busy.followed_up(Followup("sent", late.key, now), [0], None)
        with transaction(busy):
            receive_and_handle(busy, now)
    explained = 0
    for statement in statements:
        if statement.split(None, 1)[0] not in {"SELECT", "UPDATE", "DELETE", "INSERT"}:
            continue
        explained += 1
        scans = [step for step in plan(busy, statement) if FULL_SCAN.match(step)]
        assert not scans, (statement, scans)
    assert explained > 20


def test_the_reader_reads_no_more_rows_for_a_deep_queue(spool: SqliteSpool) -> None:
    """Counted in steps of SQLite's virtual machine, which do not depend on the machine that runs the test."""
    store = spool.open()
    reader = spool.reader()
    now = spool.clock.time()

    def cost() -> tuple[int, ...]:
        return tuple(
            steps_of(reader, call)
            for call in (
                reader.tally,
                lambda: reader.oldest_due("a", now),
                lambda: reader.list_recipients(states=(State.HELD,), transport=None, after=None, limit=50),
                reader.instances,
            )
        )

    accept(store, message(store, spool.clock, hold=True), *[message(store, spool.clock) for _ in range(20)])
    shallow = cost()
    for _ in range(4):
        accept(store, *[message(store, spool.clock) for _ in range(2500)])
    deep = cost()
    assert all(later <= earlier + 20 for earlier, later in zip(shallow, deep, strict=True)), (shallow, deep)
    # The measure does see depth where there is any.
    assert steps_of(reader, reader.recount) > 10_000


def steps_of(reader: SqliteInboxReader, call: Any) -> int:
    """Return how many instructions of the virtual machine a call takes on the reader's idle connection."""
    reader.tally()
    (connection,) = cast("list[sqlite3.Connection]", reader.connections())
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1)
    try:
        call()
    finally:
        connection.set_progress_handler(None, 1)
    assert count > 0
    return count


# What comes from outside and does not fit into a database


@pytest.mark.parametrize("text", ["nul\0inside", "half \ud800 a pair"])
def test_text_that_utf8_or_sqlite_cannot_carry_harms_nobody(spool: SqliteSpool, text: str) -> None:
    """Such text is cleaned before it comes here; should it come all the same, it must not cost other messages."""
    store, reader = spool.open(), spool.reader()
    fine, odd = message(store, spool.clock), message(store, spool.clock, subject=text)
    try:
        accept(store, fine, odd)
    except (sqlite3.Error, UnicodeError):
        assert reader.message(fine.key) is None
        accept(store, fine)
    assert record(reader, fine.key).state is State.QUEUED


def test_settlements_are_one_statement_however_many(spool: SqliteSpool) -> None:
    store = spool.open()
    messages = [message(store, spool.clock) for _ in range(200)]
    accept(store, *messages, own=True)
    now = spool.clock.time()
    changes = [settlement(one.key, 0, State.DELIVERED, now, reply=Reply("ok"), only=True) for one in messages]
    with Trace(store.connection) as statements:
        settle(store, *changes)
    updates = [statement for statement in statements if "UPDATE recipient" in statement]
    assert len(updates) == 1
    assert json.loads(updates[0].split("json_each('")[1].split("')")[0])[0][0] == messages[0].key
