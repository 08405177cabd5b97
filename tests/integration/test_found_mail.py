"""The malformed and international mail of CPython's own tests: parsed, stored, forwarded, exported octet for octet."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from postroom import Spooler
from postroom.inbound.forwarding import LOOP_FIELD, attach, forward
from postroom.inbound.hooks import Incoming, Postprocessed, postprocessor
from postroom.receivers.maildir import MaildirReceiver
from postroom.receivers.memory import MemoryReceiver
from postroom.settings import Settings
from postroom.transports.memory import MemoryTransport
from tests.support.found_mail import found_mail


def as_found(messages: dict[str, bytes]) -> dict[str, bytes]:
    """Return each message as it is, with LF, and as it would come over the network, with CRLF."""
    crlf = {f"{name} with CRLF": re.sub(rb"\r?\n", b"\r\n", content) for name, content in messages.items()}
    return {**messages, **crlf}


def on_the_wire(content: bytes) -> bytes:
    """Return a message as SMTP carries it: every line ends in CRLF, the last one too."""
    lines = re.sub(rb"\r?\n", b"\r\n", content)
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


@pytest.fixture(scope="module")
def mail() -> dict[str, bytes]:
    return as_found(found_mail())


@pytest.fixture
def received(tmp_path: Path, mail: dict[str, bytes]) -> Iterator[tuple[Spooler, dict[str, str]]]:
    """A spooler that has received all of it, and the ids by name."""
    receiver = MemoryReceiver(name="memory")
    settings = Settings(synchronous="off")
    with Spooler(tmp_path / "spool.db", settings=settings, receivers=[receiver]) as spooler:
        for name, content in mail.items():
            receiver.put(content, key=name)
        ids = {
            name: message.id
            for name, message in zip(mail, spooler.mail.list(limit=None, newest_first=False), strict=True)
        }
        yield spooler, ids


def test_it_is_stored_octet_for_octet(
    received: tuple[Spooler, dict[str, str]], mail: dict[str, bytes]
) -> None:
    spooler, ids = received
    assert {name: spooler.mail.content(message_id) for name, message_id in ids.items()} == mail


def test_it_can_be_opened_and_searched(received: tuple[Spooler, dict[str, str]]) -> None:
    spooler, ids = received
    for name, message_id in ids.items():
        opened = spooler.mail.open(message_id)
        parts = list(opened.parse().walk())
        assert parts, name
        for text in (opened.text(), opened.html()):
            assert text is None or isinstance(text, str)
        for attachment in opened.attachments():
            assert attachment is not None
    found = spooler.mail.search("python", limit=1000)
    assert found.complete
    assert found.items


def test_it_is_exported_octet_for_octet(
    received: tuple[Spooler, dict[str, str]], mail: dict[str, bytes], tmp_path: Path
) -> None:
    spooler, ids = received
    spooler.mail.export(to=tmp_path / "eml", format="eml")
    assert {
        name: (tmp_path / "eml" / f"{message_id}.eml").read_bytes() for name, message_id in ids.items()
    } == mail
    spooler.mail.export(to=tmp_path / "maildir", format="maildir")
    exported = sorted(path.read_bytes() for path in (tmp_path / "maildir").glob("*/*") if path.is_file())
    assert exported == sorted(mail.values())


def test_it_is_forwarded_octet_for_octet(tmp_path: Path, mail: dict[str, bytes]) -> None:
    """As it is where it may be sent, else as a file within a message; nothing is changed or lost either way."""

    @postprocessor(name="forward")
    def send_on(_: EmailMessage, incoming: Incoming) -> Postprocessed:
        return Postprocessed(
            forward=(
                *forward(incoming, "memory:whole", at="desk", author="desk@example.org"),
                *attach(incoming, "memory:file", at="desk", author="desk@example.org"),
            )
        )

    transport = MemoryTransport()
    receiver = MemoryReceiver(name="memory")
    with Spooler(
        tmp_path / "spool.db", [transport], settings=Settings(synchronous="off"), receivers=[receiver],
        postprocessors=[send_on],
    ) as spooler:  # fmt: skip
        for name, content in mail.items():
            receiver.put(content, key=name)
        assert transport.wait_for(2 * len(mail), 60.0)
        assert len(list(spooler.mail.list(limit=None))) == len(mail)
    whole: list[bytes] = []
    files: list[bytes] = []
    for delivery in transport.deliveries:
        box = delivery.targets[0].address.value
        message = message_from_bytes(delivery.content, policy=default)
        names = [part.get_filename() for part in message.walk()]
        if box == "file" or "message.eml" in names:
            (part,) = [part for part in message.walk() if part.get_filename() == "message.eml"]
            octets = part.get_payload(decode=True)
            assert isinstance(octets, bytes)
            (files if box == "file" else whole).append(octets)
        else:
            _, mark, rest = delivery.content.partition(f"{LOOP_FIELD}: desk\r\n".encode())
            assert mark
            whole.append(rest)
    assert sorted(files) == sorted(mail.values())
    left = [on_the_wire(content) for content in mail.values()]
    assert len(whole) == len(left)
    for content in whole:
        # On the network lines end in CRLF, and a header that lacks them gets Date and Message-ID behind it.
        same = on_the_wire(content)
        assert any(same == each or _completed(same, each) for each in left), content[:500]


def _completed(sent: bytes, original: bytes) -> bool:
    """Whether ``sent`` is ``original`` with fields added at the end of its header (RFC 6409 section 8)."""
    end = original.find(b"\r\n\r\n")
    head, body = (original[: end + 2], original[end + 2 :]) if end >= 0 else (original, b"")
    if not sent.startswith(head) or not sent.endswith(body):
        return False
    added = sent[len(head) : len(sent) - len(body)]
    return all(
        line.startswith((b"Date: ", b"Message-ID: ", b"MIME-Version: ")) for line in added.splitlines()
    )


def test_it_is_taken_from_a_maildir_octet_for_octet(tmp_path: Path, mail: dict[str, bytes]) -> None:
    box = tmp_path / "box"
    for part in ("new", "cur", "tmp"):
        (box / part).mkdir(parents=True)
    for number, content in enumerate(mail.values()):
        (box / "new" / f"{number}.found.example.org").write_bytes(content)
    receiver = MaildirReceiver(box, name="maildir", watch=False, interval=0.1)
    with Spooler(
        tmp_path / "spool.db", settings=Settings(synchronous="off"), receivers=[receiver]
    ) as spooler:
        events = spooler.cursor("test")
        seen = 0
        while seen < len(mail):
            batch = events.read(limit=200, timeout=20.0)
            assert batch
            seen += len(batch)
            events.commit()
        contents = sorted(spooler.mail.content(message.id) for message in spooler.mail.list(limit=None))
    assert contents == sorted(mail.values())
    assert list((box / "new").iterdir()) == []
