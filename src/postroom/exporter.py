"""The Prometheus exporter: what the spool can tell, and the HTTP endpoint.

The counts come from the tally in the spool, which every process sees alike: a scrape costs the same at any depth, and
whichever process of a pre-forked server answers it, queue depth and delivery counters are those of the whole spool,
once. Histograms and restart counters are of the process; under ``PROMETHEUS_MULTIPROC_DIR`` prometheus-client adds
them up.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from postroom.errors import PostroomError
from postroom.recipients import PENDING_STATES
from postroom.stores.base import Tally

if TYPE_CHECKING:
    from postroom.running import Running

__all__ = ["BREAKER_STATES", "Exporter", "SpoolCollector"]

BREAKER_STATES = {"up": 0, "ramping": 1, "probing": 2, "parked": 3, "restarting": 4, "starting": 5}
"""What the numbers of ``postroom_breaker_state`` mean."""

_GAUGES = {
    "queue_depth": ("Recipients that are not settled.", ("transport", "state")),
    "oldest_due_age_seconds": ("How long the longest-waiting recipient has been due.", ("transport",)),
    "active_recipients": ("Recipients in this process's memory.", ("transport",)),
    "spool_bytes": ("Size of the spool's database file.", ()),
    "wal_bytes": ("Size of the spool's write-ahead log.", ()),
    "mailbox_depth": ("Letters waiting for an actor.", ("actor",)),
    "transport_up": ("1 when the transport is up or ramping, else 0.", ("transport",)),
    "breaker_state": ("0 up, 1 ramping, 2 probing, 3 parked, 4 restarting, 5 starting.", ("transport",)),
    "ledger_imbalance": ("Accepted less settled less pending recipients; anything but 0 is a bug.", ()),
    "last_progress_timestamp_seconds": ("When the messaging system last answered.", ("transport",)),
    "receiver_up": ("Whether a receiver that this process runs is connected.", ("receiver",)),
    "receiver_last_received_timestamp_seconds": (
        "When a receiver of this process last took a message.",
        ("receiver",),
    ),
    "inbound_oldest_due_age_seconds": (
        "How long the longest-waiting incoming message has been due for postprocessing.",
        (),
    ),
    "instances": ("Processes that share the spool.", ()),
}
_COUNTERS = {
    "recipients_accepted": ("Recipients made durable.", ("address_type",)),
    "deliveries": ("Outcomes recorded for recipients.", ("transport", "outcome")),
    "messages_received": ("Incoming messages made durable.", ("receiver",)),
    "remote_reports": (
        "Incoming messages that report about others, by whether they mean ours.",
        ("receiver", "match"),
    ),
}


class SpoolCollector(Collector):
    """Reads the spool when it is scraped. Thread-safe; never raises and never waits for the writer.

    Args:
        source: returns the running spooler's innards, or None while it does not run.
    """

    def __init__(self, source: "Callable[[], Running | None]") -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        """Name the metrics without reading the spool, so that registering is cheap."""
        return _families().values()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; only their names while the spooler does not run."""
        families = _families()
        running = self._source()
        if running is not None:
            try:
                _fill(families, running)
            except (PostroomError, OSError):
                # A scrape in the middle of a stop gets the names and no values, rather than an error page.
                families = _families()
        yield from families.values()


def _families() -> dict[str, GaugeMetricFamily | CounterMetricFamily]:
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for name, (text, labels) in _GAUGES.items():
        families[name] = GaugeMetricFamily(f"postroom_{name}", text, labels=labels)
    for name, (text, labels) in _COUNTERS.items():
        families[name] = CounterMetricFamily(f"postroom_{name}", text, labels=labels)
    return families


def _fill(families: dict[str, GaugeMetricFamily | CounterMetricFamily], running: "Running") -> None:
    tally = running.view.tally()
    context = running.context
    now = context.clock.time()

    def add(name: str, labels: tuple[str, ...], value: float) -> None:
        families[name].add_metric(labels, value)

    names = {*context.transports, *(transport for (transport, _), n in tally.states.items() if n)}
    for transport in sorted(names):
        for state in PENDING_STATES:
            add("queue_depth", (transport, state.label), tally.states.get((transport, state), 0))
    for address_type, n in sorted(tally.accepted.items()):
        add("recipients_accepted", (address_type,), n)
    for (transport, outcome), n in sorted(tally.outcomes.items()):
        add("deliveries", (transport, outcome), n)
    _fill_received(add, tally, running, now)
    add("ledger_imbalance", (), tally.imbalance)
    for transport, standing in running.standings().items():
        queue = context.queues[transport]
        oldest = context.reader.oldest_due(transport, now)
        add("oldest_due_age_seconds", (transport,), 0.0 if oldest is None else max(0.0, now - oldest))
        add("active_recipients", (transport,), queue.held)
        add("transport_up", (transport,), float(standing.status in {"up", "ramping"}))
        add("breaker_state", (transport,), BREAKER_STATES.get(standing.status, 5))
        if queue.last_progress is not None:
            add("last_progress_timestamp_seconds", (transport,), queue.last_progress)
    for actor, handle in running.handles():
        add("mailbox_depth", (actor,), handle.depth())
    add("instances", (), len(running.view.instances()))
    # Never open(): closing any descriptor of a SQLite file drops this process's POSIX locks on it.
    add("spool_bytes", (), _size(os.fspath(running.path)))
    add("wal_bytes", (), _size(f"{os.fspath(running.path)}-wal"))


def _fill_received(
    add: "Callable[[str, tuple[str, ...], float], None]", tally: Tally, running: "Running", now: float
) -> None:
    for receiver, n in sorted(tally.received.items()):
        add("messages_received", (receiver,), n)
    for (receiver, match), n in sorted(tally.remote_reports.items()):
        add("remote_reports", (receiver, match), n)
    for status in running.receivers():
        add("receiver_up", (status.name,), float(status.status == "up"))
        if status.last_taken is not None:
            add("receiver_last_received_timestamp_seconds", (status.name,), status.last_taken)
    arriving = running.context.reader.next_arriving()
    add("inbound_oldest_due_age_seconds", (), 0.0 if arriving is None else max(0.0, now - arriving))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - as above, and no Path is needed
    except FileNotFoundError:
        return 0


class Exporter:
    """The metrics of one spooler and, if asked for, an HTTP endpoint for them.

    Args:
        registry: where the instruments are; the spool's collector joins them.
        source: see :class:`SpoolCollector`.
        host: interface of the endpoint.
        port: port of the endpoint, 0 for any, None for no endpoint.
    """

    def __init__(
        self, registry: CollectorRegistry, source: "Callable[[], Running | None]", host: str, port: int | None
    ) -> None:
        self.collector = SpoolCollector(source)
        registry.register(self.collector)
        self._registry = registry
        self._host = host
        self._port = port
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def registry(self) -> CollectorRegistry:
        """What is exposed: the instruments' registry, or all processes' together in a multi-process server."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call] # prometheus-client leaves it untyped
        together.register(self.collector)
        return together

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the endpoint while it is open."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def serve(self) -> None:
        """Open the endpoint, if one is wanted.

        Raises:
            OSError: the port cannot be had.
        """
        if self._port is not None:
            self._server, self._thread = start_http_server(self._port, self._host, self.registry)

    def after_fork(self) -> None:
        """Let go of the parent's endpoint in a forked child, so that the port is free when the parent ends."""
        server, self._server = self._server, None
        self._thread = None
        if server is not None:
            server.socket.close()

    def close(self) -> None:
        """Close the endpoint."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            if self._thread is not None:
                self._thread.join(5)
