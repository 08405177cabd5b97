"""``postroom flush`` and ``postroom resend``: what was not delivered, once more."""

from collections.abc import Sequence
from typing import Final

import click

from postroom.cli.exits import TEMPORARY, USAGE, Refusal
from postroom.cli.options import DURATION, Place, json_option, place_options
from postroom.cli.output import echo_json
from postroom.cli.selecting import operator_options
from postroom.errors import UsageError
from postroom.recipients import State

__all__ = ["COMMANDS"]


@click.command(
    epilog="""\b
Examples:
  postroom flush
  postroom flush smtp --wait 5m
  postroom flush --destination example.org --reason "their server is back"
"""
)
@click.argument("transport", required=False)
@click.option("--destination", metavar="GLOB", help="Only what goes to this domain or host.")
@click.option(
    "--wait", type=DURATION, metavar="DURATION", help="Wait until all was tried once, at most so long."
)
@operator_options
@place_options
@json_option
def flush(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    transport: str | None,
    *,
    destination: str | None,
    wait: float | None,
    operator: str,
    reason: str,
    as_json: bool,
) -> None:
    """Try at once what waits for later, and transports that are parked.

    What is held stays held, and what is paused stays paused. A running process delivers.
    """
    with place.spooler() as spooler:
        try:
            flushed = spooler.flush(
                transport, destination, wait=wait is not None, timeout=wait, operator=operator, reason=reason
            )
        except UsageError as error:
            raise Refusal(USAGE, error.field.upper(), error.problem, error.remedy) from error
    if as_json:
        echo_json(
            {
                "made_due": flushed.made_due,
                "total": flushed.total,
                "remaining": flushed.remaining,
                "done": flushed.done,
            }
        )
    else:
        click.echo(
            f"{flushed.made_due} recipient(s) made due; {flushed.remaining} of {flushed.total} to be tried"
        )
    if wait is not None and not flushed.done:
        raise Refusal(
            TEMPORARY,
            "--wait",
            f"{flushed.remaining} recipient(s) were not tried in time",
            "see 'postroom queue'",
        )


@click.command(
    epilog="""\b
Examples:
  postroom resend 0CN5F17YM0000
  postroom resend 0CN5F17YM0000 --recipient 2 --from "Support <support@example.org>"
"""
)
@click.argument("message_id", metavar="ID")
@click.option(
    "--recipient",
    "-r",
    "numbers",
    multiple=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="This one of its recipients, by the number in 'show'; may be repeated.  [default: who failed]",
)
@click.option("--from", "resent_from", metavar="ADDRESS", help="Who sends it again.  [default: the sender]")
@click.option(
    "--transport", metavar="NAME", help="Give it to this transport, whatever the configuration says."
)
@place_options
@json_option
def resend(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    message_id: str,
    *,
    numbers: Sequence[int],
    resent_from: str | None,
    transport: str | None,
    as_json: bool,
) -> None:
    """Send a message again, to those only whom it did not reach, and print the new id.

    Its octets must have been kept (keep_content). Its readers see the original recipients, and in Resent fields that it
    was sent again.
    """
    through = transport or _transport(place, message_id, numbers)
    with place.spooler(transport=through) as spooler:
        receipt = spooler.resend(message_id, numbers or None, resent_from=resent_from)
        addresses = [str(recipient.address) for recipient in spooler.status(receipt.id).recipients]
    if as_json:
        echo_json({"id": receipt.id, "resend_of": message_id, "recipients": addresses})
    else:
        click.echo(receipt.id)


def _transport(place: Place, message_id: str, numbers: Sequence[int]) -> str | None:
    """Return the transport that had those whom it did not reach, where no configuration tells how to route."""
    if place.read_config() is not None:
        return None
    with place.view() as view:
        recipients = view.status(message_id).recipients
    names = sorted(
        {
            recipient.transport
            for recipient in recipients
            if recipient.index in numbers
            or (not numbers and recipient.state in {State.FAILED, State.EXPIRED})
        }
    )
    if len(names) > 1:
        raise Refusal(
            USAGE, "--transport", f"a spool alone does not tell which gets the message: {', '.join(names)}",
            "add --config FILE, or --transport NAME",
        )  # fmt: skip
    # Nobody failed: the spooler has the words for it.
    return names[0] if names else None


COMMANDS: Final = (flush, resend)
