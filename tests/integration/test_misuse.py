"""What is of the wrong type is refused with the field's name, and nobody else suffers for it."""

from collections.abc import Callable
from typing import Any

import pytest

from postroom import Settings, Spooler
from postroom.errors import ConfigurationError, UsageError
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.values import Arrival, LedgerKey, RemoteReport, ReportedRecipient
from postroom.receivers.memory import MemoryReceiver
from postroom.testing import InMemorySpooler

WRONG: Any = 5
CONTENT = b"From: a@example.org\r\n\r\nx\r\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", b""), ("content", "text"), ("remote", None), ("folder", 5), ("sender", 5), ("received", "now"),
        ("seen", 1), ("recipients", ["a"]), ("recipients", (5,)), ("keys", (("s", "u"),)),
        ("keys", (LedgerKey("s", WRONG),)), ("keys", (LedgerKey("s", "u", "x"),)),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    ],
)  # fmt: skip
def test_an_arrival_that_cannot_be_stored(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"content": CONTENT, field: value}
    arrival = Arrival(**fields)
    with InMemorySpooler() as spooler:
        with pytest.raises(UsageError, match=rf"^arrivals\[0\]\.{field}"):
            spooler.inlet("host").take([arrival])
        assert spooler.inlet("host").take([Arrival(content=CONTENT)])
        assert {row.restarts for row in spooler.actors()} == {0}


def test_what_slips_through_is_refused_by_the_store_alone() -> None:
    """A letter that nobody can store costs its sender an error, and neither the store nor others anything."""
    with InMemorySpooler() as spooler:
        engine = spooler.snapshot_source()
        assert engine is not None
        inlet = spooler.inlet("host")
        sort = inlet._sorted  # pyright: ignore[reportPrivateUsage]

        def broken(arrival: Arrival) -> Any:
            new = sort(arrival)
            object.__setattr__(new, "received", object())
            return new

        inlet._sorted = broken  # type: ignore[method-assign] # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Exception, match=r"arrivals|store"):
            inlet.take([Arrival(content=CONTENT)])
        assert spooler.inlet("host").take([Arrival(content=CONTENT)])
        assert {row.restarts for row in spooler.actors()} == {0}


CALLS: list[tuple[Callable[[Spooler], object], str]] = [
    (lambda s: s.mail.get(WRONG), "id"),
    (lambda s: s.mail.flag(WRONG), "ids"),
    (lambda s: s.mail.delete(WRONG), "ids"),
    (lambda s: s.events(kinds=WRONG), "kinds"),
    (lambda s: s.cursor("c", kinds=WRONG), "kinds"),
    (lambda s: s.take_reports(WRONG), "reports"),
    (lambda s: s.take_reports([WRONG]), "reports"),
    (lambda s: s.take_reports([RemoteReport(kind="dsn", recipients=(WRONG,))]), "reports"),
    (
        lambda s: s.take_reports(
            [RemoteReport(kind="dsn", recipients=(ReportedRecipient(action="failed", address=WRONG),))]
        ),
        "reports",
    ),
    (lambda s: s.inlet("x").take([], progress={"a": WRONG}), "progress"),
    (lambda s: s.inlet("x").take(WRONG), "arrivals"),
    (lambda s: s.poll("nobody"), "receivers"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "field"), CALLS, ids=map(str, range(len(CALLS))))
def test_calls(call: Callable[[Spooler], object], field: str) -> None:
    with InMemorySpooler() as spooler, pytest.raises(UsageError) as caught:
        call(spooler)
    assert caught.value.field.startswith(field)


CONFIGURATIONS: list[tuple[Callable[[], object], str]] = [
    (lambda: Spooler("x.db", receivers=WRONG), "receivers"),
    (lambda: Spooler("x.db", receivers=[WRONG]), "receivers[0]"),
    (lambda: Spooler("x.db", receivers=[MemoryReceiver(name=WRONG)]), "receivers[0].name"),
    (lambda: Spooler("x.db", receivers=[MemoryReceiver(name="m", interval=WRONG - 5)]), "receivers[0].interval"),
    (lambda: Spooler("x.db", postprocessors=["x"]), "postprocessors[0]"),  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    (lambda: Spooler("x.db", rules="x"), "rules"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    (lambda: Spooler("x.db", subscribers=[WRONG]), "subscribers[0]"),
    (lambda: Spooler("x.db", receiving=WRONG), "receiving[0]"),
    (lambda: Settings(durable_events=WRONG), "durable_events"),
    (lambda: Settings(keep_events="x"), "keep_events"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    (lambda: ReceivePolicy(identities="x"), "identities"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    (lambda: ReceivePolicy(keep_trash="x"), "keep_trash"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
]  # fmt: skip


@pytest.mark.parametrize(("make", "field"), CONFIGURATIONS, ids=map(str, range(len(CONFIGURATIONS))))
def test_configurations(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.field.startswith(field)


def test_a_list_of_recipients_is_no_text() -> None:
    receiver = MemoryReceiver(name="m")
    with InMemorySpooler(receivers=[receiver]), pytest.raises(UsageError, match="recipients"):
        receiver.put(CONTENT, recipients="ann@example.org")
