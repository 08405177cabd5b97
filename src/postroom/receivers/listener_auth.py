"""Users and passwords at a listener: SASL PLAIN and LOGIN (RFC 4616, RFC 4954) without the dialogue. Pure."""

import binascii
import hmac
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from postroom.envelope_fields import check_key
from postroom.errors import UsageError

__all__ = ["Auth", "Credentials", "decode", "plain", "tenant_of"]

Auth = Mapping[str, str] | Callable[[str, str], bool | str | None]
"""Passwords by user, or what says whether they fit: False or None, True, or the name of the tenant. It may block."""

_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client gave.

    Attributes:
        user: the authentication identity.
        password: never shown.
    """

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, password=...)"


def decode(text: bytes | str) -> bytes | None:
    """Return what base64 stands for, None when it is none; "=" is nothing at all (RFC 4954 section 4)."""
    octets = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    octets = octets.strip(b" \r\n")
    if octets == b"=":
        return b""
    try:
        return b64decode(octets, validate=True)
    except binascii.Error:
        return None


def plain(octets: bytes) -> Credentials | None:
    """Return what a PLAIN response says (RFC 4616 section 2), None when it is malformed.

    To act for somebody else is not supported: the authorization identity is empty or the user again.
    """
    try:
        authorization, user, password = octets.decode().split("\0")
    except ValueError:
        return None
    return Credentials(user, password) if user and authorization in {"", user} else None


def tenant_of(auth: Auth, credentials: Credentials) -> str | None:
    """Return the tenant that a client is, None when user and password do not fit.

    How long the comparison takes tells nothing of the password.

    Raises:
        Exception: whatever the callable raises.
    """
    if callable(auth):
        answer = auth(credentials.user, credentials.password)
        tenant = answer if isinstance(answer, str) else credentials.user if answer else None
    else:
        expected = auth.get(credentials.user, "")
        same = hmac.compare_digest(_digest(credentials.password), _digest(expected))
        tenant = credentials.user if same and expected else None
    if not tenant:
        return None
    try:
        return check_key("tenant", tenant)
    except UsageError:
        # Who cannot be named in the spool cannot submit.
        return None


def _digest(text: str) -> bytes:
    # Digests, because compare_digest shows the length of what it compares.
    return blake2b(text.encode("utf-8", "surrogatepass"), key=_KEY, digest_size=32).digest()
