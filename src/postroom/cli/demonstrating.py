"""``postroom demo``: see :mod:`postroom.demo`."""

import importlib
from pathlib import Path

import click

from postroom.cli.exits import CHECK_FAILED, UNAVAILABLE, Refusal
from postroom.cli.options import json_option
from postroom.cli.output import echo_json

__all__ = ["demo"]


@click.command(
    epilog="""\b
Examples:
  postroom demo
  postroom demo --keep           and look around afterwards: postroom queue --spool …
  postroom demo --messages 500 --seed 7
"""
)
@click.option(
    "--messages", type=click.IntRange(40, 20_000), default=320, show_default=True, help="How many to submit."
)
@click.option(
    "--seed", type=int, default=2026, show_default=True, help="Of the messages: the same seed, the same ones."
)
@click.option(
    "--keep", is_flag=True, help="Keep the folder with the spool, the Maildirs and what the servers got."
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Work there (and keep it).")
@json_option
def demo(*, messages: int, seed: int, keep: bool, folder: Path | None, as_json: bool) -> None:
    """Watch Postroom deliver to real servers through an outage and crashes, and check that nothing was lost.

    Starts an SMTP server and an HTTP receiver as processes of their own, submits messages from eight threads, kills the
    SMTP server in the middle, crashes two transport actors, and compares at the end what was accepted with what the
    receivers have on disk. Takes about 15 seconds. Exit code 0 only if nothing was lost.
    """
    try:
        # Neither is needed by the rest of the command line.
        importlib.import_module("aiosmtpd.smtp")
        from postroom.demo.show import run_demo  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        missing = (error.name or "an extra").partition(".")[0]
        if missing == "postroom":
            raise
        raise Refusal(
            UNAVAILABLE, "demo", f"{missing} is not installed", "run: pip install 'postroom[demo]'"
        ) from error
    verdict = run_demo(messages=messages, seed=seed, keep=keep, folder=folder, quiet=as_json)
    if as_json:
        echo_json(verdict.as_json())
    if not verdict.passed:
        raise SystemExit(CHECK_FAILED)
