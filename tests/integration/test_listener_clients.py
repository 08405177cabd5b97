"""Who may do what at the listener, with clients that others wrote (smtplib, swaks) and with our own transports."""

import logging
import shutil
import smtplib
import subprocess
import threading
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.outcomes import Delivered, Failed, Relayed
from postroom.transports.base import Outcomes
from postroom.transports.smtp import LmtpTransport, SmtpTransport
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
    hub_of,
    listener,
    listening,
    own_part,
    served,
    trusting,
    until,
)


@pytest.fixture
def spool() -> ListeningSpool:
    return ListeningSpool()


# Who may send to whom


def test_strangers_do_not_relay(spool: ListeningSpool) -> None:
    made = listener(local=["example.org", "desk@one.example"])
    with listening(made, spool), client(made) as smtp:
        smtp.ehlo()
        smtp.mail(ANN)
        assert smtp.rcpt(AWAY) == (550, b"5.7.1 Relaying denied")
        assert smtp.rcpt("nobody@one.example") == (550, b"5.1.1 No such recipient here")
        assert smtp.docmd("DATA")[0] == 503
        assert smtp.rcpt(BOB)[0] == 250
        assert smtp.data(MAIL)[0] == 250
    assert [arrival.recipients for arrival in spool.arrivals] == [(BOB,)]


def test_a_callable_says_who_is_ours(spool: ListeningSpool) -> None:
    may, asked = threading.Event(), threading.Event()

    def local(address: str) -> bool | str:
        if address == "slow@example.org":
            asked.set()
            assert may.wait(PATIENCE)
        if address == "broken@example.org":
            raise LookupError(address)
        return address.endswith("@example.org") or "550 5.1.1 No such user"

    made = listener(local=local)
    with listening(made, spool), Wire(made.address) as slow, client(made) as smtp:
        slow.said(f"MAIL FROM:<{ANN}>", "250")
        slow.send(b"RCPT TO:<slow@example.org>\r\n")
        assert asked.wait(PATIENCE)
        smtp.ehlo()
        smtp.mail(ANN)
        assert smtp.rcpt("x@other.example") == (550, b"5.1.1 No such user")
        assert smtp.rcpt("broken@example.org")[0] == 451
        assert smtp.rcpt(BOB)[0] == 250
        may.set()
        assert slow.reply().startswith("250 ")


def test_authentication_over_starttls(spool: ListeningSpool, caplog: pytest.LogCaptureFixture) -> None:
    made = listener(auth={"app": "s3cret"}, tls="starttls", ssl_context=served())
    with caplog.at_level(logging.DEBUG), listening(made, spool), client(made) as smtp:
        smtp.ehlo()
        smtp.mail(ANN)
        assert smtp.rcpt(AWAY)[0] == 530
        smtp.rset()
        smtp.starttls(context=trusting())
        smtp.ehlo()
        assert smtp.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        assert "starttls" not in smtp.esmtp_features
        assert smtp.docmd("STARTTLS")[0] == 503
        with pytest.raises(smtplib.SMTPAuthenticationError):
            smtp.login("app", "wr0ng")
        smtp.login("app", "s3cret")
        smtp.sendmail(ANN, AWAY, MAIL)
    [(submission, prepared, envelope)] = spool.submissions
    assert submission.tenant == envelope.tenant == "app"
    assert b" with ESMTPSA (TLSv1" in prepared.content
    assert "authentication failed: user 'app' from 127.0.0.1" in caplog.text
    for secret in (b"s3cret", b"wr0ng"):
        for shown in (secret.decode(), b64encode(secret).decode(), b64encode(b"\0app\0" + secret).decode()):
            assert shown not in caplog.text


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("initial", [True, False])
def test_authentication_over_implicit_tls(spool: ListeningSpool, mechanism: str, *, initial: bool) -> None:
    def ask(user: str, password: str) -> str | None:
        return f"tenant of {user}" if password == "s3cret" else None

    made = listener(auth=ask, tls="implicit", ssl_context=served())
    with (
        listening(made, spool),
        smtplib.SMTP_SSL(*made.address, timeout=PATIENCE, context=trusting()) as smtp,
    ):
        smtp.ehlo()
        smtp.user, smtp.password = "app", "s3cret"
        smtp.auth(mechanism, getattr(smtp, f"auth_{mechanism.lower()}"), initial_response_ok=initial)
        smtp.sendmail(ANN, AWAY, MAIL)
    assert spool.submissions[0][0].tenant == "tenant of app"


