"""Messages as files of other mail programs: mbox and eml.

An **mbox** is of the variety *mboxrd*: each message follows a line ``From SENDER DATE`` as in RFC 4155 (the date in
UTC, as ``asctime`` writes it; ``MAILER-DAEMON`` for the null reverse-path), has LF line ends as RFC 4155 asks for, is
followed by an empty line, and every line of it that begins with ``From `` behind any number of ``>`` gets one more
``>``. Taking that back and the LF to CRLF gives the very octets of the message.

An **eml** file is the message as it was sent, octet for octet.

Files are written beside their place and renamed into it once they are on the disk, so that nobody ever sees half of
one, and only their owner can read them.
"""

import os
import re
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from postroom.errors import UsageError

__all__ = ["ExportFormat", "KeptMessage", "atomic_file", "from_mboxrd", "mbox_entry", "write_messages"]

ExportFormat = Literal["mbox", "eml"]

_FROM: Final = re.compile(rb"^(>*From )", re.MULTILINE)
_QUOTED_FROM: Final = re.compile(rb"^>(>*From )", re.MULTILINE)
NOBODY: Final = "MAILER-DAEMON"


class KeptMessage(NamedTuple):
    """A message whose octets are there.

    Attributes:
        id: its id.
        sender: envelope sender, "" for the null reverse-path.
        created: wall-clock seconds of its submission.
        content: its octets, with CRLF line ends.
    """

    id: str
    sender: str
    created: float
    content: bytes


def write_messages(
    messages: Iterable[KeptMessage], to: str | Path | IO[bytes], form: ExportFormat, *, overwrite: bool
) -> None:
    """Write messages one by one; see :meth:`postroom.archive.Archive.export`.

    Raises:
        UsageError: the format is unknown, a file is there already, or several eml files should go into one.
        OSError: the file cannot be written.
    """
    if form == "mbox":
        if isinstance(to, str | Path):
            with atomic_file(Path(to), overwrite=overwrite) as file:
                _write_mbox(messages, file)
        else:
            _write_mbox(messages, to)
    elif form == "eml":
        if isinstance(to, str | Path):
            folder = Path(to)
            folder.mkdir(parents=True, exist_ok=True)
            for message in messages:
                with atomic_file(folder / f"{message.id}.eml", overwrite=overwrite) as file:
                    file.write(message.content)
        else:
            _write_one(messages, to)
    else:
        raise UsageError("format", f"{form!r} is unknown", 'give "mbox" or "eml"')


def _write_mbox(messages: Iterable[KeptMessage], file: IO[bytes]) -> None:
    for message in messages:
        file.write(mbox_entry(message.sender, message.created, message.content))


def _write_one(messages: Iterable[KeptMessage], file: IO[bytes]) -> None:
    for number, message in enumerate(messages):
        if number:
            raise UsageError("to", "is one file for several messages", "name a folder, or export an mbox")
        file.write(message.content)


def mbox_entry(sender: str, created: float, content: bytes) -> bytes:
    """Return a message as it stands in an mbox. Pure.

    Args:
        sender: envelope sender, "" for the null reverse-path.
        created: wall-clock seconds.
        content: the message with CRLF line ends.
    """
    # A quoted local part may hold spaces; readers take the date from the end of the line.
    head = f"From {sender or NOBODY} {time.asctime(time.gmtime(created))}\n".encode()
    body = _FROM.sub(rb">\1", content.replace(b"\r\n", b"\n"))
    return head + body + (b"\n" if body.endswith(b"\n") else b"\n\n")


def from_mboxrd(entry: bytes) -> bytes:
    """Return the message of an mbox entry with CRLF line ends; what :func:`mbox_entry` was given. Pure."""
    _, _, body = entry.partition(b"\n")
    return _QUOTED_FROM.sub(rb"\1", body.removesuffix(b"\n")).replace(b"\n", b"\r\n")


@contextmanager
def atomic_file(path: Path, *, overwrite: bool) -> Generator[IO[bytes]]:
    """Open a file that appears at ``path`` when the block ends well, durable and as a whole, or not at all.

    Raises:
        UsageError: there is a file and ``overwrite`` is not given.
        OSError: the folder is missing or cannot be written.
    """
    if not overwrite and path.exists():
        raise _taken(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            try:
                # Unlike a rename, a link never replaces what somebody put there meanwhile.
                path.hardlink_to(temporary)
            except FileExistsError:
                raise _taken(path) from None
            except OSError:  # a file system without hard links
                temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _taken(path: Path) -> UsageError:
    return UsageError("to", f"there is a file {path}", "name another one, or allow it to be overwritten")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
