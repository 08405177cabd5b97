"""``postroom orders``, ``pause``, ``resume``, ``offline`` and ``online``: what is to be heeded until further notice."""

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click

from postroom.cli.exits import UNAVAILABLE, USAGE, Refusal
from postroom.cli.options import WHEN, Place, json_option, place_options
from postroom.cli.output import Column, ago, echo_json, emphasise, iso, render, terminal_width
from postroom.cli.selecting import confirm, operator_options, order_selection_options, selection_of
from postroom.errors import UsageError
from postroom.orders import ARRIVING
from postroom.selections import Selection
from postroom.spooler import Spooler
from postroom.stores.base import Order

__all__ = ["COMMANDS"]

ORDERS: Final = (
    Column("ORDER", right=True),
    Column("ACTION"),
    Column("FOR", least=20),
    Column("EXPIRES", right=True),
    Column("BY"),
    Column("REASON", least=12, optional=True),
)

expires_option: Final = click.option(
    "--expires",
    type=WHEN,
    metavar="WHEN",
    help="Until then: a duration from now, or ISO 8601.  [default: for ever]",
)


def order_json(order: Order) -> dict[str, Any]:
    """Return an order as JSON has it."""
    return {
        "order": order.id,
        "action": order.action,
        "selection": json.loads(order.selection),
        "argument": order.argument,
        "operator": order.operator,
        "reason": order.reason,
        "created": iso(order.created),
        "expires": iso(order.expires),
    }


def _what(order: Order) -> str:
    return f"{order.action} to {order.argument}" if order.action in {"reroute", "redirect"} else order.action


def _table(orders: Sequence[Order]) -> list[str]:
    now = time.time()
    rows = [
        [
            str(order.id), _what(order), str(Selection.from_json(order.selection)),
            "-" if order.expires is None else ago(order.expires, now), order.operator, order.reason,
        ]
        for order in orders
    ]  # fmt: skip
    return render(ORDERS, rows, terminal_width())


def _list(place: Place, *, as_json: bool) -> None:
    with place.spooler() as spooler:
        orders = spooler.orders()
    if as_json:
        echo_json({"orders": [order_json(order) for order in orders]})
    elif not orders:
        click.echo("There are no standing orders.")
    else:
        for number, line in enumerate(_table(orders)):
            click.echo(line if number else emphasise(line))


@click.group(
    "orders",
    invoke_without_command=True,
    epilog="""\b
Examples:
  postroom orders
  postroom orders add fail --destination example.com --expires 2h --text "they do not want it"
  postroom orders add redirect --address 'ann@example.org' --to bob@example.org
  postroom orders drop 3
""",
)
@place_options
@json_option
@click.pass_context
def orders(context: click.Context, place: Place, *, as_json: bool) -> None:
    """Show, give and drop standing orders, pauses among them.

    An order concerns what waits and what arrives later; of several the first given decides. All processes on the spool
    heed it.
    """
    if context.invoked_subcommand is None:
        _list(place, as_json=as_json)


@orders.command("list", epilog="\b\nExamples:\n  postroom orders list --json\n")
@place_options
@json_option
def list_orders(place: Place, *, as_json: bool) -> None:
    """Show the standing orders that are in force."""
    _list(place, as_json=as_json)


