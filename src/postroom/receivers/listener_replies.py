"""What clients are told: errors as SMTP replies, and enhanced status codes for replies that lack them. Pure."""

import re

from postroom.errors import (
    InvalidAddress,
    MessageTooLarge,
    SpoolFull,
    TooManyRecipients,
    UnknownAddressType,
    UsageError,
)

__all__ = ["BUSY", "FULL", "TOO_LARGE", "TROUBLE", "one_line", "refusal", "with_status"]

TOO_LARGE = "552 5.3.4 The message is larger than {} octets"
FULL = "452 4.3.1 Insufficient storage, try again later"
TROUBLE = "451 4.3.0 Cannot take the message now, try again later"
BUSY = "421 4.3.2 Too many connections, try again later"

_MAX_TEXT = 400
_SENDERS = frozenset({"sender", "From", "Sender"})
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |$)")
_WITHOUT = frozenset({"220", "334", "354"})
# RFC 2034 section 4 and RFC 3463: what fits a basic code of which nothing more is known.
_STATUS = {
    "235": "2.7.0", "421": "4.3.2", "500": "5.5.2", "501": "5.5.4", "502": "5.5.1", "503": "5.5.1", "504": "5.5.4",
    "530": "5.7.0", "535": "5.7.8", "552": "5.3.4", "553": "5.1.3", "555": "5.5.4",
}  # fmt: skip


def refusal(error: Exception) -> str:
    """Return the reply to a message that was not taken because of ``error``.

    What the client did wrong is refused for good, with the field, the problem and the remedy; all else, our own bugs
    among it, for now.
    """
    if isinstance(error, SpoolFull):
        return FULL
    if not isinstance(error, UsageError):
        return TROUBLE
    if isinstance(error, MessageTooLarge):
        code = "552 5.3.4"
    elif isinstance(error, TooManyRecipients):
        code = "554 5.5.3"
    elif isinstance(error, UnknownAddressType):
        code = "550 5.1.2"
    elif isinstance(error, InvalidAddress):
        code = "553 5.1.7" if error.field in _SENDERS else "553 5.1.3"
    else:
        code = "554 5.6.0"
    return f"{code} {one_line(str(error))}"


def one_line(text: str) -> str:
    """Return text that may stand in a reply: ASCII, without control characters, at most 400 characters."""
    plain = text.encode("ascii", "replace").decode("ascii")
    return "".join(char if char.isprintable() else " " for char in plain)[:_MAX_TEXT].strip() or "refused"


def with_status(reply: str) -> str:
    """Return a single-line reply with an enhanced status code (RFC 2034), where it lacks one and may have one."""
    code, text = reply[:3], reply[4:]
    if (
        code in _WITHOUT
        or reply[3:4] not in {"", " "}
        or code[:1] not in {"2", "4", "5"}
        or _ENHANCED.match(text)
    ):
        return reply
    return f"{code} {_STATUS.get(code, f'{code[0]}.0.0')} {text}".rstrip()
