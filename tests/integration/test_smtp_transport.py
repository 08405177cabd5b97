"""The SMTP and LMTP transports against servers in other processes."""

import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
import trustme

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, SessionStale, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed
from postroom.transports.smtp import PIPELINING_PAUSE, LmtpTransport, SmtpTimeouts, SmtpTransport
from tests.support.smtp_server import FEATURES, Script, SmtpServer
from tests.support.system import require

UNPIPELINED = [feature for feature in FEATURES if feature != "PIPELINING"]
QUICK = {
    "CONNECT": SmtpTimeouts(greeting=0.3),
    "EHLO": SmtpTimeouts(command=0.3),
    "MAIL": SmtpTimeouts(mail=0.3),
    "RCPT": SmtpTimeouts(rcpt=0.3, stall=0.3),
    "DATA": SmtpTimeouts(data=0.3, stall=0.3),
    "CONTENT": SmtpTimeouts(done=0.3),
}
"""Not to wait for a verb that is never answered; the others may take their time on a busy machine."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SmtpServer]:
    with SmtpServer(tmp_path / "received.jsonl") as running:
        yield running


def transport(server: SmtpServer, *, silent: str = "") -> SmtpTransport:
    return SmtpTransport(
        "127.0.0.1", server.port, security="none", timeouts=QUICK.get(silent, SmtpTimeouts())
    )


def delivery(
    *recipients: str, name: str = "1", body: bytes = b"body\r\n", eight_bit: bool = False
) -> Delivery:
    content = f"Message-ID: <{name}@example.org>\r\nSubject: x\r\n\r\n".encode() + body
    targets = tuple(
        Target(index, Address("smtp", value)) for index, value in enumerate(recipients or ["a@example.org"])
    )
    return Delivery(1, "app@example.org", targets, content, eight_bit=eight_bit)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kinds(result: Outcome | Sequence[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in (result if isinstance(result, Sequence) else [result])]


@pytest.mark.parametrize("features", [FEATURES, UNPIPELINED, []], ids=["pipelined", "stepwise", "bare"])
def test_messages_arrive_as_they_are(server: SmtpServer, features: list[str]) -> None:
    server.script(Script(features=features, keep_content=True))
    session = transport(server).open()
    bodies = [b"", b".\r\n", b"..\r\n.\r\nx\r\n", b"no end", b"x" * 990 + b"\r\n", b"line\r\n" * 200_000]
    for number, body in enumerate(bodies):
        result = session.send(delivery("a@example.org", "b@example.org", name=str(number), body=body))
        assert kinds(result) == ["Relayed", "Relayed"]
        assert session.usable
    assert session.noop()
    session.close()
    received = server.messages()
    assert [message.id for message in received] == [
        f"<{number}@example.org>" for number in range(len(bodies))
    ]
    assert {message.recipients for message in received} == {("a@example.org", "b@example.org")}
    assert {message.session for message in received} == {1}
    assert [message.content.partition(b"\r\n\r\n")[2] for message in received] == [
        body if body.endswith(b"\r\n") or not body else body + b"\r\n" for body in bodies
    ]


def test_the_reply_says_who_said_it(server: SmtpServer) -> None:
    server.script(Script(replies={"CONTENT": "250 2.6.0 one\n250 2.6.0 queued as 4711"}))
    session = transport(server).open()
    outcome = session.send(delivery())
    session.close()
    assert isinstance(outcome, Relayed)
    assert str(outcome.reply) == f"127.0.0.1:{server.port}: 250 2.6.0 one queued as 4711"


def test_per_recipient_refusals(server: SmtpServer) -> None:
    server.script(
        Script(recipients={"no@example.org": "550 5.1.1 who?", "full@example.org": "450 4.2.2 full"})
    )
    session = transport(server).open()
    assert kinds(session.send(delivery("no@example.org", "a@example.org", "full@example.org"))) == [
        "Failed",
        "Relayed",
        "Deferred",
    ]
    assert kinds(session.send(delivery("no@example.org"))) == ["Failed"]
    assert kinds(session.send(delivery("a@example.org"))) == ["Relayed"]
    session.close()
    assert [message.recipients for message in server.messages()] == [("a@example.org",), ("a@example.org",)]


def test_more_recipients_than_the_server_takes_at_once(server: SmtpServer) -> None:
    server.script(Script(max_recipients=3))
    session = transport(server).open()
    recipients = [f"r{number}@example.org" for number in range(8)]
    assert kinds(session.send(delivery(*recipients))) == ["Relayed"] * 8
    session.close()
    assert [to for message in server.messages() for to in message.recipients] == recipients


@pytest.mark.parametrize("verb", ["MAIL", "DATA", "CONTENT"])
@pytest.mark.parametrize(("answer", "kind"), [("451 4.3.0 later", "Deferred"), ("554 5.7.1 never", "Failed")])
@pytest.mark.parametrize("features", [FEATURES, UNPIPELINED], ids=["pipelined", "stepwise"])
def test_a_refused_message_leaves_the_session_usable(
    server: SmtpServer, verb: str, answer: str, kind: str, features: list[str]
) -> None:
    server.script(Script(features=features, replies={verb: answer}))
    session = transport(server).open()
    assert kinds(session.send(delivery("a@example.org", "b@example.org"))) == [kind, kind]
    assert session.noop()
    session.close()
    assert server.count() == 0


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
@pytest.mark.parametrize("how", ["drop_before", "drop_after", "silent", "421", "554"])
def test_what_goes_wrong_before_mail_is_an_outage(server: SmtpServer, verb: str, how: str) -> None:
    if how.isdigit():
        script = Script(
            replies={verb: f"{how} 5.3.2 not today"} | ({"EHLO": f"{how} x"} if how == "554" else {})
        )
    else:
        script = Script(**{how: verb})  # type: ignore[arg-type]  # one of three str fields
    server.script(script)
    down = transport(server, silent=verb)
    if how == "drop_after" and verb == "EHLO":
        session = down.open()
        with pytest.raises(TransportDown):
            session.send(delivery())
        session.close()
    else:
        with pytest.raises(TransportDown):
            down.open()
    assert server.count() == 0


@pytest.mark.parametrize("features", [FEATURES, UNPIPELINED], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize(
    ("when", "verb", "expected"),
    [
        ("drop_after", "MAIL", "Deferred"),
        ("drop_before", "RCPT", "Deferred"),
        ("drop_after", "RCPT", "Deferred"),
        ("drop_before", "DATA", "Deferred"),
        ("drop_after", "DATA", "either"),
        ("drop_before", "MIDDATA", "Deferred"),
        ("drop_before", "CONTENT", "in doubt"),
        ("drop_after", "CONTENT", "Relayed"),
        ("silent", "RCPT", "Deferred"),
        ("silent", "DATA", "Deferred"),
        ("silent", "CONTENT", "in doubt"),
        ("drop_before", "MAIL", "down"),
        ("silent", "MAIL", "down"),
    ],
)
def test_a_loss_at_every_step(
    server: SmtpServer, features: list[str], when: str, verb: str, expected: str
) -> None:
    server.script(Script(features=features, **{when: verb}))  # type: ignore[arg-type]  # one of three str fields
    session = transport(server, silent=verb if when == "silent" else "").open()
    sent = delivery(
        "a@example.org", "b@example.org", body=b"x\r\n" * 8_000_000 if verb == "MIDDATA" else b"x\r\n"
    )
    if expected == "down":
        with pytest.raises(TransportDown):
            session.send(sent)
    else:
        result = session.send(sent)
        assert isinstance(result, Sequence)
        for outcome in result:
            if expected == "Relayed":
                assert isinstance(outcome, Relayed)
                continue
            assert isinstance(outcome, Deferred)
            assert outcome.reply.status == "4.4.2"
            if expected != "either":  # the small content may have left before the loss shows
                assert ("duplicate" in outcome.reply.text) is outcome.in_doubt is (expected == "in doubt")
    if expected != "Relayed":
        assert not session.usable
    assert server.count() == (verb == "CONTENT")
    session.close()


@pytest.mark.parametrize("lie", ["discard", "drop", "skip", "double", "refuse"])
def test_a_server_that_lies_about_pipelining_gets_it_step_by_step(server: SmtpServer, lie: str) -> None:
    now = 0.0
    server.script(Script(lie=lie, transcript=True))
    lying = transport(server, silent="RCPT")
    lying.monotonic = lambda: now
    session = lying.open()
    assert kinds(session.send(delivery("a@example.org", "b@example.org"))) == ["Relayed", "Relayed"]
    assert session.usable
    assert [message.recipients for message in server.messages()] == [("a@example.org", "b@example.org")]
    assert not lying.may_pipeline
    session.close()
    again = lying.open()
    assert kinds(again.send(delivery("c@example.org"))) == ["Relayed"]
    again.close()
    assert [message.session for message in server.messages()] == [2, 3]
    now += PIPELINING_PAUSE
    assert lying.may_pipeline


def test_a_liar_cannot_shift_a_refusal_onto_the_message(server: SmtpServer) -> None:
    server.script(Script(lie="double", recipients={"last@example.org": "550 5.1.1 who?"}))
    session = transport(server).open()
    assert kinds(session.send(delivery("a@example.org", "last@example.org"))) == ["Relayed", "Failed"]
    session.close()
    assert [message.recipients for message in server.messages()] == [("a@example.org",)]


def test_a_glitch_in_a_group_is_made_good_at_once(server: SmtpServer) -> None:
    server.script(Script(drop_after="RCPT", sessions=1))
    session = transport(server).open()
    assert kinds(session.send(delivery())) == ["Relayed"]
    session.close()
    assert server.count() == 1


def test_a_server_that_never_answers_a_group_is_not_pipelined_to_next_time(server: SmtpServer) -> None:
    server.script(Script(silent="MAIL", sessions=1))
    suspect = transport(server, silent="MAIL")
    session = suspect.open()
    with pytest.raises(TransportDown):
        session.send(delivery())
    session.close()
    assert not suspect.may_pipeline


@pytest.mark.parametrize("features", [FEATURES, UNPIPELINED], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize("last_words", ["421 4.3.2 enough", ""])
def test_a_kept_session_that_the_server_ends_is_stale(
    server: SmtpServer, features: list[str], last_words: str
) -> None:
    server.script(Script(features=features, session_messages=2, session_end=last_words))
    kept = transport(server)
    session = kept.open()
    for _ in range(2):
        assert kinds(session.send(delivery())) == ["Relayed"]
    with pytest.raises(SessionStale):
        session.send(delivery())
    assert not session.usable
    session.close()
    fresh = kept.open()
    assert kinds(fresh.send(delivery())) == ["Relayed"]
    fresh.close()
    assert server.count() == 3
    assert kept.may_pipeline


def test_a_killed_server_is_stale_then_down_then_back(server: SmtpServer) -> None:
    there = transport(server)
    session = there.open()
    assert kinds(session.send(delivery(name="1"))) == ["Relayed"]
    server.kill()
    assert not session.noop()
    session.close()
    with pytest.raises(TransportDown, match="connection refused"):
        there.open()
    server.restart()
    session = there.open()
    assert kinds(session.send(delivery(name="2"))) == ["Relayed"]
    session.close()
    assert [message.id for message in server.messages()] == ["<1@example.org>", "<2@example.org>"]


def test_a_server_that_hangs_up_on_a_large_message(server: SmtpServer) -> None:
    server.script(Script(max_size=100_000))
    session = transport(server).open()
    outcome = session.send(delivery(body=b"x" * 76 + b"\r\n" + b"line\r\n" * 2_000_000))
    session.close()
    # Its reason may be lost with the connection (a reset discards it), but never becomes a success or a doubt.
    assert isinstance(outcome, Failed | Deferred)
    assert "duplicate" not in outcome.reply.text
    assert not session.usable


def test_size_is_declared_and_respected(server: SmtpServer) -> None:
    server.script(Script(features=["SIZE 200"], transcript=True))
    session = transport(server).open()
    assert kinds(session.send(delivery())) == ["Relayed"]
    outcome = session.send(delivery(body=b"x" * 70 + b"\r\n" + b"line\r\n" * 100))
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.3.4"
    session.close()
    assert len([line for line in server.commands() if line.startswith("MAIL")]) == 1
    assert "SIZE=" in server.messages()[0].mail


@pytest.mark.parametrize("offered", [True, False])
def test_8bitmime(server: SmtpServer, offered: bool) -> None:
    server.script(Script(features=["8BITMIME"] if offered else [], keep_content=True))
    head = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    content = head + "grün\r\n".encode()
    session = transport(server).open()
    sent = Delivery(
        1, "a@example.org", (Target(0, Address("smtp", "b@example.org")),), content, eight_bit=True
    )
    assert kinds(session.send(sent)) == ["Relayed"]
    session.close()
    (received,) = server.messages()
    assert ("BODY=8BITMIME" in received.mail) is offered
    assert received.content.isascii() is not offered
    assert (received.content == content) is offered


def test_abort_ends_a_hung_send(server: SmtpServer) -> None:
    server.script(Script(silent="CONTENT"))
    session = transport(server).open()
    result: list[list[str]] = []
    sender = threading.Thread(target=lambda: result.append(kinds(session.send(delivery()))))
    sender.start()
    wait_until(lambda: server.count() == 1)  # recorded before the answer that never comes: now it hangs
    session.abort()
    sender.join(10)
    assert result == [["Deferred"]]
    session.close()
    session.abort()
    session.close()


# --- LMTP ---


def test_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    script = Script(
        content={"b@example.org": "552 5.2.2 full", "c@example.org": "452 4.2.2 full"}, transcript=True
    )
    with SmtpServer(tmp_path / "r.jsonl", script=script, lmtp=True, unix=path) as server:
        session = LmtpTransport(str(path)).open()
        result = session.send(delivery("a@example.org", "b@example.org", "c@example.org"))
        assert kinds(result) == ["Delivered", "Failed", "Deferred"]
        assert isinstance(result, Sequence)
        assert isinstance(result[0], Delivered)
        assert result[0].reply.remote == str(path)
        session.close()
        assert [message.recipients for message in server.messages()] == [("a@example.org",)]
        assert server.commands()[0].lower().startswith("lhlo ")


def test_lmtp_dropped_between_the_answers(tmp_path: Path) -> None:
    script = Script(drop_before="CONTENT", drop_at=2)
    with SmtpServer(tmp_path / "r.jsonl", script=script, lmtp=True) as server:
        session = LmtpTransport("127.0.0.1", server.port).open()
        assert kinds(session.send(delivery("a@example.org", "b@example.org"))) == ["Delivered", "Deferred"]
        session.close()


def test_lmtp_with_aiosmtpd(tmp_path: Path) -> None:
    with SmtpServer(tmp_path / "r.jsonl", lmtp=True, options=("--engine", "aiosmtpd")) as server:
        session = LmtpTransport("127.0.0.1", server.port).open()
        for _ in range(2):
            assert kinds(session.send(delivery("a@example.org"))) == ["Delivered"]
        session.close()
        assert [message.recipients for message in server.messages()] == [("a@example.org",)] * 2


# --- TLS and AUTH, against aiosmtpd ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # it also takes pyOpenSSL's
    return context


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls(
    tmp_path: Path, authority: trustme.CA, certificate: str, security: Literal["starttls", "tls"]
) -> None:
    options = (
        "--engine",
        "aiosmtpd",
        "--cert",
        certificate,
        *(["--implicit-tls"] if security == "tls" else []),
    )
    with SmtpServer(tmp_path / "r.jsonl", options=options) as server:
        good = SmtpTransport("127.0.0.1", server.port, security=security, ssl_context=trusting(authority))
        session = good.open()
        assert kinds(session.send(delivery(body=b"line\r\n" * 100_000))) == ["Relayed"]
        assert kinds(session.send(delivery())) == ["Relayed"]
        assert session.tls.startswith("TLSv1.")
        assert session.noop()
        session.close()
        assert [message.tls for message in server.messages()] == [True, True]
        assert {message.cipher for message in server.messages()} == {session.tls}

        for context in (None, trusting(trustme.CA())):
            bad = SmtpTransport("127.0.0.1", server.port, security=security, ssl_context=context)
            with pytest.raises(TransportDown, match="TLS certificate not accepted"):
                bad.open()


def test_success_and_failure_go_on_record_with_host_and_tls(
    tmp_path: Path, authority: trustme.CA, certificate: str
) -> None:
    options = ("--engine", "aiosmtpd", "--cert", certificate, "--implicit-tls")
    with SmtpServer(tmp_path / "r.jsonl", options=options) as server:
        secure = SmtpTransport("127.0.0.1", server.port, security="tls", ssl_context=trusting(authority))
        session = secure.open()
        good = session.send(delivery())
        # The first is refused before anything is said, the second by the server.
        bad = session.send(delivery("two words@example.org"))
        refused = session.send(delivery("@example.org"))
        session.close()
        assert isinstance(good, Relayed)
        assert (good.reply.remote, good.reply.tls) == (secure.remote, server.messages()[0].cipher)
        assert isinstance(bad, Failed)
        assert (bad.reply.remote, bad.reply.tls) == ("", "")
        assert isinstance(refused, Failed)
        assert (refused.reply.code, refused.reply.remote) == (553, secure.remote)
        assert refused.reply.tls == good.reply.tls


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_for_another_name_is_refused(
    tmp_path: Path, authority: trustme.CA, security: Literal["starttls", "tls"]
) -> None:
    path = tmp_path / "other.pem"
    authority.issue_cert("mail.example.org").private_key_and_cert_chain_pem.write_to_path(path)
    options = (
        "--engine",
        "aiosmtpd",
        "--cert",
        str(path),
        *(["--implicit-tls"] if security == "tls" else []),
    )
    with SmtpServer(tmp_path / "r.jsonl", options=options) as server:
        wrong = SmtpTransport("127.0.0.1", server.port, security=security, ssl_context=trusting(authority))
        with pytest.raises(TransportDown, match="TLS certificate not accepted"):
            wrong.open()


def test_starttls_is_required_not_opportunistic(server: SmtpServer) -> None:
    with pytest.raises(TransportDown, match="security feature not offered"):
        SmtpTransport("127.0.0.1", server.port).open()
    assert server.count() == 0


def test_a_refused_starttls_is_an_outage(server: SmtpServer) -> None:
    server.script(Script(features=["STARTTLS"]))
    with pytest.raises(TransportDown, match="500"):
        SmtpTransport("127.0.0.1", server.port).open()


def test_abort_of_a_tls_session(tmp_path: Path, authority: trustme.CA, certificate: str) -> None:
    options = ("--engine", "aiosmtpd", "--cert", certificate, "--implicit-tls")
    with SmtpServer(tmp_path / "r.jsonl", options=options) as server:
        secure = SmtpTransport("127.0.0.1", server.port, security="tls", ssl_context=trusting(authority))
        session = secure.open()
        session.abort()
        assert not session.noop()
        session.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_auth(tmp_path: Path, mechanism: str) -> None:
    other = {"PLAIN": "LOGIN", "LOGIN": "PLAIN"}[mechanism]
    options = ("--engine", "aiosmtpd", "--auth", "app:s3cret", "--auth-exclude", other)
    with SmtpServer(tmp_path / "r.jsonl", options=options) as server:
        session = SmtpTransport(
            "127.0.0.1", server.port, security="none", username="app", password=lambda: "s3cret"
        ).open()
        assert kinds(session.send(delivery())) == ["Relayed"]
        session.close()
        assert [message.user for message in server.messages()] == ["app"]

        wrong = SmtpTransport("127.0.0.1", server.port, security="none", username="app", password="wr0ng")
        with pytest.raises(TransportDown, match=r"535 5\.7\.8 authentication refused") as caught:
            wrong.open()
        assert "wr0ng" not in str(caught.value)

        session = transport(server).open()
        with pytest.raises(TransportDown, match="530"):
            session.send(delivery())
        session.close()


def test_auth_beyond_ascii(tmp_path: Path) -> None:
    with SmtpServer(
        tmp_path / "r.jsonl", options=("--engine", "aiosmtpd", "--auth", "jürgen:schlüssel")
    ) as server:
        session = SmtpTransport(
            "127.0.0.1", server.port, security="none", username="jürgen", password="schlüssel"
        ).open()
        assert kinds(session.send(delivery())) == ["Relayed"]
        session.close()
        assert [message.user for message in server.messages()] == ["jürgen"]
        wrong = SmtpTransport("127.0.0.1", server.port, security="none", username="jürgen", password="ä")
        with pytest.raises(TransportDown, match="authentication refused"):
            wrong.open()


def test_auth_where_it_is_not_offered(server: SmtpServer) -> None:
    for password in ("x", "ä"):
        asking = SmtpTransport("127.0.0.1", server.port, security="none", username="app", password=password)
        with pytest.raises(TransportDown, match="security feature not offered"):
            asking.open()


def test_a_password_that_cannot_be_had_is_an_outage(tmp_path: Path) -> None:
    def broken() -> str:
        raise KeyError("s3cret")

    with SmtpServer(tmp_path / "r.jsonl", options=("--engine", "aiosmtpd", "--auth", "app:s3cret")) as server:
        asking = SmtpTransport("127.0.0.1", server.port, security="none", username="app", password=broken)
        with pytest.raises(TransportDown, match="KeyError") as caught:
            asking.open()
        assert "s3cret" not in str(caught.value)


# --- addresses that lead nowhere, and settings ---


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(TransportDown, match=rf":{port}: 4\.4\.1 connection refused"):
            SmtpTransport("127.0.0.1", port, security="none").open()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".invalid"])
def test_a_name_that_does_not_resolve(host: str) -> None:
    with pytest.raises(TransportDown):
        SmtpTransport(host, 25, security="none").open()


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TransportDown, match="network error"):
        LmtpTransport(str(tmp_path / "absent")).open()


def test_defaults() -> None:
    assert SmtpTransport("mail.example.org").security == "starttls"
    assert SmtpTransport("mail.example.org", 465).security == "tls"
    assert SmtpTransport("mail.example.org", 465, security="starttls").security == "starttls"
    assert LmtpTransport("/run/lmtp").security == "none"
    assert LmtpTransport("/run/lmtp").outcome is Delivered
    context = SmtpTransport("mail.example.org").ssl_context
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert SmtpTransport("mail.example.org").limits.recipients_per_delivery == 100


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_password_may_travel_in_the_clear_within_this_machine(host: str) -> None:
    assert SmtpTransport(host, security="none", username="app", password="x").security == "none"


def test_a_password_does_not_travel_in_the_clear_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="in the clear"):
        SmtpTransport("mail.example.org", security="none", username="app", password="x")
    allowed = SmtpTransport(
        "mail.example.org", security="none", username="app", password="x", allow_plaintext_auth=True
    )
    assert allowed.allow_plaintext_auth


def test_the_password_is_not_shown() -> None:
    assert "s3cret" not in repr(SmtpTransport("mail.example.org", username="app", password="s3cret"))


def test_settings_that_contradict_each_other() -> None:
    wrongs: list[Callable[[], object]] = [
        lambda: SmtpTransport(""),
        lambda: SmtpTransport("/run/lmtp"),
        lambda: SmtpTransport("mail.example.org", 0),
        lambda: SmtpTransport("mail.example.org", security="ssl"),  # type: ignore[arg-type]  # what the check is for
        lambda: SmtpTransport("mail.example.org", username="app"),
        lambda: SmtpTransport("mail.example.org", password="x"),
        lambda: LmtpTransport("/run/lmtp", security="starttls"),
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError):
            wrong()


# --- Postfix's own sink ---


@pytest.fixture
def sink() -> Iterator[int]:
    program = require("smtp-sink", "postfix")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    command = [str(program), *(["-u", "nobody"] if os.geteuid() == 0 else []), f"127.0.0.1:{port}", "100"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port))
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.mark.parametrize("pipelining", [True, False])
def test_smtp_sink(sink: int, pipelining: bool) -> None:
    # It does not offer DSN, and would refuse parameters that it did not offer.
    session = SmtpTransport("127.0.0.1", sink, security="none", pipelining=pipelining).open()
    for _ in range(50):
        assert kinds(session.send(delivery("a@example.org", "b@example.org"))) == ["Relayed", "Relayed"]
    assert session.noop()
    session.close()
