"""What the intake has in hand, the letters that tell it how that goes, and the steps that the store does for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from postroom.envelopes import Submission
from postroom.inbound.chain import Chain, Filed, Outcome
from postroom.inbound.hooks import Postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule
from postroom.inbound.values import InboundRecord, NewInbound
from postroom.preprocessing.threads import Hung
from postroom.stores.base import NewMessage, Store
from postroom.tickets import Ticket

__all__ = [
    "INTERRUPTED",
    "Answered",
    "Claim",
    "ClaimAnswered",
    "Errand",
    "IntakeParts",
    "Told",
    "Worked",
    "give_back",
    "note",
    "renew",
]

HUNG_PER_HOOK: Final = 4
HUNG_IN_ALL: Final = 16
"""Calls of postprocessors that may hang at a time; beyond that one is not called, or nothing is claimed any more."""

INTERRUPTED: Final = "its postprocessing was interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeParts:
    """What the intake works with; outlives its incarnations.

    Attributes:
        postprocessors: in their order, with different names.
        rules: where messages are filed that no postprocessor has decided about.
        policy: of receiving.
        prepare: checks and serialises a submission, naming the field
            (:meth:`postroom.submitting.Submitter.prepare`).
        max_size: octets that a content may have that a postprocessor made.
        hung: calls that hang.
        claimed: the attempt with which each message was claimed that is in hand: a successor gives these back.

    Raises:
        ConfigurationError: two postprocessors have the same name.
    """

    postprocessors: Sequence[Postprocessor]
    rules: Sequence[ReceiveRule] = ()
    policy: ReceivePolicy = field(default_factory=ReceivePolicy)
    prepare: Callable[[Submission, str], NewMessage]
    max_size: int
    hung: Hung = field(init=False, default_factory=lambda: Hung(HUNG_PER_HOOK, HUNG_IN_ALL))
    chain: Chain = field(init=False)
    claimed: dict[int, int] = field(init=False, default_factory=dict[int, int])

    def __post_init__(self) -> None:
        chain = Chain(
            self.postprocessors,
            rules=self.rules,
            policy=self.policy,
            admit=self.prepare,
            max_size=self.max_size,
        )
        object.__setattr__(self, "chain", chain)

    def in_hand(self, now: float) -> dict[tuple[int, int], float]:
        """Return what is claimed, as numbers of messages and attempts, each due now. Any thread may ask."""
        return dict.fromkeys(self.claimed.copy().items(), now)


@dataclass(eq=False, slots=True)
class Claim:
    """A claim that the store was told of.

    Attributes:
        limit: how many messages it may bring.
        returned: what it gives back first.
        since: monotonic seconds.
        store: the incarnation that was told.
        rows: what it brought, noted in the store's thread: known even if the answer is lost.
    """

    limit: int
    returned: dict[tuple[int, int], float]
    since: float
    store: int
    rows: Sequence[tuple[InboundRecord, NewInbound]] = ()


@dataclass(eq=False, slots=True)
class Errand:
    """One message on its way through the intake. Changed by the intake's thread only.

    Attributes:
        record: as it was claimed last.
        new: the same with its content; None as soon as the clerk is done.
        step: who has it: a clerk, or the store.
        outcome: what became of it, once that is known.
        told: the letter about it that the store is to answer.
    """

    record: InboundRecord
    new: NewInbound | None
    step: Literal["working", "answering"] = "working"
    outcome: Outcome | None = None
    told: "Told | None" = None

    @property
    def job(self) -> tuple[InboundRecord, NewInbound]:
        """What a clerk gets."""
        assert self.new is not None  # noqa: S101 - it is given to one clerk, once
        return self.record, self.new


@dataclass(eq=False, slots=True)
class Told:
    """Errands whose outcome the store was told of, with one letter.

    Attributes:
        errands: and the attempt each was told with.
        since: monotonic seconds.
        store: the incarnation that was told, 0 if it was away or could not do it.
        tries: how often the store was told.
    """

    errands: Sequence[tuple[Errand, int]]
    since: float
    store: int
    tries: int = 1


@dataclass(frozen=True, slots=True)
class ClaimAnswered:
    """The store has answered a claim."""

    claim: Claim
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Worked:
    """A clerk is done with an errand."""

    errand: Errand
    outcome: Outcome | BaseException


@dataclass(frozen=True, slots=True)
class Answered:
    """The store has answered about errands."""

    told: Told
    ticket: Ticket


def give_back(spool: Store, back: Mapping[tuple[int, int], float], now: float) -> int:
    """Make messages due that were claimed and are in nobody's hands; each only under the number of that claim."""
    return sum(
        spool.inbox.postpone(key, attempts, due, INTERRUPTED, now) for (key, attempts), due in back.items()
    )


def note(spool: Store, key: int, attempts: int, outcome: Outcome, now: float) -> bool:
    """Write down what became of a message; False if it was claimed again since, or filed already."""
    if isinstance(outcome, Filed):
        return spool.inbox.file(key, attempts, outcome.filing, now)
    return spool.inbox.postpone(key, attempts, outcome.due, outcome.error, now)


def renew(spool: Store, records: Sequence[InboundRecord], seconds: float, now: float) -> None:
    """Keep messages that were claimed from being claimed by others."""
    for record in records:
        spool.inbox.postpone(record.key, record.attempts, now + seconds, record.error, now)
