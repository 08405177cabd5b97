"""The check that every test runs at its end must see what it is there for."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.threads import strays


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def start(release: threading.Event, name: str, *, daemon: bool = False) -> threading.Thread:
    thread = threading.Thread(target=release.wait, name=name, daemon=daemon)
    thread.start()
    return thread


def test_a_thread_left_behind_is_named(release: threading.Event) -> None:
    before = threading.enumerate()
    start(release, "forgotten")
    assert strays(before, grace=0.0) == ["forgotten"]


def test_a_daemon_thread_holds_nobody_up(release: threading.Event) -> None:
    before = threading.enumerate()
    start(release, "background", daemon=True)
    assert strays(before, grace=0.0) == []


def test_a_thread_that_stood_before_is_not_ours(release: threading.Event) -> None:
    start(release, "older")
    assert strays(threading.enumerate(), grace=0.0) == []


def test_a_thread_may_take_its_time_to_end(release: threading.Event) -> None:
    before = threading.enumerate()
    start(release, "ending")
    threading.Timer(0.05, release.set).start()
    assert strays(before, grace=30.0) == []
