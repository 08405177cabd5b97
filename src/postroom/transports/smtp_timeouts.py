"""How long an SMTP or LMTP server may take."""

from dataclasses import dataclass

__all__ = ["SmtpTimeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpTimeouts:
    """Seconds to wait for the other side, by phase; the minimums of RFC 5321 section 4.5.3.2 by default.

    Attributes:
        connect: TCP connection and TLS handshake.
        greeting: the server's 220.
        command: EHLO, STARTTLS, AUTH, RSET.
        mail: MAIL.
        rcpt: each RCPT.
        data: DATA, until 354.
        block: each 256 KiB of content, to be taken.
        done: the answer to the content.
        stall: silence within a pipelined group after which the server is taken for one that cannot pipeline;
            the delivery is then tried again without.
        noop: the answer to NOOP, before a session is used again.
        quit: leaving.
    """

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    done: float = 600.0
    stall: float = 60.0
    noop: float = 10.0
    quit: float = 1.0
