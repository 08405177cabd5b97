"""The part of the store suite about what an outbound message goes through: order, fairness, followups, other plans."""

from collections import Counter

import pytest

from postroom.addresses import Address
from postroom.lanes import destination_of, lane_of
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.stores.base import Action, Claimed, Followup, NewRecipient, Planned, Store
from tests.conformance.stores import Spool, accept, claim, message, record, settle, settlement, transaction


def fairly(store: Store, now: float, limit: int, *blocked: str) -> list[Claimed]:
    with transaction(store):
        return store.claim("a", now, limit, fair=True, blocked=blocked)[0]


def tenants(claims: list[Claimed]) -> Counter[str]:
    return Counter(claimed.tenant for claimed in claims)


class GateSuite:
    """Inherit, and give a fixture ``spool``."""

    @pytest.fixture
    def store(self, spool: Spool) -> Store:
        spool.linger = 60.0
        return spool.open()

    # What is kept of a message

    def test_options_come_back(self, spool: Spool, store: Store) -> None:
        options = RecipientOptions(
            alternatives=(Address("sms", "+15550100"), Address("https", "//x.example/y")),
            orcpt="rfc822;ann@example.org", report="", via=("list:staff", "list:all"),
            original=Address("smtp", "old@example.org"),
        )  # fmt: skip
        said = MessageOptions(ret="hdrs", envid="QQ314159", window="Mo-Fr 09:00-17:00 UTC", report_of=7)
        one = message(store, spool.clock, tenant="acme", options=said, report="failure,success")
        one = one._replace(recipients=(NewRecipient(Address("smtp", "ann@example.org"), "a", options),))
        accept(store, one)
        (claimed,) = claim(store, spool.clock.time())
        assert (claimed.tenant, claimed.options, claimed.report) == ("acme", said, "failure,success")
        assert claimed.targets[0].options == options
        kept = spool.reader().message(one.key)
        assert kept is not None
        assert (kept.tenant, kept.options, kept.recipients[0].options) == ("acme", said, options)

    def test_a_standing_order_may_end_a_recipient_at_once(self, spool: Spool, store: Store) -> None:
        reply = Reply("no mail for them today", "5.7.1")
        one = message(store, spool.clock, "a@x", "b@x", followed=True)
        ended = one.recipients[1]._replace(state=State.FAILED, reply=reply, ended="failed")
        (accepted,) = accept(store, one._replace(recipients=(one.recipients[0], ended)))
        assert not accepted.complete
        assert record(spool.reader(), one.key, 1).reply == reply
        assert spool.reader().tally().imbalance == 0
        assert [followup.key for followup in spool.reader().followups(spool.clock.time() + 100, 9)] == [
            one.key
        ]
        two = message(store, spool.clock, followed=True)
        (accepted,) = accept(store, two._replace(recipients=(ended,)))
        assert accepted.complete

    # Fairness

    def test_tenants_share_what_is_claimed(self, spool: Spool, store: Store) -> None:
        crowd = [message(store, spool.clock, f"{n}@x", tenant="big", delay=-9.0) for n in range(300)]
        single = message(store, spool.clock, "one@y", tenant="small", delay=-1.0)
        few = [message(store, spool.clock, f"{n}@z", tenant="few", delay=-1.0) for n in range(5)]
        accept(store, *crowd, single, *few)
        got = fairly(store, spool.clock.time(), 20)
        assert tenants(got) == {"big": 14, "small": 1, "few": 5}
        assert [claimed.key for claimed in got if claimed.tenant == "big"] == [one.key for one in crowd[:14]]
        assert tenants(fairly(store, spool.clock.time(), 20)) == {"big": 20}

    def test_without_fairness_the_oldest_come_first(self, spool: Spool, store: Store) -> None:
        crowd = [message(store, spool.clock, tenant="big", delay=-9.0) for _ in range(30)]
        accept(store, *crowd, message(store, spool.clock, tenant="small"))
        assert tenants(claim(store, spool.clock.time(), limit=20)) == {"big": 20}

    def test_blocked_destinations_are_left_where_they_are(self, spool: Spool, store: Store) -> None:
        down = [message(store, spool.clock, f"{n}@down.example", delay=-9.0) for n in range(30)]
        well = [message(store, spool.clock, f"{n}@well.example") for n in range(3)]
        accept(store, *down, *well)
        got = fairly(store, spool.clock.time(), 20, "down.example")
        assert {claimed.key for claimed in got} == {one.key for one in well}
        assert len(fairly(store, spool.clock.time(), 100)) == 30

    def test_blocked_destinations_are_passed_over_in_order_too(self, spool: Spool, store: Store) -> None:
        mixed = [
            message(
                store, spool.clock, f"{n}@{'down' if n % 3 else 'well'}.example", tenant=f"tenant {n % 5}"
            )
            for n in range(30)
        ]
        accept(store, *mixed)
        now = spool.clock.time()
        with transaction(store):
            got = store.claim("a", now, 6, blocked=["down.example"])[0]
        well = [one.key for number, one in enumerate(mixed) if number % 3 == 0]
        assert [claimed.key for claimed in got] == well[:6]

    def test_every_priority_gets_its_share(self, spool: Spool, store: Store) -> None:
        accept(store, *(message(store, spool.clock, priority=n % 3 - 1) for n in range(300)))
        got = Counter(claimed.priority for claimed in claim(store, spool.clock.time(), limit=42))
        assert got == {1: 32, 0: 8, -1: 2}

    def test_lanes_of_one_tenant_stand_together(self) -> None:
        lanes = [lane_of("acme", domain) for domain in ("", "a.example", "b.example")]
        assert len(set(lanes)) == 3
        assert len({lane >> 32 for lane in lanes}) == 1
        assert lane_of("", "") == 0
        assert destination_of(Address("https", "//u@[::1]:8443/x")) == "[::1]"

    # Order

    def test_messages_with_one_ordering_key_wait_for_each_other(self, spool: Spool, store: Store) -> None:
        first, second, third = (
            message(store, spool.clock, ordering_key="k", followed=True) for _ in range(3)
        )
        other = message(store, spool.clock, ordering_key="j", followed=True)
        accept(store, first, second)
        accept(store, third, other)
        now = spool.clock.time()
        assert {claimed.key for claimed in claim(store, now)} == {first.key, other.key}
        settle(store, settlement(first.key, 0, State.QUEUED, now, due=now + 5))
        assert claim(store, now) == []
        assert [claimed.key for claimed in claim(store, now + 5)] == [first.key]
        settle(store, settlement(first.key, 0, State.FAILED, now + 5, followed=True))
        assert dict(store.following.freed) == {"a": now}
        assert [claimed.key for claimed in claim(store, now + 5)] == [second.key]
        settle(store, settlement(second.key, 0, State.RELAYED, now + 6, followed=True))
        assert [claimed.key for claimed in claim(store, now + 6)] == [third.key]

    def test_a_cancelled_message_in_between_lets_nobody_overtake(self, spool: Spool, store: Store) -> None:
        first, second, third = (
            message(store, spool.clock, ordering_key="k", followed=True) for _ in range(3)
        )
        accept(store, first, second, third)
        now = spool.clock.time()
        with transaction(store):
            assert store.control(Action("cancel"), second.key, (), None, now).completed
        assert [claimed.key for claimed in claim(store, now)] == [first.key]
        settle(store, settlement(first.key, 0, State.RELAYED, now, followed=True))
        assert [claimed.key for claimed in claim(store, now)] == [third.key]

    def test_deleting_a_cancelled_message_lets_nobody_overtake(self, spool: Spool, store: Store) -> None:
        first, second, third = (
            message(store, spool.clock, ordering_key="k", followed=True) for _ in range(3)
        )
        accept(store, first, second)
        now = spool.clock.time()
        with transaction(store):
            store.control(Action("cancel"), second.key, (), None, now)
            assert store.control(Action("delete"), second.key, (), None, now).deleted
        accept(store, third)
        assert [claimed.key for claimed in claim(store, now)] == [first.key]
        settle(store, settlement(first.key, 0, State.RELAYED, now, followed=True))
        assert [claimed.key for claimed in claim(store, now)] == [third.key]

    def test_what_is_done_holds_nobody_up(self, spool: Spool, store: Store) -> None:
        first, second = (message(store, spool.clock, ordering_key="k", followed=True) for _ in range(2))
        accept(store, first)
        now = spool.clock.time()
        claim(store, now)
        settle(store, settlement(first.key, 0, State.ACCEPTED, now, remote_id="r", followed=True))
        accept(store, second)
        assert [claimed.key for claimed in claim(store, now)] == [second.key]

    # Followups

    def test_a_failure_is_followed_up_and_the_content_stays_until_then(
        self, spool: Spool, store: Store
    ) -> None:
        one = message(store, spool.clock, "a@x", "b@x")
        accept(store, one, own=True)
        now = spool.clock.time()
        settle(store, settlement(one.key, 0, State.FAILED, now))
        reader = spool.reader()
        assert reader.next_followup() == store.following.due == now + 60.0
        assert reader.followups(now, 9) == []
        settle(store, settlement(one.key, 1, State.RELAYED, now + 1))
        (followup,) = reader.followups(now + 1, 9)
        assert (followup.kind, followup.key) == ("report", one.key)
        assert reader.content(one.key) is not None
        with transaction(store):
            assert store.followed_up(followup, [0], None)
        assert reader.content(one.key) is None
        assert [recipient.reported for recipient in reader.message(one.key).recipients] == [True, False]  # type: ignore[union-attr]
        with transaction(store):
            assert not store.followed_up(followup, [0], None)

    def test_what_fails_meanwhile_is_not_forgotten(self, spool: Spool, store: Store) -> None:
        one = message(store, spool.clock, "a@x", "b@x", "c@x")
        accept(store, one, own=True)
        now = spool.clock.time()
        settle(store, settlement(one.key, 0, State.FAILED, now))
        (followup,) = spool.reader().followups(now + 60.0, 9)
        settle(store, settlement(one.key, 1, State.FAILED, now))
        with transaction(store):
            assert not store.followed_up(followup, [0], None)
        (followup,) = spool.reader().followups(now + 60.0, 9)
        with transaction(store):
            assert store.followed_up(followup, [0, 1], now + 500)
        assert spool.reader().next_followup() == now + 500

    def test_success_is_followed_up_where_it_was_asked_for(self, spool: Spool, store: Store) -> None:
        now = spool.clock.time()
        for report, followed, there in (("failure", False, False), ("failure,success", True, True)):
            one = message(store, spool.clock, report=report, followed=followed)
            accept(store, one, own=True)
            with transaction(store):
                store.settle([settlement(one.key, 0, State.RELAYED, now, followed=followed)])
            assert [followup.key for followup in spool.reader().followups(now, 9)] == [one.key] * there

    def test_what_waits_for_the_end_is_due_with_it(self, spool: Spool, store: Store) -> None:
        now = spool.clock.time()
        one = message(store, spool.clock, followed=True, followups=(("sent", None), ("delay", now + 50)))
        accept(store, one, own=True)
        assert spool.reader().next_followup() == now + 50
        settle(store, settlement(one.key, 0, State.RELAYED, now + 3, followed=True))
        assert spool.reader().followups(now + 3, 9) == [Followup("sent", one.key, now + 3)]

    # Expiry

    def test_expiry_is_swept_over_every_state_but_held(self, spool: Spool, store: Store) -> None:
        now = spool.clock.time()
        waits = message(store, spool.clock, expires=now + 10, delay=5.0)
        accepted = message(store, spool.clock, expires=now + 10)
        held = message(store, spool.clock, expires=now + 10, hold=True)
        behind = [
            message(store, spool.clock, expires=now + 10, ordering_key="k", followed=True) for _ in range(2)
        ]
        never = message(store, spool.clock)
        accept(store, waits, accepted, held, *behind, never)
        for claimed in claim(store, now):
            state = State.ACCEPTED if claimed.key == accepted.key else State.QUEUED
            settle(store, settlement(claimed.key, 0, state, now, due=now, remote_id="r"))
        assert store.next_expiry() == now + 10
        with transaction(store):
            assert store.sweep(now + 9, 9, held=False) == ([], [])
        with transaction(store):
            gone, completed = store.sweep(now + 10, 9, held=False)
        assert (
            set(completed) == {s.key for s in gone} == {waits.key, accepted.key, *(one.key for one in behind)}
        )
        assert store.next_expiry() is None
        with transaction(store):
            assert store.sweep(now + 10, 9, held=True)[1] == [held.key]
        assert record(spool.reader(), never.key).state is State.QUEUED
        assert spool.reader().tally().imbalance == 0

    # Other plans and other addresses

    def test_planning_again_moves_what_waits_and_spares_who_declined(
        self, spool: Spool, store: Store
    ) -> None:
        now = spool.clock.time()
        usual = [message(store, spool.clock, priority=n % 3 - 1) for n in range(7)]
        held = message(store, spool.clock, hold=True)
        busy = message(store, spool.clock)
        lost = message(store, spool.clock, "nobody@lost.example")
        accept(store, *usual, held, lost)
        accept(store, busy, own=True)
        declined: set[frozenset[str]] = set()

        def plan(address: Address, transport: str, no: frozenset[str]) -> Planned:
            assert transport == "a"
            declined.add(no)
            return Planned(None if address.value.endswith("lost.example") else "b", "because")

        place = None
        changes = 0
        while True:
            with transaction(store):
                done = store.replan("a", plan, place, 2, now, aside=True)
            changes += len(done.settlements)
            place = done.last
            if place is None:
                break
        assert changes == 9
        states = {key: n for key, n in spool.reader().tally().states.items() if n}
        assert states == {
            ("a", State.QUEUED): 1,
            ("b", State.QUEUED): 7,
            ("b", State.HELD): 1,
            ("a", State.FAILED): 1,
        }
        assert {claimed.key for claimed in claim(store, now, transport="b")} == {one.key for one in usual}

    def test_a_recipient_turns_to_its_alternative(self, spool: Spool, store: Store) -> None:
        now = spool.clock.time()
        one = message(store, spool.clock, tenant="acme")
        accept(store, one, own=True)
        left = RecipientOptions(original=Address("smtp", "ann@example.org"))
        moved = settlement(
            one.key, 0, State.QUEUED, now, outcome="failed", next_transport="sms", attempts=0, due=now,
            next_address=Address("sms", "+15550100"), next_options=left,
        )  # fmt: skip
        settle(store, moved)
        (claimed,) = claim(store, now, transport="sms")
        assert (claimed.targets[0].address, claimed.targets[0].options) == (Address("sms", "+15550100"), left)
        (attempt,) = record(spool.reader(), one.key).history
        assert (attempt.outcome, attempt.address) == ("failed", Address("smtp", "ann@example.org"))

    def test_recipients_share_what_a_preprocessor_made_for_them(self, spool: Spool, store: Store) -> None:
        now = spool.clock.time()
        one = message(store, spool.clock, "a@x", "b@x", "c@x")
        accept(store, one, own=True)
        changed = b"changed"
        settle(
            store,
            *(
                settlement(
                    one.key, index, State.QUEUED, now, outcome="processed", next_transport="b", due=now, attempts=0,
                    content=changed if index < 2 else None,
                )
                for index in range(3)
            ),
        )  # fmt: skip
        (claimed,) = claim(store, now, transport="b")
        first, second, third = (target.variant for target in claimed.targets)
        assert first is not None
        assert (first, third) == (second, None)
        reader = spool.reader()
        assert reader.content(one.key, first) == changed
        settle(
            store,
            *(settlement(one.key, n, State.RELAYED, now, transport="b", followed=True) for n in range(3)),
        )
        assert reader.content(one.key, first) is None
        assert reader.content(one.key) is None

    def test_a_recipient_given_back_untried_keeps_what_was_said_last(
        self, spool: Spool, store: Store
    ) -> None:
        now = spool.clock.time()
        one = message(store, spool.clock)
        accept(store, one, own=True)
        settle(store, settlement(one.key, 0, State.QUEUED, now, due=now))
        before = record(spool.reader(), one.key)
        claim(store, now)
        settle(store, settlement(one.key, 0, State.QUEUED, now, outcome="", reply=None, due=now + 9))
        after = record(spool.reader(), one.key)
        assert (after.reply, after.due, after.history) == (before.reply, now + 9, before.history)
