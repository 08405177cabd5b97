"""The Maildir transport on a real file system."""

import errno
import mailbox
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome
from postroom.transports.base import Session
from postroom.transports.maildir import MaildirTransport, file_name

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def delivery_to(*addresses: str, key: int = 1 << 40) -> Delivery:
    targets = tuple(Target(index, parse_address(address)) for index, address in enumerate(addresses))
    return Delivery(key, "app@example.org", targets, CONTENT)


def again(delivery: Delivery, *, attempts: int = 0, in_doubt: bool = False) -> Delivery:
    targets = tuple(replace(each, attempts=attempts, in_doubt=in_doubt) for each in delivery.targets)
    return replace(delivery, targets=targets)


def send(session: Session, delivery: Delivery) -> list[Outcome]:
    outcomes = session.send(delivery)
    assert isinstance(outcomes, Sequence)
    return list(outcomes)


def stored(box: Path) -> list[bytes]:
    opened = mailbox.Maildir(box, create=False)
    return [opened.get_bytes(key) for key in opened.keys()]  # noqa: SIM118 - not a dictionary


def failing(real: Callable[..., None], number: int, *, on: str) -> Callable[..., None]:
    """Return `real`, failing with errno `number` for files or for directories."""

    def call(handle: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        if kind == on:
            raise OSError(number, os.strerror(number))
        real(handle)

    return call


def test_a_standard_reader_finds_the_message_unread(tmp_path: Path) -> None:
    delivery = delivery_to("maildir:users/ann")
    session = MaildirTransport(tmp_path).open()
    (outcome,) = send(session, delivery)
    assert isinstance(outcome, Delivered)
    box = mailbox.Maildir(tmp_path / "users" / "ann", create=False)
    ((key, message),) = box.items()
    assert key == file_name(delivery, delivery.targets[0])
    assert message.get_subdir() == "new"
    assert message["Return-Path"] == "<app@example.org>"
    assert message["Delivered-To"] == "maildir:users/ann"
    file = tmp_path / "users" / "ann" / "new" / key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "users" / "ann").stat().st_mode) == 0o700
    assert list((tmp_path / "users" / "ann" / "tmp").iterdir()) == []


def test_one_mailbox_for_all(tmp_path: Path) -> None:
    transport = MaildirTransport(tmp_path / "box", folder=".", address_types={"smtp"})
    send(transport.open(), delivery_to("ann@example.org", "bob@example.org"))
    assert len(stored(tmp_path / "box")) == 2


@pytest.mark.parametrize("moved_to", [None, "{}:2,", "{}:2,FS", "{},S=5:2,S"])
def test_a_second_attempt_stores_nothing_twice(tmp_path: Path, moved_to: str | None) -> None:
    delivery = delivery_to("maildir:ann")
    session = MaildirTransport(tmp_path).open()
    send(session, delivery)
    name = file_name(delivery, delivery.targets[0])
    if moved_to is not None:
        (tmp_path / "ann" / "new" / name).rename(tmp_path / "ann" / "cur" / moved_to.format(name))
    for retry in (again(delivery, in_doubt=True), again(delivery, attempts=1)):
        assert session.was_delivered(retry, retry.targets[0]) is True
        (outcome,) = send(session, retry)
        assert isinstance(outcome, Delivered)
    assert len(stored(tmp_path / "ann")) == 1


def test_unread_duplicates_are_recognised_even_without_a_hint(tmp_path: Path) -> None:
    session = MaildirTransport(tmp_path).open()
    for _ in range(2):
        assert isinstance(send(session, delivery_to("maildir:ann"))[0], Delivered)
    assert len(stored(tmp_path / "ann")) == 1


def test_other_messages_do_not_count_as_this_one(tmp_path: Path) -> None:
    session = MaildirTransport(tmp_path).open()
    send(session, delivery_to("maildir:ann"))
    other = again(delivery_to("maildir:ann", key=(1 << 40) + 1), in_doubt=True)
    assert session.was_delivered(other, other.targets[0]) is False
    send(session, other)
    assert len(stored(tmp_path / "ann")) == 2


