"""Running a program for a while: input from a file, the end of its output, its exit status, and an end to it."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postroom.errors import InternalError

__all__ = ["Ended", "Program", "is_executable"]

OUTPUT_KEPT: Final = 4096
"""Octets of a program's output that are kept: the last ones."""

GRACE: Final = 2.0
"""Seconds between the request to end and the end."""

_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit status; negative for the signal that killed it.
        output: the last of what it wrote to standard output and standard error.
        stopped: "" when it ended by itself, else why we ended it.
    """

    code: int
    output: str
    stopped: str = ""


class Program:
    """Runs programs one after the other. Not thread-safe, except ``abort``.

    Raises:
        OSError: this process has no file handle left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._wake: Final = os.pipe()
        self._is_open = True

    def run(
        self,
        arguments: Sequence[str],
        content: bytes,
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None,
        timeout: float,
    ) -> Ended:
        """Run a program to its end, or for ``timeout`` seconds.

        What it leaves running in the background after it ended by itself is left alone.

        Raises:
            OSError: it cannot be started.
        """
        # A file, not a pipe: the program may read as slowly as it likes, or not at all, and nobody has to feed it.
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell; the command is configuration
                list(arguments),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        with process, _end_of(process) as ended:
            try:
                return self._follow(process, ended, timeout)
            except BaseException:
                _kill(process)
                raise

    def _follow(self, process: "subprocess.Popen[bytes]", ended: int, timeout: float) -> Ended:
        wake = self._wake[0]
        output = _Tail(process)
        stopped = _wait(output, ended, wake, time.monotonic() + timeout)
        if stopped == "timeout":
            _signal(process, signal.SIGTERM)
            stopped = f"it took longer than {timeout:g} seconds"
            _wait(output, ended, wake, time.monotonic() + GRACE)
        if stopped:
            _kill(process)
        code = process.wait()
        output.drain()
        return Ended(code, output.text(), stopped)

    def abort(self) -> None:
        """End what runs, from any thread; what is run afterwards is ended at once. Never raises."""
        with self._lock:
            if self._is_open:
                with contextlib.suppress(OSError):
                    os.write(self._wake[1], b"x")

    def close(self) -> None:
        """Release the file handles. Not while a program runs. Never raises; may be called again."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                for handle in self._wake:
                    os.close(handle)

    def __del__(self) -> None:
        self.close()


class _Tail:
    """The last octets of what comes out of a pipe."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdout is None:
            raise InternalError("a program without a pipe for its output")
        self.handle = process.stdout.fileno()
        os.set_blocking(self.handle, False)
        self.is_open = True
        self._kept = bytearray()

    def read(self) -> bool:
        """Read once; return whether there was something."""
        try:
            chunk = os.read(self.handle, _CHUNK)
        except BlockingIOError:
            return False
        self._kept += chunk
        del self._kept[:-OUTPUT_KEPT]
        self.is_open = bool(chunk)
        return self.is_open

    def drain(self) -> None:
        """Read what is there; a program in the background may go on writing, which nobody waits for."""
        for _ in range(16):
            if not self.is_open or not self.read():
                break

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


def _wait(output: _Tail, ended: int, wake: int, until: float) -> str:
    """Read output until the program has ended ("") or is to be ended (why)."""
    while True:
        poll = select.poll()
        for handle in (ended, wake, *([output.handle] if output.is_open else [])):
            poll.register(handle, select.POLLIN)
        left = until - time.monotonic()
        ready = {handle for handle, _ in poll.poll(max(left, 0) * 1000)}
        if ended in ready:
            return ""
        if wake in ready:
            return "aborted"
        if output.handle in ready:
            output.read()
        if left <= 0:
            return "timeout"


@contextlib.contextmanager
def _end_of(process: "subprocess.Popen[bytes]") -> Generator[int]:
    """Yield a file handle that can be read once the program has ended.

    The program stays a zombie until it is waited for, so that its process id stays its own.
    """
    # A thread that waits, since pidfd_open(2) is missing in many builds of Python.
    read, write = os.pipe()

    def watch() -> None:
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # somebody in the host waits for every child
            pass
        finally:
            os.close(write)

    thread = threading.Thread(target=watch, name=f"postroom-pipe-{process.pid}", daemon=True)
    try:
        thread.start()
    except BaseException:
        os.close(write)
        os.close(read)
        _kill(process)
        raise
    try:
        yield read
    finally:
        thread.join()
        os.close(read)


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    # The group of a program that was not waited for yet cannot be anybody else's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    _signal(process, signal.SIGKILL)


def is_executable(command: str, search: str) -> bool:
    """Return whether ``command`` is a program, by its path or in ``search`` (a PATH)."""
    if "/" in command:
        return os.access(command, os.X_OK) and Path(command).is_file()
    return any(
        is_executable(str(Path(folder) / command), "") for folder in search.split(os.pathsep) if folder
    )
