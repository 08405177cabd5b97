"""``postroom send``: submit one message, like sendmail."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import click

from postroom.cli.exits import NO_INPUT, TEMPORARY, UNAVAILABLE, USAGE, Refusal
from postroom.cli.options import DURATION, WHEN, Place, json_option, place_options
from postroom.cli.output import echo_json, iso, printable, reply_json
from postroom.composing import Message
from postroom.envelopes import Report
from postroom.recipients import State
from postroom.spooler import Spooler
from postroom.status import MessageStatus
from postroom.viewing import SpoolView

__all__ = ["send"]

PRIORITIES: Final = {"urgent": 1, "normal": 0, "non-urgent": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message to compose from options."""

    subject: str | None
    text: str | None
    html: str | None
    attachments: Sequence[Path]

    @property
    def wanted(self) -> bool:
        """Whether anything is to be composed, rather than a message read."""
        return any(value is not None for value in (self.subject, self.text, self.html)) or bool(
            self.attachments
        )

    def compose(self, sender: str | None, recipients: Sequence[str]) -> Message:
        """Return the message; its To names the recipients that are mailboxes, as mail(1) does."""
        if sender is None:
            raise Refusal(USAGE, "--sender", "is missing", "say who writes: -f app@example.org")
        return Message(
            subject=self.subject or "",
            text=_standard_input().decode("utf-8", "surrogateescape") if self.text == "-" else self.text,
            html=self.html,
            attachments=list(self.attachments),
            to=[address for address in recipients if _is_mailbox(address)],
        )


def _is_mailbox(address: str) -> bool:
    kind, colon, _ = address.partition(":")
    return "@" in address and (not colon or "@" in kind or "<" in kind or kind.lower() == "smtp")


def _standard_input() -> bytes:
    if sys.stdin.isatty():
        click.echo("postroom: reading from the terminal; end with Ctrl-D", err=True)
    return sys.stdin.buffer.read()


def _read(file: Path | None) -> bytes:
    if file is None or str(file) == "-":
        octets = _standard_input()
    else:
        try:
            octets = file.read_bytes()
        except OSError as error:
            raise Refusal(
                NO_INPUT, "--file", f"{file} cannot be read: {error.strerror}", "name a readable file"
            ) from error
    if not octets.strip():
        raise Refusal(
            NO_INPUT, "message", "is empty", "give an RFC 5322 message on standard input or with --file"
        )
    return octets


def _transport(place: Place, named: str | None) -> str | None:
    """Return the transport that gets everything when no configuration tells how to route."""
    if named is not None or place.read_config() is not None:
        return named
    path = place.path(None)
    if not path.is_file():
        return None  # what opens the spool says so
    with SpoolView(path) as view:
        names = sorted(view.standings())
    if len(names) == 1:
        return names[0]
    running = f"; running there: {', '.join(names)}" if names else ""
    raise Refusal(
        USAGE, "--transport", f"a spool alone does not tell which transport gets the message{running}",
        "add --config FILE, or --transport NAME",
    )  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  postroom send -f app@example.org ann@example.org < message.eml
  postroom send -t --file message.eml                 recipients from To, Cc and Bcc
  postroom send -f app@example.org --subject Report --text "See attached." --attach report.pdf ann@example.org
  postroom send -f app@example.org --send-at 2h --expires 3d https://hooks.example.org/x < message.eml
  generate | postroom send -f a@example.org --subject Log --text - --idempotency-key log-42 ann@example.org
