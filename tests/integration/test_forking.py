"""Hosts that fork, or end without a word: programs of their own, since pytest's process has threads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from postroom import MemoryTransport, Spooler, State
from tests.support.spooling import settled

PROLOGUE = """
import os, signal, sys, threading, time
from postroom import *
from postroom.errors import *
from postroom.transports.log import LogTransport
path = sys.argv[1]
MAIL = b"From: app@example.org\\r\\n\\r\\nhello\\r\\n"
"""


def command(tmp_path: Path, body: str) -> list[str]:
    # Since 3.12 Python warns of a fork() with threads, which is what is tried here.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    return [sys.executable, *warnings, "-c", PROLOGUE + body, str(tmp_path / "spool.db")]


def run(tmp_path: Path, body: str) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(command(tmp_path, body), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


FORK = """
transport = MemoryTransport()
spooler = Spooler(path, [transport], metrics_port=0)
spooler.start()
assert spooler.submit(MAIL, to="memory:x").wait(10).succeeded
node = spooler.snapshot_source().context.store.node
child = os.fork()
if child == 0:
    code = 1
    try:
        try:
            spooler.submit(MAIL, to="memory:x")
        except ForkedProcess as error:
            assert "start()" in str(error)
        else:
            raise SystemExit("it works on")
        assert not spooler.running
        assert spooler.stop()
        transport.clear()
        spooler.start()
        assert spooler.snapshot_source().context.store.node != node
        assert spooler.submit(MAIL, to="memory:x").wait(10).succeeded
        assert transport.count == 1
        assert len(spooler.snapshot_source().view.instances()) == 2
        assert spooler.stop()
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(code)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
receipts = [spooler.submit(MAIL, to="memory:x") for _ in range(20)]
assert all(receipt.wait(10).succeeded for receipt in receipts)
assert spooler.tally().imbalance == 0 and spooler.audit() == {}
assert spooler.tally().states["memory", State.DELIVERED] == 22
assert spooler.stop()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_fork(tmp_path: Path) -> None:
    assert run(tmp_path, FORK) == "done\n"


ORPHAN = """
gate = threading.Event()
transport = MemoryTransport(answer=lambda delivery: gate.wait())
spooler = Spooler(path, [transport])
spooler.start()
spooler.submit(MAIL, to="memory:x")
assert transport.wait_for(1, 10)
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_forked_child_that_lives_on_does_not_keep_a_dead_spooler_alive(tmp_path: Path) -> None:
    """The child inherits the lock by which others see that its parent lives, and must let go of it."""
    parent = subprocess.run(
        command(tmp_path, ORPHAN), stdout=subprocess.PIPE, text=True, timeout=30, check=False
    )
    assert parent.returncode == -signal.SIGKILL
    orphan = int(parent.stdout)
    try:
        with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as heir:
            settled(heir)
            assert heir.tally().states["memory", State.DELIVERED] == 1
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_the_interpreter_ends_without_stop(tmp_path: Path) -> None:
    body = """
spooler = Spooler(path, [MemoryTransport(), LogTransport()], metrics_port=0)
spooler.subscribe(lambda event: time.sleep(60), name="slow")
spooler.start()
for _ in range(50):
    spooler.submit(MAIL, to="memory:x")
print("the end", flush=True)
"""
    assert run(tmp_path, body) == "the end\n"
    with Spooler(tmp_path / "spool.db", [MemoryTransport()]) as spooler:
        settled(spooler)
        assert spooler.tally().states["memory", State.DELIVERED] == 50
