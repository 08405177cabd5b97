"""Which hosts take mail for a domain, and what it means when none does (RFC 5321 section 5.1, RFC 7505).

Nothing here talks SMTP; the DNS is asked through a :data:`~postroom.transports.mx_lookup.Lookup`.
"""

import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Final

from postroom.outcomes import Deferred, Failed, Reply
from postroom.replies import one_line
from postroom.transports.mx_lookup import Lookup, LookupFailed, NoSuchDomain, Question
from postroom.transports.webhook_guard import AddressGuard

__all__ = [
    "MAX_ADDRESSES",
    "Exchanger",
    "Host",
    "Shuffle",
    "Trouble",
    "addresses_of",
    "hosts_of",
    "ordered",
    "read_exchangers",
    "unreachable",
]

MAX_ADDRESSES: Final = 4
"""Addresses of one host that are tried in one attempt."""

_QUESTIONS: Final[tuple[tuple[Question, int], ...]] = (("AAAA", 6), ("A", 4))

Shuffle = Callable[[list[str]], None]
"""Brings a list into random order, in place."""


@dataclass(frozen=True, slots=True)
class Exchanger:
    """An MX record.

    Attributes:
        preference: lower ones come first.
        name: the host, in lower case and without the final dot; "" in a null MX.
    """

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class Host:
    """A host that may take mail.

    Attributes:
        name: as the domain calls it, which is what a certificate is compared with.
        address: where it is if that is known already: the domain is an address literal.
        implicit: the domain itself, as it has no MX record.
    """

    name: str
    address: str = ""
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a host, or one address of it, took no mail.

    Attributes:
        reply: for the record; its remote names the host.
        final: it will not do so later, either.
        retry_after: seconds to wait at least, or None.
    """

    reply: Reply
    final: bool = False
    retry_after: float | None = None


def read_exchangers(records: Sequence[str]) -> list[Exchanger]:
    """Return the MX records of an answer, as text ("10 mx.example.org."); what is none is left out."""
    found: list[Exchanger] = []
    for record in records:
        preference, _, name = record.strip().partition(" ")
        if preference.isascii() and preference.isdigit() and name:
            found.append(Exchanger(int(preference), name.strip().rstrip(".").lower()))
    return found


def ordered(
    exchangers: Sequence[Exchanger], domain: str, own: Collection[str], shuffle: Shuffle
) -> tuple[str, ...] | Failed:
    """Return the hosts in the order in which they are to be tried, or why there is none.

    Where we are a mail exchanger of the domain ourselves, only hosts that come before us are left: else mail would go
    in circles (RFC 5321 section 5.1).

    Args:
        exchangers: at least one.
        domain: for the record.
        own: our own names, in lower case.
        shuffle: orders those of the same preference.
    """
    named = [each for each in exchangers if each.name]
    if not named:
        return Failed(Reply(f"{domain} takes no mail (null MX, RFC 7505)", "5.1.10"))
    ours = min((each.preference for each in named if each.name in own), default=None)
    by_preference: dict[int, list[str]] = {}
    for each in named:
        if ours is None or each.preference < ours:
            by_preference.setdefault(each.preference, []).append(each.name)
    if not by_preference:
        return _to_ourselves(domain)
    for names in by_preference.values():
        shuffle(names)
    return tuple(dict.fromkeys(chain.from_iterable(by_preference[key] for key in sorted(by_preference))))


def hosts_of(
    domain: str, lookup: Lookup, own: Collection[str], shuffle: Shuffle
) -> tuple[Host, ...] | Failed | Deferred:
    """Return the hosts of a domain, or of an address literal, in order; or the outcome when there are none.

    Raises:
        TransportDown: the DNS cannot be asked.
    """
    if domain.startswith("["):
        return _literal(domain)
    if not domain:
        return Failed(Reply("an address without a domain", "5.1.3"))
    try:
        exchangers = read_exchangers(lookup(domain, "MX"))
    except NoSuchDomain as error:
        return Failed(Reply(one_line(f"domain not found: {error}"), "5.1.2"))
    except LookupFailed as error:
        reply = Reply(one_line(f"mail exchangers not found: {error}"), "4.4.3")
        return Deferred(reply, destination_down=True)
    if not exchangers:
        return _to_ourselves(domain) if domain in own else (Host(domain, implicit=True),)
    names = ordered(exchangers, domain, own, shuffle)
    return names if isinstance(names, Failed) else tuple(Host(name) for name in names)


def addresses_of(
    host: Host, lookup: Lookup, guard: AddressGuard, families: Collection[int] = (6, 4)
) -> tuple[str, ...] | Trouble:
    """Return the addresses at which to try a host, IPv6 and IPv4 in turns, or why there is none.

    Args:
        host: the host.
        lookup: the DNS.
        guard: which addresses may be contacted.
        families: 6 and 4, or the only one of these that we can send from.

    Raises:
        TransportDown: the DNS cannot be asked.
    """
    found: dict[int, Sequence[str]] = {6: (), 4: ()}
    unknown = ""
    if host.address:
        found[ipaddress.ip_address(host.address).version] = (host.address,)
    else:
        for question, family in _QUESTIONS:
            try:
                found[family] = lookup(host.name, question)
            except NoSuchDomain:
                break
            except LookupFailed as error:
                unknown = str(error)
    everything = [each for pair in zip_longest(found[6], found[4]) for each in pair if each is not None]
    usable = [each for each in everything if ipaddress.ip_address(each).version in families]
    allowed = [each for each in usable if guard.refusal(each) is None]
    if allowed:
        return tuple(allowed[:MAX_ADDRESSES])
    if unknown:
        return Trouble(Reply(one_line(f"address not found: {unknown}"), "4.4.3", None, host.name))
    if usable:
        said = f"{usable[0]} is not contacted: {guard.refusal(usable[0])}"
        return Trouble(Reply(said, "5.4.4", None, host.name), final=True)
    if everything:
        said = f"{everything[0]} cannot be reached from our source address"
        return Trouble(Reply(said, "5.4.4", None, host.name), final=True)
    if host.implicit:
        said = "the domain has neither a mail exchanger nor an address"
        return Trouble(Reply(said, "5.1.2", None, host.name), final=True)
    return Trouble(Reply("the mail exchanger has no address", "5.4.4", None, host.name), final=True)


def unreachable(domain: str, troubles: Sequence[Trouble], *, complete: bool) -> Failed | Deferred:
    """Return what it means that no host of a domain took mail.

    Args:
        domain: for the record.
        troubles: in the order in which they were met, at least one.
        complete: all hosts were tried.
    """
    chosen = troubles[-1]
    final = complete and all(each.final for each in troubles)
    if not final:
        chosen = next((each for each in reversed(troubles) if not each.final), chosen)
    reply = chosen.reply
    if len(troubles) > 1:
        others = "; ".join(str(each.reply) for each in troubles if each is not chosen)
        reply = replace(
            reply, text=one_line(f"{reply.text} (no mail exchanger of {domain} takes it: {others})")
        )
    if final:
        return Failed(reply)
    if not reply.status.startswith("4"):
        reply = replace(reply, status="4" + reply.status[1:] if reply.status else "4.4.1")
    waits = [each.retry_after for each in troubles if each.retry_after is not None]
    return Deferred(reply, min(waits, default=None), destination_down=True)


def _to_ourselves(domain: str) -> Failed:
    return Failed(Reply(f"mail for {domain} would come back to ourselves", "5.4.6"))


def _literal(domain: str) -> tuple[Host, ...] | Failed:
    """Return the host that an address literal names (RFC 5321 section 4.1.3)."""
    inside = domain.strip("[]")
    text = inside[5:] if inside[:5].lower() == "ipv6:" else inside
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return Failed(Reply(one_line(f"{domain} is no address literal that is known"), "5.1.2"))
    return (Host(str(address), str(address)),)
