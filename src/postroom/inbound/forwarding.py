"""Sending an incoming message on: redirected as it is, or as an attachment of a message of one's own. Pure."""

from collections.abc import Sequence
from typing import Final

from postroom.addresses import Address
from postroom.composing import Attachment, Message
from postroom.envelopes import Submission
from postroom.errors import InvalidMessage
from postroom.inbound.fields import Fields, decoded, printable
from postroom.inbound.hooks import Incoming
from postroom.messages import prepare

__all__ = ["LOOP_FIELD", "attach", "forward"]

LOOP_FIELD: Final = "X-Loop"
"""Names the place that sent a message on, by custom. Not Delivered-To (RFC 9228): that one is written by the mailbox
that we take from as well, so it stands there at the first time already."""

To = Sequence[str | Address] | str | Address


def forward(
    incoming: Incoming, to: To, *, at: str = "", sender: str | None = None, author: str = ""
) -> tuple[Submission, ...]:
    """Return the submission that redirects a message, () if it went through here before.

    The octets are sent as they are behind one field that stops loops; signatures stay valid. There are no Resent
    fields: these are for people who send a message again (RFC 5322 section 3.6.6), while this is what RFC 5321
    section 3.9.1 calls an alias. So the envelope sender stays too, the null one in particular; where it is not known,
    it is taken from the header, or is null if nobody wrote the message.

    Args:
        incoming: what came in.
        to: whom it goes to.
        at: the address or other name of the place that redirects it; "" for the first envelope recipient, or else the
            receiver's name. A message that carries it is not sent on again.
        sender: another envelope sender, "" for the null reverse-path.
        author: From of a message that carries it as an attachment (:func:`attach`) where its octets break what may be
            sent (RFC 5322: lines that are too long, NUL, no author …); "" to let the submission be refused then.
    """
    place = _place(incoming, at)
    if _went_through(incoming, place):
        return ()
    newline = b"\r\n" if b"\r\n" in incoming.content[:4096] else b"\n"
    content = b"%b: %b%b%b" % (LOOP_FIELD.encode(), place.encode(), newline, incoming.content)
    if author and not _may_be_sent(content):
        return attach(incoming, to, author=author, at=at)
    return (
        Submission(message=content, sender=_sender(incoming) if sender is None else sender, to=_listed(to)),
    )


def attach(  # noqa: PLR0913 - keywords only but for what and whom
    incoming: Incoming, to: To, *, author: str, at: str = "", subject: str = "", text: str = ""
) -> tuple[Submission, ...]:
    """Return the submission of a message that carries an incoming one as the file "message.eml", octet by octet.

    Args:
        incoming: what came in.
        to: whom it goes to.
        author: From of the message.
        at: as in :func:`forward`.
        subject: "" for "Fwd: " and that of the message.
        text: what it says beside it.
    """
    place = _place(incoming, at)
    if _went_through(incoming, place):
        return ()
    # As message/rfc822 it would have to be written anew: that type must not be encoded (RFC 2046 section 5.2.1), and
    # what cannot be sent as it is cannot be sent within another message either.
    message = Message(
        subject=subject or f"Fwd: {incoming.digest.subject or '(no subject)'}"[:200],
        text=text or f"A message for {place} is attached as it came.\n",
        attachments=[Attachment("message.eml", incoming.content, "application/octet-stream")],
        sender=author,
        to=[str(address) for address in _listed(to) if _is_mail(address)],
        headers={LOOP_FIELD: place, "Auto-Submitted": "auto-generated"},
    )
    nobody = incoming.sender == "" or _is_automatic(incoming)
    return (Submission(message=message, sender="" if nobody else None, to=_listed(to)),)


def _listed(to: To) -> list[str | Address]:
    return [to] if isinstance(to, str | Address) else list(to)


def _is_mail(address: str | Address) -> bool:
    return address.type == "smtp" if isinstance(address, Address) else "://" not in address and "@" in address


def _place(incoming: Incoming, at: str) -> str:
    place = at or next(iter(incoming.recipients), "") or incoming.receiver or "postroom"
    return printable(place.encode("ascii", "replace").decode("ascii"), 255).replace(" ", "_").lower()


def _went_through(incoming: Incoming, place: str) -> bool:
    fields = Fields(incoming.content)
    return any(decoded(value).lower() == place for value in fields.all(LOOP_FIELD.lower()))


def _is_automatic(incoming: Incoming) -> bool:
    digest = incoming.digest
    return digest.message_class.startswith("REPORT.") or digest.bulk or digest.auto_submitted != "no"


def _sender(incoming: Incoming) -> str | None:
    if incoming.sender is not None:
        return incoming.sender
    return "" if _is_automatic(incoming) else None


def _may_be_sent(content: bytes) -> bool:
    try:
        prepare(content, now=0.0, message_id_domain="localhost", unique="x", max_size=2 * len(content) + 4096)
    except InvalidMessage:
        return False
    return True
