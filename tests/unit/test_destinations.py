import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tenacity import wait_exponential, wait_fixed

from postroom import destinations as module
from postroom.breaker import Status, consecutive_wait
from postroom.destination_state import default_destination_wait
from postroom.destinations import Destinations, Gates
from postroom.outcomes import Deferred, Delivered, Failed, NotMine, Reply
from postroom.pauses import Pause
from postroom.stores.base import DestinationStanding
from postroom.throttles import DestinationLimits, Gcra, Rate, Throttle
from postroom.verdicts import Verdict, verdict_of

NOW = 1_700_000_000.0
PLACE = "example.org"


def unlimited() -> Destinations:
    return Destinations("smtp", Throttle(), 8)


def limited(**limits: object) -> Destinations:
    values = {"probe": wait_fixed(30), **limits}
    return Destinations("smtp", Throttle(destination=DestinationLimits(**values)), 8)  # type: ignore[arg-type] # by test


def attempt(place: Destinations, verdict: Verdict, now: float = NOW, **more: object) -> None:
    place.begin(PLACE, now)
    place.ended(PLACE, verdict, now, **more)  # type: ignore[arg-type] # by test


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([Delivered()], Verdict.ANSWERED),
        ([Failed(Reply("no such user", "5.1.1", 550))], Verdict.ANSWERED),
        ([NotMine()], Verdict.ANSWERED),
        ([Deferred(Reply("mailbox busy", "4.2.0", 450))], Verdict.ANSWERED),
        ([Deferred(Reply("too busy", "4.7.0", 421))], Verdict.TROUBLED),
        ([Deferred(Reply("slow down", "", 429))], Verdict.TROUBLED),
        ([Deferred(Reply("reset", "4.4.2"))], Verdict.TROUBLED),
        ([Deferred(Reply("refused", "4.4.1"), destination_down=True)], Verdict.DOWN),
        ([Deferred(Reply("reset", "4.4.2")), Delivered()], Verdict.ANSWERED),
        ([], Verdict.ANSWERED),
    ],
)
def test_what_outcomes_say_of_the_destination(outcomes: list[Deferred | Delivered], verdict: Verdict) -> None:
    assert verdict_of(outcomes)[0] is verdict


def test_why_and_for_how_long() -> None:
    outcome = Deferred(Reply("slow down", "4.7.0", 421, "mx.example.org"), retry_after=90.0)
    assert verdict_of([outcome])[1:] == ("mx.example.org: 421 4.7.0 slow down", 90.0)


def test_without_limits_nothing_is_remembered_of_those_who_answer() -> None:
    places = unlimited()
    assert not places.watching
    attempt(places, Verdict.ANSWERED)
    attempt(places, Verdict.TROUBLED)
    assert (places.watching, places.known, places.changed) == (False, {}, {})
    assert places.eligible(PLACE, NOW)


def test_one_that_is_down_is_parked_probed_and_released() -> None:
    places = Destinations("smtp", Throttle(), 4)
    places.ended(PLACE, Verdict.DOWN, NOW, reason="refused", in_flight=lambda: 2)
    assert places.watching
    assert not places.eligible(PLACE, NOW)
    assert places.eligible("example.net", NOW)
    assert list(places.down()) == [PLACE]
    saved = places.changed[PLACE]
    assert (saved.status, saved.reason, saved.failures) == ("parked", "refused", 1)
    until = saved.until
    assert until is not None
    assert until == places.next_time() == places.blocked_until(PLACE, NOW)
    # The two others that were under way end; that is the same outage.
    for _ in range(2):
        places.ended(PLACE, Verdict.DOWN, NOW + 1, reason="refused")
    places.changed.clear()
    places.opened.clear()
    places.look(until - 1)
    assert not places.eligible(PLACE, until - 1)
    places.look(until)
    assert places.changed[PLACE].status == "probing"
    assert places.opened == {PLACE: 1}
    assert places.eligible(PLACE, until)
    places.begin(PLACE, until)
    assert not places.eligible(PLACE, until)
    places.opened.clear()
    places.ended(PLACE, Verdict.ANSWERED, until + 1)
    assert places.changed[PLACE].status == "ramping"
    assert places.opened == {PLACE: 2}
    while places.watching:
        places.begin(PLACE, until + 2)
        places.ended(PLACE, Verdict.ANSWERED, until + 2)
    assert places.changed[PLACE].status == "up"
    assert places.known == {}


def test_probes_that_fail_come_less_and_less_often() -> None:
    places = limited(probe=wait_exponential(multiplier=10, min=10, max=40))
    delays: list[float] = []
    now = NOW
    for _ in range(5):
        attempt(places, Verdict.DOWN, now)
        until = places.changed[PLACE].until
        assert until is not None
        delays.append(until - now)
        now = until
        places.look(now)
    assert delays == [10, 20, 40, 40, 40]
    assert places.changed[PLACE].failures == 5


