"""What every store must do: subclass :class:`StoreSuite` with a ``spool`` fixture.

And then :class:`tests.conformance.store_machine.StoreMachine`.

A spool is a place that several instances share; a test opens as many stores on it as it needs. "Death" of a process is
``close(leave=False)``: whatever tells a store that another instance is dead must say so from then on.
"""

import contextlib
import random
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import pytest

from postroom.addresses import Address
from postroom.clock import ManualClock
from postroom.ids import created_at
from postroom.outcomes import Reply
from postroom.recipients import PENDING_STATES, State
from postroom.stores.base import (
    Accepted,
    Action,
    Claimed,
    NewMessage,
    NewRecipient,
    Reader,
    Settlement,
    Standing,
    Store,
)

__all__ = ["SettableClock", "Spool", "StoreSuite", "message", "settlement", "transaction"]


class SettableClock(ManualClock):
    """A clock that somebody may set back, as machines' wall clocks are."""

    def set_back(self, seconds: float) -> None:
        """Set the wall clock, but not the monotonic one, back."""
        with self._lock:
            self._wall -= seconds


class Spool(Protocol):
    """A place where messages are kept, and what opens stores and readers on it."""

    clock: SettableClock
    linger: float | None

    def open(self, *, keep_content: bool = False) -> Store:
        """Return an open store: a new instance."""
        ...

    def reader(self) -> Reader:
        """Return a reader that sees what is committed."""
        ...

    def close(self) -> None:
        """Close whatever is open, and remove the spool."""
        ...


@contextlib.contextmanager
def transaction(store: Store) -> Generator[None]:
    """Begin; commit at the end, or roll back when it raises."""
    store.begin()
    try:
        yield
    except BaseException:
        store.rollback()
        raise
    store.commit()


def message(
    store: Store,
    clock: ManualClock,
    *recipients: str | tuple[str, str],
    delay: float = 0.0,
    **fields: Any,
) -> NewMessage:
    """Return a message to ``recipients``: a value, or (transport, value); ``delay`` is until it is due."""
    now = clock.time()
    pairs = [("a", one) if isinstance(one, str) else one for one in recipients or ("ann@example.org",)]
    defaults: dict[str, Any] = {
        "sender": "app@example.org",
        "content": b"From: app@example.org\r\n\r\nhello\r\n",
        "created": now,
        "due": now + delay,
    }
    return NewMessage(
        key=store.ids.next(),
        recipients=tuple(NewRecipient(Address("smtp", value), transport) for transport, value in pairs),
        **(defaults | fields),
    )


def everyone(messages: Sequence[NewMessage]) -> set[tuple[int, int]]:
    """Return the (key, index) of all recipients."""
    return {(one.key, index) for one in messages for index in range(len(one.recipients))}


def accept(store: Store, *messages: NewMessage, own: bool = False) -> list[Accepted]:
    with transaction(store):
        return store.accept(messages, everyone(messages) if own else ())


def claim(store: Store, now: float, transport: str = "a", limit: int = 100) -> list[Claimed]:
    with transaction(store):
        return store.claim(transport, now, limit)[0]


def settlement(key: int, index: int, state: State, at: float, **fields: Any) -> Settlement:
    """Return a change from ``queued``, counted under the state's name unless told otherwise."""
    defaults: dict[str, Any] = {
        "transport": "a",
        "was": State.QUEUED,
        "attempts": 1,
        "outcome": "deferred" if state is State.QUEUED else state.label,
        "reply": Reply("said", "2.0.0", 250, "mx.example.org"),
    }
    return Settlement(key=key, index=index, state=state, at=at, **(defaults | fields))


def settle(store: Store, *settlements: Settlement) -> tuple[list[Settlement], list[int]]:
    with transaction(store):
        return store.settle(settlements)


def record(reader: Reader, key: int, index: int = 0) -> Any:
    """Return the recipient's record, which must be there."""
    found = reader.message(key)
    assert found is not None
    return found.recipients[index]


def check_ledger(reader: Reader) -> None:
    """The ledger balances, and the tally is what a recount finds."""
    tally = reader.tally()
    assert tally.imbalance == 0
    pending = {where: n for where, n in tally.states.items() if n and not where[1].is_final}
    assert pending == dict(reader.recount())


ODD_TEXTS = ["", "naïve — 信 📮", 'quote " back \\ slash', "two\nlines\ttab", "x" * 70_000]


