"""``[[subscriber]]``, and the names of events: who is told of what happens, and what the journal keeps of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from postroom.config_inbound import check_names, function_of, text
from postroom.config_objects import reference
from postroom.config_values import (
    Reader,
    Section,
    Unreadable,
    boolean,
    choice,
    duration,
    guess,
    integer,
    string,
    strings,
)
from postroom.events import Event
from postroom.notifying.codec import CLASSES, public_name
from postroom.notifying.journalled import KINDS as LEAVES
from postroom.notifying.subscribers import WebhookSubscriber

__all__ = [
    "SUBSCRIBER",
    "SubscriberSource",
    "durable_events",
    "event_kind",
    "make_subscribers",
    "read_subscribers",
]

PRIORITIES: Final = {"urgent": 1, "normal": 0, "non-urgent": -1}
_EVENTS: Final[Mapping[str, type[Event]]] = {
    **CLASSES,
    **{public_name(kind): kind for kind in CLASSES.values()},
}


def priority(value: Any) -> int:
    """Read "urgent", "normal" or "non-urgent"."""
    return PRIORITIES[choice(*PRIORITIES)(value)]


def event_kind(name: str) -> type[Event]:
    """Return the class of events that has a name, its own or the public one ("NewMessage", "new_message").

    Raises:
        Unreadable: there is none.
    """
    kind = _EVENTS.get(name)
    if kind is None:
        raise Unreadable(f"{name!r} is no event", guess(name, sorted(CLASSES)))
    return kind


def event_kinds(value: Any) -> tuple[type[Event], ...]:
    """Read a list of names of events."""
    return tuple(map(event_kind, strings(value)))


def durable_events(value: Any) -> frozenset[str] | str:
    """Read the names of the events that the journal keeps, or "all"."""
    if value == "all":
        return "all"
    kinds = event_kinds(value)
    if not kinds:
        raise Unreadable(f"{value!r} is not a choice of events", "name some, or set keep_events = 0")
    names: set[str] = set()
    for kind in kinds:
        # A class that others derive from stands for them.
        names.update(name for name, leaf in LEAVES.items() if issubclass(leaf, kind))
    return frozenset(names)


SUBSCRIBER: Final[Mapping[str, Reader]] = {
    "to": string,
    "name": string,
    "kinds": event_kinds,
    "filter": reference,
    "batch": integer,
    "ordered": boolean,
    "start": choice("newest", "oldest"),
    "sender": text,
    "author": string,
    "priority": priority,
    "lifetime": duration,
}


@dataclass(frozen=True, slots=True)
class SubscriberSource:
    """What a ``[[subscriber]]`` section says.

    Attributes:
        section: the table, for errors.
        subscriber: all of it but for the filter.
        filter: names a function that says of an event whether it is announced, "" for none.
    """

    section: Section
    subscriber: WebhookSubscriber
    filter: str = ""

    def make(self) -> WebhookSubscriber:
        """Return the subscriber, its filter imported.

        Raises:
            ConfigurationError: it cannot be imported, or is no function.
        """
        if not self.filter:
            return self.subscriber
        function = self.section.convert("filter", function_of("an Event"), self.filter)
        return replace(self.subscriber, filter=function)


def read_subscribers(sections: Sequence[Section], kept: frozenset[str]) -> tuple[SubscriberSource, ...]:
    """Return what the ``[[subscriber]]`` sections say.

    Args:
        sections: the tables.
        kept: the names of the events that the journal keeps.
    """
    sources = tuple(_read_subscriber(section, kept) for section in sections)
    check_names([source.section for source in sources], [source.subscriber.name for source in sources])
    return sources


def _read_subscriber(section: Section, kept: frozenset[str]) -> SubscriberSource:
    given = section.read(SUBSCRIBER, ["to", "name"])
    filtered = given.pop("filter", "")
    subscriber: WebhookSubscriber = section.make(lambda: WebhookSubscriber(**given), _last)
    section.make(lambda: subscriber.check(kept), _last)
    return SubscriberSource(section, subscriber, filtered)


def make_subscribers(sources: Sequence[SubscriberSource]) -> list[WebhookSubscriber]:
    """Return the subscribers.

    Raises:
        ConfigurationError: see :meth:`SubscriberSource.make`.
    """
    return [source.make() for source in sources]


def _last(field: str) -> str:
    return field.rpartition(".")[2]
