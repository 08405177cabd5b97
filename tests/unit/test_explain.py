"""Each gate of ``explain()``, and the statuses made from the record."""

import re
from dataclasses import replace
from typing import Any

import pytest

from postroom import explaining
from postroom.addresses import Address
from postroom.destinations import Gate
from postroom.explaining import Scene, explain_recipient
from postroom.ids import format_id
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.status import message_status, queue_entry, recipient_status
from postroom.stores.base import (
    Attempt,
    DestinationStanding,
    InstanceRow,
    MessageRecord,
    Order,
    RecipientRecord,
    Standing,
)

NOW = 1_700_000_000.0
"""A Tuesday, 22:13 UTC."""
RECORD = RecipientRecord(
    index=0, address=Address("smtp", "ann@example.org"), transport="a", state=State.QUEUED, due=NOW - 5, owner=None,
    attempts=0, first_attempt=None, changed=None, crashes=0, in_doubt=False, reply=None, remote_id=None,
)  # fmt: skip
MESSAGE = MessageRecord(
    key=1, sender="app@x", subject="s", message_id="<1@x>", created=NOW, expires=None, priority=0, size=9,
    report="", idempotency_key=None, content_kept=True, recipients=(RECORD,),
)  # fmt: skip
SCENE = Scene(
    now=NOW, node=1, standings={"a": Standing("a", "up")}, instances={4: InstanceRow(4, 77, "host", 1.0, 2.0)}
)
SAID = Reply("busy", "4.7.1", 450, "mx")


def explain(
    record: RecipientRecord = RECORD,
    *,
    message: MessageRecord = MESSAGE,
    phase: str | None = None,
    **scene: Any,
) -> tuple[str, float | None, str]:
    found = explain_recipient(record, replace(SCENE, **scene), message=message, phase=phase)
    assert (found.index, found.address) == (record.index, record.address)
    assert re.search(rf"^``{found.gate}``", explaining.__doc__ or "", re.MULTILINE), (
        f"{found.gate} is in no table"
    )
    return found.gate, found.until, found.rule


def standing(
    status: str, reason: str = "refused", since: float = 0.0, until: float | None = None
) -> dict[str, Standing]:
    return {"a": Standing("a", status, reason, since, until)}


def pause(selection: str, expires: float | None = None) -> Order:
    return Order(7, "pause", selection, operator="eve", reason="maintenance", created=1.0, expires=expires)


def live(*gate: Any) -> dict[str, Any]:
    def ask(transport: str, destination: str) -> Gate | None:
        assert (transport, destination) == ("a", "example.org")
        return gate or None

    return {"live": ask}


WINDOW = replace(MESSAGE, options=MessageOptions(window="Mo-Fr 09:00-17:00"))
OPENS = NOW - 22 * 3600 - 13 * 60 - 20 + 33 * 3600
"""Wednesday, 09:00."""


