"""The ``[[transport]]`` sections of a configuration file."""

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from tenacity import stop_after_attempt, stop_after_delay, stop_any, stop_never, wait_exponential
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from postroom.config_values import (
    Reader,
    SecretSource,
    Section,
    Unreadable,
    boolean,
    choice,
    duration,
    endless,
    integer,
    number,
    octets,
    port,
    string,
    strings,
    table,
)
from postroom.errors import UsageError
from postroom.outcomes import Delivered, Relayed
from postroom.retries import DAY, HOUR, MINUTE, RetryPolicy, wait_jittered
from postroom.transports.base import Limits, Transport
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.memory import MemoryTransport
from postroom.transports.smtp import LmtpTransport, SmtpTimeouts, SmtpTransport
from postroom.transports.webhook import Timeouts, WebhookTransport

__all__ = ["KINDS", "read_transport"]

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
}
RETRY: Final[Mapping[str, Reader]] = {
    "initial": duration,
    "max": duration,
    "jitter": number,
    "give_up": endless,
    "attempts": integer,
}
PROBE: Final[Mapping[str, Reader]] = {"initial": duration, "max": duration, "jitter": number}
SMTP_TIMEOUTS: Final[Mapping[str, Reader]] = dict.fromkeys(SmtpTimeouts.__slots__, duration)
WEBHOOK_TIMEOUTS: Final[Mapping[str, Reader]] = dict.fromkeys(Timeouts.__slots__, duration)
OUTCOMES: Final = {"relayed": Relayed, "delivered": Delivered}
LEVELS: Final = ("debug", "info", "warning", "error")

COMMON: Final[Mapping[str, Reader]] = {
    "kind": string,
    "name": string,
    "address_types": strings,
    "patterns": strings,
    "in_doubt": choice("resend", "hold"),
    "limits": table,
    "retry": table,
    "probe": table,
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
    "timeouts": table,
    "outcome": choice(*OUTCOMES),
}
WEBHOOK: Final[Mapping[str, Reader]] = {
    "body": choice("json", "raw"),
    "secret_env": string,
    "secret_file": string,
    "headers": table,
    "allow_http": boolean,
    "allow_private": boolean,
    "allow_networks": strings,
    "ca_file": string,
    "timeouts": table,
}
MAILDIR: Final[Mapping[str, Reader]] = {
    "root": string,
    "folder": string,
    "create": boolean,
    "durable": boolean,
}
MEMORY: Final[Mapping[str, Reader]] = {"keep": integer}
LOG: Final[Mapping[str, Reader]] = {"logger": string, "level": choice(*LEVELS)}

KINDS: Final[Mapping[str, tuple[Callable[..., Transport], Mapping[str, Reader], tuple[str, ...]]]] = {
    "smtp": (SmtpTransport, {**SMTP, **PASSWORD}, ("host",)),
    "lmtp": (LmtpTransport, {**SMTP, **PASSWORD}, ("host",)),
    "webhook": (WebhookTransport, WEBHOOK, ()),
    "maildir": (MaildirTransport, MAILDIR, ("root",)),
    "memory": (MemoryTransport, MEMORY, ()),
    "log": (LogTransport, LOG, ()),
}
"""Kind → class, the options that are its own, and those that must be given."""


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
    try:
        kind = choice(*KINDS)(section.values["kind"])
    except Unreadable as error:
        raise section.error("kind", error.problem, error.remedy) from None
    make, own, required = KINDS[kind]
    for key in ("password", "secret"):
        if key in section.values and f"{key}_file" in own:
            raise section.error(
                key, "is a secret, and this file is no place for one", f"use {key}_file = … or {key}_env = …"
            )
    options = section.read({**COMMON, **own}, required)
    del options["kind"]
    secrets = _convert(section, kind, options, folder)
    try:
        return make(**options), secrets
    except UsageError as error:
        raise section.error(error.field, error.problem, error.remedy) from None


