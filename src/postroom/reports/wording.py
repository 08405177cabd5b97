"""What a report says to people. English by default; every text can be replaced."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from string import Template
from textwrap import wrap
from typing import Final, TypedDict

from postroom.addresses import Address
from postroom.envelopes import Report
from postroom.errors import ConfigurationError
from postroom.reports.addressing import host_in, one_line
from postroom.reports.facts import Action, ReportedRecipient, ReportFacts

__all__ = ["ENGLISH", "PLACEHOLDERS", "TemplateWording", "Text", "Wording", "english", "placeholders"]

LISTED: Final = 100
"""Recipients that are named in the text at most; the delivery status names all."""

WIDTH: Final = 76
INDENT: Final = "    "

MAX_SUBJECT: Final = 120
"""Characters of the message's subject that are repeated in the report's."""


class _WholeWords(TypedDict):
    break_long_words: bool
    break_on_hyphens: bool


# What a server said is quoted as it is: programs search it for addresses and hosts.
_WHOLE_WORDS: Final[_WholeWords] = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True, slots=True)
class Text:
    """What people read: a subject of one line, and the text with LF line ends."""

    subject: str
    body: str


Wording = Callable[[ReportFacts, str], Text]
"""Makes the text of a report. The second argument says what is returned: "message", "header" or ""."""


def address_text(address: Address) -> str:
    """Return an address as people write it."""
    if address.type == "smtp":
        return f"<{address.value}>"
    return f"<{address}>"


def _names(
    recipients: tuple[ReportedRecipient, ...], describe: Callable[[ReportedRecipient], list[str]]
) -> str:
    lines: list[str] = []
    for recipient in recipients[:LISTED]:
        lines += ["", address_text(recipient.address)]
        for line in describe(recipient):
            lines += wrap(line, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT + "  ", **_WHOLE_WORDS)
    if len(recipients) > LISTED:
        lines += ["", f"... and {len(recipients) - LISTED} more, named in the delivery status below."]
    return "\n".join(lines[1:])


def _reason(recipient: ReportedRecipient) -> list[str]:
    reply = recipient.reply
    said = (
        one_line(" ".join(part for part in (str(reply.code or ""), reply.status, reply.text) if part))
        if reply
        else ""
    )
    lines: list[str] = []
    if recipient.expired:
        lines.append(f"was not delivered in time, after {_times(recipient.attempts)}")
        if said:
            lines.append(f"the last answer was: {said}")
    elif said:
        lines.append(f"{_who(recipient)}: {said}")
    elif recipient.action is Action.DELAYED:
        lines.append(
            "has not been tried yet: the way there is not available"
            if not recipient.attempts
            else "no answer"
        )
    else:
        lines.append("no reason was given")
    return lines + _origin(recipient)


def _who(recipient: ReportedRecipient) -> str:
    remote = host_in(one_line(recipient.reply.remote)) if recipient.reply is not None else ""
    return f"{remote} said" if remote else "the reason"


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _origin(recipient: ReportedRecipient) -> list[str]:
    lines = [
        f"tried before as {address_text(former.address)}: {one_line(str(former.reply))}"
        for former in recipient.former
    ]
    if recipient.original is not None and all(f.address != recipient.original for f in recipient.former):
        lines.append(f"originally {address_text(recipient.original)}")
    if recipient.via:
        lines.append(f"from the distribution list {one_line(' > '.join(recipient.via))}")
    return lines


def _waiting(recipient: ReportedRecipient) -> list[str]:
    lines = _reason(recipient)
    if recipient.retry_until is not None:
        lines.append(f"will be tried until {formatdate(recipient.retry_until)}")
    return lines


def _success(recipient: ReportedRecipient) -> list[str]:
    said = {
        Action.DELIVERED: "delivered",
        Action.RELAYED: "handed on to a system that may send no further report",
        Action.EXPANDED: "delivered to the members of a distribution list",
    }
    return [said[recipient.action], *_origin(recipient)]


def _count(facts: ReportFacts, *actions: Action) -> str:
    """Return "its recipient", "one of its 3 recipients", "either of its recipients" and so on."""
    number = sum(recipient.action in actions for recipient in facts.recipients)
    if facts.total <= 1:
        return "its recipient"
    if number == facts.total:
        if Action.DELIVERED in actions:
            return "both of its recipients" if number == 2 else f"all of its {number} recipients"
        return "either of its recipients" if number == 2 else f"any of its {number} recipients"
    return f"{'one' if number == 1 else number} of its {facts.total} recipients"


_GOOD: Final = (Action.DELIVERED, Action.RELAYED, Action.EXPANDED)


def placeholders(facts: ReportFacts, what: str) -> dict[str, str]:
    """Return what a :class:`TemplateWording` may use, by name; see :data:`PLACEHOLDERS`."""

    def of(*actions: Action) -> tuple[ReportedRecipient, ...]:
        return tuple(recipient for recipient in facts.recipients if recipient.action in actions)

    failed, delayed, good = of(Action.FAILED), of(Action.DELAYED), of(*_GOOD)
    subject = one_line(facts.subject)
    if len(subject) > MAX_SUBJECT:
        subject = subject[: MAX_SUBJECT - 3] + "..."
    return {
        "host": one_line(facts.reporting_mta),
        "author": one_line(facts.author),
        "id": facts.id,
        "sender": one_line(facts.sender) or "<>",
        "subject": subject or "(no subject)",
        "message_id": one_line(facts.message_id),
        "envid": one_line(facts.envid),
        "created": formatdate(facts.created),
        "failed": _names(failed, _reason),
        "delayed": _names(delayed, _waiting),
        "succeeded": _names(good, _success),
        "failed_count": _count(facts, Action.FAILED),
        "delayed_count": _count(facts, Action.DELAYED),
        "succeeded_count": _count(facts, *_GOOD),
        "returned": _RETURNED.get(what, ""),
    }


_RETURNED: Final = {
    "message": "The message itself is attached.",
    "header": "The header of the message is attached.",
}

PLACEHOLDERS: Final = frozenset(
    {
        "host", "author", "id", "sender", "subject", "message_id", "envid", "created", "failed", "delayed", "succeeded",
        "failed_count", "delayed_count", "succeeded_count", "returned",
    }
)  # fmt: skip
"""What a template may use.

