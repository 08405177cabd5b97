"""What one transaction of the store actor consists of, and what follows from it. Plain values and bookkeeping."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from postroom.active_queue import ActiveQueue, Job, Phase
from postroom.actors.protocol import (
    Accept,
    Act,
    Claim,
    FollowedUp,
    Journal,
    Order,
    Receive,
    Reclaim,
    Settle,
    Stand,
    StandDestination,
)
from postroom.addresses import Address
from postroom.delivery import Target
from postroom.events import Event
from postroom.lanes import destination_of
from postroom.recipients import State
from postroom.stores.base import Accepted, Claimed, Controlled, NewMessage, Settlement
from postroom.stores.inbox_base import Inbox
from postroom.tickets import Ticket
from postroom.transports.base import Transport

__all__ = ["Batch", "Effects", "TornLetterError", "sort_letters"]


@dataclass(slots=True)
class Batch:
    """The letters of one transaction, by kind."""

    letters: list[object] = field(default_factory=list[object])
    accepts: list[Accept] = field(default_factory=list[Accept])
    jobs: list[Job] = field(default_factory=list[Job])
    reclaims: list[Reclaim] = field(default_factory=list[Reclaim])
    claims: dict[str, None] = field(default_factory=dict[str, None])
    journals: list[Journal] = field(default_factory=list[Journal])
    acts: list[Act] = field(default_factory=list[Act])
    stands: list[Stand] = field(default_factory=list[Stand])
    destinations: list[StandDestination] = field(default_factory=list[StandDestination])
    followed: list[FollowedUp] = field(default_factory=list[FollowedUp])
    orders: list[Order] = field(default_factory=list[Order])
    receives: list[Receive] = field(default_factory=list[Receive])

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.letters

    @property
    def exchange_only(self) -> bool:
        """Whether there are only messages to accept and jobs to settle, and no letter that may turn out torn."""
        if self.reclaims or self.claims or self.journals or self.acts or self.stands:
            return False
        if self.destinations or self.followed or self.orders or self.receives:
            return False
        return not any(job.added for job in self.jobs) and not any(
            len(letter.messages) > 1 and any(m.idempotency_key is not None for m in letter.messages)
            for letter in self.accepts
        )

    @property
    def size(self) -> int:
        """Messages and jobs in the transaction."""
        taken = sum(len(letter.messages) for letter in self.accepts)
        received = sum(len(letter.inbound) + len(letter.messages) for letter in self.receives)
        return taken + received + len(self.jobs) + len(self.claims)

    def messages(self) -> list[NewMessage]:
        """Return the messages of all accepts, in order."""
        return [message for letter in self.accepts for message in letter.messages]

    def jobs_by_transport(self) -> dict[str, list[Job]]:
        """Return the settled jobs of each transport."""
        grouped: dict[str, list[Job]] = {}
        for job in self.jobs:
            grouped.setdefault(job.transport, []).append(job)
        return grouped


def sort_letters(letters: Sequence[object]) -> Batch:  # noqa: C901, PLR0912 - one branch per kind of letter
    """Sort letters by kind; jobs settled before, or twice in the batch, are left out."""
    batch = Batch()
    seen: set[int] = set()
    for letter in letters:
        if isinstance(letter, Accept):
            batch.accepts.append(letter)
        elif isinstance(letter, Settle):
            for job in letter.jobs:
                if job.phase is Phase.SETTLING and id(job) not in seen:
                    seen.add(id(job))
                    batch.jobs.append(job)
        elif isinstance(letter, Claim):
            batch.claims[letter.transport] = None
        elif isinstance(letter, Reclaim):
            batch.reclaims.append(letter)
        elif isinstance(letter, Journal):
            batch.journals.append(letter)
        elif isinstance(letter, Act):
            batch.acts.append(letter)
        elif isinstance(letter, Stand):
            batch.stands.append(letter)
        elif isinstance(letter, StandDestination):
            batch.destinations.append(letter)
        elif isinstance(letter, FollowedUp):
            batch.followed.append(letter)
        elif isinstance(letter, Order):
            batch.orders.append(letter)
        elif isinstance(letter, Receive):
            batch.receives.append(letter)
        else:
            continue
        batch.letters.append(letter)
    return batch


class TornLetterError(Exception):
    """A letter's messages go together, but one of them has an idempotency key that was used for another payload."""


def _by_transport(message: NewMessage) -> dict[str, list[int]]:
    """Return the indices of a message's recipients by transport."""
    if len(message.recipients) == 1:
        only = message.recipients[0]
        return {only.transport: [0]} if only.state is None else {}
    groups: dict[str, list[int]] = {}
    for index, recipient in enumerate(message.recipients):
        if recipient.state is None:
            groups.setdefault(recipient.transport, []).append(index)
    return groups


