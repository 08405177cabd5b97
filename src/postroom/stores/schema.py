"""The tables, made and migrated by sqlite-utils.

``message`` is written once. ``content`` is apart, so that lists and claims never touch the octets and removing them is
one small delete. ``recipient`` is the row that lives: inserted owned by the accepting process, settled once. Both of
its indices are partial: what is owned is not in ``recipient_ready``, what is unowned is not in ``recipient_owned``, and
what is final is in neither, so their size follows the work, not the archive.
"""

from typing import cast

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

from postroom.errors import SpoolUnavailable

__all__ = ["KNOWN", "MIGRATIONS", "migrate"]

MIGRATIONS = Migrations("postroom")


def _table(db: Database, name: str) -> Table:
    return cast("Table", db[name])


@MIGRATIONS()
def m001_spool(db: Database) -> None:
    """Create the first version of the spool."""
    _table(db, "message").create(
        {
            "id": int,
            "sender": str,
            "created": float,
            "due": float,
            "expires": float,
            "priority": int,
            "size": int,
            "smtputf8": int,
            "eight_bit": int,
            "recipients": int,
            "report": str,
            "subject": str,
            "message_id": str,
            "idempotency_key": str,
        },
        pk="id",
        not_null={"sender", "created", "due", "priority", "size", "recipients"},
    )
    _table(db, "content").create({"message_id": int, "data": bytes}, pk="message_id", not_null={"data"})
    db.conn.execute(
        """
        CREATE TABLE recipient (
            message_id INTEGER NOT NULL,
            idx INTEGER NOT NULL,
            address_type TEXT NOT NULL,
            address TEXT NOT NULL,
            transport TEXT NOT NULL,
            state INTEGER NOT NULL,
            priority INTEGER NOT NULL,
            due REAL,
            owner INTEGER,
            attempts INTEGER NOT NULL DEFAULT 0,
            first_attempt REAL,
            changed REAL,
            crashes INTEGER NOT NULL DEFAULT 0,
            in_doubt INTEGER NOT NULL DEFAULT 0,
            reply_code INTEGER,
            reply_status TEXT,
            reply_text TEXT,
            remote TEXT,
            remote_id TEXT,
            detail TEXT,
            PRIMARY KEY (message_id, idx)
        ) WITHOUT ROWID
        """
    )
    # Due work that nobody owns, in the order in which it is claimed.
    db.conn.execute(
        "CREATE INDEX recipient_ready ON recipient (transport, priority, due) WHERE state = 0 AND owner IS NULL"
    )
    db.conn.execute("CREATE INDEX recipient_owned ON recipient (owner) WHERE owner IS NOT NULL")
    # Pending recipients that are neither queued nor final, for lists and counts.
    db.conn.execute("CREATE INDEX recipient_parked ON recipient (state) WHERE state BETWEEN 1 AND 9")
    _table(db, "attempt").create(
        {
            "id": int,
            "message_id": int,
            "idx": int,
            "at": float,
            "transport": str,
            "outcome": str,
            "code": int,
            "status": str,
            "text": str,
            "remote": str,
            "duration": float,
            "detail": str,
        },
        pk="id",
        not_null={"message_id", "idx", "at", "transport", "outcome"},
    )
    _table(db, "attempt").create_index(["message_id", "idx"])
    db.conn.execute(
        """
        CREATE TABLE tally (
            kind TEXT NOT NULL,
            scope TEXT NOT NULL,
            label TEXT NOT NULL,
            n INTEGER NOT NULL,
            PRIMARY KEY (kind, scope, label)
        ) WITHOUT ROWID
        """
    )
    db.conn.execute(
        """
        CREATE TABLE idempotency (
            key TEXT PRIMARY KEY NOT NULL,
            message_id INTEGER NOT NULL,
            digest BLOB NOT NULL
        ) WITHOUT ROWID
        """
    )
    _table(db, "instance").create(
        {"node": int, "pid": int, "host": str, "started": float, "heartbeat": float},
        pk="node",
        not_null={"pid", "host", "started", "heartbeat"},
    )
    db.conn.execute(
        """
        CREATE TABLE standing (
            node INTEGER NOT NULL,
            transport TEXT NOT NULL,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            since REAL NOT NULL,
            until REAL,
            PRIMARY KEY (node, transport)
        ) WITHOUT ROWID
        """
    )
    _table(db, "cursor").create({"name": str, "position": int}, pk="name")


