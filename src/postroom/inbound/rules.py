"""Receive rules: which folder an incoming message goes to (MAPI: the receive folder of a message class). Pure.

Rules are asked in their order, and the first one whose conditions all hold decides. MAPI takes the longest message
class that matches; here the order says it, so give "IPM.Note.OOF" before "IPM.Note".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final

from postroom.errors import ConfigurationError
from postroom.inbound.fields import MAX_HEAD, Fields, addresses, decoded
from postroom.inbound.folders import INBOX, check_folder, check_tag
from postroom.inbound.values import Arrival, Digest

__all__ = ["ReceiveRule", "check_rules", "folders_for", "recipients_of"]

_Glob = re.Pattern[str] | None

_GLOBS: Final = ("recipient", "sender", "subject", "receiver", "remote_folder", "tag")
_FIELD_NAME: Final = re.compile(r"[!-9;-~]+")
_CLASS: Final = re.compile(r"[!-~]+(?: [!-~]+)*")

_DELIVERED: Final = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to")
"""Where mailboxes note the envelope recipient (RFC 9228, and custom)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveRule:
    """One rule. A condition that is None holds always. Globs (``*``, ``?``, ``[seq]``) take no notice of case.

    Attributes:
        folder: where the message goes; None to only tag it, which never ends the search.
        message_class: a class or its beginning, whole components: "REPORT" and "REPORT.IPM.Note" mean
            "REPORT.IPM.Note.NDR", "REPORT.IPM.No" does not.
        recipient: a glob for any envelope recipient; where these are not known, for the addresses in Delivered-To and
            its like, or else To and Cc.
        sender: a glob for the envelope sender ("<>" for the null reverse-path) or an address in From.
        header: "Name: glob" for the decoded value of any field of that name; "Name" or "Name:" if it is there.
        subject: a glob for the decoded subject.
        receiver: a glob for the receiver's name.
        remote_folder: a glob for the folder that it lay in there.
        tag: a glob for any tag that it has, as postprocessors gave it.
        tags: given to the message.
        stop: whether this rule is the last one asked; if not, a copy is filed, and the search goes on.

    Raises:
        ConfigurationError: names the field.
    """

    folder: str | None = field(kw_only=False)
    message_class: str | None = None
    recipient: str | None = None
    sender: str | None = None
    header: str | None = None
    subject: str | None = None
    receiver: str | None = None
    remote_folder: str | None = None
    tag: str | None = None
    tags: Sequence[str] = ()
    stop: bool = True
    _globs: dict[str, _Glob] = field(init=False, repr=False, compare=False)
    _header_name: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if self.folder is not None:
            check_folder(self.folder, "folder")
        elif not self.tags:
            raise ConfigurationError("folder", "is None, and there are no tags", "name a folder or tags")
        if isinstance(self.tags, str):
            raise ConfigurationError("tags", f"{self.tags!r} is not a sequence", f"give ({self.tags!r},)")
        put("tags", tuple(check_tag(tag, f"tags[{at}]") for at, tag in enumerate(self.tags)))
        if self.message_class is not None and not (
            _is_text(self.message_class) and _CLASS.fullmatch(self.message_class.rstrip("."))
        ):
            raise ConfigurationError(
                "message_class", f"{self.message_class!r} is no message class", "give one as 'IPM.Note'"
            )
        globs = {name: _glob(getattr(self, name), name) for name in _GLOBS}
        if self.header is not None:
            if not _is_text(self.header):
                raise ConfigurationError("header", f"{self.header!r} is not text", "give 'Name: glob'")
            name, _, pattern = self.header.partition(":")
            if not _FIELD_NAME.fullmatch(name.strip()):
                raise ConfigurationError(
                    "header",
                    f"{name!r} is no name of a field",
                    "give 'Name: glob', as in 'X-Spam-Flag: yes'",
                )
            put("_header_name", name.strip().lower())
            globs["header"] = _glob(pattern.strip() or "*", "header")
        put("_globs", globs)

    def holds(self, message: "_Message") -> bool:
        """Return whether all its conditions hold."""
        if self.message_class is not None and not _is_class(message.digest.message_class, self.message_class):
            return False
        for name, glob in self._globs.items():
            if glob is None:
                continue
            values = message.header(self._header_name) if name == "header" else message.values(name)
            if not any(glob.match(value) for value in values):
                return False
        return True


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _glob(pattern: object, name: str) -> _Glob:
    if pattern is None:
        return None
    if not isinstance(pattern, str) or not pattern:
        raise ConfigurationError(
            name, f"{pattern!r} is no pattern", "give text with * and ?, or None for any"
        )
    return re.compile(translate(pattern), re.IGNORECASE)


