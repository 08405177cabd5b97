"""What the store actor does besides its letters, in small steps: nothing here holds up a submitter for long."""

import logging
from collections.abc import Callable
from typing import Any

from postroom.actors.batches import Effects
from postroom.actors.context import Context
from postroom.actors.protocol import Act, Arriving, FollowupsDue, Ordered, Probe, Reroute
from postroom.stores.base import Place, Replan, Replanned
from postroom.stores.driver import sqlite3
from postroom.tickets import Ticket

__all__ = ["Housekeeper"]

log = logging.getLogger("postroom.store")

HEARTBEAT_SECONDS = 10.0
PURGE_SECONDS = 60.0
HELD_SECONDS = 60.0
STEP = 250
"""Rows looked at in one transaction."""

INDEX_STEP = 100
"""Messages taken into the search index by one transaction."""

PAUSE = 0.05
"""Seconds until the next step while there is more to do."""

ROUTES = "routes"
"""The fact that tells which routes the spool was planned for."""


def _ignore(_count: int) -> None:
    pass


class Housekeeper:
    """Adopts, expires, plans again, answers other processes, forgets. Used by the store actor's thread.

    Args:
        context: what the actors share.
        transact: does a step in a transaction of its own and announces what follows from it.
        busy: whether much was committed since it was asked last.
        act: does what an operator wants, within a step.
    """

    def __init__(
        self,
        context: Context,
        transact: Callable[[Callable[[Effects], None]], None],
        busy: Callable[[], bool],
        act: Callable[[Act, Effects], None],
    ) -> None:
        self._context = context
        self._store = context.store
        self._transact = transact
        self._busy = busy
        self._act = act
        self._heartbeat_at = 0.0
        self._purge_at = 0.0
        self._held_at = 0.0
        # Walks under way: transport, where it stands, and by which plan.
        self._walks: dict[tuple[str, str], Place | None] = {}
        # Transports from which the walk under way has moved somebody.
        self._moved: set[str] = set()
        self._new_routes: str | None = None

    def open(self) -> None:
        """Take over what dead processes left, and find out whether the routes have changed. Told nobody yet."""
        self._adopt()
        self._store.changed_elsewhere()
        if self._context.delivers:
            self._check_routes()

    def keep(self) -> float:
        """Do a round; returns the seconds until the next one."""
        pause = self._context.settings.sync_interval
        self._store.check_place()
        try:
            if self._round():
                pause = PAUSE
        except sqlite3.OperationalError as error:
            self._store.rollback()
            log.warning("housekeeping is put off: %s", error)
        return pause

    def _round(self) -> bool:
        """Return whether there is more to do at once."""
        context = self._context
        now = context.clock.time()
        if self._store.changed_elsewhere():
            self._look_elsewhere()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_SECONDS
            self._store.begin()
            self._store.heartbeat(now)
            self._store.commit()
            self._adopt()
        if not context.delivers:
            return False
        more = self._sweep(now)
        if self._store.inbox.has_early_reports():
            self._transact(lambda _effects: _ignore(self._store.inbox.apply_early_reports(now, STEP)))
        more = self._walk(now) or more
        if context.settings.search:
            more = self._index(now) or more
        if now >= self._purge_at:
            more = self._purge(now) or more
        return more

    # Other processes

    def _look_elsewhere(self) -> None:
        context = self._context
        context.handles.router.tell(Reroute(frozenset(context.transports)))
        orders = context.reader.orders()
        if list(orders) != list(context.orders.given):
            context.orders.given = orders
            for handle in context.handles.transports.values():
                handle.tell(Ordered(orders))
        due = context.reader.next_followup()
        if due is not None:
            context.handles.follower.tell(FollowupsDue(due))
        arriving = context.reader.next_arriving()
        if arriving is not None:
            context.handles.intake.tell(Arriving(arriving))
        context.bell.ring()
        self._answer_requests()

    def _answer_requests(self) -> None:
        """Do what operators in other processes want of this one, or of processes that are gone."""
        probe: list[bool] = []

        def answer(effects: Effects) -> None:
            for request in self._store.take_requests(STEP):
                if request.action.kind == "probe":
                    probe.append(True)
                    continue
                indices = None if request.indices is None else frozenset(request.indices)
                self._act(Act(request.action, [(request.key, indices)], Ticket()), effects)

        self._transact(answer)
        if probe:
            for handle in self._context.handles.transports.values():
                handle.tell(Probe())

    def _adopt(self) -> None:
        if not self._context.delivers:
            # Whether what was being sent is sent again or held is for a process that knows its transport to say.
            return
        hold = [name for name, transport in self._context.transports.items() if transport.in_doubt == "hold"]
        self._store.begin()
        adopted = self._store.adopt(hold, self._context.clock.time())
        self._store.commit()
        for transport, count in adopted.items():
            log.warning(
                "adopted %d recipients of %r from a process that died; some may be sent twice",
                count,
                transport,
            )
            if transport not in self._context.transports:
                self._walks.setdefault(("replan", transport), None)
        arriving = self._context.reader.next_arriving()
        if arriving is not None:
            self._context.handles.intake.tell(Arriving(arriving))
        if adopted:
            # What was wanted of the dead is done before anybody can claim what they left.
            self._answer_requests()
            self._context.handles.router.tell(Reroute(frozenset(adopted)))

    # Expiry

    def _sweep(self, now: float) -> bool:
        due = self._store.next_expiry()
        # There is no index by which those that are held expire, so they are looked through now and then.
        held = self._context.settings.expire_held and now >= self._held_at
        if held:
            self._held_at = now + HELD_SECONDS
        if (due is None or due > now) and not held:
            return False
        gone: list[Any] = []

        def sweep(effects: Effects) -> None:
            applied, completed = self._store.sweep(now, STEP, held=held)
            effects.moved_on(applied, completed)
            gone.extend(applied)

        self._transact(sweep)
        return len(gone) == STEP

    # Plans

    def _check_routes(self) -> None:
        """Begin to plan again for everybody when the routes are not those that the spool was planned for."""
        context = self._context
        if not context.transports:
            # A spooler that delivers nothing at all is a mistake rather than a plan: nobody is failed for it.
            return
        routes = context.router.digest()
        known = self._store.fact(ROUTES)
        pending = {
            transport
            for (transport, state), n in context.reader.tally().states.items()
            if n and not state.is_final
        }
        if known != routes:
            walked = pending
            self._new_routes = routes
        else:
            walked = pending - set(context.transports)
        for transport in walked - self._elsewhere():
            self._walks["replan", transport] = None

    def _elsewhere(self) -> set[str]:
        """Return the transports that only other processes run: where their recipients go is for these to say."""
        ours = self._store.node
        run = {standing.transport for standing in self._context.reader.standings() if standing.node != ours}
        return run - set(self._context.transports)

    def move_on(self, transport: str) -> None:
        """Have what waits for a transport that is out go to the next one."""
        self._walks.setdefault(("failover", transport), None)

    def _walk(self, now: float) -> bool:
        """Do a step of the walk at hand."""
        if not self._walks:
            if self._new_routes is not None:
                routes, self._new_routes = self._new_routes, None
                self._transact(lambda _effects: self._store.set_fact(ROUTES, routes))
            return False
        walk = next(iter(self._walks))
        plan: Replan = self._context.router.replan if walk[0] == "replan" else self._context.router.failover
        place = self._walks[walk]

        found: list[Replanned] = []

        def step(effects: Effects) -> None:
            replanned = self._store.replan(walk[1], plan, place, STEP, now, aside=walk[0] == "replan")
            effects.moved_on(replanned.settlements, replanned.completed)
            found.append(replanned)

        self._transact(step)
        # Only now, so that a step that was undone is taken again.
        ((applied, _, last),) = found
        if applied:
            log.info("%d recipients of %r were planned again", len(applied), walk[1])
        if applied and walk[0] == "replan":
            self._moved.add(walk[1])
        if last is not None:
            self._walks[walk] = last
        elif walk[1] in self._moved and walk[0] == "replan":
            # What was moved may have freed others behind the place where the walk was by then.
            self._moved.discard(walk[1])
            self._walks[walk] = None
        else:
            del self._walks[walk]
        return True

    # The search index

    def _index(self, now: float) -> bool:
        """Take a few messages into the search index while there is little else to do; whoever searches has the rest."""
        if self._busy():
            return False
        indexed: list[int] = []
        self._transact(lambda _effects: indexed.append(self._store.index(INDEX_STEP, now)))
        return bool(indexed[0])

    # Forgetting

    def _purge_beside(self, now: float) -> bool:
        """Forget old events, keys of the ledger, and what was deleted long ago; return whether there may be more."""
        context = self._context
        trash_before = None if context.keep_trash is None else now - context.keep_trash
        removed: list[int] = []

        def step(_effects: Effects) -> None:
            removed.append(self._store.inbox.purge(now, STEP, trash_before))
            removed.append(self._store.events.purge(now - context.settings.keep_events, STEP))

        self._transact(step)
        return max(removed) >= STEP

    def _purge(self, now: float) -> bool:
        """Forget a few old messages; return whether there may be more."""
        settings = self._context.settings
        before = None if settings.keep_sent is None else now - settings.keep_sent
        self._store.begin()
        # Content that is not kept went with the settlement, so there is no need to walk the younger messages for it.
        dropped_before = now - settings.keep_content if settings.keep_content else 0.0
        more = self._store.purge(before, dropped_before, STEP) > 0
        self._store.commit()
        more = self._purge_beside(now) or more
        if not more:
            self._purge_at = now + PURGE_SECONDS
        return more
