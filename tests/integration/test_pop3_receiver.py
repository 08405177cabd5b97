"""The POP3 receiver with a real Dovecot: the conformance suite, lost deletions, TLS, lines of any length."""

import itertools
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import pytest
import trustme

from postroom.clock import ManualClock
from postroom.errors import WorldError
from postroom.receivers.pop3 import Pop3Receiver, Pop3Session
from postroom.testing.faults import FaultyPeer, Trouble
from postroom.testing.inlets import TrialSpool
from postroom.testing.receiver_harness import ReceiverHarness, Remote, make_content
from postroom.testing.receiver_trials import Aside, attempt, recover
from postroom.testing.receivers import ReceiverConformance
from tests.support.dovecot import PASSWORD, Dovecot

DAY = 86_400.0

_users = itertools.count(1)


@pytest.fixture(scope="module")
def running() -> Iterator[Dovecot]:
    with Dovecot(authority=trustme.CA()) as server:
        yield server


@pytest.fixture
def dovecot(running: Dovecot) -> Iterator[Dovecot]:
    yield running
    running.recover()


def new_user() -> str:
    return f"user{next(_users)}"


class Pop3Harness(ReceiverHarness):
    secrets = (PASSWORD,)
    can_fail = True
    can_hang = True
    can_clear = True

    def __init__(self, server: Dovecot, after: Literal["delete", "keep"]) -> None:
        self.server = server
        self.after: Literal["delete", "keep"] = after
        self.keeps = after == "keep"
        self.user = new_user()

    @property
    def peer(self) -> tuple[str, int] | None:
        return "127.0.0.1", self.server.pop3

    def make(self) -> Pop3Receiver:
        return self.make_at("127.0.0.1", self.server.pop3)

    def make_at(self, host: str, port: int) -> Pop3Receiver:
        return Pop3Receiver(
            host,
            port,
            user=self.user,
            password=PASSWORD,
            tls="none",
            after=self.after,
            batch_messages=2,
            timeout=10.0,
            connect_timeout=10.0,
        )

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        assert via is None
        self.server.put(self.user, content)

    def remote(self) -> Sequence[Remote]:
        return [Remote(content) for content, _ in self.server.list(self.user)]

    def stop_peer(self) -> None:
        self.server.kill()

    def start_peer(self) -> None:
        self.server.start()

    def hang_peer(self) -> None:
        self.server.signal(signal.SIGSTOP)

    def clear(self) -> None:
        self.server.clear(self.user)


class TestDelete(ReceiverConformance):
    @pytest.fixture
    def harness(self, dovecot: Dovecot) -> Pop3Harness:
        return Pop3Harness(dovecot, "delete")


class KeepHarness(Pop3Harness):
    can_fail = False
    can_hang = False
    samples = ReceiverHarness.samples[:2]

    @property
    def peer(self) -> tuple[str, int] | None:
        return None


class TestKeep(ReceiverConformance):
    @pytest.fixture
    def harness(self, dovecot: Dovecot) -> Pop3Harness:
        return KeepHarness(dovecot, "keep")


@contextmanager
def opened(coming: Pop3Receiver, spool: TrialSpool) -> Generator[Pop3Session]:
    session = coming.open(spool.inlet())
    try:
        yield session
    finally:
        session.close()


def receiver(
    server: Dovecot,
    user: str,
    *,
    after: Literal["delete", "keep"] = "delete",
    keep_days: float | None = None,
    max_message_size: int = 10_000_000,
    wall: Callable[[], float] = time.time,
) -> Pop3Receiver:
    return Pop3Receiver(
        "127.0.0.1",
        server.pop3,
        user=user,
        password=PASSWORD,
        tls="none",
        after=after,
        keep_days=keep_days,
        max_message_size=max_message_size,
        wall=wall,
    )


def test_the_server_is_killed_between_every_two_commands(dovecot: Dovecot) -> None:
    harness, spool = Pop3Harness(dovecot, "delete"), TrialSpool()
    with FaultyPeer("127.0.0.1", dovecot.pop3) as proxy:

        def tried() -> list[bytes]:
            contents = [make_content() for _ in range(2)]
            attempt(harness, lambda: harness.make_at(*proxy.address), spool, spool.inlet(), contents)
            return contents

        recover(harness, spool, tried())
        # After the three of opening: USER, PASS, UIDL, LIST, two of RETR and DELE each, QUIT.
        for number in range(3, 13):
            proxy.arm(Trouble("to peer", number, kind="swallow"))
            trying = Aside(tried)
            while not proxy.struck.wait(0.01):
                assert not trying.ended(0), f"it gave fewer than {number} commands"
            dovecot.kill()
            proxy.cut()
            dovecot.start()
            recover(harness, spool, trying.result())
    assert spool.ledger == {}


