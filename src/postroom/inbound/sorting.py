"""From what a receiver handed over to what the store keeps: the way of a message that just came in. Pure."""

from collections.abc import Sequence

from postroom.inbound.digesting import digest_of
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule, folders_for
from postroom.inbound.values import Arrival, Digest, NewInbound, RemoteReport

__all__ = ["loop_of", "sort_arrival"]


def loop_of(digest: Digest, policy: ReceivePolicy) -> str:
    """Return why a message is taken for one that goes round in circles (RFC 5321 section 6.3), "" if it is not."""
    if digest.hops <= policy.max_hops:
        return ""
    return f"mail loop: {digest.hops} Received fields, at most {policy.max_hops} are let pass (max_hops)"


def sort_arrival(  # noqa: PLR0913 - keywords only but for the message
    arrival: Arrival,
    *,
    key: int,
    receiver: str,
    now: float,
    rules: Sequence[ReceiveRule] = (),
    policy: ReceivePolicy,
    postprocessed: bool,
    reports: Sequence[RemoteReport] = (),
    digest: Digest | None = None,
) -> NewInbound:
    """Return an incoming message as the store is to have it. Pure; never raises for any content.

    A message in a loop goes to quarantine: no postprocessor sees it, and its reports are not believed, because whatever
    reacts to it may be what keeps it going.

    Args:
        arrival: as the receiver gave it.
        key: its number, new.
        receiver: the receiver's name.
        now: wall-clock seconds.
        rules: which folder, asked in this order.
        policy: of the spooler.
        postprocessed: postprocessors are to see it before it is filed.
        reports: what it says of messages of ours.
        digest: of its content, where somebody has it already.
    """
    digest = digest_of(arrival.content) if digest is None else digest
    received = now if arrival.received is None else arrival.received
    loop = loop_of(digest, policy)
    if loop:
        return NewInbound(
            key=key, arrival=arrival, receiver=receiver, received=received, digest=digest,
            folders=(policy.quarantine,), quarantine=loop,
        )  # fmt: skip
    folders: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    if not postprocessed:
        folders, tags = folders_for(arrival, digest, (), rules, receiver=receiver, default=policy.folder)
    return NewInbound(
        key=key, arrival=arrival, receiver=receiver, received=received, digest=digest, folders=folders,
        report_folder=policy.reports_folder if reports else None, reports=tuple(reports), tags=tags,
    )  # fmt: skip
