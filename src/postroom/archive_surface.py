"""The part of the spooler's surface that concerns what was sent."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from postroom.addresses import Address
from postroom.archive import ERASE_SECONDS, SEARCH_SECONDS
from postroom.mailfiles import ExportFormat
from postroom.recipients import FINAL_STATES, State
from postroom.running import Running
from postroom.sentitems import Erasure, Exported, Found, SentItem
from postroom.times import Time

__all__ = ["ArchiveSurface"]


class ArchiveSurface(ABC):
    """Sent items: :class:`postroom.Spooler` is one. Thread-safe."""

    @abstractmethod
    def _engine(self) -> Running:
        """Return what runs."""

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
        """Yield complete messages, the newest first; see :meth:`postroom.archive.Archive.sent`."""
        return self._engine().archive.sent(
            sender=sender, tenant=tenant, since=since, until=until, states=states, limit=limit,
            newest_first=newest_first,
        )  # fmt: skip

    def search(self, query: str, *, limit: int = 50, timeout: float = SEARCH_SECONDS) -> Found:
        """Find messages by words of subject and addresses; see :meth:`postroom.archive.Archive.search`."""
        return self._engine().archive.search(query, limit=limit, timeout=timeout)

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
        """Write messages to an mbox or to eml files; see :meth:`postroom.archive.Archive.export`."""
        return self._engine().archive.export(
            ids, to=to, format=format, sender=sender, tenant=tenant, since=since, until=until, states=states,
            overwrite=overwrite,
        )  # fmt: skip

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
        """Erase an address, or say what that would change; see :meth:`postroom.archive.Archive.erase`."""
        return self._engine().archive.erase(
            address,
            apply=apply,
            cancel=cancel,
            rewrite=rewrite,
            operator=operator,
            reason=reason,
            timeout=timeout,
        )
