"""The metrics of real spoolers, scraped as Prometheus scrapes them and checked by its own tool."""

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast
from wsgiref.util import setup_testing_defaults

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    generate_latest,
    make_wsgi_app,  # pyright: ignore[reportUnknownVariableType] # prometheus-client leaves it half untyped
)
from prometheus_client.parser import text_string_to_metric_families

from postroom import MemoryTransport, Settings, Spooler, Submission
from postroom.delivery import Delivery
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Outcome, Relayed, Reply
from postroom.stores.reader import SqliteReader
from tests.support.spooling import PATIENCE, message, until
from tests.support.system import require

QUICK = Settings(synchronous="off")


def answer(delivery: Delivery) -> list[Outcome]:
    """Say of each recipient what its local part asks for."""
    outcomes: dict[str, Outcome] = {
        "relay": Relayed(), "fail": Failed(Reply("no", "5.1.1")), "later": Deferred(Reply("busy", "4.7.1")),
        "elsewhere": NotMine(),
    }  # fmt: skip
    words = [target.address.value.partition("@")[0] for target in delivery.targets]
    if "crash" in words:
        raise RuntimeError("a bug in a transport")
    if "down" in words:
        raise TransportDown("refused")
    return [outcomes.get(word, Delivered()) for word in words]


def transports() -> list[MemoryTransport]:
    return [
        MemoryTransport(name="first", address_types={"smtp"}, answer=answer),
        MemoryTransport(name="second", address_types={"smtp", "sms"}),
        MemoryTransport(name="broken", address_types={"broken"}, answer=answer),
    ]


def make_busy(spooler: Spooler) -> None:
    """Let a bit of everything happen."""
    spooler.subscribe(lambda _event: 1 / 0, name="raises")
    words = ("ok", "relay", "fail", "later", "elsewhere", "crash")
    for word in words:
        spooler.submit(message(word), sender="app@example.org", to=[f"{word}@example.org", "sms:+15550100"])
    spooler.submit(message(), sender="app@example.org", to="kept@example.org", hold=True)
    spooler.submit(message(), sender="app@example.org", to="broken:down")
    spooler.crash_actor("core/transports/second")
    until(lambda: spooler.tally().outcomes.get(("first", "crashed"), 0) >= 1)
    until(lambda: {t.name: t.status for t in spooler.transports()}["broken"] == "parked")
    until(lambda: spooler.tally().outcomes.get(("second", "delivered"), 0) == len(words) + 1)
    until(lambda: 'actor_restarts_total{actor="core/transports/second"} 1.0' in scrape(spooler))


def scrape(spooler: Spooler) -> str:
    return generate_latest(spooler.metrics).decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples of an exposition by name and sorted labels; fails on duplicates."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            where = sample.name, tuple(sorted(sample.labels.items()))
            assert where not in found, f"{where} is there twice"
            found[where] = sample.value
    return found


def get(spooler: Spooler) -> str:
    """Scrape the spooler's own endpoint."""
    address = spooler.metrics_address
    assert address is not None
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=PATIENCE) as response:
        body: bytes = response.read()
    return body.decode()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_a_scrape_of_a_busy_spooler_is_clean(spool: Path) -> None:
    promtool = require("promtool", "prometheus")
    with Spooler(spool, transports(), settings=QUICK, metrics_port=0, reports=None) as spooler:
        make_busy(spooler)
        text = get(spooler)
    assert spooler.metrics_address is None
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    found = samples(text)
    names = {name for name, _ in found}
    assert {
        "postroom_queue_depth", "postroom_oldest_due_age_seconds", "postroom_recipients_accepted_total",
        "postroom_deliveries_total", "postroom_attempt_seconds_bucket", "postroom_queue_wait_seconds_bucket",
        "postroom_delivery_seconds_bucket", "postroom_commit_seconds_bucket", "postroom_commit_batch_size_bucket",
        "postroom_spool_bytes", "postroom_wal_bytes", "postroom_mailbox_depth", "postroom_actor_restarts_total",
        "postroom_transport_up", "postroom_breaker_state", "postroom_ledger_imbalance",
        "postroom_last_progress_timestamp_seconds", "postroom_active_recipients", "postroom_instances",
        "postroom_subscriber_errors_total", "postroom_courier_restarts_total",
    } <= names  # fmt: skip
    assert found["postroom_ledger_imbalance", ()] == 0
    assert found["postroom_instances", ()] == 1
    assert found["postroom_recipients_accepted_total", (("address_type", "smtp"),)] == 7
    assert found["postroom_recipients_accepted_total", (("address_type", "sms"),)] == 6
    assert found["postroom_queue_depth", (("state", "held"), ("transport", "first"))] == 1
    assert found["postroom_transport_up", (("transport", "broken"),)] == 0
    assert found["postroom_breaker_state", (("transport", "broken"),)] == 3
    assert found["postroom_transport_up", (("transport", "first"),)] == 1
    assert found["postroom_deliveries_total", (("outcome", "not_mine"), ("transport", "first"))] == 1
    assert found["postroom_spool_bytes", ()] > 0
    assert found["postroom_attempt_seconds_count", (("transport", "second"),)] >= 7
    # What came in through the front door is what the ledger says.
    pending = sum(value for (name, _), value in found.items() if name == "postroom_queue_depth")
    assert pending == spooler_pending(spool)


