"""What a transport says became of a recipient.

The values answer MAPI's ``SubmitMessage``/``EndMessage`` results; actions are named as in RFC 3464 section 2.3.3.
A whole messaging system that is unavailable is not an outcome but the exception
:class:`postroom.errors.TransportDown`: it costs no recipient an attempt.
"""

from dataclasses import dataclass

__all__ = [
    "OK",
    "Accepted",
    "Deferred",
    "Delivered",
    "Failed",
    "NotMine",
    "Outcome",
    "Processed",
    "Relayed",
    "Reply",
]

MAX_REPLY_TEXT = 1000
"""Characters of a remote reply that are kept on the record."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other side said, or what we say in its place.

    Attributes:
        text: the human-readable text, one line, at most ``MAX_REPLY_TEXT`` characters.
        status: enhanced status code "class.subject.detail" (RFC 3463), or "".
        code: the protocol's own reply code (SMTP 250, HTTP 200), or None.
        remote: the host that said it, or "".
        tls: how the connection was secured, as "TLSv1.3 TLS_AES_256_GCM_SHA384", or "".
    """

    text: str = ""
    status: str = ""
    code: int | None = None
    remote: str = ""
    tls: str = ""

    def __str__(self) -> str:
        said = " ".join(part for part in (str(self.code or ""), self.status, self.text) if part)
        return f"{self.remote}: {said}" if self.remote else said


OK = Reply("ok", "2.0.0")


@dataclass(frozen=True, slots=True)
class Delivered:
    """The message is in the recipient's mailbox or application (final)."""

    reply: Reply = OK


@dataclass(frozen=True, slots=True)
class Relayed:
    """The next system took responsibility and may report no further (final), as an SMTP relay does.

    Attributes:
        reply: what it said.
        reports: it also took over the duty to report as the sender asked (RFC 3461 section 5.2.2), so that we do not.
    """

    reply: Reply = OK
    reports: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The other system took it and will report later under ``remote_id``; not final."""

    remote_id: str
    reply: Reply = OK


@dataclass(frozen=True, slots=True)
class Deferred:
    """A temporary refusal: try again later. Costs the recipient an attempt.

    Attributes:
        retry_after: seconds that the other side asked us to wait at least, or None.
        in_doubt: the attempt may have succeeded (the connection broke between the content and the answer), so that
            the next one may be a duplicate. Held instead of tried again where the transport says ``in_doubt="hold"``.
        destination_down: the recipient's domain or host as a whole is unavailable: this recipient was the canary and
            is charged the attempt, all others for that destination wait uncharged until it is probed again.
        greylisted: the other side wants to see the same attempt again a little later (RFC 6647).
    """

    reply: Reply
    retry_after: float | None = None
    in_doubt: bool = False
    destination_down: bool = False
    greylisted: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A permanent refusal (final)."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class NotMine:
    """This transport does not reach the recipient; the next in transport order is tried (MAPI_E_NOT_ME)."""

    reply: Reply = Reply("not handled by this transport", "5.1.2")


@dataclass(frozen=True, slots=True)
class Processed:
    """The preprocessing stage is done with the recipient: it moves on to its first transport. For that stage only.

    Attributes:
        content: the octets to send to this recipient from now on, None for the message's own.
        reply: what was done, for the record.
    """

    content: bytes | None = None
    reply: Reply = Reply("preprocessed", "2.0.0")


Outcome = Delivered | Relayed | Accepted | Deferred | Failed | NotMine | Processed
