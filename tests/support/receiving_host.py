"""A host process whose spooler receives from a mailbox, and which is killed by its test.

As a program it is what such processes are forked from, so that each starts without its imports: ``start`` on its input
starts one, ``kill`` kills it (SIGKILL) and answers ``killed``; the end of its input ends it all.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tenacity import wait_fixed

from postroom import Spooler
from postroom.receivers.base import Receiver
from postroom.receivers.imap import ImapReceiver
from postroom.receivers.listener import SmtpListener
from postroom.receivers.pop3 import Pop3Receiver

__all__ = ["ReceivingHost", "make_receiver"]


def make_receiver(kind: str, port: int, user: str, password: str) -> Receiver:
    """Return a receiver that removes what it took, two messages at a time; or a listener on ``port``."""
    if kind == "smtp":
        return SmtpListener("127.0.0.1", port, name="desk", local=lambda _: True, exclusive=False)
    if kind == "imap":
        return ImapReceiver(
            "127.0.0.1", port, user=user, password=password, tls="none", after="delete", batch_messages=2,
            name="desk", interval=0.1, retry=wait_fixed(0.1), exclusive=False,
        )  # fmt: skip
    return Pop3Receiver(
        "127.0.0.1", port, user=user, password=password, tls="none", batch_messages=2,
        name="desk", interval=0.1, retry=wait_fixed(0.1), exclusive=False,
    )  # fmt: skip


class ReceivingHost:
    """Starts the program below, and by it one process after the other. A context manager, for one thread.

    Args:
        spool: the database file.
        kind, port, user, password: of :func:`make_receiver`.
    """

    def __init__(self, spool: Path, kind: str, port: int, user: str, password: str) -> None:
        self._command = [
            sys.executable, __file__, "--spool", str(spool), "--kind", kind, "--port", str(port), "--user", user,
            "--password", password,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30.0)

    def start(self) -> None:
        """Start a process that receives."""
        self._say("start")

    def kill(self) -> None:
        """Kill it at once; returns when it is gone."""
        self._say("kill")
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "killed\n"

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()


def _receive(options: argparse.Namespace) -> None:
    receiver = make_receiver(options.kind, options.port, options.user, options.password)
    with Spooler(options.spool, [], receivers=[receiver]):
        signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    options = parser.parse_args()
    child = 0
    while True:
        command = sys.stdin.readline().strip()
        if child and command in {"kill", ""}:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
            os.write(1, b"killed\n")
        if not command:
            return
        if command == "start":
            child = os.fork()
            if not child:
                _receive(options)
                return


if __name__ == "__main__":
    main()
