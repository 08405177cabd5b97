"""What an application may choose about reports."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal

from postroom.addresses import parse_address, parse_mailbox
from postroom.domains import Malformed, canonical_domain
from postroom.envelopes import Report
from postroom.errors import ConfigurationError, InvalidAddress
from postroom.reports.facts import DeliveryReport
from postroom.reports.wording import ENGLISH, Wording, english

__all__ = ["ReportPolicy"]

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPolicy:
    """Who is told what became of a message, when, how often and in which words. Times are seconds, sizes octets.

    Attributes:
        kinds: the kinds of report that are made at all; a sender still gets only those it asked for.
        linger: from a message's first failed recipient until the report, so that recipients that end together are
            reported together; a complete message is reported at once.
        delay_after: how long a message may wait before its sender is told, where DELAY is asked for.
        max_original: a failed message that is larger is returned as its header only.
        postmaster: the mailbox that is told when a message without a return address fails (a double bounce); "" to
            only count them.
        reporting_mta: the domain that reports are from; "" for the domain of the Message-IDs.
        author: From of the reports; "" for ``Mail Delivery System <postmaster@…>`` at ``reporting_mta``.
        per_hour: reports that one sender gets in an hour from this process, on average and at once; None for no
            limit. Beyond it they wait; those that would wait longer than ``max_wait`` are not made but counted. What
            goes to a function (``deliver``) has no limit.
        max_wait: see ``per_hour``.
        templates: what a report says to people, by kind; kinds left out are in English
            (:mod:`postroom.reports.wording`).
        deliver: "spool" to send reports as messages through the spool, or a function that is called with each
            :class:`postroom.reports.facts.DeliveryReport` instead, at least once. While it raises it is called again,
            for a day.
        callback_timeout: how long that function may take; then its thread is abandoned.

    Raises:
        ConfigurationError: a value is out of range or malformed; names it.
    """

    kinds: AbstractSet[Report] = frozenset(Report)
    linger: float = 10.0
    delay_after: float = 4 * HOUR
    max_original: int = 50_000
    postmaster: str = ""
    reporting_mta: str = ""
    author: str = ""
    per_hour: int | None = 1000
    max_wait: float = HOUR
    templates: Mapping[Report, Wording] = field(default_factory=lambda: ENGLISH)
    deliver: Literal["spool"] | Callable[[DeliveryReport], object] = "spool"
    callback_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("linger", "delay_after", "max_original", "max_wait"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(name, f"{getattr(self, name)!r} is negative", "give a number from 0")
        for name in ("per_hour", "callback_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(name, f"{value!r} is not positive", "give a number above 0")
        if self.deliver != "spool" and not callable(self.deliver):
            raise ConfigurationError("deliver", f"{self.deliver!r} is unknown", 'give "spool" or a function')
        try:
            object.__setattr__(self, "kinds", frozenset(map(Report, self.kinds)))
        except (TypeError, ValueError):
            raise ConfigurationError(
                "kinds", f"{self.kinds!r} is no set of Report", "give {Report.FAILURE}"
            ) from None
        self._check_addresses()

    def _check_addresses(self) -> None:
        try:
            if self.postmaster:
                object.__setattr__(self, "postmaster", parse_mailbox(self.postmaster, field="postmaster")[1])
            if self.author:
                parse_mailbox(self.author, field="author")
        except InvalidAddress as error:
            raise ConfigurationError(error.field, error.problem, error.remedy) from None
        if self.reporting_mta:
            try:
                object.__setattr__(self, "reporting_mta", canonical_domain(self.reporting_mta))
            except Malformed as error:
                raise ConfigurationError(
                    "reporting_mta", f"{self.reporting_mta!r} {error.problem}", error.remedy
                ) from None

    def wording(self, kind: Report) -> Wording:
        """Return what makes the text of a report."""
        return self.templates.get(kind, english)

    def host(self, otherwise: str) -> str:
        """Return the domain that reports are from."""
        return self.reporting_mta or otherwise

    def author_at(self, host: str) -> str:
        """Return who reports of a host are from."""
        return self.author or f"Mail Delivery System <postmaster@{host}>"

    def reaches(self, sender: str) -> bool:
        """Return whether a report can be sent to ``sender``: not to a sender that is not a mailbox."""
        try:
            return bool(sender) and parse_address(sender).type == "smtp"
        except InvalidAddress:
            return False
