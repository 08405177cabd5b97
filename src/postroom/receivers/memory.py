"""A receiver whose messages are handed over by the host itself: for embedding, tests and trials."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from postroom.errors import NotRunning, UsageError
from postroom.inbound.checking import check_arrivals
from postroom.inbound.values import Arrival, LedgerKey, Received
from postroom.receivers.base import Inlet, Receiver, ReceiverSession

__all__ = ["MemoryReceiver"]

OPEN_SECONDS = 30.0
"""How long a message waits for the receiver to be open when no other time is given."""


class _Entrance:
    """The inlet of the session that is open, if one is. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inlets: list[Inlet] = []

    def enter(self, inlet: Inlet) -> None:
        with self._changed:
            self._inlets.append(inlet)
            self._changed.notify_all()

    def leave(self, inlet: Inlet) -> None:
        with self._changed:
            self._inlets = [each for each in self._inlets if each is not inlet]

    def inlet(self, timeout: float) -> Inlet:
        with self._changed:
            if not self._changed.wait_for(lambda: self._inlets, timeout):
                raise NotRunning("the spooler does not run this receiver now; start() it first")
            # The latest: an earlier one may belong to a session that was given up.
            return self._inlets[-1]


@dataclass(kw_only=True, eq=False)
class MemoryReceiver(Receiver):
    """Takes what the host gives it. Thread-safe.

    ::

        injected = MemoryReceiver(name="helpdesk")
        with Spooler("spool.db", receivers=[injected], transports=[...]):
            injected.put(b"From: ...", sender="ann@example.net", recipients=["desk@example.org"])

    Attributes:
        name: "memory" by default.
        exclusive: False by default: each process may hand over what it has.
    """

    name: str = "memory"
    exclusive: bool = False
    _open: _Entrance = field(default_factory=_Entrance, init=False, repr=False)

    def open(self, inlet: Inlet) -> ReceiverSession:
        """Return a session; from now on messages can be put."""
        return MemorySession(self._open, inlet)

    def put(  # noqa: PLR0913 - by keyword
        self,
        content: bytes,
        *,
        key: str | None = None,
        expires: float | None = None,
        sender: str | None = None,
        recipients: Sequence[str] = (),
        remote: str = "",
        folder: str = "",
        seen: bool = False,
        timeout: float | None = None,
    ) -> Received:
        """Hand a message over; returns when it is durable.

        Args:
            content: its octets.
            key: with the same key it is not stored again: what makes it safe to try again after ``SpoolUnavailable``.
            expires: wall-clock seconds until which the key is known; None for ever.
            sender: envelope sender, "" for the null reverse-path, None when it is not known.
            recipients: envelope recipients.
            remote: whom it is from, for the record.
            folder: for rules.
            seen: it was read already.
            timeout: seconds; by default half a minute for the receiver to be open and ``settings.submit_timeout``.

        Raises:
            UsageError: the content is empty.
            SpoolFull: no room, or the disk is full; nothing was stored.
            SpoolUnavailable: the store did not answer in time; whether it was stored is not known.
            NotRunning: the spooler does not run, or not this receiver.
        """
        keys = () if key is None else (LedgerKey("memory", key, expires),)
        if isinstance(recipients, str) or not isinstance(cast("object", recipients), Sequence):
            raise UsageError("recipients", f"{recipients!r} is no list", "give a list of addresses")
        arrival = Arrival(
            content=content, keys=keys, sender=sender, recipients=tuple(recipients), remote=remote, folder=folder,
            seen=seen,
        )  # fmt: skip
        return self.put_all([arrival], timeout=timeout)[0]

    def put_all(self, arrivals: Sequence[Arrival], *, timeout: float | None = None) -> list[Received]:
        """Hand several messages over, all or none; returns when they are durable.

        Raises:
            PostroomError: as :meth:`put`.
        """
        check_arrivals(arrivals)
        inlet = self._open.inlet(OPEN_SECONDS if timeout is None else timeout)
        return inlet.take(arrivals, timeout=timeout)


class MemorySession(ReceiverSession):
    """Lets messages in while it is open."""

    def __init__(self, entrance: _Entrance, inlet: Inlet) -> None:
        self._entrance = entrance
        self._inlet = inlet
        self._woken = threading.Event()
        entrance.enter(inlet)
        inlet.report("up")

    def poll(self) -> int:
        """Return 0: what is put is taken at once, in the thread that puts it."""
        return 0

    def wait(self, timeout: float) -> None:
        """Wait; there is nothing to look for."""
        if not self._inlet.stopping.is_set():
            self._woken.wait(timeout)
        self._woken.clear()

    def interrupt(self) -> None:
        """End a wait."""
        self._woken.set()

    def close(self) -> None:
        """Let nothing in any more."""
        self._entrance.leave(self._inlet)
        self._woken.set()
