"""How many reports one sender gets: a GCRA (ITU-T I.371) per sender that gives out appointments."""

import threading

__all__ = ["SenderLimiter"]

HOUR = 3600.0

FORGET_AT = 10_000
"""Senders that are remembered before those are forgotten who have their whole share again."""


class SenderLimiter:
    """Says when a report may go to a sender. Thread-safe; known to this process only.

    A sender may get ``per_hour`` reports at once, and that many an hour in the long run. A report that comes too early
    gets an appointment, so that many of them do not all come back at the same time to be refused again.

    Args:
        per_hour: reports; None for no limit.
        max_wait: seconds that a report may have to wait; beyond it there is no appointment.
    """

    def __init__(self, per_hour: int | None, max_wait: float) -> None:
        self._interval = 0.0 if per_hour is None else HOUR / per_hour
        self._max_wait = max_wait
        self._lock = threading.Lock()
        # The theoretical arrival time of the next report, and the appointments given out.
        self._next: dict[str, float] = {}
        self._appointments: dict[object, float] = {}

    def admit(self, sender: str, report: object, now: float) -> float | None:
        """Return ``now`` when the report may go, a later time for when to ask again, None when it may not go at all.

        Args:
            sender: who is to get it.
            report: something hashable that is the same when the same report is asked for again.
            now: wall-clock seconds.
        """
        if not self._interval:
            return now
        with self._lock:
            appointment = self._appointments.get(report)
            if appointment is not None:
                if appointment > now:
                    return appointment
                del self._appointments[report]
                return now
            arrival = max(self._next.get(sender, now), now)
            if arrival > now + HOUR + self._max_wait:
                # Only a clock that was set back makes that.
                arrival = now
            at = max(now, arrival - (HOUR - self._interval))
            if at - now > self._max_wait:
                return None
            self._next[sender] = arrival + self._interval
            if at > now:
                self._appointments[report] = at
            self._forget(now)
            return at

    def __len__(self) -> int:
        """Return how many senders and appointments are remembered."""
        return len(self._next) + len(self._appointments)

    def _forget(self, now: float) -> None:
        if len(self._next) > FORGET_AT:
            self._next = {sender: at for sender, at in self._next.items() if at > now}
        if len(self._appointments) > FORGET_AT:
            # Whoever has not come within an hour has been served elsewhere.
            self._appointments = {report: at for report, at in self._appointments.items() if at > now - HOUR}