"""
)
@click.argument("recipients", nargs=-1, metavar="[RECIPIENT]...")
@place_options
@click.option(
    "--read-recipients", "-t", is_flag=True, help="Take the recipients from To, Cc and Bcc of the message."
)
@click.option(
    "--sender",
    "-f",
    metavar="ADDRESS",
    help="Envelope sender, '<>' for none; by default From of the message.",
)
@click.option("--file", "-m", type=click.Path(path_type=Path), help="The message; by default standard input.")
@click.option("--subject", metavar="TEXT", help="Compose a message with this subject instead of reading one.")
@click.option("--text", metavar="TEXT", help="… with this plain text; '-' reads it from standard input.")
@click.option("--html", metavar="TEXT", help="… with this HTML.")
@click.option("--attach", "attachments", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="… with this file; may be repeated.")  # fmt: skip
@click.option("--send-at", type=WHEN, metavar="WHEN", help="Not before: a duration from now, or ISO 8601.")
@click.option("--expires", type=WHEN, metavar="WHEN", help="Give up then: a duration from now, or ISO 8601.")
@click.option("--priority", type=click.Choice([*PRIORITIES]), default="normal", show_default=True)
@click.option("--report", "reports", multiple=True, type=click.Choice([*Report, "never"]),
              help="When to tell the sender; may be repeated.  [default: failure]")  # fmt: skip
@click.option("--hold", is_flag=True, help="Keep it until 'postroom release'.")
@click.option("--idempotency-key", metavar="KEY", help="Submitting again with the same key adds nothing.")
@click.option("--tenant", metavar="NAME", help="Whose fair share it uses; by default the sender's.")
@click.option("--ordering-key", metavar="KEY", help="Messages with the same key never overtake each other.")
@click.option("--window", metavar="TEXT", help="Deliver only then: 'Mo-Fr 09:00-17:00 Europe/Berlin'.")
@click.option("--ret", type=click.Choice(["full", "headers"]), help="What a failure report returns.")
@click.option("--envid", metavar="TEXT", help="Your own name for it, named in reports (RFC 3461 ENVID).")
@click.option(
    "--transport", metavar="NAME", help="Give it to this transport, whatever the configuration says."
)
@click.option(
    "--wait", type=DURATION, metavar="DURATION", help="Wait until it is delivered, at most so long."
)
# Programs that call sendmail pass these: a lone dot ends nothing here, and errors are always printed.
@click.option("-i", "dots", is_flag=True, hidden=True, expose_value=False)
@click.option("-o", "sendmail_option", multiple=True, hidden=True, expose_value=False)
@json_option
def send(  # noqa: PLR0913 - one parameter for each option
    place: Place,
    recipients: Sequence[str],
    *,
    read_recipients: bool,
    sender: str | None,
    file: Path | None,
    subject: str | None,
    text: str | None,
    html: str | None,
    attachments: Sequence[Path],
    send_at: datetime | timedelta | None,
    expires: datetime | timedelta | None,
    priority: str,
    reports: Sequence[str],
    hold: bool,
    idempotency_key: str | None,
    tenant: str | None,
    ordering_key: str | None,
    window: str | None,
    ret: Literal["full", "headers"] | None,
    envid: str | None,
    transport: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Submit one message and print its id once it is durable.

    The message comes from standard input or --file, or is composed from --subject, --text, --html and --attach. It
    works beside a running 'postroom run' or a server that has the spool open: that process delivers it.
    """
    if read_recipients and recipients:
        raise Refusal(USAGE, "-t", "recipients are given as arguments too", "use one or the other")
    if not read_recipients and not recipients:
        raise Refusal(
            USAGE, "RECIPIENT", "nobody is named", "name recipients, or use -t to take them from the message"
        )
    draft = Draft(subject=subject, text=text, html=html, attachments=attachments)
    if draft.wanted and file is not None:
        raise Refusal(USAGE, "--file", "stands beside options that compose a message", "use one or the other")
    if draft.wanted and read_recipients:
        raise Refusal(USAGE, "-t", "a composed message has no recipients yet", "name them as arguments")
    transport = _transport(place, transport)
    message = draft.compose(sender, recipients) if draft.wanted else _read(file)
    with place.spooler(transport=transport, create=True) as spooler:
        receipt = spooler.submit(
            message,
            sender=sender,
            to=None if read_recipients else list(recipients),
            send_at=send_at,
            expires_at=expires,
            priority=PRIORITIES[priority],
            report=frozenset(Report(word) for word in reports if word != "never")
            if reports
            else {Report.FAILURE},
            hold=hold,
            idempotency_key=idempotency_key,
            tenant=tenant,
            ordering_key=ordering_key,
            window=window,
            ret=ret,
            envid=envid,
        )
        status = _wait(spooler, receipt.id, wait)
    if as_json:
        echo_json({"id": receipt.id, "duplicate": receipt.duplicate, **_status_json(status)})
    else:
        click.echo(receipt.id)
        if receipt.duplicate:
            click.echo(f"postroom: {idempotency_key} was submitted before; nothing was added", err=True)
    if wait is not None:
        _judge(status, quiet=as_json)


def _wait(spooler: Spooler, message_id: str, wait: float | None) -> MessageStatus:
    return spooler.status(message_id) if wait is None else spooler.wait(message_id, wait)


def _status_json(status: MessageStatus) -> dict[str, Any]:
    return {
        "sender": status.sender,
        "created": iso(status.created),
        "size": status.size,
        "recipients": [
            {"recipient": recipient.index, "address": str(recipient.address), "transport": recipient.transport,
             "state": recipient.state.label, "due": iso(recipient.due), "reply": reply_json(recipient.reply)}
            for recipient in status.recipients
        ],
    }  # fmt: skip


def _judge(status: MessageStatus, *, quiet: bool) -> None:
    """Say where the recipients are, and end with what that means."""
    for recipient in status.recipients if not quiet else ():
        said = f": {printable(str(recipient.reply))}" if recipient.reply is not None else ""
        click.echo(f"  {recipient.address} {recipient.state.label}{said}")
    if not status.complete:
        raise SystemExit(TEMPORARY)
    if not status.succeeded and any(r.state is not State.CANCELLED for r in status.recipients):
        raise SystemExit(UNAVAILABLE)
