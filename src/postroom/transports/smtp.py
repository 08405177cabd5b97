"""SMTP (RFC 5321) and LMTP (RFC 2033) transports.

smtplib connects, says EHLO or LHLO, starts TLS and authenticates; the transaction is our own
(:mod:`postroom.transports.smtp_dialogue`), because it is pipelined and answers for each recipient. One reader
serves both, so that nothing read ahead is lost between them.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from postroom.delivery import Delivery
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Delivered, Relayed
from postroom.replies import ReplyRow, ReplyTable, smtp_table
from postroom.tokens import Tokens
from postroom.transports.base import Limits, Outcomes, Session, Transport
from postroom.transports.smtp_client import SmtpClient, tls_of
from postroom.transports.smtp_dialogue import Dialogue, OutOfStep
from postroom.transports.smtp_envelope import Features
from postroom.transports.smtp_timeouts import SmtpTimeouts
from postroom.transports.smtp_verp import limits_for, send_each, signed

__all__ = ["LmtpTransport", "SmtpSession", "SmtpTimeouts", "SmtpTransport"]

Security = Literal["auto", "starttls", "tls", "none"]

PIPELINING_PAUSE = 3600.0
"""Seconds for which a server that got out of step is not pipelined to."""


def _limits() -> Limits:
    """Return limits that the RFC's time-outs fit in, with the 100 recipients that every server must take."""
    return Limits(concurrency=8, recipients_per_delivery=100, attempt_timeout=1800.0)


