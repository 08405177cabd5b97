from typing import Any

import pytest

from postroom.errors import ConfigurationError
from postroom.settings import Settings


def test_the_defaults_are_valid() -> None:
    settings = Settings()
    assert settings.synchronous == "full"
    assert settings.max_recipients >= 100  # RFC 5321 section 4.5.3.1.8


@pytest.mark.parametrize(
    "name",
    ["max_message_size", "max_recipients", "submit_timeout", "max_waiting_messages", "max_waiting_octets",
     "sync_interval"],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_what_must_be_positive(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: .* is not positive; give a number above 0"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", ["keep_sent", "keep_content", "lifetime"])
def test_what_must_not_be_negative(name: str) -> None:
    settings: dict[str, Any] = {name: 0.0}
    Settings(**settings)
    settings[name] = -0.5
    with pytest.raises(ConfigurationError, match=f"{name}: -0.5 is negative"):
        Settings(**settings)


def test_what_may_be_none() -> None:
    assert Settings(keep_sent=None, lifetime=None).keep_sent is None


def test_an_unknown_durability_is_refused() -> None:
    wrong: Any = "maybe"
    with pytest.raises(ConfigurationError, match="synchronous: 'maybe' is unknown"):
        Settings(synchronous=wrong)


@pytest.mark.parametrize(
    ("name", "problem"), [("Nonsense", "is no event"), ("TransportChanged", "about a part of one process")]
)
def test_what_the_journal_cannot_keep_is_refused(name: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Settings(durable_events=frozenset({"NewMessage", name}))
    assert caught.value.field == "durable_events"


def test_what_the_journal_keeps() -> None:
    assert Settings(keep_events=0).journalled == frozenset()
    assert "TransportChanged" not in Settings(durable_events="all").journalled
    assert Settings(durable_events=frozenset({"NewMessage"})).journalled == {"NewMessage"}
