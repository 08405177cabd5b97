"""Couriers: the threads that hold sessions with a messaging system and block on the network.

A courier takes a job, sends it, notes the result on the job and tells the transport actor. It decides nothing: what a
result means is the actor's business.
"""

import contextlib
import logging
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

from postroom.active_queue import ActiveQueue, Crash, Job, Outage, Result
from postroom.actors.protocol import CourierGone, Ended
from postroom.clock import Clock
from postroom.delivery import Delivery, Target
from postroom.errors import InternalError, SessionStale, TransportDown, WorldError
from postroom.outcomes import Delivered, Outcome, Reply
from postroom.preprocessing.stage import PreprocessSession
from postroom.settling import check_outcomes
from postroom.transports.base import Session, Transport

__all__ = ["Courier", "CourierPool"]

log = logging.getLogger("postroom.courier")

NOOP_AFTER = 10.0
"""Seconds of idling after which a kept session is asked whether it still lives."""

RETIREMENT_CHECK = 60.0
"""Seconds between looks at whether a courier without work and without a session is still wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What all couriers of a transport are given.

    Attributes:
        transport: what opens their sessions.
        jobs: where they note what became of a job.
        load: reads the content of a message, or that variant of it, from the spool.
        tell: tells the transport's actor.
        clock: for times and durations.
    """

    transport: Transport
    jobs: ActiveQueue
    load: Callable[[int, int | None], bytes | None]
    tell: Callable[[object], bool]
    clock: Clock


