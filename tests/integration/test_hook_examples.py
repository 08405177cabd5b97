"""The S/MIME and PGP hooks of docs/hooks.md do what they say, as openssl and gpg see it."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from postroom.delivery import Delivery
from postroom.hooks import Preprocessor
from postroom.outcomes import Failed, Processed
from postroom.preprocessing.stage import PreprocessTransport
from tests.support.dkim_keys import rsa_key
from tests.support.hooks import CONTENT, delivery
from tests.support.system import require

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hooks.md"
RUN_SECONDS = 60


def example(mark: str, name: str) -> Any:
    """Return what the example with that mark defines under a name."""
    code = PAGE.read_text(encoding="utf-8").split(f"<!-- {mark} -->\n```python\n")[1].split("\n```\n")[0]
    defined: dict[str, Any] = {"__name__": mark}
    exec(compile(code, f"hooks.md:{mark}", "exec"), defined)  # noqa: S102 - our own documentation
    return defined[name]


def processed(preprocessor: Preprocessor, given: Delivery) -> list[Any]:
    session = PreprocessTransport(preprocessors=[preprocessor]).open()
    outcomes = session.send(given)
    session.close()
    return list(outcomes)


def run(*command: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


EIGHT_BIT = delivery(content=CONTENT.replace(b"7bit", b"8bit") + "schön\r\n".encode(), eight_bit=True)


def with_attachment() -> Delivery:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Ann <ann@example.org>"
    message["Subject"] = "two parts"
    message["Message-ID"] = "<two@example.org>"
    message["Date"] = "Sun, 22 Nov 2026 10:00:00 +0000"
    message.set_content("see the file\n")
    message.add_attachment(bytes(range(256)), "application", "octet-stream", filename="all.bin")
    return delivery(content=message.as_bytes())


class TestSmime:
    @pytest.fixture
    def certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ann")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(rsa_key().public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name("ann@example.org")]), critical=False)
            .sign(rsa_key(), hashes.SHA256())
        )

    @pytest.mark.parametrize(
        "given", [delivery(), EIGHT_BIT, with_attachment()], ids=["plain", "8bit", "mixed"]
    )
    def test_openssl_verifies(self, certificate: x509.Certificate, given: Delivery, tmp_path: Path) -> None:
        require("openssl", "openssl")
        signer = example("smime", "SmimeSigner")(
            sender="ann@example.org", certificate=certificate, key=rsa_key()
        )
        (outcome,) = processed(signer, given)
        assert isinstance(outcome, Processed), outcome
        assert outcome.content is not None
        signed = message_from_bytes(outcome.content, policy=SMTP)
        assert signed.get_content_type() == "multipart/signed"
        assert signed["From"] == "Ann <ann@example.org>"
        trusted = tmp_path / "ann.pem"
        trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        verified = run(
            "openssl", "cms", "-verify", "-CAfile", str(trusted), "-purpose", "any", given=outcome.content
        )
        assert text_of(verified) == text_of(given.content)

    def test_other_senders_are_left_alone(self, certificate: x509.Certificate) -> None:
        signer = example("smime", "SmimeSigner")(
            sender="eve@example.org", certificate=certificate, key=rsa_key()
        )
        (outcome,) = processed(signer, delivery())
        assert isinstance(outcome, Processed)
        assert outcome.content is None


def text_of(content: bytes) -> str:
    body = message_from_bytes(content, policy=SMTP).get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


class TestPgp:
    @pytest.fixture
    def home(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        require("gpg", "gnupg")
        # The agent's socket is in it, and the path of a socket is short.
        home = tmp_path_factory.mktemp("g")
        home.chmod(0o700)
        run(
            "gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", "--quick-gen-key",
            "Bob <bob@example.net>", "default", "default", "never",
        )  # fmt: skip
        yield home
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=RUN_SECONDS)

    def test_gpg_decrypts_and_the_others_are_returned(self, home: Path) -> None:
        encrypter = example("pgp", "PgpEncrypter")(home=str(home))
        given = delivery("bob@example.net", "eve@example.net", content=EIGHT_BIT.content, eight_bit=True)
        for_bob, for_eve = processed(encrypter, given)
        assert isinstance(for_eve, Failed)
        assert for_eve.reply.status == "5.7.5"
        assert isinstance(for_bob, Processed), for_bob
        assert for_bob.content is not None
        assert b"sch" not in for_bob.content.partition(b"\r\n\r\n")[2]
        message = message_from_bytes(for_bob.content, policy=SMTP)
        version, encrypted = message.iter_parts()
        assert message.get_content_type() == "multipart/encrypted"
        assert version.get_content_type() == "application/pgp-encrypted"
        plain = run(
            "gpg", "--homedir", str(home), "--batch", "--quiet", "--decrypt", given=encrypted.get_content()
        )
        assert text_of(plain) == text_of(given.content)

    def test_without_any_key_everybody_is_returned(self, home: Path) -> None:
        encrypter = example("pgp", "PgpEncrypter")(home=str(home))
        (outcome,) = processed(encrypter, delivery("eve@example.net"))
        assert isinstance(outcome, Failed)