def deliveries(targets: Sequence[Target], transport: Transport) -> Iterator[tuple[str, tuple[Target, ...]]]:
    """Yield (destination, targets) of each delivery: no more than fit, all with the same content.

    They are also at the same destination where the transport looks at destinations.
    """
    if len(targets) == 1:
        yield destination_of(targets[0].address), (targets[0],)
        return
    apart = transport.throttle.by_destination
    groups: dict[tuple[str, int | None], list[Target]] = {}
    for target in targets:
        destination = destination_of(target.address) if apart else ""
        groups.setdefault((destination, target.variant), []).append(target)
    size = transport.limits.recipients_per_delivery
    for (destination, _), group in groups.items():
        for start in range(0, len(group), size):
            part = tuple(group[start : start + size])
            yield destination or (destination_of(part[0].address) if len(part) == 1 else ""), part


def _at_any(blocked: frozenset[str], message: NewMessage, indices: Sequence[int]) -> bool:
    """Return whether one of the recipients is at a destination that cannot be tried now, so that it best waits."""
    return any(destination_of(message.recipients[index].address) in blocked for index in indices)


class Effects:
    """What follows from a transaction once it is committed, and what must be undone if it is not.

    Args:
        listened: whether anybody wants to know what changed; else it is not put together.
    """

    def __init__(self, *, listened: bool = True) -> None:
        self._listened = listened
        self.tickets: list[tuple[Ticket, object]] = []
        self.due: dict[str, float] = {}
        self.fresh: list[NewMessage] = []
        self.changed: list[tuple[Settlement, Address | None]] = []
        self.completed: list[int] = []
        self.moved: set[str] = set()
        self.journalled: list[tuple[str, list[Job]]] = []
        self.claims: dict[str, tuple[bool, float | None]] = {}
        self.claimed_jobs: dict[str, list[Job]] = {}
        self.events: list[Event] = []
        self.arriving: float | None = None
        self.journalled_events = False
        self.late = 0
        self.ordered = False
        self.octets = 0
        self._reserved: list[tuple[ActiveQueue, int, str]] = []
        self._groups: list[tuple[NewMessage, str, list[int]]] = []

    # Accepting

    def reserve(
        self, messages: Sequence[NewMessage], queues: Mapping[str, ActiveQueue], now: float
    ) -> set[tuple[int, int]]:
        """Take room for the recipients that can go at once; returns those that are born owned."""
        owned: set[tuple[int, int]] = set()
        for message in messages:
            if message.hold or message.due > now or message.ordering_key is not None:
                continue
            for transport, indices in _by_transport(message).items():
                queue = queues.get(transport)
                if queue is None or (queue.blocked and _at_any(queue.blocked, message, indices)):
                    continue
                if queue.reserve(len(indices), message.tenant):
                    self._reserved.append((queue, len(indices), message.tenant))
                    self._groups.append((message, transport, indices))
                    for index in indices:
                        owned.add((message.key, index))
        return owned

    def release_reserved(self) -> None:
        """Undo all reservations."""
        for queue, count, tenant in self._reserved:
            queue.release(count, tenant)
        self._reserved.clear()
        self._groups.clear()

    def accepted(self, messages: Sequence[NewMessage], results: Sequence[Accepted], batch: Batch) -> None:
        """Note what became of the messages.

        Raises:
            TornLetterError: some messages of a letter are refused; none of them may be stored.
        """
        position = 0
        answers: list[Sequence[Accepted]] = []
        for letter in batch.accepts:
            end = position + len(letter.messages)
            answers.append(results[position:end])
            self.tickets.append((letter.ticket, answers[-1]))
            position = end
        self.completed += [result.key for result in results if result.complete]
        refused = {
            id(message)
            for message, result in zip(messages, results, strict=True)
            if result.duplicate or result.conflict
        }
        self.fresh = (
            [message for message in messages if id(message) not in refused] if refused else list(messages)
        )
        if refused:
            if any(len(answer) > 1 and any(result.conflict for result in answer) for answer in answers):
                raise TornLetterError
            kept: list[tuple[NewMessage, str, list[int]]] = []
            reserved: list[tuple[ActiveQueue, int, str]] = []
            for group, place in zip(self._groups, self._reserved, strict=True):
                if id(group[0]) in refused:
                    queue, count, tenant = place
                    queue.release(count, tenant)
                else:
                    kept.append(group)
                    reserved.append(place)
            self._groups, self._reserved = kept, reserved
        self._note_unowned()
        if self._listened:
            self.changed += [
                (
                    Settlement(m.key, index, r.transport, State.QUEUED, r.state, m.created, 0, reply=r.reply),
                    r.address,
                )
                for m in self.fresh
                if m.followed
                for index, r in enumerate(m.recipients)
                if r.state is not None and r.reply is not None
            ]

    def _note_unowned(self) -> None:
        """Remember when the recipients that stay in the spool are due."""
        taken = {(id(message), transport) for message, transport, _ in self._groups}
        self.octets += sum([len(message.content) + 1024 for message in self.fresh])
        if len(taken) == len(self.fresh) and all(len(message.recipients) == 1 for message in self.fresh):
            return
        for message in self.fresh:
            if message.hold:
                continue
            for recipient in message.recipients:
                if recipient.state is None and (id(message), recipient.transport) not in taken:
                    self.note_due(recipient.transport, message.due)

    def note_due(self, transport: str, at: float) -> None:
        """Remember the earliest time at which a transport has something new to do."""
        self.due[transport] = min(self.due.get(transport, at), at)

    def make_jobs(
        self, transports: Mapping[str, Transport], queues: Mapping[str, ActiveQueue]
    ) -> dict[str, Sequence[Job]]:
        """Return the jobs of the messages born owned, by transport."""
        work: dict[str, list[Job]] = {}
        for message, name, indices in self._groups:
            recipients = message.recipients
            targets = [
                Target(index, recipients[index].address, options=recipients[index].options)
                for index in indices
            ]
            for destination, part in deliveries(targets, transports[name]):
                job = Job(
                    key=message.key, transport=name, epoch=queues[name].epoch, sender=message.sender, targets=part,
                    content=message.content, size=len(message.content), created=message.created, due=message.due,
                    recipient_count=len(recipients), priority=message.priority, expires=message.expires,
                    smtputf8=message.smtputf8, eight_bit=message.eight_bit, tenant=message.tenant,
                    destination=destination, report=message.report, options=message.options,
                    followed=message.followed,
                )  # fmt: skip
                work.setdefault(name, []).append(job)
        return dict(work)

    # Receiving

    def received(self, inbox: Inbox) -> None:
        """Note what incoming messages, and the reports among them, have changed; what is noted is taken away."""
        self.events += inbox.news
        for reported in inbox.reported:
            self.changed += reported.settlements
            self.completed += reported.completed
        if inbox.due is not None:
            self.arriving = inbox.due if self.arriving is None else min(self.arriving, inbox.due)

    # Settling, claiming, controlling

    def settled(self, jobs: Sequence[Job], applied: Sequence[Settlement], completed: Sequence[int]) -> None:
        """Note what became of the jobs."""
        self.late += sum(len(job.settlements) for job in jobs) - len(applied)
        self.completed += completed
        if self._listened:
            addresses = {(job.key, target.index): target.address for job in jobs for target in job.targets}
            self.changed += [(s, addresses.get((s.key, s.index))) for s in applied]
        for settlement in applied:
            if settlement.state is State.QUEUED and settlement.due is not None:
                self.note_due(settlement.next_transport or settlement.transport, settlement.due)
        self.octets += 512 * len(applied)

    def claimed(
        self,
        transport: Transport,
        queue: ActiveQueue,
        claims: Sequence[Claimed],
        gone: Sequence[Settlement],
        completed: Sequence[int],
    ) -> None:
        """Make jobs of what was claimed; room for it is there, since only the store actor takes room."""
        self.completed += completed
        self.changed += [(settlement, None) for settlement in gone]
        jobs: list[Job] = []
        for claim in claims:
            queue.take(len(claim.targets), claim.tenant)
            self._reserved.append((queue, len(claim.targets), claim.tenant))
            jobs += [
                Job(
                    key=claim.key, transport=transport.name, epoch=queue.epoch, sender=claim.sender, targets=part,
                    content=None, size=claim.size, created=claim.created, due=claim.due,
                    recipient_count=claim.recipient_count, priority=claim.priority, expires=claim.expires,
                    smtputf8=claim.smtputf8, eight_bit=claim.eight_bit, crashes=claim.crashes, tenant=claim.tenant,
                    destination=destination, report=claim.report, options=claim.options, followed=claim.followed,
                )
                for destination, part in deliveries(claim.targets, transport)
            ]  # fmt: skip
        self.claimed_jobs[transport.name] = jobs

    def acted(self, key: int, result: Controlled) -> None:
        """Note what an operator's action did to a message."""
        if result.completed:
            self.completed.append(key)
        self.moved |= result.transports
        self.changed += [(settlement, None) for settlement in result.settlements]

    def moved_on(self, applied: Sequence[Settlement], completed: Sequence[int]) -> None:
        """Note changes of recipients that nobody had in hand."""
        self.completed += completed
        self.changed += [(settlement, None) for settlement in applied]
        self.moved |= {s.next_transport or s.transport for s in applied if s.state is State.QUEUED}
