"""What hosts use for their own tests: the spooler in memory, its clock, its faults, and the assertions."""

import pytest

from postroom import Message, Spooler
from postroom.clock import ManualClock
from postroom.errors import SpoolFull, UsageError
from postroom.outcomes import Deferred, Failed, Reply
from postroom.receivers.memory import MemoryReceiver
from postroom.recipients import State
from postroom.testing import InMemorySpooler, Outbox, assert_nothing_spooled, assert_spooled, spooled

pytest_plugins = ["pytester"]


def welcome(spooler: Spooler, address: str) -> str:
    """Stand for a host's code that sends something."""
    message = Message(
        subject=f"Welcome {address}", text="Nice to have you.", sender="app@example.org", to=[address]
    )
    return spooler.submit(message).id


def test_what_was_spooled_is_found(postroom_spooler: InMemorySpooler) -> None:
    assert_nothing_spooled(postroom_spooler)
    message_id = welcome(postroom_spooler, "ann@example.org")
    welcome(postroom_spooler, "bob@example.org")
    postroom_spooler.drain()
    (found,) = assert_spooled(
        postroom_spooler, to="ann@example.org", sender="app@*", subject="Welcome*", text="to have you",
        header={"From": "*app@example.org*"}, state=State.DELIVERED,
    )  # fmt: skip
    assert found.id == message_id
    assert_spooled(postroom_spooler, to="*@example.org", count=2)
    assert_spooled(postroom_spooler, to="smtp:*", count=2)
    assert_spooled(postroom_spooler, to=["ann@example.org", "bob@example.org"], count=0)
    assert [one.to.value for one in postroom_spooler.outbox] == ["ann@example.org", "bob@example.org"]
    assert postroom_spooler.outbox.sent[0].subject == "Welcome ann@example.org"


def test_a_failure_shows_what_there_is(postroom_spooler: InMemorySpooler) -> None:
    welcome(postroom_spooler, "ann@example.org")
    postroom_spooler.drain()
    with pytest.raises(AssertionError) as failure:
        assert_spooled(postroom_spooler, to="bob@example.org", subject="Goodbye")
    text = str(failure.value)
    assert "0 messages are spooled with to='bob@example.org', subject='Goodbye', not 1" in text
    assert "to smtp:ann@example.org (delivered): 'Welcome ann@example.org'" in text
    with pytest.raises(AssertionError, match="not 0"):
        assert_nothing_spooled(postroom_spooler)


def test_the_clock_is_turned(
    postroom_spooler: InMemorySpooler, postroom_outbox: Outbox, postroom_clock: ManualClock
) -> None:
    postroom_outbox.answer_next(Deferred(Reply("busy", "4.3.2")), Deferred(Reply("busy", "4.3.2")))
    message_id = welcome(postroom_spooler, "ann@example.org")
    postroom_spooler.drain()
    assert (postroom_outbox.attempts, len(postroom_outbox)) == (1, 0)
    before = postroom_clock.time()
    for _ in range(3):
        (recipient,) = postroom_spooler.status(message_id).recipients
        if recipient.due is None:
            break
        postroom_spooler.advance(recipient.due - postroom_clock.time() + 0.001)
        postroom_spooler.drain()
    assert (postroom_outbox.attempts, len(postroom_outbox)) == (3, 1)
    assert postroom_clock.time() > before + 60


def test_days_pass_until_it_is_given_up_and_reported(
    postroom_spooler: InMemorySpooler, postroom_outbox: Outbox
) -> None:
    postroom_outbox.answer_for("smtp:ann@*", Deferred(Reply("mailbox full", "4.2.2")))
    message_id = welcome(postroom_spooler, "ann@example.org")
    for _ in range(40):
        postroom_spooler.advance(hours=4)
        postroom_spooler.drain()
    assert postroom_spooler.status(message_id).recipients[0].state in {State.FAILED, State.EXPIRED}
    (report,) = assert_spooled(postroom_spooler, to="app@example.org", sender="", text="mailbox full")
    assert report.message.get_content_type() == "multipart/report"
    assert postroom_outbox.attempts > 10


