import logging

import pytest

from postroom.pauses import Pause, pauses_of
from postroom.selections import Selection
from postroom.stores.base import Order

NOW = 1_700_000_000.0


def order(number: int, action: str = "pause", *, expires: float | None = None, **selection: object) -> Order:
    chosen = Selection(**selection)  # type: ignore[arg-type] # by test
    return Order(
        number, action, chosen.to_json(), operator="ann", reason="maintenance", created=NOW, expires=expires
    )


def test_pauses_are_picked_from_the_standing_orders() -> None:
    orders = [
        order(1, everything=True, expires=NOW + 5),
        order(2, "hold", destination="example.org"),
        order(3, transport="smtp"),
        order(4, transport="sms"),
        order(5, destination="*.Example.org"),
        order(6, transport="SMTP", destination="example.net"),
    ]
    assert pauses_of(orders, "smtp") == (
        Pause("paused by standing order 1 of ann: maintenance", None, NOW + 5, everywhere=True),
        Pause("paused by standing order 3 of ann: maintenance"),
        Pause("paused by standing order 5 of ann: maintenance", "*.example.org"),
        Pause("paused by standing order 6 of ann: maintenance", "example.net"),
    )


def test_one_that_says_more_than_a_pause_can_mean_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert pauses_of([order(7, sender="bob@example.org")], "smtp") == ()
    assert "standing order 7 is no pause" in caplog.text


def test_an_order_without_words() -> None:
    plain = Order(8, "pause", Selection(everything=True).to_json())
    assert [pause.rule for pause in pauses_of([plain], "smtp")] == ["paused by standing order 8"]


def test_whom_a_pause_concerns() -> None:
    whole, some = Pause("a", None, NOW), Pause("b", "*.org")
    assert whole.holds(None, NOW - 1)
    assert whole.holds("example.org", NOW - 1)
    assert not whole.holds(None, NOW)
    assert not some.holds(None, NOW)
    assert some.holds("example.org", NOW)
    assert not some.holds("example.net", NOW)