@orders.command(
    epilog="""\b
Examples:
  postroom orders add hold --sender 'news@*' --expires 8h
  postroom orders add fail --destination example.com --expires 2h
  postroom orders add reroute --transport smtp --to backup --only-new
"""
)
@click.argument("action", type=click.Choice(sorted(ARRIVING)))
@order_selection_options
@click.option("--to", metavar="NAME|ADDRESS", help="Of reroute the transport, of redirect the address.")
@click.option("--text", metavar="TEXT", help="Of fail what the report says.")
@expires_option
@click.option("--only-new", is_flag=True, help="Leave alone what waits already.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@operator_options
@place_options
@json_option
def add(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    action: str,
    *,
    to: str | None,
    text: str | None,
    expires: datetime | timedelta | None,
    only_new: bool,
    yes: bool,
    operator: str,
    reason: str,
    as_json: bool,
    **said: Any,
) -> None:
    """Give a standing order, and act on what waits already."""
    if to is not None and text is not None:
        raise Refusal(
            USAGE, "--text", "stands beside --to", "--to is for reroute and redirect, --text for fail"
        )
    selection = selection_of((), said)
    with place.spooler() as spooler:
        waiting = 0 if only_new else spooler.select(selection).count
        if waiting and not yes:
            confirm(f"{action} up to {waiting} recipient(s) that wait, and what arrives?", yes=yes)
        try:
            order = spooler.order(
                action, selection, expires=expires, reason=reason, operator=operator, argument=to or text or "",
                also_waiting=not only_new,
            )  # fmt: skip
        except UsageError as error:
            option = {"argument": "--text" if action == "fail" else "--to"}.get(
                error.field, f"--{error.field}"
            )
            raise Refusal(USAGE, option, error.problem, error.remedy) from error
    _say(order, as_json=as_json)


@orders.command(epilog="\b\nExamples:\n  postroom orders drop 3\n  postroom orders drop 3 4 5\n")
@click.argument("numbers", nargs=-1, required=True, type=click.IntRange(min=1), metavar="ORDER...")
@place_options
@json_option
def drop(place: Place, numbers: Sequence[int], *, as_json: bool) -> None:
    """Drop standing orders; what they have done stays done."""
    with place.spooler() as spooler:
        try:
            dropped = [spooler.drop_order(number) for number in numbers]
        except UsageError as error:
            raise Refusal(UNAVAILABLE, "ORDER", error.problem, error.remedy) from error
    if as_json:
        echo_json({"dropped": [order_json(order) for order in dropped]})
    else:
        for order in dropped:
            click.echo(f"order {order.id} dropped: {_what(order)} {Selection.from_json(order.selection)}")


def _say(order: Order, *, as_json: bool) -> None:
    if as_json:
        echo_json(order_json(order))
        return
    until = "" if order.expires is None else f" until {iso(order.expires)}"
    click.echo(f"order {order.id}: {_what(order)} {Selection.from_json(order.selection)}{until}")


# Pauses


def _pausing(name: str, text: str, example: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return what makes a command about a transport or a destination."""

    def make(function: Callable[..., None]) -> click.Command:
        command = click.argument("transport", required=False)(json_option(place_options(function)))
        option = click.option("--destination", metavar="GLOB", help="Only what goes to this domain or host.")
        return click.command(name, help=text, epilog=f"\b\nExamples:\n{example}")(option(command))

    return make


def _named(transport: str | None, destination: str | None, everything: str) -> None:
    if transport is None and destination is None:
        raise Refusal(
            USAGE,
            "TRANSPORT",
            "is missing",
            f"name one, or a --destination; 'postroom {everything}' is for everything",
        )


@_pausing(
    "pause",
    "Keep a transport or a destination from being tried, until it is resumed. Messages are accepted and kept.",
    "  postroom pause smtp --reason maintenance --expires 30m\n  postroom pause --destination example.org\n",
)
@expires_option
@operator_options
def pause(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    transport: str | None,
    *,
    destination: str | None,
    expires: datetime | timedelta | None,
    operator: str,
    reason: str,
    as_json: bool,
) -> None:
    _named(transport, destination, "offline")
    with place.spooler() as spooler:
        try:
            if destination is None:
                order = spooler.pause_transport(
                    transport or "", expires=expires, reason=reason, operator=operator
                )
            else:
                order = spooler.pause_destination(
                    destination, transport, expires=expires, reason=reason, operator=operator
                )
        except UsageError as error:
            raise Refusal(USAGE, _option(error), error.problem, error.remedy) from error
    _say(order, as_json=as_json)


@_pausing(
    "resume",
    "Let a paused transport or destination go on, named as it was paused.",
    "  postroom resume smtp\n  postroom resume --destination example.org\n",
)
def resume(place: Place, transport: str | None, *, destination: str | None, as_json: bool) -> None:
    _named(transport, destination, "online")
    with place.spooler() as spooler:
        if destination is None:
            resumed = spooler.resume_transport(transport or "")
        else:
            resumed = spooler.resume_destination(destination, transport)
        if not resumed:
            raise Refusal(UNAVAILABLE, str(transport or destination), "is not paused", _pauses(spooler))
    if as_json:
        echo_json({"resumed": True, "transport": transport, "destination": destination})
    else:
        click.echo(f"{' '.join(filter(None, (transport, destination)))} resumed")


def _pauses(spooler: Spooler) -> str:
    selections = [
        str(Selection.from_json(order.selection)) for order in spooler.orders() if order.action == "pause"
    ]
    return f"paused are: {'; '.join(selections)}" if selections else "nothing is paused"


@click.command(
    epilog='\b\nExamples:\n  postroom offline --reason "moving house"\n  postroom offline --expires 2h\n'
)
@expires_option
@operator_options
@place_options
@json_option
def offline(
    place: Place, *, expires: datetime | timedelta | None, operator: str, reason: str, as_json: bool
) -> None:
    """Send nothing at all until 'postroom online'. Messages are accepted and kept."""
    with place.spooler() as spooler:
        try:
            order = spooler.offline(expires=expires, reason=reason, operator=operator)
        except UsageError as error:
            raise Refusal(USAGE, _option(error), error.problem, error.remedy) from error
    _say(order, as_json=as_json)


@click.command(epilog="\b\nExamples:\n  postroom online\n")
@place_options
@json_option
def online(place: Place, *, as_json: bool) -> None:
    """End the offline state. What was paused by name stays paused."""
    with place.spooler() as spooler:
        if not spooler.online():
            raise Refusal(UNAVAILABLE, "online", "the spool is not offline", _pauses(spooler))
    if as_json:
        echo_json({"online": True})
    else:
        click.echo("online")


def _option(error: UsageError) -> str:
    return {"transport": "TRANSPORT"}.get(error.field, f"--{error.field}")


COMMANDS: Final = (pause, resume, offline, online, orders)
