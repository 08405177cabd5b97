"""Incoming mail in its folders: list it, open it, mark it, move it, delete it, find it, export it.

Reading is done on read-only connections, from any process. Changes go through the spooler's store, in transactions of
at most 500 messages; each change is told as an :class:`postroom.events.InboundChanged`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

from postroom.clock import Clock, SystemClock
from postroom.errors import ConfigurationError, UnknownMessage, UsageError
from postroom.ids import key_at, parse_id
from postroom.inbound.finding import MailSearch
from postroom.inbound.folders import INBOX, JUNK, QUARANTINE, REPORTS, TRASH, check_folder, check_tag
from postroom.inbound.mailstore_changing import Change, MailWriter, Prepare, Receipts, in_steps
from postroom.inbound.mailstore_export import MailFormat, export_mail
from postroom.inbound.mailstore_opened import OpenedMessage
from postroom.inbound.mailstore_values import (
    Changed,
    FoundMail,
    InboundMessage,
    inbound_message,
)
from postroom.inbound.policy import ReadReceipts
from postroom.inbound.values import FolderRow, InboundRecord, Marks
from postroom.sentitems import Exported
from postroom.stores.base import Store
from postroom.stores.inbox_base import InboxReader
from postroom.times import Time, seconds

__all__ = ["MailStore"]

PAGE = 200
SEARCH_SECONDS = 5.0
STANDARD = (INBOX, REPORTS, JUNK, QUARANTINE, TRASH)
MAX_TAGS = 50
LAST_KEY = (1 << 63) - 1

_BY_NAME = {name.casefold(): name for name in STANDARD}

T = TypeVar("T")

Ids = str | Iterable[str]


class MailStore:
    """The incoming mail of a spool. Thread-safe.

    Args:
        path: the database file.
        reader: reads it.
        writer: the store of this process; None only reads.
        clock: where the time comes from.
        read_receipts: whether senders who ask for it are told that their mail was read or deleted unread (RFC 8098):
            "never"; "ask": when the call says so; "always": unless the call says no, or the rules of the RFC want
            somebody to agree.
        identities: addresses of users here; they help to tell to which of them a message came.
        prepare: checks and serialises a notification; None sends none.
        host: the domain that notifications name.
        index: the spool keeps a search index.
        timeout: seconds that a change may take.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        path: Path,
        reader: InboxReader,
        *,
        writer: MailWriter | None = None,
        clock: Clock | None = None,
        read_receipts: ReadReceipts = "ask",
        identities: Collection[str] = (),
        prepare: Prepare | None = None,
        host: str = "localhost",
        index: bool = True,
        timeout: float = 30.0,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock or SystemClock()
        self._search = MailSearch(path, writer, self._clock, index=index)
        self._timeout = timeout
        self._receipts = Receipts(
            mode=read_receipts,
            identities=tuple(identities),
            prepare=prepare,
            host=host,
            content=reader.inbound_content,
        )

    # Folders

    def folders(self) -> tuple[FolderRow, ...]:
        """Return the folders by name, with how many messages are in each. Standard ones are made when they are needed.

        Raises:
            SpoolUnavailable: the spool cannot be read.
        """
        return tuple(self._reader.folders())

    def create(self, name: str) -> bool:
        """Make a folder, as "Support/Open"; returns whether it is new.

        Raises:
            UsageError: the name cannot be one.
            SpoolUnavailable: the store did not answer in time.
        """
        folder = _folder(name)
        now = self._clock.time()
        return self._perform(lambda store: store.inbox.make_folder(folder, now))

    def remove(self, name: str) -> None:
        """Remove an empty folder.

        Raises:
            UsageError: there is none of this name, there are messages in it, or it is a standard one.
            SpoolUnavailable: the store did not answer in time.
        """
        folder = _folder(name)
        if folder in STANDARD:
            raise UsageError("folder", f"{folder!r} is a standard one", "leave it")
        if not self._perform(lambda store: store.inbox.drop_folder(folder)):
            raise _no_folder(folder)

    # Reading

    def list(  # noqa: PLR0913 - by keyword
        self,
        folder: str | None = INBOX,
        *,
        unseen: bool = False,
        since: Time | None = None,
        until: Time | None = None,
        limit: int | None = 1000,
        newest_first: bool = True,
    ) -> Iterator[InboundMessage]:
        """Yield the messages of a folder, read page by page, so that memory stays bounded.

        Args:
            folder: its name; None for all folders.
            unseen: only those that were not read.
            since: taken by the spool then or later: seconds since the Unix epoch, or an aware datetime.
            until: taken before then.
            limit: how many at most; None for all.
            newest_first: or in the order in which they were taken.

        Raises:
            UsageError: there is no such folder, or a time is none.
            SpoolUnavailable: the spool cannot be read.
        """
        pages = self._pages(
            folder, unseen=unseen, since=since, until=until, limit=limit, newest_first=newest_first
        )
        return map(inbound_message, pages)

    def _pages(  # noqa: PLR0913 - as list()
        self,
        folder: str | None,
        *,
        unseen: bool = False,
        since: Time | None = None,
        until: Time | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[InboundRecord]:
        first = 0 if since is None else key_at(seconds("since", since))
        end = LAST_KEY if until is None else key_at(seconds("until", until))
        if folder is not None:
            folder = _folder(folder)
            if folder not in STANDARD and all(row.name != folder for row in self._reader.folders()):
                raise _no_folder(folder)
        return self._walk(folder, unseen, (first, end), limit, newest_first=newest_first)

    def _walk(
        self,
        folder: str | None,
        unseen: bool,
        keys: tuple[int, int],
        limit: int | None,
        *,
        newest_first: bool,
    ) -> Iterator[InboundRecord]:
        first, end = keys
        after = end if newest_first else first - 1
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self._reader.list_inbound(
                folder=folder, unseen=unseen, after=after, limit=size, newest_first=newest_first
            )
            for record in page:
                if not first <= record.key < end:
                    return
                yield record
            if len(page) < size:
                return
            after = page[-1].key
            left = None if left is None else left - len(page)

    def get(self, message_id: str) -> InboundMessage:
        """Return a message.

        Raises:
            UnknownMessage: there is none with this id in a folder.
            SpoolUnavailable: the spool cannot be read.
        """
        return inbound_message(self._record(message_id))

    def content(self, message_id: str) -> bytes:
        """Return a message's octets.

        Raises:
            UnknownMessage: there is none with this id in a folder, or its octets are gone.
            SpoolUnavailable: the spool cannot be read.
        """
        content = self._reader.inbound_content(self._record(message_id).key)
        if content is None:
            raise UnknownMessage(
                "id", f"the octets of {message_id} are gone", "they go when an address in them is erased"
            )
        return content

    def open(self, message_id: str) -> OpenedMessage:
        """Return a message with its octets. That does not mark it as read.

        Raises: as :meth:`content`.
        """
        return OpenedMessage(self.get(message_id), self.content(message_id))

    def _record(self, message_id: str) -> InboundRecord:
        record = self._reader.inbound(parse_id(message_id))
        if record is None or not record.folder:
            what = "is still being processed" if record is not None else "is in no folder"
            raise UnknownMessage("id", f"the incoming message {message_id} {what}", "check the id")
        return record

    def _records(self, ids: Ids) -> Sequence[InboundRecord]:
        if not isinstance(ids, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise UsageError("ids", f"{ids!r} is no id", "give one, or several, as in message.id")
        listed = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        return [self._record(each) for each in listed]

    def _keys(self, ids: Ids) -> Sequence[int]:
        return [record.key for record in self._records(ids)]

    # Changing

    def mark_read(
        self, ids: Ids, read: bool = True, *, receipt: bool | None = None, recipient: str | None = None
    ) -> Changed:
        """Mark messages as read, or as not read, and tell their senders where that is asked for and allowed.

        Whether a sender was told is for ever: nobody is told twice (RFC 8098 section 2.1).

        Args:
            ids: of the messages.
            read: or not.
            receipt: True: the user agrees to tell the senders; False: they are never told; None: as ``read_receipts``
                says, and undecided where that says "ask".
            recipient: the user's own address, which a notification is from; None to find it in the message.

        Raises:
            UnknownMessage: one of them is in no folder; nothing was changed.
            UsageError: a receipt is wanted where none may be sent.
            SpoolUnavailable: the store did not answer in time.
        """
        now = self._clock.time()
        if not read:
            if receipt is not None:
                raise UsageError("receipt", "is given for what was not read", "leave it out")
            return Changed(self._marked(ids, Marks(seen=False)))
        self._receipts.check(receipt)
        return self._receipts.change(
            self._records(ids), "displayed", lambda store, keys: store.inbox.mark(keys, Marks(seen=True), now),
            writer=self._writing(), now=now, timeout=self._timeout, receipt=receipt, recipient=recipient,
        )  # fmt: skip

    def flag(self, ids: Ids, flagged: bool = True) -> tuple[str, ...]:
        """Flag messages, or take the flag away; returns the ids of those that changed.

        Raises:
            UnknownMessage: one of them is in no folder; nothing was changed.
            SpoolUnavailable: the store did not answer in time.
        """
        return self._marked(ids, Marks(flagged=flagged))

    def mark_answered(self, ids: Ids, answered: bool = True) -> tuple[str, ...]:
        """Note that somebody replied, or that nobody did; returns the ids of those that changed.

        Raises: as :meth:`flag`.
        """
        return self._marked(ids, Marks(answered=answered))

    def tag(self, ids: Ids, tags: Iterable[str]) -> tuple[str, ...]:
        """Give messages these labels and no others; returns the ids of those that changed.

        Raises:
            UsageError: a tag has characters that it may not have, or there are more than 50.
            UnknownMessage: one of the messages is in no folder; nothing was changed.
            SpoolUnavailable: the store did not answer in time.
        """
        checked = tuple(dict.fromkeys(_checked(check_tag, each, "tags") for each in tags))
        if len(checked) > MAX_TAGS:
            raise UsageError("tags", f"{len(checked)} are too many", f"give at most {MAX_TAGS}")
        return self._marked(ids, Marks(tags=checked))

    def move(self, ids: Ids, folder: str) -> tuple[str, ...]:
        """Move messages to a folder, which is made if it is missing; returns the ids of those that moved.

        Raises:
            UsageError: the folder's name cannot be one.
            UnknownMessage: one of the messages is in no folder; nothing was changed.
            SpoolUnavailable: the store did not answer in time.
        """
        target = _folder(folder)
        now = self._clock.time()
        return self._in_steps(self._keys(ids), lambda store, keys: store.inbox.move(keys, target, now))

    def delete(
        self,
        ids: Ids,
        *,
        permanently: bool = False,
        receipt: bool | None = None,
        recipient: str | None = None,
    ) -> Changed:
        """Move messages to "Trash"; those that are there, remove for good.

        The sender of a message that was never read may have asked to be told; that is done, under the conditions of
        :meth:`mark_read`, when it is removed for good, since until then it may still be read.

        Args:
            ids: of the messages.
            permanently: remove them for good wherever they are.
            receipt: see :meth:`mark_read`.
            recipient: likewise.

        Raises: as :meth:`mark_read`.
        """
        records = self._records(ids)
        self._receipts.check(receipt)
        gone = [
            record
            for record in records
            if permanently or record.folder == TRASH or record.folder.startswith(f"{TRASH}/")
        ]
        known = {record.key for record in gone}
        now = self._clock.time()
        rest = [record.key for record in records if record.key not in known]
        moved = self._in_steps(rest, lambda store, keys: store.inbox.move(keys, TRASH, now))
        done = self._receipts.change(
            gone, "deleted", lambda store, keys: store.inbox.delete(keys, now),
            writer=self._writing(), now=now, timeout=self._timeout, receipt=receipt, recipient=recipient,
        )  # fmt: skip
        return Changed((*moved, *done.ids), done.receipts, done.withheld)

    def _marked(self, ids: Ids, marks: Marks) -> tuple[str, ...]:
        now = self._clock.time()
        return self._in_steps(self._keys(ids), lambda store, keys: store.inbox.mark(keys, marks, now))

    def _in_steps(self, keys: Sequence[int], change: Change) -> tuple[str, ...]:
        return in_steps(self._writing(), keys, change, self._timeout)

    def _perform(self, step: Callable[[Store], T]) -> T:
        return self._writing().step(step, timeout=self._timeout)

    def _writing(self) -> MailWriter:
        if self._writer is None:
            raise UsageError("mail", "is only read here", "use the mail of a running Spooler")
        return self._writer

    # Finding and exporting

    def search(
        self, query: str, folder: str | None = None, *, limit: int = 50, timeout: float = SEARCH_SECONDS
    ) -> FoundMail:
        """Return the newest messages with these words in subject, author, recipients or text.

        All words must occur, each at least as the beginning of one: ``inv ann@exam``. ``"in quotes"`` is found as it
        stands. Case and diacritics do not matter. Of a message the first 256 KiB are looked at.

        Args:
            query: the words.
            folder: only in this one; None for all, "Trash" and "Junk" too.
            limit: messages at most.
            timeout: seconds that may be spent on bringing the index up to date before; where it does not get there,
                the answer says so.

        Raises:
            UsageError: there is no word in ``query``, ``limit`` is not positive, or the spool keeps no index.
            SpoolUnavailable: the spool cannot be read.
        """
        where = None if folder is None else _folder(folder)
        return self._search.search(query, folder=where, limit=limit, timeout=timeout)

    def export(  # noqa: PLR0913 - by keyword
        self,
        ids: Ids | None = None,
        *,
        to: str | Path | IO[bytes],
        folder: str | None = None,
        format: MailFormat = "mbox",  # noqa: A002 - the word for it
        since: Time | None = None,
        until: Time | None = None,
        overwrite: bool = False,
    ) -> Exported:
        """Write messages to files, one in memory at a time, in the order of ``ids`` or in which they were taken.

        Args:
            ids: which ones; None for all that the other arguments choose, as in :meth:`list`.
            to: an mbox file; a Maildir, which is made or added to; a folder for eml files named by the messages' ids;
                or a binary file object, for an mbox or one eml.
            folder: only those in it; None for all folders.
            format: see :mod:`postroom.inbound.mailstore_export`.
            since: see :meth:`list`.
            until: likewise.
            overwrite: replace files that are there.

        Raises:
            UsageError: the format is unknown, a file is there already, there is no such folder, or one file is given
                where several are written.
            UnknownMessage: one of the ids is in no folder; nothing was written.
            SpoolUnavailable: the spool cannot be read.
            OSError: a file cannot be written.
        """
        chosen = self._pages(folder, since=since, until=until) if ids is None else iter(self._records(ids))
        return export_mail(chosen, self._reader.inbound_content, to, format, overwrite=overwrite)


def _folder(name: str) -> str:
    """Return the name of a folder; a standard one is known in lower and upper case, as INBOX is everywhere."""
    checked = _checked(check_folder, name, "folder")
    first, slash, rest = checked.partition("/")
    return _BY_NAME.get(first.casefold(), first) + slash + rest


def _checked(check: Callable[[object, str], str], value: object, field: str) -> str:
    try:
        return check(value, field)
    except ConfigurationError as error:
        # Here it is no setting but an argument.
        raise UsageError(error.field, error.problem, error.remedy) from None


def _no_folder(name: str) -> UsageError:
    return UsageError("folder", f"there is no {name!r}", "see folders(), or create() it")
