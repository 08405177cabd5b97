"""Receivers, events and folders on the command line."""

import json
import re
import select
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from postroom import MemoryReceiver, MemoryTransport, Settings, Spooler
from postroom.actors.protocol import Perform
from postroom.cli import main
from postroom.tickets import Ticket

Run = Callable[..., Result]
SECONDS = 20.0
FACTS = ("subject", "receiver", "folder", "tags")
LETTER = b"From: Ann <ann@sender.example>\nTo: desk@here.example\nSubject: %b\nMessage-ID: <%b@sender.example>\n\nhi\n"
CONFIG = """\
[spool]
path = "spool.db"
sync_interval = "50ms"

[[transport]]
kind = "maildir"
root = "mail"
address_types = ["smtp"]
folder = "{local}"

[[receiver]]
kind = "maildir"
name = "drop"
path = "drop"
interval = "100ms"

[[receiver]]
kind = "smtp"
name = "door"
port = 0
local = ["here.example"]
relay = "networks"
exclusive = false

[[postprocessor]]
kind = "spam"

[[rule]]
receiver = "drop"
folder = "Dropped"
tags = ["drop"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_SPOOL", "POSTROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Run:
    del folder

    def run(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, args)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        if code:
            assert result.stderr.startswith("postroom: ")
        return result

    return run


@pytest.fixture
def spool(folder: Path) -> list[str]:
    """A spool with two messages that came in and one that went out; returns the ids of those that came in."""
    receiver = MemoryReceiver(name="desk")
    with Spooler(
        folder / "spool.db",
        [MemoryTransport()],
        receivers=[receiver],
        settings=Settings(durable_events="all"),
    ) as spooler:
        receiver.put(LETTER % (b"one", b"1"), key="1")
        receiver.put(LETTER % (b"two", b"2"), key="2")
        receipt = spooler.submit(b"From: app@here.example\n\nhi\n", to="memory:ann")
        assert receipt.wait(SECONDS).complete
        cursor = spooler.cursor("billing")
        assert len(cursor.read(2)) == 2
        cursor.commit()
        return [message.id for message in spooler.mail.list(newest_first=False)]


def document(result: Result) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def events(cli: Run, *options: str, code: int = 0) -> Result:
    return cli("events", "--spool", "spool.db", *options, code=code)


# Events


def test_events_are_lines_of_json_with_their_cursors(cli: Run, spool: list[str]) -> None:
    told = lines(events(cli, "--json", "--kinds", "NewMessage"))
    assert [(each["type"], each["subject"], each["message_id"]) for each in told] == [
        ("new_message", "one", spool[0]),
        ("new_message", "two", spool[1]),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", each["at"]) for each in told)
    behind = lines(events(cli, "--json", "--kinds", "new_message", "--after", str(told[0]["cursor"])))
    assert behind == told[1:]
    everything = lines(events(cli, "--json"))
    assert [each["cursor"] for each in everything] == sorted(each["cursor"] for each in everything)
    assert {"message_queued", "recipient_delivered", "new_message"} <= {each["type"] for each in everything}
    some = lines(events(cli, "--json", "--kinds", "RecipientEvent,message_completed"))
    assert {each["type"] for each in some} == {"recipient_delivered", "message_completed"}
    assert lines(events(cli, "--json", "--limit", "1")) == everything[:1]
    assert lines(events(cli, "--json", "--after", "now")) == []


def test_events_for_people_are_one_line_each(cli: Run, spool: list[str]) -> None:
    first, second = events(cli, "--kinds", "NewMessage").stdout.splitlines()
    assert re.match(r"\d+  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  new_message  ", first)
    assert f"message_id={spool[1]}" in second
    assert 'author="Ann <ann@sender.example>"' in second
    assert "seen" not in second


def test_following_ends_when_nothing_comes(cli: Run, spool: list[str]) -> None:
    del spool
    everything = lines(events(cli, "--json"))
    assert lines(events(cli, "--json", "--follow", "--timeout", "0")) == everything
    assert lines(events(cli, "--json", "--follow", "--limit", "2")) == everything[:2]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--kinds", "NewMesage"], 64, "did you mean NewMessage"),
        (["--after", "yesterday"], 64, "--after: 'yesterday' is no cursor"),
        (["--after", "999999"], 64, "--after: 999999 was never given"),
        (["--timeout", "1s"], 64, "add --follow"),
    ],
)
def test_what_cannot_be_asked_of_the_journal(
    cli: Run, spool: list[str], options: list[str], code: int, said: str
) -> None:
    del spool
    assert said in events(cli, *options, code=code).stderr


def test_a_kind_that_the_configuration_does_not_keep_is_named(
    cli: Run, spool: list[str], folder: Path
) -> None:
    del spool
    (folder / "postroom.toml").write_text(CONFIG, encoding="utf-8")
    assert "RecipientDelivered is not kept" in cli("events", "--kinds", "RecipientDelivered", code=64).stderr
    assert len(lines(cli("events", "--json", "--kinds", "NewMessage"))) == 2


def test_events_that_were_forgotten(cli: Run, folder: Path) -> None:
    receiver = MemoryReceiver()
    with Spooler(folder / "spool.db", [], receivers=[receiver]) as spooler:
        receiver.put(LETTER % (b"one", b"1"))
        receiver.put(LETTER % (b"two", b"2"))
        first = next(spooler.events()).cursor
        with spooler.cursor("slow").batch(1):
            pass
        forget_until(spooler, first + 1)
    said = events(cli, "--after", str(first), code=69).stderr
    assert f"events behind {first} are not kept any more; {first + 1} is the earliest" in said
    (slow,) = document(cli("cursors", "--spool", "spool.db", "--json"))["cursors"]
    assert slow == {"name": "slow", "cursor": first, "behind": 1, "expired": True}
    assert "expired" in cli("cursors", "--spool", "spool.db").stdout


def forget_until(spooler: Spooler, cursor: int) -> None:
    """Have the journal forget its events up to one."""
    ticket: Ticket = Ticket()
    engine = spooler.snapshot_source()
    assert engine is not None
    engine.context.handles.store.tell(
        Perform(lambda store: store.events.purge(time.time() + 1, cursor), ticket)
    )
    ticket.wait(SECONDS)


def test_cursors_and_how_far_they_are_behind(cli: Run, spool: list[str]) -> None:
    del spool
    said = document(cli("cursors", "--spool", "spool.db", "--json"))
    (billing,) = said["cursors"]
    assert (billing["name"], billing["expired"]) == ("billing", False)
    assert billing["behind"] == said["last"] - billing["cursor"] == len(lines(events(cli, "--json"))) - 2
    text = cli("cursors", "--spool", "spool.db").stdout
    assert "billing" in text
    assert f"The journal has events 1 to {said['last']}." in text


def test_a_spool_without_cursors_and_receivers(cli: Run, folder: Path) -> None:
    with Spooler(folder / "spool.db"):
        pass
    assert "Nobody has a cursor here.\nThe journal is empty.\n" in cli("cursors", "-s", "spool.db").stdout
    assert cli("receivers", "-s", "spool.db").stdout == "There are no receivers.\n"
    assert events(cli).stdout == ""
    assert "there is none at" in cli("events", "-s", "other.db", code=66).stderr


# Folders


def test_folders_are_made_and_removed(cli: Run, spool: list[str]) -> None:
    (first, *_), place = spool, ["--spool", "spool.db"]
    made = cli("mail", "mkfolder", "Support/Open", "Support/Open", *place).stdout
    assert made.startswith("Support/Open made.")
    assert document(cli("mail", "mkfolder", "Support/Open", "Done", "--json", *place)) == {"made": ["Done"]}
    names = [row["name"] for row in document(cli("mail", "folders", "--json", *place))["folders"]]
    assert names == ["Done", "Inbox", "Support/Open"]
    cli("mail", "move", first, "--to", "Done", *place)
    assert "messages" in cli("mail", "rmfolder", "Done", *place, code=65).stderr
    assert "is a standard one" in cli("mail", "rmfolder", "Inbox", *place, code=65).stderr
    assert cli("mail", "rmfolder", "Support/Open", *place).stdout == "Support/Open removed.\n"
    assert "there is no 'Support/Open'" in cli("mail", "rmfolder", "Support/Open", *place, code=65).stderr
    cli("mail", "move", first, "--to", "Inbox", *place)
    assert document(cli("mail", "rmfolder", "Done", "--json", *place)) == {"removed": ["Done"]}


# Running


class Running:
    """`postroom run` as a process of its own."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.process = process

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        assert found, "not ready in time"
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def logged(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, (self.folder / "run.log").read_text(encoding="utf-8"))
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(
            f"{pattern} was not logged: {(self.folder / 'run.log').read_text(encoding='utf-8')}"
        )

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextmanager
def running(folder: Path) -> Generator[Running]:
    with (folder / "run.log").open("wb") as log, subprocess.Popen(
        [sys.executable, "-c", "from postroom.cli import main; main()", "run", "--json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=log,
    ) as process:  # fmt: skip
        try:
            yield Running(folder, process)
        finally:
            process.kill()


@pytest.fixture
def configured(folder: Path) -> Path:
    (folder / "postroom.toml").write_text(CONFIG, encoding="utf-8")
    for name in ("new", "cur", "tmp"):
        (folder / "drop" / name).mkdir(parents=True)
    return folder


def taken(cli: Run, count: int) -> list[dict[str, Any]]:
    """Wait for so many messages in folders; returns them in the order in which they were taken."""
    deadline = time.monotonic() + SECONDS
    while True:
        found: list[dict[str, Any]] = document(cli("mail", "list", "--all", "--json", "--oldest-first"))[
            "messages"
        ]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count, found
            return found
        time.sleep(0.05)


def test_run_receives_and_says_how_it_goes(cli: Run, configured: Path) -> None:
    with running(configured) as process:
        ready = process.ready()
        assert (ready["transports"], ready["receivers"]) == (["maildir"], ["drop", "door"])
        process.logged(r"INFO +postroom\.run: receiver drop is up")
        listens = process.logged(r"receiver door is up: listens on 127\.0\.0\.1 port (\d+)")
        (configured / "drop/tmp/1.letter").write_bytes(LETTER % (b"dropped", b"1"))
        (configured / "drop/tmp/1.letter").rename(configured / "drop/new/1.letter")
        spam = EmailMessage()
        spam["From"], spam["To"], spam["Subject"] = "eve@sender.example", "desk@here.example", "win"
        spam["Message-ID"], spam["X-Spam-Flag"] = "<2@sender.example>", "YES"
        spam.set_content("hello\n")
        with smtplib.SMTP("127.0.0.1", int(listens[1]), timeout=SECONDS) as client:
            client.send_message(spam, "eve@sender.example", ["desk@here.example", "bob@else.example"])
        junk, dropped = sorted(taken(cli, 2), key=lambda message: message["receiver"])
        assert [junk[name] for name in FACTS] == ["win", "door", "Junk", ["spam"]]
        assert [dropped[name] for name in FACTS] == ["dropped", "drop", "Dropped", ["drop"]]
        assert list((configured / "drop/new").iterdir()) == []
        drop, door = document(cli("receivers", "--json"))["receivers"]
        assert (drop["name"], drop["kind"], drop["exclusive"], drop["messages"]) == (
            "drop",
            "maildir",
            True,
            1,
        )
        assert drop["process"]["pid"] == ready["pid"]
        assert drop["last"] is not None
        assert (door["name"], door["kind"], door["process"], door["messages"]) == ("door", "smtp", None, 1)
        table = cli("receivers").stdout
        assert re.search(rf"drop +maildir +pid {ready['pid']} on ", table)
        assert re.search(r"door +smtp +each process +1 ", table)
        assert {e["folder"] for e in lines(cli("events", "--json", "--kinds", "NewMessage"))} == {
            "Dropped",
            "Junk",
        }
        assert process.end() == 0
    # What the client submitted beside is delivered, or in the spool.
    assert document(cli("stats", "--json"))["ledger"]["accepted"] == 1
    assert "nobody" in cli("receivers").stdout


def test_a_receiver_that_cannot_work_is_logged_and_harms_nobody(cli: Run, configured: Path) -> None:
    (configured / "drop/new").rmdir()
    with running(configured) as process:
        process.ready()
        process.logged(r"WARNING +postroom\.run: receiver drop is down: .*not a Maildir")
        process.logged(r"receiver door is up")
        (configured / "drop/new").mkdir()
        (configured / "drop/new/1.letter").write_bytes(LETTER % (b"late", b"1"))
        process.logged(r"receiver drop is up")
        assert taken(cli, 1)[0]["subject"] == "late"
        assert process.end() == 0


def test_check_names_the_receivers(cli: Run, configured: Path) -> None:
    assert "transports maildir, receivers drop, door" in cli("run", "--check").stdout
    assert document(cli("run", "--check", "--json"))["receivers"] == ["drop", "door"]
    del configured


def test_an_extra_that_is_missing_shows_at_once(
    cli: Run, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del configured
    monkeypatch.setitem(sys.modules, "aiosmtpd", None)
    assert "receiver door: SmtpListener needs aiosmtpd; install it" in cli("run", "--check", code=69).stderr


def test_a_process_that_only_receives_needs_no_transport(cli: Run, configured: Path) -> None:
    text = CONFIG[: CONFIG.index("[[transport]]")] + CONFIG[CONFIG.index("[[receiver]]") :]
    (configured / "postroom.toml").write_text(text, encoding="utf-8")
    assert cli("run", "--check").stdout.rstrip().endswith("spool.db, receivers drop, door")


def test_the_page_about_the_command_line_names_every_command() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| command \| does \|\n(.*?)\n\n", page, re.DOTALL)
    mail = main.commands["mail"]
    assert isinstance(mail, click.Group)
    for name in (*main.commands, *mail.commands):
        assert re.search(rf"[`\s]{name}[`\s]", table), name
