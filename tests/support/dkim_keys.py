"""Keys for the tests of DKIM, and a DNS that knows them."""

import importlib
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL

Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key, the same one at every call: making them takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(
    key: Key | ec.EllipticCurvePrivateKey,
    form: serialization.PrivateFormat = PKCS8,
    password: bytes | None = None,
) -> str:
    """Return the private key as text."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(PEM, form, encryption).decode()


def record(key: Key) -> bytes:
    """Return the TXT record that publishes the key (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return b"v=DKIM1; k=ed25519; p=" + b64encode(raw)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + b64encode(der)


def dns(**keys: Key) -> Callable[..., bytes | None]:
    """Return what dkimpy asks for records; a key s1__example_org is at s1._domainkey.example.org."""
    records: dict[bytes, bytes] = {}
    for name, key in keys.items():
        selector, _, domain = name.partition("__")
        records[f"{selector}._domainkey.{domain.replace('_', '.')}.".encode()] = record(key)

    def lookup(name: bytes, timeout: float = 5) -> bytes | None:
        del timeout
        return records.get(name)

    return lookup


def verified(content: bytes, lookup: Callable[..., bytes | None]) -> list[bool]:
    """Return what dkimpy says of each signature of a message, from the topmost on."""
    dkim: Any = importlib.import_module("dkim")
    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(content).headers)

    def one(number: int) -> bool:
        try:
            return bool(dkim.DKIM(content).verify(idx=number, dnsfunc=lookup))
        except dkim.ValidationError:  # the body's hash differs
            return False

    return [one(number) for number in range(count)]


def tags(content: bytes) -> dict[str, str]:
    """Return the tags of the topmost signature."""
    dkim: Any = importlib.import_module("dkim")
    value: bytes = next(
        value for name, value in dkim.DKIM(content).headers if name.lower() == b"dkim-signature"
    )
    unfolded = b" ".join(value.split()).decode()
    pairs = (tag.strip().partition("=") for tag in unfolded.split(";"))
    return {name.strip(): text.strip() for name, _, text in pairs}
