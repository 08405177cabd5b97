"""What passes between the webhook transport and its HTTP client: neither needs the other's library."""

from dataclasses import dataclass

from postroom.errors import ConfigurationError
from postroom.outcomes import Reply
from postroom.reply_rows import Phase

__all__ = ["HttpReply", "NoAnswerError", "Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long one request may take, in seconds.

    Attributes:
        connect: until the connection stands, over all addresses of the host; again for the TLS handshake.
        write: between two writes that make progress.
        read: between two reads that bring something; hence how long the receiver may think.
        total: for everything together, so that a receiver that trickles cannot keep a courier.
    """

    connect: float = 10.0
    write: float = 30.0
    read: float = 30.0
    total: float = 120.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"timeouts.{name}", f"{getattr(self, name)!r} is not positive", "give seconds above 0"
                )


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What a receiver answered.

    Attributes:
        code: the HTTP status code.
        text: the beginning of the body, or what the code is called when there is no readable body.
        host: who said it, "host" or "host:port".
        retry_after: the Retry-After header as received, or None.
        location: the Location header as received, or None.
        tls: how the connection is secured, or "".
    """

    code: int
    text: str
    host: str
    retry_after: str | None = None
    location: str | None = None
    tls: str = ""


class NoAnswerError(Exception):
    """No answer was received, or the request was not made at all.

    Attributes:
        reply: what to put on record; a status of class 5 says that trying again cannot help.
        error: the exception behind it, which the reply table judges; None where ``reply`` says all.
        phase: when it happened: ``CONNECT`` or ``REQUEST``.
    """

    def __init__(
        self, reply: Reply, error: BaseException | None = None, phase: Phase = Phase.REQUEST
    ) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.error = error
        self.phase = phase
