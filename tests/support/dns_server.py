"""An authoritative DNS server on a loopback port (UDP), written with dnspython, that misbehaves where it is told to."""

import socket
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

__all__ = ["DnsServer"]

ROOT = {".": {"NS": ["a.root-servers.example."]}}


class DnsServer:
    """Answers from ``zone``; whatever is not in it does not exist.

    Args:
        zone: name without the final dot → type → records as text. CNAMEs are followed.
        ttl: of all records.

    Attributes:
        zone: may be changed while it runs.
        failing: names that are answered with SERVFAIL; "." for the root.
        silent: names that are not answered; "*" for all.
        asked: how often each (name, type) was asked for.
    """

    def __init__(self, zone: Mapping[str, Mapping[str, Sequence[str]]], *, ttl: int = 300) -> None:
        self.zone: dict[str, Mapping[str, Sequence[str]]] = {**ROOT, **zone}
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        self.asked: Counter[tuple[str, str]] = Counter()
        self._ttl = ttl
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="dns-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def resolver(self, *, lifetime: float = 2.0, timeout: float = 0.5) -> dns.resolver.Resolver:
        """Return a resolver that asks this server only."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.port
        resolver.lifetime = lifetime
        resolver.timeout = timeout
        return resolver

    def _run(self) -> None:
        while True:
            octets, client = self._socket.recvfrom(4096)
            if not octets:
                return
            try:
                query = dns.message.from_wire(octets)
            except dns.exception.DNSException:
                continue
            answer = self._answer(query)
            if answer is not None:
                self._socket.sendto(answer.to_wire(), client)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        if self.silent & {name, "*"}:
            return None
        answer = dns.message.make_response(query, recursion_available=True)
        if name in self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer
        while name in self.zone and "CNAME" in self.zone[name]:
            (target,) = self.zone[name]["CNAME"]
            self._add(answer, name, "CNAME", [target])
            name = target.rstrip(".").lower()
        if name not in self.zone:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif records := self.zone[name].get(kind):
            self._add(answer, name, kind, records)
        return answer

    def _add(self, answer: dns.message.Message, name: str, kind: str, records: Sequence[str]) -> None:
        owner = dns.name.from_text(name)
        answer.answer.append(dns.rrset.from_text_list(owner, self._ttl, dns.rdataclass.IN, kind, records))
