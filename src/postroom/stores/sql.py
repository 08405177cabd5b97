"""Every statement of the hot path, named and described.

A statement that takes a list takes it as one JSON parameter: each ``sqlite3_step`` gives up the GIL, and in a process
with many threads getting it back costs more than the work, so fewer steps are faster than simpler steps.
"""

# ruff: noqa: S608 - every statement is put together from our own text alone

from postroom.lanes import LANE_MASK

__all__ = [
    "ADD_TALLY",
    "ADOPT_DOUBTFUL",
    "ADOPT_HELD",
    "CLAIM_ROWS",
    "COMPLETED",
    "CONTENT",
    "DROP_CONTENT",
    "INSERT_ATTEMPT",
    "INSERT_CONTENT",
    "INSERT_MESSAGE",
    "INSERT_RECIPIENT",
    "JOURNAL",
    "NEXT_DUE",
    "OWN",
    "PLAIN_SETTLEMENT",
    "SETTLE",
    "SETTLE_PLAIN",
    "TALLY_CONFLICT",
]

INSERT_MESSAGE = (
    "INSERT INTO message (id, sender, created, due, expires, priority, size, smtputf8, eight_bit, recipients, report,"
    " subject, message_id, idempotency_key, tenant, ordering_key, options, followed) VALUES "
)
"""Followed by as many rows as are inserted at once."""

INSERT_CONTENT = "INSERT INTO content (message_id, data) VALUES "

INSERT_RECIPIENT = (
    "INSERT INTO recipient (message_id, idx, address_type, address, transport, state, priority, due, owner, lane,"
    " expires, options, after) VALUES "
)

INSERT_ATTEMPT = (
    "INSERT INTO attempt (message_id, idx, at, transport, outcome, code, status, text, remote, duration, detail, tls,"
    " address)"
    " VALUES "
)

SETTLE = """
UPDATE recipient SET
    state = j.state, due = j.due, owner = NULL, transport = coalesce(j.next_transport, recipient.transport),
    attempts = j.attempts, first_attempt = j.first_attempt, changed = j.at,
    crashes = j.crashes, in_doubt = j.in_doubt,
    reply_code = iif(j.silent, recipient.reply_code, j.code),
    reply_status = iif(j.silent, recipient.reply_status, j.status),
    reply_text = iif(j.silent, recipient.reply_text, j.text), remote = iif(j.silent, recipient.remote, j.remote),
    detail = iif(j.silent, recipient.detail, j.detail), tls = iif(j.silent, recipient.tls, j.tls),
    duration = iif(j.silent, recipient.duration, j.duration), remote_id = j.remote_id,
    address_type = coalesce(j.address_type, recipient.address_type),
    address = coalesce(j.address, recipient.address), options = coalesce(j.options, recipient.options),
    lane = coalesce(j.lane, recipient.lane),
    variant = CASE
        WHEN coalesce(j.next_transport, recipient.transport) = 'preprocess' THEN NULL
        WHEN coalesce(j.address_type, recipient.address_type) <> recipient.address_type THEN NULL
        ELSE coalesce(j.variant, recipient.variant)
    END,
    reported = max(recipient.reported, j.reported)
FROM (
    SELECT value ->> 0 AS message_id, value ->> 1 AS idx, value ->> 2 AS was, value ->> 3 AS state, value ->> 4 AS due,
        value ->> 5 AS next_transport, value ->> 6 AS attempts, value ->> 7 AS first_attempt, value ->> 8 AS at,
        value ->> 9 AS crashes, value ->> 10 AS in_doubt, value ->> 11 AS code, value ->> 12 AS status,
        value ->> 13 AS text, value ->> 14 AS remote, value ->> 15 AS remote_id, value ->> 16 AS detail,
        value ->> 17 AS tls, value ->> 18 AS duration, value ->> 19 AS address_type, value ->> 20 AS address,
        value ->> 21 AS options, value ->> 22 AS lane, value ->> 23 AS variant, value ->> 24 AS reported,
        value ->> 25 AS silent
    FROM json_each(:rows)
) AS j
WHERE recipient.message_id = j.message_id AND recipient.idx = j.idx
    AND +recipient.owner = :node AND +recipient.state = j.was
"""
"""Change recipients that we own and that are in the state we believe.

A ``silent`` change leaves what was said last. The unary plus keeps the planner on the primary
key: with the index on ``owner`` each row of the list would walk through all that we own."""

