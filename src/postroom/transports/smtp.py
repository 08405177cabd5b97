"""SMTP (RFC 5321) and LMTP (RFC 2033) transports.

smtplib connects, says EHLO or LHLO, starts TLS and authenticates; the transaction is our own
(:mod:`postroom.transports.smtp_dialogue`), because it is pipelined and answers for each recipient. One reader
serves both, so that nothing read ahead is lost between them.
"""

import base64
import ipaddress
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from postroom.delivery import Delivery
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Delivered, Relayed
from postroom.replies import exception_reply
from postroom.transports.base import Limits, Outcomes, Session, Transport
from postroom.transports.smtp_dialogue import Dialogue, OutOfStep, SmtpTimeouts
from postroom.transports.smtp_envelope import Features
from postroom.transports.smtp_wire import Lost, SocketWire, read_reply

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
        timeouts: see :class:`SmtpTimeouts`; ``limits.attempt_timeout`` should exceed their sum.
        outcome: what an accepted message becomes: ``Relayed``, or ``Delivered`` where the server is the last
            hop.
        monotonic: the clock by which the hour is measured, in seconds.
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
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)
    outcome: type[Relayed | Delivered] = Relayed
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
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
        self._client, self._dialogue = self._connect()
        self.tls = _tls(self._client.sock)

    def send(self, delivery: Delivery) -> Outcomes:
        """Send one delivery; see :mod:`postroom.transports.smtp_dialogue` for what a failure means.

        When the server turns out not to pipeline, the session connects again and goes command by command.
        """
        try:
            return self._dialogue.send(delivery)
        except OutOfStep:
            self._transport.avoid_pipelining()
            self._client.close()
            self._client, self._dialogue = self._connect()
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

    def _connect(self) -> tuple["_Client", Dialogue]:
        transport = self._transport
        client = _Client(transport)
        try:
            client.establish()
        except (OSError, UnicodeError) as error:
            client.close()
            raise TransportDown(str(exception_reply(error, transport.remote))) from error
        except BaseException:
            client.close()
            raise
        if self._aborted:
            client.close()
            raise TransportDown(f"{transport.remote}: aborted")
        dialogue = Dialogue(
            client.wire,
            Features.from_ehlo(client.esmtp_features),
            transport.timeouts,
            remote=transport.remote,
            pipelining=transport.may_pipeline,
            lmtp=transport.lmtp,
            success=transport.outcome,
        )
        return client, dialogue


class _Client(smtplib.SMTP):
    """smtplib's client, reading through the wire that the dialogue goes on with."""

    def __init__(self, transport: SmtpTransport) -> None:
        self._transport = transport
        self._wire: SocketWire | None = None
        if transport.lmtp:
            self.ehlo_msg = "lhlo"
        super().__init__(local_hostname=transport.local_hostname or _local_hostname())
        self._host = transport.host  # what STARTTLS verifies the certificate against

    @property
    def wire(self) -> SocketWire:
        """The wire over the present socket; that from before STARTTLS is dropped with what was read ahead."""
        sock = self.sock
        if sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        if self._wire is None or self._wire.sock is not sock:
            self._wire = SocketWire(sock, self._transport.timeouts.command)
        return self._wire

    def establish(self) -> None:
        """Go as far as a server that takes mail, or raise OSError, of which smtplib's errors are."""
        transport = self._transport
        code, said = self.connect(transport.host, transport.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        self._hello()
        if transport.security == "starttls":
            self.starttls(context=transport.ssl_context)
            self._hello()
        if transport.username is not None:
            self._log_in(transport.username, self._password())

    def getreply(self) -> tuple[int, bytes]:
        """Return a reply's code and text, as smtplib does."""
        wire = self.wire
        try:
            code, lines = read_reply(wire)
        except Lost as lost:
            self.close()
            raise smtplib.SMTPServerDisconnected(lost.why) from lost
        wire.patience = self._transport.timeouts.command
        return code, b"\n".join(line[4:].strip() for line in lines)

    def _get_socket(self, host: str, port: int, timeout: float | None) -> socket.socket:
        del timeout  # smtplib has one for everything
        transport = self._transport
        timeouts = transport.timeouts
        if host.startswith("/"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeouts.connect)
                sock.connect(host)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection((host, port), timeouts.connect)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if transport.security == "tls" and transport.ssl_context is not None:
            sock = transport.ssl_context.wrap_socket(sock, server_hostname=host)
        self._wire = SocketWire(sock, timeouts.greeting)
        return sock

    def _hello(self) -> None:
        code, said = self.ehlo()
        if code // 100 == 2:
            return
        if self._transport.lmtp or self._transport.security == "starttls" or code == 421:
            raise smtplib.SMTPHeloError(code, said)
        code, said = self.helo()
        if code // 100 != 2:
            raise smtplib.SMTPHeloError(code, said)

    def _password(self) -> str:
        password = self._transport.password
        if not callable(password):
            return password or ""
        try:
            return password()
        except Exception as error:  # whoever keeps the secret is part of the messaging system
            raise TransportDown(f"the password could not be had: {type(error).__name__}") from error

    def _log_in(self, username: str, password: str) -> None:
        if username.isascii() and password.isascii():
            self.login(username, password)
            return
        # smtplib encodes credentials as ASCII only; RFC 4616 section 2 wants UTF-8.
        if "PLAIN" not in self.esmtp_features.get("auth", "").upper().split():
            raise smtplib.SMTPNotSupportedError(
                "AUTH PLAIN is not offered, which a password beyond ASCII needs"
            )
        token = base64.b64encode(f"\0{username}\0{password}".encode()).decode()
        code, said = self.docmd("AUTH", f"PLAIN {token}")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, said)


@cache
def _local_hostname() -> str:
    """Return this machine's name for EHLO (RFC 5321 section 4.1.4); looked up once, as DNS may be slow."""
    return smtplib.SMTP().local_hostname


def _tls(sock: socket.socket | None) -> str:
    if not isinstance(sock, ssl.SSLSocket):
        return ""
    cipher = sock.cipher()
    return " ".join(filter(None, (sock.version(), cipher[0] if cipher else None)))
