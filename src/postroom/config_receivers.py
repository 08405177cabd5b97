"""The ``[[receiver]]`` sections of a configuration file.

What they say is checked when the file is read. Certificates with their keys are read, and code is imported, only when a
spooler is made that receives, so that looking at a queue needs neither.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from postroom.checking import check_names
from postroom.config_hook_objects import receiver_of
from postroom.config_inbound import function_of, kind_of
from postroom.config_listeners import LISTENER, Certificate, Named, read_listener, server_context
from postroom.config_objects import reference
from postroom.config_retries import WAIT, read_wait
from postroom.config_secrets import SecretSource, read_secret
from postroom.config_values import (
    Reader,
    Section,
    boolean,
    choice,
    duration,
    integer,
    number,
    octets,
    port,
    string,
    strings,
    table,
)
from postroom.receivers.base import Receiver
from postroom.receivers.imap import ImapReceiver
from postroom.receivers.listener import SmtpListener
from postroom.receivers.maildir import MaildirReceiver
from postroom.receivers.pop3 import Pop3Receiver
from postroom.retries import MINUTE

__all__ = ["COMMON", "RECEIVERS", "ReceiverSource", "make_receivers", "read_receivers"]


COMMON: Final[Mapping[str, Reader]] = {
    "kind": string,
    "name": string,
    "interval": duration,
    "poll_timeout": duration,
    "retry": table,
    "exclusive": boolean,
}
MAILBOX: Final[Mapping[str, Reader]] = {
    "host": string,
    "port": port,
    "user": string,
    "password_env": string,
    "password_file": string,
    "tls": choice("implicit", "starttls", "none"),
    "ca_file": string,
    "insecure": boolean,
    "max_message_size": octets,
    "batch_messages": integer,
    "batch_octets": octets,
    "timeout": duration,
    "connect_timeout": duration,
}
IMAP: Final[Mapping[str, Reader]] = {
    **MAILBOX,
    "access_token_env": string,
    "access_token_file": string,
    "folders": strings,
    "after": string,
    "backlog": choice("all", "none"),
    "idle": boolean,
}
POP3: Final[Mapping[str, Reader]] = {**MAILBOX, "after": choice("delete", "keep"), "keep_days": number}
MAILDIR: Final[Mapping[str, Reader]] = {
    "path": string,
    "after": choice("delete", "seen", "keep"),
    "watch": boolean,
    "folders": boolean,
    "max_size": octets,
}
PYTHON: Final[Mapping[str, Reader]] = {"object": reference, "options": table}


def _smtp(**options: Any) -> Receiver:
    return SmtpListener(**options)


def _lmtp(**options: Any) -> Receiver:
    return SmtpListener(protocol="lmtp", **options)


RECEIVERS: Final[
    Mapping[str, tuple[Callable[..., Receiver] | None, Mapping[str, Reader], tuple[str, ...]]]
] = {
    "imap": (ImapReceiver, IMAP, ("host", "user")),
    "pop3": (Pop3Receiver, POP3, ("host", "user")),
    "maildir": (MaildirReceiver, MAILDIR, ("path",)),
    "smtp": (_smtp, LISTENER, ("port",)),
    "lmtp": (_lmtp, LISTENER, ("port",)),
    "python": (None, PYTHON, ("object",)),
}
"""Type → class, the options that are its own, and those that must be given."""

PLAIN_PORTS: Final = {"imap": 143, "pop3": 110}
"""Where a connection begins without TLS (RFC 9051, RFC 1939)."""


@dataclass(frozen=True, slots=True)
class ReceiverSource:
    """What a ``[[receiver]]`` section says.

    Attributes:
        section: the table, for errors.
        kind: one of :data:`RECEIVERS`.
        options: what the receiver is made with, once what they name is imported and read.
        secrets: that it will ask for.
        certificate: files of a listener's certificate and its key.
        name: the receiver's, "" where only its code knows it.
        exclusive: of the processes that share a spool, one at a time runs it.
    """

    section: Section
    kind: str
    options: Mapping[str, Any]
    secrets: tuple[SecretSource, ...] = ()
    certificate: Certificate | None = None
    name: str = ""
    exclusive: bool = True

    def make(self) -> Receiver:
        """Return the receiver.

        Raises:
            ConfigurationError: a certificate cannot be read, or an object not be imported.
        """
        section, options = self.section, dict(self.options)
        make = RECEIVERS[self.kind][0]
        if make is None:
            name, own = options.pop("object"), options.pop("options", {})
            return receiver_of(section, name, own, options)
        if isinstance(named := options.get("local"), Named):
            options["local"] = section.convert("local", function_of("an address"), named.text)
        if isinstance(named := options.get("auth"), Named):
            options["auth"] = section.convert("auth", function_of("user and password"), named.text)
        if self.certificate is not None:
            options["ssl_context"] = server_context(section, *self.certificate)
        return section.make(lambda: make(**options), _key)

    def checked(self) -> "ReceiverSource":
        """Check the options together; returns this, with the receiver's name.

        Raises:
            ConfigurationError: something is wrong with them.
        """
        make, options = RECEIVERS[self.kind][0], dict(self.options)
        if make is None:
            return replace(
                self, name=options.get("name", self.name), exclusive=options.get("exclusive", self.exclusive)
            )
        if self.certificate is not None:
            # Stands for the one with the certificate, whose key may not be readable for whoever only looks.
            options["ssl_context"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        receiver = self.section.make(lambda: make(**options), _key)
        return replace(self, name=receiver.name, exclusive=receiver.exclusive)


def read_receivers(sections: Sequence[Section], folder: Path) -> tuple[ReceiverSource, ...]:
    """Return what the ``[[receiver]]`` sections say.

    Args:
        sections: the tables.
        folder: what paths are relative to.
    """
    sources: list[ReceiverSource] = []
    for section in sections:
        source = _read_receiver(section, folder).checked()
        if source.name:
            section.make(partial(check_names, "receivers", [source.name]), lambda _: "name")
        if source.name and any(other.name == source.name for other in sources):
            raise section.error("name", f"{source.name!r} is taken", "give it a name of its own: name = …")
        sources.append(source)
    return tuple(sources)


def make_receivers(sources: Sequence[ReceiverSource]) -> list[Receiver]:
    """Return the receivers.

    Raises:
        ConfigurationError: see :meth:`ReceiverSource.make`.
    """
    return [source.make() for source in sources]


def _read_receiver(section: Section, folder: Path) -> ReceiverSource:
    kind = kind_of(section, RECEIVERS)
    _, own, required = RECEIVERS[kind]
    for key in ("password", "access_token"):
        if key in section.values and f"{key}_file" in own:
            raise section.error(
                key, "is a secret, and this file is no place for one", f"use {key}_file = … or {key}_env = …"
            )
    options = section.read({**COMMON, **own}, required)
    del options["kind"]
    if "retry" in options:
        inner = section.inner("retry", options["retry"])
        options["retry"] = read_wait(inner, inner.read(WAIT), initial=1.0, longest=2 * MINUTE)
    if "path" in options:
        options["path"] = folder / Path(options["path"]).expanduser()
    if kind in PLAIN_PORTS:
        return _mailbox(section, kind, options, folder)
    if own is LISTENER:
        return ReceiverSource(section, kind, options, *read_listener(section, options, folder))
    return ReceiverSource(section, kind, options)


def _mailbox(section: Section, kind: str, options: dict[str, Any], folder: Path) -> ReceiverSource:
    secrets = [
        source
        for key in ("password", "access_token")
        for source in read_secret(section, key, options, folder)
    ]
    if len(secrets) != 1:
        also = " or of access_token_env and access_token_file" if kind == "imap" else ""
        raise section.error(
            "password_env",
            "stands beside an access token" if secrets else "is missing",
            f"give one of password_env and password_file{also}",
        )
    if "ca_file" in options:
        options["ssl_context"] = _client_context(section, folder / Path(options.pop("ca_file")).expanduser())
    if options.get("tls", "implicit") != "implicit":
        options.setdefault("port", PLAIN_PORTS[kind])
    return ReceiverSource(section, kind, options, tuple(secrets))


def _client_context(section: Section, file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(file))
    except OSError as error:
        raise section.error(
            "ca_file", f"{file}: {error.strerror or error}", "name a file of PEM certificates"
        ) from None


def _key(name: str) -> str:
    """Return the key of the file that a field of a receiver stands for."""
    return {"ssl_context": "cert_file", "password": "password_env"}.get(name, name)
