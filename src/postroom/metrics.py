"""What the actors measure as they go. What the spool itself can tell is in :mod:`postroom.exporter`."""

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Instruments"]

COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
ATTEMPT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 4 * 3600, 86400, 5 * 86400)


class BatchHistogram(Histogram):
    """A histogram that takes many values at once: on the hot path three observations a message were 7 µs of CPU."""

    def observe_many(self, values: Iterable[float]) -> None:
        """Observe each value; costs one locked addition per bucket that is hit, not per value."""
        self._raise_if_not_observable()  # type: ignore[no-untyped-call] # prometheus-client leaves it untyped
        bounds = self._upper_bounds
        hits: dict[int, int] = {}
        total = 0.0
        for value in values:
            bucket = bisect_left(bounds, value)
            hits[bucket] = hits.get(bucket, 0) + 1
            total += value
        if hits:
            self._sum.inc(total)  # pyright: ignore[reportUnknownMemberType] # as above
            for bucket, count in hits.items():
                self._buckets[bucket].inc(count)  # pyright: ignore[reportUnknownMemberType] # as above


class Instruments:
    """Counters and histograms of one spooler, in a registry. Thread-safe.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.commit_seconds = Histogram(
            "postroom_commit_seconds", "Time a group commit took.", buckets=COMMIT_BUCKETS, registry=registry
        )
        self.commit_batch_size = Histogram(
            "postroom_commit_batch_size",
            "Letters in a group commit.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.attempt_seconds = BatchHistogram(
            "postroom_attempt_seconds",
            "Time an attempt took.",
            ["transport"],
            buckets=ATTEMPT_BUCKETS,
            registry=registry,
        )
        self.queue_wait_seconds = BatchHistogram(
            "postroom_queue_wait_seconds",
            "Time from being due to the attempt.",
            ["transport"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.delivery_seconds = BatchHistogram(
            "postroom_delivery_seconds",
            "Time from submission until a recipient was settled.",
            ["transport"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.actor_restarts = Counter(
            "postroom_actor_restarts", "Actors started again by the supervisor.", ["actor"], registry=registry
        )
        self.courier_restarts = Counter(
            "postroom_courier_restarts",
            "Couriers replaced after a crash or a hang.",
            ["transport"],
            registry=registry,
        )
        self.throttled = Counter(
            "postroom_throttled",
            "Times that work was held back, by gate: paused, closed, rate; destination counts the jobs.",
            ["transport", "gate"],
            registry=registry,
        )
        self.destinations_parked = Gauge(
            "postroom_destinations_parked",
            "Destinations that are parked, probed or released in a ramp.",
            ["transport"],
            registry=registry,
        )
        self.store_errors = Counter(
            "postroom_store_errors", "Transactions that failed, by kind.", ["kind"], registry=registry
        )
        self.late_settlements = Counter(
            "postroom_late_settlements",
            "Outcomes that came too late to be recorded, because the recipient was no longer ours.",
            registry=registry,
        )
        self.subscriber_errors = Counter(
            "postroom_subscriber_errors",
            "Exceptions raised by subscribers.",
            ["subscriber"],
            registry=registry,
        )
        self.subscriber_dropped = Counter(
            "postroom_subscriber_dropped",
            "Events dropped because a subscriber was too slow.",
            ["subscriber"],
            registry=registry,
        )
        self.reports = Counter(
            "postroom_reports",
            "Reports to senders (failure, delay, success, double_bounce), by what became of them.",
            ["kind", "result"],
            registry=registry,
        )
        self.sent_hook_errors = Counter(
            "postroom_sent_hook_errors", "Sent-hooks and clean-ups that raised or hung.", registry=registry
        )
        self.sent_hooks_given_up = Counter(
            "postroom_sent_hooks_given_up",
            "Complete messages of which a sent-hook or a clean-up could not be told.",
            registry=registry,
        )
        self.followup_errors = Counter(
            "postroom_followup_errors",
            "Followups that could not be done for an error of ours.",
            registry=registry,
        )