def test_an_outage_costs_nobody_an_attempt(
    postroom_spooler: InMemorySpooler, postroom_outbox: Outbox
) -> None:
    postroom_outbox.go_down()
    message_id = welcome(postroom_spooler, "ann@example.org")
    with pytest.raises(TimeoutError, match="due for outbox"):
        postroom_spooler.drain(timeout=0.2)
    postroom_outbox.come_back()
    for _ in range(10):
        postroom_spooler.advance(minutes=5)
    postroom_spooler.drain()
    (recipient,) = postroom_spooler.status(message_id).recipients
    assert (recipient.state, recipient.attempts) == (State.DELIVERED, 1)


def test_a_full_disk(postroom_spooler: InMemorySpooler) -> None:
    large = Message(text="x" * 100_000, subject="large", sender="app@example.org", to=["ann@example.org"])
    with postroom_spooler.full_disk(), pytest.raises(SpoolFull):
        postroom_spooler.submit(large)
    assert_nothing_spooled(postroom_spooler)
    postroom_spooler.submit(large)
    postroom_spooler.drain()
    assert_spooled(postroom_spooler, subject="large", state=State.DELIVERED)


@pytest.mark.parametrize("actor", ["core/store", "core/transports/outbox", "notifier"])
def test_an_actor_crashes(actor: str) -> None:
    with InMemorySpooler() as spooler:
        spooler.crash(actor)
        welcome(spooler, "ann@example.org")
        spooler.drain()
        assert len(spooler.outbox) == 1


def test_a_process_dies_while_it_sends() -> None:
    with InMemorySpooler() as spooler:
        with spooler.outbox.hanging():
            message_id = welcome(spooler, "ann@example.org")
            welcome(spooler, "bob@example.org")
            spooler.die()
            spooler.start()
            (recipient,) = spooler.status(message_id).recipients
            assert recipient.in_doubt
        spooler.drain()
        assert {one.to.value for one in spooler.outbox} == {"ann@example.org", "bob@example.org"}
        assert_spooled(spooler, state=State.DELIVERED, count=2)


def test_a_stopped_one_goes_on_where_it_was() -> None:
    with InMemorySpooler() as spooler:
        welcome(spooler, "ann@example.org")
        spooler.drain()
        spooler.stop()
        spooler.start()
        assert len(spooled(spooler)) == 1
    assert not spooler.path.exists()


def test_what_comes_in_is_drained_too() -> None:
    receiver = MemoryReceiver(name="host")
    with InMemorySpooler(receivers=[receiver]) as spooler:
        receiver.put(b"From: ann@example.org\r\nSubject: help\r\n\r\nPlease.\r\n")
        spooler.drain()
        assert [message.subject for message in spooler.mail.list()] == ["help"]


def test_a_permanent_failure_is_reported(postroom_spooler: InMemorySpooler, postroom_outbox: Outbox) -> None:
    postroom_outbox.answer_next(Failed(Reply("no such user", "5.1.1")))
    welcome(postroom_spooler, "nobody@example.org")
    postroom_spooler.drain()
    assert_spooled(postroom_spooler, to="nobody@example.org", state=State.FAILED)
    assert_spooled(postroom_spooler, sender="", to="app@example.org", state=State.DELIVERED)


def test_misuse_says_what_would_be_right() -> None:
    with InMemorySpooler([]) as spooler:
        with pytest.raises(UsageError, match="add Outbox"):
            _ = spooler.outbox
        with pytest.raises(UsageError, match="ManualClock"):
            spooler.advance(1)


def test_the_fixtures_come_by_themselves(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from postroom.settings import Settings
        from postroom.testing import assert_spooled

        @pytest.fixture
        def postroom_settings():
            return Settings(keep_content=3600.0, synchronous="off")

        def test_mine(postroom_spooler, postroom_outbox, postroom_clock):
            postroom_spooler.submit(b"From: a@example.org\\r\\n\\r\\nhello\\r\\n", to="ann@example.org")
            postroom_clock.advance(1)
            postroom_spooler.drain()
            assert len(postroom_outbox) == 1
            assert_spooled(postroom_spooler, to="ann@example.org")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
