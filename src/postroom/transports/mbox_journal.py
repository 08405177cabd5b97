"""Appending to an mbox so that half a message never stays: all of it is done with the file's locks held.

Before an entry is appended, the journal ``file.postroom`` gets the length of the file and the entry itself; it is
removed when the entry is complete. A journal that is found at the next append belongs to a process that died:

===========================================  =================================================================
what follows the noted length                what is done
===========================================  =================================================================
nothing, or the file is shorter by now       nothing: the entry was not written, or a reader rewrote the file
the whole entry (and perhaps more)           nothing: the entry is complete
a beginning of the entry, and no more        the file is cut to the noted length
likewise, and then only NUL octets           the same: the length reached the disk before the content did
anything else                                nothing: another program wrote there, and its mail is not ours to cut
===========================================  =================================================================
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

__all__ = ["SUFFIX", "Journal", "append", "holds", "sync_directory"]

SUFFIX: Final = ".postroom"

_MAGIC: Final = b"postroom mbox journal 1\n"
_HEAD: Final = struct.Struct("!QQ")
"""Length of the file before, length of the entry."""

_MODE: Final = 0o600


class Journal:
    """The journal of one mbox. Only while the file is locked.

    Args:
        file: the mbox.
        durable: synchronise to disk.
    """

    def __init__(self, file: Path, *, durable: bool) -> None:
        self.path = file.with_name(file.name + SUFFIX)
        self.durable = durable

    def begin(self, length: int, entry: bytes) -> None:
        """Note what is about to be appended, and where.

        Raises:
            OSError: it cannot be written; nothing may be appended then.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(self.path, flags, _MODE)
        try:
            write_all(handle, _MAGIC + _HEAD.pack(length, len(entry)))
            write_all(handle, entry)
            if self.durable:
                os.fsync(handle)
                sync_directory(self.path.parent)
        finally:
            os.close(handle)

    def end(self) -> None:
        """Forget it: the entry is complete, or taken back."""
        self.path.unlink(missing_ok=True)

    def repair(self, handle: int) -> bool:
        """Take back what a dead process left of an incomplete entry; return whether there was any.

        Args:
            handle: the mbox, open for reading and writing.

        Raises:
            OSError: the file or its journal cannot be read or changed.
        """
        try:
            noted = self.path.read_bytes()
        except FileNotFoundError:
            return False
        cut = cut_at(noted, handle)
        if cut is not None:
            os.ftruncate(handle, cut)
            if self.durable:
                os.fsync(handle)
        self.end()
        return cut is not None


def cut_at(noted: bytes, handle: int) -> int | None:
    """Return the length to which the mbox has to be cut, or None for not at all."""
    start = len(_MAGIC) + _HEAD.size
    if len(noted) < start or not noted.startswith(_MAGIC):
        return None  # the process died before the journal was whole, hence before it appended
    length, size = _HEAD.unpack_from(noted, len(_MAGIC))
    entry = noted[start:]
    now = os.fstat(handle).st_size
    if len(entry) != size or not length < now <= length + size:
        return None
    tail = read_at(handle, length, now - length)
    # An entry ends in line ends: NUL octets at the end are none of it.
    return length if tail != entry and entry.startswith(tail.rstrip(b"\0")) else None


def append(handle: int, entry: bytes, journal: Journal) -> None:
    """Append an entry to the mbox and return once it is complete, and on the disk if the journal is durable.

    Raises:
        OSError: it could not be written; what was written of it has been taken back.
    """
    length = os.fstat(handle).st_size
    entry = _gap(handle, length) + entry
    try:
        journal.begin(length, entry)
        os.lseek(handle, length, os.SEEK_SET)
        write_all(handle, entry)
        if journal.durable:
            os.fsync(handle)
    except OSError:
        # The journal stays if this fails too, and the next one does it.
        os.ftruncate(handle, length)
        journal.end()
        raise
    journal.end()


def _gap(handle: int, length: int) -> bytes:
    """Return what is missing before a line "From ": messages are parted by an empty line."""
    end = read_at(handle, max(length - 2, 0), 2)
    if not end or end == b"\n\n":
        return b""
    return b"\n" if end.endswith(b"\n") else b"\n\n"


def holds(handle: int, line: bytes) -> bool:
    """Return whether the file holds this line."""
    if os.fstat(handle).st_size == 0:
        return False
    with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\n" + line) >= 0


def read_at(handle: int, offset: int, count: int) -> bytes:
    """Return ``count`` octets from ``offset``, fewer at the end of the file."""
    parts: list[bytes] = []
    while count > 0 and (part := os.pread(handle, count, offset)):
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return b"".join(parts)


def write_all(handle: int, octets: bytes) -> None:
    """Write all of it, however little the system takes at once."""
    view = memoryview(octets)
    while view:
        view = view[os.write(handle, view) :]


def sync_directory(directory: Path) -> None:
    """Synchronise a directory to disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
