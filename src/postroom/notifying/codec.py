"""Events as JSON: one form for the journal, which reads it again, and one for others, who may rely on it.

The journal's form (:func:`encode`, :func:`decode`) has the names of the class and of its fields, and survives both
directions of an upgrade: what a newer Postroom added is passed over, what an older one did not write is "", 0, false
or None, and a kind that this one does not know is an :class:`UnknownEvent`.

The public form (:func:`to_public`) is what webhooks and browsers get, and is stable: names are only ever added::

    {
      "type": "recipient_failed",            the class in snake case
      "at": "2026-01-31T12:00:00.250Z",      this and the other times: RFC 3339, in UTC, to the millisecond
      "message_id": "0C8G3W1T0R004",         in the spool; of an incoming message in its folder
      "index": 0,                            the recipient within the message
      "address": "smtp:ann@example.org",     null when it was not known
      "transport": "smtp",
      "attempts": 1,
      "reply": {"text": "no such user", "status": "5.1.1", "code": 550, "remote": "mx.example.org", "tls": ""}
    }

The other fields, by type:

====================  ===========================================================================================
``message_queued``    message_id, sender, recipients (how many), size (octets)
``message_completed`` message_id
``recipient_…``       as above; ``recipient_accepted`` with remote_id, ``recipient_deferred`` with due,
                      ``recipient_reported`` with action and reporter
``new_message``       message_id, folder, subject, author, receiver, message_class, size, seen
``inbound_changed``   message_id, folder, change
``receiver_changed``  receiver, status, reason
``transport_changed`` transport, status, reason, until
``actor_restarted``   actor, incarnation, reason
====================  ===========================================================================================
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Final, cast, get_args, get_type_hints

from postroom import events
from postroom.addresses import Address
from postroom.events import Event
from postroom.outcomes import Reply

__all__ = ["CLASSES", "UnknownEvent", "decode", "encode", "public_name", "to_public"]


@dataclass(frozen=True, slots=True)
class UnknownEvent(Event):
    """Something that a newer Postroom wrote into the journal.

    Attributes:
        kind: the name of its class there.
        data: its fields, as JSON.
    """

    kind: str
    data: str


def _kinds() -> dict[str, type[Event]]:
    classes = [getattr(events, name) for name in events.__all__]
    return {each.__name__: each for each in classes}


CLASSES: Final[Mapping[str, type[Event]]] = MappingProxyType(_kinds())
"""The classes of events by name, those that others derive from included."""

_NEUTRAL: Final[Mapping[type, object]] = {str: "", int: 0, float: 0.0, bool: False}
_TIMES: Final = frozenset({"at", "due", "until"})
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_PLAIN_REPLY: Final = Reply()
_REPLY_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Reply))


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field of an event is written and read.

    Attributes:
        name: of the field.
        write: makes JSON's values of its own; None where they are the same.
        read: the other way round.
        neutral: stands for what was not written.
    """

    name: str
    write: Callable[[Any], object] | None
    read: Callable[[Any], object] | None
    neutral: object


def encode(event: Event) -> tuple[str, str]:
    """Return an event's kind and the rest of it, all but ``at``, as compact JSON. Pure and thread-safe."""
    if isinstance(event, UnknownEvent):
        return event.kind, event.data
    kind = type(event).__name__
    said: dict[str, object] = {}
    for field in _FIELDS[kind]:
        value = getattr(event, field.name)
        said[field.name] = value if field.write is None or value is None else field.write(value)
    return kind, _json(said)


def decode(kind: str, at: float, data: str) -> Event:
    """Return the event that :func:`encode` was given. Pure and thread-safe.

    Args:
        kind: as written.
        at: wall-clock seconds.
        data: as written, perhaps by another version of Postroom.

    Returns:
        the event; an :class:`UnknownEvent` when this version has no such kind.

    Raises:
        ValueError: the data are not JSON, or not an event's.
    """
    made = CLASSES.get(kind)
    if made is None:
        return UnknownEvent(at, kind, data)
    read: Any = json.loads(data)
    if not isinstance(read, dict):
        raise ValueError(f"a {kind} is a JSON object, not {data[:40]!r}")  # noqa: TRY004 - as other unusable JSON
    said = cast("dict[str, Any]", read)
    values: list[object] = [at]
    for field in _FIELDS[kind]:
        value = said.get(field.name, field.neutral)
        values.append(value if field.read is None or value is None else field.read(value))
    build = cast("Callable[..., Event]", made)
    return build(*values)


def to_public(event: Event) -> dict[str, Any]:
    """Return an event as others get it, ready for ``json.dumps``; see the module's docstring. Pure, thread-safe."""
    public: dict[str, Any] = {"type": public_name(type(event))}
    for field in dataclasses.fields(event):
        public[field.name] = _public(field.name, getattr(event, field.name))
    return public


def public_name(kind: type[Event]) -> str:
    """Return the public name of a class of events: "new_message" for ``NewMessage``."""
    return _WORD.sub("_", kind.__name__).lower()


def _json(said: object) -> str:
    text = _ENCODER.encode(said)
    # Lone surrogates stand for octets that nobody could decode; a database of UTF-8 texts has no form for them.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _public(name: str, value: object) -> object:
    match value:
        case Address():
            return str(value)
        case Reply():
            return {each: _public(each, getattr(value, each)) for each in _REPLY_FIELDS}
        case str():
            return value.encode("utf-8", "replace").decode()
        case float() if not math.isfinite(value):
            return None
        case float() if name in _TIMES:
            return _timestamp(value)
        case _:
            return value


def _timestamp(seconds: float) -> str | None:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_address(text: str) -> Address:
    kind, _, value = text.partition(":")
    return Address(kind, value)


def _write_reply(reply: Reply) -> dict[str, object]:
    return {
        name: value
        for name in _REPLY_FIELDS
        if (value := getattr(reply, name)) != getattr(_PLAIN_REPLY, name)
    }


def _read_reply(said: Mapping[str, Any]) -> Reply:
    return Reply(**{name: value for name, value in said.items() if name in _REPLY_FIELDS})


def _field(name: str, hint: Any) -> _Field:
    choices: set[Any] = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
    plain = choices - {NoneType}
    if plain == {Address}:
        return _Field(name, str, _read_address, None)
    if plain == {Reply}:
        return _Field(name, _write_reply, _read_reply, None)
    if len(plain) == 1 and plain <= _NEUTRAL.keys():
        return _Field(name, None, None, None if NoneType in choices else _NEUTRAL[plain.pop()])
    raise TypeError(f"an event's field {name} of type {hint} has no form in JSON; teach notifying.codec")


def _fields(kind: type[Event]) -> tuple[_Field, ...]:
    hints = get_type_hints(kind)
    return tuple(_field(f.name, hints[f.name]) for f in dataclasses.fields(kind) if f.name != "at")


_FIELDS: Final = {name: _fields(kind) for name, kind in CLASSES.items()}
