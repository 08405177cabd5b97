import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.errors import ConfigurationError
from postroom.list_files import ListFile, parse_lists

TEXT = """\
# Who works here
staff:  ann@example.org, "Other, Bob" <bob@example.org>,
  # a comment within

\tsms:+15550100, board,
board: carol@example.org
Staff@Example.org: staff
"All  of us": staff , board
"sms:+1 555 0100101": staff
hooks: https://hooks.example.org/x#frag, Hook [HTTPS://x/a,b]
nobody:
"""


def test_the_format() -> None:
    assert parse_lists(TEXT) == {
        "list:staff": ("ann@example.org", '"Other, Bob" <bob@example.org>', "sms:+15550100", "board"),
        "list:board": ("carol@example.org",),
        "smtp:staff@example.org": ("staff",),
        "list:all of us": ("staff", "board"),
        "sms:+15550100101": ("staff",),
        "list:hooks": ("https://hooks.example.org/x#frag", "Hook [HTTPS://x/a,b]"),
        "list:nobody": (),
    }
    assert parse_lists(TEXT.replace("\n", "\r\n")) == parse_lists(TEXT)
    assert parse_lists("") == {}


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("\nstaff ann@example.org\n", "lists:2", "has no colon"),
        ("  ann@example.org\n", "lists:1", "before any began"),
        ("# c\nstaff: ann@example.org,\n  bob@\n", "lists:2", "malformed domain"),
        ("a: x@y\nb: x@y\nA: x@y\n", "lists:3", "another list is called 'A'"),
        (": x@y\n", "lists:1", "neither a type nor an @"),
        ("a: x@y z@y\n", "lists:1", "not allowed without quotes"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, field: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        parse_lists(text)
    assert caught.value.field == field


@given(st.text(st.sampled_from('ab@:,<>[]"\\ \t\n#x.'), max_size=60))
def test_any_text_is_lists_or_a_configuration_error(text: str) -> None:
    try:
        table = parse_lists(text)
    except ConfigurationError:
        return
    assert all(isinstance(member, str) and member.strip() for members in table.values() for member in members)


STAFF = Address("list", "Staff")


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.rename(path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lists"
    path.write_text("staff: ann@example.org\n")
    lists = ListFile(path)
    assert lists(STAFF) == ("ann@example.org",)
    assert lists(Address("smtp", "ann@example.org")) is None
    before = lists.snapshot()
    replace(path, "staff: bob@example.org\n")
    assert lists(STAFF) == ("bob@example.org",)
    assert before(STAFF) == ("ann@example.org",)


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lists"
    path.write_text("staff: ann@example.org\n")
    lists = ListFile(path)
    assert lists.snapshot() is lists.snapshot()
    os.utime(path, ns=(0, 0))
    first = lists.snapshot()
    assert first is lists.snapshot()


def test_lists_stay_as_they_were_when_the_file_is_broken_or_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lists"
    path.write_text("staff: ann@example.org\n")
    lists = ListFile(path)
    with caplog.at_level(logging.ERROR, "postroom.lists"):
        replace(path, "staff: ann@\n")
        assert lists(STAFF) == ("ann@example.org",)
        assert lists(STAFF) == ("ann@example.org",)
        path.unlink()
        assert lists(STAFF) == ("ann@example.org",)
        assert lists(STAFF) == ("ann@example.org",)
    assert [record.getMessage().count(str(path)) > 0 for record in caplog.records] == [True, True]
    assert "lists:1" in caplog.text
    replace(path, "staff: bob@example.org\n")
    assert lists(STAFF) == ("bob@example.org",)


def test_a_file_that_cannot_be_read_is_an_error_at_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ListFile(tmp_path / "missing")
    path = tmp_path / "latin"
    path.write_bytes(b"staff: \xe4@example.org\n")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        ListFile(path)
