"""A real Postfix as relay takes our DSN parameters and reports by them (RFC 3461, 3464, 6533)."""

import email
import email.policy
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.options import MessageOptions, RecipientOptions
from postroom.outcomes import Relayed
from postroom.transports.smtp import SmtpTransport
from tests.support.smtp_server import Script, SmtpServer
from tests.support.system import require

SECONDS = 30.0
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.example
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks,reject
relayhost = [127.0.0.1]:{next_port}
alias_maps =
maillog_file = /dev/stdout
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
"""


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[SmtpServer]:
    script = Script(keep_content=True, recipients={"no@example.org": "550 5.1.1 who?"})
    with SmtpServer(tmp_path / "behind.jsonl", script=script) as running:
        yield running


@pytest.fixture
def relay(behind: SmtpServer) -> Iterator[int]:
    program = require("postfix", "postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix is started by root only")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    # Not below pytest's folder: Postfix's own user must be able to get there.
    folder = Path(tempfile.mkdtemp(prefix="postroom-postfix-"))
    try:
        folder.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        (folder / "etc/main.cf").write_text(MAIN.format(folder=folder, next_port=behind.port))
        (folder / "etc/master.cf").write_text(MASTER.format(port=port))
        command = [str(program), "-c", str(folder / "etc"), "start-fg"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + SECONDS
            while not listens(port):
                assert process.poll() is None, "Postfix ended"
                assert time.monotonic() < deadline, "Postfix does not listen"
                time.sleep(0.05)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
    finally:
        shutil.rmtree(folder)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def reports(behind: SmtpServer, count: int) -> list[EmailMessage]:
    """Return the messages from the null sender, once there are so many."""
    deadline = time.monotonic() + SECONDS
    while True:
        received = [message for message in behind.messages() if not message.sender]
        if len(received) >= count:
            break
        assert time.monotonic() < deadline, f"{len(received)} of {count} reports"
        time.sleep(0.05)
    assert {message.recipients for message in received} == {("app@example.org",)}
    return [email.message_from_bytes(message.content, policy=email.policy.SMTPUTF8) for message in received]


def test_postfix_reports_as_we_asked(relay: int, behind: SmtpServer) -> None:
    jose = Address("smtp", "josé=x@example.org")
    targets = (
        Target(0, Address("smtp", "ann@example.org")),
        Target(1, Address("smtp", "eve+news@example.org"), options=RecipientOptions(report="success")),
        Target(
            2,
            Address("smtp", "bob@example.org"),
            options=RecipientOptions(report="success", original=jose),
        ),
        Target(3, Address("smtp", "no@example.org"), options=RecipientOptions(report="")),
    )
    options = MessageOptions(ret="hdrs", envid="order 4711+a")
    content = b"Subject: x\r\nMessage-ID: <one@example.org>\r\n\r\na secret body\r\n"
    session = SmtpTransport("127.0.0.1", relay, security="none").open()
    outcomes = session.send(Delivery(1, "app@example.org", targets, content, options=options))
    session.close()
    assert isinstance(outcomes, Sequence)
    assert [outcome.reports for outcome in outcomes if isinstance(outcome, Relayed)] == [
        False,
        True,
        True,
        False,
    ]
    (report,) = reports(behind, 1)
    text = report.as_bytes().decode()
    assert report.get_content_type() == "multipart/report"
    assert "Original-Envelope-Id: order 4711+a" in text
    assert "Original-Recipient: rfc822;eve+news@example.org" in text
    # It undid the ASCII form of RFC 6533 that we sent, as no address of the transaction needed SMTPUTF8.
    assert "Original-Recipient: utf-8;josé=x@example.org" in text
    assert text.count("Action: relayed") == 2
    assert "ann@example.org" not in text
    assert "no@example.org" not in text, "NOTIFY=NEVER"
    assert "a secret body" not in text, "RET=HDRS"
