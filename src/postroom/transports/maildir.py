"""Delivery into Maildir mailboxes on a local file system.

A message is written to ``tmp``, synchronised to disk, and renamed into ``new``, whose directory is then
synchronised as well: what is reported as delivered survives a power failure. The file's name is derived from
the message and the recipient, so that a second attempt finds what a first one left and stores nothing twice.
What a crash leaves in ``tmp`` is removed by the mailbox's readers after 36 hours, as everywhere with Maildir.

Two headers are put in front, as a final delivery does: ``Return-Path`` (RFC 5321 section 4.4) and
``Delivered-To`` (RFC 9228). Line ends become LF, as the readers of a Maildir expect; all other octets stay.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import string
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass
from pathlib import Path, PurePosixPath

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, SessionStale, TransportDown
from postroom.ids import created_at
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Reply
from postroom.transports.base import Outcomes, Session, Transport

__all__ = ["MaildirTransport", "file_name", "maildir_content"]

Folder = str | Callable[[Address], str | None]

_PLACEHOLDERS = frozenset({"value", "local", "domain"})
_RESERVED = frozenset({"tmp", "new", "cur", ".", ".."})
_DIRECTORIES = ("tmp", "new", "cur")
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_MAX_NAME = 255
"""Octets of a file name on every file system in use."""

_SYSTEM_TROUBLE = frozenset({errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM})
"""What goes wrong for every mailbox alike: the transport is down, and no recipient is charged."""

_STORED = Delivered(Reply("stored", "2.0.0"))
_STORED_BEFORE = Delivered(Reply("stored by an earlier attempt", "2.0.0"))


@dataclass(eq=False)
class MaildirTransport(Transport):
    """Stores messages in Maildirs below ``root``. Thread-safe; several processes may share a root.

    Attributes:
        root: the directory that holds the mailboxes.
        address_types: "maildir" by default: ``maildir:ann`` is the mailbox ``root/ann``.
        folder: which mailbox an address has, as a path relative to ``root``: a template with ``{value}`` (the
            address without its type), ``{local}`` and ``{domain}`` (what stands before and after its last
            "@"), or a function that returns the path, or None for "not mine". ``"."`` is one mailbox for all:
            ``root`` itself. A path that leaves ``root`` is refused whoever made it.
        create: mailboxes that do not exist (and ``root``) are created; otherwise their recipients fail
            with status 5.1.1.
        durable: synchronise files and directories to disk.

    Raises:
        ConfigurationError: the template is wrong.
    """

    root: str | os.PathLike[str]
    _: KW_ONLY
    name: str = "maildir"
    address_types: Collection[str] = frozenset({"maildir"})
    folder: Folder = "{value}"
    create: bool = True
    durable: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.folder, str):
            _check_template(self.folder)

    def open(self) -> Session:
        """Return a session.

        Raises:
            TransportDown: ``root`` is missing or cannot be used.
        """
        root = Path(self.root)
        try:
            if self.create:
                root.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise TransportDown(f"{root}: {error.strerror}") from error
        if not self.is_usable():
            raise TransportDown(f"{root}: not a directory that this process may use")
        return MaildirSession(self)

    def is_usable(self) -> bool:
        """Return whether ``root`` is a directory and this process may do there what it has to."""
        # To enter it is all that existing mailboxes need; to create them takes writing as well.
        return Path(self.root).is_dir() and os.access(self.root, os.X_OK | (os.W_OK if self.create else 0))

    def mailbox(self, address: Address) -> PurePosixPath | None:
        """Return the mailbox of ``address`` relative to ``root``, or None when it is not this transport's.

        Raises:
            ValueError: the address leads out of ``root``, or is no usable path.
        """
        if callable(self.folder):
            path = self.folder(address)
            if path is None:
                return None
        else:
            local, at, domain = address.value.rpartition("@")
            if not at:
                local, domain = domain, ""
            path = self.folder.format(value=address.value, local=local, domain=domain)
        return safe_path(path)


class MaildirSession(Session):
    """Holds nothing open between deliveries."""

    def __init__(self, transport: MaildirTransport) -> None:
        self._transport = transport
        self._root = Path(transport.root)

    def send(self, delivery: Delivery) -> Outcomes:
        """Store one copy for each target."""
        if not self.usable:
            raise SessionStale("the session is closed")
        return self.send_each(delivery, self._store)

    def _store(self, delivery: Delivery, target: Target) -> Outcome:
        try:
            folder = self._transport.mailbox(target.address)
        except ValueError as error:
            return Failed(Reply(f"not a mailbox: {error}", "5.1.3"))
        return NotMine() if folder is None else self._store_in(self._root / folder, delivery, target)

    def _store_in(self, mailbox: Path, delivery: Delivery, target: Target) -> Outcome:
        try:
            if not self._prepare(mailbox):
                return Failed(Reply("no such mailbox", "5.1.1"))
            if self._find(mailbox, delivery, target, look_everywhere=target.in_doubt or target.attempts > 0):
                self._sync(mailbox / "new")
                return _STORED_BEFORE
            temporary = self._write(mailbox, delivery, target)
        except OSError as error:
            return self._trouble(error)
        name = file_name(delivery, target)
        try:
            temporary.rename(mailbox / "new" / name)
            self._sync(mailbox / "new")
        except OSError as error:
            # It may be there or not: charge an attempt, since that makes the next one look in "cur" as well.
            _remove(temporary)
            return Deferred(Reply(f"mailbox: {error.strerror}", "4.3.0"))
        return _STORED

    def _prepare(self, mailbox: Path) -> bool:
        """Return whether the mailbox exists, creating it where that is allowed."""
        if all((mailbox / each).is_dir() for each in _DIRECTORIES):
            return True
        if not self._transport.create:
            return False
        missing = [mailbox, *mailbox.parents]
        missing = [each for each in missing if each.is_relative_to(self._root) and not each.exists()]
        for directory in (*reversed(missing), *(mailbox / each for each in _DIRECTORIES)):
            with contextlib.suppress(FileExistsError):  # another courier was first
                directory.mkdir(mode=_DIRECTORY_MODE)
            self._sync(directory.parent)
        return True

    def _find(self, mailbox: Path, delivery: Delivery, target: Target, *, look_everywhere: bool) -> bool:
        name = file_name(delivery, target)
        if (mailbox / "new" / name).exists():
            return True
        return look_everywhere and any(_is_named(each.name, name) for each in (mailbox / "cur").iterdir())

    def _write(self, mailbox: Path, delivery: Delivery, target: Target) -> Path:
        # Not the final name alone: a hung attempt may still be writing while its successor starts.
        temporary = mailbox / "tmp" / f"{file_name(delivery, target)}.{secrets.token_hex(6)}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(maildir_content(delivery, target))
                file.flush()
                if self._transport.durable:
                    os.fsync(file.fileno())
        except BaseException:
            _remove(temporary)
            raise
        return temporary

    def _sync(self, directory: Path) -> None:
        if not self._transport.durable:
            return
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

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
        """Return whether the message is in the mailbox, read or unread; None when that cannot be looked up.

        A reader that moves or deletes messages at once makes this False for a message that did arrive.
        """
        try:
            folder = self._transport.mailbox(target.address)
            if folder is None:
                return False
            return self._find(self._root / folder, delivery, target, look_everywhere=True)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Nothing is held."""
        self.usable = False


