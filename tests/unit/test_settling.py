import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_fixed

from postroom.active_queue import Crash, Job, Outage, Result, TimedOut
from postroom.addresses import Address
from postroom.delivery import Target
from postroom.options import MessageOptions, RecipientOptions
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
from postroom.recipients import State
from postroom.retries import RetryPolicies, RetryPolicy
from postroom.routing import PREPROCESS, Route, Router
from postroom.settling import NO_TRANSPORT, POISON_CRASHES, check_outcomes, expire_job, next_due, settle_job
from postroom.stores.base import Settlement

NOW = 1_700_000_000.0
ROUTER = Router([Route("a", frozenset({"smtp"})), Route("b", frozenset({"smtp"}))])
POLICY = RetryPolicy(wait=wait_fixed(60), stop=stop_after_attempt(3))


def job(*targets: Target, transport: str = "a", expires: float | None = None, crashes: int = 0) -> Job:
    made = Job(
        key=1, transport=transport, epoch=0, sender="", targets=targets or (target(),), content=b"", size=0,
        created=NOW - 100, due=NOW - 50, recipient_count=len(targets) or 1, expires=expires, crashes=crashes,
    )  # fmt: skip
    made.started, made.ended = NOW - 2, NOW - 0.5
    return made


def target(
    index: int = 0, attempts: int = 0, first: float | None = None, *, in_doubt: bool = False
) -> Target:
    return Target(index, Address("smtp", f"{index}@example.org"), attempts, first, in_doubt)


def settle(one: Job, result: Result, *, hold_in_doubt: bool = False) -> list[Settlement]:
    return settle_job(one, result, policy=POLICY, router=ROUTER, now=NOW, hold_in_doubt=hold_in_doubt)


def only(one: Job, outcome: Outcome) -> Settlement:
    (settlement,) = settle(one, [outcome])
    return settlement


@pytest.mark.parametrize(
    ("outcome", "state", "label"),
    [
        (Delivered(), State.DELIVERED, "delivered"),
        (Relayed(Reply("queued as 1", "2.0.0", 250, "mx")), State.RELAYED, "relayed"),
        (Accepted("remote-1"), State.ACCEPTED, "accepted"),
        (Failed(Reply("no such user", "5.1.1", 550)), State.FAILED, "failed"),
        (Deferred(Reply("greylisted", "4.7.1", 450)), State.QUEUED, "deferred"),
    ],
)
def test_every_outcome_has_its_state(outcome: Outcome, state: State, label: str) -> None:
    settlement = only(job(), outcome)
    assert (settlement.state, settlement.outcome, settlement.was) == (state, label, State.QUEUED)
    assert (settlement.attempts, settlement.first_attempt) == (1, NOW - 2)
    assert settlement.duration == pytest.approx(1.5)
    assert settlement.reply == outcome.reply
    assert settlement.only
    assert settlement.remote_id == ("remote-1" if state is State.ACCEPTED else None)
    assert settlement.due == (NOW + 60 if state is State.QUEUED else None)


def test_a_refusal_that_has_lasted_too_long_expires() -> None:
    settlement = only(job(target(attempts=2, first=NOW - 500)), Deferred(Reply("busy")))
    assert (settlement.state, settlement.outcome, settlement.due) == (State.EXPIRED, "expired", None)
    assert (settlement.attempts, settlement.first_attempt) == (3, NOW - 500)


def test_the_other_side_can_ask_for_more_time_but_not_beyond_the_expiry() -> None:
    assert only(job(), Deferred(Reply("busy"), retry_after=600)).due == NOW + 600
    assert only(job(expires=NOW + 10), Deferred(Reply("busy"), retry_after=600)).due == NOW + 10


def test_recipients_deferred_together_are_due_together() -> None:
    both = job(target(0), target(1), target(2, attempts=1, first=NOW - 9))
    policy = RetryPolicy()  # with jitter
    deferred = Deferred(Reply("busy"))
    first, second, third = settle_job(both, [deferred] * 3, policy=policy, router=ROUTER, now=NOW)
    assert first.due == second.due != third.due
    assert not first.only