def spooler_pending(spool: Path) -> int:
    reader = SqliteReader(spool)
    pending = reader.tally().pending
    reader.close()
    return pending


ID = re.compile(r"^[0-9A-HJKMNP-TV-Z]{13}$")


def test_labels_are_of_few_values_and_name_nobody(spool: Path) -> None:
    with Spooler(spool, transports(), settings=QUICK) as spooler:
        make_busy(spooler)
        for _ in range(20):
            # A host that subscribes for each of its own requests.
            spooler.subscribe(print).cancel()
        found = samples(scrape(spooler))
    labels = {(key, value) for _, pairs in found for key, value in pairs if key != "le"}
    assert {key for key, _ in labels} == {
        "transport", "state", "outcome", "address_type", "actor", "kind", "subscriber", "result",
    } - ({"kind"} if not any(key == "kind" for key, _ in labels) else set())  # fmt: skip
    for _, value in labels:
        assert "@" not in value
        assert "+" not in value
        assert not ID.match(value)
    assert {value for key, value in labels if key == "subscriber"} == {"raises", "print"}
    assert {value for key, value in labels if key == "state"} == {"queued", "sending", "accepted", "held"}
    assert len(found) < 1000


def test_the_metrics_can_be_mounted_in_the_hosts_own_exposition(spool: Path) -> None:
    registry = CollectorRegistry()
    requests = Counter("shop_requests", "The host's own.", registry=registry)
    with Spooler(spool, transports(), settings=QUICK, registry=registry) as spooler:
        assert spooler.metrics is registry
        requests.inc()
        spooler.submit(message(), sender="app@example.org", to="ok@example.org").wait(PATIENCE)
        status, body = mounted(registry)
    assert status.startswith("200")
    found = samples(body)
    assert found["shop_requests_total", ()] == 1
    assert found["postroom_deliveries_total", (("outcome", "delivered"), ("transport", "first"))] == 1
    # Stopped, but still mounted: no values of the spool, and no error either.
    found = samples(mounted(registry)[1])
    assert ("postroom_ledger_imbalance", ()) not in found
    assert found["shop_requests_total", ()] == 1


def mounted(registry: CollectorRegistry) -> tuple[str, str]:
    """Return the status and the body that the host's own WSGI application answers with."""
    app = cast("Callable[..., Iterable[bytes]]", make_wsgi_app(registry))
    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, _headers: list[tuple[str, str]]) -> None:
        statuses.append(status)

    body = b"".join(app(environ, start_response))
    return statuses[0], body.decode()


def test_the_hosts_port_may_be_taken(spool: Path) -> None:
    with Spooler(spool, metrics_port=0, settings=QUICK) as spooler:
        address = spooler.metrics_address
        assert address is not None
        other = Spooler(spool.with_name("other.db"), metrics_port=address[1], settings=QUICK)
        with pytest.raises(ConfigurationError, match="metrics_port: cannot listen there"):
            other.start()
        assert not other.running


def test_a_stopped_spooler_can_serve_again(spool: Path) -> None:
    spooler = Spooler(spool, transports(), metrics_port=0, settings=QUICK)
    for _ in range(2):
        with spooler:
            assert "postroom_ledger_imbalance 0.0" in get(spooler)


