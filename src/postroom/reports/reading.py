"""Reading what other systems report about our messages, out of messages that come in. Pure.

Understood are delivery status notifications (RFC 3464, and RFC 6533 with addresses in UTF-8), disposition
notifications (RFC 8098) and feedback reports (RFC 5965), also where the message calls itself something else than
multipart/report; and bounces in words where they come to an address that we signed for one recipient (see
:mod:`postroom.reports.reading_classic`). Everything else is ordinary mail.

What is read is only what somebody *says*. A message's number is in it only with our signature
(:mod:`postroom.tokens`): in the address that the report came to, in its Original-Envelope-Id, or in the envelope sender
that a feedback report quotes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from postroom.inbound.fields import Fields, addresses, decoded
from postroom.inbound.values import RemoteReport
from postroom.reports.reading_classic import read_classic
from postroom.reports.reading_fields import moment, taken_apart
from postroom.reports.reading_status import (
    MAX_RECIPIENTS,
    read_delivery_status,
    read_disposition,
    read_feedback,
)
from postroom.tokens import Named, Tokens

__all__ = ["read_reports"]

_STATUS_LOOK: Final = 1024 * 1024
"""Octets of the fields for programs that are looked at."""

_ARRIVED_AT: Final = ("delivered-to", "x-original-to", "envelope-to", "to")
"""Fields that tell the address which a message came to, where its envelope is not known."""

_MOST_ADDRESSES: Final = 100


def read_reports(
    content: bytes,
    *,
    recipients: Sequence[str] = (),
    tokens: Tokens | None = None,
    sender: str | None = None,
) -> tuple[RemoteReport, ...]:
    """Return what a message reports about messages of ours, () for ordinary mail. Never raises for any octets.

    The work is bounded: of a body 8 MiB are looked through for the parts, of what programs read 1 MiB and 1,000
    recipients are looked at. Thread-safe.

    Args:
        content: the message.
        recipients: envelope recipients that it came to, () where they are not known: then its header tells.
        tokens: tell addresses and envelope ids of ours; None where none are made.
        sender: envelope sender, "" for the null reverse-path; None where it is not known: then Return-Path tells.
    """
    fields = Fields(content)
    named = _named(fields, recipients, tokens)
    report = _structured(content, fields, tokens)
    if report is None and named is not None and _is_null(fields, sender):
        report = read_classic(content, fields)
    if report is None:
        return ()
    if report.at is None:
        report = replace(report, at=moment(fields.raw("date")))
    if named is not None:
        # Who is told by an address of ours is the spool, and not yet the sender.
        return (_about(replace(report, told=False), named),)
    key = tokens.read_envid(report.envid) if tokens is not None and report.key is None else report.key
    return (replace(report, key=key),)


def _structured(content: bytes, fields: Fields, tokens: Tokens | None) -> RemoteReport | None:
    report = taken_apart(content, fields, _STATUS_LOOK)
    if report is None:
        return None
    if report.kind == "dsn":
        return read_delivery_status(report)
    if report.kind == "mdn":
        return read_disposition(report)
    feedback = read_feedback(report)
    if feedback is None:
        return None
    said, mail_from = feedback
    named = tokens.read(mail_from) if tokens is not None else None
    return said if named is None else _about(said, named)


def _about(report: RemoteReport, named: Named) -> RemoteReport:
    """Return a report that is about one recipient, whatever addresses it was forwarded to since.

    Where these fared differently, the failure is what the sender has to know, so it comes first.
    """
    said = [replace(recipient, index=named.index) for recipient in report.recipients]
    said.sort(key=lambda recipient: recipient.action != "failed")
    return replace(report, key=named.key, recipients=tuple(said))


def _named(fields: Fields, recipients: Sequence[str], tokens: Tokens | None) -> Named | None:
    if tokens is None:
        return None
    came_to = list(recipients[:MAX_RECIPIENTS])
    if not came_to:
        for name in _ARRIVED_AT:
            for value in fields.all(name)[:_MOST_ADDRESSES]:
                came_to += addresses(value)[:_MOST_ADDRESSES]
    return next((found for address in came_to if (found := tokens.read(address)) is not None), None)


def _is_null(fields: Fields, sender: str | None) -> bool:
    if sender is not None:
        return not sender
    return decoded(fields.raw("return-path")) == "<>"