class StoreSuite:
    """Inherit, and give a fixture ``spool``."""

    @pytest.fixture
    def store(self, spool: Spool) -> Store:
        return spool.open()

    @pytest.fixture
    def reader(self, spool: Spool, store: Store) -> Reader:
        del store  # makes the spool
        return spool.reader()

    # Accepting

    def test_what_was_accepted_reads_back(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(
            store, spool.clock, "ann@example.org", ("b", "bob@example.org"), expires=spool.clock.time() + 9, priority=1,
            subject="Grüße", message_id="<1@x>", smtputf8=True, eight_bit=True, report="failure", idempotency_key="k",
            digest=b"d",
        )  # fmt: skip
        assert accept(store, one) == [Accepted(one.key)]
        found = reader.message(one.key)
        assert found is not None
        assert (found.key, found.sender, found.subject, found.message_id) == (
            one.key,
            one.sender,
            "Grüße",
            "<1@x>",
        )
        assert (found.created, found.expires, found.priority) == (one.created, one.expires, 1)
        assert (found.size, found.report, found.idempotency_key) == (len(one.content), "failure", "k")
        assert found.content_kept
        assert [(r.index, r.address, r.transport) for r in found.recipients] == [
            (0, Address("smtp", "ann@example.org"), "a"),
            (1, Address("smtp", "bob@example.org"), "b"),
        ]
        assert all(r.state is State.QUEUED and r.owner is None and r.due == one.due for r in found.recipients)
        assert reader.content(one.key) == one.content
        assert reader.pending(one.key) == 2
        check_ledger(reader)

    def test_nothing_is_there_before_the_commit_or_after_a_rollback(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one = message(store, spool.clock)
        store.begin()
        store.accept([one], ())
        assert reader.message(one.key) is None
        store.rollback()
        assert reader.message(one.key) is None
        assert reader.content(one.key) is None
        assert reader.pending(one.key) is None
        assert reader.tally().accepted.get("smtp", 0) == 0
        other = message(store, spool.clock)
        accept(store, other)
        assert reader.tally().accepted == {"smtp": 1}
        check_ledger(reader)

    def test_recipients_can_be_born_owned(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(store, spool.clock, "ann@example.org", "bob@example.org")
        with transaction(store):
            store.accept([one], {(one.key, 0)})
        assert [record(reader, one.key, index).owner for index in (0, 1)] == [store.node, None]
        (claimed,) = claim(store, spool.clock.time())
        assert [target.index for target in claimed.targets] == [1]

    def test_a_message_can_be_born_held(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(store, spool.clock, hold=True)
        accept(store, one)
        assert record(reader, one.key).state is State.HELD
        assert claim(store, spool.clock.time() + 1e6) == []
        assert store.next_due("a") is None
        check_ledger(reader)

    def test_an_idempotency_key_counts_once(self, spool: Spool, store: Store, reader: Reader) -> None:
        first = message(store, spool.clock, idempotency_key="k", digest=b"1")
        again = message(store, spool.clock, idempotency_key="k", digest=b"1")
        other = message(store, spool.clock, idempotency_key="k", digest=b"2")
        plain = message(store, spool.clock)
        # Within one transaction, and across two.
        assert accept(store, first, again, plain) == [
            Accepted(first.key), Accepted(first.key, duplicate=True), Accepted(plain.key),
        ]  # fmt: skip
        assert accept(store, other, again) == [
            Accepted(first.key, conflict=True), Accepted(first.key, duplicate=True),
        ]  # fmt: skip
        assert reader.message(again.key) is None
        assert reader.tally().accepted == {"smtp": 2}
        check_ledger(reader)

    @pytest.mark.parametrize("count", [1, 63, 64, 65, 127, 128, 129, 5000])
    def test_batches_of_any_size(self, spool: Spool, store: Store, reader: Reader, count: int) -> None:
        messages = [
            message(store, spool.clock, f"{n}@example.org", idempotency_key=f"k{n}", digest=b"d")
            for n in range(count)
        ]
        assert accept(store, *messages, own=True) == [Accepted(one.key) for one in messages]
        for one in (messages[0], messages[count // 2], messages[-1]):
            assert record(reader, one.key).address == one.recipients[0].address
            assert reader.content(one.key) == one.content
        assert reader.tally().accepted == {"smtp": count}
        changes = [
            settlement(one.key, 0, State.FAILED, spool.clock.time(), outcome="failed", only=True)
            for one in messages
        ]
        applied, completed = settle(store, *changes)
        assert (len(applied), sorted(completed)) == (count, sorted(one.key for one in messages))
        assert reader.tally().states["a", State.FAILED] == count
        assert len(record(reader, messages[-1].key).history) == 1
        check_ledger(reader)

    @pytest.mark.parametrize("count", [64, 65, 3000])
    def test_a_message_to_many(self, spool: Spool, store: Store, reader: Reader, count: int) -> None:
        one = message(store, spool.clock, *[f"{n}@example.org" for n in range(count)])
        accept(store, one)
        (claimed,) = claim(store, spool.clock.time(), limit=count)
        assert [target.index for target in claimed.targets] == list(range(count))
        assert claimed.recipient_count == count
        check_ledger(reader)

    @pytest.mark.parametrize("text", ODD_TEXTS)
    def test_text_of_any_kind(self, spool: Spool, store: Store, reader: Reader, text: str) -> None:
        one = message(store, spool.clock, f"{text}@x", sender=text, subject=text, idempotency_key=f"k{text}")
        accept(store, one, own=True)
        again = message(store, spool.clock, f"{text}@x", sender=text, idempotency_key=f"k{text}")
        assert accept(store, again) == [Accepted(one.key, duplicate=True)]
        reply = Reply(text, "4.0.0", 450, text)
        held = settlement(
            one.key,
            0,
            State.HELD,
            spool.clock.time(),
            reply=reply,
            remote_id=text,
            detail=text,
            outcome="crashed",
        )
        assert settle(store, held) == ([held], [])
        found = record(reader, one.key)
        assert (found.reply, found.remote_id, found.detail) == (reply, text, text)
        assert found.address.value == f"{text}@x"
        assert found.history[0].reply == reply
        assert found.history[0].detail == text

    def test_octets_of_any_kind(self, spool: Spool, store: Store, reader: Reader) -> None:
        content = bytes(range(256)) * 4000
        one = message(store, spool.clock, content=content)
        accept(store, one)
        assert reader.content(one.key) == content

    # Claiming

    def test_claims_come_by_priority_then_due_time_then_submission(self, spool: Spool, store: Store) -> None:
        chosen = random.Random(7)  # noqa: S311 - a repeatable mixture
        messages = [
            message(
                store, spool.clock, priority=chosen.choice([-1, 0, 1]), delay=chosen.choice([-2.0, -1.0, 0.0])
            )
            for _ in range(60)
        ]
        accept(store, *messages)
        order = sorted(messages, key=lambda one: (-one.priority, one.due, one.key))
        got = claim(store, spool.clock.time(), limit=100)
        assert [one.key for one in got] == [one.key for one in order]

    def test_a_claim_tells_all_that_a_delivery_needs(self, spool: Spool, store: Store) -> None:
        one = message(store, spool.clock, "ann@example.org", ("b", "bob@example.org"), smtputf8=True, eight_bit=True,
                      expires=spool.clock.time() + 60, priority=-1)  # fmt: skip
        accept(store, one)
        (claimed,) = claim(store, spool.clock.time())
        assert (claimed.key, claimed.sender, claimed.created, claimed.due) == (
            one.key,
            one.sender,
            one.created,
            one.due,
        )
        assert (claimed.priority, claimed.expires, claimed.size) == (-1, one.expires, len(one.content))
        assert claimed.smtputf8
        assert claimed.eight_bit
        assert claimed.recipient_count == 2
        assert [(t.index, t.address.value, t.attempts, t.in_doubt) for t in claimed.targets] == [
            (0, "ann@example.org", 0, False)
        ]

    def test_only_what_is_due_and_nobodys_is_claimed(self, spool: Spool, store: Store) -> None:
        later, mine = message(store, spool.clock, delay=10), message(store, spool.clock)
        accept(store, later)
        accept(store, mine, own=True)
        assert claim(store, spool.clock.time()) == []
        assert store.next_due("a") == later.due
        assert store.next_due("b") is None
        spool.clock.advance(10)
        assert [one.key for one in claim(store, spool.clock.time())] == [later.key]
        assert claim(store, spool.clock.time()) == []
        assert store.next_due("a") is None

    def test_two_stores_never_claim_the_same(self, spool: Spool, store: Store) -> None:
        other = spool.open()
        accept(store, *[message(store, spool.clock) for _ in range(40)])
        got: list[int] = []
        for turn in range(10):
            got += [one.key for one in claim((store, other)[turn % 2], spool.clock.time(), limit=5)]
        assert len(got) == len(set(got)) == 40
        assert got == sorted(got)

    def test_what_has_expired_is_settled_when_it_is_claimed(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        alone = message(store, spool.clock, expires=spool.clock.time() + 5)
        shared = message(
            store, spool.clock, "ann@example.org", ("b", "b@example.org"), expires=spool.clock.time() + 5
        )
        alive = message(store, spool.clock, expires=spool.clock.time() + 500)
        accept(store, alone, shared, alive)
        spool.clock.advance(5)
        with transaction(store):
            claimed, gone, completed = store.claim("a", spool.clock.time(), 10)
        assert [one.key for one in claimed] == [alive.key]
        assert [(one.key, one.state) for one in gone] == [
            (alone.key, State.EXPIRED),
            (shared.key, State.EXPIRED),
        ]
        assert completed == [alone.key]
        assert reader.content(alone.key) is None
        assert reader.content(shared.key) is not None
        assert record(reader, alone.key).reply.status == "4.4.7"
        assert reader.tally().outcomes["a", "expired"] == 2
        check_ledger(reader)

    # Settling

    @pytest.mark.parametrize("state", [state for state in State if state is not State.SENDING])
    def test_settling_to_every_state(self, spool: Spool, store: Store, reader: Reader, state: State) -> None:
        one = message(store, spool.clock)
        accept(store, one, own=True)
        at = spool.clock.time() + 1
        change = settlement(
            one.key, 0, state, at, due=at + 60 if state is State.QUEUED else None, first_attempt=at - 1, attempts=3,
            remote_id="r-1", crashes=1, in_doubt=True, only=True,
        )  # fmt: skip
        assert settle(store, change) == ([change], [one.key] if state.is_final else [])
        found = record(reader, one.key)
        assert (found.state, found.owner, found.attempts, found.first_attempt) == (state, None, 3, at - 1)
        assert (found.changed, found.crashes, found.in_doubt, found.remote_id) == (at, 1, True, "r-1")
        assert found.reply == change.reply
        assert found.due == change.due
        assert reader.pending(one.key) == (0 if state.is_final else 1)
        assert (reader.content(one.key) is None) == state.is_final
        assert reader.tally().outcomes["a", change.outcome] == 1
        check_ledger(reader)

    def test_what_is_nobodys_or_somebody_elses_is_not_settled(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        other = spool.open()
        free, mine, theirs = (message(store, spool.clock) for _ in range(3))
        accept(store, free)
        accept(store, mine, own=True)
        accept(other, theirs, own=True)
        now = spool.clock.time()
        changes = [settlement(one.key, 0, State.DELIVERED, now) for one in (free, mine, theirs)]
        unknown = settlement(theirs.key + 1, 0, State.DELIVERED, now)
        assert settle(store, *changes, unknown) == ([changes[1]], [mine.key])
        assert record(reader, theirs.key).owner == other.node
        assert reader.tally().outcomes == {("a", "delivered"): 1}
        check_ledger(reader)

    def test_nothing_is_settled_twice(self, spool: Spool, store: Store, reader: Reader) -> None:
        one, two = message(store, spool.clock), message(store, spool.clock)
        accept(store, one, two, own=True)
        now = spool.clock.time()
        first, rival = settlement(one.key, 0, State.DELIVERED, now), settlement(one.key, 0, State.FAILED, now)
        fine = settlement(two.key, 0, State.DELIVERED, now)
        # In one transaction, in one list, and later.
        assert settle(store, first, rival, fine)[0] == [first, fine]
        assert settle(store, rival, first) == ([], [])
        assert record(reader, one.key).state is State.DELIVERED
        assert reader.tally().outcomes == {("a", "delivered"): 2}
        check_ledger(reader)

    def test_an_unexpected_state_is_not_settled(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(store, spool.clock)
        accept(store, one, own=True)
        late = settlement(one.key, 0, State.DELIVERED, spool.clock.time(), was=State.SENDING)
        assert settle(store, late) == ([], [])
        assert record(reader, one.key).state is State.QUEUED
        check_ledger(reader)

    def test_not_mine_moves_a_recipient_on(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(store, spool.clock)
        accept(store, one, own=True)
        now = spool.clock.time()
        move = settlement(
            one.key, 0, State.QUEUED, now, due=now, next_transport="b", outcome="not_mine", attempts=0
        )
        assert settle(store, move) == ([move], [])
        assert claim(store, now) == []
        (claimed,) = claim(store, now, transport="b")
        assert claimed.targets[0].attempts == 0
        assert reader.tally().outcomes == {("a", "not_mine"): 1}
        check_ledger(reader)

    def test_a_message_is_complete_with_its_last_recipient(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one = message(store, spool.clock, "ann@example.org", "bob@example.org", ("b", "eve@example.org"))
        accept(store, one, own=True)
        now = spool.clock.time()
        assert settle(store, settlement(one.key, 0, State.DELIVERED, now))[1] == []
        assert settle(store, settlement(one.key, 1, State.HELD, now))[1] == []
        assert settle(store, settlement(one.key, 2, State.FAILED, now, transport="b"))[1] == []
        assert reader.pending(one.key) == 1
        assert reader.content(one.key) == one.content
        with transaction(store):
            assert store.control(Action("cancel"), one.key, (), None, now).completed
        assert reader.pending(one.key) == 0
        assert reader.content(one.key) is None
        check_ledger(reader)

    def test_content_can_be_kept(self, spool: Spool) -> None:
        store = spool.open(keep_content=True)
        one = message(store, spool.clock)
        accept(store, one, own=True)
        settle(store, settlement(one.key, 0, State.DELIVERED, spool.clock.time(), only=True))
        assert spool.reader().content(one.key) == one.content

    def test_the_history_keeps_what_did_not_go_well(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(store, spool.clock)
        accept(store, one, own=True)
        now = spool.clock.time()
        settle(store, settlement(one.key, 0, State.QUEUED, now, due=now, detail="why", duration=0.5))
        claim(store, now)
        settle(store, settlement(one.key, 0, State.DELIVERED, now + 1))
        (attempt,) = record(reader, one.key).history
        assert (attempt.at, attempt.transport, attempt.outcome, attempt.duration) == (
            now,
            "a",
            "deferred",
            0.5,
        )
        assert attempt.reply == Reply("said", "2.0.0", 250, "mx.example.org")
        assert attempt.detail == "why"

    # Exchanging: the quick way of a busy store

    def test_an_exchange_settles_and_accepts_in_one_transaction(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        done, half = message(store, spool.clock), message(store, spool.clock, "0@x", "1@x")
        accept(store, done, half, own=True)
        spool.clock.advance(0.123456789)
        now = spool.clock.time()
        fresh = [
            message(store, spool.clock, "ann@example.org", ("b", "Grüße 📮@x"), subject="naïve", idempotency_key="k",
                    digest=b"\x00\xff", content=bytes(range(256)), expires=now + 0.1),
            message(store, spool.clock, content=b"", hold=True),
            message(store, spool.clock, content=b"\x00second"),
        ]  # fmt: skip
        changes = [
            settlement(done.key, 0, State.DELIVERED, now, first_attempt=now, only=True),
            settlement(half.key, 1, State.RELAYED, now),
        ]
        results, applied, completed = store.exchange(fresh, {(fresh[0].key, 0)}, changes)
        assert results == [Accepted(one.key) for one in fresh]
        assert (applied, completed) == (changes, [done.key])
        assert reader.content(done.key) is None
        assert reader.content(half.key) == half.content
        settled = record(reader, done.key)
        assert (settled.state, settled.changed, settled.first_attempt) == (State.DELIVERED, now, now)
        assert (settled.reply, settled.owner, settled.due) == (changes[0].reply, None, None)
        for one in fresh:
            found = reader.message(one.key)
            assert found is not None
            assert (found.created, found.expires, found.subject) == (one.created, one.expires, one.subject)
            assert [r.address for r in found.recipients] == [r.address for r in one.recipients]
            assert reader.content(one.key) == one.content
        assert [record(reader, fresh[0].key, n).owner for n in (0, 1)] == [store.node, None]
        assert record(reader, fresh[1].key).state is State.HELD
        again = message(store, spool.clock, idempotency_key="k", digest=b"\x00\xff")
        assert accept(store, again) == [Accepted(fresh[0].key, duplicate=True)]
        check_ledger(reader)

    def test_an_exchange_leaves_out_what_does_not_apply(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        free, mine = message(store, spool.clock), message(store, spool.clock)
        used = message(store, spool.clock, idempotency_key="k", digest=b"1")
        accept(store, free, used)
        accept(store, mine, own=True)
        now = spool.clock.time()
        fresh = message(store, spool.clock)
        conflict = message(store, spool.clock, idempotency_key="k", digest=b"2")
        fine = settlement(mine.key, 0, State.DELIVERED, now, only=True)
        late = settlement(free.key, 0, State.DELIVERED, now, only=True)
        results, applied, completed = store.exchange([fresh, conflict], (), [late, fine, fine])
        assert results == [Accepted(fresh.key), Accepted(used.key, conflict=True)]
        assert (applied, completed) == ([fine], [mine.key])
        assert record(reader, free.key).state is State.QUEUED
        assert reader.message(conflict.key) is None
        assert reader.tally().outcomes == {("a", "delivered"): 1}
        check_ledger(reader)

    def test_an_exchange_of_messages_that_are_there_already_changes_nothing(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one, mine = message(store, spool.clock), message(store, spool.clock)
        accept(store, one)
        accept(store, mine, own=True)
        before = reader.tally()
        with pytest.raises(Exception, match=r"UNIQUE|unique|duplicate"):  # the driver's own integrity error
            store.exchange(
                [one], (), [settlement(mine.key, 0, State.DELIVERED, spool.clock.time(), only=True)]
            )
        store.rollback()
        assert reader.tally() == before
        assert record(reader, mine.key).owner == store.node
        assert reader.content(mine.key) == mine.content

    # Journal, reclaim, adopt

    def test_the_journal_says_sending_for_what_is_owned(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        mine, free = message(store, spool.clock), message(store, spool.clock)
        accept(store, mine, own=True)
        accept(store, free)
        with transaction(store):
            store.journal([(mine.key, 0), (free.key, 0)], "a")
        assert record(reader, mine.key).state is State.SENDING
        assert record(reader, free.key).state is State.QUEUED
        check_ledger(reader)
        done = settlement(mine.key, 0, State.DELIVERED, spool.clock.time(), was=State.SENDING)
        assert settle(store, done)[0] == [done]
        check_ledger(reader)

    def test_reclaim_gives_back_all_but_what_is_kept(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one = message(store, spool.clock, "0@x", "1@x", "2@x", ("b", "3@x"))
        accept(store, one, own=True)
        with transaction(store):
            store.journal([(one.key, 0), (one.key, 1)], "a")
        with transaction(store):
            assert store.reclaim("a", [(one.key, 0)]) == 2
        found = [record(reader, one.key, index) for index in range(4)]
        assert [r.owner for r in found] == [store.node, None, None, store.node]
        assert [r.state for r in found] == [State.SENDING, State.QUEUED, State.QUEUED, State.QUEUED]
        assert not any(r.in_doubt for r in found)
        check_ledger(reader)

    def test_what_the_dead_owned_is_freed_in_doubt(self, spool: Spool, store: Store, reader: Reader) -> None:
        dead = spool.open()
        one = message(dead, spool.clock, "0@x", "1@x", ("h", "2@x"), ("h", "3@x"))
        accept(dead, one, own=True)
        with transaction(dead):
            dead.journal([(one.key, 1)], "a")
        with transaction(dead):
            dead.journal([(one.key, 2)], "h")
        dead.set_standing(Standing("a", "up"))
        with transaction(store):
            assert store.adopt(["h"], spool.clock.time()) == {}
        dead.close(leave=False)
        with transaction(store):
            assert store.adopt(["h"], spool.clock.time()) == {"a": 2, "h": 2}
        found = [record(reader, one.key, index) for index in range(4)]
        assert [r.owner for r in found] == [None] * 4
        assert [r.state for r in found] == [State.QUEUED, State.QUEUED, State.HELD, State.QUEUED]
        assert [r.in_doubt for r in found] == [True, True, True, False]
        assert [row.node for row in reader.instances()] == [store.node]
        assert reader.standings() == []
        check_ledger(reader)
        with transaction(store):
            assert store.adopt(["h"], spool.clock.time()) == {}
        (again,) = claim(store, spool.clock.time())
        assert all(target.in_doubt for target in again.targets)

    def test_who_leaves_with_nothing_is_forgotten_at_once(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        other = spool.open()
        assert len(reader.instances()) == 2
        other.close(leave=True)
        assert [row.node for row in reader.instances()] == [store.node]

    def test_who_leaves_with_something_is_adopted(self, spool: Spool, store: Store, reader: Reader) -> None:
        other = spool.open()
        one = message(other, spool.clock)
        accept(other, one, own=True)
        other.close(leave=True)
        assert len(reader.instances()) == 2
        with transaction(store):
            assert store.adopt([], spool.clock.time()) == {"a": 1}
        assert record(reader, one.key).in_doubt

    def test_a_lost_connection_is_no_death(self, spool: Spool, store: Store, reader: Reader) -> None:
        other = spool.open()
        one = message(other, spool.clock)
        accept(other, one, own=True)
        last = other.ids.next()
        node = other.node
        other.disconnect()
        with transaction(store):
            assert store.adopt([], spool.clock.time()) == {}
        other.open()
        assert other.node == node
        assert other.ids.next() > last
        done = settlement(one.key, 0, State.DELIVERED, spool.clock.time())
        assert settle(other, done)[0] == [done]
        check_ledger(reader)

    # Control

    def test_hold_and_release(self, spool: Spool, store: Store, reader: Reader) -> None:
        one = message(store, spool.clock, delay=100)
        accept(store, one)
        now = spool.clock.time()
        with transaction(store):
            held = store.control(Action("hold"), one.key, (), None, now)
        assert (held.changed, held.in_transit, held.final) == ((0,), (), ())
        assert held.transports == {"a"}
        assert not held.completed
        assert record(reader, one.key).state is State.HELD
        assert record(reader, one.key).reply.text == "held by an operator"
        with transaction(store):
            assert store.control(Action("release"), one.key, (), None, now + 1).changed == (0,)
        # Releasing is no way around send_at.
        assert record(reader, one.key).due == one.due
        with transaction(store):
            assert store.control(Action("retry"), one.key, (), None, now + 2).changed == (0,)
        assert record(reader, one.key).due == now + 2
        check_ledger(reader)

    def test_control_leaves_alone_what_is_in_transit_or_final(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one = message(store, spool.clock, "0@x", "1@x", "2@x", "3@x")
        with transaction(store):
            store.accept([one], {(one.key, 0), (one.key, 1), (one.key, 2)})
        now = spool.clock.time()
        settle(store, settlement(one.key, 0, State.DELIVERED, now))
        with transaction(store):
            result = store.control(Action("cancel"), one.key, [2], None, now)
        assert (result.changed, result.in_transit, result.final) == ((2, 3), (1,), (0,))
        assert not result.completed
        check_ledger(reader)
        # What was revoked from memory cannot be settled by whoever had it.
        assert settle(store, settlement(one.key, 2, State.DELIVERED, now)) == ([], [])
        with transaction(store):
            assert store.control(Action("cancel"), one.key, [1], [1], now).completed
        assert reader.tally().outcomes["a", "cancelled"] == 3
        check_ledger(reader)

    def test_what_another_instance_owns_cannot_be_revoked_here(self, spool: Spool, store: Store) -> None:
        other = spool.open()
        one = message(other, spool.clock)
        accept(other, one, own=True)
        with transaction(store):
            result = store.control(Action("cancel"), one.key, [0], None, spool.clock.time())
        assert (result.changed, result.requested) == ((), (0,))
        with transaction(other):
            (request,) = other.take_requests(9)
        assert (request.action.kind, request.key, request.indices) == ("cancel", one.key, (0,))

    def test_controlling_chosen_recipients_or_nobody(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one = message(store, spool.clock, "0@x", "1@x", "2@x")
        accept(store, one)
        with transaction(store):
            assert store.control(Action("hold"), one.key, (), [1, 7], spool.clock.time()).changed == (1,)
            assert store.control(Action("release"), one.key, (), [0], spool.clock.time()).changed == ()
            assert store.control(Action("cancel"), one.key + 1, (), None, spool.clock.time()).changed == ()
        assert [record(reader, one.key, n).state for n in range(3)] == [
            State.QUEUED,
            State.HELD,
            State.QUEUED,
        ]

    def test_a_remote_report_that_never_comes_can_be_cancelled(
        self, spool: Spool, store: Store, reader: Reader
    ) -> None:
        one = message(store, spool.clock)
        accept(store, one, own=True)
        settle(store, settlement(one.key, 0, State.ACCEPTED, spool.clock.time(), remote_id="r"))
        with transaction(store):
            assert store.control(Action("cancel"), one.key, (), None, spool.clock.time()).completed
        check_ledger(reader)

    # Forgetting

    def test_purge_forgets_what_is_complete_and_old(self, spool: Spool) -> None:
        store, clock = spool.open(keep_content=True), spool.clock
        reader = spool.reader()
        old, pending = message(store, clock, idempotency_key="k"), message(store, clock)
        accept(store, old, own=True)
        accept(store, pending)
        settle(store, settlement(old.key, 0, State.FAILED, clock.time(), only=True))
        clock.advance(100)
        fresh = message(store, clock)
        accept(store, fresh, own=True)
        settle(store, settlement(fresh.key, 0, State.DELIVERED, clock.time(), only=True))
        before = reader.tally()

        assert rounds(store, before=clock.time() - 200, content_before=clock.time() - 50) > 0
        assert reader.content(old.key) is None
        assert reader.message(old.key) is not None
        assert rounds(store, before=None, content_before=0.0) == 0

        assert rounds(store, before=clock.time() - 50, content_before=clock.time() - 50, limit=1) == 2
        assert reader.message(old.key) is None
        assert reader.message(pending.key) is not None
        assert reader.content(pending.key) is not None
        assert reader.message(fresh.key) is not None
        assert reader.content(fresh.key) is not None
        # Final counts are for ever, and the key may be used again.
        assert reader.tally() == before
        assert accept(store, message(store, clock, idempotency_key="k")) != [
            Accepted(old.key, duplicate=True)
        ]
        check_ledger(reader)

    # Living together

    def test_numbers_grow_whatever_the_clock_does(self, spool: Spool, store: Store) -> None:
        numbers = [store.ids.next() for _ in range(5000)]
        accept(store, message(store, spool.clock))
        spool.clock.set_back(86400)
        numbers += [store.ids.next() for _ in range(5000)]
        assert numbers == sorted(set(numbers))

    def test_numbers_begin_above_those_in_the_spool(self, spool: Spool, store: Store) -> None:
        one = message(store, spool.clock)
        accept(store, one)
        spool.clock.set_back(86400)
        other = spool.open()
        assert other.ids.next() > one.key
        assert created_at(other.ids.next()) >= one.created - 0.001

    def test_instances_know_each_other(self, spool: Spool, store: Store, reader: Reader) -> None:
        other = spool.open()
        assert store.node != other.node
        spool.clock.advance(5)
        with transaction(other):
            other.heartbeat(spool.clock.time())
        beats = {row.node: row.heartbeat for row in reader.instances()}
        assert beats[other.node] - beats[store.node] == 5

    def test_standings_are_seen_by_others(self, spool: Spool, store: Store, reader: Reader) -> None:
        del spool
        parked = Standing("a", "parked", "refused", 1.0, 2.0, store.node)
        for standing in (Standing("a", "up", "", 0.5, None, store.node), parked):
            with transaction(store):
                store.set_standing(standing)
        assert reader.standings() == [parked]

    def test_work_of_others_is_noticed(self, spool: Spool, store: Store) -> None:
        other = spool.open()
        store.changed_elsewhere()
        accept(store, message(store, spool.clock))
        assert not store.changed_elsewhere()
        accept(other, message(other, spool.clock))
        assert store.changed_elsewhere()
        assert not store.changed_elsewhere()

    # Lists

    @pytest.mark.parametrize(
        "states", [PENDING_STATES, (State.HELD,), (State.HELD, State.ACCEPTED), (State.DELIVERED,), ()]
    )
    @pytest.mark.parametrize("transport", [None, "a", "b"])
    def test_lists_come_page_by_page_in_order(
        self, spool: Spool, store: Store, reader: Reader, states: tuple[State, ...], transport: str | None
    ) -> None:
        chosen = random.Random(3)  # noqa: S311 - a repeatable mixture
        expected: list[tuple[int, int]] = []
        for _ in range(30):
            names = [chosen.choice("ab") for _ in range(3)]
            one = message(store, spool.clock, *[(name, f"{n}@x") for n, name in enumerate(names)])
            accept(store, one, own=True)
            for index, name in enumerate(names):
                state = chosen.choice([State.QUEUED, State.HELD, State.ACCEPTED, State.DELIVERED])
                settle(store, settlement(one.key, index, state, spool.clock.time(), transport=name, due=0.0))
                if state in states and transport in {None, name}:
                    expected.append((one.key, index))
        found: list[tuple[int, int]] = []
        while page := reader.list_recipients(
            states=states, transport=transport, after=found[-1] if found else None, limit=7
        ):
            assert all(record_.state in states for _, record_ in page)
            found += [(message_.key, record_.index) for message_, record_ in page]
        assert found == expected

    def test_the_longest_waiting(self, spool: Spool, store: Store, reader: Reader) -> None:
        now = spool.clock.time()
        assert reader.oldest_due("a", now) is None
        accept(store, message(store, spool.clock, delay=-5), message(store, spool.clock, delay=5, priority=1))
        assert reader.oldest_due("a", now) == now - 5
        assert reader.oldest_due("b", now) is None
        accept(store, message(store, spool.clock, delay=-9), own=True)
        assert reader.oldest_due("a", now) == now - 9


def rounds(store: Store, *, before: float | None, content_before: float, limit: int = 100) -> int:
    """Purge until the end of a round; return how many messages were looked at."""
    looked = 0
    while True:
        with transaction(store):
            step = store.purge(before, content_before, limit)
        looked += step
        if step == 0:
            return looked
