"""pytest fixtures; pytest finds them by itself where Postroom is installed.

| fixture | |
|---|---|
| ``postroom_spooler`` | a running :class:`postroom.testing.InMemorySpooler` with an outbox and the clock below |
| ``postroom_outbox`` | its outbox |
| ``postroom_clock`` | a :class:`postroom.clock.ManualClock` that begins with the present time |
| ``postroom_settings`` | its settings, None for the usual: override it to change them |

Nothing of Postroom is imported before a fixture is used, so that other tests do not pay for it.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postroom.clock import ManualClock
    from postroom.settings import Settings
    from postroom.testing.outbox import Outbox
    from postroom.testing.spooling import InMemorySpooler

__all__ = ["postroom_clock", "postroom_outbox", "postroom_settings", "postroom_spooler"]


pytest.register_assert_rewrite(
    "postroom.testing.receiver_trials",
    "postroom.testing.receivers",
    "postroom.testing.transport_harness",
    "postroom.testing.transports",
)


@pytest.fixture
def postroom_clock() -> "ManualClock":
    """Return a clock that stands still until it is told to move."""
    from postroom.clock import ManualClock  # noqa: PLC0415 - see above

    return ManualClock(time.time())


@pytest.fixture
def postroom_settings() -> "Settings | None":
    """Return the settings of ``postroom_spooler``; override it to change them."""
    return None


@pytest.fixture
def postroom_spooler(
    postroom_clock: "ManualClock", postroom_settings: "Settings | None"
) -> "Iterator[InMemorySpooler]":
    """Give a running spooler whose messages go to its outbox."""
    from postroom.testing.spooling import InMemorySpooler  # noqa: PLC0415 - see above

    with InMemorySpooler(clock=postroom_clock, settings=postroom_settings) as spooler:
        yield spooler


@pytest.fixture
def postroom_outbox(postroom_spooler: "InMemorySpooler") -> "Outbox":
    """Return the outbox of ``postroom_spooler``."""
    return postroom_spooler.outbox
