"""The opening of an SMTP or LMTP session: connection, greeting, EHLO, STARTTLS, AUTH, by way of smtplib."""

import base64
import smtplib
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Protocol

from postroom.errors import TransportDown
from postroom.transports.smtp_timeouts import SmtpTimeouts
from postroom.transports.smtp_wire import Lost, SocketWire, read_reply

__all__ = ["Server", "SmtpClient", "tls_of"]


class Server(Protocol):
    """What the client must know of a server; the attributes are those of ``SmtpTransport``."""

    @property
    def host(self) -> str:
        """The name or address to connect to, or the path of a unix socket."""
        ...

    @property
    def port(self) -> int:
        """The port."""
        ...

    @property
    def lmtp(self) -> bool:
        """Whether LMTP is spoken."""
        ...

    @property
    def security(self) -> str:
        """One of "starttls", "tls" and "none"."""
        ...

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """For TLS."""
        ...

    @property
    def username(self) -> str | None:
        """For AUTH, None for none."""
        ...

    @property
    def password(self) -> str | Callable[[], str] | None:
        """For AUTH, or what returns it."""
        ...

    @property
    def local_hostname(self) -> str | None:
        """Our name in EHLO; None for the machine's own."""
        ...

    @property
    def timeouts(self) -> SmtpTimeouts:
        """How long to wait."""
        ...


class SmtpClient(smtplib.SMTP):
    """smtplib's client, reading through the wire that the dialogue goes on with."""

    def __init__(self, transport: Server) -> None:
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
            sock = socket.create_connection((host, port), timeouts.connect, self.source_address)
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


def tls_of(sock: socket.socket | None) -> str:
    """Return TLS version and cipher of a connection, as "TLSv1.3 TLS_AES_256_GCM_SHA384", or ""."""
    if not isinstance(sock, ssl.SSLSocket):
        return ""
    cipher = sock.cipher()
    return " ".join(filter(None, (sock.version(), cipher[0] if cipher else None)))
