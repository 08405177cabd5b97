"""The files of a Maildir, as its receiver handles them (https://cr.yp.to/proto/maildir.html and Maildir++)."""

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Folder",
    "NewFile",
    "UnusableFile",
    "envelope_of",
    "list_folders",
    "list_new",
    "mark_seen",
    "read_file",
]

_INFO = ":2,"
_VANISHED = frozenset({errno.ENOENT, errno.ESTALE})
_ENVELOPE = re.compile(rb"^(return-path|delivered-to):[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEAD = 16_384
"""Octets of a message in which the fields of its final delivery are looked for: they stand first."""


class UnusableFile(Exception):
    """A file cannot be taken as a message; says why."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A mailbox of a Maildir++ tree.

    Attributes:
        path: of the directory with ``new`` and ``cur``.
        name: "" for the main one, else its path with "/" between the parts, as in "Lists/Debian".
    """

    path: Path
    name: str = ""

    @property
    def source(self) -> str:
        """The place in the ledger."""
        return f"new/{self.name}" if self.name else "new"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file in ``new``.

    Attributes:
        path: its whole path.
        key: its unique name, which it keeps when a reader moves it to ``cur`` and gives it flags; printable.
    """

    path: Path
    key: str


def list_folders(root: Path) -> list[Folder]:
    """Return the subfolders of a Maildir++, by name; those that are no mailboxes are left out.

    Raises:
        OSError: the directory cannot be read.
    """
    with os.scandir(root) as entries:
        names = sorted(
            entry.name for entry in entries if entry.name.startswith(".") and entry.name.strip(".")
        )
    folders = (Folder(root / name, _printable(name[1:]).replace(".", "/")) for name in names)
    return [folder for folder in folders if (folder.path / "new").is_dir()]


def list_new(folder: Folder) -> list[NewFile]:
    """Return the files in ``new``, the oldest first as far as their names tell.

    Raises:
        OSError: the directory cannot be read.
    """
    with os.scandir(folder.path / "new") as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    names.sort(key=_age)
    return [NewFile(folder.path / "new" / name, _printable(name.partition(_INFO)[0])) for name in names]


def _age(name: str) -> tuple[int, str]:
    """Return what sorts names by their seconds since the epoch; names without any come last."""
    seconds = re.match(r"[0-9]{1,18}(?=\.)", name)
    return (int(seconds[0]) if seconds else 1 << 62, name)


def _printable(name: str) -> str:
    """Return a name that can be stored as text, different for each name."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_file(path: Path, max_size: int) -> tuple[bytes, float] | None:
    """Return a message and when it came in wall-clock seconds; None when the file has vanished.

    Raises:
        UnusableFile: it is no plain file, too large, empty, or may not be read.
    """
    try:
        # Without O_NOFOLLOW a link could make any file a message; without O_NONBLOCK a pipe would hang us.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise UnusableFile("it is no plain file")
            if about.st_size > max_size:
                raise UnusableFile(f"it has {about.st_size} octets, more than {max_size}")
            content = file.read(max_size + 1)
    except OSError as error:
        if error.errno in _VANISHED:
            return None
        if error.errno == errno.ELOOP:
            raise UnusableFile("it is a symbolic link") from None
        raise UnusableFile(error.strerror or type(error).__name__) from error
    if len(content) > max_size:
        raise UnusableFile(f"it grows, and has more than {max_size} octets")
    if not content:
        raise UnusableFile("it is empty")
    return content, about.st_mtime


def mark_seen(file: NewFile) -> None:
    """Move a file to ``cur`` with the flag S (seen); nothing happens when it is gone.

    Raises:
        OSError: that is not possible.
    """
    name, _, flags = file.path.name.partition(_INFO)
    flags = "".join(sorted({*flags, "S"}))
    try:
        file.path.rename(file.path.parent.parent / "cur" / f"{name}{_INFO}{flags}")
    except FileNotFoundError:
        if file.path.exists():
            raise


def envelope_of(content: bytes) -> tuple[str | None, tuple[str, ...]]:
    """Return sender and recipients as the final delivery wrote them in front (pure).

    Return-Path is RFC 5321 section 4.4, Delivered-To RFC 9228. Only what stands before the first blank line counts, and
    of several return paths the first.
    """
    head = re.split(rb"\r?\n\r?\n", content[:_HEAD], maxsplit=1)[0]
    sender: str | None = None
    recipients: list[str] = []
    for found in _ENVELOPE.finditer(head):
        text = found[2].decode("utf-8", "replace").strip()
        if found[1].lower() == b"delivered-to":
            recipients.append(text)
        elif sender is None and text.startswith("<") and text.endswith(">"):
            sender = text[1:-1]
    return sender, tuple(each for each in recipients if each)
