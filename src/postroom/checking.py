"""What can be wrong with the parts of a spooler together."""

from collections.abc import Sequence

from postroom.errors import ConfigurationError
from postroom.receivers.base import Receiver
from postroom.tokens import Tokens
from postroom.transports.base import Transport

__all__ = ["check_names", "check_parts", "check_receivers", "check_transports", "tokens_of"]


def check_names(what: str, names: Sequence[str]) -> None:
    """Check that each part has a name of its own that fits labels and paths.

    Raises:
        ConfigurationError: naming the part.
    """
    for position, name in enumerate(names):
        if not name or "/" in name or not name.isprintable():
            raise ConfigurationError(
                f"{what}[{position}].name",
                f"{name!r} is not a name",
                "give printable characters without a slash",
            )
        if name in names[:position]:
            raise ConfigurationError(
                f"{what}[{position}].name", f"{name!r} is taken", f"give each of the {what} a name of its own"
            )


def check_parts(what: str, given: object, kind: type[object]) -> None:
    """Check that all parts are what they must be.

    Raises:
        ConfigurationError: naming the part.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigurationError(what, f"{given!r:.80} is no list", f"give a list of {kind.__name__}")
    for position, each in enumerate(given):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if not isinstance(each, kind):
            raise ConfigurationError(
                f"{what}[{position}]", f"{each!r:.80} is no {kind.__name__}", f"give a {kind.__name__}"
            )


def check_receivers(receivers: Sequence[Receiver]) -> None:
    """Check what all receivers have in common.

    Raises:
        ConfigurationError: naming the receiver, the problem and the remedy.
    """
    check_parts("receivers", receivers, Receiver)
    for position, receiver in enumerate(receivers):
        if not isinstance(receiver.name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise ConfigurationError(
                f"receivers[{position}].name", f"{receiver.name!r} is no text", "give a name"
            )
        for name in ("interval", "poll_timeout"):
            value = getattr(receiver, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(
                    f"receivers[{position}].{name}", f"{value!r} is not positive", "give seconds above 0"
                )
    check_names("receivers", [receiver.name for receiver in receivers])


def check_transports(transports: Sequence[Transport]) -> None:
    """Check what can be wrong with transports together.

    Raises:
        ConfigurationError: naming the transport, the problem and the remedy.
    """
    check_names("transports", [transport.name for transport in transports])
    for position, transport in enumerate(transports):
        if transport.failover_after is not None and not transport.failover_after >= 0:
            raise ConfigurationError(
                f"transports[{position}].failover_after",
                f"{transport.failover_after!r} is negative",
                "give seconds from 0, or None to let recipients wait",
            )
    coupled = [transport.name for transport in transports if transport.tightly_coupled]
    if len(coupled) > 1:
        raise ConfigurationError(
            "transports", f"{' and '.join(coupled)} are all tightly coupled", "choose one of them"
        )


def tokens_of(transports: Sequence[Transport]) -> Tokens | None:
    """Return what reads the addresses that the transports have reports come back to; None where they have none.

    Raises:
        ConfigurationError: two transports have different ones.
    """
    found: list[Tokens] = []
    for transport in transports:
        tokens = getattr(transport, "bounces", None)
        if isinstance(tokens, Tokens) and tokens not in found:
            found.append(tokens)
    if len(found) > 1:
        raise ConfigurationError(
            "transports", "two of them have different bounces", "give all of them the same Tokens"
        )
    return found[0] if found else None
