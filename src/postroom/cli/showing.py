"""``postroom show``: one message, each of its recipients, and why it stands there."""

import sys
import time
from typing import Any

import click

from postroom.cli.exits import NO_INPUT, Refusal
from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import dim, echo_json, emphasise, iso, moment, printable, reply_json, size
from postroom.ids import format_id
from postroom.status import Explanation
from postroom.stores.base import Attempt, MessageRecord, RecipientRecord

__all__ = ["show"]


@click.command(
    epilog="""\b
Examples:
  postroom show 0CN5F17YM0000
  postroom show 0CN5F17YM0000 --content > message.eml
  postroom show 0CN5F17YM0000 --json | jq '.recipients[].explanation'
"""
)
@click.argument("message_id", metavar="ID")
@place_options
@click.option("--content", is_flag=True, help="Print the message itself, as it is sent, and nothing else.")
@json_option
def show(place: Place, message_id: str, content: bool, as_json: bool) -> None:
    """Show a message: its envelope, where each recipient stands and why, and the attempts so far."""
    with place.view() as view:
        if content:
            octets = view.content(message_id)
            if octets is None:
                raise Refusal(
                    NO_INPUT,
                    "content",
                    f"the octets of {message_id} are gone",
                    "they go when a message is complete; see keep_content",
                )
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()
            return
        record, explanations = view.record(message_id), view.explain(message_id)
    if as_json:
        echo_json(_json(record, explanations))
    else:
        _echo(record, explanations)


def _json(record: MessageRecord, explanations: tuple[Explanation, ...]) -> dict[str, Any]:
    return {
        "id": format_id(record.key),
        "sender": record.sender,
        "subject": record.subject,
        "message_id": record.message_id,
        "created": iso(record.created),
        "expires": iso(record.expires),
        "priority": record.priority,
        "size": record.size,
        "report": [word for word in record.report.split(",") if word],
        "idempotency_key": record.idempotency_key,
        "content_kept": record.content_kept,
        "recipients": [
            _recipient_json(recipient, explanation)
            for recipient, explanation in zip(record.recipients, explanations, strict=True)
        ],
    }


def _recipient_json(recipient: RecipientRecord, explanation: Explanation) -> dict[str, Any]:
    return {
        "recipient": recipient.index,
        "address": str(recipient.address),
        "transport": recipient.transport,
        "state": recipient.state.label,
        "due": None if recipient.state.is_final else iso(recipient.due),
        "attempts": recipient.attempts,
        "first_attempt": iso(recipient.first_attempt),
        "changed": iso(recipient.changed),
        "in_doubt": recipient.in_doubt,
        "crashes": recipient.crashes,
        "remote_id": recipient.remote_id,
        "reply": reply_json(recipient.reply),
        "detail": recipient.detail,
        "explanation": {"gate": explanation.gate, "until": iso(explanation.until), "rule": explanation.rule},
        "history": [
            {"at": iso(attempt.at), "transport": attempt.transport, "outcome": attempt.outcome,
             "reply": reply_json(attempt.reply), "duration": attempt.duration, "detail": attempt.detail}
            for attempt in recipient.history
        ],
    }  # fmt: skip


def _echo(record: MessageRecord, explanations: tuple[Explanation, ...]) -> None:
    now = time.time()
    click.echo(emphasise(f"{format_id(record.key)}  {printable(record.subject) or '(no subject)'}"))
    facts = [
        ("from", printable(record.sender) or "<> (the null reverse-path: no reports)"),
        ("submitted", moment(record.created, now)),
        ("expires", moment(record.expires, now) if record.expires is not None else ""),
        ("priority", {1: "urgent", -1: "non-urgent"}.get(record.priority, "")),
        ("size", f"{size(record.size)} octets" + ("" if record.content_kept else ", content removed")),
        ("Message-ID", printable(record.message_id)),
        ("key", printable(record.idempotency_key or "")),
        ("reports", record.report.replace(",", ", ") or "never"),
    ]
    for name, value in facts:
        if value:
            click.echo(f"  {name:<11}{value}")
    for recipient, explanation in zip(record.recipients, explanations, strict=True):
        click.echo()
        _echo_recipient(recipient, explanation, now)


def _echo_recipient(recipient: RecipientRecord, explanation: Explanation, now: float) -> None:
    doubt = "  (in doubt: it may have arrived)" if recipient.in_doubt else ""
    click.echo(
        f"{recipient.index}  {emphasise(printable(str(recipient.address)))}  {recipient.state.label}{doubt}"
    )
    click.echo(f"   {'transport':<10}{recipient.transport}")
    if recipient.state.is_final:
        click.echo(f"   {'settled':<10}{moment(recipient.changed, now)}")
        click.echo(f"   {'reply':<10}{printable(str(recipient.reply or '-'))}")
    else:
        click.echo(f"   {'waits at':<10}{explanation.gate}: {printable(explanation.rule)}")
        if explanation.until is not None:
            click.echo(f"   {'until':<10}{moment(explanation.until, now)}")
    if recipient.history:
        click.echo(f"   {'attempts':<10}{recipient.attempts}")
        for attempt in recipient.history:
            click.echo(f"     {_attempt_line(attempt, now)}")
    if recipient.detail:
        for line in recipient.detail.splitlines():
            click.echo(dim(f"     {printable(line)}"))


def _attempt_line(attempt: Attempt, now: float) -> str:
    took = f", took {attempt.duration:.1f} s" if attempt.duration is not None else ""
    return f"{moment(attempt.at, now)}  {attempt.outcome} by {attempt.transport}{took}: {printable(str(attempt.reply))}"
