"""The worked example: a real Dovecot, a real browser, and a desk that is killed in between."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom import SmtpListener, Spooler
from tests.support.dovecot import PASSWORD, Dovecot
from tests.support.spooling import until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "support_desk.py"
CHROMEDRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(argument)
        driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(executable_path=CHROMEDRIVER)
        )
        yield driver
        driver.quit()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class Desk:
    """The example in a process of its own, on one port for all its lives."""

    def __init__(self, folder: Path, imap: int, smtp: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._environment = {
            **os.environ, "IMAP_HOST": "127.0.0.1", "IMAP_PORT": str(imap), "IMAP_TLS": "none", "IMAP_USER": "desk",
            "IMAP_PASSWORD": PASSWORD, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(smtp), "SMTP_TLS": "none",
            "DESK_PORT": str(self.port), "DESK_SPOOL": str(folder / "desk.db"),
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(EXAMPLE)], env=self._environment)
        until(self.answers, "the desk")

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(30)
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)


def mail(author: str, subject: str) -> bytes:
    return (
        f"Return-Path: <{author}>\r\nFrom: {author}\r\nTo: desk@example.org\r\nSubject: {subject}\r\n"
        f"Message-ID: <{subject.replace(' ', '.')}@example.net>\r\n\r\nPlease <b>help</b>.\r\n"
    ).encode()


def test_mail_comes_in_is_shown_live_and_answered_once(tmp_path: Path, browser: Any) -> None:
    world = SmtpListener("127.0.0.1", 0, name="world", local=lambda _: True)
    with Dovecot() as dovecot, Spooler(tmp_path / "world.db", receivers=[world]) as customers:
        until(lambda: any(row.status == "up" for row in customers.receivers()), "the customers' server")
        desk = Desk(tmp_path, dovecot.imap, world.address[1])

        def shown(folder: str) -> list[str]:
            items: list[str] = browser.execute_script(
                f"return [...document.querySelectorAll('ul.{folder} li a')].map((item) => item.textContent)"
            )
            return items

        def arrived() -> list[str]:
            return sorted(message.subject for message in customers.mail.list())

        try:
            desk.start()
            browser.get(desk.url)
            dovecot.put("desk", mail("ann@example.net", "My printer"))
            until(lambda: shown("open") == ["My printer"], "the ticket on the open page")
            desk.end(signal.SIGKILL)
            dovecot.put("desk", mail("bob@example.com", "Opening hours"))
            desk.start()
            until(
                lambda: shown("open") == ["Opening hours", "My printer"], "both tickets, the page came back"
            )
            browser.execute_script(
                "[...document.querySelectorAll('a')].find((a) => a.text == 'My printer').click()"
            )
            until(
                lambda: "<b>help</b>" in browser.find_element("tag name", "pre").text, "the text, not as HTML"
            )
            box = browser.find_element("tag name", "textarea")
            assert "> Please" in box.get_attribute("value")
            box.send_keys("Hold it the other way round.")
            browser.find_element("tag name", "button").click()
            until(lambda: shown("done") == ["My printer"], "the ticket among those that are done")
            until(lambda: "answer relayed" in browser.find_element("id", "lists").text, "the answer's fate")
            until(lambda: "Re: My printer" in arrived(), "the answer")
            assert arrived() == ["Auto: My printer", "Auto: Opening hours", "Re: My printer"]
            (answer,) = [message for message in customers.mail.list() if message.subject.startswith("Re:")]
            parsed = customers.mail.open(answer.id).parse()
            assert parsed["In-Reply-To"] == parsed["References"] == "<My.printer@example.net>"
            assert "Hold it the other way round." in customers.mail.open(answer.id).text()
            assert shown("open") == ["Opening hours"]
            assert desk.end(signal.SIGINT) == 0
        finally:
            desk.close()


def test_a_form_of_another_site_is_refused(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("support_desk", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    said: list[str] = []

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        del headers
        said.append(status)

    environ = {
        "PATH_INFO": "/ticket/0", "REQUEST_METHOD": "POST", "HTTP_HOST": "127.0.0.1:1", "HTTP_ORIGIN": "http://evil",
    }  # fmt: skip
    with Spooler(tmp_path / "x.db") as spooler:
        list(example.Desk(spooler)(environ, start))
    assert said == ["403 Forbidden"]
