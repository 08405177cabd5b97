"""What a remote reply means for a recipient: the one table for SMTP, LMTP, HTTP and exceptions.

Read the tables from the top: the first row that matches decides. The functions below them are pure, so that a
transport only has to say what was answered and when. Errors are temporary unless a row says otherwise.
"""

import re
import smtplib
import socket
import ssl
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from postroom.errors import TransportDown
from postroom.outcomes import MAX_REPLY_TEXT, Deferred, Delivered, Failed, Outcome, Relayed, Reply

__all__ = [
    "EXCEPTION_TABLE",
    "HTTP_TABLE",
    "SMTP_TABLE",
    "ExceptionRow",
    "HttpRow",
    "Phase",
    "SmtpRow",
    "Verdict",
    "exception_reply",
    "http_outcome",
    "http_verdict",
    "one_line",
    "smtp_outcome",
    "smtp_reply",
    "smtp_verdict",
]


class Phase(Enum):
    """What an SMTP or LMTP reply answers."""

    GREETING = "connect"
    HELLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    CONTENT = "end of data"


class Verdict(Enum):
    """What a reply means."""

    OK = auto()
    DEFERRED = auto()
    """Temporary, for what the command was about: a recipient, or the message."""
    FAILED = auto()
    """Permanent, likewise."""
    DOWN = auto()
    """The messaging system as a whole does not serve us now."""
    NONSENSE = auto()
    """No server that is in step answers so. Temporary, and the session cannot be used further."""


OK, DEFERRED, FAILED, DOWN, NONSENSE = Verdict

OPENING = frozenset({Phase.GREETING, Phase.HELLO, Phase.STARTTLS, Phase.AUTH})
ANY = frozenset(Phase)
MAIL, RCPT, DATA, CONTENT = (
    frozenset({phase}) for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.CONTENT)
)


@dataclass(frozen=True, slots=True)
class SmtpRow:
    """One row of the SMTP table.

    Attributes:
        phases: the commands it is about.
        codes: reply codes, as a regular expression over three digits.
        verdict: what they mean.
        status: the enhanced status code (RFC 3463) when the server gave none.
        given: only when the server's own enhanced status code, "" for none, matches this regular expression.
        why: the source of the row.
    """

    phases: frozenset[Phase]
    codes: str
    verdict: Verdict
    status: str
    why: str
    given: str = ".*"


