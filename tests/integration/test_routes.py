"""Where a recipient goes in a whole spooler: coupling, other plans, alternatives, order, fairness, expiry."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tenacity import wait_fixed

from postroom import Limits, MemoryTransport, Recipient, RetryPolicy, Settings, Spooler, State, Submission
from postroom.actors.protocol import Committed
from postroom.actors.router import RouterActor
from postroom.delivery import Delivery
from postroom.errors import ConfigurationError
from postroom.outcomes import Accepted, Deferred, Delivered, Failed, Relayed, Reply
from postroom.stores.driver import connect
from postroom.transports.base import Outcomes
from tests.support.spooling import SENDER, actors_rest, deliveries_by_id, message, settled, until

QUICK = Settings(sync_interval=0.05)


def relay(name: str, **options: object) -> MemoryTransport:
    return MemoryTransport(name=name, address_types={"smtp"}, keep=100_000, **options)  # type: ignore[arg-type]


def refuse(_delivery: Delivery) -> Outcomes:
    return Deferred(Reply("busy", "4.3.2"))


def accept(_delivery: Delivery) -> Outcomes:
    return Accepted("remote 1")


def addresses(transport: MemoryTransport) -> list[str]:
    return [str(target.address) for delivery in transport.deliveries for target in delivery.targets]


# Tight coupling


def test_a_tightly_coupled_transport_gets_its_work_straight_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed: list[str] = []
    ordinary = RouterActor.on_letters

    def watched(router: RouterActor, letters: list[object]) -> None:
        routed.extend(name for letter in letters if isinstance(letter, Committed) for name in letter.work)
        ordinary(router, letters)

    monkeypatch.setattr(RouterActor, "on_letters", watched)
    other = MemoryTransport(name="other", address_types={"sms"})
    with Spooler(tmp_path / "spool.db", [relay("coupled", tightly_coupled=True), other]) as spooler:
        receipts = [
            spooler.submit(message(n), sender=SENDER, to=["ann@example.org", "sms:+15550100"])
            for n in range(20)
        ]
        assert all(receipt.wait(10).succeeded for receipt in receipts)
        settled(spooler)
    assert set(routed) == {"other"}


def test_only_one_transport_can_be_tightly_coupled(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a and b are all tightly coupled"):
        Spooler(tmp_path / "spool.db", [relay("a", tightly_coupled=True), relay("b", tightly_coupled=True)])


# Another configuration


def later(tmp_path: Path, transports: Sequence[MemoryTransport]) -> None:
    """Leave messages of every waiting kind in the spool."""
    with Spooler(tmp_path / "spool.db", transports, settings=QUICK) as spooler:
        spooler.submit(message("due"), sender=SENDER, to="ann@example.org", send_at=time.time() + 0.5)
        spooler.submit(message("held"), sender=SENDER, to="ann@example.org", hold=True)
        for name in ("first", "second"):
            spooler.submit(
                message(name),
                sender=SENDER,
                to="ann@example.org",
                send_at=time.time() + 0.5,
                ordering_key="k",
            )


def test_what_waited_for_a_transport_that_is_gone_goes_to_another(tmp_path: Path) -> None:
    later(tmp_path, [relay("former")])
    now = relay("latter")
    with Spooler(tmp_path / "spool.db", [now], settings=QUICK) as spooler:
        until(lambda: len(now.deliveries) == 3, "all that is not held")
        (held,) = spooler.queue(states=[State.HELD])
        assert held.recipient.transport == "latter"
        spooler.release(held.id)
        settled(spooler)
        assert {name: n for (name, _), n in spooler.tally().states.items() if n} == {"latter": 4}


def test_without_another_they_fail_with_a_report(tmp_path: Path) -> None:
    later(tmp_path, [relay("former")])
    postman = MemoryTransport(name="reports", address_types=set(), patterns=[SENDER])
    with Spooler(tmp_path / "spool.db", [postman], settings=QUICK) as spooler:
        settled(spooler)
        states = spooler.tally().states
        assert states["former", State.FAILED] == 4
        until(lambda: len(postman.deliveries) == 4, "a report of each")
    assert all(b"5.1.2" in report.content for report in postman.deliveries)


def test_a_transport_put_first_takes_over_what_waits_but_not_who_it_declined(tmp_path: Path) -> None:
    later(tmp_path, [relay("second")])
    first, second = relay("first"), relay("second")
    with Spooler(tmp_path / "spool.db", [first, second], settings=QUICK) as spooler:
        until(
            lambda: [entry.recipient.transport for entry in spooler.queue(states=[State.HELD])] == ["first"],
            "another plan",
        )
        for entry in spooler.queue(states=[State.HELD]):
            spooler.release(entry.id)
        settled(spooler)
    assert (len(first.deliveries), len(second.deliveries)) == (4, 0)


def test_what_is_kept_in_order_follows_to_another_transport(tmp_path: Path) -> None:
    busy = relay("former", answer=refuse)
    busy.limits = Limits(concurrency=1, strict_order=True)
    with Spooler(tmp_path / "spool.db", [busy], settings=QUICK) as spooler:
        ids = [spooler.submit(message(n), sender=SENDER, to="ann@example.org").id for n in range(5)]
        assert busy.wait_for(1, 10)
    now = relay("latter")
    with Spooler(tmp_path / "spool.db", [now], settings=QUICK) as spooler:
        spooler.flush()
        settled(spooler)
    assert [delivery.message_id for delivery in now.deliveries] == ids


def test_what_another_process_delivers_is_left_to_it(tmp_path: Path) -> None:
    busy = relay("mail", answer=refuse)
    text = MemoryTransport(name="text", address_types={"sms"})
    with Spooler(tmp_path / "spool.db", [busy], settings=QUICK) as mail:
        waiting = mail.submit(message(), sender=SENDER, to="ann@example.org")
        assert busy.wait_for(1, 10)
        with (
            Spooler(tmp_path / "spool.db", [text], settings=QUICK),
            connect(tmp_path / "spool.db") as looking,
        ):
            planned = "SELECT 1 FROM fact WHERE name = 'routes' AND value NOT LIKE '%mail%'"
            until(lambda: looking.execute(planned).fetchone() is not None, "a plan for all that waits")
        looking.close()
        assert mail.status(waiting.id).recipients[0].state is State.QUEUED


def test_without_any_transport_nobody_is_failed(tmp_path: Path) -> None:
    later(tmp_path, [relay("former")])
    with Spooler(tmp_path / "spool.db", [], settings=QUICK) as spooler:
        actors_rest(spooler)
        assert spooler.tally().pending == 4


# Alternatives


def test_mail_then_text_in_one_record_with_one_end(tmp_path: Path) -> None:
    def refuse(delivery: Delivery) -> Outcomes:
        return Failed(Reply("no such user", "5.1.1", 550)) if delivery.sender else Relayed()

    mail = relay("mail", answer=refuse)
    text = MemoryTransport(name="text", address_types={"sms"})
    with Spooler(tmp_path / "spool.db", [mail, text], settings=QUICK) as spooler:
        receipt = spooler.submit(
            message("m"), sender=SENDER, to=[Recipient("ann@example.org", alternatives=["sms:+15550100"])]
        )
        status = receipt.wait(10)
        settled(spooler)
        (recipient,) = status.recipients
        assert (recipient.state, str(recipient.address)) == (State.DELIVERED, "sms:+15550100")
        assert str(recipient.original) == "smtp:ann@example.org"
        assert [(attempt.outcome, attempt.transport) for attempt in recipient.history] == [
            ("failed", "mail"),
            ("delivered", "text"),
        ]
        assert spooler.tally().accepted == {"smtp": 1}
    assert addresses(mail) == ["smtp:ann@example.org"], "nobody is told of a failure that was none"


# Order


def test_messages_with_one_ordering_key_never_overtake_each_other(tmp_path: Path) -> None:
    seen: list[str] = []
    lock = threading.Lock()

    def stumble(delivery: Delivery) -> Outcomes:
        name = delivery.content.split(b"test ")[1].split(b"\r\n")[0].decode()
        with lock:
            seen.append(name)
            again = seen.count(name) == 1
        return Deferred(Reply("busy", "4.3.2")) if again else Delivered()

    policy = RetryPolicy(wait=wait_fixed(0.02))
    transport = relay("a", answer=stumble, limits=Limits(concurrency=8), retry=policy)
    with Spooler(tmp_path / "spool.db", [transport], settings=QUICK) as spooler:
        for n in range(12):
            spooler.submit(
                message(f"{n % 3}-{n}"), sender=SENDER, to="ann@example.org", ordering_key=f"key {n % 3}"
            )
        settled(spooler)
    for key in "012":
        mine = [name for name in seen if name.startswith(f"{key}-")]
        assert mine == sorted(mine, key=lambda name: int(name[2:]))
        assert len(mine) == 8


def test_a_strict_transport_keeps_all_its_messages_in_order(tmp_path: Path) -> None:
    first = threading.Event()

    def refuse_once(_delivery: Delivery) -> Outcomes:
        if not first.is_set():
            first.set()
            return Deferred(Reply("busy", "4.3.2"))
        return Delivered()

    policy = RetryPolicy(wait=wait_fixed(0.3))
    transport = relay("a", answer=refuse_once, limits=Limits(concurrency=1, strict_order=True), retry=policy)
    with Spooler(tmp_path / "spool.db", [transport], settings=QUICK) as spooler:
        receipts = [spooler.submit(message(n), sender=SENDER, to="ann@example.org") for n in range(6)]
        settled(spooler)
    delivered = [delivery.message_id for delivery in transport.deliveries]
    assert delivered == [receipts[0].id, *(receipt.id for receipt in receipts)]


# Fairness


def test_a_backlog_in_the_spool_does_not_stand_before_another_tenant(tmp_path: Path) -> None:
    gate = threading.Event()

    def wait(_delivery: Delivery) -> Outcomes:
        gate.wait(30)
        return Delivered()

    transport = relay("a", answer=wait, limits=Limits(concurrency=2, window=40))
    with Spooler(tmp_path / "spool.db", [transport], settings=QUICK) as spooler:
        for n in range(1000):
            spooler.submit_nowait(
                Submission(message=message(n), sender=SENDER, to="ann@example.org", tenant="big")
            )
        single = spooler.submit(message("single"), sender=SENDER, to="ann@example.org", tenant="small")
        gate.set()
        settled(spooler)
    order = [delivery.message_id for delivery in transport.deliveries]
    assert order.index(single.id) < 100
    assert max(deliveries_by_id(transport).values()) == 1


# Expiry


def test_expiry_reaches_what_waits_for_a_remote_report_but_not_what_is_held(tmp_path: Path) -> None:
    transport = relay("a", answer=accept)
    with Spooler(tmp_path / "spool.db", [transport], settings=QUICK, reports=None) as spooler:
        expires = time.time() + 0.4
        silent = spooler.submit(message("s"), sender=SENDER, to="ann@example.org", expires_at=expires)
        held = spooler.submit(
            message("h"), sender=SENDER, to="ann@example.org", expires_at=expires, hold=True
        )
        (recipient,) = silent.wait(10).recipients
        assert recipient.state is State.EXPIRED
        assert recipient.reply is not None
        assert "no report came" in recipient.reply.text
        assert spooler.status(held.id).recipients[0].state is State.HELD
        spooler.release(held.id)
        assert held.wait(10).recipients[0].state is State.EXPIRED
        settled(spooler)