PLAIN_SETTLEMENT = """
UPDATE recipient SET
    state = j.state, due = NULL, owner = NULL, attempts = j.attempts, first_attempt = j.first_attempt, changed = j.at,
    crashes = 0, in_doubt = 0, reply_code = j.code, reply_status = j.status, reply_text = j.text, remote = j.remote,
    remote_id = NULL, detail = NULL, tls = j.tls, duration = j.duration
FROM (
    SELECT value ->> 0 AS message_id, value ->> 1 AS idx, value ->> 2 AS was, value ->> 3 AS state,
        value ->> 4 AS attempts, value ->> 5 AS first_attempt, value ->> 6 AS at, value ->> 7 AS code,
        value ->> 8 AS status, value ->> 9 AS text, value ->> 10 AS remote, value ->> 11 AS tls,
        value ->> 12 AS duration
    FROM json_each({rows})
) AS j
WHERE recipient.message_id = j.message_id AND recipient.idx = j.idx
    AND +recipient.owner = {node} AND +recipient.state = j.was
"""
"""The change of a plain settlement; ``rows`` and ``node`` are where its values come from."""

SETTLE_PLAIN = PLAIN_SETTLEMENT.format(rows=":rows", node=":node")
"""``SETTLE`` for the usual end, with fewer values to carry."""

AWAITED = "SELECT 1 FROM followup AS f WHERE f.message_id = {key} AND f.kind IN ('report', 'sent')"
"""Whether somebody still needs the octets of a message that is complete."""

DROP_CONTENT = tuple(
    f"DELETE FROM {table} WHERE message_id IN (SELECT value FROM json_each(?))"
    f" AND NOT EXISTS ({AWAITED.format(key=f'{table}.message_id')})"
    for table in ("content", "variant")
)
"""Remove the octets of completed messages that nobody needs any more."""

COMPLETED = """
SELECT value FROM json_each(?) AS j
WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message_id = j.value AND state < 10)
"""
"""Which of the messages have no pending recipient left."""

READY = "state = 0 AND owner IS NULL AND after IS NULL"
"""The condition of the partial indices of due work, which a statement must repeat to use them."""

_CLAIMED = """
SELECT r.message_id, r.idx, r.address_type, r.address, r.attempts, r.first_attempt, r.in_doubt, r.crashes, r.due,
    m.sender, m.created, m.expires, m.priority, m.size, m.smtputf8, m.eight_bit, m.recipients, r.options, r.variant,
    m.tenant, m.report, m.options, m.followed
"""

CLAIM_ROWS = f"""{_CLAIMED}
FROM recipient AS r INDEXED BY recipient_ready JOIN message AS m ON m.id = r.message_id
WHERE r.state = 0 AND r.owner IS NULL AND r.after IS NULL AND r.transport = ? AND r.priority = ? AND r.due <= ?
ORDER BY r.due, r.message_id, r.idx LIMIT ?
"""
"""Due work of one transport and priority, oldest first, in submission order when due together."""

CLAIM_OPEN = CLAIM_ROWS.replace(
    "ORDER BY", f"AND (r.lane & {LANE_MASK}) NOT IN (SELECT value FROM json_each(?))\nORDER BY"
)
"""The same without the destinations that are blocked, for a transport that keeps the order: it reads past them."""

CLAIM_LANE = f"""{_CLAIMED}
FROM recipient AS r INDEXED BY recipient_lane JOIN message AS m ON m.id = r.message_id
WHERE r.state = 0 AND r.owner IS NULL AND r.after IS NULL AND r.transport = ? AND r.priority = ? AND r.lane = ?
    AND r.due <= ?
ORDER BY r.due, r.message_id, r.idx LIMIT ? OFFSET ?
"""
"""Due work of one lane."""

LANES = f"""
WITH RECURSIVE found (lane) AS (
    SELECT min(lane) FROM recipient INDEXED BY recipient_lane
    WHERE {READY} AND transport = :transport AND priority = :priority AND lane >= :first
    UNION ALL
    SELECT (
        SELECT min(lane) FROM recipient INDEXED BY recipient_lane
        WHERE {READY} AND transport = :transport AND priority = :priority AND lane > (found.lane | :skip)
    )
    FROM found WHERE found.lane IS NOT NULL
)
SELECT lane FROM found WHERE lane <= :last LIMIT :most
"""
"""The lanes that have work, from ``first`` to ``last``, found by one seek each; ``skip`` 0 gives every lane, and the
lower half's bits one lane of each tenant."""

OWN = """
UPDATE recipient SET owner = :node
FROM (SELECT value ->> 0 AS message_id, value ->> 1 AS idx FROM json_each(:rows)) AS j
WHERE recipient.message_id = j.message_id AND recipient.idx = j.idx
"""
"""Take the claimed recipients."""

