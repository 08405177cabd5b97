"""Domains, IP literals and hosts of URLs in their canonical form: A-labels, lower case, compressed."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

import idna

__all__ = ["MAX_DOMAIN", "Malformed", "canonical_domain", "canonical_url", "host_of"]

MAX_DOMAIN: Final = 255
"""Octets of a domain (RFC 5321 section 4.5.3.1.2)."""

_NUMERIC_LAST = re.compile(r"(?:.*\.)?[0-9]+", re.DOTALL)
_LDH_DOMAIN = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
# Hosts of URLs are looked up, not mailed to: container networks name them with underscores.
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
_URL = re.compile(r"//(\[[^\]/?#]*\]|[^/?#:]*)(?::([^/?#]*))?([/?][^#]*)?(?:#.*)?")
_HOST_OF = re.compile(r"//(\[[^\]]*\]|[^/?#:]*)")
_NOT_IN_URL = re.compile(r"[\s\\]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Malformed(Exception):
    """Something is not an address: what is wrong, and what would be right."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


def canonical_domain(text: str) -> str:
    """Return a mail domain or an address literal in canonical form (RFC 5321 sections 4.1.2 and 4.1.3).

    Raises:
        Malformed: it is neither.
    """
    if text.startswith("["):
        return _address_literal(text)
    domain = _to_ascii(text)
    if _LDH_DOMAIN.fullmatch(domain) is None or len(domain) > MAX_DOMAIN:
        raise Malformed(
            "has a malformed domain", "write a domain of letters, digits and hyphens, as in example.org"
        )
    if _NUMERIC_LAST.fullmatch(domain):
        raise Malformed(
            "ends in a number instead of a domain", "put an IP address in brackets, as in ann@[192.0.2.1]"
        )
    return domain


def canonical_url(scheme: str, rest: str) -> str:
    """Return what follows the scheme of an ``http`` or ``https`` URL in canonical form, without its fragment.

    The host is in A-labels and lower case, a default port is left out, other characters than ASCII are
    percent-encoded as UTF-8 (RFC 3987 section 3.1). Path and query are otherwise untouched.

    Raises:
        Malformed: there is no host, or there is a user, an invalid port, white space or a backslash.
    """
    if _NOT_IN_URL.search(rest):
        raise Malformed("holds white space or a backslash", "percent-encode it")
    authority = re.split(r"[/?#]", rest.removeprefix("//"), maxsplit=1)[0]
    if "@" in authority:
        raise Malformed(
            "holds a user or password", "configure credentials on the transport; the spool keeps addresses"
        )
    parts = _URL.fullmatch(rest)
    if parts is None:
        raise Malformed("is not a URL", f"write {scheme}://host/path")
    host, port, path = parts[1], parts[2] or "", parts[3] or ""
    if not host:
        raise Malformed("has no host", f"write {scheme}://host/path")
    host = _canonical_host(host)
    if port:
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
            raise Malformed("has an invalid port", "a port is a number from 1 to 65535")
        port = "" if int(port) == _DEFAULT_PORTS[scheme] else f":{int(port)}"
    if not path.isascii():
        path = quote(path, safe="".join(map(chr, range(128))))
    return f"//{host}{port}{path}"


def host_of(value: str) -> str:
    """Return the host of a canonical URL's value, an IPv6 address in its brackets, or ""."""
    found = _HOST_OF.match(value)
    return found[1] if found else ""


def _canonical_host(text: str) -> str:
    if text.startswith("["):
        return f"[{_ipv6(text[1:-1])}]"
    host = _to_ascii(text)
    if _HOST.fullmatch(host) is None or len(host) > MAX_DOMAIN:
        raise Malformed(
            "has a malformed host", "write a domain of letters, digits and hyphens, as in example.org"
        )
    if _NUMERIC_LAST.fullmatch(host):
        return _ipv4(host)
    return host


def _to_ascii(text: str) -> str:
    """Return a domain in A-labels and lower case: UTS #46, non-transitional (RFC 5891)."""
    if text.isascii():
        return text.lower()
    if len(text) > MAX_DOMAIN:
        raise Malformed(
            "has a domain that is too long", f"at most {MAX_DOMAIN} octets are allowed (RFC 5321)"
        )
    try:
        return idna.encode(text, uts46=True, transitional=False).decode("ascii").lower()
    except UnicodeError as error:
        raise Malformed(
            f"has a domain that is not valid: {error}", "write it as registered, or in A-labels"
        ) from None


def _address_literal(text: str) -> str:
    if not text.endswith("]"):
        raise Malformed("has an address literal without ]", "write ann@[192.0.2.1] or ann@[IPv6:2001:db8::1]")
    inside = text[1:-1]
    if inside[:5].lower() == "ipv6:":
        return f"[IPv6:{_ipv6(inside[5:])}]"
    return f"[{_ipv4(inside)}]"


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise Malformed(
            "holds something that is not an IPv4 address", "write four numbers, as in 192.0.2.1"
        ) from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise Malformed(
            "holds something that is not an IPv6 address", "write it without a zone, as in 2001:db8::1"
        )
    return str(address)
