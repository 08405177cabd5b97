"""A store as a state machine against a dictionary: two instances on one spool, in whatever order they act."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from postroom.ids import key_at
from postroom.recipients import State
from postroom.stores.base import Accepted, Control, NewMessage, Settlement, Store
from tests.conformance.stores import Spool, accept, everyone, message, rounds, settle, settlement, transaction

__all__ = ["StoreMachine"]


@dataclass
class Expected:
    """What the model knows of a recipient."""

    transport: str
    state: State
    priority: int
    due: float | None
    message_due: float
    expires: float | None
    changed: float
    owner: int | None = None
    attempts: int = 0
    in_doubt: bool = False


@dataclass
class Model:
    """A spool as a dictionary."""

    recipients: dict[tuple[int, int], Expected] = field(default_factory=dict[tuple[int, int], Expected])
    keys: dict[str, tuple[int, bytes]] = field(default_factory=dict[str, tuple[int, bytes]])
    key_of: dict[int, str] = field(default_factory=dict[int, str])
    forgotten: dict[tuple[str, State], int] = field(default_factory=dict[tuple[str, State], int])
    accepted: int = 0

    def of(self, key: int) -> list[Expected]:
        return [r for (number, _), r in self.recipients.items() if number == key]

    def messages(self) -> list[int]:
        return sorted({key for key, _ in self.recipients})

    def counts(self) -> dict[tuple[str, State], int]:
        counts = dict(self.forgotten)
        for r in self.recipients.values():
            counts[r.transport, r.state] = counts.get((r.transport, r.state), 0) + 1
        return counts


TRANSPORTS = ("a", "b")
_SETTLED = [state for state in State if state is not State.SENDING]


class StoreMachine(RuleBasedStateMachine):
    """Two instances on one spool against a dictionary. Give ``make_spool``."""

    spool: Spool

    def make_spool(self) -> Spool:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.spool = self.make_spool()
        self.clock = self.spool.clock
        self.stores = [self.spool.open(), self.spool.open()]
        self.reader = self.spool.reader()
        self.model = Model()

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()

    # Rules

    @rule(seconds=st.sampled_from([0.0004, 0.5, 1.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        which=st.integers(0, 1),
        transports=st.lists(st.sampled_from(TRANSPORTS), min_size=1, max_size=4),
        priority=st.sampled_from([-1, 0, 1]),
        delay=st.sampled_from([0.0, 0.0, 3.0]),
        lifetime=st.sampled_from([None, None, 5.0]),
        hold=st.booleans(),
        own=st.booleans(),
        idempotency_key=st.sampled_from([None, None, "k1", "k2"]),
        digest=st.sampled_from([b"1", b"2"]),
        copies=st.integers(1, 2),
    )
    def accept(  # noqa: PLR0917 - Hypothesis calls it by keyword
        self, which: int, transports: list[str], priority: int, delay: float, lifetime: float | None, hold: bool,
        own: bool, idempotency_key: str | None, digest: bytes, copies: int,
    ) -> None:  # fmt: skip
        store, now = self.stores[which], self.clock.time()
        messages = [
            message(
                store, self.clock, *[(name, f"{n}@x") for n, name in enumerate(transports)], delay=delay, hold=hold,
                priority=priority, expires=None if lifetime is None else now + lifetime, digest=digest,
                idempotency_key=idempotency_key,
            )
            for _ in range(copies)
        ]  # fmt: skip
        own = own and not hold and delay == 0
        results = accept(store, *messages, own=own)
        self.expect_accepted(store, messages, results, own=own)

    def expect_accepted(
        self, store: Store, messages: Sequence[NewMessage], results: Sequence[Accepted], *, own: bool
    ) -> None:
        """Check what accepting returned, and note what it must have done."""
        for one, result in zip(messages, results, strict=True):
            known = self.model.keys.get(one.idempotency_key or "")
            if known is not None:
                same = known[1] == one.digest
                assert result == Accepted(known[0], duplicate=same, conflict=not same)
                continue
            assert result == Accepted(one.key)
            if one.idempotency_key is not None:
                self.model.keys[one.idempotency_key] = (one.key, one.digest)
                self.model.key_of[one.key] = one.idempotency_key
            for index, recipient in enumerate(one.recipients):
                self.model.accepted += 1
                self.model.recipients[one.key, index] = Expected(
                    recipient.transport, State.HELD if one.hold else State.QUEUED, one.priority, one.due, one.due,
                    one.expires, one.created, owner=store.node if own else None,
                )  # fmt: skip

    @rule(which=st.integers(0, 1), transport=st.sampled_from(TRANSPORTS), limit=st.integers(1, 6))
    def claim(self, which: int, transport: str, limit: int) -> None:
        store, now = self.stores[which], self.clock.time()
        ready = sorted(
            (-r.priority, r.due, where)
            for where, r in self.model.recipients.items()
            if r.state is State.QUEUED and r.owner is None and r.transport == transport
            and r.due is not None and r.due <= now
        )[:limit]  # fmt: skip
        expected: dict[int, list[int]] = {}
        lost: list[tuple[int, int]] = []
        for _, _, where in ready:
            r = self.model.recipients[where]
            if r.expires is not None and r.expires <= now:
                lost.append(where)
                r.state, r.due, r.changed = State.EXPIRED, None, now
            else:
                expected.setdefault(where[0], []).append(where[1])
                r.owner = store.node
        with transaction(store):
            claimed, gone, completed = store.claim(transport, now, limit)
        assert [(one.key, [t.index for t in one.targets]) for one in claimed] == list(expected.items())
        for one in claimed:
            for target in one.targets:
                r = self.model.recipients[one.key, target.index]
                assert (target.attempts, target.in_doubt) == (r.attempts, r.in_doubt)
        assert [(s.key, s.index) for s in gone] == lost
        assert set(completed) == {key for key, _ in lost if all(r.state.is_final for r in self.model.of(key))}

    @precondition(lambda self: self.model.recipients)
    @rule(which=st.integers(0, 1), data=st.data())
    def settle(self, which: int, data: st.DataObject) -> None:
        store = self.stores[which]
        changes, applied, final = self.draw_settlements(store, data)
        self.expect_settled(settle(store, *changes), applied, final)

    @precondition(lambda self: self.model.recipients)
    @rule(which=st.integers(0, 1), own=st.booleans(), key=st.sampled_from([None, None, "k1"]), data=st.data())
    def exchange(self, which: int, own: bool, key: str | None, data: st.DataObject) -> None:
        store = self.stores[which]
        changes, applied, final = self.draw_settlements(store, data)
        messages = [
            message(store, self.clock, "0@x", ("b", "1@x"), idempotency_key=key, digest=b"1")
            for _ in range(data.draw(st.integers(0, 2)))
        ]
        owned = everyone(messages) if own else ()
        results, got, completed = store.exchange(messages, owned, changes)
        self.expect_settled((got, completed), applied, final)
        self.expect_accepted(store, messages, results, own=own)

    def draw_settlements(
        self, store: Store, data: st.DataObject
    ) -> tuple[list[Settlement], list[Settlement], set[int]]:
        """Return changes, those that will apply, and the messages in which they settle a recipient."""
        now = self.clock.time()
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.model.recipients)), min_size=1, max_size=5))
        changes: list[Settlement] = []
        applied: list[Settlement] = []
        final: set[int] = set()
        for where in chosen:
            r = self.model.recipients[where]
            state = data.draw(st.sampled_from(_SETTLED))
            was = data.draw(st.sampled_from([r.state, r.state, r.state, State.QUEUED]))
            onward = data.draw(st.sampled_from([None, "a", "b"])) if state is State.QUEUED else None
            due = now + data.draw(st.sampled_from([0.0, 2.0])) if state is State.QUEUED else None
            change = settlement(
                *where, state, now, transport=r.transport, was=was, attempts=r.attempts + 1, due=due,
                next_transport=onward, only=len(self.model.of(where[0])) == 1,
            )  # fmt: skip
            changes.append(change)
            if r.owner == store.node and r.state is was:
                applied.append(change)
                r.state, r.due, r.owner, r.changed, r.in_doubt = state, due, None, now, False
                r.attempts += 1
                r.transport = onward or r.transport
                if state.is_final:
                    final.add(where[0])
        return changes, applied, final

    def expect_settled(
        self, outcome: tuple[list[Settlement], list[int]], applied: list[Settlement], final: set[int]
    ) -> None:
        got, completed = outcome
        assert got == applied
        assert set(completed) == {key for key in final if all(r.state.is_final for r in self.model.of(key))}

    @rule(which=st.integers(0, 1), transport=st.sampled_from(TRANSPORTS))
    def journal(self, which: int, transport: str) -> None:
        store = self.stores[which]
        mine = [
            w for w, r in self.model.recipients.items() if r.owner == store.node and r.transport == transport
        ]
        with transaction(store):
            store.journal(mine, transport)
        for where in mine:
            self.model.recipients[where].state = State.SENDING

    @rule(which=st.integers(0, 1), transport=st.sampled_from(TRANSPORTS), keep=st.integers(0, 2))
    def reclaim(self, which: int, transport: str, keep: int) -> None:
        store = self.stores[which]
        mine = sorted(
            w for w, r in self.model.recipients.items() if r.owner == store.node and r.transport == transport
        )
        with transaction(store):
            assert store.reclaim(transport, mine[:keep]) == len(mine[keep:])
        for where in mine[keep:]:
            self.model.recipients[where].state = State.QUEUED
            self.model.recipients[where].owner = None

    @rule(which=st.integers(0, 1), hold=st.sampled_from([(), ("b",)]))
    def die(self, which: int, hold: tuple[str, ...]) -> None:
        dead, heir = self.stores[which], self.stores[1 - which]
        dead.close(leave=False)
        adopted: dict[str, int] = {}
        for r in self.model.recipients.values():
            if r.owner == dead.node:
                adopted[r.transport] = adopted.get(r.transport, 0) + 1
                sending = r.state is State.SENDING
                r.owner = None
                r.state = State.HELD if sending and r.transport in hold else State.QUEUED
                r.in_doubt = r.in_doubt or r.transport not in hold or sending
        with transaction(heir):
            assert dict(heir.adopt(hold, self.clock.time())) == adopted
        self.stores[which] = self.spool.open()

    @rule(which=st.integers(0, 1))
    def reconnect(self, which: int) -> None:
        store = self.stores[which]
        node, last = store.node, store.ids.next()
        store.disconnect()
        store.open()
        assert store.node == node
        assert store.ids.next() > last

    @precondition(lambda self: self.model.recipients)
    @rule(
        which=st.integers(0, 1),
        action=st.sampled_from(["hold", "release", "cancel", "retry"]),
        data=st.data(),
    )
    def control(self, which: int, action: Control, data: st.DataObject) -> None:
        store, now = self.stores[which], self.clock.time()
        key = data.draw(st.sampled_from(self.model.messages()))
        indices = data.draw(st.one_of(st.none(), st.sets(st.integers(0, 4))))
        revoked = data.draw(st.sets(st.integers(0, 4)))
        changed: list[int] = []
        transit: list[int] = []
        final: list[int] = []
        transports: set[str] = set()
        for (number, index), r in sorted(self.model.recipients.items(), key=lambda item: item[0]):
            if number != key or (indices is not None and index not in indices):
                continue
            state = _after(action, r.state)
            if r.state.is_final:
                final.append(index)
            elif r.owner is not None and not (r.owner == store.node and index in revoked):
                transit.append(index)
            elif state is not None:
                changed.append(index)
                transports.add(r.transport)
                r.state, r.owner, r.changed = state, None, now
                if action == "release":
                    r.due = max(now, r.message_due)
                elif action == "retry":
                    r.due = now
        with transaction(store):
            result = store.control(action, key, revoked, indices, now)
        assert (list(result.changed), list(result.in_transit), list(result.final)) == (
            changed,
            transit,
            final,
        )
        assert result.transports == transports
        done = action == "cancel" and bool(changed) and all(r.state.is_final for r in self.model.of(key))
        assert result.completed == done

    @rule(which=st.integers(0, 1), age=st.sampled_from([None, 0.0, 2.0]), limit=st.integers(1, 4))
    def purge(self, which: int, age: float | None, limit: int) -> None:
        now = self.clock.time()
        before = None if age is None else now - age
        rounds(self.stores[which], before=before, content_before=now - 5, limit=limit)
        for key in self.model.messages():
            every = self.model.of(key)
            old = before is not None and max(r.changed for r in every) < before
            if old and all(r.state.is_final for r in every) and key < key_at(max(before or 0, now - 5)):
                for where in [where for where in self.model.recipients if where[0] == key]:
                    r = self.model.recipients.pop(where)
                    counted = r.transport, r.state
                    self.model.forgotten[counted] = self.model.forgotten.get(counted, 0) + 1
                self.model.keys.pop(self.model.key_of.pop(key, ""), None)

    # What holds after every step

    @invariant()
    def the_ledger_balances(self) -> None:
        tally = self.reader.tally()
        assert tally.imbalance == 0
        assert sum(tally.accepted.values()) == self.model.accepted
        counts = self.model.counts()
        assert {where: n for where, n in tally.states.items() if n} == counts
        pending = {where: n for where, n in counts.items() if not where[1].is_final}
        assert dict(self.reader.recount()) == pending

    @invariant()
    def every_recipient_is_as_expected(self) -> None:
        for key in self.model.messages():
            found = self.reader.message(key)
            assert found is not None
            for r in found.recipients:
                expected = self.model.recipients[key, r.index]
                assert (r.transport, r.state, r.owner) == (expected.transport, expected.state, expected.owner)
                assert (r.due, r.attempts, r.in_doubt) == (expected.due, expected.attempts, expected.in_doubt)
            pending = sum(not r.state.is_final for r in found.recipients)
            assert self.reader.pending(key) == pending
            assert (self.reader.content(key) is not None) == (pending > 0)

    @invariant()
    def due_times_are_known(self) -> None:
        now = self.clock.time()
        for transport in TRANSPORTS:
            queued = [
                r
                for r in self.model.recipients.values()
                if r.state is State.QUEUED and r.transport == transport
            ]
            free = [r.due for r in queued if r.owner is None and r.due is not None]
            assert self.stores[0].next_due(transport) == min(free, default=None)
            waiting = [r.due for r in queued if r.due is not None and r.due <= now]
            assert self.reader.oldest_due(transport, now) == min(waiting, default=None)


def _after(action: Control, state: State) -> State | None:
    match action, state:
        case "hold", State.QUEUED:
            return State.HELD
        case "release", State.HELD:
            return State.QUEUED
        case "retry", State.QUEUED:
            return State.QUEUED
        case "cancel", State.QUEUED | State.HELD | State.ACCEPTED:
            return State.CANCELLED
        case _:
            return None
