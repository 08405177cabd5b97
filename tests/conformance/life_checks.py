"""What must hold whatever happens: of the spool, of each process's memory, and of what is being sent."""

from collections import Counter
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from postroom.recipients import State
from postroom.reports.following import Done
from postroom.stores.base import Followup
from postroom.stores.driver import sqlite3
from postroom.tickets import Ticket
from tests.conformance.life_process import Process, Sending

__all__ = ["LifeChecks", "Where"]

Where = tuple[int, int]
"""(message, index of the recipient)."""

_ROWS = "SELECT message_id, idx, state, owner, transport, due, after, reported FROM recipient"
_UNDONE = frozenset({State.QUEUED, State.SENDING, State.HELD})


class LifeChecks(RuleBasedStateMachine):
    """The observer of two processes.

    Attributes:
        processes: on one spool.
        watch: reads the spool.
        rows: the recipients as they were at the last look.
        order: the messages by ordering key, in the order in which they were accepted.
        deletable: messages that an operator wanted deleted.
        answers: followups that the store was told of, and for whom it answers.
        reported: how often the end of each recipient was dealt with.
    """

    processes: list[Process]
    watch: sqlite3.Connection
    rows: dict[Where, Any]
    order: dict[str, list[int]]
    deletable: set[int]
    answers: list[tuple[Followup, Done, Ticket]]
    reported: Counter[Where]

    def look_at_what_is_sent(self, process: Process, sending: Sending) -> None:
        """What a courier begins to send is its process's own, nobody else's, has its content, and overtakes nobody."""
        self.observe()
        job = sending.job
        if job.content is None:
            assert process.context.reader.content(job.key, job.variant) is not None, "its content is gone"
        others = [
            each for one in self.processes for each in one.hand if each is not sending and not each.abandoned
        ]
        for target in job.targets:
            row = self.rows[job.key, target.index]
            assert row[3] == process.node, "somebody else's recipient is sent"
            assert not State(row[2]).is_final, "a settled recipient is sent"
            assert not any(
                each.job.key == job.key and target.index in {t.index for t in each.job.targets}
                for each in others
            ), "a recipient is sent twice at once"
        for keys in self.order.values():
            for earlier in keys[: keys.index(job.key)] if job.key in keys else ():
                undone = [w for w, row in self.rows.items() if w[0] == earlier and State(row[2]) in _UNDONE]
                assert not undone, "a message overtakes another with the same ordering key"

    def observe(self) -> None:
        """Compare the spool with what it was before: what is settled stays as it is."""
        rows = {(row[0], row[1]): row for row in self.watch.execute(_ROWS)}
        for where, before in self.rows.items():
            row = rows.get(where)
            if row is None:
                assert where[0] in self.deletable, "a message vanished"
                continue
            if State(before[2]).is_final:
                assert row[2] == before[2], f"{State(before[2]).name} became {State(row[2]).name}"
                assert row[3] is None
            assert row[7] >= before[7]
        self.rows = rows
        for answer in list(self.answers):
            followup, done, ticket = answer
            if ticket.resolved:
                self.answers.remove(answer)
                if ticket.error is None and ticket.value:
                    self.reported.update((followup.key, index) for index in done.reported)

    @invariant()
    def the_ledger_balances(self) -> None:
        self.observe()
        reader = self.processes[0].context.reader
        tally = reader.tally()
        assert tally.imbalance == 0
        counts = Counter((row[4], State(row[2])) for row in self.rows.values())
        pending = {place: n for place, n in counts.items() if not place[1].is_final}
        assert {place: n for place, n in tally.states.items() if n and not place[1].is_final} == pending
        if not self.deletable:
            # "Settled at most once" in figures: as many ends were counted as there are recipients that ended.
            assert {place: n for place, n in tally.states.items() if n} == counts
        assert max(self.reported.values(), default=0) <= 1, "an end is reported twice"
        waiting = {row[6] for row in self.rows.values() if row[6] is not None and State(row[2]) in _UNDONE}
        undone = {where[0] for where, row in self.rows.items() if State(row[2]) in _UNDONE}
        assert waiting <= undone, "somebody waits for a message that is done"
        for row in self.rows.values():
            assert State(row[2]) is not State.QUEUED or row[5] is not None, "nobody knows when it is due"

    def nobody_is_lost(self) -> None:
        """What a live process owns is in its memory, once all letters are delivered."""
        self.observe()
        if any(process.waiting() for process in self.processes):
            return
        for process in self.processes:
            for (key, index), row in self.rows.items():
                if row[3] == process.node:
                    queue = process.context.queues.get(row[4])
                    assert queue is not None, "a process owns what it has no transport for"
                    assert queue.phase_of(key, index) is not None, "it is owned, but in nobody's memory"
