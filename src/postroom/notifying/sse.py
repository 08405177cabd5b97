"""Server-sent events on the wire (WHATWG HTML, section 9.2), and what a request asks for. Pure."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from postroom.events import Event
from postroom.notifying.codec import public_name, to_public

__all__ = [
    "HEADERS",
    "METHODS",
    "Place",
    "begin",
    "event_frame",
    "headers_of",
    "heartbeat",
    "place_of",
    "reset_frame",
    "status_line",
]

METHODS: Final = "GET, HEAD, OPTIONS"

HEADERS: Final[Sequence[tuple[str, str]]] = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),  # nginx and those who learned from it collect answers otherwise
)


class Place(NamedTuple):
    """Where a client goes on.

    Attributes:
        after: the last cursor that it knows; None for what happens from now on.
        lost: it knows one that cannot be ours.
    """

    after: int | None
    lost: bool = False


def place_of(last_event_id: str, query: str) -> Place | None:
    """Return where a client goes on: the header, which it sends when it comes back, counts before ``?after=``.

    Args:
        last_event_id: the header Last-Event-ID, "" without.
        query: the query of the URL.

    Returns:
        None if the query makes no sense.
    """
    known = last_event_id.strip()
    if known:
        return Place(int(known)) if _is_cursor(known) else Place(None, lost=True)
    asked = parse_qs(query, keep_blank_values=True).get("after")
    if asked is None:
        return Place(None)
    return Place(int(asked[-1])) if _is_cursor(asked[-1]) else None


def _is_cursor(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def begin(retry: float, cursor: int) -> bytes:
    """Return the beginning of a stream: after how many seconds to come back, and the place that it begins at.

    The place is set without an event, so that who is cut off before the first one misses nothing.
    """
    return f"retry: {round(retry * 1000)}\nid: {cursor}\n\n".encode()


def event_frame(event: Event, cursor: int | None) -> bytes:
    """Return an event: named as its type, with its public JSON as data, and its cursor as the id if it has one."""
    public = to_public(event) if cursor is None else to_public(event) | {"cursor": cursor}
    # Line ends in texts are escaped by JSON, so that the data is one line.
    data = json.dumps(public, ensure_ascii=False, separators=(",", ":"))
    return _frame(public_name(type(event)), data, cursor)


def reset_frame(cursor: int) -> bytes:
    """Return the event that says: more has happened than can be told; load everything anew."""
    return _frame("reset", f'{{"type":"reset","cursor":{cursor}}}', cursor)


def heartbeat(cursor: int) -> bytes:
    """Return a comment that keeps the connection open, with the place that the client has come to without events."""
    return f":\nid: {cursor}\n\n".encode()


def _frame(name: str, data: str, cursor: int | None) -> bytes:
    place = "" if cursor is None else f"id: {cursor}\n"
    return f"{place}event: {name}\ndata: {data}\n\n".encode("utf-8", "replace")


def headers_of(status: HTTPStatus, retry: float) -> list[tuple[str, str]]:
    """Return the headers of an answer without a stream."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    extra: Mapping[HTTPStatus, tuple[str, str]] = {
        HTTPStatus.NO_CONTENT: ("Allow", METHODS),
        HTTPStatus.METHOD_NOT_ALLOWED: ("Allow", METHODS),
        HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After", str(max(1, round(retry)))),
    }
    if status is HTTPStatus.NO_CONTENT:
        headers = headers[1:]
    if status in extra:
        headers.append(extra[status])
    return headers


def status_line(status: HTTPStatus) -> str:
    """Return the status as WSGI wants it."""
    return f"{status.value} {status.phrase}"
