"""``postroom queue`` and ``postroom stats``: what is in the spool."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import click

from postroom.cli.exits import CHECK_FAILED
from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import (
    Column,
    ago,
    cut,
    dim,
    echo_json,
    emphasise,
    iso,
    printable,
    render,
    reply_json,
    size,
    span,
    terminal_width,
)
from postroom.recipients import FINAL_STATES, PENDING_STATES, State
from postroom.status import QueueEntry
from postroom.stores.base import InstanceRow, Standing, Tally
from postroom.viewing import SpoolView

__all__ = ["queue", "stats"]

QUEUE: Final = (
    Column("ID"),
    Column("AGE", right=True),
    Column("SIZE", right=True),
    Column("RECIPIENT", least=20),
    Column("TRANSPORT", least=9),
    Column("STATE"),
    Column("DUE", right=True),
    Column("TRIES", right=True),
    Column("SENDER", least=16, optional=True),
    Column("LAST REPLY"),
)
WIDE: Final = 140
"""Columns of a terminal from which the last reply has a column of its own; below, it has a line of its own."""
STATES: Final = {state.label: state for state in State}


def standing_line(standing: Standing | None, now: float) -> str:
    """Return where a transport stands, in words for people."""
    if standing is None:
        return "not running"
    line = standing.status + (f" for {span(now - standing.since)}" if standing.since else "")
    if standing.until is not None:
        line += f", next try {ago(standing.until, now) if standing.until > now else 'now'}"
    return f"{line}: {standing.reason}" if standing.reason else line


def _summary(tally: Tally, standings: Mapping[str, Standing], now: float, columns: int | None) -> list[str]:
    states = tally.states
    names = dict.fromkeys(
        [*standings, *(name for (name, state), n in states.items() if n and not state.is_final)]
    )
    if not names:
        return []
    rows = [
        [
            name,
            *(str(states.get((name, state), 0)) for state in PENDING_STATES),
            standing_line(standings.get(name), now),
        ]
        for name in names
    ]
    titles = [Column(state.label.upper(), right=True) for state in PENDING_STATES]
    return render([Column("TRANSPORT", least=8), *titles, Column("STANDING", least=20)], rows, columns)


def _due(entry: QueueEntry, now: float) -> str:
    due = entry.recipient.due
    if due is None:
        return "-"
    return "now" if due <= now else ago(due, now)


def _entry_json(entry: QueueEntry) -> dict[str, Any]:
    recipient = entry.recipient
    return {
        "id": entry.id,
        "recipient": recipient.index,
        "address": str(recipient.address),
        "sender": entry.sender,
        "subject": entry.subject,
        "created": iso(entry.created),
        "size": entry.size,
        "transport": recipient.transport,
        "state": recipient.state.label,
        "due": iso(recipient.due),
        "attempts": recipient.attempts,
        "in_doubt": recipient.in_doubt,
        "reply": reply_json(recipient.reply),
    }


def _transports_json(tally: Tally, standings: Mapping[str, Standing]) -> list[dict[str, Any]]:
    names = dict.fromkeys([*standings, *(name for name, _ in tally.states)])
    return [
        {
            "name": name,
            "status": standing.status if standing is not None else "not running",
            "reason": standing.reason if standing is not None else "",
            "since": iso(standing.since) if standing is not None and standing.since else None,
            "until": iso(standing.until) if standing is not None else None,
            "recipients": {state.label: tally.states.get((name, state), 0) for state in State},
        }
        for name in names
        for standing in [standings.get(name)]
    ]


@click.command(
    epilog="""\b
Examples:
  postroom queue --state held                    what waits for you
  postroom queue --transport smtp --limit 20
  postroom queue --json | jq -r '.recipients[] | select(.attempts > 3) | .id'