GATES: list[tuple[dict[str, Any], dict[str, Any], tuple[str, float | None, str]]] = [
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
    (
        {"expires": NOW}, {},
        ("expiry", None, "its time is over: it expires when the spool is swept next"),
    ),
    (
        {"after": 99}, {"message": replace(MESSAGE, ordering_key="ann")},
        ("ordering", None, f"waits for message {format_id(99)}: it has the same ordering key, 'ann'"),
    ),
    (
        {"after": 99}, {"message": replace(MESSAGE, ordering_key="\0transport:a")},
        ("ordering", None, f"waits for message {format_id(99)}: a keeps the order of submission"),
    ),
    (
        {"transport": "gone"}, {},
        ("no_transport", None, "no process runs a transport named 'gone' now; there are: a"),
    ),
    ({}, {"standings": {}}, ("transport", None, "a is stopped: no process delivers now")),
    (
        {"due": NOW + 60}, {"orders": [pause('{"everything": true}', NOW + 9)]},
        ("offline", NOW + 9, "the spooler is offline, paused by standing order 7 of eve: maintenance"),
    ),
    (
        {}, {"orders": [pause('{"transport": "a"}')]},
        ("pause", None, "a, paused by standing order 7 of eve: maintenance"),
    ),
    (
        {}, {"orders": [pause('{"destination": "example.*"}', NOW + 9)]},
        ("destination_pause", NOW + 9, "example.org, paused by standing order 7 of eve: maintenance"),
    ),
    ({}, {"orders": [pause('{"transport": "b"}')]}, ("window", None, "due, waits for room in the window of a")),
    (
        {}, {"orders": [pause('{"transport": "a"}', NOW), Order(8, "hold", '{"transport": "a"}')]},
        ("window", None, "due, waits for room in the window of a"),
    ),
    ({"due": NOW + 60}, {}, ("send_at", NOW + 60, "submitted with send_at")),
    (
        {"due": OPENS}, {"message": WINDOW},
        ("delivery_window", OPENS, "submitted to be sent only Mo-Fr 09:00-17:00"),
    ),
    (
        {"due": NOW - 1}, {"message": WINDOW},
        ("delivery_window", OPENS, "submitted to be sent only Mo-Fr 09:00-17:00"),
    ),
    ({"due": OPENS + 60}, {"message": WINDOW}, ("send_at", OPENS + 60, "submitted with send_at")),
    ({"due": OPENS}, {"message": WINDOW, "now": OPENS}, ("window", None, "due, waits for room in the window of a")),
    (
        {}, {"message": replace(MESSAGE, options=MessageOptions(window="Mo 09:00-17:00 Nowhere/Here"))},
        ("window", None, "due, waits for room in the window of a"),
    ),
    (
        {"due": NOW + 60, "attempts": 2, "reply": SAID}, {},
        ("retry", NOW + 60, "the retry policy of a after 2 attempt(s): mx: 450 4.7.1 busy"),
    ),
    (
        {"due": NOW + 60, "crashes": 1}, {},
        ("retry", NOW + 60, "the retry policy of a after 0 attempt(s)"),
    ),
    (
        {"due": NOW + 60}, {"standings": standing("parked")},
        ("send_at", NOW + 60, "submitted with send_at"),
    ),
    (
        {}, {"standings": standing("parked", until=NOW + 30)},
        ("transport", NOW + 30, "a is parked: refused"),
    ),
    (
        {}, {"standings": standing("parked", since=NOW - 100, until=NOW + 30), "failover": {"a": 300.0}},
        (
            "transport", NOW + 30,
            "a is parked: refused; what waits moves on to its next transport after 300 s of that (200 s from now)",
        ),
    ),
    (
        {"owner": 1}, {"standings": standing("probing"), "phase": "waiting"},
        ("transport", None, "a is probing: refused"),
    ),
    ({}, live("closed", NOW + 9, "Mo-Fr"), ("hours", NOW + 9, "a is used only Mo-Fr")),
    (
        {}, {"standings": standing("closed", "Mo-Fr", until=NOW + 9)},
        ("hours", NOW + 9, "a is closed: Mo-Fr"),
    ),
    ({}, live("rate", NOW + 1, "10/s"), ("rate", NOW + 1, "a sends at most 10/s")),
    (
        {}, live("destination_parked", NOW + 5, "no route"),
        ("destination", NOW + 5, "example.org is parked: no route"),
    ),
    (
        {}, live("destination_probing", None, "no route"),
        ("destination", None, "example.org is probed with another recipient: no route"),
    ),
    (
        {}, live("destination_limit", None, "5 at once"),
        ("destination_limit", None, "example.org gets no more than 5 at once"),
    ),
    (
        {}, live("destination_rate", NOW + 2, "1/min"),
        ("destination_rate", NOW + 2, "example.org gets at most 1/min"),
    ),
    ({}, live("paused", None, "told elsewhere"), ("window", None, "due, waits for room in the window of a")),
    ({}, live(), ("window", None, "due, waits for room in the window of a")),
    (
        {}, {"destinations": {("a", "example.org"): DestinationStanding("a", "example.org", "parked", "no route",
                                                                         until=NOW + 8)}},
        ("destination", NOW + 8, "example.org is parked: no route"),
    ),
    (
        {}, {"destinations": {("a", "example.org"): DestinationStanding("a", "example.org", "ramping")}},
        ("window", None, "due, waits for room in the window of a"),
    ),
    (
        {"transport": "preprocess"}, {"standings": {"preprocess": Standing("preprocess", "up")}},
        ("preprocess", None, "waits for the preprocessing stage, which comes before its first transport"),
    ),
    ({"owner": 1}, {"phase": "waiting"}, ("courier", None, "waits in memory for a free courier of a")),
    (
        {}, {"standings": standing("ramping")},
        ("window", None, "due, waits for room in the window of a"),
    ),
    (
        {}, {"message": replace(MESSAGE, tenant="t")},
        ("window", None, "due, waits for room in the window of a, of which 't' gets its share"),
    ),
    ({"due": None}, {}, ("window", None, "due, waits for room in the window of a")),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "context", "expected"), GATES)
