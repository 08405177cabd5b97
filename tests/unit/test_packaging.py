"""What the repository and pyproject.toml must agree on, and what no file of the repository may hold."""

import importlib.metadata
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import postroom

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"postroom": "src/postroom", "postroom.actors": "actors", "postroom.supervision": "supervision"}
LINKS = {"src/postroom/actors": "../../actors", "src/postroom/supervision": "../../supervision"}
LARGEST_FILE = 64 * 1024
# The same on every machine.
COMMON_FOLDERS = {"/", "/home", "/opt", "/root", "/srv", "/tmp", "/usr", "/var", "/var/tmp"}  # noqa: S108  names only
GENERATED = {"__pycache__", "build", "dist", "htmlcov"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository_files() -> list[Path]:
    """Every file that is in git or could be added; without git, all but hidden ones."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return sorted(walk(ROOT))
    # A file that is deleted but not yet committed as such is still listed.
    return sorted({ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are not followed."""
    for here, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in GENERATED and not name.endswith(".egg-info") and (name == ".ci" or name[0] != ".")
        ]
        yield from (Path(here, name) for name in names)


def package_of(path: Path) -> tuple[str, str]:
    """Return the package that a file is in, and its name below that package's folder."""
    for package, folder in PACKAGES.items():
        if path.is_relative_to(ROOT / folder):
            inside = path.relative_to(ROOT / folder)
            return ".".join((package, *inside.parent.parts)), inside.name
    raise AssertionError(path)


def package_files() -> list[Path]:
    return [path for folder in PACKAGES.values() for path in walk(ROOT / folder)]


def texts() -> Iterator[tuple[Path, str]]:
    for path in repository_files():
        if not path.is_symlink():
            yield path.relative_to(ROOT), path.read_bytes().decode("utf-8", errors="replace")


def normalised(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    return normalised(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.+!]+)( *; *.+)?", line)
            assert match, f"constraints.txt: {line!r} is not `name==version`, with or without a marker"
            found[normalised(match[1])] = match[2]
    return found


def test_every_package_of_the_tree_is_listed_and_no_other() -> None:
    in_tree = {package_of(path)[0] for path in package_files() if path.suffix == ".py"}
    listed: list[str] = project()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(in_tree)


def test_every_package_has_an_init_file() -> None:
    in_tree = {path.parent for path in package_files() if path.suffix == ".py"}
    assert [folder for folder in sorted(in_tree) if not (folder / "__init__.py").is_file()] == []


def test_every_data_file_is_listed() -> None:
    listed: dict[str, list[str]] = project()["tool"]["setuptools"]["package-data"]
    forgotten = [
        path.relative_to(ROOT).as_posix()
        for path in package_files()
        if path.suffix not in {".py", ".pyc"}
        for package, name in [package_of(path)]
        if not any(fnmatch(name, pattern) for pattern in listed.get(package, []))
    ]
    assert forgotten == []


def test_the_folders_of_the_packages_are_where_pyproject_says() -> None:
    assert project()["tool"]["setuptools"]["package-dir"] == PACKAGES


@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_the_links_for_static_tools_stand(link: str, target: str) -> None:
    assert (ROOT / link).is_symlink()
    assert (ROOT / link).readlink().as_posix() == target
    assert (ROOT / link / "__init__.py").is_file()


def test_one_version_everywhere() -> None:
    version = project()["project"]["version"]
    assert importlib.metadata.version("postroom") == version
    assert postroom.__version__ == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_whatever_pyproject_asks_for_is_pinned() -> None:
    whole = project()
    asked: list[str] = [
        *whole["build-system"]["requires"],
        *whole["project"]["dependencies"],
        *(item for extra in whole["project"]["optional-dependencies"].values() for item in extra),
        *(item for group in whole["dependency-groups"].values() for item in group),
    ]
    names = {requirement_name(item) for item in asked} - {"postroom"}
    assert sorted(names - pins().keys()) == []


def test_the_environment_of_these_tests_is_the_pinned_one() -> None:
    different = {
        name: installed
        for name, version in pins().items()
        # Build tools live in environments of their own, and pip may be any where the wheel is tried.
        if name not in {"build", "pip", "pyproject-hooks", "setuptools"}
        and (installed := installed_version(name)) not in {None, version}
    }
    assert different == {}


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def test_no_file_is_large() -> None:
    large = {
        path.relative_to(ROOT).as_posix(): path.stat().st_size
        for path in repository_files()
        if path.stat().st_size > LARGEST_FILE
    }
    assert large == {}


def test_no_file_names_a_package_registry() -> None:
    # Where packages come from is the business of whoever installs them. In pieces, so that this file passes.
    hosts = re.compile(
        "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs")), re.IGNORECASE
    )
    named = {str(path): match[0] for path, text in texts() if (match := hosts.search(text))}
    assert named == {}


def test_no_file_names_a_path_of_this_machine() -> None:
    private = {str(place) for place in (ROOT, ROOT.parent, Path.home())} - COMMON_FOLDERS
    ends = [rf"{re.escape(place)}(?![\w-])" for place in private] + [re.escape(f"{Path.home()}/.")]
    paths = re.compile(rf"(?<![\w.~)}}-])(?:{'|'.join(ends)})")
    named = {str(path): match[0] for path, text in texts() if (match := paths.search(text))}
    assert named == {}


def test_scripts_can_be_run_and_say_with_what() -> None:
    scripts = [ROOT / ".ci/run", *(ROOT / "scripts").iterdir()]
    assert len(scripts) > 1
    for script in scripts:
        assert os.access(script, os.X_OK), script
        assert script.read_bytes().startswith(b"#!"), script
