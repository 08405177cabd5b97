"""Addresses: a type and a value, ``smtp:ann@example.org``, ``sms:+15550100``, ``https://hooks.example.org/x``.

A bare ``ann@example.org`` is ``smtp``. Parsing gives the canonical form, so that duplicates compare equal:
domains in A-labels and lower case, quoting only where it is needed, telephone numbers in E.164, IP addresses
compressed.
Types that are not known here are allowed; whether a transport handles them is the router's business.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from postroom import domains
from postroom.domains import Malformed
from postroom.errors import InvalidAddress

__all__ = ["MAX_VALUE", "Address", "has_type", "parse_address", "parse_mailbox"]

MAX_VALUE: Final = 2048
"""Characters that an address's value may have."""

MAX_LOCAL: Final = 64
"""Octets of a local part (RFC 5321 section 4.5.3.1.1)."""

MAX_PATH: Final = 254
"""Octets of a mailbox: a path of 256 without its angle brackets (RFC 5321 section 4.5.3.1.3)."""

_CACHED_LENGTH: Final = 320
"""Longer texts are not remembered, which bounds the cache in octets too."""

_TYPE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,62}):")
# A glob's type may hold wildcards; "[seq]" is left out there because "*@[IPv6:*]" is a domain.
_PATTERN_TYPE = re.compile(r"[A-Za-z*?][A-Za-z0-9+.*?-]*:")
_URL_TYPES = frozenset({"http", "https"})

_ATEXT = r"-A-Za-z0-9!#$%&'*+/=?^_`{|}~"
# The ordinary mailbox, in one match: anything it does not match takes the long way.
_PLAIN = re.compile(
    rf"([{_ATEXT}]+(?:\.[{_ATEXT}]+)*)@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.)+"
    r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
)
# U+2028 and U+2029 are line ends to much software; C1 holds U+0085, another one.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DOT_STRING = re.compile(rf"[{_ATEXT}\x80-\U0010ffff]+(?:\.[{_ATEXT}\x80-\U0010ffff]+)*")
_QUOTED_LOCAL = re.compile(r'"((?:[^"\\]|\\.)*)"@(.*)')
_QUOTED_PAIR = re.compile(r"\\(.)")
_NEEDS_BACKSLASH = re.compile(r'(["\\])')
# Phrase words or quoted strings, then the angle brackets (RFC 5322 section 3.4); "@" is tolerated in the
# phrase because programs put the address where they know no name. A comma would make it a list.
_NAME_ADDR = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^"<>,;:()\\])*)<(.+)>')
# MAPI's one-off addresses, as Outlook writes them into text: a name, then [TYPE:value]. What stands before the bracket
# is nothing, or ends in a blank: "ann@[IPv6:::1]" is a mailbox at an address literal.
_ONE_OFF = re.compile(r'(?:(?:"(?:[^"\\]|\\.)*"|[^"<>,;:()\\\[\]])* )?\[([A-Za-z][A-Za-z0-9+.-]{0,62}:.+)\]')
_QUOTED_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')

