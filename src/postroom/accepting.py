"""From a checked envelope to what is stored: where each recipient begins, when, and what is to follow. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from postroom.addresses import Address
from postroom.alternatives import turn_to_alternative
from postroom.envelope_recipients import Report
from postroom.envelopes import Envelope
from postroom.errors import UnknownAddressType, UsageError
from postroom.options import RecipientOptions
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.routing import PREPROCESS, Router
from postroom.stores.base import NewRecipient

__all__ = ["STRICT_KEY", "asks_for", "first_due", "new_recipients", "ordering_key"]

STRICT_KEY = "\0transport:{}"
"""The ordering key of messages for a transport that keeps all of them in order; no caller can give such a one."""


def new_recipients(
    envelope: Envelope, router: Router, unroutable: Literal["raise", "fail"], field: str = ""
) -> tuple[NewRecipient, ...]:
    """Return the recipients with the first transport of each one's plan.

    With ``unroutable="fail"`` one that no transport delivers to begins with its first alternative that can be
    delivered, or failed.

    Args:
        envelope: checked.
        router: says who delivers where.
        unroutable: see :class:`postroom.settings.Settings`.
        field: names the submission in errors, as "messages[2]."; "" for the only one.

    Raises:
        UnknownAddressType: no transport delivers to an address or to an alternative, and ``unroutable`` is "raise".
    """
    said = envelope.said
    plan = router.plan
    recipients: list[NewRecipient] = []
    for index, address in enumerate(envelope.recipients):
        names = plan(address)
        options = said.get(address) if said else None
        if names and options is None:
            recipients.append(NewRecipient(address, names[0]))
            continue
        transport = names[0] if names else None
        if unroutable == "raise":
            _check(address, transport, options, router, f"{field}to[{index}]")
        recipients.append(
            NewRecipient(address, transport, options)
            if transport is not None
            else _turned_or_failed(address, options, router)
        )
    return tuple(recipients)


def first_due(envelope: Envelope, now: float) -> float:
    """Return when the message is to be sent first: not before ``send_at``, and when its delivery window is open.

    Raises:
        UsageError: the window does not open before the message expires.
    """
    due = now if envelope.send_at is None else max(now, envelope.send_at)
    if envelope.window is None:
        return due
    due = envelope.window.next_open(due)
    if envelope.expires_at is not None and due >= envelope.expires_at:
        raise UsageError(
            "window",
            f"{envelope.window} does not open before the message expires",
            "let it expire later, or widen the window",
        )
    return due


def asks_for(
    report: Report, reports: Collection[Report], said: Iterable[RecipientOptions | None] = ()
) -> bool:
    """Return whether a kind of report is asked for, of the message or of some recipient."""
    return report in reports or any(
        options is not None and options.report is not None and report.value in options.report
        for options in said
    )


def ordering_key(
    given: str | None, recipients: Sequence[NewRecipient], router: Router, strict: Mapping[str, str]
) -> str | None:
    """Return the key of the messages that this one must not overtake, or None.

    Args:
        given: the caller's key, or None.
        recipients: of the message, planned.
        router: says which transport comes after preprocessing.
        strict: the transports that keep all their messages in order, with their keys.

    Raises:
        UsageError: the message would have to keep two orders.
    """
    names = dict.fromkeys(
        name
        for recipient in recipients
        if (recipient.state is None or not recipient.state.is_final)
        and (name := _delivering(recipient, router)) in strict
    )
    if not names:
        return given
    first, *others = names
    if others:
        raise UsageError(
            "to",
            f"has recipients of the transports {first!r} and {others[0]!r}, which both keep a strict order",
            "submit a message for each",
        )
    if given is not None:
        raise UsageError(
            "ordering_key",
            f"cannot be given for the transport {first!r}, which keeps all its messages in order",
            "leave it out, or set strict_order=False for that transport",
        )
    return strict[first]


def _delivering(recipient: NewRecipient, router: Router) -> str:
    if recipient.transport != PREPROCESS:
        return recipient.transport
    return router.after(recipient.address, PREPROCESS) or PREPROCESS


def _turned_or_failed(address: Address, options: RecipientOptions | None, router: Router) -> NewRecipient:
    turn = turn_to_alternative(address, options, router)
    if turn is not None:
        return NewRecipient(turn.address, turn.transport, turn.options)
    reply = Reply(f"no transport handles addresses of type {address.type!r}", "5.1.2")
    return NewRecipient(address, "", options, State.FAILED, reply, "failed")


def _check(
    address: Address, transport: str | None, options: RecipientOptions | None, router: Router, field: str
) -> None:
    """Refuse an address that no transport delivers to, and such an alternative."""
    if transport is None:
        raise _unroutable(address, options, router, field)
    for number, alternative in enumerate(options.alternatives if options is not None else ()):
        if router.first(alternative) is None:
            raise _unroutable(alternative, None, router, f"{field}.alternatives[{number}]")


def _unroutable(
    address: Address, options: RecipientOptions | None, router: Router, field: str
) -> UnknownAddressType:
    via = f", by way of {' > '.join(options.via)}" if options is not None and options.via else ""
    handled = sorted({kind for route in router.routes for kind in route.address_types})
    return UnknownAddressType(
        field,
        f"no transport handles addresses of type {address.type!r} ({address}{via})",
        f"configure one, or use one of: {', '.join(handled) or 'none, there is no transport'}",
    )
