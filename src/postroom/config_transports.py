"""The ``[[transport]]`` sections of a configuration file."""

import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from postroom.config_replies import read_replies
from postroom.config_retries import WAIT, read_retry, read_wait
from postroom.config_secrets import SecretSource, read_secret
from postroom.config_throttles import read_throttle
from postroom.config_values import (
    Reader,
    Section,
    boolean,
    choice,
    duration,
    integer,
    octets,
    port,
    string,
    strings,
    table,
    tables,
)
from postroom.outcomes import Delivered, Relayed
from postroom.replies import ReplyRow, ReplyTable, http_table, smtp_table
from postroom.retries import MINUTE
from postroom.routing import PREPROCESS
from postroom.transports.apprise import AppriseTransport
from postroom.transports.base import Limits, Transport
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.mbox import MboxTransport
from postroom.transports.memory import MemoryTransport
from postroom.transports.mx import MxTransport
from postroom.transports.nats import NatsTransport
from postroom.transports.pipe import PipeTransport, SendmailTransport
from postroom.transports.smtp import LmtpTransport, SmtpTimeouts, SmtpTransport
from postroom.transports.sysexits import ExitRow
from postroom.transports.webhook import Timeouts, WebhookTransport

__all__ = ["COMMON", "KINDS", "LIMITS", "default_limits", "read_transport", "read_transports"]

LIMITS: Final[Mapping[str, Reader]] = {
    "concurrency": integer,
    "window": integer,
    "window_bytes": octets,
    "recipients_per_delivery": integer,
    "attempt_timeout": duration,
    "hang_grace": duration,
    "session_deliveries": integer,
    "session_age": duration,
    "session_idle": duration,
    "strict_order": boolean,
}
SMTP_TIMEOUTS: Final[Mapping[str, Reader]] = dict.fromkeys(SmtpTimeouts.__slots__, duration)
WEBHOOK_TIMEOUTS: Final[Mapping[str, Reader]] = dict.fromkeys(Timeouts.__slots__, duration)
OUTCOMES: Final[Mapping[str, type[Relayed | Delivered]]] = {"relayed": Relayed, "delivered": Delivered}
LEVELS: Final = ("debug", "info", "warning", "error")


def _outcome(value: Any) -> type[Relayed | Delivered]:
    return OUTCOMES[choice(*OUTCOMES)(value)]


def _level(value: Any) -> int:
    return logging.getLevelNamesMapping()[choice(*LEVELS)(value).upper()]


COMMON: Final[Mapping[str, Reader]] = {
    "kind": string,
    "name": string,
    "address_types": strings,
    "patterns": strings,
    "in_doubt": choice("resend", "hold"),
    "limits": table,
    "retry": table,
    "probe": table,
    "throttle": table,
    "failover_after": duration,
    "tightly_coupled": boolean,
}
PASSWORD: Final[Mapping[str, Reader]] = {"password_env": string, "password_file": string}
SMTP: Final[Mapping[str, Reader]] = {
    "host": string,
    "port": port,
    "security": choice("auto", "starttls", "tls", "none"),
    "ca_file": string,
    "username": string,
    "allow_plaintext_auth": boolean,
    "local_hostname": string,
    "pipelining": boolean,
    "dsn": boolean,
    "replies": tables,
    "timeouts": table,
    "outcome": _outcome,
}
MX: Final[Mapping[str, Reader]] = {
    "hostname": string,
    "own_hosts": strings,
    "port": port,
    "tls": choice("opportunistic", "required", "none"),
    "ca_file": string,
    "source_address": string,
    "max_mx": integer,
    "allow_private": boolean,
    "pipelining": boolean,
    "dsn": boolean,
    "replies": tables,
    "timeouts": table,
}
WEBHOOK: Final[Mapping[str, Reader]] = {
    "body": choice("json", "raw"),
    "secret_env": string,
    "secret_file": string,
    "headers": table,
    "allow_http": boolean,
    "allow_private": boolean,
    "allow_networks": strings,
    "replies": tables,
    "ca_file": string,
    "timeouts": table,
}
MAILDIR: Final[Mapping[str, Reader]] = {
    "root": string,
    "folder": string,
    "create": boolean,
    "durable": boolean,
}
MBOX: Final[Mapping[str, Reader]] = {**MAILDIR, "lock_timeout": duration}
PIPE: Final[Mapping[str, Reader]] = {
    "env": table,
    "cwd": string,
    "timeout": duration,
    "max_size": octets,
    "input": choice("message", "nothing"),
    "line_ends": choice("lf", "crlf"),
    "from_line": boolean,
    "delivered_to": boolean,
    "return_path": boolean,
    "null_sender": string,
    "outcome": _outcome,
    "exits": tables,
}
EXIT: Final[Mapping[str, Reader]] = {
    "code": integer,
    "means": string,
    "status": string,
    "name": string,
    "one_recipient": boolean,
    "why": string,
}
APPRISE: Final[Mapping[str, Reader]] = {
    "services": table,
    "urls": boolean,
    "body": choice("text", "html"),
    "timeout": duration,
    "replies": tables,
}
SERVICE: Final[Mapping[str, Reader]] = {"env": string, "file": string}
NATS: Final[Mapping[str, Reader]] = {
    "servers": strings,
    "jetstream": boolean,
    "body": choice("raw", "json", "text"),
    "no_stream": choice("defer", "fail", "not_mine"),
    "username": string,
    **PASSWORD,
    "ca_file": string,
    "connect_timeout": duration,
    "ack_timeout": duration,
}
MEMORY: Final[Mapping[str, Reader]] = {"keep": integer}
LOG: Final[Mapping[str, Reader]] = {"logger": string, "level": _level}

