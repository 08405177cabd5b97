"""The ``[[receiver]]`` that listen: whose mail they take, from whom, and with which certificate."""

import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from postroom.config_objects import reference
from postroom.config_secrets import SecretSource, read_secret
from postroom.config_values import (
    Reader,
    Section,
    Unreadable,
    boolean,
    choice,
    duration,
    integer,
    octets,
    port,
    string,
    strings,
    table,
)
from postroom.errors import ConfigurationError

__all__ = ["LISTENER", "USER", "Certificate", "Named", "read_listener", "server_context"]

Certificate = tuple[Path, Path | None]
"""The files of a certificate and of its key, None where they are one."""


@dataclass(frozen=True, slots=True)
class Named:
    """An object of a Python module, not imported yet.

    Attributes:
        text: "package.module:name".
    """

    text: str

    def __call__(self, *_: object) -> bool:
        """Stand for the function while the rest of the file is checked; knows nobody."""
        return False


def _named_or(several: Reader, remedy: str) -> Reader:
    """Return a reader of a function's name, or of what is no text."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return several(value)
        if ":" not in value:
            raise Unreadable(f"{value!r} does not name a function", remedy)
        return Named(reference(value))

    return read


LISTENER: Final[Mapping[str, Reader]] = {
    "host": string,
    "port": port,
    "local": _named_or(strings, 'write ["example.org"], or "module:function"'),
    "relay": choice("authenticated", "networks", "never"),
    "networks": strings,
    "auth": _named_or(table, 'write { user = { env = "…" } }, or "module:function"'),
    "tls": choice("starttls", "implicit"),
    "cert_file": string,
    "key_file": string,
    "insecure_auth": boolean,
    "hostname": string,
    "max_message_size": octets,
    "max_recipients": integer,
    "max_connections": integer,
    "max_buffered": octets,
    "max_hops": integer,
    "max_errors": integer,
    "max_auth_failures": integer,
    "timeout": duration,
    "data_timeout": duration,
    "take_timeout": duration,
    "drain_timeout": duration,
    "workers": integer,
    "remember": duration,
    "reuse_port": boolean,
}
USER: Final[Mapping[str, Reader]] = {"env": string, "file": string}


class Passwords:
    """Users and passwords that live outside the configuration; each is read when it is asked for. Thread-safe.

    Args:
        sources: the passwords by user, at least one.
    """

    def __init__(self, sources: Mapping[str, SecretSource]) -> None:
        self._sources = dict(sources)

    def __call__(self, user: str, password: str) -> bool:
        """Return whether they fit.

        Raises:
            ConfigurationError: the password cannot be had.
        """
        source = self._sources.get(user)
        # An unknown user takes as long as a known one, as the time would tell which they are.
        expected = (source or next(iter(self._sources.values())))()
        same = hmac.compare_digest(_digest(password), _digest(expected))
        return same and source is not None


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass")).digest()


def read_listener(
    section: Section, options: dict[str, Any], folder: Path
) -> tuple[tuple[SecretSource, ...], Certificate | None]:
    """Turn what TOML says of a listener into what its class wants, in place.

    Returns:
        the secrets that it will ask for, and the files of its certificate and of its key.
    """
    certificate = None
    cert, key = options.pop("cert_file", None), options.pop("key_file", None)
    if key is not None and cert is None:
        raise section.error("key_file", "is of no use without a certificate", "add cert_file = …")
    if (cert is None) != ("tls" not in options):
        raise section.error("cert_file", "and tls go together", "give both or neither")
    if cert is not None:
        certificate = (
            folder / Path(cert).expanduser(),
            None if key is None else folder / Path(key).expanduser(),
        )
    secrets: tuple[SecretSource, ...] = ()
    if isinstance(options.get("auth"), dict):
        if not options["auth"]:
            raise section.error("auth", "names no user", 'write { user = { env = "…" } }')
        users = _users(section.inner("auth", options["auth"]), folder)
        options["auth"], secrets = Passwords(users), tuple(users.values())
    return secrets, certificate


def _users(section: Section, folder: Path) -> dict[str, SecretSource]:
    """Return the passwords of ``{ app = { env = "APP_PASSWORD" } }`` by user."""
    sources: dict[str, SecretSource] = {}
    for user, values in section.values.items():
        if isinstance(values, str):
            raise section.error(
                user,
                "is a secret, and this file is no place for one",
                'write { env = "…" } or { file = "…" }',
            )
        where = section.inner(user, section.convert(user, table, values))
        given = {f"password_{key}": value for key, value in where.read(USER).items()}
        if not given:
            raise section.error(
                user, "says not where the password is", 'write { env = "…" } or { file = "…" }'
            )
        (sources[user],) = read_secret(where, "password", given, folder)
    return sources


def server_context(section: Section, cert: Path, key: Path | None) -> ssl.SSLContext:
    """Return the TLS context of a listener.

    Raises:
        ConfigurationError: the files cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password function OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except OSError as error:
        raise _unusable(section, cert, key, error) from None
    return context


def _unusable(section: Section, cert: Path, key: Path | None, error: OSError) -> ConfigurationError:
    files = f"{cert}" if key is None else f"{cert} and {key}"
    return section.error(
        "cert_file",
        f"{files}: {error.strerror or error}",
        "name PEM files: the certificate with those between, and its key without a password",
    )