class Courier(threading.Thread):
    """One thread with at most one session. Started by its pool.

    Attributes:
        busy_since: monotonic seconds at which the present job was begun, or None.
        retired: no more jobs are wanted of it.
    """

    def __init__(self, errand: Errand, inbox: "queue.SimpleQueue[Job | None]", name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._errand = errand
        self._inbox = inbox
        self._session: Session | None = None
        self._opened_at = 0.0
        self._used_at = 0.0
        self._deliveries = 0
        self.busy_since: float | None = None
        self.retired = False

    def run(self) -> None:
        """Work until retired or crashed."""
        crashed = False
        try:
            while not self.retired and not crashed:
                crashed = not self._turn()
        finally:
            self._close()
            self._errand.tell(CourierGone(self, crashed))

    def _turn(self) -> bool:
        """Do one job, or close a session that idles; False after a crash."""
        limits = self._errand.transport.limits
        try:
            job = self._inbox.get(timeout=limits.session_idle if self._session else RETIREMENT_CHECK)
        except queue.Empty:
            self._close()
            return True
        if job is None:
            self.retired = True
            return True
        clock = self._errand.clock
        if not self._errand.jobs.begin(job, self, clock.time()):
            self._errand.tell(Ended(job))
            return True
        self.busy_since = clock.monotonic()
        result = self.attempt(job)
        self.busy_since = None
        if not self._errand.jobs.end(job, self, result, clock.time()):
            log.warning("%s came back from %s after it had been abandoned", self.name, job.key)
            return True
        self._errand.tell(Ended(job))
        return not isinstance(result, Crash)

    def abandon(self) -> None:
        """Give up on this courier while it hangs; any thread may say so."""
        self.retired = True
        session = self._session
        if session is not None:
            with contextlib.suppress(Exception):
                session.abort()

    # One attempt

    def attempt(self, job: Job) -> Result:
        """Try one job; whatever is raised becomes a result."""
        try:
            return self._send(job)
        except TransportDown as error:
            self._close()
            return Outage(error.reason, error.retry_after)
        except WorldError as error:
            self._close()
            return Outage(str(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the message must be accounted for
            self._close()
            return Crash(f"{type(error).__name__}: {error}", traceback.format_exc())

    def _send(self, job: Job) -> Result:
        errand = self._errand
        content = job.content
        if content is None:
            content = errand.load(job.key, job.variant)
            if content is None:
                raise InternalError(f"the content of message {job.key} is gone")
        delivery = job.delivery(content)
        session = self._fresh_session()
        if isinstance(session, PreprocessSession):
            outcomes = self._send_once_more(session, delivery)
            job.added = session.take_added()
            return outcomes
        if any(target.in_doubt for target in job.targets):
            return self._send_doubtful(session, delivery)
        return self._send_once_more(session, delivery)

    def _send_once_more(self, session: Session, delivery: Delivery) -> list[Outcome]:
        """Send; on a kept session that turned out closed, send over a fresh one."""
        try:
            outcomes = check_outcomes(session.send(delivery), delivery.targets)
        except SessionStale:
            self._close()
            session = self._fresh_session()
            try:
                outcomes = check_outcomes(session.send(delivery), delivery.targets)
            except SessionStale as error:
                raise TransportDown(f"the session is closed before it can be used: {error}") from error
        self._deliveries += 1
        self._used_at = self._errand.clock.monotonic()
        if not session.usable:
            self._close()
        return list(outcomes)

    def _send_doubtful(self, session: Session, delivery: Delivery) -> list[Outcome]:
        """Ask the other side first what arrived already, where that is possible."""
        arrived = {
            target.index: Delivered(Reply("arrived by an earlier attempt", "2.0.0"))
            for target in delivery.targets
            if target.in_doubt and session.was_delivered(delivery, target)
        }
        rest: tuple[Target, ...] = tuple(target for target in delivery.targets if target.index not in arrived)
        sent: dict[int, Outcome] = dict(arrived)
        if rest:
            outcomes = self._send_once_more(session, replace(delivery, targets=rest))
            sent.update(zip((target.index for target in rest), outcomes, strict=True))
        return [sent[target.index] for target in delivery.targets]

    # The session

    def _fresh_session(self) -> Session:
        """Return the kept session if it is still good, else a new one."""
        errand = self._errand
        limits = errand.transport.limits
        now = errand.clock.monotonic()
        session = self._session
        if session is not None:
            worn = (
                self._deliveries >= limits.session_deliveries or now - self._opened_at >= limits.session_age
            )
            if not worn and (now - self._used_at < NOOP_AFTER or session.noop()):
                return session
            self._close()
        try:
            session = errand.transport.open()
        except WorldError:
            raise
        except Exception as error:
            # The transport's fault and no message's: nothing may become poison by it.
            log.exception("%s cannot open a session", errand.transport.name)
            raise TransportDown(f"cannot open a session: {type(error).__name__}: {error}") from error
        self._session = session
        self._opened_at = self._used_at = errand.clock.monotonic()
        self._deliveries = 0
        return session

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception:
                log.exception("%s could not close its session", self.name)


class CourierPool:
    """The couriers of one incarnation of a transport actor, and the queue they take jobs from.

    Used by the actor's thread; ``retire`` may be called by any.

    Args:
        errand: what each courier is given.

    Attributes:
        retired: no courier is added any more.
    """

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._lock = threading.Lock()
        self.retired = False
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._couriers: list[Courier] = []
        self._made = 0

    def __len__(self) -> int:
        return len(self._couriers)

    @property
    def busy(self) -> int:
        """Couriers that have a job in hand."""
        return sum(courier.busy_since is not None for courier in self._couriers)

    def put(self, job: Job) -> None:
        """Offer a job to whichever courier is free first."""
        self._inbox.put(job)

    def take_back(self) -> list[Job]:
        """Return the jobs that no courier has taken."""
        jobs: list[Job] = []
        while True:
            try:
                job = self._inbox.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                jobs.append(job)
        if self.retired:
            # The words by which idle couriers end were among them.
            for _ in self._couriers:
                self._inbox.put(None)
        return jobs

    def spawn(self) -> bool:
        """Add a courier; False when the pool is retired."""
        with self._lock:
            if self.retired:
                return False
            self._made += 1
            name = f"postroom-courier-{self._errand.transport.name}-{self._made}"
            courier = Courier(self._errand, self._inbox, name)
            self._couriers.append(courier)
            courier.start()
            return True

    def remove(self, courier: object) -> bool:
        """Forget a courier that is gone; return whether it was one of ours."""
        found = courier in self._couriers
        self._couriers = [other for other in self._couriers if other is not courier]
        return found

    def retire(self) -> list[Courier]:
        """Let all couriers finish what they have in hand and end; returns them."""
        with self._lock:
            self.retired = True
            couriers = list(self._couriers)
        for courier in couriers:
            courier.retired = True
        for _ in couriers:
            self._inbox.put(None)
        return couriers