def test_not_mine_moves_on_along_the_transport_order_and_costs_no_attempt() -> None:
    settlement = only(job(target(attempts=1, first=NOW - 9)), NotMine())
    assert (settlement.state, settlement.next_transport, settlement.due) == (State.QUEUED, "b", NOW)
    assert (settlement.attempts, settlement.outcome) == (1, "not_mine")


def test_nobody_left_is_a_failure() -> None:
    settlement = only(job(transport="b"), NotMine())
    assert (settlement.state, settlement.next_transport) == (State.FAILED, None)
    assert settlement.reply == Reply("no transport delivers to this address", "5.1.2")


def test_a_crash_costs_no_attempt_but_raises_a_doubt() -> None:
    (settlement,) = settle(job(target(attempts=1, first=NOW - 9)), Crash("ValueError: bug", "Traceback: …"))
    assert (settlement.state, settlement.outcome, settlement.crashes) == (State.QUEUED, "crashed", 1)
    assert (settlement.attempts, settlement.first_attempt) == (1, NOW - 9)
    assert settlement.in_doubt
    assert settlement.due is not None
    assert settlement.due > NOW
    assert settlement.detail == "Traceback: …"


def test_what_crashes_too_many_couriers_is_held_as_poison() -> None:
    (settlement,) = settle(job(crashes=POISON_CRASHES - 1), Crash("ValueError: bug", "Traceback"))
    assert settlement.state is State.HELD
    assert settlement.reply is not None
    assert settlement.reply.text == "poison: crashed 3 couriers, last with ValueError: bug"


def test_a_hung_attempt_is_tried_again_in_doubt_or_held() -> None:
    (again,) = settle(job(), TimedOut(60.0))
    assert (again.state, again.in_doubt, again.outcome, again.attempts) == (State.QUEUED, True, "deferred", 1)
    (held,) = settle(job(), TimedOut(60.0), hold_in_doubt=True)
    assert (held.state, held.in_doubt) == (State.HELD, True)
    assert held.reply is not None
    assert held.reply.text.startswith("in doubt: no answer within 60 s")


@pytest.mark.parametrize("outcome", [Deferred(Reply("busy")), NotMine(), Delivered()])
def test_a_doubt_stays_once_it_is_there(outcome: Outcome) -> None:
    """What an attempt of a process that died may have delivered is not undone by what a later attempt says."""
    assert only(job(target(in_doubt=True)), outcome).in_doubt
    assert not only(job(target()), outcome).in_doubt


def test_an_outage_settles_nothing() -> None:
    with pytest.raises(TypeError, match="settles nothing"):
        settle(job(), Outage("refused"))


def test_a_journalled_job_was_sending() -> None:
    one = job()
    one.journalled = True
    assert only(one, Delivered()).was is State.SENDING
    assert settle(one, Crash("x", ""))[0].was is State.SENDING
    assert expire_job(one, NOW)[0].was is State.SENDING


def test_an_expired_job_was_not_tried() -> None:
    first, second = expire_job(job(target(0), target(1, attempts=2, first=NOW - 9, in_doubt=True)), NOW)
    assert (first.state, first.attempts, first.outcome) == (State.EXPIRED, 0, "expired")
    assert (second.attempts, second.first_attempt, second.in_doubt) == (2, NOW - 9, True)
    assert first.reply is not None
    assert first.reply.status == "4.4.7"


# What a session returns


def test_one_outcome_is_for_all() -> None:
    assert list(check_outcomes(Delivered(), [target(0), target(1)])) == [Delivered(), Delivered()]
    mixed: list[Outcome] = [Delivered(), Failed(Reply("no"))]
    assert list(check_outcomes(mixed, [target(0), target(1)])) == mixed


@pytest.mark.parametrize(
    "outcomes", [None, [], [Delivered()], [Delivered(), "ok"], [Delivered()] * 3, "ok", {1: 2}]
)
def test_anything_else_is_a_mistake(outcomes: object) -> None:
    with pytest.raises(TypeError, match=r"send\(\) returned .* for 2 target"):
        check_outcomes(outcomes, [target(0), target(1)])


# What comes from outside