host: the reporting host; author: who the report is from; id, sender, subject, message_id, envid, created: of the
message; failed, delayed, succeeded: lists of recipients with reasons, perhaps ""; failed_count and so on: as in "one of
its 3 recipients"; returned: a sentence on what is attached, perhaps ""."""


@dataclass(frozen=True, slots=True)
class TemplateWording:
    """A wording made of two :class:`string.Template` texts.

    Attributes:
        subject: one line.
        body: the text; paragraphs that are left empty by their placeholders may stay empty.

    Raises:
        ConfigurationError: a placeholder is unknown or malformed.
    """

    subject: str
    body: str

    def __post_init__(self) -> None:
        for name, text in (("subject", self.subject), ("body", self.body)):
            template = Template(text)
            unknown = set(template.get_identifiers()) - PLACEHOLDERS
            if unknown or not template.is_valid():
                raise ConfigurationError(
                    f"templates.{name}",
                    f"uses {', '.join(sorted(f'${one}' for one in unknown)) or 'a lone $'}",
                    f"use of ${', $'.join(sorted(PLACEHOLDERS))}; write $$ for a dollar",
                )

    def __call__(self, facts: ReportFacts, what: str) -> Text:
        """Fill the templates."""
        values = placeholders(facts, what)
        return Text(
            Template(self.subject).substitute(values), _tidied(Template(self.body).substitute(values))
        )


def _tidied(body: str) -> str:
    """Return ``body`` without runs of empty lines, which empty placeholders leave behind."""
    lines: list[str] = []
    for line in body.strip().split("\n"):
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


_FOOT = """\
Subject:   $subject
Sent:      $created
From:      $sender
Reference: $id

$returned
"""

_FAILURE = TemplateWording(
    "Undelivered: $subject",
    """\
This is the mail system at $host.

Your message did not reach $failed_count.
It will not be tried again for:

$failed

""",
)
_ALSO_DELAYED = TemplateWording("-", "Still being tried, so that nothing needs to be done:\n\n$delayed\n")
_ALSO_SUCCEEDED = TemplateWording("-", "Arrived:\n\n$succeeded\n")
_DELAY = TemplateWording(
    "Delayed: $subject",
    """\
This is the mail system at $host.

THIS IS A WARNING ONLY. YOU NEED NOT SEND THE MESSAGE AGAIN.

Your message has not reached $delayed_count so far.
It is being tried further for:

$delayed

""",
)
_SUCCESS = TemplateWording(
    "Delivered: $subject",
    """\
This is the mail system at $host.

As you asked to be told: your message has reached $succeeded_count.

$succeeded

""",
)
_DOUBLE = TemplateWording(
    "Double bounce: $subject",
    """\
This is the mail system at $host.

A message without a return address did not reach $failed_count.
As nobody else can be told, you are:

$failed

""",
)
_CLOSING = TemplateWording("-", _FOOT + "\nDetails for programs follow (RFC 3464).\n")


def english(facts: ReportFacts, what: str) -> Text:
    """Return the text that is used unless it is replaced."""
    if facts.double_bounce:
        text = _DOUBLE(facts, what)
    else:
        text = {Report.FAILURE: _FAILURE, Report.DELAY: _DELAY, Report.SUCCESS: _SUCCESS}[facts.kind](
            facts, what
        )
    parts = [text.body]
    actions = {recipient.action for recipient in facts.recipients}
    if facts.kind is Report.FAILURE and Action.DELAYED in actions:
        parts.append(_ALSO_DELAYED(facts, what).body)
    if facts.kind is not Report.SUCCESS and actions & {*_GOOD}:
        parts.append(_ALSO_SUCCEEDED(facts, what).body)
    parts.append(_CLOSING(facts, what).body)
    return Text(text.subject, "\n".join(parts))


ENGLISH: Final[Mapping[Report, Wording]] = dict.fromkeys(Report, english)
