"""The one table from replies to outcomes."""

import math
import re
import smtplib
import socket
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import MAX_REPLY_TEXT, Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.replies import (
    EXCEPTION_NAMES,
    HTTP_TABLE,
    SMTP_TABLE,
    Phase,
    ReplyRow,
    Verdict,
    exception_reply,
    hinted_wait,
    http_table,
    one_line,
    smtp_reply,
    smtp_table,
    written,
)
from postroom.reply_rows import OPENING, TRANSACTION
from postroom.retries import MAX_RETRY_AFTER

SMTP = smtp_table()
HTTP = http_table()
SMTP_PHASES = sorted(OPENING | TRANSACTION, key=lambda phase: phase.value)
BEFORE_MAIL = sorted(OPENING, key=lambda phase: phase.value)


def http(status: int, retry_after: float | None = None, text: str = "", remote: str = "") -> Outcome:
    reply = Reply(text, "", status, remote)
    return HTTP.outcome(reply, Phase.REQUEST, success=Delivered, retry_after=retry_after)


@pytest.mark.parametrize("phase", SMTP_PHASES)
def test_421_is_always_the_server(phase: Phase) -> None:
    assert SMTP.verdict(421, "", phase) is Verdict.TRANSPORT_DOWN


@pytest.mark.parametrize("phase", BEFORE_MAIL)
@pytest.mark.parametrize("code", [334, 454, 500, 530, 535, 554])
def test_before_mail_every_refusal_is_the_server(phase: Phase, code: int) -> None:
    with pytest.raises(TransportDown, match=str(code)):
        SMTP.outcome(Reply("no", "", code), phase)


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
    outcome = SMTP.outcome(Reply("text", given, code, "mx:25", "TLSv1.3"), phase)
    assert type(outcome) is kind
    assert outcome.reply == Reply("text", status, code, "mx:25", "TLSv1.3")


def test_the_last_hop_delivers() -> None:
    outcome = SMTP.outcome(Reply("ok", "", 250), Phase.CONTENT, success=Delivered)
    assert isinstance(outcome, Delivered)


ANY_TEXT = st.one_of(
    st.text(),
    st.sampled_from(["Greylisted, try again in 5 minutes", "please try again later", "in 00:05:00", "busy"]),
)
ANY_STATUS = st.one_of(
    st.sampled_from(["", "2.0.0", "4.4.4", "4.7.1", "4.3.2", "5.2.3"]), st.text(max_size=12)
)


