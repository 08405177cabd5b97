"""A real browser with a list of mail that refreshes itself, also over the death of the server."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom import Spooler
from postroom.inbound.values import Arrival
from tests.support.event_page import EventPage
from tests.support.spooling import until

CHROMEDRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--no-first-run",
)  # fmt: skip


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=CHROMEDRIVER))
    yield driver
    driver.quit()


def deliver(spool: Path, *subjects: str) -> None:
    """Have mail arrive through another process's eyes: a spooler that shares the spool with the server."""
    with Spooler(spool, deliver=False) as spooler:
        for subject in subjects:
            content = f"From: ann@example.org\r\nSubject: {subject}\r\n\r\nHello.\r\n".encode()
            spooler.inlet("test").take([Arrival(content=content)])


def test_the_list_refreshes_and_nothing_is_missed_when_the_server_dies(tmp_path: Path, browser: Any) -> None:
    spool = tmp_path / "spool.db"
    deliver(spool, "before")

    def ask(script: str) -> Any:
        return browser.execute_script(f"return {script}")

    def shown() -> list[str]:
        items: list[str] = ask("[...document.querySelectorAll('#list li')].map((item) => item.textContent)")
        return items

    with EventPage(spool) as server:
        browser.get(server.url)
        until(lambda: bool(ask("window.opened")), "a connection")
        assert shown() == ["before"]
        deliver(spool, "first", "second")
        until(lambda: shown() == ["before", "first", "second"], "the list refreshed")
        server.kill()
        deliver(spool, "third", "fourth")
        server.start()
        until(lambda: ask("window.opened") == 2, "the browser came back")
        deliver(spool, "fifth")
        expected = ["first", "second", "third", "fourth", "fifth"]
        until(lambda: len(ask("window.seen")) >= len(expected), "all events")
        until(lambda: shown() == ["before", *expected], "the list refreshed again")
        assert ask("window.seen") == expected
        assert ask("window.resets") == 0
