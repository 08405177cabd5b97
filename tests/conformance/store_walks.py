"""The rest of the state machine over a store: claims, walks over many recipients, followups, forgetting."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from postroom.addresses import Address
from postroom.recipients import State
from postroom.stores.base import Claimed, Place, Planned
from tests.conformance.store_machine import transports, whiches
from tests.conformance.store_model import Expected, Where
from tests.conformance.store_operators import OperatorMachine
from tests.conformance.stores import rounds, transaction

__all__ = ["StoreMachine"]

_NOWHERE = "nowhere"


class StoreMachine(OperatorMachine):
    """Two instances on one spool against a dictionary. Give ``make_spool``."""

    # Claiming

    @rule(
        which=whiches,
        transport=transports,
        limit=st.integers(1, 6),
        fair=st.booleans(),
        blocked=st.sampled_from([(), (), ("x",), ("x", "y")]),
    )
    def claim(self, which: int, transport: str, limit: int, fair: bool, blocked: tuple[str, ...]) -> None:
        store, now, model = self.stores[which], self.clock.time(), self.model
        free = model.free(transport).items()
        ready = {
            where: r
            for where, r in free
            if r.due is not None and r.due <= now and r.destination not in blocked
        }
        waited = model.waiting()
        with transaction(store):
            claimed, gone, completed = store.claim(transport, now, limit, fair=fair, blocked=blocked)
        self.expect_in_order(claimed)
        taken = {(one.key, target.index) for one in claimed for target in one.targets}
        lost = {(s.key, s.index) for s in gone}
        assert taken | lost <= set(ready)
        assert len(taken | lost) == len(taken) + len(gone) == min(limit, len(ready))
        assert all(
            _is_over(model.messages[where[0]].expires, now) == (where in lost) for where in taken | lost
        )
        if fair or blocked:
            self.nobody_is_starved(ready, taken | lost)
        else:
            self.the_oldest_go_first(ready, taken | lost)
        for one in claimed:
            for target in one.targets:
                r = model.recipients[one.key, target.index]
                assert (target.attempts, target.in_doubt) == (r.attempts, r.in_doubt)
                assert target.address.value == r.address
                r.owner = store.node
        for s in gone:
            model.settle(s)
        assert set(completed) == self.follow(store, lost, waited)

    def expect_in_order(self, claimed: Sequence[Claimed]) -> None:
        """By priority, then due time, then submission order; the recipients of one message together."""
        model = self.model
        places = [
            (-one.priority, min(model.recipients[one.key, target.index].due or 0.0 for target in one.targets), one.key)
            for one in claimed
        ]  # fmt: skip
        assert places == sorted(places)

    def the_oldest_go_first(self, ready: dict[Where, Expected], taken: set[Where]) -> None:
        """Within a priority nobody goes before somebody who has been due for longer."""
        for level in self.levels(ready).values():
            order = sorted(level, key=lambda where: (ready[where].due or 0.0, where))
            count = len(taken & level)
            assert taken & level == set(order[:count])

    def nobody_is_starved(self, ready: dict[Where, Expected], taken: set[Where]) -> None:
        """Within a priority every tenant gets something where there is enough for that."""
        for level in self.levels(ready).values():
            tenants = {self.model.messages[key].tenant for key, _ in level}
            served = {self.model.messages[key].tenant for key, _ in taken & level}
            assert len(served) >= min(len(tenants), len(taken & level))

    def levels(self, ready: dict[Where, Expected]) -> dict[int, set[Where]]:
        levels: dict[int, set[Where]] = {}
        for where in ready:
            levels.setdefault(self.model.messages[where[0]].priority, set()).add(where)
        return levels

    # Walks over many

    @rule(which=whiches, limit=st.integers(1, 4), held=st.booleans())
    def sweep(self, which: int, limit: int, held: bool) -> None:
        store, now, model = self.stores[which], self.clock.time(), self.model
        waiting = model.expiring(now, [State.QUEUED, State.ACCEPTED])
        parked = model.expiring(now, [State.HELD]) if held else []
        waited = model.waiting()
        with transaction(store):
            gone, completed = store.sweep(now, limit, held=held)
        places = [(s.key, s.index) for s in gone]
        assert len(set(places)) == len(places) == min(limit, len(waiting) + len(parked))
        assert set(places) <= {*waiting, *parked}
        assert sum(where in waiting for where in places) == min(limit, len(waiting))
        for s in gone:
            assert s.state is State.EXPIRED
            model.settle(s)
        assert set(completed) == self.follow(store, places, waited)

    @precondition(lambda self: self.model.recipients)
    @rule(
        which=whiches,
        transport=transports,
        limit=st.integers(1, 3),
        aside=st.booleans(),
        goes=st.dictionaries(
            st.sampled_from(["x", "y", "z"]), st.sampled_from(["a", "b", _NOWHERE]), max_size=3
        ),
    )
    def replan(self, which: int, transport: str, limit: int, aside: bool, goes: dict[str, str]) -> None:
        store, now, model = self.stores[which], self.clock.time(), self.model
        asked: list[tuple[str, frozenset[str]]] = []

        def plan(address: Address, present: str, declined: frozenset[str]) -> Planned | None:
            assert present == transport
            asked.append((address.value, declined))
            to = goes.get(address.value.rpartition("@")[2])
            if to is None or to == present:
                return None
            return Planned(None if to == _NOWHERE else to, "because")

        meant = set(model.free(transport))
        if aside:
            mine = {w: r for w, r in model.recipients.items() if r.transport == transport and r.owner is None}
            blocked = model.waiting()
            meant |= {w for w, r in mine.items() if r.state is State.QUEUED and w in blocked}
            meant |= {w for w, r in mine.items() if r.state is State.HELD}
        expected = sorted(
            (model.recipients[where].address, model.recipients[where].declined) for where in meant
        )
        moving = {
            where for where in meant if goes.get(model.recipients[where].destination) not in {None, transport}
        }
        changed: set[Where] = set()
        place: Place | None = None
        while True:
            waited = model.waiting()
            with transaction(store):
                applied, completed, place = store.replan(transport, plan, place, limit, now, aside=aside)
            for s in applied:
                model.settle(s)
            ended = [(s.key, s.index) for s in applied if s.state.is_final]
            assert set(completed) == self.follow(store, ended, waited)
            changed |= {(s.key, s.index) for s in applied}
            if place is None:
                break
        assert changed >= moving
        if not any(to == _NOWHERE for to in goes.values()):
            # Otherwise the end of one message may let another be looked at as well.
            assert sorted(asked) == expected
            assert changed == moving

    # Following up

    @rule(limit=st.integers(1, 5))
    def read_followups(self, limit: int) -> None:
        rows = self.reader.followups(self.clock.time(), limit)
        assert [row.due for row in rows] == sorted(row.due for row in rows)
        for row in rows:
            every = self.model.of(row.key)
            ended = {w[1] for w, r in every.items() if r.state.is_final and not r.reported}
            self.read.append((row, frozenset(ended) if row.kind == "report" else frozenset[int]()))

    @precondition(lambda self: self.read)
    @rule(which=whiches, again=st.sampled_from([None, None, 5.0]), twice=st.booleans(), data=st.data())
    def follow_up(self, which: int, again: float | None, twice: bool, data: st.DataObject) -> None:
        store, model = self.stores[which], self.model
        followup, ended = data.draw(st.sampled_from(self.read))
        if not twice:
            self.read.remove((followup, ended))
        at = None if again is None else self.clock.time() + again
        reported = ended if at is None else frozenset[int]()
        sent = model.messages.get(followup.key)
        there = sent is not None and sent.followups.get(followup.kind) == followup.due
        with transaction(store):
            assert store.followed_up(followup, reported, at) == there
        if sent is None or not there:
            return
        if at is None:
            del sent.followups[followup.kind]
        else:
            sent.followups[followup.kind] = at
        for index in reported:
            r = model.recipients[followup.key, index]
            assert not r.reported, "nobody is reported twice"
            r.reported = True

    # Forgetting

    @rule(which=whiches, age=st.sampled_from([None, 0.0, 2.0]), limit=st.integers(1, 4))
    def purge(self, which: int, age: float | None, limit: int) -> None:
        now = self.clock.time()
        before = None if age is None else now - age
        rounds(self.stores[which], before=before, content_before=now - 5, limit=limit)
        if before is not None:
            self.model.purge(before)

    @rule(which=whiches)
    def index(self, which: int) -> None:
        with transaction(self.stores[which]):
            self.stores[which].index(10, self.clock.time())


def _is_over(expires: float | None, now: float) -> bool:
    return expires is not None and expires <= now