KINDS: Final[Mapping[str, tuple[Callable[..., Transport], Mapping[str, Reader], tuple[str, ...]]]] = {
    "smtp": (SmtpTransport, {**SMTP, **PASSWORD}, ("host",)),
    "lmtp": (LmtpTransport, {**SMTP, **PASSWORD}, ("host",)),
    "mx": (MxTransport, MX, ("hostname",)),
    "webhook": (WebhookTransport, WEBHOOK, ()),
    "maildir": (MaildirTransport, MAILDIR, ("root",)),
    "mbox": (MboxTransport, MBOX, ("root",)),
    "pipe": (PipeTransport, {**PIPE, "command": strings}, ("command",)),
    "sendmail": (SendmailTransport, {**PIPE, "path": string, "options": strings}, ()),
    "apprise": (AppriseTransport, APPRISE, ()),
    "nats": (NatsTransport, NATS, ()),
    "memory": (MemoryTransport, MEMORY, ()),
    "log": (LogTransport, LOG, ()),
}
"""Kind → class, the options that are its own, and those that must be given."""

TABLES: Final[Mapping[str, Callable[[Sequence[ReplyRow]], ReplyTable]]] = {
    "smtp": smtp_table,
    "lmtp": smtp_table,
    "mx": smtp_table,
    "webhook": http_table,
    "apprise": http_table,
}


def read_transports(
    sections: Sequence[Section], folder: Path
) -> tuple[tuple[Transport, ...], tuple[SecretSource, ...]]:
    """Return the transports in their order, and the secrets that they will ask for.

    Raises:
        ConfigurationError: as :func:`postroom.config.load`.
    """
    transports: list[Transport] = []
    secrets: list[SecretSource] = []
    coupled = ""
    for position, section in enumerate(sections, start=1):
        transport, sources = read_transport(section, folder)
        if any(other.name == transport.name for other in transports):
            raise section.error(
                "name",
                f"{transport.name!r} is taken",
                f"give transport {position} a name of its own: name = …",
            )
        if transport.name == PREPROCESS:
            raise section.error("name", f"{PREPROCESS!r} is the preprocessors' stage", "name it otherwise")
        if transport.tightly_coupled and coupled:
            raise section.error(
                "tightly_coupled", f"{coupled} is so already", "couple one transport, the one used most"
            )
        if transport.tightly_coupled:
            coupled = transport.name
        transports.append(transport)
        secrets += sources
    return tuple(transports), tuple(secrets)


def read_transport(section: Section, folder: Path) -> tuple[Transport, list[SecretSource]]:
    """Return the transport of a section, and the secrets that it will ask for.

    Args:
        section: the ``[[transport]]`` table.
        folder: what paths are relative to.

    Raises:
        ConfigurationError: as :func:`postroom.config.load`.
    """
    if "kind" not in section.values:
        raise section.error("kind", "is missing", f"add kind = one of: {', '.join(KINDS)}")
    kind: str = section.convert("kind", choice(*KINDS), section.values["kind"])
    make, own, required = KINDS[kind]
    for key in ("password", "secret"):
        if key in section.values and f"{key}_file" in own:
            raise section.error(
                key, "is a secret, and this file is no place for one", f"use {key}_file = … or {key}_env = …"
            )
    options = section.read({**COMMON, **own}, required)
    del options["kind"]
    secrets = _convert(section, kind, options, folder)
    return section.make(lambda: make(**options)), secrets


