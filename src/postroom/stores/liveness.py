"""Who is alive among the processes that share a spool.

Each instance holds an exclusive ``flock`` on a file of its own beside the spool. The kernel drops the lock the moment
the process dies, however it dies, so death is known at once and a stopped (SIGSTOP) or slow process is never taken for
dead, as it would be by heartbeats alone.
"""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - not POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["InstanceLocks"]


class InstanceLocks:
    """The lock files of one spool. Not thread-safe.

    Args:
        directory: where they are; created when missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[int, int] = {}

    def acquire(self, node: int) -> bool:
        """Take the lock of ``node``, for as long as this process lives or until ``release``."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self._directory / f"{node}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._held[node] = descriptor
        return True

    def is_dead(self, node: int) -> bool | None:
        """Return whether no process holds the lock of ``node``; None where locks cannot tell."""
        if fcntl is None:  # pragma: no cover - not POSIX
            return None
        if node in self._held:
            return False
        try:
            free = self.acquire(node)
        except OSError:
            # No descriptor is to be had, or the folder is gone: whoever cannot be asked is not declared dead.
            return False
        self.release(node)
        return free

    def release(self, node: int) -> None:
        """Give up the lock of ``node``, if it is held."""
        descriptor = self._held.pop(node, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def release_all(self) -> None:
        """Give up every lock. In a forked child only its copies are closed: the locks stay the parent's."""
        for node in list(self._held):
            self.release(node)
