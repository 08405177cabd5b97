"""Delivery into mbox files on a local file system: each message is appended to one file.

The variety is *mboxrd* (:func:`postroom.mailfiles.mbox_entry`): a line ``From sender date``, the message with LF line
ends in which each line that begins with ``From `` behind any number of ``>`` got one more ``>``, and an empty line.
Three headers are put in front: ``Return-Path`` (RFC 5321 section 4.4), ``Delivered-To`` (RFC 9228) and
``X-Postroom-Delivery``, which is the same at every attempt: an attempt after one in doubt looks for it in the file, and
stores nothing twice.

**Locks** (:mod:`postroom.transports.mbox_lock`): an fcntl lock on the file and then a dot-lock ``file.lock``, both
without blocking, as Debian's policy asks of programs that touch mail spools.

**Crashes** (:mod:`postroom.transports.mbox_journal`): before a message is appended, where it begins and what it is are
written to ``file.postroom``. Who appends next and finds that file takes back what was written of an incomplete
message. With ``durable`` all of it is synchronised to disk before the message is called delivered.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, SessionStale, TransportDown
from postroom.mailfiles import mbox_entry
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Reply
from postroom.transports.base import Outcomes, Session, Transport
from postroom.transports.maildir import Folder, MaildirTransport, file_name, maildir_content
from postroom.transports.mbox_journal import SUFFIX, Journal, append, holds, sync_directory
from postroom.transports.mbox_lock import LOCK_SUFFIX, Busy, locked

__all__ = ["MboxTransport", "delivery_mark"]

_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_RESERVED: Final = (LOCK_SUFFIX, SUFFIX)

_SYSTEM_TROUBLE: Final = frozenset(
    {errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
)
"""What goes wrong for every mailbox alike: the transport is down, and no recipient is charged."""

_STORED: Final = Delivered(Reply("stored", "2.0.0"))
_STORED_BEFORE: Final = Delivered(Reply("stored by an earlier attempt", "2.0.0"))


@dataclass(eq=False)
class MboxTransport(Transport):
    """Appends messages to mbox files below ``root``. Thread-safe; several processes may share a root.

    Attributes:
        root: the directory that holds the files.
        address_types: "mbox" by default: ``mbox:ann`` is the file ``root/ann``.
        folder: which file an address has, as a path relative to ``root``: a template or a function, as
            :class:`~postroom.transports.maildir.MaildirTransport` takes it. A path that leaves ``root`` is refused
            whoever made it, and so are names that end in ".lock" or ".postroom".
        create: files that do not exist (and ``root``) are created; otherwise their recipients fail with status 5.1.1.
        durable: synchronise files and directories to disk.
        lock_timeout: seconds to wait for a file that another program holds; then the recipient is deferred.

    Raises:
        ConfigurationError: an option is wrong.
    """

    root: str | os.PathLike[str]
    _: KW_ONLY
    name: str = "mbox"
    address_types: Collection[str] = frozenset({"mbox"})
    folder: Folder = "{value}"
    create: bool = True
    durable: bool = True
    lock_timeout: float = 20.0

    def __post_init__(self) -> None:
        if self.folder == ".":
            raise ConfigurationError("folder", "'.' is the root itself, not a file", "name a file in it")
        if self.lock_timeout <= 0:
            raise ConfigurationError(
                "lock_timeout", f"{self.lock_timeout!r} is not positive", "give seconds above 0"
            )
        # The same rules about paths, in the same place.
        self._paths = MaildirTransport(self.root, folder=self.folder, create=self.create)

    def open(self) -> Session:
        """Return a session.

        Raises:
            TransportDown: ``root`` is missing or cannot be used.
        """
        self._paths.open().close()
        return MboxSession(self)

    def is_usable(self) -> bool:
        """Return whether ``root`` is a directory and this process may do there what it has to."""
        return self._paths.is_usable()

    def file(self, address: Address) -> PurePosixPath | None:
        """Return the file of ``address`` relative to ``root``, or None when it is not this transport's.

        Raises:
            ValueError: the address leads out of ``root``, or names no usable file.
        """
        path = self._paths.mailbox(address)
        if path is None:
            return None
        if not path.name:
            raise ValueError("it names no file")
        if path.name.endswith(_RESERVED):
            raise ValueError(f"a name that ends in {path.suffix} is kept for ours")
        return path


class MboxSession(Session):
    """Holds nothing open between deliveries."""

    def __init__(self, transport: MboxTransport) -> None:
        self._transport = transport
        self._root = Path(transport.root)
        self._aborted = threading.Event()

    def send(self, delivery: Delivery) -> Outcomes:
        """Append one copy for each target."""
        if not self.usable:
            raise SessionStale("the session is closed")
        return self.send_each(delivery, self._store)

    def _store(self, delivery: Delivery, target: Target) -> Outcome:
        try:
            path = self._transport.file(target.address)
        except ValueError as error:
            return Failed(Reply(f"not a mailbox: {error}", "5.1.3"))
        if path is None:
            return NotMine()
        try:
            return self._store_in(self._root / path, delivery, target)
        except Busy as busy:
            return Deferred(Reply(f"mailbox: {busy}", "4.2.0"))
        except OSError as error:
            return self._trouble(error)

    def _store_in(self, file: Path, delivery: Delivery, target: Target) -> Outcome:
        transport = self._transport
        if not os.path.lexists(file):  # Path.exists() would follow a symbolic link
            if not transport.create:
                return Failed(Reply("no such mailbox", "5.1.1"))
            self._make(file)
        with locked(file, transport.lock_timeout, self._aborted) as handle:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return Failed(Reply("mailbox: not an ordinary file", "5.2.0"))
            journal = Journal(file, durable=transport.durable)
            journal.repair(handle)
            mark = delivery_mark(delivery, target)
            if (target.in_doubt or target.attempts > 0) and holds(handle, mark):
                if transport.durable:
                    os.fsync(handle)
                return _STORED_BEFORE
            content = mark + maildir_content(delivery, target)
            append(handle, mbox_entry(delivery.sender, delivery.created, content), journal)
        return _STORED

    def _make(self, file: Path) -> None:
        """Create an empty file, with the directories above it up to the root."""
        missing = [each for each in file.parents if each.is_relative_to(self._root) and not each.exists()]
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another courier was first
                directory.mkdir(mode=_DIRECTORY_MODE)
            self._sync(directory.parent)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
        self._sync(file.parent)

    def _sync(self, directory: Path) -> None:
        if self._transport.durable:
            sync_directory(directory)

    def _trouble(self, error: OSError) -> Outcome:
        text = f"mailbox: {error.strerror}"
        # One mailbox that may not be written to must not stop all the others.
        if error.errno in _SYSTEM_TROUBLE or not self._transport.is_usable():
            raise TransportDown(f"{self._root}: {error.strerror}") from error
        if error.errno == errno.EDQUOT:
            return Deferred(Reply(text, "4.2.2"))
        if error.errno == errno.ENAMETOOLONG:
            return Failed(Reply(text, "5.1.3"))
        return Deferred(Reply(text, "4.2.1"))

    def was_delivered(self, delivery: Delivery, target: Target) -> bool | None:
        """Return whether the whole message is in the file; None when that cannot be looked up.

        A reader that moves or deletes messages at once makes this False for a message that did arrive.
        """
        try:
            path = self._transport.file(target.address)
            if path is None:
                return False
            file = self._root / path
            with locked(file, self._transport.lock_timeout, self._aborted) as handle:
                Journal(file, durable=self._transport.durable).repair(handle)
                return holds(handle, delivery_mark(delivery, target))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, Busy):
            return None

    def close(self) -> None:
        """Nothing is held."""
        self.usable = False

    def abort(self) -> None:
        """Give up waiting for a lock."""
        self._aborted.set()
        self.usable = False


def delivery_mark(delivery: Delivery, target: Target) -> bytes:
    """Return the header by which an attempt finds what an earlier one stored (pure)."""
    return f"X-Postroom-Delivery: {file_name(delivery, target)}\n".encode()
