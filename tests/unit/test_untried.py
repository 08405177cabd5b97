from postroom.active_queue import Job
from postroom.addresses import Address
from postroom.delivery import Target
from postroom.recipients import State
from postroom.routing import Route, Router
from postroom.untried import give_back_job, move_on_job

NOW = 1_700_000_000.0
ROUTER = Router(
    [
        Route("smtp", frozenset({"smtp", "sms"})),
        Route("backup", frozenset({"smtp"})),
    ]
)


def job(*addresses: Address, transport: str = "smtp", expires: float | None = None) -> Job:
    return Job(
        key=7, transport=transport, epoch=0, sender="app@example.org",
        targets=tuple(
            Target(index, address, attempts=2, first_attempt=NOW - 60, in_doubt=index == 1)
            for index, address in enumerate(addresses)
        ),
        content=b"", size=0, created=NOW - 100, due=NOW, recipient_count=len(addresses), expires=expires, crashes=1,
        followed=True,
    )  # fmt: skip


ANN, BOB, PHONE = (
    Address("smtp", "ann@example.org"),
    Address("smtp", "bob@example.org"),
    Address("sms", "+1555"),
)


def test_what_goes_back_costs_nothing() -> None:
    first, second = give_back_job(job(ANN, BOB), NOW + 300, NOW)
    assert (first.key, first.index, first.was, first.state) == (7, 0, State.QUEUED, State.QUEUED)
    assert (first.attempts, first.first_attempt, first.due, first.outcome) == (2, NOW - 60, NOW + 300, "")
    assert (first.crashes, first.followed, first.reply, first.only) == (1, True, None, False)
    assert (first.in_doubt, second.in_doubt) == (False, True)


def test_it_comes_back_in_time_to_expire() -> None:
    (settlement,) = give_back_job(job(ANN, expires=NOW + 10), NOW + 300, NOW)
    assert settlement.due == NOW + 10
    assert settlement.only


def test_what_was_journalled_goes_back_from_there() -> None:
    one = job(ANN)
    one.journalled = True
    assert [settlement.was for settlement in give_back_job(one, NOW, NOW)] == [State.SENDING]


def test_an_outage_that_lasts_moves_on_those_who_have_somewhere_to_go() -> None:
    settlements = move_on_job(job(ANN, PHONE), ROUTER, NOW)
    assert settlements is not None
    moved, back = settlements
    assert (moved.next_transport, moved.outcome, moved.state, moved.due) == (
        "backup",
        "failover",
        State.QUEUED,
        NOW,
    )
    assert moved.attempts == 2
    assert moved.reply is not None
    assert moved.reply.text == "smtp is down: goes to backup"
    assert (back.next_transport, back.outcome, back.reply) == (None, "", None)


def test_who_has_nowhere_to_go_stays() -> None:
    assert move_on_job(job(PHONE), ROUTER, NOW) is None
    assert move_on_job(job(ANN, transport="backup"), ROUTER, NOW) is None
