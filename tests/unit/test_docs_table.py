"""Tables in docs/ that must agree with the code: what the MAPI spooler does, replies, gates and metrics."""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from prometheus_client import CollectorRegistry

import postroom
from postroom import errors, events, explaining, hooks, outcomes
from postroom.exporter import SpoolCollector
from postroom.metrics import Instruments
from postroom.replies import HTTP_TABLE, SMTP_TABLE, ReplyRow, written

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROWS_OF_THE_DESIGN = 22

CALL = re.compile(r"`(?P<owner>\w+)(?:\.(?P<member>\w+))?(?:\((?P<arguments>[\w=, ]*)\))?`")
SHOWN = re.compile(r"\[`(?P<test>[\w:]+)`\]\(\.\./(?P<file>tests/[\w/]+\.py)\)")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table that begins with this header line."""
    lines = text.split(header + "\n", 1)[1].splitlines()[1:]
    found: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


MAPI = rows(page("mapi.md"), "| MAPI spooler | call | what it does here | shown by |")


def named(column: int, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    for row in MAPI:
        for match in pattern.finditer(row[column]):
            yield row[0], match


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the tests of a file, those in classes as Class::test."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.update(
                f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)
            )
    return frozenset(found)


def owner_of(name: str) -> Any:
    for module in (postroom, outcomes, errors, events, hooks):
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"{name} is not public")


def test_every_row_of_the_design_is_there() -> None:
    assert len(MAPI) == len({row[0] for row in MAPI}) == ROWS_OF_THE_DESIGN
    assert [row[0] for row in MAPI if not CALL.search(row[1]) or not SHOWN.search(row[3])] == []


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{match['file']}::{match['test']}"
        for _, match in named(3, SHOWN)
        if match["test"] not in functions_of(match["file"])
        or not match["test"].rpartition(":")[2].startswith("test_")
    ]
    assert missing == []


@pytest.mark.parametrize("call", sorted({match[0] for _, match in named(1, CALL)}))
def test_every_call_that_is_named_exists(call: str) -> None:
    match = CALL.fullmatch(call)
    assert match is not None
    found: Any = owner_of(match["owner"])
    if match["member"]:
        # Attributes of a slotted dataclass are members of the class, those of others only annotations.
        assert match["member"] in {*dir(found), *get_type_hints(found)}
    if match["arguments"]:
        signature = inspect.signature(getattr(found, match["member"]) if match["member"] else found)
        arguments = {argument.strip().removesuffix("=") for argument in match["arguments"].split(",")}
        assert arguments <= set(signature.parameters)


def cells(table: Sequence[ReplyRow]) -> list[list[str]]:
    return [
        [f"`{answer}`".replace("|", r"\|"), condition.replace("|", r"\|"), means, why]
        for answer, condition, means, why in written(table)
    ]


@pytest.mark.parametrize(("heading", "table"), [("## SMTP and LMTP", SMTP_TABLE), ("## HTTP", HTTP_TABLE)])
def test_the_reply_tables_are_those_in_effect(heading: str, table: Sequence[ReplyRow]) -> None:
    text = page("replies.md").split(f"\n{heading}\n", 1)[1]
    assert rows(text, "| answer | when | means | why |") == cells(table)


def test_every_gate_is_in_the_table() -> None:
    gates = re.findall(r"^``(\w+)``", explaining.__doc__ or "", re.MULTILINE)
    assert [row[0] for row in rows(page("history.md"), "| gate | what it waits for |")] == [
        f"`{gate}`" for gate in gates
    ]


def test_every_metric_is_in_the_table() -> None:
    registry = CollectorRegistry()
    Instruments(registry)
    registry.register(SpoolCollector(lambda: None))
    names = {
        metric.name.removeprefix("postroom_") + ("_total" if metric.type == "counter" else "")
        for metric in registry.collect()
    }
    table = rows(page("operations.md"), "| name (all begin with `postroom_`) | labels | scope | meaning |")
    assert {name for row in table for name in re.findall(r"`(\w+)`", row[0])} == names
