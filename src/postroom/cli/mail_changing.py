"""``postroom mail read``, ``move`` and ``delete``, ``mkfolder`` and ``rmfolder``."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import echo_json, printable
from postroom.inbound.folders import TRASH
from postroom.inbound.mailstore_values import Changed

__all__ = ["COMMANDS"]

_F = TypeVar("_F", bound=Callable[..., Any])


def _receipt_options(command: _F) -> _F:
    return click.option(
        "--receipt/--no-receipt", "receipt", default=None,
        help="Tell senders who ask for it, or never tell them.  [default: as the policy says]",
    )(command)  # fmt: skip


def _echo_changed(changed: Changed, verb: str, *, as_json: bool) -> None:
    if as_json:
        echo_json(
            {
                "changed": list(changed.ids),
                "receipts": list(changed.receipts),
                "withheld": dict(changed.withheld),
            }
        )
        return
    click.echo(f"{len(changed)} messages {verb}.")
    if changed.receipts:
        click.echo(f"{len(changed.receipts)} senders are told.")
    for message_id, reason in changed.withheld.items():
        click.echo(f"postroom: the sender of {message_id} is not told: {reason}", err=True)


@click.command(
    epilog="""\b
Examples:
  postroom mail read 0CN5F17YM0000 --receipt
  postroom mail read --unread 0CN5F17YM0000 0CN5F17YM0001
"""
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@place_options
@click.option("--unread", is_flag=True, help="Mark them as not read.")
@_receipt_options
@json_option
def read(place: Place, ids: Sequence[str], *, unread: bool, receipt: bool | None, as_json: bool) -> None:
    """Mark messages as read, and tell their senders where they ask for it and it is allowed (RFC 8098)."""
    with place.spooler() as spooler:
        changed = spooler.mail.mark_read(ids, not unread, receipt=receipt)
    _echo_changed(changed, "marked as not read" if unread else "marked as read", as_json=as_json)


@click.command(epilog="\b\nExamples:\n  postroom mail move 0CN5F17YM0000 --to Support/Done\n")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@place_options
@click.option("--to", "folder", required=True, metavar="FOLDER", help="Made if it is missing.")
@json_option
def move(place: Place, ids: Sequence[str], *, folder: str, as_json: bool) -> None:
    """Move messages to a folder."""
    with place.spooler() as spooler:
        moved = spooler.mail.move(ids, folder)
    _echo_changed(Changed(moved), f"moved to {folder}", as_json=as_json)


@click.command(
    epilog="""\b
Examples:
  postroom mail delete 0CN5F17YM0000
  postroom mail delete --permanently 0CN5F17YM0000
"""
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@place_options
@click.option("--permanently", is_flag=True, help=f'Not to "{TRASH}".')
@_receipt_options
@json_option
def delete(
    place: Place, ids: Sequence[str], *, permanently: bool, receipt: bool | None, as_json: bool
) -> None:
    """Move messages to "Trash"; those that are there, remove for good."""
    with place.spooler() as spooler:
        changed = spooler.mail.delete(ids, permanently=permanently, receipt=receipt)
    _echo_changed(changed, "deleted", as_json=as_json)


@click.command(epilog="\b\nExamples:\n  postroom mail mkfolder Support/Open Support/Done\n")
@click.argument("names", nargs=-1, required=True, metavar="FOLDER...")
@place_options
@json_option
def mkfolder(place: Place, names: Sequence[str], *, as_json: bool) -> None:
    """Make folders; those that are there stay as they are. The parts of a name are separated by "/"."""
    with place.spooler() as spooler:
        made = [name for name in names if spooler.mail.create(name)]
    if as_json:
        echo_json({"made": made})
        return
    for name in names:
        click.echo(f"{printable(name)} {'made' if name in made else 'was there before'}.")


@click.command(epilog="\b\nExamples:\n  postroom mail rmfolder Support/Done\n")
@click.argument("names", nargs=-1, required=True, metavar="FOLDER...")
@place_options
@json_option
def rmfolder(place: Place, names: Sequence[str], *, as_json: bool) -> None:
    """Remove empty folders; the standard ones stay. It ends with the first one that cannot be removed."""
    with place.spooler() as spooler:
        for name in names:
            spooler.mail.remove(name)
            if not as_json:
                click.echo(f"{printable(name)} removed.")
    if as_json:
        echo_json({"removed": list(names)})


COMMANDS: Final = (read, move, delete, mkfolder, rmfolder)