"""
)
@place_options
@click.option("--state", "states", multiple=True, type=click.Choice([*STATES, "all"]), metavar="STATE",
              help="Only these states (may be repeated), or 'all'; by default those that are not settled.")  # fmt: skip
@click.option("--transport", metavar="NAME", help="Only what this transport has.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Recipients at most."
)
@json_option
def queue(place: Place, states: Sequence[str], transport: str | None, limit: int, as_json: bool) -> None:
    """List the recipients that are not settled, and where each transport stands.

    Reads the file: it works whether or not a process delivers, and never disturbs one that does.
    """
    wanted = tuple(State) if "all" in states else tuple(STATES[name] for name in states) or PENDING_STATES
    with place.view() as view:
        entries = list(view.queue(states=wanted, transport=transport, limit=limit + 1))
        tally, standings = view.tally(), view.standings()
    more, entries = len(entries) > limit, entries[:limit]
    if as_json:
        echo_json(
            {
                "transports": _transports_json(tally, standings),
                "ledger": ledger_json(tally),
                "recipients": [_entry_json(entry) for entry in entries],
                "more": more,
            }
        )
        return
    now = time.time()
    columns = terminal_width()
    summary = _summary(tally, standings, now, columns)
    if summary:
        _echo_table(summary)
        click.echo()
    if not entries:
        click.echo(
            "Nothing waits." if wanted == PENDING_STATES and transport is None else "No such recipients."
        )
        return
    rows = [
        [
            entry.id, span(now - entry.created), size(entry.size), str(entry.recipient.address),
            entry.recipient.transport, entry.recipient.state.label, _due(entry, now), str(entry.recipient.attempts),
            entry.sender or "<>", str(entry.recipient.reply or ""),
        ]
        for entry in entries
    ]  # fmt: skip
    if columns is None or columns >= WIDE:
        _echo_table(render([*QUEUE[:-1], replace(QUEUE[-1], least=30)], rows, columns))
    else:
        _echo_narrow(rows, columns)
    if more:
        click.echo(dim(f"There are more than {limit}; --limit shows more of them."))


def _echo_narrow(rows: Sequence[Sequence[str]], columns: int) -> None:
    """Print the queue as mailq does: below each recipient what was said of it last."""
    heading, *lines = render(QUEUE[:-1], [row[:-1] for row in rows], columns)
    click.echo(emphasise(heading))
    for line, row in zip(lines, rows, strict=True):
        click.echo(line)
        if row[-1]:
            indent = " " * (len(row[0]) + 2)
            click.echo(dim(cut(indent + printable(row[-1]), columns)))


def _echo_table(lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        click.echo(line if number else emphasise(line))


# Stats


def ledger_json(tally: Tally) -> dict[str, Any]:
    """Return the ledger as JSON has it."""
    totals = {state.label: _total(tally, state) for state in State}
    return {
        "accepted": sum(tally.accepted.values()),
        "accepted_by_type": dict(sorted(tally.accepted.items())),
        "states": totals,
        "pending": tally.pending,
        "imbalance": tally.imbalance,
    }


def _total(tally: Tally, state: State) -> int:
    return sum(n for (_, other), n in tally.states.items() if other is state)


def ledger_lines(tally: Tally) -> list[str]:
    """Return the ledger as people like to see one: what came in, and where it is."""
    accepted = sum(tally.accepted.values())
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(tally.accepted.items()) if n)
    lines = [f"{accepted:>10}  accepted" + (f"  ({kinds})" if kinds else "")]
    for state in (*FINAL_STATES, *PENDING_STATES):
        n = _total(tally, state)
        if n or state in {State.DELIVERED, State.RELAYED, State.QUEUED}:
            lines.append(f"{n:>10}  {state.label}" + ("" if state.is_final else "  (pending)"))
    verdict = (
        "every recipient is accounted for" if tally.imbalance == 0 else "THIS IS A BUG; please report it"
    )
    lines.append(f"{tally.imbalance:>10}  imbalance: {verdict}")
    return lines


def _instance_rows(instances: Sequence[InstanceRow], now: float) -> list[list[str]]:
    return [
        [str(row.node), str(row.pid), row.host, ago(row.started, now), ago(row.heartbeat, now)]
        for row in instances
    ]


@click.command(
    epilog="""\b
Examples:
  postroom stats
  postroom stats --audit || echo "the books do not balance"
"""
)
@place_options
@click.option(
    "--audit", is_flag=True, help="Also count row by row; slow on a large spool, exit code 1 if it differs."
)
@json_option
def stats(place: Place, audit: bool, as_json: bool) -> None:
    """Show the ledger, the depth of each transport, and the processes that share the spool."""
    with place.view() as view:
        tally, standings, instances = view.tally(), view.standings(), view.instances()
        differences = _audit(view) if audit else {}
    bad = bool(tally.imbalance or differences)
    if as_json:
        document: dict[str, Any] = {
            "ledger": ledger_json(tally),
            "transports": _transports_json(tally, standings),
            "outcomes": [
                {"transport": transport, "outcome": outcome, "count": n}
                for (transport, outcome), n in sorted(tally.outcomes.items())
            ],
            "instances": [
                {"node": row.node, "pid": row.pid, "host": row.host, "started": iso(row.started),
                 "heartbeat": iso(row.heartbeat)}
                for row in instances
            ],
        }  # fmt: skip
        if audit:
            document["audit"] = [
                {"transport": transport, "state": state.label, "difference": n}
                for (transport, state), n in sorted(differences.items())
            ]
        echo_json(document)
    else:
        _echo_stats(tally, standings, instances)
        if audit:
            click.echo()
            for (transport, state), n in sorted(differences.items()):
                click.echo(f"audit: {transport} {state.label}: {n:+} rows against the tally")
            click.echo("audit: the rows agree with the tally" if not differences else "audit: THIS IS A BUG")
    if bad:
        raise SystemExit(CHECK_FAILED)


def _audit(view: SpoolView) -> dict[tuple[str, State], int]:
    """Traffic between the two readings shows as a difference, so a difference must show three times."""
    differences = view.audit()
    for _ in range(2):
        if not differences:
            break
        again = view.audit()
        differences = {key: n for key, n in differences.items() if again.get(key) == n}
    return differences


def _echo_stats(tally: Tally, standings: Mapping[str, Standing], instances: Sequence[InstanceRow]) -> None:
    now = time.time()
    columns = terminal_width()
    click.echo(emphasise("LEDGER (recipients)"))
    for line in ledger_lines(tally):
        click.echo(line)
    summary = _summary(tally, standings, now, columns)
    if summary:
        click.echo()
        _echo_table(summary)
    click.echo()
    if instances:
        titles = [Column("NODE", right=True), Column("PID", right=True), Column("HOST", least=10)]
        rows = _instance_rows(instances, now)
        _echo_table(render([*titles, Column("STARTED"), Column("HEARTBEAT")], rows, columns))
    else:
        click.echo("No process has the spool open.")
