"""A host process that embeds a spooler and is killed by its test.

As a program it runs a spooler and, when it has ``--threads``, submits messages without end. One line on its output for
each message that it got a receipt for: the message's X-Postroom-Id; before them one ``ready``. ``stop`` on its input
(or its end) stops it in order, and it prints ``stopped``.

In tests, :class:`Host` starts it, reads it, and kills it.
"""

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tenacity import wait_fixed

from postroom import Limits, PostroomError, Spooler, Transport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.smtp import SmtpTransport

PATIENCE = 30.0


def _transports(options: argparse.Namespace) -> list[Transport]:
    limits = Limits(concurrency=options.concurrency, window=options.window)
    return [
        SmtpTransport(
            "127.0.0.1",
            options.port,
            security="none",
            limits=limits,
            in_doubt="hold" if options.hold else "resend",
            probe=wait_fixed(0.1),
        ),
        MaildirTransport(options.spool.parent / "mailboxes", limits=limits, durable=False),
    ]


def _submit(spooler: Spooler, options: argparse.Namespace, number: int, ended: threading.Event) -> None:
    n = 0
    while not ended.is_set() and n < options.count:
        name = f"{options.prefix}-{number}-{n}"
        content = f"From: app@example.org\r\nX-Postroom-Id: {name}\r\n\r\nhello\r\n".encode()
        try:
            spooler.submit(content, sender="app@example.org", to=options.to.format(name=name))
        except PostroomError as error:
            os.write(2, f"{name}: {error!r}\n".encode())
            return
        os.write(1, f"{name}\n".encode())
        n += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--prefix", default="m")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages per thread")
    parser.add_argument("--to", default="{name}@example.org")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--window", type=int, default=200)
    parser.add_argument("--hold", action="store_true", help='the SMTP transport has in_doubt="hold"')
    options = parser.parse_args()
    ended = threading.Event()
    with Spooler(options.spool, _transports(options)) as spooler:
        os.write(1, b"ready\n")
        threads = [
            threading.Thread(target=_submit, args=(spooler, options, number, ended), daemon=True)
            for number in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        sys.stdin.readline()
        ended.set()
        for thread in threads:
            thread.join()
    os.write(1, b"stopped\n")


class Host:
    """Starts the program above, reads what it acknowledges, and kills it. For one thread.

    Args:
        spool: the database file.
        options: of the program, such as ``("--threads", "8")``.
    """

    def __init__(self, spool: Path, *options: str) -> None:
        self._command = [sys.executable, __file__, "--spool", str(spool), *options]
        self._process: subprocess.Popen[str] | None = None
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._reader: threading.Thread | None = None

    def start(self) -> Self:
        """Start it and return when its spooler runs."""
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        self.wait_for_lines(1)
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            # A line without its end was cut short by the kill: the receipt was not handed out.
            if line.endswith("\n"):
                with self._changed:
                    self._lines.append(line.strip())
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def acknowledged(self) -> list[str]:
        """What it got receipts for, so far."""
        with self._changed:
            return [line for line in self._lines if line not in {"ready", "stopped"}]

    def wait_for_lines(self, count: int) -> None:
        with self._changed:
            there = self._changed.wait_for(lambda: len(self._lines) >= count, PATIENCE)
            assert there, f"{len(self._lines)} of {count} lines"

    def kill(self) -> list[str]:
        """Kill it at once (SIGKILL); returns all that it had acknowledged."""
        assert self._process is not None
        self._process.kill()
        return self._finish()

    def stop(self) -> list[str]:
        """Stop it in good order; returns all that it had acknowledged."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("stop\n")
        self._process.stdin.flush()
        acknowledged = self._finish()
        assert "stopped" in self._lines
        return acknowledged

    def _finish(self) -> list[str]:
        process, self._process = self._process, None
        assert process is not None
        assert self._reader is not None
        process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        return self.acknowledged

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()


if __name__ == "__main__":
    main()
