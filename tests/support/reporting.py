"""What the tests of reports share: facts to report, and a report taken apart."""

from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.policy import HTTP
from typing import Any

from flufl.bounce import all_failures  # pyright: ignore[reportUnknownVariableType] # its argument is untyped
from prometheus_client import CollectorRegistry

from postroom.addresses import parse_address
from postroom.outcomes import Reply
from postroom.reports.facts import Action, ReportedRecipient, ReportFacts

CREATED = 1_700_000_000.0
ORIGINAL = (
    b"From: App <app@example.org>\r\nTo: ann@example.net\r\nSubject: Invoice 4711\r\n"
    b"Message-ID: <m1@example.org>\r\n\r\nHello Ann\r\n"
)
REFUSED = Reply("user unknown", "5.1.1", 550, "mx.example.net:25")


def recipient(address: str, action: Action = Action.FAILED, **more: Any) -> ReportedRecipient:
    """Return a recipient, refused or not by an SMTP server unless told otherwise."""
    replies = {
        Action.FAILED: REFUSED,
        Action.DELAYED: Reply("greylisted", "4.7.1", 451, "mx.example.net:25"),
    }
    more.setdefault("reply", replies.get(action, Reply("queued", "2.0.0", 250, "mx.example.net:25")))
    more.setdefault("index", 0)
    more.setdefault("attempts", 1)
    more.setdefault("last_attempt", CREATED + 60)
    more.setdefault("protocol", "smtp")
    return ReportedRecipient(address=parse_address(address), action=action, **more)


def facts(*recipients: ReportedRecipient, **more: Any) -> ReportFacts:
    """Return facts about a message with these recipients and no others."""
    values: dict[str, Any] = {
        "id": "01HFABCDEFGHJ",
        "sender": "app@example.org",
        "subject": "Invoice 4711",
        "message_id": "<m1@example.org>",
        "created": CREATED,
        "recipients": recipients,
        "total": len(recipients),
        "original": ORIGINAL,
        "reporting_mta": "mail.example.org",
        "author": "Mail Delivery System <postmaster@mail.example.org>",
        "unique": "01HFABCDEFGHJ.report.0011223344aa",
        "now": CREATED + 3600,
        "max_original": 50_000,
    }
    values.update(more)
    values.setdefault("to", values["sender"])
    return ReportFacts(**values)


@dataclass(frozen=True)
class Taken:
    """A report taken apart without a parser: its header's field names, and the head and octets of each part."""

    names: list[str]
    parts: list[tuple[bytes, bytes]]


def failures(report: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return what a bounce parser that others wrote makes of a report: temporary and permanent failures."""
    temporary, permanent = all_failures(message_from_bytes(report))  # pyright: ignore[reportUnknownVariableType] # its argument is untyped
    return set(temporary), set(permanent)


def reports_counted(registry: CollectorRegistry, kind: str, result: str) -> float:
    """Return how many reports of a kind had a result."""
    return registry.get_sample_value("postroom_reports_total", {"kind": kind, "result": result}) or 0.0


def taken_apart(report: bytes) -> Taken:
    """Return the parts of a report octet for octet, cut at its boundary."""
    head, _, body = report.partition(b"\r\n\r\n")
    boundary = head.partition(b'boundary="')[2].partition(b'"')[0]
    assert boundary
    names = [
        line.partition(b":")[0].decode() for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))
    ]
    pieces = body.split(b"\r\n--" + boundary)
    assert pieces[-1] == b"--\r\n"
    parts: list[tuple[bytes, bytes]] = []
    for piece in pieces[1:-1]:
        part_head, _, content = piece[2:].partition(b"\r\n\r\n")
        parts.append((part_head, content))
    return Taken(names, parts)


def status_blocks(report: bytes) -> list[Message]:
    """Return the groups of fields of the delivery status, the message's first."""
    _, content = taken_apart(report).parts[1]
    return [message_from_bytes(block + b"\r\n", policy=HTTP) for block in content.split(b"\r\n\r\n")]
