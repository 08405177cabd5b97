"""Receiving from a Maildir on a local file system: whatever delivers there, postfix, fetchmail or a script.

Only what lies in ``new`` is taken: a file gets there by a rename when it is complete. What is in ``tmp`` is none of our
business, what is in ``cur`` was seen by a reader. The ledger knows a file by its unique name, which readers keep when
they rename it (https://cr.yp.to/proto/maildir.html).
"""

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Final, Literal

from postroom.errors import ConfigurationError, TransportDown, UsageError
from postroom.inbound.values import Arrival, LedgerKey
from postroom.receivers.base import Inlet, Receiver, ReceiverSession
from postroom.receivers.maildir_files import (
    Folder,
    NewFile,
    UnusableFile,
    envelope_of,
    list_folders,
    list_new,
    mark_seen,
    read_file,
)
from postroom.receivers.maildir_watch import LookingWatch, Watch, make_watch

__all__ = ["MaildirReceiver", "MaildirSession"]

log = logging.getLogger("postroom.receivers.maildir")

MIB: Final = 1024 * 1024
BATCH_MESSAGES: Final = 50
BATCH_OCTETS: Final = 8 * MIB
"""What is handed over in one transaction at most; a larger message goes alone."""

ASIDE_SECONDS: Final = 60.0
ASIDE_MOST: Final = 3600.0
"""How long a file that cannot be taken is left alone; doubles up to an hour."""

FOLDERS: Final = "folders"
"""The source under which the names of the folders are remembered, since the ledger is to forget those that go."""

_OFFICES: Final = ("delete", "seen", "keep")


