"""Server-sent events: a browser's list refreshes when mail arrives.

Mount it in the application that the host has anyway::

    stream = EventStream(spooler, kinds={NewMessage, InboundChanged}, authorize=may_read)
    app.mount("/events", stream.asgi)          # Starlette and the like; stream.wsgi for WSGI servers

and in the page::

    const source = new EventSource("/events?after=" + cursor);   // the journal's cursor when the list was made
    source.addEventListener("new_message", (event) => refresh(JSON.parse(event.data)));
    source.addEventListener("reset", () => location.reload());

Each event is named as its type in the public form (:mod:`postroom.notifying.codec`), which is its data. What the
journal keeps has its cursor as ``id``: a browser that was cut off says by itself where it was (Last-Event-ID) and
misses nothing, even if the server was restarted meanwhile. When that is too long ago (``keep_events``) or was another
spool, it gets a ``reset`` event. What the journal does not keep comes while the connection lasts.

======  =============================================================================================
status  when
======  =============================================================================================
200     the stream, or for HEAD its headers
204     OPTIONS
400     ``?after=`` is not a cursor
403     ``authorize`` says no
405     any other method
503     there are ``max_clients``, or the spooler does not run. A browser does not come back by itself then
======  =============================================================================================

Each client of a WSGI server takes one of its threads, and none of an ASGI server's. Of the spool's work one thread per
stream reads for all of them; see :mod:`postroom.notifying.fanout`.
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, cast

from postroom.errors import ConfigurationError, NotRunning, SpoolFull
from postroom.events import Event
from postroom.notifying.fanout import Client, EventSource, Fanout, Wanted
from postroom.notifying.journal import Kinds
from postroom.notifying.sse import (
    HEADERS,
    Place,
    begin,
    event_frame,
    headers_of,
    heartbeat,
    place_of,
    reset_frame,
    status_line,
)

__all__ = ["EventStream"]

Verdict = bool | Wanted | None
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
StartResponse = Callable[..., object]


class EventStream:
    """See the module's docstring. Thread-safe.

    Args:
        spooler: whose events; it may be started, stopped and started again.
        kinds: classes of events, subclasses included; none means all.
        authorize: says, of the WSGI environ or the ASGI scope, once for each request, who may have what: True for all,
            a function of an event for those for which it returns True, False or None for nobody. For ASGI it may be a
            coroutine function; else it must not block. Without it everybody may have everything.
        filter: which events are streamed at all.
        heartbeat: seconds of silence after which a comment is sent, which also finds out who has gone.
        retry: seconds after which a browser that was cut off comes back.
        max_clients: at a time; further ones are refused.
        buffer: events that may wait in memory for one client.
        name: for logs, metrics and the thread.

    Attributes:
        asgi: answers a request of an ASGI server.

    Raises:
        ConfigurationError: an option is out of range.
        UsageError: ``kinds`` are no classes of events.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        spooler: EventSource,
        *,
        kinds: Kinds = (),
        authorize: Callable[[Mapping[str, Any]], Verdict | Awaitable[Verdict]] | None = None,
        filter: Wanted | None = None,  # noqa: A002 - as in the other places that filter
        heartbeat: float = 15.0,
        retry: float = 3.0,
        max_clients: int = 1000,
        buffer: int = 1000,
        name: str = "event-stream",
    ) -> None:
        for field, value in (("heartbeat", heartbeat), ("max_clients", max_clients), ("buffer", buffer)):
            if not value > 0:
                raise ConfigurationError(field, f"{value!r} is not positive", "give a number above 0")
        if not retry >= 0:
            raise ConfigurationError("retry", f"{retry!r} is negative", "give seconds from 0")
        self._authorize = authorize
        self._filter = filter
        self._heartbeat = heartbeat
        self._retry = retry

        # A function, since servers take other callables for those of ASGI 2.
        async def asgi(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            await self._answer(scope, receive, send)

        self.asgi = asgi
        self._fanout = Fanout(
            spooler, kinds=kinds, write=event_frame, buffer=buffer, most=max_clients, name=name
        )

    @property
    def clients(self) -> int:
        """How many are connected."""
        return self._fanout.clients

    @property
    def dropped(self) -> int:
        """Live events that clients lost because they were too slow, counted when they leave."""
        return self._fanout.dropped

    def close(self) -> None:
        """End all streams; browsers will come back. For a server that waits for its connections when it stops."""
        self._fanout.close()

    # What both kinds of servers share

    def _refusal(self, method: str, verdict: Verdict, place: Place | None) -> HTTPStatus | None:
        if method == "OPTIONS":
            return HTTPStatus.NO_CONTENT
        if method not in {"GET", "HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED
        if verdict is not True and not callable(verdict):
            return HTTPStatus.FORBIDDEN
        return HTTPStatus.BAD_REQUEST if place is None else None

    def _join(self, place: Place, verdict: Verdict, wake: Callable[[], object]) -> Client | None:
        """Return a new client, None when there is no room or the spooler does not run."""
        tests = [test for test in (self._filter, verdict) if callable(test)]

        def wanted(event: Event) -> bool:
            return all(test(event) for test in tests)

        with contextlib.suppress(SpoolFull, NotRunning):
            return self._fanout.join(place.after, wanted, wake, lost=place.lost)
        return None

    def _first(self, client: Client) -> bytes:
        return begin(self._retry, client.position)

    @staticmethod
    def _next(client: Client) -> bytes:
        """Return what there is to send now, b"" for nothing."""
        chunks = client.take()
        if client.take_reset():
            chunks.insert(0, reset_frame(client.position))
        return b"".join(chunks)

    # WSGI (PEP 3333)

    def wsgi(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of a WSGI server."""
        method = str(environ.get("REQUEST_METHOD", "GET"))
        verdict: Verdict = True
        if self._authorize is not None and method in {"GET", "HEAD"}:
            said = self._authorize(environ)
            if inspect.isawaitable(said):
                if inspect.iscoroutine(said):
                    said.close()
                raise ConfigurationError(
                    "authorize", "a coroutine function cannot be used with WSGI", "give a plain function"
                )
            verdict = said
        place = place_of(str(environ.get("HTTP_LAST_EVENT_ID", "")), str(environ.get("QUERY_STRING", "")))
        refusal = self._refusal(method, verdict, place)
        if refusal is None and method == "GET":
            woken = threading.Event()
            client = self._join(cast("Place", place), verdict, woken.set)
            if client is not None:
                start_response(status_line(HTTPStatus.OK), list(HEADERS))
                return _WsgiBody(self, client, woken)
            refusal = HTTPStatus.SERVICE_UNAVAILABLE
        if refusal is None:
            start_response(status_line(HTTPStatus.OK), list(HEADERS))
            return []
        start_response(status_line(refusal), headers_of(refusal, self._retry))
        has_body = method != "HEAD" and refusal is not HTTPStatus.NO_CONTENT
        return [f"{refusal.phrase}\n".encode()] if has_body else []

    def stream(self, client: Client, woken: threading.Event) -> Iterator[bytes]:
        """Yield what a client is sent; waits in between. For :meth:`wsgi`."""
        yield self._first(client)
        while True:
            woken.clear()
            ended = client.ended
            chunk = self._next(client)
            if chunk:
                yield chunk
            elif ended:
                return
            elif not client.lagging and not woken.wait(self._heartbeat):
                yield heartbeat(client.position)

    def leave(self, client: Client) -> None:
        """Take a client out. For :meth:`wsgi`."""
        self._fanout.leave(client)

    # ASGI 3

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        method = str(scope["method"])
        verdict: Verdict = True
        if self._authorize is not None and method in {"GET", "HEAD"}:
            said = self._authorize(scope)
            verdict = await said if inspect.isawaitable(said) else said
        known = [value for name, value in scope["headers"] if name == b"last-event-id"]
        place = place_of(
            known[-1].decode("latin-1") if known else "",
            bytes(scope.get("query_string", b"")).decode("latin-1"),
        )
        refusal = self._refusal(method, verdict, place)
        if refusal is None and method == "GET":
            waker = _Waker()
            client = await asyncio.to_thread(self._join, cast("Place", place), verdict, waker.wake)
            if client is not None:
                try:
                    await self._serve(client, waker, receive, send)
                finally:
                    self._fanout.leave(client)
                return
            refusal = HTTPStatus.SERVICE_UNAVAILABLE
        status = HTTPStatus.OK if refusal is None else refusal
        headers = HEADERS if refusal is None else headers_of(refusal, self._retry)
        has_body = method != "HEAD" and status is not HTTPStatus.NO_CONTENT
        await send(_start(status, headers))
        await send({"type": "http.response.body", "body": f"{status.phrase}\n".encode() if has_body else b""})

    async def _serve(self, client: Client, waker: "_Waker", receive: Receive, send: Send) -> None:
        await send(_start(HTTPStatus.OK, HEADERS))
        await send({"type": "http.response.body", "body": self._first(client), "more_body": True})
        gone = asyncio.ensure_future(_disconnected(receive, waker))
        try:
            while not gone.done():
                waker.clear()
                ended = client.ended
                # Only who catches up reads the journal.
                chunk = await asyncio.to_thread(self._next, client) if client.lagging else self._next(client)
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                elif ended:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                elif not client.lagging and not await waker.wait(self._heartbeat):
                    beat = heartbeat(client.position)
                    await send({"type": "http.response.body", "body": beat, "more_body": True})
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Take part in the server's life, for where it is the whole application."""
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self.close()
                return


class _WsgiBody:
    """What a WSGI server iterates over, and closes when the client has gone."""

    def __init__(self, stream: EventStream, client: Client, woken: threading.Event) -> None:
        self._stream = stream
        self._client = client
        self._chunks = stream.stream(client, woken)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Let go."""
        self._stream.leave(self._client)


class _Waker:
    """Wakes a task of an event loop from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._told = False

    def wake(self) -> None:
        """Wake it; many calls before it runs are one."""
        if not self._told:
            self._told = True
            # The loop may be closed by now; whoever tells must not suffer for it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    def clear(self) -> None:
        """Sleep at the next :meth:`wait` unless there is news after this call."""
        self._told = False
        self._woken.clear()

    async def wait(self, seconds: float) -> bool:
        """Wait; returns whether it was woken."""
        try:
            # Not wait_for: in Python 3.11 that forgets a cancellation that comes together with the wake.
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True


def _start(status: HTTPStatus, headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    encoded = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers]
    return {"type": "http.response.start", "status": status.value, "headers": encoded}


async def _disconnected(receive: Receive, waker: _Waker) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    waker.wake()
