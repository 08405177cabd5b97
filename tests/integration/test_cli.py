"""The command line as people and programs use it."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postroom import MemoryTransport, Spooler, SpoolView, State
from postroom.cli import main
from postroom.cli.output import Column, ago, cut, render, size, span, width
from postroom.delivery import Delivery
from postroom.outcomes import Deferred, Delivered, Reply
from postroom.transports.base import Outcomes

MESSAGE = "From: app@example.org\nTo: ann@example.org\nBcc: bob@example.org\nSubject: Grüße 漢字\n\nhello\n".encode()
CONFIG = """\
[spool]
path = "spool.db"
sync_interval = "50ms"
[metrics]
port = 0
[[transport]]
kind = "maildir"
root = "mail"
[[transport]]
kind = "maildir"
name = "local"
root = "mail"
address_types = ["smtp"]
folder = "{local}"
[[transport]]
kind = "smtp"
name = "nowhere"
host = "127.0.0.1"
port = 1
security = "none"
address_types = []
patterns = ["*@down.example"]
"""
SECONDS = 20.0

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "postroom.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_SPOOL", "POSTROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Run:
    del folder

    def run(*args: str, code: int = 0, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(main, args, input=stdin)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        if code not in {0, 1}:
            assert result.stderr.startswith("postroom: ")
            assert "Traceback" not in result.output
        return result

    return run


def document(result: Result) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


class Process:
    """`postroom run` as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with (folder / "run.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from postroom.cli import main; main()", "run", *options],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def ready(self) -> bytes:
        assert self.process.stdout is not None
        found, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        assert found, "not ready in time"
        return self.process.stdout.readline()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*options: str) -> Process:
        started.append(Process(folder, *options))
        return started[-1]

    yield begin
    for process in started:
        process.close()


# Submitting


def test_send_stores_the_message_and_prints_its_id(cli: Run) -> None:
    result = cli("send", "maildir:ann", stdin=MESSAGE)
    message_id = result.stdout.strip()
    assert re.fullmatch(r"[0-9A-Z]{13}", message_id)
    shown = document(cli("show", message_id, "--json"))
    assert shown["sender"] == "app@example.org"
    assert shown["subject"] == "Grüße 漢字"
    (recipient,) = shown["recipients"]
    assert recipient["address"] == "maildir:ann"
    assert recipient["transport"] == "maildir"
    assert recipient["state"] == "queued"
    assert recipient["explanation"]["rule"] == "maildir is stopped: no process delivers now"
    assert b"\r\n\r\nhello\r\n" in cli("show", message_id, "--content").stdout_bytes


def test_send_t_takes_the_recipients_from_the_header_and_drops_bcc(cli: Run) -> None:
    sent = document(cli("send", "-t", "-i", "-oi", "--json", stdin=MESSAGE))
    assert [each["address"] for each in sent["recipients"]] == [
        "smtp:ann@example.org",
        "smtp:bob@example.org",
    ]
    assert b"Bcc" not in cli("show", sent["id"], "--content").stdout_bytes


def test_send_composes(cli: Run, folder: Path) -> None:
    (folder / "report.csv").write_bytes(b"a,b\n")
    sent = cli(
        "send", "-f", "app@example.org", "--subject", "Report", "--text", "-", "--attach", "report.csv",
        "ann@example.org", "maildir:ann", stdin="Grüße\n".encode(),
    )  # fmt: skip
    octets = cli("show", sent.stdout.strip(), "--content").stdout_bytes
    assert b"To: ann@example.org\r\n" in octets
    assert b'filename="report.csv"' in octets
    assert b"maildir:" not in octets


