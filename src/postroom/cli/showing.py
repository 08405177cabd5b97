"""``postroom show``: one message, each of its recipients, and why it stands there."""

import sys
import time
from typing import Any

import click

from postroom.cli.exits import NO_INPUT, Refusal
from postroom.cli.options import Place, json_option, place_options
from postroom.cli.output import dim, echo_json, emphasise, iso, moment, printable, reply_json, size
from postroom.ids import format_id
from postroom.options import MessageOptions
from postroom.status import Explanation, recipient_status
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
    options = record.options or MessageOptions()
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
        "tenant": record.tenant,
        "ordering_key": record.ordering_key,
        "ret": options.ret,
        "envid": options.envid,
        "window": options.window,
        "report_of": None if options.report_of is None else format_id(options.report_of),
        "content_kept": record.content_kept,
        "recipients": [
            _recipient_json(recipient, explanation)
            for recipient, explanation in zip(record.recipients, explanations, strict=True)
        ],
    }


def _recipient_json(recipient: RecipientRecord, explanation: Explanation) -> dict[str, Any]:
    status = recipient_status(recipient)
    return {
        "recipient": recipient.index,
        "address": str(recipient.address),
        "original": None if status.original is None else str(status.original),
        "alternatives": [str(address) for address in status.alternatives],
        "via": list(status.via),
        "transport": recipient.transport,
        "state": recipient.state.label,
        "due": None if recipient.state.is_final else iso(recipient.due),
        "expires": iso(status.expires),
        "waits_for": status.waits_for,
        "attempts": recipient.attempts,
        "first_attempt": iso(recipient.first_attempt),
        "changed": iso(recipient.changed),
        "duration": recipient.duration,
        "in_doubt": recipient.in_doubt,
        "crashes": recipient.crashes,
        "remote_id": recipient.remote_id,
        "reported": recipient.reported,
        "reply": reply_json(recipient.reply),
        "detail": recipient.detail,
        "explanation": {
            "gate": explanation.gate, "until": iso(explanation.until), "rule": explanation.rule,
            "expires": iso(explanation.expires),
        },
        "history": [
            {"at": iso(attempt.at), "transport": attempt.transport, "outcome": attempt.outcome,
             "reply": reply_json(attempt.reply), "duration": attempt.duration, "detail": attempt.detail,
             "address": None if attempt.address is None else str(attempt.address)}
            for attempt in status.history
        ],
    }  # fmt: skip


def _echo(record: MessageRecord, explanations: tuple[Explanation, ...]) -> None:
    now = time.time()
    options = record.options or MessageOptions()
    click.echo(emphasise(f"{format_id(record.key)}  {printable(record.subject) or '(no subject)'}"))
    facts = [
        ("from", printable(record.sender) or "<> (the null reverse-path: no reports)"),
        ("submitted", moment(record.created, now)),
        ("expires", moment(record.expires, now) if record.expires is not None else ""),
        ("priority", {1: "urgent", -1: "non-urgent"}.get(record.priority, "")),
        ("size", f"{size(record.size)} octets" + ("" if record.content_kept else ", content removed")),
        ("Message-ID", printable(record.message_id)),
        ("key", printable(record.idempotency_key or "")),
        ("tenant", printable(record.tenant) if record.tenant != record.sender else ""),
        ("in order", _order_line(record.ordering_key)),
        ("window", options.window),
        ("ENVID", printable(options.envid)),
        ("about", format_id(options.report_of) if options.report_of is not None else ""),
        ("reports", record.report.replace(",", ", ") or "never"),
    ]
    for name, value in facts:
        if value:
            click.echo(f"  {name:<11}{value}")
    for recipient, explanation in zip(record.recipients, explanations, strict=True):
        click.echo()
        _echo_recipient(recipient, explanation, now)


def _order_line(key: str | None) -> str:
    if key is None:
        return ""
    # A key that cannot be given stands for a transport that keeps the order of submission.
    return (
        f"with all others of the key {key}" if key.isprintable() else "of submission, kept by its transport"
    )


def _echo_recipient(recipient: RecipientRecord, explanation: Explanation, now: float) -> None:
    status = recipient_status(recipient)
    doubt = "  (in doubt: it may have arrived)" if recipient.in_doubt else ""
    click.echo(
        f"{recipient.index}  {emphasise(printable(str(recipient.address)))}  {recipient.state.label}{doubt}"
    )
    final = recipient.state.is_final
    facts = [
        ("transport", recipient.transport),
        ("first was", str(status.original or "")),
        ("from list", " > ".join(status.via)),
        ("else to", ", ".join(map(str, status.alternatives))),
        ("settled", moment(recipient.changed, now) if final else ""),
        ("reply", str(recipient.reply or "-") if final else ""),
        ("reported", "to the sender" if recipient.reported else ""),
        ("waits at", "" if final else f"{explanation.gate}: {explanation.rule}"),
        ("until", moment(explanation.until, now) if explanation.until is not None else ""),
        ("expires", moment(explanation.expires, now) if explanation.expires is not None else ""),
        ("attempts", str(recipient.attempts) if recipient.attempts else ""),
    ]
    for name, value in facts:
        if value:
            click.echo(f"   {name:<10}{printable(value)}")
    if status.history:
        click.echo("   history")
        for attempt in status.history:
            _echo_attempt(attempt, now)
    if recipient.detail and not any(attempt.detail == recipient.detail for attempt in status.history):
        _echo_detail(recipient.detail)


def _echo_attempt(attempt: Attempt, now: float) -> None:
    if attempt.outcome == "operator":
        click.echo(f"     {moment(attempt.at, now)}  operator: {printable(str(attempt.reply))}")
    else:
        parts = [f"{attempt.outcome} by {attempt.transport}"]
        if attempt.address is not None:
            parts.append(f"to {attempt.address}")
        if attempt.duration is not None:
            parts.append(f"took {attempt.duration:.1f} s")
        if attempt.reply.tls:
            parts.append(attempt.reply.tls)
        click.echo(
            f"     {moment(attempt.at, now)}  {printable(', '.join(parts))}: {printable(str(attempt.reply))}"
        )
    if attempt.detail:
        _echo_detail(attempt.detail)


def _echo_detail(detail: str) -> None:
    for line in detail.splitlines():
        click.echo(dim(f"       {printable(line)}"))
