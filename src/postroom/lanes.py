"""Lanes: who shares a transport with whom.

A lane is a number on each recipient made of its tenant (upper half) and its destination (lower half). Claims walk the
lanes that have work, tenant by tenant, so that one tenant's backlog or one dead destination never stands before
another's message. Two tenants may hash to one lane: they then share it, which is unfair to them by a factor of two and
wrong to nobody (McKenney, *Stochastic Fairness Queueing*, INFOCOM 1990).
"""

from zlib import crc32

from postroom.addresses import Address

__all__ = ["LANE_MASK", "TENANT_SHIFT", "destination_of", "lane_of"]

TENANT_SHIFT = 32
LANE_MASK = (1 << TENANT_SHIFT) - 1
"""The lower half: the destination."""

_TENANT_BITS = 0x7FFF_FFFF


def destination_of(address: Address) -> str:
    """Return the domain or host that an address is at, lower case; "" for types that have none."""
    if address.type == "smtp":
        return address.value.rpartition("@")[2]
    if address.type in {"http", "https"}:
        host = address.value.lstrip("/").partition("/")[0].partition("?")[0].rpartition("@")[2]
        return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    return ""


def lane_of(tenant: str, destination: str) -> int:
    """Return the lane of a tenant's recipients at one destination: 63 bits, not negative."""
    upper = crc32(tenant.encode()) & _TENANT_BITS if tenant else 0
    return upper << TENANT_SHIFT | (crc32(destination.encode()) if destination else 0)