def test_send_times_priority_and_hold(cli: Run) -> None:
    options = [
        "--send-at",
        "2h",
        "--expires",
        "2100-01-01T00:00:00Z",
        "--priority",
        "urgent",
        "--report",
        "never",
    ]
    later = document(cli("send", *options, "--json", "maildir:ann", stdin=MESSAGE))
    shown = document(cli("show", later["id"], "--json"))
    assert shown["expires"] == "2100-01-01T00:00:00.000Z"
    assert shown["priority"] == 1
    assert shown["report"] == []
    assert shown["recipients"][0]["explanation"]["gate"] == "send_at"
    held = document(cli("send", "--hold", "--json", "maildir:ann", stdin=MESSAGE))
    assert held["recipients"][0]["state"] == "held"


def test_send_twice_with_a_key_adds_nothing(cli: Run) -> None:
    first = cli("send", "--idempotency-key", "k", "maildir:ann", stdin=MESSAGE)
    again = cli("send", "--idempotency-key", "k", "maildir:ann", stdin=MESSAGE)
    assert again.stdout == first.stdout
    assert "nothing was added" in again.stderr
    other = cli("send", "--idempotency-key", "k", "maildir:bob", stdin=MESSAGE, code=65)
    assert "another payload" in other.stderr
    assert document(cli("stats", "--json"))["ledger"]["accepted"] == 1


def test_send_says_more_about_the_envelope(cli: Run) -> None:
    options = ["--tenant", "acme", "--ordering-key", "k", "--ret", "headers", "--envid", "X-1"]
    window = ["--window", "Mo 09:00-17:00 UTC"]
    sent = cli("send", *options, *window, "maildir:ann", stdin=MESSAGE)
    shown = cli("show", sent.stdout.strip()).stdout
    assert "acme" in shown
    assert "X-1" in shown
    assert "window" in shown
    wrong = cli("send", "--window", "Funday", "maildir:ann", stdin=MESSAGE, code=65)
    assert "window" in wrong.stderr