@given(st.integers(100, 599), st.sampled_from(SMTP_PHASES), ANY_STATUS, ANY_TEXT, st.integers(0, 100))
def test_no_reply_crashes_the_table_and_errors_are_temporary_unless_a_row_says_otherwise(
    code: int, phase: Phase, status: str, text: str, attempts: int
) -> None:
    reply = smtp_reply(code, [f"{status} {text}"])
    row = SMTP.row(code, reply.status, phase, text=reply.text, attempts=attempts)
    try:
        outcome = SMTP.outcome(reply, phase, attempts=attempts)
    except TransportDown:
        assert row.means is Verdict.TRANSPORT_DOWN
        return
    assert isinstance(outcome, Relayed | Failed | Deferred)
    wanted = {Relayed: "2", Failed: "5", Deferred: "4"}[type(outcome)]
    assert outcome.reply.status.startswith(wanted) or (phase is Phase.DATA and code // 100 == 3)
    if isinstance(outcome, Failed):
        assert code >= 500
        assert row.means is Verdict.FAILED
    if isinstance(outcome, Relayed):
        assert code < 400
    if isinstance(outcome, Deferred):
        assert outcome.greylisted == (row.means is Verdict.GREYLISTED)
        assert not outcome.destination_down
        assert outcome.retry_after is None or 0 < outcome.retry_after <= MAX_RETRY_AFTER


@given(st.integers(100, 599), st.text(), st.none() | st.floats(0, MAX_RETRY_AFTER), st.integers(0, 100))
def test_no_answer_over_http_crashes_the_table(
    code: int, text: str, asked: float | None, attempts: int
) -> None:
    outcome = HTTP.outcome(
        Reply(text, "", code), Phase.REQUEST, success=Delivered, retry_after=asked, attempts=attempts
    )
    means = HTTP.row(code, "", Phase.REQUEST, asked=asked is not None).means
    assert isinstance(outcome, Failed) == (means is Verdict.FAILED)
    assert isinstance(outcome, Delivered) == (200 <= code < 300)
    if isinstance(outcome, Deferred):
        assert outcome.retry_after == asked


def test_no_row_is_hidden_by_those_above_it() -> None:
    texts = ["x", "greylisted", "try again later"]
    smtp = {
        SMTP.rows.index(SMTP.row(code, status, phase, text=text, attempts=attempts))
        for code in range(100, 600)
        for phase in SMTP_PHASES
        for status in ("", "4.7.1", "4.3.2", "5.3.4", "5.1.1")
        for text in texts
        for attempts in (0, 1)
    }
    assert smtp == {index for index, row in enumerate(SMTP_TABLE) if row.exception is None}
    http = {
        HTTP.rows.index(HTTP.row(code, "", Phase.REQUEST, asked=asked))
        for code in range(100, 600)
        for asked in (False, True)
    }
    assert http == {index for index, row in enumerate(HTTP_TABLE) if row.exception is None}
    for index, name in enumerate(EXCEPTION_NAMES):
        assert not any(issubclass(name.exception, above.exception) for above in EXCEPTION_NAMES[:index])


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
    assert smtp_reply(code, lines, "mx:25", "TLSv1.2") == Reply(text, status, code, "mx:25", "TLSv1.2")


@given(st.text())
def test_text_is_one_printable_line(text: str) -> None:
    line = one_line(text * 50)
    assert len(line) <= MAX_REPLY_TEXT
    assert line.isprintable()
    assert line == line.strip() or len(line) == MAX_REPLY_TEXT


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (450, "4.2.0", "<b@x.org>: Recipient address rejected: Greylisted, see http://postgrey.example/help"),
        (451, "4.7.1", "Greylisting in action, please come back in 00:05:00"),
        (421, "", "graylisted; try later"),
        (450, "4.7.1", "Try again later"),
        (451, "4.7.0", ""),
        (451, "", "Please try again later"),
        (450, "4.2.0", "not now, retry in a while, again"),
        (450, "4.3.2", "Service currently unavailable"),
    ],
)
def test_greylisting_is_recognised_at_the_first_attempt(code: int, status: str, text: str) -> None:
    outcome = SMTP.outcome(Reply(text, status, code), Phase.RCPT)
    assert isinstance(outcome, Deferred)
    assert outcome.greylisted


@pytest.mark.parametrize(
    ("reply", "phase", "attempts"),
    [
        (Reply("Try again later", "4.7.1", 450), Phase.RCPT, 1),
        (Reply("Greylisted", "4.7.1", 450), Phase.MAIL, 0),
        (Reply("mailbox full", "4.2.2", 452), Phase.RCPT, 0),
        (Reply("mailbox busy", "4.2.0", 450), Phase.RCPT, 0),
        (Reply("lookup failure, try again later", "4.4.3", 451), Phase.RCPT, 0),
    ],
)
def test_what_is_no_greylisting(reply: Reply, phase: Phase, attempts: int) -> None:
    outcome = SMTP.outcome(reply, phase, attempts=attempts)
    assert isinstance(outcome, Deferred)
    # At MAIL the server cannot know yet to whom it goes, so that 4.7.1 is about the sender.
    assert not outcome.greylisted


def test_who_says_greylisting_is_believed_at_any_attempt() -> None:
    outcome = SMTP.outcome(Reply("greylisted for 300 seconds", "4.7.1", 450), Phase.RCPT, attempts=7)
    assert isinstance(outcome, Deferred)
    assert (outcome.greylisted, outcome.retry_after) == (True, 300.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, try again in 5 minutes", 300),
        ("greylisted for 300 seconds", 300),
        ("retry after 1 hour", 3600),
        ("wait 90s please", 90),
        ("come back in 00:05:30", 330),
        ("try in about 10 min.", 600),
        ("in 5 minutes; I said: in 300 seconds", 300),
        ("in 5 minutes or in 10 minutes", None),
        ("try again within 5 minutes", None),
        ("try again later", None),
        ("in 0 seconds", None),
        ("in 5 mice", None),
        ("for 999999 hours", MAX_RETRY_AFTER),
        ("blocked for 10.1.2.3 s", None),
    ],
)
def test_a_time_in_the_text(text: str, seconds: float | None) -> None:
    assert hinted_wait(text) == seconds


