"""The mbox transport on a real file system, beside other programs and after kill -9."""

import contextlib
import errno
import mailbox
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome
from postroom.transports.base import Session
from postroom.transports.mbox import MboxTransport

CONTENT = b"Subject: hi\r\n\r\nFrom here on\r\n>From there\r\nhello\r\n"
PATIENCE = 20.0


def delivery_to(*addresses: str, key: int = 1 << 40) -> Delivery:
    targets = tuple(Target(index, parse_address(address)) for index, address in enumerate(addresses))
    return Delivery(key, "app@example.org", targets, CONTENT)


def again(delivery: Delivery) -> Delivery:
    return replace(delivery, targets=tuple(replace(each, in_doubt=True) for each in delivery.targets))


def send(session: Session, delivery: Delivery) -> list[Outcome]:
    outcomes = session.send(delivery)
    assert isinstance(outcomes, Sequence)
    return list(outcomes)


def stored(file: Path) -> list[mailbox.mboxMessage]:
    box = mailbox.mbox(file, create=False)
    try:
        return list(box)
    finally:
        box.close()


@contextlib.contextmanager
def other_program(script: str, *arguments: str) -> Generator["subprocess.Popen[str]"]:
    """Run a Python program beside us until the block ends; it has said something before the block begins."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it did not start"
        try:
            yield process
        finally:
            process.kill()


def test_a_standard_reader_finds_the_message(tmp_path: Path) -> None:
    session = MboxTransport(tmp_path).open()
    first = delivery_to("mbox:users/ann")
    assert isinstance(send(session, first)[0], Delivered)
    assert isinstance(send(session, delivery_to("mbox:users/ann", key=2 << 40))[0], Delivered)
    file = tmp_path / "users" / "ann"
    one, other = stored(file)
    assert one.get_from().startswith("app@example.org ")
    assert one["Return-Path"] == "<app@example.org>"
    assert one["Delivered-To"] == "mbox:users/ann"
    assert one["Subject"] == "hi"
    assert other["X-Postroom-Delivery"] != one["X-Postroom-Delivery"]
    assert b"\n>From here on\n>>From there\nhello\n\nFrom app@" in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [each.name for each in file.parent.iterdir()] == ["ann"]


def test_a_second_attempt_stores_nothing_twice(tmp_path: Path) -> None:
    session = MboxTransport(tmp_path).open()
    delivery = delivery_to("mbox:ann", "mbox:ann")
    send(session, delivery)
    assert [each.reply.text for each in send(session, again(delivery))] == [
        "stored by an earlier attempt"
    ] * 2
    assert len(stored(tmp_path / "ann")) == 2


KILLED = """
import os, signal, sys
from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.transports.mbox import MboxTransport
real, left = os.write, int(sys.argv[2])
def write(handle, octets):
    if os.readlink(f"/proc/self/fd/{handle}") != sys.argv[1] + "/ann":
        return real(handle, octets)
    global left
    real(handle, octets[:left])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = write
delivery = Delivery(1 << 40, "app@example.org", (Target(0, parse_address("mbox:ann")),),
                    b"Subject: hi\\r\\n\\r\\nFrom here on\\r\\n>From there\\r\\nhello\\r\\n")
MboxTransport(sys.argv[1]).open().send(delivery)
"""


@pytest.mark.parametrize(("written", "arrived"), [(100, False), (100_000, True)])
def test_half_a_message_after_kill_9_is_taken_back(tmp_path: Path, written: int, *, arrived: bool) -> None:
    session = MboxTransport(tmp_path).open()
    send(session, delivery_to("mbox:ann", key=3 << 40))
    before = (tmp_path / "ann").read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(written)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "ann.lock").exists()
    assert (tmp_path / "ann.postroom").exists()
    delivery = delivery_to("mbox:ann")
    assert session.was_delivered(delivery, delivery.targets[0]) is arrived
    if not arrived:
        assert (tmp_path / "ann").read_bytes() == before
    assert isinstance(send(session, again(delivery))[0], Delivered)
    # The octets are those of two ordinary deliveries.
    plain = MboxTransport(tmp_path / "plain").open()
    send(plain, delivery_to("mbox:ann", key=3 << 40))
    send(plain, delivery)
    assert (tmp_path / "ann").read_bytes() == (tmp_path / "plain" / "ann").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ann", "plain"]


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_an_fcntl_lock_of_another_program_is_waited_for(tmp_path: Path) -> None:
    send(MboxTransport(tmp_path).open(), delivery_to("mbox:ann"))
    impatient = MboxTransport(tmp_path, lock_timeout=0.1).open()
    patient = MboxTransport(tmp_path, lock_timeout=PATIENCE).open()
    with other_program(HOLDER, str(tmp_path / "ann")) as holder, ThreadPoolExecutor(1) as pool:
        (outcome,) = send(impatient, delivery_to("mbox:ann", key=2 << 40))
        assert isinstance(outcome, Deferred)
        assert (outcome.reply.status, outcome.reply.text) == ("4.2.0", "mailbox: locked by another program")
        waiting = pool.submit(send, patient, delivery_to("mbox:ann", key=2 << 40))
        assert holder.stdin is not None
        holder.stdin.write("enough\n")
        holder.stdin.flush()
        assert isinstance(waiting.result(PATIENCE)[0], Delivered)
    assert len(stored(tmp_path / "ann")) == 2


@pytest.mark.parametrize(
    ("text", "old", "held"),
    [
        ("parent", False, True),
        ("own", False, False),
        ("1", False, True),
        ("999999999", False, False),
        ("0", False, True),
        ("", True, False),
        ("", False, True),
        ("no number", True, False),
    ],
)
def test_a_dot_lock_is_heeded_unless_it_is_stale(tmp_path: Path, text: str, *, old: bool, held: bool) -> None:
    lock = tmp_path / "ann.lock"
    # Not as parameters: several processes that share the work must know the tests by the same names.
    numbers = {"parent": os.getppid(), "own": os.getpid()}
    lock.write_text(str(numbers.get(text, text)), encoding="ascii")
    if old:
        os.utime(lock, (1, 1))
    (outcome,) = send(MboxTransport(tmp_path, lock_timeout=0.05).open(), delivery_to("mbox:ann"))
    assert isinstance(outcome, Deferred if held else Delivered)
    assert lock.exists() == held


WRITER = """
import mailbox, sys
box = mailbox.mbox(sys.argv[1])
print("ready", flush=True)
for number in range(30):
    while True:
        try:
            box.lock()
            break
        except mailbox.ExternalClashError:
            pass
    box.add(f"Subject: {number}\\n\\nfrom the other program\\n")
    box.flush()
    box.unlock()
    box.close()
    box = mailbox.mbox(sys.argv[1])