@pytest.mark.parametrize(
    ("args", "stdin", "code", "said"),
    [
        (["send"], MESSAGE, 64, "nobody is named"),
        (["send", "-t", "maildir:a"], MESSAGE, 64, "recipients are given as arguments too"),
        (["send", "--subject", "x", "maildir:a"], b"", 64, "--sender: is missing"),
        (["send", "--subject", "x", "-f", "a@b.cd", "--file", "m", "maildir:a"], b"", 64, "stands beside"),
        (["send", "--send-at", "tomorrow", "maildir:a"], MESSAGE, 64, "'tomorrow' is not a time"),
        (["send", "maildir:a"], b"", 66, "message: is empty"),
        (["send", "--file", "none.eml", "maildir:a"], b"", 66, "none.eml cannot be read"),
        (["send", "-c", "none.toml", "maildir:a"], MESSAGE, 78, "none.toml: cannot be read"),
        (["send", "-s", "none.db", "maildir:a"], MESSAGE, 66, "there is none at none.db"),
        (["send", "no address"], MESSAGE, 65, "to[0]"),
        (["send", "fax:+1"], MESSAGE, 65, "no transport handles addresses of type 'fax'"),
        (["send", "maildir:a"], b"From: a@b.cd\n\n\0", 65, "holds NUL"),
        (["send", "--expires", "2000-01-01", "maildir:a"], MESSAGE, 65, "in the past"),
        (["show", "0000000000001"], b"", 66, "there is none at"),
        (["queue", "--state", "wating"], b"", 64, "'wating'"),
        (["nonsense"], b"", 64, "No such command"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(
    cli: Run, args: list[str], stdin: bytes, code: int, said: str
) -> None:
    result = cli(*args, stdin=stdin, code=code)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_file_that_is_no_spool_is_said_to_be_none(cli: Run, folder: Path) -> None:
    (folder / "other.db").write_text(
        "not a database, and long enough to be read as a header", encoding="utf-8"
    )
    assert "spool" in cli("queue", "-s", "other.db", code=66).stderr
    assert (
        "other.db"
        in cli("send", "-s", "other.db", "--transport", "x", "maildir:a", stdin=MESSAGE, code=73).stderr
    )


def test_a_spool_that_cannot_be_made(cli: Run, folder: Path) -> None:
    text = CONFIG.replace('"spool.db"', '"postroom.toml/spool.db"')
    (folder / "postroom.toml").write_text(text, encoding="utf-8")
    assert "cannot open the spool" in cli("send", "maildir:a", stdin=MESSAGE, code=73).stderr


def test_debug_shows_the_traceback(cli: Run) -> None:
    result = CliRunner().invoke(main, ["--debug", "queue"])
    assert result.exit_code == 66
    assert "Traceback" in result.stderr
    assert cli("queue", code=66).stderr.count("\n") == 1


# Looking and acting


def test_queue_lists_what_waits(cli: Run) -> None:
    for number in range(3):
        cli("send", f"maildir:person{number}", stdin=MESSAGE)
    cli("send", "--hold", "ann@down.example", stdin=MESSAGE)
    listed = cli("queue").stdout
    assert "TRANSPORT" in listed
    assert "maildir:person2" in listed
    assert "stopped: no process delivers now" in listed
    found = document(cli("queue", "--json", "--limit", "2"))
    assert [entry["address"] for entry in found["recipients"]] == ["maildir:person0", "maildir:person1"]
    assert found["more"] is True
    assert found["ledger"]["states"]["queued"] == 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["recipients"][0]["created"])
    held = document(cli("queue", "--json", "--state", "held"))
    assert [entry["transport"] for entry in held["recipients"]] == ["nowhere"]
    assert document(cli("queue", "--json", "--transport", "local"))["recipients"] == []


def test_hold_release_retry_and_cancel(cli: Run) -> None:
    message_id = cli("send", "maildir:ann", "maildir:bob", stdin=MESSAGE).stdout.strip()
    assert cli("hold", message_id, "--recipient", "1").stdout == f"{message_id} 1 maildir:bob held\n"
    assert document(cli("release", message_id, "--json"))["changed"] == [
        {"recipient": 1, "address": "maildir:bob"}
    ]
    assert "due now" in cli("retry", message_id).stdout
    assert "give 0 to 1" in cli("cancel", message_id, "-r", "7", code=64).stderr
    assert cli("cancel", message_id).stdout.count("cancelled") == 2
    assert "nothing to cancel" in cli("cancel", message_id, code=69).stderr
    assert "holds no message" in cli("cancel", "0000000000001", code=66).stderr
    assert "is not a message id" in cli("cancel", "x", code=66).stderr
    stats = document(cli("stats", "--audit", "--json"))
    assert stats["ledger"]["states"]["cancelled"] == 2
    assert stats["ledger"]["imbalance"] == 0
    assert stats["audit"] == []
    assert "settled" in cli("show", message_id).stdout


def test_what_another_process_has_in_hand_is_in_transit(cli: Run, folder: Path) -> None:
    ended = threading.Event()

    def hang(_: Delivery) -> Outcomes:
        ended.wait(SECONDS)
        return Delivered()

    with Spooler(folder / "spool.db", [MemoryTransport(answer=hang)]) as spooler:
        receipt = spooler.submit(MESSAGE, to="memory:ann")
        result = cli("cancel", receipt.id, code=75)
        assert f"process {os.getpid()}" in result.stderr
        assert "try again" in result.stderr
        assert "process" in cli("show", receipt.id).stdout
        ended.set()


def test_a_spool_without_a_configuration(cli: Run, folder: Path) -> None:
    (folder / "postroom.toml").unlink()
    assert "add --config FILE or --spool PATH" in cli("queue", code=64).stderr
    with Spooler("spool.db", [MemoryTransport(), MemoryTransport(name="other")]) as spooler:
        until = time.monotonic() + SECONDS
        with SpoolView("spool.db") as view:
            while len(view.standings()) < 2:
                assert time.monotonic() < until
                time.sleep(0.01)
        assert "other" in cli("send", "-s", "spool.db", "memory:ann", stdin=MESSAGE, code=64).stderr
        options = ["-s", "spool.db", "--transport", "other", "--wait", "20s"]
        sent = cli("send", *options, "memory:ann", stdin=MESSAGE)
        assert "delivered" in sent.stdout
        assert spooler.tally().states["other", State.DELIVERED] == 1


def test_history_and_reasons_are_shown(cli: Run, folder: Path) -> None:
    answer = Deferred(Reply("mailbox is full\x1b[31m", "4.2.2", 452, "mx.example.org"))
    with Spooler(folder / "spool.db", [MemoryTransport(answer=lambda _: answer)]) as spooler:
        receipt = spooler.submit(MESSAGE, to="memory:ann")
        until = time.monotonic() + SECONDS
        while spooler.status(receipt.id).recipients[0].attempts == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
    shown = cli("show", receipt.id).stdout
    assert "deferred by memory" in shown
    assert "mx.example.org: 452 4.2.2 mailbox is full" in shown
    assert "\x1b" not in shown
    (recipient,) = document(cli("show", receipt.id, "--json"))["recipients"]
    assert recipient["explanation"]["gate"] == "no_transport"
    assert recipient["history"][0]["reply"]["code"] == 452


# Running


def test_run_delivers_what_send_submits_and_ends_at_sigterm(
    cli: Run, folder: Path, start: Callable[..., Process]
) -> None:
    before = cli("send", "maildir:early", stdin=MESSAGE).stdout.strip()
    process = start("--json")
    ready = json.loads(process.ready())
    assert ready["ready"] is True
    assert ready["pid"] == process.process.pid
    with urllib.request.urlopen(ready["metrics"], timeout=10) as answer:  # noqa: S310 - our own endpoint
        assert b"postroom_ledger_imbalance 0.0" in answer.read()
    sent = cli("send", "--wait", "20s", "maildir:ann", "bob@example.org", stdin=MESSAGE)
    assert sent.stdout.count("delivered") == 2
    assert len(list((folder / "mail/bob/new").iterdir())) == 1
    assert len(list((folder / "mail/early/new").iterdir())) == 1
    assert document(cli("show", before, "--json"))["recipients"][0]["state"] == "delivered"
    assert "gone" in cli("show", before, "--content", code=66).stderr
    stats = document(cli("stats", "--json"))
    assert [instance["pid"] for instance in stats["instances"]] == [process.process.pid]
    assert stats["ledger"]["pending"] == 0
    assert process.end() == 0
    assert "stopped" in (folder / "run.log").read_text(encoding="utf-8")
    assert document(cli("stats", "--json"))["instances"] == []


def test_run_shows_an_outage_and_stops_in_good_order_in_the_middle_of_it(
    cli: Run, start: Callable[..., Process]
) -> None:
    process = start("--log-format", "json")
    process.ready()
    cli("send", "ann@down.example", stdin=MESSAGE)
    until = time.monotonic() + SECONDS
    while True:
        found = document(cli("queue", "--json"))
        (nowhere,) = [each for each in found["transports"] if each["name"] == "nowhere"]
        if nowhere["status"] == "parked":
            break
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "refused" in nowhere["reason"]
    assert "parked" in cli("queue").stdout
    assert process.end(signal.SIGINT) == 0
    lines = Path("run.log").read_text(encoding="utf-8").splitlines()
    assert any("parked" in json.loads(line)["message"] for line in lines)
    assert found["ledger"]["states"]["queued"] == 1


def test_a_second_signal_hurries(folder: Path, cli: Run, start: Callable[..., Process]) -> None:
    # A server that accepts the connection and never greets: the attempt hangs.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(SECONDS)
        port = silent.getsockname()[1]
        text = CONFIG.replace("port = 1\n", f"port = {port}\n")
        (folder / "postroom.toml").write_text(text, encoding="utf-8")
        process = start("--stop-timeout", "60s")
        process.ready()
        cli("send", "ann@down.example", stdin=MESSAGE)
        connection, _ = silent.accept()
        with connection:
            began = time.monotonic()
            process.process.send_signal(signal.SIGTERM)
            until = time.monotonic() + SECONDS
            while "stopping" not in (folder / "run.log").read_text(encoding="utf-8"):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert process.end() == 75
            assert time.monotonic() - began < 30
    assert document(cli("stats", "--json"))["ledger"]["pending"] == 1


def test_check_only_looks(cli: Run, folder: Path) -> None:
    assert "postroom.toml is good" in cli("run", "--check").stdout
    assert document(cli("run", "--check", "--json"))["transports"] == ["maildir", "local", "nowhere"]
    assert not (folder / "spool.db").exists()
    (folder / "postroom.toml").write_text(CONFIG + 'usernme = "x"\n', encoding="utf-8")
    assert "did you mean username?" in cli("run", "--check", code=78).stderr
    (folder / "postroom.toml").write_text(
        CONFIG + 'username = "x"\npassword_env = "POSTROOM_TEST_UNSET"\n', encoding="utf-8"
    )
    assert "POSTROOM_TEST_UNSET" in cli("run", "--check", code=78).stderr
    (folder / "postroom.toml").unlink()
    assert "--config" in cli("run", code=64).stderr


def test_a_metrics_port_that_is_taken(cli: Run, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = CONFIG.replace("port = 0", f"port = {taken.getsockname()[1]}")
        (folder / "postroom.toml").write_text(text, encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "-c", "from postroom.cli import main; main()", "run"],
            cwd=folder, capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    assert process.returncode == 69
    assert b"choose a free port" in process.stderr
    del cli


# Help, completion, output


def test_every_command_has_help_with_an_example(cli: Run) -> None:
    assert cli("--version").stdout.startswith("postroom ")
    for name in main.commands:
        text = cli(name, "--help").stdout
        assert f"postroom {name}" in text
        assert "Examples:" in text


@pytest.mark.parametrize(
    ("shell", "holds"), [("bash", "complete "), ("zsh", "#compdef postroom"), ("fish", "--command postroom")]
)
def test_completion_prints_a_script(cli: Run, shell: str, holds: str) -> None:
    script = cli("completion", shell).stdout
    assert holds in script
    assert "_POSTROOM_COMPLETE" in script


def test_a_reader_that_has_read_enough_is_no_error(cli: Run, folder: Path) -> None:
    for number in range(30):
        cli("send", f"maildir:{number}", stdin=MESSAGE)
    python = f"{sys.executable} -c 'from postroom.cli import main; main()'"
    done = subprocess.run(
        ["sh", "-c", f"({python} queue; echo $? >&2) | true"],
        cwd=folder, capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.stderr == b"1\n"


def test_times_and_sizes_for_people() -> None:
    assert [span(seconds) for seconds in (0, 59.9, 60, 7200, 3 * 86400)] == ["0s", "59s", "1m", "2h", "3d"]
    assert ago(100.0, 340.0) == "4m ago"
    assert ago(340.0, 100.0) == "in 4m"
    assert [size(octets) for octets in (0, 999, 1000, 1536, 150_000, 5 << 20)] == [
        "0",
        "999",
        "1.0K",
        "1.5K",
        "146K",
        "5.0M",
    ]


def test_a_table_keeps_to_the_width_of_the_terminal() -> None:
    columns = [
        Column("ID"),
        Column("TO", least=6),
        Column("N", right=True),
        Column("NOTE", least=4, optional=True),
    ]
    rows = [["1", "漢字漢字漢字漢字", "7", "a long remark\n"], ["22", "ann", "1000", ""]]
    whole = render(columns, rows, None)
    assert whole[1].endswith("a long remark\N{REPLACEMENT CHARACTER}")
    for available in range(20, 60):
        assert max(map(width, render(columns, rows, available))) <= available
    assert "NOTE" not in render(columns, rows, 20)[0]
    assert cut("漢字漢字", 5) == "漢字…"
