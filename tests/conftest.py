"""What every test gets: `tests.support`, the hypothesis profiles, a look at the threads left behind."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    # At the end: the root's folders `actors` and `supervision` must not hide packages of these names.
    sys.path.append(ROOT)

# What passes once passes always, on a slow machine too; a developer explores with HYPOTHESIS_PROFILE=explore.
settings.register_profile(
    "ci",
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# How long a thread that was told to end may take to do so, in seconds.
THREAD_GRACE = 5.0


def check_threads() -> Iterator[None]:
    # Imported here, because only now the root is on the path.
    from tests.support.threads import strays  # noqa: PLC0415

    before = set(threading.enumerate())
    yield
    left = strays(before, THREAD_GRACE)
    assert not left, f"non-daemon threads left behind: {', '.join(left)}"


@pytest.fixture(autouse=True)
def no_stray_threads() -> Iterator[None]:
    """Fail a test that leaves a thread behind; threads of wider fixtures stood before it and do not count."""
    yield from check_threads()


@pytest.fixture(autouse=True, scope="session")
def no_stray_threads_at_the_end() -> Iterator[None]:
    """Fail the session when one of the wider fixtures left a thread behind."""
    yield from check_threads()
