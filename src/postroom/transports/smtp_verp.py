"""A return path of its own for each recipient (:mod:`postroom.tokens`). Pure but for what it is given to call."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from postroom.delivery import Delivery
from postroom.errors import SessionStale, TransportDown
from postroom.options import MessageOptions
from postroom.outcomes import Deferred, Outcome, Reply
from postroom.tokens import Tokens
from postroom.transports.base import Limits, Outcomes

__all__ = ["limits_for", "send_each", "signed"]

_NO_OPTIONS = MessageOptions()


def limits_for(limits: Limits, bounces: Tokens | None) -> Limits:
    """Return limits by which couriers get one recipient at a time, if each has a return path of its own."""
    return limits if bounces is None else replace(limits, recipients_per_delivery=1)


def signed(delivery: Delivery, bounces: Tokens) -> tuple[Delivery, ...]:
    """Return one delivery for each target, whose reports come back to a signed address, and with a signed ENVID.

    The null reverse-path stays what it is: on such a message nobody may report (RFC 5321 section 4.5.5). An ENVID that
    the sender gave is left alone.
    """
    if not delivery.sender:
        return (delivery,)
    options = delivery.options or _NO_OPTIONS
    if not options.envid:
        options = replace(options, envid=bounces.envid_for(delivery.key))
    return tuple(
        replace(
            delivery,
            sender=bounces.address_for(delivery.key, target.index),
            targets=(target,),
            options=options,
        )
        for target in delivery.targets
    )


def send_each(
    deliveries: tuple[Delivery, ...],
    send: Callable[[Delivery], Outcomes],
    reconnect: Callable[[], None],
    usable: Callable[[], bool],
) -> Outcomes:
    """Send deliveries of one target each, and say what became of all of them.

    What concerns the server and not the message may be raised by the first only: the outcomes of those that were sent
    must not get lost, or they would be sent again. The others are put off then.

    Args:
        deliveries: at least one.
        send: sends one over the connection.
        reconnect: replaces the connection; may raise TransportDown.
        usable: whether the connection still is.
    """
    outcomes: list[Outcome] = []
    for delivery in deliveries:
        try:
            if outcomes and not usable():
                reconnect()
            try:
                outcome = send(delivery)
            except SessionStale:
                if not outcomes:
                    raise
                reconnect()
                outcome = send(delivery)
        except TransportDown as down:
            if not outcomes:
                raise
            put_off = Deferred(Reply(down.reason, "4.4.2"), down.retry_after)
            outcomes += [put_off] * (len(deliveries) - len(outcomes))
            break
        outcomes += outcome if isinstance(outcome, Sequence) else (outcome,)
    return outcomes[0] if len(outcomes) == 1 else tuple(outcomes)
