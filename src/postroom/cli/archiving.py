"""``postroom sent``, ``search`` and ``export``: what is settled, and what is kept of it."""

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import click

from postroom.cli.erasing import erase
from postroom.cli.exits import CHECK_FAILED, USAGE, Refusal
from postroom.cli.options import WHEN, Place, json_option, place_options
from postroom.cli.output import (
    Column,
    dim,
    echo_json,
    emphasise,
    iso,
    moment,
    reply_json,
    size,
    span,
    terminal_width,
)
from postroom.cli.output import render as render_table
from postroom.mailfiles import ExportFormat
from postroom.recipients import FINAL_STATES
from postroom.sentitems import Exported, Found, SentItem

__all__ = ["COMMANDS"]

STATES: Final = {state.label: state for state in FINAL_STATES}
COLUMNS: Final = (
    Column("ID"),
    Column("AGE", right=True),
    Column("SIZE", right=True),
    Column("SENDER", least=16, optional=True),
    Column("RECIPIENTS", least=20),
    Column("STATES", least=10),
    Column("SUBJECT", least=12),
)


def _ago(value: datetime | timedelta | None) -> datetime | float | None:
    """Return a time: a duration given on the command line counts backwards here."""
    return time.time() - value.total_seconds() if isinstance(value, timedelta) else value


def _choosing(command: Any) -> Any:
    """Add the options that choose messages."""
    for option in (
        click.option("--state", "states", multiple=True, type=click.Choice([*STATES]), metavar="STATE",
                     help="Only with a recipient in this state; may be repeated."),
        click.option("--until", type=WHEN, metavar="WHEN", help="Submitted before then, likewise."),
        click.option("--since", type=WHEN, metavar="WHEN",
                     help="Submitted then or later: a duration back from now, or ISO 8601."),
        click.option("--tenant", metavar="NAME", help="Only this tenant's."),
        click.option("--sender", metavar="ADDRESS", help="Only those with this envelope sender, '<>' for none."),
    ):  # fmt: skip
        command = option(command)
    return command


def _chosen(
    sender: str | None,
    tenant: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    states: Sequence[str],
) -> dict[str, Any]:
    return {
        "sender": "" if sender == "<>" else sender,
        "tenant": tenant,
        "since": _ago(since),
        "until": _ago(until),
        "states": tuple(STATES[name] for name in states) or FINAL_STATES,
    }


def _item_json(item: SentItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "sender": item.sender,
        "tenant": item.tenant,
        "subject": item.subject,
        "message_id": item.message_id,
        "created": iso(item.created),
        "changed": iso(item.changed),
        "size": item.size,
        "content_kept": item.content_kept,
        "complete": item.complete,
        "recipient_count": item.recipient_count,
        "states": {state.label: count for state, count in item.states.items()},
        "recipients": [
            {"recipient": recipient.index, "address": str(recipient.address), "state": recipient.state.label,
             "transport": recipient.transport, "changed": iso(recipient.changed), "reply": reply_json(recipient.reply)}
            for recipient in item.recipients
        ],
    }  # fmt: skip


def _states(item: SentItem) -> str:
    if len(item.states) == 1 and item.recipient_count == 1:
        return next(iter(item.states)).label
    return " ".join(f"{count} {state.label}" for state, count in sorted(item.states.items()))


def _addresses(item: SentItem) -> str:
    first = str(item.recipients[0].address) if item.recipients else ""
    return first if item.recipient_count <= 1 else f"{first} +{item.recipient_count - 1}"


def _echo_items(items: Iterable[SentItem]) -> None:
    now = time.time()
    rows = [
        [item.id, span(now - item.created), size(item.size), item.sender or "<>", _addresses(item), _states(item),
         item.subject]
        for item in items
    ]  # fmt: skip
    for number, line in enumerate(render_table(COLUMNS, rows, terminal_width())):
        click.echo(line if number else emphasise(line))