def _is_class(message_class: str, beginning: str) -> bool:
    """Return whether a class is ``beginning`` or derived from it, component by component."""
    wanted = beginning.rstrip(".").lower().split(".")
    return message_class.lower().split(".")[: len(wanted)] == wanted


class _Message:
    """What rules ask of a message; the header is looked at when the first of them does."""

    __slots__ = ("_fields", "_known", "_receiver", "arrival", "digest", "tags")

    def __init__(self, arrival: Arrival, digest: Digest, receiver: str, fields: Fields | None) -> None:
        self.arrival = arrival
        self.digest = digest
        self.tags: list[str] = []
        self._receiver = receiver
        self._fields = fields
        self._known: dict[str, Sequence[str]] = {}

    @property
    def fields(self) -> Fields:
        if self._fields is None:
            self._fields = Fields(self.arrival.content, limit=MAX_HEAD)
        return self._fields

    def values(self, name: str) -> Sequence[str]:
        if name == "tag":
            return self.tags
        if name not in self._known:
            self._known[name] = self._look(name)
        return self._known[name]

    def header(self, name: str) -> Sequence[str]:
        key = f"header {name}"
        if key not in self._known:
            self._known[key] = [decoded(value) for value in self.fields.all(name)]
        return self._known[key]

    def _look(self, name: str) -> Sequence[str]:
        if name == "subject":
            return (self.digest.subject,)
        if name == "receiver":
            return (self._receiver,)
        if name == "remote_folder":
            return (self.arrival.folder,)
        if name == "sender":
            sender = self.arrival.sender
            known = () if sender is None else (sender or "<>",)
            return (*known, *addresses(self.fields.raw("from")))
        return recipients_of(self.arrival.recipients, self.fields)


def recipients_of(known: tuple[str, ...], fields: Fields) -> tuple[str, ...]:
    """Return the envelope recipients; where they are not known, whom the header names in their place."""
    if known:
        return known
    delivered = [address for name in _DELIVERED for value in fields.all(name) for address in addresses(value)]
    if delivered:
        return tuple(dict.fromkeys(delivered))
    return tuple(
        dict.fromkeys(a for name in ("to", "cc") for value in fields.all(name) for a in addresses(value))
    )


def folders_for(  # noqa: PLR0913 - keywords only but for the message
    arrival: Arrival,
    digest: Digest,
    tags: Iterable[str],
    rules: Sequence[ReceiveRule],
    *,
    receiver: str,
    default: str = INBOX,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders that a message goes to, a copy in each, and all its tags.

    Args:
        arrival: the message.
        digest: of its content.
        tags: that it has already.
        rules: in the order in which they are asked.
        receiver: the receiver's name.
        default: the folder where no rule decides; also where those that hold only make copies.
    """
    message = _Message(arrival, digest, receiver, None)
    message.tags += dict.fromkeys(tags)
    folders: list[str] = []
    for rule in rules:
        if not rule.holds(message):
            continue
        message.tags += [tag for tag in rule.tags if tag not in message.tags]
        if rule.folder is not None:
            folders.append(rule.folder)
            if rule.stop:
                break
    else:
        folders.append(default)
    # Where it was to go anyhow comes first: that is the message, the others are copies.
    return tuple(dict.fromkeys(reversed(folders))), tuple(message.tags)


def check_rules(rules: Iterable[object]) -> tuple[ReceiveRule, ...]:
    """Return rules as a tuple.

    Raises:
        ConfigurationError: one of them is something else; names its place.
    """
    checked: list[ReceiveRule] = []
    for at, rule in enumerate(rules):
        if not isinstance(rule, ReceiveRule):
            raise ConfigurationError(f"rules[{at}]", f"is {type(rule).__name__}", "give a ReceiveRule")
        checked.append(rule)
    return tuple(checked)
