"""A spool as a dictionary: what the state machine over a store expects to find."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as copy

from postroom.ids import key_at
from postroom.recipients import State
from postroom.stores.base import Action, Control, NewMessage, Settlement

__all__ = ["LINGER", "WAITING", "Expected", "ExpectedMessage", "ExpectedRequest", "Model", "Where"]

LINGER = 60.0
NUDGE = 0.001

Where = tuple[int, int]
"""(message, index of the recipient)."""

WAITING = frozenset({State.QUEUED, State.HELD})
_BAD = frozenset({State.FAILED, State.EXPIRED})
_GOOD = frozenset({State.DELIVERED, State.RELAYED})
_UNDONE = frozenset({State.QUEUED, State.SENDING, State.HELD})
_ENDING = frozenset({State.QUEUED, State.HELD, State.ACCEPTED})

_EFFECTS: Mapping[Control, tuple[frozenset[State], State | None]] = {
    "hold": (frozenset({State.QUEUED}), State.HELD),
    "release": (frozenset({State.HELD}), State.QUEUED),
    "retry": (frozenset({State.QUEUED}), None),
    "cancel": (_ENDING, State.CANCELLED),
    "fail": (_ENDING, State.FAILED),
    "expire": (_ENDING, State.EXPIRED),
    "reroute": (WAITING, None),
    "redirect": (WAITING, None),
}


@dataclass
class Expected:
    """What the model knows of a recipient."""

    transport: str
    state: State
    address: str
    due: float | None
    changed: float
    owner: int | None = None
    attempts: int = 0
    in_doubt: bool = False
    reported: bool = False
    variant: bytes | None = None
    declined: frozenset[str] = frozenset()

    @property
    def destination(self) -> str:
        return self.address.rpartition("@")[2]


@dataclass
class ExpectedMessage:
    """What the model knows of a message."""

    priority: int
    due: float
    expires: float | None
    tenant: str
    ordering_key: str | None
    success: bool
    followed: bool
    followups: dict[str, float | None]
    idempotency_key: str | None


@dataclass(frozen=True)
class ExpectedRequest:
    """What was asked of another instance."""

    node: int
    action: Action
    key: int
    indices: tuple[int, ...]


@dataclass
class Model:
    """A spool as a dictionary."""

    recipients: dict[Where, Expected] = field(default_factory=dict[Where, Expected])
    messages: dict[int, ExpectedMessage] = field(default_factory=dict[int, ExpectedMessage])
    order: list[int] = field(default_factory=list[int])
    keys: dict[str, tuple[int, bytes]] = field(default_factory=dict[str, tuple[int, bytes]])
    forgotten: dict[tuple[str, State], int] = field(default_factory=dict[tuple[str, State], int])
    requests: list[ExpectedRequest] = field(default_factory=list[ExpectedRequest])
    accepted: int = 0

    # Questions

    def of(self, key: int) -> dict[Where, Expected]:
        return {where: r for where, r in sorted(self.recipients.items(), key=_place) if where[0] == key}

    def complete(self, key: int) -> bool:
        return all(r.state.is_final for r in self.of(key).values())

    def awaited(self, key: int) -> bool:
        """Whether somebody still needs the octets although the message is complete."""
        return not {"report", "sent"}.isdisjoint(self.messages[key].followups)

    def waits_for(self, key: int) -> int | None:
        """Return the last message before this one with the same ordering key that is not done."""
        name = self.messages[key].ordering_key
        if name is None:
            return None
        before = self.order[: self.order.index(key)]
        same = [one for one in before if one in self.messages and self.messages[one].ordering_key == name]
        undone = [one for one in same if any(r.state in _UNDONE for r in self.of(one).values())]
        return undone[-1] if undone else None

    def waiting(self) -> set[Where]:
        """Return the recipients that must not overtake somebody."""
        blocked = {key for key in self.messages if self.waits_for(key) is not None}
        return {where for where in self.recipients if where[0] in blocked}

    def free(self, transport: str) -> dict[Where, Expected]:
        """Return the recipients that nobody has in hand and that wait for nobody."""
        return {
            where: r
            for where, r in self.recipients.items()
            if r.state is State.QUEUED and r.owner is None and r.transport == transport
            and self.waits_for(where[0]) is None
        }  # fmt: skip

    def expiring(self, now: float, states: Iterable[State]) -> list[Where]:
        wanted = set(states)
        return [
            where
            for where, r in self.recipients.items()
            if r.owner is None and r.state in wanted and _passed(self.messages[where[0]].expires, now)
        ]

    def counts(self) -> dict[tuple[str, State], int]:
        counts = dict(self.forgotten)
        for r in self.recipients.values():
            counts[r.transport, r.state] = counts.get((r.transport, r.state), 0) + 1
        return counts

    # Changes

    def accept(self, m: NewMessage, owned: Iterable[Where], node: int) -> None:
        self.order.append(m.key)
        self.messages[m.key] = ExpectedMessage(
            m.priority, m.due, m.expires, m.tenant, m.ordering_key, "success" in m.report, m.followed,
            dict(m.followups), m.idempotency_key,
        )  # fmt: skip
        if m.idempotency_key is not None:
            self.keys[m.idempotency_key] = (m.key, m.digest)
        owners = set(owned)
        for index, recipient in enumerate(m.recipients):
            where = (m.key, index)
            state = recipient.state or (State.HELD if m.hold else State.QUEUED)
            self.accepted += 1
            self.recipients[where] = Expected(
                recipient.transport, state, recipient.address.value, None if state.is_final else m.due, m.created,
                owner=node if where in owners else None,
            )  # fmt: skip
        self.follow([where for where, r in self.of(m.key).items() if r.state.is_final], m.created)

    def settle(self, s: Settlement) -> None:
        """Apply one change; what follows from all changes of a transaction is for ``follow``."""
        r = self.recipients[s.key, s.index]
        r.state, r.due, r.owner, r.changed, r.in_doubt = s.state, s.due, None, s.at, s.in_doubt
        r.attempts = s.attempts
        if s.outcome == "not_mine":
            r.declined |= {s.transport}
        r.transport = s.next_transport or r.transport
        r.variant = r.variant if s.content is None else s.content
        r.reported = r.reported or s.reported
        if s.next_address is not None:
            r.address, r.declined = s.next_address.value, frozenset()

    def follow(self, ended: Iterable[Where], now: float) -> set[int]:
        """Note the followups of these ends; returns the messages that are complete by them."""
        places = list(ended)
        final = {key for key, _ in places}
        done = {key for key in final if self.complete(key)}
        told: dict[int, float] = {}
        for where in places:
            r = self.recipients[where]
            wanted = r.state in _GOOD and self.messages[where[0]].success and not r.reported
            if r.state in _BAD or wanted:
                told[where[0]] = now if where[0] in done else now + LINGER
        for key, at in told.items():
            due = self.messages[key].followups.get("report")
            self.messages[key].followups["report"] = at if due is None else min(due, at) - NUDGE
        for key in done:
            followups = self.messages[key].followups
            for kind in {"report", "sent"} & followups.keys():
                due = followups[kind]
                followups[kind] = now if due is None else min(due, now)
        return done

    def forget(self, key: int) -> None:
        for where, r in self.of(key).items():
            counted = r.transport, r.state
            self.forgotten[counted] = self.forgotten.get(counted, 0) + 1
            del self.recipients[where]
        self.keys.pop(self.messages.pop(key).idempotency_key or "", None)
        self.requests = [request for request in self.requests if request.key != key]

    def purge(self, before: float) -> None:
        for key in list(self.messages):
            every = self.of(key).values()
            old = max(r.changed for r in every) < before and key < key_at(before)
            if old and self.complete(key) and not self.awaited(key):
                self.forget(key)

    def after(self, action: Action, where: Where, now: float) -> Expected | None:
        """Return what an action makes of a recipient that nobody has in hand; None for nothing."""
        r, message = self.recipients[where], self.messages[where[0]]
        states, leads_to = _EFFECTS[action.kind]
        if r.state not in states:
            return None
        state = r.state if leads_to is None else leads_to
        changed = copy(r, state=state, owner=None, changed=now, due=None if state.is_final else r.due)
        afresh = max(now, message.due) if r.state is State.QUEUED else r.due
        match action.kind:
            case "release":
                changed.due = max(now, message.due)
            case "retry":
                changed.due = now
            case "reroute":
                if r.transport == action.argument:
                    return None
                changed.transport, changed.attempts, changed.due = action.argument, 0, afresh
            case "redirect":
                if r.address == action.argument:
                    return None
                changed.address, changed.attempts, changed.due = action.argument, 0, afresh
                changed.declined = frozenset()
            case _:
                pass
        return changed

    def act(self, action: Action, wheres: Iterable[Where], now: float) -> dict[Where, Expected]:
        """Return what an action changes among these recipients of one message."""
        changes = {where: r for where in wheres if (r := self.after(action, where, now)) is not None}
        if action.kind == "redirect" and changes:
            key = next(iter(changes))[0]
            gone = {State.FAILED, State.EXPIRED, State.CANCELLED}
            others = [r for where, r in self.of(key).items() if where not in changes and r.state not in gone]
            taken = any(r.address == action.argument for r in others)
            for where in sorted(changes):
                if taken:
                    changes[where] = copy(
                        self.recipients[where], state=State.CANCELLED, owner=None, changed=now, due=None, attempts=0
                    )  # fmt: skip
                taken = True
        return changes


def _place(item: tuple[Where, Expected]) -> Where:
    return item[0]


def _passed(at: float | None, now: float) -> bool:
    return at is not None and at <= now
