"""NATS: a message is published to the subject that is its recipient's address (``nats:orders.new``).

With JetStream (the default) a message is delivered when a stream has it on disk and says so. ``Nats-Msg-Id`` is the
same at every attempt, and the stream drops what it has got within its duplicate window (2 minutes unless the stream
says otherwise): an attempt after one in doubt makes no duplicate if it comes within that time, as the first two of the
default retry policy mostly do. With ``jetstream=False`` nobody acknowledges: the outcome is ``Relayed`` once the server
has read the message, also when nobody listens.

======================================================  =======================================================
what happened                                           outcome
======================================================  =======================================================
a stream has it                                         delivered
a stream had it before                                  delivered
no stream takes the subject                             ``no_stream``: deferred 4.4.4, failed 5.1.2 or not mine
the user may not publish there                          failed 5.7.1
larger than the server's or the stream's limit          failed 5.3.4
the stream is full                                      deferred 4.3.1
any other error of JetStream                            deferred 4.3.0
no answer in time, or the connection is lost            deferred 4.4.2 and in doubt
not connected, login refused                            the transport is down
the subject is malformed, or the server's own           failed 5.1.3
======================================================  =======================================================
"""

import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postroom.delivery import Delivery
from postroom.errors import ConfigurationError, SessionStale
from postroom.outcomes import Failed, Reply
from postroom.transports.base import Outcomes, Session, Transport
from postroom.transports.nats_wire import Body, NoStream, outcome_of, publication_of, subject_problem

if TYPE_CHECKING:
    from postroom.transports.nats_client import Login, NatsClient

__all__ = ["NatsTransport"]

PING_SECONDS: Final = 5.0

_CHOICES: Final = {"body": ("raw", "json", "text"), "no_stream": ("defer", "fail", "not_mine")}


@dataclass(eq=False)
class NatsTransport(Transport):
    """Publishes messages to NATS. Needs the ``nats`` extra (nats-py). Thread-safe; each courier has a connection.

    Attributes:
        servers: URLs ``nats://host:port`` or ``tls://host:port``, one or several of a cluster; without credentials.
        address_types: "nats" by default: ``nats:orders.new`` is the subject "orders.new".
        jetstream: publish to a stream and wait for its acknowledgement. Without it nobody acknowledges.
        body: the payload: "raw", the RFC 5322 message; "json", as the webhook transport posts it; "text", the text
            alone. Headers go along as NATS headers in any case, besides ``Postroom-Message-Id`` and others.
        no_stream: what it means that no stream takes the subject: "defer", "fail" or "not_mine".
        username: to log in with, together with the password.
        password: its password, or a token if there is no username; or a function that returns it.
        tls: the context for TLS; by default the system's certificates are trusted.
        connect_timeout: seconds to connect and log in.
        ack_timeout: seconds to wait for an acknowledgement.

    Raises:
        ConfigurationError: an option is wrong, or nats-py is not installed.
    """

    servers: str | Sequence[str] = "nats://127.0.0.1:4222"
    _: KW_ONLY
    name: str = "nats"
    address_types: Collection[str] = frozenset({"nats"})
    jetstream: bool = True
    body: Body = "raw"
    no_stream: NoStream = "defer"
    username: str = ""
    password: str | Callable[[], str] = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    connect_timeout: float = 10.0
    ack_timeout: float = 10.0

    def __post_init__(self) -> None:
        given = [self.servers] if isinstance(self.servers, str) else list(self.servers)
        self.servers = tuple(_read_server(server) for server in given)
        if not self.servers:
            raise ConfigurationError("servers", "is empty", "give a URL, nats://host:4222")
        for name, words in _CHOICES.items():
            if getattr(self, name) not in words:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not possible", f"give one of: {', '.join(words)}"
                )
        for name in ("connect_timeout", "ack_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not positive", "give seconds above 0"
                )
        _require_client()

    def open(self) -> Session:
        """Connect.

        Raises:
            TransportDown: no server can be reached, or they refuse us.
        """
        make_login, make_client = _require_client()
        login = make_login(
            servers=tuple(self.servers),
            username=self.username,
            password=self.password() if callable(self.password) else self.password,
            tls=self.tls,
            connect_timeout=self.connect_timeout,
            client_name=f"postroom {self.name}",
        )
        client = make_client(login)
        client.connect()
        return NatsSession(self, client)


class NatsSession(Session):
    """Keeps one connection."""

    def __init__(self, transport: NatsTransport, client: "NatsClient") -> None:
        self._transport = transport
        self._client = client

    def send(self, delivery: Delivery) -> Outcomes:
        """Publish to all targets at once, and wait for the answers."""
        if not self.usable or not self._client.is_connected:
            self.usable = False
            raise SessionStale("the connection is closed")
        transport = self._transport
        problems = [subject_problem(target.address.value) for target in delivery.targets]
        publications = [
            publication_of(delivery, target, transport.body)
            for target, problem in zip(delivery.targets, problems, strict=True)
            if not problem
        ]
        answers = iter(
            self._client.publish(publications, transport.ack_timeout, acknowledged=transport.jetstream)
        )
        self.usable = self.usable and self._client.is_connected
        return [
            Failed(Reply(f"not a usable subject: {problem}", "5.1.3"))
            if problem
            else outcome_of(next(answers), transport.no_stream)
            for problem in problems
        ]

    def noop(self) -> bool:
        """Return whether the server answers."""
        self.usable = self.usable and self._client.ping(PING_SECONDS)
        return self.usable

    def close(self) -> None:
        """Close the connection."""
        self.usable = False
        self._client.close()

    def abort(self) -> None:
        """Stop waiting for an answer."""
        self.usable = False
        self._client.abort()


def _read_server(server: str) -> str:
    parts = urlsplit(server)
    if parts.username or parts.password:
        raise ConfigurationError("servers", "a URL carries credentials", "give username= and password=")
    if parts.scheme not in {"nats", "tls"} or not parts.hostname:
        raise ConfigurationError(
            "servers", f"{server!r} is no server", "write nats://host:4222 or tls://host:4222"
        )
    return server


def _require_client() -> "tuple[type[Login], type[NatsClient]]":
    try:
        from postroom.transports.nats_client import Login, NatsClient  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        remedy = "run: pip install 'postroom[nats]'"
        raise ConfigurationError("NatsTransport", f"{error.name} is not installed", remedy) from error
    return Login, NatsClient
