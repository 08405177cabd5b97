"""Standing orders: what they mean for what arrives and for a transport, in the order in which they were given."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.errors import UsageError
from postroom.options import RecipientOptions
from postroom.orders import Orders, make_order
from postroom.recipients import State
from postroom.redirecting import new_address, redirected, same_place
from postroom.selections import Selection
from postroom.stores.base import NewRecipient, Order

NOW = 1000.0
ANN, BOB, EVE = (Address("smtp", f"{name}@example.com") for name in ("ann", "bob", "eve"))


def plan(address: Address) -> tuple[str, ...]:
    return {"smtp": ("preprocess", "smtp", "backup"), "sms": ("sms",)}.get(address.type, ())


def order(
    action: str, number: int = 1, *, argument: str = "", expires: float | None = None, **said: Any
) -> Order:
    selection = Selection(**said) if said else Selection(everything=True)
    return replace(
        make_order(
            action, selection, now=NOW, argument=argument, expires=expires, operator="joe", reason="why"
        ),
        id=number,
    )


def judge(
    orders: Sequence[Order], *addresses: Address, now: float = NOW, sender: str = "app@example.org"
) -> list[NewRecipient]:
    recipients = [NewRecipient(address, plan(address)[0]) for address in addresses]
    return list(Orders(orders).judge(recipients, sender=sender, tenant="t", subject="s", now=now, plan=plan))


# Giving them


@pytest.mark.parametrize(
    ("action", "selection", "more", "field"),
    [
        ("explode", Selection(everything=True), {}, "action"),
        ("release", Selection(everything=True), {}, "action"),
        ("hold", Selection(older_than=5), {}, "older_than"),
        ("hold", Selection(states=(State.QUEUED,)), {}, "states"),
        ("fail", Selection(error="4.*"), {}, "error"),
        ("pause", Selection(sender="x@example.org"), {}, "sender"),
        ("reroute", Selection(everything=True), {}, "argument"),
        ("redirect", Selection(everything=True), {}, "argument"),
        ("redirect", Selection(everything=True), {"argument": "not an address"}, "argument"),
        ("redirect", Selection(everything=True), {"argument": "*@not a domain"}, "argument"),
        ("hold", Selection(everything=True), {"argument": "x"}, "argument"),
        ("hold", Selection(everything=True), {"expires": NOW}, "expires"),
        ("hold", Selection(everything=True), {"expires": "tomorrow"}, "expires"),
        ("hold", Selection(everything=True), {"expires": datetime(2030, 1, 1)}, "expires"),  # noqa: DTZ001 - that is it
    ],
)
def test_orders_that_make_no_sense_are_refused(
    action: str, selection: Selection, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError) as raised:
        make_order(action, selection, now=NOW, **more)
    assert raised.value.field == field


def test_expiry_is_a_time_or_a_time_from_now() -> None:
    everything = Selection(everything=True)
    assert make_order("hold", everything, now=NOW, expires=timedelta(hours=2)).expires == NOW + 7200
    assert make_order("hold", everything, now=NOW, expires=datetime.fromtimestamp(5000, UTC)).expires == 5000
    assert make_order("hold", everything, now=NOW).expires is None


# What arrives


def test_without_orders_nothing_is_asked() -> None:
    assert not Orders()
    assert not Orders([order("pause")])
    assert Orders([order("hold")])


def test_what_orders_do_to_what_arrives() -> None:
    (held,) = judge([order("hold")], ANN)
    assert held.state is State.HELD
    assert str(held.reply) == "held by standing order 1 of joe: why"
    (failed,) = judge([order("fail", argument="we do not write there")], ANN)
    assert (failed.state, failed.ended, str(failed.reply)) == (
        State.FAILED,
        "failed",
        "5.7.1 we do not write there",
    )
    (refused,) = judge([order("fail")], ANN)
    assert "refused by standing order 1" in str(refused.reply)
    (cancelled,) = judge([order("cancel")], ANN)
    assert (cancelled.state, cancelled.ended) == (State.CANCELLED, "cancelled")
    (rerouted,) = judge([order("reroute", argument="backup")], ANN)
    assert rerouted == NewRecipient(ANN, "backup")
    (redirected_,) = judge([order("redirect", argument="sms:+15550100")], ANN)
    assert redirected_ == NewRecipient(Address("sms", "+15550100"), "sms", RecipientOptions(original=ANN))


def test_what_is_redirected_where_nobody_delivers_is_held() -> None:
    (kept,) = judge([order("redirect", argument="fax:+15550100")], ANN)
    assert (kept.address, kept.state) == (ANN, State.HELD)
    assert "no transport reaches fax:+15550100" in str(kept.reply)


def test_only_what_is_meant_is_caught() -> None:
    given_ = judge([order("hold", address="bob@example.com")], ANN, BOB)
    assert [recipient.state for recipient in given_] == [None, State.HELD]
    assert judge([order("hold", sender="<>")], ANN)[0].state is None
    assert judge([order("hold", sender="<>")], ANN, sender="")[0].state is State.HELD


def test_the_transport_is_the_first_that_delivers_not_preprocessing() -> None:
    assert judge([order("hold", transport="smtp")], ANN)[0].state is State.HELD
    assert judge([order("hold", transport="backup")], ANN)[0].state is None


def test_the_first_given_wins_whatever_the_order_in_which_they_are_read() -> None:
    first, second = order("fail", 3, destination="example.com"), order("hold", 8)
    for orders in ([first, second], [second, first]):
        assert judge(orders, ANN)[0].state is State.FAILED
    assert judge([first, second], Address("smtp", "x@example.org"))[0].state is State.HELD


def test_an_expired_order_is_none() -> None:
    orders = [order("fail", 1, expires=NOW + 10), order("hold", 2)]
    assert judge(orders, ANN, now=NOW + 9)[0].state is State.FAILED
    assert judge(orders, ANN, now=NOW + 10)[0].state is State.HELD


def test_nobody_gets_two_copies_by_being_redirected() -> None:
    to_eve = [order("redirect", argument="eve@example.com")]
    ann, bob = judge(to_eve, ANN, BOB)
    assert (ann.address, ann.state) == (EVE, None)
    assert (bob.address, bob.state, bob.ended) == (BOB, State.CANCELLED, "cancelled")
    eve, ann = judge(to_eve, EVE, ANN)
    assert eve == NewRecipient(EVE, "preprocess")
    assert ann.state is State.CANCELLED


@given(
    st.lists(st.sampled_from(["hold", "fail", "cancel", "reroute", "redirect", "pause"]), max_size=4),
    st.data(),
)
def test_every_recipient_comes_out_once_and_in_its_place(actions: list[str], data: st.DataObject) -> None:
    arguments = {"reroute": "backup", "redirect": "*@example.net"}
    domains = st.sampled_from(["example.com", "example.org", "*"])
    orders = [
        order(action, number, argument=arguments.get(action, ""), destination=data.draw(domains))
        for number, action in enumerate(actions, 1)
    ]
    pool = [ANN, BOB, EVE, Address("smtp", "x@example.org"), Address("smtp", "ann@example.net")]
    addresses = data.draw(st.lists(st.sampled_from(pool), unique=True, min_size=1))
    judged = judge(orders, *addresses)
    assert len(judged) == len(addresses)
    live = [recipient.address for recipient in judged if recipient.state is not State.CANCELLED]
    assert len(live) == len(set(live))
    for before, after in zip(addresses, judged, strict=True):
        assert after.address == before or after.options == RecipientOptions(original=before)
        assert (after.ended != "") == (after.state is not None and after.state.is_final)
    if not any(action != "pause" for action in actions):
        assert judged == [NewRecipient(address, "preprocess") for address in addresses]


# Redirecting


def test_a_whole_domain_keeps_what_stands_before_the_at() -> None:
    assert new_address("*@EXAMPLE.net", Address("smtp", '"a b"@example.com')) == Address(
        "smtp", '"a b"@example.net'
    )
    assert new_address("smtp:*@example.net", ANN) == Address("smtp", "ann@example.net")
    with pytest.raises(UsageError, match="keeps the part before the @"):
        new_address("*@example.net", Address("sms", "+15550100"))


def test_where_it_goes_already() -> None:
    assert same_place("ann@example.com", ANN)
    assert same_place("*@example.com", ANN)
    assert not same_place("bob@example.com", ANN)
    assert same_place("*@example.net", Address("sms", "+15550100"))


def test_the_first_address_stays_on_the_record() -> None:
    once = redirected(RecipientOptions(orcpt="rfc822;ann@example.com"), ANN)
    assert once == RecipientOptions(orcpt="rfc822;ann@example.com", original=ANN)
    assert redirected(once, BOB) == once
