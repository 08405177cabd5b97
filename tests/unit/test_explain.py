from dataclasses import replace
from typing import Any

import pytest

from postroom.addresses import Address
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.status import explain_recipient, message_status, queue_entry
from postroom.stores.base import InstanceRow, MessageRecord, RecipientRecord, Standing

NOW = 1000.0
RECORD = RecipientRecord(
    index=0, address=Address("smtp", "ann@example.org"), transport="a", state=State.QUEUED, due=NOW - 5, owner=None,
    attempts=0, first_attempt=None, changed=None, crashes=0, in_doubt=False, reply=None, remote_id=None,
)  # fmt: skip
STANDINGS = {"a": Standing("a", "up")}
INSTANCES = {4: InstanceRow(4, 77, "host", 1.0, 2.0)}


def explain(record: RecipientRecord, **fields: Any) -> tuple[str, float | None, str]:
    defaults: dict[str, Any] = {
        "now": NOW, "node": 1, "standings": STANDINGS, "instances": INSTANCES, "phase": None,
    }  # fmt: skip
    found = explain_recipient(record, **(defaults | fields))
    assert (found.index, found.address) == (record.index, record.address)
    return found.gate, found.until, found.rule


SAID = Reply("busy", "4.7.1", 450, "mx")


@pytest.mark.parametrize(
    ("changes", "context", "expected"),
    [
        ({"state": State.DELIVERED}, {}, ("settled", None, "delivered")),
        ({"state": State.FAILED, "reply": Reply("no", "5.1.1", 550)}, {}, ("settled", None, "failed: 550 5.1.1 no")),
        ({"state": State.HELD}, {}, ("held", None, "waits until it is released: submitted with hold")),
        (
            {"state": State.HELD, "reply": Reply("poison")}, {},
            ("held", None, "waits until it is released: poison"),
        ),
        (
            {"state": State.ACCEPTED, "remote_id": "r"}, {},
            ("remote_report", None, "the other side took it as 'r' and will report"),
        ),
        ({"owner": 1}, {"phase": "sending"}, ("sending", None, "a is sending it now")),
        ({"owner": 4}, {}, ("other_process", None, "process 77 on host has it")),
        ({"owner": 9}, {}, ("other_process", None, "instance 9 has it")),
        ({"owner": 4}, {"node": None}, ("other_process", None, "process 77 on host has it")),
        ({"transport": "gone"}, {}, ("no_transport", None, "no process runs a transport named 'gone' now")),
        ({"due": NOW + 60}, {}, ("send_at", NOW + 60, "submitted with send_at")),
        (
            {"due": NOW + 60, "attempts": 2, "reply": SAID}, {},
            ("retry", NOW + 60, "the retry policy of a after 2 attempt(s): mx: 450 4.7.1 busy"),
        ),
        (
            {"due": NOW + 60, "crashes": 1}, {},
            ("retry", NOW + 60, "the retry policy of a after 0 attempt(s)"),
        ),
        (
            {}, {"standings": {"a": Standing("a", "parked", "refused", NOW, NOW + 30)}},
            ("transport", NOW + 30, "a is parked: refused"),
        ),
        (
            {"owner": 1}, {"standings": {"a": Standing("a", "probing", "refused")}, "phase": "waiting"},
            ("transport", None, "a is probing: refused"),
        ),
        ({"owner": 1}, {"phase": "waiting"}, ("courier", None, "waits in memory for a free courier of a")),
        (
            {}, {"standings": {"a": Standing("a", "ramping", "refused")}},
            ("window", None, "due, waits for room in the window of a"),
        ),
        ({}, {}, ("window", None, "due, waits for room in the window of a")),
    ],
)  # fmt: skip
def test_the_first_gate_counts(
    changes: dict[str, Any], context: dict[str, Any], expected: tuple[str, float | None, str]
) -> None:
    assert explain(replace(RECORD, **changes), **context) == expected


def test_statuses_show_due_times_of_what_is_queued_only() -> None:
    recipients = (RECORD, replace(RECORD, index=1, state=State.DELIVERED))
    record = MessageRecord(
        key=1, sender="app@x", subject="s", message_id="<1@x>", created=NOW, expires=None, priority=0, size=9,
        report="", idempotency_key=None, content_kept=True, recipients=recipients,
    )  # fmt: skip
    status = message_status(record)
    assert [recipient.due for recipient in status.recipients] == [NOW - 5, None]
    assert not status.complete
    assert not status.succeeded
    done = message_status(replace(record, recipients=recipients[1:]))
    assert done.complete
    assert done.succeeded
    failed = message_status(replace(record, recipients=(replace(RECORD, state=State.FAILED),)))
    assert failed.complete
    assert not failed.succeeded
    entry = queue_entry(record, RECORD)
    assert (entry.id, entry.size, entry.recipient) == (status.id, 9, status.recipients[0])
