"""Noticing that something new lies in a directory: inotify by way of watchdog, or looking at its time."""

import contextlib
import logging
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, ObservedWatch

__all__ = ["LookingWatch", "NotifiedWatch", "Watch", "make_watch"]

log = logging.getLogger("postroom.receivers.maildir")

LOOK_SECONDS = 1.0
"""How often directories are looked at where nobody tells."""


class Watch(Protocol):
    """Notices new entries of directories. Used by one thread, except ``wake``."""

    def follow(self, directories: Collection[Path]) -> bool:
        """Watch these from now on, and no others; return whether there are new ones among them."""
        ...

    def clear(self) -> None:
        """Forget what was noticed: everything will be looked at now."""
        ...

    def wait(self, timeout: float) -> None:
        """Wait until there is something new, ``timeout`` seconds at most, or until ``wake``."""
        ...

    def wake(self) -> None:
        """End a wait, from any thread."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class LookingWatch:
    """Looks at the directories' times of change every second."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self._times: dict[Path, int | None] = {}

    def follow(self, directories: Collection[Path]) -> bool:
        """See :class:`Watch`."""
        new = set(directories) - set(self._times)
        self._times = {each: self._times.get(each) for each in directories}
        return bool(new)

    def clear(self) -> None:
        """See :class:`Watch`."""
        self._woken.clear()
        self._times = {each: _changed(each) for each in self._times}

    def wait(self, timeout: float) -> None:
        """See :class:`Watch`."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            if any(_changed(each) != seen for each, seen in self._times.items()):
                return
            if self._woken.wait(min(left, LOOK_SECONDS)):
                return

    def wake(self) -> None:
        """See :class:`Watch`."""
        self._woken.set()

    def close(self) -> None:
        """See :class:`Watch`."""


class NotifiedWatch:
    """Is told by the operating system.

    Raises:
        ImportError: watchdog is not installed.
        OSError: the system has no more watches to give.
    """

    def __init__(self) -> None:
        # The extra is needed only where it is used.
        from watchdog.events import (  # noqa: PLC0415
            DirCreatedEvent,
            DirMovedEvent,
            FileCreatedEvent,
            FileMovedEvent,
            FileSystemEvent,
            FileSystemEventHandler,
        )
        from watchdog.observers import Observer  # noqa: PLC0415

        woken = threading.Event()

        class Handler(FileSystemEventHandler):
            """Heeds what appears, not what we remove ourselves."""

            def on_any_event(self, event: FileSystemEvent) -> None:
                if isinstance(event, FileCreatedEvent | FileMovedEvent | DirCreatedEvent | DirMovedEvent):
                    woken.set()

        self._woken = woken
        self._handler = Handler()
        self._watches: dict[Path, ObservedWatch] = {}
        self._observer: BaseObserver = Observer()
        self._observer.start()

    def follow(self, directories: Collection[Path]) -> bool:
        """See :class:`Watch`."""
        for gone in set(self._watches) - set(directories):
            with contextlib.suppress(KeyError, OSError):
                self._observer.unschedule(self._watches.pop(gone))
        new = set(directories) - set(self._watches)
        for each in new:
            self._watches[each] = self._observer.schedule(self._handler, str(each))
        return bool(new)

    def clear(self) -> None:
        """See :class:`Watch`."""
        self._woken.clear()

    def wait(self, timeout: float) -> None:
        """See :class:`Watch`."""
        self._woken.wait(timeout)

    def wake(self) -> None:
        """See :class:`Watch`."""
        self._woken.set()

    def close(self) -> None:
        """See :class:`Watch`."""
        # May take half a second: so long watchdog waits for where a file went that was moved out of a directory.
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()


def make_watch(name: str) -> Watch:
    """Return the best watch there is here; ``name`` is the receiver's, for the log."""
    try:
        return NotifiedWatch()
    except ImportError:
        log.info(
            "%s looks into its directories every %g s; with the extra postroom[maildir] it is told at once",
            name,
            LOOK_SECONDS,
        )
    except OSError as error:
        log.warning("%s looks into its directories every %g s: %s", name, LOOK_SECONDS, error)
    return LookingWatch()


def _changed(directory: Path) -> int | None:
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return None
