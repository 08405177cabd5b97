"""The world in which a machine lives: configurations, envelopes, and what remote systems say."""

from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_fixed

from postroom.active_queue import Crash, Outage, Result
from postroom.envelopes import Recipient, Report
from postroom.outcomes import (
    Accepted,
    Deferred,
    Delivered,
    Failed,
    NotMine,
    Outcome,
    Processed,
    Relayed,
    Reply,
)
from postroom.retries import RetryPolicy
from postroom.routing import PREPROCESS
from postroom.transports.base import Limits, Transport
from postroom.transports.memory import MemoryTransport

__all__ = [
    "CONFIGURATIONS",
    "CONTENT",
    "DOMAINS",
    "FULL",
    "OUTCOMES",
    "RECIPIENTS",
    "STAMPED",
    "TROUBLE",
    "make",
]

RETRY = RetryPolicy(wait=wait_fixed(30), stop=stop_after_attempt(4), greylist=wait_fixed(60))
TIGHT = Limits(concurrency=2, window=4, recipients_per_delivery=2, attempt_timeout=60.0)
SINGLE = Limits(concurrency=1, window=3, attempt_timeout=60.0)
STRICT = Limits(concurrency=1, window=3, attempt_timeout=60.0, strict_order=True)


def make(name: str) -> Transport:
    match name:
        case "first":
            return MemoryTransport(
                name=name, address_types={"smtp"}, retry=RETRY, limits=TIGHT, failover_after=100.0
            )
        case "second":
            return MemoryTransport(
                name=name, address_types={"smtp"}, retry=RETRY, limits=SINGLE, in_doubt="hold"
            )
        case "strict":
            return MemoryTransport(
                name=name, address_types=(), patterns=["*@s.example"], retry=RETRY, limits=STRICT
            )
        case _:
            return MemoryTransport(name=name, address_types={"sms"}, retry=RETRY, limits=TIGHT)


FULL = ("strict", "first", "second", "text")
CONFIGURATIONS = (
    FULL, (*FULL, PREPROCESS), ("first", "second", "text", PREPROCESS), ("second", "first"), ("first", "text"),
    ("second", "text", "strict"),
)  # fmt: skip

DOMAINS = ("x.example", "y.example", "s.example")
ADDRESSES = st.sampled_from([f"{name}@{domain}" for name in "ab" for domain in DOMAINS] + ["sms:+15550100"])
RECIPIENTS: st.SearchStrategy[str | Recipient] = st.one_of(
    ADDRESSES,
    st.builds(
        Recipient, ADDRESSES, alternatives=st.sampled_from([["sms:+15550101"], ["c@y.example", "sms:+15550102"]]),
        report=st.sampled_from([None, None, {Report.SUCCESS}, set[Report]()]),
    ),
)  # fmt: skip
SAID = Reply("said", "4.0.0", 450)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Relayed()),
    st.sampled_from(
        [
            Relayed(), Relayed(reports=True), Delivered(), Failed(Reply("no", "5.1.1", 550)), NotMine(),
            Accepted("remote"), Deferred(SAID), Deferred(SAID, retry_after=100.0), Deferred(SAID, in_doubt=True),
            Deferred(SAID, destination_down=True), Deferred(SAID, greylisted=True),
        ]
    ),
)  # fmt: skip
STAMPED: st.SearchStrategy[Outcome] = st.sampled_from(
    [Processed(), Processed(b"stamped"), Failed(Reply("no", "5.7.1")), Deferred(SAID)]
)
TROUBLE: st.SearchStrategy[Result] = st.sampled_from(
    [Outage("down"), Outage("down", 90.0), Crash("boom", "traceback")]
)
CONTENT = b"From: app@example.org\r\nSubject: life\r\n\r\nhello\r\n"
