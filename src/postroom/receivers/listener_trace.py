"""What a listener adds to a message, and what it reads off its header section: trace fields, hops, a digest. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from typing import Literal

from postroom.receivers.listener_policy import address_of

__all__ = ["Origin", "fingerprint", "has_message_id", "hops", "received_field", "return_path", "with_keyword"]

_RECEIVED = re.compile(rb"(?mi)^received[ \t]*:")
_MESSAGE_ID = re.compile(rb"(?mi)^message-id[ \t]*:[ \t\r\n]*[^ \t\r\n]")
_HELO = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?|\[[A-Za-z0-9.:-]{1,253}\]")
_TLS = re.compile(r"[A-Za-z0-9._-]+(?: [A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """From where and how a message came.

    Attributes:
        helo: what the client called itself.
        ip: its address, "" where there is none.
        protocol: spoken.
        extended: it said EHLO or LHLO.
        tls: how the connection is secured, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; "" when it is not.
        authenticated: the client gave a user and password.
        smtputf8: SMTPUTF8 was asked for.
    """

    helo: str = ""
    ip: str = ""
    protocol: Literal["smtp", "lmtp"] = "smtp"
    extended: bool = True
    tls: str = ""
    authenticated: bool = False
    smtputf8: bool = False


def with_keyword(origin: Origin) -> str:
    """Return what Received names as the protocol (RFC 3848; RFC 6531 section 4.3)."""
    if origin.smtputf8:
        base = f"UTF8{origin.protocol.upper()}"
    elif origin.protocol == "lmtp":
        base = "LMTP"
    else:
        base = "ESMTP" if origin.extended else "SMTP"
    return base + ("S" if origin.tls else "") + ("A" if origin.authenticated else "")


def received_field(
    origin: Origin, *, hostname: str, unique: str, recipients: Iterable[str], now: float
) -> bytes:
    """Return a Received field (RFC 5321 section 4.4) with its CRLF.

    Args:
        origin: of the message.
        hostname: our own name.
        unique: under which the client was told that we have it.
        recipients: of the envelope; named when there is only one, so that none learns of the others.
        now: wall-clock seconds.
    """
    helo = origin.helo if _HELO.fullmatch(origin.helo) else "unknown"
    address = address_of(origin.ip)
    peer = "" if address is None else f" ([{'IPv6:' if address.version == 6 else ''}{address}])"
    tls = f" ({origin.tls})" if _TLS.fullmatch(origin.tls) else ""
    only = list(dict.fromkeys(recipients))
    named = f"\r\n\tfor <{only[0]}>" if len(only) == 1 else ""
    date = format_datetime(datetime.fromtimestamp(int(now), UTC))
    return (
        f"Received: from {helo}{peer}\r\n\tby {hostname} (Postroom) with {with_keyword(origin)}{tls}\r\n"
        f"\tid {unique}{named}; {date}\r\n"
    ).encode()


def return_path(sender: str) -> bytes:
    """Return a Return-Path field with its CRLF, which belongs to a message at its last stop (RFC 5321 section 4.4)."""
    return f"Return-Path: <{sender}>\r\n".encode()


def hops(content: bytes) -> int:
    """Return how many Received fields there are (RFC 5321 section 6.3)."""
    return len(_RECEIVED.findall(_head(content)))


def has_message_id(content: bytes) -> bool:
    """Return whether the message has a name by which it can be told from another that is worded alike."""
    return _MESSAGE_ID.search(_head(content)) is not None


def fingerprint(content: bytes, *envelope: str) -> str:
    """Return 64 characters that are the same for the same message with the same envelope."""
    digest = sha256(repr(envelope).encode("utf-8", "surrogatepass"))
    digest.update(content)
    return digest.hexdigest()


def _head(content: bytes) -> bytes:
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[: end + 2]
