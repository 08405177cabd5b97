"""Incoming mail on the command line."""

import json
import mailbox
from collections.abc import Callable
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postroom import MemoryTransport, Spooler
from postroom.cli import main
from postroom.receivers.memory import MemoryReceiver
from tests.support.mail_spool import letter

Run = Callable[..., Result]
ANN = "ann@sender.example"
ASKING = letter(
    f"From: Ann <{ANN}>", "To: bob@here.example", "Subject: Der Plan für Zürich", "Message-ID: <1@sender.example>",
    f"Disposition-Notification-To: <{ANN}>", body="hello\x1b[2J there",
)  # fmt: skip


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_SPOOL", "POSTROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["mail", *args, "--spool", "spool.db"])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return run


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    """A spool with two messages; returns their ids in the order in which they were taken."""
    attached = EmailMessage()
    attached["From"] = "eve@example.com"
    attached["Subject"] = "numbers"
    attached.set_content("see the table\n")
    attached.add_attachment(b"a,b\n", maintype="text", subtype="csv", filename="numbers.csv")
    receiver = MemoryReceiver()
    with Spooler(
        tmp_path / "spool.db", [MemoryTransport(address_types=["smtp"])], receivers=[receiver]
    ) as spooler:
        receiver.put(ASKING, sender=ANN, recipients=["bob@here.example"])
        receiver.put(attached.as_bytes(), sender="")
        return [message.id for message in spooler.mail.list(newest_first=False)]


def document(result: Result) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def listed(result: Result) -> list[str]:
    return [message["id"] for message in document(result)["messages"]]


def test_folders_and_lists(cli: Run, ids: list[str]) -> None:
    assert document(cli("folders", "--json")) == {"folders": [{"name": "Inbox", "total": 2, "unread": 2}]}
    assert cli("folders").stdout.split() == ["FOLDER", "UNREAD", "TOTAL", "Inbox", "2", "2"]
    assert listed(cli("list", "--json")) == ids[::-1]
    assert listed(cli("list", "--json", "--oldest-first", "--limit", "1")) == ids[:1]
    assert listed(cli("list", "--json", "--until", "1h")) == []
    assert listed(cli("list", "--json", "--all", "--since", "1h", "--unread")) == ids[::-1]
    text = cli("list", "inbox", "--limit", "1").stdout
    assert "N--A" in text
    assert "eve@example.com" in text
    assert "There are more than 1" in text
    assert cli("list", "Junk").stdout == "No such messages.\n"
    assert "there is no 'Elsewhere'" in cli("list", "Elsewhere", code=65).stderr


def test_a_message_is_shown(cli: Run, ids: list[str]) -> None:
    text = cli("show", ids[0]).stdout
    assert "Der Plan für Zürich" in text
    assert "receipt  wanted" in text
    # What others wrote does not get to the terminal.
    assert "\x1b" not in text
    assert "hello\N{REPLACEMENT CHARACTER}[2J there" in text
    assert "attached  numbers.csv, text/csv, 4" in cli("show", ids[1]).stdout
    shown = document(cli("show", ids[1], "--json"))
    assert shown["text"] == "see the table\n"
    assert shown["attached"] == [
        {"name": "numbers.csv", "content_type": "text/csv", "size": 4, "inline": False}
    ]
    assert cli("show", ids[0], "--content").stdout_bytes == ASKING
    assert not document(cli("show", ids[0], "--json"))["seen"]
    assert "in no folder" in cli("show", "0" * 13, code=66).stderr


def test_reading_moving_deleting(cli: Run, ids: list[str]) -> None:
    result = cli("read", *ids)
    assert result.stdout == "2 messages marked as read.\n"
    assert f"the sender of {ids[0]} is not told: nobody agreed to it" in result.stderr
    assert listed(cli("list", "--json", "--unread")) == []
    assert cli("read", "--unread", ids[1]).stdout == "1 messages marked as not read.\n"
    assert document(cli("move", *ids, "--to", "Done", "--json"))["changed"] == ids
    assert listed(cli("list", "Done", "--json")) == ids[::-1]
    assert cli("delete", ids[1]).stdout == "1 messages deleted.\n"
    assert listed(cli("list", "Trash", "--json")) == [ids[1]]
    assert document(cli("delete", "--permanently", *ids, "--json"))["changed"] == ids
    assert listed(cli("list", "--all", "--json")) == []
    assert "in no folder" in cli("delete", ids[0], code=66).stderr
    assert "names no folder" in cli("move", ids[0], "--to", "..", code=65).stderr


def test_a_receipt_is_sent_by_whoever_delivers(cli: Run, ids: list[str], tmp_path: Path) -> None:
    # Without a configuration this process knows no transport that could take it.
    done = document(cli("read", ids[0], "--receipt", "--json"))
    assert done["receipts"] == []
    assert "cannot be sent" in done["withheld"][ids[0]]
    (tmp_path / "postroom.toml").write_text(
        '[spool]\npath = "spool.db"\n[[transport]]\nkind = "maildir"\nroot = "boxes"\naddress_types = ["smtp"]\n'
    )
    done = document(cli("read", ids[0], "--receipt", "--json", "--config", "postroom.toml"))
    assert (done["changed"], done["receipts"]) == (ids[:1], ids[:1])
    queue = CliRunner().invoke(main, ["queue", "--json", "--spool", "spool.db"])
    (entry,) = json.loads(queue.stdout)["recipients"]
    assert entry["address"] == f"smtp:{ANN}"


def test_search(cli: Run, ids: list[str]) -> None:
    found = document(cli("search", "--json", "zurich", "ann@"))
    assert [message["id"] for message in found["messages"]] == [ids[0]]
    assert found["complete"]
    assert "numbers" in cli("search", "table", "--folder", "Inbox").stdout
    assert cli("search", "nowhere").stdout == "Nothing found.\n"
    assert "no word to look for" in cli("search", "***", code=65).stderr


def test_export(cli: Run, ids: list[str], tmp_path: Path) -> None:
    assert cli("export", "--to", "all.mbox").stderr.startswith("2 messages")
    with closing(mailbox.mbox(tmp_path / "all.mbox", create=False)) as box:
        assert len(box) == 2
    assert "there is a file" in cli("export", "--to", "all.mbox", code=65).stderr
    assert document(cli("export", "--to", "all.mbox", "--force", "--json"))["messages"] == 2
    assert cli("export", "--to", "-", "--format", "eml", ids[0]).stdout_bytes == ASKING
    assert (
        document(cli("export", "--to", "box", "--format", "maildir", "--folder", "Inbox", "--json"))[
            "messages"
        ]
        == 2
    )
    assert len(list((tmp_path / "box" / "new").iterdir())) == 2
    assert "use one or the other" in cli("export", ids[0], "--folder", "Inbox", "--to", "x", code=64).stderr
    assert "gets the messages" in cli("export", "--to", "-", "--json", code=64).stderr
    assert not (tmp_path / "x").exists()


def test_erased_mail(cli: Run, ids: list[str]) -> None:
    result = CliRunner().invoke(main, ["erase", ANN, "--apply", "--json", "--spool", "spool.db"])
    assert result.exit_code == 0, result.output
    assert document(result)["inbound"] == 1
    assert "octets of" in cli("show", ids[0], code=66).stderr
    assert cli("export", "--to", "x", "--json", ids[0], code=1)
