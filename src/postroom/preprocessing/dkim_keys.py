"""The keys that sign with DKIM: read, checked, and made ready."""

import importlib
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, NamedTuple

from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError

__all__ = ["DkimKey", "Signatory", "rsa_operation", "signatory_of"]

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_SELECTOR: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ED25519_DER: Final = bytes.fromhex("302e020100300506032b657004220420")
"""What precedes the 32 octets of an Ed25519 key in PKCS #8 (RFC 8410 section 7)."""

MIN_BITS: Final = 1024
"""Of an RSA key (RFC 8301 section 3.2); 2048 are recommended."""


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A key that signs for a domain and for those below it.

    Attributes:
        domain: d= of the signature.
        selector: s=: the public key is the TXT record of SELECTOR._domainkey.DOMAIN.
        private_key: a PEM file's path, or PEM text. RSA (PKCS #1 or #8), or Ed25519 (PKCS #8, or the bare base64 of its
            32 octets); not encrypted.
        identity: i=, such as "@news.example.org"; it must end with the domain. "" for "@" and the domain.
    """

    domain: str
    selector: str
    private_key: str | bytes | PathLike[str] = field(repr=False)
    identity: str = ""


class Signatory(NamedTuple):
    """A key that is ready to sign.

    Attributes:
        domain: d=, in A-labels.
        selector: s=.
        identity: i=, b"" for none.
        algorithm: a=.
        key: as dkimpy takes it.
        operation: signs a SHA-256 digest in dkimpy's place, None to let dkimpy do it.
    """

    domain: bytes
    selector: bytes
    identity: bytes
    algorithm: bytes
    key: bytes
    operation: Callable[[bytes], bytes] | None


def signatory_of(key: DkimKey, where: str) -> Signatory:
    """Return a key that is ready to sign.

    Raises:
        ConfigurationError: it is not usable.
    """
    try:
        domain = canonical_domain(key.domain)
    except Malformed as error:
        raise ConfigurationError(f"{where}.domain", f"{key.domain!r} {error.problem}", error.remedy) from None
    if _SELECTOR.fullmatch(key.selector) is None:
        raise ConfigurationError(
            f"{where}.selector", f"{key.selector!r} is none", "give the labels before ._domainkey"
        )
    selector = key.selector
    identity = key.identity
    if identity and not (
        "@" in identity
        and f".{identity.rpartition('@')[2]}".lower().endswith(f".{domain}")
        and identity.isascii()
    ):
        raise ConfigurationError(
            f"{where}.identity", f"{identity!r} is not within {domain}", f'give "@{domain}" or below it'
        )
    pem = _read(key.private_key, f"{where}.private_key")
    seed = _ed25519_seed(pem)
    if seed is not None:
        _require_nacl(where)
        return Signatory(domain.encode(), selector.encode(), identity.encode(), b"ed25519-sha256", seed, None)
    _check_rsa(pem, f"{where}.private_key")
    return Signatory(
        domain.encode(), selector.encode(), identity.encode(), b"rsa-sha256", pem, rsa_operation(pem)
    )


def _read(given: str | bytes | PathLike[str], where: str) -> bytes:
    if isinstance(given, bytes) or (isinstance(given, str) and ("-----BEGIN" in given or not given.strip())):
        pem = given if isinstance(given, bytes) else given.encode()
    else:
        try:
            pem = Path(fspath(given)).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                where, f"cannot be read ({error})", "give a readable PEM file"
            ) from error
    pem = pem.replace(b"\r\n", b"\n").strip()
    if b"ENCRYPTED" in pem:
        raise ConfigurationError(
            where, "is encrypted", "give the key without a passphrase, readable by us only"
        )
    return pem


def _ed25519_seed(pem: bytes) -> bytes | None:
    """Return the base64 of the 32 octets of an Ed25519 key, as dkimpy takes it; None if it is no such key."""
    lines = [line for line in pem.splitlines() if not line.startswith(b"-----")]
    try:
        octets = b64decode(b"".join(lines), validate=True)
    except Base64Error:
        return None
    octets = octets.removeprefix(_ED25519_DER)
    return b64encode(octets) if len(octets) == 32 else None


def _require_nacl(where: str) -> None:
    try:
        importlib.import_module("nacl.signing")
    except ImportError as error:
        raise ConfigurationError(
            where,
            f"is an Ed25519 key, which needs the package pynacl ({error})",
            "install pynacl, or use RSA",
        ) from error


def _check_rsa(pem: bytes, where: str) -> None:
    crypto: Any = importlib.import_module("dkim.crypto")
    try:
        bits = int(crypto.parse_pem_private_key(pem)["modulus"]).bit_length()
    except Exception as error:
        # dkimpy's parser answers some malformed keys with errors of its own workings.
        raise ConfigurationError(
            where, f"is no usable key ({type(error).__name__}: {error})", "give an RSA or Ed25519 key in PEM"
        ) from error
    if bits < MIN_BITS:
        raise ConfigurationError(
            where, f"has {bits} bits, which verifiers refuse (RFC 8301)", "make one with 2048"
        )


def rsa_operation(pem: bytes) -> Callable[[bytes], bytes] | None:
    """Return what signs a SHA-256 digest with ``cryptography``, None where that is not installed."""
    try:
        hashes = importlib.import_module("cryptography.hazmat.primitives.hashes")
        serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
        padding = importlib.import_module("cryptography.hazmat.primitives.asymmetric.padding")
        utils = importlib.import_module("cryptography.hazmat.primitives.asymmetric.utils")
    except ImportError:
        return None
    key: Any = serialization.load_pem_private_key(pem, password=None)
    scheme: Any = padding.PKCS1v15()
    digested: Any = utils.Prehashed(hashes.SHA256())

    def operation(digest: bytes) -> bytes:
        signature: bytes = key.sign(digest, scheme, digested)
        return signature

    return operation
