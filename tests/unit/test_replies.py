"""The one table from replies to outcomes."""

import re
import smtplib
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import TransportDown
from postroom.outcomes import MAX_REPLY_TEXT, Deferred, Delivered, Failed, Relayed, Reply
from postroom.replies import (
    EXCEPTION_TABLE,
    HTTP_TABLE,
    SMTP_TABLE,
    Phase,
    Verdict,
    exception_reply,
    http_outcome,
    http_verdict,
    one_line,
    smtp_outcome,
    smtp_reply,
    smtp_verdict,
)

OPENING = [Phase.GREETING, Phase.HELLO, Phase.STARTTLS, Phase.AUTH]


@pytest.mark.parametrize("phase", list(Phase))
def test_421_is_always_the_server(phase: Phase) -> None:
    assert smtp_verdict(421, "", phase) is Verdict.DOWN


@pytest.mark.parametrize("phase", OPENING)
@pytest.mark.parametrize("code", [334, 454, 500, 530, 535, 554])
def test_before_mail_every_refusal_is_the_server(phase: Phase, code: int) -> None:
    with pytest.raises(TransportDown, match=str(code)):
        smtp_outcome(Reply("no", "", code), phase)


@pytest.mark.parametrize(
    ("code", "given", "phase", "kind", "status"),
    [
        (250, "", Phase.CONTENT, Relayed, "2.0.0"),
        (250, "2.6.0", Phase.CONTENT, Relayed, "2.6.0"),
        (251, "", Phase.RCPT, Relayed, "2.0.0"),
        (450, "", Phase.RCPT, Deferred, "4.2.0"),
        (451, "4.7.1", Phase.RCPT, Deferred, "4.7.1"),
        (452, "", Phase.RCPT, Deferred, "4.5.3"),
        (452, "4.2.2", Phase.RCPT, Deferred, "4.2.2"),
        (452, "", Phase.MAIL, Deferred, "4.3.1"),
        (552, "", Phase.RCPT, Deferred, "4.5.3"),
        (552, "5.5.3", Phase.RCPT, Deferred, "4.5.3"),
        (552, "5.2.2", Phase.RCPT, Deferred, "4.2.2"),
        (552, "5.3.4", Phase.RCPT, Failed, "5.3.4"),
        (552, "5.2.3", Phase.RCPT, Failed, "5.2.3"),
        (552, "", Phase.CONTENT, Failed, "5.3.4"),
        (550, "", Phase.RCPT, Failed, "5.0.0"),
        (550, "5.1.1", Phase.RCPT, Failed, "5.1.1"),
        (553, "", Phase.RCPT, Failed, "5.1.3"),
        (501, "", Phase.RCPT, Failed, "5.5.0"),
        (555, "", Phase.MAIL, Failed, "5.5.0"),
        (554, "", Phase.DATA, Failed, "5.0.0"),
        (250, "", Phase.DATA, Deferred, "4.5.0"),
        (354, "", Phase.CONTENT, Deferred, "4.5.0"),
    ],
)
def test_what_a_reply_means(code: int, given: str, phase: Phase, kind: type[object], status: str) -> None:
    outcome = smtp_outcome(Reply("text", given, code, "mx:25"), phase)
    assert type(outcome) is kind
    assert outcome.reply == Reply("text", status, code, "mx:25")


def test_the_last_hop_delivers() -> None:
    assert isinstance(smtp_outcome(Reply("ok", "", 250), Phase.CONTENT, Delivered), Delivered)


