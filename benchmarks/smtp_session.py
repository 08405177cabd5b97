"""How fast one SMTP session sends, beside smtplib's ``sendmail`` on a kept connection, to the same server.

The server is Postfix's smtp-sink in a process of its own. CPU is that of this process only (user and system).

    .venv/bin/python benchmarks/smtp_session.py --messages 20000 --size 1000
"""

import argparse
import os
import shutil
import smtplib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.outcomes import Relayed
from postroom.transports.smtp import SmtpTransport

Sender = Callable[[int, int], None]
"""Sends that many messages to that port."""


def content(size: int) -> bytes:
    head = b"From: app@example.org\r\nTo: ann@example.org\r\nMessage-ID: <b@example.org>\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    return head + line * max(1, (size - len(head)) // len(line))


def ours(recipients: list[str], message: bytes, *, pipelining: bool = True) -> Sender:
    targets = tuple(Target(index, Address("smtp", value)) for index, value in enumerate(recipients))

    def send(messages: int, port: int) -> None:
        session = SmtpTransport("127.0.0.1", port, security="none", pipelining=pipelining).open()
        for number in range(messages):
            delivery = Delivery(number, "app@example.org", targets, message)
            result = session.send(delivery)
            assert isinstance(result[0] if isinstance(result, tuple) else result, Relayed)
        session.close()

    return send


def theirs(recipients: list[str], message: bytes) -> Sender:
    def send(messages: int, port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost") as client:
            for _ in range(messages):
                assert client.sendmail("app@example.org", recipients, message) == {}

    return send


def measure(send: Sender, messages: int, threads: int, port: int) -> tuple[float, float]:
    """Return messages per second and CPU microseconds per message."""
    share = messages // threads
    workers = [threading.Thread(target=send, args=(share, port)) for _ in range(threads)]
    wall, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return share * threads / wall, cpu / (share * threads) * 1e6


@contextmanager
def sink() -> Generator[int]:
    program = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin:/sbin")
    if program is None:
        sys.exit("smtp-sink is missing: apt-get install postfix")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [program, *user, f"127.0.0.1:{port}", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > deadline:
                sys.exit("smtp-sink does not listen")
            time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000, help="messages per run (default 20000)")
    parser.add_argument("--size", type=int, default=1_000, help="octets per message (default 1000)")
    parser.add_argument("--recipients", type=int, default=1, help="recipients per message (default 1)")
    parser.add_argument(
        "--threads", type=int, nargs="*", default=[1, 4], help="sessions at once (default 1 4)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts (default 3)")
    parser.add_argument(
        "--only", choices=["pipelined", "stepwise", "smtplib"], help="just this one, for a profiler"
    )
    options = parser.parse_args()
    recipients = [f"r{number}@example.org" for number in range(options.recipients)]
    message = content(options.size)
    senders = {
        "pipelined": ours(recipients, message),
        "stepwise": ours(recipients, message, pipelining=False),
        "smtplib": theirs(recipients, message),
    }
    print(
        f"{options.messages} messages of {len(message)} octets, {options.recipients} recipient(s), to smtp-sink"
    )
    print(f"{'sender':<12}{'threads':>8}{'messages/s':>12}{'CPU us/message':>16}")
    with sink() as port:
        for threads in options.threads:
            for name, send in senders.items():
                if options.only not in (None, name):
                    continue
                runs = [measure(send, options.messages, threads, port) for _ in range(options.repeat)]
                rate, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
                print(f"{name:<12}{threads:>8}{rate:>12.0f}{cpu:>16.1f}")


if __name__ == "__main__":
    main()
