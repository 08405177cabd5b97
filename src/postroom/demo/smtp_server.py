"""The demo's SMTP server, a process of its own: aiosmtpd that records what it takes.

``python -m postroom.demo.smtp_server FOLDER PORT`` prints the port once it listens, and ends when its
standard input does.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP

from postroom.demo.recording import Recorder

MAX_SIZE = 32 * 1024 * 1024


class Handler:
    """Writes each message down before it is acknowledged."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Record a message; what this returns is the server's answer."""
        del server, session
        name = self._recorder.record(
            envelope.content, {"sender": envelope.mail_from, "recipients": list(envelope.rcpt_tos)}
        )
        return f"250 2.0.0 recorded as {name}"


async def serve(folder: Path, port: int) -> None:
    """Serve until standard input ends."""
    handler = Handler(Recorder(folder))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(
            handler, hostname="demo.example", enable_SMTPUTF8=True, data_size_limit=MAX_SIZE, loop=loop
        ),
        "127.0.0.1",
        port,
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
