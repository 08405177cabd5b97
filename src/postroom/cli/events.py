"""``postroom events`` and ``cursors``: the journal of what happened, and who has read how far."""

import json
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Final

import click

from postroom.cli.exits import UNAVAILABLE, USAGE, Refusal
from postroom.cli.options import DURATION, Place, json_option, place_options
from postroom.cli.output import Column, dim, echo_json, emphasise, printable, terminal_width
from postroom.cli.output import render as render_table
from postroom.config_subscribers import event_kind
from postroom.config_values import Unreadable
from postroom.errors import CursorExpired, UsageError
from postroom.events import Event
from postroom.notifying.codec import to_public
from postroom.notifying.journal import EventLog, Recorded
from postroom.notifying.journalled import KINDS
from postroom.stores.inbox_reader import SqliteInboxReader

__all__ = ["COMMANDS"]

CURSORS: Final = (
    Column("NAME", least=12),
    Column("CURSOR", right=True),
    Column("BEHIND", right=True),
    Column("STATE"),
)
MAX_DIGITS: Final = 18
LOOK_SECONDS: Final = 0.5
"""How often the journal is looked at for more."""


@contextmanager
def _journal(place: Place) -> Generator[EventLog]:
    """Open the journal for reading; no process needs to run."""
    config = place.read_config()
    # Without the configuration nobody knows what the journal keeps: whatever it has is shown.
    kept = frozenset(KINDS) if config is None else config.settings.journalled
    # The view says what is wrong with the path, and with the file.
    with place.view(), closing(SqliteInboxReader(place.path(config))) as reader:
        yield EventLog(reader, kept=kept, interval=LOOK_SECONDS)


def _after(text: str) -> int | None:
    """Return the cursor that was given, None for "now"."""
    if text == "now":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise Refusal(USAGE, "--after", f"{text!r} is no cursor", "give the number of an event, or now")
    return int(text)


def _kinds(named: Sequence[str]) -> list[type[Event]]:
    try:
        return [event_kind(name.strip()) for words in named for name in words.split(",")]
    except Unreadable as error:
        raise Refusal(USAGE, "--kinds", error.problem, error.remedy) from None


def _refusal(error: CursorExpired | UsageError) -> Refusal:
    if isinstance(error, CursorExpired):
        return Refusal(
            UNAVAILABLE,
            "--after",
            f"events behind {error.after} are not kept any more",
            f"{error.first} is the earliest cursor that is left",
        )
    return Refusal(USAGE, f"--{error.field}", error.problem, error.remedy)


@click.command(
    epilog="""\b
Examples:
  postroom events --kinds NewMessage
  postroom events --after now --follow --kinds recipient_failed,recipient_expired
  postroom events --after 4711 --json | jq -r .message_id
"""
)
@place_options
@click.option("--after", default="0", metavar="N",
              help="Only what is behind this cursor; 'now' for what happens from now on.  [default: all]")  # fmt: skip
@click.option("--kinds", multiple=True, metavar="KIND,...",
              help="Only these: NewMessage or new_message, RecipientEvent for all about recipients.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Events at most.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("--timeout", type=DURATION, metavar="DURATION",
              help="With --follow: end when nothing happened for so long.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print each event as JSON, one on each line.")
def events(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    *,
    after: str,
    kinds: Sequence[str],
    limit: int | None,
    follow: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Show what happened, as far as the journal keeps it, the oldest first.

    The number that each line begins with is its cursor: --after reads on behind it. What is kept, and for how long,
    durable_events and keep_events of the configuration say.
    """
    wanted, start = _kinds(kinds), _after(after)
    if timeout is not None and not follow:
        raise Refusal(USAGE, "--timeout", "is for --follow", "leave it out, or add --follow")
    with _journal(place) as journal:
        begin = journal.last if start is None else start
        try:
            found = (
                journal.follow(begin, kinds=wanted, timeout=timeout)
                if follow
                else journal.events(begin, kinds=wanted, limit=limit)
            )
            for number, recorded in enumerate(found, start=1):
                click.echo(_json(recorded) if as_json else _line(recorded))
                if follow:
                    sys.stdout.flush()
                if number == limit:
                    break
        except (CursorExpired, UsageError) as error:
            raise _refusal(error) from error


def _json(recorded: Recorded) -> str:
    public = {**to_public(recorded.event), "cursor": recorded.cursor}
    return json.dumps(public, ensure_ascii=False, separators=(",", ":"))


def _line(recorded: Recorded) -> str:
    """Return an event for people: what it says, without what is empty."""
    public = to_public(recorded.event)
    kind = public.pop("type")
    public.pop("at")
    facts = [f"{name}={_fact(value)}" for name, value in public.items() if value not in {None, "", False}]
    at = datetime.fromtimestamp(recorded.event.at).astimezone()
    return f"{recorded.cursor}  {at:%Y-%m-%d %H:%M:%S}  {emphasise(kind)}  {printable('  '.join(facts))}".rstrip()


def _fact(value: object) -> str:
    return (
        str(value)
        if not isinstance(value, str) or " " not in value
        else json.dumps(value, ensure_ascii=False)
    )


@click.command(
    epilog="""\b
Examples:
  postroom cursors
  postroom cursors --json | jq '.cursors[] | select(.behind > 1000)'
"""
)
@place_options
@json_option
def cursors(place: Place, *, as_json: bool) -> None:
    """Show the named cursors: who reads the journal, and how far behind its end.

    A cursor is "expired" when events behind it were forgotten before it was read on from. Those of the configuration's
    subscribers are called webhook:NAME.
    """
    with _journal(place) as journal:
        first, last = journal.first, journal.last
        rows = sorted(journal.cursors().items())
    if as_json:
        echo_json(
            {
                "first": first,
                "last": last,
                "cursors": [
                    {"name": name, "cursor": at, "behind": max(0, last - at), "expired": at < first}
                    for name, at in rows
                ],
            }
        )
        return
    if rows:
        cells = [
            [name, str(at), str(max(0, last - at)), "expired" if at < first else "ok"] for name, at in rows
        ]
        for number, line in enumerate(render_table(CURSORS, cells, terminal_width())):
            click.echo(line if number else emphasise(line))
    else:
        click.echo("Nobody has a cursor here.")
    click.echo(
        dim(f"The journal has events {first + 1} to {last}." if last > first else "The journal is empty.")
    )


COMMANDS: Final = (events, cursors)
