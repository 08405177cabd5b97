"""The listener takes mail: byte for byte, once, and with 250 only after the commit."""

import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom import MemoryTransport, Spooler
from postroom.addresses import Address
from postroom.envelopes import Report
from postroom.errors import NotRunning, SpoolFull, SpoolUnavailable
from postroom.options import MessageOptions, RecipientOptions
from postroom.receivers.listener import SmtpListener
from postroom.transports.smtp import SmtpTransport
from tests.support.listening import (
    ANN,
    AWAY,
    BOB,
    CAROL,
    MAIL,
    ODD,
    PATIENCE,
    ListeningSpool,
    Wire,
    client,
    listener,
    listening,
    own_part,
    until,
)
from tests.support.spooling import settled
from tests.support.spooling import until as eventually


@pytest.fixture
def spool() -> ListeningSpool:
    return ListeningSpool()


@pytest.fixture
def plain(spool: ListeningSpool) -> Iterator[SmtpListener]:
    made = listener(relay="networks", max_recipients=5, max_message_size=200_000)
    with listening(made, spool):
        yield made


# Ordinary mail


def test_incoming_mail_is_taken_byte_for_byte(plain: SmtpListener, spool: ListeningSpool) -> None:
    with client(plain) as smtp:
        # smtplib would mend the line ends and the dots itself: what it sends is checked by its own side alone.
        smtp.sendmail(ANN, [BOB, CAROL], ODD)
    [arrival] = spool.arrivals
    added = own_part(arrival.content)
    assert arrival.content == added + ODD
    assert added.startswith(b"Return-Path: <ann@client.example>\r\nReceived: from ")
    assert b"\r\n\tby mx.example.org (Postroom) with ESMTP\r\n" in added
    assert b"([127.0.0.1])" in added
    assert (arrival.sender, arrival.recipients, arrival.remote) == (ANN, (BOB, CAROL), "127.0.0.1")
    assert not spool.submissions


def test_what_is_offered_and_the_names_of_things(plain: SmtpListener) -> None:
    with client(plain) as smtp:
        smtp.ehlo("client.example")
        offered = {"size": "200000", "8bitmime": "", "smtputf8": "", "dsn": "", "pipelining": ""}
        assert offered.items() <= smtp.esmtp_features.items()
        assert "auth" not in smtp.esmtp_features
        assert "starttls" not in smtp.esmtp_features
        assert smtp.ehlo_resp is not None
        assert smtp.ehlo_resp.startswith(b"mx.example.org\n")
        assert smtp.docmd("AUTH PLAIN")[0] == 502
        assert smtp.docmd("VRFY", BOB)[0] == 252
        assert smtp.docmd("LHLO", "x") == (500, b"5.5.1 Say EHLO, this is SMTP")
        assert smtp.noop() == (250, b"2.0.0 OK")
        assert smtp.docmd("FROBNICATE")[1].startswith(b"5.5.2 ")


def test_one_message_for_us_and_for_others_is_one_transaction(
    plain: SmtpListener, spool: ListeningSpool
) -> None:
    with client(plain) as smtp:
        smtp.sendmail(ANN, [BOB, AWAY, CAROL], MAIL)
    assert spool.entered == 1
    [arrival] = spool.arrivals
    assert arrival.recipients == (BOB, CAROL)
    [(submission, prepared, envelope)] = spool.submissions
    assert envelope.recipients == (Address("smtp", AWAY),)
    assert envelope.sender == ANN
    assert submission.tenant is None
    # The Received field is all that is added to outgoing mail: Return-Path is for the last stop.
    assert prepared.content.startswith(b"Received: from ")
    assert prepared.content.endswith(MAIL)
    assert arrival.content == b"Return-Path: <ann@client.example>\r\n" + prepared.content


def test_a_submission_is_completed_as_rfc_6409_allows(plain: SmtpListener, spool: ListeningSpool) -> None:
    with client(plain) as smtp:
        smtp.sendmail(ANN, AWAY, b"From: ann@client.example\r\nBcc: secret@x.example\r\n\r\nbody\r\n")
    content = spool.submissions[0][1].content
    assert b"\r\nMessage-ID: <u@spool.example>\r\n" in content
    assert b"\r\nDate: " in content
    assert b"Bcc" not in content


