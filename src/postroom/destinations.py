"""Where the destinations of one transport stand: the domains and hosts that its recipients are at.

A destination is something like a small transport: it can be down, is then left alone, probed by one canary and
released in a ramp, with the same :class:`postroom.breaker.Breaker`; and it has its own rate and its own concurrency,
which adapts. Only those of which something is to be remembered are kept: without limits that is those in trouble.

Plain logic; used by one thread, the transport actor's, except :class:`Gates`, which others read.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from postroom.breaker import Status
from postroom.destination_state import Destination
from postroom.pauses import Pause
from postroom.stores.base import DestinationStanding
from postroom.throttles import DestinationLimits, Gcra, Throttle, resumed
from postroom.verdicts import Verdict

__all__ = ["Destinations", "Gate", "Gates"]

KEPT = 10_000
"""Destinations of which something harmless (what was learnt of their concurrency) is kept in memory at most."""

FORGOTTEN_AFTER = 3600.0
"""Seconds after which a destination whose probe nobody wants to be is given the benefit of the doubt."""


Gate = tuple[str, float | None, str]
"""What is in the way: its name, until when (wall-clock seconds, None: not known), and the rule or reason."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What keeps the jobs of a transport from being tried, for ``explain``. Safe to read from any thread.

    It holds the live standing of rates and destinations, which change too often to be copied: what is read is true of
    this moment.

    Attributes:
        pauses: the operators' pauses.
        hours: the transport's hours as text, "" for always.
        closed_until: wall-clock seconds, None while its hours permit.
        rate: the transport's rate.
        destinations: those of which something is known.
    """

    pauses: tuple[Pause, ...] = ()
    hours: str = ""
    closed_until: float | None = None
    rate: Gcra | None = None
    destinations: Mapping[str, Destination] = field(default_factory=dict[str, Destination])

    def gate_of(self, destination: str, now: float) -> Gate | None:
        """Return what keeps a job for ``destination`` from being tried at ``now``, None for nothing known.

        Gates are "paused", "closed", "rate", "destination_paused", "destination_parked", "destination_probing",
        "destination_limit" and "destination_rate".
        """
        for pause in self.pauses:
            if pause.holds(None, now):
                return "paused", pause.expires, pause.rule
        if self.closed_until is not None and now < self.closed_until:
            return "closed", self.closed_until, self.hours
        if self.rate is not None and (earliest := self.rate.earliest()) > now:
            return "rate", earliest, str(self.rate.rate)
        if not destination:
            return None
        for pause in self.pauses:
            if pause.holds(destination, now):
                return "destination_paused", pause.expires, pause.rule
        standing = self.destinations.get(destination)
        return None if standing is None else _gate_of(standing, now)


def _gate_of(standing: Destination, now: float) -> Gate | None:
    breaker = standing.breaker
    if breaker.status is Status.PARKED:
        return "destination_parked", breaker.until, breaker.reason
    if standing.rate is not None and (earliest := standing.rate.earliest()) > now:
        return "destination_rate", earliest, str(standing.rate.rate)
    if standing.free > 0:
        return None
    if breaker.status is Status.PROBING:
        return "destination_probing", None, breaker.reason
    return "destination_limit", None, f"{standing.in_flight} at once"


class Destinations:
    """The destinations of one transport, and the pauses.

    Args:
        transport: its name.
        throttle: its limits.
        most: attempts at once of the whole transport.

    Attributes:
        watching: whether any destination may be unable to be tried; if not, nobody need ask.
        known: the destinations of which something is remembered.
        pauses: the operators' pauses that concern the transport.
        changed: the destinations whose standing is to be put on record, and their new one; whoever does it clears it.
        opened: destinations that may have become free; whoever takes that up clears it.
    """

    def __init__(self, transport: str, throttle: Throttle, most: int) -> None:
        self._transport = transport
        self._throttle = throttle
        self._most = most
        self._limited = throttle.by_destination
        self.watching = self._limited
        self.known: dict[str, Destination] = {}
        self.pauses: tuple[Pause, ...] = ()
        self.changed: dict[str, DestinationStanding] = {}
        self.opened: dict[str, int] = {}
        self._paused = False
        self._times: list[tuple[float, str]] = []
        self._timed: dict[str, float] = {}
        self._prune_at = KEPT
        self._former: Mapping[str, Destination] = {}

    def resume_rates(self, former: Mapping[str, Destination]) -> None:
        """Go on with the rates of an earlier incarnation: a restart must not grant another burst."""
        self._former = {name: each for name, each in former.items() if each.rate is not None}

    # Whether

    def eligible(self, destination: str, now: float) -> bool:
        """Return whether an attempt may be made at a destination."""
        if not destination:
            return True
        if self._paused and any(pause.holds(destination, now) for pause in self.pauses):
            return False
        standing = self.known.get(destination)
        if standing is None:
            return True
        if standing.free <= 0:
            return False
        if standing.rate is None or standing.rate.permits(now):
            return True
        self._wake_at(standing.rate.earliest(), destination)
        return False

    def reachable(self, destination: str, now: float) -> bool:
        """Return whether a destination is neither paused nor in an outage, though it may have reached its limits."""
        if self._paused and any(pause.holds(destination, now) for pause in self.pauses):
            return False
        standing = self.known.get(destination)
        return standing is None or standing.breaker.status in {Status.UP, Status.RAMPING}

    def blocked_until(self, destination: str, now: float) -> float | None:
        """Return when a blocked destination is looked at again, in wall-clock seconds; None when that is not known."""
        ends = [pause.expires for pause in self.pauses if pause.holds(destination, now)]
        if ends:
            known = [end for end in ends if end is not None]
            return max(known) if len(known) == len(ends) else None
        standing = self.known.get(destination)
        if standing is None:
            return None
        if standing.breaker.until is not None:
            return standing.breaker.until
        if standing.rate is not None and not standing.rate.permits(now):
            return standing.rate.earliest()
        return None

    def down(self) -> Iterable[str]:
        """Return the destinations that are parked."""
        return [name for name, each in self.known.items() if each.breaker.status is Status.PARKED]

    @property
    def in_trouble(self) -> int:
        """How many destinations are not simply up."""
        return sum(each.breaker.status is not Status.UP for each in self.known.values())

    # Attempts

    def begin(self, destination: str, now: float) -> None:
        """Count an attempt that is offered to the couriers."""
        if not destination:
            return
        standing = self.known.get(destination)
        if standing is None:
            if not self._limited:
                return
            standing = self._know(destination, now)
            if standing is None:
                return
        standing.in_flight += 1
        standing.used = now
        if standing.rate is not None:
            standing.rate.take(now)

    def give_back(self, destination: str) -> None:
        """Count out an attempt that was offered and not begun."""
        standing = self.known.get(destination)
        if standing is not None:
            standing.in_flight = max(0, standing.in_flight - 1)
            if standing.rate is not None:
                standing.rate.give_back()
            self._open(standing)

    def ended(  # noqa: PLR0913 - by keyword where it is not plain
        self,
        destination: str,
        verdict: Verdict,
        now: float,
        *,
        reason: str = "",
        retry_after: float | None = None,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        """Count out an attempt that ended, and learn from it.

        Args:
            destination: where it was.
            verdict: what it says.
            now: wall-clock seconds.
            reason: for people.
            retry_after: for how many seconds the destination asked to be left alone.
            in_flight: counts the other attempts under way there, if nobody counted so far.
        """
        standing = self.known.get(destination)
        if standing is None:
            if verdict is not Verdict.DOWN or not destination:
                return
            standing = self._remember(destination, None, now)
            standing.in_flight = in_flight() + 1
        standing.ended(now)
        under_way = standing.in_flight
        standing.in_flight = max(0, under_way - 1)
        before = standing.breaker.status
        if verdict is Verdict.ANSWERED:
            standing.breaker.answered(now)
            if standing.concurrency is not None and before in {Status.UP, Status.RAMPING}:
                standing.concurrency.success(under_way)
        elif verdict is Verdict.DOWN:
            self._down(standing, now, reason, retry_after)
        elif verdict is Verdict.TROUBLED:
            # The canary of a destination in trouble must be answered, not merely be refused for want of room.
            dead = standing.concurrency is not None and standing.concurrency.failure()
            asked = retry_after is not None and standing.concurrency is not None
            if dead or asked or before is Status.PROBING:
                self._down(standing, now, reason, retry_after)
        if standing.breaker.status is not before:
            self._note(standing)
        self._open(standing)
        self._forget_if_idle(standing)

    def _down(self, standing: Destination, now: float, reason: str, retry_after: float | None) -> None:
        if standing.breaker.down(now, reason, retry_after) and standing.concurrency is not None:
            standing.concurrency.reset()

    # Time

    def next_time(self) -> float | None:
        """Return when a destination must be looked at again, in wall-clock seconds; None without one."""
        while self._times:
            at, name = self._times[0]
            if self._timed.get(name) == at:
                return at
            heapq.heappop(self._times)
        return None

    def look(self, now: float) -> None:
        """Begin to probe the destinations whose time has come, and look again at those that had reached their rate."""
        while (at := self.next_time()) is not None and at <= now:
            _, name = heapq.heappop(self._times)
            del self._timed[name]
            standing = self.known.get(name)
            if standing is None:
                continue
            if standing.breaker.wake(now):
                self._note(standing)
            elif standing.breaker.status is not Status.UP:
                if not standing.in_flight and now - standing.breaker.since >= FORGOTTEN_AFTER:
                    self._forget(standing)
                    continue
                self._wake_at(standing.breaker.until or now + FORGOTTEN_AFTER, name)
            self._open(standing)

    def probe_now(self, now: float) -> None:
        """Begin to probe all that are parked, whatever the time: an operator wants it."""
        for standing in list(self.known.values()):
            if standing.breaker.probe_now(now):
                self._note(standing)
                self._open(standing)

    def _wake_at(self, at: float, name: str) -> None:
        earlier = self._timed.get(name)
        if earlier is None or at < earlier:
            self._timed[name] = at
            heapq.heappush(self._times, (at, name))

    # Pauses

    def pause(self, pauses: Sequence[Pause], now: float) -> None:
        """Take these pauses for the ones there are; what the former ones held back is looked at again."""
        former = self.pauses
        self.pauses = tuple(pause for pause in pauses if pause.expires is None or pause.expires > now)
        self._paused = any(pause.destination is not None for pause in self.pauses)
        self.watching = self._limited or self._paused or bool(self.known)
        for pause in former:
            if pause not in self.pauses and pause.destination is not None:
                self.opened["*"] = 0

    def pause_of_all(self, now: float) -> Pause | None:
        """Return a pause of the transport as a whole, None when there is none."""
        return next((pause for pause in self.pauses if pause.holds(None, now)), None)

    def next_expiry(self) -> float | None:
        """Return when the first pause ends by itself, in wall-clock seconds."""
        return min((pause.expires for pause in self.pauses if pause.expires is not None), default=None)

    # Memory

    def restore(self, standings: Iterable[DestinationStanding], now: float) -> None:
        """Take up what was on record."""
        for saved in standings:
            standing = self._know(saved.destination, now) or self._remember(saved.destination, None, now)
            standing.breaker.restore(
                Status(saved.status), saved.reason, saved.since, saved.until, saved.failures
            )
            if standing.concurrency is not None:
                standing.concurrency.restore(saved.limit)
            if standing.breaker.until is not None:
                self._wake_at(standing.breaker.until, standing.name)

    def _know(self, destination: str, now: float) -> Destination | None:
        """Return the standing of a destination that has limits, None where it has none."""
        limits = self._throttle.destination
        for glob, override in self._throttle.overrides.items():
            if fnmatchcase(destination, glob):
                limits = override
                break
        return None if limits is None else self._remember(destination, limits, now)

    def _remember(self, destination: str, limits: DestinationLimits | None, now: float) -> Destination:
        if len(self.known) >= self._prune_at:
            self._prune()
        standing = Destination(destination, limits, self._most, now)
        former = self._former.get(destination)
        if former is not None and standing.rate is not None:
            standing.rate = resumed(former.rate, standing.rate.rate)
        self.known[destination] = standing
        self.watching = True
        return standing

    def _forget_if_idle(self, standing: Destination) -> None:
        if standing.breaker.status is Status.UP and not standing.in_flight and standing.concurrency is None:
            self.known.pop(standing.name, None)
            self.watching = self._limited or self._paused or bool(self.known)

    def _prune(self) -> None:
        """Forget the half of the well-behaved that were not used for longest; what is in trouble or in use stays."""
        idle = [
            each for each in self.known.values() if each.breaker.status is Status.UP and not each.in_flight
        ]
        idle.sort(key=lambda each: each.used)
        for standing in idle[: (len(idle) + 1) // 2]:
            del self.known[standing.name]
        self._prune_at = max(KEPT, 2 * len(self.known))

    def _forget(self, standing: Destination) -> None:
        self.known.pop(standing.name, None)
        self.changed[standing.name] = DestinationStanding(self._transport, standing.name, Status.UP)
        self.opened[standing.name] = self._most
        self.watching = self._limited or self._paused or bool(self.known)

    def _note(self, standing: Destination) -> None:
        breaker = standing.breaker
        self.changed[standing.name] = standing.standing(self._transport)
        if breaker.status is not Status.UP:
            self._timed.pop(standing.name, None)
            self._wake_at(breaker.until or breaker.since + FORGOTTEN_AFTER, standing.name)

    def _open(self, standing: Destination) -> None:
        free = standing.free
        if free > 0:
            self.opened[standing.name] = free
