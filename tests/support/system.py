"""Programs of the operating system that some tests talk to."""

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["require"]

ADMINISTRATION = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Debian keeps mail servers, which is not in every user's PATH."""


def require(program: str, package: str) -> Path:
    """Return where ``program`` is; without it, skip the test, or fail it if POSTROOM_REQUIRE_SYSTEM=1.

    Args:
        program: its name, searched in PATH and then where administrators' programs are.
        package: the Debian package that has it.
    """
    found = shutil.which(program) or shutil.which(program, path=os.pathsep.join(ADMINISTRATION))
    if found is not None:
        return Path(found)
    problem = f"{program} is missing: apt-get install {package}"
    if os.environ.get("POSTROOM_REQUIRE_SYSTEM") == "1":
        pytest.fail(problem)
    pytest.skip(problem)
