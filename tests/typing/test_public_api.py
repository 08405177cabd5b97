"""The types of the public surface: mypy and pyright check ``public_api`` below, and the test runs them.

A wrong annotation in the package makes an ``assert_type`` fail in one of the two, and an argument that should not be
accepted carries an ignore that turns into an error of its own once it is accepted (``warn_unused_ignores``).
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import assert_type

import pytest
from prometheus_client import CollectorRegistry
from tenacity import stop_after_attempt, stop_after_delay, wait_exponential, wait_random

from postroom import (
    Address,
    MemoryTransport,
    Message,
    MessageStatus,
    PendingReceipt,
    Receipt,
    RecipientStatus,
    Report,
    RetryPolicy,
    Settings,
    Spooler,
    SpoolView,
    State,
    Submission,
    TransportStatus,
)
from postroom.actors.notifier import SubscriberStatus, Subscription
from postroom.events import Event, MessageCompleted, RecipientDelivered, RecipientFailed
from postroom.outcomes import Reply
from postroom.status import Explanation, QueueEntry
from postroom.stores.base import Tally

ROOT = Path(__file__).resolve().parents[2]


async def public_api(spooler: Spooler, mail: EmailMessage) -> None:  # noqa: PLR0915 - a list
    """Use the surface as hosts do. Never called: only type checkers read it."""
    receipt = spooler.submit(
        mail,
        sender="app@example.org",
        to=["ann@example.org", Address("sms", "+15550100")],
        send_at=timedelta(minutes=5),
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        priority=1,
        idempotency_key="order-1",
        report={Report.FAILURE, Report.SUCCESS},
        hold=False,
        timeout=3,
    )
    assert_type(receipt, Receipt)
    assert_type(receipt.id, str)
    assert_type(receipt.duplicate, bool)
    assert_type(receipt.wait(timeout=30), MessageStatus)
    assert_type(spooler.submit(b"octets"), Receipt)
    assert_type(spooler.submit(Message(subject="s", text="t"), to="ann@example.org"), Receipt)
    assert_type(spooler.submit_many([Submission(message=mail)]), list[Receipt])
    assert_type(spooler.submit_nowait(Submission(message=mail)), PendingReceipt)
    assert_type(spooler.submit_nowait(Submission(message=mail)).result(1.0), Receipt)
    assert_type(await spooler.submit_async(b"octets", to="ann@example.org"), Receipt)

    status = spooler.status(receipt.id)
    assert_type(status, MessageStatus)
    assert_type(status.complete, bool)
    assert_type(status.recipients, tuple[RecipientStatus, ...])
    assert_type(status.recipients[0].state, State)
    assert_type(status.recipients[0].reply, Reply | None)
    assert_type(spooler.wait(receipt.id), MessageStatus)
    assert_type(spooler.explain(receipt.id), tuple[Explanation, ...])
    assert_type(spooler.content(receipt.id), bytes | None)
    assert_type(spooler.queue(states={State.HELD}, transport="smtp", limit=None), Iterator[QueueEntry])
    assert_type(spooler.tally(), Tally)
    assert_type(spooler.tally().imbalance, int)
    assert_type(spooler.audit(), dict[tuple[str, State], int])
    assert_type(spooler.transports(), tuple[TransportStatus, ...])
    for act in (spooler.hold, spooler.release, spooler.cancel, spooler.retry):
        assert_type(act(receipt.id, [0, 1]), tuple[int, ...])

    subscription = spooler.subscribe(print, events=[MessageCompleted, RecipientDelivered], name="log")
    assert_type(subscription, Subscription)
    assert_type(subscription.cancel(1.0), bool)
    assert_type(spooler.subscribers(), tuple[SubscriberStatus, ...])

    def on_event(event: Event) -> None:
        match event:
            case RecipientFailed(reply=reply, address=address):
                assert_type(reply, Reply | None)
                assert_type(address, Address | None)
            case _:
                assert_type(event.at, float)

    spooler.subscribe(on_event)

    assert_type(spooler.metrics, CollectorRegistry)
    assert_type(spooler.metrics_address, tuple[str, int] | None)
    assert_type(spooler.running, bool)
    assert_type(spooler.stop(timeout=3.0), bool)
    with spooler as same:
        assert_type(same, Spooler)
    with SpoolView("spool.db") as view:
        assert_type(view, SpoolView)
        assert_type(view.status(receipt.id), MessageStatus)
        assert_type(view.tally().accepted, Mapping[str, int])

    # Policies are tenacity's own objects, composed.
    policy = RetryPolicy(
        wait=wait_exponential(multiplier=60) + wait_random(0, 5),  # pyright: ignore[reportUnknownArgumentType]
        stop=stop_after_delay(3600) | stop_after_attempt(9),
    )
    assert_type(policy.next_attempt(attempts=1, first_attempt=0.0, now=1.0), float | None)
    Spooler("spool.db", [MemoryTransport(retry=policy)], settings=Settings(keep_sent=None), metrics_port=0)


def refused(spooler: Spooler) -> None:
    """Mistakes that a type checker must find. Never called."""
    spooler.submit("text")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    spooler.submit(b"octets", "app@example.org")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    spooler.submit(b"octets", to=[1])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    spooler.submit(b"octets", send_at="tomorrow")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    spooler.subscribe(print, events=[print])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    Settings(synchronous="maybe")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Settings(1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Spooler("spool.db", [print])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "checker", [["mypy"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"]
)
def test_the_public_types_are_what_they_say(checker: list[str]) -> None:
    pytest.importorskip(checker[0])
    found = subprocess.run(
        [sys.executable, "-m", *checker, str(Path(__file__).relative_to(ROOT))],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    about_us = [line for line in found.stdout.splitlines() if Path(__file__).name in line and "error" in line]
    assert not about_us, "\n".join(about_us)
    # A checker that could not run has nothing to say about this file either.
    assert re.search(r"Success|Found \d+ error|\d+ errors?, ", found.stdout), found.stdout + found.stderr
