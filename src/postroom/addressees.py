"""Addressees: whom a submission names, in which way ever, as addresses that are canonical and each there once."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from postroom.addresses import Address, parse_address
from postroom.envelope_recipients import Recipient, recipient_options
from postroom.errors import InvalidAddress, NoRecipients, TooManyRecipients, UsageError
from postroom.expansion import Expander
from postroom.messages import PreparedMessage
from postroom.options import RecipientOptions

__all__ = ["NO_OPTIONS", "Addressees", "addressees"]

NO_OPTIONS: Final[Mapping[Address, RecipientOptions]] = MappingProxyType({})
"""Nothing is said of anybody, as usual."""


class Addressees(NamedTuple):
    """Who is named.

    Attributes:
        addresses: each once, in order, at least one.
        said: what is said of those of which there is anything to say.
        given: what the caller named, before lists were expanded; None for the addresses.
    """

    addresses: tuple[Address, ...]
    said: Mapping[Address, RecipientOptions] = NO_OPTIONS
    given: tuple[str, ...] | None = None


def addressees(given: Any, prepared: PreparedMessage, limit: int, expander: Expander | None) -> Addressees:
    """Return whom ``given``, the ``to`` of a submission, names; None leaves it to the message's header.

    Raises:
        NoRecipients: it is nobody.
        TooManyRecipients: they are more than ``limit``.
        InvalidAddress: names the field, as in ``to[3]``.
        InvalidMessage: an address field of the message that is needed cannot be parsed.
        UsageError: it is no list of recipients.
    """
    name = "to"
    if given is None:
        given = prepared.header_recipients()
        name = "To, Cc, Bcc"
    elif isinstance(given, (str, Address)):
        if expander is None:
            return Addressees((parse_address(given, field="to"),))
        return _expanded([("to", given)], limit, name, expander)
    try:
        numbered = enumerate(_several(given))
    except TypeError:
        raise UsageError(
            "to", f"{type(given).__name__} is not a list of addresses", "give a list of str"
        ) from None
    if expander is not None:
        return _expanded(((f"{name}[{index}]", item) for index, item in numbered), limit, name, expander)
    return _collected(numbered, limit, name)


def _several(given: Any) -> Any:
    if isinstance(given, Recipient):
        return (given,)
    if isinstance(given, (bytes, bytearray, memoryview)):
        raise UsageError("to", "octets are not a list of addresses", "give str, or decode them")
    return given


def _collected(numbered: "enumerate[Any]", limit: int, name: str) -> Addressees:
    # A dictionary keeps the first of equal addresses and the order.
    found: dict[Address, None] = {}
    said: dict[Address, RecipientOptions] = {}
    for index, item in numbered:
        if isinstance(item, Recipient):
            _take(item, f"{name}[{index}]", found, said)
        else:
            try:
                found[parse_address(item)] = None
            except InvalidAddress as error:
                raise InvalidAddress(f"{name}[{index}]", error.problem, error.remedy) from None
        if len(found) > limit:
            raise TooManyRecipients(
                name, f"names more than {limit} recipients", "submit the message several times"
            )
    if not found:
        raise _nobody(name)
    return Addressees(tuple(found), said or NO_OPTIONS)


def _take(
    given: Recipient, field: str, found: dict[Address, None], said: dict[Address, RecipientOptions]
) -> None:
    address = parse_address(given.address, field=field)
    options = recipient_options(given, address, field)
    if options is not None and address not in found:
        said[address] = options
    found[address] = None


def _expanded(
    numbered: Iterable[tuple[str, object]], limit: int, name: str, expander: Expander
) -> Addressees:
    expanded = expander.expand(numbered, limit, name)
    if not expanded.recipients:
        raise _nobody(name, expanded.lists)
    said = {address: options for address, options in expanded.recipients.items() if options is not None}
    return Addressees(tuple(expanded.recipients), said or NO_OPTIONS, expanded.given)


def _nobody(name: str, empty: tuple[str, ...] = ()) -> NoRecipients:
    if empty:
        verb = "are" if len(empty) > 1 else "is"
        return NoRecipients(
            name, f"names nobody: {', '.join(empty)[:200]} {verb} empty", "put somebody on the list"
        )
    return NoRecipients(
        name, "names nobody", "give at least one recipient in to=, or To, Cc or Bcc in the message"
    )
