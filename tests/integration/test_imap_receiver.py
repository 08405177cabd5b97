"""The IMAP receiver with a real Dovecot: the conformance suite for each way of leaving, and what only IMAP has."""

import itertools
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
import trustme

from postroom.clock import ManualClock
from postroom.errors import NotRunning, WorldError
from postroom.receivers import imap_client
from postroom.receivers.base import Receiver
from postroom.receivers.imap import ImapReceiver
from postroom.receivers.imap_session import ImapSession
from postroom.receivers.mailbox_access import Tls
from postroom.testing.faults import FaultyPeer, Trouble
from postroom.testing.inlets import Fault, TrialInlet, TrialSpool
from postroom.testing.receiver_harness import ReceiverHarness, Remote, make_content
from postroom.testing.receiver_trials import Aside, attempt, drain, recover
from postroom.testing.receivers import ReceiverConformance
from tests.support.dovecot import PASSWORD, Dovecot

PLAIN = "IMAP4rev1 LITERAL+ UNSELECT NAMESPACE"
"""What a server without UIDPLUS, MOVE and IDLE says of itself."""

_users = itertools.count(1)


@pytest.fixture(scope="module")
def running() -> Iterator[Dovecot]:
    with Dovecot(authority=trustme.CA()) as server:
        yield server


@pytest.fixture(scope="module")
def running_plain() -> Iterator[Dovecot]:
    with Dovecot(capability=PLAIN) as server:
        yield server


@pytest.fixture
def dovecot(running: Dovecot) -> Iterator[Dovecot]:
    yield running
    running.recover()


@pytest.fixture
def plain(running_plain: Dovecot) -> Iterator[Dovecot]:
    yield running_plain
    running_plain.recover()


def new_user() -> str:
    return f"user{next(_users)}"


class ImapHarness(ReceiverHarness):
    secrets = (PASSWORD,)
    wakes = True
    can_fail = True
    can_hang = True
    can_clear = True

    def __init__(self, server: Dovecot, after: str, *, idle: bool = True, tls: bool = False) -> None:
        self.server = server
        self.after = after
        self.keeps = after == "keep"
        self.wakes = idle
        self.tls = tls
        self.cut_by = "octets" if tls else "lines"
        self.user = new_user()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server.imaps if self.tls else self.server.imap

    @property
    def peer(self) -> tuple[str, int] | None:
        return self.address

    def make(self) -> ImapReceiver:
        return self.make_at(*self.address)

    def make_at(self, host: str, port: int) -> ImapReceiver:
        return receiver(self.server, self.user, host=host, port=port, after=self.after, tls=self.tls)

    def put(self, content: bytes, via: tuple[str, int] | None = None) -> None:
        assert via is None
        self.server.put(self.user, content)

    def remote(self) -> Sequence[Remote]:
        there = [
            Remote(content, done=r"\Seen" in flags) for content, flags in self.server.list(self.user, "INBOX")
        ]
        if self.after.startswith("move:"):
            there += [Remote(content, done=True) for content, _ in self.server.list(self.user, "Done")]
        return there

    def stop_peer(self) -> None:
        self.server.kill()

    def start_peer(self) -> None:
        self.server.start()

    def hang_peer(self) -> None:
        self.server.signal(signal.SIGSTOP)

    def clear(self) -> None:
        self.server.clear(self.user)


def receiver(
    server: Dovecot,
    user: str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    after: str = "seen",
    tls: bool = False,
    folders: Sequence[str] = ("INBOX",),
    backlog: bool = True,
    max_message_size: int = 10_000_000,
    batch_messages: int = 2,
    monotonic: Callable[[], float] = time.monotonic,
) -> ImapReceiver:
    return ImapReceiver(
        host,
        port or (server.imaps if tls else server.imap),
        user=user,
        password=PASSWORD,
        tls="implicit" if tls else "none",
        ssl_context=server.client_context() if tls else None,
        after=after,
        folders=folders,
        backlog="all" if backlog else "none",
        max_message_size=max_message_size,
        batch_messages=batch_messages,
        monotonic=monotonic,
        timeout=10.0,
        connect_timeout=10.0,
    )


class BriefHarness(ImapHarness):
    """For the ways of leaving that differ little from the one that is tried at full length."""

    can_fail = False
    can_hang = False
    samples = ReceiverHarness.samples[:2]

    @property
    def peer(self) -> tuple[str, int] | None:
        return None


class TestDelete(ReceiverConformance):
    @pytest.fixture
    def harness(self, dovecot: Dovecot) -> ImapHarness:
        return ImapHarness(dovecot, "delete")


class TestKeep(ReceiverConformance):
    @pytest.fixture
    def harness(self, dovecot: Dovecot) -> ImapHarness:
        return BriefHarness(dovecot, "keep")