@click.command(
    epilog="""\b
Examples:
  postroom sent --since 1d
  postroom sent --sender app@example.org --state failed
  postroom sent --json --limit 1000 | jq -r '.messages[].id'
"""
)
@place_options
@_choosing
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Messages at most.")
@click.option("--oldest-first", is_flag=True, help="In the order of submission.")
@json_option
def sent(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    *,
    sender: str | None,
    tenant: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    states: Sequence[str],
    limit: int,
    oldest_first: bool,
    as_json: bool,
) -> None:
    """List the messages that are settled, the newest first."""
    with place.view() as view:
        chosen = _chosen(sender, tenant, since, until, states)
        items = list(view.archive.sent(**chosen, limit=limit + 1, newest_first=not oldest_first))
    more, items = len(items) > limit, items[:limit]
    if as_json:
        echo_json({"messages": [_item_json(item) for item in items], "more": more})
    elif not items:
        click.echo("No such messages.")
    else:
        _echo_items(items)
        if more:
            click.echo(dim(f"There are more than {limit}; --limit shows more of them."))


@click.command(
    epilog="""\b
Examples:
  postroom search invoice ann@example.org
  postroom search '"quarterly report"' --limit 5
  postroom search --json zurich | jq -r '.messages[].id'
"""
)
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@place_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Messages at most.")
@json_option
def search(place: Place, words: Sequence[str], limit: int, as_json: bool) -> None:
    """Find messages by words of the subject and parts of the addresses, the newest first.

    All words must occur, each at least as the beginning of one; "in quotes" is found as it stands.
    """
    query = " ".join(words)
    with place.view() as view:
        found = view.archive.search(query, limit=limit)
    if not found.complete:
        with place.spooler() as spooler:
            found = spooler.search(query, limit=limit)
    if as_json:
        echo_json({
            "messages": [_item_json(item) for item in found], "complete": found.complete,
            "indexed_until": iso(found.indexed_until),
        })  # fmt: skip
        return
    if found.items:
        _echo_items(found)
    else:
        click.echo("Nothing found.")
    if not found.complete:
        click.echo(f"postroom: {_how_far(found)}; search again for the rest", err=True)


def _how_far(found: Found) -> str:
    if found.indexed_until is None:
        return "the index is not begun yet"
    return f"the index goes up to {moment(found.indexed_until, time.time())}"


@click.command(
    epilog="""\b
Examples:
  postroom export --to sent.mbox --since 7d
  postroom export --to mails --format eml --state failed
  postroom export 0CN5F17YM0000 0CN5F17YM0001 --to two.mbox
  postroom export --to - | formail -s …
"""
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@place_options
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="PATH",
              help="The mbox file ('-' for standard output), or the folder for eml files.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["mbox", "eml"]), default="mbox", show_default=True)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@_choosing
@json_option
def export(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    ids: Sequence[str],
    *,
    target: Path,
    form: str,
    force: bool,
    sender: str | None,
    tenant: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    states: Sequence[str],
    as_json: bool,
) -> None:
    """Write messages to an mbox file (mboxrd) or to eml files: those named, or all settled ones chosen by options.

    Only messages whose octets are kept can be written (keep_content); exit code 1 when there was none.
    """
    if ids and any((sender, tenant, since, until, states)):
        raise Refusal(USAGE, "ID", "messages are named and chosen by options", "use one or the other")
    to_stdout = str(target) == "-"
    if to_stdout and as_json:
        raise Refusal(USAGE, "--json", "standard output gets the messages", "give a file with --to")
    with place.view() as view:
        exported = view.archive.export(
            ids or None,
            to=sys.stdout.buffer if to_stdout else target,
            format=cast("ExportFormat", form),
            overwrite=force,
            **_chosen(sender, tenant, since, until, states),
        )
    _report_export(exported, as_json=as_json)


def _report_export(exported: Exported, *, as_json: bool) -> None:
    if as_json:
        echo_json({
            "messages": exported.messages, "octets": exported.octets, "skipped": exported.skipped,
            "sample": list(exported.sample),
        })  # fmt: skip
    else:
        click.echo(f"{exported.messages} messages, {size(exported.octets)} octets", err=True)
        if exported.skipped:
            sample = ", ".join(exported.sample[:3]) + (", …" if exported.skipped > 3 else "")
            click.echo(
                f"postroom: the octets of {exported.skipped} are gone ({sample}); see keep_content", err=True
            )
    if exported.skipped and not exported.messages:
        raise SystemExit(CHECK_FAILED)


COMMANDS: Final = (sent, search, export, erase)