@MIGRATIONS()
def m002_complete(db: Database) -> None:
    """Everything that an outbound message can go through.

    ``recipient_ready`` leaves out those that wait for their predecessor. ``recipient_lane`` has the same rows by tenant
    and destination (:mod:`postroom.lanes`), for claims that must be fair. Both hold only what waits in the spool
    unowned, so the happy path never touches them.
    """
    message = _table(db, "message")
    for name, kind in (("tenant", str), ("ordering_key", str), ("options", str), ("followed", int)):
        message.add_column(name, kind)
    for column in (
        "lane INTEGER NOT NULL DEFAULT 0", "after INTEGER", "expires REAL", "variant INTEGER", "options TEXT",
        "tls TEXT", "duration REAL", "reported INTEGER NOT NULL DEFAULT 0",
    ):  # fmt: skip
        db.conn.execute(f"ALTER TABLE recipient ADD COLUMN {column}")
    for column, kind in (("tls", str), ("address", str)):
        _table(db, "attempt").add_column(column, kind)
    db.conn.execute(
        "UPDATE recipient SET expires = (SELECT m.expires FROM message AS m WHERE m.id = recipient.message_id)"
        " WHERE state < 10"
    )
    db.conn.execute("DROP INDEX recipient_ready")
    ready = "WHERE state = 0 AND owner IS NULL AND after IS NULL"
    db.conn.execute(f"CREATE INDEX recipient_ready ON recipient (transport, priority, due) {ready}")
    db.conn.execute(f"CREATE INDEX recipient_lane ON recipient (transport, priority, lane, due) {ready}")
    db.conn.execute("CREATE INDEX recipient_after ON recipient (after) WHERE after IS NOT NULL")
    db.conn.execute(
        "CREATE INDEX recipient_expiring ON recipient (expires) WHERE expires IS NOT NULL AND state IN (0, 1, 2)"
    )
    _table(db, "variant").create(
        {"id": int, "message_id": int, "data": bytes}, pk="id", not_null={"message_id", "data"}
    )
    _table(db, "variant").create_index(["message_id"])
    # The last message that was accepted under each ordering key.
    db.conn.execute(
        "CREATE TABLE ordering (key TEXT PRIMARY KEY NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID"
    )
    db.conn.execute(
        """
        CREATE TABLE followup (
            message_id INTEGER NOT NULL,
            kind TEXT NOT NULL,
            due REAL,
            PRIMARY KEY (message_id, kind)
        ) WITHOUT ROWID
        """
    )
    db.conn.execute("CREATE INDEX followup_due ON followup (due) WHERE due IS NOT NULL")
    db.conn.execute(
        """
        CREATE TABLE destination (
            transport TEXT NOT NULL,
            destination TEXT NOT NULL,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            since REAL NOT NULL,
            until REAL,
            failures INTEGER NOT NULL,
            allowed REAL NOT NULL,
            PRIMARY KEY (transport, destination)
        ) WITHOUT ROWID
        """
    )
    # Standing orders of operators, pauses among them.
    _table(db, "standing_order").create(
        {
            "id": int, "action": str, "selection": str, "argument": str, "reason": str, "operator": str,
            "created": float, "expires": float,
        },
        pk="id",
        not_null={"action", "selection", "created"},
    )  # fmt: skip
    # What operators did, for the record.
    _table(db, "operation").create(
        {
            "id": int, "at": float, "operator": str, "action": str, "selection": str, "argument": str, "reason": str,
            "changed": int, "finished": float,
        },
        pk="id",
        not_null={"at", "action", "selection"},
    )  # fmt: skip
    # What operators of other processes want done with recipients that this instance owns.
    db.conn.execute(
        """
        CREATE TABLE request (
            id INTEGER PRIMARY KEY,
            node INTEGER NOT NULL,
            at REAL NOT NULL,
            action TEXT NOT NULL,
            message_id INTEGER NOT NULL,
            indices TEXT,
            argument TEXT,
            operator TEXT,
            reason TEXT
        )
        """
    )
    db.conn.execute("CREATE INDEX request_node ON request (node)")
    # Small facts about the spool: the routes it was planned for, how far the search index has come.
    db.conn.execute("CREATE TABLE fact (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID")


