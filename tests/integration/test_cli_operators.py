"""The command line of operators: selections, previews, standing orders, pauses, flush and resend."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tenacity import wait_fixed

from postroom import MemoryTransport, RetryPolicy, Settings, Spooler, SpoolView, State
from postroom.cli import main
from postroom.delivery import Delivery
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Reply
from postroom.transports.base import Outcomes
from tests.support.spooling import until

MESSAGE = b"From: app@example.org\nTo: ann@example.org, bob@example.org\nSubject: Invoice\n\nhello\n"
CONFIG = """\
[spool]
path = "spool.db"
sync_interval = "50ms"
keep_content = "1h"
[[transport]]
kind = "maildir"
root = "mail"
[[transport]]
kind = "maildir"
name = "spare"
root = "spare"
address_types = []
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "postroom.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_SPOOL", "POSTROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Run:
    del folder

    def run(*args: str, code: int = 0, stdin: bytes | str | None = None) -> Result:
        result = CliRunner().invoke(main, args, input=stdin)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        if code not in {0, 1}:
            assert result.stderr.splitlines()[-1].startswith("postroom: ")
            assert "Traceback" not in result.output
        return result

    return run


def document(result: Result) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def send(cli: Run, *to: str, hold: bool = False) -> str:
    options = ["--hold"] if hold else []
    return cli("send", *options, *(f"maildir:{name}" for name in to), stdin=MESSAGE).stdout.strip()


def states(message_id: str) -> list[State]:
    with SpoolView("spool.db") as view:
        return [recipient.state for recipient in view.status(message_id).recipients]


# Messages by id


def test_each_verb_on_one_message(cli: Run) -> None:
    sent = send(cli, "ann", "bob", "eve", "joe")
    assert cli("fail", sent, "-r", "0", "--text", "closed").stdout == f"{sent} 0 maildir:ann failed\n"
    assert cli("expire", sent, "-r", "1").stdout == f"{sent} 1 maildir:bob expired\n"
    assert cli("reroute", sent, "-r", "2", "--to", "spare").stdout == f"{sent} 2 maildir:eve rerouted\n"
    done = document(
        cli(
            "redirect",
            sent,
            "-r",
            "3",
            "--to",
            "maildir:zoe",
            "--operator",
            "me",
            "--reason",
            "moved",
            "--json",
        )
    )
    assert done["changed"] == [{"recipient": 3, "address": "maildir:joe"}]
    shown = document(cli("show", sent, "--json"))["recipients"]
    assert [r["transport"] for r in shown[2:]] == ["spare", "maildir"]
    assert shown[3]["address"] == "maildir:zoe"
    assert "moved" in json.dumps(shown[3]["history"])
    assert "not settled" in cli("delete", sent, code=69).stderr
    assert cli("delete", sent, "--pending").stdout == f"{sent} deleted\n"
    assert "holds no message" in cli("show", sent, code=66).stderr


def test_several_ids(cli: Run) -> None:
    one, two = send(cli, "ann"), send(cli, "bob")
    assert cli("hold", one, two).stdout == f"{one} 0 maildir:ann held\n{two} 0 maildir:bob held\n"
    several = document(cli("release", one, two, "--json"))
    assert [each["id"] for each in several["messages"]] == [one, two]
    assert "--recipient: is a number within one message" in cli("hold", one, two, "-r", "0", code=64).stderr


# Selections


def test_a_preview_then_the_deed(cli: Run) -> None:
    wanted = [send(cli, "ann", "bob") for _ in range(12)]
    send(cli, "eve")
    look = cli("cancel", "--address", "maildir:ann", "--dry-run")
    assert look.stdout.count("maildir:ann") == 10
    assert "… and 2 more\n12 recipient(s) of 12 message(s)\n" in look.stdout
    assert states(wanted[0]) == [State.QUEUED, State.QUEUED]
    done = cli("cancel", "--address", "maildir:ann", "--yes", "--operator", "joe", "--reason", "spring")
    assert done.stdout.endswith("12 cancelled\n")
    assert {tuple(states(one)) for one in wanted} == {(State.CANCELLED, State.QUEUED)}
    assert "by joe: spring" in cli("show", wanted[0], "--json").stdout
    assert (
        cli("cancel", "--address", "maildir:ann", "-y").stdout
        == "Nothing is selected to which 'cancel' applies.\n"
    )


def test_nobody_is_asked_where_nobody_sits(cli: Run) -> None:
    send(cli, "ann")
    assert "--yes: is missing, and there is nobody to ask" in cli("cancel", "--all", code=64).stderr


