#!/usr/bin/env python3
"""Tries examples/support_desk.py with mail servers of its own, on this machine only: `make example`.

A real Dovecot holds the desk's mailbox, a listener of Postroom stands for the rest of the world's mail, and two
customers write. With --check it plays the whole story by itself and says whether it went well.
"""

import argparse
import imaplib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path

from postroom import SmtpListener, Spooler
from postroom.events import NewMessage

HERE = Path(__file__).resolve().parents[1]
PASSWORD = "only-for-this-try"  # noqa: S105 - it is
PATIENCE = 30.0

CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:{folder}/mail/%u
mailbox_idle_check_interval = 1 secs
first_valid_uid = 1
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u allow_all_users=yes
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
}}
"""


def free_port() -> int:
    """Return a port of the loopback interface that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds.

    Raises:
        SystemExit: it never did.
    """
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"Waited {PATIENCE:g} s in vain for {what}.")
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a program that was started here."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_dovecot(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start Dovecot for one mailbox.

    Raises:
        SystemExit: there is none.
    """
    program = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit(
            "Dovecot is missing. Run scripts/install-system-packages, or start examples/support_desk.py with a mailbox "
            "of your own (its first lines say how)."
        )
    root = os.geteuid() == 0
    me = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
    for name in ("run", "mail", "home"):
        (folder / name).mkdir()
        if root:
            os.chown(folder / name, me.pw_uid, me.pw_gid)
    folder.chmod(0o755)
    own = pwd.getpwuid(os.geteuid()).pw_name
    (folder / "dovecot.conf").write_text(
        CONFIGURATION.format(
            folder=folder, port=port, password=PASSWORD, uid=me.pw_uid, gid=me.pw_gid,
            internal="dovecot" if root else own, group="dovecot" if root else me.pw_gid,
            login="dovenull" if root else own,
        ),
        encoding="utf-8",
    )  # fmt: skip
    return subprocess.Popen([program, "-F", "-c", str(folder / "dovecot.conf")])


def write(port: int, author: str, subject: str, text: str) -> None:
    """Have a customer's mail arrive in the desk's mailbox."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = author, "desk@example.org", subject
    mail["Message-ID"] = f"<{time.time_ns()}@example.net>"
    mail["Return-Path"] = f"<{author.partition('<')[2].rstrip('>') or author}>"
    mail.set_content(text)
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login("desk", PASSWORD)
        client.append("INBOX", "", "", mail.as_bytes())


def check(url: str, arrived: list[NewMessage]) -> None:
    """Play the story: both tickets are on the page, one is answered, and the customer gets the answer."""

    def page(path: str = "lists") -> str:
        with urllib.request.urlopen(url + path, timeout=10) as reply:  # noqa: S310 - our own page
            text: str = reply.read().decode()
        return text

    until(lambda: "My printer" in page() and "Opening hours" in page(), "the tickets")
    ticket = page().partition("My printer")[0].rpartition('href="/ticket/')[2].partition('"')[0]
    form = urllib.parse.urlencode({"text": "Please hold it the other way round."}).encode()
    request = urllib.request.Request(url + f"ticket/{ticket}", form, {"Origin": url.rstrip("/")})  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    until(lambda: "answer relayed" in page(), "the answer's state on the page")
    until(lambda: any(event.subject == "Re: My printer" for event in arrived), "the answer at the customer's")
    print("It went well: two tickets came in, one was answered, and the answer arrived.")


def main() -> None:
    """Start everything, and stop it in the reverse order."""
    parser = argparse.ArgumentParser(description="Try examples/support_desk.py")
    parser.add_argument("--check", action="store_true", help="play the story by itself and end")
    parser.add_argument("--port", type=int, default=0, help="of the web page; by default any free one")
    options = parser.parse_args()
    imap, smtp, web = free_port(), free_port(), options.port or free_port()
    arrived: list[NewMessage] = []

    def receive(event: NewMessage) -> None:
        arrived.append(event)
        print(f"A customer got: {event.subject}", flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="desk-")))
        stack.callback(stop, start_dovecot(folder, imap))
        until(lambda: answers(imap), "Dovecot")
        world = SmtpListener("127.0.0.1", smtp, name="world", local=lambda _: True)
        spooler = stack.enter_context(Spooler(folder / "world.db", receivers=[world]))
        spooler.subscribe(receive, events={NewMessage})  # type: ignore[arg-type] # it is told of these only
        until(lambda: answers(smtp), "the SMTP server")
        environment = {
            **os.environ, "IMAP_HOST": "127.0.0.1", "IMAP_PORT": str(imap), "IMAP_TLS": "none", "IMAP_USER": "desk",
            "IMAP_PASSWORD": PASSWORD, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(smtp), "SMTP_TLS": "none",
            "DESK_PORT": str(web),
            "DESK_SPOOL": str(folder / "desk.db"),
        }  # fmt: skip
        desk = subprocess.Popen([sys.executable, str(HERE / "examples/support_desk.py")], env=environment)
        stack.callback(stop, desk)
        until(lambda: answers(web), "the desk")
        write(imap, "Ann <ann@example.net>", "My printer", "It prints only on the inside.\n")
        write(imap, "Bob <bob@example.com>", "Opening hours", "When may I come?\n")
        if options.check:
            check(f"http://127.0.0.1:{web}/", arrived)
            return
        print(
            "Two customers have written. Open the page and answer; Enter brings another mail, Ctrl-C ends it."
        )
        try:
            for number in range(1, 1_000_000):
                if sys.stdin.isatty():
                    input()
                else:
                    threading.Event().wait(60)
                write(imap, "Eve <eve@example.net>", f"Question {number}", "And another one.\n")
        except (KeyboardInterrupt, EOFError):
            print()


if __name__ == "__main__":
    main()
