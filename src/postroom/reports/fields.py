"""The part of a report that programs read: message/delivery-status (RFC 3464), or its UTF-8 form (RFC 6533)."""

import re
from collections.abc import Iterator
from email.utils import formatdate
from typing import Final

from postroom.outcomes import Reply
from postroom.reports.addressing import field, host_in, one_line, original_recipient, typed_address
from postroom.reports.facts import Action, ReportedRecipient, ReportFacts

__all__ = ["delivery_status", "diagnostic", "status_of"]

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_CLASSES: Final = {Action.FAILED: "5", Action.DELAYED: "4"}
_EXPIRED: Final = "4.4.7"
"""RFC 3463 section 3.5: delivery time expired; the code of the actual problem is preferred."""


def delivery_status(facts: ReportFacts) -> str:
    """Return the fields of the message, and then of each recipient, with CRLF line ends."""
    utf8 = facts.internationalised
    groups = [_message_fields(facts), *(_recipient_fields(facts, r) for r in facts.recipients)]
    return "\r\n".join("".join(field(name, value, utf8=utf8) for name, value in group) for group in groups)


def _message_fields(facts: ReportFacts) -> Iterator[tuple[str, str]]:
    if facts.envid:
        yield "Original-Envelope-Id", facts.envid
    yield "Reporting-MTA", f"dns; {facts.reporting_mta}"
    yield "Arrival-Date", formatdate(facts.created)
    yield "X-Postroom-Message", facts.id
    if facts.double_bounce:
        yield "X-Postroom-Report", "double bounce"


def _recipient_fields(facts: ReportFacts, recipient: ReportedRecipient) -> Iterator[tuple[str, str]]:
    utf8 = facts.internationalised
    original = original_recipient(recipient.orcpt, recipient.original, utf8=utf8)
    if original:
        yield "Original-Recipient", original
    yield "Final-Recipient", typed_address(recipient.address, utf8=utf8)
    yield "Action", recipient.action.value
    yield "Status", status_of(recipient)
    reply = recipient.reply
    if reply is not None:
        if reply.remote:
            yield "Remote-MTA", _remote_mta(reply.remote)
        if recipient.action not in {Action.DELIVERED, Action.EXPANDED} or reply.code is not None:
            yield "Diagnostic-Code", diagnostic(reply, recipient.protocol)
    if recipient.last_attempt is not None:
        yield "Last-Attempt-Date", formatdate(recipient.last_attempt)
    yield "Final-Log-ID", f"{facts.id}/{recipient.index}"
    if recipient.action is Action.DELAYED and recipient.retry_until is not None:
        yield "Will-Retry-Until", formatdate(recipient.retry_until)
    if recipient.original is not None:
        yield "X-Postroom-Original-Address", typed_address(recipient.original, utf8=utf8)
    for former in recipient.former:
        said = diagnostic(former.reply, "smtp" if former.address.type == "smtp" else "")
        yield "X-Postroom-Former-Address", f"{typed_address(former.address, utf8=utf8)}; {said}"
    if recipient.via:
        yield "X-Postroom-List", " > ".join(recipient.via)


def _remote_mta(remote: str) -> str:
    """Return the value of Remote-MTA for a host, "host:port" or the path of a socket."""
    if remote.startswith("/"):
        return f"x-unix; {remote}"
    return f"dns; {host_in(remote)}"


def status_of(recipient: ReportedRecipient) -> str:
    """Return the enhanced status code (RFC 3463) for a recipient: what the other side said, if that fits the action."""
    said = recipient.status or (recipient.reply.status if recipient.reply is not None else "")
    known = said if _STATUS.fullmatch(said) else ""
    if recipient.action is Action.FAILED and recipient.expired:
        return known if known[:1] in {"4", "5"} else _EXPIRED
    wanted = _CLASSES.get(recipient.action, "2")
    if not known or (known[0] == "2") != (wanted == "2"):
        return f"{wanted}.0.0"
    # A refusal's detail says what was wrong, its class what we made of it.
    return wanted + known[1:]


def diagnostic(reply: Reply, protocol: str) -> str:
    """Return the value of Diagnostic-Code for what was said in a protocol, "" when it was us who said it."""
    # RFC 3464 section 2.3.6: "smtp" is for what an SMTP server really said.
    if protocol == "smtp" and reply.code is not None:
        kind = "smtp"
    elif protocol == "http" and reply.code is not None:
        kind = "x-http"
    else:
        kind = "x-postroom"
    said = " ".join(part for part in (str(reply.code or ""), reply.status, reply.text) if part)
    return f"{kind}; {one_line(said) or 'no reason was given'}"
