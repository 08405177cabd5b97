"""The built-in reply tables: SMTP and LMTP, HTTP, and exceptions. Data only; :mod:`postroom.replies` reads them.

Read a table from the top: the first row that matches decides. Errors are temporary unless a row says otherwise.
"""

import smtplib
import socket
import ssl
from dataclasses import dataclass

from postroom.reply_rows import OPENING, TRANSACTION, Phase, ReplyRow, Verdict

__all__ = ["EXCEPTION_NAMES", "HTTP_TABLE", "SMTP_TABLE", "ExceptionName"]

OK, DEFERRED, GREYLISTED, DESTINATION, FAILED, DOWN, NONSENSE = Verdict

ANY = OPENING | TRANSACTION
MAIL, RCPT, DATA, CONTENT, CONNECT, REQUEST = (
    frozenset({phase})
    for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.CONTENT, Phase.CONNECT, Phase.REQUEST)
)
AFTER_RCPT = RCPT | DATA | CONTENT
"""Greylisting knows the client by sender and recipient, so that it speaks up from RCPT on (RFC 6647 section 2.2)."""


@dataclass(frozen=True, slots=True)
class ExceptionName:
    """What an exception is called on the record."""

    exception: type[BaseException]
    status: str
    text: str


EXCEPTION_NAMES: tuple[ExceptionName, ...] = (
    ExceptionName(ssl.SSLCertVerificationError,     "4.7.5", "TLS certificate not accepted"),
    ExceptionName(ssl.SSLError,                     "4.7.5", "TLS failed"),
    ExceptionName(socket.gaierror,                  "4.4.3", "host name not resolved"),
    ExceptionName(ConnectionRefusedError,           "4.4.1", "connection refused"),
    ExceptionName(smtplib.SMTPAuthenticationError,  "4.7.8", "authentication refused"),
    ExceptionName(smtplib.SMTPNotSupportedError,    "4.7.4", "security feature not offered"),
    ExceptionName(smtplib.SMTPResponseException,    "4.3.0", "refused"),
    ExceptionName(smtplib.SMTPServerDisconnected,   "4.4.2", "connection lost"),
    ExceptionName(smtplib.SMTPException,            "4.5.0", "protocol error"),
    ExceptionName(TimeoutError,                     "4.4.2", "timed out"),
    ExceptionName(ConnectionError,                  "4.4.2", "connection lost"),
    ExceptionName(OSError,                          "4.4.1", "network error"),
    ExceptionName(BaseException,                    "4.3.0", "error"),
)  # fmt: skip


def _exceptions(means: Verdict, phases: frozenset[Phase], why: str, *, smtp: bool) -> tuple[ReplyRow, ...]:
    return tuple(
        ReplyRow(
            means, exception=name.exception, phases=phases, status=name.status, why=f"{name.text}: {why}"
        )
        for name in EXCEPTION_NAMES
        if smtp or not issubclass(name.exception, smtplib.SMTPException)
    )


def _smtp(  # noqa: PLR0913, PLR0917 - the columns of the table
    phases: frozenset[Phase], codes: str, means: Verdict, status: str, why: str,
    given: str = "*", text: str = "", attempts: int | None = None,
) -> ReplyRow:  # fmt: skip
    return ReplyRow(means, codes, given, text, phases, attempts=attempts, status=status, why=why)


SAYS_GREYLIST = r"gr[ae]y[ -]?list"
SAYS_LATER = r"\b(try|retry|come back|send)\b.*\b(later|again)\b"

