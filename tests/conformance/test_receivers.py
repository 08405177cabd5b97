"""The conformance suite on the receivers that come with Postroom and need no server."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from postroom.receivers.base import Receiver
from postroom.receivers.maildir import MaildirReceiver
from postroom.receivers.memory import MemoryReceiver
from postroom.testing.receivers import ReceiverConformance, ReceiverHarness, Remote


class MemoryHarness(ReceiverHarness):
    pushes = True

    def __init__(self) -> None:
        self._receiver = MemoryReceiver()

    def make(self) -> Receiver:
        return self._receiver

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        del via
        self._receiver.put(content, timeout=5.0)


class TestMemoryReceiver(ReceiverConformance):
    @pytest.fixture
    def harness(self) -> ReceiverHarness:
        return MemoryHarness()


class MaildirHarness(ReceiverHarness):
    wakes = True
    can_fail = True
    can_clear = True

    def __init__(
        self,
        root: Path,
        *,
        after: Literal["delete", "seen", "keep"] = "delete",
        folders: bool = False,
        watch: bool = True,
    ) -> None:
        self.root = root
        self.box = root / ".Lists.Debian" if folders else root
        self._after: Literal["delete", "seen", "keep"] = after
        self._folders = folders
        self._watch = watch
        self._numbers = count(1)
        self.keeps = after == "keep"
        for directory in {root, self.box}:
            for each in ("tmp", "new", "cur"):
                (directory / each).mkdir(parents=True)

    def make(self) -> Receiver:
        return MaildirReceiver(self.root, after=self._after, folders=self._folders, watch=self._watch)

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        del via
        name = f"17000000{next(self._numbers):04}.M1P1.host"
        (self.box / "tmp" / name).write_bytes(content)
        (self.box / "tmp" / name).rename(self.box / "new" / name)

    def remote(self) -> Sequence[Remote]:
        return [
            Remote(path.read_bytes(), each == "cur")
            for each in ("new", "cur")
            for path in (self.box / each).iterdir()
        ]

    def stop_peer(self) -> None:
        """As when a file system is unmounted."""
        self.root.rename(self.root.with_name("away"))

    def start_peer(self) -> None:
        self.root.with_name("away").rename(self.root)

    def clear(self) -> None:
        for each in ("new", "cur"):
            for path in (self.box / each).iterdir():
                path.unlink()


class TestMaildirReceiver(ReceiverConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> ReceiverHarness:
        return MaildirHarness(tmp_path / "box")


class TestMaildirReceiverThatMarks(ReceiverConformance):
    """Without being told of new files: watchdog's half a second after each move would make it slow."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ReceiverHarness:
        harness = MaildirHarness(tmp_path / "box", after="seen", watch=False)
        harness.wakes = False
        return harness


class TestMaildirReceiverThatKeeps(ReceiverConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> ReceiverHarness:
        return MaildirHarness(tmp_path / "box", after="keep")


class TestMaildirReceiverWithFolders(ReceiverConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> ReceiverHarness:
        return MaildirHarness(tmp_path / "box", folders=True)
