"""The verdict of the demo: what was accepted against what the receivers have on disk."""

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from postroom.addresses import parse_address
from postroom.demo.mail import ID_HEADER, Specimen
from postroom.demo.recording import read_records

__all__ = ["Arrivals", "Found", "arrivals", "compare"]

Copy = tuple[str, str]
"""The value of the id header, and the recipient's canonical address."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the receivers have.

    Attributes:
        expected: copies that had to arrive: one for each recipient of each accepted message.
        arrived: those that did, each counted once.
        missing: those that did not.
        altered: copies whose content differs from the spool's.
        duplicates: copies beyond the first.
        unexpected: copies that nobody submitted.
        forged: webhooks whose signature was refused.
        by_receiver: copies by receiver.
    """

    expected: int
    arrived: int
    missing: tuple[Copy, ...]
    altered: tuple[Copy, ...]
    duplicates: int
    unexpected: int
    forged: int
    by_receiver: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether every copy is there, as it was submitted, and nothing else."""
        return not (self.missing or self.altered or self.unexpected or self.forged)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One copy at a receiver: whose it is, where, and whether its content is that of the given octets."""

    copy: Copy
    receiver: str
    genuine: bool
    matches: Callable[[bytes], bool]


def arrivals(smtp: Path, http: Path, http_port: int, maildirs: Path) -> Iterator[Arrivals]:
    """Yield every copy that the receivers have on disk."""
    for facts, content in read_records(smtp):
        number = _header(content)
        for recipient in facts["recipients"]:
            yield Arrivals((number, f"smtp:{recipient}"), "SMTP server", True, _same(content))
    for facts, body in read_records(http):
        address = str(parse_address(f"http://127.0.0.1:{http_port}{facts['path']}"))
        document: dict[str, Any] = json.loads(body)
        number = next((value for name, value in document["headers"] if name == ID_HEADER), "")
        yield Arrivals((number, address), "HTTP receiver", facts["genuine"], _says(document))
    for file in sorted(maildirs.glob("*/new/*")):
        stored = file.read_bytes()
        # Return-Path and Delivered-To are the delivery's own; a Maildir has LF where mail has CRLF.
        content = stored.split(b"\n", 2)[2].replace(b"\n", b"\r\n")
        yield Arrivals(
            (_header(content), f"maildir:{file.parent.parent.name}"), "Maildirs", True, _same(content)
        )


def compare(
    accepted: Mapping[int, Specimen], found: Iterator[Arrivals], content: Callable[[int], bytes | None]
) -> Found:
    """Compare.

    Args:
        accepted: the messages for which ``submit()`` returned, by number.
        found: what the receivers have.
        content: returns what the spool holds of a message, by number.
    """
    expected = {
        (str(number), str(parse_address(address)))
        for number, specimen in accepted.items()
        for address in specimen.to
    }
    counted: Counter[Copy] = Counter()
    by_receiver: Counter[str] = Counter()
    altered: list[Copy] = []
    forged = 0
    for arrival in found:
        if not arrival.genuine:
            forged += 1
            continue
        counted[arrival.copy] += 1
        by_receiver[arrival.receiver] += 1
        if arrival.copy in expected:
            octets = content(int(arrival.copy[0]))
            if octets is None or not arrival.matches(octets):
                altered.append(arrival.copy)
    known = [copy for copy in counted if copy in expected]
    return Found(
        expected=len(expected), arrived=len(known), missing=tuple(sorted(expected - set(known))),
        altered=tuple(altered), duplicates=sum(counted[copy] - 1 for copy in known),
        unexpected=len(counted) - len(known), forged=forged, by_receiver=dict(by_receiver),
    )  # fmt: skip


def _header(content: bytes) -> str:
    return str(message_from_bytes(content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n").get(ID_HEADER, ""))


def _same(content: bytes) -> Callable[[bytes], bool]:
    return lambda octets: octets == content


def _says(document: Mapping[str, Any]) -> Callable[[bytes], bool]:
    """Return a comparison of a webhook's JSON with a message, made with the standard library alone."""

    def matches(octets: bytes) -> bool:
        message = message_from_bytes(octets, policy=policy.default)
        text = message.get_body(("plain",))
        return (
            document["subject"] == message["Subject"]
            and document["text"] == (text.get_content().replace("\r\n", "\n") if text is not None else None)
            and sorted(b64decode(each["content"]) for each in document["attachments"])
            == sorted(_files(message))
        )

    return matches


def _files(message: EmailMessage) -> Iterator[bytes]:
    for part in message.walk():
        if part.get_filename() is not None:
            octets: Any = part.get_payload(decode=True)
            yield octets
