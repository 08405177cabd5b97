"""Sent items on the command line."""

import json
import mailbox
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postroom import MemoryTransport, Settings, Spooler
from postroom.cli import main
from postroom.delivery import Delivery
from postroom.outcomes import Delivered, Failed, Reply
from postroom.transports.base import Outcomes

Run = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_SPOOL", "POSTROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [*args, "--spool", "spool.db"])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return run


def answer(delivery: Delivery) -> Outcomes:
    if delivery.targets[0].address.value.startswith("bob"):
        return Failed(Reply("no such mailbox", "5.1.1", 550, "mx.example.org", "TLSv1.3"))
    return Delivered(Reply("stored", "2.0.0", 250, "mx.example.org", "TLSv1.3"))


@pytest.fixture
def sent(tmp_path: Path) -> dict[str, str]:
    """A spool with three settled messages; returns their ids."""
    transport = MemoryTransport(address_types=["smtp"], answer=answer)
    spooler = Spooler(tmp_path / "spool.db", [transport], settings=Settings(keep_content=3600), reports=None)
    ids: dict[str, str] = {}
    with spooler:
        for name, sender in (
            ("ann", "app@example.com"),
            ("bob", "app@example.com"),
            ("eve", "other@example.com"),
        ):
            octets = f"From: {sender}\r\nSubject: Grüße an {name}\r\n\r\nhello\r\n".encode()
            receipt = spooler.submit(octets, sender=sender, to=[f"{name}@example.org"])
            assert receipt.wait(30).complete
            ids[name] = receipt.id
    return ids


def document(result: Result) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def listed(result: Result) -> list[str]:
    return [message["id"] for message in document(result)["messages"]]


def test_sent_lists_what_is_settled(cli: Run, sent: dict[str, str]) -> None:
    assert listed(cli("sent", "--json")) == [sent["eve"], sent["bob"], sent["ann"]]
    assert listed(cli("sent", "--json", "--oldest-first", "--limit", "1")) == [sent["ann"]]
    assert listed(cli("sent", "--json", "--state", "failed")) == [sent["bob"]]
    assert listed(cli("sent", "--json", "--sender", "other@example.com", "--since", "1h")) == [sent["eve"]]
    assert listed(cli("sent", "--json", "--until", "1h")) == []
    text = cli("sent", "--limit", "2").stdout
    assert "eve@example.org" in text
    assert "Grüße an bob" in text
    assert "There are more than 2" in text
    assert cli("sent", "--sender", "<>").stdout == "No such messages.\n"


def test_search_finds_words_and_parts_of_addresses(cli: Run, sent: dict[str, str]) -> None:
    first = document(cli("search", "--json", "gruße", "ann"))
    assert [message["id"] for message in first["messages"]] == [sent["ann"]]
    assert first["complete"]
    assert first["messages"][0]["recipients"][0]["state"] == "delivered"
    assert "bob@example.org" in cli("search", "bob@exam").stdout
    assert cli("search", "nobody").stdout == "Nothing found.\n"
    assert "no word to look for" in cli("search", "***", code=65).stderr


def test_export_writes_mail_for_other_programs(cli: Run, sent: dict[str, str], tmp_path: Path) -> None:
    result = cli("export", "--to", "sent.mbox")
    assert result.stderr.startswith("3 messages")
    with closing(mailbox.mbox(tmp_path / "sent.mbox", create=False)) as box:
        assert len(box) == 3
    assert "there is a file" in cli("export", "--to", "sent.mbox", code=65).stderr
    assert document(cli("export", "--to", "sent.mbox", "--force", "--json"))["messages"] == 3
    cli("export", sent["ann"], "--to", "mails", "--format", "eml")
    assert [each.name for each in (tmp_path / "mails").iterdir()] == [f"{sent['ann']}.eml"]
    assert cli("export", "--to", "-", sent["bob"]).stdout_bytes.startswith(b"From app@example.com ")
    assert (
        "use one or the other" in cli("export", sent["bob"], "--sender", "x@y", "--to", "x", code=64).stderr
    )
    assert "no message" in cli("export", "0" * 13, "--to", "x", code=66).stderr
    assert not (tmp_path / "x").exists()


def test_erase_tells_before_it_does(cli: Run, sent: dict[str, str]) -> None:
    text = cli("erase", "ann@example.org").stdout
    assert "1  messages in which it stands, 0 of them from it" in text
    assert "Nothing was changed" in text
    done = document(cli("erase", "ann@example.org", "--apply", "--operator", "eve", "--json"))
    assert (done["applied"], done["rewritten"], done["pending"]) == (True, True, [])
    shown = document(cli("show", sent["ann"], "--json"))
    assert shown["recipients"][0]["address"] == f"smtp:{done['tombstone']}"
    assert not shown["content_kept"]
    assert document(cli("erase", "ann@example.org", "--json"))["messages"] == 0
    result = cli("export", sent["ann"], "--to", "-", code=1)
    assert "the octets of 1 are gone" in result.stderr
    assert document(cli("stats", "--audit", "--json"))["ledger"]["imbalance"] == 0


def test_erase_leaves_what_is_not_settled(cli: Run, tmp_path: Path) -> None:
    octets = b"From: app@example.com\r\n\r\nhello\r\n"
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport(address_types=["smtp"])], deliver=False)
    with spooler:
        to = ["ann@example.org", "bob@example.org"]
        both = spooler.submit(octets, to=to, hold=True).id
        alone = spooler.submit(octets, to=to[:1], hold=True).id
    assert "2 messages with it are not settled" in cli("erase", "ann@example.org", "--apply", code=65).stderr
    result = cli("erase", "ann@example.org", "--apply", "--cancel", code=75)
    assert f"not settled: {both}" in result.stdout
    states = [each["state"] for each in document(cli("show", both, "--json"))["recipients"]]
    assert states == ["cancelled", "held"]
    assert document(cli("show", alone, "--json"))["recipients"][0]["state"] == "cancelled"


def test_show_tells_the_whole_history(cli: Run, sent: dict[str, str]) -> None:
    text = cli("show", sent["ann"]).stdout
    assert "history" in text
    assert "delivered by memory, took 0.0 s, TLSv1.3: mx.example.org: 250 2.0.0 stored" in text
    (recipient,) = document(cli("show", sent["bob"], "--json"))["recipients"]
    (entry,) = recipient["history"]
    assert (entry["outcome"], entry["reply"]["tls"], entry["reply"]["remote"]) == (
        "failed",
        "TLSv1.3",
        "mx.example.org",
    )
    assert recipient["explanation"]["gate"] == "settled"


def test_explain_without_a_configuration(cli: Run, tmp_path: Path) -> None:
    spooler = Spooler(tmp_path / "spool.db", [MemoryTransport(address_types=["smtp"])], deliver=False)
    with spooler:
        one = spooler.submit(b"From: app@example.com\r\n\r\nhello\r\n", to="ann@example.org").id
    assert "memory is stopped: no process delivers now" in cli("show", one).stdout
