"""The settings of a spooler, apart from its transports."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast

from postroom.errors import ConfigurationError
from postroom.notifying.journalled import KINDS, LIVE_ONLY
from postroom.retries import DAY
from postroom.stores.driver import Synchronous

__all__ = ["Settings"]

MIB = 1024 * 1024

DURABLE_EVENTS = frozenset(
    {
        "InboundChanged",
        "NewMessage",
        "RecipientCancelled",
        "RecipientExpired",
        "RecipientFailed",
        "RecipientHeld",
        "RecipientReported",
    }
)
"""The events that the journal keeps unless told otherwise."""


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
        keep_events: how long the journal of events is kept; 0 keeps none.
        durable_events: which events the journal keeps, by class name; "all" for all of them. What happens to nearly
            every message (queued, delivered, relayed, completed) is not among the usual ones: keeping it costs each
            delivery another row.
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
    keep_events: float = 7 * DAY
    durable_events: frozenset[str] | Literal["all"] = DURABLE_EVENTS
    search: bool = True
    submit_timeout: float = 30.0
    max_waiting_messages: int = 20_000
    max_waiting_octets: int = 128 * MIB
    synchronous: Synchronous = "full"
    sync_interval: float = 1.0

    @property
    def journalled(self) -> frozenset[str]:
        """The names of the events that the journal keeps."""
        if not self.keep_events:
            return frozenset()
        return frozenset(KINDS) - LIVE_ONLY if self.durable_events == "all" else self.durable_events

    def __post_init__(self) -> None:
        for name in (
            "max_message_size", "max_recipients", "submit_timeout", "max_waiting_messages", "max_waiting_octets",
            "sync_interval",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not positive", "give a number above 0"
                )
        for name in ("keep_sent", "keep_content", "lifetime", "keep_events"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or not value >= 0):
                raise ConfigurationError(
                    name, f"{value!r} is negative or no number", "give seconds from 0, or None where allowed"
                )
        self._check_events()
        if self.unroutable not in {"raise", "fail"}:
            raise ConfigurationError(
                "unroutable", f"{self.unroutable!r} is unknown", 'give "raise" or "fail"'
            )
        if self.synchronous not in {"full", "normal", "extra", "off"}:
            raise ConfigurationError(
                "synchronous", f"{self.synchronous!r} is unknown", 'give "full" or "normal"'
            )

    def _check_events(self) -> None:
        if self.durable_events == "all":
            return
        given = cast("object", self.durable_events)  # callers may be untyped
        if isinstance(given, str) or not isinstance(given, Collection):
            raise ConfigurationError(
                "durable_events", f"{given!r} is no choice of events", 'give their names, or "all"'
            )
        object.__setattr__(self, "durable_events", frozenset(self.durable_events))
        for name in self.durable_events:
            if name not in KINDS:
                raise ConfigurationError(
                    "durable_events",
                    f"{name!r} is no event",
                    f"choose among {', '.join(sorted(frozenset(KINDS) - LIVE_ONLY))}",
                )
            if name in LIVE_ONLY:
                raise ConfigurationError(
                    "durable_events",
                    f"{name} is about a part of one process and is not kept",
                    "leave it out, and subscribe() to it",
                )
