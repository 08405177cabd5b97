"""A Postfix of its own in a temporary folder, for tests: started by root only, stopped by its pid."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.system import require

__all__ = ["Postfix", "free_port"]

SECONDS = 30.0
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.example
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks,reject
alias_maps =
maillog_file = /dev/stdout
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
"""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    return port


class Postfix:
    """Relays from this machine; skips the test where it cannot be started.

    Args:
        settings: further lines of main.cf, as ``transport_maps="inline:{…}"``; "{folder}" in them is ``folder``.

    Attributes:
        port: of 127.0.0.1, where it takes mail.
        folder: its own; Postfix's delivery agents may get into ``folder / "mail"``.
    """

    def __init__(self, **settings: str) -> None:
        self.port = 0
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = require("postfix", "postfix")
        if os.geteuid() != 0:
            pytest.skip("Postfix is started by root only")
        # Not below pytest's folder: Postfix's own user must be able to get there.
        self.folder = Path(tempfile.mkdtemp(prefix="postroom-postfix-"))
        self.port = free_port()
        try:
            self._configure()
            command = [str(program), "-c", str(self.folder / "etc"), "start-fg"]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + SECONDS
            while not _listens(self.port):
                assert self._process.poll() is None, "Postfix ended"
                assert time.monotonic() < deadline, "Postfix does not listen"
                time.sleep(0.05)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _configure(self) -> None:
        folder = self.folder
        folder.chmod(0o755)
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        shutil.chown(folder / "mail", "nobody")
        lines = [f"{name} = {value}\n" for name, value in self._settings.items()]
        main = MAIN + "".join(lines)
        (folder / "etc/main.cf").write_text(main.replace("{folder}", str(folder)))
        (folder / "etc/master.cf").write_text(MASTER.format(port=self.port))

    def _end(self) -> None:
        try:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(10)
            self._end_master()
        finally:
            shutil.rmtree(self.folder)

    def _end_master(self) -> None:
        """End the master itself, which is not the process that was started but one of a session of its own."""
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            master = int((self.folder / "queue/pid/master.pid").read_text())
            os.kill(master, signal.SIGTERM)
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                os.kill(master, 0)
                time.sleep(0.05)
            os.killpg(master, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