def _convert(section: Section, kind: str, options: dict[str, Any], folder: Path) -> list[SecretSource]:
    """Turn what TOML can say into what the constructors want, in place."""

    def inner(key: str) -> Section:
        return section.inner(key, options[key])

    if "limits" in options:
        limits = inner("limits").read(LIMITS)
        options["limits"] = section.make(lambda: replace(default_limits(KINDS[kind][0]), **limits))
    if "retry" in options:
        options["retry"] = read_retry(inner("retry"))
    if "probe" in options:
        probe = inner("probe")
        options["probe"] = read_wait(probe, probe.read(WAIT), initial=1.0, longest=2 * MINUTE)
    if "throttle" in options:
        options["throttle"] = read_throttle(inner("throttle"))
    _convert_answers(section, kind, options)
    if "timeouts" in options:
        options["timeouts"] = _timeouts(inner("timeouts"), kind)
    _convert_paths(section, kind, options, folder)
    for key in {"headers", "env"} & options.keys():
        options[key] = inner(key).read(dict.fromkeys(options[key], string))
    secrets = [
        source for key in ("password", "secret") for source in read_secret(section, key, options, folder)
    ]
    return secrets + _services(section, options, folder)


def _convert_answers(section: Section, kind: str, options: dict[str, Any]) -> None:
    if "replies" in options:
        options["replies"] = read_replies(section, options["replies"], TABLES[kind])
    if "exits" in options:
        options["exits"] = [_exit(section, row) for row in options["exits"]]


def _exit(section: Section, values: Mapping[str, Any]) -> ExitRow:
    row = section.inner("exits", values)
    read = row.read(EXIT, ("code", "means"))
    return row.make(lambda: ExitRow(**read), _last)


def _services(section: Section, options: dict[str, Any], folder: Path) -> list[SecretSource]:
    """Turn ``{ ops = { env = "OPS_URL" } }`` into functions that read the URLs: they are secrets."""
    sources: dict[str, SecretSource] = {}
    for name, values in options.get("services", {}).items():
        services = section.inner("services", options["services"])
        if isinstance(values, str):
            raise services.error(
                name,
                "is a secret, and this file is no place for one",
                'write { env = "…" } or { file = "…" }',
            )
        where = services.inner(name, services.convert(name, table, values))
        given = {f"url_{key}": value for key, value in where.read(SERVICE).items()}
        if not given:
            raise services.error(name, "says not where its URL is", 'write { env = "…" } or { file = "…" }')
        (sources[name],) = read_secret(where, "url", given, folder)
    if "services" in options:
        options["services"] = sources
    return list(sources.values())


def _timeouts(section: Section, kind: str) -> Timeouts | SmtpTimeouts:
    if kind == "webhook":
        webhook = section.read(WEBHOOK_TIMEOUTS)
        return section.make(lambda: Timeouts(**webhook), _last)
    smtp = section.read(SMTP_TIMEOUTS)
    return section.make(lambda: SmtpTimeouts(**smtp))


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _convert_paths(section: Section, kind: str, options: dict[str, Any], folder: Path) -> None:
    if "ca_file" in options:
        context = _tls(section, folder / Path(options.pop("ca_file")).expanduser())
        options["tls" if kind in {"webhook", "nats"} else "ssl_context"] = context
    for key in ("root", "cwd"):
        if key in options:
            options[key] = folder / Path(options[key]).expanduser()
    if kind == "lmtp" and options["host"].startswith(("./", "../", "~")):
        options["host"] = str(folder / Path(options["host"]).expanduser())


def default_limits(make: Any) -> Limits:
    """Return the limits that a transport class has when none are given."""
    (own,) = (field for field in fields(make) if field.name == "limits")
    factory: Any = own.default_factory
    limits: Limits = factory()
    return limits


def _tls(section: Section, file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:
        raise section.error(
            "ca_file", f"{file}: {error.strerror or error}", "name a file of PEM certificates"
        ) from None
