"""A listener for SMTP (RFC 5321), submission (RFC 6409) and LMTP (RFC 2033), on aiosmtpd.

Install it with ``pip install postroom[listener]``. It takes mail for us, and mail to send from programs that speak only
SMTP; one message may be both. ``250`` is answered when the spool has committed it, and not before. What was committed
while the answer was lost, and comes again, is recognised by its content and envelope, provided that it has a
Message-ID.
"""

import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

from postroom.clock import Clock, SystemClock
from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError, NotRunning
from postroom.receivers.base import Inlet, Receiver, ReceiverSession
from postroom.receivers.listener_auth import Auth
from postroom.receivers.listener_hub import Hub, Rules, Workers
from postroom.receivers.listener_intake import Intake
from postroom.receivers.listener_policy import Local, LocalPatterns, Relaying

if TYPE_CHECKING:
    from postroom.receivers.listener_server import ListenerSession

__all__ = ["SmtpListener"]

DAY: Final = 86400.0
BACKLOG: Final = 128
ASKERS: Final = 4


@dataclass(kw_only=True)
class SmtpListener(Receiver):
    """Takes mail over SMTP or LMTP.

    ``SmtpListener("127.0.0.1", 2525, local=["example.org"], auth={"app": "secret"})``

    Recipients that ``local`` knows are incoming mail. All others are outgoing: they are submitted to the spool for
    whoever may do that (``relay``) and refused for everybody else.

    Attributes:
        host: the address to listen on; "0.0.0.0" for all of IPv4, "::" for all.
        port: 25, 587 (submission), 465 (submission over TLS), 24 (LMTP); 0 for one that the system chooses, which is
            kept when the listener is opened again (see :attr:`address`).
        protocol: "smtp", or "lmtp", which answers for each recipient after the content.
        local: whose mail is incoming: patterns such as "example.org", "*@*.example.org", "ann@example.org"; or a
            callable that is given the canonical address and says True, False or a reply such as "550 5.1.1 No such
            user" (:data:`~postroom.receivers.listener_policy.Answer`). It runs in another thread and may block; when it
            raises, the recipient is refused for now.
        relay: who may submit outgoing mail: "authenticated"; "networks": also whoever connects from ``networks``;
            "never": nobody.
        networks: as "192.0.2.0/24".
        auth: passwords by user, or a callable that is given user and password, may block, and says whether they fit:
            True, False, or the tenant's name. The user, or that tenant, becomes the tenant of what is submitted.
        tls: "starttls", "implicit" (from the first byte), or None.
        ssl_context: with our certificate; needed for ``tls``.
        insecure_auth: let clients authenticate without TLS from elsewhere than this machine.
        hostname: what we call ourselves; "" for the machine's name.
        max_message_size: octets, announced with SIZE.
        max_recipients: per message; more are put off with 452, and the client sends the message again to these.
        max_connections: at a time; more are turned away with 421.
        max_buffered: octets of contents in memory, of all connections; beyond that they are put off with 452.
        max_hops: Received fields beyond which a message is taken for a loop (RFC 5321 section 6.3).
        max_errors: refused commands after which the connection is closed.
        max_auth_failures: wrong passwords after which it is closed.
        timeout: seconds without a command or 64 KiB of content after which it is closed.
        data_timeout: seconds for a content.
        take_timeout: seconds for the spool to take a message; None for ``settings.submit_timeout``.
        drain_timeout: seconds that messages in hand may take when the listener is closed.
        workers: threads that wait for the spool.
        remember: seconds for which an incoming message that comes again is recognised.
        reuse_port: let several processes listen on the same port; with ``exclusive=False``.
        clock: the time in Received fields.

    Raises:
        ConfigurationError: names the setting.
    """

    host: str = field(default="127.0.0.1", kw_only=False)
    port: int = field(default=0, kw_only=False)
    name: str = "smtp-listener"
    protocol: Literal["smtp", "lmtp"] = "smtp"
    local: Sequence[str] | str | Local = ()
    relay: Literal["authenticated", "networks", "never"] = "authenticated"
    networks: Sequence[str] = ("127.0.0.0/8", "::1/128")
    auth: Auth | None = field(default=None, repr=False)
    tls: Literal["starttls", "implicit"] | None = None
    ssl_context: ssl.SSLContext | None = None
    insecure_auth: bool = False
    hostname: str = ""
    max_message_size: int = 50_000_000
    max_recipients: int = 1000
    max_connections: int = 100
    max_buffered: int = 256_000_000
    max_hops: int = 50
    max_errors: int = 20
    max_auth_failures: int = 3
    timeout: float = 300.0
    data_timeout: float = 1800.0
    take_timeout: float | None = None
    drain_timeout: float = 5.0
    workers: int = 16
    remember: float = 5 * DAY
    reuse_port: bool = False
    clock: Clock = field(default_factory=SystemClock, repr=False, compare=False)
    _rules: Rules = field(init=False, repr=False, compare=False)
    _chosen: int = field(default=0, init=False, repr=False, compare=False)
    _session: "ListenerSession | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        callable_local = callable(self.local)
        self._rules = Rules(
            protocol=self.protocol,
            hostname=_own_name(self.hostname),
            local=self.local if callable(self.local) else LocalPatterns(_several(self.local)),
            local_blocks=callable_local,
            relaying=Relaying.of(self.relay, self.networks),
            auth=self.auth,
            insecure_auth=self.insecure_auth,
            starttls=self.ssl_context if self.tls == "starttls" else None,
            max_message_size=self.max_message_size,
            max_recipients=self.max_recipients,
            max_connections=self.max_connections,
            max_buffered=self.max_buffered,
            max_errors=self.max_errors,
            max_auth_failures=self.max_auth_failures,
            timeout=self.timeout,
            data_timeout=self.data_timeout,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which it listens. Thread-safe.

        Raises:
            NotRunning: it does not listen.
        """
        if self._session is None or self._session.closed:
            raise NotRunning("the listener is not open")
        return self._session.address

    def prepare(self) -> None:
        """Check that aiosmtpd is installed.

        Raises:
            ConfigurationError: it is not.
        """
        if find_spec("aiosmtpd") is None:
            raise ConfigurationError(
                "receivers", "SmtpListener needs aiosmtpd", "install it: pip install postroom[listener]"
            )

    def open(self, inlet: Inlet) -> ReceiverSession:
        """Begin to listen.

        Raises:
            ConfigurationError: aiosmtpd is not installed.
            OSError: the address cannot be had.
            WorldError: the server did not start.
        """
        self.prepare()
        from postroom.receivers.listener_server import ListenerSession  # noqa: PLC0415 - an extra

        listening = self._listen()
        rules = self._rules
        hub = Hub(
            rules=rules,
            intake=Intake(
                inlet=inlet,
                clock=self.clock,
                hostname=rules.hostname,
                max_size=rules.max_message_size,
                max_hops=self.max_hops,
                remember=self.remember,
                timeout=self.take_timeout,
            ),
            takers=Workers(f"postroom-{self.name}-taker", self.workers),
            askers=Workers(f"postroom-{self.name}-asker", ASKERS),
        )
        session = ListenerSession(
            hub,
            listening,
            tls=self.ssl_context if self.tls == "implicit" else None,
            drain=self.drain_timeout,
            name=self.name,
        )
        self._session = session
        host, port = session.address
        inlet.report("up", f"listens on {host} port {port}")
        return session

    def _listen(self) -> socket.socket:
        """Return a socket; where the system chooses the port, the one it chose before if that is free."""
        for port in dict.fromkeys((self.port or self._chosen, self.port)):
            try:
                listening = socket.create_server(
                    (self.host, port),
                    family=socket.AF_INET6 if ":" in self.host else socket.AF_INET,
                    backlog=BACKLOG,
                    reuse_port=self.reuse_port,
                    dualstack_ipv6=self.host == "::" and socket.has_dualstack_ipv6(),
                )
            except OSError:
                if port == self.port:
                    raise
            else:
                self._chosen = listening.getsockname()[1]
                return listening
        raise AssertionError("unreachable: the last port either binds or raises")

    def _check(self) -> None:
        for name, allowed in (
            ("protocol", ("smtp", "lmtp")),
            ("tls", ("starttls", "implicit", None)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigurationError(
                    name, f"{value!r} is unknown", f"give one of {', '.join(map(repr, allowed))}"
                )
        if (self.tls is None) != (self.ssl_context is None):
            raise ConfigurationError("ssl_context", "tls and ssl_context go together", "give both or neither")
        if not 0 <= self.port < 65536:
            raise ConfigurationError("port", f"{self.port} is no TCP port", "give a number from 0 to 65535")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    name, f"{getattr(self, name)} is not above 0", "give a positive number"
                )
        if self.max_buffered < self.max_message_size:
            raise ConfigurationError(
                "max_buffered", "is less than max_message_size", "give room for several messages at least"
            )
        if self.reuse_port and self.exclusive:
            raise ConfigurationError(
                "reuse_port", "is of no use where one process listens at a time", "set exclusive=False too"
            )
        if not self.local and (
            self.relay == "never" or (self.relay == "authenticated" and self.auth is None)
        ):
            raise ConfigurationError(
                "local", "nobody could send anything to anybody", "name our domains, or let clients submit"
            )


_POSITIVE = (
    "max_message_size", "max_recipients", "max_connections", "max_buffered", "max_hops", "max_errors",
    "max_auth_failures", "timeout", "data_timeout", "drain_timeout", "workers", "remember",
)  # fmt: skip


def _several(local: Iterable[str]) -> Iterable[str]:
    return (local,) if isinstance(local, str) else local


def _own_name(given: str) -> str:
    """Return what we call ourselves."""
    try:
        return canonical_domain(given or socket.gethostname() or "localhost")
    except Malformed as malformed:
        if given:
            raise ConfigurationError("hostname", f"{given!r} {malformed.problem}", malformed.remedy) from None
        return "localhost"