# The connection and the server, between every two commands


@pytest.mark.parametrize("after", ["delete", "seen"])
def test_the_server_is_killed_between_every_two_commands(dovecot: Dovecot, after: str) -> None:
    harness, spool = ImapHarness(dovecot, after), TrialSpool()
    with FaultyPeer(*harness.address) as proxy:

        def make() -> Receiver:
            return harness.make_at(*proxy.address)

        recover(harness, spool, attempt_contents(harness, make, spool))
        commands = proxy.passed("to peer").lines
        assert commands > 8
        for number in range(1, commands):
            proxy.arm(Trouble("to peer", number, kind="swallow"))
            trying = Aside(lambda: attempt_contents(harness, make, spool))
            while not proxy.struck.wait(0.01):
                assert not trying.ended(0), f"it gave fewer than {number} commands"
            dovecot.kill()
            proxy.cut()
            dovecot.start()
            recover(harness, spool, trying.result())


def attempt_contents(harness: ImapHarness, make: Callable[[], Receiver], spool: TrialSpool) -> list[bytes]:
    contents = [make_content() for _ in range(2)]
    attempt(harness, make, spool, spool.inlet(), contents)
    return contents


def test_cut_anywhere_within_tls_each_is_moved_once(dovecot: Dovecot) -> None:
    harness, spool = ImapHarness(dovecot, "move:Done", tls=True), TrialSpool()
    contents: list[bytes] = []
    with FaultyPeer(*harness.address) as proxy:

        def make() -> Receiver:
            return harness.make_at(*proxy.address)

        contents += attempt_contents(harness, make, spool)
        for trouble in proxy.steps(8, "octets"):
            proxy.arm(trouble)
            fresh = attempt_contents(harness, make, spool)
            recover(harness, spool, fresh)
            contents += fresh
    assert dovecot.list(harness.user) == ()
    assert Counter(content for content, _ in dovecot.list(harness.user, "Done")) == Counter(contents)
    assert spool.ledger == {}


def test_without_move_a_break_copies_twice_at_one_place_at_most(plain: Dovecot) -> None:
    # COPY, STORE and EXPUNGE stand for MOVE. What carries the flag was copied, which leaves one place in doubt.
    harness, spool = ImapHarness(plain, "move:Done", idle=False), TrialSpool()
    with FaultyPeer(*harness.address) as proxy:

        def make() -> Receiver:
            return harness.make_at(*proxy.address)

        recover(harness, spool, attempt_contents(harness, make, spool))
        doubtful = 0
        for number in range(1, proxy.passed("to peer").lines):
            proxy.arm(Trouble("to peer", number))
            contents = attempt_contents(harness, make, spool)
            recover(harness, spool, contents)
            copies = Counter(content for content, _ in plain.list(harness.user, "Done"))
            assert all(copies[content] in {1, 2} for content in contents)
            doubtful += any(copies[content] == 2 for content in contents)
        assert doubtful <= 1
    assert plain.list(harness.user) == ()


