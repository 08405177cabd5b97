"""The conversation with a client: aiosmtpd's command loop and STARTTLS, with greetings, AUTH and replies of our own.

What aiosmtpd 1.4 does otherwise is why so much is overridden: it knows no DSN parameters and turns their values into
upper case, answers unexpected errors with 500 (so that clients give up), shares the limits of command lengths among all
connections, logs what cannot be decoded of a password, compares mechanism names by case, refuses AUTH over implicit
TLS, lets an ``authenticator`` block everybody, reads contents line by line, and cuts off a client whose content takes
longer than the idle time-out.
"""

import asyncio
import logging
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from aiosmtpd.smtp import SMTP, TLSSetupException

from postroom.receivers.listener_auth import Credentials, decode, plain, tenant_of
from postroom.receivers.listener_commands import MailCommand, Refused
from postroom.receivers.listener_hub import Hub
from postroom.receivers.listener_intake import Addressee
from postroom.receivers.listener_policy import address_of
from postroom.receivers.listener_replies import TROUBLE, with_status

__all__ = ["Conversation"]

LINGER: Final = 5.0
"""Seconds that a client has to read our last words."""

COMMAND_LENGTHS: Final = {"AUTH": 12288, "MAIL": 2048, "RCPT": 2048}
"""Octets of a command line, where they may be more than 512: RFC 4954 section 4, RFC 3461 section 10, RFC 6531."""

log = logging.getLogger("postroom.receivers.listener")


