"""A message as JSON, for receivers that would rather not parse RFC 5322.

The body of a request is one object, the same at every attempt::

    {
      "id": "0C8G3W1T0R004",                 the message's id in the spool
      "type": "message",
      "created": "2026-01-31T12:00:00.250Z", when it was submitted
      "sender": "app@example.org",           envelope sender, "" for none
      "recipient": "https://hooks.example.org/x",
      "subject": "Grüße",                    null when there is none
      "headers": [["From", "app@example.org"], ...],    decoded, in order, repeated ones repeated
      "text": "...",                         the plain text, null when there is none; line ends are LF
      "html": "...",                         the HTML alternative, null when there is none; line ends are LF
      "attachments": [{"filename": "a.pdf",  null when there is none
                       "content_type": "application/pdf",
                       "content_id": null, "inline": false,
                       "size": 1234,         octets, before base64
                       "content": "<base64>"}]
    }

An announcement of events (:mod:`postroom.notifying.subscribers`) has JSON as its content, and that is the body.

Nothing here raises for a malformed message: what cannot be decoded is shown with replacement characters.
"""

import base64
import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message
from typing import Any

from postroom.delivery import Delivery, Target

__all__ = ["JsonBody"]

# The older policy does not parse header values, and so does not stumble over malformed ones while taking the
# message apart; the newer one decodes values better and is asked for them one by one.
_STRUCTURE = policy.compat32.clone(linesep="\r\n", mangle_from_=False)
_VALUES = policy.default


class JsonBody:
    """The JSON of one delivery; the message is parsed once for all its targets."""

    def __init__(self, delivery: Delivery) -> None:
        message = message_from_bytes(delivery.content, policy=_STRUCTURE)
        announces = delivery.options is not None and delivery.options.announces
        self._announcement = _octets(message) if announces else None
        headers = list(_headers(message))
        leaves = list(_leaves(message))
        text = _shown(leaves, "text/plain")
        html = _shown(leaves, "text/html")
        self._fields: dict[str, Any] = {
            "id": delivery.message_id,
            "type": "message",
            "created": _timestamp(delivery.created),
            "sender": delivery.sender,
            "recipient": "",
            "subject": next((value for name, value in headers if name.lower() == "subject"), None),
            "headers": headers,
            "text": None if text is None else _text(text),
            "html": None if html is None else _text(html),
            "attachments": [_attachment(part) for part in leaves if part is not text and part is not html],
        }

    def encode(self, target: Target) -> bytes:
        """Return the body for one recipient, in UTF-8."""
        if self._announcement is not None:
            return self._announcement
        fields = self._fields | {"recipient": str(target.address)}
        # Lone surrogates stand for octets that nobody could decode; UTF-8 has no form for them.
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _headers(message: Message) -> Iterator[tuple[str, str]]:
    for name, raw in message.raw_items():
        value = str(raw)
        with contextlib.suppress(Exception):  # the standard library raises various errors at malformed values
            value = str(_VALUES.header_fetch_parse(name, value))
        yield name, "".join(value.splitlines())


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that are not multipart; an attached message/rfc822 is one part and is not entered."""
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        for part in _parts(message):
            yield from _leaves(part)
    else:
        yield message


def _parts(message: Message) -> list[Message]:
    payload: Any = message.get_payload()
    return list(payload)


def _shown(leaves: list[Message], content_type: str) -> Message | None:
    """Return the part that a mail reader would show as the body of that type, or None."""
    for part in leaves:
        is_file = part.get_content_disposition() == "attachment" or _filename(part) is not None
        if part.get_content_type() == content_type and not is_file:
            return part
    return None


def _filename(part: Message) -> str | None:
    name = part.get_filename()
    if name is not None:
        with contextlib.suppress(
            Exception
        ):  # an encoded word has no place in a parameter, and is common there
            name = str(make_header(decode_header(name)))
    return name


def _octets(part: Message) -> bytes:
    if part.is_multipart():  # message/rfc822: the parser has taken it apart
        return b"".join(inner.as_bytes(policy=_STRUCTURE) for inner in _parts(part))
    payload: Any = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    octets = _octets(part)
    try:
        text = octets.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # a charset that Python does not know
        text = octets.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _attachment(part: Message) -> dict[str, Any]:
    content = _octets(part)
    content_id = part.get("Content-ID")
    return {
        "filename": _filename(part),
        "content_type": part.get_content_type(),
        "content_id": None if content_id is None else str(content_id).strip("<> "),
        "inline": part.get_content_disposition() == "inline",
        "size": len(content),
        "content": base64.b64encode(content).decode("ascii"),
    }
