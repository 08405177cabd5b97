from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import UsageError
from postroom.windows import DeliveryWindow, parse_window

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
]


def at(text: str, zone: str = "UTC", *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Mo-Fr 09:00-17:00 Europe/Berlin", "Mo-Fr 09:00-17:00 Europe/Berlin"),
        ("mon-fri 9:00 - 17:00", "Mo-Fr 09:00-17:00 UTC"),
        ("09:00-17:00", "Mo-Su 09:00-17:00 UTC"),
        ("Sa, Su", "Sa-Su 00:00-24:00 UTC"),
        ("Mo,We 09:00-12:00,13:00-17:00", "Mo 09:00-12:00,13:00-17:00; We 09:00-12:00,13:00-17:00 UTC"),
        ("Mo-Fr 09:00-17:00, Sa 10:00-12:00", "Mo-Fr 09:00-17:00; Sa 10:00-12:00 UTC"),
        ("Mo-Fr 09:00-17:00; Sa 10:00-12:00", "Mo-Fr 09:00-17:00; Sa 10:00-12:00 UTC"),
        ("Fr-Mo 22:00-06:00", "Mo 22:00-06:00; Fr-Su 22:00-06:00 UTC"),
        ("Sa-Su 22:00-06:00", "Sa-Su 22:00-06:00 UTC"),
        ("Mo 20:00-24:00", "Mo 20:00-24:00 UTC"),
        ("Mo-Su 00:00-24:00", "Mo-Su 00:00-24:00 UTC"),
        ("Mo 09:00-24:00; Tu 00:00-17:00", "Mo 09:00-24:00; Tu 00:00-17:00 UTC"),
        ("Mo 09:00-11:00; Mo 10:00-12:00", "Mo 09:00-12:00 UTC"),
        ("Mo 09:00-10:00 Etc/GMT+5", "Mo 09:00-10:00 Etc/GMT+5"),
    ],
)
def test_what_is_written_is_understood(text: str, canonical: str) -> None:
    assert str(parse_window(text)) == canonical
    assert parse_window(canonical) == parse_window(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "neither days nor hours"),
        ("Europe/Berlin", "neither days nor hours"),
        ("Mo-Fr 09:00-17:00 Europe/Nowhere", "'Europe/Nowhere' is not known"),
        ("Mo-Fr 09:00-17:00 Europe", "'Europe' is not known"),
        ("Mo-Xy 09:00-17:00", "'Xy' is no weekday"),
        ("Mo 09:00-25:00", "25:00 is no time of day"),
        ("Mo 09:60-10:00", "09:60 is no time of day"),
        ("Mo 09:00-09:00", "is empty"),
        ("Mo 24:00-06:00", "is empty"),
        ("Mo 9-17", "'9-17' is not understood"),
        ("Mo 09:00-17:00 UTC Tu", "'Tu' is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_with_words(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match="window: ") as caught:
        parse_window(text)
    assert problem in str(caught.value)


def test_a_window_must_open() -> None:
    with pytest.raises(UsageError, match="never open"):
        DeliveryWindow(())


def test_office_hours_in_berlin() -> None:
    window = parse_window("Mo-Fr 09:00-17:00 Europe/Berlin")
    friday = at("2026-03-27T16:59:59", "Europe/Berlin")
    assert window.contains(friday)
    assert window.next_open(friday) == friday
    assert window.next_close(friday) == friday + 1
    assert not window.contains(friday + 1)
    # Summer time begins on the Sunday between.
    assert window.next_open(friday + 1) == at("2026-03-30T09:00", "Europe/Berlin") == at("2026-03-30T07:00")


def test_a_window_that_never_closes() -> None:
    assert parse_window("Mo-Su").next_close(5.0) == float("inf")


def test_when_the_wall_clock_skips_the_opening() -> None:
    window = parse_window("02:30-03:30 Europe/Berlin")
    # 02:00 to 03:00 does not exist; at 03:00 the wall clock is in the midst of the window.
    assert window.next_open(at("2026-03-29T00:15")) == at("2026-03-29T01:00")
    assert window.next_close(at("2026-03-29T01:00")) == at("2026-03-29T01:30")
    # A window that does not exist on that day opens on the next.
    skipped = parse_window("02:15-02:45 Europe/Berlin")
    assert skipped.next_open(at("2026-03-29T00:15")) == at("2026-03-30T02:15", "Europe/Berlin")


def test_an_hour_that_comes_twice_counts_twice() -> None:
    window = parse_window("02:15-02:30 Europe/Berlin")
    first = window.next_open(at("2026-10-25T01:00", "Europe/Berlin"))
    assert first == at("2026-10-25T02:15", "Europe/Berlin")
    closed = window.next_close(first)
    assert closed == first + 900
    assert window.next_open(closed) == at("2026-10-25T02:15", "Europe/Berlin", fold=1) == first + 3600
    # And the clock that is set back leads into a window that had closed.
    again = parse_window("01:30-02:30 Europe/Berlin")
    assert again.next_open(at("2026-10-25T00:45")) == at("2026-10-25T01:00")


days = st.integers(0, 6)
minutes = st.integers(0, 24 * 60 - 1)
moments = st.integers(int(at("1990-01-01")), int(at("2035-01-01"))).map(float) | st.floats(6e8, 2.05e9)


@st.composite
def windows(draw: st.DrawFn) -> DeliveryWindow:
    spans = draw(st.lists(st.tuples(days, minutes, st.integers(1, 24 * 60)), min_size=1, max_size=4))
    return DeliveryWindow(
        tuple(
            (day * 86400 + begin * 60, day * 86400 + begin * 60 + length * 60) for day, begin, length in spans
        ),
        draw(st.sampled_from(ZONES)),
    )


@given(windows())
def test_text_round_trip(window: DeliveryWindow) -> None:
    assert parse_window(str(window)) == window
    assert str(parse_window(str(window))) == str(window)


def shows(window: DeliveryWindow, moment: float) -> bool:
    """What the wall clock says, worked out in another way."""
    local = datetime.fromtimestamp(moment, ZoneInfo(window.zone))
    seconds = local.weekday() * 86400 + local.hour * 3600 + local.minute * 60 + local.second
    return any(begin <= seconds < end for begin, end in window.spans)


@given(windows(), moments)
def test_it_is_open_when_the_wall_clock_says_so(window: DeliveryWindow, moment: float) -> None:
    assert window.contains(moment) == shows(window, moment)


def between(begin: float, end: float) -> st.SearchStrategy[float]:
    return st.floats(begin, max(begin, end - 1e-3))


@given(windows(), moments, st.data())
def test_it_opens_then_and_not_before(window: DeliveryWindow, moment: float, data: st.DataObject) -> None:
    opens = window.next_open(moment)
    assert opens >= moment
    assert window.contains(opens)
    assert opens - moment <= timedelta(days=14, hours=2).total_seconds()
    if opens > moment:
        assert not window.contains(moment)
        assert not window.contains(max(moment, opens - 1e-3))
        assert not window.contains(data.draw(between(moment, opens)))


@given(windows(), moments, st.data())
def test_it_stays_open_until_then(window: DeliveryWindow, moment: float, data: st.DataObject) -> None:
    opens = window.next_open(moment)
    closes = window.next_close(opens)
    assert closes > opens
    if closes != float("inf"):
        assert not window.contains(closes)
        assert window.contains(data.draw(between(opens, closes)))


def test_text_is_parsed_once() -> None:
    assert parse_window("Mo 10:00-11:00") is parse_window("Mo 10:00-11:00")
    assert datetime.fromtimestamp(parse_window("Mo 10:00-11:00").next_open(0.0), UTC).weekday() == 0