def test_the_first_gate_counts(
    changes: dict[str, Any], context: dict[str, Any], expected: tuple[str, float | None, str]
) -> None:
    assert explain(replace(RECORD, **changes), **context) == expected


def test_every_gate_of_the_table_is_tested() -> None:
    table = set(re.findall(r"^``(\w+)``", explaining.__doc__ or "", re.MULTILINE))
    assert table == {expected[0] for _, _, expected in GATES}


def test_it_says_when_it_is_given_up() -> None:
    waits = replace(RECORD, expires=NOW + 99)
    assert explain_recipient(waits, SCENE, message=MESSAGE).expires == NOW + 99
    done = replace(waits, state=State.DELIVERED)
    assert explain_recipient(done, SCENE, message=MESSAGE).expires is None


# Statuses


def test_statuses_show_due_times_of_what_is_queued_only() -> None:
    recipients = (RECORD, replace(RECORD, index=1, state=State.DELIVERED))
    record = replace(MESSAGE, recipients=recipients, tenant="t", ordering_key="k")
    status = message_status(record)
    assert [recipient.due for recipient in status.recipients] == [NOW - 5, None]
    assert (status.tenant, status.ordering_key, status.content_kept) == ("t", "k", True)
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


def test_a_recipient_shows_what_was_said_of_it() -> None:
    options = RecipientOptions(
        alternatives=(Address("sms", "+15550100"),),
        original=Address("smtp", "old@example.org"),
        via=("all", "staff"),
    )
    shown = recipient_status(
        replace(RECORD, options=options, after=99, expires=NOW + 9, reported=True, duration=0.5)
    )
    assert (shown.alternatives, shown.original, shown.via) == (
        options.alternatives,
        options.original,
        options.via,
    )
    assert (shown.waits_for, shown.expires, shown.reported, shown.duration) == (
        format_id(99),
        NOW + 9,
        True,
        0.5,
    )
    plain = recipient_status(replace(RECORD, state=State.FAILED, expires=NOW + 9))
    assert (plain.alternatives, plain.original, plain.via) == ((), None, ())
    assert (plain.waits_for, plain.expires, plain.reported) == (None, None, False)


@pytest.mark.parametrize("state", [State.DELIVERED, State.RELAYED, State.ACCEPTED])
def test_the_history_ends_with_the_happy_end(state: State) -> None:
    before = Attempt(NOW - 60, "a", "deferred", SAID, 0.2)
    said = Reply("ok", "2.0.0", 250, "mx", "TLSv1.3")
    record = replace(RECORD, state=state, history=(before,), changed=NOW, reply=said, duration=0.5)
    assert recipient_status(record).history == (before, Attempt(NOW, "a", state.label, said, 0.5))
    bare = recipient_status(replace(record, reply=None, history=()))
    assert bare.history == (Attempt(NOW, "a", state.label, Reply(), 0.5),)


@pytest.mark.parametrize("state", [State.QUEUED, State.FAILED, State.EXPIRED, State.CANCELLED, State.HELD])
def test_other_ends_are_in_the_history_already(state: State) -> None:
    before = Attempt(NOW - 60, "a", "failed", SAID, 0.2)
    assert recipient_status(replace(RECORD, state=state, history=(before,), changed=NOW)).history == (before,)
    assert not recipient_status(replace(RECORD, state=state)).history
