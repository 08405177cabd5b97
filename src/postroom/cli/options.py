"""What several commands share: which spool is meant, how it is opened, and how times are written."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from postroom.cli.exits import CANT_CREATE, NO_INPUT, TEMPORARY, USAGE, Refusal
from postroom.config import Config, load
from postroom.config_values import parse_duration
from postroom.errors import InternalError, SpoolUnavailable
from postroom.spooler import Spooler
from postroom.stores.base import Standing
from postroom.supervision import SupervisionError
from postroom.transports.base import Session, Transport
from postroom.viewing import SpoolView

__all__ = ["DURATION", "WHEN", "Place", "PlannedTransport", "json_option", "place_options"]

DEFAULT_CONFIG: Final = "postroom.toml"
_F = TypeVar("_F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _DurationType = click.ParamType[float]
    _WhenType = click.ParamType[datetime | timedelta]
else:
    # Older versions of click have it without type arguments.
    _DurationType = _WhenType = click.ParamType


class PlannedTransport(Transport):
    """A transport that only plans: it stands for one that another process runs. It is never opened."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, address_types=(), patterns=("*:*",))

    def open(self) -> Session:
        """Never called: a spooler that does not deliver starts no transport.

        Raises:
            InternalError: it was called.
        """
        raise InternalError(f"{self.name} is run by another process")


@dataclass(frozen=True, slots=True)
class Place:
    """Which spool a command is about.

    Attributes:
        spool: the path given by ``--spool``, or None.
        config: the path given by ``--config``, or None.
    """

    spool: Path | None
    config: Path | None

    def read_config(self) -> Config | None:
        """Return the configuration, if one is given or lies where one is looked for; ``--spool`` needs none."""
        if self.config is not None:
            return load(self.config)
        if self.spool is None and Path(DEFAULT_CONFIG).is_file():
            return load(DEFAULT_CONFIG)
        return None

    def path(self, config: Config | None) -> Path:
        """Return the spool's file.

        Raises:
            Refusal: nothing says which one.
        """
        if self.spool is not None:
            return self.spool
        if config is None:
            raise Refusal(
                USAGE,
                "spool",
                "none is named, and there is no postroom.toml here",
                "add --config FILE or --spool PATH",
            )
        return config.path

    @contextmanager
    def view(self) -> Generator[SpoolView]:
        """Open the spool for reading; no process needs to run.

        Raises:
            Refusal: there is no spool.
        """
        config = self.read_config()
        path = _existing(self.path(config))
        stopped = {
            transport.name: Standing(transport.name, "stopped", "no process delivers now")
            for transport in (config.transports if config is not None else ())
        }
        try:
            with (
                SpoolView(path) as plain,
                SpoolView(path, standings=lambda: {**stopped, **plain.standings()}) as view,
            ):
                yield view
        except SpoolUnavailable as error:
            raise Refusal(
                NO_INPUT, "spool", str(error), "name a spool of Postroom that is readable"
            ) from error

    @contextmanager
    def spooler(self, *, transport: str | None = None, create: bool = False) -> Generator[Spooler]:
        """Open the spool for submitting and acting, beside whatever process delivers.

        Args:
            transport: give every recipient to the transport of this name, whatever the configuration says.
            create: make the spool where it is missing and a configuration asks for it.

        Raises:
            Refusal: there is no spool, or it cannot be opened.
        """
        config = self.read_config()
        path = self.path(config)
        if not create or config is None:
            _existing(path)
        if transport is not None:
            spooler = Spooler(path, [PlannedTransport(transport)], deliver=False)
        elif config is not None:
            spooler = config.spooler(path, deliver=False)
        else:
            spooler = Spooler(path, deliver=False)
        try:
            spooler.start()
        except SpoolUnavailable as error:
            raise Refusal(CANT_CREATE, "spool", str(error)) from error
        except SupervisionError as error:
            raise Refusal(TEMPORARY, "spool", f"{path} cannot be opened now: {error}", "try again") from error
        try:
            yield spooler
        finally:
            spooler.stop()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise Refusal(
            NO_INPUT, "spool", f"there is none at {path}", "check the path, or start postroom run first"
        )
    return path


def place_options(command: _F) -> _F:
    """Add ``--config`` and ``--spool``, which become the parameter ``place``."""

    def keep(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        given: dict[str, Path | None] = context.meta.setdefault("postroom.place", {})
        if value is not None or str(parameter.name) not in given:
            # A subcommand that is told nothing does not forget what its group was told.
            given[str(parameter.name)] = value
        context.params["place"] = Place(given.get("spool"), given.get("config"))

    path: Any = click.Path(path_type=Path)
    command = click.option(
        "--spool", "-s", type=path, metavar="PATH", envvar="POSTROOM_SPOOL", expose_value=False, callback=keep,
        help="The spool's file. Wins over the configuration's.  [env: POSTROOM_SPOOL]",
    )(command)  # fmt: skip
    return click.option(
        "--config", "-c", type=path, metavar="FILE", envvar="POSTROOM_CONFIG", expose_value=False, callback=keep,
        help="The configuration file.  [env: POSTROOM_CONFIG; default: ./postroom.toml]",
    )(command)  # fmt: skip


def json_option(command: _F) -> _F:
    """Add ``--json``, which becomes the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


class _Duration(_DurationType):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _When(_WhenType):
    """A duration from now, or a time in ISO 8601; without a zone it is local time."""

    name = "when"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        text = str(value).strip()
        try:
            return timedelta(seconds=parse_duration(text.removeprefix("+")))
        except (ValueError, OverflowError):
            pass
        try:
            at = datetime.fromisoformat(text)
            return at if at.tzinfo is not None else at.astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{text!r} is not a time; write 10m, 2d or 2026-12-24T18:00:00+01:00", param, ctx)


DURATION: Final = _Duration()
WHEN: Final = _When()