class Conversation(SMTP):
    """A client's connection but for the transactions. Lives in the event loop's thread.

    Args:
        hub: what the connections share.
        loop: the event loop.
    """

    line_length_limit = 65536

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        rules = hub.rules
        self._hub = hub
        self._rules = rules
        self._mail: MailCommand | None = None
        self._recipients: list[Addressee] = []
        self._tenant: str | None = None
        self._busy = False
        self._errors = 0
        self._failures = 0
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        super().__init__(
            object(),
            data_size_limit=rules.max_message_size,
            enable_SMTPUTF8=True,
            hostname=rules.hostname,
            ident=f"{'LMTP' if self._lmtp() else 'ESMTP'} Postroom",
            tls_context=rules.starttls,
            timeout=rules.timeout,
            loop=loop,
        )
        self.command_size_limits.update(COMMAND_LENGTHS)

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and begin anew when TLS has started (RFC 3207 section 4.2)."""
        self._tenant = None
        self._hub.enter(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._hub.leave(self)
        super().connection_lost(error)

    def dismiss(self) -> None:
        """Say goodbye and close, at once or when the message in hand is answered."""
        if not self._busy:
            self._goodbye("421 4.3.2 The service is being shut down")

    def cut(self) -> None:
        """Close without a word."""
        for transport in (self.transport, self._original_transport):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def push(self, status: Any) -> None:
        """Send a reply: text gets an enhanced status code, octets go out as they are."""
        if isinstance(status, str):
            status = with_status(status).encode("ascii", "replace")
        await super().push(status)

    async def handle_exception(self, error: Exception) -> str:
        """Return what a client is told after an error of ours: to try again."""
        if isinstance(error, TLSSetupException):
            log.info("%s failed at TLS: %s", self._peer(), error.__cause__)
        else:
            log.error("a command failed", exc_info=error)
        return TROUBLE

    async def _handle_client(self) -> None:
        try:
            await super()._handle_client()
        except (ConnectionError, asyncio.IncompleteReadError):
            self._end()
        finally:
            if self.transport is not None:
                # Nobody reads any more: a client that does not close its side must not stay for ever.
                self.loop.call_later(LINGER, self._end)

    def _end(self) -> None:
        # asyncio forgets to say that a connection is lost which ends while TLS is agreed on.
        self.cut()
        self._hub.leave(self)

    def _timeout_cb(self) -> None:
        self._goodbye("421 4.4.2 Nothing was heard for too long")

    def _set_post_data_state(self) -> None:
        self.envelope = self._create_envelope()
        self._mail = None
        self._recipients = []

    def _goodbye(self, reply: str) -> None:
        transport = self.transport
        if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
            transport.write(reply.encode("ascii", "replace") + b"\r\n")
            transport.close()
        self.loop.call_later(LINGER, self._end)

    async def _answer(self, step: Awaitable[str]) -> None:
        """Send the reply that a step returns, or with which it refuses."""
        try:
            reply = await step
        except Refused as refused:
            await self._refuse(refused.reply)
        else:
            await self.push(reply)

    async def _refuse(self, reply: str) -> None:
        await self.push(reply)
        if reply.startswith("5"):
            self._errors += 1
            if self._errors >= self._rules.max_errors:
                self._goodbye("421 4.7.0 Too many errors")

    def _lmtp(self) -> bool:
        return self._rules.protocol == "lmtp"

    def _peer(self) -> str:
        peer: Any = self.session.peer if self.session is not None else None
        return str(peer[0]) if peer else ""

    def _tls(self) -> str:
        tls: Any = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        if tls is None:
            return ""
        cipher = tls.cipher()
        return f"{tls.version()} {cipher[0]}" if cipher else "TLS"

    # Greetings

    async def smtp_HELO(self, hostname: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Answer the greeting of RFC 821, which LMTP does not have."""
        await self._hello(hostname, lmtp=False, extended=False)

    async def smtp_EHLO(self, hostname: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Answer the greeting of SMTP."""
        await self._hello(hostname, lmtp=False, extended=True)

    async def smtp_LHLO(self, hostname: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Answer the greeting of LMTP."""
        await self._hello(hostname, lmtp=True, extended=True)

    async def _hello(self, hostname: str | None, *, lmtp: bool, extended: bool) -> None:
        session = self.session
        if lmtp != self._lmtp():
            await self._refuse(
                f"500 5.5.1 Say {'LHLO, this is LMTP' if self._lmtp() else 'EHLO, this is SMTP'}"
            )
        elif not hostname or session is None:
            await self._refuse("501 5.5.4 Give your host name")
        else:
            self._set_post_data_state()
            session.extended_smtp = extended
            session.host_name = hostname
            lines = [self.hostname, *(self._extensions() if extended else ())]
            replies = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
            await self.push("\r\n".join(replies).encode("ascii"))

    def _extensions(self) -> list[str]:
        rules = self._rules
        offered = [
            "PIPELINING",
            f"SIZE {rules.max_message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "ENHANCEDSTATUSCODES",
        ]
        if rules.starttls is not None and not self._tls():
            offered.append("STARTTLS")
        if rules.auth is not None and self._may_authenticate():
            offered.append("AUTH PLAIN LOGIN")
        return offered

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        """Start TLS, once."""
        if self._tls():
            await self._refuse("503 5.5.1 TLS is active")
            return
        await super().smtp_STARTTLS(arg)
        if self._tls_protocol is not None and not self._tls():
            # What waits for the handshake is woken without an error when the connection is cut meanwhile.
            raise ConnectionResetError

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: ARG002, N802 - aiosmtpd's name and argument
        """Tell nothing (RFC 5321 section 7.3)."""
        await self.push("252 2.5.2 Send mail, and learn")

    async def smtp_HELP(self, arg: str | None) -> None:  # noqa: ARG002, N802 - aiosmtpd's name and argument
        """Tell little."""
        await self.push("214 2.0.0 See RFC 5321")

    # Authentication

    def _may_authenticate(self) -> bool:
        if self._tls() or self._rules.insecure_auth:
            return True
        address = address_of(self._peer())
        return address is not None and address.is_loopback

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Authenticate the client (RFC 4954)."""
        if await self.check_helo_needed("EHLO"):
            return
        await self._answer(self._authenticated(arg))
        if self._failures >= self._rules.max_auth_failures:
            self._goodbye("421 4.7.0 Too many failures")

    async def _authenticated(self, arg: str | None) -> str:
        auth = self._rules.auth
        if auth is None:
            raise Refused("502 5.5.1 AUTH is not offered")
        if not self._may_authenticate():
            raise Refused("538 5.7.11 Encryption is required: STARTTLS first")
        if self._tenant is not None or self._mail is not None:
            raise Refused("503 5.5.1 Authenticated already, or within a transaction")
        credentials = await self._credentials((arg or "").split())
        try:
            tenant = await self._hub.askers.run(partial(tenant_of, auth, credentials))
        except Exception as error:  # noqa: BLE001 - whatever other people's code raises
            # Without its text, which may hold what it was given.
            log.error("auth raised %s", type(error).__name__)  # noqa: TRY400 - likewise
            raise Refused("454 4.7.0 Passwords cannot be checked now") from None
        self._reset_timeout()
        if tenant is None:
            log.warning("authentication failed: user %.100r from %s", credentials.user, self._peer())
            self._failures += 1
            raise Refused("535 5.7.8 User and password do not fit")
        self._tenant = tenant
        return "235 2.7.0 Authenticated"

    async def _credentials(self, words: list[str]) -> Credentials:
        mechanism = words[0].upper() if words else ""
        if len(words) > 2 or mechanism not in {"PLAIN", "LOGIN"}:
            raise Refused("504 5.5.4 PLAIN and LOGIN are offered")
        first = words[1] if len(words) == 2 else None
        if mechanism == "PLAIN":
            credentials = plain(_decoded(first) if first is not None else await self._challenge(b""))
            if credentials is None:
                raise Refused("501 5.5.2 The response is malformed")
            return credentials
        user = _decoded(first) if first is not None else await self._challenge(b"Username:")
        password = await self._challenge(b"Password:")
        try:
            return Credentials(user.decode(), password.decode())
        except UnicodeDecodeError:
            raise Refused("501 5.5.2 The response is not UTF-8") from None

    async def _challenge(self, text: bytes) -> bytes:
        await self.push(b"334 " + b64encode(text))
        try:
            line = await self._reader.readuntil()
        except asyncio.LimitOverrunError:
            # Its rest must not be read, and logged, as commands.
            self._goodbye("421 4.7.0 The response is too long")
            raise ConnectionResetError from None
        self._reset_timeout()
        if line.strip() == b"*":
            raise Refused("501 5.7.0 Cancelled")
        return _decoded(line)


def _decoded(text: bytes | str) -> bytes:
    octets = decode(text)
    if octets is None:
        raise Refused("501 5.5.2 That is no base64")
    return octets