@dataclass(eq=False)
class MaildirReceiver(Receiver):
    """Takes the new messages of a Maildir.

    Attributes:
        path: the directory with ``tmp``, ``new`` and ``cur``.
        name: "maildir" by default.
        after: what becomes of a file whose message was taken: "delete"; "seen", which moves it to ``cur`` with the flag
            S; "keep", which leaves it in ``new``.
        watch: new files are noticed at once (inotify, with the extra ``postroom[maildir]``; within a second without);
            False looks every ``interval`` seconds.
        folders: the subfolders of a Maildir++ (``.Lists.Debian``) too; rules see them as "Lists/Debian". Names are not
            decoded.
        max_size: octets; a larger file is left where it is, and reported.

    Raises:
        ConfigurationError: ``after`` or ``max_size`` is wrong.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    name: str = "maildir"
    after: Literal["delete", "seen", "keep"] = "delete"
    watch: bool = True
    folders: bool = False
    max_size: int = 50 * MIB

    def __post_init__(self) -> None:
        if self.after not in _OFFICES:
            raise ConfigurationError("after", f"{self.after!r} is unknown", 'give "delete", "seen" or "keep"')
        if self.max_size <= 0:
            raise ConfigurationError("max_size", f"{self.max_size!r} is not positive", "give octets from 1")

    def open(self, inlet: Inlet) -> ReceiverSession:
        """Return a session.

        Raises:
            TransportDown: the directory is missing or no Maildir.
        """
        root = Path(self.path)
        for each in ("new", "cur"):
            if not (root / each).is_dir():
                raise TransportDown(f"{root}: not a Maildir, there is no directory {each!r}")
        watch = make_watch(self.name) if self.watch else LookingWatch()
        session = MaildirSession(self, inlet, watch)
        inlet.report("up")
        return session


@dataclass(slots=True)
class _Aside:
    """A file that cannot be taken: why, how often that was found, and when it is tried again (monotonic seconds)."""

    why: str
    times: int
    until: float


class MaildirSession(ReceiverSession):
    """Looks into the directories and hands over what is new.

    Args:
        receiver: whose session it is.
        inlet: the way into the spool.
        watch: notices new files.
        monotonic: for the pauses of files that cannot be taken.
    """

    def __init__(
        self,
        receiver: MaildirReceiver,
        inlet: Inlet,
        watch: Watch,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._root = Path(receiver.path)
        self._inlet = inlet
        self._watch = watch
        self._monotonic = monotonic
        self._known: dict[str, set[str]] = {}
        self._aside: dict[Path, _Aside] = {}
        self._told = ""
        self._remembered: frozenset[str] | None = None

    def poll(self) -> int:
        """Hand over what is new, folder by folder; what cannot be taken holds up nothing else."""
        folders = [Folder(self._root)]
        if self._receiver.folders:
            folders += list_folders(self._root)
            self._remember(folders[1:])
        # Before looking: what comes from now on is noticed, or seen.
        self._watch.clear()
        self._follow(folders)
        taken = 0
        there: set[Path] = set()
        for folder in folders:
            try:
                files = list_new(folder)
            except FileNotFoundError:
                if not folder.name:
                    raise
                continue  # it was removed since
            there.update(file.path for file in files)
            taken += self._poll_folder(folder, files)
        self._aside = {path: aside for path, aside in self._aside.items() if path in there}
        self._report()
        return taken

    def wait(self, timeout: float) -> None:
        """Return when there is a new file, or when the time is over."""
        if self._inlet.stopping.is_set():
            return
        self._watch.wait(timeout)

    def interrupt(self) -> None:
        """End a wait."""
        self._watch.wake()

    def close(self) -> None:
        """Watch no more."""
        self._watch.close()

    # One folder

    def _poll_folder(self, folder: Folder, files: Sequence[NewFile]) -> int:
        known = self._known.get(folder.source)
        if known is None:
            known = self._known[folder.source] = set(self._inlet.known(folder.source))
        if gone := known - {file.key for file in files}:
            # Else a power failure might bring back a file that the ledger has forgotten.
            _synchronise(folder.path / "new")
            self._inlet.forget(folder.source, gone)
            known -= gone
        if self._receiver.after != "keep":
            for file in files:
                if file.key in known and self._is_due(file):
                    self._finish(file)
        taken = 0
        for batch in self._batches(folder, [file for file in files if file.key not in known]):
            taken += self._take(batch, known)
            if self._inlet.stopping.is_set():
                break
        return taken

    def _batches(self, folder: Folder, files: Sequence[NewFile]) -> Iterator[list[tuple[NewFile, Arrival]]]:
        batch: list[tuple[NewFile, Arrival]] = []
        octets = 0
        for file in files:
            arrival = self._read(folder, file) if self._is_due(file) else None
            if arrival is None:
                continue
            size = len(arrival.content)
            if batch and (len(batch) == BATCH_MESSAGES or octets + size > BATCH_OCTETS):
                yield batch
                batch, octets = [], 0
            batch.append((file, arrival))
            octets += size
        if batch:
            yield batch

    def _read(self, folder: Folder, file: NewFile) -> Arrival | None:
        try:
            found = read_file(file.path, self._receiver.max_size)
        except UnusableFile as error:
            self._set_aside(file, str(error))
            return None
        if found is None:
            return None
        content, received = found
        sender, recipients = envelope_of(content)
        return Arrival(
            content=content, keys=(LedgerKey(folder.source, file.key),), sender=sender, recipients=recipients,
            received=received, folder=folder.name,
        )  # fmt: skip

    def _take(self, batch: Sequence[tuple[NewFile, Arrival]], known: set[str]) -> int:
        try:
            received = self._inlet.take([arrival for _, arrival in batch])
        except UsageError as error:
            # One of them is at fault, and the others shall not wait for it.
            if len(batch) > 1:
                return sum(self._take([each], known) for each in batch)
            self._set_aside(batch[0][0], str(error))
            return 0
        for file, _ in batch:
            known.add(file.key)
            self._aside.pop(file.path, None)
            if self._receiver.after != "keep":
                self._finish(file)
        return sum(not each.duplicate for each in received)

    def _finish(self, file: NewFile) -> None:
        """Remove or move a file whose message is safe."""
        try:
            if self._receiver.after == "seen":
                mark_seen(file)
            else:
                file.path.unlink(missing_ok=True)
        except OSError as error:
            self._set_aside(file, f"it was taken, and cannot be removed: {error.strerror}")
        else:
            self._aside.pop(file.path, None)

    # Files that cannot be taken

    def _is_due(self, file: NewFile) -> bool:
        aside = self._aside.get(file.path)
        return aside is None or self._monotonic() >= aside.until

    def _set_aside(self, file: NewFile, why: str) -> None:
        before = self._aside.get(file.path)
        times = 1 if before is None else before.times + 1
        pause = min(ASIDE_SECONDS * 2.0 ** min(times - 1, 10), ASIDE_MOST)
        self._aside[file.path] = _Aside(why, times, self._monotonic() + pause)
        if before is None or before.why != why:
            log.warning("%s leaves %s alone: %s", self._receiver.name, file.path, why)

    def _report(self) -> None:
        first = next(iter(self._aside.items()), None)
        told = ""
        if first is not None:
            path, aside = first
            others = f", and {len(self._aside) - 1} more" if len(self._aside) > 1 else ""
            told = f"left alone: {path.name}: {aside.why}{others}"
        if told != self._told:
            self._told = told
            self._inlet.report("up", told)

    # Folders

    def _follow(self, folders: Collection[Folder]) -> None:
        if not self._receiver.watch:
            return
        directories = [folder.path / "new" for folder in folders]
        if self._receiver.folders:
            directories.append(self._root)
        try:
            fresh = self._watch.follow(directories)
        except OSError as error:
            # Watches are scarce (fs.inotify.max_user_watches).
            log.warning("%s cannot be told of new files: %s", self._receiver.name, error)
            self._watch.close()
            self._watch = LookingWatch()
            fresh = self._watch.follow(directories)
        if fresh and isinstance(self._watch, LookingWatch):
            self._watch.clear()

    def _remember(self, folders: Collection[Folder]) -> None:
        """Have the ledger forget folders that are gone, and remember those that are there."""
        if self._remembered is None:
            remembered: list[str] = json.loads(self._inlet.progress(FOLDERS) or "[]")
            self._remembered = frozenset(remembered)
        now = frozenset(folder.source for folder in folders)
        if now == self._remembered:
            return
        for gone in self._remembered - now:
            self._inlet.forget(gone, self._inlet.known(gone))
            self._known.pop(gone, None)
        self._inlet.take((), progress={FOLDERS: json.dumps(sorted(now))})
        self._remembered = now


def _synchronise(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
