"""What a transport is: an ordinary class without threads.

A :class:`Transport` says what it handles and opens sessions; a :class:`Session` sends. Couriers (the threads that
Postroom runs) own the sessions: one session is used by one courier, never by two threads at once, is kept open and
reused within the limits, and is closed by the courier. ``open()`` may be called from several couriers at once.

A new transport is one file, one line of configuration and the conformance suite
(:mod:`postroom.testing.transports`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tenacity.wait import wait_base

from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Outcome, Reply
from postroom.retries import RetryPolicies, RetryPolicy
from postroom.routing import Route
from postroom.throttles import Throttle

__all__ = ["Limits", "Outcomes", "Session", "Transport"]

Outcomes = Outcome | Sequence[Outcome]
"""What ``send`` returns: one outcome for all targets, or one per target in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a transport runs at once and how long things may take. Times are in seconds.

    Attributes:
        concurrency: couriers, hence sessions, at once. With 1 the submission order is strict.
        window: recipients held in memory for this transport at most (Postfix: the active queue).
        window_bytes: octets of content held in memory for this transport at most; beyond it content is
            read from the spool when its turn comes.
        recipients_per_delivery: recipients of one message handed to ``send`` together.
        attempt_timeout: how long one ``send`` may take.
        hang_grace: how long beyond that until its courier is abandoned and replaced.
        session_deliveries: deliveries over one session before it is closed and a fresh one opened.
        session_age: age at which a session is not used for another delivery.
        session_idle: idle time after which a session is closed.
        strict_order: messages leave in the order in which they were submitted, whatever becomes of each: the next is
            not tried before its predecessor is done, retries included. Needs a concurrency of 1.
    """

    concurrency: int = 4
    window: int = 2_000
    window_bytes: int = 64 * 1024 * 1024
    recipients_per_delivery: int = 1
    attempt_timeout: float = 600.0
    hang_grace: float = 5.0
    session_deliveries: int = 1_000
    session_age: float = 300.0
    session_idle: float = 30.0
    strict_order: bool = False

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name != "strict_order" and getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"limits.{name}", f"{getattr(self, name)!r} is not positive", "give a number above 0"
                )
        if self.window < self.concurrency:
            raise ConfigurationError(
                "limits.window",
                f"{self.window} is less than the concurrency {self.concurrency}",
                "give each courier room for one",
            )
        if self.strict_order and self.concurrency != 1:
            raise ConfigurationError(
                "limits.strict_order",
                f"{self.concurrency} couriers cannot keep an order",
                "set limits.concurrency to 1",
            )


class Session(ABC):
    """An open conversation with a messaging system. Used by one thread at a time, except ``abort``.

    Attributes:
        usable: False once the conversation broke in a way that ``send`` could still answer for (a time-out, a
            lost connection, a server that closes): the courier closes the session and opens another for the
            next delivery.
    """

    usable: bool = True

    @abstractmethod
    def send(self, delivery: Delivery) -> Outcomes:
        """Try to deliver to every target and say what became of each.

        Raises:
            TransportDown: the whole messaging system is unavailable; no target is charged an attempt.
            SessionStale: the kept session turned out closed before anything was sent; safe to try again.
            Exception: anything else is a crash of the courier: the delivery is kept and tried again by a new
                courier, and put on hold as poison when it crashes couriers three times.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything, politely if that is quick. Never raises."""

    def noop(self) -> bool:
        """Return whether an idle session is still usable; called before reuse after idling."""
        return True

    def abort(self) -> None:  # noqa: B027 - doing nothing is right for a session that cannot hang
        """Unblock a hung ``send`` from another thread, for example by shutting the socket down. Never raises."""

    def send_each(self, delivery: Delivery, store: Callable[[Delivery, Target], Outcome]) -> list[Outcome]:
        """Answer for each target by itself; for sessions that store one copy for each.

        Raises:
            TransportDown: at the first target. Later the others are deferred: what was stored must be settled now, or
                it would be stored again.
        """
        outcomes: list[Outcome] = []
        for target in delivery.targets:
            try:
                outcomes.append(store(delivery, target))
            except TransportDown as down:
                if not outcomes:
                    raise
                outcomes.append(Deferred(Reply(down.reason, "4.3.0"), down.retry_after))
        return outcomes

    def was_delivered(self, delivery: Delivery, target: Target) -> bool | None:
        """Return whether an earlier attempt that is in doubt arrived; None when that cannot be known."""
        del delivery, target
        return None


@dataclass(kw_only=True)
class Transport(ABC):
    """A way to reach a kind of address. Immutable once the spooler has started; shared by its couriers.

    Attributes:
        name: unique within a spooler; the ``transport`` label of the metrics and of the record.
        address_types: address types it handles, for example ``{"smtp"}``.
        patterns: globs over "type:value" that it handles; a pattern without a known type is an ``smtp`` one
            ("*@example.org"). All transports' patterns are tried in transport order before any types.
        retry: when a deferred recipient is tried again and for how long; ``RetryPolicies`` says so by destination.
        limits: see :class:`Limits`.
        probe: a tenacity wait: how long the whole transport is left alone after an outage, evaluated on the number of
            probes that failed in a row; None for 1, 2, 4 … seconds up to 2 minutes, each varied by a fifth.
        in_doubt: what happens to a recipient that was possibly being sent when a process died: "resend"
            (marked as a possible duplicate) or "hold" (then an extra commit precedes every attempt).
        throttle: rates, limits for destinations, and hours; none by default, which costs nothing.
        failover_after: seconds of outage after which what waits moves on to the next transport in its plan; None for
            never.
        tightly_coupled: the spool hands work straight to this transport, without the router between (MAPI's tightly
            coupled store and transport). One transport at most.
    """

    name: str
    address_types: Collection[str]
    patterns: Sequence[str] = ()
    retry: RetryPolicy | RetryPolicies = field(default_factory=RetryPolicy)
    limits: Limits = field(default_factory=Limits)
    probe: wait_base | None = None
    in_doubt: Literal["resend", "hold"] = "resend"
    throttle: Throttle = field(default_factory=Throttle)
    failover_after: float | None = None
    tightly_coupled: bool = False

    @abstractmethod
    def open(self) -> Session:
        """Open a session; blocking is fine, threads are the couriers' business.

        Raises:
            TransportDown: the messaging system cannot be reached or refuses us as a whole.
        """

    def prepare(self) -> None:  # noqa: B027 - many have nothing to check
        """Check what can be checked without the network; called whenever the transport's actor starts.

        Whatever it raises is logged, shown and tried again with back-off; messages wait meanwhile.
        """

    @property
    def route(self) -> Route:
        """What the router needs to know of this transport."""
        return Route(self.name, frozenset(self.address_types), tuple(self.patterns))
