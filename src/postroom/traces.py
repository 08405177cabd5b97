"""Traces of an address: where it stands in what was written about its mail. Pure."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress

import idna

from postroom.addresses import Address

__all__ = ["Traces"]


class Traces:
    """Finds an address in texts, and replaces it. Pure and thread-safe.

    It is found in upper or lower case, with its domain in A-labels or in its own script, in the forms that bounces and
    URLs give it (``ann=example.org``, ``ann%40example.org``, RFC 3461 xtext), and only whole: neither
    ``joann@example.org`` nor ``ann@example.org.uk`` is ``ann@example.org``.

    Args:
        address: whose traces.
        tombstone: what stands for it afterwards.

    Attributes:
        likes: patterns for SQL's LIKE, escaped by backslashes: where none fits, the address does not stand.
    """

    def __init__(self, address: Address, tombstone: str) -> None:
        self.address = address
        self.tombstone = tombstone
        plain, wrapped = _forms(address)
        # What stands before it must not belong to a longer address; "%3C" is a "<" in a URL, and in a return path that
        # carries the recipient (VERP) anything but a letter may stand before it.
        before = r"(?:(?<![\w.+%-])|(?<=%[0-9A-F][0-9A-F]))"
        whole = rf"(?:{before}(?:{_either(plain)})|(?<!\w)(?:{_either(wrapped)}))(?![\w-]|\.\w)"
        self._texts = re.compile(whole, re.IGNORECASE)
        self._octets = re.compile(whole.encode(), re.IGNORECASE)
        # A key is made up by a program, which puts anything around it, and is not taken for another address.
        self._keys = re.compile(rf"(?<![^\W_])(?:{_either([*plain, *wrapped])})(?![^\W_])", re.IGNORECASE)
        self._needles = tuple({form.encode().lower() for form in (*plain, *wrapped)})
        self.likes = _likes(address)

    def in_text(self, text: str | None) -> bool:
        """Return whether the address stands in a text."""
        return text is not None and self._texts.search(text) is not None

    def in_key(self, key: str | None) -> bool:
        """Return whether the address stands in a key (of idempotency, of order), in whatever way."""
        return key is not None and self._keys.search(key) is not None

    def in_octets(self, octets: bytes) -> bool:
        """Return whether the address stands, plainly, in octets."""
        # Nearly always it does not, and finding that out this way takes a tenth of the time.
        lowered = octets.lower()
        return any(needle in lowered for needle in self._needles) and self._octets.search(octets) is not None

    def cleared(self, text: str | None) -> str | None:
        """Return a text with the tombstone in place of the address."""
        return None if text is None else self._texts.sub(self.tombstone, text)

    def cleared_key(self, key: str | None) -> str | None:
        """Return a key with the tombstone in place of the address."""
        return None if key is None else self._keys.sub(self.tombstone, key)

    def is_of(self, kind: str, value: str) -> bool:
        """Return whether an address is the one, whatever the case of its letters."""
        return kind == self.address.type and value.casefold() == self.address.value.casefold()


def _forms(address: Address) -> tuple[list[str], list[str]]:
    """Return how an address is written, and how it is written into another one."""
    value = address.value
    plain = {value, json.dumps(value, ensure_ascii=False)[1:-1]}
    wrapped: set[str] = set()
    if address.type == "smtp":
        local, _, domain = value.rpartition("@")
        for at in _domains(domain):
            plain |= {f"{local}@{at}", f"{local}%40{at}", f"{_xtext(local)}@{at}"}
            wrapped.add(f"{local}={at}")
    return sorted(plain), sorted(wrapped)


def _either(forms: Iterable[str]) -> str:
    # (?!) matches nothing.
    return "|".join(sorted(map(re.escape, forms), key=len, reverse=True)) or "(?!)"


def _xtext(text: str) -> str:
    """Return a text as ORCPT has it (RFC 3461 section 4)."""
    return "".join(f"+{ord(char):02X}" if char in "+=" else char for char in text)


def _likes(address: Address) -> tuple[str, ...]:
    """Return LIKE patterns, escaped by backslashes, of which one fits whatever text the address stands in."""
    if address.type != "smtp":
        return (f"%{_escaped(address.value)}%",)
    local, _, domain = address.value.rpartition("@")
    # Of the local part only what every way of writing it leaves as it is.
    run = max(re.findall(r"[A-Za-z0-9]*", local), key=len)
    return tuple(f"%{run}%{_escaped(at)}%" for at in _domains(domain))


def _domains(domain: str) -> tuple[str, ...]:
    """Return a domain, and how it is written in its own script where it has one."""
    if "xn--" in domain:
        with suppress(idna.IDNAError):
            return domain, idna.decode(domain)
    return (domain,)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