@given(st.text())
def test_no_text_breaks_the_search_for_a_time(text: str) -> None:
    wait = hinted_wait(text)
    assert wait is None or 0 < wait <= MAX_RETRY_AFTER


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
        (429, Verdict.DESTINATION_DOWN),
        (500, Verdict.DEFERRED),
        (501, Verdict.FAILED),
        (503, Verdict.DEFERRED),
        (599, Verdict.DEFERRED),
    ],
)
def test_what_an_http_status_means(status: int, verdict: Verdict) -> None:
    assert HTTP.verdict(status, "", Phase.REQUEST) is verdict
    kind = {Verdict.OK: Delivered, Verdict.FAILED: Failed}.get(verdict, Deferred)
    outcome = http(status, text="said so", remote="hooks.example.org")
    assert type(outcome) is kind
    assert outcome.reply.code == status
    assert outcome.reply.text == "said so"
    assert outcome.reply.remote == "hooks.example.org"
    assert outcome.reply.status[0] == {Delivered: "2", Deferred: "4", Failed: "5"}[kind]
    if isinstance(outcome, Deferred):
        assert outcome.destination_down == (verdict is Verdict.DESTINATION_DOWN)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_pauses_the_host(status: int) -> None:
    outcome = http(status, 30.0)
    assert isinstance(outcome, Deferred)
    assert (outcome.retry_after, outcome.destination_down) == (30.0, True)


def test_retry_after_of_another_answer_is_about_the_recipient() -> None:
    outcome = http(500, 30.0)
    assert isinstance(outcome, Deferred)
    assert (outcome.retry_after, outcome.destination_down) == (30.0, False)


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
    assert SMTP.outage(error, "mx:25").reason == str(exception_reply(error, "mx:25"))


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.REQUEST])
@pytest.mark.parametrize(
    "error",
    [socket.gaierror(-2, "unknown"), ConnectionRefusedError(), TimeoutError(), ssl.SSLError("x"), KeyError()],
)
def test_a_host_that_cannot_be_connected_to_is_down(error: Exception, phase: Phase) -> None:
    outcome = HTTP.exception_outcome(error, phase, exception_reply(error))
    assert isinstance(outcome, Deferred)
    assert outcome.destination_down == (phase is Phase.CONNECT)


def test_own_rows_come_first() -> None:
    table = smtp_table(
        [
            ReplyRow(Verdict.FAILED, codes="451", text="no such TENANT", status="5.1.1"),
            ReplyRow(Verdict.DESTINATION_DOWN, given="4.4.*", retry_after=600),
            ReplyRow(Verdict.GREYLISTED, codes="471", attempts=2),
            ReplyRow(Verdict.DEFERRED, codes="550", text="quota", phases=frozenset({Phase.RCPT})),
            ReplyRow(Verdict.TRANSPORT_DOWN, codes="554", text="daily limit", retry_after=3600),
            ReplyRow(Verdict.DESTINATION_DOWN, codes="421", text="too many connections from you to them"),
        ]
    )

    def outcome(said: Reply, attempts: int = 0, phase: Phase = Phase.RCPT) -> Outcome:
        return table.outcome(said, phase, attempts=attempts)

    assert outcome(Reply("No such tenant", "", 451)) == Failed(Reply("No such tenant", "5.1.1", 451))
    assert outcome(Reply("no such tenant", "4.3.0", 451)) == Failed(Reply("no such tenant", "5.3.0", 451))
    assert outcome(Reply("a", "4.3.0", 451)) == Deferred(Reply("a", "4.3.0", 451))
    assert outcome(Reply("a", "4.4.1", 450)) == Deferred(
        Reply("a", "4.4.1", 450), 600.0, destination_down=True
    )
    assert outcome(Reply("a", "", 471), 1) == Deferred(Reply("a", "4.0.0", 471), greylisted=True)
    assert outcome(Reply("a", "", 471), 2) == Deferred(Reply("a", "4.0.0", 471))
    assert outcome(Reply("over quota", "5.2.2", 550)) == Deferred(Reply("over quota", "4.2.2", 550))
    assert isinstance(outcome(Reply("over quota", "5.2.2", 550), phase=Phase.CONTENT), Failed)
    with pytest.raises(TransportDown) as caught:
        outcome(Reply("daily limit reached", "", 554), phase=Phase.MAIL)
    assert caught.value.retry_after == 3600
    assert isinstance(outcome(Reply("too many connections from you to them", "", 421)), Deferred)
    with pytest.raises(TransportDown):
        outcome(Reply("closing", "", 421))


