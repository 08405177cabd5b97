"""The settings of a spooler, apart from its transports."""

from dataclasses import dataclass
from typing import Literal

from postroom.errors import ConfigurationError
from postroom.retries import DAY
from postroom.stores.driver import Synchronous

__all__ = ["Settings"]

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a spooler behaves. Times are in seconds, sizes in octets.

    Attributes:
        max_message_size: larger messages are refused.
        max_recipients: submissions with more are refused (RFC 5321 section 4.5.3.1.8 asks for at least 100).
        message_id_domain: right-hand side of the Message-ID headers that are added; "" for this host's name.
        keep_sent: how long a message's record is kept once it is complete; None for ever, 0 not at all.
        keep_content: how long its octets are kept once it is complete; 0 not at all.
        lifetime: when ``expires_at`` is not given, how long after submission a message is tried; None without limit
            (the transports' retry policies still give up by themselves).
        expire_held: whether what is held expires too; else only once it is released.
        unroutable: what happens to a recipient that no transport reaches: "raise" refuses the submission, "fail"
            accepts it and reports the recipient as failed.
        search: whether subjects and addresses are indexed for :meth:`postroom.Spooler.search`.
        submit_timeout: how long ``submit`` waits for durability before it raises ``SpoolFull`` (there was no room) or
            ``SpoolUnavailable`` (the store did not answer).
        max_waiting_messages: messages that may wait to be made durable.
        max_waiting_octets: their content.
        synchronous: "full" survives power loss; "normal" survives only the death of the process.
        sync_interval: how often the work of other processes on the same spool is looked for.
    """

    max_message_size: int = 50 * MIB
    max_recipients: int = 10_000
    message_id_domain: str = ""
    keep_sent: float | None = 7 * DAY
    keep_content: float = 0.0
    lifetime: float | None = None
    expire_held: bool = False
    unroutable: Literal["raise", "fail"] = "raise"
    search: bool = True
    submit_timeout: float = 30.0
    max_waiting_messages: int = 20_000
    max_waiting_octets: int = 128 * MIB
    synchronous: Synchronous = "full"
    sync_interval: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "max_message_size", "max_recipients", "submit_timeout", "max_waiting_messages", "max_waiting_octets",
            "sync_interval",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not positive", "give a number above 0"
                )
        for name in ("keep_sent", "keep_content", "lifetime"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigurationError(
                    name, f"{value!r} is negative", "give seconds from 0, or None where allowed"
                )
        if self.unroutable not in {"raise", "fail"}:
            raise ConfigurationError(
                "unroutable", f"{self.unroutable!r} is unknown", 'give "raise" or "fail"'
            )
        if self.synchronous not in {"full", "normal", "extra", "off"}:
            raise ConfigurationError(
                "synchronous", f"{self.synchronous!r} is unknown", 'give "full" or "normal"'
            )
