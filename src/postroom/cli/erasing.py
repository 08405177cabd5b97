"""``postroom erase``: somebody wants to be forgotten."""

from typing import Any

import click

from postroom.cli.exits import TEMPORARY
from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import echo_json
from postroom.sentitems import Erasure

__all__ = ["erase"]


@click.command(
    epilog="""\b
Examples:
  postroom erase ann@example.org                 what that would change
  postroom erase ann@example.org --apply --reason "request of 12 May"
  postroom erase ann@example.org --apply --cancel
"""
)
@click.argument("address")
@place_options
@click.option("--apply", is_flag=True, help="Do it; without, only say what it would change.")
@click.option("--cancel", is_flag=True, help="Recall what is still to be sent to or from it first.")
@click.option(
    "--no-rewrite", is_flag=True, help="Leave unused parts of the file as they are; see the documentation."
)
@click.option("--operator", metavar="NAME", default="", help="Who does it, for the record.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for the record.")
@json_option
def erase(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    address: str,
    *,
    apply: bool,
    cancel: bool,
    no_rewrite: bool,
    operator: str,
    reason: str,
    as_json: bool,
) -> None:
    """Erase an address from the spool: envelopes, histories, contents, index and operators' entries.

    A tombstone takes its place, so that the counts stay what they are. Exit code 75 when messages that are not settled
    were left.
    """
    if apply:
        with place.spooler() as spooler:
            done = spooler.erase(
                address, apply=True, cancel=cancel, rewrite=not no_rewrite, operator=operator, reason=reason
            )
    else:
        with place.view() as view:
            done = view.archive.erase(address)
    if as_json:
        echo_json(_erasure_json(done))
    else:
        _echo_erasure(done)
    if done.applied and (done.pending or done.trouble):
        raise SystemExit(TEMPORARY)


def _erasure_json(done: Erasure) -> dict[str, Any]:
    return {
        "address": str(done.address),
        "applied": done.applied,
        "tombstone": done.tombstone,
        "messages": done.messages,
        "sent": done.sent,
        "recipients": done.recipients,
        "inbound": done.inbound,
        "contents": done.contents,
        "orders": done.orders,
        "operations": done.operations,
        "pending": list(done.pending),
        "rewritten": done.rewritten,
        "trouble": done.trouble,
    }


def _echo_erasure(done: Erasure) -> None:
    for count, what in (
        (done.messages, f"messages in which it stands, {done.sent} of them from it"),
        (done.recipients, "recipients"),
        (done.inbound, "incoming messages in which it stands"),
        (done.contents, "messages whose octets go"),
        (done.orders, "standing orders that go"),
        (done.operations, "entries in the log of operations"),
    ):
        click.echo(f"{count:>10}  {what}")
    if done.pending:
        verb = "left, since they are" if done.applied else "in the way, being"
        click.echo(f"{len(done.pending):>10}  {verb} not settled: {', '.join(done.pending[:5])}")
    if not done.applied:
        click.echo("Nothing was changed; --apply does it.")
        return
    click.echo(f"Erased; {done.tombstone} stands in its place.")
    if done.trouble:
        click.echo(f"postroom: {done.trouble}", err=True)