def file_name(delivery: Delivery, target: Target) -> str:
    """Return the file's unique name: the same for every attempt, another for everything else (pure).

    The digest keeps apart what two spools number alike when they deliver to one mailbox.
    """
    what = hashlib.blake2b(digest_size=6)
    for part in (delivery.sender.encode("utf-8", "replace"), str(target.address).encode("utf-8", "replace")):
        what.update(part + b"\0")
    what.update(delivery.content)
    seconds = int(created_at(delivery.key))
    return f"{seconds}.M{delivery.message_id}R{target.index}H{what.hexdigest()}.postroom"


def maildir_content(delivery: Delivery, target: Target) -> bytes:
    """Return what is stored (pure)."""
    address = target.address
    recipient = address.value if address.type == "smtp" else str(address)
    head = f"Return-Path: <{_one_word(delivery.sender)}>\nDelivered-To: {_one_word(recipient)}\n"
    return head.encode("utf-8", "replace") + delivery.content.replace(b"\r\n", b"\n")


def safe_path(path: str) -> PurePosixPath:
    """Return ``path`` if it stays below the directory that it is relative to (pure).

    Raises:
        ValueError: it does not, or it names a directory that Maildir reserves, or is no usable path.
    """
    if path == ".":
        return PurePosixPath()
    if not path.isprintable():
        raise ValueError("it has a control character")
    for name in path.split("/"):
        if not name:
            raise ValueError("it has an empty path segment")
        if name in _RESERVED:
            raise ValueError(f"{name!r} may not be part of the path")
        if len(name.encode("utf-8", "replace")) > _MAX_NAME:
            raise ValueError("a path segment is too long")
    return PurePosixPath(path)


def _is_named(entry: str, name: str) -> bool:
    """Return whether a reader made ``entry`` of ``name``: flags follow a colon, Dovecot's sizes a comma."""
    return entry == name or entry.startswith((f"{name}:", f"{name},"))


def _one_word(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _check_template(template: str) -> None:
    remedy = "use {value}, {local} and {domain}, or give a function"
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigurationError("folder", str(error), remedy) from None
    if unknown := fields - _PLACEHOLDERS:
        raise ConfigurationError("folder", f"{sorted(unknown)} is not a placeholder", remedy)
    if not fields:
        try:
            safe_path(template)
        except ValueError as error:
            raise ConfigurationError("folder", str(error), "give a path relative to root") from None
