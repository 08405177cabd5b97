"""What a spooler does with messages besides sending them: values that the host gives once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from postroom.address_book import Names
from postroom.expansion import Expander, Lists
from postroom.hooks import Preprocessor, SentHook
from postroom.inbound.hooks import Postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.receivers.base import Receiver
from postroom.reports.policy import ReportPolicy
from postroom.tokens import Tokens
from postroom.transports.base import Limits

__all__ = ["Handling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """Who is meant, what is done before and after, and who is told.

    Attributes:
        lists: distribution lists (:mod:`postroom.expansion`).
        names: an address book.
        preprocessors: run before a message is sent.
        preprocessing: limits of the stage that runs them; None for its own.
        sent_hooks: told when a message is complete.
        reports: who is told what became of a message; None to make no reports.
        receivers: where messages come from.
        postprocessors: see incoming messages before they are filed.
        rules: where incoming messages are filed.
        receiving: the rest of what is done with incoming messages.
        subscribers: are told of events by messages through the spool.
        tokens: reads the addresses that remote reports come back to; None where no transport makes any.
    """

    lists: Lists | None = None
    names: Names | None = None
    preprocessors: Sequence[Preprocessor] = ()
    preprocessing: Limits | None = None
    sent_hooks: Sequence[SentHook] = ()
    reports: ReportPolicy | None = field(default_factory=ReportPolicy)
    receivers: Sequence[Receiver] = ()
    postprocessors: Sequence[Postprocessor] = ()
    rules: Sequence[ReceiveRule] = ()
    receiving: ReceivePolicy = field(default_factory=ReceivePolicy)
    subscribers: Sequence[WebhookSubscriber] = ()
    tokens: Tokens | None = None

    @property
    def expander(self) -> Expander | None:
        """What expands lists and looks names up; None when there are none."""
        if self.lists is None and self.names is None:
            return None
        return Expander(self.lists, names=self.names)

    @property
    def hooked(self) -> bool:
        """Whether somebody wants to know of every complete message."""
        cleaners = [each for each in self.preprocessors if type(each).clean_up is not Preprocessor.clean_up]
        return bool(self.sent_hooks or cleaners)