def test_own_rows_cannot_undo_a_success_or_the_opening_of_a_session() -> None:
    table = smtp_table([ReplyRow(Verdict.FAILED, text="spam")])
    assert isinstance(table.outcome(Reply("250 spam queued", "", 250), Phase.CONTENT), Relayed)
    assert table.verdict(354, "", Phase.DATA) is Verdict.OK
    assert table.verdict(354, "", Phase.CONTENT) is Verdict.NONSENSE
    assert isinstance(table.outcome(Reply("spam", "", 451), Phase.CONTENT), Failed)
    with pytest.raises(TransportDown):
        table.outcome(Reply("spam", "", 554), Phase.CONNECT)


def test_own_rows_about_exceptions() -> None:
    smtp = smtp_table(
        [ReplyRow(Verdict.TRANSPORT_DOWN, exception=smtplib.SMTPAuthenticationError, retry_after=900)]
    )
    assert smtp.outage(smtplib.SMTPAuthenticationError(535, "no"), "mx").retry_after == 900
    assert smtp.outage(ConnectionRefusedError(), "mx").retry_after is None
    rows = [
        ReplyRow(Verdict.FAILED, exception=ssl.SSLCertVerificationError, text="expired"),
        ReplyRow(Verdict.TRANSPORT_DOWN, exception=socket.gaierror),
    ]
    table = http_table(rows)
    expired = ssl.SSLCertVerificationError("certificate has expired")
    outcome = table.exception_outcome(expired, Phase.CONNECT, exception_reply(expired))
    assert isinstance(outcome, Failed)
    assert outcome.reply.status == "5.7.5"
    other = ssl.SSLCertVerificationError("self-signed")
    assert isinstance(table.exception_outcome(other, Phase.CONNECT, exception_reply(other)), Deferred)
    unknown = socket.gaierror(-3, "no resolver")
    with pytest.raises(TransportDown, match="no resolver"):
        table.exception_outcome(unknown, Phase.CONNECT, exception_reply(unknown))


def test_a_receiver_that_says_200_and_means_no() -> None:
    table = http_table([ReplyRow(Verdict.FAILED, codes="200", text='"ok": *false', status="5.0.0")])
    reply = Reply('{"ok": false}', "", 200)
    assert isinstance(table.outcome(reply, Phase.REQUEST, success=Delivered), Failed)
    assert isinstance(table.outcome(Reply("ok", "", 200), Phase.REQUEST, success=Delivered), Delivered)