@pytest.mark.parametrize(("failures", "base"), [(1, 10), (4, 80), (50, 600)])
def test_the_default_wait_is_bounded(failures: int, base: float) -> None:
    assert 0.8 * base <= consecutive_wait(default_destination_wait(), failures) <= 1.2 * base


def test_a_canary_must_be_answered() -> None:
    places = limited()
    attempt(places, Verdict.DOWN)
    places.look(NOW + 30)
    attempt(places, Verdict.TROUBLED, NOW + 30, reason="busy")
    assert (places.changed[PLACE].status, places.changed[PLACE].reason) == ("parked", "busy")


def test_a_canary_whose_courier_crashed_says_nothing() -> None:
    places = limited()
    attempt(places, Verdict.DOWN)
    places.look(NOW + 30)
    attempt(places, Verdict.UNKNOWN, NOW + 30)
    assert places.known[PLACE].breaker.status is Status.PROBING
    assert places.eligible(PLACE, NOW + 31)


def test_who_asks_for_time_gets_it() -> None:
    places = limited()
    attempt(places, Verdict.TROUBLED, retry_after=300.0)
    assert places.changed[PLACE].until == NOW + 300


def test_a_round_of_troubles_parks() -> None:
    places = limited(initial=3, concurrency=3)
    for _ in range(3):
        attempt(places, Verdict.TROUBLED)
    assert places.changed[PLACE].status == "parked"


def test_no_more_at_once_than_it_bears() -> None:
    places = limited(concurrency=4, initial=2)
    for _ in range(2):
        assert places.eligible(PLACE, NOW)
        places.begin(PLACE, NOW)
    assert not places.eligible(PLACE, NOW)
    assert places.eligible("example.net", NOW)
    assert places.blocked_until(PLACE, NOW) is None
    places.ended(PLACE, Verdict.ANSWERED, NOW)
    # It grows with success.
    assert places.opened == {PLACE: 2}
    places.begin(PLACE, NOW)
    places.begin(PLACE, NOW)
    assert not places.eligible(PLACE, NOW)
    places.opened.clear()
    places.give_back(PLACE)
    assert places.opened == {PLACE: 1}


def test_no_faster_than_its_rate() -> None:
    places = limited(rate=Rate(1, 10, 2))
    for _ in range(2):
        assert places.eligible(PLACE, NOW)
        attempt(places, Verdict.ANSWERED)
    assert not places.eligible(PLACE, NOW)
    assert places.next_time() == places.blocked_until(PLACE, NOW) == NOW + 10
    places.opened.clear()
    places.look(NOW + 10)
    assert PLACE in places.opened
    assert places.eligible(PLACE, NOW + 10)
    assert places.next_time() is None


def test_the_first_override_that_matches_counts() -> None:
    tight, wide = DestinationLimits(concurrency=1), DestinationLimits(concurrency=5)
    places = Destinations("smtp", Throttle(overrides={"*.example.com": tight, "*": wide}), 8)
    for name in ("a.example.com", "b.example.org"):
        places.begin(name, NOW)
    assert not places.eligible("a.example.com", NOW)
    assert places.eligible("b.example.org", NOW)
    others = Destinations("smtp", Throttle(overrides={"*.example.com": tight}), 8)
    others.begin("example.org", NOW)
    assert others.known == {}


def test_what_has_no_destination_has_no_limits() -> None:
    places = limited(concurrency=1, initial=1)
    for _ in range(5):
        places.begin("", NOW)
        assert places.eligible("", NOW)
    places.ended("", Verdict.DOWN, NOW)
    assert places.known == {}


def test_pauses_of_a_destination() -> None:
    places = unlimited()
    places.pause([Pause("order 1", "*.org", NOW + 60)], NOW)
    assert places.watching
    assert not places.eligible(PLACE, NOW)
    assert not places.reachable(PLACE, NOW)
    assert places.eligible("example.net", NOW)
    assert places.blocked_until(PLACE, NOW) == places.next_expiry() == NOW + 60
    assert places.pause_of_all(NOW) is None
    places.pause(places.pauses, NOW + 60)
    assert places.pauses == ()
    assert places.opened == {"*": 0}
    assert places.eligible(PLACE, NOW + 60)
    assert not places.watching


def test_a_pause_without_end_has_no_known_end() -> None:
    places = unlimited()
    places.pause([Pause("order 1", PLACE, NOW + 60), Pause("order 2", PLACE)], NOW)
    assert places.blocked_until(PLACE, NOW) is None


def test_pauses_of_everything() -> None:
    places = unlimited()
    pause = Pause("order 1", None, NOW + 60)
    places.pause([pause], NOW)
    assert places.pause_of_all(NOW + 59) is pause
    assert places.pause_of_all(NOW + 60) is None
    assert not places.watching


