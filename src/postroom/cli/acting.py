"""``postroom hold``, ``cancel`` and the like: what an operator does to messages, one or many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from postroom.bulk import BulkResult
from postroom.cli.exits import TEMPORARY, USAGE, Refusal
from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import echo_json
from postroom.cli.selecting import (
    confirm,
    echo_preview,
    given,
    operator_options,
    preview_json,
    selection_of,
    selection_options,
)
from postroom.errors import InTransit, UsageError
from postroom.selections import Selection
from postroom.spooler import Spooler
from postroom.stores.base import Action, Control
from postroom.stores.changing import WITH_PENDING

__all__ = ["COMMANDS"]


@dataclass(frozen=True, slots=True)
class Verb:
    """A command.

    Attributes:
        name: of the action and the command.
        done: what became of a recipient, in words.
        text: help.
        argument: the option for the action's argument, with its metavar and help, or None.
    """

    name: Control
    done: str
    text: str
    argument: tuple[str, str, str] | None = None


def _make(verb: Verb) -> click.Command:
    name = verb.name
    extra = " --to NAME" if name == "reroute" else " --to ADDRESS" if name == "redirect" else ""
    some = " 0CN5F17YM0001" if name == "delete" else " --recipient 2"
    example = (
        f"\b\nExamples:\n  postroom {name} 0CN5F17YM0000{extra}\n"
        f"  postroom {name} 0CN5F17YM0000{some}{extra}\n"
        f"  postroom {name} --destination example.org --older-than 2h --dry-run{extra}\n"
    )

    @click.command(name, help=verb.text, epilog=example)
    @click.argument("message_ids", nargs=-1, metavar="[ID]...")
    @selection_options
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", "-n", is_flag=True, help="Only show what would be meant.")
    @operator_options
    @place_options
    @json_option
    def command(  # noqa: PLR0913 - one parameter for each option
        place: Place,
        message_ids: Sequence[str],
        *,
        yes: bool,
        dry_run: bool,
        operator: str,
        reason: str,
        as_json: bool,
        numbers: Sequence[int] = (),
        argument: str | bool | None = None,
        **said: Any,
    ) -> None:
        if argument is True:
            argument = WITH_PENDING
        action = Action(name, argument or "", operator, reason)
        one_by_one = bool(message_ids) and not given(said) and not dry_run
        if numbers and (len(message_ids) != 1 or not one_by_one):
            raise Refusal(
                USAGE, "--recipient", "is a number within one message", "give one ID and no other options"
            )
        selection = None if one_by_one else selection_of(message_ids, said)
        with place.spooler() as spooler:
            try:
                if selection is None:
                    _act_on_each(spooler, verb, action, message_ids, numbers, as_json=as_json)
                else:
                    _act_on_many(spooler, verb, action, selection, yes=yes, dry_run=dry_run, as_json=as_json)
            except UsageError as error:
                if error.field != "argument" or verb.argument is None:
                    raise
                raise Refusal(USAGE, verb.argument[0], error.problem, error.remedy) from error

    if name != "delete":
        command = click.option(
            "--recipient", "-r", "numbers", multiple=True, type=click.IntRange(min=0), metavar="N",
            help="Only this one of its recipients, by the number in 'show'; may be repeated.",
        )(command)  # fmt: skip
    if verb.argument is not None:
        option, metavar, text = verb.argument
        flag: dict[str, Any] = (
            {"metavar": metavar, "required": option == "--to"} if metavar else {"is_flag": True}
        )
        command = click.option(option, "argument", help=text, **flag)(command)
    return command


# One message after the other


def _act_on_each(  # noqa: PLR0913 - what its one caller has at hand
    spooler: Spooler, verb: Verb, action: Action, ids: Sequence[str], numbers: Sequence[int], *, as_json: bool
) -> None:
    documents: list[dict[str, Any]] = []
    for message_id in ids:
        addresses = [str(recipient.address) for recipient in spooler.status(message_id).recipients]
        for number in numbers:
            if number >= len(addresses):
                raise Refusal(
                    USAGE,
                    "--recipient",
                    f"{number} is not one of this message",
                    f"give 0 to {len(addresses) - 1}",
                )
        changed = _act(spooler, action, message_id, numbers or None)
        if verb.name == "delete":
            documents.append({"id": message_id, "action": verb.name, "deleted": True})
        else:
            rows = [{"recipient": n, "address": addresses[n]} for n in changed]
            documents.append({"id": message_id, "action": verb.name, "changed": rows})
        if as_json:
            continue
        if verb.name == "delete":
            click.echo(f"{message_id} {verb.done}")
            continue
        for number in changed:
            click.echo(f"{message_id} {number} {addresses[number]} {verb.done}")
        if not changed:
            click.echo(f"{message_id}: no recipient is in a state that '{verb.name}' applies to")
    if as_json:
        echo_json(documents[0] if len(documents) == 1 else {"action": verb.name, "messages": documents})


def _act(spooler: Spooler, action: Action, message_id: str, numbers: Sequence[int] | None) -> tuple[int, ...]:
    try:
        return spooler.act(action, message_id, numbers)
    except InTransit as error:
        raise Refusal(TEMPORARY, message_id, _whose(spooler, message_id), "try again") from error


def _whose(spooler: Spooler, message_id: str) -> str:
    """Return in whose hands the recipients are."""
    rules = dict.fromkeys(
        row.rule for row in spooler.explain(message_id) if row.gate in {"other_process", "sending"}
    )
    return f"is in transit ({'; '.join(rules) or 'it is being sent'})"


# Many


def _act_on_many(  # noqa: PLR0913 - what its one caller has at hand
    spooler: Spooler,
    verb: Verb,
    action: Action,
    selection: Selection,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    preview = spooler.preview(action, selection)
    if not as_json:
        if preview.count == 0:
            click.echo(f"Nothing is selected to which '{verb.name}' applies.")
            return
        echo_preview(preview)
    result: BulkResult | None = None
    if not dry_run:
        confirm(f"{verb.name} {preview.count} recipient(s)?", yes=yes)
        result = spooler.apply(
            action.kind, selection, operator=action.operator, reason=action.reason, argument=action.argument
        )
    if as_json:
        echo_json(
            {
                "action": verb.name,
                "selection": str(selection),
                "preview": preview_json(preview),
                "result": None if result is None else _result_json(result),
            }
        )
    elif result is not None:
        click.echo(_summary(verb, result))


def _result_json(result: BulkResult) -> dict[str, Any]:
    return {
        name: getattr(result, name)
        for name in ("seen", "changed", "in_transit", "requested", "final", "deleted", "batches", "number")
    }


def _summary(verb: Verb, result: BulkResult) -> str:
    parts = [
        f"{result.deleted} message(s) {verb.done}"
        if verb.name == "delete"
        else f"{result.changed} {verb.done}"
    ]
    if result.in_transit:
        parts.append(f"{result.in_transit} left alone: in transit")
    if result.requested:
        parts.append(f"{result.requested} in another process's hands, which was asked")
    if result.final:
        parts.append(f"{result.final} settled meanwhile")
    return "; ".join(parts)


COMMANDS: Final = tuple(
    map(
        _make,
        (
            Verb("hold", "held", "Keep queued recipients from being sent, until they are released."),
            Verb("release", "released", "Let held recipients go."),
            Verb("cancel", "cancelled", "Recall recipients that were not sent yet, without a report."),
            Verb("retry", "due now", "Make queued recipients due at once."),
            Verb("fail", "failed", "Return recipients to the sender as undeliverable, with a report.",
                 ("--text", "TEXT", "What the report says.")),
            Verb("expire", "expired", "Give recipients up as if their time had passed, with a report."),
            Verb("reroute", "rerouted", "Give queued and held recipients to another transport.",
                 ("--to", "NAME", "The transport.")),
            Verb("redirect", "redirected",
                 "Change the address of queued and held recipients; the first one stays on the record.",
                 ("--to", "ADDRESS", "Where they go; '*@example.org' keeps what stands before the @.")),
            Verb("delete", "deleted", "Forget settled messages; the ledger goes on counting them.",
                 ("--pending", "", "First cancel what is not settled yet.")),
        ),
    )
)  # fmt: skip
