"""A store as a state machine against a dictionary: two instances on one spool, in whatever order they act."""

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from postroom.addresses import Address
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Accepted, Followup, NewMessage, Settlement, Store
from tests.conformance.store_model import LINGER, Model, Where
from tests.conformance.stores import Spool, message, settle, settlement, transaction

__all__ = ["TRANSPORTS", "CoreMachine"]

TRANSPORTS = ("a", "b")
ADDRESSES = ("0@x", "1@x", "2@y", "3@y")
_SETTLED = [state for state in State if state is not State.SENDING]
_PENDING = [State.QUEUED, State.HELD, State.ACCEPTED]

whiches = st.integers(0, 1)
transports = st.sampled_from(TRANSPORTS)


class CoreMachine(RuleBasedStateMachine):
    """Accepting, settling, operators, crashes: two instances on one spool against a dictionary."""

    spool: Spool

    def make_spool(self) -> Spool:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.spool = self.make_spool()
        self.spool.linger = LINGER
        self.clock = self.spool.clock
        self.stores = [self.spool.open(), self.spool.open()]
        self.reader = self.spool.reader()
        self.model = Model()
        self.read: list[tuple[Followup, frozenset[int]]] = []
        self.freed: set[Where] = set()

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()

    def follow(self, store: Store, ended: Iterable[Where], waited: set[Where]) -> set[int]:
        """Note what follows from a transaction's ends: returns the complete messages. Nobody is freed in silence."""
        done = self.model.follow(ended, self.clock.time())
        for where in waited - self.model.waiting():
            r = self.model.recipients[where]
            if r.state is State.QUEUED and r.due is not None:
                assert store.following.freed[r.transport] <= r.due
        return done

    # Rules

    @rule(seconds=st.sampled_from([0.0004, 0.5, 1.0, 7.0, LINGER]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        which=whiches,
        names=st.lists(transports, min_size=1, max_size=4),
        priority=st.sampled_from([0, 0, -1, 1]),
        tenant=st.sampled_from(["", "t1", "t2"]),
        ordering_key=st.sampled_from([None, None, "o1", "o2"]),
        delay=st.sampled_from([0.0, 0.0, 3.0]),
        lifetime=st.sampled_from([None, None, 5.0]),
        hold=st.sampled_from([False, False, True]),
        own=st.booleans(),
        asks=st.sets(st.sampled_from(["success", "sent", "delay"])),
        ends=st.sets(st.integers(0, 3), max_size=2),
        idempotency_key=st.sampled_from([None, None, "k1", "k2"]),
        digest=st.sampled_from([b"1", b"2"]),
        copies=st.integers(1, 2),
    )
    def accept(  # noqa: PLR0917 - Hypothesis calls it by keyword
        self, which: int, names: list[str], priority: int, tenant: str, ordering_key: str | None, delay: float,
        lifetime: float | None, hold: bool, own: bool, asks: set[str], ends: set[int], idempotency_key: str | None,
        digest: bytes, copies: int,
    ) -> None:  # fmt: skip
        store, now = self.stores[which], self.clock.time()
        followups = [("sent", None)] * ("sent" in asks) + [("delay", now + 4)] * ("delay" in asks)
        messages = [
            message(
                store, self.clock, *zip(names, ADDRESSES, strict=False), delay=delay, hold=hold,
                priority=priority, expires=None if lifetime is None else now + lifetime, digest=digest,
                idempotency_key=idempotency_key, tenant=tenant, ordering_key=ordering_key,
                report="failure,success" if "success" in asks else "failure", followups=tuple(followups),
                followed=bool(ordering_key or ends or asks - {"delay"}),
            )
            for _ in range(copies)
        ]  # fmt: skip
        messages = [_ended_at_once(one, ends) for one in messages]
        own = own and not hold and delay == 0 and ordering_key is None
        owned = _everyone(messages) if own else set[Where]()
        with transaction(store):
            results = store.accept(messages, owned)
        self.expect_accepted(store, messages, results, owned)

    def expect_accepted(
        self, store: Store, messages: Sequence[NewMessage], results: Sequence[Accepted], owned: set[Where]
    ) -> None:
        """Check what accepting returned, and note what it must have done."""
        for one, result in zip(messages, results, strict=True):
            known = self.model.keys.get(one.idempotency_key or "")
            if known is not None:
                same = known[1] == one.digest
                assert (result.key, result.duplicate, result.conflict) == (known[0], same, not same)
                continue
            self.model.accept(one, owned & _everyone([one]), store.node)
            assert result == Accepted(one.key, complete=self.model.complete(one.key))

    @precondition(lambda self: self.model.recipients)
    @rule(which=whiches, data=st.data())
    def settle(self, which: int, data: st.DataObject) -> None:
        store = self.stores[which]
        changes = self.draw_settlements(store, data)
        waited = self.model.waiting()
        applied = self.apply(store, changes)
        got, completed = settle(store, *changes)
        self.expect_settled(store, got, completed, applied, waited)

    @precondition(lambda self: self.model.recipients)
    @rule(which=whiches, own=st.booleans(), key=st.sampled_from([None, None, "k1"]), data=st.data())
    def exchange(self, which: int, own: bool, key: str | None, data: st.DataObject) -> None:
        store = self.stores[which]
        changes = self.draw_settlements(store, data)
        ordering_key = data.draw(st.sampled_from([None, None, "o1"]))
        messages = [
            message(
                store, self.clock, "0@x", ("b", "1@x"), idempotency_key=key, digest=b"1", ordering_key=ordering_key,
                followed=ordering_key is not None,
            )
            for _ in range(data.draw(st.integers(0, 2)))
        ]  # fmt: skip
        owned = _everyone(messages) if own and ordering_key is None else set[Where]()
        waited = self.model.waiting()
        applied = self.apply(store, changes)
        results, got, completed = store.exchange(messages, owned, changes)
        self.expect_settled(store, got, completed, applied, waited)
        self.expect_accepted(store, messages, results, owned)

    def draw_settlements(self, store: Store, data: st.DataObject) -> list[Settlement]:
        """Return changes, not all of which apply."""
        now, model = self.clock.time(), self.model
        mine = sorted(where for where, r in model.recipients.items() if r.owner == store.node)
        others = sorted(model.recipients)
        chosen = data.draw(st.lists(st.sampled_from(mine + mine + others), min_size=1, max_size=5))
        changes: list[Settlement] = []
        for where in chosen:
            r, sent = model.recipients[where], model.messages[where[0]]
            state = data.draw(st.sampled_from(_SETTLED))
            was = data.draw(st.sampled_from([r.state, r.state, r.state, State.QUEUED]))
            change = settlement(
                *where, state, now, transport=r.transport, was=was, attempts=r.attempts + 1, followed=sent.followed,
                only=len(model.of(where[0])) == 1,
            )  # fmt: skip
            if state is State.QUEUED:
                change = change._replace(
                    due=now + data.draw(st.sampled_from([0.0, 2.0])),
                    next_transport=data.draw(st.sampled_from([None, "a", "b"])),
                    content=data.draw(st.sampled_from([None, None, b"changed"])),
                    outcome=data.draw(st.sampled_from(["deferred", "not_mine"])),
                    followed=True,
                )
                if data.draw(st.booleans()):
                    turned = Address("smtp", data.draw(st.sampled_from(["alternative@x", "alternative@y"])))
                    change = change._replace(
                        next_address=turned, next_options=RecipientOptions(), outcome="failed"
                    )
            elif state is State.RELAYED:
                change = change._replace(reported=data.draw(st.booleans()), followed=True)
            changes.append(change)
        return changes

    def apply(self, store: Store, changes: Iterable[Settlement]) -> list[Settlement]:
        """Apply changes to the model: returns those that are applicable."""
        applied: list[Settlement] = []
        for change in changes:
            r = self.model.recipients[change.key, change.index]
            if r.owner == store.node and r.state is change.was and r.transport == change.transport:
                applied.append(change)
                self.model.settle(change)
        return applied

    def expect_settled(
        self, store: Store, got: Sequence[Settlement], completed: Sequence[int], applied: Sequence[Settlement],
        waited: set[Where],
    ) -> None:  # fmt: skip
        assert list(got) == list(applied)
        ended = [(s.key, s.index) for s in applied if s.state.is_final]
        assert set(completed) == self.follow(store, ended, waited)
        assert len(completed) == len(set(completed))

    @rule(which=whiches, transport=transports)
    def journal(self, which: int, transport: str) -> None:
        store = self.stores[which]
        mine = self.owned_by(store, transport)
        with transaction(store):
            store.journal(mine, transport)
        for where in mine:
            self.model.recipients[where].state = State.SENDING

    @rule(which=whiches, transport=transports, keep=st.integers(0, 2))
    def reclaim(self, which: int, transport: str, keep: int) -> None:
        store = self.stores[which]
        mine = self.owned_by(store, transport)
        with transaction(store):
            assert store.reclaim(transport, mine[:keep]) == len(mine[keep:])
        for where in mine[keep:]:
            self.model.recipients[where].state = State.QUEUED
            self.model.recipients[where].owner = None

    def owned_by(self, store: Store, transport: str) -> list[Where]:
        every = self.model.recipients.items()
        return sorted(w for w, r in every if r.owner == store.node and r.transport == transport)

    @rule(which=whiches, hold=st.sampled_from([(), ("b",)]))
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

    @rule(which=whiches)
    def reconnect(self, which: int) -> None:
        store = self.stores[which]
        node, last = store.node, store.ids.next()
        store.disconnect()
        store.open()
        assert store.node == node
        assert store.ids.next() > last

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
        for key in self.model.messages:
            found = self.reader.message(key)
            assert found is not None
            waits = self.model.waits_for(key)
            kept = not self.model.complete(key) or self.model.awaited(key)
            assert (self.reader.content(key) is not None) == kept
            for r in found.recipients:
                expected = self.model.recipients[key, r.index]
                assert (r.transport, r.state, r.owner) == (expected.transport, expected.state, expected.owner)
                assert (r.due, r.attempts, r.in_doubt) == (expected.due, expected.attempts, expected.in_doubt)
                assert (r.address.value, r.reported) == (expected.address, expected.reported)
                assert r.state.is_final or r.after == waits
                assert (r.variant is None) == (expected.variant is None)
                if kept and r.variant is not None:
                    assert self.reader.content(key, r.variant) == expected.variant
            assert self.reader.pending(key) == sum(not r.state.is_final for r in found.recipients)

    @invariant()
    def due_times_are_known(self) -> None:
        now = self.clock.time()
        for transport in TRANSPORTS:
            free = [r.due for r in self.model.free(transport).values() if r.due is not None]
            assert self.stores[0].next_due(transport) == min(free, default=None)
            every = self.model.recipients.values()
            owned = [r for r in every if r.owner is not None and r.transport == transport]
            busy = [r.due for r in owned if r.state is State.QUEUED and r.due is not None]
            due = [at for at in free + busy if at <= now]
            assert self.reader.oldest_due(transport, now) == min(due, default=None)
        pending = self.model.expiring(float("inf"), [State.QUEUED, State.ACCEPTED])
        times = [self.model.messages[key].expires for key, _ in pending]
        assert self.stores[0].next_expiry() == min((at for at in times if at is not None), default=None)

    @invariant()
    def whatever_ended_badly_will_be_reported(self) -> None:
        rows = self.reader.followups(self.clock.time() + 1e9, 1000)
        assert {(row.kind, row.key): row.due for row in rows} == {
            (kind, key): due
            for key, sent in self.model.messages.items()
            for kind, due in sent.followups.items()
            if due is not None
        }
        for where, r in self.model.recipients.items():
            if r.state in {State.FAILED, State.EXPIRED} and not r.reported:
                assert "report" in self.model.messages[where[0]].followups


def _ended_at_once(one: NewMessage, ends: set[int]) -> NewMessage:
    """Let standing orders end some recipients of a message before they begin."""
    reply = Reply("no mail today", "5.7.1")
    return one._replace(
        recipients=tuple(
            r._replace(state=State.FAILED, reply=reply, ended="failed") if index in ends else r
            for index, r in enumerate(one.recipients)
        )
    )


def _everyone(messages: Sequence[NewMessage]) -> set[Where]:
    """Return the places of all recipients that can be owned."""
    return {(one.key, index) for one in messages for index, r in enumerate(one.recipients) if r.state is None}
