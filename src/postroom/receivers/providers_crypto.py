"""What needs the package ``cryptography``: signatures with public keys. Imported when it is used."""

import base64
import binascii
import re
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postroom.errors import ConfigurationError

__all__ = ["Certificate", "EcdsaKey", "decoded"]


def decoded(signature: str) -> bytes:
    """Return the octets of a signature in base64, b"" (which fits nothing) for what is none."""
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""


class Certificate:
    """A certificate with an RSA key that signs.

    Args:
        pem: as it was fetched.

    Raises:
        ValueError: it is none, or its key is of another sort.
    """

    def __init__(self, pem: bytes) -> None:
        self._certificate = x509.load_pem_x509_certificate(pem)
        key = self._certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - the type is what the other side sent, no mistake of ours
        self._key = key

    def holds(self, now: float) -> bool:
        """Return whether it is valid at a time, in wall-clock seconds."""
        at = datetime.fromtimestamp(now, UTC)
        return self._certificate.not_valid_before_utc <= at <= self._certificate.not_valid_after_utc

    def signed(self, octets: bytes, signature: bytes, *, sha256: bool) -> bool:
        """Return whether the signature (RSASSA-PKCS1-v1_5, with SHA-1 unless ``sha256``) is right."""
        digest = hashes.SHA256() if sha256 else hashes.SHA1()  # noqa: S303 - Amazon's version 1, which it still sends
        try:
            self._key.verify(signature, octets, padding.PKCS1v15(), digest)
        except InvalidSignature:
            return False
        return True


class EcdsaKey:
    """A public key that checks ECDSA signatures over SHA-256.

    Args:
        text: the key as DER (SubjectPublicKeyInfo) in base64, or the same as PEM.

    Raises:
        ConfigurationError: it is none.
    """

    def __init__(self, text: str) -> None:
        bare = "".join(re.sub(r"-----[A-Z ]+-----", "", text).split())
        try:
            key = load_der_public_key(base64.b64decode(bare, validate=True))
        except (ValueError, binascii.Error):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ConfigurationError(
                "public_key",
                "it is no ECDSA public key in base64",
                "copy the verification key from the provider",
            )
        self._key = key

    def signed(self, octets: bytes, signature: bytes) -> bool:
        """Return whether the signature (DER) is right."""
        try:
            self._key.verify(signature, octets, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True
