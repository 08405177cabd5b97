"""Who may send to whom through a listener: which recipients are ours, and who may submit outgoing mail. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from postroom.domains import Malformed, canonical_domain
from postroom.errors import ConfigurationError
from postroom.receivers.listener_commands import Refused

__all__ = ["Answer", "Client", "Local", "LocalPatterns", "Relaying", "Way", "address_of", "judge"]

Answer = bool | str | None
"""What a callable says of an address: whether it is ours, or the reply to refuse it with ("550 5.1.1 No such user")."""

Local = Callable[[str], Answer]
"""Says whether an address is ours; may block."""

Network = IPv4Network | IPv6Network

_REFUSAL = re.compile(r"[45][0-9]{2} [ -~]{1,490}")


class Way(Enum):
    """What becomes of a recipient."""

    INCOMING = "incoming"
    OUTGOING = "outgoing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who is at the other end, as far as the policy asks.

    Attributes:
        ip: its address, "" where there is none.
        authenticated: it has given a user and password.
    """

    ip: str = ""
    authenticated: bool = False


class LocalPatterns:
    """Addresses of ours by patterns: "example.org", "*@*.example.org", "ann@example.org". Immutable.

    Compared without regard to case. ``*`` and ``?`` are wildcards; a pattern without "@" is a whole domain.

    Args:
        patterns: any number of them.

    Raises:
        ConfigurationError: a pattern is no text, or its domain cannot exist.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        texts = [_canonical_pattern(pattern) for pattern in patterns]
        self._addresses = _any_of(texts)
        self._domains = _any_of([text.rpartition("@")[2] for text in texts])

    def __call__(self, address: str) -> Answer:
        """Return whether an address is ours; a refusal if only its domain is."""
        address = address.lower()
        if self._addresses.fullmatch(address):
            return True
        if self._domains.fullmatch(address.rpartition("@")[2]):
            return "550 5.1.1 No such recipient here"
        return False


@dataclass(frozen=True, slots=True)
class Relaying:
    """Who may submit outgoing mail.

    Attributes:
        rule: "authenticated": who gave a user and password; "networks": they, and whoever connects from some networks;
            "never": nobody.
        networks: these networks.
    """

    rule: Literal["authenticated", "networks", "never"]
    networks: tuple[Network, ...] = ()

    @staticmethod
    def of(rule: str, networks: Sequence[str]) -> "Relaying":
        """Return a rule as it was configured.

        Raises:
            ConfigurationError: it is unknown, or a network is malformed.
        """
        if rule not in {"authenticated", "networks", "never"}:
            raise ConfigurationError(
                "relay", f"{rule!r} is unknown", 'give "authenticated", "networks" or "never"'
            )
        parsed: list[Network] = []
        for at, network in enumerate((networks,) if isinstance(networks, str) else networks):
            try:
                parsed.append(ip_network(network))
            except ValueError as error:
                raise ConfigurationError(
                    f"networks[{at}]", str(error), "write it as 192.0.2.0/24 or 2001:db8::/32"
                ) from None
        known: Literal["authenticated", "networks", "never"] = (
            "networks" if rule == "networks" else "never" if rule == "never" else "authenticated"
        )
        return Relaying(known, tuple(parsed))

    def allows(self, client: Client) -> bool:
        """Return whether a client may submit outgoing mail."""
        if self.rule == "never":
            return False
        if client.authenticated:
            return True
        address = address_of(client.ip) if self.rule == "networks" else None
        return address is not None and any(address in network for network in self.networks)


def judge(answer: Answer, client: Client, relaying: Relaying, *, auth: bool) -> Way:
    """Return what becomes of a recipient.

    An address that is not ours goes out if the client may submit; so does one that only shares our domain, since
    whoever may submit reaches it wherever the domain's mail exchanger is.

    Args:
        answer: whether the address is ours (see :data:`Answer`).
        client: who asks.
        relaying: who may submit outgoing mail.
        auth: clients can authenticate.

    Raises:
        Refused: with the reply.
    """
    if answer is True:
        return Way.INCOMING
    refusal = answer or ""
    if refusal and not _REFUSAL.fullmatch(refusal):
        raise Refused("451 4.3.0 The recipient cannot be checked now")
    if refusal.startswith("4"):
        raise Refused(refusal)
    if relaying.allows(client):
        return Way.OUTGOING
    if refusal:
        raise Refused(refusal)
    if auth and not client.authenticated and relaying.rule != "never":
        raise Refused("530 5.7.0 Authentication required")
    raise Refused("550 5.7.1 Relaying denied")


def address_of(ip: str) -> IPv4Address | IPv6Address | None:
    """Return a peer's address, an IPv4 one in IPv6's clothes as what it is; None when there is none."""
    with suppress(ValueError):
        address = ip_address(ip.partition("%")[0])
        return getattr(address, "ipv4_mapped", None) or address
    return None


def _canonical_pattern(pattern: str) -> str:
    if not isinstance(pattern, str) or not pattern.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise ConfigurationError(
            "local", f"{pattern!r} is no pattern", 'give "example.org" or "*@example.org"'
        )
    local, at, domain = pattern.strip().rpartition("@")
    if not {"*", "?"} & set(domain):
        try:
            domain = canonical_domain(domain)
        except Malformed as malformed:
            raise ConfigurationError("local", f"{pattern!r} {malformed.problem}", malformed.remedy) from None
    return f"{local if at else '*'}@{domain}".lower()


def _any_of(globs: Iterable[str]) -> re.Pattern[str]:
    # Not fnmatch, to which the brackets of an address literal would be a choice of characters.
    patterns = [re.escape(text).replace(r"\*", ".*").replace(r"\?", ".") for text in globs]
    return re.compile("|".join(patterns) if patterns else r"(?!)", re.DOTALL)
