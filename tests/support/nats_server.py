"""A real nats-server (Debian's package of this name) with JetStream, on a loopback port that the system chooses.

It is started and killed by the tests; `messages` and the like talk to it with nats-py from the test's own thread.
"""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from nats.aio.client import Client

T = TypeVar("T")

START_SECONDS = 20.0
STREAM = "LETTERS"
SUBJECTS = ("letters.>",)

CONFIG = """
listen: "127.0.0.1:{port}"
max_payload: 8388608
ports_file_dir: {folder}
jetstream {{ store_dir: {folder}, max_memory_store: 67108864, max_file_store: 268435456 }}
{more}
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


class NatsServer:
    """Starts, asks and kills the server. For one thread.

    Args:
        folder: an empty folder for its configuration, ports file and streams.
        more: what else is in its configuration, for example users.
        login: how the tests themselves log in, arguments of nats-py.
    """

    def __init__(self, folder: Path, more: str = "", **login: Any) -> None:
        self.folder = folder
        self.more = more
        self.login = login
        self.port = -1  # the system chooses
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("nats-server")
        assert program, "install Debian's nats-server"
        file = self.folder / "server.conf"
        text = CONFIG.format(port=self.port, folder=json.dumps(str(self.folder)), more=self.more)
        file.write_text(text, encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(file)], stdout=log, stderr=log)
        ports = self.folder / f"nats-server_{self._process.pid}.ports"
        until = time.monotonic() + START_SECONDS
        while not ports.exists() or not ports.read_text(encoding="utf-8"):
            alive = self._process.poll() is None and time.monotonic() < until
            assert alive, (self.folder / "log").read_text(encoding="utf-8")
            time.sleep(0.005)
        (url,) = json.loads(ports.read_text(encoding="utf-8"))["nats"]
        self.port = int(url.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def make_stream(self, name: str = STREAM, subjects: tuple[str, ...] = SUBJECTS, **options: Any) -> None:
        async def make(stream: Any) -> None:
            await stream.add_stream(name=name, subjects=list(subjects), **options)

        self._ask(make)

    def messages(self, name: str = STREAM) -> list[Stored]:
        """Return everything that a stream holds, in its order."""

        async def read(stream: Any) -> list[Stored]:
            state = (await stream.stream_info(name)).state
            found: list[Stored] = []
            for number in range(state.first_seq, state.last_seq + 1):
                message = await stream.get_msg(name, number)
                headers: dict[str, str] = message.headers or {}
                found.append(Stored(message.subject or "", message.data or b"", headers))
            return found

        return self._ask(read)

    def _ask(self, question: Callable[[Any], Awaitable[T]]) -> T:
        async def connected() -> T:
            client: Any = Client()  # its annotations leave out what its options are
            await client.connect(self.url, **self.login)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(connected())

    def restart(self) -> None:
        """Kill it and start it again on the same port, with the same streams."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """Kill it (SIGKILL ends a suspended process too) and wait; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
