"""How many messages a second Postroom accepts and delivers, against the limits of the machine in the same run.

    python benchmarks/throughput.py                     the whole table
    python benchmarks/throughput.py --only e2e-memory   one part
    python benchmarks/throughput.py --profile out.svg   with a py-spy flame graph of this process

Each figure is the median of ``--rounds`` runs of ``--messages`` messages. "accept" counts until the last receipt;
"end to end" until the last recipient is settled durably. Limits measured beside them: fdatasync alone, and a bare
group-commit loop of the same inserts and settlements without threads, actors or parsing.
"""

import argparse
import contextlib
import os
import queue
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from postroom import Limits, MemoryTransport, Settings, Spooler, Submission, Transport
from postroom.addresses import Address
from postroom.clock import SystemClock
from postroom.outcomes import OK
from postroom.recipients import State
from postroom.stores.base import NewMessage, NewRecipient, Settlement
from postroom.stores.driver import sqlite3
from postroom.stores.sqlite import SqliteStore
from postroom.transports.smtp import SmtpTransport

HEAD = (
    b"From: app@example.org\r\nTo: ann@example.org\r\nSubject: benchmark message\r\nMIME-Version: 1.0\r\n\r\n"
)


def message_of(size: int) -> bytes:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    return HEAD + line * max(1, (size - len(HEAD)) // len(line))


class Bench:
    def __init__(self, folder: Path, messages: int, size: int, synchronous: str) -> None:
        self.folder = folder
        self.messages = messages
        self.content = message_of(size)
        self.settings = Settings(synchronous=synchronous)  # type: ignore[arg-type]
        self.number = 0
        self.commits = ""

    def spool(self) -> Path:
        self.number += 1
        path = self.folder / f"{self.number}" / "spool.db"
        path.parent.mkdir()
        return path

    # Limits

    def fdatasync(self) -> float:
        count = 60
        descriptor = os.open(self.folder / "sync", os.O_WRONLY | os.O_CREAT)
        block = b"x" * 4096
        started = time.perf_counter()
        for number in range(count):
            os.pwrite(descriptor, block, number * 4096)
            os.fdatasync(descriptor)
        elapsed = time.perf_counter() - started
        os.close(descriptor)
        return count / elapsed

    def bare_commits(self, batch: int) -> float:
        store = SqliteStore(self.spool(), SystemClock(), synchronous=self.settings.synchronous)
        store.open()
        recipients = (NewRecipient(Address("smtp", "ann@example.org"), "memory"),)
        settlements: list[Settlement] = []
        done = 0
        started = time.perf_counter()
        while done < self.messages:
            now = time.time()
            fresh = [
                NewMessage(store.ids.next(), "app@example.org", self.content, recipients, now, now)
                for _ in range(batch)
            ]
            store.begin()
            store.accept(fresh, {(message.key, 0) for message in fresh})
            store.settle(settlements)
            store.commit()
            done += len(settlements)
            settlements = [
                Settlement(
                    message.key,
                    0,
                    "memory",
                    State.QUEUED,
                    State.DELIVERED,
                    now,
                    1,
                    now,
                    None,
                    OK,
                    "delivered",
                    only=True,
                )
                for message in fresh
            ]
        elapsed = time.perf_counter() - started
        store.close(leave=True)
        return done / elapsed

    def bare_waiters(self, threads: int) -> float:
        """Accept only: threads that wait on a bare lock for a thread that commits whatever has gathered."""
        store = SqliteStore(self.spool(), SystemClock(), synchronous=self.settings.synchronous)
        store.open()
        recipients = (NewRecipient(Address("smtp", "ann@example.org"), "memory"),)
        inbox: queue.SimpleQueue[tuple[NewMessage, threading.Lock] | None] = queue.SimpleQueue()

        def commit() -> None:
            while (first := inbox.get()) is not None:
                batch = [first]
                with contextlib.suppress(queue.Empty):
                    while (more := inbox.get_nowait()) is not None:
                        batch.append(more)
                store.begin()
                store.accept([message for message, _ in batch], {(message.key, 0) for message, _ in batch})
                store.commit()
                for _, lock in batch:
                    lock.release()

        def one() -> None:
            now = time.time()
            lock = threading.Lock()
            lock.acquire()
            inbox.put(
                (NewMessage(store.ids.next(), "a@example.org", self.content, recipients, now, now), lock)
            )
            lock.acquire()

        committer = threading.Thread(target=commit)
        committer.start()
        elapsed = spread(threads, self.messages, one)
        inbox.put(None)
        committer.join()
        store.close(leave=True)
        return self.messages / elapsed

    # Postroom

    def accept(self, threads: int) -> float:
        """Only made durable: the messages are not due before tomorrow."""
        with Spooler(
            self.spool(), [MemoryTransport(address_types={"smtp"}, keep=0)], settings=self.settings
        ) as spooler:
            tomorrow = time.time() + 86_400

            def one() -> None:
                spooler.submit(self.content, sender="app@example.org", to="ann@example.org", send_at=tomorrow)

            return self.messages / spread(threads, self.messages, one)

    def end_to_end(self, transport: Transport, threads: int, mode: str) -> float:
        with Spooler(self.spool(), [transport], settings=self.settings) as spooler:
            started = time.perf_counter()
            if mode == "waiting":

                def one() -> None:
                    spooler.submit(self.content, sender="app@example.org", to="ann@example.org")

                spread(threads, self.messages, one)
            elif mode == "nowait":
                submission = Submission(message=self.content, sender="app@example.org", to="ann@example.org")
                pending = [spooler.submit_nowait(submission)]
                append = pending.append
                spread(threads, self.messages - 1, lambda: append(spooler.submit_nowait(submission)))
                for receipt in pending:
                    receipt.result()
            else:
                submission = Submission(message=self.content, sender="app@example.org", to="ann@example.org")
                block = [submission] * 100
                spread(threads, self.messages // 100, lambda: spooler.submit_many(block))
            total = self.messages // 100 * 100 if mode == "many" else self.messages
            deadline = time.monotonic() + 20
            settled = 0
            while settled < total:
                settled = sum(n for (_, state), n in spooler.tally().states.items() if state.is_final)
                if time.monotonic() > deadline:
                    raise SystemExit(f"only {settled} of {total} were settled")
                time.sleep(0.002)
            elapsed = time.perf_counter() - started
            assert spooler.tally().imbalance == 0
            self.commits = commit_figures(spooler)
            return total / elapsed


def commit_figures(spooler: Spooler) -> str:
    """Return how many letters the group commits held and how long they took, on average."""
    value = spooler.metrics.get_sample_value
    count = value("postroom_commit_seconds_count") or 1
    letters = (value("postroom_commit_batch_size_sum") or 0) / count
    return f"{letters:.0f} a commit of {(value('postroom_commit_seconds_sum') or 0) / count * 1000:.1f} ms"


def spread(threads: int, count: int, one: Callable[[], object]) -> float:
    """Call ``one`` ``count`` times from ``threads`` threads; returns the seconds it took."""
    share, rest = divmod(count, threads)

    def work(times: int) -> None:
        for _ in range(times):
            one()

    workers = [threading.Thread(target=work, args=(share + (number < rest),)) for number in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started


class SmtpSink:
    """Postfix's smtp-sink in another process, the fastest SMTP server at hand."""

    def __enter__(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        program = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise FileNotFoundError("smtp-sink is missing: apt-get install postfix")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen([program, *user, f"127.0.0.1:{port}", "1000"])
        for _ in range(200):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    return port
            time.sleep(0.02)
        raise RuntimeError("smtp-sink does not answer")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--messages", type=int, default=20_000, help="messages per run (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=2048, help="octets per message (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs per figure (default: %(default)s)")
    parser.add_argument("--only", default="", help="only the parts whose name contains this")
    parser.add_argument("--folder", help="where the spools are made (default: a temporary folder)")
    parser.add_argument("--synchronous", default="full", choices=["full", "normal"])
    parser.add_argument("--profile", metavar="FILE", help="write a py-spy flame graph of the whole run")
    options = parser.parse_args()
    profiler = None
    if options.profile:
        profiler = subprocess.Popen(
            [shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy")), "record", "--gil", "--threads",
             "--rate", "250", "--output", options.profile, "--pid", str(os.getpid())],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1)
    folder = Path(tempfile.mkdtemp(prefix="postroom-bench-", dir=options.folder))
    try:
        run(Bench(folder, options.messages, options.size, options.synchronous), options.rounds, options.only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if profiler is not None:
            profiler.send_signal(2)
            profiler.wait()


def run(bench: Bench, rounds: int, only: str) -> None:
    print(
        f"{bench.messages} messages of {len(bench.content)} octets, {rounds} round(s), synchronous="
        f"{bench.settings.synchronous}, SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}, "
        f"{os.cpu_count()} cores\n"
    )

    def memory(threads: int, mode: str) -> float:
        transport = MemoryTransport(address_types={"smtp"}, keep=0, limits=Limits(concurrency=1, window=4000))
        return bench.end_to_end(transport, threads, mode)

    def smtp() -> float:
        with SmtpSink() as port:
            transport = SmtpTransport(
                "127.0.0.1", port, security="none", limits=Limits(concurrency=4, window=4000)
            )
            return bench.end_to_end(transport, 32, "waiting")

    limit: float | None = None
    for name, text, measure in (
        ("limit-waiters-32", "bare accepting, 32 threads that wait", lambda: bench.bare_waiters(32)),
        ("limit-commits-32", "bare commits of 32, one thread", lambda: bench.bare_commits(32)),
        ("limit-fdatasync", "fdatasync of 4 KiB, alone", bench.fdatasync),
        ("accept-1", "accept, 1 thread", lambda: bench.accept(1)),
        ("accept-8", "accept, 8 threads", lambda: bench.accept(8)),
        ("accept-32", "accept, 32 threads", lambda: bench.accept(32)),
        ("e2e-memory-32", "end to end, 32 threads that wait", lambda: memory(32, "waiting")),
        ("e2e-memory-nowait", "end to end, 8 threads, receipts later", lambda: memory(8, "nowait")),
        ("e2e-memory-many", "end to end, 8 threads, 100 a call", lambda: memory(8, "many")),
        ("e2e-smtp-32", "end to end to smtp-sink, 32 threads wait", smtp),
    ):
        # The first is always measured: the others are given as ratios to it, since the machine's speed varies.
        if limit is None or only in name:
            limit = show(name, text, measure, rounds, limit)


def show(name: str, text: str, measure: Callable[[], float], rounds: int, limit: float | None) -> float:
    """Measure, print, and return the limit that later figures are compared with."""
    before = time.process_time()
    rates = [measure() for _ in range(rounds)]
    rate = statistics.median(rates)
    ratio = "" if limit is None else f"{rate / limit:5.2f} of bare accepting"
    seconds = time.process_time() - before
    print(
        f"{name:18} {text:42} {rate:7,.0f}/s  ({min(rates):,.0f} to {max(rates):,.0f})  {ratio}  [{seconds:.0f} s CPU]",
        flush=True,
    )
    return rate if limit is None else limit


if __name__ == "__main__":
    main()
