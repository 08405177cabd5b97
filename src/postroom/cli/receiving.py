"""``postroom receivers``: what a spool has on the record of its receivers."""

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import click

from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import Column, ago, dim, echo_json, emphasise, iso, terminal_width
from postroom.cli.output import render as render_table
from postroom.config import Config
from postroom.stores.base import InstanceRow
from postroom.stores.receiver_rows import ReceiverReader, ReceiverRow

__all__ = ["receivers"]

COLUMNS: Final = (
    Column("RECEIVER", least=12),
    Column("TYPE"),
    Column("RUN BY", least=12),
    Column("MESSAGES", right=True),
    Column("LAST"),
    Column("KNOWN", right=True, optional=True),
)


@click.command(
    epilog="""\b
Examples:
  postroom receivers
  postroom receivers --json | jq '.receivers[] | select(.process == null)'
"""
)
@place_options
@json_option
def receivers(place: Place, *, as_json: bool) -> None:
    """Show the receivers: which process runs each, and what it has taken.

    This is what the spool knows: which process has leased a receiver that one at a time may run, how many of its
    messages are in the spool, when the last of them came, and how many remote copies the ledger knows. Whether it is
    connected at this moment only that process knows; `postroom run` logs it.
    """
    config = place.read_config()
    with place.view() as view, closing(ReceiverReader(place.path(config))) as reader:
        instances = {row.node: row for row in view.instances()}
        recorded = {row.name: row for row in reader.receiver_rows()}
    configured = _configured(config)
    names = [*configured, *(name for name in recorded if name not in configured)]
    now = time.time()
    rows = [(name, recorded.get(name) or ReceiverRow(name=name)) for name in names]
    if as_json:
        echo_json({"receivers": [_json(row, configured.get(name), instances, now) for name, row in rows]})
    elif not rows:
        click.echo("There are no receivers.")
    else:
        cells = [_cells(row, configured.get(name), instances, now) for name, row in rows]
        for number, line in enumerate(render_table(COLUMNS, cells, terminal_width())):
            click.echo(line if number else emphasise(line))
        click.echo(dim("Whether they are connected, the process knows that runs them; see its log."))


def _configured(config: Config | None) -> Mapping[str, tuple[str, bool]]:
    """Return type and exclusiveness by name, of those that the configuration has."""
    found: dict[str, tuple[str, bool]] = {}
    for source in config.receivers if config is not None else ():
        # One whose name is its code's own business is seen once it has taken something.
        if source.name:
            found[source.name] = (source.kind, source.exclusive)
    return found


def _process(row: ReceiverRow, instances: Mapping[int, InstanceRow], now: float) -> InstanceRow | None:
    """Return the process that has leased a receiver, None where nobody does."""
    if row.node is None or (row.leased_until or 0.0) <= now:
        return None
    return instances.get(row.node)


def _cells(
    row: ReceiverRow, configured: tuple[str, bool] | None, instances: Mapping[int, InstanceRow], now: float
) -> list[str]:
    process = _process(row, instances, now)
    if process is not None:
        run_by = f"pid {process.pid} on {process.host}"
    elif configured is not None and not configured[1]:
        run_by = "each process"
    else:
        run_by = "nobody" if configured is not None or row.node is not None else "-"
    last = "-" if row.last is None else ago(row.last, now)
    kind = "-" if configured is None else configured[0]
    return [row.name, kind, run_by, str(row.kept), last, str(row.known)]


def _json(
    row: ReceiverRow, configured: tuple[str, bool] | None, instances: Mapping[int, InstanceRow], now: float
) -> dict[str, Any]:
    process = _process(row, instances, now)
    return {
        "name": row.name,
        "kind": None if configured is None else configured[0],
        "exclusive": None if configured is None else configured[1],
        "process": None if process is None else {"pid": process.pid, "host": process.host},
        "leased_until": None if process is None else iso(row.leased_until),
        "messages": row.kept,
        "last": iso(row.last),
        "known": row.known,
        "sources": row.sources,
    }
