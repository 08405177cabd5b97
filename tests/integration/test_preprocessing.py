"""What preprocessors make of a message reaches the server octet by octet, and a verifier agrees with the signature."""

from pathlib import Path

import pytest

from postroom.delivery import Delivery
from postroom.hooks import Preprocessor
from postroom.outcomes import Processed, Relayed
from postroom.preprocessing.dkim import DkimKey, DkimSigner
from postroom.preprocessing.footers import Footer
from postroom.preprocessing.stage import PreprocessTransport
from postroom.transports.smtp import SmtpTransport
from tests.support.dkim_keys import dns, pem, rsa_key, verified
from tests.support.hooks import CONTENT, delivery
from tests.support.smtp_server import Script, SmtpServer

LOOKUP = dns(s1__example_org=rsa_key())


def signer() -> DkimSigner:
    return DkimSigner(
        keys=[DkimKey("example.org", "s1", pem(rsa_key()))], oversigned=["From", "Subject", "To"]
    )


def processed(preprocessors: list[Preprocessor], given: Delivery) -> bytes:
    session = PreprocessTransport(preprocessors=preprocessors).open()
    (outcome,) = session.send(given)
    session.close()
    assert isinstance(outcome, Processed)
    assert outcome.content is not None
    return outcome.content


AWKWARD = b"".join(
    [
        b".\r\n..two dots\r\n.x\r\n",
        b"From the start of a line\r\n",
        b"trailing blanks  \t \r\n",
        b"x" * 998 + b"\r\n",
        b"\r\n\r\n\r\n",
    ]
)
"""What servers and clients tend to change on the way."""


@pytest.mark.parametrize(
    "content",
    [CONTENT, CONTENT + AWKWARD, CONTENT.replace(b"7bit", b"8bit") + "schön\r\n".encode()],
    ids=["plain", "awkward", "8bit"],
)
@pytest.mark.parametrize("engine", ["aiosmtpd", "scripted without 8BITMIME"])
def test_the_signature_still_holds_at_the_server(content: bytes, engine: str, tmp_path: Path) -> None:
    given = delivery("bob@example.net", content=content, eight_bit=not content.isascii())
    made = processed([Footer(text="-- \n$sender"), signer()], given)
    aiosmtpd = engine == "aiosmtpd"
    with SmtpServer(
        tmp_path / "received.jsonl",
        script=Script(features=["PIPELINING"], keep_content=True),
        options=("--engine", "aiosmtpd") if aiosmtpd else (),
    ) as server:
        session = SmtpTransport("127.0.0.1", server.port, security="none").open()
        outcomes = session.send(delivery("bob@example.net", content=made, eight_bit=given.eight_bit))
        session.close()
        (outcome,) = outcomes if isinstance(outcomes, (list, tuple)) else (outcomes,)
        assert isinstance(outcome, Relayed), outcome
        (received,) = server.messages()
    assert received.content == made
    assert b"ann@example.org" in received.content.partition(b"\r\n\r\n")[2]
    assert verified(received.content, LOOKUP) == [True]


def test_a_footer_after_the_signature_breaks_it() -> None:
    """Which is why the documentation says to sign last."""
    assert verified(processed([signer(), Footer(text="late")], delivery()), LOOKUP) == [False]
