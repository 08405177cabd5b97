"""Reading the content of a message off a connection, in large pieces and within bounds."""

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["Content"]

END: Final = b"\r\n.\r\n"
SLACK: Final = 4096
"""Octets: more doubled dots than that are not overlooked where one piece ends and another begins."""

_BEGINNINGS: Final = tuple(END[:length] for length in range(1, len(END)))


class Content:
    """What follows DATA, up to the line with a single dot; nothing but CRLF ends a line (RFC 5321 section 4.1.1.4).

    What is beyond a bound is read to its end and dropped, so that the connection stays in step.

    Args:
        limit: octets beyond which nothing is kept; doubled dots count about half, so that the final word is that of
            who takes them out.
        reserve: asked for room before octets are kept; False refuses.
    """

    def __init__(self, limit: int, reserve: Callable[[int], bool]) -> None:
        self._limit = limit
        self._reserve = reserve
        self._pieces: list[bytes] = []
        self._dots = 0
        self.size = 0
        self.reserved = 0
        self.too_large = False
        self.no_room = False

    async def read(self, reader: asyncio.StreamReader, progress: Callable[[], None]) -> None:
        """Read to the end; ``progress`` is called after each piece.

        Raises:
            asyncio.IncompleteReadError: the connection ended.
        """
        # The CRLF that the first line's dot needs before it was that of the command. Read on until nothing of what came
        # can be the beginning of the end, so that it is found in one piece.
        start = bytearray(await reader.readexactly(3))
        if bytes(start) == b".\r\n":
            return
        while not start.endswith(END) and start.endswith(_BEGINNINGS):
            start += await reader.readexactly(1)
            if len(start) > 65536:
                # Nobody begins a message with thousands of empty lines; what is kept is still what was sent.
                self._keep(bytes(start[:-4]))
                del start[:-4]
                progress()
        if start.endswith(END):
            self._keep(bytes(start[:-3]))
            return
        self._keep(bytes(start))
        while True:
            try:
                piece = await reader.readuntil(END)
            except asyncio.LimitOverrunError as overrun:
                self._keep(await reader.readexactly(overrun.consumed))
                progress()
            else:
                self._keep(piece[:-3])
                return

    def take(self) -> bytes:
        """Return what came, dot-stuffed and without the final dot, and keep nothing."""
        content = b"".join(self._pieces)
        self._pieces.clear()
        return content

    def _keep(self, piece: bytes) -> None:
        self.size += len(piece)
        self._dots += piece.count(b"\n..")
        if self.too_large or self.no_room:
            return
        if self.size - self._dots > self._limit + SLACK:
            self.too_large = True
        elif self._reserve(len(piece)):
            self.reserved += len(piece)
            self._pieces.append(piece)
            return
        else:
            self.no_room = True
        self._pieces.clear()