def test_a_password_without_end_is_not_taken_for_commands(
    spool: ListeningSpool, caplog: pytest.LogCaptureFixture
) -> None:
    made = listener(auth={"app": "s3cret"})
    with caplog.at_level(logging.DEBUG), listening(made, spool), Wire(made.address) as wire:
        wire.said("AUTH LOGIN", "334")
        wire.send(b"c2VjcmV0" * 20_000 + b"\r\n")
        # A reset may overtake the last words.
        assert wire.reply()[:9] in {"421 4.7.0", ""}
    assert "c2VjcmV0" not in caplog.text


def test_what_was_said_in_the_clear_is_forgotten_when_tls_starts(spool: ListeningSpool) -> None:
    made = listener(auth={"app": "s3cret"}, tls="starttls", ssl_context=served())
    with listening(made, spool), client(made) as smtp:
        smtp.login("app", "s3cret")
        smtp.mail(ANN)
        assert smtp.rcpt(AWAY)[0] == 250
        smtp.starttls(context=trusting())
        assert smtp.docmd("DATA")[0] == 503
        smtp.ehlo()
        smtp.mail(ANN)
        assert smtp.rcpt(AWAY)[0] == 530


def test_passwords_cannot_be_tried_for_ever(spool: ListeningSpool) -> None:
    def ask(user: str, password: str) -> bool:
        raise ConnectionError(f"no directory for {user} with {password}")

    made = listener(auth={"app": "s3cret"})
    with listening(made, spool), Wire(made.address) as wire:
        wire.said("AUTH plain " + b64encode(b"\0app\0x").decode(), "535 5.7.8")
        wire.said("AUTH LOGIN", "334")
        wire.said("*", "501 5.7.0")
        wire.said("AUTH PLAIN ***", "501 5.5.2")
        wire.said("AUTH CRAM-MD5", "504")
        wire.said("AUTH PLAIN " + b64encode(b"\0app\0y").decode(), "535")
        wire.said("AUTH PLAIN " + b64encode(b"\0app\0z").decode(), "535")
        assert wire.reply().startswith("421 4.7.0 ")
        assert wire.reply() == ""
    with listening(made, spool), Wire(made.address) as wire:
        wire.said("AUTH LOGIN " + b64encode(b"\xff").decode(), "334")
        wire.said(b64encode(b"x").decode(), "501 5.5.2")
        wire.said("AUTH PLAIN " + b64encode(b"no zeros").decode(), "501 5.5.2")
    broken = listener(auth=ask)
    with listening(broken, spool), Wire(broken.address) as wire:
        wire.said("AUTH PLAIN " + b64encode(b"\0app\0x").decode(), "454 4.7.0")


# TLS that fails


