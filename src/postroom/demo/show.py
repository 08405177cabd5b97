"""The demo from its introduction to its verdict."""

import base64
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from tenacity import stop_after_delay, wait_exponential

from postroom.cli.looking import ledger_lines
from postroom.demo.checking import Found, arrivals, compare
from postroom.demo.http_receiver import SECRET_VARIABLE
from postroom.demo.mail import generate
from postroom.demo.processes import ServerProcess
from postroom.demo.scene import Sampler, Timeline
from postroom.demo.screen import Screen, make_screen
from postroom.demo.story import END, THREADS, Story
from postroom.errors import PostroomError
from postroom.retries import DAY, HOUR, RetryPolicy
from postroom.settings import Settings
from postroom.spooler import Spooler
from postroom.transports.base import Limits
from postroom.transports.maildir import MaildirTransport
from postroom.transports.smtp import SmtpTransport
from postroom.transports.webhook import WebhookTransport

__all__ = ["Verdict", "run_demo"]

FRAME_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 60.0
"""After which it is given up that everything is delivered."""

METRICS: Final = (
    "postroom_recipients_accepted_total",
    "postroom_deliveries_total",
    "postroom_queue_depth",
    "postroom_actor_restarts_total",
    "postroom_transport_up",
    "postroom_commit_seconds_count",
    "postroom_ledger_imbalance",
)

INTRODUCTION: Final = """\
This demo runs Postroom on this machine for about 15 seconds. What you will see:

  * an SMTP server and an HTTP receiver are started as processes of their own;
  * {threads} threads submit {messages} messages (plain, HTML with attachments, six scripts, \
some of 1-2 MiB) to mailboxes, webhooks and Maildirs;
  * the SMTP server is killed (kill -9) and comes back four seconds later;
  * two of Postroom's own actors are crashed;
  * at the end every message is looked for on the receivers' disks.

Everything is in {folder}
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the demo ended.

    Attributes:
        submitted: messages for which ``submit()`` returned.
        found: what the receivers have.
        pending: recipients that were not settled at the end.
        failed: recipients that were settled otherwise than delivered.
        imbalance: of the ledger.
        seconds: from the first message to the last delivery.
        folder: where everything is, or was.
    """

    submitted: int
    found: Found
    pending: int
    failed: int
    imbalance: int
    seconds: float
    folder: Path

    @property
    def passed(self) -> bool:
        """Whether nothing was lost."""
        return self.found.complete and not (self.pending or self.failed or self.imbalance)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "folder": str(self.folder), "passed": self.passed}


def run_demo(*, messages: int, seed: int, keep: bool, folder: Path | None, quiet: bool) -> Verdict:
    """Run the demo and say what it showed.

    Args:
        messages: how many to submit.
        seed: of the messages.
        keep: keep the folder.
        folder: where to work; by default a new folder among the temporary ones.
        quiet: print nothing.

    Raises:
        PostroomError: a server could not be started, or the story could not be told to its end.
    """
    with ExitStack() as stack:
        place = folder if folder is not None else Path(tempfile.mkdtemp(prefix="postroom-demo-"))
        place.mkdir(parents=True, exist_ok=True)
        if folder is None and not keep:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        if (place / "spool.db").exists():
            raise PostroomError(f"{place} holds a spool already; name an empty folder")
        stack.enter_context(_logging_to(place / "demo.log"))
        timeline = Timeline()
        screen = make_screen(timeline, quiet=quiet)
        screen.say(INTRODUCTION.format(threads=THREADS, messages=messages, folder=place))
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        smtp = stack.enter_context(ServerProcess("postroom.demo.smtp_server", place / "smtp"))
        http = stack.enter_context(
            ServerProcess("postroom.demo.http_receiver", place / "http", {SECRET_VARIABLE: secret})
        )
        spooler = stack.enter_context(_spooler(place, smtp.port, secret))
        timeline.started = time.monotonic()
        timeline.note(
            f"SMTP server: process {smtp.pid}, port {smtp.port}. HTTP receiver: process {http.pid}, port {http.port}"
        )
        story = Story(spooler, smtp, generate(messages, seed, http.port), messages, timeline)
        with screen:
            seconds = _show(story, spooler, timeline, screen)
        verdict = _judge(story, spooler, http.port, place, seconds)
        _report(verdict, spooler, screen, kept=keep or folder is not None)
        return verdict