@dataclass(kw_only=True)
class SmtpTransport(Transport):
    """Sends to one SMTP server, a relay or submission server, which takes over responsibility.

    ``SmtpTransport("mail.example.org", username="app", password=read_password)``

    Attributes:
        host: the server's name or address. TLS certificates are verified against it.
        port: 587 (submission), 465 (submission over TLS) or 25 (relay).
        security: "starttls" (required, not opportunistic), "tls" (from the first byte), "none", or "auto":
            "tls" on port 465, else "starttls".
        ssl_context: None for ``ssl.create_default_context()``, which verifies certificate and name.
        username: for AUTH, or None for no authentication.
        password: for AUTH; a callable is asked at each login, for secrets that change. Never shown.
        allow_plaintext_auth: send the password without TLS to a host that is not this machine.
        local_hostname: our name in EHLO; None for the machine's own.
        pipelining: use PIPELINING (RFC 2920) where it is offered. A server that gets out of step is not
            pipelined to for an hour.
        dsn: pass on what the sender wants to be told, to a server that offers DSN (RFC 3461).
        replies: rows of the reply table that are tried before the built-in ones; see
            :class:`~postroom.reply_rows.ReplyRow`.
        timeouts: see :class:`SmtpTimeouts`; ``limits.attempt_timeout`` should exceed their sum.
        outcome: what an accepted message becomes: ``Relayed``, or ``Delivered`` where the server is the last
            hop.
        bounces: gives each recipient a signed return path of its own, so that reports are matched with certainty
            whatever they say (VERP; see :mod:`postroom.tokens`). MAIL FROM is that address then, the message itself is
            not changed, each recipient has a transaction of its own (``limits.recipients_per_delivery`` is 1), and a
            server that offers DSN gets a signed ENVID unless the sender gave one.
        monotonic: the clock by which the hour is measured, in seconds.
        table: what replies mean: ``replies`` and the built-in rows.
    """

    host: str = field(kw_only=False)
    port: int = field(default=587, kw_only=False)
    name: str = "smtp"
    address_types: Collection[str] = ("smtp",)
    limits: Limits = field(default_factory=_limits)
    security: Security = "auto"
    ssl_context: ssl.SSLContext | None = None
    username: str | None = None
    password: str | Callable[[], str] | None = field(default=None, repr=False)
    allow_plaintext_auth: bool = False
    local_hostname: str | None = None
    pipelining: bool = True
    dsn: bool = True
    replies: Sequence[ReplyRow] = ()
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)
    outcome: type[Relayed | Delivered] = Relayed
    bounces: Tokens | None = None
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    table: ReplyTable = field(init=False, repr=False, compare=False)
    _pipelining_again: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigurationError("host", "it is empty", "give the name or address of the server")
        if self.host.startswith("/") and not self.lmtp:
            raise ConfigurationError(
                "host", f"{self.host!r} is a path", "use LmtpTransport for a unix socket"
            )
        if not 0 < self.port < 65536:
            raise ConfigurationError("port", f"{self.port} is no TCP port", "give a number from 1 to 65535")
        if self.security == "auto":
            self.security = self._default_security()
        if self.security not in {"starttls", "tls", "none"}:
            raise ConfigurationError(
                "security", f"{self.security!r} is unknown", "use starttls, tls, none or auto"
            )
        if self.host.startswith("/") and self.security != "none":
            raise ConfigurationError(
                "security", "a unix socket has no host name to verify", 'use security="none"'
            )
        if (self.username is None) != (self.password is None):
            raise ConfigurationError("username", "username and password go together", "give both or neither")
        if self.username and self.security == "none" and not (self.allow_plaintext_auth or self._is_local()):
            raise ConfigurationError(
                "security",
                "the password would be sent in the clear",
                'use "starttls" or "tls", or set allow_plaintext_auth=True',
            )
        if self.security != "none" and self.ssl_context is None:
            self.ssl_context = ssl.create_default_context()
        self.limits = limits_for(self.limits, self.bounces)
        self.table = smtp_table(self.replies)

    @property
    def lmtp(self) -> bool:
        """Whether LMTP is spoken."""
        return False

    @property
    def remote(self) -> str:
        """The server as it is named on the record: "host:port", or the path of a unix socket."""
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"

    def open(self) -> "SmtpSession":
        """Connect, start TLS and authenticate.

        Raises:
            TransportDown: no connection, no greeting, no verified TLS, or no authentication.
        """
        return SmtpSession(self)

    def reply_table(self) -> tuple[ReplyRow, ...]:
        """Return the rows that say what the server's replies mean, in the order in which they are tried."""
        return self.table.rows

    @property
    def may_pipeline(self) -> bool:
        """Whether a new session pipelines where the server offers it."""
        return self.pipelining and (
            self._pipelining_again is None or self.monotonic() >= self._pipelining_again
        )

    def avoid_pipelining(self) -> None:
        """Remember that the server got out of step, for ``PIPELINING_PAUSE`` seconds. Thread-safe."""
        self._pipelining_again = self.monotonic() + PIPELINING_PAUSE

    def _default_security(self) -> Security:
        return "tls" if self.port == 465 else "starttls"

    def _is_local(self) -> bool:
        if self.host == "localhost" or self.host.startswith("/"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(kw_only=True)
class LmtpTransport(SmtpTransport):
    """Hands messages to a local delivery agent, which answers for each recipient and delivers for good.

    ``LmtpTransport("/run/dovecot/lmtp")`` or ``LmtpTransport("127.0.0.1", 24)``. Everything else is as in
    :class:`SmtpTransport`, but for ``security``, which is "none" unless stated.
    """

    port: int = field(default=24, kw_only=False)
    name: str = "lmtp"
    outcome: type[Relayed | Delivered] = Delivered

    @property
    def lmtp(self) -> bool:
        """Whether LMTP is spoken."""
        return True

    def _default_security(self) -> Security:
        return "none"


class SmtpSession(Session):
    """A connection to the server of an :class:`SmtpTransport`, past authentication.

    Attributes:
        tls: TLS version and cipher, or "".
    """

    def __init__(self, transport: SmtpTransport) -> None:
        self._transport = transport
        self._aborted = False
        self.tls = ""
        self._client, self._dialogue = self._connect()

    def send(self, delivery: Delivery) -> Outcomes:
        """Send one delivery; see :mod:`postroom.transports.smtp_dialogue` for what a failure means.

        When the server turns out not to pipeline, the session connects again and goes command by command.
        """
        bounces = self._transport.bounces
        if bounces is None:
            return self._send(delivery)
        return send_each(signed(delivery, bounces), self._send, self._reconnect, lambda: self.usable)

    def _send(self, delivery: Delivery) -> Outcomes:
        try:
            return self._dialogue.send(delivery)
        except OutOfStep:
            self._transport.avoid_pipelining()
            self._reconnect()
            return self._dialogue.send(delivery)
        except TransportDown:
            if self._dialogue.silent:
                self._transport.avoid_pipelining()
            raise
        finally:
            self.usable = self._dialogue.usable

    def noop(self) -> bool:
        """Return whether the server still answers NOOP."""
        self.usable = self._dialogue.noop()
        return self.usable

    def close(self) -> None:
        """Say QUIT if the server listens, and close."""
        with suppress(OSError):
            self._dialogue.quit()
            self._client.close()
        self.usable = False

    def abort(self) -> None:
        """Shut the socket down, so that a ``send`` in another thread ends."""
        self._aborted = True
        sock = self._client.sock
        if sock is not None:
            with suppress(OSError):
                # An SSLSocket's own shutdown would first drop its TLS state under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _reconnect(self) -> None:
        self._client.close()
        self._client, self._dialogue = self._connect()

    def _connect(self) -> tuple[SmtpClient, Dialogue]:
        transport = self._transport
        client = SmtpClient(transport)
        try:
            client.establish()
        except (OSError, UnicodeError) as error:
            client.close()
            raise transport.table.outage(error, transport.remote) from error
        except BaseException:
            client.close()
            raise
        if self._aborted:
            client.close()
            raise TransportDown(f"{transport.remote}: aborted")
        self.tls = tls_of(client.sock)
        features = Features.from_ehlo(client.esmtp_features)
        dialogue = Dialogue(
            client.wire,
            features if transport.dsn else replace(features, dsn=False),
            transport.timeouts,
            table=transport.table,
            remote=transport.remote,
            tls=self.tls,
            pipelining=transport.may_pipeline,
            lmtp=transport.lmtp,
            success=transport.outcome,
        )
        return client, dialogue