@given(
    text=st.text(st.characters(), max_size=1500), status=st.text(max_size=30),
    remote=st.text(st.characters(), max_size=300),
)  # fmt: skip
def test_replies_are_one_bounded_printable_line(text: str, status: str, remote: str) -> None:
    for settlement in (
        only(job(), Failed(Reply(text, status, 550, remote))),
        settle(job(), Crash(text, text))[0],
    ):
        reply = settlement.reply
        assert reply is not None
        for value, limit in ((reply.text, 1000), (reply.status, 1000), (reply.remote, 1000)):
            assert len(value) <= limit
            assert value.isprintable()
            value.encode()


@given(text=st.text(st.characters()))
def test_what_is_kept_as_it_is_can_be_stored(text: str) -> None:
    accepted = only(job(), Accepted(text))
    crashed = settle(job(), Crash("x", text))[0]
    for value in (accepted.remote_id, crashed.detail):
        assert value is not None
        assert "\0" not in value
        value.encode()


def test_half_a_surrogate_pair_does_not_reach_the_record() -> None:
    reply = only(job(), Failed(Reply("bad \ud800 text\r\nand\0more", "5.0.0", 550, "mx\udcff"))).reply
    assert reply == Reply("bad ? text and?more", "5.0.0", 550, "mx?")


@pytest.mark.parametrize("hold", [False, True])
def test_a_refusal_in_doubt_is_marked_and_held_where_that_is_wanted(hold: bool) -> None:
    ended = job()
    outcome = Deferred(Reply("lost at the final dot", "4.4.2"), in_doubt=True)
    (settlement,) = settle_job(
        ended, [outcome], policy=RetryPolicy(), router=Router([]), now=NOW, hold_in_doubt=hold
    )
    assert settlement.in_doubt
    assert settlement.state is (State.HELD if hold else State.QUEUED)
    assert "lost at the final dot" in str(settlement.reply)


def test_a_ciphers_name_is_bounded_and_printable_too() -> None:
    reply = only(job(), Failed(Reply("no", "5.0.0", 550, "mx", "TLS\r\n" + "x" * 300))).reply
    assert reply is not None
    assert (len(reply.tls), reply.tls[:5]) == (255, "TLS x")
    assert only(job(), Delivered(Reply("ok", tls="TLSv1.3"))).reply == Reply("ok", tls="TLSv1.3")


# What the store is told besides


@pytest.mark.parametrize(
    "result",
    [
        [Delivered()],
        [Relayed()],
        [Failed(Reply("no"))],
        [Deferred(Reply("busy"))],
        Crash("x", ""),
        TimedOut(1.0),
    ],
)
def test_whether_somebody_follows_the_message_is_passed_on(result: Result) -> None:
    one = job()
    assert not settle(one, result)[0].followed
    assert not expire_job(one, NOW)[0].followed
    one.followed = True
    assert settle(one, result)[0].followed
    assert settle(one, result, hold_in_doubt=True)[0].followed
    assert expire_job(one, NOW)[0].followed


def test_a_relay_that_reports_itself_is_noted() -> None:
    both = settle(job(target(0), target(1)), [Relayed(reports=True), Relayed()])
    assert [settlement.reported for settlement in both] == [True, False]
    assert only(job(), Relayed(reports=True)).reported
    assert not only(job(), Relayed()).reported
    assert not only(job(), Delivered()).reported


# Preprocessing

STAGED = Router(ROUTER.routes, {"smtp"})


def test_what_is_preprocessed_moves_on_to_its_first_transport_at_no_cost() -> None:
    one = job(target(0), target(1, attempts=2, first=NOW - 9), transport=PREPROCESS)
    first, second = settle_job(
        one, [Processed(b"new"), Processed()], policy=POLICY, router=STAGED, now=NOW, hold_in_doubt=False
    )
    assert (first.state, first.outcome, first.next_transport, first.due) == (
        State.QUEUED,
        "processed",
        "a",
        NOW,
    )
    assert (first.content, first.attempts, first.first_attempt) == (b"new", 0, None)
    assert (second.content, second.attempts, second.first_attempt) == (None, 0, None)


