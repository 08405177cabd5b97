"""``postroom run``: a spooler as a process of its own."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Final, Self

import click

from postroom.cli.exits import CANT_CREATE, OK, TEMPORARY, UNAVAILABLE, USAGE, Refusal
from postroom.cli.options import DURATION, Place, json_option, place_options
from postroom.cli.output import echo_json
from postroom.config import Config
from postroom.config_receivers import make_receivers
from postroom.errors import ConfigurationError, NotRunning, SpoolUnavailable
from postroom.receivers.status import ReceiverStatus
from postroom.spooler import Spooler
from postroom.supervision import SupervisionError

__all__ = ["run"]

log = logging.getLogger("postroom.run")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
HURRY_SECONDS: Final = 2.0
"""Left to the stop once a second signal came."""

LOOK_SECONDS: Final = 0.25
"""How often it is looked how the receivers do."""

Parts = Mapping[str, Sequence[str]]
"""Names of the parts of a spooler, by what they are."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((key, value) for key, value in vars(record).items() if key.startswith("postroom_"))
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _log_to_stderr(level: str, form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Signals:
    """Counts the signals that ask to stop. The handlers are taken back at the end of the ``with``."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition(threading.RLock())
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type] # as signal() gave it

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        # Runs in the main thread, perhaps while it waits below: the lock is one that a thread may take twice.
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait in the main thread for the signal with this number."""
        with self._changed:
            self._changed.wait_for(lambda: self.count >= count)


class ReceiverLog:
    """Logs what becomes of the receivers, from the start to the end of the ``with``.

    It looks how they do instead of subscribing to their events: whoever subscribes has every event of every message
    made for it.

    Args:
        receivers: returns how they do; raises NotRunning when there is nothing more to tell.
    """

    def __init__(self, receivers: Callable[[], Sequence[ReceiverStatus]]) -> None:
        self._receivers = receivers
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="postroom-receiver-log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        known: dict[str, tuple[str, str]] = {}
        while not self._ended.is_set():
            try:
                found = self._receivers()
            except NotRunning:
                return
            for each in found:
                told = (each.status, each.reason)
                if known.get(each.name) != told:
                    known[each.name] = told
                    log.log(
                        logging.WARNING if each.status == "down" else logging.INFO,
                        "receiver %s is %s%s", each.name, each.status, f": {each.reason}" if each.reason else "",
                    )  # fmt: skip
            self._ended.wait(LOOK_SECONDS)


@click.command(
    epilog="""\b
Examples:
  postroom run --config /etc/postroom.toml
  postroom run --check --config postroom.toml     look at the configuration, start nothing
  postroom run --log-format json 2>> postroom.log
"""
)
@place_options
@click.option("--check", is_flag=True, help="Only check the configuration, its secrets included.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--stop-timeout", type=DURATION, default="30s", show_default=True, metavar="DURATION",
              help="How long attempts under way may take when it is asked to stop.")  # fmt: skip
@json_option
def run(  # noqa: PLR0913 - one parameter for each option
    place: Place, *, check: bool, log_level: str, log_format: str, stop_timeout: float, as_json: bool
) -> None:
    """Run a spooler until SIGTERM or SIGINT.

    Prints one line when it is ready. The first signal lets attempts under way finish; a second one hurries. Nothing is
    lost either way: what waits stays in the spool, and what was cut off is sent again.
    """
    config = place.read_config()
    if config is None:
        raise Refusal(
            USAGE, "--config", "is missing, and there is no postroom.toml here", "say which transports to run"
        )
    config.check_secrets()
    parts = {
        "transports": [transport.name for transport in config.transports],
        "receivers": _receivers(config),
    }
    if check:
        _say_checked(config, place, parts, as_json=as_json)
        return
    _log_to_stderr(log_level, log_format)
    spooler = config.spooler(place.path(config))
    with Signals() as signals:
        _start(spooler)
        _say_ready(spooler, parts, as_json=as_json)
        with ReceiverLog(spooler.receivers):
            signals.wait_for(1)
            code = _stop(spooler, signals, stop_timeout)
    if code != OK:
        raise SystemExit(code)


def _start(spooler: Spooler) -> None:
    try:
        spooler.start()
    except SpoolUnavailable as error:
        raise Refusal(CANT_CREATE, "spool", str(error)) from error
    except SupervisionError as error:
        raise Refusal(
            TEMPORARY, "spool", f"{spooler.path} cannot be opened now: {error}", "try again"
        ) from error
    except ConfigurationError as error:
        # What is wrong only now is a port that somebody else has.
        where = "[metrics] " if error.field.startswith("metrics") else ""
        raise Refusal(UNAVAILABLE, f"{where}{error.field}", error.problem, error.remedy) from error


def _receivers(config: Config) -> list[str]:
    """Return the receivers' names, having seen that what they need is installed, rather than have them down for ever.

    Raises:
        Refusal: it is not.
    """
    names: list[str] = []
    for receiver in make_receivers(config.receivers):
        try:
            receiver.prepare()
        except ConfigurationError as error:
            raise Refusal(UNAVAILABLE, f"receiver {receiver.name}", error.problem, error.remedy) from error
        names.append(receiver.name)
    return names


def _listed(parts: Parts) -> str:
    return "".join(f", {what} {', '.join(names)}" for what, names in parts.items() if names)


def _say_checked(config: Config, place: Place, parts: Parts, *, as_json: bool) -> None:
    config.spooler()
    path = place.path(config)
    if as_json:
        echo_json({"config": str(config.file), "ok": True, "spool": str(path), **parts})
    else:
        click.echo(f"{config.file} is good: spool {path}{_listed(parts)}")


def _say_ready(spooler: Spooler, parts: Parts, *, as_json: bool) -> None:
    address = spooler.metrics_address
    host, port = address or ("", 0)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics" if address is not None else None
    if as_json:
        # One line, although documents elsewhere have many: whoever started the process waits for it.
        ready = {
            "ready": True,
            "pid": os.getpid(),
            "spool": str(spooler.path),
            **parts,
            "metrics": url,
        }
        click.echo(json.dumps(ready, ensure_ascii=False))
    else:
        metrics = f", metrics at {url}" if url else ""
        click.echo(f"postroom is ready: spool {spooler.path}{_listed(parts)}{metrics}")
    sys.stdout.flush()


def _stop(spooler: Spooler, signals: Signals, timeout: float) -> int:
    log.info("stopping; attempts under way have %g s (a second signal hurries)", timeout)
    orderly: list[bool] = []
    ended = threading.Event()

    def stop() -> None:
        try:
            orderly.append(spooler.stop(timeout))
        finally:
            ended.set()

    threading.Thread(target=stop, name="postroom-stop", daemon=True).start()
    while not ended.wait(0.1):
        if signals.count > 1:
            ended.wait(HURRY_SECONDS)
            break
    if orderly == [True]:
        log.info("stopped")
        return OK
    log.warning("stopped before every attempt had ended; those are in doubt and will be sent again")
    logging.shutdown()
    if not ended.is_set():
        # Threads that hang in a connection must not keep the process; the spool is made for such an end.
        sys.stdout.flush()
        os._exit(TEMPORARY)
    return TEMPORARY