@given(st.integers(100, 599), st.sampled_from(list(Phase)), st.sampled_from(["", "2.0.0", "4.4.4", "5.2.3"]))
def test_every_reply_has_a_row_and_a_fitting_status(code: int, phase: Phase, status: str) -> None:
    try:
        outcome = smtp_outcome(Reply("x", status, code), phase)
    except TransportDown:
        assert smtp_verdict(code, status, phase) is Verdict.DOWN
        return
    assert isinstance(outcome, Relayed | Failed | Deferred)
    wanted = {Relayed: "2", Failed: "5", Deferred: "4"}[type(outcome)]
    assert outcome.reply.status.startswith(wanted) or (phase is Phase.DATA and code // 100 == 3)
    if isinstance(outcome, Failed):
        assert code >= 500
    if isinstance(outcome, Relayed):
        assert code < 400


def test_no_row_is_hidden_by_those_above_it() -> None:
    smtp: set[int] = set()
    for code in range(100, 600):
        for phase in Phase:
            for given_status in ("", "5.3.4", "5.1.1"):
                smtp.add(
                    next(
                        index
                        for index, row in enumerate(SMTP_TABLE)
                        if phase in row.phases
                        and re.fullmatch(row.codes, str(code))
                        and re.fullmatch(row.given, given_status)
                    )
                )
    assert smtp == set(range(len(SMTP_TABLE)))
    http = {
        next(index for index, row in enumerate(HTTP_TABLE) if re.fullmatch(row.statuses, str(status)))
        for status in range(100, 600)
    }
    assert http == set(range(len(HTTP_TABLE)))
    for index, row in enumerate(EXCEPTION_TABLE):
        assert not any(issubclass(row.exception, above.exception) for above in EXCEPTION_TABLE[:index])


@pytest.mark.parametrize(
    ("code", "lines", "status", "text"),
    [
        (250, ["2.0.0 Ok"], "2.0.0", "Ok"),
        (250, ["Ok"], "", "Ok"),
        (250, [""], "", ""),
        (250, [], "", ""),
        (550, ["5.7.1 Go", "5.7.1  away,", "5.7.1 please"], "5.7.1", "Go away, please"),
        (550, ["4.7.1 contradiction"], "", "4.7.1 contradiction"),
        (550, ["5.7.1"], "5.7.1", ""),
        (550, ["5.7.12345 x"], "", "5.7.12345 x"),
        (550, ["10.5.7.1 is blocked"], "", "10.5.7.1 is blocked"),
        (550, ["a\tb\x00c\x1b[0m\r"], "", "a b c [0m"),
    ],
)
def test_reading_a_reply(code: int, lines: list[str], status: str, text: str) -> None:
    assert smtp_reply(code, lines, "mx:25") == Reply(text, status, code, "mx:25")


@given(st.text())
def test_text_is_one_printable_line(text: str) -> None:
    line = one_line(text * 50)
    assert len(line) <= MAX_REPLY_TEXT
    assert line.isprintable()
    assert line == line.strip() or len(line) == MAX_REPLY_TEXT


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.OK),
        (202, Verdict.OK),
        (204, Verdict.OK),
        (100, Verdict.DEFERRED),
        (301, Verdict.FAILED),
        (302, Verdict.DEFERRED),
        (308, Verdict.FAILED),
        (400, Verdict.FAILED),
        (401, Verdict.DEFERRED),
        (403, Verdict.DEFERRED),
        (404, Verdict.DEFERRED),
        (408, Verdict.DEFERRED),
        (409, Verdict.DEFERRED),
        (410, Verdict.FAILED),
        (413, Verdict.FAILED),
        (422, Verdict.FAILED),
        (425, Verdict.DEFERRED),
        (429, Verdict.DEFERRED),
        (500, Verdict.DEFERRED),
        (501, Verdict.FAILED),
        (503, Verdict.DEFERRED),
        (599, Verdict.DEFERRED),
    ],
)
def test_what_an_http_status_means(status: int, verdict: Verdict) -> None:
    assert http_verdict(status) is verdict
    kind = {Verdict.OK: Delivered, Verdict.DEFERRED: Deferred, Verdict.FAILED: Failed}[verdict]
    outcome = http_outcome(status, text="said\nso", remote="hooks.example.org")
    assert type(outcome) is kind
    assert outcome.reply.code == status
    assert outcome.reply.text == "said so"
    assert outcome.reply.remote == "hooks.example.org"
    assert outcome.reply.status[0] == {Delivered: "2", Deferred: "4", Failed: "5"}[kind]


def test_retry_after_is_passed_on() -> None:
    outcome = http_outcome(429, 30.0)
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after == 30.0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "4.4.3 host name not resolved"),
        (ConnectionRefusedError(111, "Connection refused"), "4.4.1 connection refused"),
        (ConnectionResetError(104, "reset"), "4.4.2 connection lost"),
        (TimeoutError("timed out"), "4.4.2 timed out"),
        (ssl.SSLCertVerificationError("self-signed"), "4.7.5 TLS certificate not accepted: "),
        (ssl.SSLError("bad record"), "4.7.5 TLS failed"),
        (
            smtplib.SMTPAuthenticationError(535, b"5.7.8 wrong\n5.7.8 password"),
            "535 5.7.8 authentication refused: wrong",
        ),
        (smtplib.SMTPConnectError(554, "go away"), "554 4.3.0 refused: go away"),
        (smtplib.SMTPNotSupportedError("no STARTTLS"), "4.7.4 security feature not offered: no STARTTLS"),
        (smtplib.SMTPServerDisconnected("gone"), "4.4.2 connection lost: gone"),
        (smtplib.SMTPException("no mechanism"), "4.5.0 protocol error: no mechanism"),
        (OSError(101, "Network is unreachable"), "4.4.1 network error"),
        (ValueError(), "4.3.0 error"),
    ],
)
def test_what_an_exception_is_called(error: Exception, said: str) -> None:
    assert str(exception_reply(error, "mx:25")).startswith(f"mx:25: {said}")
