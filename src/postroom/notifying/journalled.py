"""Which events are kept in the journal, and by what a commit's changes are judged quickly."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from postroom import events
from postroom.events import Event
from postroom.recipients import State
from postroom.stores.values import NewMessage, Settlement

__all__ = ["KINDS", "LIVE_ONLY", "Journalled", "kinds_named"]

KINDS: dict[str, type[Event]] = {
    name: kind
    for name in events.__all__
    if issubclass(kind := getattr(events, name), Event)
    and name not in {"Event", "MessageEvent", "RecipientEvent"}
}
"""The events that there are, by name."""

LIVE_ONLY: Final = frozenset({"ActorRestarted", "ReceiverChanged", "TransportChanged"})
"""Those that are about a part of this process and never in the journal: they mean nothing once they are over."""

_STATES: dict[str, State] = {
    "RecipientAccepted": State.ACCEPTED,
    "RecipientCancelled": State.CANCELLED,
    "RecipientDeferred": State.QUEUED,
    "RecipientDelivered": State.DELIVERED,
    "RecipientExpired": State.EXPIRED,
    "RecipientFailed": State.FAILED,
    "RecipientHeld": State.HELD,
    "RecipientRelayed": State.RELAYED,
}


def kinds_named(names: Iterable[str]) -> frozenset[type[Event]]:
    """Return the classes of events with these names; unknown names are left out."""
    return frozenset(KINDS[name] for name in names if name in KINDS)


@dataclass(frozen=True, slots=True)
class Journalled:
    """The kinds of events that are kept.

    Attributes:
        kinds: classes of events.
    """

    kinds: frozenset[type[Event]] = frozenset()
    _states: frozenset[State] = field(init=False, repr=False, default=frozenset())
    _messages: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        names = {kind.__name__ for kind in self.kinds}
        object.__setattr__(self, "_states", frozenset(_STATES[name] for name in names if name in _STATES))
        object.__setattr__(self, "_messages", bool(names & {"MessageQueued", "MessageCompleted"}))

    def concerns(self, messages: Sequence[NewMessage], settlements: Sequence[Settlement]) -> bool:
        """Return whether a commit of these, and of nothing else, may have to write into the journal. Quick."""
        if not self.kinds:
            return False
        if self._messages and (messages or settlements):
            return True
        states = self._states
        if messages and any(message.followed for message in messages):
            # Some recipients may end with the acceptance.
            return True
        return any(settlement.state in states for settlement in settlements)

    def of(self, happened: Iterable[Event]) -> list[Event]:
        """Return those that are kept."""
        kinds = self.kinds
        return [event for event in happened if type(event) in kinds]
