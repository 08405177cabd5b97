"""The pipe transport with real programs: shells that end, hang, fork and fail."""

import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from postroom import Spooler
from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed
from postroom.transports.pipe import PipeTransport, SendmailTransport

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"
PATIENCE = 10.0


def delivery_to(*addresses: str) -> Delivery:
    targets = tuple(Target(index, parse_address(address)) for index, address in enumerate(addresses))
    return Delivery(1 << 40, "app@example.org", targets, CONTENT)


def run(script: str, *addresses: str, **options: Any) -> list[Outcome]:
    """Deliver to a shell that runs `script` with the recipient as $1."""
    transport = PipeTransport(["/bin/sh", "-c", script, "sh", "{recipient}"], **options)
    session = transport.open()
    try:
        outcomes = session.send(delivery_to(*(addresses or ("pipe:ann",))))
    finally:
        session.close()
    return list(outcomes) if isinstance(outcomes, Sequence) else [outcomes]


def is_gone(process: int) -> bool:
    """Return whether a process has ended, waiting for it; a zombie that nobody waits for counts as ended."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_each_recipient_gets_its_own_exit_status() -> None:
    script = 'cat >/dev/null; echo "about $1"; case $1 in gone) exit 67;; busy) exit 75;; esac'
    fine, gone, busy = run(script, "pipe:ann", "pipe:gone", "pipe:busy")
    assert isinstance(fine, Delivered)
    assert isinstance(gone, Failed)
    assert (gone.reply.status, gone.reply.text) == ("5.1.1", "exit status 67 EX_NOUSER: about gone")
    assert isinstance(busy, Deferred)
    assert not busy.in_doubt


def test_the_program_reads_the_message(tmp_path: Path) -> None:
    run('cat >"$1"', f"pipe:{tmp_path}/it", cwd=tmp_path)
    assert (tmp_path / "it").read_bytes() == CONTENT.replace(b"\r\n", b"\n")


def test_a_program_that_does_not_read_does_no_harm() -> None:
    transport = PipeTransport(["true"])
    session = transport.open()
    big = Delivery(1, "", (Target(0, parse_address("pipe:ann")),), b"x" * 1_000_000)
    outcomes = session.send(big)
    assert isinstance(outcomes, Sequence)
    assert isinstance(outcomes[0], Delivered)
    session.close()


def test_only_the_end_of_much_output_is_kept() -> None:
    (outcome,) = run("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 65")
    assert isinstance(outcome, Failed)
    assert len(outcome.reply.text) <= 1000


def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/child; echo $$ >{tmp_path}/self; echo working; wait"
    (outcome,) = run(script, timeout=0.3)
    assert isinstance(outcome, Deferred)
    assert outcome.in_doubt
    assert outcome.reply.status == "4.4.2"
    assert outcome.reply.text == "it took longer than 0.3 seconds: working"
    for name in ("child", "self"):
        assert is_gone(int((tmp_path / name).read_text()))


def test_a_program_that_does_not_heed_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.transports.pipe_process.GRACE", 0.1)
    (outcome,) = run(f"trap '' TERM; echo $$ >{tmp_path}/self; while :; do sleep 0.05; done", timeout=0.3)
    assert isinstance(outcome, Deferred)
    assert is_gone(int((tmp_path / "self").read_text()))


def test_a_program_in_the_background_keeps_nobody_waiting(tmp_path: Path) -> None:
    # Had it been waited for, this would be a time-out.
    (outcome,) = run(f"sleep 1000 & echo $! >{tmp_path}/child; echo done", timeout=20)
    child = int((tmp_path / "child").read_text())
    assert isinstance(outcome, Delivered)
    assert outcome.reply.text == "done"
    os.kill(child, 9)


def test_a_killed_program_is_in_doubt() -> None:
    (outcome,) = run("kill -9 $$")
    assert isinstance(outcome, Deferred)
    assert outcome.in_doubt


def test_what_is_run_after_an_abort_ends_at_once() -> None:
    session = PipeTransport(["sleep", "1000"]).open()
    session.abort()
    with pytest.raises(SessionStale):
        session.send(delivery_to("pipe:ann"))
    session.close()


def test_an_abort_ends_the_runs_for_the_other_recipients_too(tmp_path: Path) -> None:
    session = PipeTransport(["/bin/sh", "-c", f"echo >{tmp_path}/on; sleep 1000"]).open()
    found: list[Outcome] = []

    def courier() -> None:
        outcomes = session.send(delivery_to("pipe:ann", "pipe:bob"))
        assert isinstance(outcomes, Sequence)
        found.extend(outcomes)

    thread = threading.Thread(target=courier)
    thread.start()
    while not (tmp_path / "on").exists():
        time.sleep(0.01)
    session.abort()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    first, second = found
    assert isinstance(first, Deferred)
    assert first.in_doubt
    assert isinstance(second, Deferred)
    assert not second.in_doubt
    session.close()


@pytest.mark.parametrize("command", ["/nowhere/deliver", "/etc/passwd"])
def test_a_program_that_cannot_be_started_is_an_outage(command: str) -> None:
    session = PipeTransport([command]).open()
    with pytest.raises(TransportDown, match="cannot be started"):
        session.send(delivery_to("pipe:ann"))
    session.close()


def test_a_process_without_a_file_handle_left_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("postroom.transports.pipe_process.os.pipe", exhausted)
    with pytest.raises(TransportDown, match="Too many open files"):
        PipeTransport(["true"]).open()


def test_what_was_taken_before_an_outage_is_settled() -> None:
    first, second = run("test $1 = ann || exit 78", "pipe:ann", "pipe:bob")
    assert isinstance(first, Delivered)
    assert isinstance(second, Deferred)
    with pytest.raises(TransportDown, match="EX_CONFIG"):
        run("exit 78")


def test_a_message_that_is_too_large() -> None:
    (outcome,) = run("true", max_size=3)
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.3.4"


def test_an_address_that_looks_like_an_option() -> None:
    (outcome,) = run("true", "pipe:-rf")
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.1.3"


def test_neither_file_handles_nor_children_are_left() -> None:
    transport = PipeTransport(["/bin/sh", "-c", "exit 0"])
    transport.open().close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        session = transport.open()
        session.send(delivery_to("pipe:ann"))
        session.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_program_inherits_no_file_handle() -> None:
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - any handle will do
        os.set_inheritable(file.fileno(), True)
        (outcome,) = run("ls /proc/self/fd | wc -l")
    # Three, and the one by which ls reads the directory.
    assert outcome.reply.text == "4"


SENDMAIL = """#!/bin/sh
echo "$*" >>{log}
cat >/dev/null
for each; do [ "$each" = unknown@example.org ] && {{ echo no $each; exit 67; }}; done
exit 0
"""


def test_who_is_meant_by_a_refusal_shows_one_by_one(tmp_path: Path) -> None:
    program = tmp_path / "sendmail"
    program.write_text(SENDMAIL.format(log=tmp_path / "log"), encoding="ascii")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    session = SendmailTransport(program).open()
    outcomes = session.send(delivery_to("ann@example.org", "unknown@example.org", "bob@example.org"))
    assert isinstance(outcomes, list)
    assert [type(each) for each in outcomes] == [Relayed, Failed, Relayed]
    runs = (tmp_path / "log").read_text().splitlines()
    assert runs[0] == "-i -f app@example.org -- ann@example.org unknown@example.org bob@example.org"
    assert [each.rpartition("-- ")[2] for each in runs[1:]] == [
        "ann@example.org",
        "unknown@example.org",
        "bob@example.org",
    ]
    assert isinstance(session.send(delivery_to("ann@example.org", "bob@example.org")), Relayed)
    session.close()


def test_through_the_spool(tmp_path: Path) -> None:
    transport = PipeTransport(["/bin/sh", "-c", 'cat >"$0/$1"', str(tmp_path), "{recipient}"])
    with Spooler(tmp_path / "spool.db", transports=[transport]) as spooler:
        receipt = spooler.submit(b"From: a@example.org\nSubject: x\n\nhi\n", to=["pipe:ann", "pipe:bob"])
        assert receipt.wait(PATIENCE).succeeded
    assert (tmp_path / "ann").read_bytes().endswith(b"\n\nhi\n")
    assert (tmp_path / "bob").exists()
