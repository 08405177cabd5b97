"""What is sent of one delivery to a server that offers certain extensions. Pure.

Whatever cannot be sent to such a server is refused here, before a byte of it leaves.
"""

import binascii
import email
import email.message
import email.policy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from postroom.delivery import Delivery
from postroom.outcomes import Failed, Reply
from postroom.transports.smtp_dsn import asked_of, mail_parameters, rcpt_parameters

__all__ = ["Envelope", "Features", "prepare", "seven_bit", "stuffed"]


@dataclass(frozen=True, slots=True)
class Features:
    """What a server offers, of the extensions that a transaction can use.

    Attributes:
        pipelining: RFC 2920.
        eight_bit: 8BITMIME, RFC 6152.
        smtputf8: RFC 6531.
        size: whether the SIZE parameter is understood, RFC 1870.
        size_limit: octets of the largest message it takes, 0 when it does not say.
        dsn: RFC 3461.
    """

    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    size: bool = False
    size_limit: int = 0
    dsn: bool = False

    @classmethod
    def from_ehlo(cls, offered: Mapping[str, str]) -> "Features":
        """Return the features in an EHLO or LHLO answer: lower-case keywords with their parameters."""
        limit = offered.get("size", "").strip()
        return cls(
            pipelining="pipelining" in offered,
            eight_bit="8bitmime" in offered,
            smtputf8="smtputf8" in offered,
            size="size" in offered,
            size_limit=int(limit) if limit.isascii() and limit.isdigit() else 0,
            dsn="dsn" in offered,
        )


@dataclass(frozen=True, slots=True)
class Envelope:
    """A delivery as it goes over the wire.

    Attributes:
        mail: the MAIL command line.
        recipients: for each that can be sent, its position among the targets and its RCPT command line.
        content: the content, dot-stuffed and ended.
        refused: the other recipients, by position.
        reporting: positions of those whose delivery the server is asked to report on.
    """

    mail: bytes
    recipients: tuple[tuple[int, bytes], ...]
    content: bytes
    refused: Mapping[int, Failed]
    reporting: tuple[int, ...] = ()


_SENDABLE = re.compile(
    r'(?:"(?:[^"\\<>\x00-\x1f\x7f-\x9f]|\\[^<>\x00-\x1f\x7f-\x9f])*"|[^"<>\x00-\x20\x7f-\x9f]+)'  # local part
    r'(?:@[^"<>@\x00-\x20\x7f-\x9f]+)?'  # domain or address literal
)

_BAD_RECIPIENT = Failed(Reply("not an address that can be sent over SMTP", "5.1.3"))
_BAD_SENDER = Failed(Reply("the sender is not an address that can be sent over SMTP", "5.1.7"))
_NEEDS_UTF8_ADDRESS = Failed(Reply("the address needs SMTPUTF8, which the server does not offer", "5.6.7"))
_NEEDS_UTF8 = Failed(Reply("the message needs SMTPUTF8, which the server does not offer", "5.6.7"))
_NEEDS_8BIT = Failed(
    Reply(
        "the message has octets above 127, cannot be converted, and the server does not offer 8BITMIME",
        "5.6.3",
    )
)


@lru_cache(maxsize=4096)
def _recipient(address: str, parameters: str) -> tuple[bytes | None, bool]:
    """Return the RCPT command line, or None if the address cannot be sent, and whether it needs SMTPUTF8."""
    line = f"RCPT TO:<{address}>{parameters}\r\n".encode(errors="surrogateescape")
    return line if _SENDABLE.fullmatch(address) else None, not address.isascii()


def prepare(delivery: Delivery, features: Features) -> Envelope:
    """Return what to send of ``delivery``, and which recipients cannot be sent at all."""
    fault, content, parameters = _content(delivery, features)
    if fault is not None:
        return Envelope(b"", (), b"", dict.fromkeys(range(len(delivery.targets)), fault))
    recipients: list[tuple[int, bytes]] = []
    refused: dict[int, Failed] = {}
    reporting: list[int] = []
    utf8 = b"SMTPUTF8" in parameters
    for position, target in enumerate(delivery.targets):
        dsn = rcpt_parameters(delivery, target) if features.dsn else ""
        line, needs_utf8 = _recipient(target.address.value, dsn)
        if line is None:
            refused[position] = _BAD_RECIPIENT
        elif needs_utf8 and not features.smtputf8:
            refused[position] = _NEEDS_UTF8_ADDRESS
        else:
            recipients.append((position, line))
            utf8 = utf8 or needs_utf8
            if dsn and "success" in asked_of(delivery, target):
                reporting.append(position)
    if utf8 and b"SMTPUTF8" not in parameters:
        parameters += b" SMTPUTF8"
    if features.dsn:
        parameters += mail_parameters(delivery)
    mail = b"MAIL FROM:<%b>%b\r\n" % (delivery.sender.encode(), parameters)
    body = stuffed(content) if recipients else b""
    return Envelope(mail, tuple(recipients), body, refused, tuple(reporting))


