"""The DNS by way of dnspython, for the MX transport: ``pip install postroom[mx]``. Imported when it is needed."""

import copy
from collections.abc import Sequence
from typing import Final

import dns.exception
import dns.name
import dns.resolver

from postroom.errors import ConfigurationError, TransportDown
from postroom.transports.mx_lookup import LookupFailed, NoSuchDomain, Question

__all__ = ["DnsLookup"]

CACHED: Final = 10_000
"""Answers that are remembered, each for its TTL."""

PROBE_SECONDS: Final = 5.0


class DnsLookup:
    """Asks by way of dnspython, and remembers answers for their TTL. Thread-safe.

    A question that gets no answer says nothing of who is at fault. The root's name servers are then asked for: a
    resolver that knows not even these, or is silent, is of no use for any domain.

    Args:
        resolver: a ``dns.resolver.Resolver``, of which a copy is used; None for the system's (/etc/resolv.conf).

    Raises:
        ConfigurationError: the system names no resolver.
    """

    def __init__(self, resolver: dns.resolver.Resolver | None = None) -> None:
        if resolver is None:
            try:
                resolver = dns.resolver.Resolver()
            except dns.resolver.NoResolverConfiguration as error:
                raise ConfigurationError(
                    "resolver", f"the system names none: {error}", "give a dns.resolver.Resolver"
                ) from None
        self._resolver = copy.copy(resolver)
        if self._resolver.cache is None:
            self._resolver.cache = dns.resolver.LRUCache(CACHED)
        self._probe = copy.copy(resolver)
        self._probe.cache = None
        self._probe.lifetime = min(PROBE_SECONDS, resolver.lifetime)

    def __call__(self, name: str, question: Question) -> Sequence[str]:
        """Answer; see :data:`~postroom.transports.mx_lookup.Lookup`."""
        try:
            absolute = dns.name.from_text(name)
        except dns.exception.DNSException:
            raise NoSuchDomain(f"{name}: not a name that the DNS could know") from None
        try:
            answer = self._resolver.resolve(absolute, question, search=False)
        except dns.resolver.NXDOMAIN:
            raise NoSuchDomain(f"{name}: no such domain") from None
        except dns.resolver.NoAnswer:
            return ()
        except dns.exception.DNSException as error:
            self._assert_alive()
            raise LookupFailed(f"{name} {question}: {error}") from error
        return [record.to_text() for record in answer]

    def _assert_alive(self) -> None:
        """Raise TransportDown unless the resolver answers what every resolver knows."""
        try:
            self._probe.resolve(dns.name.root, "NS", search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return
        except dns.exception.DNSException as error:
            raise TransportDown(f"DNS: the resolver does not answer: {error}") from error
