"""How far the taking from an IMAP folder has come, and what the ledger says of it. Pure.

A folder's messages have ascending UIDs for as long as its UIDVALIDITY stays (RFC 9051 section 2.3.1.1), so one number
says which were dealt with. The ledger has an entry for each copy that was taken and is still there, ``uid:digest``
under the source ``folder;uidvalidity``. Where UIDVALIDITY changes and all messages have new numbers, the digests of the
old entries tell which are known: copy for copy, so that of two equal messages neither hides the other.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from postroom.inbound.values import LedgerKey

__all__ = [
    "Carried",
    "Described",
    "Progress",
    "batches",
    "chunks",
    "digest_of",
    "entry_of",
    "read_entries",
    "source_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is remembered of a folder, in the spool.

    Attributes:
        uidvalidity: for which the numbers below hold.
        taken: every UID up to this one was dealt with.
        tidied: what is to be done with taken copies that stay (a flag) was done up to this UID.
        since: wall-clock seconds; with ``backlog="none"`` what came before is not taken.
        old: UIDs up to this one are judged by ``since``: they had other numbers before UIDVALIDITY changed.
        before: earlier UIDVALIDITYs whose entries in the ledger are still to be matched.
    """

    uidvalidity: int
    taken: int = 0
    tidied: int = 0
    since: float = 0.0
    old: int = 0
    before: tuple[int, ...] = ()

    @classmethod
    def read(cls, text: str) -> "Progress":
        """Return what :meth:`written` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields["before"] = tuple(fields.get("before", ()))
        return cls(**fields)

    def written(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    def renumbered(self, uidvalidity: int, last: int) -> "Progress":
        """Return where to begin after UIDVALIDITY changed; ``last`` is the greatest UID there is now."""
        return Progress(
            uidvalidity=uidvalidity, since=self.since, old=last, before=(*self.before, self.uidvalidity)
        )


@dataclass(frozen=True, slots=True)
class Described:
    """A copy that is there, before it is fetched.

    Attributes:
        uid: its number.
        size: octets, as the server has it.
        received: wall-clock seconds (INTERNALDATE), None when the server does not say.
        seen: it has the flag.
    """

    uid: int
    size: int
    received: float | None
    seen: bool


def source_of(folder: str, uidvalidity: int) -> str:
    """Return the ledger's source for a folder in one of its numberings."""
    return f"{folder};{uidvalidity}"


def digest_of(content: bytes) -> str:
    """Return what tells a message from others: 128 bits, as nobody gains from a collision in his own mailbox."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def entry_of(uid: int, digest: str) -> str:
    """Return the ledger's entry for a copy."""
    return f"{uid}:{digest}"


def read_entries(entries: Iterable[str]) -> dict[int, str]:
    """Return entries of the ledger by their UIDs."""
    return {int(entry.partition(":")[0]): entry for entry in entries}


class Carried:
    """Entries of earlier numberings that may be found again, each once. Not thread-safe.

    Args:
        earlier: entries by source.
        now: entries of the present numbering: what they stand for was found again already.
    """

    def __init__(self, earlier: Mapping[str, Iterable[str]], now: Iterable[str]) -> None:
        self._keys: defaultdict[str, list[LedgerKey]] = defaultdict(list)
        for source, entries in earlier.items():
            for entry in sorted(entries):
                self._keys[entry.partition(":")[2]].append(LedgerKey(source, entry))
        for entry in now:
            self.find(entry.partition(":")[2])

    def find(self, digest: str) -> tuple[LedgerKey, ...]:
        """Return the key under which a message with this digest was taken before, or (); it is used up."""
        keys = self._keys.get(digest)
        return (keys.pop(),) if keys else ()


def batches(copies: Iterable[Described], octets: int, count: int) -> Iterator[list[Described]]:
    """Cut copies, in their order, into batches of up to ``octets`` and ``count``; what is larger goes alone."""
    batch: list[Described] = []
    size = 0
    for copy in copies:
        if batch and (size + copy.size > octets or len(batch) >= count):
            yield batch
            batch, size = [], 0
        batch.append(copy)
        size += copy.size
    if batch:
        yield batch


def chunks(uids: Sequence[int], count: int) -> Iterator[Sequence[int]]:
    """Cut UIDs into pieces that fit into a command's line."""
    for start in range(0, len(uids), count):
        yield uids[start : start + count]