def test_what_is_preprocessed_and_has_no_transport_any_more_fails() -> None:
    (settlement,) = settle_job(
        job(transport=PREPROCESS), [Processed(b"new")], policy=POLICY, router=Router([]), now=NOW
    )
    assert (settlement.state, settlement.outcome, settlement.reply) == (State.FAILED, "failed", NO_TRANSPORT)
    assert settlement.content is None


# Retries


def test_the_policy_is_chosen_by_destination_and_told_of_greylisting() -> None:
    policies = RetryPolicies(
        POLICY,
        {"1.example": RetryPolicy(wait=wait_fixed(7), stop=stop_after_attempt(9), greylist=wait_fixed(300))},
    )
    targets = [Target(n, Address("smtp", f"x@{n % 2}.example")) for n in range(4)]
    later, grey = Deferred(Reply("busy")), Deferred(Reply("grey"), greylisted=True)
    settled = settle_job(job(*targets), [later, later, later, grey], policy=policies, router=ROUTER, now=NOW)
    assert [settlement.due for settlement in settled] == [NOW + 60, NOW + 7, NOW + 60, NOW + 300]


# Delivery windows: NOW is a Tuesday, 22:13:20 UTC

OPENS = NOW + 9 * 3600 + 46 * 60 + 40


def windowed(*targets: Target, transport: str = "a", expires: float | None = None) -> Job:
    one = job(*targets, transport=transport, expires=expires)
    one.options = MessageOptions(window="Mo-Fr 08:00-17:00 UTC")
    return one


@pytest.mark.parametrize(
    "result", [[Deferred(Reply("busy"))], [NotMine()], [Processed()], Crash("x", ""), TimedOut(1.0)]
)
def test_what_is_due_again_waits_for_the_window_but_not_beyond_its_expiry(result: Result) -> None:
    assert settle(windowed(), result)[0].due == OPENS
    assert settle(windowed(expires=OPENS - 60), result)[0].due == OPENS - 60


def test_within_the_window_nothing_waits() -> None:
    one = windowed()
    assert next_due(one, OPENS + 1) == OPENS + 1
    assert next_due(job(), NOW) == NOW


# Alternatives

FAX, SMS, OTHER = Address("fax", "1"), Address("sms", "+15550100"), Address("smtp", "other@example.org")
WIDE = Router([*ROUTER.routes, Route("text", frozenset({"sms"}))])


def with_alternatives(*alternatives: Address, attempts: int = 0, in_doubt: bool = False) -> Target:
    options = RecipientOptions(alternatives=alternatives, orcpt="rfc822;x@y")
    first = NOW - 500 if attempts else None
    return Target(0, Address("smtp", "0@example.org"), attempts, first, in_doubt, options)


@pytest.mark.parametrize(
    ("outcome", "transport", "attempts", "label"),
    [
        (Failed(Reply("no such user", "5.1.1", 550)), "a", 0, "failed"),
        (Deferred(Reply("busy", "4.0.0")), "a", 2, "expired"),
        (NotMine(), "b", 0, "failed"),
    ],
)
def test_who_fails_for_good_turns_to_the_next_alternative_that_can_be_delivered(
    outcome: Outcome, transport: str, attempts: int, label: str
) -> None:
    one = job(with_alternatives(FAX, SMS, OTHER, attempts=attempts), transport=transport)
    (settlement,) = settle_job(one, [outcome], policy=POLICY, router=WIDE, now=NOW)
    assert (settlement.state, settlement.outcome, settlement.due) == (State.QUEUED, label, NOW)
    assert (settlement.next_address, settlement.next_transport) == (SMS, "text")
    assert (settlement.attempts, settlement.first_attempt) == (0, None)
    assert settlement.next_options == RecipientOptions(
        alternatives=(OTHER,), original=Address("smtp", "0@example.org"), orcpt="rfc822;x@y"
    )
    assert settlement.reply == (NO_TRANSPORT if isinstance(outcome, NotMine) else outcome.reply)