def test_clients_that_fail_at_tls_harm_nobody(
    spool: ListeningSpool,
) -> None:
    made = listener(tls="starttls", ssl_context=served())
    with listening(made, spool) as session:
        with Wire(made.address) as wire:
            wire.said("STARTTLS", "220")
        with Wire(made.address) as wire:
            wire.said("STARTTLS", "220")
            wire.send(b"this is no handshake\r\n" * 10)
            # An alert may come, then the end.
            while wire.socket.recv(4096):
                pass
        with Wire(made.address) as wire:
            # What is sent in the clear behind STARTTLS is no part of what is said under TLS (CVE-2011-0411).
            wire.send(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
            assert wire.reply().startswith("220 ")
            with trusting().wrap_socket(wire.socket, server_hostname="127.0.0.1") as secured:
                secured.sendall(b"EHLO x\r\n")
                assert secured.recv(4096).startswith(b"250-mx.example.org\r\n")
                secured.sendall(b"RCPT TO:<bob@example.org>\r\n")
                assert secured.recv(4096).startswith(b"503 ")
        with client(made) as smtp:
            smtp.starttls(context=trusting())
            smtp.sendmail(ANN, BOB, MAIL)
        until(lambda: not hub_of(session).callers, "no connection that is counted still")
    assert len(spool.arrivals) == 1


# Other clients


def test_swaks(spool: ListeningSpool, tmp_path: Path) -> None:
    swaks = shutil.which("swaks")
    if swaks is None:
        pytest.skip("swaks is not installed")
    made = listener(auth={"app": "s3cret"}, tls="starttls", ssl_context=served())
    with listening(made, spool):
        message = tmp_path / "message.eml"
        message.write_bytes(MAIL.replace(b"\r\n", b"\n"))
        host, port = made.address
        done = subprocess.run(
            [
                swaks, "--server", host, "--port", str(port), "--from", ANN, "--to", f"{BOB},{AWAY}", "--tls",
                "--auth", "LOGIN", "--auth-user", "app", "--auth-password", "s3cret", "--data", f"@{message}",
                "--timeout", "10s",
            ],
            capture_output=True, text=True, timeout=30, check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = spool.arrivals[0].content
    # swaks adds an empty line.
    assert content == own_part(content) + MAIL + b"\r\n"
    assert spool.submissions[0][0].tenant == "app"


def _delivery(*addresses: str) -> Delivery:
    targets = tuple(Target(at, Address("smtp", address)) for at, address in enumerate(addresses))
    return Delivery(7, ANN, targets, ODD, eight_bit=True)


def kinds(outcomes: Outcomes) -> list[type]:
    assert isinstance(outcomes, Sequence)
    return [type(outcome) for outcome in outcomes]


@pytest.mark.parametrize(("security", "tls"), [("none", None), ("starttls", "starttls"), ("tls", "implicit")])
def test_our_own_smtp_transport(
    spool: ListeningSpool,
    security: Literal["none", "starttls", "tls"],
    tls: str | None,
) -> None:
    made = listener(tls=tls, ssl_context=served() if tls else None, auth={"app": "s3cret"})
    with listening(made, spool):
        host, port = made.address
        transport = SmtpTransport(
            host,
            port,
            security=security,
            ssl_context=trusting() if tls else None,
            username="app",
            password="s3cret",
        )
        session = transport.open()
        try:
            for _ in range(2):
                outcomes = session.send(_delivery(BOB, "nobody@[not an address", CAROL))
                assert kinds(outcomes) == [Relayed, Failed, Relayed]
        finally:
            session.close()
    [arrival] = spool.arrivals
    assert arrival.recipients == (BOB, CAROL)
    assert arrival.content == own_part(arrival.content) + ODD


def test_our_own_lmtp_transport(spool: ListeningSpool) -> None:
    made = listener(protocol="lmtp")
    with listening(made, spool):
        session = LmtpTransport(*made.address).open()
        try:
            assert kinds(session.send(_delivery(BOB, AWAY, CAROL))) == [Delivered, Failed, Delivered]
        finally:
            session.close()
    assert [arrival.recipients for arrival in spool.arrivals] == [(BOB, CAROL)]


def test_many_clients_at_once(spool: ListeningSpool) -> None:
    made = listener(max_connections=50)
    failures: list[BaseException] = []

    def send(number: int) -> None:
        try:
            with client(made) as smtp:
                for each in range(20):
                    smtp.sendmail(ANN, BOB, MAIL.replace(b"<1@", b"<%d.%d@" % (number, each)))
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    with listening(made, spool) as session:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert session.poll() == 200
    assert not failures
    assert len(spool.arrivals) == 200
    assert len({key for arrival in spool.arrivals for key in arrival.keys}) == 200
