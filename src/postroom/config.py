"""The configuration file: TOML that describes a spooler, checked to the last key.

::

    [spool]            path, and every field of postroom.Settings
    [metrics]          host, port
    [[transport]]      kind = "smtp", "webhook" and the like, and its options
    [transport.limits], [transport.retry], [transport.throttle], [transport.probe], [transport.timeouts]
    [reports]          every field of postroom.ReportPolicy
    [lists], [names]   distribution lists and an address book
    [preprocessing], [[preprocessor]], [[sent_hook]]
    [bounces]          signed return paths, for the transports to mail servers
    [[receiver]]      type = "imap" | "pop3" | "maildir" | "smtp" | "lmtp" | "python", and its options
    [receiving]        every field of postroom.ReceivePolicy
    [[rule]], [[postprocessor]], [[subscriber]]

Durations are "30s", "5m", "4h", "7d" or seconds, sizes "50MiB" or octets, and paths are relative to the file. Secrets
are named, never written: ``password_env``, ``password_file``, ``secret_env``, ``secret_file``, ``private_key``.
``examples/postroom.toml`` shows all of it, and ``docs/configuration.md`` says what it means.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from postroom.config_bounces import Bounces, read_bounces
from postroom.config_hooks import (
    PreprocessorSource,
    SentHookSource,
    check_address_types,
    make_preprocessors,
    make_sent_hooks,
    read_preprocessing,
    read_preprocessor,
    read_sent_hook,
)
from postroom.config_inbound import (
    PostprocessorSource,
    make_postprocessors,
    read_postprocessors,
    read_receiving,
    read_rule,
)
from postroom.config_lists import read_lists, read_names
from postroom.config_receivers import ReceiverSource, make_receivers, read_receivers
from postroom.config_reports import Reports, read_reports
from postroom.config_secrets import SecretSource
from postroom.config_subscribers import SubscriberSource, durable_events, make_subscribers, read_subscribers
from postroom.config_transports import read_transports
from postroom.config_values import (
    Section,
    boolean,
    choice,
    duration,
    endless,
    guess,
    integer,
    octets,
    port,
    string,
)
from postroom.errors import ConfigurationError
from postroom.expansion import Source
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule
from postroom.settings import Settings
from postroom.spooler import Spooler
from postroom.transports.base import Limits, Transport

__all__ = ["Config", "load"]

SPOOL = {
    "path": string,
    "max_message_size": octets,
    "max_recipients": integer,
    "message_id_domain": string,
    "keep_sent": endless,
    "keep_content": duration,
    "lifetime": endless,
    "expire_held": boolean,
    "unroutable": choice("raise", "fail"),
    "keep_events": duration,
    "durable_events": durable_events,
    "search": boolean,
    "submit_timeout": duration,
    "max_waiting_messages": integer,
    "max_waiting_octets": octets,
    "synchronous": choice("full", "normal", "extra", "off"),
    "sync_interval": duration,
}
METRICS = {"host": string, "port": port}
TABLES = ("spool", "metrics", "reports", "lists", "names", "preprocessing", "bounces", "receiving")
ARRAYS = (
    "transport", "preprocessor", "sent_hook", "receiver", "rule", "postprocessor", "subscriber",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a configuration file says.

    Attributes:
        file: the file itself.
        path: the spool.
        settings: see :class:`postroom.Settings`.
        transports: in transport order; without the return paths of ``bounces``.
        metrics_host: interface of the metrics endpoint.
        metrics_port: its port, None for no endpoint.
        secrets: where the secrets of transports, receivers and return paths come from.
        reports: who is told what became of a message.
        lists: where distribution lists come from.
        names: an address book, or None.
        preprocessors: in the order in which they run.
        preprocessing: limits of the stage that runs them, None for its own.
        sent_hooks: who is told of complete messages.
        bounces: the transports' signed return paths, or None.
        receivers: where messages come from.
        rules: where they are filed.
        receiving: the rest of what is done with them.
        postprocessors: in the order in which they run.
        subscribers: who is told of events.
    """

    file: Path
    path: Path
    settings: Settings
    transports: tuple[Transport, ...]
    metrics_host: str
    metrics_port: int | None
    secrets: tuple[SecretSource, ...]
    reports: Reports
    lists: tuple[Source, ...] = ()
    names: Mapping[str, str] | None = None
    preprocessors: tuple[PreprocessorSource, ...] = ()
    preprocessing: Limits | None = None
    sent_hooks: tuple[SentHookSource, ...] = ()
    bounces: Bounces | None = None
    receivers: tuple[ReceiverSource, ...] = ()
    rules: tuple[ReceiveRule, ...] = ()
    receiving: ReceivePolicy | None = None
    postprocessors: tuple[PostprocessorSource, ...] = ()
    subscribers: tuple[SubscriberSource, ...] = ()

    def check_secrets(self) -> None:
        """Read every secret once, so that a missing one shows now and not at the first delivery.

        Raises:
            ConfigurationError: one cannot be had.
        """
        for secret in self.secrets:
            secret()

    def spooler(self, path: str | os.PathLike[str] | None = None, *, deliver: bool = True) -> Spooler:
        """Return the spooler that the file describes, not started.

        Args:
            path: another spool than the file's.
            deliver: see :class:`postroom.Spooler`. With False there are neither receivers nor subscribers, no key is
                needed, and of the code that the file names only preprocessors are imported.

        Raises:
            ConfigurationError: a key cannot be used, an object cannot be imported, or two hooks have one name.
        """
        transports = (
            self.transports if self.bounces is None else self.bounces.on(self.transports, deliver=deliver)
        )
        return Spooler(
            self.path if path is None else path, transports, settings=self.settings, deliver=deliver,
            metrics_host=self.metrics_host, metrics_port=self.metrics_port if deliver else None,
            lists=self.lists or None, names=self.names,
            preprocessors=make_preprocessors(self.preprocessors, deliver=deliver), preprocessing=self.preprocessing,
            sent_hooks=make_sent_hooks(self.sent_hooks, deliver=deliver), reports=self.reports.make(deliver=deliver),
            receivers=make_receivers(self.receivers) if deliver else (), rules=self.rules, receiving=self.receiving,
            postprocessors=make_postprocessors(self.postprocessors, deliver=deliver),
            subscribers=make_subscribers(self.subscribers) if deliver else (),
        )  # fmt: skip