def test_alternatives_are_for_failures_only() -> None:
    for outcome in (Delivered(), Relayed(), Accepted("x"), Deferred(Reply("busy"))):
        assert only(job(with_alternatives(OTHER)), outcome).next_address is None
    assert settle(job(with_alternatives(OTHER)), Crash("x", ""))[0].next_address is None


def test_a_doubt_about_the_first_address_stays_and_the_window_is_kept() -> None:
    (settlement,) = settle(windowed(with_alternatives(OTHER, in_doubt=True)), [Failed(Reply("no"))])
    assert (settlement.in_doubt, settlement.due) == (True, OPENS)


def test_a_message_that_expired_is_not_sent_to_alternatives() -> None:
    late = job(with_alternatives(OTHER), expires=NOW)
    assert only(late, Failed(Reply("no"))).state is State.FAILED
    assert expire_job(late, NOW, WIDE)[0].state is State.EXPIRED
    early = job(with_alternatives(OTHER), expires=NOW + 1)
    assert only(early, Failed(Reply("no"))).next_address == OTHER
    (turned,) = expire_job(early, NOW, WIDE)
    assert (turned.state, turned.outcome, turned.next_address) == (State.QUEUED, "expired", OTHER)
    assert expire_job(early, NOW)[0].state is State.EXPIRED


# Any sequence

RESULTS = st.one_of(
    st.sampled_from(
        [
            [Delivered()], [Relayed(reports=True)], [Failed(Reply("no"))], [Deferred(Reply("busy"))], [NotMine()],
            [Deferred(Reply("lost"), in_doubt=True)], [Processed(b"new")], Crash("x", ""), TimedOut(1.0),
        ]
    )
)  # fmt: skip
LEFT = st.lists(st.sampled_from([FAX, SMS, OTHER, Address("smtp", "third@example.org")]), unique=True)


@given(st.lists(RESULTS, max_size=60), LEFT, st.booleans(), st.none() | st.just(NOW + 500))
def test_whatever_happens_a_recipient_ends_once_and_its_alternatives_are_tried_in_order(
    results: list[Result], alternatives: list[Address], staged: bool, expires: float | None
) -> None:
    router = Router(WIDE.routes, {"smtp", "sms"} if staged else ())
    start = Address("smtp", "0@example.org")
    one = Target(0, start, options=RecipientOptions(alternatives=tuple(alternatives)))
    transport, crashes, now, state = router.plan(start)[0], 0, NOW, State.QUEUED
    visited = [start]
    for result in results:
        running = Job(
            key=1, transport=transport, epoch=0, sender="", targets=(one,), content=b"", size=0, created=NOW, due=now,
            recipient_count=1, expires=expires, crashes=crashes,
        )  # fmt: skip
        running.started, running.ended = now, now + 1
        if expires is not None and now >= expires:
            (settlement,) = expire_job(running, now, router)
        else:
            (settlement,) = settle_job(running, result, policy=POLICY, router=router, now=now + 1)
        assert settlement.attempts >= 0
        assert settlement.was is State.QUEUED
        assert settlement.outcome
        state = settlement.state
        if state.is_final or state is State.HELD:
            break
        assert state is State.QUEUED
        assert settlement.due is not None
        transport = settlement.next_transport or transport
        address = settlement.next_address or one.address
        assert transport in router.plan(address)
        if settlement.next_address is not None:
            visited.append(address)
            assert settlement.attempts == 0
            assert settlement.next_options is not None
            assert settlement.next_options.original == start
        else:
            afresh = settlement.outcome == "processed"
            assert settlement.attempts in ({0} if afresh else {one.attempts, one.attempts + 1})
        one = Target(
            0, address, settlement.attempts, settlement.first_attempt, settlement.in_doubt,
            settlement.next_options or one.options,
        )  # fmt: skip
        crashes, now = settlement.crashes, max(now + 1, settlement.due)
    deliverable = [start, *(address for address in alternatives if router.plan(address))]
    assert visited == deliverable[: len(visited)]
    if state is State.FAILED and not (expires is not None and now + 1 >= expires):
        assert visited == deliverable
    assert one.options is not None
    left = alternatives[alternatives.index(visited[-1]) + 1 :] if len(visited) > 1 else alternatives
    assert list(one.options.alternatives) == left
