"""What other systems report about our recipients: whom they mean, and what changes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postroom.events import RecipientReported
from postroom.ids import format_id
from postroom.inbound.values import RemoteReport, ReportedAction, ReportedRecipient
from postroom.outcomes import Reply
from postroom.recipients import State
from tests.conformance.stores import accept, check_ledger, message, record, settle, settlement, transaction
from tests.support.inbound import OpenStore


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "spool.db", linger=60.0) as spool:
        yield spool


def sent(
    spool: OpenStore, *recipients: str, state: State = State.RELAYED, remote_id: str | None = None
) -> int:
    """Return a message whose recipients have all been sent."""
    new = message(spool.store, spool.clock, *recipients, message_id="<m1@example.org>")
    accept(spool.store, new, own=True)
    settle(
        spool.store,
        *(
            settlement(
                new.key, index, state, spool.clock.time(), was=State.QUEUED, attempts=1, outcome=state.label,
                reply=Reply("ok", "2.0.0"), remote_id=remote_id,
            )
            for index in range(len(recipients))
        ),
    )  # fmt: skip
    return new.key


def said(action: ReportedAction, address: str = "", **fields: object) -> ReportedRecipient:
    return ReportedRecipient(action=action, address=address, text="mailbox full", status="5.2.2", **fields)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def report(
    *recipients: ReportedRecipient, message_id: str = "<m1@example.org>", **fields: object
) -> RemoteReport:
    return RemoteReport(
        kind="dsn", recipients=recipients, message_id=message_id, reporter="mx.example.net", **fields,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def take(spool: OpenStore, *reports: RemoteReport) -> list[bool]:
    with transaction(spool.store):
        return spool.store.inbox.apply_reports(reports, spool.clock.time())


def states(spool: OpenStore, key: int, n: int = 1) -> list[State]:
    return [record(spool.reader, key, index).state for index in range(n)]


def changed(spool: OpenStore) -> list[tuple[int, State, str]]:
    return [
        (s.index, s.state, address.value)
        for reported in spool.store.inbox.reported
        for s, address in reported.settlements
    ]


ACTIONS: Sequence[tuple[State, ReportedAction, State]] = (
    (State.ACCEPTED, "delivered", State.DELIVERED),
    (State.ACCEPTED, "relayed", State.RELAYED),
    (State.ACCEPTED, "expanded", State.RELAYED),
    (State.ACCEPTED, "failed", State.FAILED),
    (State.ACCEPTED, "displayed", State.DELIVERED),
    (State.ACCEPTED, "delayed", State.ACCEPTED),
    (State.RELAYED, "delivered", State.DELIVERED),
    (State.RELAYED, "failed", State.FAILED),
    (State.RELAYED, "displayed", State.DELIVERED),
    (State.RELAYED, "relayed", State.RELAYED),
    (State.RELAYED, "complaint", State.RELAYED),
    (State.DELIVERED, "failed", State.FAILED),
    (State.DELIVERED, "relayed", State.DELIVERED),
    (State.DELIVERED, "deleted", State.DELIVERED),
    (State.FAILED, "delivered", State.FAILED),
    (State.CANCELLED, "failed", State.CANCELLED),
)


@pytest.mark.parametrize(("was", "action", "becomes"), ACTIONS)
def test_what_each_action_changes(
    spool: OpenStore, was: State, action: ReportedAction, becomes: State
) -> None:
    key = sent(spool, "ann@example.org", state=was)
    assert take(spool, report(said(action, "ann@example.org"))) == [True]
    assert states(spool, key) == [becomes]
    check_ledger(spool.reader)
    assert changed(spool) == ([(0, becomes, "ann@example.org")] if becomes is not was else [])


@pytest.mark.parametrize("action", ["failed", "delivered", "displayed", "delayed", "complaint"])
def test_a_report_that_comes_twice_changes_nothing(spool: OpenStore, action: ReportedAction) -> None:
    key = sent(spool, "ann@example.org", state=State.ACCEPTED)
    take(spool, report(said(action, "ann@example.org")))
    before = (record(spool.reader, key), spool.reader.message(key))
    assert take(spool, report(said(action, "ann@example.org"))) == [True]
    assert (changed(spool), spool.store.inbox.news) == ([], [])
    assert (record(spool.reader, key), spool.reader.message(key)) == before


def test_what_changes_no_state_is_an_event_and_a_line_of_history(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org")
    take(spool, report(said("delayed", "ann@example.org")))
    (event,) = spool.store.inbox.news
    assert isinstance(event, RecipientReported)
    assert (event.action, event.reporter, event.index) == ("delayed", "mx.example.net", 0)
    found = spool.reader.message(key)
    assert found is not None
    history = [(each.outcome, each.detail) for each in found.recipients[0].history]
    assert history == [("reported", "delayed")]


def test_the_recipient_is_found_by_each_of_its_names(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org", "bob@example.org")
    take(spool, report(said("failed", "Bob@EXAMPLE.org")))
    assert states(spool, key, 2) == [State.RELAYED, State.FAILED]
    take(spool, report(said("failed", "elsewhere@example.com", original="ann@example.org")))
    assert states(spool, key, 2) == [State.FAILED, State.FAILED]


def test_a_stranger_is_nobody_of_ours(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org", "bob@example.org")
    assert take(spool, report(said("failed", "eve@example.org"))) == [False]
    assert take(spool, report(said("failed", "ann@example.org"), message_id="<other@example.org>")) == [False]
    assert take(spool, report(said("failed", "ann@example.org"), message_id="")) == [False]
    assert states(spool, key, 2) == [State.RELAYED, State.RELAYED]


def test_the_only_recipient_may_have_been_forwarded(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org")
    take(spool, report(said("failed", "ann.private@example.com")))
    assert states(spool, key) == [State.FAILED]


def test_the_other_sides_id_is_enough(spool: OpenStore) -> None:
    key = sent(spool, "+15550100", state=State.ACCEPTED, remote_id="SM1")
    assert take(spool, report(said("delivered", remote_id="SM2"), message_id="")) == [False]
    assert take(spool, report(said("delivered", remote_id="SM1"), message_id="")) == [True]
    found = record(spool.reader, key)
    assert (found.state, found.remote_id) == (State.DELIVERED, "SM1")


def test_an_id_of_several_recipients_needs_a_name_too(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org", "bob@example.org", state=State.ACCEPTED, remote_id="SES1")
    assert take(spool, report(said("delivered", remote_id="SES1"), message_id="")) == [False]
    take(spool, report(said("delivered", "bob@example.org", remote_id="SES1"), message_id=""))
    assert states(spool, key, 2) == [State.ACCEPTED, State.DELIVERED]


def test_an_unknown_id_leaves_the_message_id(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org")
    take(spool, report(said("failed", "ann@example.org", remote_id="never given")))
    assert states(spool, key) == [State.FAILED]


@pytest.mark.parametrize(("outcome", "ends"), [(State.RELAYED, State.FAILED), (State.QUEUED, State.QUEUED)])
def test_a_report_that_comes_before_the_outcome_is_kept(
    spool: OpenStore, outcome: State, ends: State
) -> None:
    new = message(spool.store, spool.clock, "ann@example.org", message_id="<m1@example.org>")
    accept(spool.store, new, own=True)
    assert take(spool, report(said("failed", "ann@example.org"))) == [True]
    inbox = spool.store.inbox
    assert (states(spool, new.key), inbox.has_early_reports()) == ([State.QUEUED], True)
    with transaction(spool.store):
        assert inbox.apply_early_reports(spool.clock.time(), 10) == 0
    settle(spool.store, settlement(new.key, 0, outcome, 1.0, due=2.0 if outcome is State.QUEUED else None))
    with transaction(spool.store):
        assert inbox.apply_early_reports(spool.clock.time(), 10) == 1
    assert changed(spool) == ([(0, ends, "ann@example.org")] if ends is State.FAILED else [])
    assert (states(spool, new.key), inbox.has_early_reports()) == ([ends], False)
    check_ledger(spool.reader)


@pytest.mark.parametrize("last", ["failed", "delivered"])
def test_what_a_report_says_of_a_recipient_in_several_places_counts_in_order(
    spool: OpenStore, last: ReportedAction
) -> None:
    key = sent(spool, "ann@example.org", state=State.ACCEPTED)
    take(spool, report(said("delayed", index=0), said(last, index=0), key=key))
    assert states(spool, key) == [State.FAILED if last == "failed" else State.DELIVERED]
    assert [type(event) for event in spool.store.inbox.news] == [RecipientReported]
    check_ledger(spool.reader)


def test_a_signed_number_is_enough(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org", "bob@example.org")
    take(spool, report(said("failed", index=1), key=key, message_id=""))
    assert states(spool, key, 2) == [State.RELAYED, State.FAILED]
    assert take(spool, report(said("failed", index=7), key=key, message_id="")) == [False]


def test_the_same_message_submitted_twice(spool: OpenStore) -> None:
    first, second = sent(spool, "ann@example.org"), sent(spool, "bob@example.org")
    take(spool, report(said("failed", "ann@example.org")))
    # Each has one recipient only, but one of them goes by the name.
    assert (states(spool, first), states(spool, second)) == ([State.FAILED], [State.RELAYED])


def test_the_senders_own_report_is_made_only_if_he_was_not_told(spool: OpenStore) -> None:
    told, untold = sent(spool, "ann@example.org"), sent(spool, "bob@example.org")
    take(spool, report(said("failed", index=0), key=told, message_id=""))
    take(spool, report(said("failed", index=0), key=untold, message_id="", told=False))
    due = {(f.key, f.kind) for f in spool.reader.followups(spool.clock.time() + 3600, 10)}
    assert due == {(untold, "report")}
    assert record(spool.reader, untold).reported is False


def test_a_message_id_of_our_own_making(spool: OpenStore) -> None:
    new = message(spool.store, spool.clock, "ann@example.org")
    new = new._replace(message_id=f"<{format_id(new.key)}@example.org>")
    accept(spool.store, new, own=True)
    settle(spool.store, settlement(new.key, 0, State.RELAYED, 1.0))
    assert take(spool, report(said("failed"), message_id=f"<{format_id(new.key)}@example.net>")) == [False]
    assert take(spool, report(said("failed"), message_id="<!!!!!!!!!!!!!@example.org>")) == [False]
    assert take(spool, report(said("failed"), message_id=new.message_id)) == [True]


def test_message_ids_are_found_by_an_index(spool: OpenStore) -> None:
    plan = spool.store.connection.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM message WHERE message_id = 'x' AND substr(message_id, 15, 1) <> '@'"
    ).fetchall()
    assert "message_foreign" in str(plan)


def test_a_message_completes_once(spool: OpenStore) -> None:
    key = sent(spool, "ann@example.org", "bob@example.org", state=State.ACCEPTED)
    take(spool, report(said("delivered", "ann@example.org")))
    assert [reported.completed for reported in spool.store.inbox.reported] == [()]
    take(spool, report(said("delivered", "bob@example.org")))
    assert [reported.completed for reported in spool.store.inbox.reported] == [(key,)]
    take(spool, report(said("failed", "bob@example.org")))
    assert [reported.completed for reported in spool.store.inbox.reported] == [()]
    assert states(spool, key, 2) == [State.DELIVERED, State.FAILED]
    check_ledger(spool.reader)


def test_a_report_that_arrives_is_filed_apart_when_it_means_one_of_ours(spool: OpenStore) -> None:
    sent(spool, "ann@example.org")
    ours = spool.new("1", report_folder="Reports", reports=[report(said("failed", "ann@example.org"))])
    other = spool.new(
        "2", report_folder="Reports", reports=[report(said("failed", "x@y.org"), message_id="<n@o>")]
    )
    received = spool.receive(ours, other)
    assert [each.matched for each in received] == [True, False]
    assert [r.folder for r in spool.reader.list_inbound(newest_first=False)] == ["Reports", "Inbox"]
    # The same copy again changes nothing: the ledger stands before the report.
    assert spool.receive(spool.new("1", reports=[report(said("delivered", "ann@example.org"))]))[0].duplicate
