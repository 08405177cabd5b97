"""Sessions of the MX transport: a connection to one domain's mail exchanger at a time."""

import errno
import smtplib
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from postroom.delivery import Delivery
from postroom.errors import SessionStale, TransportDown
from postroom.outcomes import Deferred, Outcome, Reply
from postroom.replies import exception_reply, one_line
from postroom.transports.base import Outcomes, Session
from postroom.transports.mx_hosts import Host, Trouble, addresses_of, hosts_of, unreachable
from postroom.transports.mx_link import MxClient, MxServer, TlsUnavailable
from postroom.transports.smtp_dialogue import Dialogue, OutOfStep
from postroom.transports.smtp_envelope import Features
from postroom.transports.smtp_verp import send_each, signed

if TYPE_CHECKING:
    from postroom.transports.mx import MxTransport

__all__ = ["MxSession"]

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_ABORTED: Final = Deferred(Reply("aborted", "4.4.2"))


@dataclass(slots=True)
class _Link:
    """An open connection.

    Attributes:
        domain: whose mail it takes.
        address: of the host.
        client: owns the socket.
        dialogue: what goes on over it.
    """

    domain: str
    address: str
    client: MxClient
    dialogue: Dialogue


class MxSession(Session):
    """Delivers to mail exchangers, and keeps the last connection for further mail to the same domain.

    It finds its connections by itself, so that it stays usable when one breaks.
    """

    def __init__(self, transport: "MxTransport") -> None:
        self._transport = transport
        self._link: _Link | None = None
        self._client: MxClient | None = None
        self._aborted = False
        self._unpipelined: set[str] = set()

    def send(self, delivery: Delivery) -> Outcomes:
        """Send one delivery, each domain's recipients to that domain.

        Raises:
            TransportDown: the DNS cannot be asked, this machine has no sockets left, or ``source_address`` is not its.
        """
        bounces = self._transport.bounces
        if bounces is None:
            return self._send(delivery)
        return send_each(signed(delivery, bounces), self._send, lambda: None, lambda: True)

    def noop(self) -> bool:
        """Ask the server whose connection is kept, and drop that if it does not answer."""
        if self._link is not None and not self._link.dialogue.noop():
            self._drop()
        return self.usable

    def close(self) -> None:
        """Say QUIT if a server listens, and close."""
        self._drop()
        self.usable = False

    def abort(self) -> None:
        """Shut the socket down, so that a ``send`` in another thread ends; it tries no further host."""
        self._aborted = True
        self.usable = False
        client = self._client
        sock = None if client is None else client.sock
        if sock is not None:
            with suppress(OSError):
                # An SSLSocket's own shutdown would first drop its TLS state under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _send(self, delivery: Delivery) -> Outcomes:
        by_domain: dict[str, list[int]] = {}
        for position, target in enumerate(delivery.targets):
            by_domain.setdefault(target.address.domain, []).append(position)
        if len(by_domain) == 1:
            return self._send_to(next(iter(by_domain)), delivery)
        outcomes: dict[int, Outcome] = {}
        for domain, positions in by_domain.items():
            part = replace(delivery, targets=tuple(delivery.targets[position] for position in positions))
            try:
                sent = self._send_to(domain, part)
            except TransportDown as down:
                if not outcomes:
                    raise
                # What was sent must not get lost with what was not.
                sent = Deferred(Reply(one_line(down.reason), "4.4.3"), down.retry_after)
            several: Sequence[Outcome] = sent if isinstance(sent, Sequence) else [sent] * len(positions)
            outcomes.update(zip(positions, several, strict=True))
        return tuple(outcomes[position] for position in range(len(outcomes)))

    def _send_to(self, domain: str, delivery: Delivery) -> Outcomes:
        """Send to one domain: over the connection that is kept for it, else over a new one."""
        link = self._link
        if link is not None and link.domain == domain:
            try:
                return self._exchange(link, delivery)
            except OutOfStep:
                self._unpipelined.add(link.address)
            except (SessionStale, TransportDown):
                pass  # nothing was accepted: a new connection, or another host, may take it
        self._drop()
        transport = self._transport
        hosts = hosts_of(domain, transport.lookup, transport.own_names, transport.shuffle)
        if not isinstance(hosts, tuple):
            return hosts
        return self._send_to_one_of(hosts, domain, delivery)

    def _send_to_one_of(self, hosts: tuple[Host, ...], domain: str, delivery: Delivery) -> Outcomes:
        transport = self._transport
        until = transport.monotonic() + transport.limits.attempt_timeout / 2
        troubles: list[Trouble] = []
        for host in hosts[: transport.max_mx]:
            addresses = addresses_of(host, transport.lookup, transport.guard, transport.families)
            if isinstance(addresses, Trouble):
                troubles.append(addresses)
                continue
            for address in addresses:
                if troubles and transport.monotonic() >= until:
                    return unreachable(domain, troubles, complete=False)
                sent = self._try(transport.server(host.name, address), domain, delivery)
                if self._aborted and isinstance(sent, Trouble):
                    return _ABORTED
                if not isinstance(sent, Trouble):
                    return sent
                troubles.append(sent)
        return unreachable(domain, troubles, complete=len(hosts) <= transport.max_mx)

    def _try(self, server: MxServer, domain: str, delivery: Delivery) -> Outcomes | Trouble:
        """Send to one address, a second time where the server turns out not to pipeline."""
        try:
            try:
                return self._exchange(self._connect(server, domain), delivery)
            except OutOfStep:
                self._unpipelined.add(server.host)
                return self._exchange(self._connect(server, domain), delivery)
        except (OSError, ValueError) as error:  # ValueError: a name that no certificate can carry
            return self._trouble(error, server)
        except TransportDown as down:
            said = one_line(down.reason.removeprefix(f"{server.remote}: "))
            return Trouble(Reply(said, "4.3.2", None, server.remote), retry_after=down.retry_after)
        except (OutOfStep, SessionStale) as error:
            return Trouble(Reply(one_line(str(error)), "4.4.2", None, server.remote))

    def _trouble(self, error: OSError | ValueError, server: MxServer) -> Trouble:
        """Return what went wrong with a host.

        Raises:
            TransportDown: it went wrong with this machine.
        """
        if isinstance(error, OSError):
            if error.errno in _EXHAUSTED:
                raise TransportDown(f"no socket: {error.strerror}") from error
            if error.errno == errno.EADDRNOTAVAIL and server.source_address is not None:
                raise TransportDown(f"source_address {server.source_address}: {error.strerror}") from error
        reply = exception_reply(error, server.remote)
        # RFC 7504 section 3: 521 is a host that takes no mail at all, ever.
        final = isinstance(error, smtplib.SMTPConnectError) and error.smtp_code == 521
        if final and not reply.status.startswith("5"):
            reply = replace(reply, status="5.3.2")
        return Trouble(
            reply, final=final, retry_after=self._transport.table.outage(error, server.remote).retry_after
        )

    def _exchange(self, link: _Link, delivery: Delivery) -> Outcomes:
        """Send over a connection.

        Raises:
            SessionStale, OutOfStep, TransportDown: nothing was accepted, and the connection is dropped.
        """
        try:
            return link.dialogue.send(delivery)
        except TransportDown:
            if link.dialogue.silent:
                self._unpipelined.add(link.address)
            raise
        finally:
            if not link.dialogue.usable:
                self._drop()

    def _connect(self, server: MxServer, domain: str) -> _Link:
        """Open a connection, in the clear where opportunistic TLS fails.

        Raises:
            OSError: there is none; smtplib's errors are such.
        """
        try:
            client = self._establish(MxClient(server))
        except TlsUnavailable as failed:
            client = self._establish(MxClient(server, one_line(str(failed))))
        transport = self._transport
        features = Features.from_ehlo(client.esmtp_features)
        dialogue = Dialogue(
            client.wire,
            features if transport.dsn else replace(features, dsn=False),
            transport.timeouts,
            table=transport.table,
            remote=server.remote,
            tls=client.tls,
            pipelining=transport.pipelining and server.host not in self._unpipelined,
        )
        self._link = _Link(domain, server.host, client, dialogue)
        return self._link

    def _establish(self, client: MxClient) -> MxClient:
        self._client = client
        if self._aborted:
            raise ConnectionAbortedError("aborted")
        try:
            client.establish()
        except BaseException:
            client.close()
            raise
        return client

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        with suppress(OSError):
            link.dialogue.quit()
            link.client.close()
