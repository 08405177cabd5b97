"""The command line, ``postroom``: one file for each group of commands."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click

from postroom.cli.acting import COMMANDS as ACTING
from postroom.cli.archiving import COMMANDS as ARCHIVING
from postroom.cli.completing import completion
from postroom.cli.demonstrating import demo
from postroom.cli.events import COMMANDS as EVENTS
from postroom.cli.exits import CHECK_FAILED, judge
from postroom.cli.flushing import COMMANDS as FLUSHING
from postroom.cli.looking import queue, stats
from postroom.cli.mail import mail
from postroom.cli.ordering import COMMANDS as ORDERING
from postroom.cli.receiving import receivers
from postroom.cli.running import run
from postroom.cli.sending import send
from postroom.cli.showing import show

__all__ = ["main"]

EXAMPLES = """\b
Examples:
  postroom demo                                  watch it survive outages and crashes
  postroom run --config postroom.toml            a spooler as a process of its own
  postroom send -f app@example.org ann@example.org < message.eml
  postroom queue                                 what waits, and for what
  postroom show 0CN5F17YM0000                    one message: where it stands and why
  postroom queue --json | jq .ledger
  postroom hold --destination example.org        what goes there, after a look at it
  postroom orders add fail --destination example.com --expires 2h
  postroom search invoice ann@example.org        what was sent
  postroom mail list --unread                    what came in
  postroom events --after now --follow           what happens

\b
Exit codes are those of sysexits.h: 0 ok, 64 usage, 65 bad message, 66 no input, 69 unavailable,
73 cannot create, 75 try again, 78 bad configuration; docs/cli.md has the table.
"""


class _Group(click.Group):
    """Ends with one line on standard error and an exit code, never with a traceback unless asked for."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; see click."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        given = list(sys.argv[1:] if args is None else args)
        # Before the subcommand is looked up, so that also an error in parsing shows its traceback.
        debug = "--debug" in given or bool(os.environ.get("POSTROOM_DEBUG"))
        try:
            result = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output has read enough; Python must not complain about it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(CHECK_FAILED)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help(), err=True)
            sys.exit(judge(error)[0])
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, one line says it
            if debug:
                traceback.print_exc()
            code, line = judge(error)
            click.echo(f"postroom: {' '.join(line.split())}", err=True)
            sys.exit(code)
        sys.exit(result if isinstance(result, int) else 0)


@click.group(cls=_Group, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("postroom"), prog_name="postroom", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def main() -> None:
    """Postroom: a store-and-forward message spooler."""


for command in (
    run,
    send,
    queue,
    show,
    *ACTING,
    *FLUSHING,
    *ORDERING,
    *ARCHIVING,
    mail,
    receivers,
    *EVENTS,
    stats,
    demo,
    completion,
):
    main.add_command(command)