def test_what_others_flagged_as_deleted_is_not_expunged(plain: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    plain.put(user, b"Subject: theirs\r\n\r\n1\r\n")
    plain.flag(user, r"\Deleted")
    plain.put(user, b"Subject: ours\r\n\r\n2\r\n")
    with opened_session(receiver(plain, user, after="delete", backlog=False), spool) as session:
        assert session.poll() == 0, "both lay there before"
        plain.put(user, b"Subject: new\r\n\r\n3\r\n")
        assert session.poll() == 1
        assert session.poll() == 0
        assert subjects(plain, user) == [rb"Subject: theirs", rb"Subject: ours", rb"Subject: new"]
        plain.clear(user)
        # Everything is gone by the hand of others, and nothing remains known.
        assert session.poll() == 0
    assert spool.ledger == {}


def test_what_stays_flagged_is_removed_when_nobody_else_has_a_say(plain: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    plain.put(user, b"Subject: theirs\r\n\r\n1\r\n")
    plain.flag(user, r"\Deleted")
    with opened_session(receiver(plain, user, after="delete", backlog=False), spool) as session:
        session.poll()
        plain.put(user, b"Subject: ours\r\n\r\n2\r\n")
        session.poll()
        assert len(plain.list(user)) == 2
        plain.unflag(user, r"\Deleted", "1")
        session.poll()
    assert subjects(plain, user) == [b"Subject: theirs"]
    assert spool.ledger == {}


# New numbers


def test_new_numbers_bring_nothing_twice_and_lose_nothing(dovecot: Dovecot) -> None:
    for number in range(1, 12):
        user, spool = new_user(), TrialSpool()
        same = make_content()
        old = [make_content(), same, make_content(), same]
        for content in old:
            dovecot.put(user, content)
        keeping = receiver(dovecot, user, after="keep")
        with opened_session(keeping, spool) as session:
            assert drain(session) == 4
        dovecot.renumber(user)
        new = [same, make_content()]
        for content in new:
            dovecot.put(user, content)
        # Killed at one call after the other, then left in peace.
        inlet = spool.inlet(Fault(number, "killed after"))
        with suppress(NotRunning), opened_session(keeping, spool, inlet) as session:
            drain(session)
        with opened_session(keeping, spool) as session:
            drain(session)
        assert Counter(arrival.content for arrival in spool.arrivals) == Counter([*old, *new])
        assert len(spool.ledger) == 6, "one entry for each copy that is there, of the present numbers"
        with opened_session(keeping, spool) as session:
            assert drain(session) == 0
        if not inlet.struck:
            return
    pytest.fail("it calls the inlet more often than was tried")


def test_new_numbers_change_nothing_about_what_lay_there_before(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    dovecot.put(user, make_content())
    keeping = receiver(dovecot, user, after="keep", backlog=False)
    with opened_session(keeping, spool) as session:
        assert session.poll() == 0
    # Dovecot's times are whole seconds.
    time.sleep(1.1 - time.time() % 1)
    taken, more = make_content(), make_content()
    dovecot.put(user, taken)
    with opened_session(keeping, spool) as session:
        assert session.poll() == 1
    dovecot.renumber(user)
    dovecot.put(user, more)
    with opened_session(keeping, spool) as session:
        assert session.poll() == 1
    assert [arrival.content for arrival in spool.arrivals] == [taken, more]


# Limits


def test_what_is_too_large_stays_there_and_holds_nothing_up(
    dovecot: Dovecot, caplog: pytest.LogCaptureFixture
) -> None:
    user, spool = new_user(), TrialSpool()
    large = make_content("x" * 2000)
    small = [make_content() for _ in range(2)]
    for content in (small[0], large, small[1]):
        dovecot.put(user, content)
    for expected in (2, 0):
        with opened_session(receiver(dovecot, user, after="delete", max_message_size=1000), spool) as session:
            assert session.poll() == expected
            assert session.poll() == 0
    assert [arrival.content for arrival in spool.arrivals] == small
    assert [content for content, _ in dovecot.list(user)] == [large]
    assert caplog.text.count("more than max_message_size") == 1, "once for all sessions"


def test_what_the_server_cannot_read_holds_nothing_up(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    contents = [make_content() for _ in range(5)]
    for content in contents:
        dovecot.put(user, content)
    trial = contents[1].split(b"\r\n")[2]
    bad = next(path.name for path in dovecot.files(user) if trial in path.read_bytes())
    dovecot.file(user, bad).chmod(0)
    clock = ManualClock()
    coming = receiver(dovecot, user, after="delete", batch_messages=10, monotonic=clock.monotonic)
    # Dovecot hangs up on whoever asks for it: among others, alone, and once more alone.
    for already in (0, 0, 1):
        assert len(spool.arrivals) == already
        with opened_session(coming, spool) as session, pytest.raises(WorldError, match="FETCH"):
            session.poll()
    with opened_session(coming, spool) as session:
        assert session.poll() == 3
        assert session.poll() == 0
    assert [arrival.content for arrival in spool.arrivals] == [contents[0], *contents[2:]]
    dovecot.file(user, bad).chmod(0o600)
    with opened_session(coming, spool) as session:
        assert session.poll() == 0, "it is left alone for a while"
        clock.advance(61)
        assert session.poll() == 1
    assert Counter(arrival.content for arrival in spool.arrivals) == Counter(contents)
    assert dovecot.list(user) == ()


def test_a_change_of_after_is_for_what_comes(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    for after in ("keep", "seen", "delete"):
        dovecot.put(user, make_content())
        with opened_session(receiver(dovecot, user, after=after), spool) as session:
            assert session.poll() == 1
    assert [r"\Seen" in flags for _, flags in dovecot.list(user)] == [False, True]


# Folders and waiting


def test_several_folders(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    dovecot.put(user, b"Subject: a\r\n\r\n1\r\n", "Drafts")
    dovecot.put(user, b"Subject: b\r\n\r\n2\r\n", "Lists")
    dovecot.put(user, b"Subject: c\r\n\r\n3\r\n")
    folders = ("INBOX", "Lists")
    with opened_session(receiver(dovecot, user, after="seen", folders=folders), spool) as session:
        assert session.poll() == 2
        dovecot.put(user, b"Subject: d\r\n\r\n4\r\n")
        # The first folder's news ends the wait, though others were looked through.
        session.wait(60)
        assert session.poll() == 1
    found = {arrival.content[9:10]: arrival.folder for arrival in spool.arrivals}
    assert found == {b"b": "Lists", b"c": "INBOX", b"d": "INBOX"}


def test_a_folder_that_is_missing_is_named(dovecot: Dovecot) -> None:
    with (
        opened_session(receiver(dovecot, new_user(), folders=("INBOX", "Nowhere")), TrialSpool()) as session,
        pytest.raises(WorldError, match="Nowhere"),
    ):
        session.poll()


def test_idle_is_given_anew_before_the_server_loses_patience(
    dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap_client, "IDLE_SECONDS", 0.02)
    with opened_session(receiver(dovecot, new_user()), TrialSpool()) as session:
        for _ in range(3):
            session.wait(3600)
            assert session.poll() == 0


def test_a_long_pause_keeps_the_connection_alive(plain: Dovecot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imap_client, "NOOP_SECONDS", 0.02)
    harness = ImapHarness(plain, "seen", idle=False)
    with FaultyPeer(*harness.address) as proxy:
        session = harness.make_at(*proxy.address).open(TrialSpool().inlet())
        session.poll()
        before = proxy.passed("to peer").lines
        session.wait(0.1)
        assert proxy.passed("to peer").lines >= before + 4
        session.close()


# What is known of a message besides its octets


def test_facts_about_a_message(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    dovecot.put(user, b"Return-Path: <ann@example.org>\r\nDelivered-To: desk@example.org\r\n\r\nhello\r\n")
    dovecot.put(user, b"Return-Path: <>\r\n\r\nhello\r\n")
    dovecot.flag(user, r"\Seen", "2")
    before = time.time()
    with opened_session(receiver(dovecot, user, after="keep"), spool) as session:
        assert session.poll() == 2
    first, second = spool.arrivals
    assert (first.sender, first.recipients, first.seen) == ("ann@example.org", ("desk@example.org",), False)
    assert (second.sender, second.recipients, second.seen) == ("", (), True)
    for arrival in (first, second):
        assert arrival.folder == "INBOX"
        assert arrival.remote == f"127.0.0.1:{dovecot.imap}"
        assert arrival.received is not None
        assert abs(arrival.received - before) < 60
    assert all(r"\Seen" in flags or number == 0 for number, (_, flags) in enumerate(dovecot.list(user)))


# Who may come in


def test_starttls_and_tokens(dovecot: Dovecot) -> None:
    user, spool = new_user(), TrialSpool()
    tokens: list[str] = []

    def refresh() -> str:
        tokens.append(dovecot.token(user))
        return tokens[-1]

    coming = ImapReceiver(
        "localhost",
        dovecot.imap,
        user=user,
        access_token=refresh,
        tls="starttls",
        ssl_context=dovecot.client_context(),
    )
    for number in range(2):
        dovecot.put(user, make_content())
        with opened_session(coming, spool) as session:
            assert session.poll() == 1
            assert tokens[-1] not in repr(coming) + repr(session)
        assert len(tokens) == number + 1, "asked for at each login"


def test_a_wrong_secret_is_refused_and_not_told(dovecot: Dovecot) -> None:
    with pytest.raises(WorldError, match="logging in") as caught:
        ImapReceiver("127.0.0.1", dovecot.imap, user=new_user(), tls="none", password="wröng").open(
            TrialSpool().inlet()
        )
    assert "wr" not in str(caught.value)
    with pytest.raises(WorldError, match="logging in") as caught:
        ImapReceiver("127.0.0.1", dovecot.imap, user=new_user(), tls="none", access_token="wr.on.g").open(
            TrialSpool().inlet()
        )
    assert "wr.on" not in str(caught.value)


def test_a_certificate_of_nobody_we_trust_is_refused(dovecot: Dovecot) -> None:
    ways: tuple[tuple[int, Tls], ...] = ((dovecot.imaps, "implicit"), (dovecot.imap, "starttls"))
    for port, tls in ways:
        coming = ImapReceiver(
            "localhost", port, user=new_user(), password=PASSWORD, tls=tls, ssl_context=ssl.create_default_context()
        )  # fmt: skip
        with pytest.raises(WorldError, match="certificate verify failed"):
            coming.open(TrialSpool().inlet())


@contextmanager
def opened_session(
    coming: ImapReceiver, spool: TrialSpool, inlet: TrialInlet | None = None
) -> Generator[ImapSession]:
    session = coming.open(inlet or spool.inlet())
    try:
        yield session
    finally:
        session.close()


def subjects(server: Dovecot, user: str) -> list[bytes]:
    return [content.split(b"\r\n")[0] for content, _ in server.list(user)]
