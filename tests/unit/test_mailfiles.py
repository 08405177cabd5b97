"""Messages as mbox and eml files."""

import io
import mailbox
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import UsageError
from postroom.mailfiles import KeptMessage, atomic_file, from_mboxrd, mbox_entry, write_messages

TRICKY = b"Subject: x\r\n\r\nFrom here\r\n>From there\r\n>>From everywhere\r\nfrom\r\n From\r\n\r\n"


def test_an_entry_is_quoted_as_mboxrd_says() -> None:
    entry = mbox_entry("ann@example.org", 1_700_000_000.0, TRICKY)
    assert entry == (
        b"From ann@example.org Tue Nov 14 22:13:20 2023\n"
        b"Subject: x\n\n>From here\n>>From there\n>>>From everywhere\nfrom\n From\n\n\n"
    )
    assert from_mboxrd(entry) == TRICKY


def test_nobody_is_the_mailer_daemon() -> None:
    assert mbox_entry("", 0.0, b"\r\n").startswith(b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n")


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"From x", b">From x", b">> From", b"From", b"F", b"From\t"]),
        st.binary(max_size=20),
    ).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
)


@given(LINES)
def test_every_message_comes_back_as_it_was(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in [b"A: b", b"", *lines])
    assert from_mboxrd(mbox_entry("a@b", 0.0, content)) == content


def messages(*contents: bytes) -> list[KeptMessage]:
    return [KeptMessage(f"ID{number}", "a@b", 0.0, content) for number, content in enumerate(contents)]


def test_pythons_own_mailbox_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "sent.mbox"
    contents = [b"Subject: %d\r\n\r\nFrom me\r\nhello\r\n" % number for number in range(3)]
    write_messages(messages(*contents), path, "mbox", overwrite=False)
    with closing(mailbox.mbox(path, create=False)) as box:
        assert [str(each["subject"]) for each in box] == ["0", "1", "2"]
    assert [each.name for each in tmp_path.iterdir()] == ["sent.mbox"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_eml_files_are_the_octets(tmp_path: Path) -> None:
    write_messages(messages(TRICKY, b"\r\n"), tmp_path / "mails", "eml", overwrite=False)
    assert {each.name: each.read_bytes() for each in (tmp_path / "mails").iterdir()} == {
        "ID0.eml": TRICKY, "ID1.eml": b"\r\n",
    }  # fmt: skip


def test_one_eml_goes_to_a_file_object_and_two_do_not() -> None:
    file = io.BytesIO()
    write_messages(messages(TRICKY), file, "eml", overwrite=False)
    assert file.getvalue() == TRICKY
    with pytest.raises(UsageError, match=r"to: is one file for several messages; name a folder"):
        write_messages(messages(TRICKY, TRICKY), io.BytesIO(), "eml", overwrite=False)


def test_an_mbox_goes_to_a_file_object() -> None:
    file = io.BytesIO()
    write_messages(messages(TRICKY, b"\r\n"), file, "mbox", overwrite=False)
    assert file.getvalue() == mbox_entry("a@b", 0.0, TRICKY) + mbox_entry("a@b", 0.0, b"\r\n")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match=r"format: 'pst' is unknown"):
        write_messages([], io.BytesIO(), "pst", overwrite=False)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="there is a file"), atomic_file(path, overwrite=False):
        pass
    with atomic_file(path, overwrite=True) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def write() -> None:
        with atomic_file(path, overwrite=False) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(UsageError, match="there is a file"):
        write()
    assert path.read_bytes() == b"theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_file(tmp_path / "x", overwrite=False) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "no" / "x", overwrite=False):
        pass
