"""``postroom mail``: the incoming mail of a spool, in its folders."""

import sys
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import click

from postroom.cli.mail_changing import COMMANDS as CHANGING
from postroom.cli.mail_exporting import export
from postroom.cli.options import WHEN, Place, json_option, place_options
from postroom.cli.output import (
    Column,
    dim,
    echo_json,
    emphasise,
    iso,
    moment,
    printable,
    size,
    span,
    terminal_width,
)
from postroom.cli.output import render as render_table
from postroom.inbound.folders import INBOX
from postroom.inbound.mailstore_opened import OpenedMessage
from postroom.inbound.mailstore_values import InboundMessage

__all__ = ["mail"]

FOLDERS: Final = (Column("FOLDER", least=16), Column("UNREAD", right=True), Column("TOTAL", right=True))
MESSAGES: Final = (
    Column("ID"),
    Column("MARKS"),
    Column("AGE", right=True),
    Column("SIZE", right=True),
    Column("FROM", least=16),
    Column("FOLDER", least=8, optional=True),
    Column("SUBJECT", least=16),
)


@click.group(
    epilog="""\b
Examples:
  postroom mail folders
  postroom mail list --unread
  postroom mail show 0CN5F17YM0000
  postroom mail move 0CN5F17YM0000 --to Support/Done
  postroom mail search invoice ann@example.org
"""
)
def mail() -> None:
    """Look at incoming mail, and mark, move, delete and export it; make and remove folders."""


def _marks(message: InboundMessage) -> str:
    marks = (
        ("N", not message.seen), ("R", message.answered), ("F", message.flagged), ("A", message.attachments > 0),
    )  # fmt: skip
    return "".join(letter if holds else "-" for letter, holds in marks)


def _message_json(message: InboundMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "folder": message.folder,
        "received": iso(message.received),
        "receiver": message.receiver,
        "subject": message.subject,
        "author": message.author,
        "to": message.to,
        "message_id": message.message_id,
        "in_reply_to": message.in_reply_to,
        "date": iso(message.date),
        "message_class": message.message_class,
        "sender": message.sender,
        "recipients": list(message.recipients),
        "remote": message.remote,
        "size": message.size,
        "seen": message.seen,
        "answered": message.answered,
        "flagged": message.flagged,
        "tags": list(message.tags),
        "automatic": message.automatic,
        "bulk": message.bulk,
        "attachments": message.attachments,
        "matched": message.matched,
        "receipt": message.receipt,
        "note": message.note,
    }


def _echo_messages(messages: Iterable[InboundMessage]) -> None:
    now = time.time()
    rows = [
        [each.id, _marks(each), span(now - each.received), size(each.size), each.author or each.sender or "<>",
         each.folder, each.subject]
        for each in messages
    ]  # fmt: skip
    for number, line in enumerate(render_table(MESSAGES, rows, terminal_width())):
        click.echo(line if number else emphasise(line))


@mail.command(epilog="\b\nExamples:\n  postroom mail folders --json\n")
@place_options
@json_option
def folders(place: Place, *, as_json: bool) -> None:
    """Show the folders, and how many messages are in each."""
    with place.view() as view:
        rows = view.mail.folders()
    if as_json:
        echo_json({"folders": [{"name": r.name, "total": r.total, "unread": r.unseen} for r in rows]})
    elif not rows:
        click.echo("There are no folders yet; they come with the first message.")
    else:
        lines = render_table(FOLDERS, [[r.name, str(r.unseen), str(r.total)] for r in rows], terminal_width())
        for number, line in enumerate(lines):
            click.echo(line if number else emphasise(line))


def _ago(value: datetime | timedelta | None) -> datetime | float | None:
    return time.time() - value.total_seconds() if isinstance(value, timedelta) else value


@mail.command(
    "list",
    epilog="""\b
Examples:
  postroom mail list --unread
  postroom mail list Support/Open --since 1d
  postroom mail list --all --json | jq -r '.messages[].id'
""",
)
@click.argument("folder", default=INBOX)
@place_options
@click.option("--all", "everywhere", is_flag=True, help="Of all folders.")
@click.option("--unread", is_flag=True, help="Only those that were not read.")
@click.option("--since", type=WHEN, metavar="WHEN",
              help="Taken then or later: a duration back from now, or ISO 8601.")  # fmt: skip