@MIGRATIONS()
def m003_receive(db: Database) -> None:
    """Incoming messages in folders, the ledger of what was taken, reports about ours, and the journal of events."""
    # A partial index, since most messages that leave at once are relayed and never accepted with an id.
    db.conn.execute("CREATE INDEX recipient_remote ON recipient (remote_id) WHERE remote_id IS NOT NULL")
    # Message-IDs of our own making hold the number, so only others are looked for (stores/remote_reports.py). Those
    # that Python makes begin with the time, which keeps the insertions at the end of the index.
    db.conn.execute(
        "CREATE INDEX message_foreign ON message (message_id) WHERE substr(message_id, 15, 1) <> '@'"
    )
    db.conn.execute(
        "CREATE TABLE folder (name TEXT PRIMARY KEY NOT NULL, created REAL NOT NULL) WITHOUT ROWID"
    )
    db.conn.execute(
        """
        CREATE TABLE inbound (
            id INTEGER PRIMARY KEY,
            folder TEXT NOT NULL,
            received REAL NOT NULL,
            receiver TEXT NOT NULL,
            sender TEXT,
            recipients TEXT NOT NULL,
            remote TEXT NOT NULL,
            size INTEGER NOT NULL,
            subject TEXT NOT NULL,
            author TEXT NOT NULL,
            message_id TEXT NOT NULL,
            message_class TEXT NOT NULL,
            digest TEXT NOT NULL,
            seen INTEGER NOT NULL DEFAULT 0,
            answered INTEGER NOT NULL DEFAULT 0,
            flagged INTEGER NOT NULL DEFAULT 0,
            tags TEXT,
            matched INTEGER NOT NULL DEFAULT 0,
            notified TEXT NOT NULL DEFAULT '',
            attempts INTEGER NOT NULL DEFAULT 0,
            due REAL,
            owner INTEGER,
            error TEXT NOT NULL DEFAULT '',
            changed REAL NOT NULL
        )
        """
    )
    db.conn.execute("CREATE INDEX inbound_folder ON inbound (folder, id)")
    db.conn.execute("CREATE INDEX inbound_unseen ON inbound (folder) WHERE seen = 0")
    db.conn.execute("CREATE INDEX inbound_due ON inbound (due) WHERE due IS NOT NULL")
    db.conn.execute("CREATE INDEX inbound_message_id ON inbound (message_id)")
    _table(db, "inbound_content").create(
        {"inbound_id": int, "data": bytes}, pk="inbound_id", not_null={"data"}
    )
    # The arrival and what was found out about it, for those that postprocessors have not seen yet.
    _table(db, "arriving").create({"inbound_id": int, "data": str}, pk="inbound_id", not_null={"data"})
    # What was taken from where, so that nothing is taken twice.
    db.conn.execute(
        """
        CREATE TABLE ledger (
            receiver TEXT NOT NULL,
            source TEXT NOT NULL,
            uid TEXT NOT NULL,
            inbound_id INTEGER NOT NULL,
            expires REAL,
            PRIMARY KEY (receiver, source, uid)
        ) WITHOUT ROWID
        """
    )
    db.conn.execute("CREATE INDEX ledger_expiring ON ledger (expires) WHERE expires IS NOT NULL")
    db.conn.execute(
        "CREATE TABLE progress (receiver TEXT NOT NULL, source TEXT NOT NULL, value TEXT NOT NULL,"
        " PRIMARY KEY (receiver, source)) WITHOUT ROWID"
    )
    # Reports about recipients whose own outcome is not on the record yet.
    db.conn.execute(
        "CREATE TABLE early_report (id INTEGER PRIMARY KEY, message_id INTEGER NOT NULL, idx INTEGER NOT NULL,"
        " at REAL NOT NULL, data TEXT NOT NULL)"
    )
    # Which instance runs a receiver that only one may run.
    db.conn.execute(
        "CREATE TABLE lease (name TEXT PRIMARY KEY NOT NULL, node INTEGER NOT NULL, until REAL NOT NULL)"
        " WITHOUT ROWID"
    )
    # AUTOINCREMENT: a number is never used again, so a cursor means the same for ever.
    db.conn.execute(
        """
        CREATE TABLE event (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL
        )
        """
    )
    db.conn.execute("CREATE INDEX event_at ON event (at)")
    db.conn.execute(
        "CREATE TABLE event_cursor (name TEXT PRIMARY KEY NOT NULL, position INTEGER NOT NULL, at REAL NOT NULL)"
        " WITHOUT ROWID"
    )


KNOWN = frozenset({m001_spool.__name__, m002_complete.__name__, m003_receive.__name__})
"""The migrations that this program has; a spool with others comes from a newer one."""


def migrate(db: Database) -> None:
    """Bring the spool's tables to the version of this program. Safe when several processes start at once.

    Raises:
        SpoolUnavailable: the tables are those of a newer Postroom, or of something else.
    """
    if not _check(db):
        return
    # Of processes that start at once the first makes the tables, and the others find them made.
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        if _check(db):
            MIGRATIONS.apply(db)
        db.conn.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def _check(db: Database) -> bool:
    """Return whether there is anything to migrate."""
    applied = {migration.name for migration in MIGRATIONS.applied(db)}
    if newer := sorted(applied - KNOWN):
        raise SpoolUnavailable(
            f"the spool was made by a newer Postroom (it has {', '.join(newer)}); upgrade this one"
        )
    if not applied and (tables := db.table_names()):
        raise SpoolUnavailable(
            f"the database is not a spool: it holds other tables ({', '.join(tables[:3])})"
        )
    return not applied >= KNOWN
