"""A session that takes messages from the folders of an IMAP mailbox."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from postroom.errors import WorldError
from postroom.inbound.values import Arrival, LedgerKey
from postroom.receivers.base import Inlet, ReceiverSession
from postroom.receivers.imap_client import ImapConnection, Refused
from postroom.receivers.imap_progress import (
    Carried,
    Described,
    Progress,
    batches,
    chunks,
    digest_of,
    entry_of,
    read_entries,
    source_of,
)
from postroom.receivers.imap_suspects import Suspects
from postroom.receivers.mailbox_traces import envelope_of

__all__ = ["ImapSession", "Taking"]

log = logging.getLogger("postroom.receivers")

T = TypeVar("T")

COMMAND_UIDS: Final = 500
"""UIDs in one command, well below the 8192 octets of a line that every server takes."""

PRUNE_SECONDS: Final = 3600.0
"""How often entries of copies that others removed are looked for, besides at the session's begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """What a session takes and what it leaves behind.

    Attributes:
        folders: in this order; IDLE is given in the first.
        after: "keep", "seen", "delete" or "move".
        target: the folder that copies are moved to.
        backlog: what lay there at first is taken too.
        max_message_size: octets; larger ones are passed over.
        batch_messages: messages in one transaction at most.
        batch_octets: octets of them at most, unless a single one has more.
        idle: use IDLE where it is offered.
    """

    folders: Sequence[str]
    after: str
    target: str
    backlog: bool
    max_message_size: int
    batch_messages: int
    batch_octets: int
    idle: bool


class _Folder:
    """What a session knows of a folder in its present numbering. ``entries`` is the ledger's, by UID."""

    def __init__(self, name: str, progress: Progress, entries: dict[int, str], carried: Carried) -> None:
        self.name = name
        self.progress = progress
        self.written = progress
        self.entries = entries
        self.carried = carried
        self.acted: set[int] = set()
        self.stuck: set[int] = set()
        self.pruned: float | None = None

    @property
    def source(self) -> str:
        """The ledger's source."""
        return source_of(self.name, self.progress.uidvalidity)


