"""One recipient of an envelope: its address, and what may be said of it beyond that."""

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from postroom.addresses import Address, parse_address
from postroom.errors import InvalidAddress, UsageError
from postroom.options import RecipientOptions

__all__ = [
    "FAILURE_ONLY",
    "LIST_TYPE",
    "MAX_ALTERNATIVES",
    "Recipient",
    "Report",
    "check_reports",
    "recipient_options",
    "written_reports",
    "xtext_length",
]

MAX_ALTERNATIVES: Final = 16
"""Alternative addresses that one recipient may have."""

MAX_ORCPT: Final = 500
"""Characters of an ORCPT parameter, as xtext (RFC 3461 section 4.2)."""

LIST_TYPE: Final = "list"
"""The address type of distribution lists."""

_ADDR_TYPE = re.compile(r"[-A-Za-z0-9!#$%&'*+/=?^_`{|}~.]+")
# RFC 3461 section 4: xtext writes all else than "!" to "~" without "+" and "=" in three characters.
_ONE_IN_XTEXT = re.compile(r"[!-*,-<>-~]")


class Report(StrEnum):
    """What the sender wants to be told (RFC 3461 section 4.1, NOTIFY). NEVER is the empty set."""

    FAILURE = "failure"
    DELAY = "delay"
    SUCCESS = "success"


FAILURE_ONLY: Final = frozenset({Report.FAILURE})
"""What is told unless something else is asked for."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient of which there is more to say than its address; stands in ``to=`` wherever an address does.

    Attributes:
        address: as in ``to=``; a distribution list too, then ``report`` and ``orcpt`` are for those on it.
        alternatives: where to turn, in this order, when the address fails for good or expires, as in
            ``Recipient("ann@example.org", alternatives=["sms:+15550100"])``. Only the last one's failure is reported.
        report: what the sender wants to be told of this recipient; None for what is said of the message.
        orcpt: the original recipient that reports name and servers are told (RFC 3461 section 4.2), with its type, as
            in "rfc822;ann@example.org"; "" to make it from the address.
    """

    address: str | Address
    alternatives: Iterable[str | Address] | str | Address = ()
    report: AbstractSet[Report] | None = None
    orcpt: str = ""


def recipient_options(given: Recipient, address: Address, field: str) -> RecipientOptions | None:
    """Return what is said of a recipient beyond its address, checked; None when that is nothing.

    Args:
        given: what the caller said.
        address: its address, parsed.
        field: names it in errors, as ``to[2]``.

    Raises:
        UsageError: one of the family, naming the field, as ``to[2].alternatives[0]``.
    """
    report = None if given.report is None else written_reports(check_reports(given.report, f"{field}.report"))
    options = RecipientOptions(
        alternatives=_alternatives(given.alternatives, address, f"{field}.alternatives"),
        orcpt=_orcpt(given.orcpt, f"{field}.orcpt"),
        report=report,
    )
    return None if options == _NOTHING else options


_NOTHING = RecipientOptions()


def check_reports(given: Any, field: str = "report") -> frozenset[Report]:
    """Return a set of reports that a caller gave.

    Raises:
        UsageError: it is something else.
    """
    try:
        if not isinstance(given, (str, bytes)):
            return frozenset(map(Report, given))
    except (TypeError, ValueError):
        pass
    raise UsageError(
        field, f"{given!r} is not a set of Report", "give, for example, {Report.FAILURE, Report.DELAY}"
    )


@lru_cache(maxsize=16)
def written_reports(reports: frozenset[Report]) -> str:
    """Return reports as they are stored: "delay,failure,success", "" for none."""
    return ",".join(sorted(reports))


def xtext_length(text: str) -> int:
    """Return how many characters ASCII text takes as xtext (RFC 3461 section 4)."""
    return 3 * len(text) - 2 * len(_ONE_IN_XTEXT.findall(text))


def _alternatives(given: Any, address: Address, field: str) -> tuple[Address, ...]:
    if isinstance(given, (str, Address)):
        given = (given,)
    try:
        numbered = enumerate(given)
    except TypeError:
        raise UsageError(
            field, f"{type(given).__name__} is not a list of addresses", "give a list of str"
        ) from None
    found: dict[Address, None] = {}
    for index, text in numbered:
        alternative = parse_address(text, field=f"{field}[{index}]")
        if alternative.type == LIST_TYPE:
            raise InvalidAddress(
                f"{field}[{index}]",
                f"{str(alternative)[:100]!r} is a distribution list",
                "name one address to turn to",
            )
        if alternative != address:
            found[alternative] = None
        if len(found) > MAX_ALTERNATIVES:
            raise UsageError(
                field, f"names more than {MAX_ALTERNATIVES} addresses", "name the likeliest to work"
            )
    return tuple(found)


def _orcpt(given: Any, field: str) -> str:
    if given == "":
        return ""
    if not isinstance(given, str):
        raise UsageError(field, f"{type(given).__name__} is no address", "give a str")
    kind, semicolon, value = given.partition(";")
    if not semicolon or not value or _ADDR_TYPE.fullmatch(kind) is None:
        raise UsageError(
            field,
            f"{given[:100]!r} has no address type",
            "write type;address, as in rfc822;ann@example.org (RFC 3461 4.2)",
        )
    # RFC 6533 section 3: only the type "utf-8" has other characters than ASCII.
    if not value.isprintable() or not (value.isascii() or kind.lower() == "utf-8"):
        raise UsageError(
            field,
            f"{given[:100]!r} holds characters that are not printable ASCII",
            'use the type "utf-8" for an internationalised address (RFC 6533 3)',
        )
    if len(kind) + 1 + xtext_length(value) > MAX_ORCPT:
        raise UsageError(
            field, f"is longer than {MAX_ORCPT} characters as xtext", "leave it out, or shorten it"
        )
    return given
