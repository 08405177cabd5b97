"""The configuration file: TOML that describes a spooler, checked to the last key.

::

    [spool]            path, and every field of postroom.Settings
    [metrics]          host, port
    [[transport]]      kind = "smtp" | "lmtp" | "webhook" | "maildir" | "memory" | "log", and its options
    [transport.limits], [transport.retry], [transport.timeouts]

Durations are "30s", "5m", "4h", "7d" or seconds, sizes "50MiB" or octets, and paths are relative to the file. Secrets
are named, never written: ``password_env``, ``password_file``, ``secret_env``, ``secret_file``.
``examples/postroom.toml`` shows all of it.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from postroom.config_transports import read_transport
from postroom.config_values import (
    SecretSource,
    Section,
    choice,
    duration,
    endless,
    guess,
    integer,
    octets,
    port,
    string,
)
from postroom.errors import ConfigurationError, UsageError
from postroom.settings import Settings
from postroom.spooler import Spooler
from postroom.transports.base import Transport

__all__ = ["Config", "load"]

SPOOL = {
    "path": string,
    "max_message_size": octets,
    "max_recipients": integer,
    "message_id_domain": string,
    "keep_sent": endless,
    "keep_content": duration,
    "lifetime": endless,
    "submit_timeout": duration,
    "max_waiting_messages": integer,
    "max_waiting_octets": octets,
    "synchronous": choice("full", "normal", "extra", "off"),
    "sync_interval": duration,
}
METRICS = {"host": string, "port": port}
SECTIONS = ("spool", "metrics", "transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a configuration file says.

    Attributes:
        file: the file itself.
        path: the spool.
        settings: see :class:`postroom.Settings`.
        transports: in transport order.
        metrics_host: interface of the metrics endpoint.
        metrics_port: its port, None for no endpoint.
        secrets: where the transports' secrets come from.
    """

    file: Path
    path: Path
    settings: Settings
    transports: tuple[Transport, ...]
    metrics_host: str
    metrics_port: int | None
    secrets: tuple[SecretSource, ...]

    def check_secrets(self) -> None:
        """Read every secret once, so that a missing one shows now and not at the first delivery.

        Raises:
            ConfigurationError: one cannot be had.
        """
        for secret in self.secrets:
            secret()

    def spooler(self, *, deliver: bool = True) -> Spooler:
        """Return the spooler that the file describes, not started; see :class:`postroom.Spooler` for ``deliver``.

        Raises:
            ConfigurationError: two transports have one name.
        """
        return Spooler(
            self.path, self.transports, settings=self.settings, deliver=deliver,
            metrics_host=self.metrics_host, metrics_port=self.metrics_port if deliver else None,
        )  # fmt: skip


def load(path: str | Path) -> Config:
    """Read and check a configuration file. Nothing is started, and no secret is read.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or says something that cannot be; the error names
            the file, the table and the key, and what would be right.
    """
    file = Path(path)
    document = _parse(file)
    for name in document:
        if name not in SECTIONS:
            raise ConfigurationError(
                f"{file.name}: [{name}]", "is not a known section", guess(name, SECTIONS)
            )
    folder = file.absolute().parent
    spool = Section(f"{file.name}: [spool]", _table(file, document, "spool")).read(SPOOL, ["path"])
    metrics = Section(f"{file.name}: [metrics]", _table(file, document, "metrics")).read(METRICS)
    transports: list[Transport] = []
    secrets: list[SecretSource] = []
    for position, section in enumerate(_sections(file, document), start=1):
        transport, sources = read_transport(section, folder)
        if any(other.name == transport.name for other in transports):
            raise section.error(
                "name",
                f"{transport.name!r} is taken",
                f"give transport {position} a name of its own: name = …",
            )
        transports.append(transport)
        secrets += sources
    spool_path = folder / Path(spool.pop("path")).expanduser()
    try:
        settings = Settings(**spool)
    except UsageError as error:
        raise ConfigurationError(f"{file.name}: [spool] {error.field}", error.problem, error.remedy) from None
    return Config(
        file=file, path=spool_path, settings=settings, transports=tuple(transports),
        metrics_host=metrics.get("host", "127.0.0.1"), metrics_port=metrics.get("port"), secrets=tuple(secrets),
    )  # fmt: skip


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            str(file), f"cannot be read: {error.strerror}", "name a readable file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(file), f"is not TOML: {error}", "mend the syntax there") from None


def _table(file: Path, document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file.name}: {name}", "is not a table", f"begin a section with [{name}]")
    return cast("dict[str, Any]", value)


def _sections(file: Path, document: dict[str, Any]) -> list[Section]:
    """Return the transports' sections; without any the spooler could only accept nothing."""
    given = document.get("transport", [])
    if not isinstance(given, list) or not all(
        isinstance(item, dict) for item in cast("Sequence[Any]", given)
    ):
        raise ConfigurationError(
            f"{file.name}: [transport]",
            "is one table",
            "begin each transport with [[transport]], in double brackets",
        )
    items = cast("Sequence[dict[str, Any]]", given)
    if not items:
        raise ConfigurationError(
            f"{file.name}: [[transport]]", "is missing", 'add one, for example kind = "smtp" with host = …'
        )
    return [
        Section(f"{file.name}: [[transport]] {item.get('name', f'number {position}')}", item)
        for position, item in enumerate(items, start=1)
    ]