@click.option("--until", type=WHEN, metavar="WHEN", help="Taken before then, likewise.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Messages at most.")
@click.option("--oldest-first", is_flag=True, help="In the order in which they were taken.")
@json_option
def list_messages(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    folder: str,
    *,
    everywhere: bool,
    unread: bool,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    limit: int,
    oldest_first: bool,
    as_json: bool,
) -> None:
    """List the messages in FOLDER, "Inbox" unless it is named, the newest first.

    Marks: N not read, R replied, F flagged, A with attachments.
    """
    with place.view() as view:
        found = list(
            view.mail.list(
                None if everywhere else folder, unseen=unread, since=_ago(since), until=_ago(until), limit=limit + 1,
                newest_first=not oldest_first,
            )
        )  # fmt: skip
    more, found = len(found) > limit, found[:limit]
    if as_json:
        echo_json({"messages": [_message_json(each) for each in found], "more": more})
    elif not found:
        click.echo("No such messages.")
    else:
        _echo_messages(found)
        if more:
            click.echo(dim(f"There are more than {limit}; --limit shows more of them."))


@mail.command(
    epilog="""\b
Examples:
  postroom mail show 0CN5F17YM0000
  postroom mail show 0CN5F17YM0000 --content > message.eml
  postroom mail show 0CN5F17YM0000 --json | jq .text
"""
)
@click.argument("message_id", metavar="ID")
@place_options
@click.option("--content", is_flag=True, help="Print the message itself, as it came, and nothing else.")
@json_option
def show(place: Place, message_id: str, *, content: bool, as_json: bool) -> None:
    """Show a message: its header, its text, and what is attached. It does not count as read."""
    with place.view() as view:
        opened = view.mail.open(message_id)
    if content:
        sys.stdout.buffer.write(opened.content)
        sys.stdout.buffer.flush()
    elif as_json:
        attached = [
            {"name": each.name, "content_type": each.content_type, "size": len(each.content), "inline": each.inline}
            for each in opened.attachments()
        ]  # fmt: skip
        echo_json({**_message_json(opened.message), "text": opened.text(), "attached": attached})
    else:
        _echo_opened(opened)


def _echo_field(name: str, value: str) -> None:
    click.echo(f"{emphasise(name.rjust(10))}  {printable(value)}")


def _echo_opened(opened: OpenedMessage) -> None:
    message = opened.message
    now = time.time()
    rows = (
        ("from", message.author or message.sender or "<>"),
        ("to", message.to or ", ".join(message.recipients)),
        ("subject", message.subject),
        ("date", moment(message.date, now)),
        ("received", f"{moment(message.received, now)} by {message.receiver}"),
        ("folder", message.folder),
        ("class", message.message_class),
        ("tags", ", ".join(message.tags)),
        ("receipt", message.receipt),
        ("note", message.note),
    )
    for name, value in rows:
        if value:
            _echo_field(name, value)
    for each in opened.attachments():
        name = each.name or "(no name)"
        _echo_field("attached", f"{name}, {each.content_type}, {size(len(each.content))}")
    click.echo()
    for line in opened.text().rstrip().split("\n"):
        click.echo(printable(line.expandtabs()))


@mail.command(
    epilog="""\b
Examples:
  postroom mail search invoice ann@example.org
  postroom mail search '"quarterly report"' --folder Inbox --limit 5
"""
)
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@place_options
@click.option("--folder", metavar="NAME", help="Only in this folder.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Messages at most.")
@json_option
def search(place: Place, words: tuple[str, ...], *, folder: str | None, limit: int, as_json: bool) -> None:
    """Find messages by words of subject, author, recipients and text, the newest first.

    All words must occur, each at least as the beginning of one; "in quotes" is found as it stands.
    """
    query = " ".join(words)
    with place.view() as view:
        found = view.mail.search(query, folder, limit=limit)
    if not found.complete:
        with place.spooler() as spooler:
            found = spooler.mail.search(query, folder, limit=limit)
    if as_json:
        echo_json({"messages": [_message_json(each) for each in found], "complete": found.complete})
        return
    if found.items:
        _echo_messages(found)
    else:
        click.echo("Nothing found.")
    if not found.complete:
        click.echo("postroom: the index is not complete yet; search again for the rest", err=True)


for command in (*CHANGING, export):
    mail.add_command(command)
