"""What an application may choose about receiving."""

from dataclasses import dataclass, field
from typing import Final, Literal, cast

from tenacity import stop_after_attempt, wait_exponential
from tenacity.wait import wait_base

from postroom.errors import ConfigurationError
from postroom.ids import created_at
from postroom.inbound.folders import INBOX, QUARANTINE, REPORTS, check_folder
from postroom.retries import DAY, HOUR, RetryPolicy, wait_jittered

__all__ = ["ReadReceipts", "ReceivePolicy"]

ReadReceipts = Literal["never", "ask", "always"]
"""Whether senders that ask for a disposition notification get one (RFC 8098 section 2.1 wants the user's consent)."""


def _wait() -> wait_base:
    return wait_jittered(wait_exponential(multiplier=30, min=30, max=HOUR))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivePolicy:
    """How incoming messages are dealt with. Times are in seconds. Immutable.

    Attributes:
        folder: where messages go that no rule speaks of.
        reports_folder: where reports about our own messages go; None to treat them as other mail.
        quarantine: where messages go that cannot be dealt with as usual; nothing is ever dropped there.
        max_hops: a message with more Received fields is taken for one in a loop (RFC 5321 section 6.3; it advises 100
            for servers that would refuse it, while here nothing is lost). It goes to ``quarantine`` as it came.
        keep_trash: how long what is in "Trash" is kept; None for ever.
        attempts: how often postprocessing is begun; a message over which it fails each time goes to ``quarantine``. An
            attempt that a crash or the end of the process interrupted counts.
        wait: a tenacity wait: seconds until the next attempt; by default 30 seconds, 1, 2 … minutes up to an hour, each
            varied by a fifth.
        clerks: messages that are postprocessed at the same time.
        read_receipts: "never"; "always"; "ask" to leave it to the user, message by message.
        identities: mail addresses of the users here, which tell whose message it was when a disposition notification
            is sent; needed where receivers do not know the envelope (IMAP, POP3).

    Raises:
        ConfigurationError: a value is out of range; names it.
    """

    folder: str = INBOX
    reports_folder: str | None = REPORTS
    quarantine: str = QUARANTINE
    max_hops: int = 50
    keep_trash: float | None = 30 * DAY
    attempts: int = 5
    wait: wait_base = field(default_factory=_wait)
    clerks: int = 4
    read_receipts: ReadReceipts = "ask"
    identities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("folder", "reports_folder", "quarantine"):
            value = getattr(self, name)
            if value is not None or name != "reports_folder":
                check_folder(value, name)
        for name in ("max_hops", "attempts", "clerks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(name, f"{value!r} is no positive number", "give 1 or more")
        keep = cast("object", self.keep_trash)  # callers may be untyped
        if keep is not None and (not isinstance(keep, int | float) or not keep >= 0):
            raise ConfigurationError(
                "keep_trash", f"{self.keep_trash!r} is negative", "give seconds, or None for ever"
            )
        if not callable(self.wait):
            raise ConfigurationError(
                "wait", f"{self.wait!r} is no wait", "give one of tenacity, as wait_fixed(60)"
            )
        identities = cast("object", self.identities)
        if not isinstance(identities, tuple | list) or not all(
            isinstance(each, str) for each in cast("tuple[object, ...]", identities)
        ):
            raise ConfigurationError(
                "identities", f"{identities!r} is no list of addresses", "give a tuple of texts"
            )
        object.__setattr__(self, "identities", tuple(self.identities))
        if str(self.read_receipts) not in _READ_RECEIPTS:
            raise ConfigurationError(
                "read_receipts", f"{self.read_receipts!r} is unknown", 'give "never", "ask" or "always"'
            )

    def next_attempt(
        self, *, key: int, attempts: int, now: float, retry_after: float | None = None
    ) -> float | None:
        """Return when a message is postprocessed again, in wall-clock seconds; None if it was tried often enough.

        Args:
            key: the message's number, which tells since when it is here.
            attempts: how often it was tried, at least once.
            now: wall-clock seconds.
            retry_after: seconds that are to pass at least.
        """
        policy = RetryPolicy(wait=self.wait, stop=stop_after_attempt(self.attempts))
        return policy.next_attempt(
            attempts=attempts, first_attempt=min(created_at(key), now), now=now, retry_after=retry_after
        )


_READ_RECEIPTS: Final = frozenset({"never", "ask", "always"})
