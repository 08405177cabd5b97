"""Webhook signatures, version 1 of the Standard Webhooks specification (symmetric).

A receiver that shares a secret can tell that a request is ours, was not altered and is not a replay: the
signature is HMAC-SHA256 over ``id.timestamp.body``. Several secrets sign at once while one is being replaced.
Pure.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from postroom.errors import ConfigurationError

__all__ = ["Secret", "read_secrets", "signature_headers"]

Secret = str | bytes
"""``"whsec_"`` followed by the base64 of the key, or the key itself."""

PREFIX = "whsec_"
MIN_KEY = 24
MAX_KEY = 64
"""Octets of a key, as the specification asks; another length is weak, or was meant as something else."""


def read_secrets(secret: Secret | Sequence[Secret] | None, *, field: str = "secret") -> tuple[bytes, ...]:
    """Return the keys, the current one first; none for None.

    Raises:
        ConfigurationError: a secret is not one. The message never contains it.
    """
    if secret is None:
        return ()
    if isinstance(secret, str | bytes):
        return (_read_secret(secret, field),)
    if not secret:
        raise ConfigurationError(
            field, "the sequence of secrets is empty", "give at least one, or None to not sign"
        )
    return tuple(_read_secret(each, f"{field}[{position}]") for position, each in enumerate(secret))


def signature_headers(
    keys: Sequence[bytes], webhook_id: str, timestamp: float, body: bytes
) -> dict[str, str]:
    """Return ``webhook-id``, ``webhook-timestamp`` and, when there are keys, ``webhook-signature``.

    Args:
        keys: the keys to sign with; one signature each, separated by spaces.
        webhook_id: the same at every attempt, so that a receiver can recognise a repetition; without ".".
        timestamp: wall-clock seconds of this attempt; cut to whole seconds.
        body: the octets of the request body.
    """
    seconds = str(int(timestamp))
    headers = {"webhook-id": webhook_id, "webhook-timestamp": seconds}
    if keys:
        signed = b".".join((webhook_id.encode("ascii"), seconds.encode("ascii"), body))
        headers["webhook-signature"] = " ".join(_sign(key, signed) for key in keys)
    return headers


def _sign(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def _read_secret(secret: Secret, field: str) -> bytes:
    if isinstance(secret, bytes):
        key = secret
    elif secret.startswith(PREFIX):
        encoded = secret.removeprefix(PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(
                field, "what follows 'whsec_' is not base64", "give it as the receiver shows it"
            ) from None
    else:
        raise ConfigurationError(
            field,
            "a text secret does not begin with 'whsec_'",
            "add the prefix to a base64 key, or give the key as bytes",
        )
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise ConfigurationError(
            field,
            f"the key has {len(key)} octets",
            f"use {MIN_KEY} to {MAX_KEY} random octets, for example secrets.token_bytes(32)",
        )
    return key
