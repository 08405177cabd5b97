"""A server of the demo as its parent sees it."""

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from postroom.errors import SpoolUnavailable

__all__ = ["ServerProcess"]

START_SECONDS = 20.0


class ServerProcess:
    """A server in a process of its own, which can be killed and started again on the same port.

    Args:
        module: what ``python -m`` runs; it gets the folder and the port, prints the port, and ends with its input.
        folder: where it records.
        environment: variables that it gets besides this process's own.
    """

    def __init__(self, module: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = 0
        self._module = module
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process, 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it and wait until it listens; the first time on a port that it chooses.

        Raises:
            SpoolUnavailable: it did not start.
        """
        command = [sys.executable, "-m", self._module, str(self.folder), str(self.port)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "errors.log").open("ab") as errors:
            process = self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=self._environment
            )
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line.strip().isdigit():
            self.kill()
            raise SpoolUnavailable(f"the demo's server {self._module} did not start")
        self.port = int(line)

    def kill(self) -> None:
        """End it as ``kill -9`` does, in the middle of whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.kill()
