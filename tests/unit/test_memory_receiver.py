"""The receiver that the host itself hands messages to."""

import threading

import pytest

from postroom.errors import NotRunning, UsageError
from postroom.inbound.values import Received
from postroom.receivers.memory import MemoryReceiver
from postroom.testing.inlets import TrialSpool

GOOD = b"From: ann@example.org\r\n\r\nHello.\r\n"
PATIENCE = 20.0


def test_what_is_said_of_a_message_is_handed_over() -> None:
    receiver, spool = MemoryReceiver(), TrialSpool()
    receiver.open(spool.inlet())
    receiver.put(
        GOOD, sender="", recipients=["desk@example.org"], remote="192.0.2.1", folder="Lists", seen=True, key="k",
        expires=7.0,
    )  # fmt: skip
    (arrival,) = spool.arrivals
    assert (arrival.content, arrival.sender, arrival.recipients) == (GOOD, "", ("desk@example.org",))
    assert (arrival.remote, arrival.folder, arrival.seen) == ("192.0.2.1", "Lists", True)
    assert spool.ledger == {("memory", "k"): 7.0}


def test_a_key_makes_it_safe_to_try_again() -> None:
    receiver, spool = MemoryReceiver(), TrialSpool()
    receiver.open(spool.inlet())
    assert receiver.put(GOOD, key="k") == Received(1)
    assert receiver.put(GOOD, key="k") == Received(1, duplicate=True)
    assert receiver.put(GOOD) == Received(2)
    assert receiver.put(GOOD) == Received(3)


def test_what_comes_before_the_receiver_is_open_waits_for_it() -> None:
    receiver, spool = MemoryReceiver(), TrialSpool()
    putting = threading.Thread(target=receiver.put, args=(GOOD,), daemon=True)
    putting.start()
    receiver.open(spool.inlet())
    putting.join(PATIENCE)
    assert not putting.is_alive()
    assert len(spool.arrivals) == 1


def test_nobody_takes_anything_before_open_and_after_close() -> None:
    receiver, spool = MemoryReceiver(), TrialSpool()
    with pytest.raises(NotRunning):
        receiver.put(GOOD, timeout=0.0)
    session = receiver.open(spool.inlet())
    session.close()
    with pytest.raises(NotRunning):
        receiver.put(GOOD, timeout=0.0)


def test_the_latest_session_takes() -> None:
    receiver, former, present = MemoryReceiver(), TrialSpool(), TrialSpool()
    given_up = receiver.open(former.inlet())
    receiver.open(present.inlet())
    receiver.put(GOOD)
    given_up.close()
    receiver.put(GOOD)
    assert (len(former.arrivals), len(present.arrivals)) == (0, 2)


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(UsageError, match="content"):
        MemoryReceiver().put(b"")