JOURNAL = """
UPDATE recipient SET state = 1
FROM (SELECT value ->> 0 AS message_id, value ->> 1 AS idx FROM json_each(:rows)) AS j
WHERE recipient.message_id = j.message_id AND recipient.idx = j.idx
    AND +recipient.owner = :node AND +recipient.state = 0
"""
"""Write down, before the attempt, that owned recipients are being sent."""

NEXT_DUE = """
SELECT min(due) FROM recipient INDEXED BY recipient_ready
WHERE state = 0 AND owner IS NULL AND after IS NULL AND transport = ? AND priority = ?
"""

ADOPT_HELD = """
UPDATE recipient SET owner = NULL, state = 3, in_doubt = 1, reply_code = NULL, reply_status = '4.4.2',
    reply_text = 'in doubt: the process that was sending it died; release to send it (again)'
WHERE owner = :node AND state = 1 AND transport IN (SELECT value FROM json_each(:hold))
"""
"""Hold what a dead process had journalled as being sent, for the transports that ask for it."""

ADOPT_DOUBTFUL = """
UPDATE recipient SET owner = NULL, state = 0,
    in_doubt = max(in_doubt, transport NOT IN (SELECT value FROM json_each(:hold)))
WHERE owner = :node
"""
"""Free the rest; it may be sent again, and says so."""

CONTENT = "SELECT data FROM content WHERE message_id = ?"

VARIANT = "SELECT data FROM variant WHERE message_id = ? AND id = ?"

_SUBJECT = """
SELECT r.message_id, r.idx, r.transport, r.state, r.attempts, r.first_attempt, r.in_doubt, r.crashes, r.due,
    r.address_type, r.address, r.options, m.recipients, m.tenant
FROM recipient AS r {index} JOIN message AS m ON m.id = r.message_id
"""

EXPIRING = (
    _SUBJECT.format(index="INDEXED BY recipient_expiring")
    + "WHERE r.expires IS NOT NULL AND r.state IN (0, 1, 2) AND r.expires <= ? AND r.owner IS NULL"
    " ORDER BY r.expires LIMIT ?"
)
"""Recipients that nobody has in hand and whose time is over."""

EXPIRING_HELD = (
    _SUBJECT.format(index="INDEXED BY recipient_parked")
    + "WHERE r.state BETWEEN 1 AND 9 AND r.state = 3 AND r.expires <= ? AND r.owner IS NULL LIMIT ?"
)

NEXT_EXPIRY = (
    "SELECT min(expires) FROM recipient INDEXED BY recipient_expiring"
    " WHERE expires IS NOT NULL AND state IN (0, 1, 2) AND owner IS NULL"
)

REPLAN_READY = (
    _SUBJECT.format(index="INDEXED BY recipient_ready")
    + "WHERE r.state = 0 AND r.owner IS NULL AND r.after IS NULL AND r.transport = ? AND r.priority = ?"
    " AND (r.due, r.message_id, r.idx) > (?, ?, ?) ORDER BY r.due, r.message_id, r.idx LIMIT ?"
)
"""Unowned queued recipients of a transport, from a place on."""

REPLAN_ASIDE = (
    _SUBJECT.format(index="") + "WHERE r.transport = ? AND r.owner IS NULL AND (r.message_id, r.idx) IN ("
    "SELECT message_id, idx FROM recipient INDEXED BY recipient_after WHERE after IS NOT NULL AND state = 0"
    " UNION SELECT message_id, idx FROM recipient INDEXED BY recipient_parked WHERE state BETWEEN 1 AND 9 AND state = 3"
    ")"
    " AND (r.message_id, r.idx) > (?, ?) ORDER BY r.message_id, r.idx LIMIT ?"
)
"""Those that wait for another message, or are held."""

DECLINED = """
SELECT a.message_id, a.idx, a.transport FROM attempt AS a
WHERE a.outcome = 'not_mine' AND a.message_id IN (SELECT value FROM json_each(?)) AND NOT EXISTS (
    SELECT 1 FROM attempt AS b
    WHERE b.message_id = a.message_id AND b.idx = a.idx AND b.id > a.id AND b.address IS NOT NULL
)
"""
"""Which transports said that a recipient's present address is not theirs; what they said of a former one is void."""

ADD_TALLY = "INSERT INTO tally (kind, scope, label, n) VALUES "
TALLY_CONFLICT = " ON CONFLICT (kind, scope, label) DO UPDATE SET n = n + excluded.n"
