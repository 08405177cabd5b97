"""Signals whose effect tests wait for."""

import os
import signal
import time
from pathlib import Path

__all__ = ["suspend"]

PATIENCE = 10.0


def suspend(pid: int) -> None:
    """Stop a process in its tracks, and return when all of its threads stand.

    The kernel answers before they do: one that runs on another processor may get some more work done.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while not all(_stands(stat) for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def _stands(stat: Path) -> bool:
    # The name before the state is in parentheses, and may hold any character.
    return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] in {"T", "t"}