def test_dsn_parameters_are_carried_over(plain: SmtpListener, spool: ListeningSpool) -> None:
    with client(plain) as smtp:
        smtp.ehlo()
        smtp.mail(ANN, ["RET=HDRS", "ENVID=Case+2BKept"])
        smtp.rcpt(AWAY, ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Old@Elsewhere.example"])
        smtp.rcpt("emil@elsewhere.example", ["NOTIFY=NEVER"])
        smtp.rcpt("frida@elsewhere.example")
        smtp.data(MAIL)
    _, _, envelope = spool.submissions[0]
    assert envelope.options == MessageOptions(ret="hdrs", envid="Case+Kept")
    assert envelope.report == {Report.FAILURE}
    dora, emil, frida = envelope.recipients
    assert envelope.said[dora] == RecipientOptions(
        orcpt="rfc822;Old@Elsewhere.example", report="delay,success"
    )
    assert envelope.said[emil] == RecipientOptions(report="")
    assert frida not in envelope.said


def test_international_mail(plain: SmtpListener, spool: ListeningSpool) -> None:
    with client(plain) as smtp:
        smtp.ehlo()
        assert smtp.docmd("MAIL", "FROM:<ann@client.example>")[0] == 250
        smtp.send("RCPT TO:<bücher@example.org>\r\n".encode())
        assert smtp.getreply()[1].startswith(b"5.6.7 ")
        smtp.rset()
        smtp.sendmail(ANN, "bücher@example.org", MAIL, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    [arrival] = spool.arrivals
    assert arrival.recipients == ("bücher@example.org",)
    assert b" with UTF8SMTP\r\n" in arrival.content
    assert "\r\n\tfor <bücher@example.org>; ".encode() in arrival.content


def test_bounces_and_postmasters(plain: SmtpListener, spool: ListeningSpool) -> None:
    with client(plain) as smtp:
        smtp.ehlo()
        assert smtp.docmd("MAIL", "FROM:<>")[0] == 250
        assert smtp.docmd("RCPT", "TO:<bob@example.org>")[0] == 250
        assert smtp.data(MAIL)[0] == 250
    assert spool.arrivals[0].sender == ""
    assert spool.arrivals[0].content.startswith(b"Return-Path: <>\r\n")


# 250 means committed


def test_no_250_before_the_commit(plain: SmtpListener, spool: ListeningSpool) -> None:
    may, entered = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert may.wait(PATIENCE)

    spool.before = hold
    with Wire(plain.address) as wire:
        wire.envelope()
        wire.send(MAIL + b".\r\n")
        assert entered.wait(PATIENCE)
        # Others are served() meanwhile, so the server had every chance to answer.
        with client(plain) as smtp:
            smtp.ehlo()
            assert smtp.noop()[0] == 250
        wire.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            wire.socket.recv(1)
        wire.socket.settimeout(PATIENCE)
        assert not spool.arrivals
        may.set()
        assert wire.reply().startswith("250 2.0.0 ")
        assert len(spool.arrivals) == 1


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (SpoolFull("full"), "452 4.3.1 "),
        (SpoolUnavailable("late"), "451 4.3.0 "),
        (NotRunning("stopped"), "451 4.3.0 "),
        (RuntimeError("a bug"), "451 4.3.0 "),
    ],
)
def test_trouble_is_temporary_and_the_next_try_succeeds(
    plain: SmtpListener, spool: ListeningSpool, error: Exception, reply: str
) -> None:
    def fail() -> None:
        raise error

    spool.before = fail
    with Wire(plain.address) as wire:
        wire.envelope()
        wire.send(MAIL + b".\r\n")
        assert wire.reply().startswith(reply)
        spool.before = lambda: None
        wire.envelope()
        wire.send(MAIL + b".\r\n")
        assert wire.reply().startswith("250 ")
    assert len(spool.arrivals) == 1


