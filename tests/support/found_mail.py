"""Mail that nobody here wrote: the test data of CPython's ``email`` package, wherever a Python has it installed."""

import importlib.util
import os
from pathlib import Path

import pytest

__all__ = ["found_mail"]


def found_mail() -> dict[str, bytes]:
    """Return the messages by file name; skip the test without them, or fail it if POSTROOM_REQUIRE_SYSTEM=1."""
    for folder in _folders():
        messages = {path.name: path.read_bytes() for path in sorted(folder.glob("msg_*.txt"))}
        if messages:
            return messages
    problem = "no Python here has its test package: apt-get install libpython3-testsuite"
    if os.environ.get("POSTROOM_REQUIRE_SYSTEM") == "1":
        pytest.fail(problem)
    pytest.skip(problem)


def _folders() -> list[Path]:
    found: list[Path] = []
    try:
        spec = importlib.util.find_spec("test.test_email")
    except ModuleNotFoundError:
        spec = None
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "data")
    return found + sorted(Path("/usr/lib").glob("python3*/test/test_email/data"))
