"""``postroom hold``, ``release``, ``cancel`` and ``retry``: what an operator does to the recipients of a message."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import click

from postroom.cli.exits import TEMPORARY, USAGE, Refusal
from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import echo_json
from postroom.errors import InTransit
from postroom.spooler import Spooler

__all__ = ["COMMANDS"]

Act = Callable[[str, Collection[int] | None], tuple[int, ...]]


def _make(name: str, done: str, text: str, choose: Callable[[Spooler], Act]) -> click.Command:
    example = (
        f"\b\nExamples:\n  postroom {name} 0CN5F17YM0000\n  postroom {name} 0CN5F17YM0000 --recipient 2\n"
    )

    @click.command(name, help=text, epilog=example)
    @click.argument("message_id", metavar="ID")
    @click.option("--recipient", "-r", "numbers", multiple=True, type=click.IntRange(min=0), metavar="N",
                  help="Only this one of its recipients, by the number in 'show'; may be repeated.")  # fmt: skip
    @place_options
    @json_option
    def command(place: Place, message_id: str, numbers: Sequence[int], as_json: bool) -> None:
        with place.spooler() as spooler:
            addresses = [str(recipient.address) for recipient in spooler.status(message_id).recipients]
            for number in numbers:
                if number >= len(addresses):
                    raise Refusal(
                        USAGE,
                        "--recipient",
                        f"{number} is not one of this message",
                        f"give 0 to {len(addresses) - 1}",
                    )
            try:
                changed = choose(spooler)(message_id, numbers or None)
            except InTransit as error:
                raise Refusal(TEMPORARY, message_id, _whose(spooler, message_id), "try again") from error
        if as_json:
            echo_json(
                {
                    "id": message_id,
                    "action": name,
                    "changed": [{"recipient": n, "address": addresses[n]} for n in changed],
                }
            )
            return
        for number in changed:
            click.echo(f"{message_id} {number} {addresses[number]} {done}")
        if not changed:
            click.echo(f"{message_id}: no recipient is in a state that '{name}' applies to")

    return command


def _whose(spooler: Spooler, message_id: str) -> str:
    """Return in whose hands the recipients are."""
    rules = dict.fromkeys(
        row.rule for row in spooler.explain(message_id) if row.gate in {"other_process", "sending"}
    )
    return f"is in transit ({'; '.join(rules) or 'it is being sent'})"


COMMANDS: Final = (
    _make(
        "hold",
        "held",
        "Keep queued recipients of a message from being sent, until they are released.",
        lambda s: s.hold,
    ),
    _make("release", "released", "Let held recipients of a message go.", lambda s: s.release),
    _make(
        "cancel",
        "cancelled",
        "Recall the recipients of a message that were not sent yet.",
        lambda s: s.cancel,
    ),
    _make("retry", "due now", "Make queued recipients of a message due at once.", lambda s: s.retry),
)
