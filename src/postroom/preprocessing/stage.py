"""The stage that runs preprocessors: to the rest of Postroom it is a transport named "preprocess".

So it has what a transport has: couriers of its own, a window, retries, a watchdog, and messages that crash it are put
on hold. A slow preprocessor keeps nobody waiting but the messages that need it, as far as there are couriers left.
"""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Final

from tenacity import stop_after_delay, wait_exponential

from postroom.clock import Clock, SystemClock
from postroom.delivery import Delivery
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError, TransportDown
from postroom.hooks import ANY_TYPE, Preprocessor, Verdict, Work
from postroom.outcomes import Outcome
from postroom.preprocessing.chain import Bounds, Chain, NotNow, in_order, type_ranks
from postroom.preprocessing.threads import HookThread, Hung
from postroom.retries import DAY, MINUTE, RetryPolicies, RetryPolicy, wait_jittered
from postroom.routing import PREPROCESS, Route
from postroom.stores.base import NewMessage
from postroom.transports.base import Limits, Session, Transport

__all__ = ["PreprocessSession", "PreprocessTransport"]

log = logging.getLogger("postroom.hooks")

MIB: Final = 1024 * 1024

SLACK: Final = 60.0
"""Seconds that an attempt may take beyond what the preprocessors may."""


def _retry() -> RetryPolicy:
    return RetryPolicy(
        wait=wait_jittered(wait_exponential(multiplier=1, min=1, max=5 * MINUTE)), stop=stop_after_delay(DAY)
    )


@dataclass(kw_only=True, eq=False)
class PreprocessTransport(Transport):
    """Runs preprocessors. Not given to a spooler as a transport: the spooler makes it when it has preprocessors.

    Recipients that a preprocessor puts off are tried again after 1, 2, 4 … seconds up to 5 minutes, for a day.

    Attributes:
        preprocessors: in the order in which they were given; see :mod:`postroom.hooks` for that in which they run.
        routes: those of the transports, in transport order.
        admit: makes a :class:`postroom.envelopes.Submission` storable, naming the field in what it raises:
            :meth:`postroom.submitting.Submitter.prepare`. None while nothing can be added.
        max_message_size: octets that a content may have.
        max_octets: octets of all different contents of one delivery together; recipients beyond wait for another turn.
        hung_per_hook: calls of one preprocessor that may hang at a time; until one of them comes back, its ``on_error``
            decides at once.
        hung_in_all: hanging calls of all preprocessors together at which the stage counts as down.
        limits: ``concurrency`` is how many messages are processed at once. ``attempt_timeout`` is raised to the sum of
            the preprocessors' timeouts and a minute where it is less; each preprocessor gets a share of it by its own.
        clock: where time comes from.
    """

    preprocessors: Sequence[Preprocessor]
    routes: Sequence[Route] = ()
    admit: Callable[[Submission, str], NewMessage] | None = field(default=None, repr=False)
    max_message_size: int = 50 * MIB
    max_octets: int = 256 * MIB
    hung_per_hook: int = 4
    hung_in_all: int = 16
    clock: Clock = field(default_factory=SystemClock, repr=False)
    name: str = PREPROCESS
    address_types: Collection[str] = frozenset()
    retry: RetryPolicy | RetryPolicies = field(default_factory=_retry)
    limits: Limits = field(default_factory=lambda: Limits(recipients_per_delivery=1_000))

    def __post_init__(self) -> None:
        names = [each.name for each in self.preprocessors]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise ConfigurationError(
                    f"preprocessors[{at}].name",
                    f"{name!r} is taken by another",
                    "give each a name of its own",
                )
        for setting in ("max_message_size", "max_octets", "hung_per_hook", "hung_in_all"):
            if getattr(self, setting) <= 0:
                raise ConfigurationError(
                    setting, f"{getattr(self, setting)!r} is not positive", "give a number above 0"
                )
        needed = sum(each.timeout for each in self.preprocessors)
        if self.limits.attempt_timeout < needed + SLACK:
            self.limits = replace(self.limits, attempt_timeout=needed + SLACK)
        self.hung = Hung(self.hung_per_hook, self.hung_in_all)
        ordered = in_order(self.preprocessors, type_ranks(self.routes))
        # Where a message has many contents, a slow preprocessor must not use up the time of those after it: nobody
        # would ever get through.
        ends = accumulate(each.timeout / needed for each in ordered)
        self.shares = {each.name: end for each, end in zip(ordered, ends, strict=True)}
        self.chain = Chain(
            ordered,
            admit=self._admit,
            bounds=Bounds(self.max_message_size, self.max_octets),
        )

    @property
    def preprocessed(self) -> frozenset[str]:
        """The address types that have a preprocessor, with "*" for all: what the router needs to know."""
        return frozenset(
            address_type
            for each in self.preprocessors
            for address_type in ((ANY_TYPE,) if each.address_types == ANY_TYPE else each.address_types)
        )

    def prepare(self) -> None:
        """Let every preprocessor check what it can."""
        for each in self.preprocessors:
            each.prepare()

    def open(self) -> "PreprocessSession":
        """Return a session; its thread is started by the first call."""
        return PreprocessSession(self)

    def _admit(self, submission: Submission, field_name: str) -> NewMessage:
        if self.admit is None:
            raise ConfigurationError("admit", "is not set", "let a spooler run the stage, or set it")
        return self.admit(submission, field_name)


class PreprocessSession(Session):
    """One courier's way through the chain, with a thread in which the preprocessors run.

    Args:
        stage: whose.
    """

    def __init__(self, stage: PreprocessTransport) -> None:
        self._stage = stage
        self._thread = HookThread(stage.hung)
        self._aborted = threading.Event()
        self._begun = 0.0
        self._added: tuple[NewMessage, ...] = ()

    def send(self, delivery: Delivery) -> tuple[Outcome, ...]:
        """Take a message through the chain; what it adds is kept for :meth:`take_added`.

        Raises:
            TransportDown: too many calls hang.
        """
        stage = self._stage
        self._added = ()
        if stage.hung.too_many:
            hanging = ", ".join(f"{number} of {name}" for name, number in sorted(stage.hung.counts().items()))
            raise TransportDown(f"too many calls of preprocessors hang: {hanging}")
        self._begun = stage.clock.monotonic()
        processing = stage.chain.run(delivery, self._call, stage.clock.time())
        self._added = processing.added
        return processing.outcomes

    def take_added(self) -> tuple[NewMessage, ...]:
        """Return the messages that the last ``send`` added, for the transaction that stores its outcomes; only once."""
        added, self._added = self._added, ()
        return added

    def _call(self, preprocessor: Preprocessor, work: Work) -> Verdict:
        stage = self._stage
        end = self._begun + stage.limits.attempt_timeout * stage.shares[preprocessor.name]
        if self._aborted.is_set() or stage.clock.monotonic() + preprocessor.timeout > end:
            raise NotNow("its turn did not come within the attempt")
        return self._thread.call(preprocessor.name, lambda: preprocessor.process(work), preprocessor.timeout)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()

    def abort(self) -> None:
        """End the wait for a preprocessor and begin no other."""
        self._aborted.set()
        self._thread.interrupt()