@given(
    st.sampled_from([v for v in Verdict if v not in {Verdict.OK, Verdict.NONSENSE}]),
    st.sampled_from(["4..", "45[01]", "...", "550"]),
    st.sampled_from(["*", "", "4.7.*", "4.?.1|5.*"]),
    st.sampled_from(["", "x", "a.*b", "^$"]),
    st.integers(400, 599),
    ANY_STATUS,
    ANY_TEXT,
    st.integers(0, 5),
)
def test_own_rows_decide_where_they_match_and_nowhere_else(  # noqa: PLR0917
    means: Verdict, codes: str, globs: str, pattern: str, code: int, status: str, text: str, attempts: int
) -> None:
    if codes == "...":
        codes = "[45].."
    own = ReplyRow(means, codes, globs, pattern, attempts=3)
    table = smtp_table([own])
    reply = smtp_reply(code, [f"{status} {text}"])
    row = table.row(code, reply.status, Phase.RCPT, text=reply.text, attempts=attempts)
    expected = (
        re.fullmatch(codes, str(code)) is not None
        and attempts < 3
        and own.matches(code, reply.status, Phase.RCPT)
        and re.search(pattern, reply.text, re.IGNORECASE) is not None
    )
    assert (row == own) == expected
    if not expected:
        assert row == SMTP.row(code, reply.status, Phase.RCPT, text=reply.text, attempts=attempts)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"means": "nonsensical"}, "replies.means"),
        ({"codes": "4["}, "replies.codes"),
        ({"codes": "45"}, "replies.codes"),
        ({"codes": "6.."}, "replies.codes"),
        ({"text": "("}, "replies.text"),
        ({"given": "policy"}, "replies.given"),
        ({"phases": frozenset[Phase]()}, "replies.phases"),
        ({"attempts": 0}, "replies.attempts"),
        ({"retry_after": 0.0}, "replies.retry_after"),
        ({"retry_after": math.nan}, "replies.retry_after"),
        ({"retry_after": 1e9}, "replies.retry_after"),
        ({"means": "failed", "retry_after": 60.0}, "replies.retry_after"),
        ({"status": "4.7"}, "replies.status"),
        ({"status": "5.7.1"}, "replies.status"),
        ({"exception": OSError, "codes": "450"}, "replies.exception"),
    ],
)
def test_a_wrong_row_is_refused(options: dict[str, Any], field: str) -> None:
    defaults: dict[str, Any] = {"means": Verdict.DEFERRED}
    with pytest.raises(ConfigurationError) as caught:
        ReplyRow(**(defaults | options))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (ReplyRow(Verdict.OK, codes="450"), "replies[1].means"),
        (ReplyRow(Verdict.NONSENSE, codes="450"), "replies[1].means"),
        (ReplyRow(Verdict.FAILED), "replies[1]"),
        (ReplyRow(Verdict.DEFERRED, retry_after=60, why="all of them"), "replies[1]"),
        (ReplyRow(Verdict.FAILED, codes="2.."), "replies[1].codes"),
        (ReplyRow(Verdict.FAILED, codes="..."), "replies[1].codes"),
        (ReplyRow(Verdict.FAILED, text="x", phases=frozenset({Phase.AUTH})), "replies[1].phases"),
        (ReplyRow(Verdict.FAILED, text="x", phases=frozenset({Phase.REQUEST})), "replies[1].phases"),
        (ReplyRow(Verdict.FAILED, exception=OSError), "replies[1].means"),
        (
            ReplyRow(Verdict.TRANSPORT_DOWN, exception=OSError, phases=frozenset({Phase.RCPT})),
            "replies[1].phases",
        ),
        (ReplyRow(Verdict.DEFERRED, codes="450", asked=True), "replies[1].asked"),
        ("450 is failed", "replies[1]"),
    ],
)
def test_an_own_row_that_smtp_has_no_use_for_is_refused(row: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        smtp_table([ReplyRow(Verdict.DEFERRED, codes="550"), row])
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (ReplyRow(Verdict.FAILED, given="4.7.*"), "replies[0].given"),
        (ReplyRow(Verdict.FAILED, codes="500", phases=frozenset({Phase.CONNECT})), "replies[0].phases"),
        (ReplyRow(Verdict.FAILED, exception=OSError, phases=frozenset({Phase.RCPT})), "replies[0].phases"),
        (ReplyRow(Verdict.OK, codes="404"), "replies[0].means"),
    ],
)
def test_an_own_row_that_http_has_no_use_for_is_refused(row: ReplyRow, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        http_table([row])
    assert caught.value.field == field


def test_a_verdict_may_be_text() -> None:
    unchecked: Any = "destination_down"
    assert ReplyRow(unchecked, codes="429").means is Verdict.DESTINATION_DOWN


def test_the_table_can_be_shown() -> None:
    own = ReplyRow(Verdict.GREYLISTED, "45.", "4.7.*", "wait", retry_after=90, attempts=2, why="ours")
    lines = written(smtp_table([own]).rows)
    assert lines[0] == ("45. 4.7.* /wait/", "first 2 attempts", "greylisted, after 90 s", "ours")
    assert ("421", "", "transport down 4.3.2", "RFC 5321 3.8: the server is closing") in lines
    assert (
        "...",
        "before MAIL",
        "transport down 4.3.0",
        "no message was mentioned: it is about us, or all",
    ) in lines
    assert lines[-1][0] == "BaseException"
    assert ("503", "request; with Retry-After", "destination down 4.3.2") in [
        line[:3] for line in written(HTTP.rows)
    ]
