import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pykka
import pytest
from tenacity import wait_fixed

from postroom.supervision import ChildSpec, Supervisor
from tests.support.supervised import Recorder, Stage, eventually


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.release.set()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    """Every actor and thread that a test made is gone after it, also those that were abandoned."""
    before = set(threading.enumerate())
    yield
    eventually(lambda: set(threading.enumerate()) <= before, "the end of all threads")
    assert pykka.ActorRegistry.get_all() == []


Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(stage: Stage, recorder: Recorder) -> Iterator[Supervise]:
    """Make supervisors that are quick to look, and stop them after the test."""
    made: list[Supervisor] = []

    def make(specs: Sequence[ChildSpec], **settings: Any) -> Supervisor:
        defaults: dict[str, Any] = {"on_event": recorder, "poll_interval": 0.02, "backoff": wait_fixed(0.01)}
        supervisor = Supervisor("test", specs, **(defaults | settings))
        made.append(supervisor)
        return supervisor

    yield make
    stage.release.set()
    for supervisor in made:
        supervisor.stop(timeout=10)
