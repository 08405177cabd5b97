"""HTTP endpoints for providers' webhooks: what became of our messages, and messages that come in.

Both are WSGI and ASGI callables to mount in the application that the host has anyway::

    reports = ReportEndpoint(spooler, providers={"/ses": SesReports(topics), "/twilio": TwilioReports(token, url)})
    app.mount("/hooks", reports.asgi)                                        # FastAPI, Starlette
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/hooks": reports.wsgi})      # Flask

    mail = InboundEndpoint(spooler, providers={"/mailgun/mime": MailgunInbound(signing_key)})

A request is answered with 200 only after the spool has committed what it says; whatever comes before that, the provider
sends it again, and taking it twice does no harm.

======  =============================================================================================
status  when
======  =============================================================================================
200     it is in the spool, or says nothing of interest
400     it is authentic and cannot be read
401     it is not authentic, or too old
404     there is no such provider
405     anything but POST
411     a WSGI server does not know how long it is
413     it is larger than ``max_body``
415     it is of another content type than the provider's
500     something of ours is broken; it is logged
503     the spool does not take it now, or the provider's certificate cannot be had; with Retry-After
======  =============================================================================================

No answer says more than its status.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from postroom.errors import ConfigurationError, StateError, WorldError
from postroom.inbound.values import Arrival, Received, RemoteReport
from postroom.receivers.providers_base import Malformed, Provider, Unauthorized, Unavailable

__all__ = ["InboundEndpoint", "Inlets", "MessageInlet", "ReportEndpoint", "ReportTaker"]

log = logging.getLogger("postroom.receivers")

T = TypeVar("T")
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
StartResponse = Callable[..., object]


class ReportTaker(Protocol):
    """Who takes reports: a :class:`postroom.Spooler`."""

    def take_reports(self, reports: Sequence[RemoteReport], *, timeout: float | None = None) -> list[bool]:
        """Change the recipients that are meant; return for each report whether it means one of ours."""
        ...


class MessageInlet(Protocol):
    """What is needed of :class:`postroom.receivers.base.Inlet`."""

    def take(self, arrivals: Sequence[Arrival], *, timeout: float | None = None) -> list[Received]:
        """Make messages durable."""
        ...


class Inlets(Protocol):
    """Who takes messages: a :class:`postroom.Spooler`."""

    def inlet(self, name: str) -> MessageInlet:
        """Return the way in under a receiver's name."""
        ...


class _Answer(NamedTuple):
    status: HTTPStatus
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        return f"{self.status.phrase}\n".encode()

    @property
    def fields(self) -> list[tuple[str, str]]:
        return [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            *self.headers,
        ]