print("done", flush=True)
"""


def test_beside_another_program_and_many_threads_nothing_is_lost(tmp_path: Path) -> None:
    transport = MboxTransport(tmp_path, durable=False, lock_timeout=PATIENCE)
    file = tmp_path / "ann"

    def courier(worker: int) -> None:
        session = transport.open()
        for number in range(8):
            (outcome,) = send(session, delivery_to("mbox:ann", key=(worker * 100 + number + 1) << 40))
            assert isinstance(outcome, Delivered), outcome

    with other_program(WRITER, str(file)) as writer, ThreadPoolExecutor(3) as pool:
        list(pool.map(courier, range(3)))
        assert writer.stdout is not None
        assert writer.stdout.readline() == "done\n"
    found = stored(file)
    ours = [each["X-Postroom-Delivery"] for each in found if each["X-Postroom-Delivery"]]
    assert len(ours) == len(set(ours)) == 24
    assert sorted(int(str(each["Subject"])) for each in found if each["Subject"] != "hi") == list(range(30))
    assert [each.name for each in tmp_path.iterdir()] == ["ann"]


def test_who_is_not_created_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "ann").touch()
    session = MboxTransport(tmp_path, create=False).open()
    there, missing = send(session, delivery_to("mbox:ann", "mbox:bob"))
    assert isinstance(there, Delivered)
    assert isinstance(missing, Failed)
    assert missing.reply.status == "5.1.1"
    assert not (tmp_path / "bob").exists()
    with pytest.raises(TransportDown):
        MboxTransport(tmp_path / "nowhere", create=False).open()


def test_addresses_that_lead_astray(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mail" / "folder").mkdir()
    os.mkfifo(tmp_path / "mail" / "fifo")
    session = MboxTransport(tmp_path / "mail").open()
    out, lock, link, folder, fifo = send(
        session, delivery_to("mbox:../elsewhere", "mbox:a.lock", "mbox:link", "mbox:folder", "mbox:fifo")
    )
    assert all(isinstance(each, Failed) and each.reply.status == "5.1.3" for each in (out, lock))
    assert all(isinstance(each, Deferred) and each.reply.status == "4.2.1" for each in (link, folder))
    assert isinstance(fifo, Failed)
    assert (tmp_path / "elsewhere").read_bytes() == b""
    (tmp_path / "mail" / "fifo").unlink()
    for name in ("link", "folder"):
        assert not (tmp_path / "mail" / f"{name}.lock").exists()


def test_a_function_may_decline(tmp_path: Path) -> None:
    assert isinstance(
        send(MboxTransport(tmp_path, folder=lambda _: None).open(), delivery_to("mbox:a"))[0], NotMine
    )


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EDQUOT, "4.2.2"), (errno.EACCES, "4.2.1"), (errno.ENOSPC, ""), (errno.EIO, "")],
)
def test_trouble_with_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    session = MboxTransport(tmp_path).open()
    send(session, delivery_to("mbox:ann"))
    before = (tmp_path / "ann").read_bytes()
    real = os.fsync

    def failing(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink() == tmp_path / "ann":
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", failing)
    delivery = delivery_to("mbox:ann", key=2 << 40)
    if expected:
        (outcome,) = send(session, delivery)
        assert isinstance(outcome, Deferred)
        assert outcome.reply.status == expected
    else:
        with pytest.raises(TransportDown):
            session.send(delivery)
        # What was stored before the trouble began is settled.
        fine, later = send(session, delivery_to("mbox:bob", "mbox:ann", key=2 << 40))
        assert isinstance(fine, Delivered)
        assert isinstance(later, Deferred)
    assert (tmp_path / "ann").read_bytes() == before
    assert not (tmp_path / "ann.postroom").exists()


def test_a_closed_or_aborted_session_is_stale(tmp_path: Path) -> None:
    for end in ("close", "abort"):
        session = MboxTransport(tmp_path).open()
        getattr(session, end)()
        with pytest.raises(SessionStale):
            session.send(delivery_to("mbox:ann"))


def _nowhere(_: Address) -> None:
    return None


def _outside(_: Address) -> str:
    return "../x"


def test_was_delivered_knows_what_it_cannot_know(tmp_path: Path) -> None:
    options: list[tuple[dict[str, Any], bool | None]] = [
        ({}, False),
        ({"folder": _nowhere}, False),
        ({"folder": _outside}, None),
    ]
    delivery = delivery_to("mbox:ann")
    for option, answer in options:
        session = MboxTransport(tmp_path, **option).open()
        assert session.was_delivered(delivery, delivery.targets[0]) is answer