def test_scrapes_during_starts_and_stops_get_a_page(spool: Path) -> None:
    spooler = Spooler(spool, transports(), settings=QUICK)
    ended = threading.Event()
    pages: list[str] = []
    failures: list[BaseException] = []

    def scrape_on() -> None:
        while not ended.is_set():
            try:
                pages.append(scrape(spooler))
            except BaseException as failure:  # noqa: BLE001 - shown below
                failures.append(failure)
                return

    def wait_for_pages(count: int) -> None:
        until(lambda: bool(failures) or len(pages) > count)

    scrapers = [threading.Thread(target=scrape_on, daemon=True) for _ in range(3)]
    for scraper in scrapers:
        scraper.start()
    for _ in range(5):
        with spooler:
            seen = len(pages)
            spooler.submit(message(), sender="app@example.org", to="ok@example.org").wait(PATIENCE)
            wait_for_pages(seen + 3)
    ended.set()
    for scraper in scrapers:
        scraper.join(PATIENCE)
    assert not failures
    assert any("postroom_ledger_imbalance 0.0" in page for page in pages)
    for page in pages[:: max(1, len(pages) // 50)]:
        samples(page)


def nonsense(reader: SqliteReader) -> object:
    """Read as from a damaged file: SQLite refuses."""
    with reader._connection() as connection:  # pyright: ignore[reportPrivateUsage]
        return connection.execute("SELECT nonsense")


def test_a_spool_that_cannot_be_read_makes_an_empty_page(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spooler(spool, transports(), settings=QUICK) as spooler:
        monkeypatch.setattr("postroom.stores.reader.SqliteReader.tally", nonsense)
        page = scrape(spooler)
        monkeypatch.undo()
        assert ("postroom_ledger_imbalance", ()) not in samples(page)
        assert ("postroom_ledger_imbalance", ()) in samples(scrape(spooler))


def test_a_scrape_costs_the_same_at_any_depth(spool: Path) -> None:
    """Counted in instructions of SQLite's virtual machine rather than in seconds."""
    # The rows lie unowned in the spool or owned in the window; there is room for ten.
    stuck = MemoryTransport(address_types={"smtp"}, answer=answer)
    stuck.limits = type(stuck.limits)(window=10)
    with Spooler(spool, [stuck], settings=QUICK) as spooler:
        spooler.submit(message(), sender="app@example.org", to="down@example.org")
        until(lambda: spooler.transports()[0].status == "parked")

        def fill(count: int) -> None:
            spooler.submit_many(
                [
                    Submission(message=message(), sender="app@example.org", to="down@example.org")
                    for _ in range(count)
                ]
            )

        fill(50)
        shallow = instructions_of_a_scrape(spooler)
        fill(5000)
        deep = instructions_of_a_scrape(spooler)
        assert (
            samples(scrape(spooler))["postroom_queue_depth", (("state", "queued"), ("transport", "memory"))]
            == 5051
        )
    assert shallow > 0
    assert deep <= shallow + 500


def instructions_of_a_scrape(spooler: Spooler) -> int:
    source = spooler.snapshot_source()
    assert source is not None
    reader = source.context.reader
    scrape(spooler)
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connections = list(reader.connections())
    for connection in connections:
        connection.set_progress_handler(tick, 1)  # type: ignore[attr-defined]
    scrape(spooler)
    for connection in connections:
        connection.set_progress_handler(None, 1)  # type: ignore[attr-defined]
    return count


# Several processes on one spool, as under gunicorn

WORKER = textwrap.dedent("""
    import json, sys
    from prometheus_client import generate_latest
    from postroom import MemoryTransport, Settings, Spooler

    spooler = Spooler(sys.argv[1], [MemoryTransport(address_types={"smtp"})], settings=Settings(synchronous="off"))
    MESSAGE = b"From: app@example.org\\r\\n\\r\\nhello\\r\\n"
    with spooler:
        for line in sys.stdin:
            command, count = line.split()
            if command == "submit":
                receipts = [
                    spooler.submit(MESSAGE, sender="app@example.org", to=f"{n}@example.org") for n in range(int(count))
                ]
                print(json.dumps(all(receipt.wait(30).complete for receipt in receipts)), flush=True)
            else:
                print(json.dumps(generate_latest(spooler.metrics).decode()), flush=True)
""")


class Worker:
    """A process of a pre-forked server."""

    def __init__(self, spool: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(spool)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def ask(self, command: str, count: int = 0) -> object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command} {count}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def multiproc(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "multiproc"
    folder.mkdir()
    return {"PROMETHEUS_MULTIPROC_DIR": str(folder)}


def test_several_processes_count_once(spool: Path, multiproc: dict[str, str]) -> None:
    workers = [Worker(spool, multiproc) for _ in range(3)]
    counts = (5, 7, 11)
    try:
        for worker, count in zip(workers, counts, strict=True):
            assert worker.ask("submit", count) is True
        pages = [str(worker.ask("scrape")) for worker in workers]
    finally:
        for worker in workers:
            worker.process.communicate(timeout=PATIENCE)
    assert [worker.process.returncode for worker in workers] == [0, 0, 0]
    promtool = require("promtool", "prometheus")
    for page in pages:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        found = samples(page)
        # Whichever process answers: the counters are the spool's, and the histograms all processes' together.
        assert found["postroom_recipients_accepted_total", (("address_type", "smtp"),)] == sum(counts)
        assert found["postroom_deliveries_total", (("outcome", "delivered"), ("transport", "memory"))] == sum(
            counts
        )
        assert found["postroom_attempt_seconds_count", (("transport", "memory"),)] == sum(counts)
        assert found["postroom_delivery_seconds_count", (("transport", "memory"),)] == sum(counts)
        assert found["postroom_ledger_imbalance", ()] == 0
        assert found["postroom_instances", ()] == 3
        assert not any(key == "pid" for _, pairs in found for key, _ in pairs)
