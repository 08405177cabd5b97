"""Sent items: list them, search them, export them, and erase somebody from them.

Listing, searching and exporting only read, from any process. Bringing the search index up to date and erasing write, so
they go through the spooler's store, which is the only writer of a process: step by step, each a short transaction.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from postroom.addresses import Address, parse_address
from postroom.clock import Clock, SystemClock
from postroom.errors import SpoolUnavailable, UnknownMessage, UsageError
from postroom.ids import created_at, format_id, key_at, parse_id
from postroom.mailfiles import ExportFormat, KeptMessage, write_messages
from postroom.privacy import Eraser, Writer
from postroom.recipients import FINAL_STATES, State
from postroom.sentitems import Erasure, Exported, Found, SentItem
from postroom.stores.archive import Filter, SqliteArchive
from postroom.stores.search import index_step, match_expression
from postroom.times import Time, seconds

if TYPE_CHECKING:
    from postroom.stores.driver import sqlite3 as driver

    Connection = driver.Connection

__all__ = ["Archive"]

PAGE = 200
STEP = 100
"""Messages that the index takes in with one transaction."""
SAMPLE = 20
SEARCH_SECONDS = 5.0
ERASE_SECONDS = 600.0


class Archive:
    """The messages of a spool that are settled. Thread-safe.

    Args:
        path: the database file.
        writer: the store of this process; None only reads.
        clock: where the time comes from.
        index: keep a search index; without one :meth:`search` is refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        writer: Writer | None = None,
        clock: Clock | None = None,
        index: bool = True,
    ) -> None:
        self._store = SqliteArchive(path)
        self._writer = writer
        self._clock = clock or SystemClock()
        self._index = index
        self._eraser = Eraser(self._store, writer, self._clock)

    # Lists

    def sent(  # noqa: PLR0913 - by keyword
        self,
        *,
        sender: str | None = None,
        tenant: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        states: Collection[State] = FINAL_STATES,
        limit: int | None = 1000,
        newest_first: bool = True,
    ) -> Iterator[SentItem]:
        """Yield complete messages, read page by page, so that memory stays bounded.

        Args:
            sender: only those with this envelope sender, "" for the null reverse-path.
            tenant: only this tenant's.
            since: submitted then or later: seconds since the Unix epoch, or an aware datetime.
            until: submitted before then.
            states: at least one recipient is in one of these states.
            limit: how many at most; None for all.
            newest_first: or in the order of submission.

        Raises:
            UsageError: a time is none, or ``states`` are not all final.
            SpoolUnavailable: the spool cannot be read.
        """
        chosen = _filter(sender, tenant, since, until, states)
        return self._pages(chosen, limit, newest_first=newest_first)

    def _pages(self, chosen: Filter, limit: int | None, *, newest_first: bool) -> Iterator[SentItem]:
        after: int | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            items = self._store.page(chosen, after, size, newest_first=newest_first)
            yield from items
            if len(items) < size:
                return
            after = items[-1].key
            left = None if left is None else left - len(items)

    def _keys(self, chosen: Filter) -> Iterator[int]:
        after: int | None = None
        while keys := self._store.keys(chosen, after, PAGE):
            yield from keys
            after = keys[-1]

    # Search

    def search(self, query: str, *, limit: int = 50, timeout: float = SEARCH_SECONDS) -> Found:
        """Return the newest messages with these words in subject, sender or recipient addresses, settled or not.

        All words must occur, each at least as the beginning of one: ``inv ann@exam`` finds an invoice for
        ann@example.org. ``"in quotes"`` is found as it stands. Case and diacritics do not matter.

        Args:
            query: the words.
            limit: messages at most.
            timeout: seconds that may be spent on bringing the index up to date before; where it does not get there,
                the answer says so.

        Raises:
            UsageError: there is no word in ``query``, ``limit`` is not positive, or the spool keeps no index.
            SpoolUnavailable: the spool cannot be read.
        """
        expression = match_expression(query)
        if limit < 1:
            raise UsageError("limit", f"{limit} is not positive", "give a number above 0")
        if not self._index:
            raise UsageError("search", "is switched off for this spool", "set search = true in its settings")
        if self._writer is not None:
            self._catch_up(self._writer, self._clock.monotonic() + timeout)
        items, state = self._store.search(expression, (1 << 63) - 1, limit)
        if not state.possible:
            raise UsageError(
                "search",
                "needs a SQLite with FTS5, which this one lacks",
                "install the extra postroom[sqlite]",
            )
        return Found(tuple(items), state.complete, created_at(state.tail) if state.tail else None)

    def _catch_up(self, writer: Writer, deadline: float) -> None:
        """Have the store bring the index up to date; what goes wrong costs no more than that."""
        with suppress(SpoolUnavailable):
            while not self._store.index_state().complete and (left := deadline - self._clock.monotonic()) > 0:
                if not writer.perform(partial(_index_more, self._clock.time()), left):
                    return

    # Export

    def export(  # noqa: PLR0913 - by keyword
        self,
        ids: Iterable[str] | None = None,
        *,
        to: str | Path | IO[bytes],
        format: ExportFormat = "mbox",  # noqa: A002 - the word for it
        sender: str | None = None,
        tenant: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        states: Collection[State] = FINAL_STATES,
        overwrite: bool = False,
    ) -> Exported:
        """Write messages to files, one in memory at a time, in the order of ``ids`` or of submission.

        Messages are written as they were submitted, without what preprocessors made of them for some recipients. Only
        those can be written whose octets were kept (``Settings.keep_content``) or are not sent yet; the others are
        counted.

        Args:
            ids: which ones; None for all complete ones that the other arguments choose, as in :meth:`sent`.
            to: an mbox file, a folder for eml files (made if it is missing) named by the messages' ids, or a binary
                file object, which for eml takes one message only.
            format: see :mod:`postroom.mailfiles`.
            sender: see :meth:`sent`.
            tenant: likewise.
            since: likewise.
            until: likewise.
            states: likewise.
            overwrite: replace files that are there.

        Raises:
            UsageError: the format is unknown, a file is there already, or several eml files should go into one.
            UnknownMessage: there is no message with one of the ids (any more). Nothing is written then, except to a
                file object or a folder.
            SpoolUnavailable: the spool cannot be read.
            OSError: the file cannot be written.
        """
        if ids is not None:
            keys: Iterable[int] = [parse_id(ids)] if isinstance(ids, str) else map(parse_id, ids)
        else:
            chosen = _filter(sender, tenant, since, until, states)
            keys = self._keys(chosen)
        export = _Export(self._store, keys)
        write_messages(export, to, format, overwrite=overwrite)
        return export.result()

    # Erasing

    def erase(  # noqa: PLR0913 - by keyword
        self,
        address: str | Address,
        *,
        apply: bool = False,
        cancel: bool = False,
        rewrite: bool = True,
        operator: str = "",
        reason: str = "",
        timeout: float = ERASE_SECONDS,
    ) -> Erasure:
        """Erase an address from the spool, wherever it stands; without ``apply`` only say what that would change.

        A random tombstone takes its place in envelopes, histories, subjects, operators' entries, the index and the
        journal of events; octets of every message sent or received in which it stands are dropped, idempotency keys
        that name it forgotten, and standing orders that name it dropped. Counts stay what they are. What has been
        delivered, written to logs, backed up or exported is out of reach.

        Args:
            address: whose. Found in upper and lower case, and as bounces and URLs write it.
            apply: do it.
            cancel: recall what is still to be sent to or from it before.
            rewrite: in the end rewrite the file, so that nothing of it is left in unused parts. That takes about as
                long as copying the file, as much room on the disk (with some builds of SQLite: in memory) as the spool,
                and nothing is accepted meanwhile. Without, these parts are overwritten as they are used again.
            operator: who does it, for the record.
            reason: why.
            timeout: seconds for all of it; what is done by then is done, and doing it again does the rest.

        Raises:
            UsageError: something is not settled and ``cancel`` is not given; nothing was changed. Or the address is
                none.
            SpoolUnavailable: the store did not answer in time.
        """
        return self._eraser.erase(
            address,
            apply=apply,
            cancel=cancel,
            rewrite=rewrite,
            operator=operator,
            reason=reason,
            timeout=timeout,
        )


