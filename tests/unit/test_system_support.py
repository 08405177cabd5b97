"""`require` must not let a missing program pass unseen in CI."""

import os
from pathlib import Path

import pytest

from tests.support.system import require

ABSENT = "postroom-no-such-program"


def test_a_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ABSENT
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    assert require(ABSENT, "some-package") == program


def test_a_missing_program_skips_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTROOM_REQUIRE_SYSTEM", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"{ABSENT} is missing: apt-get install some-package"):
        require(ABSENT, "some-package")


def test_a_missing_program_fails_where_all_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_REQUIRE_SYSTEM", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install some-package"):
        require(ABSENT, "some-package")