class _Endpoint(ABC, Generic[T]):
    """What both endpoints share. Thread-safe.

    Attributes:
        asgi: the ASGI 3 application.
    """

    def __init__(
        self, providers: Mapping[str, Provider[T]], *, max_body: int, timeout: float, retry_after: float
    ) -> None:
        for path in providers:
            if not path.startswith("/") or path != path.rstrip("/"):
                raise ConfigurationError(
                    "providers",
                    f"{path!r} is no path below the endpoint",
                    'begin it with a slash, as in "/ses"',
                )
        for field, value in (("max_body", max_body), ("timeout", timeout), ("retry_after", retry_after)):
            if not value > 0:
                raise ConfigurationError(field, f"{value!r} is not positive", "give a number above 0")
        if not providers:
            raise ConfigurationError("providers", "there are none", "name at least one with its path")
        self._providers = dict(providers)
        self._max_body = max_body
        self._timeout = timeout
        self._retry_after = retry_after

        async def asgi(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            """Answer a request of an ASGI server; what blocks runs in a thread of the loop's executor."""
            await self._asgi(scope, receive, send)

        # uvicorn takes a bound method for an application of ASGI 2.
        self.asgi = asgi

    @abstractmethod
    def _take(self, said: Sequence[T]) -> None:
        """Make durable what a request says."""

    # What both kinds of servers share

    def _refusal(self, method: str, path: str, headers: Mapping[str, str]) -> _Answer | None:
        """Return why a request is refused before its body is read, None if it is not."""
        provider = self._providers.get(path.rstrip("/"))
        if provider is None:
            return _Answer(HTTPStatus.NOT_FOUND)
        if method != "POST":
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, (("Allow", "POST"),))
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if provider.content_types and kind not in provider.content_types:
            return _Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        if (_length(headers) or 0) > self._max_body:
            return _Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return None

    def _answer(self, path: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        """Read and take a request; blocks until it is durable."""
        provider = self._providers[path.rstrip("/")]
        later = _Answer(
            HTTPStatus.SERVICE_UNAVAILABLE, (("Retry-After", str(max(1, round(self._retry_after)))),)
        )
        try:
            said = provider.read(headers, body)
            if said:
                self._take(said)
        except Unauthorized as error:
            log.warning("refused a request at %s: %s", path, error)
            return _Answer(HTTPStatus.UNAUTHORIZED, (("WWW-Authenticate", provider.challenge),))
        except Malformed as error:
            log.warning("cannot read a request at %s: %s", path, error)
            return _Answer(HTTPStatus.BAD_REQUEST)
        except (Unavailable, WorldError, StateError) as error:
            log.warning("cannot take a request at %s now: %s", path, error)
            return later
        except Exception:
            # A provider's own mistakes must not reach whoever asks, nor end the server.
            log.exception("a request at %s failed", path)
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return _Answer(HTTPStatus.OK)

    # WSGI (PEP 3333)

    def wsgi(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of a WSGI server."""
        method = str(environ.get("REQUEST_METHOD", "GET"))
        path = str(environ.get("PATH_INFO", ""))
        headers = {
            name[5:].replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        headers |= {
            name.replace("_", "-").lower(): str(environ[name])
            for name in ("CONTENT_TYPE", "CONTENT_LENGTH")
            if environ.get(name)
        }
        answer = self._refusal(method, path, headers) or self._wsgi_answer(environ, path, headers)
        start_response(f"{answer.status.value} {answer.status.phrase}", answer.fields)
        return [] if method == "HEAD" else [answer.body]

    def _wsgi_answer(self, environ: Mapping[str, Any], path: str, headers: Mapping[str, str]) -> _Answer:
        length = _length(headers)
        if length is None and not environ.get("wsgi.input_terminated"):
            return _Answer(HTTPStatus.LENGTH_REQUIRED)
        left = self._max_body + 1 if length is None else length
        chunks: list[bytes] = []
        try:
            while left > 0 and (chunk := environ["wsgi.input"].read(min(left, 65536))):
                chunks.append(chunk)
                left -= len(chunk)
        except OSError:
            return _Answer(HTTPStatus.BAD_REQUEST)
        if length is None and left <= 0:
            return _Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if length is not None and left > 0:
            return _Answer(HTTPStatus.BAD_REQUEST)
        return self._answer(path, headers, b"".join(chunks))

    # ASGI 3

    async def _asgi(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        path, root = str(scope["path"]), str(scope.get("root_path", ""))
        if root and path.startswith(root):
            path = path[len(root) :]
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        method = str(scope["method"])
        answer = self._refusal(method, path, headers)
        if answer is None:
            body = await self._body(receive)
            if isinstance(body, bytes):
                answer = await asyncio.to_thread(self._answer, path, headers, body)
            elif body is None:
                return
            else:
                answer = body
        encoded = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in answer.fields]
        await send({"type": "http.response.start", "status": answer.status.value, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})

    async def _body(self, receive: Receive) -> bytes | _Answer | None:
        """Return the body, the answer if it is too large, None if whoever asked has gone."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body:
                return _Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            if not message.get("more_body", False):
                return bytes(body)


class ReportEndpoint(_Endpoint[RemoteReport]):
    """Takes what providers report about our messages; see the module's docstring. Thread-safe.

    Args:
        spooler: whose recipients they are about.
        providers: who reports, by the path below the place where this is mounted.
        max_body: octets of a request at most.
        timeout: seconds to wait for the spool.
        retry_after: seconds after which a provider is asked to come again.
    """

    def __init__(
        self,
        spooler: ReportTaker,
        *,
        providers: Mapping[str, Provider[RemoteReport]],
        max_body: int = 4 * 1024 * 1024,
        timeout: float = 10.0,
        retry_after: float = 30.0,
    ) -> None:
        super().__init__(providers, max_body=max_body, timeout=timeout, retry_after=retry_after)
        self._spooler = spooler

    def _take(self, said: Sequence[RemoteReport]) -> None:
        matched = self._spooler.take_reports(said, timeout=self._timeout)
        if not all(matched):
            log.info(
                "%d of %d reports are about no message of this spool", matched.count(False), len(matched)
            )


class InboundEndpoint(_Endpoint[Arrival]):
    """Takes messages that providers post; see the module's docstring. Thread-safe.

    Args:
        spooler: where they go.
        providers: who posts them, by the path below the place where this is mounted.
        name: of the receiver that they come from, on the record and in the metrics.
        max_body: octets of a request at most.
        timeout: seconds to wait for the spool.
        retry_after: seconds after which a provider is asked to come again.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        spooler: Inlets,
        *,
        providers: Mapping[str, Provider[Arrival]],
        name: str = "http",
        max_body: int = 64 * 1024 * 1024,
        timeout: float = 10.0,
        retry_after: float = 30.0,
    ) -> None:
        super().__init__(providers, max_body=max_body, timeout=timeout, retry_after=retry_after)
        self._spooler = spooler
        self._name = name

    def _take(self, said: Sequence[Arrival]) -> None:
        self._spooler.inlet(self._name).take(said, timeout=self._timeout)


def _length(headers: Mapping[str, str]) -> int | None:
    said = headers.get("content-length", "").strip()
    return int(said) if said.isascii() and said.isdigit() and len(said) < 16 else None


async def _lifespan(receive: Receive, send: Send) -> None:
    """Take part in the server's life, for where this is the whole application."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
