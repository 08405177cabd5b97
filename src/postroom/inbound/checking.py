"""What receivers and hosts hand over is checked before anybody else sees it: callers may be untyped."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from postroom.errors import UsageError
from postroom.inbound.values import Arrival, LedgerKey, RemoteReport, ReportedRecipient

__all__ = ["check_arrivals", "check_progress", "check_reports"]

_TEXTS = ("remote", "folder")


def check_arrivals(arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
    """Return messages that a receiver hands over if they can be stored.

    Raises:
        UsageError: naming the message and the field.
    """
    for number, arrival in enumerate(_listed("arrivals", arrivals)):
        field = f"arrivals[{number}]"
        if not isinstance(arrival, Arrival):
            raise _wrong(field, arrival, "an Arrival")
        if not isinstance(arrival.content, bytes) or not arrival.content:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _wrong(f"{field}.content", arrival.content, "a message's octets, at least one")
        for name in _TEXTS:
            _check(f"{field}.{name}", getattr(arrival, name), str, 'a text, "" for none')
        if arrival.sender is not None:
            _check(f"{field}.sender", arrival.sender, str, "a text, or None")
        if arrival.received is not None:
            _check(
                f"{field}.received", arrival.received, (int, float), "seconds since the Unix epoch, or None"
            )
        _check(f"{field}.seen", arrival.seen, bool, "True or False")
        for recipient in _tuple(f"{field}.recipients", arrival.recipients):
            _check(f"{field}.recipients", recipient, str, "a tuple of texts")
        for key in _tuple(f"{field}.keys", arrival.keys):
            _check_key(f"{field}.keys", key)
    return arrivals


def _check_key(field: str, key: Any) -> None:
    _check(field, key, LedgerKey, "a tuple of LedgerKey")
    for name in ("source", "uid"):
        _check(f"{field}.{name}", getattr(key, name), str, "a text")
    if key.expires is not None:
        _check(f"{field}.expires", key.expires, (int, float), "seconds since the Unix epoch, or None")


def check_progress(progress: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return what a receiver wants to be remembered.

    Raises:
        UsageError: it is no mapping of texts.
    """
    if progress is None:
        return {}
    given = cast("object", progress)
    if not isinstance(given, Mapping) or not all(
        isinstance(text, str) for pair in cast("Mapping[object, object]", given).items() for text in pair
    ):
        raise _wrong("progress", progress, "texts by the name of the source, or None")
    return progress


def check_reports(reports: Sequence[RemoteReport]) -> Sequence[RemoteReport]:
    """Return reports if they can be matched.

    Raises:
        UsageError: naming the report.
    """
    for number, report in enumerate(_listed("reports", reports)):
        field = f"reports[{number}]"
        _check(field, report, RemoteReport, "a RemoteReport")
        for said in _tuple(f"{field}.recipients", report.recipients):
            _check(f"{field}.recipients", said, ReportedRecipient, "a tuple of ReportedRecipient")
            for name in ("action", "address", "original", "status", "text", "remote_id"):
                _check(f"{field}.recipients.{name}", getattr(said, name), str, "a text")
            if said.index is not None:
                _check(f"{field}.recipients.index", said.index, int, "a number, or None")
        for name in ("kind", "envid", "message_id", "reporter"):
            _check(f"{field}.{name}", getattr(report, name), str, "a text")
        if report.key is not None:
            _check(f"{field}.key", report.key, int, "a message's number, or None")
    return reports


def _listed(field: str, given: Any) -> Collection[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise _wrong(field, given, "a list")
    return given  # pyright: ignore[reportUnknownVariableType]


def _tuple(field: str, given: Any) -> tuple[Any, ...]:
    _check(field, given, tuple, "a tuple")
    found: tuple[Any, ...] = given
    return found


def _check(field: str, given: Any, kind: type[Any] | tuple[type[Any], ...], right: str) -> None:
    if not isinstance(given, kind):
        raise _wrong(field, given, right)


def _wrong(field: str, given: Any, right: str) -> UsageError:
    return UsageError(field, f"{given!r:.80} cannot be used", f"give {right}")
