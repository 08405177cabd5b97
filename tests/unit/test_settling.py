import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_fixed

from postroom.active_queue import Crash, Job, Outage, Result, TimedOut
from postroom.addresses import Address
from postroom.delivery import Target
from postroom.outcomes import Accepted, Deferred, Delivered, Failed, NotMine, Outcome, Relayed, Reply
from postroom.recipients import State
from postroom.retries import RetryPolicy
from postroom.routing import Route, Router
from postroom.settling import POISON_CRASHES, check_outcomes, expire_job, settle_job
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
