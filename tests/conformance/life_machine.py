"""The whole life of recipients as a state machine: two processes on one spool, in whatever order anything happens.

The actors are real (:mod:`tests.conformance.life_process`), the clock is turned by hand. What the machine does is
what the world does: it submits, answers for remote systems, lets time pass, gives orders, pulls plugs and changes the
configuration. At the end all is well for a while, and then everybody must have come to an end.
"""

import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from postroom.active_queue import Result
from postroom.actors.protocol import Accept, Act, FollowedUp, MoveOn, Order
from postroom.clock import ManualClock
from postroom.envelopes import Report, Submission
from postroom.errors import UsageError
from postroom.orders import make_order
from postroom.outcomes import Outcome, Processed, Relayed
from postroom.recipients import State
from postroom.reports.following import Done
from postroom.routing import PREPROCESS
from postroom.selections import Selection
from postroom.stores.base import Action, Control, Followup, NewMessage
from postroom.stores.driver import connect
from postroom.tickets import Ticket
from tests.conformance.life_checks import LifeChecks, Where
from tests.conformance.life_process import Killed, Process, Sending, idle_couriers
from tests.conformance.life_world import (
    CONFIGURATIONS,
    CONTENT,
    DOMAINS,
    FULL,
    OUTCOMES,
    RECIPIENTS,
    STAMPED,
    TROUBLE,
    make,
)

__all__ = ["LifeMachine"]


pairs = st.integers(0, 1)