def test_a_standing_survives_a_restart() -> None:
    first = limited(concurrency=10, initial=2)
    attempt(first, Verdict.DOWN, reason="refused")
    second = limited(concurrency=10, initial=2)
    ramping = DestinationStanding("smtp", "b", "ramping", "busy", NOW, None, 2, 7.0)
    second.restore([*first.changed.values(), ramping], NOW)
    assert not second.eligible(PLACE, NOW + 29)
    assert second.next_time() == NOW + 30
    second.look(NOW + 30)
    assert second.eligible(PLACE, NOW + 30)
    # What was in the ramp is probed first.
    assert second.eligible("b", NOW)
    second.begin("b", NOW)
    assert not second.eligible("b", NOW)
    concurrency = second.known["b"].concurrency
    assert concurrency is not None
    assert concurrency.window == 7


def test_an_operator_need_not_wait() -> None:
    places = unlimited()
    places.ended(PLACE, Verdict.DOWN, NOW)
    places.probe_now(NOW + 1)
    assert places.changed[PLACE].status == "probing"
    assert places.eligible(PLACE, NOW + 1)


def test_one_that_nobody_wants_any_more_is_forgotten() -> None:
    places = unlimited()
    places.ended(PLACE, Verdict.DOWN, NOW)
    until = places.next_time()
    assert until is not None
    places.look(until)
    assert places.known
    places.look(until + module.FORGOTTEN_AFTER)
    assert places.known == {}
    assert places.changed[PLACE].status == "up"
    assert not places.watching
    assert places.next_time() is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    places = limited()
    attempt(places, Verdict.DOWN)
    for number in range(1000):
        name = f"{number}.example"
        places.begin(name, NOW + number)
        places.ended(name, Verdict.ANSWERED, NOW + number)
        places.opened.clear()
    assert len(places.known) <= 20
    assert PLACE in places.known
    assert "999.example" in places.known


def test_gates_say_what_is_in_the_way() -> None:
    rate = Gcra(Rate(1, 10))
    places = limited(concurrency=2, initial=1, rate=Rate(1, 5))
    gates = Gates((), "", None, rate, places.known)
    assert gates.gate_of(PLACE, NOW) is None
    rate.take(NOW)
    assert gates.gate_of("", NOW) == ("rate", NOW + 10, "1/10s")
    now = NOW + 10
    places.begin(PLACE, now)
    assert gates.gate_of(PLACE, now) == ("destination_rate", now + 5, "1/5s")
    assert gates.gate_of(PLACE, now + 5) == ("destination_limit", None, "1 at once")
    places.ended(PLACE, Verdict.DOWN, now, reason="refused")
    assert gates.gate_of(PLACE, now) == ("destination_parked", now + 30, "refused")
    assert gates.gate_of("", now) is None
    assert gates.gate_of("example.net", now) is None
    places.look(now + 30)
    assert gates.gate_of(PLACE, now + 30) is None
    places.begin(PLACE, now + 20)
    assert gates.gate_of(PLACE, now + 30) == ("destination_probing", None, "refused")


def test_gates_of_the_whole_transport() -> None:
    pauses = (Pause("order 1", None, NOW + 5), Pause("order 2", "*.org"))
    gates = Gates(pauses, "Mo-Fr 09:00-17:00 UTC", NOW + 60)
    assert gates.gate_of(PLACE, NOW) == ("paused", NOW + 5, "order 1")
    assert gates.gate_of(PLACE, NOW + 5) == ("closed", NOW + 60, "Mo-Fr 09:00-17:00 UTC")
    assert gates.gate_of(PLACE, NOW + 60) == ("destination_paused", None, "order 2")
    assert gates.gate_of("example.net", NOW + 60) is None


class Places(RuleBasedStateMachine):
    """Whatever happens, no destination gets more at once than it may, and nobody waits without being woken."""

    def __init__(self) -> None:
        super().__init__()
        self.places = Destinations(
            "smtp",
            Throttle(overrides={"a": DestinationLimits(concurrency=3, initial=2, rate=Rate(1, 5, 3))}),
            4,
        )
        self.now = NOW
        self.under_way: list[str] = []

    @rule(name=st.sampled_from(["a", "b", ""]))
    def try_one(self, name: str) -> None:
        if self.places.eligible(name, self.now):
            self.places.begin(name, self.now)
            self.under_way.append(name)

    @rule(verdict=st.sampled_from(list(Verdict)), which=st.integers(0, 99))
    def end_one(self, verdict: Verdict, which: int) -> None:
        if self.under_way:
            name = self.under_way.pop(which % len(self.under_way))
            self.places.ended(
                name, verdict, self.now, in_flight=lambda: sum(other == name for other in self.under_way)
            )

    @rule(which=st.integers(0, 99))
    def give_one_back(self, which: int) -> None:
        if self.under_way:
            self.places.give_back(self.under_way.pop(which % len(self.under_way)))

    @rule(seconds=st.floats(0.1, 1000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.places.look(self.now)

    @invariant()
    def bounds(self) -> None:
        for name, standing in self.places.known.items():
            assert standing.in_flight == self.under_way.count(name)
            if standing.concurrency is not None:
                assert standing.in_flight <= 3
            if not self.places.eligible(name, self.now):
                assert standing.in_flight or self.places.next_time() is not None


TestPlaces = Places.TestCase
