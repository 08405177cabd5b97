"""Every statement of the hot path, named and described.

A statement that takes a list takes it as one JSON parameter: each ``sqlite3_step`` gives up the GIL, and in a process
with many threads getting it back costs more than the work, so fewer steps are faster than simpler steps.
"""

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
    " subject, message_id, idempotency_key) VALUES "
)
"""Followed by as many rows as are inserted at once."""

INSERT_CONTENT = "INSERT INTO content (message_id, data) VALUES "

INSERT_RECIPIENT = (
    "INSERT INTO recipient (message_id, idx, address_type, address, transport, state, priority, due, owner)"
    " VALUES "
)

INSERT_ATTEMPT = (
    "INSERT INTO attempt (message_id, idx, at, transport, outcome, code, status, text, remote, duration, detail)"
    " VALUES "
)

SETTLE = """
UPDATE recipient SET
    state = j.state, due = j.due, owner = NULL, transport = coalesce(j.next_transport, recipient.transport),
    attempts = j.attempts, first_attempt = j.first_attempt, changed = j.at,
    crashes = j.crashes, in_doubt = j.in_doubt,
    reply_code = j.code, reply_status = j.status, reply_text = j.text, remote = j.remote, remote_id = j.remote_id,
    detail = j.detail
FROM (
    SELECT value ->> 0 AS message_id, value ->> 1 AS idx, value ->> 2 AS was, value ->> 3 AS state, value ->> 4 AS due,
        value ->> 5 AS next_transport, value ->> 6 AS attempts, value ->> 7 AS first_attempt, value ->> 8 AS at,
        value ->> 9 AS crashes, value ->> 10 AS in_doubt, value ->> 11 AS code, value ->> 12 AS status,
        value ->> 13 AS text, value ->> 14 AS remote, value ->> 15 AS remote_id, value ->> 16 AS detail
    FROM json_each(:rows)
) AS j
WHERE recipient.message_id = j.message_id AND recipient.idx = j.idx
    AND +recipient.owner = :node AND +recipient.state = j.was
"""
"""Change recipients that we own and that are in the state we believe. The unary plus keeps the planner on the primary
key: with the index on ``owner`` each row of the list would walk through all that we own."""

PLAIN_SETTLEMENT = """
UPDATE recipient SET
    state = j.state, due = NULL, owner = NULL, attempts = j.attempts, first_attempt = j.first_attempt, changed = j.at,
    crashes = 0, in_doubt = 0, reply_code = j.code, reply_status = j.status, reply_text = j.text, remote = j.remote,
    remote_id = NULL, detail = NULL
FROM (
    SELECT value ->> 0 AS message_id, value ->> 1 AS idx, value ->> 2 AS was, value ->> 3 AS state,
        value ->> 4 AS attempts, value ->> 5 AS first_attempt, value ->> 6 AS at, value ->> 7 AS code,
        value ->> 8 AS status, value ->> 9 AS text, value ->> 10 AS remote
    FROM json_each({rows})
) AS j
WHERE recipient.message_id = j.message_id AND recipient.idx = j.idx
    AND +recipient.owner = {node} AND +recipient.state = j.was
"""
"""The change of a plain settlement; ``rows`` and ``node`` are where its values come from."""

SETTLE_PLAIN = PLAIN_SETTLEMENT.format(rows=":rows", node=":node")
"""``SETTLE`` for the usual end, with fewer values to carry."""

DROP_CONTENT = "DELETE FROM content WHERE message_id IN (SELECT value FROM json_each(?))"
"""Remove the octets of completed messages."""

COMPLETED = """
SELECT value FROM json_each(?) AS j
WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message_id = j.value AND state < 10)
"""
"""Which of the messages have no pending recipient left."""

CLAIM_ROWS = """
SELECT r.message_id, r.idx, r.address_type, r.address, r.attempts, r.first_attempt, r.in_doubt, r.crashes, r.due,
    m.sender, m.created, m.expires, m.priority, m.size, m.smtputf8, m.eight_bit, m.recipients
FROM recipient AS r INDEXED BY recipient_ready JOIN message AS m ON m.id = r.message_id
WHERE r.state = 0 AND r.owner IS NULL AND r.transport = ? AND r.priority = ? AND r.due <= ?
ORDER BY r.due, r.message_id, r.idx LIMIT ?
"""
"""Due work of one transport and priority, oldest first, in submission order when due together."""

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
WHERE state = 0 AND owner IS NULL AND transport = ? AND priority = ?
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

ADD_TALLY = "INSERT INTO tally (kind, scope, label, n) VALUES "
TALLY_CONFLICT = " ON CONFLICT (kind, scope, label) DO UPDATE SET n = n + excluded.n"