class ImapSession(ReceiverSession):
    """See :class:`~postroom.receivers.imap.ImapReceiver`, which makes it."""

    def __init__(self, connection: ImapConnection, inlet: Inlet, taking: Taking, suspects: Suspects) -> None:
        self._connection = connection
        self._inlet = inlet
        self._taking = taking
        self._suspects = suspects
        self._folders: dict[str, _Folder] = {}
        self._selected = ""
        self._target_made = False
        self._interrupted = threading.Event()

    def poll(self) -> int:
        """Take what is new in every folder, and do with what was taken what ``after`` says.

        Raises:
            WorldError: the connection broke, or a folder cannot be opened.
            Exception: whatever the inlet raises.
        """
        # The first folder is last, since IDLE wants it selected.
        return sum(self._poll_folder(name) for name in reversed(self._taking.folders))

    def wait(self, timeout: float) -> None:
        """Wait for the server's word on the first folder, or only for the time where it has no IDLE.

        Raises:
            WorldError: the connection broke.
        """
        try:
            if self._taking.idle and self._connection.can_idle:
                if self._selected != self._taking.folders[0]:
                    self._select(self._taking.folders[0])
                self._connection.idle(timeout)
            else:
                self._connection.pause(timeout)
        except WorldError:
            if not self._interrupted.is_set():
                raise

    def interrupt(self) -> None:
        """End the connection, so that whatever hangs ends."""
        self._interrupted.set()
        self._connection.interrupt()

    def close(self) -> None:
        """Log out if that is quick."""
        self._connection.close()

    # A folder

    def _select(self, name: str) -> tuple[int, int | None]:
        selected = self._connection.select(name, readonly=self._taking.after == "keep")
        self._selected = name
        return selected.uidvalidity, selected.uidnext

    def _poll_folder(self, name: str) -> int:
        uidvalidity, uidnext = self._select(name)
        folder = self._folders.get(name)
        if folder is None or folder.progress.uidvalidity != uidvalidity:
            folder = self._folders[name] = self._enter(name, uidvalidity, uidnext)
        self._prune(folder)
        # What the ledger knows, and is as it was: the end of an earlier session came in between.
        self._act(folder, sorted(uid for uid in folder.entries if uid > folder.progress.tidied))
        taken = 0
        stuck = bool(folder.stuck)
        folder.stuck.clear()
        if uidnext is None or uidnext > folder.progress.taken + 1 or stuck:
            above = self._connection.uids_after(folder.progress.taken)
            fresh = [uid for uid in above if uid not in folder.entries]
            for chunk in chunks(fresh, 1 if self._suspects.careful(folder.source) else COMMAND_UIDS):
                taken += self._take_chunk(folder, chunk)
            self._suspects.passed(folder.source)
        self._finish(folder)
        return taken

    def _enter(self, name: str, uidvalidity: int, uidnext: int | None) -> _Folder:
        """Return where a folder stands, from the spool."""
        said = self._inlet.progress(name)
        if said is None:
            progress = Progress(uidvalidity=uidvalidity)
            if not self._taking.backlog:
                progress = replace(progress, taken=self._last(uidnext), since=time.time())
                self._inlet.take((), progress={name: progress.written()})
        else:
            progress = Progress.read(said)
        if progress.uidvalidity != uidvalidity:
            log.warning(
                "%s: %s has new numbers (UIDVALIDITY %d, was %d); everything in it is compared with what was taken",
                self._connection.remote, name, uidvalidity, progress.uidvalidity,
            )  # fmt: skip
            progress = progress.renumbered(uidvalidity, self._last(uidnext))
            self._inlet.take((), progress={name: progress.written()})
        entries = read_entries(self._inlet.known(source_of(name, uidvalidity)))
        sources = [source_of(name, earlier) for earlier in progress.before]
        carried = Carried({source: self._inlet.known(source) for source in sources}, entries.values())
        return _Folder(name, progress, entries, carried)

    def _last(self, uidnext: int | None) -> int:
        return uidnext - 1 if uidnext is not None else max(self._connection.uids(), default=0)

    def _prune(self, folder: _Folder) -> None:
        """Forget entries of copies that others removed."""
        now = time.monotonic()
        if folder.pruned is not None and now - folder.pruned < PRUNE_SECONDS:
            return
        folder.pruned = now
        if folder.entries:
            there = set(self._connection.uids())
            self._forget(folder, [uid for uid in folder.entries if uid not in there])

    def _forget(self, folder: _Folder, uids: Sequence[int]) -> None:
        if uids:
            self._inlet.forget(folder.source, [folder.entries[uid] for uid in uids])
            for uid in uids:
                del folder.entries[uid]

    # Taking

    def _take_chunk(self, folder: _Folder, uids: Sequence[int]) -> int:
        taken = 0
        wanted: list[Described] = []
        described = self._fetch(folder, uids, self._connection.describe)
        for _, copy in sorted(described.items()):
            if copy.size > self._taking.max_message_size:
                self._pass_over(folder, copy.uid, copy.size)
            else:
                wanted.append(copy)
        for batch in batches(wanted, self._taking.batch_octets, self._taking.batch_messages):
            taken += self._take_batch(folder, batch)
        self._advance(folder, uids[-1])
        return taken

    def _advance(self, folder: _Folder, uid: int) -> None:
        """Note that everything up to ``uid`` was dealt with, but for what the server could not give."""
        limit = min((*(stuck - 1 for stuck in folder.stuck), uid))
        if limit > folder.progress.taken:
            folder.progress = replace(folder.progress, taken=limit)

    def _take_batch(self, folder: _Folder, batch: Sequence[Described]) -> int:
        arrivals: dict[int, Arrival] = {}
        contents = self._fetch(folder, [copy.uid for copy in batch], self._connection.contents)
        for copy in batch:
            content = contents.pop(copy.uid, None)
            if content is None:
                continue
            if len(content) > self._taking.max_message_size:
                self._pass_over(folder, copy.uid, len(content))
                continue
            digest = digest_of(content)
            earlier = folder.carried.find(digest)
            if not earlier and self._came_before(folder, copy):
                continue
            sender, recipients = envelope_of(content)
            key = LedgerKey(folder.source, entry_of(copy.uid, digest))
            self._suspects.came(folder.source, copy.uid)
            arrivals[copy.uid] = Arrival(
                content=content, keys=(key, *earlier), sender=sender, recipients=recipients,
                received=copy.received, remote=self._connection.remote, seen=copy.seen, folder=folder.name,
            )  # fmt: skip
        self._advance(folder, batch[-1].uid)
        if not arrivals:
            self._write(folder)
            return 0
        said = self._inlet.take(list(arrivals.values()), progress={folder.name: folder.progress.written()})
        folder.written = folder.progress
        folder.entries.update({uid: arrival.keys[0].uid for uid, arrival in arrivals.items()})
        self._act(folder, list(arrivals))
        return sum(not each.duplicate for each in said)

    def _fetch(
        self, folder: _Folder, uids: Sequence[int], command: Callable[[Sequence[int]], Mapping[int, T]]
    ) -> dict[int, T]:
        """Return what a command says of messages; those that it says nothing of are remembered or gone."""
        resting = {uid for uid in uids if self._suspects.resting(folder.source, uid)}
        folder.stuck |= resting
        wanted = [uid for uid in uids if uid not in resting]
        found: dict[int, T] = {}
        if wanted:
            try:
                found.update(command(wanted))
            except Refused:
                # The server cannot read one of them; the others are not to wait for it.
                for uid in wanted:
                    with suppress(Refused):
                        found.update(command([uid]))
            except WorldError:
                if not self._interrupted.is_set():
                    self._suspects.broke(folder.source, wanted)
                raise
        self._miss(folder, set(wanted).difference(found))
        return found

    def _miss(self, folder: _Folder, uids: AbstractSet[int]) -> None:
        """Remember those of ``uids`` that the server did not give and that are there all the same."""
        for uid in sorted(uids):
            if self._connection.uids(f"UID {uid}"):
                log.warning(
                    "%s: %s: the server does not give UID %d; it is tried again at every poll",
                    self._connection.remote, folder.name, uid,
                )  # fmt: skip
                folder.stuck.add(uid)

    def _came_before(self, folder: _Folder, copy: Described) -> bool:
        progress = folder.progress
        return copy.uid <= progress.old and copy.received is not None and copy.received < progress.since

    def _pass_over(self, folder: _Folder, uid: int, size: int) -> None:
        log.warning(
            "%s: %s: UID %d has %d octets, more than max_message_size (%d); it stays there and is not taken",
            self._connection.remote, folder.name, uid, size, self._taking.max_message_size,
        )  # fmt: skip

    # What becomes of the remote copies

    def _act(self, folder: _Folder, uids: Sequence[int]) -> None:
        """Do with taken copies what ``after`` says."""
        if self._taking.after == "keep":
            return
        for chunk in chunks([uid for uid in uids if uid not in folder.acted], COMMAND_UIDS):
            if self._taking.after == "seen":
                self._connection.flag_seen(chunk)
                folder.acted.update(chunk)
            elif self._put_away(chunk):
                self._forget(folder, chunk)

    def _put_away(self, uids: Sequence[int]) -> bool:
        if self._taking.after == "delete":
            return self._connection.remove(uids)
        if not self._target_made:
            self._connection.make_folder(self._taking.target)
            self._target_made = True
        return self._connection.move(uids, self._taking.target)

    def _finish(self, folder: _Folder) -> None:
        """Remember how far it came, and give up what is not needed any more."""
        progress = folder.progress
        if self._taking.after in {"seen", "keep"}:
            progress = replace(progress, tidied=progress.taken)
            folder.acted = {uid for uid in folder.acted if uid > progress.tidied}
        if progress.before and not folder.stuck:
            sources: defaultdict[str, set[str]] = defaultdict(set)
            for earlier in progress.before:
                source = source_of(folder.name, earlier)
                sources[source].update(self._inlet.known(source))
            for source, entries in sources.items():
                self._inlet.forget(source, entries)
            folder.carried = Carried({}, ())
            progress = replace(progress, before=())
        folder.progress = progress
        self._write(folder)

    def _write(self, folder: _Folder) -> None:
        if folder.progress != folder.written:
            self._inlet.take((), progress={folder.name: folder.progress.written()})
            folder.written = folder.progress
