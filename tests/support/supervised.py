"""Actors that do as a test says, and a recorder of what a supervisor tells."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pykka

from postroom.supervision import ChildRow, ChildSpec, MailboxActor, SupervisionEvent, Supervisor

PATIENCE = 10.0
"""Seconds after which a test stops waiting; nothing is expected to take them."""

E = TypeVar("E")


def eventually(holds: Callable[[], bool], what: str = "it") -> None:
    """Wait until something holds that nobody signals."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what} never came to hold"
        time.sleep(0.002)


def row_of(supervisor: Supervisor, name: str) -> ChildRow:
    return next(row for row in supervisor.children() if row.name == name)


class Recorder:
    """Keeps the events and lets a test wait for what it expects of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[SupervisionEvent] = []

    def __call__(self, event: SupervisionEvent) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[E], name: str) -> list[E]:
        """Return the events of one kind about one child so far."""
        with self._changed:
            return self._of(kind, name)

    def wait(self, kind: type[E], name: str, count: int = 1) -> E:
        """Return the ``count``-th event of one kind about one child, once it has happened."""
        with self._changed:
            happened = self._changed.wait_for(lambda: len(self._of(kind, name)) >= count, PATIENCE)
            assert happened, f"no {kind.__name__} number {count} of {name} among {self._events}"
            return self._of(kind, name)[count - 1]

    def _of(self, kind: type[E], name: str) -> list[E]:
        return [event for event in self._events if isinstance(event, kind) and event.name == name]


@dataclass(eq=False)
class Stage:
    """What the actors of one test share: a log of what they did, and what they are told to do.

    Attributes:
        log: ``start NAME`` and ``stop NAME`` in the order in which they happened.
        failing: names whose ``on_start`` raises, with what.
        release: opens whatever hangs.
        entered: set when an actor begins to hang.
    """

    log: list[str] = field(default_factory=list[str])
    failing: dict[str, BaseException] = field(default_factory=dict[str, BaseException])
    hanging: set[str] = field(default_factory=set[str])
    release: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def spec(self, name: str, **settings: Any) -> ChildSpec:
        return ChildSpec(name, start=lambda: Player.start(self, name), **settings)

    def specs(self, names: Iterable[str], **settings: Any) -> list[ChildSpec]:
        return [self.spec(name, **settings) for name in names]

    def hang(self) -> None:
        self.entered.set()
        assert self.release.wait(PATIENCE)


@dataclass(frozen=True)
class Fail:
    """A letter that makes a player raise."""

    exception: BaseException


@dataclass(frozen=True)
class Hang:
    """A letter that makes a player hang until the stage releases it."""


class Player(MailboxActor):
    """An actor that does as its letters say, and keeps the others."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__()
        self.name = f"player-{name}"
        self.stage = stage
        self.role = name
        self.letters: list[object] = []
        self.batches: list[list[object]] = []

    def on_start(self) -> None:
        if self.role in self.stage.failing:
            raise self.stage.failing[self.role]
        if self.role in self.stage.hanging:
            self.stage.hang()
        self.stage.log.append(f"start {self.role}")

    def on_stop(self) -> None:
        self.stage.log.append(f"stop {self.role}")

    def on_letters(self, letters: list[object]) -> None:
        self.batches.append(letters)
        for letter in letters:
            match letter:
                case Fail(exception):
                    raise exception
                case Hang():
                    self.stage.hang()
                case _:
                    self.letters.append(letter)

    def on_ask(self, letter: object) -> object:
        match letter:
            case Fail(exception):
                raise exception
            case "letters":
                return list(self.letters)
            case "batches":
                return list(self.batches)
            case _:
                return ("answer", letter)


class PlainPlayer(pykka.ThreadingActor):
    """An ordinary actor of the host, or of somebody else's library."""

    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Fail):
            raise message.exception
        return ("answer", message)
