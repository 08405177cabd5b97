"""A connection to one address of one mail exchanger, with the security that can be had."""

import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from postroom.replies import exception_reply
from postroom.transports.smtp_client import SmtpClient, tls_of
from postroom.transports.smtp_timeouts import SmtpTimeouts

__all__ = ["MxClient", "MxServer", "TlsUnavailable"]


class TlsUnavailable(Exception):
    """TLS was begun and failed, so that this connection is of no use; without TLS another one may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MxServer:
    """One address of a mail exchanger; the attributes are those that :class:`SmtpClient` asks for.

    Attributes:
        name: the host's name, which certificates are compared with.
        host: its address.
        opportunistic: use STARTTLS where it is offered, with ``ssl_context``.
        security: "starttls" where it must be offered, else "none".
        source_address: our own address, or None for the system's choice.
    """

    name: str
    host: str
    port: int
    local_hostname: str
    timeouts: SmtpTimeouts
    opportunistic: bool = False
    security: str = "none"
    ssl_context: ssl.SSLContext | None = None
    source_address: str | None = None

    @property
    def lmtp(self) -> bool:
        """No."""
        return False

    @property
    def username(self) -> None:
        """Nobody authenticates to a mail exchanger."""

    @property
    def password(self) -> "str | Callable[[], str] | None":
        """None."""
        return None

    @property
    def remote(self) -> str:
        """The server as it is named on the record."""
        return f"{self.name}[{self.host}]:{self.port}"


class MxClient(SmtpClient):
    """Opens a session with a mail exchanger.

    Args:
        server: which one.
        unsecured: why TLS is not used this time, "" to use it as ``server`` says.
    """

    def __init__(self, server: MxServer, unsecured: str = "") -> None:
        super().__init__(server)
        self._server = server
        self._unsecured = unsecured
        self._host = server.name  # smtplib gives it to TLS as the name to verify
        if server.source_address is not None:
            self.source_address = (server.source_address, 0)

    @property
    def tls(self) -> str:
        """TLS version and cipher; where TLS was offered and is not used, "none" and why."""
        return tls_of(self.sock) or (f"none ({self._unsecured})" if self._unsecured else "")

    def establish(self) -> None:
        """Go as far as a server that takes mail.

        Raises:
            OSError: it takes none; smtplib's errors are such.
            TlsUnavailable: opportunistic TLS failed.
        """
        super().establish()
        if not self._server.opportunistic or self._unsecured or not self.has_extn("starttls"):
            return
        try:
            self.starttls(context=self._server.ssl_context)
        except smtplib.SMTPResponseException as error:
            if error.smtp_code == 421:
                raise
            # The server goes on in the clear, and so do we (RFC 3207 section 4).
            self._unsecured = f"to STARTTLS it said {exception_reply(error)}"
        except (OSError, ValueError) as error:  # ValueError: a name that no certificate can carry
            raise TlsUnavailable(f"TLS failed: {error}") from error
        else:
            self._hello()