SMTP_TABLE: tuple[ReplyRow, ...] = (
    _smtp(AFTER_RCPT, "4..",    GREYLISTED, "4.7.1", "RFC 6647: it says so", text=SAYS_GREYLIST),
    _smtp(ANY,     "421",         DOWN,     "4.3.2", "RFC 5321 3.8: the server is closing"),
    _smtp(OPENING, "2..",         OK,       "2.0.0", "RFC 5321 4.2.1"),
    _smtp(OPENING, "...",         DOWN,     "4.3.0", "no message was mentioned: it is about us, or all"),
    _smtp(MAIL,    "53[0458]",    DOWN,     "4.7.0", "RFC 4954 6: our credentials or TLS, not the message"),
    _smtp(MAIL,    "521|454",     DOWN,     "4.3.2", "RFC 7504, RFC 3207 4: it takes no mail, or none now"),
    _smtp(DATA,    "3..",         OK,       "",      "RFC 5321 4.1.1.4: 354, send the content"),
    _smtp(DATA,    "2..",         NONSENSE, "4.5.0", "it answers another command"),
    _smtp(RCPT,    "552",         FAILED,   "5.3.4", "the message is too big", given="5.2.3|5.3.4"),
    _smtp(RCPT,    "552",         DEFERRED, "4.5.3", "RFC 5321 4.5.3.1.10: too many recipients is 452"),
    _smtp(ANY,     "2..",         OK,       "2.0.0", "RFC 5321 4.2.1"),
    _smtp(AFTER_RCPT, "45[01]", GREYLISTED, "4.7.1", "RFC 6647: policy, temporary, not seen before",
          given="4.7.0|4.7.1", attempts=1),
    _smtp(AFTER_RCPT, "45[01]", GREYLISTED, "4.7.1", "RFC 6647: not seen before, and it wants us back",
          given="|4.[02].0", text=SAYS_LATER, attempts=1),
    _smtp(RCPT,    "450",       GREYLISTED, "4.3.2", "as Postfix's postscreen asks for a second visit",
          given="4.3.2", attempts=1),
    _smtp(ANY,     "450",         DEFERRED, "4.2.0", "RFC 5321 4.2.3: mailbox busy or blocked for now"),
    _smtp(ANY,     "451",         DEFERRED, "4.3.0", "RFC 5321 4.2.3: local error in processing"),
    _smtp(RCPT,    "452",         DEFERRED, "4.5.3", "RFC 5321 4.5.3.1.10: too many recipients"),
    _smtp(ANY,     "452",         DEFERRED, "4.3.1", "RFC 5321 4.2.3: insufficient storage"),
    _smtp(ANY,     "4..",         DEFERRED, "4.0.0", "RFC 5321 4.2.1: transient negative"),
    _smtp(ANY,     "50[0-4]|555", FAILED,   "5.5.0", "RFC 5321 4.2.3: syntax or parameters refused"),
    _smtp(ANY,     "552",         FAILED,   "5.3.4", "RFC 5321 4.2.3: exceeded storage allocation"),
    _smtp(RCPT,    "553",         FAILED,   "5.1.3", "RFC 5321 4.2.3: mailbox name not allowed"),
    _smtp(ANY,     "5..",         FAILED,   "5.0.0", "RFC 5321 4.2.1: permanent negative"),
    _smtp(ANY,     "...",         NONSENSE, "4.5.0", "not a reply to what was sent"),
    *_exceptions(DOWN, OPENING, "it is about us, or all", smtp=True),
)  # fmt: skip


def _http(codes: str, means: Verdict, status: str, why: str, *, asked: bool = False) -> ReplyRow:
    return ReplyRow(means, codes, phases=REQUEST, asked=asked, status=status, why=why)


HTTP_TABLE: tuple[ReplyRow, ...] = (
    _http("2..",             OK,          "2.0.0", "RFC 9110 15.3"),
    _http("410",             FAILED,      "5.1.6", "RFC 9110 15.5.11: gone, and likely for good"),
    _http("301|308",         FAILED,      "5.1.6", "RFC 9110 15.4: it moved for good; mend the address"),
    _http("413",             FAILED,      "5.3.4", "RFC 9110 15.5.14: content too large"),
    _http("415|406|422",     FAILED,      "5.6.1", "RFC 9110 15.5: this content is not understood"),
    _http("400|405|411|414", FAILED,      "5.5.0", "the same request will be refused again"),
    _http("431|501|505",     FAILED,      "5.5.0", "likewise"),
    _http("451",             FAILED,      "5.7.1", "RFC 7725: legal reasons"),
    _http("401|403|407",     DEFERRED,    "4.7.0", "credentials are mended by people, in time"),
    _http("404|421",         DEFERRED,    "4.1.0", "RFC 9110 15.5.5: may be temporary (a deployment)"),
    _http("408|504",         DEFERRED,    "4.4.2", "RFC 9110 15.5.9: time-out"),
    _http("429",             DESTINATION, "4.3.2", "RFC 6585 4: too many requests, for the whole host"),
    _http("503",             DESTINATION, "4.3.2", "RFC 9110 15.6.4: out of service until then", asked=True),
    _http("503",             DEFERRED,    "4.3.2", "RFC 9110 15.6.4: unavailable; perhaps this request only"),
    _http("507",             DEFERRED,    "4.3.1", "RFC 4918 11.5: insufficient storage"),
    _http("5..",             DEFERRED,    "4.3.0", "RFC 9110 15.6: the server failed"),
    _http("...",             DEFERRED,    "4.5.0", "anything else is temporary"),
    *_exceptions(DESTINATION, CONNECT, "this host cannot be reached", smtp=False),
    *_exceptions(DEFERRED, REQUEST, "this request got no answer", smtp=False),
)  # fmt: skip
