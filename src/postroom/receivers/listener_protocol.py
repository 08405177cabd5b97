"""One connection of a listener: the transactions of RFC 5321 and RFC 2033, answered when they are durable."""

import asyncio
import logging
from functools import partial

from postroom.receivers.listener_commands import MailCommand, Refused, parse_mail, parse_rcpt
from postroom.receivers.listener_conversation import Conversation
from postroom.receivers.listener_data import Content
from postroom.receivers.listener_intake import Addressee, Transaction
from postroom.receivers.listener_policy import Answer, Client, judge
from postroom.receivers.listener_replies import BUSY, FULL, TOO_LARGE
from postroom.receivers.listener_trace import Origin

__all__ = ["Connection", "TurnedAway"]

log = logging.getLogger("postroom.receivers.listener")


class Connection(Conversation):
    """A client's connection. Lives in the event loop's thread."""

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Begin a transaction."""
        if not await self.check_helo_needed("LHLO" if self._lmtp() else "EHLO"):
            await self._answer(self._begun(arg))

    async def _begun(self, arg: str | None) -> str:
        if self._mail is not None:
            raise Refused("503 5.5.1 A transaction is under way")
        mail = parse_mail(arg, auth=self._rules.auth is not None)
        if mail.size > self._rules.max_message_size:
            raise Refused(TOO_LARGE.format(self._rules.max_message_size))
        self._mail = mail
        return "250 2.1.0 Ok"

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Judge a recipient."""
        await self._answer(self._addressed(arg))

    async def _addressed(self, arg: str | None) -> str:
        if self._mail is None:
            raise Refused("503 5.5.1 MAIL first")
        if len(self._recipients) >= self._rules.max_recipients:
            raise Refused("452 4.5.3 Too many recipients")
        command = parse_rcpt(arg, smtputf8=self._mail.smtputf8, hostname=self.hostname)
        client = Client(ip=self._peer(), authenticated=self._tenant is not None)
        answer = await self._ask(command.address)
        way = judge(answer, client, self._rules.relaying, auth=self._rules.auth is not None)
        self._recipients.append(Addressee(command, way))
        return "250 2.1.5 Ok"

    async def _ask(self, address: str) -> Answer:
        if not self._rules.local_blocks:
            return self._rules.local(address)
        try:
            return await self._hub.askers.run(partial(self._rules.local, address))
        except Exception:
            log.exception("local raised an exception")
            raise Refused("451 4.3.0 The recipient cannot be checked now") from None
        finally:
            self._reset_timeout()

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Take the content, and answer when it is durable."""
        mail = self._mail
        if mail is None or not self._recipients or arg:
            await self._refuse("501 5.5.4 DATA takes nothing" if arg else "503 5.5.1 No valid recipients")
            return
        transaction = Transaction(
            mail=mail, recipients=tuple(self._recipients), origin=self._origin(mail), tenant=self._tenant
        )
        content = Content(self._rules.max_message_size, self._hub.reserve)
        self._busy = True
        deadline = self.loop.call_later(self._rules.data_timeout, self._timeout_cb)
        try:
            await self.push("354 End with <CRLF>.<CRLF>")
            await content.read(self._reader, self._reset_timeout)
            deadline.cancel()
            replies = await self._replies(transaction, content)
        finally:
            deadline.cancel()
            self._busy = False
            self._hub.buffered -= content.reserved
        self._set_post_data_state()
        self._reset_timeout()
        for reply in replies if self._lmtp() else replies[:1]:
            await self.push(reply)
        if self._hub.closing:
            self.dismiss()

    async def _replies(self, transaction: Transaction, content: Content) -> tuple[str, ...]:
        if content.too_large or content.no_room:
            reply = TOO_LARGE.format(self._rules.max_message_size) if content.too_large else FULL
            return (reply,) * len(transaction.recipients)
        if self._timeout_handle is not None:
            # The client waits for us now, and the spool's own time-out ends that.
            self._timeout_handle.cancel()
        return await self._hub.takers.run(partial(self._hub.take, transaction, content.take()))

    def _origin(self, mail: MailCommand) -> Origin:
        session = self.session
        return Origin(
            helo=(session.host_name if session is not None else None) or "",
            ip=self._peer(),
            protocol=self._rules.protocol,
            extended=session is not None and session.extended_smtp,
            tls=self._tls(),
            authenticated=self._tenant is not None,
            smtputf8=mail.smtputf8,
        )


class TurnedAway(asyncio.Protocol):
    """A connection beyond ``max_connections``."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say why, and close."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(BUSY.encode("ascii") + b"\r\n")
            transport.close()
