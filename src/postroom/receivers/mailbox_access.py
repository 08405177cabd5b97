"""How a remote mailbox is reached: where it is, under which protection, and with which secrets."""

import ipaddress
import ssl
from collections.abc import Callable
from typing import Literal

from postroom.errors import ConfigurationError

__all__ = ["Secret", "Tls", "check_place", "client_context", "is_local", "reveal"]

Tls = Literal["implicit", "starttls", "none"]
"""TLS from the first octet (RFC 8314), after a command, or none at all."""

Secret = str | Callable[[], str]
"""A password or token, or what is asked for it at each login, for secrets that change."""


def check_place(host: str, port: int, tls: str, *, insecure: bool) -> None:
    """Check what a receiver was told of its server.

    Raises:
        ConfigurationError: no host, no port, an unknown ``tls``, or secrets would cross a network in the clear.
    """
    if not host:
        raise ConfigurationError("host", "it is empty", "give the name or address of the server")
    if not 0 < port < 65536:
        raise ConfigurationError("port", f"{port} is no TCP port", "give a number from 1 to 65535")
    if tls not in {"implicit", "starttls", "none"}:
        raise ConfigurationError("tls", f"{tls!r} is unknown", 'use "implicit", "starttls" or "none"')
    if tls == "none" and not insecure and not is_local(host):
        raise ConfigurationError(
            "tls",
            "the password and the messages would be sent in the clear",
            'use "implicit" or "starttls", or set insecure=True',
        )


def is_local(host: str) -> bool:
    """Return whether ``host`` is this machine, by its name or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_context(tls: str, given: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return the TLS context to use: ``given``, or one that verifies certificate and name; None without TLS."""
    if tls == "none":
        return None
    return given or ssl.create_default_context()


def reveal(secret: Secret, field: str) -> str:
    """Return a secret as it is now.

    Raises:
        ConfigurationError: it is empty, or holds what would end a line of the protocol.
    """
    value = secret() if callable(secret) else secret
    if not value:
        raise ConfigurationError(field, "it is empty", "give the secret, or a callable that returns it")
    if any(control in value for control in "\r\n\0"):
        raise ConfigurationError(
            field, "it holds a line end or a NUL", "strip it, as of a file's last line end"
        )
    return value
