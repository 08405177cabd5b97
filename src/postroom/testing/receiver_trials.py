"""The steps of which the suite of receivers is made."""

# ruff: noqa: S101 - these are a suite's assertions

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import pytest

from postroom.receivers.base import Receiver, ReceiverSession
from postroom.testing.inlets import TrialInlet, TrialSpool
from postroom.testing.receiver_harness import ReceiverHarness

__all__ = [
    "PATIENCE",
    "Aside",
    "assert_done",
    "assert_ledger_is_bounded",
    "assert_stored_once",
    "attempt",
    "drain",
    "hand_over",
    "in_time",
    "opened",
    "raised",
    "recover",
    "stored",
    "untouched",
]

PATIENCE = 20.0
"""Seconds after which something that must end is taken to hang."""

MOST_POLLS = 50
"""Polls after which a receiver that still takes something is taken to never end."""

MOST_SOURCES = 32
"""Sources of which something is remembered, at most."""

NUDGE_SECONDS = 0.2

T = TypeVar("T")


class Aside(Generic[T]):
    """Work in a thread of its own, which may hang. Starts at once."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._answer: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by result()
            self._error = error

    def ended(self, timeout: float) -> bool:
        """Return whether it ends within ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def result(self) -> T:
        """Return or raise what the work did; fail when it hangs."""
        if not self.ended(PATIENCE):
            pytest.fail("it hangs")
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def interrupt(self, session: ReceiverSession) -> None:
        """Interrupt a session until the work ends, however it does; fail when it does not."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            # Repeated, since the first may have come before there was anything to interrupt.
            session.interrupt()
            if self.ended(NUDGE_SECONDS):
                return
        pytest.fail("it hangs although it was interrupted")


def in_time(work: Callable[[], T]) -> T:
    """Return or raise what the work does; fail when it hangs."""
    return Aside(work).result()


def raised(work: Callable[[], object]) -> Exception:
    """Return the exception that the work must raise; fail when it does not."""
    try:
        in_time(work)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    pytest.fail("it raised nothing")


@contextmanager
def opened(
    harness: ReceiverHarness, receiver: Receiver, inlet: TrialInlet, *, loop: bool = True
) -> Generator[ReceiverSession]:
    """Open a session and close it at the end; with ``loop``, one that is pushed is polled meanwhile."""
    session = in_time(lambda: receiver.open(inlet))
    porter = Aside(lambda: _carry(session, inlet)) if harness.pushes and loop else None
    try:
        yield session
    finally:
        inlet.stopping.set()
        if porter is not None:
            porter.interrupt(session)
        in_time(session.close)


def _carry(session: ReceiverSession, inlet: TrialInlet) -> None:
    """Be the porter, as far as a receiver that is pushed needs one."""
    while not inlet.stopping.is_set():
        session.poll()
        session.wait(NUDGE_SECONDS)


def drain(session: ReceiverSession) -> int:
    """Poll until nothing is taken any more; return how much was."""
    taken = 0
    for _ in range(MOST_POLLS):
        number = in_time(session.poll)
        if number == 0:
            return taken
        taken += number
    pytest.fail(f"after {MOST_POLLS} polls it still takes something")


def hand_over(
    harness: ReceiverHarness,
    session: ReceiverSession,
    contents: Sequence[bytes],
    told: Callable[[bytes], None] = lambda _: None,
) -> None:
    """Put messages and have them taken; ``told`` is called when a client was told that one is safe."""
    for content in contents:
        harness.put(content)
        if harness.pushes:
            told(content)
    if not harness.pushes:
        drain(session)


def attempt(
    harness: ReceiverHarness,
    make: Callable[[], Receiver],
    spool: TrialSpool,
    inlet: TrialInlet,
    contents: Sequence[bytes],
) -> list[bytes]:
    """Put messages and have them taken, whatever goes wrong; return those whose client was not told that it is safe."""
    left: list[bytes] = []
    if not harness.pushes:
        for content in contents:
            harness.put(content)
        with suppress(Exception), opened(harness, make(), inlet) as session:
            for _ in range(2):
                in_time(session.poll)
        return left
    with opened(harness, make(), inlet):
        for content in contents:
            try:
                harness.put(content)
            except Exception:  # noqa: BLE001 - whatever a client makes of it
                left.append(content)
            else:
                if not stored(harness, spool)[content]:
                    pytest.fail("a client was told that its message is safe, and it is not")
    return left


def recover(
    harness: ReceiverHarness,
    spool: TrialSpool,
    contents: Sequence[bytes],
    left: Sequence[bytes] = (),
    *,
    doubtful: bool = False,
) -> None:
    """Start anew, all being well; fail unless each message is stored once in the end.

    Args:
        harness: whose receiver it is.
        spool: of before.
        contents: what was put.
        left: what clients have to send again, of a receiver that is pushed.
        doubtful: what clients send again may have been stored already.
    """
    if not harness.pushes:
        had, there = stored(harness, spool), untouched(harness)
        lost = [content for content in contents if not had[content] and not there[content]]
        assert lost == [], "neither stored nor left alone"
    with opened(harness, harness.make(), spool.inlet()) as session:
        hand_over(harness, session, left)
    found = stored(harness, spool)
    for content in contents:
        most = 2 if doubtful and content in left else 1
        assert 1 <= found[content] <= most, f"{content[:300]!r} is stored {found[content]} times"
    assert_done(harness, contents)


def stored(harness: ReceiverHarness, spool: TrialSpool) -> Counter[bytes]:
    """Return how often each content is in the spool, on its way in or out."""
    arrived = [arrival.content for arrival in spool.arrivals]
    accepted = [each.message for each in spool.submissions if isinstance(each.message, bytes)]
    return Counter(harness.original(content) for content in (*arrived, *accepted))


def untouched(harness: ReceiverHarness) -> Counter[bytes]:
    """Return how often each content is in the messaging system, not yet dealt with."""
    return Counter(remote.content for remote in harness.remote() if not remote.done)


def assert_stored_once(harness: ReceiverHarness, spool: TrialSpool, contents: Sequence[bytes]) -> None:
    """Fail unless exactly these messages are in the spool, each as often as it is given."""
    found, wanted = stored(harness, spool), Counter(contents)
    # Not `found == wanted`: pytest would take minutes to print the difference of 5 MiB.
    strange = [content[:300] for content in found - wanted]
    missing = [content[:300] for content in wanted - found]
    assert not strange, f"not as they were put, or too often: {strange}; missing: {missing}"
    assert not missing, f"missing: {missing}"


def assert_done(harness: ReceiverHarness, contents: Sequence[bytes]) -> None:
    """Fail unless the copies of what was taken are dealt with, soon."""
    if harness.pushes or harness.keeps:
        return
    until = time.monotonic() + PATIENCE
    while (left := untouched(harness) & Counter(contents)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left, f"{left.total()} copies were taken and left as if they were new"


def assert_ledger_is_bounded(harness: ReceiverHarness, spool: TrialSpool) -> None:
    """Fail when the spool keeps entries for ever that no remote copy needs."""
    kept = [place for place, expires in spool.ledger.items() if expires is None]
    there = 0 if harness.pushes else len(harness.remote())
    assert len(kept) <= there + harness.ledger_slack, f"{there} copies are there, kept for ever: {kept[:50]}"
    assert len(spool.sources) <= MOST_SOURCES, list(spool.sources)[:50]
