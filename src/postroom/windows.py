"""Delivery windows: the weekdays and hours at which something may be sent, in some place's local time.

The text form is that of opening hours: "Mo-Fr 09:00-17:00 Europe/Berlin". Parts are separated by ";" or ","; a list
of days or of hours belongs together ("Mo,We 09:00-12:00,13:00-17:00"). Hours without days hold every day, days without
hours the whole day. "22:00-06:00" begins on the day that is named and ends on the next. "24:00" is the end of a day.
The zone, a name of the IANA time zone database, stands at the end; without one it is UTC.

What the clock on the wall shows decides. So a day on which summer time begins or ends has its hour less or more, and an
hour that the wall clock shows twice counts twice.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from postroom.errors import UsageError

__all__ = ["DeliveryWindow", "parse_window"]

DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
MINUTE = 60
DAY = 24 * 60 * MINUTE
WEEK = 7 * DAY

EPOCH_WEEKDAY = 3 * DAY
"""Into the week at which the Unix epoch began, a Thursday."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<separator>[,;])
    | (?P<begin>[0-9]{1,2}:[0-9]{2})\s*-\s*(?P<end>[0-9]{1,2}:[0-9]{2})
    | (?P<first>[A-Za-z]+)\s*-\s*(?P<last>[A-Za-z]+)(?=[\s,;]|$)
    | (?P<name>[A-Za-z][A-Za-z0-9_+/-]*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class DeliveryWindow:
    """When something may be sent. Thread-safe; equal windows say the same in the same zone.

    Attributes:
        spans: (begin, end) in seconds of the week from Monday 00:00 local time; sorted, apart, at least one.
        zone: the name of the time zone.

    Raises:
        UsageError: the zone is not known, or there is no span.
    """

    spans: tuple[tuple[int, int], ...]
    zone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _begins: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", tuple(_merged(self.spans)))
        if not self.spans:
            raise UsageError("window", "it is never open", "name days and hours, as in 'Mo-Fr 09:00-17:00'")
        object.__setattr__(self, "_zone", _zone(self.zone))
        object.__setattr__(self, "_begins", tuple(begin for begin, _ in self.spans))

    def contains(self, at: float) -> bool:
        """Return whether the window is open at ``at``, in wall-clock seconds."""
        return self._holds(_into_week(at, self._offset(at)))

    def next_open(self, at: float) -> float:
        """Return ``at`` if the window is open then, else when it opens next; wall-clock seconds."""
        return at if self.contains(at) else self._next(at, opening=True)

    def next_close(self, at: float) -> float:
        """Return ``at`` if the window is closed then, else when it closes next; infinity when it never does."""
        if self.spans == ((0, WEEK),):
            return float("inf")
        return self._next(at, opening=False) if self.contains(at) else at

    def _holds(self, into_week: float) -> bool:
        position = bisect_right(self._begins, into_week) - 1
        return position >= 0 and into_week < self.spans[position][1]

    def _offset(self, at: float) -> int:
        """Return how much the wall clock is ahead of UTC, in seconds."""
        offset = datetime.fromtimestamp(at, self._zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    def _next(self, at: float, *, opening: bool) -> float:
        """Return the next moment at which the window opens, or closes.

        Between two changes of the offset the week is plain arithmetic; at such a change the wall clock jumps, perhaps
        into the window or out of it.
        """
        while True:
            offset = self._offset(at)
            change = self._next_change(at, offset)
            moment = round(at + self._until(_into_week(at, offset), opening=opening))
            if change is None or moment < change:
                return float(moment)
            at = float(change)
            if self.contains(at) is opening:
                return at

    def _until(self, into_week: float, *, opening: bool) -> float:
        edges = [begin % WEEK if opening else end % WEEK for begin, end in self.spans]
        if self.spans[0][0] == 0 and self.spans[-1][1] == WEEK:
            # One span goes on over the end of the week: that is no edge.
            edges = [edge for edge in edges if edge != 0]
        return min((edge - into_week) % WEEK or WEEK for edge in edges) if edges else WEEK

    def _next_change(self, at: float, offset: int) -> int | None:
        """Return when the offset changes within the next 8 days, in whole wall-clock seconds."""
        low = int(at // 1)
        for _ in range(8):
            high = low + DAY
            if self._offset(high) != offset:
                while high - low > 1:
                    middle = (low + high) // 2
                    if self._offset(middle) == offset:
                        low = middle
                    else:
                        high = middle
                return high
            low = high
        return None

    def __str__(self) -> str:
        hours: list[list[str]] = [[] for _ in DAYS]
        for begin, end in _by_day(self.spans):
            hours[begin // DAY % 7].append(f"{_clock(begin % DAY)}-{_clock(end - begin // DAY * DAY)}")
        parts: list[str] = []
        day = 0
        while day < len(DAYS):
            last = day
            while last + 1 < len(DAYS) and hours[last + 1] == hours[day]:
                last += 1
            if hours[day]:
                days = DAYS[day] if last == day else f"{DAYS[day]}-{DAYS[last]}"
                parts.append(f"{days} {','.join(sorted(hours[day]))}")
            day = last + 1
        return f"{'; '.join(parts)} {self.zone}"


@lru_cache(maxsize=1024)
def parse_window(text: str) -> DeliveryWindow:
    """Return the delivery window that ``text`` describes; see the module's docstring.

    Raises:
        UsageError: it cannot be understood, or its time zone is not known.
    """
    spans: list[tuple[int, int]] = []
    days: list[int] = []
    hours: list[tuple[int, int]] = []
    zone = ""
    position = 0
    text = text.rstrip()
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or zone:
            raise _unclear(text, f"{text[position:].strip()!r} is not understood")
        position = token.end()
        first, last, name = token["first"], token["last"], token["name"]
        if token["begin"]:
            hours.append(_hours(text, token["begin"], token["end"]))
        elif token["separator"] == ";" or (hours and _is_day(first or name)):
            spans += _spans(days, hours)
            days, hours = [], []
        if name and not _is_day(name):
            zone = name
        elif first or name:
            days += _days(text, first or name, last or first or name)
    spans += _spans(days, hours)
    if not spans:
        raise _unclear(text, "there are neither days nor hours")
    return DeliveryWindow(tuple(spans), zone or "UTC")


def _unclear(text: str, problem: str) -> UsageError:
    return UsageError(
        "window", f"{problem} in {text!r}", "write it like 'Mo-Fr 09:00-17:00; Sa 10:00-12:00 Europe/Berlin'"
    )


def _is_day(name: str | None) -> bool:
    return name is not None and len(name) in {2, 3} and name[:2].title() in DAYS


def _days(text: str, first: str, last: str) -> list[int]:
    for name in (first, last):
        if not _is_day(name):
            raise _unclear(text, f"{name!r} is no weekday")
    begin, end = DAYS.index(first[:2].title()), DAYS.index(last[:2].title())
    return [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)]


def _hours(text: str, begin: str, end: str) -> tuple[int, int]:
    """Return seconds into the day; the end is behind the begin, on the next day if need be."""
    seconds: list[int] = []
    for clock in (begin, end):
        hour, minute = map(int, clock.split(":"))
        if minute >= 60 or hour * 60 + minute > 24 * 60:
            raise _unclear(text, f"{clock} is no time of day")
        seconds.append((hour * 60 + minute) * MINUTE)
    if seconds[0] == DAY or seconds[0] == seconds[1]:
        raise _unclear(text, f"{begin}-{end} is empty (the whole day is 00:00-24:00)")
    return seconds[0], seconds[1] if seconds[1] > seconds[0] else seconds[1] + DAY


def _spans(days: list[int], hours: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the spans of one part; a part without anything has none."""
    if not days and not hours:
        return
    for day in days or range(7):
        for begin, end in hours or [(0, DAY)]:
            yield day * DAY + begin, day * DAY + end


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield them within one week, sorted, and joined where they touch."""
    pieces: list[tuple[int, int]] = []
    for begin, end in spans:
        pieces.append((begin, min(end, WEEK)))
        if end > WEEK:
            pieces.append((0, end - WEEK))
    current: tuple[int, int] | None = None
    for begin, end in sorted(pieces):
        if current is not None and begin <= current[1]:
            current = current[0], max(current[1], end)
            continue
        if current is not None:
            yield current
        current = begin, end
    if current is not None:
        yield current


def _by_day(spans: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Yield what people would write: cut at midnight, unless it is one night."""
    whole = list(spans)
    if len(whole) > 1 and whole[0][0] == 0 and whole[-1][1] == WEEK:
        whole[-1] = whole[-1][0], WEEK + whole.pop(0)[1]
    for begin, end in whole:
        if end - begin < DAY:
            yield begin, end - DAY if end - begin // DAY * DAY > DAY else end
            continue
        while begin < end:
            midnight = (begin // DAY + 1) * DAY
            yield begin, min(midnight, end)
            begin = midnight  # noqa: PLW2901 - it walks through the span


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // MINUTE % 60:02}"


def _into_week(at: float, offset: int) -> float:
    return (at + (offset + EPOCH_WEEKDAY)) % WEEK


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        zone = ZoneInfo(name)
        zone.utcoffset(datetime.now(UTC).replace(tzinfo=None))
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(
            "window",
            f"the time zone {name!r} is not known here",
            "name one like 'Europe/Berlin' or 'UTC'; systems without time zones need the package tzdata",
        ) from error
    return zone
