"""DKIM signatures (RFC 6376, RFC 8301, RFC 8463), made by dkimpy: ``pip install postroom[dkim]``.

dkimpy signs with RSA in pure Python, which takes some ten milliseconds with 2048 bits and keeps every other thread of
the process from running meanwhile. Where the package ``cryptography`` is installed, it does the RSA operation, and only
that, in under a millisecond. Ed25519 needs the package ``pynacl``, which dkimpy asks for.
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import getaddresses
from typing import Any, Final, Literal

from postroom import headers
from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError
from postroom.hooks import UNCHANGED, Preprocessor, Verdict, Work
from postroom.preprocessing.dkim_keys import DkimKey, Signatory, signatory_of
from postroom.transports.smtp_envelope import seven_bit

__all__ = ["SIGNED_HEADERS", "DkimKey", "DkimSigner"]

SIGNED_HEADERS: Final = (
    "From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "MIME-Version", "Content-Type",
    "Content-Transfer-Encoding", "Content-ID", "Content-Description", "Resent-Date", "Resent-From", "Resent-Sender",
    "Resent-To", "Resent-Cc", "Resent-Message-ID", "In-Reply-To", "References", "List-Id", "List-Help",
    "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
)  # fmt: skip
"""What is signed where it is present (RFC 6376 section 5.4.1; RFC 8058 section 4 adds List-Unsubscribe-Post)."""

_NEVER_SIGNED: Final = frozenset(
    {"return-path", "received", "comments", "keywords", "bcc", "resent-bcc", "dkim-signature"}
)
_CANONICAL: Final = frozenset({"simple", "relaxed"})


@dataclass(kw_only=True, eq=False)
class DkimSigner(Preprocessor):
    """Signs messages by the domain of their author (From), and leaves those alone for whose domain it has no key.

    The key whose domain is the author's domain or the nearest above it signs; all keys of that domain do, so that RSA
    and Ed25519 signatures stand side by side, or an old and a new selector. Give it as the last preprocessor that
    changes anything. Keys are read when it is made.

    Attributes:
        keys: at least one.
        headers: fields that are signed where they are present, each as often as it is.
        oversigned: fields of which one more is signed than there are, so that nobody can add one; always From.
        canonicalization: of header and body, "relaxed" or "simple" each. A relaxed body costs dkimpy five times the
            time for large messages.
        seven_bit: encode 8-bit parts before signing (RFC 6376 section 5.3), as some server on the way may have to,
            which would break the signature. What cannot be encoded is signed as it is.
        unsigned: what becomes of messages without a key: "leave" (sent unsigned) or "fail" (an error, so that
            ``on_error`` decides).

    Raises:
        ConfigurationError: dkimpy or what a key needs is not installed, or a key cannot be used.
    """

    keys: Sequence[DkimKey]
    headers: Sequence[str] = SIGNED_HEADERS
    oversigned: Sequence[str] = ("From",)
    canonicalization: str = "relaxed/simple"
    seven_bit: bool = True
    unsigned: Literal["leave", "fail"] = "leave"
    name: str = "dkim"
    address_types: Collection[str] = frozenset({"smtp"})
    _by_domain: Mapping[str, tuple[Signatory, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._dkim = _import_dkim()
        if not self.keys:
            raise ConfigurationError("dkim.keys", "is empty", "give at least one DkimKey")
        modes = self.canonicalization.split("/")
        if len(modes) != 2 or not _CANONICAL.issuperset(modes):
            raise ConfigurationError(
                "dkim.canonicalization",
                f"{self.canonicalization!r} is unknown",
                'give "relaxed/simple" or the like',
            )
        self._modes = tuple(mode.encode() for mode in modes)
        if self.unsigned not in {"leave", "fail"}:
            raise ConfigurationError(
                "dkim.unsigned", f"{self.unsigned!r} is unknown", 'give "leave" or "fail"'
            )
        self._oversigned = list(dict.fromkeys(["from", *(name.lower() for name in self.oversigned)]))
        self._signed = frozenset(name.lower() for name in self.headers) | frozenset(self._oversigned)
        for name in sorted(self._signed & _NEVER_SIGNED):
            raise ConfigurationError(
                "dkim.headers", f"{name} must not be signed: it changes on the way", "leave it out"
            )
        by_domain: dict[str, list[Signatory]] = {}
        for at, key in enumerate(self.keys):
            signatory = signatory_of(key, f"dkim.keys[{at}]")
            by_domain.setdefault(signatory.domain.decode(), []).append(signatory)
        self._by_domain = {domain: tuple(signatories) for domain, signatories in by_domain.items()}

    def process(self, work: Work) -> Verdict:
        """Return the message with a signature for each key of its author's domain.

        Raises:
            ConfigurationError: there is no key, and ``unsigned`` says "fail".
            Exception: dkimpy's own, when it cannot sign the message.
        """
        domain = _author_domain(work.content)
        signatories = self._signatories(domain)
        if not signatories:
            if self.unsigned == "fail":
                raise ConfigurationError(
                    "dkim.keys", f"have none for {domain or 'a From without domain'}", "add it"
                )
            return UNCHANGED
        content = work.content
        if self.seven_bit and work.eight_bit:
            content = seven_bit(content) or content
        signatures = [self._sign(content, signatory) for signatory in signatories]
        return Verdict(content=b"".join((*signatures, content)))

    def _signatories(self, domain: str) -> tuple[Signatory, ...]:
        while domain:
            if domain in self._by_domain:
                return self._by_domain[domain]
            domain = domain.partition(".")[2]
        return ()

    def _sign(self, content: bytes, signatory: Signatory) -> bytes:
        signer = self._dkim.DKIM(content, signature_algorithm=signatory.algorithm)
        if signatory.operation is not None:
            _delegate(signer, signatory.operation)
        names = [name.decode("ascii").lower() for name, _ in signer.headers]
        signature: bytes = signer.sign(
            signatory.selector,
            signatory.domain,
            signatory.key,
            identity=signatory.identity or None,
            canonicalize=self._modes,
            include_headers=[
                name.encode()
                for name in [*(name for name in names if name in self._signed), *self._oversigned]
            ],
        )
        return signature


@dataclass(frozen=True, slots=True)
class _Signature:
    """What dkimpy expects of a key object's ``sign``."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class _KeyObject:
    """A key object as dkimpy uses them for Ed25519: it is given a SHA-256 digest to sign."""

    operation: Callable[[bytes], bytes]

    def sign(self, digest: bytes) -> _Signature:
        return _Signature(self.operation(digest))


