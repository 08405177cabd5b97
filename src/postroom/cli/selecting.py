"""What the commands for operators share: which recipients are meant, a look at them, and who wants it."""

import getpass
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from postroom.bulk import Preview
from postroom.cli.exits import USAGE, Refusal
from postroom.cli.looking import STATES
from postroom.cli.options import DURATION
from postroom.cli.output import Column, emphasise, render, reply_json, terminal_width
from postroom.errors import UsageError
from postroom.selections import Selection
from postroom.status import QueueEntry

__all__ = [
    "confirm",
    "echo_preview",
    "given",
    "operator_options",
    "order_selection_options",
    "preview_json",
    "selection_of",
    "selection_options",
]

_F = TypeVar("_F", bound=Callable[..., Any])

_FIELDS: Final[Mapping[str, str]] = {
    "transport": "--transport",
    "destination": "--destination",
    "address": "--address",
    "address_type": "--type",
    "sender": "--sender",
    "tenant": "--tenant",
    "subject": "--subject",
    "older_than": "--older-than",
    "newer_than": "--newer-than",
    "error": "--error",
    "states": "--state",
    "everything": "--all",
    "ids": "ID",
}
"""The option for each field of a selection, for errors."""

PREVIEW: Final = (
    Column("ID"),
    Column("RECIPIENT", least=20),
    Column("TRANSPORT", least=9),
    Column("STATE"),
    Column("TRIES", right=True),
    Column("SENDER", least=16, optional=True),
    Column("LAST REPLY", least=20, optional=True),
)


def order_selection_options(command: _F) -> _F:
    """Add the options that say which recipients are meant as far as that is known when they arrive."""
    for option in reversed(
        (
            click.option("--transport", metavar="NAME", help="Only what this transport has."),
            click.option("--destination", metavar="GLOB", help="Only what goes to this domain or host."),
            click.option(
                "--address", metavar="GLOB", help="Only this address, as in '*@example.org' or 'sms:+44*'."
            ),
            click.option(
                "--type", "address_type", metavar="TYPE", help="Only this type of address, as in 'sms'."
            ),
            click.option("--sender", metavar="GLOB", help="Only from this envelope sender; '<>' for none."),
            click.option("--tenant", metavar="NAME", help="Only what this tenant sends."),
            click.option("--subject", metavar="TEXT", help="Only with this in the subject."),
            click.option(
                "--all", "everything", is_flag=True, help="Really all; or all to which the rest applies."
            ),
        )
    ):
        command = option(command)
    return command


def selection_options(command: _F) -> _F:
    """Add all the options that say which recipients are meant."""
    for option in reversed(
        (
            click.option("--older-than", type=DURATION, metavar="DURATION", help="Only if submitted so long ago."),
            click.option("--newer-than", type=DURATION, metavar="DURATION", help="Only if submitted since then."),
            click.option("--error", metavar="TEXT", help="Only if the last reply holds this or is like '4.*'."),
            click.option("--state", "states", multiple=True, type=click.Choice([*STATES]), metavar="STATE",
                         help="Only in this state; may be repeated.  [default: where it applies]"),
        )
    ):  # fmt: skip
        command = option(command)
    return order_selection_options(command)


def operator_options(command: _F) -> _F:
    """Add ``--operator`` and ``--reason``."""
    command = click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")(command)
    return click.option(
        "--operator", default=_login, metavar="NAME", help="Who, for the record.  [default: your login]"
    )(command)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # No name for the number, as in a container.
        return ""


def given(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return of the options those that were given."""
    return {
        name: value
        for name, value in said.items()
        if value is not None and value is not False and value != ()
    }


def selection_of(ids: Sequence[str], said: Mapping[str, Any]) -> Selection:
    """Return what the options mean.

    Raises:
        Refusal: they mean nothing; names the option.
    """
    wanted = given(said)
    if not wanted and not ids:
        raise Refusal(
            USAGE,
            "ID",
            "nothing says which recipients are meant",
            "give ids, options such as --transport, or --all",
        )
    try:
        return Selection(ids=tuple(ids), **wanted)
    except UsageError as error:
        raise Refusal(USAGE, _FIELDS.get(error.field, error.field), error.problem, error.remedy) from error


def entry_json(entry: QueueEntry) -> dict[str, Any]:
    """Return a recipient of a preview as JSON has it."""
    recipient = entry.recipient
    return {
        "id": entry.id,
        "recipient": recipient.index,
        "address": str(recipient.address),
        "sender": entry.sender,
        "subject": entry.subject,
        "transport": recipient.transport,
        "state": recipient.state.label,
        "attempts": recipient.attempts,
        "reply": reply_json(recipient.reply),
    }


def preview_json(preview: Preview) -> dict[str, Any]:
    """Return a preview as JSON has it."""
    return {
        "count": preview.count,
        "messages": preview.messages,
        "sample": [entry_json(entry) for entry in preview.sample],
    }


def echo_preview(preview: Preview) -> None:
    """Print how much is selected, and the first of it."""
    rows = [
        [
            entry.id, str(entry.recipient.address), entry.recipient.transport, entry.recipient.state.label,
            str(entry.recipient.attempts), entry.sender or "<>", str(entry.recipient.reply or ""),
        ]
        for entry in preview.sample
    ]  # fmt: skip
    for number, line in enumerate(render(PREVIEW, rows, terminal_width())):
        click.echo(line if number else emphasise(line))
    if preview.count > len(preview.sample):
        click.echo(f"… and {preview.count - len(preview.sample)} more")
    click.echo(f"{preview.count} recipient(s) of {preview.messages} message(s)")


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless ``yes`` was said.

    Raises:
        Refusal: nobody can be asked.
        click.Abort: the answer was no.
    """
    if yes:
        return
    if not _asked():
        raise Refusal(
            USAGE, "--yes", "is missing, and there is nobody to ask", "add --yes, or --dry-run to look only"
        )
    click.confirm(question, abort=True, err=True)


def _asked() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty()
