"""The listener's server: an event loop in a thread of its own, that accepts connections until it is told to stop."""

import asyncio
import logging
import socket
import ssl
import threading
from contextlib import suppress
from typing import Final

from postroom.errors import WorldError
from postroom.receivers.base import ReceiverSession
from postroom.receivers.listener_hub import Hub
from postroom.receivers.listener_protocol import Connection, TurnedAway

__all__ = ["ListenerSession"]

HANDSHAKE: Final = 30.0
"""Seconds for TLS to be agreed on."""

START: Final = 30.0
"""Seconds for the thread to begin."""

LAST_WORDS: Final = 1.0
"""Seconds for connections to end that were cut."""

log = logging.getLogger("postroom.receivers.listener")


class ListenerSession(ReceiverSession):
    """A listening server. Made by :meth:`postroom.receivers.listener.SmtpListener.open`.

    Args:
        hub: what its connections share.
        listening: the socket; closed with the session.
        tls: for TLS from the first byte, None for none.
        drain: seconds that connections have to finish the message in hand when the session is closed.
        name: of the thread.

    Raises:
        WorldError: the server did not start.
    """

    def __init__(
        self, hub: Hub, listening: socket.socket, *, tls: ssl.SSLContext | None, drain: float, name: str
    ) -> None:
        self._hub = hub
        self._socket = listening
        name_of_socket: tuple[str, int] = listening.getsockname()[:2]
        self._address = name_of_socket
        self._tls = tls
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._wake = threading.Event()
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"postroom-{name}", daemon=True)
        self._thread.start()
        self._started.wait(START)
        if self._stop is None or not self._thread.is_alive():
            self.close()
            raise WorldError(f"the listener did not start: {self._error or 'no answer from its thread'}")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which it listens."""
        return self._address

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def poll(self) -> int:
        """Return how many messages were taken since the last call.

        Raises:
            WorldError: the server died.
        """
        if not self._thread.is_alive() and not self._closed:
            raise WorldError(f"the listener died: {self._error!r}") from self._error
        return self._hub.tally()

    def wait(self, timeout: float) -> None:
        """Return after ``timeout`` seconds, on ``interrupt``, or when the server dies."""
        self._wake.wait(timeout)

    def interrupt(self) -> None:
        """Make ``wait`` return."""
        self._wake.set()

    def close(self) -> None:
        """Accept nobody more, let messages in hand be answered within ``drain`` seconds, and end all connections."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(self._drain + 2 * LAST_WORDS)
        if self._thread.is_alive():
            log.error("the listener's thread does not end")
        self._hub.takers.stop(LAST_WORDS)
        self._hub.askers.stop(LAST_WORDS)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            log.exception("the listener died")
        finally:
            self._started.set()
            self._wake.set()

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        server = await loop.create_server(
            self._connection,
            sock=self._socket,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE,
        )
        self._stop = stop
        self._started.set()
        try:
            await stop.wait()
        finally:
            server.close()
            await self._end()

    async def _end(self) -> None:
        hub = self._hub
        hub.closing = True
        for caller in tuple(hub.callers):
            caller.dismiss()
        for seconds in (self._drain, LAST_WORDS):
            if hub.callers:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await hub.gone.wait()
            for caller in tuple(hub.callers):
                caller.cut()

    def _connection(self) -> asyncio.BaseProtocol:
        hub = self._hub
        if hub.closing or len(hub.callers) >= hub.rules.max_connections:
            return TurnedAway()
        return Connection(hub, asyncio.get_running_loop())
