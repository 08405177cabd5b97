"""The connection of one session of the NATS transport: nats-py on an event loop of its own.

The loop runs only while the courier is in a call, so that there is no thread besides the courier's. Between calls
nothing is read: the server's PING is answered in the next call, which is in time, since it comes every two minutes
and sessions idle for less.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError

from postroom.errors import TransportDown
from postroom.replies import one_line
from postroom.transports.nats_wire import Answer, Problem, Publication, Trouble

__all__ = ["Login", "NatsClient"]

T = TypeVar("T")

CLOSE_SECONDS: Final = 1.0
_DAY: Final = 86_400
_REFUSED: Final = re.compile(r'permissions violation for publish to "?([^"\s]+)')


@dataclass(frozen=True, slots=True)
class Login:
    """Where to connect and how to log in; texts may be empty. Not shown."""

    servers: Sequence[str]
    username: str
    password: str
    tls: ssl.SSLContext | None
    connect_timeout: float
    client_name: str

    def __repr__(self) -> str:
        return f"Login({list(self.servers)!r})"


class Refused(Exception):
    """The server does not let this user publish to the subject."""


class Unanswered(Exception):
    """The connection ended, or we gave up, before there was an answer: the publication is in doubt."""


class NatsClient:
    """One connection. Not thread-safe, except ``abort``."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._client = Client()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._refusals: dict[str, asyncio.Future[None]] = {}
        self._trouble: BaseException | None = None

    def connect(self) -> None:
        """Connect and log in.

        Raises:
            TransportDown: no server can be reached, or they refuse us.
        """
        try:
            self._run(self._connect())
        except (NatsError, OSError) as error:
            self.close()
            said = self._trouble if isinstance(self._trouble, OSError) else error
            raise TransportDown(one_line(_reason_of(said))) from error
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> None:
        login = self._login
        tls = {} if login.tls is None else {"tls": login.tls}
        named = {"user": login.username, "password": login.password} if login.username else {}
        token = {"token": login.password} if login.password and not login.username else {}
        options: dict[str, Any] = {**tls, **named, **token}
        connecting = self._client.connect(
            list(login.servers),
            name=login.client_name,
            # The spooler reconnects: with the breaker's patience, and without a queue of its own in the client.
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=max(1, round(login.connect_timeout)),
            ping_interval=_DAY,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            **options,
        )
        await asyncio.wait_for(connecting, login.connect_timeout)

    async def _on_error(self, error: Exception) -> None:
        self._trouble = error
        found = _REFUSED.search(str(error).lower())
        refusal = self._refusals.get(found[1]) if found else None
        if refusal is not None and not refusal.done():
            refusal.set_result(None)

    async def _on_closed(self) -> None:
        self._end("the connection was lost")

    def _end(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._client.is_connected and not self._ended.done()

    def ping(self, timeout: float) -> bool:
        """Return whether the server answers a PING."""

        async def flush() -> None:
            await self._client.flush(timeout=max(1, round(timeout)))

        if not self.is_connected:
            return False
        try:
            self._run(self._unless_ended(flush()))
        except (NatsError, OSError, Unanswered):
            return False
        return self.is_connected

    def publish(
        self, publications: Sequence[Publication], timeout: float, *, acknowledged: bool
    ) -> list[Answer | Problem]:
        """Publish all at once; return for each the answer, or why there is none.

        Args:
            publications: what to publish.
            timeout: seconds to wait for the answers.
            acknowledged: by JetStream. Otherwise the answer only says that the server read it.
        """
        return self._run(self._publish(publications, timeout, acknowledged=acknowledged))

    async def _publish(
        self, publications: Sequence[Publication], patience: float, *, acknowledged: bool
    ) -> list[Answer | Problem]:
        client: Any = self._client  # its annotations leave out what its options are
        stream = client.jetstream(timeout=patience)

        async def one(publication: Publication) -> Answer:
            headers = dict(publication.headers)
            if not acknowledged:
                await self._client.publish(publication.subject, publication.payload, headers=headers)
                # nats-py sends a PING ahead of what waits to be sent: the answer to a second one comes after it.
                for _ in range(2):
                    await self._client.flush(timeout=max(1, round(patience)))
                return Answer()
            found = await stream.publish(publication.subject, publication.payload, patience, headers=headers)
            return Answer(found.stream, found.seq, bool(found.duplicate))

        async def unless_refused(publication: Publication) -> Answer:
            # The server says so on the side, not as an answer, and in lower case once nats-py has read it.
            subject = publication.subject.lower()
            refusal = self._refusals.setdefault(subject, self._loop.create_future())
            work = self._loop.create_task(one(publication))
            try:
                await _first(work, refusal)
                if refusal.done():
                    raise Refused(f"no permission to publish to {publication.subject}")
                return work.result()
            finally:
                await _cancel(work)

        async def settled(publication: Publication) -> Answer | Problem:
            try:
                return await self._unless_ended(unless_refused(publication))
            except (NatsError, OSError, Refused, Unanswered) as error:
                return _problem(error)

        self._refusals.clear()
        return list(await asyncio.gather(*map(settled, publications)))

    async def _unless_ended(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result, unless the connection ends first.

        Raises:
            Unanswered: it did.
        """
        work = self._loop.create_task(coroutine)
        try:
            await _first(work, self._ended)
            if work.done():
                return work.result()
            raise Unanswered(self._ended.result())
        finally:
            await _cancel(work)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def abort(self) -> None:
        """End what goes on, from any thread; the client is of no use afterwards. Never raises."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end, "aborted")

    def close(self) -> None:
        """Close the connection and the loop. Never raises; may be called again."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self._run(self._close())
        with contextlib.suppress(Exception):
            self._runner.close()

    async def _close(self) -> None:
        with contextlib.suppress(NatsError, OSError):
            await asyncio.wait_for(self._client.close(), CLOSE_SECONDS)
        # A client that could not connect, or not flush, leaves its socket open, and has no public way to close it.
        wire = getattr(self._client, "_transport", None)
        writer = getattr(wire, "_io_writer", None)
        if isinstance(writer, asyncio.StreamWriter):
            writer.transport.abort()
            await asyncio.sleep(0)


async def _first(*either: "asyncio.Future[Any]") -> None:
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)


async def _cancel(task: "asyncio.Task[Any]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at, or asyncio complains that nobody did


_SILENCE: Final[Trouble] = "silence"
_KINDS: Final[Mapping[type[Exception], Trouble]] = {
    NoStreamResponseError: "no_stream",
    APIError: "jetstream",
    Refused: "refused",
    MaxPayloadError: "too_large",
    BadSubjectError: "subject",
}


def _problem(error: Exception) -> Problem:
    for known, trouble in _KINDS.items():
        if isinstance(error, known):
            kind = trouble
            break
    else:
        kind = _SILENCE
    if isinstance(error, APIError):
        return Problem(kind, one_line(_reason_of(error)), error.code, error.err_code)
    return Problem(kind, one_line(_reason_of(error)))


def _reason_of(error: BaseException) -> str:
    """Return an error's text without the client's own name before it."""
    if isinstance(error, NoStreamResponseError):
        return "no stream takes this subject"
    if isinstance(error, APIError):
        return error.description or "refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).removeprefix("nats: ") or type(error).__name__
