"""How the demo shows itself: a picture that moves in a terminal, a line per second elsewhere."""

import os
import textwrap
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from postroom.demo.scene import Row, Sample, Timeline
from postroom.status import TransportStatus

__all__ = ["LiveScreen", "PlainScreen", "Screen", "SilentScreen", "make_screen"]

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
CAPTION_LINES: Final = 3
OTHER_LINES: Final = 16
"""Lines of the picture, but for the timeline."""

COLOURS: Final = {"up": "green", "ramping": "cyan", "probing": "yellow", "parked": "red"}


class Screen(Protocol):
    """Shows samples."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Leave the last picture where it is."""
        ...

    def show(self, sample: Sample) -> None:
        """Show one moment."""
        ...

    def say(self, text: str = "") -> None:
        """Print a paragraph, before or after the show."""
        ...


def standing(status: TransportStatus) -> str:
    """Return where a transport stands, in few words."""
    if status.status == "parked" and status.until is not None:
        return f"parked, probe in {max(0.0, status.until - time.time()):.0f} s"
    return {"probing": "probing with one message", "ramping": "ramping up"}.get(status.status, status.status)


def sparkline(values: Sequence[int], columns: int) -> str:
    """Return the course of the values in so many columns, scaled to the largest."""
    if not values:
        return ""
    if len(values) > columns:
        step = len(values) / columns
        values = [
            max(values[int(at * step) : max(int(at * step) + 1, int((at + 1) * step))])
            for at in range(columns)
        ]
    top = max(*values, 1)
    return "".join(BLOCKS[-(-value * (len(BLOCKS) - 1) // top)] for value in values)


def wrapped(text: str, columns: int) -> list[str]:
    """Return the lines of a text, wrapped; what continues a line stands below its first word."""
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        indent = len(line) - len(line.lstrip(" *"))
        lines += textwrap.wrap(line, columns, break_on_hyphens=False, subsequent_indent=" " * indent) or [""]
    return lines


class LiveScreen:
    """A picture drawn again and again.

    Args:
        console: where to.
        timeline: what it tells.
    """

    def __init__(self, console: Console, timeline: Timeline) -> None:
        self._console = console
        self._timeline = timeline
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._live.stop()

    def show(self, sample: Sample) -> None:
        """Draw the picture anew."""
        self._live.update(self._picture(sample), refresh=True)

    def say(self, text: str = "") -> None:
        """Print a paragraph, wrapped to the width."""
        for line in wrapped(text, self._console.width):
            self._console.print(Text(line), soft_wrap=True)

    def _picture(self, sample: Sample) -> Panel:
        width = self._console.width - 4
        caption = Text(self._timeline.caption, style="bold")
        caption_lines = len(caption.wrap(self._console, width))
        # As many lines at every moment, so that the picture does not jump.
        parts: list[Text | Table] = [caption, *[Text()] * (max(0, CAPTION_LINES - caption_lines) + 1)]
        parts += [
            self._totals(sample),
            Text(),
            self._transports(sample),
            Text(),
            self._depth(sample, width),
            Text(),
        ]
        parts += self._events(min(14, max(4, self._console.height - OTHER_LINES)))
        title = f"Postroom demo  {sample.seconds:5.1f} s"
        return Panel(
            Group(*parts), title=title, title_align="left", border_style="dim", width=self._console.width
        )

    def _totals(self, sample: Sample) -> Text:
        return Text.assemble(
            ("recipients: ", "dim"), (f"{sample.accepted}", "bold"), " accepted, ",
            (f"{sample.settled}", "bold green"), " settled, ", (f"{sample.waiting}", "bold yellow"), " waiting; ",
            f"{sample.accept_rate:.0f}/s in, {sample.settle_rate:.0f}/s out",
        )  # fmt: skip

    def _transports(self, sample: Sample) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        table.add_column("transport", no_wrap=True, min_width=9)
        table.add_column("standing", no_wrap=True, min_width=24, ratio=1)
        for title in ("waiting", "sending", "settled", "per s"):
            table.add_column(title, justify="right", no_wrap=True, min_width=7)
        for row in sample.rows:
            table.add_row(*self._cells(row))
        return table

    def _cells(self, row: Row) -> list[Text | str]:
        status = row.status
        colour = COLOURS.get(status.status, "magenta")
        waiting = Text(str(status.queued), style="yellow" if status.queued else "dim")
        sending = str(status.sending)
        return [
            status.name, Text(f"● {standing(status)}", style=colour), waiting, sending, str(row.settled),
            f"{row.rate:.0f}",
        ]  # fmt: skip

    def _depth(self, sample: Sample, width: int) -> Text:
        columns = max(10, min(width - 28, 72))
        return Text.assemble(
            ("waiting over time ", "dim"), (sparkline(sample.depths, columns), "yellow"),
            (f" max {max(sample.depths)}", "dim"),
        )  # fmt: skip

    def _events(self, room: int) -> list[Text]:
        events = [
            Text.assemble((f"{at:5.1f} s  ", "dim"), text, no_wrap=True, overflow="ellipsis")
            for at, text in self._timeline.lines()[-room:]
        ]
        return events + [Text()] * (room - len(events))


class PlainScreen:
    """A line per second, and the timeline as it happens.

    Args:
        console: where to; a file or a pipe.
        timeline: what it tells.
    """

    def __init__(self, console: Console, timeline: Timeline) -> None:
        self._console = console
        self._timeline = timeline
        self._told = 0
        self._caption = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._tell()

    def show(self, sample: Sample) -> None:
        """Print what is new, and once a second how things stand."""
        self._tell()
        if sample.seconds < self._next:
            return
        self._next = sample.seconds + 1.0
        rows = "; ".join(
            f"{row.status.name} {standing(row.status)} ({row.status.queued} waiting)" for row in sample.rows
        )
        counts = f"{sample.accepted:4} accepted {sample.settled:4} settled {sample.waiting:4} waiting"
        self._print(f"{sample.seconds:5.1f} s  {counts} | {rows}")

    def say(self, text: str = "") -> None:
        """Print a paragraph."""
        for line in wrapped(text, 100):
            self._print(line)

    def _tell(self) -> None:
        if self._timeline.caption != self._caption:
            self._caption = self._timeline.caption
            self.say(f"== {self._caption}")
        lines = self._timeline.lines(self._told)
        self._told += len(lines)
        for at, text in lines:
            self._print(f"{at:5.1f} s  * {text}")

    def _print(self, line: str) -> None:
        # One line stays one line: programs and people search through this.
        self._console.file.write(line + "\n")
        self._console.file.flush()


class SilentScreen:
    """Shows nothing: for ``--json``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Nothing to leave."""

    def show(self, sample: Sample) -> None:
        """Show nothing."""

    def say(self, text: str = "") -> None:
        """Print nothing."""


def make_screen(timeline: Timeline, *, quiet: bool) -> Screen:
    """Return the screen that suits standard output."""
    if quiet:
        return SilentScreen()
    console = Console(highlight=False, no_color="NO_COLOR" in os.environ or None)
    return LiveScreen(console, timeline) if console.is_terminal else PlainScreen(console, timeline)