_SMS_FILLING = re.compile(r"[ ()-]")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where something goes. Make one with :func:`parse_address`; the constructor checks nothing.

    Attributes:
        type: lower case, such as ``smtp``, ``sms``, ``https``.
        value: the canonical rest; for a URL it begins with ``//``.
    """

    type: str
    value: str

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"

    @property
    def domain(self) -> str:
        """The domain of a mailbox, the host of a URL (in A-labels, or an IP literal), else ""."""
        if self.type == "smtp":
            return self.value.rpartition("@")[2]
        return domains.host_of(self.value) if self.type in _URL_TYPES else ""

    @property
    def is_ascii(self) -> bool:
        """Whether it can be written without SMTPUTF8 (RFC 6531)."""
        return self.value.isascii()


def has_type(text: str) -> bool:
    """Return whether an address or a glob over addresses begins with a type.

    True for ``smtp:ann@example.org``, ``https://x``, and globs whose type holds wildcards (``*:+44*``,
    ``http*://*``); False for ``ann@example.org`` and ``*@[IPv6:*]``.
    """
    return _PATTERN_TYPE.match(text) is not None


def parse_address(text: str | Address, *, field: str = "to") -> Address:
    """Return the canonical address that ``text`` stands for. Pure and thread-safe.

    Understood are ``type:value``, ``ann@example.org``, ``https://…``, and with a name, which is dropped,
    ``"Ann Other" <ann@example.org>``, ``Ann <sms:+15550100>`` and MAPI's ``Ann Other [SMTP:ann@example.org]``. An
    :class:`Address` is checked like the text it prints as.

    Raises:
        InvalidAddress: naming ``field``; mailboxes are judged by RFC 5321 section 4.1.2 and RFC 6531.
    """
    if isinstance(text, Address):
        text = str(text)
    elif not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidAddress(field, f"{type(text).__name__} is not an address", "give a str or an Address")
    try:
        return _remembered(text) if len(text) <= _CACHED_LENGTH else _parse(text)
    except Malformed as malformed:
        raise InvalidAddress(field, f"{text[:100]!r} {malformed.problem}", malformed.remedy) from None


def parse_mailbox(text: str | Address, *, field: str) -> tuple[str, str]:
    """Return the display name ("" if none) and the canonical address of a mailbox, as a header takes them.

    Raises:
        InvalidAddress: naming ``field``; also for an address that is not of type ``smtp``.
    """
    address = parse_address(text, field=field)
    if address.type != "smtp":
        raise InvalidAddress(
            field,
            f"{str(address)[:100]!r} is no mailbox",
            "name recipients of other types in to= of the submission",
        )
    text = str(text).strip(" ")
    if text[:5].lower() == "smtp:":
        text = text[5:]
    name = _NAME_ADDR.fullmatch(text)
    if name is None:
        return "", address.value
    return _QUOTED_WORD.sub(lambda word: _QUOTED_PAIR.sub(r"\1", word[1]), name[1].strip(" ")), address.value


def _parse(text: str) -> Address:
    plain = _PLAIN.fullmatch(text)
    if plain is not None and plain.end(1) <= MAX_LOCAL and len(text) <= MAX_PATH:
        local, domain = plain.groups()
        return Address("smtp", f"{local}@{domain.lower()}")
    if len(text) > 2 * MAX_VALUE:
        raise Malformed(f"has {len(text)} characters", f"an address's value has at most {MAX_VALUE}")
    if _FORBIDDEN.search(text):
        raise Malformed("holds a control character, a line end or an unpaired surrogate", "remove it")
    text = text.strip(" ")
    typed = _TYPE.match(text)
    if typed is None:
        text = _one_off(text)
        typed = _TYPE.match(text)
        if typed is None:
            return Address("smtp", _mailbox(text))
    kind = typed[1].lower()
    value = _canonical(kind, text[typed.end() :].strip(" "))
    if not value:
        raise Malformed("has nothing after its type", "write type:value")
    if len(value) > MAX_VALUE:
        raise Malformed(f"has a value of {len(value)} characters", f"at most {MAX_VALUE} are allowed")
    return Address(kind, value)


_remembered = lru_cache(maxsize=8192)(_parse)


def _canonical(kind: str, value: str) -> str:
    if kind == "smtp":
        return _mailbox(value)
    if kind == "sms":
        return _telephone(value)
    return domains.canonical_url(kind, value) if kind in _URL_TYPES else value


def _one_off(text: str) -> str:
    """Return the typed address that a one-off address is of, or ``text`` itself when it is none."""
    found = _ONE_OFF.fullmatch(text) if text.endswith("]") else None
    if found is not None:
        return found[1]
    found = _NAME_ADDR.fullmatch(text)
    return found[2] if found is not None and _TYPE.match(found[2]) else text


def _mailbox(text: str) -> str:
    named = _NAME_ADDR.fullmatch(text)
    if named is not None:
        text = named[2]
    quoted = _QUOTED_LOCAL.fullmatch(text)
    if quoted is not None:
        local, domain = _QUOTED_PAIR.sub(r"\1", quoted[1]), quoted[2]
    else:
        local, at, domain = text.rpartition("@")
        if not at:
            raise Malformed("has neither a type nor an @", "write ann@example.org or type:value")
        if _DOT_STRING.fullmatch(local) is None or any(map(str.isspace, local)):
            raise Malformed(
                "has a local part that is not allowed without quotes",
                'write one address, as in ann@example.org, "odd one"@example.org or Ann <ann@example.org>',
            )
    # RFC 6531 section 3.3 with RFC 6532 section 3.1: NFC; NFKC would merge addresses that are different.
    local = unicodedata.normalize("NFC", local)
    if _DOT_STRING.fullmatch(local) is None or any(map(str.isspace, local)):
        local = '"' + _NEEDS_BACKSLASH.sub(r"\\\1", local) + '"'
    octets = len(local.encode())
    if octets > MAX_LOCAL:
        raise Malformed(f"has a local part of {octets} octets", f"at most {MAX_LOCAL} are allowed (RFC 5321)")
    mailbox = f"{local}@{domains.canonical_domain(domain)}"
    octets = len(mailbox.encode())
    if octets > MAX_PATH:
        raise Malformed(f"has {octets} octets", f"at most {MAX_PATH} are allowed (RFC 5321)")
    return mailbox


def _telephone(text: str) -> str:
    number = _SMS_FILLING.sub("", text)
    if _E164.fullmatch(number) is None:
        raise Malformed(
            "is not a telephone number in E.164", "write + and 7 to 15 digits, the first not 0: +15550100"
        )
    return number
