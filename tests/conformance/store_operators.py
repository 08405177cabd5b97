"""The part of the state machine over a store that operators play."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from postroom.recipients import State
from postroom.stores.base import Action, Control, Store
from tests.conformance.store_machine import CoreMachine, transports, whiches
from tests.conformance.store_model import Expected, ExpectedRequest, Where
from tests.conformance.stores import transaction

__all__ = ["OperatorMachine"]

NEW_ADDRESS = "new@z"
_ACTIONS: tuple[Control, ...] = (
    "hold", "release", "cancel", "retry", "fail", "expire", "reroute", "redirect", "delete",
)  # fmt: skip


class OperatorMachine(CoreMachine):
    """What operators do, in this process and by way of another."""

    @precondition(lambda self: self.model.recipients)
    @rule(which=whiches, kind=st.sampled_from(_ACTIONS), data=st.data())
    def control(self, which: int, kind: Control, data: st.DataObject) -> None:
        argument = ""
        if kind == "reroute":
            argument = data.draw(transports)
        elif kind == "redirect":
            argument = NEW_ADDRESS
        elif kind == "delete":
            argument = data.draw(st.sampled_from(["", "pending"]))
        key = data.draw(st.sampled_from(sorted(self.model.messages)))
        indices = data.draw(st.one_of(st.none(), st.sets(st.integers(0, 4))))
        self.do(self.stores[which], Action(kind, argument, "ann", "because"), key, indices, data)

    @precondition(lambda self: self.model.requests)
    @rule(which=whiches, limit=st.integers(1, 3), data=st.data())
    def perform_requests(self, which: int, limit: int, data: st.DataObject) -> None:
        store = self.stores[which]
        alive = {each.node for each in self.stores}
        mine = [r for r in self.model.requests if r.node == store.node or r.node not in alive][:limit]
        with transaction(store):
            taken = store.take_requests(limit)
        asked = [ExpectedRequest(0, each.action, each.key, each.indices or ()) for each in taken]
        assert asked == [ExpectedRequest(0, each.action, each.key, each.indices) for each in mine]
        self.model.requests = [request for request in self.model.requests if request not in mine]
        for request in taken:
            if request.key in self.model.messages:
                self.do(store, request.action, request.key, set(request.indices or ()), data)

    def do(
        self, store: Store, action: Action, key: int, indices: set[int] | None, data: st.DataObject
    ) -> None:
        """Have an operator act on a message, with some of what is in this instance's memory taken out of it."""
        now, model = self.clock.time(), self.model
        every = model.of(key)
        waiting = sorted(
            i for (_, i), r in every.items() if r.owner == store.node and r.state is State.QUEUED
        )
        revoked = set(data.draw(st.sets(st.sampled_from(waiting)))) if waiting else set[int]()
        meant = {where: r for where, r in every.items() if indices is None or where[1] in indices}
        final = [where[1] for where, r in meant.items() if r.state.is_final]
        free, transit, elsewhere = _sorted_out(meant, store.node, revoked)
        pending = [where for where, r in every.items() if not r.state.is_final]
        if action.kind == "delete" and not action.argument and pending:
            free, transit, elsewhere = [], [index for _, index in pending], {}
        each = Action("cancel") if action.kind == "delete" else action
        waited = model.waiting()
        changes = model.act(each, free, now)
        model.recipients.update(changes)
        for index in revoked:
            model.recipients[key, index].owner = None
        for node, asked in elsewhere.items():
            model.requests.append(ExpectedRequest(node, action, key, tuple(sorted(asked))))
        with transaction(store):
            result = store.control(action, key, revoked, indices, now)
        assert list(result.changed) == [index for _, index in changes]
        assert (list(result.in_transit), list(result.final)) == (transit, final)
        assert list(result.requested) == sorted(i for asked in elsewhere.values() for i in asked)
        ended = [where for where, r in changes.items() if r.state.is_final]
        assert result.completed == (key in self.follow(store, ended, waited))
        deleted = action.kind == "delete" and len(changes) == len(pending)
        assert result.deleted == deleted
        if deleted:
            model.forget(key)


def _sorted_out(
    meant: dict[Where, Expected], node: int, revoked: set[int]
) -> tuple[list[Where], list[int], dict[int, list[int]]]:
    """Return who is free to be changed, who is being sent, and who is in whose memory elsewhere."""
    free: list[Where] = []
    transit: list[int] = []
    elsewhere: dict[int, list[int]] = {}
    for where, r in meant.items():
        if r.state.is_final:
            continue
        if r.owner is None or (r.owner == node and where[1] in revoked):
            free.append(where)
        elif r.owner == node or r.state is State.SENDING:
            transit.append(where[1])
        else:
            elsewhere.setdefault(r.owner, []).append(where[1])
    return free, transit, elsewhere