def test_a_process_killed_before_the_rename_leaves_nothing_a_reader_sees(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.transports.maildir import MaildirTransport
pathlib.Path.rename = lambda *_: os.kill(os.getpid(), 9)
target = Target(0, parse_address("maildir:ann"))
MaildirTransport({str(tmp_path)!r}).open().send(Delivery(1 << 40, "app@example.org", (target,), {CONTENT!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert len(list((tmp_path / "ann" / "tmp").iterdir())) == 1
    assert stored(tmp_path / "ann") == []
    delivery = again(delivery_to("maildir:ann"), in_doubt=True)
    session = MaildirTransport(tmp_path).open()
    assert session.was_delivered(delivery, delivery.targets[0]) is False
    send(session, delivery)
    assert len(stored(tmp_path / "ann")) == 1


def test_bad_paths_fail_and_touch_nothing(tmp_path: Path) -> None:
    session = MaildirTransport(tmp_path / "root").open()
    (outcome,) = send(session, delivery_to("maildir:../outside"))
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.1.3"
    assert (
        session.was_delivered(delivery_to("maildir:../outside"), delivery_to("maildir:../x").targets[0])
        is None
    )
    assert [each.name for each in tmp_path.iterdir()] == ["root"]


def test_unknown_mailboxes_fail_when_none_may_be_created(tmp_path: Path) -> None:
    MaildirTransport(tmp_path).open().send(delivery_to("maildir:ann"))
    session = MaildirTransport(tmp_path, create=False).open()
    known, unknown = send(session, delivery_to("maildir:ann", "maildir:bob", key=1 << 41))
    assert isinstance(known, Delivered)
    assert isinstance(unknown, Failed)
    assert unknown.reply.status == "5.1.1"
    bob = delivery_to("maildir:bob")
    assert session.was_delivered(bob, bob.targets[0]) is False


def test_a_function_may_decline(tmp_path: Path) -> None:
    session = MaildirTransport(tmp_path, folder=lambda _: None).open()
    delivery = delivery_to("maildir:ann")
    assert send(session, delivery) == [NotMine()]
    assert session.was_delivered(delivery, delivery.targets[0]) is False


def test_a_missing_root_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(TransportDown):
        MaildirTransport(tmp_path / "none", create=False).open()
    (tmp_path / "file").write_text("")
    with pytest.raises(TransportDown):
        MaildirTransport(tmp_path / "file").open()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_full_or_broken_disk_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    session = MaildirTransport(tmp_path).open()
    send(session, delivery_to("maildir:ann"))
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number, on="file"))
    with pytest.raises(TransportDown):
        session.send(delivery_to("maildir:ann", key=1 << 41))
    assert list((tmp_path / "ann" / "tmp").iterdir()) == []
    assert len(stored(tmp_path / "ann")) == 1


def test_a_full_quota_concerns_one_mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EDQUOT, on="file"))
    (outcome,) = send(MaildirTransport(tmp_path).open(), delivery_to("maildir:ann"))
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.2.2"


def test_permissions_of_one_mailbox_concern_it_alone_and_of_the_root_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = MaildirTransport(tmp_path).open()
    send(session, delivery_to("maildir:ann"))
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EACCES, on="file"))
    (outcome,) = send(session, delivery_to("maildir:ann", key=1 << 41))
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.2.1"
    # Root passes every check of permissions, and tests often run as root.
    monkeypatch.setattr(os, "access", Mock(return_value=False))
    with pytest.raises(TransportDown):
        session.send(delivery_to("maildir:ann", key=1 << 41))
    with pytest.raises(TransportDown):
        MaildirTransport(tmp_path).open()


def test_something_else_in_the_mailboxes_place_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("not a directory")
    session = MaildirTransport(tmp_path).open()
    delivery = delivery_to("maildir:ann")
    (outcome,) = send(session, delivery)
    assert isinstance(outcome, Deferred)
    assert outcome.reply.status == "4.2.1"
    assert session.was_delivered(delivery, delivery.targets[0]) is None


def test_when_it_is_not_known_to_be_on_disk_the_next_attempt_looks_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = MaildirTransport(tmp_path).open()
    send(session, delivery_to("maildir:ann"))
    delivery = delivery_to("maildir:ann", key=1 << 41)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(os.fsync, errno.EIO, on="directory"))
        (outcome,) = send(session, delivery)
    assert isinstance(outcome, Deferred), (
        "an attempt is charged, so that the next one is recognised as a second"
    )
    (outcome,) = send(session, again(delivery, attempts=1))
    assert isinstance(outcome, Delivered)
    assert len(stored(tmp_path / "ann")) == 2


def test_an_outage_between_targets_does_not_lose_what_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = MaildirTransport(tmp_path).open()
    real, calls = os.fsync, iter([False, True])

    def second_file_fails(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", second_file_fails)
    first, second = send(session, delivery_to("maildir:ann", "maildir:bob"))
    assert isinstance(first, Delivered)
    assert isinstance(second, Deferred)


def test_a_path_that_is_too_long_for_the_system_fails(tmp_path: Path) -> None:
    address = Address("maildir", "/".join(["a" * 250] * 20))
    delivery = Delivery(1 << 40, "", (Target(0, address),), CONTENT)
    (outcome,) = send(MaildirTransport(tmp_path).open(), delivery)
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.1.3"


def test_nothing_is_synchronised_when_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EIO, on="file"))
    (outcome,) = send(MaildirTransport(tmp_path, durable=False).open(), delivery_to("maildir:ann"))
    assert isinstance(outcome, Delivered)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = MaildirTransport(tmp_path).open()
    session.close()
    with pytest.raises(SessionStale):
        session.send(delivery_to("maildir:ann"))
