"""Command lines, standard input and exit statuses of the pipe transport, without running anything."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed
from postroom.replies import Verdict
from postroom.transports.pipe import PipeTransport, SendmailTransport
from postroom.transports.sysexits import EXITS, ExitRow, exit_outcome, exit_table

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def delivery_to(*addresses: str, sender: str = "app@example.org", attempts: int = 0) -> Delivery:
    targets = tuple(
        Target(index, parse_address(address), attempts) for index, address in enumerate(addresses)
    )
    return Delivery(1 << 40, sender, targets, CONTENT)


def outcome(code: int, said: str = "", *own: ExitRow) -> Outcome:
    return exit_outcome(code, said, exit_table(own), Delivered)


# Exit statuses


@pytest.mark.parametrize("row", EXITS, ids=lambda row: f"{row.code} {row.name}")
def test_each_row_of_the_table_means_what_it_says(row: ExitRow) -> None:
    kinds: dict[Verdict, type[Outcome]] = {
        Verdict.OK: Delivered,
        Verdict.DEFERRED: Deferred,
        Verdict.FAILED: Failed,
    }
    if row.means is Verdict.TRANSPORT_DOWN:
        with pytest.raises(TransportDown, match=f"exit status {row.code}.*: oh"):
            outcome(row.code, "oh\n")
        return
    found = outcome(row.code, "oh\n")
    assert type(found) is kinds[row.means]
    assert found.reply.status == row.status
    assert "oh" in found.reply.text


def test_the_statuses_that_programs_agree_on() -> None:
    statuses = {row.name: row.code for row in EXITS if row.name}
    assert (statuses["EX_OK"], statuses["EX_USAGE"], statuses["EX_CONFIG"]) == (0, 64, 78)
    assert len({row.code for row in EXITS}) == len(EXITS)


@given(st.integers(1, 255))
def test_no_status_but_those_in_the_table_is_permanent(code: int) -> None:
    table = exit_table()
    if code in table:
        return
    found = outcome(code, "")
    assert isinstance(found, Deferred)
    assert found.reply.text == f"exit status {code}"


def test_a_row_of_ones_own_replaces_the_built_in_one() -> None:
    found = outcome(69, "", ExitRow(69, Verdict.DEFERRED))
    assert isinstance(found, Deferred)
    assert found.reply.status == "4.0.0"


def test_a_killed_program_is_in_doubt() -> None:
    found = outcome(-11, "half a line")
    assert isinstance(found, Deferred)
    assert found.in_doubt
    assert found.reply.text == "killed by signal 11: half a line"


def test_an_enhanced_status_code_in_the_last_line_is_taken_if_it_fits() -> None:
    assert outcome(67, "hello\n5.1.6 he moved\n").reply.status == "5.1.6"
    assert outcome(67, "4.1.6 he moved").reply.status == "5.1.1"
    assert outcome(67, "5.1.6 not here\nbut there").reply.status == "5.1.1"
    assert outcome(75, "4.2.2 full").reply.status == "4.2.2"


def test_success_can_be_called_relayed() -> None:
    found = exit_outcome(0, "queued as 1F\n", exit_table(), Relayed)
    assert isinstance(found, Relayed)
    assert found.reply.text == "queued as 1F"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"code": 256}, "code"),
        ({"code": -1}, "code"),
        ({"means": "greylisted"}, "means"),
        ({"status": "4.0.0"}, "status"),
        ({"status": "five"}, "status"),
    ],
)
def test_a_wrong_row_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"exits\.{field}"):
        dataclasses.replace(ExitRow(70, Verdict.FAILED), **values)


def test_what_a_row_means_can_be_said_as_text() -> None:
    assert ExitRow(1, "failed").means is Verdict.FAILED  # type: ignore[arg-type]  # as a configuration file does


# The command line


def test_placeholders_are_filled_within_their_argument() -> None:
    command = ["deliver", "--from={sender}", "{recipient}", "{local}", "{domain}", "{address}", "{{x}}"]
    transport = PipeTransport([*command, "{message_id}:{index}:{attempt}:{size}"])
    delivery = delivery_to("x@example.org", "ann@example.org", attempts=2)
    assert transport.arguments(delivery, delivery.targets[1:], 7) == [
        "deliver",
        "--from=app@example.org",
        "ann@example.org",
        "ann",
        "example.org",
        "smtp:ann@example.org",
        "{x}",
        f"{delivery.message_id}:1:3:7",
    ]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_value_is_one_argument_whatever_it_holds(value: str) -> None:
    delivery = Delivery(1, "", (Target(0, Address("pipe", value)),), CONTENT)
    transport = PipeTransport(["deliver", "--", "{recipient}"])
    assert transport.arguments(delivery, delivery.targets, 0) == ["deliver", "--", value]


def test_a_value_that_looks_like_an_option_is_refused() -> None:
    delivery = delivery_to("pipe:--delete-all")
    with pytest.raises(ValueError, match="option"):
        PipeTransport(["deliver", "{recipient}"]).arguments(delivery, delivery.targets, 0)
    guarded = PipeTransport(["deliver", "--", "{recipient}"]).arguments(delivery, delivery.targets, 0)
    assert guarded[-1] == "--delete-all"
    inner = PipeTransport(["deliver", "--to={recipient}"]).arguments(delivery, delivery.targets, 0)
    assert inner[-1] == "--to=--delete-all"


def test_the_null_sender() -> None:
    delivery = delivery_to("pipe:ann", sender="")
    transport = PipeTransport(["deliver", "{sender}"])
    assert transport.arguments(delivery, delivery.targets, 0) == ["deliver", "MAILER-DAEMON"]


def test_the_command_line_of_sendmail() -> None:
    transport = SendmailTransport("/opt/{odd}/sendmail", options=["-N", "never"])
    delivery = delivery_to("ann@example.org", "bob@example.org")
    assert transport.arguments(delivery, delivery.targets, 0) == [
        "/opt/{odd}/sendmail",
        "-i",
        "-N",
        "never",
        "-f",
        "app@example.org",
        "--",
        "ann@example.org",
        "bob@example.org",
    ]
    bounce = dataclasses.replace(delivery, sender="")
    assert transport.arguments(bounce, delivery.targets[:1], 0)[5:] == ["<>", "--", "ann@example.org"]
    assert transport.limits.recipients_per_delivery == 50
    assert transport.outcome is Relayed


# Standard input


def test_the_message_as_it_is_by_default() -> None:
    delivery = delivery_to("pipe:ann")
    assert PipeTransport(["x"]).stdin(delivery, delivery.targets[0]) == b"Subject: hi\n\nhello\n"
    assert PipeTransport(["x"], line_ends="crlf").stdin(delivery, delivery.targets[0]) == CONTENT
    assert PipeTransport(["x"], input="nothing").stdin(delivery, delivery.targets[0]) == b""


def test_what_can_stand_before_the_message() -> None:
    delivery = delivery_to("pipe:ann", "bob@example.org", sender="")
    transport = PipeTransport(["x"], from_line=True, delivered_to=True, return_path=True)
    lines = transport.stdin(delivery, delivery.targets[0]).split(b"\n")
    assert lines[0].startswith(b"From MAILER-DAEMON ")
    assert lines[1:4] == [b"Return-Path: <>", b"Delivered-To: pipe:ann", b"Subject: hi"]
    assert b"Delivered-To: bob@example.org\n" in transport.stdin(delivery, delivery.targets[1])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"command": "deliver {recipient}"}, "no shell"),
    ({"command": []}, "empty"),
    ({"command": ["{recipient}"]}, "depends on the message"),
    ({"command": ["{recipients}"]}, "depends on the message"),
    ({"command": ["x", "{who}"]}, "is not a placeholder"),
    ({"command": ["x", "{sender!r}"]}, "is not a placeholder"),
    ({"command": ["x", "{"]}, "double a brace"),
    ({"command": ["x", "a\0b"]}, "NUL"),
    ({"command": ["x", "to={recipients}"]}, "by itself"),
    ({"command": ["x", "{recipients}", "{local}"]}, "of one recipient"),
    ({"command": ["x", "{recipients}"], "delivered_to": True}, "several"),
    ({"command": ["x"], "timeout": 0}, "timeout"),
    ({"command": ["x"], "input": "all"}, "input"),
    ({"command": ["x"], "line_ends": "cr"}, "line_ends"),
]


@pytest.mark.parametrize(("options", "problem"), WRONG)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        PipeTransport(**options)


def test_a_program_that_is_not_there_is_found_when_the_transport_starts() -> None:
    PipeTransport(["sh"]).prepare()
    PipeTransport(["/bin/sh"]).prepare()
    for missing in ("/nowhere/deliver", "no-such-program", "/"):
        with pytest.raises(ConfigurationError, match="is not a program"):
            PipeTransport([missing]).prepare()


def test_the_environment_holds_little_of_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = PipeTransport(["x"], env={"TOKEN": "t"}).environment()
    assert (found["LANG"], found["TOKEN"]) == ("C.UTF-8", "t")
    assert "DATABASE_PASSWORD" not in found
