"""``postroom mail export``."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import click

from postroom.cli.exits import CHECK_FAILED, USAGE, Refusal
from postroom.cli.options import WHEN, Place, json_option, place_options
from postroom.cli.output import echo_json, size
from postroom.inbound.mailstore_export import MailFormat

__all__ = ["export"]


def _ago(value: datetime | timedelta | None) -> datetime | float | None:
    return time.time() - value.total_seconds() if isinstance(value, timedelta) else value


@click.command(
    epilog="""\b
Examples:
  postroom mail export --to inbox.mbox --folder Inbox
  postroom mail export --to Maildir --format maildir
  postroom mail export 0CN5F17YM0000 --to - --format eml
"""
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@place_options
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="PATH",
              help="The mbox file ('-' for standard output), or the folder for Maildir and eml files.")  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["mbox", "maildir", "eml"]), default="mbox", show_default=True
)
@click.option("--folder", metavar="NAME", help="Only those in this folder.")
@click.option("--since", type=WHEN, metavar="WHEN",
              help="Taken then or later: a duration back from now, or ISO 8601.")  # fmt: skip
@click.option("--until", type=WHEN, metavar="WHEN", help="Taken before then, likewise.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
def export(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    ids: Sequence[str],
    *,
    target: Path,
    form: str,
    folder: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write messages to an mbox file (mboxrd), a Maildir or eml files: those named, or those chosen by options."""
    if ids and any((folder, since, until)):
        raise Refusal(USAGE, "ID", "messages are named and chosen by options", "use one or the other")
    to_stdout = str(target) == "-"
    if to_stdout and as_json:
        raise Refusal(USAGE, "--json", "standard output gets the messages", "give a file with --to")
    with place.view() as view:
        exported = view.mail.export(
            ids or None,
            to=sys.stdout.buffer if to_stdout else target,
            folder=folder,
            format=cast("MailFormat", form),
            since=_ago(since),
            until=_ago(until),
            overwrite=force,
        )
    if as_json:
        echo_json({
            "messages": exported.messages, "octets": exported.octets, "skipped": exported.skipped,
            "sample": list(exported.sample),
        })  # fmt: skip
    else:
        click.echo(f"{exported.messages} messages, {size(exported.octets)} octets", err=True)
        if exported.skipped:
            click.echo(f"postroom: the octets of {exported.skipped} are gone", err=True)
    if exported.skipped and not exported.messages:
        raise SystemExit(CHECK_FAILED)
