"""Selections: what can be said, what it means, and that SQL and memory mean the same by it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from postroom.addresses import Address
from postroom.errors import UsageError
from postroom.ids import format_id
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.selections import Selection, error_matches, text_matches
from postroom.stores.driver import connect, sqlite3
from postroom.stores.schema import migrate
from postroom.stores.selecting import count_selected, selected

NOW = 1_000_000.0
ANN = Address("smtp", "ann@example.com")


@dataclass(frozen=True)
class Message:
    key: int = 1
    sender: str = "app@example.org"
    subject: str = "Invoice 7"
    created: float = NOW - 100
    tenant: str = "shop"


@dataclass(frozen=True)
class Recipient:
    index: int = 0
    address: Address = ANN
    transport: str = "smtp"
    state: State = State.QUEUED
    reply: Reply | None = None


# What can be said


def test_nothing_in_particular_must_be_asked_for() -> None:
    with pytest.raises(UsageError, match="selection: selects nothing in particular"):
        Selection()
    assert Selection(everything=True).matches(Message(), Recipient(), NOW)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"ids": ["nonsense!"]}, "id"),
        ({"ids": "0CN5F17YM0000"}, "ids"),
        ({"recipients": [0]}, "recipients"),
        ({"ids": [format_id(1)], "recipients": [-1]}, "recipients"),
        ({"ids": [format_id(1)], "recipients": [True]}, "recipients"),
        ({"states": ["lost"]}, "states"),
        ({"states": 3}, "states"),
        ({"transport": ""}, "transport"),
        ({"transport": 3}, "transport"),
        ({"older_than": -1}, "older_than"),
        ({"older_than": float("nan")}, "older_than"),
        ({"older_than": True}, "older_than"),
        ({"older_than": 60, "newer_than": 60}, "older_than"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as raised:
        Selection(**said)
    assert raised.value.field == field


def test_it_is_written_in_one_way() -> None:
    said: dict[str, Any] = {"states": ["held", 0], "ids": [format_id(5)]}
    one = Selection(address="Ann@EXAMPLE.com", address_type="SMTP", sender="<>", **said)
    assert one.address == "smtp:Ann@example.com"
    assert one.states == (State.QUEUED, State.HELD)
    assert one.address_type == "smtp"
    assert not one.sender
    assert one.keys == (5,)
    assert (
        str(one)
        == f"ids={format_id(5)} states=queued,held address=smtp:Ann@example.com address_type=smtp sender=<>"
    )
    assert str(Selection(everything=True)) == "everything"
    assert str(Selection(older_than=90)) == "older_than=90s"


@pytest.mark.parametrize("text", ["no json", "[]", '{"colour": "red"}', "{}", '{"transport": 3}'])
def test_what_is_no_selection_in_json_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Selection.from_json(text)


# What it means


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*@example.org", "ANN@Example.ORG", True),
        ("*@example.org", "ann@example.org.evil", False),
        ("[ab]*", "bob", True),
        ("[!ab]*", "bob", False),
        ("a[1]", "a[1]", True),
        ("straße", "STRASSE", True),
        ("ann", "anna", False),
        ("", "", True),
        ("", "x", False),
    ],
)
def test_globs_and_texts(pattern: str, text: str, fits: bool) -> None:
    assert text_matches(pattern, text) is fits


@pytest.mark.parametrize(
    ("error", "reply", "fits"),
    [
        ("4.*", Reply("busy", "4.3.2", 450), True),
        ("4.*", Reply("busy 4.x", "5.3.2", 550), False),
        ("4.2.?", Reply("full", "4.2.2"), True),
        ("45*", Reply("busy", "", 451), True),
        ("4.2.2", Reply("full", "4.2.2"), True),
        ("MAILBOX", Reply("mailbox full", "4.2.2"), True),
        ("mx1.example", Reply("no", "5.0.0", 550, "mx1.example.com"), True),
        ("quota", Reply("mailbox full", "4.2.2"), False),
        ("quota", None, False),
    ],
)
def test_what_was_said_last(error: str, reply: Reply | None, fits: bool) -> None:
    assert error_matches(error, reply) is fits


@pytest.mark.parametrize(
    "said",
    [
        {"ids": [format_id(2)]},
        {"ids": [format_id(1)], "recipients": [1]},
        {"states": ["held"]},
        {"transport": "sms"},
        {"destination": "*.example.com"},
        {"address": "bob@example.com"},
        {"address_type": "sms"},
        {"sender": "<>"},
        {"tenant": ""},
        {"subject": "receipt"},
        {"older_than": 101},
        {"newer_than": 100},
        {"error": "busy"},
    ],
)
def test_each_field_alone_can_rule_a_recipient_out(said: dict[str, Any]) -> None:
    assert not Selection(**said).matches(Message(), Recipient(), NOW)


def test_all_that_is_said_must_hold() -> None:
    selection = Selection(
        ids=(format_id(1),), recipients=(0,), states=(State.QUEUED,), transport="smtp", destination="EXAMPLE.com",
        address="*@example.com", address_type="smtp", sender="app@*", tenant="shop", subject="invoice", older_than=100,
        newer_than=101,
    )  # fmt: skip
    assert selection.matches(Message(), Recipient(), NOW)
    assert not selection.matches(Message(), Recipient(transport="backup"), NOW)


def test_a_host_is_a_destination_too() -> None:
    selection = Selection(destination="hooks.example.org")
    recipient = Recipient(address=Address("https", "//hooks.example.org:8443/x"))
    assert selection.matches(Message(), recipient, NOW)


# The same in SQL

texts = st.sampled_from(
    ["app@example.org", "ann@example.com", "*@example.*", "[ab]*", "", "b?b@example.com", "ANN@EXAMPLE.COM"]
)
domains = st.sampled_from(["example.com", "example.org", "*.org", "Example.COM", "hooks.example.org"])
addresses = st.sampled_from(
    [
        Address("smtp", "ann@example.com"),
        Address("smtp", "bob@example.com"),
        Address("smtp", "Ann@example.org"),
        Address("sms", "+15550100"),
        Address("https", "//hooks.example.org/x?y=1"),
        Address("https", "//hooks.example.org:8443/x"),
    ]
)
replies = st.sampled_from(
    [
        None,
        Reply("busy", "4.3.2", 450, "mx1"),
        Reply("Mailbox full", "4.2.2"),
        Reply("no such user", "5.1.1", 550),
        Reply(""),
    ]
)
ages = st.sampled_from([0.0, 1.0, 59.5, 60.0, 3600.0])
keys = st.integers(1, 4)
states = st.sampled_from(list(State))
selections = st.builds(
    Selection,
    ids=st.lists(keys.map(format_id), max_size=2),
    states=st.lists(states, max_size=3),
    transport=st.none() | st.sampled_from(["smtp", "sms"]),
    destination=st.none() | domains,
    address=st.none()
    | st.sampled_from(
        ["ann@example.com", "*@example.org", "smtp:*", "*:*5*", "https://*", "Bob@example.com"]
    ),
    address_type=st.none() | st.sampled_from(["smtp", "sms"]),
    sender=st.none() | texts,
    tenant=st.none() | st.sampled_from(["", "shop"]),
    subject=st.none() | st.sampled_from(["invoice", "ÜBER"]),
    older_than=st.none() | st.sampled_from([0.0, 60.0]),
    newer_than=st.none() | st.sampled_from([61.0, 3600.5]),
    error=st.none() | st.sampled_from(["busy", "4.*", "5.1.1", "MAILBOX", "mx1", "45?"]),
    everything=st.just(value=True),
)
messages = st.builds(
    Message,
    sender=st.sampled_from(["", "app@example.org", "bob@example.com"]),
    subject=st.sampled_from(["", "Invoice 7", "über alles"]),
    created=ages.map(lambda age: NOW - age),
    tenant=st.sampled_from(["", "shop"]),
)
recipients = st.builds(
    Recipient, address=addresses, transport=st.sampled_from(["smtp", "sms"]), state=states, reply=replies
)
spools = st.lists(st.tuples(messages, st.lists(recipients, min_size=1, max_size=3)), max_size=4)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("selections") / "spool.db"
    with closing(connect(path)) as opened:
        migrate(Database(opened, execute_plugins=False, recursive_triggers=False))
        yield opened


def fill(connection: sqlite3.Connection, spool: list[tuple[Message, list[Recipient]]]) -> None:
    for key, (message, those) in enumerate(spool, 1):
        connection.execute(
            "INSERT INTO message (id, sender, created, due, priority, size, recipients, subject, tenant)"
            " VALUES (?, ?, ?, 0, 0, 1, ?, ?, ?)",
            (key, message.sender, message.created, len(those), message.subject, message.tenant or None),
        )
        for index, r in enumerate(those):
            said = (
                (None,) * 4
                if r.reply is None
                else (r.reply.code, r.reply.status, r.reply.text, r.reply.remote)
            )
            connection.execute(
                "INSERT INTO recipient (message_id, idx, address_type, address, transport, state, priority, reply_code,"
                " reply_status, reply_text, remote) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
                (key, index, r.address.type, r.address.value, r.transport, int(r.state), *said),
            )


def pages(connection: sqlite3.Connection, selection: Selection, limit: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while page := selected(connection, selection, now=NOW, after=found[-1] if found else None, limit=limit):
        assert len(page) <= limit
        found += page
    return found


@given(spool=spools, selection=selections, limit=st.integers(1, 5))
def test_sql_selects_what_memory_selects(
    connection: sqlite3.Connection,
    spool: list[tuple[Message, list[Recipient]]],
    selection: Selection,
    limit: int,
) -> None:
    connection.execute("BEGIN")
    try:
        fill(connection, spool)
        expected = [
            (key, index)
            for key, (message, those) in enumerate(spool, 1)
            for index, recipient in enumerate(those)
            if selection.matches(
                Message(key, message.sender, message.subject, message.created, message.tenant),
                Recipient(index, recipient.address, recipient.transport, recipient.state, recipient.reply),
                NOW,
            )
        ]
        assert pages(connection, selection, limit) == expected
        assert count_selected(connection, selection, now=NOW) == (
            len(expected),
            len({key for key, _ in expected}),
        )
    finally:
        connection.execute("ROLLBACK")


@given(selections)
def test_json_brings_back_the_same(selection: Selection) -> None:
    assert Selection.from_json(selection.to_json()) == selection
    assert {field.name for field in fields(Selection)} >= set(selection.said)


def test_what_is_idle_and_what_is_due(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    try:
        fill(connection, [(Message(), [Recipient(), Recipient(), Recipient()])])
        connection.execute("UPDATE recipient SET due = ?, owner = CASE idx WHEN 2 THEN 7 END", (NOW + 1,))
        connection.execute("UPDATE recipient SET due = ? WHERE idx = 0", (NOW,))
        everything = Selection(everything=True)
        assert selected(connection, everything, now=NOW, after=None, limit=9, idle=True) == [(1, 1)]
        assert count_selected(connection, everything, now=NOW, due=True) == (1, 1)
    finally:
        connection.execute("ROLLBACK")