SMTP_TABLE: tuple[SmtpRow, ...] = (
    SmtpRow(ANY,     "421",         DOWN,     "4.3.2", "RFC 5321 3.8: the server is closing"),
    SmtpRow(OPENING, "2..",         OK,       "2.0.0", "RFC 5321 4.2.1"),
    SmtpRow(OPENING, "...",         DOWN,     "4.3.0", "no message was mentioned: it is about us, or all"),
    SmtpRow(MAIL,    "53[0458]",    DOWN,     "4.7.0", "RFC 4954 6: our credentials or TLS, not the message"),
    SmtpRow(MAIL,    "521|454",     DOWN,     "4.3.2", "RFC 7504, RFC 3207 4: it takes no mail, or none now"),
    SmtpRow(DATA,    "3..",         OK,       "",      "RFC 5321 4.1.1.4: 354, send the content"),
    SmtpRow(DATA,    "2..",         NONSENSE, "4.5.0", "it answers another command"),
    SmtpRow(RCPT,    "552",         FAILED,   "5.3.4", "the message is too big", given=r"5\.(2\.3|3\.4)"),
    SmtpRow(RCPT,    "552",         DEFERRED, "4.5.3", "RFC 5321 4.5.3.1.10: too many recipients is 452"),
    SmtpRow(ANY,     "2..",         OK,       "2.0.0", "RFC 5321 4.2.1"),
    SmtpRow(ANY,     "450",         DEFERRED, "4.2.0", "RFC 5321 4.2.3: mailbox busy or blocked for now"),
    SmtpRow(ANY,     "451",         DEFERRED, "4.3.0", "RFC 5321 4.2.3: local error in processing"),
    SmtpRow(RCPT,    "452",         DEFERRED, "4.5.3", "RFC 5321 4.5.3.1.10: too many recipients"),
    SmtpRow(ANY,     "452",         DEFERRED, "4.3.1", "RFC 5321 4.2.3: insufficient storage"),
    SmtpRow(ANY,     "4..",         DEFERRED, "4.0.0", "RFC 5321 4.2.1: transient negative"),
    SmtpRow(ANY,     "50[0-4]|555", FAILED,   "5.5.0", "RFC 5321 4.2.3: syntax or parameters refused"),
    SmtpRow(ANY,     "552",         FAILED,   "5.3.4", "RFC 5321 4.2.3: exceeded storage allocation"),
    SmtpRow(RCPT,    "553",         FAILED,   "5.1.3", "RFC 5321 4.2.3: mailbox name not allowed"),
    SmtpRow(ANY,     "5..",         FAILED,   "5.0.0", "RFC 5321 4.2.1: permanent negative"),
    SmtpRow(ANY,     "...",         NONSENSE, "4.5.0", "not a reply to what was sent"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpRow:
    """One row of the HTTP table.

    Attributes:
        statuses: HTTP status codes, as a regular expression over three digits.
        verdict: what they mean for the recipient.
        status: the enhanced status code (RFC 3463) that stands for it in reports.
        why: the source of the row.
    """

    statuses: str
    verdict: Verdict
    status: str
    why: str


HTTP_TABLE: tuple[HttpRow, ...] = (
    HttpRow("2..",             OK,       "2.0.0", "RFC 9110 15.3"),
    HttpRow("410",             FAILED,   "5.1.6", "RFC 9110 15.5.11: gone, and likely for good"),
    HttpRow("301|308",         FAILED,   "5.1.6", "RFC 9110 15.4: it moved for good; mend the address"),
    HttpRow("413",             FAILED,   "5.3.4", "RFC 9110 15.5.14: content too large"),
    HttpRow("415|406|422",     FAILED,   "5.6.1", "RFC 9110 15.5: this content is not understood"),
    HttpRow("400|405|411|414", FAILED,   "5.5.0", "the same request will be refused again"),
    HttpRow("431|501|505",     FAILED,   "5.5.0", "likewise"),
    HttpRow("451",             FAILED,   "5.7.1", "RFC 7725: legal reasons"),
    HttpRow("401|403|407",     DEFERRED, "4.7.0", "credentials are mended by people, in time"),
    HttpRow("404|421",         DEFERRED, "4.1.0", "RFC 9110 15.5.5: may be temporary (a deployment)"),
    HttpRow("408|504",         DEFERRED, "4.4.2", "RFC 9110 15.5.9: time-out"),
    HttpRow("429|503",         DEFERRED, "4.3.2", "RFC 6585 4: too many requests; Retry-After counts"),
    HttpRow("507",             DEFERRED, "4.3.1", "RFC 4918 11.5: insufficient storage"),
    HttpRow("5..",             DEFERRED, "4.3.0", "RFC 9110 15.6: the server failed"),
    HttpRow("...",             DEFERRED, "4.5.0", "anything else is temporary"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    """What an exception while talking to a remote system is called on the record.

    It is the transport that knows whether it was the whole system (``TransportDown``) or one destination
    (``Deferred``). All are temporary.
    """

    exception: type[BaseException]
    status: str
    text: str


EXCEPTION_TABLE: tuple[ExceptionRow, ...] = (
    ExceptionRow(ssl.SSLCertVerificationError,     "4.7.5", "TLS certificate not accepted"),
    ExceptionRow(ssl.SSLError,                     "4.7.5", "TLS failed"),
    ExceptionRow(socket.gaierror,                  "4.4.3", "host name not resolved"),
    ExceptionRow(ConnectionRefusedError,           "4.4.1", "connection refused"),
    ExceptionRow(smtplib.SMTPAuthenticationError,  "4.7.8", "authentication refused"),
    ExceptionRow(smtplib.SMTPNotSupportedError,    "4.7.4", "security feature not offered"),
    ExceptionRow(smtplib.SMTPResponseException,    "4.3.0", "refused"),
    ExceptionRow(smtplib.SMTPServerDisconnected,   "4.4.2", "connection lost"),
    ExceptionRow(smtplib.SMTPException,            "4.5.0", "protocol error"),
    ExceptionRow(TimeoutError,                     "4.4.2", "timed out"),
    ExceptionRow(ConnectionError,                  "4.4.2", "connection lost"),
    ExceptionRow(OSError,                          "4.4.1", "network error"),
    ExceptionRow(BaseException,                    "4.3.0", "error"),
)  # fmt: skip


def one_line(text: str) -> str:
    """Return ``text`` on one line without control characters, cut to ``MAX_REPLY_TEXT`` characters."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:MAX_REPLY_TEXT]


_ENHANCED = re.compile(r"([245])\.\d{1,3}\.\d{1,3}(?=\s|$)")


def smtp_reply(code: int, lines: list[str], remote: str = "") -> Reply:
    """Return the record of an SMTP reply.

    An enhanced status code is taken from the text where its class agrees with ``code`` (RFC 2034 section 4)
    and is removed from every line that carries it.

    Args:
        code: the reply code.
        lines: the text of each line, without the code.
        remote: the host that said it.
    """
    first = _ENHANCED.match(lines[0]) if lines else None
    if first is None or int(first[1]) != code // 100:
        return Reply(one_line(" ".join(lines)), "", code, remote)
    status = first[0]
    text = " ".join(line.removeprefix(status).strip() for line in lines)
    return Reply(one_line(text), status, code, remote)


@lru_cache(maxsize=512)
def _smtp_row(code: int, status: str, phase: Phase) -> SmtpRow:
    text = f"{code:03d}"
    return next(
        row
        for row in SMTP_TABLE
        if phase in row.phases and re.fullmatch(row.codes, text) and re.fullmatch(row.given, status)
    )


def smtp_verdict(code: int, status: str, phase: Phase) -> Verdict:
    """Return what the SMTP table says of a reply.

    Args:
        code: the reply code, 100 to 599.
        status: the server's enhanced status code, or "".
        phase: what was answered.
    """
    return _smtp_row(code, status, phase).verdict


def smtp_outcome(reply: Reply, phase: Phase, success: type[Relayed | Delivered] = Relayed) -> Outcome:
    """Return what an SMTP or LMTP reply means for the recipients that it is about.

    A missing enhanced status code is filled in, and one whose class disagrees with the outcome is corrected.

    Args:
        reply: what the server said.
        phase: what was answered.
        success: ``Relayed`` for a relay, ``Delivered`` where the server is the last hop.

    Raises:
        TransportDown: the reply is about the whole messaging system.
    """
    row = _smtp_row(reply.code or 0, reply.status, phase)
    if row.verdict is Verdict.DOWN:
        raise TransportDown(f"{phase.value}: {reply}")
    wanted = {Verdict.OK: "2", Verdict.FAILED: "5"}.get(row.verdict, "4")
    if not reply.status:
        reply = Reply(reply.text, row.status, reply.code, reply.remote)
    elif reply.status[0] != wanted:
        reply = Reply(reply.text, wanted + reply.status[1:], reply.code, reply.remote)
    if row.verdict is Verdict.OK:
        return success(reply)
    return Failed(reply) if row.verdict is Verdict.FAILED else Deferred(reply)


@lru_cache(maxsize=128)
def _http_row(status: int) -> HttpRow:
    text = f"{status:03d}"
    return next(row for row in HTTP_TABLE if re.fullmatch(row.statuses, text))


def http_verdict(status: int) -> Verdict:
    """Return what the HTTP table says of a status code (100 to 599; redirects not followed)."""
    return _http_row(status).verdict


def http_outcome(
    status: int, retry_after: float | None = None, *, text: str = "", remote: str = ""
) -> Outcome:
    """Return what an HTTP status code means for the recipient.

    Args:
        status: the HTTP status code, 100 to 599.
        retry_after: seconds of the Retry-After header (RFC 9110 section 10.2.3), or None.
        text: what the server said, for the record.
        remote: the host that said it.
    """
    row = _http_row(status)
    reply = Reply(one_line(text), row.status, status, remote)
    if row.verdict is Verdict.OK:
        return Delivered(reply)
    return Failed(reply) if row.verdict is Verdict.FAILED else Deferred(reply, retry_after)


def exception_reply(error: BaseException, remote: str = "") -> Reply:
    """Return the record of an exception that was raised while talking to ``remote``."""
    row = next(row for row in EXCEPTION_TABLE if isinstance(error, row.exception))
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        lines = (said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)).splitlines()
        reply = smtp_reply(error.smtp_code, lines, remote)
        return Reply(one_line(f"{row.text}: {reply.text}"), reply.status or row.status, reply.code, remote)
    return Reply(one_line(f"{row.text}: {error}" if str(error) else row.text), row.status, None, remote)
