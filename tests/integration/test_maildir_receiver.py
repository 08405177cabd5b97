"""The Maildir receiver with what lies about in real Maildirs, and with what is new seen at once."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from postroom import Spooler
from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, TransportDown, UsageError
from postroom.inbound.values import Arrival
from postroom.receivers import maildir
from postroom.receivers.maildir import MaildirReceiver, MaildirSession
from postroom.receivers.maildir_files import Folder, NewFile, envelope_of, list_new
from postroom.receivers.maildir_watch import LookingWatch, NotifiedWatch, make_watch
from postroom.testing.inlets import TrialInlet, TrialSpool
from postroom.transports.maildir import MaildirTransport

PATIENCE = 20.0
GOOD = b"From: ann@example.org\r\n\r\nHello.\r\n"


def make_box(root: Path) -> Path:
    for each in ("tmp", "new", "cur"):
        (root / each).mkdir(parents=True)
    return root


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return make_box(tmp_path / "box")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class Trial:
    """One session on a trial spool, with a clock that is turned by hand."""

    def __init__(self, receiver: MaildirReceiver, spool: TrialSpool | None = None) -> None:
        self.now = 0.0
        self.spool = spool or TrialSpool()
        self.inlet = self.spool.inlet()
        self.session = MaildirSession(receiver, self.inlet, LookingWatch(), lambda: self.now)

    def contents(self) -> list[bytes]:
        return [arrival.content for arrival in self.spool.arrivals]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# What is no message


def a_link(path: Path) -> None:
    target = path.parent.parent / "secret"
    target.write_bytes(b"not for mail")
    path.symlink_to(target)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_huge_file(path: Path) -> None:
    path.write_bytes(GOOD + b"x" * 2000)


def an_empty_file(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_link, "it is a symbolic link"),
        (a_pipe, "it is no plain file"),
        (a_directory, "Is a directory"),
        (a_huge_file, "octets, more than 1000"),
        (an_empty_file, "it is empty"),
    ],
)
def test_what_is_no_message_is_left_alone_told_once_and_holds_up_nothing(
    box: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None], why: str
) -> None:
    bad = box / "new" / "1.bad"
    make(bad)
    (box / "new" / "2.good").write_bytes(GOOD)
    trial = Trial(MaildirReceiver(box, max_size=1000))
    assert trial.session.poll() == 1
    assert trial.contents() == [GOOD]
    assert names(box / "new") == ["1.bad"]
    assert trial.inlet.reports[-1][0] == "up"
    assert why in trial.inlet.reports[-1][1]
    for _ in range(5):
        trial.now += 4000.0
        assert trial.session.poll() == 0
    assert len(warnings(caplog)) == 1
    assert why in warnings(caplog)[0]
    if bad.is_dir():
        bad.rmdir()
    else:
        bad.unlink()
    trial.session.poll()
    assert trial.inlet.reports[-1] == ("up", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(box: Path) -> None:
    (box / "new" / "1.bad").write_bytes(GOOD)
    (box / "new" / "1.bad").chmod(0)
    trial = Trial(MaildirReceiver(box))
    assert trial.session.poll() == 0
    assert "Permission denied" in trial.inlet.reports[-1][1]


def test_a_bad_file_is_tried_again_after_growing_pauses(box: Path) -> None:
    bad = box / "new" / "1.bad"
    bad.touch()
    trial = Trial(MaildirReceiver(box))
    trial.session.poll()
    bad.write_bytes(GOOD)
    trial.now += maildir.ASIDE_SECONDS - 1.0
    assert trial.session.poll() == 0
    trial.now += 1.0
    assert trial.session.poll() == 1
    assert trial.contents() == [GOOD]


def test_what_is_not_in_new_is_not_taken(box: Path) -> None:
    for each in ("tmp/1.a", "cur/2.b:2,S", "cur/3.c", "new/.hidden"):
        (box / each).write_bytes(GOOD)
    assert Trial(MaildirReceiver(box)).session.poll() == 0


def test_a_file_that_vanishes_after_it_was_listed(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (box / "new" / f"{number}.x").write_bytes(GOOD + b"%d" % number)

    def list_and_lose(folder: Folder) -> list[NewFile]:
        files = list_new(folder)
        files[1].path.unlink(missing_ok=True)
        return files

    monkeypatch.setattr(maildir, "list_new", list_and_lose)
    trial = Trial(MaildirReceiver(box))
    assert trial.session.poll() == 2
    assert trial.contents() == [GOOD + b"0", GOOD + b"2"]


def test_one_that_the_spool_will_not_have_does_not_hold_up_the_others(box: Path) -> None:
    def refuse(arrivals: Sequence[Arrival]) -> None:
        if any(b"poison" in arrival.content for arrival in arrivals):
            raise UsageError("arrival", "it is poison", "send something else")

    for number, text in enumerate([b"a", b"poison", b"b"]):
        (box / "new" / f"{number}.x").write_bytes(GOOD + text)
    trial = Trial(MaildirReceiver(box), TrialSpool(refuse))
    assert trial.session.poll() == 2
    assert trial.contents() == [GOOD + b"a", GOOD + b"b"]
    assert names(box / "new") == ["1.x"]
    assert trial.session.poll() == 0
    assert "it is poison" in trial.inlet.reports[-1][1]


def test_a_file_that_cannot_be_removed_is_not_taken_again(
    box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        del path, missing_ok
        raise PermissionError(1, "Operation not permitted")

    (box / "new" / "1.x").write_bytes(GOOD)
    trial = Trial(MaildirReceiver(box))
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", refuse)
        assert trial.session.poll() == 1
        assert trial.session.poll() == 0
    assert len(warnings(caplog)) == 1
    trial.now += maildir.ASIDE_SECONDS
    trial.session.poll()
    assert names(box / "new") == []
    assert trial.contents() == [GOOD]


# What it hands over


def test_large_mailboxes_are_handed_over_in_bounded_batches_the_oldest_first(box: Path) -> None:
    batches: list[int] = []
    for number in range(120):
        (box / "new" / f"{number}.x").write_bytes(GOOD + b"%d" % number)
    trial = Trial(MaildirReceiver(box), TrialSpool(lambda arrivals: batches.append(len(arrivals))))
    assert trial.session.poll() == 120
    assert batches == [50, 50, 20]
    assert trial.contents() == [GOOD + b"%d" % number for number in range(120)]


def test_large_messages_are_handed_over_one_by_one(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maildir, "BATCH_OCTETS", 100)
    batches: list[int] = []
    for number, size in enumerate([10, 10, 200, 10, 80, 80]):
        (box / "new" / f"{number}.x").write_bytes(b"x" * size)
    trial = Trial(MaildirReceiver(box), TrialSpool(lambda arrivals: batches.append(len(arrivals))))
    trial.session.poll()
    assert batches == [2, 1, 2, 1]


def test_seen_moves_with_flags_and_keeps_those_that_are_there(box: Path) -> None:
    (box / "new" / "1.a").write_bytes(GOOD)
    (box / "new" / "2.b:2,F").write_bytes(GOOD)
    trial = Trial(MaildirReceiver(box, after="seen"))
    assert trial.session.poll() == 2
    assert names(box / "cur") == ["1.a:2,S", "2.b:2,FS"]
    assert {uid for _, uid in trial.spool.ledger} == {"1.a", "2.b"}
    trial.session.poll()
    assert trial.spool.ledger == {}


def test_a_name_that_is_no_text_has_a_key_that_is(box: Path) -> None:
    (Path(os.fsdecode(os.fsencode(box) + b"/new/1.\xff\xfe"))).write_bytes(GOOD)
    trial = Trial(MaildirReceiver(box, after="keep"))
    assert trial.session.poll() == 1
    ((_, uid),) = trial.spool.ledger
    assert uid.encode() == rb"1.\xff\xfe"
    assert trial.session.poll() == 0


def test_subfolders(box: Path) -> None:
    make_box(box / ".Lists.Debian")
    (box / ".Lists.Debian" / "new" / "1.a").write_bytes(GOOD)
    (box / "new" / "1.a").write_bytes(GOOD)
    (box / ".nothing").mkdir()
    trial = Trial(MaildirReceiver(box, folders=True, after="keep"))
    assert trial.session.poll() == 2
    assert [arrival.folder for arrival in trial.spool.arrivals] == ["", "Lists/Debian"]
    assert set(trial.spool.ledger) == {("new", "1.a"), ("new/Lists/Debian", "1.a")}
    (box / ".Lists.Debian").rename(box.parent / "elsewhere")
    trial.session.poll()
    assert set(trial.spool.ledger) == {("new", "1.a")}
    again = Trial(MaildirReceiver(box, folders=True, after="keep"), trial.spool)
    again.session.poll()
    assert trial.spool.sources == {"folders": "[]"}


def test_what_postroom_itself_delivered_into_a_maildir(tmp_path: Path) -> None:
    transport = MaildirTransport(tmp_path, folder=".")
    session = transport.open()
    target = Target(0, Address("smtp", "desk@example.org"))
    session.send(Delivery(7 << 40, "ann@example.net", (target,), GOOD, 1_700_000_000.0))
    session.close()
    trial = Trial(MaildirReceiver(tmp_path))
    assert trial.session.poll() == 1
    (arrival,) = trial.spool.arrivals
    assert arrival.sender == "ann@example.net"
    assert arrival.recipients == ("desk@example.org",)
    assert arrival.content.endswith(GOOD.replace(b"\r\n", b"\n"))
    assert arrival.received is not None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"Return-Path: <ann@example.org>\nDelivered-To: a\nDelivered-To: b\n\nx",
            ("ann@example.org", ("a", "b")),
        ),
        (b"Return-Path: <>\r\n\r\n", ("", ())),
        (b"Subject: x\r\n\r\nReturn-Path: <no@example.org>\r\n", (None, ())),
        (b"Return-Path: ann\nReturn-Path: <two@x>\nReturn-Path: <three@x>\n\n", ("two@x", ())),
        (b"\n\nReturn-Path: <x@y>\n", (None, ())),
        (b"return-path:<x@y>", ("x@y", ())),
    ],
)
def test_the_envelope(content: bytes, expected: tuple[str | None, tuple[str, ...]]) -> None:
    assert envelope_of(content) == expected


# Watching


@pytest.fixture
def session(box: Path) -> Iterator[MaildirSession]:
    opened = MaildirReceiver(box, folders=True).open(TrialSpool().inlet())
    assert isinstance(opened, MaildirSession)
    yield opened
    opened.close()


def wait_aside(session: MaildirSession) -> threading.Thread:
    thread = threading.Thread(target=session.wait, args=(4 * PATIENCE,), daemon=True)
    thread.start()
    return thread


def test_a_new_file_and_a_new_folder_are_noticed_at_once(box: Path, session: MaildirSession) -> None:
    session.poll()
    waiting = wait_aside(session)
    (box / "tmp" / "1.x").write_bytes(GOOD)
    (box / "tmp" / "1.x").rename(box / "new" / "1.x")
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert session.poll() == 1
    waiting = wait_aside(session)
    make_box(box / ".Lists")
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_without_watchdog_it_looks_and_says_so(
    box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    monkeypatch.setattr("postroom.receivers.maildir_watch.LOOK_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    opened = MaildirReceiver(box).open(TrialSpool().inlet())
    assert "postroom[maildir]" in caplog.text
    assert isinstance(opened, MaildirSession)
    opened.poll()
    waiting = wait_aside(opened)
    (box / "new" / "1.x").write_bytes(GOOD)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    opened.close()


def test_without_watches_it_looks_and_says_so(
    box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: NotifiedWatch, __: object) -> bool:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(NotifiedWatch, "follow", refuse)
    opened = MaildirReceiver(box).open(TrialSpool().inlet())
    opened.poll()
    assert "inotify watch limit reached" in caplog.text
    (box / "new" / "1.x").write_bytes(GOOD)
    opened.wait(4 * PATIENCE)
    assert opened.poll() == 1
    opened.close()


def test_the_best_watch_is_taken(box: Path) -> None:
    watch = make_watch("box")
    assert isinstance(watch, NotifiedWatch)
    assert watch.follow([box / "new"]) is True
    assert watch.follow([box / "new"]) is False
    assert watch.follow([]) is False
    watch.close()
    watch.close()


# Opening


def test_a_directory_that_is_no_maildir(tmp_path: Path) -> None:
    inlet: TrialInlet = TrialSpool().inlet()
    with pytest.raises(TransportDown, match="no directory 'new'"):
        MaildirReceiver(tmp_path).open(inlet)


@pytest.mark.parametrize("options", [{"after": "burn"}, {"max_size": 0}])
def test_options_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        MaildirReceiver("box", **options)  # type: ignore[arg-type]


# In a spooler


def put(box: Path, name: str) -> Path:
    (box / "tmp" / name).write_bytes(GOOD + name.encode())
    return (box / "tmp" / name).rename(box / "new" / name)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def standing(spooler: Spooler) -> str:
    return spooler.receivers()[0].status


def asked(spooler: Spooler, file: Path) -> bool:
    spooler.poll()
    return not file.exists()


def test_of_two_processes_on_a_spool_one_takes_and_the_other_takes_over(tmp_path: Path, box: Path) -> None:
    first = Spooler(tmp_path / "spool.db", receivers=[MaildirReceiver(box)])
    second = Spooler(tmp_path / "spool.db", receivers=[MaildirReceiver(box)])
    with second:
        with first:
            wait_until(lambda: {standing(first), standing(second)} == {"up", "standby"})
            file = put(box, "1.x")
            wait_until(lambda: not file.exists())
            taker = first if standing(first) == "up" else second
            other = second if taker is first else first
            wait_until(lambda: taker.receivers()[0].taken == 1)
            assert other.receivers()[0].taken == 0
            taker.crash_actor("receivers/maildir")
            file = put(box, "2.x")
            # The one that stands by asks for the lease by itself after a while; here it is told to.
            wait_until(lambda: asked(other, file))
        file = put(box, "3.x")
        wait_until(lambda: asked(second, file))
        assert sorted(record.size for record in second.mail.list()) == [len(GOOD) + 3] * 3
