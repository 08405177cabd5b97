"""How long a DKIM signature takes, by key, canonicalisation and size; best of several rounds.

python benchmarks/dkim_signing.py [--rounds 5]
"""

import argparse
import importlib.util
import time
from collections.abc import Iterator, Mapping

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from postroom.addresses import Address
from postroom.delivery import Target
from postroom.hooks import Work
from postroom.preprocessing import dkim_keys
from postroom.preprocessing.dkim import DkimKey, DkimSigner

LINE = b"The quick brown fox jumps over the lazy dog, and nobody minds at all.\r\n"
HEAD = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: figures\r\nMessage-ID: <1@example.org>\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
)
SIZES = {"4 KB": 4_000, "100 KB": 100_000, "1 MB": 1_000_000}


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def signers() -> Iterator[tuple[str, DkimSigner]]:
    text = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    keys = [DkimKey("example.org", "s", text)]
    for mode in ("relaxed/simple", "relaxed/relaxed"):
        yield f"RSA 2048 by cryptography, {mode}", DkimSigner(keys=keys, canonicalization=mode)
    operation = dkim_keys.rsa_operation
    dkim_keys.rsa_operation = no_operation
    yield "RSA 2048 by dkimpy, relaxed/simple", DkimSigner(keys=keys)
    dkim_keys.rsa_operation = operation
    if importlib.util.find_spec("nacl"):
        text = pem(ed25519.Ed25519PrivateKey.generate())
        yield "Ed25519 by pynacl, relaxed/simple", DkimSigner(keys=[DkimKey("example.org", "e", text)])


def no_operation(pem: bytes) -> None:
    """Stand for a missing cryptography."""
    del pem


def milliseconds(signer: DkimSigner, size: int, rounds: int) -> float:
    content = HEAD + LINE * ((size - len(HEAD)) // len(LINE))
    work = Work(1, "ann@example.org", (Target(0, Address("smtp", "bob@example.net")),), content)
    times: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(10):
            signer.process(work)
        times.append((time.perf_counter() - start) / 10)
    return min(times) * 1000


def measured(rounds: int) -> Iterator[tuple[str, Mapping[str, float]]]:
    for name, signer in signers():
        yield name, {label: milliseconds(signer, size, rounds) for label, size in SIZES.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How long a DKIM signature takes")
    parser.add_argument("--rounds", type=int, default=5)
    print("| | " + " | ".join(SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for row, figures in measured(parser.parse_args().rounds):
        print(f"| {row} | " + " | ".join(f"{figure:.1f}" for figure in figures.values()) + " |")