def _convert(section: Section, kind: str, options: dict[str, Any], folder: Path) -> list[SecretSource]:
    """Turn what TOML can say into what the constructors want, in place."""

    def inner(key: str, readers: Mapping[str, Reader]) -> dict[str, Any]:
        return Section(f"{section.where} {key}:", options[key]).read(readers)

    if "limits" in options:
        limits = inner("limits", LIMITS)
        options["limits"] = _checked(section, lambda: replace(_default_limits(KINDS[kind][0]), **limits))
    if "retry" in options:
        options["retry"] = _policy(section, inner("retry", RETRY))
    if "probe" in options:
        options["probe"] = _wait(section, "probe", inner("probe", PROBE), initial=1.0, longest=2 * MINUTE)
    if "timeouts" in options:
        if kind == "webhook":
            timeouts = inner("timeouts", WEBHOOK_TIMEOUTS)
            options["timeouts"] = _checked(section, lambda: Timeouts(**timeouts))
        else:
            options["timeouts"] = SmtpTimeouts(**inner("timeouts", SMTP_TIMEOUTS))
    _convert_paths(section, kind, options, folder)
    if "outcome" in options:
        options["outcome"] = OUTCOMES[options["outcome"]]
    if "headers" in options:
        options["headers"] = inner("headers", dict.fromkeys(options["headers"], string))
    if "level" in options:
        options["level"] = getattr(logging, options["level"].upper())
    return [source for key in ("password", "secret") for source in _secret(section, key, options, folder)]


def _convert_paths(section: Section, kind: str, options: dict[str, Any], folder: Path) -> None:
    if "ca_file" in options:
        context = _tls(section, folder / Path(options.pop("ca_file")).expanduser())
        options["tls" if kind == "webhook" else "ssl_context"] = context
    if "root" in options:
        options["root"] = folder / Path(options["root"]).expanduser()
    if kind == "lmtp" and options["host"].startswith(("./", "../", "~")):
        options["host"] = str(folder / Path(options["host"]).expanduser())


def _default_limits(make: Any) -> Limits:
    """Return the limits that a transport class has when none are given."""
    (own,) = (field for field in fields(make) if field.name == "limits")
    factory: Any = own.default_factory
    limits: Limits = factory()
    return limits


def _checked(section: Section, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except UsageError as error:
        raise section.error(error.field, error.problem, error.remedy) from None


def _wait(
    section: Section, key: str, given: Mapping[str, Any], *, initial: float, longest: float
) -> wait_base:
    """Return a wait that doubles from ``initial`` to ``max``, both in seconds; the last two are the defaults."""
    initial = given.get("initial", initial)
    longest = given.get("max", max(longest, initial))
    if not 0 < initial <= longest:
        raise section.error(f"{key}: initial", "is not between 0 and max", "give initial less than max")
    jitter = given.get("jitter", 0.2)
    if not 0 <= jitter <= 1:
        raise section.error(
            f"{key}: jitter", "is not a fraction", "give 0 to 1, as in 0.2 for a fifth either way"
        )
    return wait_jittered(wait_exponential(multiplier=initial, min=initial, max=longest), jitter)


def _policy(section: Section, given: Mapping[str, Any]) -> RetryPolicy:
    """Return the exponential schedule of the file; what is left out is as in :class:`RetryPolicy`'s default."""
    wait = _wait(section, "retry", given, initial=MINUTE, longest=4 * HOUR)
    give_up = given.get("give_up", 5 * DAY)
    stop: stop_base = stop_never if give_up is None else stop_after_delay(give_up)
    if "attempts" in given:
        if given["attempts"] < 1:
            raise section.error("retry: attempts", "is less than 1", "give how many attempts there may be")
        stop = stop_any(stop, stop_after_attempt(given["attempts"]))
    return RetryPolicy(wait, stop)


def _tls(section: Section, file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:
        raise section.error(
            "ca_file", f"{file}: {error.strerror or error}", "name a file of PEM certificates"
        ) from None


def _secret(section: Section, key: str, options: dict[str, Any], folder: Path) -> Iterator[SecretSource]:
    variable, file = options.pop(f"{key}_env", None), options.pop(f"{key}_file", None)
    if variable is not None and file is not None:
        raise section.error(f"{key}_env", f"stands beside {key}_file", "give one of them")
    if variable is not None or file is not None:
        which = f"{key}_env" if file is None else f"{key}_file"
        path = None if file is None else folder / Path(file).expanduser()
        options[key] = SecretSource(f"{section.where} {which}", variable, path)
        yield options[key]