def _spooler(place: Path, smtp_port: int, secret: str) -> Spooler:
    retry = RetryPolicy(wait=wait_exponential(multiplier=0.5, max=4), stop=stop_after_delay(HOUR))
    return Spooler(
        place / "spool.db",
        [
            SmtpTransport("127.0.0.1", smtp_port, security="none", retry=retry),
            WebhookTransport(allow_http=True, allow_private=True, secret=secret, retry=retry),
            MaildirTransport(place / "mail", retry=retry, limits=Limits(concurrency=2)),
        ],
        # The content stays in the spool, so that it can be compared with what arrived.
        settings=Settings(keep_content=DAY),
        metrics_port=0,
    )


@contextmanager
def _logging_to(file: Path) -> Generator[None]:
    """Let the log go to a file meanwhile: warnings about the outage belong to the show, but not on the screen."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("postroom", "pykka")]
    former = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (propagate, level) in zip(loggers, former, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)
        handler.close()


def _show(story: Story, spooler: Spooler, timeline: Timeline, screen: Screen) -> float:
    """Tell the story to its end, and return how long it took."""
    sampler = Sampler(spooler, timeline)
    beat = threading.Event()
    story.start()
    try:
        while not story.finished and timeline.seconds < PATIENCE_SECONDS:
            screen.show(sampler.take())
            beat.wait(FRAME_SECONDS)
    finally:
        story.stop()
    if story.error is not None:
        raise PostroomError(f"the demo failed: {story.error}") from story.error
    seconds = timeline.seconds
    timeline.caption = END
    timeline.note("everything accepted is settled" if story.finished else "the demo's patience is over")
    screen.show(sampler.take())
    return seconds


def _judge(story: Story, spooler: Spooler, http_port: int, place: Path, seconds: float) -> Verdict:
    accepted = {number: specimen for number, (specimen, _) in story.accepted.items()}
    found = compare(
        accepted,
        arrivals(place / "smtp", place / "http", http_port, place / "mail"),
        lambda number: spooler.content(story.accepted[number][1]),
    )
    tally = spooler.tally()
    good = {"delivered", "relayed"}
    failed = sum(n for (_, state), n in tally.states.items() if state.is_final and state.label not in good)
    return Verdict(len(accepted), found, tally.pending, failed, tally.imbalance, round(seconds, 2), place)


def _report(verdict: Verdict, spooler: Spooler, screen: Screen, *, kept: bool) -> None:
    screen.say()
    address = spooler.metrics_address
    if address is not None:
        url = f"http://{address[0]}:{address[1]}/metrics"
        screen.say(f"Metrics, fetched just now from {url} (some of them):")
        exposition = httpx.get(url, trust_env=False).text
        for line in exposition.splitlines():
            name, _, value = line.rpartition(" ")
            if name.split("{")[0] in METRICS and (float(value) or "imbalance" in name):
                screen.say(f"  {name} {float(value):g}")
    screen.say()
    screen.say("The ledger (recipients):")
    for line in ledger_lines(spooler.tally()):
        screen.say(line)
    screen.say()
    _report_found(verdict, screen)
    screen.say()
    for line in _reading(verdict, kept=kept):
        screen.say(line)


def _report_found(verdict: Verdict, screen: Screen) -> None:
    found = verdict.found
    screen.say(f"On the receivers' disks, compared with what was submitted ({verdict.submitted} messages):")
    for name, count in found.by_receiver.items():
        screen.say(f"{count:>10}  copies at the {name}")
    screen.say(f"{found.arrived:>10}  of {found.expected} recipients have their message")
    screen.say(f"{len(found.missing):>10}  are missing")
    screen.say(f"{len(found.altered):>10}  differ from what was submitted")
    screen.say(f"{found.forged:>10}  webhooks had a bad signature")
    why = (
        ": the server had stored them when it was killed, but had not said so yet" if found.duplicates else ""
    )
    screen.say(f"{found.duplicates:>10}  arrived twice{why}")
    for number, address in [*found.missing, *found.altered][:10]:
        screen.say(f"              number {number} for {address}")


def _reading(verdict: Verdict, *, kept: bool) -> Iterator[str]:
    if verdict.passed:
        yield f"PASSED: nothing was lost, in {verdict.seconds:.1f} s with an outage of four seconds and two crashes."
    else:
        yield "FAILED: see the lines above; run again with --keep and look into demo.log."
    if kept:
        yield f"Look around: postroom queue --state all --spool {verdict.folder / 'spool.db'}"
        yield f"The log of the outage and the crashes: {verdict.folder / 'demo.log'}"
    else:
        yield "The folder is removed now; --keep leaves it, to look around with postroom queue, show and stats."
    yield "Read on: README.md to embed it, docs/cli.md for the commands, examples/postroom.toml to configure it."