class LifeMachine(LifeChecks):
    """See the module's docstring."""

    @initialize(configuration=st.sampled_from(CONFIGURATIONS))
    def open(self, configuration: tuple[str, ...]) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(idle_couriers())
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "spool.db"
        self.clock = ManualClock()
        self.processes = [self.process(configuration), self.process(configuration)]
        self.watch = connect(self.path, read_only=True)
        self.stack.callback(self.watch.close)
        self.rows = dict[Where, Any]()
        self.order = dict[str, list[int]]()
        self.deletable = set[int]()
        self.read: list[tuple[Followup, Done]] = []
        self.answers = list[tuple[Followup, Done, Ticket]]()
        self.reported = Counter[Where]()

    def process(self, configuration: tuple[str, ...]) -> Process:
        transports = [make(name) for name in configuration if name != PREPROCESS]
        return Process(self.path, self.clock, transports, stamped=PREPROCESS in configuration)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            try:
                if sys.exc_info()[0] is None:
                    self.all_comes_to_an_end()
            finally:
                for process in self.processes:
                    process.kill()
                self.stack.close()

    # What users and operators do

    @rule(
        which=pairs,
        sender=st.sampled_from(["app@example.org", "other@example.org", ""]),
        to=st.lists(RECIPIENTS, min_size=1, max_size=4),
        priority=st.sampled_from([0, 0, 1, -1]),
        delay=st.sampled_from([None, None, 40.0]),
        lifetime=st.sampled_from([None, None, 35.0, 200.0]),
        report=st.sets(st.sampled_from(list(Report))),
        hold=st.sampled_from([False] * 6 + [True]),
        tenant=st.sampled_from([None, "t1", "t2"]),
        ordering_key=st.sampled_from([None, None, "o1"]),
        copies=st.sampled_from([1, 1, 6]),
        at_once=st.booleans(),
    )
    def submit(
        self, which: int, delay: float | None, lifetime: float | None, copies: int, at_once: bool, **said: Any
    ) -> None:
        process, now = self.processes[which], self.clock.time()
        for _ in range(copies):
            try:
                prepared = process.submitter.prepare(
                    Submission(
                        message=CONTENT, send_at=None if delay is None else now + delay,
                        expires_at=None if lifetime is None else now + (delay or 0.0) + lifetime, **said,
                    )
                )  # fmt: skip
            except UsageError:
                return
            process.context.handles.store.tell(Accept([prepared], self.ticket(prepared)))
        if at_once:
            process.deliver_all()

    def ticket(self, message: NewMessage) -> Ticket:
        """Return a ticket that notes in which order messages with an ordering key were accepted."""

        def note(ticket: Ticket) -> None:
            if message.ordering_key is not None and ticket.error is None:
                self.order.setdefault(message.ordering_key, []).append(message.key)

        return Ticket(note)

    @precondition(lambda self: self.rows)
    @rule(
        which=pairs,
        kind=st.sampled_from(
            ["hold", "release", "cancel", "retry", "fail", "expire", "reroute", "redirect", "delete", "probe"]
        ),
        argument=st.sampled_from(["first", "second", "text", "sms:+15550109", "d@x.example", "pending"]),
        data=st.data(),
    )
    def act(self, which: int, kind: Control, argument: str, data: st.DataObject) -> None:
        if kind == "reroute" and argument not in self.processes[which].context.transports:
            return
        if kind == "redirect" and "@" not in argument and ":" not in argument:
            return
        keys = data.draw(
            st.sets(st.sampled_from(sorted({key for key, _ in self.rows})), min_size=1, max_size=3)
        )
        indices = data.draw(st.sampled_from([None, None, frozenset({0}), frozenset({1, 2})]))
        said = argument if kind in {"reroute", "redirect"} else ""
        if kind == "delete":
            said = "pending" if argument == "pending" else ""
            self.deletable |= keys
        subjects = [(key, indices) for key in sorted(keys)] if kind != "probe" else [(0, None)]
        letter = Act(Action(kind, said, "ann", "because"), subjects, Ticket())
        self.processes[which].context.handles.store.tell(letter)

    @rule(
        which=pairs,
        action=st.sampled_from(["hold", "fail", "cancel", "reroute", "redirect", "pause", "drop"]),
        domain=st.sampled_from(DOMAINS),
        expires=st.sampled_from([None, 60.0]),
    )
    def give_order(self, which: int, action: str, domain: str, expires: float | None) -> None:
        if action == "drop":
            self.drop_orders(which)
            return
        now = self.clock.time()
        argument = {"reroute": "first", "redirect": "e@x.example"}.get(action, "")
        order = make_order(
            action,
            Selection(destination=domain),
            now=now,
            expires=expires and now + expires,
            argument=argument,
        )
        self.processes[which].context.handles.store.tell(Order([order], frozenset(), Ticket()))

    def drop_orders(self, which: int) -> None:
        numbers = frozenset(order.id for order in self.processes[which].context.reader.orders())
        self.processes[which].context.handles.store.tell(Order((), numbers, Ticket()))

    # What the program does

    @rule(
        which=pairs,
        steps=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([1, 2, 1000])), max_size=8),
        rest=st.booleans(),
    )
    def deliver(self, which: int, steps: list[tuple[int, int]], rest: bool) -> None:
        """Let letters be handled, a few at a time, now by this actor and now by that."""
        process = self.processes[which]
        for number, most in steps:
            waiting = process.waiting()
            if waiting:
                process.deliver(waiting[number % len(waiting)], most)
        if rest:
            process.deliver_all()
            self.nobody_is_lost()

    @rule(which=pairs, count=st.integers(1, 4), before=st.booleans())
    def begin(self, which: int, count: int, before: bool) -> None:
        process = self.processes[which]
        if before:
            process.deliver_all()
        for number in range(count):
            offered = process.offered()
            if offered:
                sending = process.begin(offered[number % len(offered)])
                if sending is not None:
                    self.look_at_what_is_sent(process, sending)

    @precondition(lambda self: any(process.hand for process in self.processes))
    @rule(which=pairs, count=st.integers(1, 3), after=st.booleans(), data=st.data())
    def end(self, which: int, count: int, after: bool, data: st.DataObject) -> None:
        process = self.processes[which] if self.processes[which].hand else self.processes[1 - which]
        for _ in range(count):
            if process.hand:
                sending = process.hand[data.draw(st.integers(0, len(process.hand) - 1))]
                process.end(sending, self.draw_result(sending, data))
        if after:
            process.deliver_all()

    @rule(rounds=st.integers(1, 4), seconds=st.sampled_from([0.0, 5.0, 31.0, 61.0, 101.0]), data=st.data())
    def work(self, rounds: int, seconds: float, data: st.DataObject) -> None:
        """Let both processes work undisturbed for a while."""
        for _ in range(rounds):
            for process in self.processes:
                process.deliver_all()
                while offered := process.offered():
                    sending = process.begin(offered[0])
                    if sending is None:
                        break
                    self.look_at_what_is_sent(process, sending)
                    process.end(sending, self.draw_result(sending, data))
                process.deliver_all()
            self.time_passes(seconds)

    def draw_result(self, sending: Sending, data: st.DataObject) -> Result:
        if data.draw(st.integers(0, 5)) == 5:
            trouble: Result = data.draw(TROUBLE)
            return trouble
        outcomes = STAMPED if sending.transport == PREPROCESS else OUTCOMES
        return [data.draw(outcomes) for _ in sending.job.targets]

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 70.0, 150.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for process in self.processes:
            process.wake()

    @rule(which=pairs, most=st.integers(1, 5))
    def read_followups(self, which: int, most: int) -> None:
        process = self.processes[which]
        for followup in process.context.reader.followups(self.clock.time(), most):
            record = process.context.reader.message(followup.key)
            assert record is not None
            done = process.reporter.perform(followup)
            if done.messages:
                assert record.sender, "a report would go to the null sender"
                assert record.options is None or record.options.report_of is None, "a report about a report"
            self.read.append((followup, done))

    @precondition(lambda self: self.read)
    @rule(which=pairs, data=st.data())
    def follow_up(self, which: int, data: st.DataObject) -> None:
        """Any process may answer, even twice: the spool knows whether it was done."""
        followup, done = data.draw(st.sampled_from(self.read))
        self.tell_followed(self.processes[which], followup, done)

    def tell_followed(self, process: Process, followup: Followup, done: Done) -> None:
        ticket = Ticket()
        process.context.handles.store.tell(
            FollowedUp(followup, done.reported, done.again, done.messages, ticket)
        )
        self.answers.append((followup, done, ticket))

    # What happens to the program

    @rule(
        which=pairs,
        what=st.sampled_from(
            ["transport", "transport", "store", "strike", "strike and die", "kill", "reconfigure", "move on"]
        ),
        name=st.sampled_from(FULL),
        configuration=st.sampled_from(CONFIGURATIONS),
    )
    def trouble(self, which: int, what: str, name: str, configuration: tuple[str, ...]) -> None:
        process = self.processes[which]
        match what:
            case "transport" if name in process.context.transports:
                process.restart_transport(name)
            case "move on" if name in process.context.transports:
                process.context.handles.store.tell(MoveOn(name))
            case "store":
                process.restart_store()
            case "strike":
                if self.strike(process):
                    process.restart_store()
            case "strike and die":
                if self.strike(process):
                    self.kill(which, configuration)
            case "kill":
                self.kill(which, configuration)
            case "reconfigure":
                self.reconfigure(which, configuration)
            case _:
                pass

    def strike(self, process: Process) -> bool:
        """Let the store die between a commit and its announcement, if it commits anything."""
        process.store.struck = True
        try:
            process.deliver(process.context.handles.store)
        except Killed:
            return True
        process.store.struck = False
        return False

    def kill(self, which: int, configuration: tuple[str, ...]) -> None:
        self.processes[which].kill()
        self.processes[which] = self.process(configuration)

    def reconfigure(self, which: int, configuration: tuple[str, ...]) -> None:
        self.processes[which].stop()
        self.processes[which] = self.process(configuration)

    def all_comes_to_an_end(self) -> None:
        """When all is well for long enough, every recipient is settled: by letters and timers alone."""
        for which in (0, 1):
            self.reconfigure(which, (*FULL, PREPROCESS))
        for process in self.processes:
            self.drop_orders(self.processes.index(process))
        for _ in range(600):
            self.all_goes_well()
            if all(State(row[2]).is_final for row in self.rows.values()):
                break
            naps = [nap for process in self.processes if (nap := process.sleep()) is not None]
            self.time_passes(max(0.01, min(naps)))
        stuck = [row for row in self.rows.values() if not State(row[2]).is_final]
        assert not stuck, f"these are stuck: {stuck}"
        self.clock.advance(1000.0)
        for _ in range(20):
            self.all_goes_well()
        left = self.processes[0].context.reader.followups(float("inf"), 10)
        assert not left, f"these followups are never done: {left}"
        unreported = [
            row for row in self.rows.values() if State(row[2]) in {State.FAILED, State.EXPIRED} and not row[7]
        ]
        assert not unreported, f"the end of these is never reported: {unreported}"

    def all_goes_well(self) -> None:
        for which, process in enumerate(self.processes):
            process.wake()
            process.deliver_all()
            for held in list(process.hand):
                process.end(held, _all_well(held))
            while offered := process.offered():
                sending = process.begin(offered[0])
                if sending is not None:
                    self.look_at_what_is_sent(process, sending)
                    process.end(sending, _all_well(sending))
                process.deliver_all()
            self.read.clear()
            self.read_followups(which, 1000)
            for followup, done in self.read:
                self.tell_followed(process, followup, done)
            process.deliver_all()
        self.the_ledger_balances()
        self.nobody_is_lost()
        store = self.processes[0].context.handles.store
        parked: tuple[tuple[State, Control], ...] = ((State.HELD, "release"), (State.ACCEPTED, "cancel"))
        for state, kind in parked:
            keys = sorted(row[0] for row in self.rows.values() if State(row[2]) is state)
            if keys:
                store.tell(Act(Action(kind), [(key, None) for key in dict.fromkeys(keys)], Ticket()))


def _all_well(sending: Sending) -> Result:
    outcome: Outcome = Processed(b"stamped") if sending.transport == PREPROCESS else Relayed()
    return [outcome] * len(sending.job.targets)