def load(path: str | Path) -> Config:
    """Read and check a configuration file. Nothing is started, no secret is read, and no code is imported.

    Lists, report templates and certificates are read, and exceptions that reply rows name are imported.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or says something that cannot be; the error names
            the file, the table and the key, and what would be right.
    """
    file = Path(path)
    document = _parse(file)
    for name in document:
        if name not in (*TABLES, *ARRAYS):
            raise ConfigurationError(
                f"{file.name}: [{name}]", "is not a known section", guess(name, (*TABLES, *ARRAYS))
            )
    tables = {name: Section(f"{file.name}: [{name}]", _table(file, document, name)) for name in TABLES}
    arrays = {name: _sections(file, document, name) for name in ARRAYS}
    folder = file.absolute().parent
    spool = tables["spool"].read(SPOOL, ["path"])
    metrics = tables["metrics"].read(METRICS)
    if not arrays["transport"] and not arrays["receiver"]:
        raise ConfigurationError(
            f"{file.name}: [[transport]]", "is missing", 'add one, for example kind = "smtp" with host = …'
        )
    settings = tables["spool"].make(lambda: Settings(**{key: spool[key] for key in spool if key != "path"}))
    transports, secrets = read_transports(arrays["transport"], folder)
    bounces = read_bounces(tables["bounces"], transports, folder)
    receivers = read_receivers(arrays["receiver"], folder)
    preprocessors = tuple(read_preprocessor(section, folder) for section in arrays["preprocessor"])
    check_address_types(preprocessors, transports)
    return Config(
        file=file,
        path=folder / Path(spool["path"]).expanduser(),
        settings=settings,
        transports=transports,
        metrics_host=metrics.get("host", "127.0.0.1"),
        metrics_port=metrics.get("port"),
        secrets=(
            *secrets,
            *(() if bounces is None else bounces.secrets),
            *(secret for receiver in receivers for secret in receiver.secrets),
        ),
        reports=read_reports(tables["reports"], folder),
        lists=read_lists(tables["lists"], folder),
        names=read_names(tables["names"]),
        preprocessors=preprocessors,
        preprocessing=read_preprocessing(tables["preprocessing"], preprocessors=len(preprocessors)),
        sent_hooks=tuple(map(read_sent_hook, arrays["sent_hook"])),
        bounces=bounces,
        receivers=receivers,
        rules=tuple(map(read_rule, arrays["rule"])),
        receiving=read_receiving(tables["receiving"]),
        postprocessors=read_postprocessors(arrays["postprocessor"]),
        subscribers=read_subscribers(arrays["subscriber"], settings.journalled),
    )


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


def _sections(file: Path, document: dict[str, Any], name: str) -> list[Section]:
    """Return the sections that begin with ``[[name]]``."""
    given = document.get(name, [])
    if not isinstance(given, list) or not all(
        isinstance(item, dict) for item in cast("Sequence[Any]", given)
    ):
        raise ConfigurationError(
            f"{file.name}: [{name}]", "is one table", f"begin each {name} with [[{name}]], in double brackets"
        )
    items = cast("Sequence[dict[str, Any]]", given)
    return [
        Section(f"{file.name}: [[{name}]] {item.get('name', f'number {position}')}", item)
        for position, item in enumerate(items, start=1)
    ]
