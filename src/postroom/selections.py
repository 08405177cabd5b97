"""Selections: which recipients an operator means.

A selection is a value: what it says must all hold, and what it does not say does not matter. It says the same of a row
in the spool (:mod:`postroom.stores.selecting`), of a record in memory (:meth:`Selection.matches`), and, as far as that
can be known then, of what is just being submitted (:meth:`Selection.concerns`).
"""

import json
import re
from dataclasses import dataclass, fields
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final, Protocol, cast

from postroom.addresses import Address, has_type, parse_address
from postroom.errors import UsageError
from postroom.ids import format_id, parse_id
from postroom.lanes import destination_of
from postroom.outcomes import Reply
from postroom.recipients import State

__all__ = ["Selection", "error_matches", "text_matches"]

_STATES: Final = {state.label: state for state in State}
_STATUS_GLOB: Final = re.compile(r"[245*?]\.[0-9.*?]+|[245]\d?\*")
"""A glob over enhanced status codes (RFC 3463), rather than a text to look for."""
_TEXTS: Final = (
    "transport",
    "destination",
    "address",
    "address_type",
    "sender",
    "tenant",
    "subject",
    "error",
)


class SelectableMessage(Protocol):
    """What a selection looks at in a message."""

    @property
    def key(self) -> int: ...
    @property
    def sender(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def created(self) -> float: ...
    @property
    def tenant(self) -> str: ...


class SelectableRecipient(Protocol):
    """What a selection looks at in a recipient."""

    @property
    def index(self) -> int: ...
    @property
    def address(self) -> Address: ...
    @property
    def transport(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def reply(self) -> Reply | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which recipients are meant. Immutable; two that say the same are equal.

    Globs know ``*``, ``?`` and ``[seq]`` and, like the other texts, do not tell upper from lower case.

    Attributes:
        ids: ids of messages.
        recipients: numbers of recipients within these messages.
        states: states; none means all to which the action applies.
        transport: the name of the transport that has it.
        destination: the domain or host that the address is at, or a glob over it.
        address: the address, or a glob over "type:value"; without a type it is a mailbox.
        address_type: "smtp", "sms" and the like.
        sender: the envelope sender or a glob over it; "<>" for the null reverse-path.
        tenant: whose it is.
        subject: a part of the subject.
        older_than: seconds since it was submitted, at least.
        newer_than: seconds since it was submitted, less than.
        error: a part of what was said last, or a glob over its status code, as "4.*" or "5.1.?".
        everything: really all; a selection must say this or something else.

    Raises:
        UsageError: nothing is said, or something cannot be meant; names the field.
    """

    ids: tuple[str, ...] = ()
    recipients: tuple[int, ...] = ()
    states: tuple[State, ...] = ()
    transport: str | None = None
    destination: str | None = None
    address: str | None = None
    address_type: str | None = None
    sender: str | None = None
    tenant: str | None = None
    subject: str | None = None
    older_than: float | None = None
    newer_than: float | None = None
    error: str | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        for name in ("ids", "recipients", "states"):
            self._set(name, _listed(name, getattr(self, name)))
        for name in _TEXTS:
            _check_text(name, getattr(self, name), may_be_empty=name in {"sender", "tenant"})
        for name in ("older_than", "newer_than"):
            _check_seconds(name, getattr(self, name))
        self._set("ids", tuple(format_id(parse_id(text)) for text in self.ids))
        self._set("states", tuple(sorted({_state(state) for state in self.states})))
        self._set("address_type", self.address_type and self.address_type.lower())
        self._set("address", self.address and _canonical(self.address))
        self._set("sender", "" if self.sender == "<>" else self.sender)
        self._check_together()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_together(self) -> None:
        if not all(type(number) is int and number >= 0 for number in self.recipients):
            raise UsageError(
                "recipients", f"{self.recipients!r} are not numbers", "give numbers from 0, as in status()"
            )
        if self.recipients and not self.ids:
            raise UsageError("recipients", "are numbers within messages that are not named", "give ids too")
        if self.older_than is not None and self.newer_than is not None and self.older_than >= self.newer_than:
            raise UsageError(
                "older_than", "leaves no age below newer_than", "let older_than be the smaller one"
            )
        if not self.everything and not self.said:
            raise UsageError(
                "selection", "selects nothing in particular", "narrow it down, or say everything=True"
            )

    @property
    def said(self) -> tuple[str, ...]:
        """The names of the fields that narrow it down."""
        return tuple(
            field.name
            for field in fields(self)
            if field.name != "everything" and getattr(self, field.name) not in {None, ()}
        )

    @property
    def keys(self) -> tuple[int, ...]:
        """The numbers of the messages in ``ids``."""
        return tuple(map(parse_id, self.ids))

    def concerns(self, *, sender: str, tenant: str, subject: str, address: Address, transport: str) -> bool:
        """Return whether what is known of a recipient from the start fits. Pure.

        Args:
            sender: envelope sender, "" for the null reverse-path.
            tenant: whose share it uses.
            subject: decoded.
            address: where it goes.
            transport: who has it, or will have it.
        """
        return (
            (self.transport is None or self.transport == transport)
            and (self.tenant is None or self.tenant == tenant)
            and (self.address_type is None or self.address_type == address.type)
            and (self.sender is None or text_matches(self.sender, sender))
            and (self.subject is None or self.subject.casefold() in subject.casefold())
            and (self.address is None or text_matches(self.address, str(address)))
            and (self.destination is None or text_matches(self.destination, destination_of(address)))
        )

    def matches(self, message: SelectableMessage, recipient: SelectableRecipient, now: float) -> bool:
        """Return whether a recipient of a message is meant. Pure.

        Args:
            message: a :class:`postroom.stores.base.MessageRecord` or the like.
            recipient: one of its recipients.
            now: wall-clock seconds, for the age.
        """
        return (
            (not self.ids or format_id(message.key) in self.ids)
            and (not self.recipients or recipient.index in self.recipients)
            and (not self.states or recipient.state in self.states)
            and (self.older_than is None or message.created <= now - self.older_than)
            and (self.newer_than is None or message.created > now - self.newer_than)
            and (self.error is None or error_matches(self.error, recipient.reply))
            and self.concerns(
                sender=message.sender,
                tenant=message.tenant,
                subject=message.subject,
                address=recipient.address,
                transport=recipient.transport,
            )
        )

    def to_json(self) -> str:
        """Return it as JSON, without what it does not say."""
        said = {name: getattr(self, name) for name in self.said}
        if self.states:
            said["states"] = [state.label for state in self.states]
        if self.everything:
            said["everything"] = True
        return json.dumps(said, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Selection":
        """Return what :meth:`to_json` wrote.

        Raises:
            UsageError: it is not JSON, or says something that is not known here.
        """
        try:
            given: Any = json.loads(text)
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise UsageError(
                "selection", f"{text[:100]!r} is not a JSON object", "give what to_json() returns"
            )
        said = cast("dict[str, Any]", given)
        known = {field.name for field in fields(Selection)}
        if unknown := sorted(set(said) - known):
            raise UsageError(
                "selection", f"{', '.join(unknown)} is unknown", f"known are {', '.join(sorted(known))}"
            )
        return Selection(**said)

    def __str__(self) -> str:
        if not self.said:
            return "everything"
        parts: list[str] = []
        for name in self.said:
            value: Any = getattr(self, name)
            if name == "states":
                value = ",".join(state.label for state in self.states)
            elif isinstance(value, tuple):
                value = ",".join(map(str, cast("tuple[object, ...]", value)))
            elif isinstance(value, float | int):
                value = f"{value:g}s"
            parts.append(f"{name}={value or '<>'}")
        return " ".join(parts)


def _listed(name: str, given: Any) -> tuple[Any, ...]:
    try:
        if not isinstance(given, str):
            return tuple(given)
    except TypeError:
        pass
    raise UsageError(name, f"{given!r} is not a list", f"give {name}=[…]")


def _state(given: Any) -> State:
    try:
        return _STATES[given] if isinstance(given, str) else State(given)
    except (KeyError, ValueError):
        raise UsageError("states", f"{given!r} is no state", f"give some of {', '.join(_STATES)}") from None


def _check_text(name: str, value: Any, *, may_be_empty: bool) -> None:
    if value is not None and not isinstance(value, str):
        raise UsageError(name, f"{value!r} is not a text", "give a str, or None for any")
    if value == "" and not may_be_empty:
        raise UsageError(name, "is empty", "give a text, or None for any")


def _check_seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UsageError(name, f"{value!r} is no length of time", "give seconds from 0, or None for any age")


def _canonical(text: str) -> str:
    """Return an address as it is on the record, or a glob with its type."""
    if "*" not in text and "?" not in text:
        try:
            return str(parse_address(text))
        except UsageError:
            pass
    return text if has_type(text) else f"smtp:{text}"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Return the pattern of a glob; None for a text that is none, which must be equal."""
    if not any(char in pattern for char in "*?["):
        return None
    return re.compile(translate(pattern), re.IGNORECASE)


def text_matches(pattern: str, text: str) -> bool:
    """Return whether a text is what the glob says, or equal to it but for case. Pure."""
    compiled = _compiled(pattern)
    if text.casefold() == pattern.casefold():
        return True
    return compiled is not None and compiled.match(text) is not None


def error_matches(error: str, reply: Reply | None) -> bool:
    """Return whether what was said last holds this text, or its status code fits this glob. Pure."""
    if reply is None:
        return False
    if _STATUS_GLOB.fullmatch(error):
        code = str(reply.code or "")
        return text_matches(error, reply.status) or (bool(code) and text_matches(error, code))
    return error.casefold() in str(reply).casefold()
