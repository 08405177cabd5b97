"""Straight to the recipients' mail exchangers, without a relay (RFC 5321 section 5.1): ``pip install postroom[mx]``.

======================================================  =======================================================
what happened                                           outcome
======================================================  =======================================================
a mail exchanger took the message                       relayed
it refuses the recipient or the message for good        failed, as it says; no other is asked
it refuses them for now                                 deferred, as it says; no other is asked
no connection, a refused greeting, 421, no TLS where    the next address or host; after the last one deferred,
it is required                                          and the destination is down
every host says 521 (RFC 7504)                          failed 5.3.2 or as it says
the domain does not exist (NXDOMAIN)                    failed 5.1.2
it has neither a mail exchanger nor an address          failed 5.1.2
null MX (RFC 7505)                                      failed 5.1.10
no mail exchanger has an address, or a public one       failed 5.4.4
we are its best mail exchanger ourselves                failed 5.4.6
the DNS has no answer about the domain now              deferred 4.4.3, and the destination is down
the resolver does not answer                            the transport is down
======================================================  =======================================================

TLS is opportunistic by default: it protects against listeners, not against somebody who can change DNS answers or
packets. MTA-STS (RFC 8461) and DANE (RFC 7672), which would, are not implemented.
"""

import ipaddress
import random
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Final, Literal

from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError
from postroom.replies import ReplyRow, ReplyTable, smtp_table
from postroom.throttles import DestinationLimits, Throttle
from postroom.tokens import Tokens
from postroom.transports.base import Limits, Transport
from postroom.transports.mx_hosts import Shuffle
from postroom.transports.mx_link import MxServer
from postroom.transports.mx_lookup import Lookup
from postroom.transports.mx_session import MxSession
from postroom.transports.smtp_timeouts import SmtpTimeouts
from postroom.transports.webhook_guard import AddressGuard

if TYPE_CHECKING:
    import dns.resolver

__all__ = ["MX_DESTINATION", "MxTransport"]

Tls = Literal["opportunistic", "required", "none"]

MX_DESTINATION: Final = DestinationLimits(concurrency=4, initial=2)
"""What each domain is asked to bear unless ``throttle`` says otherwise: strangers get few connections."""


def _limits() -> Limits:
    """Return limits for many domains at once, whose servers shall not keep connections for us for long."""
    return Limits(
        concurrency=20,
        recipients_per_delivery=50,
        attempt_timeout=1800.0,
        session_deliveries=100,
        session_idle=5.0,
    )


def _throttle() -> Throttle:
    return Throttle(destination=MX_DESTINATION)


