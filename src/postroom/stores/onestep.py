"""A whole group commit as one SQLite statement.

Each ``execute`` of Python's SQLite modules gives up the GIL about five times. In a process with many threads each time
may wake a thread in vain or cost a wait, so a commit of eight statements spends more on getting the GIL back than on
its work. Here a temporary view with an ``INSTEAD OF`` trigger takes everything that a busy spool usually commits (new
messages, plain settlements, the tally) as JSON and one blob: one ``execute``, a transaction by itself.

What is not plain takes the ordinary way, and so does a batch in which a settlement turns out not to apply: the trigger
aborts the statement, nothing is changed, and the caller begins again.
"""

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from postroom.lanes import destination_of, lane_of
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import NewMessage, Settlement
from postroom.stores.sql import AWAITED, PLAIN_SETTLEMENT

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3

__all__ = [
    "MAX_OCTETS",
    "OneStep",
    "is_plain",
    "is_plain_message",
    "message_row",
    "plain_row",
    "recipient_rows",
]

MAX_OCTETS = 8 * 1024 * 1024
"""Content up to which a batch goes this way, since it is copied once more."""

_SILENCE = Reply()
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_HELD = int(State.HELD)
_QUEUED = int(State.QUEUED)

_VIEW = """
CREATE TEMP VIEW IF NOT EXISTS exchange AS SELECT
    NULL AS node, NULL AS messages, NULL AS contents, NULL AS octets, NULL AS recipients, NULL AS keys,
    NULL AS digests, NULL AS settled,
    NULL AS expected, NULL AS done, NULL AS asked, NULL AS tally
"""

_TRIGGER = f"""
CREATE TEMP TRIGGER IF NOT EXISTS exchange_insert INSTEAD OF INSERT ON exchange BEGIN
    {PLAIN_SETTLEMENT.format(rows="NEW.settled", node="NEW.node")};
    SELECT RAISE(ABORT, 'a settlement does not apply') WHERE NEW.expected > 0 AND changes() <> NEW.expected;
    DELETE FROM content WHERE message_id IN (SELECT value FROM json_each(NEW.done));
    DELETE FROM content WHERE message_id IN (
        SELECT j.value FROM json_each(NEW.asked) AS j
        WHERE NOT EXISTS (SELECT 1 FROM recipient AS r WHERE r.message_id = j.value AND r.state < 10)
            AND NOT EXISTS ({AWAITED.format(key="j.value")})
    );
    INSERT INTO message (id, sender, created, due, expires, priority, size, smtputf8, eight_bit, recipients, report,
        subject, message_id, idempotency_key, tenant, ordering_key, options, followed)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, NULL,
        value ->> 16, 0
    FROM json_each(NEW.messages);
    INSERT INTO content (message_id, data)
    SELECT value ->> 0, substr(NEW.octets, value ->> 1, value ->> 2) FROM json_each(NEW.contents);
    INSERT INTO recipient (message_id, idx, address_type, address, transport, state, priority, due, owner, lane,
        expires, options)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10, value ->> 11
    FROM json_each(NEW.recipients);
    INSERT INTO idempotency (key, message_id, digest)
    SELECT value ->> 0, value ->> 1, substr(NEW.digests, value ->> 2, value ->> 3) FROM json_each(NEW.keys);
    INSERT INTO tally (kind, scope, label, n)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(NEW.tally) WHERE true
    ON CONFLICT (kind, scope, label) DO UPDATE SET n = n + excluded.n;
END
"""  # noqa: S608 - our own text

_EXCHANGE = "INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def is_plain(s: Settlement) -> bool:
    """Return whether a settlement is a final one without anything unusual, as nearly all are."""
    return (
        s.reply is not None
        and s.state.is_final
        and not s.crashes
        and not s.in_doubt
        and s.due is None
        and s.next_transport is None
        and s.remote_id is None
        and s.detail is None
        and not s.followed
    )


def plain_row(s: Settlement) -> tuple[Any, ...]:
    """Return what the settlement of a plain recipient consists of."""
    reply = s.reply or _SILENCE
    return (
        s.key, s.index, s.was, s.state, s.attempts, s.first_attempt, s.at, reply.code, reply.status, reply.text,
        reply.remote, reply.tls or None, s.duration,
    )  # fmt: skip


def message_row(m: NewMessage) -> tuple[Any, ...]:
    """Return the columns of ``message``."""
    return (
        m.key, m.sender, m.created, m.due, m.expires, m.priority, len(m.content), m.smtputf8, m.eight_bit,
        len(m.recipients), m.report, m.subject, m.message_id, m.idempotency_key, m.tenant or None, m.ordering_key,
        None if m.options is None else m.options.to_json(), m.followed,
    )  # fmt: skip


def is_plain_message(m: NewMessage) -> bool:
    """Return whether nothing but a message, its content and its recipients is to be stored."""
    return not (m.followed or m.followups)


def recipient_rows(
    m: NewMessage, owned: Container[tuple[int, int]], node: int, after: int | None = None
) -> list[tuple[Any, ...]]:
    """Return the columns of ``recipient`` for each recipient of a message."""
    usual = _HELD if m.hold else _QUEUED
    return [
        (
            m.key, index, address.type, address.value, transport, usual if state is None else state, m.priority, m.due,
            node if (m.key, index) in owned else None, lane_of(m.tenant, destination_of(address)), m.expires,
            None if options is None else options.to_json(), after,
        )
        for index, (address, transport, options, state, _, _) in enumerate(m.recipients)
    ]  # fmt: skip


def _places(parts: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where each part begins in all of them joined, counted from 1, and how long it is."""
    offset = 1
    for part in parts:
        size = len(part)
        yield offset, size
        offset += size


class OneStep:
    """The statement on one connection. Used by the store's thread.

    Args:
        connection: the writer's; gets a temporary view and trigger.
    """

    def __init__(self, connection: "sqlite3.Connection") -> None:
        self._connection = connection
        connection.execute(_VIEW)
        connection.execute(_TRIGGER)

    def exchange(  # noqa: PLR0913 - one value for each part of the statement
        self,
        *,
        node: int,
        messages: Sequence[NewMessage],
        owned: Container[tuple[int, int]],
        settlements: Sequence[Settlement],
        done: Sequence[int],
        asked: Sequence[int],
        tally: Sequence[tuple[str, str, str, int]],
    ) -> None:
        """Accept ``messages`` and apply plain ``settlements`` in a transaction of their own.

        Args:
            node: this instance.
            messages: new ones, their idempotency keys unused.
            owned: the recipients of them that are born owned.
            settlements: all plain.
            done: messages whose content is to go.
            asked: messages whose content is to go unless a recipient is pending.
            tally: what is added to the tally.

        Raises:
            sqlite3.IntegrityError: nothing was changed: a settlement does not apply, or a key is taken.
        """
        keyed = [m for m in messages if m.idempotency_key is not None]
        self._connection.execute(
            _EXCHANGE,
            (
                node,
                _encode([message_row(message) for message in messages]),
                _encode(
                    [
                        (m.key, *place)
                        for m, place in zip(messages, _places(m.content for m in messages), strict=True)
                    ]
                ),
                b"".join([message.content for message in messages]),
                _encode([row for message in messages for row in recipient_rows(message, owned, node)]),
                _encode(
                    [
                        (m.idempotency_key, m.key, *place)
                        for m, place in zip(keyed, _places(m.digest for m in keyed), strict=True)
                    ]
                ),
                b"".join([m.digest for m in keyed]),
                _encode([plain_row(settlement) for settlement in settlements]),
                len(settlements),
                _encode(done),
                _encode(asked),
                _encode(tally),
            ),
        )
