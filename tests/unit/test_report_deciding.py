"""Who is told what, and when: the rules one by one, and what must hold whatever a message looks like."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.envelopes import Report
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.reports.deciding import decide_delay, decide_ends, protocol_of
from postroom.reports.facts import Action, FormerAddress
from postroom.reports.policy import ReportPolicy
from postroom.stores.base import Attempt, MessageRecord, RecipientRecord

NOW = 1_700_000_000.0
POLICY = ReportPolicy()
ANN = "ann@example.net"
KEEPER = ReportPolicy(postmaster="Keeper <postmaster@example.org>")


def row(state: State, address: str = ANN, **more: Any) -> RecipientRecord:
    values: dict[str, Any] = {
        "index": 0, "transport": "smtp", "due": None, "owner": None, "attempts": 1, "first_attempt": NOW,
        "changed": NOW + 5, "crashes": 0, "in_doubt": False, "reply": Reply("no", "5.1.1", 550), "remote_id": None,
    }  # fmt: skip
    return RecipientRecord(address=parse_address(address), state=state, **{**values, **more})


def record(*recipients: RecipientRecord, **more: Any) -> MessageRecord:
    values: dict[str, Any] = {
        "key": 1, "sender": "app@example.org", "subject": "", "message_id": "", "created": NOW, "expires": None,
        "priority": 0, "size": 1, "report": "failure", "idempotency_key": None, "content_kept": True, "due": NOW,
    }  # fmt: skip
    return MessageRecord(recipients=recipients, **{**values, **more})


def never(_: RecipientRecord) -> None:
    return None


# Ends


def test_failures_are_told_to_the_sender() -> None:
    rows = [
        row(state, index=index)
        for index, state in enumerate(
            (State.FAILED, State.EXPIRED, State.DELIVERED, State.QUEUED, State.CANCELLED)
        )
    ]
    decision = decide_ends(record(*rows), POLICY)
    assert decision.to == "app@example.org"
    assert [(one.index, one.action, one.expired) for one in decision.recipients] == [
        (0, Action.FAILED, False),
        (1, Action.FAILED, True),
    ]
    assert decision.settled == {0, 1, 2}
    assert decision.since == NOW + 5


@pytest.mark.parametrize(
    ("of_message", "of_recipient", "told"),
    [("", None, False), ("", "failure", True), ("failure", "", False), ("delay,failure", None, True)],
)
def test_a_recipients_own_wish_goes_before_the_messages(
    of_message: str, of_recipient: str | None, told: bool
) -> None:
    failed = row(State.FAILED, options=RecipientOptions(report=of_recipient))
    decision = decide_ends(record(failed, report=of_message), POLICY)
    assert bool(decision.recipients) is told
    assert decision.settled == {0}


@pytest.mark.parametrize("state", [State.DELIVERED, State.RELAYED])
def test_success_is_told_when_asked_for_unless_the_next_system_tells(state: State) -> None:
    asked = record(row(state), row(state, index=1, reported=True), report="success")
    assert [one.index for one in decide_ends(asked, POLICY).recipients] == [0]
    assert not decide_ends(record(row(state)), POLICY).recipients


def test_what_was_told_is_not_told_again() -> None:
    assert decide_ends(record(row(State.FAILED, reported=True)), POLICY).settled == frozenset()


def test_kinds_that_are_switched_off_are_not_made() -> None:
    policy = ReportPolicy(kinds={Report.SUCCESS})
    asked = record(row(State.FAILED), row(State.DELIVERED, index=1), report="failure,success")
    assert [one.index for one in decide_ends(asked, policy).recipients] == [1]
    assert not decide_delay(record(row(State.QUEUED), report="delay"), policy, NOW + 1e9, never).recipients


# Nobody to tell


def test_a_message_without_return_address_is_a_double_bounce() -> None:
    failed = record(row(State.FAILED), sender="")
    decision = decide_ends(failed, POLICY)
    assert (decision.to, decision.double_bounce, decision.dropped) == ("", True, True)
    decision = decide_ends(failed, KEEPER)
    assert (decision.to, decision.double_bounce, decision.dropped) == ("postmaster@example.org", True, False)


def test_a_message_without_return_address_that_declined_reports_is_nobodys_business() -> None:
    decision = decide_ends(record(row(State.FAILED), sender="", report=""), KEEPER)
    assert not decision.recipients
    assert not decision.dropped


def test_a_report_that_fails_is_a_double_bounce_though_it_asks_for_no_report() -> None:
    failed = record(row(State.FAILED), sender="", report="", options=MessageOptions(report_of=7))
    assert decide_ends(failed, KEEPER).to == "postmaster@example.org"


def test_a_double_bounce_that_fails_is_dropped() -> None:
    failed = record(
        row(State.FAILED, "postmaster@example.org"), sender="", report="", options=MessageOptions(report_of=7)
    )
    decision = decide_ends(failed, KEEPER)
    assert (decision.to, decision.dropped, decision.settled) == ("", True, frozenset({0}))


def test_no_success_and_no_delay_is_told_about_a_report() -> None:
    told = record(row(State.DELIVERED), sender="", report="success", options=MessageOptions(report_of=7))
    assert not decide_ends(told, KEEPER).recipients
    waiting = record(row(State.QUEUED), sender="", report="delay")
    assert not decide_delay(waiting, KEEPER, NOW + 1e9, never).recipients


# Delays


def test_a_delay_is_told_after_its_time_where_it_was_asked_for() -> None:
    waiting = record(
        row(State.QUEUED),
        row(State.SENDING, index=1),
        row(State.HELD, index=2),
        row(State.FAILED, index=3),
        row(State.ACCEPTED, index=4),
        row(State.QUEUED, index=5, options=RecipientOptions(report="failure")),
        report="delay",
    )
    early = decide_delay(waiting, POLICY, NOW + POLICY.delay_after - 1, never)
    assert (early.recipients, early.again) == ((), NOW + POLICY.delay_after)
    decision = decide_delay(waiting, POLICY, NOW + POLICY.delay_after, lambda one: NOW + one.index)
    assert [(one.index, one.action, one.retry_until) for one in decision.recipients] == [
        (0, Action.DELAYED, NOW),
        (1, Action.DELAYED, NOW + 1),
    ]
    assert decision.settled == frozenset()
    assert decision.again is None


def test_a_message_that_waits_for_its_time_is_not_late() -> None:
    scheduled = record(row(State.QUEUED, attempts=0), report="delay", due=NOW + 86_400)
    decision = decide_delay(scheduled, POLICY, NOW + POLICY.delay_after, never)
    assert (decision.recipients, decision.again) == ((), NOW + 86_400 + POLICY.delay_after)


def test_nothing_is_told_when_nobody_waits_any_more() -> None:
    decision = decide_delay(record(row(State.DELIVERED), report="delay"), POLICY, NOW + 1e9, never)
    assert (decision.recipients, decision.again) == ((), None)


# What is said of a recipient


def test_the_history_tells_the_last_refusal_and_former_addresses() -> None:
    bob = Address("smtp", "bob@example.net")
    history = (
        Attempt(NOW + 1, "smtp", "failed", Reply("gone", "5.1.1", 550), address=bob),
        Attempt(NOW + 2, "sms", "deferred", Reply("busy", "4.3.2")),
        Attempt(NOW + 3, "sms", "operator", Reply("retried")),
        Attempt(NOW + 4, "sms", "expired", Reply("expired before it could be delivered", "4.4.7")),
    )
    options = RecipientOptions(original=bob, via=("staff",), orcpt="rfc822;x@example.net")
    expired = row(
        State.EXPIRED, "sms:+15550100", history=history, options=options, reply=Reply("expired", "4.4.7")
    )
    (told,) = decide_ends(record(expired), POLICY).recipients
    assert told.reply == Reply("busy", "4.3.2")
    assert told.last_attempt == NOW + 2
    assert told.former == (FormerAddress(bob, Reply("gone", "5.1.1", 550)),)
    assert (told.original, told.via, told.orcpt) == (bob, ("staff",), "rfc822;x@example.net")


@pytest.mark.parametrize(
    ("address", "reply", "protocol"),
    [
        (ANN, Reply("no", "", 550), "smtp"),
        (ANN, Reply("no transport"), ""),
        (ANN, Reply("odd", "", 42), ""),
        ("https://example.org/", Reply("no", "", 410), "http"),
        ("sms:+15550100", Reply("no", "", 410), ""),
        (ANN, None, ""),
    ],
)
def test_the_protocol_of_a_reply(address: str, reply: Reply | None, protocol: str) -> None:
    assert protocol_of(parse_address(address), reply) == protocol


# Whatever a message looks like

WISHES = st.sets(st.sampled_from(["failure", "delay", "success"])).map(
    lambda wishes: ",".join(sorted(wishes))
)


@st.composite
def rows(draw: st.DrawFn) -> list[RecipientRecord]:
    return [
        row(
            draw(st.sampled_from(State)),
            draw(st.sampled_from([ANN, "postmaster@example.org"])),
            index=index,
            reported=draw(st.booleans()),
            options=RecipientOptions(report=draw(st.none() | WISHES)),
        )
        for index in range(draw(st.integers(1, 6)))
    ]


@given(
    rows(),
    WISHES,
    st.sampled_from(["", "app@example.org"]),
    st.booleans(),
    st.sampled_from([POLICY, KEEPER]),
)
def test_nobody_is_told_twice_and_no_report_of_a_report_is_made(
    numbered: list[RecipientRecord],
    report: str,
    sender: str,
    is_report: bool,
    policy: ReportPolicy,
) -> None:
    options = MessageOptions(report_of=7) if is_report else None
    message = record(*numbered, sender=sender, report=report, options=options)
    decision = decide_ends(message, policy)
    told = {one.index for one in decision.recipients}
    assert told <= decision.settled
    for index in decision.settled:
        assert numbered[index].state.is_final
        assert not numbered[index].reported
    if is_report or not sender:
        assert decision.to in {"", policy.postmaster}
        assert all(one.action is Action.FAILED for one in decision.recipients)
    elif told:
        assert decision.to == sender
    # Done once, there is nothing left to do.
    after = [replace(one, reported=one.reported or one.index in decision.settled) for one in numbered]
    again = decide_ends(replace(message, recipients=tuple(after)), policy)
    assert (again.recipients, again.settled) == ((), frozenset())
