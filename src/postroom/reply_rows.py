"""The row that reply tables consist of: which answers it is about, and what they mean."""

import math
import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from fnmatch import translate
from functools import lru_cache

from postroom.errors import ConfigurationError
from postroom.retries import MAX_RETRY_AFTER

__all__ = ["EVERY_PHASE", "OPENING", "REFUSALS", "TRANSACTION", "Phase", "ReplyRow", "Verdict"]


class Phase(Enum):
    """What a reply answers, or during which step an exception was raised."""

    CONNECT = "connect"
    """The connection itself and the greeting (SMTP, LMTP); name, connection and TLS (HTTP)."""
    HELLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    CONTENT = "end of data"
    REQUEST = "request"
    """An HTTP request, from its first octet to the answer."""


OPENING = frozenset({Phase.CONNECT, Phase.HELLO, Phase.STARTTLS, Phase.AUTH})
TRANSACTION = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.CONTENT})
EVERY_PHASE = frozenset(Phase)

REFUSALS = "[3-5].."
"""The codes of a row that does not say which: whatever is no success."""


class Verdict(StrEnum):
    """What a reply means."""

    OK = "ok"
    DEFERRED = "deferred"
    """Temporary, for what the command was about: a recipient, or the message."""
    GREYLISTED = "greylisted"
    """Temporary: the same attempt is wanted again a little later (RFC 6647)."""
    DESTINATION_DOWN = "destination_down"
    """Temporary, for everything at the recipient's domain or host."""
    FAILED = "failed"
    """Permanent, for what the command was about."""
    TRANSPORT_DOWN = "transport_down"
    """The messaging system as a whole does not serve us now."""
    NONSENSE = "nonsense"
    """No server that is in step answers so. Temporary, and the session cannot be used further."""


_CLASSES = {Verdict.OK: "2", Verdict.FAILED: "5"}
_GLOB = re.compile(r"[0-9.*?\[\]!|-]*")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """One row of a reply table. All its conditions must hold; what is left out is no condition.

    ``ReplyRow(Verdict.FAILED, codes="451", text="no such tenant")``

    Attributes:
        means: what such an answer means; as text too, for example "failed".
        codes: reply codes, a regular expression over the three digits, as "450|451" or "5..".
        given: globs over the enhanced status code that the server gave, parted by "|", as "4.7.*"; "" stands for
            an answer without one (HTTP has none).
        text: a regular expression looked for anywhere in the text, in lower or upper case.
        phases: which commands it is about.
        exception: the row is about an exception of this class, not about a reply.
        attempts: only while fewer attempts than this were made before; None for always.
        asked: only when the other side said when to come back (Retry-After).
        retry_after: seconds to wait at least, unless the other side said so itself.
        status: the enhanced status code (RFC 3463) for the record when the server gave none.
        why: where the row comes from, for readers of the table.

    Raises:
        ConfigurationError: a field is wrong.
    """

    means: Verdict
    codes: str = REFUSALS
    given: str = "*"
    text: str = ""
    phases: frozenset[Phase] = EVERY_PHASE
    exception: type[BaseException] | None = None
    attempts: int | None = None
    asked: bool = False
    retry_after: float | None = None
    status: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "means", Verdict(self.means))
        except ValueError:
            known = ", ".join(Verdict)
            raise _wrong("means", f"{self.means!r} is unknown", f"give one of: {known}") from None
        self._check_conditions()
        self._check_what_follows()

    @property
    def status_class(self) -> str:
        """The first digit of the enhanced status codes that fit what the row means."""
        return _CLASSES.get(self.means, "4")

    @property
    def is_conditional(self) -> bool:
        """Whether more than code, enhanced status code and phase decide."""
        return bool(self.text) or self.attempts is not None or self.asked

    def matches(self, code: int, status: str, phase: Phase) -> bool:
        """Return whether it is about replies with this code and enhanced status code ("" for none)."""
        return (
            self.exception is None
            and phase in self.phases
            and re.fullmatch(self.codes, f"{code:03d}") is not None
            and (self.given == "*" or _globs(self.given).fullmatch(status) is not None)
        )

    def holds(self, text: str, attempts: int, *, asked: bool) -> bool:
        """Return whether the conditions beyond those of :meth:`matches` hold."""
        return (
            (self.attempts is None or attempts < self.attempts)
            and (asked or not self.asked)
            and (not self.text or re.search(self.text, text, re.IGNORECASE) is not None)
        )

    def matches_exception(self, error: BaseException, phase: Phase, text: str) -> bool:
        """Return whether it is about this exception, which is ``text`` on the record."""
        return (
            self.exception is not None
            and phase in self.phases
            and isinstance(error, self.exception)
            and (not self.text or re.search(self.text, text, re.IGNORECASE) is not None)
        )

    def _check_conditions(self) -> None:
        for name in ("codes", "text"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise _wrong(
                    name, f"is no regular expression: {error}", "escape . ( [ and the like"
                ) from None
        if not any(re.fullmatch(self.codes, str(code)) for code in range(100, 600)):
            raise _wrong("codes", f"{self.codes!r} matches no reply code", 'write it as "450|451" or "5.."')
        if not _GLOB.fullmatch(self.given):
            raise _wrong("given", f"{self.given!r} is no glob over status codes", 'write it as "4.7.*"')
        if not self.phases:
            raise _wrong("phases", "it is empty", "name at least one, or leave it out")
        if self.attempts is not None and self.attempts < 1:
            raise _wrong("attempts", f"{self.attempts} is less than 1", "give 1 for first attempts only")
        if self.exception is not None and (self.codes, self.given) != (REFUSALS, "*"):
            raise _wrong("exception", "an exception has no reply code", "leave codes= and given= out")

    def _check_what_follows(self) -> None:
        if self.retry_after is not None:
            if not (math.isfinite(self.retry_after) and 0 < self.retry_after <= MAX_RETRY_AFTER):
                limit = f"give seconds above 0 and up to {MAX_RETRY_AFTER:.0f}"
                raise _wrong("retry_after", f"{self.retry_after!r} is out of range", limit)
            if self.means in {Verdict.OK, Verdict.FAILED}:
                raise _wrong("retry_after", f"nothing is tried again after {self.means}", "leave it out")
        if self.status and not _STATUS.fullmatch(self.status):
            raise _wrong("status", f"{self.status!r} is no status code", 'write it as "5.1.1" (RFC 3463)')
        if self.status and self.status[0] != self.status_class:
            said = f"{self.status} contradicts {self.means}"
            raise _wrong("status", said, f"begin it with {self.status_class}")


def _wrong(name: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"replies.{name}", problem, remedy)


@lru_cache(maxsize=256)
def _globs(given: str) -> re.Pattern[str]:
    return re.compile("|".join(translate(glob) for glob in given.split("|")))