def _delegate(signer: Any, operation: Callable[[bytes], bytes]) -> None:
    """Let a dkimpy signer leave the signing of the digest to ``operation``.

    dkimpy asks a key object only for Ed25519. When it comes to that step, a= and the digest are settled already, as
    those of rsa-sha256; so from there on it may believe that it has such a key.
    """
    original = signer.gen_header

    def gen_header(fields: Any, names: Any, policy: Any, header: bytes, key: object) -> Any:
        del key
        signer.signature_algorithm = b"ed25519-sha256"
        return original(fields, names, policy, header, _KeyObject(operation))

    signer.gen_header = gen_header


def _import_dkim() -> Any:
    try:
        return importlib.import_module("dkim")
    except ImportError as error:
        raise ConfigurationError(
            "dkim", f"needs the package dkimpy ({error})", "install postroom[dkim]"
        ) from error


def _author_domain(content: bytes) -> str:
    """Return the domain of the first author in A-labels, "" when there is none."""
    end = content.find(b"\r\n\r\n") + 2
    head = content[:end] if end > 1 else content
    value = headers.field_value(head, head.lower(), b"from").decode("utf-8", "replace")
    for _, address in getaddresses([value]):
        domain = address.rpartition("@")[2]
        if domain != address:
            try:
                return canonical_domain(domain)
            except Malformed:
                return ""
    return ""
