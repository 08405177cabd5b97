"""The limits of the listener, contents that are not right, and its end."""

import asyncio
import logging
import smtplib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from postroom.errors import NotRunning, WorldError
from postroom.receivers.listener import SmtpListener
from tests.support.listening import (
    ANN,
    AWAY,
    BOB,
    MAIL,
    PATIENCE,
    ListeningSpool,
    Wire,
    assert_set,
    client,
    hub_of,
    is_ours,
    listener,
    listening,
    served,
    until,
)


@pytest.fixture
def spool() -> ListeningSpool:
    return ListeningSpool()


@pytest.fixture
def plain(spool: ListeningSpool) -> Iterator[SmtpListener]:
    made = listener(relay="networks", max_recipients=5, max_message_size=200_000)
    with listening(made, spool):
        yield made


# Limits


def test_sizes_and_counts_are_limited(plain: SmtpListener, spool: ListeningSpool) -> None:
    with Wire(plain.address) as wire:
        wire.said(f"MAIL FROM:<{ANN}> SIZE=200001", "552 5.3.4")
        wire.said(f"MAIL FROM:<{ANN}> SIZE=200000", "250")
        for number in range(5):
            wire.said(f"RCPT TO:<u{number}@example.org>", "250")
        wire.said("RCPT TO:<one@example.org>", "452 4.5.3")
        wire.said("DATA", "354")
        wire.send(MAIL + b"x" * 300_000 + b"\r\n.\r\n")
        assert wire.reply().startswith("552 5.3.4 ")
        # In step still, and of the limit itself nothing is refused: dots that are doubled do not count.
        wire.envelope()
        dots = (200_000 - len(MAIL)) // 3
        content = MAIL + b"\r\n" * ((200_000 - len(MAIL) - 3 * dots) // 2) + b".\r\n" * dots
        wire.send(MAIL + content[len(MAIL) :].replace(b".\r\n", b"..\r\n") + b".\r\n")
        assert wire.reply().startswith("250 ")
    assert spool.arrivals[0].content.endswith(content)


def test_memory_is_bounded(spool: ListeningSpool) -> None:
    may, entered = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert may.wait(PATIENCE)

    spool.before = hold
    made = listener(max_message_size=100_000, max_buffered=150_000)
    with listening(made, spool), Wire(made.address) as first, Wire(made.address) as second:
        large = MAIL + (b"x" * 98 + b"\r\n") * 900
        first.envelope()
        first.send(large + b".\r\n")
        assert entered.wait(PATIENCE)
        second.envelope()
        second.send(large + b".\r\n")
        assert second.reply().startswith("452 4.3.1 ")
        may.set()
        assert first.reply().startswith("250 ")
        second.envelope()
        second.send(large + b".\r\n")
        assert second.reply().startswith("250 ")


def test_connections_are_limited(spool: ListeningSpool) -> None:
    made = listener(max_connections=2)
    with listening(made, spool):
        with Wire(made.address), Wire(made.address), Wire(made.address, greet=False) as third:
            assert third.reply().startswith("421 4.3.2 ")
            assert third.reply() == ""

        def welcome() -> bool:
            with Wire(made.address, greet=False) as wire:
                return wire.reply().startswith("220 ")

        until(welcome, "room")


def test_errors_are_limited(spool: ListeningSpool) -> None:
    made = listener(max_errors=3)
    with listening(made, spool), Wire(made.address) as wire:
        wire.said(f"MAIL FROM:<{ANN}>", "250")
        for _ in range(3):
            wire.said("RCPT TO:<x@elsewhere.example>", "550")
        assert wire.reply().startswith("421 4.7.0 ")
        assert wire.reply() == ""


def test_silence_ends_a_connection_and_hinders_nobody(spool: ListeningSpool) -> None:
    made = listener(timeout=0.3, max_connections=50)
    with listening(made, spool):
        silent = [Wire(made.address) for _ in range(20)]
        for wire in silent[:10]:
            wire.envelope()
            wire.send(b"Subject: half a mes")
        with client(made) as smtp:
            smtp.sendmail(ANN, BOB, MAIL)
        for wire in silent:
            assert wire.reply().startswith("421 4.4.2 ")
            assert wire.reply() == ""
            wire.close()
    assert len(spool.arrivals) == 1


def test_a_content_may_not_take_for_ever(spool: ListeningSpool) -> None:
    made = listener(data_timeout=0.2)
    with listening(made, spool), Wire(made.address) as wire:
        wire.envelope()
        assert wire.reply().startswith("421 4.4.2 ")


def test_a_stuck_spool_does_not_stop_the_conversation_with_others(spool: ListeningSpool) -> None:
    may = threading.Event()
    spool.before = lambda: assert_set(may)
    made = listener(workers=2, local=is_ours)
    with listening(made, spool):
        wires = [Wire(made.address) for _ in range(4)]
        for number, wire in enumerate(wires):
            wire.envelope()
            wire.send(MAIL.replace(b"<1@", b"<%d@" % number) + b".\r\n")
        until(lambda: spool.entered == 2, "two busy workers")
        with client(made) as smtp:
            smtp.ehlo()
            smtp.mail(ANN)
            assert smtp.rcpt(BOB)[0] == 250
        may.set()
        for wire in wires:
            assert wire.reply().startswith("250 ")
            wire.close()
    assert len(spool.arrivals) == 4


# Contents that are not right


@pytest.mark.parametrize(
    "smuggled",
    [b"\n.\r\n", b"\n.\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r", b"\n\n", b"\r\r\n.\r\r\n"],
)
def test_nothing_is_smuggled(plain: SmtpListener, spool: ListeningSpool, smuggled: bytes) -> None:
    with Wire(plain.address) as wire:
        wire.envelope()
        inner = (
            b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: forged\r\n\r\nx"
        )
        wire.send(MAIL + b"x" + smuggled + inner + b"\r\n.\r\n")
        assert wire.reply().startswith("554 5.5.2 ")
        wire.said("NOOP", "250")
    assert spool.entered == 0


def test_loops_are_ended(plain: SmtpListener, spool: ListeningSpool) -> None:
    hop = b"Received: from a by b; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    with client(plain) as smtp:
        smtp.sendmail(ANN, BOB, hop * 50 + MAIL)
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail(ANN, BOB, hop * 51 + MAIL)
        assert refused.value.smtp_code == 554
        assert "5.4.6 " in str(refused.value.smtp_error)
    assert len(spool.arrivals) == 1


def test_submissions_that_are_wrong_are_refused_with_the_reason(
    plain: SmtpListener, spool: ListeningSpool
) -> None:
    spool.max_recipients = 1
    with Wire(plain.address) as wire:
        for content, recipients, reply in (
            (b"Subject: no author\r\n\r\n", [AWAY], "554 5.6.0 From: is missing"),
            (b"From: a@x.example\r\n\r\n\0\r\n", [AWAY, BOB], "554 5.6.0 message: holds NUL"),
            (MAIL, [AWAY, "emil@elsewhere.example"], "554 5.5.3 "),
        ):
            wire.envelope(ANN, *recipients)
            wire.send(content + b".\r\n")
            assert wire.reply().startswith(reply)
    assert not spool.arrivals


# The end


def test_closing_lets_messages_in_hand_finish_and_others_go(spool: ListeningSpool) -> None:
    may, entered = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert may.wait(PATIENCE)

    spool.before = hold
    made = listener()
    session = made.open(spool)
    idle, busy = Wire(made.address), Wire(made.address)
    address = made.address
    busy.envelope()
    busy.send(MAIL + b".\r\n")
    assert entered.wait(PATIENCE)
    closing = threading.Thread(target=session.close)
    closing.start()
    assert idle.reply().startswith("421 4.3.2 ")
    assert idle.reply() == ""
    may.set()
    assert busy.reply().startswith("250 ")
    assert busy.reply().startswith("421 4.3.2 ")
    assert busy.reply() == ""
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert len(spool.arrivals) == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with pytest.raises(NotRunning):
        _ = made.address
    for wire in (idle, busy):
        wire.close()


def test_closing_does_not_wait_for_a_spool_that_hangs_nor_for_a_client_that_does(
    spool: ListeningSpool,
) -> None:
    may = threading.Event()
    spool.before = lambda: assert_set(may)
    made = listener(drain_timeout=0.2, tls="starttls", ssl_context=served())
    session = made.open(spool)
    stuck, half, handshaking = Wire(made.address), Wire(made.address), Wire(made.address)
    stuck.envelope()
    stuck.send(MAIL + b".\r\n")
    half.envelope()
    half.send(b"Subject: ")
    handshaking.said("STARTTLS", "220")
    until(lambda: spool.entered == 1, "a take")
    session.close()
    assert not hub_of(session).callers
    session.close()
    for wire in (stuck, half, handshaking):
        assert not wire.reply().startswith("250")
        wire.close()
    may.set()
    until(lambda: len(spool.arrivals) == 1, "the commit that nobody waited for")


def test_a_listener_opens_again_where_it_was(spool: ListeningSpool) -> None:
    made = listener()
    with listening(made, spool) as session:
        address = made.address
        with client(made) as smtp:
            smtp.sendmail(ANN, BOB, MAIL)
        assert session.poll() == 1
        assert session.poll() == 0
    with listening(made, spool):
        assert made.address == address
        with client(made) as smtp:
            smtp.sendmail(ANN, BOB, MAIL)
    assert len(spool.arrivals) == 1
    assert spool.reports[0] == ("up", f"listens on 127.0.0.1 port {address[1]}")


def test_waiting_ends_when_it_is_interrupted_and_a_dead_server_is_noticed(
    spool: ListeningSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = listener()
    session: Any = made.open(spool)
    session.wait(0.0)
    loop = session._loop

    def strike() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    monkeypatch.setattr(logging.getLogger("postroom.receivers.listener"), "disabled", True)
    loop.call_soon_threadsafe(strike)
    session.wait(PATIENCE)
    until(lambda: not session._thread.is_alive(), "the end of the thread")
    with pytest.raises(WorldError, match="died"):
        session.poll()
    session.close()


def test_a_port_that_is_taken(spool: ListeningSpool) -> None:
    first = listener()
    with listening(first, spool):
        second = listener(port=first.address[1])
        with pytest.raises(OSError, match="in use"):
            second.open(spool)


def test_several_processes_may_share_a_port(spool: ListeningSpool) -> None:
    first = listener(reuse_port=True, exclusive=False)
    with listening(first, spool):
        second = listener(reuse_port=True, exclusive=False, port=first.address[1])
        with listening(second, spool):
            assert second.address == first.address
            for number in range(8):
                with client(second) as smtp:
                    smtp.sendmail(ANN, BOB, MAIL.replace(b"<1@", b"<%d@" % number))
    assert len(spool.arrivals) == 8