def _content(delivery: Delivery, features: Features) -> tuple[Failed | None, bytes, bytes]:
    """Return why the message as a whole cannot be sent, or the content to send and the parameters of MAIL."""
    content = delivery.content
    sender = delivery.sender
    if sender and not _SENDABLE.fullmatch(sender):
        return _BAD_SENDER, b"", b""
    parameters = b""
    if delivery.smtputf8 or not sender.isascii():
        if features.smtputf8:
            parameters = b" SMTPUTF8"
        elif _message_needs_utf8(delivery):
            return _NEEDS_UTF8, b"", b""
    if (delivery.eight_bit or parameters) and features.eight_bit:
        parameters += b" BODY=8BITMIME"
    elif delivery.eight_bit and not content.isascii():
        converted = seven_bit(content)
        if converted is None:
            return _NEEDS_8BIT, b"", b""
        content = converted
    if features.size:
        parameters += b" SIZE=%d" % len(content)
    return _too_large(len(content), features.size_limit), content, parameters


def _too_large(size: int, limit: int) -> Failed | None:
    if 0 < limit < size:
        return Failed(Reply(f"the message has {size} octets, and the server takes {limit}", "5.3.4"))
    return None


def _message_needs_utf8(delivery: Delivery) -> bool:
    """Return whether more than single recipients' addresses needs SMTPUTF8."""
    if not delivery.sender.isascii() or not delivery.content.partition(b"\r\n\r\n")[0].isascii():
        return True
    # A flag that no address accounts for stands for a header of some inner part.
    return all(target.address.value.isascii() for target in delivery.targets)


def stuffed(content: bytes) -> bytes:
    """Return ``content`` dot-stuffed and with the final dot (RFC 5321 section 4.5.2).

    A dot after a lone CR or LF is doubled as well: a server that takes these for line ends must not find the
    end of the data, and a second message, inside ours.
    """
    if content.startswith(b"."):
        content = b"." + content
    if b"\n." in content:
        content = content.replace(b"\n.", b"\n..")
    if b"\r." in content:
        content = content.replace(b"\r.", b"\r..")
    return content + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")


_SEVEN_BIT = email.policy.SMTP.clone(cte_type="7bit", refold_source="none")


def seven_bit(content: bytes) -> bytes | None:
    """Return the message with its 8-bit bodies encoded (RFC 6152 section 3), or None where impossible.

    A signed message is not touched: encoding a part would break the signature (RFC 1847 section 2.1). Text
    becomes quoted-printable, other bodies base64.
    """
    message = email.message_from_bytes(content, policy=_SEVEN_BIT)
    for part in message.walk():
        if part.get_content_type() in {"multipart/signed", "multipart/encrypted"}:
            return None
        if part.is_multipart():
            if part.get("content-transfer-encoding", "").strip().lower() in {"8bit", "binary"}:
                part.replace_header("Content-Transfer-Encoding", "7bit")
        elif not _encode(part):
            return None
    try:
        converted = message.as_bytes()
    except UnicodeError:  # 8-bit octets outside any body: a preamble, or a header that is no text
        return None
    return converted if converted.isascii() else None


def _encode(part: "email.message.Message[str, str]") -> bool:
    """Encode the body of a leaf part if it has octets above 127; return False if it claims to be encoded."""
    payload = part.get_payload()
    if not isinstance(payload, str) or payload.isascii():
        return True
    if part.get("content-transfer-encoding", "8bit").strip().lower() not in {"7bit", "8bit", "binary"}:
        return False
    octets = part.get_payload(decode=True)
    if not isinstance(octets, bytes):
        return False
    if part.get_content_maintype() == "text":
        encoding, encoded = "quoted-printable", binascii.b2a_qp(octets, istext=True)
    else:
        encoding, encoded = "base64", _base64_lines(octets)
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = encoding
    part.set_payload(encoded.decode("ascii"))
    return True


def _base64_lines(octets: bytes) -> bytes:
    """Return base64 in lines of 76 characters (RFC 2045 section 6.8)."""
    return b"".join(binascii.b2a_base64(octets[start : start + 57]) for start in range(0, len(octets), 57))
