"""What the readers of providers' webhooks share: refusals, JSON that may be anything, times."""

import hmac
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

from postroom.errors import ConfigurationError, PostroomError
from postroom.inbound.fields import printable
from postroom.outcomes import MAX_REPLY_TEXT

__all__ = [
    "LEDGER_SECONDS",
    "MAX_REPORTS",
    "Malformed",
    "Provider",
    "Unauthorized",
    "Unavailable",
    "bracketed",
    "check_age",
    "json_value",
    "moment",
    "number",
    "record",
    "records",
    "same",
    "secret_octets",
    "text",
    "texts",
]

MAX_REPORTS: Final = 5_000
"""Reports that one request may hold."""

LEDGER_SECONDS: Final = 7 * 86400.0
"""How long a posted message is remembered, so that posting it again does not bring it in twice."""

AHEAD: Final = 300.0
"""Seconds that the other side's clock may be ahead of ours."""

T_co = TypeVar("T_co", covariant=True)
Json = Mapping[str, Any]


class Unauthorized(PostroomError):
    """A request that is not from whom it should be, was altered, or is too old. The answer is 401."""


class Malformed(PostroomError):
    """A request that is authentic, and makes no sense. The answer is 400."""


class Unavailable(PostroomError):
    """Something that is needed to judge a request cannot be had now. The answer is 503."""


class Provider(ABC, Generic[T_co]):
    """Reads what a provider posts: reports, or messages. Thread-safe.

    Attributes:
        content_types: those of the requests; others are answered with 415. Empty for any.
        challenge: the value of WWW-Authenticate where a request is refused (RFC 9110 section 11.6.1).
    """

    content_types: ClassVar[Collection[str]] = frozenset({"application/json"})
    challenge: ClassVar[str] = "Signature"

    @abstractmethod
    def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[T_co]:
        """Return what a request says, () for what is of no interest.

        Args:
            headers: of the request, by their names in lower case.
            body: as it came.

        Raises:
            Unauthorized: it is not authentic.
            Malformed: it cannot be read.
            Unavailable: that cannot be told now.
        """


Clock = Callable[[], float]
wall_clock: Clock = time.time


def secret_octets(secret: str | bytes, *, field: str) -> bytes:
    """Return a secret as octets.

    Raises:
        ConfigurationError: it is empty.
    """
    octets = secret.encode() if isinstance(secret, str) else secret
    if not octets.strip():
        raise ConfigurationError(field, "it is empty", "give it as the provider shows it")
    return octets


def same(one: str | bytes, other: str | bytes) -> bool:
    """Compare what was given with what is right, without telling by the time where they differ."""
    left, right = (
        each.encode("utf-8", "replace") if isinstance(each, str) else each for each in (one, other)
    )
    return hmac.compare_digest(left, right)


def check_age(stamp: str | float, now: float, tolerance: float) -> None:
    """Refuse what was signed too long ago.

    Args:
        stamp: when, in seconds since the epoch.
        now: likewise.
        tolerance: seconds.

    Raises:
        Unauthorized: it is older than that, from the future, or no number.
    """
    try:
        age = now - float(stamp)
    except ValueError:
        raise Unauthorized("the timestamp is none") from None
    # Also false for what is not a number.
    if not -AHEAD <= age <= tolerance:
        raise Unauthorized(f"the timestamp is {age:.0f} s from now")


def json_value(body: bytes | str) -> Any:
    """Return what a body says in JSON.

    Raises:
        Malformed: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None


def record(value: object, *path: str) -> Json:
    """Return the object at a path, an empty one if there is none."""
    for step in path:
        value = cast("Json", value).get(step) if isinstance(value, dict) else None
    return cast("Json", value) if isinstance(value, dict) else {}


def records(value: object, *path: str) -> list[Json]:
    """Return the objects in the array at a path, as many as may be in a request.

    Raises:
        Malformed: there are more.
    """
    *parents, last = path or ("",)
    found = record(value, *parents).get(last) if path else value
    if not isinstance(found, list):
        return []
    items = cast("list[object]", found)
    if len(items) > MAX_REPORTS:
        raise Malformed(f"more than {MAX_REPORTS} entries")
    return [cast("Json", item) for item in items if isinstance(item, dict)]


def text(value: object, *path: str) -> str:
    """Return the text or number at a path, printable, at most as long as a reply on the record; "" without one."""
    *parents, last = path
    found = record(value, *parents).get(last)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    return printable(str(found), MAX_REPLY_TEXT)


def texts(value: object, *path: str) -> list[str]:
    """Return the texts in the array at a path, each as :func:`text` has it.

    Raises:
        Malformed: there are more than may be in a request.
    """
    *parents, last = path
    found = record(value, *parents).get(last)
    if not isinstance(found, list):
        return []
    items = cast("list[object]", found)
    if len(items) > MAX_REPORTS:
        raise Malformed(f"more than {MAX_REPORTS} entries")
    return [printable(item, MAX_REPLY_TEXT) for item in items if isinstance(item, str)]


def number(value: object, *path: str) -> float | None:
    """Return the number at a path that is a time, None without one."""
    *parents, last = path
    found = record(value, *parents).get(last)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e11:
        return None
    return float(found)


def moment(said: str) -> float | None:
    """Return the wall-clock seconds of an ISO 8601 date and time, in UTC unless it says otherwise; None for none."""
    try:
        parsed = datetime.fromisoformat(said)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def bracketed(message_id: str) -> str:
    """Return a Message-ID with its angle brackets, "" for what is none."""
    bare = message_id.strip().removeprefix("<").removesuffix(">")
    return f"<{bare}>" if bare and not any(char in "<>" or char.isspace() for char in bare) else ""
