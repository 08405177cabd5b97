"""Names of our own messages and recipients that other systems hand back to us, and that nobody else can make up.

A bounce says rather little of what it is about, and says it in many ways. Two ideas help. Variable envelope return
paths (Daniel J. Bernstein, 1997): each recipient's copy is sent from an address of its own, so that the address which
a report comes *to* says whom it is about, whatever it says in words. Bounce address tag validation (BATV): such an
address carries a signature that its owner alone can make, so that a report to another one is no report. Ours is both::

    bounces+aaaabyk4mzzwcaaaaab6yq3kfv2p5e7d@example.org

Behind the plus are 20 octets in base 32, in lower case because some systems change the case of a local part: the
message's number (8), the recipient's index (3), and the first 9 octets of an HMAC-SHA256 over both (72 bits).

The same goes for the envelope id of delivery status notifications (ENVID, RFC 3461 section 4.4), which names a message
without a recipient. What one kind of name was signed for, the other does not accept.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from postroom.addresses import parse_address
from postroom.errors import ConfigurationError, InvalidAddress

__all__ = ["Named", "Tokens"]

MIN_SECRET: Final = 16
"""Octets of a secret at least."""

MAX_INDEX: Final = (1 << 24) - 1

_LENGTH: Final = 32
"""Characters of a token: 20 octets fill them to the last bit, so that there is one way to write each."""

_MAC: Final = 9
_ENVID_MAC: Final = 12
_ENVID_PREFIX: Final = "postroom."
_ENVID: Final = re.compile(r"postroom\.([a-z2-7]{32})", re.IGNORECASE | re.ASCII)
_FIELD: Final = "{token}"
_RECIPIENT: Final = b"postroom recipient\0"
_MESSAGE: Final = b"postroom message\0"

Secret = bytes | str


class Named(NamedTuple):
    """Whom a token names.

    Attributes:
        key: the message's number.
        index: the recipient's number within it.
    """

    key: int
    index: int  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride] # hides tuple.index


class Tokens:
    """Makes and reads signed return addresses and envelope ids. Immutable, thread-safe.

    ``Tokens(read_secret(), "bounces+{token}@example.org")``. Mail to all such addresses must come back to this spool,
    by a receiver of it: that of a mailbox with subaddresses (RFC 5233), or of a domain of its own with
    ``"{token}@bounces.example.org"``. The domain's SPF record has to allow the servers that send.

    Args:
        secret: at least 16 random octets, the same in all processes that share the spool; text counts as UTF-8. Of
            several the first signs and all are believed, so that one can be replaced while reports on what it signed
            still come in.
        format: the address, with ``{token}`` once within its local part, which may have 64 characters in all.

    Raises:
        ConfigurationError: a secret is too short, or the format makes no address.
    """

    __slots__ = ("_after", "_before", "_pattern", "_secrets")

    def __init__(
        self,
        secret: Secret | Sequence[Secret],
        format: str,  # noqa: A002 - it is one, and is given by this name
    ) -> None:
        given = (secret,) if isinstance(secret, bytes | str) else tuple(secret)
        self._secrets = tuple(each.encode() if isinstance(each, str) else each for each in given)
        if not self._secrets or min(map(len, self._secrets)) < MIN_SECRET:
            raise ConfigurationError(
                "secret",
                "there is none" if not self._secrets else f"one has fewer than {MIN_SECRET} octets",
                "use random octets, for example secrets.token_bytes(32)",
            )
        self._before, self._after = _read_format(format)
        self._pattern = re.compile(
            rf"(?:smtp:)?<?{re.escape(self._before)}([a-z2-7]{{{_LENGTH}}}){re.escape(self._after)}>?",
            re.IGNORECASE | re.ASCII,
        )

    def __repr__(self) -> str:
        return f"Tokens(format={self.format!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        return self._secrets == other._secrets and self.format == other.format

    def __hash__(self) -> int:
        return hash((self._secrets, self.format))

    @property
    def format(self) -> str:
        """The addresses' form, with its domain in A-labels."""
        return f"{self._before}{_FIELD}{self._after}"

    def address_for(self, key: int, index: int) -> str:
        """Return the address to which reports on one recipient are to come.

        Args:
            key: the message's number, 0 to 2**63 - 1.
            index: the recipient's number within it, 0 to 2**24 - 1.

        Raises:
            OverflowError: one of them is out of range.
        """
        named = key.to_bytes(8, "big") + index.to_bytes(3, "big")
        signed = named + _mac(self._secrets[0], _RECIPIENT, named)[:_MAC]
        return f"{self._before}{_written(signed)}{self._after}"

    def read(self, address: str) -> Named | None:
        """Return whom an address names, in whatever case it is written; None if it is not one that we made."""
        found = self._pattern.fullmatch(address)
        if found is None:
            return None
        octets = base64.b32decode(found[1], casefold=True)
        named, mac = octets[:-_MAC], octets[-_MAC:]
        if not self._believed(_RECIPIENT, named, mac):
            return None
        return Named(int.from_bytes(named[:8], "big"), int.from_bytes(named[8:], "big"))

    def envid_for(self, key: int) -> str:
        """Return the envelope id of a message; it needs no xtext.

        Raises:
            OverflowError: ``key`` is not 0 to 2**64 - 1.
        """
        named = key.to_bytes(8, "big")
        return _ENVID_PREFIX + _written(named + _mac(self._secrets[0], _MESSAGE, named)[:_ENVID_MAC])

    def read_envid(self, envid: str) -> int | None:
        """Return the number of the message that an envelope id names; None if it is not one that we made."""
        found = _ENVID.fullmatch(envid)
        if found is None:
            return None
        octets = base64.b32decode(found[1], casefold=True)
        named, mac = octets[:-_ENVID_MAC], octets[-_ENVID_MAC:]
        return int.from_bytes(named, "big") if self._believed(_MESSAGE, named, mac) else None

    def _believed(self, purpose: bytes, named: bytes, mac: bytes) -> bool:
        # All are compared, so that the time does not tell which one fits.
        fits = [hmac.compare_digest(_mac(s, purpose, named)[: len(mac)], mac) for s in self._secrets]
        return any(fits)


def _mac(secret: bytes, purpose: bytes, named: bytes) -> bytes:
    return hmac.digest(secret, purpose + named, hashlib.sha256)


def _written(octets: bytes) -> str:
    return base64.b32encode(octets).decode("ascii").lower()


def _read_format(text: str) -> tuple[str, str]:
    """Return what stands before and behind the token, in the canonical form of addresses."""
    before, found, after = text.partition(_FIELD)
    if not found or _FIELD in after or "@" not in after:
        raise ConfigurationError(
            "format",
            f"{text[:100]!r} does not hold {_FIELD} once before its @",
            'write it as in "bounces+{token}@example.org"',
        )
    # Stands for the token while the address around it is looked at; nobody's address contains it.
    stand_in = "x7q" * 10 + "zz"
    try:
        address = parse_address(f"{before}{stand_in}{after}", field="format")
    except InvalidAddress as error:
        raise ConfigurationError("format", error.problem, error.remedy) from None
    start, found, end = address.value.partition(stand_in)
    if address.type != "smtp" or not found or not address.is_ascii:
        raise ConfigurationError(
            "format", f"{text[:100]!r} makes no plain mail address", "use ASCII, and no quotes or names"
        )
    return start, end
