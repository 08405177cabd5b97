"""The plot of the demo: eight threads submit, the SMTP server is killed and comes back, actors are crashed."""

import threading
from collections.abc import Callable, Iterator
from typing import Final

from postroom.demo.mail import SENDER, Specimen
from postroom.demo.processes import ServerProcess
from postroom.demo.scene import Timeline
from postroom.errors import PostroomError
from postroom.events import ActorRestarted, Event, TransportChanged
from postroom.spooler import Spooler

__all__ = ["Story"]

THREADS: Final = 8
SUBMIT_SECONDS: Final = 10.0
KILL_AT: Final = 2.0
CRASH_AT: Final = 3.5
RETURN_AT: Final = 6.0
SECOND_CRASH_BY: Final = 13.0

BEGIN: Final = (
    "Eight threads submit mail for an SMTP server, webhooks and Maildirs. submit() returns once a message is on disk;"
    " delivery goes on behind it, and almost nothing waits."
)
OUTAGE: Final = (
    "The SMTP server is dead. Its transport is parked and costs no message an attempt; one message probes it now and"
    " then. Its mail waits on disk, webhooks and Maildirs go on."
)
CRASHED: Final = (
    "The actor that delivers webhooks was crashed on purpose. The supervisor starts it again within a moment; what it"
    " had in hand is not lost, and nobody else notices."
)
RETURNED: Final = (
    "The SMTP server is back on its port. The next probe finds out; then the queue is released in a ramp, so that a"
    " server that has just come up is not flooded."
)
RELEASED: Final = (
    "The SMTP transport is up again and works off what waited; meanwhile its actor was crashed as well."
)
END: Final = (
    "Everything that was accepted has been delivered. Now the books are compared with the receivers' disks."
)


class Story:
    """Runs the plot in threads of its own.

    Args:
        spooler: a running one.
        smtp: the server that is killed.
        specimens: what is submitted.
        count: how many these are.
        timeline: who is told.

    Attributes:
        accepted: the messages for which ``submit()`` returned, with their ids, by number.
        finished: whether everything has been submitted and done.
        error: what went wrong in one of the threads, or None.
    """

    def __init__(
        self,
        spooler: Spooler,
        smtp: ServerProcess,
        specimens: Iterator[Specimen],
        count: int,
        timeline: Timeline,
    ) -> None:
        self.accepted: dict[int, tuple[Specimen, str]] = {}
        self.error: BaseException | None = None
        self._spooler = spooler
        self._smtp = smtp
        self._specimens = specimens
        self._pause = SUBMIT_SECONDS / count
        self._timeline = timeline
        self._lock = threading.Lock()
        self._number = 0
        self._stop = threading.Event()
        self._released = threading.Event()
        self._outage = False
        self._threads = [
            threading.Thread(target=self._guard, args=(self._submit,), name=f"demo-submit-{n}", daemon=True)
            for n in range(THREADS)
        ]
        self._director = threading.Thread(
            target=self._guard, args=(self._direct,), name="demo-director", daemon=True
        )

    # The public side

    def start(self) -> None:
        """Begin."""
        self._spooler.subscribe(self._on_event, events={TransportChanged, ActorRestarted}, name="demo")
        self._timeline.caption = BEGIN
        for thread in [*self._threads, self._director]:
            thread.start()

    def stop(self) -> None:
        """End early."""
        self._stop.set()
        for thread in [*self._threads, self._director]:
            thread.join(10)

    @property
    def finished(self) -> bool:
        """Whether all is submitted, the plot is over and nothing waits."""
        busy = any(thread.is_alive() for thread in [*self._threads, self._director])
        return self.error is not None or (not busy and self._spooler.tally().pending == 0)

    # The threads

    def _guard(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.error = error

    def _submit(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                specimen = next(self._specimens, None)
                number, self._number = self._number, self._number + 1
            if specimen is None:
                return
            # At an even pace over all threads, so that the eye can follow; without it this takes a moment.
            self._stop.wait(max(0.0, number * self._pause - self._timeline.seconds))
            receipt = self._spooler.submit(specimen.message, sender=SENDER, to=specimen.to)
            self.accepted[specimen.number] = (specimen, receipt.id)

    def _direct(self) -> None:
        timeline = self._timeline
        if self._stop.wait(KILL_AT):
            return
        self._wait_for_sending()
        pid = self._smtp.pid
        self._outage = True
        self._smtp.kill()
        timeline.note(f"kill -9 {pid}: the SMTP server is gone while it was sent to")
        timeline.caption = OUTAGE
        if self._stop.wait(CRASH_AT - KILL_AT):
            return
        self._crash("core/transports/webhook")
        timeline.caption = CRASHED
        if self._stop.wait(RETURN_AT - CRASH_AT):
            return
        self._smtp.start()
        timeline.note(
            f"the SMTP server is started again (process {self._smtp.pid}) on port {self._smtp.port}"
        )
        timeline.caption = RETURNED
        self._released.wait(SECOND_CRASH_BY - RETURN_AT)
        self._crash("core/transports/smtp")
        timeline.caption = RELEASED

    def _wait_for_sending(self) -> None:
        """Wait for a moment at which the SMTP transport is sending, so that the kill hits a message in flight."""
        until = self._timeline.seconds + 1.0
        while self._timeline.seconds < until:
            if any(row.name == "smtp" and row.sending for row in self._spooler.transports()):
                return

    def _crash(self, path: str) -> None:
        self._timeline.note(f"the actor {path} is crashed on purpose")
        if not self._spooler.crash_actor(path, "crashed by the demo"):
            raise PostroomError(f"{path} could not be crashed")

    # Events

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ActorRestarted):
            self._timeline.note(
                f"the supervisor has started {event.actor} again (incarnation {event.incarnation})"
            )
        elif isinstance(event, TransportChanged):
            self._changed(event)

    def _changed(self, event: TransportChanged) -> None:
        name, status = event.transport, event.status
        if status == "parked":
            pause = max(0.0, (event.until or event.at) - event.at)
            self._timeline.note(f"{name} is parked, next probe in {pause:.0f} s: {_short(event.reason)}")
        elif status == "probing":
            self._timeline.note(f"{name} is probed with one message")
        elif status == "ramping":
            self._timeline.note(f"{name} answers again; the queue is released in a ramp")
            self._released.set()
        elif status == "up":
            self._timeline.note(f"{name} is up")
            if self._smtp.pid and self._outage and name == "smtp":
                self._released.set()


def _short(reason: str) -> str:
    """Return a reason without the address before it and the system's error number after it."""
    said = reason.partition(": ")[2] or reason
    return said.partition(": [Errno")[0]
