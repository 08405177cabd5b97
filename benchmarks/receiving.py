"""How fast messages are received, against what does nothing with them; median of several rounds.

python benchmarks/receiving.py [--messages 2000] [--rounds 3]

The limits in the same run: bare commits of one row and its octets in SQLite with the same durability, and aiosmtpd with
a handler that answers at once and keeps nothing.
"""

import argparse
import asyncio
import smtplib
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiosmtpd.controller import Controller

from postroom import MaildirReceiver, MemoryReceiver, MemoryTransport, Settings, SmtpListener, Spooler
from postroom.inbound.hooks import Incoming, Postprocessed, postprocessor

SENDER, BOX = "ann@example.net", "desk@example.org"


def content(number: int) -> bytes:
    head = f"From: {SENDER}\r\nTo: {BOX}\r\nSubject: figures {number}\r\nMessage-ID: <{number}@example.net>\r\n\r\n"
    return head.encode() + (b"x" * 76 + b"\r\n") * 24


def shared(threads: int, count: int, one: Callable[[Iterator[int]], object]) -> float:
    """Have threads take numbers below ``count`` in turn; return numbers a second."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def mine() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    workers = [threading.Thread(target=one, args=(mine(),)) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - start)


@contextmanager
def receiving(**more: object) -> Generator[tuple[Spooler, MemoryReceiver]]:
    receiver = MemoryReceiver(name="memory")
    with (
        tempfile.TemporaryDirectory() as folder,
        Spooler(Path(folder) / "spool.db", receivers=[receiver], **more) as spooler,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    ):
        receiver.put(content(-1))
        yield spooler, receiver


def bare_commits(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, data BLOB)")
        start = time.perf_counter()
        for number in range(count):
            connection.execute("INSERT INTO message VALUES (?, ?)", (number, content(number)))
        rate = count / (time.perf_counter() - start)
        connection.close()
        return rate


def taken(count: int, threads: int) -> float:
    with receiving() as (_, receiver):

        def put(numbers: Iterator[int]) -> None:
            for number in numbers:
                receiver.put(content(number), key=str(number))

        return shared(threads, count, put)


def taken_with_postprocessor(count: int) -> float:
    seen = threading.Semaphore(0)

    @postprocessor(name="count")
    def look(_message: object, _incoming: Incoming) -> Postprocessed:
        seen.release()
        return Postprocessed(tags=("seen",))

    with receiving(postprocessors=[look]) as (spooler, receiver):
        start = time.perf_counter()
        for batch in range(0, count, 100):
            for number in range(batch, batch + 100):
                receiver.put(content(number), key=str(number))
        while sum(folder.total for folder in spooler.mail.folders()) < count + 1:
            time.sleep(0.01)
        return count / (time.perf_counter() - start)


def from_maildir(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder) / "box"
        for part in ("new", "cur", "tmp"):
            (box / part).mkdir(parents=True)
        for number in range(count):
            (box / "new" / f"{number}.x").write_bytes(content(number))
        start = time.perf_counter()
        with Spooler(Path(folder) / "spool.db", receivers=[MaildirReceiver(box, watch=False)]) as spooler:
            while any((box / "new").iterdir()):
                time.sleep(0.01)
            rate = count / (time.perf_counter() - start)
            assert sum(each.total for each in spooler.mail.folders()) == count
        return rate


def send_to(host: str, port: int, count: int, clients: int) -> float:
    def client(numbers: Iterator[int]) -> None:
        with smtplib.SMTP(host, port) as smtp:
            for number in numbers:
                smtp.sendmail(SENDER, [BOX], content(number))

    return shared(clients, count, client)


def over_smtp(count: int, clients: int) -> float:
    listener = SmtpListener("127.0.0.1", 0, local=["example.org"])
    with (
        tempfile.TemporaryDirectory() as folder,
        Spooler(f"{folder}/spool.db", receivers=[listener]) as spooler,
    ):
        while not any(status.status == "up" for status in spooler.receivers()):
            time.sleep(0.01)
        return send_to(*listener.address[:2], count, clients)


class Nothing:
    async def handle_DATA(self, *_: object) -> str:  # noqa: N802 - aiosmtpd's name
        await asyncio.sleep(0)
        return "250 taken"


def over_bare_smtp(count: int, clients: int) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    controller = Controller(Nothing(), "127.0.0.1", port)
    controller.start()
    try:
        return send_to("127.0.0.1", port, count, clients)
    finally:
        controller.stop()


def sent_with_journal(count: int, *, everything: bool) -> float:
    transport = MemoryTransport(address_types={"smtp"})
    settings = Settings(durable_events="all") if everything else Settings()
    with (
        tempfile.TemporaryDirectory() as folder,
        Spooler(f"{folder}/s.db", [transport], settings=settings) as spooler,
    ):

        def submit(numbers: Iterator[int]) -> None:
            for number in numbers:
                spooler.submit(content(number), sender=SENDER, to=BOX).wait(60)

        return shared(16, count, submit)


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast messages are received")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    count = options.messages
    rows: list[tuple[str, Callable[[], float]]] = [
        ("bare commits in SQLite, one by one (limit)", lambda: bare_commits(count)),
        ("taken one by one, 1 thread", lambda: taken(count, 1)),
        ("taken one by one, 16 threads", lambda: taken(count, 16)),
        ("taken and postprocessed", lambda: taken_with_postprocessor(count)),
        ("from a Maildir, removed there", lambda: from_maildir(count)),
        ("aiosmtpd that keeps nothing, 1 client (limit)", lambda: over_bare_smtp(count, 1)),
        ("over SMTP, 1 client", lambda: over_smtp(count, 1)),
        ("aiosmtpd that keeps nothing, 20 clients (limit)", lambda: over_bare_smtp(count, 20)),
        ("over SMTP, 20 clients", lambda: over_smtp(count, 20)),
        (
            "sent, 16 threads wait, the usual events in the journal",
            lambda: sent_with_journal(count, everything=False),
        ),
        (
            "sent, 16 threads wait, all events in the journal",
            lambda: sent_with_journal(count, everything=True),
        ),
    ]
    found: dict[str, list[float]] = {name: [] for name, _ in rows}
    for _ in range(options.rounds):
        for name, measure in rows:
            found[name].append(measure())
    for name, rates in found.items():
        print(f"{name:58}{statistics.median(rates):8,.0f}/s  ({min(rates):,.0f} to {max(rates):,.0f})")


if __name__ == "__main__":
    main()
