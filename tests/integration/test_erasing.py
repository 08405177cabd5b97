"""Erasing an address: it is nowhere afterwards, not even in the octets of the files, and the books still balance."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.addresses import Address, parse_address
from postroom.archive import Archive
from postroom.errors import InvalidAddress, SpoolUnavailable, UsageError
from postroom.ids import format_id, parse_id
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Action, NewRecipient, Order
from postroom.stores.driver import connect
from tests.support.archiving import Depot

ANN = "ann@example.org"


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    made = Depot(tmp_path)
    yield made
    made.close()


def octets(depot: Depot) -> bytes:
    """Return the database's files, read by another process: opening them here would drop SQLite's locks on them."""
    files = [
        path for path in depot.path.parent.iterdir() if path.is_file() and not path.name.endswith("-shm")
    ]
    assert depot.path in files
    return subprocess.run(["cat", *files], capture_output=True, check=True).stdout


def fill(depot: Depot, address: str = ANN) -> dict[str, str]:
    """Put an address wherever one can stand; returns the messages by what they are."""
    local, _, domain = address.partition("@")
    sent: dict[str, str] = {}
    mail = f"From: x@example.com\r\nTo: {address}\r\n\r\n".encode()
    sent["to"] = depot.sent(address, "bob@example.org", content=mail, subject=f"for {address}")
    sent["case"] = depot.sent(
        NewRecipient(parse_address(f"{local.title()}@{domain}"), "a"), content=mail.upper()
    )
    sent["from"] = depot.sent(
        "bob@example.org", sender=address, tenant=address, ordering_key=f"orders of {address}", content=mail,
        idempotency_key=f"mail-{address}-1", digest=b"d", message_id=f"<1.{local}=x@y>", followed=True,
        options=MessageOptions(envid=f"of {address}"), followups=(("delay", depot.clock.time() + 99),),
    )  # fmt: skip
    options = RecipientOptions(
        alternatives=(parse_address(address),), orcpt=f"rfc822;{address}", via=("all", f"list of {address}")
    )
    sent["options"] = depot.sent(NewRecipient(parse_address("bob@example.org"), "a", options))
    options = RecipientOptions(original=parse_address(address))
    sent["original"] = depot.sent(NewRecipient(parse_address("bob@example.org"), "a", options))
    history = depot.accept("bob@example.org")
    said = Reply(f"<{address}> is busy", "4.2.0", 450, f"mx of {address}")
    depot.settle(history, State.FAILED, reply=said, detail=f"Traceback: {address}")
    depot.clock.advance(1)
    sent["history"] = format_id(history.key)
    sent["content"] = depot.sent("bob@example.org", content=b"Cc: " + address.encode() + b"\r\n\r\n")
    sent["variant"] = depot.sent("bob@example.org")
    depot.perform(
        lambda connection: connection.execute(
            "INSERT INTO variant (message_id, data) VALUES (?, ?)", (parse_id(sent["variant"]), mail)
        ),
        1.0,
    )
    depot.store.begin()
    depot.store.set_order(
        Order(
            0, "hold", json.dumps({"address": f"smtp:{address}"}), operator="op", reason="asked", created=1.0
        )
    )
    depot.store.log_operation(
        Action("redirect", f"smtp:{address}", "op", f"{address} called"),
        json.dumps({"address": address}),
        1,
        1.0,
        None,
    )
    depot.store.commit()
    return sent


def churn(depot: Depot, address: str = ANN) -> None:
    """Write and delete a good deal with an address in it, so that unused parts of the file are full of it."""
    for number in range(150):
        content = f"To: {address}\r\n\r\n".encode() * (1 + 97 * (number % 7))
        depot.sent(address if number % 3 else "bob@example.org", f"user{number}@example.org", content=content)
    depot.perform(lambda _: depot.store.purge(depot.clock.time() - 75, depot.clock.time() - 20, 400), 1.0)


def test_a_preview_changes_nothing(depot: Depot) -> None:
    sent = fill(depot)
    depot.sent("bob@example.org", "joann@example.org", sender="app@example.com")
    pending = depot.accept(ANN)
    before = octets(depot)
    found = Archive(depot.path, clock=depot.clock).erase(ANN)
    assert (found.applied, found.complete, found.tombstone, found.rewritten) == (False, False, "", False)
    assert found.messages == len(sent) + 1
    assert (found.sent, found.recipients, found.contents) == (1, 5, len(sent) + 1)
    assert (found.orders, found.operations) == (1, 1)
    assert found.pending == (format_id(pending.key),)
    assert octets(depot) == before


def test_nothing_of_it_is_left(depot: Depot) -> None:
    churn(depot)
    sent = fill(depot)
    other = depot.sent("joann@example.com", subject="kept")
    assert depot.archive.search("ann").complete
    before = depot.reader.tally()
    assert ANN.encode() in octets(depot)
    done = depot.archive.erase(ANN, apply=True, operator="op", reason=f"{ANN} asked for it")
    assert done.complete
    assert (done.rewritten, done.trouble, done.pending) == (True, "", ())
    assert done.tombstone.startswith("erased:")
    left = octets(depot).lower()
    assert ANN.encode() not in left
    assert b"ann=example.org" not in left
    assert done.tombstone.encode() in left
    # The books.
    assert depot.reader.tally() == before
    depot.ledger_is_exact()
    assert len(depot.dropped) == 1
    # What others may still see.
    for name, message_id in sent.items():
        record = depot.reader.message(parse_id(message_id))
        assert record is not None, name
        assert not record.content_kept, name
    assert [str(r.address) for r in _recipients(depot, sent["to"])] == [
        f"smtp:{done.tombstone}", "smtp:bob@example.org",
    ]  # fmt: skip
    assert _recipients(depot, sent["options"])[0].options == RecipientOptions(
        alternatives=(Address("smtp", done.tombstone),),
        orcpt=f"rfc822;{done.tombstone}",
        via=("all", f"list of {done.tombstone}"),
    )
    (attempt,) = _recipients(depot, sent["history"])[0].history
    assert attempt.reply == Reply(
        f"<{done.tombstone}> is busy", "4.2.0", 450, f"mx of {done.tombstone}", attempt.reply.tls
    )
    record = depot.reader.message(parse_id(sent["from"]))
    assert record is not None
    assert (record.sender, record.tenant, record.idempotency_key) == (done.tombstone, done.tombstone, None)
    assert depot.reader.message(parse_id(other)) is not None
    # The index knows the tombstone and the others.
    found = depot.archive.search(done.tombstone, limit=500)
    assert sent["to"] in {item.id for item in found}
    assert {item.id for item in depot.archive.search("joann")} == {other}
    assert not list(depot.archive.search("ann"))
    # The idempotency key is free again, and nobody is told about what is gone.
    for statement in (
        "SELECT key FROM idempotency", "SELECT key FROM ordering",
        f"SELECT kind FROM followup WHERE message_id = {record.key}",  # noqa: S608 - a number
    ):  # fmt: skip
        assert not depot.store.connection.execute(statement).fetchall(), statement
    # That somebody was erased is on the record.
    row = depot.store.connection.execute(
        "SELECT action, argument, operator, reason FROM operation ORDER BY id DESC LIMIT 1"
    ).fetchone()
    assert tuple(row) == ("erase", done.tombstone, "op", f"{done.tombstone} asked for it")


def _recipients(depot: Depot, message_id: str) -> Any:
    record = depot.reader.message(parse_id(message_id))
    assert record is not None
    return record.recipients


def test_erasing_twice_finds_nothing(depot: Depot) -> None:
    fill(depot)
    depot.archive.erase(ANN, apply=True)
    again = depot.archive.erase(ANN, apply=True, rewrite=False)
    assert (again.messages, again.recipients, again.orders, again.operations) == (0, 0, 0, 0)
    assert again.complete


def test_the_words_leave_the_index(depot: Depot) -> None:
    depot.sent("zebedee@unheard.example")
    depot.archive.search("zebedee")
    depot.archive.erase("zebedee@unheard.example", apply=True)
    connection = connect(depot.path)
    connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, searchable_fts, row)")
    words = {row[0] for row in connection.execute("SELECT term FROM temp.words")}
    connection.close()
    assert not {"zebedee", "unheard"} & words
    assert b"zebedee" not in octets(depot)


def test_what_is_not_settled_is_refused(depot: Depot) -> None:
    sent = depot.sent(ANN)
    pending = depot.accept(ANN)
    with pytest.raises(
        UsageError, match=rf"1 messages with it are not settled \({format_id(pending.key)} is one\)"
    ):
        depot.archive.erase(ANN, apply=True)
    assert str(_recipients(depot, sent)[0].address) == f"smtp:{ANN}"


def deferred(depot: Depot, *recipients: str, **fields: Any) -> str:
    """Accept a message that waits in the spool, so that it can be recalled."""
    one = depot.accept(*recipients, **fields)
    depot.settle(one, *[State.QUEUED] * len(recipients))
    return format_id(one.key)


def test_what_is_not_settled_is_recalled_when_asked(depot: Depot) -> None:
    to = deferred(depot, ANN)
    sender = deferred(depot, "bob@example.org", "eve@example.org", sender=ANN)
    both = deferred(depot, ANN, "bob@example.org")
    owned = format_id(depot.accept(ANN).key)
    done = depot.archive.erase(ANN, apply=True, cancel=True)
    assert set(done.pending) == {both, owned}
    assert not done.complete
    assert [r.state for r in _recipients(depot, to)] == [State.CANCELLED]
    assert [r.state for r in _recipients(depot, sender)] == [State.CANCELLED] * 2
    assert [r.state for r in _recipients(depot, both)] == [State.CANCELLED, State.QUEUED]
    assert str(_recipients(depot, to)[0].address) == f"smtp:{done.tombstone}"
    assert str(_recipients(depot, both)[0].address) == f"smtp:{ANN}"
    assert depot.reader.content(parse_id(both)) is not None
    depot.ledger_is_exact()


def test_it_is_done_in_bounded_steps(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.privacy.STEP", 10)
    monkeypatch.setattr("postroom.privacy.SCAN", 7)
    for _ in range(35):
        depot.sent(ANN)
    depot.performed = 0
    done = depot.archive.erase(ANN, apply=True, rewrite=False)
    assert depot.performed == 4 + 1
    assert (done.messages, done.rewritten, done.trouble) == (35, False, "")
    assert not depot.archive.erase(ANN).messages


def test_without_rewriting_no_row_has_it(depot: Depot) -> None:
    fill(depot)
    assert depot.archive.erase(ANN, apply=True, rewrite=False).complete
    copy = depot.path.with_name("copy.db")
    depot.store.connection.execute("VACUUM INTO ?", (str(copy),))
    assert ANN.encode() not in copy.read_bytes().lower()


def test_a_reader_in_the_way_is_told_of(depot: Depot) -> None:
    fill(depot)
    with depot.files.snapshot() as connection:
        connection.execute("SELECT count(*) FROM message").fetchone()
        done = depot.archive.erase(ANN, apply=True, timeout=0.5)
    assert done.complete
    assert not done.rewritten
    assert "somebody reads an older state" in done.trouble


def test_time_runs_out(depot: Depot) -> None:
    fill(depot)
    with pytest.raises(SpoolUnavailable, match="took too long"):
        depot.archive.erase(ANN, apply=True, timeout=0.0)


def test_erasing_needs_a_writer_and_an_address(depot: Depot) -> None:
    reading = Archive(depot.path, clock=depot.clock)
    with pytest.raises(UsageError, match="apply: needs a spooler"):
        reading.erase(ANN, apply=True)
    with pytest.raises(InvalidAddress, match="address: "):
        reading.erase("nobody")


def test_other_types_of_addresses(depot: Depot) -> None:
    depot.sent("sms:+15550100", content=b"To: sms:+15550100\r\n\r\n")
    kept = depot.sent("sms:+155501009")
    done = depot.archive.erase("sms:+1 555 0100", apply=True)
    assert done.recipients == 1
    assert str(_recipients(depot, kept)[0].address) == "sms:+155501009"
    assert b"sms:+15550100\r" not in octets(depot)
