import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroom.stores.liveness import InstanceLocks

HOLD = """
import sys
from pathlib import Path
from postroom.stores.liveness import InstanceLocks

print(InstanceLocks(Path(sys.argv[1])).acquire(int(sys.argv[2])), flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path, node: int) -> Generator[subprocess.Popen[str]]:
    """Run a process that holds the lock of ``node``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(node)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool.db.instances"


def test_a_lock_is_had_once(folder: Path) -> None:
    mine, other = InstanceLocks(folder), InstanceLocks(folder)
    assert mine.acquire(1)
    assert not other.acquire(1)
    assert other.acquire(2)
    mine.release(1)
    mine.release(1)
    assert other.acquire(1)
    other.release_all()
    assert mine.acquire(2)
    mine.release_all()


def test_who_holds_its_lock_lives(folder: Path) -> None:
    mine, other = InstanceLocks(folder), InstanceLocks(folder)
    assert mine.acquire(1)
    assert mine.is_dead(1) is False
    assert other.is_dead(1) is False
    assert other.is_dead(7) is True
    mine.release_all()
    assert other.is_dead(1) is True
    # To look is not to take.
    assert mine.acquire(1)
    mine.release_all()


def test_the_locks_are_for_their_owner_only(folder: Path) -> None:
    locks = InstanceLocks(folder)
    assert locks.acquire(3)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "3.lock").stat().st_mode & 0o077 == 0
    locks.release_all()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_dead_are_known_however_they_died(folder: Path, number: signal.Signals) -> None:
    locks = InstanceLocks(folder)
    with holder(folder, 5) as process:
        assert locks.is_dead(5) is False
        process.send_signal(number)
        process.wait(30)
        assert locks.is_dead(5) is True


def test_who_is_stopped_is_not_dead(folder: Path) -> None:
    locks = InstanceLocks(folder)
    with holder(folder, 5) as process:
        process.send_signal(signal.SIGSTOP)
        assert locks.is_dead(5) is False
        process.send_signal(signal.SIGCONT)


def in_child(work: Callable[[], bool]) -> int:
    """Fork, and return the child's process id; it exits when its standard input, a pipe, is closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads that other tests left
        child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        os._exit(0 if work() else 1)
    return child


def test_a_forked_child_does_not_keep_a_dead_parent_alive(folder: Path) -> None:
    parent, other = InstanceLocks(folder), InstanceLocks(folder)
    assert parent.acquire(1)
    told, tell = os.pipe()
    forgot, forget = os.pipe()

    def child() -> bool:
        os.close(tell)
        parent.release_all()
        os.write(forget, b"x")
        return os.read(told, 1) == b""  # lives on until the parent closes its end

    pid = in_child(child)
    try:
        os.close(told)
        assert os.read(forgot, 1) == b"x"
        assert other.is_dead(1) is False  # the child closed its copy only
        parent.release_all()  # as at the parent's death
        assert other.is_dead(1) is True  # although the child lives
    finally:
        os.close(tell)
        os.close(forgot)
        os.close(forget)
        assert os.waitpid(pid, 0)[1] == 0


def test_who_cannot_be_asked_is_not_declared_dead(folder: Path) -> None:
    locks = InstanceLocks(folder)
    assert locks.acquire(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.dup(0)
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        assert locks.is_dead(2) is False
        with pytest.raises(OSError, match="Too many open files"):
            locks.acquire(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert locks.is_dead(2) is True
    locks.release_all()
