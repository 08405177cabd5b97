"""Which network addresses a webhook may be sent to.

A webhook's URL often comes from somebody else's form. Without a guard it makes this server fetch what only
this server can reach: the loopback interface, the private network, the cloud's metadata service (server-side
request forgery). The guard judges *addresses after resolution*, never names: a name may resolve to something
else next time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from postroom.errors import ConfigurationError

__all__ = ["AddressGuard", "IPAddress", "read_networks"]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_NAMED: tuple[tuple[str, IPNetwork], ...] = tuple(
    (what, ip_network(network))
    for network, what in (
        # Metadata services first: the name says more than "link-local", and 168.63.129.16 is an ordinary
        # public address that no general rule catches.
        ("168.63.129.16/32", "a cloud metadata address"),
        ("192.0.0.192/32", "a cloud metadata address"),
        ("169.254.169.254/32", "a cloud metadata address"),
        ("169.254.170.2/32", "a cloud metadata address"),
        ("100.100.100.200/32", "a cloud metadata address"),
        ("fd00:ec2::254/128", "a cloud metadata address"),
        ("fd20:ce::254/128", "a cloud metadata address"),
        ("0.0.0.0/8", "this network (RFC 1122)"),
        ("127.0.0.0/8", "loopback"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared with the provider (RFC 6598)"),
        ("169.254.0.0/16", "link-local"),
        ("192.0.0.0/24", "reserved (RFC 6890)"),
        ("192.88.99.0/24", "reserved (RFC 7526)"),
        ("198.18.0.0/15", "for benchmarks (RFC 2544)"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "reserved (IPv4-compatible)"),
        ("64:ff9b:1::/48", "a local translation prefix (RFC 8215)"),
        ("fc00::/7", "private (RFC 4193)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local (RFC 3879)"),
        ("ff00::/8", "multicast"),
    )
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that is assigned so far (RFC 4291 section 2.4)."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that a translator will contact."""


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """Says whether an address may be contacted. Immutable.

    Attributes:
        allow_private: let every address pass.
        allow_networks: networks that pass whatever they are.
    """

    allow_private: bool = False
    allow_networks: tuple[IPNetwork, ...] = ()

    def refusal(self, address: str) -> str | None:
        """Return why ``address`` (numeric, with or without a zone) may not be contacted, or None."""
        if self.allow_private:
            return None
        literal = ip_address(address.partition("%")[0])
        for candidate in (literal, *embedded(literal)):
            if self._is_allowed(candidate):
                continue
            what = _kind(candidate)
            if what is not None:
                return what if candidate == literal else f"{what} behind an IPv6 form, {candidate}"
        return None

    def _is_allowed(self, address: IPAddress) -> bool:
        return any(address in network for network in self.allow_networks)


def embedded(address: IPAddress) -> tuple[IPAddress, ...]:
    """Return the IPv4 addresses that packets to ``address`` end at or pass: mapped, NAT64, 6to4, Teredo."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return address.teredo or ()


def read_networks(networks: Iterable[str | IPNetwork]) -> tuple[IPNetwork, ...]:
    """Return ``networks`` parsed, for example ``["10.1.0.0/16", "::1"]``.

    Raises:
        ConfigurationError: one is not a network.
    """
    if isinstance(networks, str):
        raise ConfigurationError(
            "allow_networks", f"{networks!r} is one text", f"give a list: [{networks!r}]"
        )
    parsed: list[IPNetwork] = []
    for position, network in enumerate(networks):
        try:
            parsed.append(ip_network(network))
        except ValueError as error:
            raise ConfigurationError(
                f"allow_networks[{position}]", str(error), "write a network such as 10.1.0.0/16 or fd00::/8"
            ) from None
    return tuple(parsed)


def _kind(address: IPAddress) -> str | None:
    """Return what makes ``address`` unfit for the public Internet, or None."""
    for what, network in _NAMED:
        if address in network:
            return what
    if isinstance(address, IPv6Address) and embedded(address):
        return None  # judged by what it stands for: Python calls all of ::ffff:0:0/96 not global
    # The registry moves on (documentation prefixes, say); Python's copy of it is the net below the list.
    if not address.is_global or (isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST):
        return "not a public address"
    return None
