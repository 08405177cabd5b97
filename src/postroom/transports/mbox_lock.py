"""Locks on an mbox that other mail programs heed: fcntl, then a dot-lock, in this order and without blocking.

The fcntl lock is one of the open file (``F_OFD_SETLK``, Linux): it conflicts with the ordinary fcntl locks of other
programs as well as with those of other threads of this process, and is not lost when somebody in this process closes
the same file. Both locks vanish or become stale with their process: a dot-lock is removed when it names a process that
does not exist any more (or ourselves), or names none and is five minutes old (as liblockfile does).
"""

import contextlib
import errno
import fcntl
import os
import random
import secrets
import struct
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["LOCK_SUFFIX", "Busy", "locked"]

LOCK_SUFFIX: Final = ".lock"

STALE_SECONDS: Final = 300.0
"""Age at which a dot-lock that names no process is nobody's."""

_PAUSE: Final = (0.02, 0.1)
"""Seconds between two tries, chosen at random so that two who wait do not meet for ever."""

# struct flock: type, whence, start, length (0: to the end), process id (0 for locks of open files).
_WHOLE_FILE: Final = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Busy(Exception):
    """Another program holds the mailbox."""


@contextmanager
def locked(file: Path, timeout: float, aborted: threading.Event) -> Generator[int]:
    """Open ``file`` for reading and writing and hold its locks; closed and released at the end.

    Args:
        file: an existing file. A symbolic link is not followed.
        timeout: seconds to try.
        aborted: gives up when it is set.

    Raises:
        Busy: another program holds it.
        OSError: it cannot be opened, or the dot-lock cannot be made.
    """
    until = time.monotonic() + timeout
    while True:
        handle = _try(file)
        if handle is not None:
            break
        if time.monotonic() >= until:
            raise Busy("locked by another program")
        if aborted.wait(random.uniform(*_PAUSE)):  # noqa: S311 - not a secret
            raise Busy("gave up waiting for the lock")
    try:
        yield handle
    finally:
        # In reverse: whoever then gets the fcntl lock finds no dot-lock of ours.
        with contextlib.suppress(OSError):
            _lock_of(file).unlink()
        os.close(handle)


def _try(file: Path) -> int | None:
    """Return the handle with both locks held, or None."""
    handle = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if _fcntl_lock(handle) and _is_still(file, handle) and _dot_lock(file):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _fcntl_lock(handle: int) -> bool:
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True


def _is_still(file: Path, handle: int) -> bool:
    """Return whether the name still belongs to the open file: a mail reader may have put another in its place."""
    try:
        return os.path.samestat(file.stat(follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _lock_of(file: Path) -> Path:
    return file.with_name(file.name + LOCK_SUFFIX)


def _dot_lock(file: Path) -> bool:
    lock = _lock_of(file)
    # Written in full before it appears: a link is made as a whole or not at all, on network file systems too.
    mine = file.with_name(f".{file.name[:100]}.{secrets.token_hex(8)}{LOCK_SUFFIX}")
    handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, f"{os.getpid()}\n".encode())
        os.close(handle)
        for _ in range(2):
            try:
                os.link(mine, lock)
            except FileExistsError:
                if not _is_stale(lock):
                    return False
                with contextlib.suppress(FileNotFoundError):
                    lock.unlink()
            else:
                return True
        return False
    finally:
        with contextlib.suppress(OSError):
            mine.unlink()


def _is_stale(lock: Path) -> bool:
    try:
        age = time.time() - lock.stat(follow_symlinks=False).st_mtime
        named = lock.read_bytes()[:20].strip()
    except OSError:  # it is gone, or not ours to judge
        return False
    # Some programs write "0" or nothing, which names no process.
    process = int(named) if named.isdigit() else 0
    if process == 0:
        return age > STALE_SECONDS
    if process == os.getpid():
        # Left by a predecessor with our number, as after the restart of a container: a thread of ours that holds the
        # dot-lock would hold the fcntl lock as well, which we hold.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