@dataclass(kw_only=True, eq=False)
class MxTransport(Transport):
    """Sends to the mail exchangers of the recipients' domains. Needs the ``mx`` extra (dnspython). Thread-safe.

    ``MxTransport(hostname="mail.example.org")``. Others accept mail so only from a machine that looks like a mail
    server: with a fixed address whose reverse name is ``hostname``, an open way out to port 25 and SPF and DKIM in
    order. Most are better off with a relay (:class:`~postroom.transports.smtp.SmtpTransport`).

    Attributes:
        hostname: our name in EHLO: a real one, which resolves to the address that we send from and back.
        own_hosts: further names under which this machine takes mail, as its ``SmtpListener`` does.
        resolver: a ``dns.resolver.Resolver``, or a :data:`~postroom.transports.mx_lookup.Lookup`; None for the
            system's (/etc/resolv.conf).
        port: 25, but for tests.
        tls: "opportunistic": STARTTLS where it is offered, without verification, and in the clear where it fails;
            "required": a certificate for the mail exchanger's name, or no delivery; "none".
        ssl_context: for "required"; None for ``ssl.create_default_context()``.
        source_address: the address to send from; only destinations of its family are reached then.
        max_mx: hosts that are tried in one attempt, each at up to four addresses.
        allow_private: contact addresses that are not public, too.
        pipelining: use PIPELINING (RFC 2920) where it is offered.
        dsn: pass on what the sender wants to be told, to servers that offer DSN (RFC 3461).
        bounces: signed return paths, as in :class:`~postroom.transports.smtp.SmtpTransport`.
        replies: own rows of the reply table; "transport_down" in it means that the host is.
        timeouts: see :class:`SmtpTimeouts`; no further host is tried after half of ``limits.attempt_timeout``.
        throttle: its ``destination`` is ``MX_DESTINATION`` if it has none.
        shuffle: orders hosts of the same preference, in place.
        monotonic: seconds.

    Raises:
        ConfigurationError: an option is wrong, or dnspython is not installed.
    """

    hostname: str
    name: str = "mx"
    address_types: Collection[str] = ("smtp",)
    limits: Limits = field(default_factory=_limits)
    throttle: Throttle = field(default_factory=_throttle)
    own_hosts: Collection[str] = ()
    resolver: "dns.resolver.Resolver | Lookup | None" = None
    port: int = 25
    tls: Tls = "opportunistic"
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    source_address: str | None = None
    max_mx: int = 5
    allow_private: bool = False
    pipelining: bool = True
    dsn: bool = True
    bounces: Tokens | None = None
    replies: Sequence[ReplyRow] = ()
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)
    shuffle: Shuffle = field(default=random.shuffle, repr=False)
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)
    table: ReplyTable = field(init=False, repr=False)
    guard: AddressGuard = field(init=False, repr=False)
    own_names: frozenset[str] = field(init=False, repr=False)
    families: tuple[int, ...] = field(default=(6, 4), init=False, repr=False)
    _lookup: Lookup | None = field(default=None, init=False, repr=False)
    _making: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        self.hostname = _ehlo_name(self.hostname)
        self.own_names = frozenset({self.hostname, *_domains(self.own_hosts)})
        if self.source_address is not None:
            self.families = (_version(self.source_address),)
        if self.throttle.destination is None:
            self.throttle = replace(self.throttle, destination=MX_DESTINATION)
        if self.bounces is not None:
            self.limits = replace(self.limits, recipients_per_delivery=1)
        if self.tls == "opportunistic":
            self.ssl_context = _unverified()
        elif self.tls == "required" and self.ssl_context is None:
            self.ssl_context = ssl.create_default_context()
        self.guard = AddressGuard(allow_private=self.allow_private)
        self.table = smtp_table(self.replies)
        self._lookup = self._given_lookup()

    def prepare(self) -> None:
        """Find the resolver.

        Raises:
            ConfigurationError: the system names none.
        """
        self._made_lookup()

    def open(self) -> MxSession:
        """Return a session; connections are made when it is known where to."""
        return MxSession(self)

    def reply_table(self) -> tuple[ReplyRow, ...]:
        """Return the rows that say what servers' replies mean, in the order in which they are tried."""
        return self.table.rows

    @property
    def lookup(self) -> Lookup:
        """How the DNS is asked."""
        return self._lookup or self._made_lookup()

    def server(self, name: str, address: str) -> MxServer:
        """Return what a client must know of one address of a host."""
        return MxServer(
            name=name,
            host=address,
            port=self.port,
            local_hostname=self.hostname,
            timeouts=self.timeouts,
            opportunistic=self.tls == "opportunistic",
            security="starttls" if self.tls == "required" else "none",
            ssl_context=self.ssl_context,
            source_address=self.source_address,
        )

    def _check(self) -> None:
        if not 0 < self.port < 65536:
            raise ConfigurationError("port", f"{self.port} is no TCP port", "give a number from 1 to 65535")
        if self.tls not in {"opportunistic", "required", "none"}:
            raise ConfigurationError("tls", f"{self.tls!r} is unknown", "use opportunistic, required or none")
        if self.max_mx < 1:
            raise ConfigurationError("max_mx", f"{self.max_mx} is less than 1", "give at least 1")

    def _given_lookup(self) -> Lookup | None:
        if callable(self.resolver):
            return self.resolver
        if find_spec("dns") is None:
            raise ConfigurationError(
                "resolver", "MxTransport needs dnspython", "install it: pip install postroom[mx]"
            )
        return None

    def _made_lookup(self) -> Lookup:
        # One for all couriers, as it remembers answers.
        with self._making:
            if self._lookup is None:
                from postroom.transports.mx_dns import DnsLookup  # noqa: PLC0415 - an extra

                given = self.resolver
                self._lookup = given if callable(given) else DnsLookup(given)
            return self._lookup


def _ehlo_name(given: str) -> str:
    """Return the name for EHLO in A-labels (RFC 5321 section 4.1.4)."""
    name = _domain(given, "hostname")
    if "." not in name and not name.startswith("["):
        raise ConfigurationError(
            "hostname",
            f"{given!r} is a name that nobody else knows, and mail from it is refused",
            "give the full name that the address resolves to, as mail.example.org",
        )
    return name


def _domains(given: Collection[str]) -> list[str]:
    if isinstance(given, str):
        raise ConfigurationError("own_hosts", f"{given!r} is one text", f"give a list: [{given!r}]")
    return [_domain(name, "own_hosts") for name in given]


def _unverified() -> ssl.SSLContext:
    """Return a context that takes any certificate: encryption to somebody beats none to anybody (RFC 7435)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _domain(given: str, option: str) -> str:
    try:
        return canonical_domain(given).lower()
    except Malformed as malformed:
        raise ConfigurationError(option, f"{given!r} {malformed.problem}", malformed.remedy) from None


def _version(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        raise ConfigurationError(
            "source_address", f"{address!r} is no IP address", "give one of this machine's, as 192.0.2.1"
        ) from None
