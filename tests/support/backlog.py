"""Makes a spool full of queued messages, quickly and without a spooler.

As a program (``python tests/support/backlog.py PATH COUNT``) in a process of its own, whose memory is not the test's.
"""

import sys
import time
from pathlib import Path

from postroom.addresses import Address
from postroom.clock import SystemClock
from postroom.stores.base import NewMessage, NewRecipient
from postroom.stores.sqlite import SqliteStore

STEP = 5_000
CONTENT = b"From: app@example.org\r\nSubject: backlog\r\n\r\n" + b"x" * 62 + b"\r\n"


def build(path: Path, count: int, *, owned: bool = False, journalled: int = 0) -> None:
    """Queue ``count`` messages for the transport "memory", as a process leaves them that dies.

    Args:
        path: the database file.
        count: of messages with one recipient each.
        owned: whether the dead process had taken them.
        journalled: how many of each step it had noted as being sent.
    """
    store = SqliteStore(path, SystemClock(), synchronous="off")
    store.open()
    now = time.time()
    recipients = (NewRecipient(Address("memory", "x"), "memory"),)
    for start in range(0, count, STEP):
        keys = [store.ids.next() for _ in range(min(STEP, count - start))]
        batch = [NewMessage(key, "app@example.org", CONTENT, recipients, now, now) for key in keys]
        store.begin()
        store.accept(batch, {(key, 0) for key in keys if owned})
        if journalled:
            store.journal([(key, 0) for key in keys[:journalled]], "memory")
        store.commit()
    store.close(leave=False)


if __name__ == "__main__":
    build(Path(sys.argv[1]), int(sys.argv[2]))
