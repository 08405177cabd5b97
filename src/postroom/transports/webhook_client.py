"""The HTTP client of the webhook transport.

httpcore does HTTP/1.1, keep-alive and the pool; httpx gives URL parsing and the certificate bundle. Nothing
is taken from the environment: no proxies, no certificate paths, no netrc. No cookies are kept, and redirects
are not followed.
"""

import contextlib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http.client import responses

import httpcore
import httpx

from postroom.outcomes import Reply
from postroom.replies import exception_reply
from postroom.transports.webhook_exchange import HttpReply, NoAnswerError, Timeouts
from postroom.transports.webhook_guard import AddressGuard
from postroom.transports.webhook_wire import Resolve, Wire, system_resolve

__all__ = ["HttpClient", "default_tls"]

MAX_BODY = 4096
"""Octets of a response that are read for the reply text."""

BODY_SECONDS = 5.0
"""How long the text may take to arrive: the status is known already and decides alone."""

MAX_CONNECTIONS = 10
"""Connections, each to another host, that a session keeps at most."""


def default_tls() -> ssl.SSLContext:
    """Return a client context that verifies against httpx's certificate bundle."""
    return httpx.create_ssl_context(trust_env=False)


class HttpClient:
    """Posts, one request at a time. Not thread-safe, except ``abort``.

    Args:
        guard: judges every address before it is connected to.
        timeouts: see :class:`Timeouts`.
        tls: the context for https.
        idle: seconds after which an unused connection is not used again.
        resolve: how names become addresses.
    """

    def __init__(
        self,
        guard: AddressGuard,
        timeouts: Timeouts,
        tls: ssl.SSLContext,
        *,
        idle: float = 30.0,
        resolve: Resolve = system_resolve,
    ) -> None:
        self._total = timeouts.total
        self._extensions = {
            "timeout": {
                "connect": timeouts.connect,
                "write": timeouts.write,
                "read": timeouts.read,
                "pool": 0.0,
            }
        }
        self._wire = Wire(guard, resolve)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=idle,
            network_backend=self._wire,
        )

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> HttpReply:
        """Send ``body`` to ``url`` and return the answer, whatever its status.

        A kept connection that the receiver closed before it answered anything is replaced once, silently.

        Raises:
            NoAnswerError: there was no answer, or the URL or its address is refused.
            TransportDown: this machine cannot connect to anything.
        """
        parsed = _parse(url)
        host = parsed.netloc.decode("ascii")
        # Host by hand: httpcore writes an IPv6 address without its brackets.
        fields = [("Host", host), *headers.items()]
        self._wire.begin(self._total)
        try:
            try:
                return self._exchange(parsed, host, fields, body)
            except (httpcore.NetworkError, httpcore.RemoteProtocolError):
                if not self._wire.was_stale():
                    raise
            return self._exchange(parsed, host, fields, body)
        except httpcore.TimeoutException as error:
            raise self._unanswered(TimeoutError(str(error)), host) from error
        except httpcore.NetworkError as error:
            raise self._unanswered(ConnectionError(str(error)), host) from error
        except httpcore.RemoteProtocolError as error:
            if self._wire.received:
                said, status = f"the answer is incomplete or not HTTP: {error}", "4.5.0"
            else:
                said, status = "connection closed without an answer", "4.4.2"
            raise NoAnswerError(Reply(said, status, None, host, self._wire.tls)) from error
        except NoAnswerError as error:
            reply = replace(error.reply, remote=host)
            raise NoAnswerError(reply, error.error, error.phase) from error.__cause__

    def _unanswered(self, error: OSError, host: str) -> NoAnswerError:
        return NoAnswerError(exception_reply(error, host, self._wire.tls), error)

    def _exchange(self, url: httpx.URL, host: str, headers: list[tuple[str, str]], body: bytes) -> HttpReply:
        self._wire.next_request()
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        with self._pool.stream(
            "POST", target, headers=headers, content=body, extensions=self._extensions
        ) as response:
            received = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            self._wire.hurry(BODY_SECONDS)
            text = _beginning(response.iter_stream()).decode("utf-8", "replace").strip()
            if received.get(b"content-encoding", "identity").lower() != "identity":
                text = ""
            return HttpReply(
                code=response.status,
                text=text or responses.get(response.status, ""),
                host=host,
                retry_after=received.get(b"retry-after"),
                location=received.get(b"location"),
                tls=self._wire.tls,
            )

    def close(self) -> None:
        """Close every connection. Never raises; may be called again."""
        self._wire.abort()
        with contextlib.suppress(Exception):
            self._pool.close()

    def abort(self) -> None:
        """Cut off whatever is going on, from any thread; the client is of no use afterwards. Never raises."""
        self._wire.abort()


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NoAnswerError(Reply(f"not a usable URL: {error}", "5.1.3")) from error
    if parsed.userinfo:
        remedy = "give credentials as headers= of the transport"
        raise NoAnswerError(Reply(f"the URL carries a user name or password; {remedy}", "5.1.3"))
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.port == 0:
        raise NoAnswerError(
            Reply("not a usable URL: it needs http or https, a host, and no port or one above 0", "5.1.3")
        )
    return parsed


def _beginning(stream: Iterable[bytes]) -> bytes:
    """Return at most ``MAX_BODY`` octets; what arrived before the stream breaks counts."""
    kept = bytearray()
    with contextlib.suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        for chunk in stream:
            kept += chunk
            if len(kept) >= MAX_BODY:
                break
    return bytes(kept[:MAX_BODY])
