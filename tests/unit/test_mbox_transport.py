"""Which file an address has, what is written there, and how an interrupted append is taken back."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError
from postroom.transports.mbox import MboxTransport, delivery_mark
from postroom.transports.mbox_journal import SUFFIX, Journal, append, holds

BEFORE = b"From a@example.org Thu Jan  1 00:00:00 1970\nSubject: old\n\nold\n\n"
ENTRY = b"From b@example.org Thu Jan  1 00:00:00 1970\nSubject: new\n\n" + b"a line\n" * 20 + b"\n"
OTHER = b"From c@example.org Thu Jan  1 00:00:00 1970\nSubject: other\n\nother\n\n"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """One file, open, for many examples."""
    file = tmp_path_factory.mktemp("mbox") / "ann"
    handle = os.open(file, os.O_RDWR | os.O_CREAT)
    yield file, handle
    os.close(handle)


def interrupted(box: tuple[Path, int], after: bytes, *, entry: bytes = ENTRY) -> tuple[Journal, bytes]:
    """Return the journal of an append that ended when `after` stood behind what was there, and what is left."""
    file, handle = box
    file.write_bytes(BEFORE)
    journal = Journal(file, durable=False)
    journal.begin(len(BEFORE), entry)
    file.write_bytes(BEFORE + after)
    journal.repair(handle)
    assert not journal.path.exists()
    return journal, file.read_bytes()


@given(st.integers(0, len(ENTRY) - 1))
def test_a_beginning_of_an_entry_is_taken_back(box: tuple[Path, int], written: int) -> None:
    _, left = interrupted(box, ENTRY[:written])
    assert left == BEFORE


@given(st.integers(0, len(ENTRY) - 1), st.integers(0, len(ENTRY)))
def test_likewise_when_only_the_length_reached_the_disk(
    box: tuple[Path, int], written: int, nothing: int
) -> None:
    after = (ENTRY[:written] + b"\0" * nothing)[: len(ENTRY)]
    if after == ENTRY:
        return
    _, left = interrupted(box, after)
    assert left == BEFORE


@pytest.mark.parametrize("more", [b"", OTHER])
def test_a_complete_entry_stays(box: tuple[Path, int], more: bytes) -> None:
    _, left = interrupted(box, ENTRY + more)
    assert left == BEFORE + ENTRY + more


@given(st.integers(0, len(ENTRY) - 1))
def test_the_mail_of_other_programs_is_never_cut(box: tuple[Path, int], written: int) -> None:
    # Whoever appended after us did not know that our entry was not complete.
    _, left = interrupted(box, ENTRY[:written] + OTHER)
    assert left == BEFORE + ENTRY[:written] + OTHER


def test_a_file_that_a_reader_made_shorter_stays(box: tuple[Path, int]) -> None:
    file, handle = box
    file.write_bytes(BEFORE)
    journal = Journal(file, durable=False)
    journal.begin(len(BEFORE), ENTRY)
    file.write_bytes(b"")
    assert not journal.repair(handle)
    assert file.read_bytes() == b""


@given(st.data())
def test_a_journal_that_is_not_whole_changes_nothing(box: tuple[Path, int], data: st.DataObject) -> None:
    # It is complete and on the disk before the first octet is appended.
    file, handle = box
    file.write_bytes(BEFORE)
    journal = Journal(file, durable=False)
    journal.begin(0, BEFORE + b"more")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert not journal.repair(handle)
    assert file.read_bytes() == BEFORE


@pytest.mark.parametrize(
    ("there", "gap"),
    [(b"", b""), (BEFORE, b""), (b"cut off", b"\n\n"), (b"cut off\n", b"\n"), (b"\n", b"\n"), (b"\n\n", b"")],
)
def test_messages_are_parted_by_an_empty_line(box: tuple[Path, int], there: bytes, gap: bytes) -> None:
    file, handle = box
    file.write_bytes(there)
    append(handle, ENTRY, Journal(file, durable=True))
    assert file.read_bytes() == there + gap + ENTRY
    assert not file.with_name(file.name + SUFFIX).exists()


def test_a_failed_append_is_taken_back_at_once(
    box: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, handle = box
    file.write_bytes(BEFORE)
    real = os.write

    def half(to: int, octets: memoryview) -> int:
        if to != handle:
            return real(to, octets)
        if os.fstat(handle).st_size > len(BEFORE):
            raise OSError(28, "No space left on device")
        return real(to, octets[:10])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        append(handle, ENTRY, Journal(file, durable=False))
    assert file.read_bytes() == BEFORE
    assert not file.with_name(file.name + SUFFIX).exists()


def test_the_mark_is_found_as_a_line_only(box: tuple[Path, int]) -> None:
    file, handle = box
    mark = b"X-Postroom-Delivery: 1\n"
    for content, found in ((b"", False), (b"a\n" + mark, True), (b"a " + mark, False), (mark[:-1], False)):
        file.write_bytes(content)
        assert holds(handle, mark) is found


# Addresses and options


def test_the_file_of_an_address(tmp_path: Path) -> None:
    assert str(MboxTransport(tmp_path).file(parse_address("mbox:users/ann"))) == "users/ann"
    by_domain = MboxTransport(tmp_path, folder="{domain}/{local}")
    assert str(by_domain.file(parse_address("ann@example.org"))) == "example.org/ann"
    assert str(MboxTransport(tmp_path, folder="all").file(parse_address("ann@example.org"))) == "all"
    assert MboxTransport(tmp_path, folder=lambda _: None).file(parse_address("mbox:ann")) is None


@pytest.mark.parametrize("value", ["..", "../x", "/etc/passwd", "a//b", ".", "a.lock", "a.postroom", "a/.."])
def test_no_address_leads_astray(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        MboxTransport(tmp_path).file(Address("mbox", value))


ANYWHERE = MboxTransport("/r")


@given(st.text(max_size=30))
def test_whatever_the_address_the_file_is_below_the_root(value: str) -> None:
    try:
        path = ANYWHERE.file(Address("mbox", value))
    except ValueError:
        return
    assert path is not None
    assert os.path.normpath(f"/r/{path}") == f"/r/{path}"
    assert str(path) not in {"", "."}


@pytest.mark.parametrize(
    "options", [{"folder": "."}, {"folder": "{x}"}, {"folder": "../x"}, {"lock_timeout": 0}]
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        MboxTransport(tmp_path, **options)


def test_the_mark_is_the_same_for_every_attempt_and_no_other() -> None:
    first, second = Target(0, Address("mbox", "a")), Target(1, Address("mbox", "a"))
    delivery = Delivery(1 << 40, "", (first, second), b"Subject: x\r\n\r\n")
    again = Target(0, Address("mbox", "a"), attempts=3, in_doubt=True)
    assert delivery_mark(delivery, first) == delivery_mark(delivery, again)
    assert delivery_mark(delivery, first) != delivery_mark(delivery, second)