@pytest.mark.parametrize(
    ("answer", "code", "state"), [("y\n", 0, State.CANCELLED), ("n\n", 130, State.QUEUED)]
)
def test_the_answer_counts(
    cli: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, state: State
) -> None:
    sent = send(cli, "ann")
    monkeypatch.setattr("postroom.cli.selecting._asked", lambda: True)
    asked = cli("cancel", "--all", code=code, stdin=answer)
    assert "cancel 1 recipient(s)?" in asked.stderr
    assert states(sent) == [state]


def test_selections_in_json(cli: Run) -> None:
    sent = send(cli, "ann", "bob", hold=True)
    looked = document(cli("release", "--state", "held", "--subject", "invoice", "--json", "-n"))
    assert looked["preview"]["count"] == 2
    assert looked["preview"]["sample"][0]["id"] == sent
    assert looked["result"] is None
    done = document(cli("release", "--all", "--json", "-y"))
    assert (done["result"]["changed"], done["result"]["batches"]) == (2, 1)
    assert done["selection"] == "everything"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ["hold"],
            "ID: nothing says which recipients are meant; give ids, options such as --transport, or --all",
        ),
        (["hold", "--older-than", "2h", "--newer-than", "1h"], "--older-than: leaves no age"),
        (["hold", "--transport", ""], "--transport: is empty"),
        (["hold", "--all", "-r", "1"], "--recipient: is a number within one message"),
        (["hold", "--older-than", "soon"], "soon"),
        (
            ["reroute", "--all", "-y", "--to", "nowhere"],
            "--to: there is no transport 'nowhere'; known",
        ),
        (["redirect", "--all", "-y", "--to", "nobody"], "--to: 'nobody'"),
        (["reroute", "--all", "-y"], "--to"),
        (["orders", "add", "reroute", "--all", "-y"], "--to: is missing"),
        (["orders", "add", "hold"], "nothing says which"),
        (["orders", "add", "hold", "--all", "--to", "x", "--text", "y"], "--text: stands beside --to"),
        (["orders", "add", "hold", "--all", "-y", "--expires", "2020-01-01"], "--expires: is"),
        (["pause"], "'postroom offline' is for everything"),
        (["resume"], "'postroom online' is for everything"),
        (["pause", "nowhere"], "TRANSPORT: there is no transport 'nowhere'"),
        (["flush", "nowhere"], "TRANSPORT: there is no transport 'nowhere'"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(cli: Run, args: list[str], says: str) -> None:
    send(cli, "ann")
    assert says in cli(*args, code=64).stderr


# Standing orders and pauses


def test_orders(cli: Run) -> None:
    waiting = send(cli, "ann")
    assert cli("orders").stdout == "There are no standing orders.\n"
    given = cli(
        "orders", "add", "fail", "--address", "maildir:ann", "--expires", "2h", "--text", "gone", "-y"
    )
    assert given.stdout.startswith("order 1: fail address=maildir:ann until ")
    assert states(waiting) == [State.FAILED]
    arriving = send(cli, "ann", "bob")
    assert states(arriving) == [State.FAILED, State.QUEUED]
    only_new = document(
        cli(
            "orders",
            "add",
            "redirect",
            "--address",
            "maildir:bob",
            "--to",
            "maildir:eve",
            "--only-new",
            "--json",
        )
    )
    assert (only_new["order"], only_new["argument"], only_new["expires"]) == (2, "maildir:eve", None)
    assert states(arriving) == [State.FAILED, State.QUEUED]
    listed = cli("orders", "list").stdout
    assert "redirect to maildir:eve" in listed
    assert "in 1h" in listed
    assert [each["order"] for each in document(cli("orders", "--json"))["orders"]] == [1, 2]
    assert "order 1 dropped" in cli("orders", "drop", "1").stdout
    assert "there is no standing order 1; there are: 2" in cli("orders", "drop", "1", code=69).stderr
    assert document(cli("orders", "drop", "2", "--json"))["dropped"][0]["action"] == "redirect"
    assert states(send(cli, "ann")) == [State.QUEUED]


def test_the_spool_may_be_named_before_or_behind_the_subcommand(cli: Run, folder: Path) -> None:
    send(cli, "ann")
    (folder / "postroom.toml").unlink()
    assert "no standing orders" in cli("orders", "--spool", "spool.db", "list").stdout
    assert "no standing orders" in cli("orders", "list", "--spool", "spool.db").stdout
    assert "no standing orders" in cli("orders", "--spool", "other.db", "list", "--spool", "spool.db").stdout


def test_an_order_on_what_waits_asks(cli: Run) -> None:
    sent = send(cli, "ann")
    assert "--yes" in cli("orders", "add", "hold", "--all", code=64).stderr
    assert states(sent) == [State.QUEUED]
    assert cli("orders").stdout == "There are no standing orders.\n"


def test_pause_and_resume(cli: Run) -> None:
    send(cli, "ann")
    assert cli("pause", "maildir", "--reason", "disk").stdout == "order 1: pause transport=maildir\n"
    assert document(cli("pause", "--destination", "Example.ORG", "--json"))["selection"] == {
        "destination": "example.org"
    }
    assert "spare: is not paused; paused are: transport=maildir; destination=example.org" in cli(
        "resume", "spare", code=69
    ).stderr  # fmt: skip
    assert cli("resume", "maildir").stdout == "maildir resumed\n"
    assert document(cli("resume", "--destination", "example.org", "--json"))["resumed"]
    assert "not offline; nothing is paused" in cli("online", code=69).stderr
    assert cli("offline", "--expires", "1h").stdout.startswith("order 1: pause everything until ")
    assert document(cli("online", "--json")) == {"online": True}


# With a process that delivers


@pytest.fixture
def answers() -> dict[str, Outcome]:
    return {"now": Deferred(Reply("busy", "4.3.2", 450))}


@pytest.fixture
def spooler(folder: Path, answers: dict[str, Outcome]) -> Iterator[Spooler]:
    def answer(delivery: Delivery) -> Outcomes:
        return [
            answers["ann"] if "ann" in answers and target.address.value.startswith("ann") else answers["now"]
            for target in delivery.targets
        ]

    transport = MemoryTransport(
        answer=answer, address_types=["smtp"], retry=RetryPolicy(wait=wait_fixed(5000))
    )
    settings = Settings(sync_interval=0.05, keep_content=3600.0)
    with Spooler(folder / "spool.db", [transport], settings=settings) as running:
        yield running


def test_flush_has_the_running_process_try_again(
    cli: Run, spooler: Spooler, answers: dict[str, Outcome]
) -> None:
    sent = spooler.submit(MESSAGE)
    until(lambda: all(r.attempts for r in spooler.status(sent.id).recipients), "two deferrals")
    assert "2 recipient(s) made due" in cli("flush", "-s", "spool.db", "memory").stdout
    until(lambda: all(r.attempts == 2 for r in spooler.status(sent.id).recipients), "another try")
    answers["now"] = Delivered()
    flushed = document(cli("flush", "-s", "spool.db", "--wait", "20s", "--json"))
    assert (flushed["made_due"], flushed["done"]) == (2, True)
    assert sent.wait(20).succeeded


def test_a_flush_that_is_not_done_in_time(cli: Run, spooler: Spooler) -> None:
    cli("offline", "-s", "spool.db")
    sent = spooler.submit(MESSAGE)
    assert (
        "2 recipient(s) were not tried in time"
        in cli("flush", "-s", "spool.db", "--wait", "100ms", code=75).stderr
    )
    spooler.cancel(sent.id)


def test_a_pause_reaches_the_running_process(cli: Run, spooler: Spooler, answers: dict[str, Outcome]) -> None:
    answers["now"] = Delivered()
    cli("pause", "memory", "-s", "spool.db")
    engine = spooler.snapshot_source()
    assert engine is not None
    until(lambda: bool(engine.context.orders.given), "the pause")
    sent = spooler.submit(MESSAGE)
    assert not sent.wait(0.05).complete
    cli("resume", "memory", "-s", "spool.db")
    assert sent.wait(20).succeeded


def test_resend(cli: Run, spooler: Spooler, answers: dict[str, Outcome]) -> None:
    answers.update(ann=Failed(Reply("no", "5.1.1", 550)), now=Delivered())
    sent = spooler.submit(MESSAGE, report=set())
    assert sent.wait(20).complete
    answers.pop("ann")
    again = cli("resend", "-s", "spool.db", sent.id).stdout.strip()
    status = spooler.wait(again, 20)
    assert [str(recipient.address) for recipient in status.recipients] == ["smtp:ann@example.org"]
    assert status.succeeded
    assert "no recipient that failed" in cli("resend", "-s", "spool.db", again, code=69).stderr
    assert "is delivered" in cli("resend", "-s", "spool.db", sent.id, "-r", "1", code=65).stderr
    third = document(
        cli("resend", "-s", "spool.db", sent.id, "-r", "0", "--from", "me@example.org", "--json")
    )
    assert (third["resend_of"], third["recipients"]) == (sent.id, ["smtp:ann@example.org"])
    assert "holds no message" in cli("resend", "-s", "spool.db", "0000000000001", code=66).stderr