def _index_more(now: float, connection: "Connection") -> int:
    return index_step(connection, STEP, now)


class _Export:
    """Yields what is kept, and counts it."""

    def __init__(self, store: SqliteArchive, keys: Iterable[int]) -> None:
        self._store = store
        self._keys = keys
        self._messages = 0
        self._octets = 0
        self._skipped = 0
        self._sample: list[str] = []

    def __iter__(self) -> Iterator[KeptMessage]:
        keys = iter(self._keys)
        # A connection serves many messages, but reads no state of the spool for long: that would keep its log growing.
        while some := list(islice(keys, PAGE)):
            for key, found in self._store.contents(some):
                if found is None:
                    raise UnknownMessage(
                        "ids",
                        f"the spool holds no message {format_id(key)}",
                        "check the id; old ones go after keep_sent",
                    )
                sender, created, content = found
                if content is None:
                    self._skip(key)
                else:
                    self._messages += 1
                    self._octets += len(content)
                    yield KeptMessage(format_id(key), sender, created, content)

    def _skip(self, key: int) -> None:
        self._skipped += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(format_id(key))

    def result(self) -> Exported:
        return Exported(self._messages, self._octets, self._skipped, tuple(self._sample))


def _filter(
    sender: str | None, tenant: str | None, since: Time | None, until: Time | None, states: Collection[State]
) -> Filter:
    if sender:
        sender = parse_address(sender, field="sender").value
    if not states or not set(states) <= set(FINAL_STATES):
        raise UsageError(
            "states", "are not all final", f"choose from {', '.join(state.label for state in FINAL_STATES)}"
        )
    return Filter(
        sender=sender,
        tenant=tenant,
        first=0 if since is None else key_at(seconds("since", since)),
        end=(1 << 63) - 1 if until is None else key_at(seconds("until", until)),
        states=frozenset(states),
    )