def test_what_a_lost_quit_left_behind_is_deleted_and_not_taken(dovecot: Dovecot) -> None:
    harness, spool = Pop3Harness(dovecot, "delete"), TrialSpool()
    contents = [make_content() for _ in range(2)]
    with FaultyPeer("127.0.0.1", dovecot.pop3) as proxy:
        session = harness.make_at(*proxy.address).open(spool.inlet())
        for content in contents:
            harness.put(content)
        proxy.arm(None)
        assert session.poll() == 2
        for content in contents:
            harness.put(content)
        # All but what ends QUIT's line.
        proxy.arm(Trouble("to peer", proxy.passed("to peer").octets - 2, "octets"))
        with pytest.raises(WorldError, match="QUIT"):
            session.poll()
        session.close()
    assert len(spool.ledger) == len(dovecot.list(harness.user)) == 2
    with opened(harness.make(), spool) as session:
        assert session.poll() == 0
    assert dovecot.list(harness.user) == ()
    assert len(spool.arrivals) == 4
    assert spool.ledger == {}


def test_octet_for_octet_whatever_the_lines(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    contents = [
        b"Subject: long\r\n\r\n" + b"x" * 300_000 + b"\r\nend\r\n",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n...\r\n.\r\n",
        b"Subject: dots where a piece begins\r\n\r\n"
        + b"y" * 65_535
        + b".\r\n"
        + b"z" * 65_534
        + b"\r\n.\r\n",
        b"Subject: a line of one piece and its end\r\n\r\n" + b"y" * 65_535 + b"\r\n.\r\n",
        b"Subject: eight bits\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    ]
    for content in contents:
        dovecot.put(user, content)
    with opened(receiver(dovecot, user), spool) as session:
        assert session.poll() == len(contents)
    assert [arrival.content for arrival in spool.arrivals] == contents


def test_what_is_too_large_stays_there_and_holds_nothing_up(
    dovecot: Dovecot, caplog: pytest.LogCaptureFixture
) -> None:
    user, spool = new_user(), TrialSpool()
    large = make_content("x" * 2000)
    small = [make_content() for _ in range(2)]
    for content in (small[0], large, small[1]):
        dovecot.put(user, content)
    with opened(receiver(dovecot, user, max_message_size=1000), spool) as session:
        assert session.poll() == 2
        assert session.poll() == 0
    assert [arrival.content for arrival in spool.arrivals] == small
    assert [content for content, _ in dovecot.list(user)] == [large]
    assert caplog.text.count("max_message_size") == 1


def test_kept_for_some_days(dovecot: Dovecot) -> None:
    user, spool, clock = new_user(), TrialSpool(), ManualClock()
    coming = receiver(dovecot, user, after="keep", keep_days=7, wall=clock.time)
    first, second = make_content(), make_content()
    dovecot.put(user, first)
    with opened(coming, spool) as session:
        assert session.poll() == 1
        clock.advance(5 * DAY)
        dovecot.put(user, second)
        assert session.poll() == 1
        assert len(dovecot.list(user)) == 2
        clock.advance(2 * DAY)
        assert session.poll() == 0
        assert [content for content, _ in dovecot.list(user)] == [second]
        assert len(spool.ledger) == 2, "its uid, and when it was taken"
        clock.advance(5 * DAY)
        assert session.poll() == 0
    assert dovecot.list(user) == ()
    assert spool.ledger == {}
    assert Counter(arrival.content for arrival in spool.arrivals) == Counter([first, second])


def test_the_envelope_of_a_message(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    dovecot.put(user, b"Return-Path: <ann@example.org>\r\nDelivered-To: desk@example.org\r\n\r\nhello\r\n")
    with opened(receiver(dovecot, user), spool) as session:
        session.poll()
    (arrival,) = spool.arrivals
    assert (arrival.sender, arrival.recipients) == ("ann@example.org", ("desk@example.org",))
    assert arrival.remote == f"127.0.0.1:{dovecot.pop3}"


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_over_tls(dovecot: Dovecot, tls: Literal["implicit", "starttls"]) -> None:
    user, spool = new_user(), TrialSpool()
    dovecot.put(user, make_content())
    port = dovecot.pop3s if tls == "implicit" else dovecot.pop3

    def coming(context: ssl.SSLContext) -> Pop3Receiver:
        return Pop3Receiver(
            "localhost", port, user=user, password=lambda: PASSWORD, tls=tls, ssl_context=context
        )

    with opened(coming(dovecot.client_context()), spool) as session:
        assert session.poll() == 1
        assert session.poll() == 0
    with pytest.raises(WorldError, match="certificate verify failed"):
        coming(ssl.create_default_context()).open(spool.inlet())


def test_a_wrong_password_is_refused_and_not_told(dovecot: Dovecot) -> None:
    coming = Pop3Receiver("127.0.0.1", dovecot.pop3, user=new_user(), password="not-it", tls="none")
    with pytest.raises(WorldError, match="logging in") as caught:
        coming.open(TrialSpool().inlet())
    assert "not-it" not in str(caught.value)