@pytest.mark.parametrize("recipients", [[BOB], [AWAY], [BOB, AWAY]], ids=["incoming", "outgoing", "both"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_lost_around_the_commit_and_the_message_is_there_once(
    plain: SmtpListener, spool: ListeningSpool, recipients: list[str], when: str
) -> None:
    may, reached = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert may.wait(PATIENCE)

    setattr(spool, when, hold)
    wire = Wire(plain.address)
    wire.envelope(ANN, *recipients)
    wire.send(MAIL + b".\r\n")
    assert reached.wait(PATIENCE)
    wire.close()
    may.set()
    setattr(spool, when, lambda: None)
    with client(plain) as smtp:
        smtp.sendmail(ANN, recipients, MAIL)
        # In another order it is the same envelope; under another name it is another message.
        smtp.sendmail(ANN, recipients[::-1], MAIL)
    until(lambda: spool.entered >= 3, "three takes")
    assert len(spool.arrivals) == (BOB in recipients)
    assert len(spool.submissions) == (AWAY in recipients)
    with client(plain) as smtp:
        smtp.sendmail(ANN, recipients, MAIL.replace(b"<1@", b"<2@"))
    assert len(spool.arrivals) == 2 * (BOB in recipients)
    assert len(spool.submissions) == 2 * (AWAY in recipients)


def test_a_spool_that_dies_after_its_commit_gets_no_second_copy(
    plain: SmtpListener, spool: ListeningSpool
) -> None:
    def die() -> None:
        raise SpoolUnavailable("no answer")

    spool.after = die
    with client(plain) as smtp:
        with pytest.raises(smtplib.SMTPDataError) as put_off:
            smtp.sendmail(ANN, [BOB, AWAY], MAIL)
        assert put_off.value.smtp_code == 451
        spool.after = lambda: None
        smtp.sendmail(ANN, [BOB, AWAY], MAIL)
    assert (len(spool.arrivals), len(spool.submissions)) == (1, 1)


def test_a_connection_lost_within_the_content_leaves_nothing(
    plain: SmtpListener, spool: ListeningSpool
) -> None:
    for cut in (MAIL[:40], MAIL, MAIL + b".", MAIL + b".\r"):
        wire = Wire(plain.address)
        wire.envelope()
        wire.send(cut)
        wire.close()
    with client(plain) as smtp:
        smtp.sendmail(ANN, BOB, MAIL)
    assert (spool.entered, len(spool.arrivals)) == (1, 1)


# LMTP


def test_lmtp_answers_for_each_recipient(spool: ListeningSpool) -> None:
    made = listener(protocol="lmtp", relay="networks")
    with listening(made, spool):
        with smtplib.LMTP(*made.address) as lmtp:
            # One recipient, because smtplib reads one answer to the content.
            assert lmtp.sendmail(ANN, BOB, MAIL) == {}
        assert b" with LMTP\r\n" in spool.arrivals[0].content
        with Wire(made.address, greet=False) as wire:
            assert wire.reply() == "220 mx.example.org LMTP Postroom"
            wire.said("EHLO x", "500 5.5.1 Say LHLO")
            wire.said("LHLO x", "250")
            wire.said(f"MAIL FROM:<{ANN}>", "250")
            wire.said("RCPT TO:<bob@example.org>", "250")
            wire.said("RCPT TO:<a b@example.org>", "501")
            wire.said(f"RCPT TO:<{AWAY}>", "250")
            wire.said("RCPT TO:<bob@example.org>", "250")
            wire.said("DATA", "354")
            wire.send(b"Subject: without author\r\n\r\n.\r\n")
            assert [wire.reply()[:9] for _ in range(3)] == ["250 2.0.0", "554 5.6.0", "250 2.0.0"]
            wire.envelope(ANN, BOB, CAROL)
            wire.send(b"a bare\nline end\r\n.\r\n")
            assert [wire.reply()[:9] for _ in range(2)] == ["554 5.5.2", "554 5.5.2"]
            wire.said("NOOP", "250")
    assert [arrival.recipients for arrival in spool.arrivals] == [(BOB,), (BOB,)]
    assert not spool.submissions


# With real spools


def opened(receiver: SmtpListener) -> tuple[str, int]:
    def is_open() -> bool:
        try:
            return bool(receiver.address)
        except NotRunning:
            return False

    eventually(is_open, "an open listener")
    return receiver.address


def test_two_spools_in_a_chain(tmp_path: Path) -> None:
    last = listener(name="mx")
    first = SmtpListener(auth={"app": "s3cret"}, hostname="submission.example.org", name="submission")
    with Spooler(tmp_path / "last.db", [MemoryTransport()], receivers=[last]) as receiving:
        relay = SmtpTransport(*opened(last), security="none")
        with Spooler(tmp_path / "first.db", [relay], receivers=[first]) as sending:
            opened(first)
            with client(first) as smtp:
                smtp.login("app", "s3cret")
                # It comes twice, as from a client that did not hear the first answer.
                for _ in range(2):
                    smtp.sendmail(ANN, [BOB, CAROL], MAIL)
            try:
                eventually(lambda: len(list(receiving.mail.list())) == 1, "the message at its last stop")
            except AssertionError as error:
                error.add_note(f"{list(sending.queue())}\n{sending.receivers()}\n{receiving.receivers()}")
                raise
            settled(sending)
            assert sending.tally().accepted == {"smtp": 2}
        [found] = receiving.mail.list()
        content = receiving.mail.content(found.id)
    assert content.endswith(MAIL)
    assert content.startswith(b"Return-Path: <ann@client.example>\r\nReceived: from ")
    assert content.count(b"Received: from ") == 2
    assert content.index(b"by mx.example.org (") < content.index(b"by submission.example.org (")


def test_a_real_spool_takes_what_comes_again_once(tmp_path: Path) -> None:
    made = listener(relay="networks")
    memory = MemoryTransport(address_types=("smtp",))
    with Spooler(tmp_path / "spool.db", [memory], receivers=[made]) as spooler:
        opened(made)
        with client(made) as smtp:
            for _ in range(3):
                smtp.sendmail(ANN, [BOB, AWAY], MAIL)
            with pytest.raises(smtplib.SMTPDataError) as refused:
                smtp.sendmail(ANN, AWAY, b"Subject: without author\r\n\r\n")
            assert refused.value.smtp_code == 554
        settled(spooler)
        assert [message.recipients for message in spooler.mail.list()] == [(BOB,)]
    [delivery] = memory.deliveries
    assert [target.address.value for target in delivery.targets] == [AWAY]
    assert delivery.content.endswith(MAIL)
