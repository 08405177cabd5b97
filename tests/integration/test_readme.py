"""What the README and docs/ say: the examples run, and the links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_SECONDS = 60

FENCE = re.compile(r"(?P<mark><!-- run -->\n)?```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
ANY_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples() -> Iterator[tuple[str, str, bool]]:
    """Yield where each Python example is, its code, and whether it is marked for running."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("code")) + 1
            yield f"{name(page)}:{line}", match["code"], match["mark"] is not None


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made from the text."""
    text = ANY_FENCE.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", match["text"].lower()).replace(" ", "-") for match in HEADING.finditer(text)
    }


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = ANY_FENCE.sub("", page.read_text(encoding="utf-8"))
        for match in LINK.finditer(text):
            yield page, match["target"]


EXAMPLES = {where: (code, marked) for where, code, marked in examples()}


@pytest.mark.parametrize("where", [where for where, (_, marked) in EXAMPLES.items() if marked])
def test_the_example_runs(where: str, tmp_path: Path) -> None:
    code, _ = EXAMPLES[where]
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    folder = tmp_path / "work"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


def test_the_embedding_example_is_in_the_readme_and_short() -> None:
    first = next(
        code for where, (code, marked) in EXAMPLES.items() if marked and where.startswith("README.md")
    )
    statements = [line for line in first.splitlines() if line.strip()]
    assert "Spooler(" in first
    assert ".submit(" in first
    assert len(statements) <= 20


@pytest.mark.parametrize("where", EXAMPLES)
def test_the_example_is_python(where: str) -> None:
    code, _ = EXAMPLES[where]
    compile(code, where, "exec")


def test_every_relative_link_leads_somewhere() -> None:
    broken: list[str] = []
    for page, target in links():
        if "://" in target:
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{name(page)}: {target}")
    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(page.parent / target).resolve() for page, target in links() if "://" not in target}
    assert [name(page) for page in PAGES[1:] if page not in linked] == []
